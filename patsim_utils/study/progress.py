"""What a study says on the terminal: what it does, how far it is, what to open."""

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from patsim_utils.config import Parameters
from patsim_utils.environment import ROOT
from patsim_utils.study.explore import duration
from patsim_utils.training import runs

SECONDS = 30.0  # between two lines about one notebook
OTHER_RUNS = {"4_speed", "5_ablation"}  # notebooks that are not about the run of the study's name


def announce(parameters: Parameters, pairs: int, notebooks: list[str], *, preset: str = "") -> None:
    """Says name, preset, data and notebooks, what is loaded or trained, and about how long that takes.

    `pairs`: rows of the training split.
    """
    config = parameters.config
    settings = f"preset {preset}, " if preset else ""
    print(f"study {parameters.name}: {settings}{pairs:,} training pairs of {config.data}", flush=True)
    print(f"notebooks: {', '.join(notebooks)}", flush=True)
    if set(notebooks) <= OTHER_RUNS:
        return
    folder = runs.run_folder(parameters.name)
    if (folder / "metrics.json").is_file() and not parameters.replace:
        print(f"loaded: the finished run {os.path.relpath(folder)}, which is not trained again", flush=True)
        return
    if "2_train" not in notebooks:
        return
    steps = config.epochs * -(-pairs // config.batch_size)
    print(f"training: {config.describe()}; about {steps:,} steps of {config.batch_size} pairs", flush=True)
    if config.data == "sample" and config.backbone == "minilm":
        about = "this takes two to five minutes on two cores; the time left is said after the first steps"
        print(about, flush=True)
    else:
        print("how long it takes is said after the first steps", flush=True)


def conclude(name: str, verdict: str, notebooks: list[str]) -> None:
    """Says how good the run is, and which page to open first."""
    if verdict:
        print(verdict)
    stem = "3_errors" if "3_errors" in notebooks else notebooks[-1]
    page = ROOT / "reports" / name / f"{stem}.html"
    index = ROOT / "reports" / "index.html"
    print(f"open {os.path.relpath(page)}; all studies: {os.path.relpath(index)}")


@contextmanager
def watched(label: str, name: str) -> Iterator[None]:
    """Says on stdout when `label` starts and ends, and how far study `name` is."""
    began = time.time()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SECONDS):
            print(f"{label}: {duration(time.time() - began)}{training(name)}", flush=True)

    print(f"{label}: started", flush=True)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    print(f"{label}: done in {duration(time.time() - began)}", flush=True)


def training(name: str) -> str:
    """How far the training of a study is: `, step 20 of 120, about 2 min left`.

    "" where none is running.
    """
    notes = []
    for run in (f"{name}-leak", name):
        path = runs.work_folder(runs.run_folder(run)) / "progress.json"
        note = _read(path)
        if note:
            notes.append((path.stat().st_mtime, note))
    if not notes:
        return ""
    note = max(notes, key=lambda entry: entry[0])[1]
    text = f", step {note['step']:,} of {note['steps']:,}"
    left = note["seconds"] * (note["steps"] - note["step"]) / max(note["step"], 1)
    if left > 0:
        text += f", about {duration(left)} of training left"
    return text


def _read(path: Path) -> dict[str, Any]:
    """The note of a training; empty where none is there, or it is being replaced."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        counts = {key: int(note[key]) for key in ("step", "steps")}
        return counts | {"seconds": float(note["seconds"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
