"""Modules of this room in processes of their own: each has its memory and threads to itself."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from patsim_utils.environment import ROOT


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    message: str  # the last line that it wrote


class Processes:
    """Processes that this one started, possibly from several threads."""

    def __init__(self) -> None:
        self.children: list[subprocess.Popen] = []

    def run(self, module: str, folder: Path, *, threads: int, log: Path) -> Ended:
        """Runs the `main` of a module of this room on a folder; an exception here kills the process.

        `threads`: for computing. `log`: file for all that it writes.
        """
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [
            sys.executable,
            "-u",
            "-m",
            f"patsim_utils.experiments.{module}",
            str(folder.resolve()),
        ]
        with log.open("w") as output:
            pipes = {"stdout": output, "stderr": output}
            process = subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)
            self.children.append(process)
            try:
                status = process.wait()
            except BaseException:
                process.kill()
                process.wait()
                raise
        lines = log.read_text().strip().splitlines()
        return Ended(status, lines[-1] if lines else "no message")

    def stop(self) -> None:
        """Ends all that still run; `run` then returns in its thread."""
        for process in self.children:
            process.terminate()
