"""The one door for outputs: files written beside and renamed, folders swapped, names locked by a living process."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patsim_utils.errors import InputError


def swap(fresh: Path, target: Path) -> None:
    """Puts the folder `fresh` in the place of `target`; a kill in between is mended by `recover`."""
    old = target.with_name(f"{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def recover(target: Path) -> None:
    """After a kill within `swap`: the older folder comes back where the new one did not get in."""
    old = target.with_name(f"{target.name}.old")
    if old.is_dir() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """While it lasts no other process holds `path`; the lock of a dead process counts for nothing.

    Raises:
        InputError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{what} is being written by another process; wait for it, or choose another name") from error
        yield


def write_text(path: Path, text: str) -> None:
    """Writes a file at once: beside it first, then renamed, readable as the umask allows."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
