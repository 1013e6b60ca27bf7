"""What the choice of threads costs: seconds of `patsim score`, beside a busy process and alone.

    python tools/threads.py --pairs 5000

Beside a busy process the threads that patsim chooses are to take at most 1.2 times the time of one; alone they are to
be as fast as torch's own default. Run it on a machine that has nothing else to do.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from patsim_utils.data.splits import load

BUSY = "while True: pass"
VARIABLES = ("OMP_NUM_THREADS", "PATSIM_THREADS")  # that would decide


@contextmanager
def busy() -> Iterator[None]:
    """A process that computes meanwhile."""
    with subprocess.Popen([sys.executable, "-c", BUSY]) as process:
        try:
            yield
        finally:
            process.kill()


def seconds(pairs: Path, threads: int | None) -> float:
    """Of `patsim score` with so many threads, None for as many as it chooses."""
    command = [sys.executable, "-m", "patsim_utils", "score", str(pairs), "-o", str(pairs.with_suffix(".out.csv"))]
    command.append("--overwrite")
    if threads:
        command += ["--threads", str(threads)]
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def compare(pairs: Path, label: str, *, threads: int, rounds: int) -> None:
    """Prints the best of some rounds with patsim's choice, and with so many threads."""
    own = min(seconds(pairs, None) for _ in range(rounds))
    other = min(seconds(pairs, threads) for _ in range(rounds))
    print(f"{label}: {own:.1f} s; with --threads {threads} {other:.1f} s; ratio {own / other:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    rows = load("sample")["train"][["anchor", "target", "context"]]
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.csv"
        rows.sample(options.pairs, replace=True, random_state=0).to_csv(pairs, index=False)
        with busy():
            compare(pairs, "beside a busy process", threads=1, rounds=options.rounds)
        compare(pairs, "alone", threads=torch.get_num_threads(), rounds=options.rounds)


if __name__ == "__main__":
    main()
