"""Kills a command and gives it again: `python -m tests.kill --what index --times 20`.

What is killed is a study, the making of a search index, the scoring of a folder, or a distillation. SIGKILL goes to
the whole process tree, at random moments and at aimed ones. The same command must then end with the result of one that
was not killed, and leave the same files and folders. All of it happens in a copy of this repository, of which every
path is compared. Small settings keep the work short.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ["-p", "layers", "1", "-p", "contrast_layer", "1"]
# `patsim` with other constants, on a slow disk: whatever makes a file or a folder appear takes a while
PROGRAM = """
import importlib, json, os, sys, time

def slow(call):
    def slower(*values, **options):
        time.sleep(float(sys.argv[2]))
        return call(*values, **options)
    return slower
for name in ("fsync", "mkdir", "rename", "replace"):
    setattr(os, name, slow(getattr(os, name)))
for path, value in json.loads(sys.argv[1]).items():
    module, _, constant = path.rpartition(".")
    setattr(importlib.import_module(module), constant, value)
from patsim_utils.tool.cli import main
sys.exit(main(sys.argv[3:]))
"""


class Command:
    """A command that is killed, in the copy `house` of the repository: a study."""

    constants: dict[str, int] = {}  # of the package, such as a size of chunks
    pause = 0.02  # seconds that the disk takes
    words = ["study", "--preset", "sample", "--name", "killed", *LAYERS, "-p", "epochs", "2"]
    statuses = (0,)  # that the command may end with
    aims = {  # at which the kill comes: so many paths of the copy match a pattern
        "in a checkpoint": (1, "runs/.killed.work/checkpoints/checkpoint-*"),
        "in a later checkpoint": (2, "runs/.killed.work/checkpoints/checkpoint-*"),
        "in an evaluation": (1, "runs/.killed.work/epoch-*"),
        "after an evaluation": (1, "runs/.killed.work/epoch-*/matcher.json"),
        "in the report of the run": (1, "runs/.killed.work/run"),
        "at the swap of the run": (1, "runs/killed"),
        "at the swap of the pages": (1, "reports/killed"),
    }

    def __init__(self, house: Path) -> None:
        self.house = house
        self.log = house.parent / "log"

    def prepare(self) -> None:
        """Makes a small model; a study leaves it alone."""
        self.run(["train", "--preset", "sample", "--name", "model", *LAYERS, "-p", "epochs", "1"])

    def result(self) -> dict:
        """What must be the same, by names."""
        metrics = json.loads((self.house / "runs/killed/metrics.json").read_text())
        same = {"epochs": len(metrics["epochs"])}
        for split in ("validation", "test"):
            for name in ("pearson", "spearman", "mae", "qwk", "loss"):
                same[f"{split} {name}"] = round(metrics[split][name], 6)
        return same

    def start(self, words: list[str]) -> subprocess.Popen:
        line = [sys.executable, "-c", PROGRAM, json.dumps(self.constants), str(self.pause), *words]
        settings = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(self.house)}
        options = {"cwd": self.house, "env": os.environ | settings, "start_new_session": True}
        with self.log.open("w") as log:
            return subprocess.Popen(line, stdout=log, stderr=log, **options)

    def run(self, words: list[str]) -> None:
        """RuntimeError, with the last line of the command, where it ends with another status."""
        status = self.start(words).wait()
        if status not in self.statuses:
            line = self.log.read_text().strip().rpartition("\n")[2]
            raise RuntimeError(f"{words[0]} ended with {status}: {line}")

    def kill(self, aim: str, seconds: float) -> str:
        """Kills the command at its aim, "at random" after some seconds of computing; says what became of it."""
        process = self.start(self.words)
        began = time.monotonic()
        is_random = aim not in self.aims
        while process.poll() is None:
            is_time = computing(process) > seconds if is_random else self.is_reached(aim)
            if is_time:
                kill_tree(process)
                return f"killed {aim} after {time.monotonic() - began:.1f} s"
            time.sleep(0.05 if is_random else 0.001)
        return f"not killed {aim}, ended with {process.returncode}"

    def is_reached(self, aim: str) -> bool:
        count, pattern = self.aims[aim]
        return len(list(self.house.glob(pattern))) >= count

    def measure(self) -> float:
        """Runs the command to its end; returns its seconds of computing, which no other work prolongs."""
        process = self.start(self.words)
        seconds = 0.0
        while process.poll() is None:
            seconds = max(seconds, computing(process))
            time.sleep(0.05)
        if process.returncode not in self.statuses:
            raise RuntimeError(f"{self.words[0]} ended with {process.returncode}: {self.log.read_text()[-500:]}")
        return seconds


class Index(Command):
    """A search in a table that has an index of half its rows."""

    constants = {"patsim_utils.search.index.CHUNK": 100}
    pause = 0.3
    words = ["search", "wireless handset", "--context", "H04", "--corpus", "corpus.csv", "--run", "runs/model"]
    words += ["--top", "600", "--candidates", "600", "-o", "answer.csv", "--overwrite"]
    aims = {
        "in the first chunk": (1, ".corpus.csv.index.*.new/phrases.lance"),
        "after two chunks": (2, ".corpus.csv.index.*.new/phrases.lance/_versions/*"),
        "in the note": (1, ".corpus.csv.index.*.new/.corpus.json.*.new"),
        "before the swap": (1, ".corpus.csv.index.*.swap"),
        "in the swap": (1, ".corpus.csv.index.*.swap/old"),
        "after the swap": (1, ".corpus.csv.index.*.swap/outdated"),
        "in the answer": (1, ".answer.csv.*.new"),
    }

    def prepare(self) -> None:
        super().prepare()
        rows = pd.read_csv(self.house / "patsim_utils/data/sample/train.csv").drop_duplicates("target")
        phrases = rows.rename(columns={"target": "phrase"})[["phrase", "context"]][:600]
        phrases[::2].to_csv(self.house / "corpus.csv", index=False)
        self.run(self.words)
        (self.house / "answer.csv").unlink()
        phrases.to_csv(self.house / "corpus.csv", index=False)

    def result(self) -> dict:
        return {"answer": (self.house / "answer.csv").read_bytes()}


class Score(Command):
    """Three tables are scored: one as before, one that has changed, and a new one with a bad row."""

    constants = {"patsim_utils.tool.scoring.CHUNK": 50}
    pause = 0.3
    words = ["score", "tables", "-o", "scored", "--run", "runs/model", "--explain", "--on-error", "skip"]
    statuses = (0, 2)  # 2 where the bad row is met
    aims = {
        "after a part": (1, "scored/.b.csv.*.parts/*/1.f64"),
        "in a table that replaces one": (1, "scored/.b.csv.*.new"),
        "in the ledger": (1, "scored/..patsim.json.*.new"),
        "in the reasons": (1, "scored/.c.errors.csv.*.new"),
        "after the reasons": (1, "scored/c.errors.csv"),
        "in a new table": (1, "scored/.c.csv.*.new"),
        "after a new table": (1, "scored/c.csv"),
    }

    def prepare(self) -> None:
        super().prepare()
        rows = pd.read_csv(self.house / "patsim_utils/data/sample/test.csv")[:120]
        tables = self.house / "tables"
        tables.mkdir()
        rows[60:].to_csv(tables / "a.csv", index=False)
        rows[:60].to_csv(tables / "b.csv", index=False)
        self.run(self.words)
        rows.to_csv(tables / "b.csv", index=False)
        rows.loc[3, "context"] = "no class"
        rows[::-1].to_csv(tables / "c.csv", index=False)

    def result(self) -> dict:
        return {path.name: path.read_bytes() for path in (self.house / "scored").glob("*")}


class Distil(Command):
    """A student of a small model."""

    constants = {"patsim_utils.training.distil.SHARD": 10}
    words = ["distil", "--preset", "distil", "--data", "sample", "--name", "killed", "--teacher", "runs/model"]
    words += ["--anchors", "30", *LAYERS, "-p", "epochs", "2"]
    aims = {
        "in the labels": (1, "runs/.killed.labels/*/.0001.csv.*.new"),
        "after some labels": (1, "runs/.killed.labels/*/0001.csv"),
    } | {aim: when for aim, when in Command.aims.items() if "pages" not in aim}


COMMANDS = {"study": Command, "index": Index, "score": Score, "distil": Distil}


def computing(process: subprocess.Popen) -> float:
    """Seconds that a process and its children have computed so far."""
    seconds = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(process.pid)
        for member in (leader, *leader.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
                times = member.cpu_times()
                seconds += times.user + times.system
    return seconds


def kill_tree(process: subprocess.Popen) -> None:
    leader = psutil.Process(process.pid)
    leader.suspend()  # nothing more happens while its children are sought
    family = [leader, *leader.children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=10)


def tree(house: Path) -> set[str]:
    """Every path, but those that Python and LanceDB name as they like."""
    paths = {path.relative_to(house) for path in house.rglob("*")}
    return {str(path) for path in paths if not any(part in path.parts for part in ("__pycache__", "phrases.lance"))}


def faults(command: Command, expected: dict, paths: set[str]) -> list[str]:
    """What is wrong after the killed command was given again, in words; nothing is, if it has mended all."""
    try:
        command.run(command.words)
    except RuntimeError as error:
        return [str(error)]
    result = command.result()
    here = tree(command.house)
    different = [f"{name} differs" for name in expected if result.get(name) != expected[name]]
    missing = [f"{path} is missing" for path in sorted(paths - here)]
    return different + missing + [f"{path} is left" for path in sorted(here - paths)]


def trials(kind: type[Command], work: Path, times: int, seed: int) -> int:
    """Kills a command so many times; returns how often all was right afterwards."""
    prepared = work / "prepared"
    for name in ("patsim_utils", "notebooks", "reports/template"):
        shutil.copytree(ROOT / name, prepared / name)
    kind(prepared).prepare()
    command = kind(work / "house")
    shutil.copytree(prepared, command.house)
    seconds = command.measure()
    expected = command.result()
    paths = tree(command.house)
    aims = [*command.aims, *["at random"] * 3]
    draw = random.Random(seed)
    good = 0
    for number in range(times):
        shutil.rmtree(command.house)
        shutil.copytree(prepared, command.house)
        outcome = command.kill(aims[number % len(aims)], draw.uniform(0.1, 0.8) * seconds)
        wrong = faults(command, expected, paths)
        good += outcome.startswith("killed") and not wrong
        print(f"{number + 1}: {outcome}; {'; '.join(wrong) or 'the same result, no stray file'}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=COMMANDS, default="study")
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="patsim-kill-") as folder:
        good = trials(COMMANDS[words.what], Path(folder), words.times, words.seed)
    print(f"{words.what}: {good} of {words.times} killed commands ended as one that was not killed, seed {words.seed}")
    sys.exit(good < words.times)


if __name__ == "__main__":
    main()
