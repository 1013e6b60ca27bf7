"""Random names, damaged runs and files of a user's for `python -m tests.fuzz`.

A name is written to or refused before anything is; a run that is opened can be shown; what a user put into a folder of
patsim's stays.
"""

import contextlib
import json
import math
import random
import shutil
from pathlib import Path

import pandas as pd

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.errors import InputError
from patsim_utils.search import table_index
from patsim_utils.tool import outputs
from patsim_utils.training import runs
from tests.fuzz_tables import WrongError, check

PIECES = ("a", "ä", "😀", " ", ".", "-", "..", "new", ".swap", "\n", "\\", "%2F", "a" * 60, "é" * 60, "e\u0301")
ENDINGS = (".csv", ".CSV", ".parquet", ".xlsx", ".tsv.gz", ".json", "")
FIGURES = {"n": 1, "pearson": 0.5, "pearson_ci": [0.4, 0.6], "spearman": 0.5, "mae": 0.1, "qwk": 0.5, "loss": 1.0}
METRICS = {
    "protocol": "anchor_disjoint",
    "data": {"train": "0"},
    "environment": {"commit": "abc", "date": "2026-01-02", "seed": 0},
    "train": {"seconds": 1.0, "trainable_parameters": 7, "device": "cpu", "precision": "fp32"},
    "baselines": {},
    "validation": FIGURES,
}
ROW = {"split": "validation", "anchor": "null", "target": "nan", "context": "G06", "score": 0.25, "prediction": 0.5}
VALUES = (None, "x", "<b>", -1, 1e400, [], {}, [1, 2, 3], True)
LANCE = "phrases.lance"
OF_INDEX = ("index.json", "corpus.json", "phrases.arrow", f"{LANCE}/data/1.lance", f"{LANCE}/_versions/1.manifest")
OF_RUN = ("config.json", "metrics.json", "model/matcher.json", "model/model.safetensors", "model/tokenizer/vocab.txt")
FOLDERS = {"index": (OF_INDEX, table_index.refuse_foreign), "run": (OF_RUN, runs.refuse_foreign)}
OWN = ("notes.txt", "mine.csv", "paper.docx", "figures/1.png", "old/a/b.md")


def names(draw: random.Random, folder: Path) -> None:
    """An output's name is refused, or can be written to, with all that lies beside it for a while."""
    work = folder / "names"
    storage.remove(work)
    work.mkdir()
    path = work / ("".join(draw.choices(PIECES, k=draw.randint(1, 6))) + draw.choice(ENDINGS))
    outputs.check_output(path)
    for beside in (storage.temporary(path, "swap"), storage.companion(path, "parts")):
        beside.mkdir()
        beside.rmdir()
    storage.write(path, b"written")
    check([other.name for other in work.iterdir()] == [path.name], f"{path.name!r} left something beside it")
    check(path.read_bytes() == b"written", f"{path.name!r}")


def damaged_runs(draw: random.Random, folder: Path) -> None:
    """A run with an entry or bytes that are others is refused, or what pages read of it has its kind."""
    run = folder / "damaged-run"
    storage.remove(run)
    run.mkdir()
    metrics = json.loads(json.dumps(METRICS))
    row = dict(ROW)
    part = draw.choice([metrics, metrics["train"], metrics["validation"], metrics["environment"], row])
    part[draw.choice(sorted(part))] = draw.choice(VALUES)
    (run / "config.json").write_text(json.dumps(Config().model_dump()))
    (run / "metrics.json").write_text(json.dumps(metrics))
    pd.DataFrame({"step": [1], "loss": [0.5]}).to_csv(run / "history.csv", index=False)
    pd.DataFrame([row]).to_csv(run / "predictions.csv", index=False)
    if draw.random() < 0.3:
        victim = run / draw.choice(["metrics.json", "predictions.csv", "history.csv", "config.json"])
        content = bytearray(victim.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        victim.write_bytes(content)
    opened = runs.Run.open(run)
    for name in ("pearson", "spearman", "mae", "qwk", "loss"):
        check(isinstance(opened.metrics["validation"][name], float | int), f"validation.{name}")
    low, high = opened.metrics["validation"]["pearson_ci"]
    check(math.isnan(low - high) or isinstance(low - high, float | int), "pearson_ci")
    check(opened.predictions[["score", "prediction"]].dtypes.map(pd.api.types.is_numeric_dtype).all(), "predictions")
    check(opened.predictions["anchor"].map(type).eq(str).all(), "an anchor is no text")


def users_files(draw: random.Random, folder: Path) -> None:
    """A folder that is to be replaced is refused where a user put a file, wherever in it; else it is not."""
    work = folder / "replaced"
    storage.remove(work)
    files, refuse = FOLDERS[draw.choice(sorted(FOLDERS))]
    for name in files:
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(json.dumps({"format": 2, "retriever": ""}))
    refuse(work)
    parents = [path for path in sorted(work.rglob("*")) if path.is_dir()]
    path = draw.choice([work, *parents]) / draw.choice(OWN)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with contextlib.suppress(InputError):
        refuse(work)
        raise WrongError(f"{path.relative_to(work)} would go")
    shutil.rmtree(work)
