"""The ablation: arms that each change one thing, run one by one and resumably, compared in pairs.

An arms file is YAML: for each arm, what it changes in the settings of the preset.

    arms:
      described: {idea: the described method, seeds: 3}
      bce: {idea: plain cross-entropy in place of Smooth K2, against: described, change: {loss: bce}, seeds: 3}

Each arm and seed is a run folder `<folder>/<arm>-seed<k>` of its own, made by a process of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from patsim_utils import data, metrics
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError
from patsim_utils.train import Settings, train

ARMS = ROOT / "notebooks" / "arms"
KEYS = ("idea", "against", "change", "seeds", "shuffle_context")


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of the table: `settings` differ from those of the arm `against` in what `idea` says."""

    name: str
    idea: str
    against: str
    settings: Settings
    seeds: int = 1
    shuffle_context: bool = False  # a control: every anchor gets the class of another one
    stem: str  # of its run folders: its name, or that of an arm before it that runs the very same

    def runs(self, folder: Path) -> dict[int, Path]:
        """Run folder of each seed, from the settings' own seed on."""
        first = self.settings.seed
        return {seed: folder / f"{self.stem}-seed{seed}" for seed in range(first, first + self.seeds)}


class ArmsError(RuntimeError):
    """Some arms failed; the message names each with the last line that it wrote."""


