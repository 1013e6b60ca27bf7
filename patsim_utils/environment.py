"""Where a result comes from: the repository's root, the commit that is checked out, the versions that ran."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commit() -> str:
    """Short hash of the commit that is checked out, with a `+` where files differ; else `unknown`."""
    if not (ROOT / ".git").exists():  # installed somewhere, perhaps within another repository
        return "unknown"
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=9", "--exclude=*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return "unknown"
    return found.stdout.strip() if found.returncode == 0 else "unknown"


def environment(*, seed: int) -> dict[str, str | int]:
    """The `environment` entry of metrics.json: commit, date (UTC), versions and the seed of the run."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")}
    return {"commit": commit(), "date": datetime.now(UTC).date().isoformat(), **versions, "seed": seed}
