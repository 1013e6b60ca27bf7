"""Where a result comes from: the repository's root, the commit, the versions, the memory."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """Short hash of the commit that is checked out, with a `+` where files differ, or `unknown`."""
    if not (ROOT / ".git").exists():  # installed somewhere, perhaps within another repository
        return "unknown"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=9", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return "unknown"
    if done.returncode != 0:
        return "unknown"
    return done.stdout.strip()


def environment(*, seed: int) -> dict[str, str | int]:
    """The entry `environment` of metrics.json: commit, date (UTC), versions, seed."""
    return {
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "seed": seed,
    }


def peak_memory() -> float:
    """Largest memory of this process so far in MiB, on Linux and Windows.

    Elsewhere what it has now.
    """
    status = Path("/proc/self/status")
    if status.exists():  # of this process alone, where other counts begin with the parent's
        peak = status.read_text().partition("VmHWM:")[2]
        return int(peak.split()[0]) / 2**10
    memory = psutil.Process().memory_info()
    return getattr(memory, "peak_wset", memory.rss) / 2**20