def read_arms(name: str, base: Settings) -> list[Arm]:
    """The arms of `notebooks/arms/<name>.yaml`, in its order, each on top of the `base` settings.

    Raises:
        InputError: the file, an arm's name and what is wrong with it.
    """
    path = ARMS / f"{name}.yaml"
    if not path.is_file():
        raise InputError(
            f"parameter arms: {name!r} is none of {', '.join(sorted(one.stem for one in ARMS.glob('*.yaml')))}"
        )
    try:
        entries = dict(yaml.safe_load(path.read_text(encoding="utf-8"))["arms"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name}: holds no mapping `arms` ({type(error).__name__})") from error
    types = {field.name: field.type for field in fields(Settings)}
    found: dict[str, Arm] = {}
    for arm_name, entry in entries.items():
        where = f"{path.name}: arm {arm_name}"
        entry = entry or {}
        for key in set(entry) - set(KEYS):
            raise InputError(f"{where}: {key!r} is none of {', '.join(KEYS)}")
        change = entry.get("change") or {}
        for key, value in change.items():
            if key not in types:
                raise InputError(f"{where}: there is no parameter {key}")
            try:
                change[key] = types[key](value)
            except ValueError as error:
                raise InputError(f"{where}: parameter {key}: {value!r} is no {types[key].__name__}") from error
        against = entry.get("against", "")
        if against and against not in found:
            raise InputError(f"{where}: `against` names {against!r}, which is no arm above it")
        try:
            settings = replace(base, **change)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        shuffle = entry.get("shuffle_context", False)
        same = (arm.stem for arm in found.values() if (arm.settings, arm.shuffle_context) == (settings, shuffle))
        found[arm_name] = Arm(
            name=arm_name,
            idea=entry.get("idea", arm_name),
            against=against,
            settings=settings,
            seeds=entry.get("seeds", 1),
            shuffle_context=shuffle,
            stem=next(same, arm_name),
        )
    return list(found.values())


def is_done(run: Path, request: Mapping[str, Any]) -> bool:
    """Whether the run folder holds the finished run of this very request."""
    made, metrics_file = run / "request.json", run / "metrics.json"
    return metrics_file.is_file() and made.is_file() and json.loads(made.read_text()) == request


def run_arms(arms: Sequence[Arm], folder: Path, *, share: float = 1.0, processes: int = 1) -> None:
    """Runs what is not done yet, every arm's first seed before any second one, with a line of progress each.

    Args:
        folder: of all run folders; a run that was killed goes on from its checkpoint.
        share: of the training anchors, in (0, 1], the same ones for all arms.
        processes: that train at the same time; the cores are shared among them, GPUs are dealt in turn.

    Raises:
        InputError: share or processes out of range.
        ArmsError: after all others have been run, for those that failed.
    """
    if not 0 < share <= 1:
        raise InputError(f"parameter share: {share} is not in (0, 1]")
    if processes < 1:
        raise InputError(f"--processes: {processes} is less than 1")
    requests = {}
    for turn in range(max(arm.seeds for arm in arms)):
        for arm in arms:
            for seed, run in list(arm.runs(folder).items())[turn : turn + 1]:
                requests[run] = {
                    "settings": asdict(replace(arm.settings, seed=seed)),
                    "share": share,
                    "shuffle_context": arm.shuffle_context,
                }
    waiting = deque(run for run, request in requests.items() if not is_done(run, request))
    print(f"{len(requests) - len(waiting)} of {len(requests)} runs are there already", flush=True)
    threads = max(1, (os.cpu_count() or 1) // processes)
    gpus = torch.cuda.device_count()
    running: dict[Path, tuple[subprocess.Popen, int]] = {}
    failed: dict[str, str] = {}
    began, finished, total = time.time(), 0, len(waiting)
    while waiting or running:
        while waiting and len(running) < processes:
            run = waiting.popleft()
            slot = min(set(range(processes)) - {slot for _, slot in running.values()})
            run.mkdir(parents=True, exist_ok=True)
            (run / "metrics.json").unlink(missing_ok=True)
            (run / "request.json").write_text(json.dumps(requests[run]))
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            if gpus:
                environment["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
            with (run / "log.txt").open("w") as log:
                command = [sys.executable, "-m", "patsim_utils.ablation", str(run.resolve())]
                process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            running[run] = process, slot
        time.sleep(0.2)
        for run in [run for run, (process, _) in running.items() if process.poll() is not None]:
            process, _ = running.pop(run)
            finished += 1
            if process.returncode:
                lines = (run / "log.txt").read_text().strip().splitlines()
                failed[run.name] = lines[-1] if lines else f"ended with status {process.returncode}"
                outcome = f"failed: {failed[run.name]}"
            else:
                outcome = f"Pearson {json.loads((run / 'metrics.json').read_text())['validation']['pearson']:.4f}"
            left = (time.time() - began) / finished * (total - finished)
            print(f"{finished} of {total}: {run.name}, {outcome}; about {left / 60:,.0f} min left", flush=True)
    if failed:
        raise ArmsError("; ".join(f"{name}: {why}" for name, why in failed.items()))


def effects(arms: Sequence[Arm], folder: Path) -> pd.DataFrame:
    """What each arm adds to the arm it is measured against, the largest first.

    Over the seeds that both have; intervals are over anchors and seeds (95 %). An arm on another protocol stands on
    other pairs and has no difference.

    Returns:
        columns `arm`, `idea`, `against`, `seeds`, `pearson` (mean over seeds), `low`, `high`, `seed_low`, `seed_high`
        (of the seeds' own), `compared` (seeds that both have), `difference`, `difference_low`, `difference_high` (these
        three NaN where there is nothing to compare), `seconds` (mean) and `parameters` (trained).
    """
    by_name = {arm.name: arm for arm in arms}
    rows = []
    for arm in arms:
        runs = list(arm.runs(folder).values())
        frames = [_predictions(run) for run in runs]
        recorded = [json.loads((run / "metrics.json").read_text()) for run in runs]
        own = [frame["prediction"].to_numpy() for frame in frames]
        pearson = [one["validation"]["pearson"] for one in recorded]
        row = {
            "arm": arm.name,
            "idea": arm.idea,
            "against": arm.against,
            "seeds": arm.seeds,
            "pearson": sum(pearson) / len(pearson),
            "seed_low": min(pearson),
            "seed_high": max(pearson),
            "compared": 0,
            "seconds": sum(one["train"]["seconds"] for one in recorded) / len(recorded),
            "parameters": recorded[0]["train"]["trainable_parameters"],
        }
        anchor, score = frames[0]["anchor"], frames[0]["score"]
        row["low"], row["high"] = metrics.mean_interval(anchor, score, own)
        other = by_name.get(arm.against)
        if other and other.settings.protocol == arm.settings.protocol:
            reference = [_predictions(run)["prediction"].to_numpy() for run in other.runs(folder).values()]
            seeds = min(len(own), len(reference))
            paired = metrics.paired_effect(anchor, score, reference[:seeds], own[:seeds])
            row |= {"compared": seeds, "difference": paired["difference"]}
            row |= {"difference_low": paired["low"], "difference_high": paired["high"]}
        rows.append(row)
    columns = ["difference", "difference_low", "difference_high"]
    table = pd.DataFrame(rows).reindex(columns=[*rows[0], *(name for name in columns if name not in rows[0])])
    return table.sort_values("difference", ascending=False, ignore_index=True)


def _predictions(run: Path) -> pd.DataFrame:
    frame = pd.read_csv(run / "predictions.csv", keep_default_na=False)
    return frame[frame["split"] == "validation"].reset_index(drop=True)


def shuffled_contexts(frame: pd.DataFrame, *, seed: int) -> pd.DataFrame:
    """A control: the groups (an anchor in a class) trade their classes, so that a class says nothing any more."""
    groups = frame[["anchor", "context"]].drop_duplicates(ignore_index=True)
    traded = groups.assign(new=groups["context"].sample(frac=1, random_state=seed).to_numpy())
    new = frame[["anchor", "context"]].merge(traded, on=["anchor", "context"], how="left")["new"]
    return frame.assign(context=new.to_numpy())


def splits_of(settings: Settings, *, share: float, shuffle_context: bool = False) -> dict[str, pd.DataFrame]:
    """The splits of one run, with a `share` of the training anchors, whatever the settings' seed.

    Where rows are split at random, the held-out rows are those of the same anchors: else a smaller share of the anchors
    would hide a part of the leak.
    """
    splits = data.load(settings.data, protocol=settings.protocol, seed=settings.seed)
    splits["train"] = data.subset(splits["train"], share, seed=0)
    if settings.protocol == "random":
        kept = set(splits["train"]["anchor"])
        splits = {name: frame[frame["anchor"].isin(kept)].reset_index(drop=True) for name, frame in splits.items()}
    if shuffle_context:
        splits = {name: shuffled_contexts(frame, seed=0) for name, frame in splits.items()}
    return splits


def main() -> None:
    """The process of one run: reads request.json in the folder, trains, leaves the run there."""
    run = Path(sys.argv[1])
    request = json.loads((run / "request.json").read_text())
    settings = Settings(**request["settings"])
    splits = splits_of(settings, share=request["share"], shuffle_context=request["shuffle_context"])
    train(splits, settings, run=run)


if __name__ == "__main__":
    main()
