"""What a large table takes: memory of reading it, and pairs a second of Ray's workers.

    python tools/large_table.py memory --rows 1000000 --minutes 3
    python tools/large_table.py workers --rows 20000

`memory` ends the scoring after some minutes: a table is read whole before its first pair is scored, and its peak is
seen by then. `workers` is for a machine that has nothing else to do.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

from patsim_utils.data.splits import load


def write_table(path: Path, rows: int) -> None:
    """Distinct pairs: phrases of the sample, a number behind each target."""
    frame = load("sample")["train"][["anchor", "target", "context"]]
    frame = frame.iloc[np.arange(rows) % len(frame)].reset_index(drop=True)
    frame["target"] += " " + frame.index.astype(str)
    frame.to_csv(path, index=False)


def command(table: Path, *words: str) -> list[str]:
    score = [sys.executable, "-m", "patsim_utils", "score", str(table), "-o", str(table.with_suffix(".out.csv"))]
    return [*score, "--status", str(table.with_suffix(".json")), "--overwrite", *words]


def memory(table: Path, options: argparse.Namespace) -> None:
    """Prints the largest memory of `patsim score` until some minutes of scoring are over."""
    status = table.with_suffix(".json")
    peak = 0
    read: float | None = None
    began = time.monotonic()
    with subprocess.Popen(command(table)) as process:
        while process.poll() is None and (read is None or time.monotonic() - began - read < 60 * options.minutes):
            peak = max(peak, psutil.Process(process.pid).memory_info().rss)
            if read is None and status.is_file():
                read = time.monotonic() - began
                print(f"read in {read:.0f} s, {peak / 1e6:,.0f} MB at most", flush=True)
            time.sleep(0.1)
        process.terminate()
    state = json.loads(status.read_text())
    print(f"{state['done']:,} of {state['total']:,} pairs, {peak / 1e6:,.0f} MB at most")


def workers(table: Path, options: argparse.Namespace) -> None:
    """Prints the time of `patsim score` in this process, and with one and two workers of Ray."""
    ray = ["--engine", "ray", "--workers"]
    for label, words in {"one thread": ["--threads", "1"], "one worker": [*ray, "1"], "two": [*ray, "2"]}.items():
        began = time.monotonic()
        subprocess.run(command(table, *words), check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        print(f"{label}: {seconds:.1f} s, {options.rows / seconds:.0f} pairs a second", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("measure", choices=("memory", "workers"))
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--minutes", type=float, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "table.csv"
        write_table(table, options.rows)
        {"memory": memory, "workers": workers}[options.measure](table, options)


if __name__ == "__main__":
    main()
