"""Kills sample studies and gives the same command again: `python -m tests.kill --times 20`.

SIGKILL goes to the whole process tree, at random moments and at aimed ones. Each study must then end with the metrics
of one that was not killed, with as many epochs, and without a stray file. Small settings keep a study short.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = {"layers": "1", "contrast_layer": "1", "epochs": "2"}
METRICS = ("pearson", "spearman", "mae", "qwk", "loss")


def aims(name: str) -> dict[str, Callable[[], bool]]:
    """What is looked at every millisecond; the kill comes when it is true."""
    work, reports = ROOT / "runs" / f".{name}.work", ROOT / "reports"

    def incomplete(after: int) -> bool:
        checkpoints = [path for path in work.glob("checkpoints/checkpoint-*") if int(path.name[11:]) > after]
        return any(not (path / "trainer_state.json").exists() for path in checkpoints)

    return {
        "in a checkpoint": lambda: incomplete(0),
        "in a later checkpoint": lambda: incomplete(60),
        "in an evaluation": lambda: any(not (path / "matcher.json").exists() for path in work.glob("epoch-*")),
        "after an evaluation": lambda: any(work.glob("epoch-*")),
        "in the report of the run": (work / "run").exists,
        "at the swap of the run": (ROOT / "runs" / name).exists,
        "at the swap of the pages": lambda: (reports / name).exists() or any(reports.glob(f".{name}.*new*")),
    }


def kill_tree(process: subprocess.Popen) -> None:
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself meanwhile
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=10)


def start(name: str, log: Path) -> subprocess.Popen:
    options = [word for pair in SETTINGS.items() for word in ("-p", *pair)]
    words = [sys.executable, "-m", "patsim_utils", "study", "--preset", "sample", "--name", name, *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    streams = {"stderr": subprocess.STDOUT, "start_new_session": True}
    with log.open("a") as file:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, **streams)


def killed(name: str, aim: str, seconds: float, log: Path) -> str:
    """Kills the study at its aim, or after some seconds; what became of it."""
    process, began, hit = start(name, log), time.monotonic(), aims(name).get(aim)
    while process.poll() is None:
        if hit() if hit else time.monotonic() - began > seconds:
            kill_tree(process)
            return f"killed {aim if hit else 'at random'} after {time.monotonic() - began:.1f} s"
        time.sleep(0.001)
    return f"not killed in time (status {process.returncode})"


def finish(name: str, log: Path) -> dict:
    status = start(name, log).wait()
    if status:
        raise SystemExit(f"{name}: the same command ended with {status}; see {log}")
    return json.loads((ROOT / "runs" / name / "metrics.json").read_text())


def strays(name: str) -> list[str]:
    """What lies beside the run, the pages and their locks."""
    expected = {name, f".{name}.lock"}
    found = [path for folder in ("runs", "reports") for path in (ROOT / folder).glob(f"*{name}*")]
    inside = [*(ROOT / "runs" / name).glob(".*"), *(ROOT / "reports" / name).glob(".*")]
    return [str(path.relative_to(ROOT)) for path in [*found, *inside] if path.name not in expected]


def remove(name: str) -> None:
    for folder in ("runs", "reports"):
        for path in (ROOT / folder).glob(f"*{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw, log = random.Random(given.seed), ROOT / "runs" / "kill.log"
    log.parent.mkdir(exist_ok=True)
    remove("kill-")
    began = time.monotonic()
    whole = finish("kill-reference", log)
    seconds = time.monotonic() - began
    good, worst = 0, 0.0
    for number in range(given.times):
        name = f"kill-{number}-{given.seed}"
        aim = [*aims(name), "random", "random", "random"][number % (len(aims(name)) + 3)]
        told = killed(name, aim, draw.uniform(2, seconds), log)
        resumed = finish(name, log)
        splits = ("validation", "test")
        apart = max(abs(resumed[split][key] - whole[split][key]) for split in splits for key in METRICS)
        epochs = [row["epoch"] for row in resumed["epochs"]] == [row["epoch"] for row in whole["epochs"]]
        fine = apart <= 1e-6 and epochs and not strays(name) and not told.startswith("not killed")
        good, worst = good + fine, max(worst, apart)
        print(f"{number + 1}: {told}; metrics apart by {apart:.1e}; stray files: {strays(name) or 'none'}", flush=True)
        remove(name)
    remove("kill-")
    log.unlink()
    print(f"{good} of {given.times} resumed to the same metrics (at most {worst:.1e} apart), seed {given.seed}")
    sys.exit(good < given.times)


if __name__ == "__main__":
    main()
