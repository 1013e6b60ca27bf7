"""How fast and how good: this package beside what people would otherwise run (see `systems`).

Each system trains and scores in a process of its own, whose figures are kept.
"""

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from torch.utils.benchmark import Timer

from patsim_utils import metrics, storage
from patsim_utils.config import Config
from patsim_utils.data.splits import fingerprint, load, subset
from patsim_utils.experiments.processes import Processes
from patsim_utils.experiments.systems import DEVICE, SYSTEMS, Splits
from patsim_utils.method import encoder
from patsim_utils.training import devices

CANDIDATES = (10, 100, 1000)  # of the queries that are timed
Results = Mapping[str, dict[str, Any]]  # what `measure` returns, by a label of the system


def query(frame: pd.DataFrame, candidates: int) -> pd.DataFrame:
    """One anchor in one class against distinct targets of the frame, numbered where they are too few."""
    targets = frame["target"].drop_duplicates().sample(frac=1, random_state=0).tolist()
    drawn = list(targets)
    turn = 0
    while len(drawn) < candidates:
        turn += 1
        drawn += [f"{target} {turn}" for target in targets]
    first = frame.iloc[0]
    columns = {"anchor": first["anchor"], "target": drawn[:candidates], "context": first["context"]}
    return pd.DataFrame(columns)


def seconds_of(work: Callable[[], object]) -> float:
    """Median seconds of a call, after one to warm up, over a second or more."""
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return timer.adaptive_autorange(threshold=0.5, min_run_time=1).median


def measure(system: str, config: Config, *, share: float, threads: int, folder: Path) -> dict[str, Any]:
    """Trains and times one of SYSTEMS in a process of its own, on a `share` of the anchors.

    What `folder` holds of the same request and data is read, not measured again. The time of
    training includes tokenising and, for ours alone, checkpoints.

    Returns:
        system, train_seconds, peak_memory_mb (up to the end of training), precision,
            pairs_per_second {what: rate} and
        the frame `validation` with a column `prediction`.

    Raises:
        RuntimeError: the process failed; its last line.
    """
    request = {
        "system": system,
        "config": config.model_dump(),
        "share": share,
        "threads": threads,
        "data": fingerprint(_splits(config, share)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    result = folder / "result.json"
    if not (result.is_file() and _request(folder) == request):
        result.unlink(missing_ok=True)
        storage.write_text(folder / "request.json", json.dumps(request))
        ended = Processes().run("benchmark", folder, threads=threads, log=folder / "log")
        if ended.status:
            raise RuntimeError(f"{system}: {ended.message}")
    measured = json.loads(result.read_text())
    measured["validation"] = pd.read_csv(folder / "scored.csv", keep_default_na=False)
    return measured


def _request(folder: Path) -> dict[str, Any] | None:
    """What was measured in a folder; None where nothing was."""
    path = folder / "request.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _splits(config: Config, share: float) -> Splits:
    splits = load(config.data, protocol=config.protocol, seed=config.seed)
    return subset(splits, share, protocol=config.protocol, seed=config.seed)


def main() -> None:
    """The process that `measure` starts: reads request.json, writes scored.csv, then result.json."""
    folder = Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text())
    config = Config.parse(request["config"])
    torch.set_num_threads(request["threads"])
    transformers.set_seed(config.seed)  # of a new head's weights
    splits = _splits(config, request["share"])
    trained = SYSTEMS[request["system"]](splits, config, folder)
    memory = devices.peak_memory()
    rates = {}
    if trained.seconds:
        rates["training"] = config.epochs * len(splits["train"]) / trained.seconds
    validation = splits["validation"]
    own_precision = request["system"] == "ours"  # it sets its own when it scores
    with nullcontext() if own_precision else encoder.autocast(config.precision, DEVICE):
        for candidates in CANDIDATES:
            asked = query(validation, candidates)
            rates[f"1 x {candidates:,}"] = candidates / seconds_of(partial(trained.score, asked))
        prediction = np.asarray(trained.score(validation), dtype=np.float64)
    validation.assign(prediction=prediction).to_csv(folder / "scored.csv", index=False)
    measured = {
        "system": request["system"],
        "train_seconds": trained.seconds,
        "peak_memory_mb": memory,
        "precision": "bf16" if encoder.uses_bf16(config.precision, DEVICE) else "fp32",
        "pairs_per_second": rates,
    }
    storage.write_text(folder / "result.json", json.dumps(measured, allow_nan=False))


def _peers(results: Results) -> dict[str, dict[str, Any]]:
    """The CrossEncoder of each precision."""
    peers = [measured for measured in results.values() if measured["system"] == "cross_encoder"]
    return {measured["precision"]: measured for measured in peers}


def rates(results: Results) -> pd.DataFrame:
    """Pairs a second.

    Columns: system; what, such as training or 1 x 100; rate; times that of the CrossEncoder of the same precision.
    """
    peers = _peers(results)
    rows = []
    for label, measured in results.items():
        others = peers[measured["precision"]]["pairs_per_second"]
        for what, rate in measured["pairs_per_second"].items():
            rows.append({"system": label, "what": what, "rate": rate, "times": rate / others[what]})
    return pd.DataFrame(rows)


def accuracy(results: Results, *, seed: int = 0) -> pd.DataFrame:
    """How good each system is on validation.

    Columns: system; pearson with its interval low, high; its paired difference to the
    CrossEncoder of the same precision with difference_low, difference_high; seconds and memory_mb
    of training.
    """
    peers = _peers(results)
    rows = []
    for label, measured in results.items():
        frame = measured["validation"]
        others = peers[measured["precision"]]["validation"]["prediction"]
        pairs = frame["anchor"], frame["score"]
        low, high = metrics.pearson_interval(*pairs, frame["prediction"], seed=seed)
        paired = metrics.paired_difference(*pairs, [others], [frame["prediction"]], seed=seed)
        row = {
            "system": label,
            "pearson": metrics.pearson(frame["score"], frame["prediction"]),
            "low": low,
            "high": high,
            "difference": paired["difference"],
            "difference_low": paired["low"],
            "difference_high": paired["high"],
            "seconds": measured["train_seconds"],
            "memory_mb": measured["peak_memory_mb"],
        }
        rows.append(row)
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
