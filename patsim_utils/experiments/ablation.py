"""The ablation: variants that each change one thing, run one by one and resumably, compared in pairs.

`notebooks/variants/<name>.yaml` maps a variant's name to its `idea`, the variant `against` which it is measured, what
it lets `change` in the base configuration, its `seeds` and, as a control, `shuffle_context`. A variant and seed is the
run `<folder>/<variant>-seed<k>`, made by a process of its own; its numbers are kept, its model is not.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patsim_utils import metrics, storage
from patsim_utils.config import Config, read_yaml
from patsim_utils.data.splits import load, subset
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method.matcher import Matcher
from patsim_utils.study import explore
from patsim_utils.training import runs
from patsim_utils.training.fit import check_ratings, fit

VARIANTS = ROOT / "notebooks" / "variants"
COLUMNS = ["variant", "idea", "against", "seeds", "pearson", "low", "high", "worst_seed", "best_seed", "compared"]
COLUMNS += ["difference", "difference_low", "difference_high", "seconds", "parameters"]
COLUMNS += ["protocol", "track", "commit", "date"]
_load = lru_cache(4)(load)


class Variant(BaseModel):
    """One row of the table: its `config` differs from that of the variant `against` in what `idea` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^\w[\w.-]*$")
    idea: str
    against: str = ""
    config: Config
    seeds: int = Field(1, ge=1, le=100)
    shuffle_context: bool = False  # a control: the groups trade their classes, which then say nothing
    stem: str  # of its run folders: its name, or that of a variant above it that is the very same

    def runs(self, folder: Path) -> dict[int, Path]:
        """Run folder of each seed, from the configuration's own seed on."""
        seeds = range(self.config.seed, self.config.seed + self.seeds)
        return {seed: folder / f"{self.stem}-seed{seed}" for seed in seeds}


class VariantsError(RuntimeError):
    """Some variants failed; the message names each with the last line that it wrote."""


