"""What the first answers cost: seconds of CPU, from the start of a command to its end.

    python tools/startup.py --times 3

Each command runs once before it is measured, so that indices and ONNX forms are made. Other work on the machine adds to
these seconds: run it on a machine that has nothing else to do.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from patsim_utils.data.splits import load

ROWS = 300
WRONG = "a wrong argument"


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured -> arguments of `patsim`; tables lie in `folder`."""
    table = folder / "pairs.csv"
    rows = pd.concat(load("sample").values())[["anchor", "target", "context"]]
    rows.head(ROWS).to_csv(table, index=False)
    score = ["score", str(table), "-o", str(folder / "scored.csv"), "--overwrite"]
    measured = {
        WRONG: [*score, "--no-such-option"],
        "ask": ["ask", "vehicle door", "automobile door", "--context", "B60"],
        f"score of {ROWS} pairs": score,
        "search, warm": ["search", "wireless handset", "--context", "H04", "--corpus", "sample"],
    }
    if find_spec("onnxruntime"):
        measured[f"score of {ROWS} pairs, ONNX Runtime"] = [*score, "--engine", "onnx"]
    return measured


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds_of(arguments: list[str], *, exit_code: int) -> float:
    """CPU of one `patsim` command; RuntimeError with what it said where it ends with another code."""
    before = cpu_of_children()
    ended = subprocess.run([sys.executable, "-m", "patsim_utils", *arguments], capture_output=True, text=True)
    if ended.returncode != exit_code:
        raise RuntimeError(ended.stderr)
    return cpu_of_children() - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in commands(Path(folder)).items():
            exit_code = 2 if name == WRONG else 0
            seconds_of(arguments, exit_code=exit_code)
            seconds = [seconds_of(arguments, exit_code=exit_code) for _ in range(options.times)]
            print(f"{name}: {', '.join(f'{value:.1f}' for value in seconds)} s of CPU", flush=True)


if __name__ == "__main__":
    main()
