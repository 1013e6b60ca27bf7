"""The one door for outputs: files written beside and renamed, folders swapped, names locked by a living process."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from patsim_utils.errors import InputError


def remove(folder: Path) -> None:
    """Deletes a folder if it is there; of a link the link alone."""
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder, ignore_errors=True)


def swap(fresh: Path, target: Path) -> None:
    """Puts the folder `fresh` in the place of `target`; a kill in between is mended by `recover`."""
    old = target.with_name(f"{target.name}.old")
    remove(old)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    remove(old)


def recover(target: Path) -> None:
    """After a kill within `swap`: the older folder comes back where the new one did not get in."""
    old = target.with_name(f"{target.name}.old")
    if old.is_dir() and not target.exists():
        old.rename(target)
    remove(old)


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """While it lasts no other process holds `path`, else InputError; the lock of a dead process counts for nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            told = "is being written by another process; wait for it, or choose another name"
            raise InputError(f"{what} {told}") from error
        yield


def write(path: Path, content: bytes) -> None:
    """Writes a file beside `path`, and puts it there when all is in it."""
    fresh = path.with_name(f".{path.name[:50]}.{os.getpid()}")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file at once."""
    write(path, text.encode())