def read_variants(name: str, base: Config) -> list[Variant]:
    """The variants of `notebooks/variants/<name>.yaml` on top of `base`; InputError with what is wrong in the file."""
    path = VARIANTS / f"{name}.yaml"
    if path not in (known := sorted(VARIANTS.glob("*.yaml"))):
        raise InputError(f"parameter variants: {clip(name)} is none of {', '.join(one.stem for one in known)}")
    found: dict[str, Variant] = {}
    try:
        entries = dict(read_yaml(path.read_text("utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{path.name}: is no mapping of variants ({clip(error)})") from error
    for title, entry in entries.items():
        where = f"{path.name}: variant {clip(title)}"
        if not isinstance(entry, dict) or not isinstance(entry.get("change", {}), dict):
            raise InputError(f"{where}: is no mapping such as {{idea: squared error, change: {{loss: mse}}}}")
        if more := sorted(entry.keys() - {"idea", "against", "change", "seeds", "shuffle_context"}):
            raise InputError(f"{where}: {clip(more[0])} is none of idea, against, change, seeds, shuffle_context")
        if entry.get("against", "") not in ("", *found):
            raise InputError(f"{where}: against is {clip(entry['against'])}, which is no variant above it")
        config = Config.parse(base.model_dump() | entry.pop("change", {}), source=where)
        key = config, entry.get("shuffle_context", False)
        same = (one.stem for one in found.values() if (one.config, one.shuffle_context) == key)
        try:
            found[title] = Variant(**{"name": title, "config": config, "stem": next(same, title)} | entry)
        except ValidationError as error:
            raise InputError(f"{where}: {error.errors()[0]['loc'][0]}: {error.errors()[0]['msg']}") from error
    return list(found.values())


def run_variants(variants: Sequence[Variant], folder: Path, *, share: float = 1.0, processes: int = 1) -> None:
    """Runs what is not done, every variant's first seed before any second one, with a line of progress each.

    `share`: of the training anchors, in (0, 1], the same ones for all. `processes`: that train at the same time and
    share the cores. A killed run goes on from its checkpoint. InputError: a run of other settings or data is there.
    VariantsError, after all others have been run, for those that failed.
    """
    if not 0 < share <= 1 or processes < 1:
        raise InputError(f"share {share} is to be in (0, 1], processes {processes} at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {run: (one, seed) for one in variants for seed, run in one.runs(folder).items()}
    waiting = []
    for run, (one, seed) in wanted.items():
        request = {"variant": one.model_dump(), "seed": seed, "share": share}
        storage.write_text(run.with_name(f"{run.name}.request.json"), json.dumps(request))
        splits = splits_of(one, share=share)
        try:
            if runs.finished(one.config.model_copy(update={"seed": seed}), splits, run):
                continue
            if seed == one.config.seed:  # what could not be trained is told before the rest is
                check_ratings(splits, one.config)
                Matcher(one.config)
        except InputError as error:
            raise InputError(f"variant {one.name} ({named(run)}): {error}") from error
        waiting.append(run)
    waiting.sort(key=lambda run: wanted[run][1] - wanted[run][0].config.seed)
    print(f"{len(wanted) - len(waiting)} of {len(wanted)} runs are there already", flush=True)
    began, failed, children = time.time(), [], []
    threads = max(1, torch.get_num_threads() // processes)  # as many as this process may have
    with ThreadPoolExecutor(processes) as pool:
        start = partial(pool.submit, process, "ablation", threads=threads, children=children)
        jobs = {start(folder=run, log=run.with_name(f"{run.name}.log")): run for run in waiting}
        try:
            for count, job in enumerate(as_completed(jobs), 1):
                (status, said), left = job.result(), (time.time() - began) / count * (len(jobs) - count) / 60
                failed += [f"{jobs[job].name}: {said} (status {status})"] * bool(status)
                print(f"{count} of {len(jobs)}: {jobs[job].name}, {said}; about {left:,.0f} min left", flush=True)
        except BaseException:  # such as a signal to this process alone: its runs are to stop, too
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.terminate()
            raise
    if failed:
        raise VariantsError("; ".join(failed))


def process(module: str, *, folder: Path, threads: int, log: Path, children: list[subprocess.Popen]) -> tuple[int, str]:
    """Exit status and last line of a module's `main` in a process of its own, which writes the log.

    The process is put into the list `children`, so that another thread can stop it; an exception here kills it.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-u", "-m", f"patsim_utils.experiments.{module}", str(folder.resolve())]
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as one,
    ):
        children.append(one)
        try:
            status = one.wait()
        except BaseException:
            one.kill()
            raise
    return status, (log.read_text().strip().splitlines() or ["no message"])[-1]


def effects(variants: Sequence[Variant], folder: Path) -> pd.DataFrame:
    """What each variant adds to the one it is measured against, the largest first; intervals over anchors and seeds.

    Columns: COLUMNS, means over the seeds; `compared`: seeds that both have; differences are NaN where there is nothing
    to compare, it is the same run, or the held-out pairs are others.
    """
    rows, measured = [], {}
    for one in variants:
        opened = [runs.Run.open(run) for run in one.runs(folder).values()]
        numbers = [run.metrics for run in opened]
        tables = [run.predictions for run in opened]
        held_out = [table[table["split"] == "validation"] for table in tables]
        own, pairs = [table["prediction"] for table in held_out], held_out[0][["anchor", "target", "score"]]
        measured[one.name] = pairs, own, one.stem
        other, reference, stem = measured.get(one.against, (None, [], ""))
        both = min(len(own), len(reference)) if pairs.equals(other) and stem != one.stem else 0
        scored = pairs["anchor"], pairs["score"]
        effect = metrics.paired_difference(*scored, reference[:both], own[:both]).values() if both else [np.nan] * 3
        pearson = [found["validation"]["pearson"] for found in numbers]
        row = [one.name, one.idea, one.against, len(own), np.mean(pearson), *metrics.pearson_interval(*scored, *own)]
        row += [min(pearson), max(pearson), both, *effect, np.mean([found["train"]["seconds"] for found in numbers])]
        row += [numbers[0]["train"]["trainable_parameters"], one.config.protocol]
        made = numbers[0]["environment"]
        rows.append([*row, "listwise" if one.config.listwise else "pair", made["commit"], made["date"]])
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("difference", ascending=False, kind="stable", ignore_index=True)


def sentences(table: pd.DataFrame) -> str:
    """Each row of `effects` in a sentence, as a Markdown list; whether the interval leaves out zero decides."""
    said = []
    for row in table.itertuples():
        found = explore.interval(row.difference, row.difference_low, row.difference_high)
        verb = "makes no significant difference to"
        if row.difference_low > 0 or row.difference_high < 0:
            verb = f"is significantly {'better' if row.difference > 0 else 'worse'} than"
        told = f"{verb} `{row.against}`: {found}, seeds: {row.compared}"
        if not row.compared:
            told = f"reaches {explore.interval(row.pearson, row.low, row.high)} and is compared with no other"
        said.append(f"- **{row.variant}** ({row.idea}) {told}.")
    return "\n".join(said)


def splits_of(variant: Variant, *, share: float) -> dict[str, pd.DataFrame]:
    """The splits of all seeds of a variant, with a `share` of the training anchors."""
    config = variant.config
    splits = _load(config.data, protocol=config.protocol, seed=config.seed)
    splits = subset(splits, share, protocol=config.protocol, seed=0)
    for name, frame in splits.items():
        if variant.shuffle_context:
            group, keys = pd.factorize(pd.MultiIndex.from_frame(frame[["anchor", "context"]]))
            traded = keys.get_level_values(1)[np.random.default_rng(0).permutation(len(keys))]
            splits[name] = frame.assign(context=traded[group])
    return splits


def main() -> None:
    """The process of one run: reads <run>.request.json, trains, leaves the run without its model."""
    run = Path(sys.argv[1])
    request = json.loads(run.with_name(f"{run.name}.request.json").read_text())
    variant = Variant.model_validate(request["variant"])
    config = variant.config.model_copy(update={"seed": request["seed"]})
    found = fit(splits_of(variant, share=request["share"]), config, run)
    shutil.rmtree(run / "model", ignore_errors=True)
    print(f"Pearson {found['validation']['pearson']:.4f}")


if __name__ == "__main__":
    main()
