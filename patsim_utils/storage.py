"""What is written: files put in place whole, folders swapped, names locked, inputs identified.

Nothing that a user made is deleted here: what lies beside an output for a while has a random name
and a mark inside.
"""

import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from patsim_utils.errors import InputError, clip, named

try:
    import fcntl
except ImportError:  # Windows, where files that a killed writing left are not deleted
    fcntl = None

LONGEST_NAME = 240  # bytes of a file's name; a disk takes 255, and what lies beside it has a longer ending
MARK = "half-done-swap"  # the file that says that a folder is patsim's own, whatever for


def digest(*inputs: str | Path | bytes) -> str:
    """What the inputs are, as sha256: equal for equal content, whatever its place and time.

    Of a file its bytes count, and bytes that were read already count as a file of them. Of a folder
    all files below it count, with their names within it; files and folders whose name starts with a
    dot do not. A pipe can be read only once, so that its bytes are to be given.

    InputError: an input is not there, cannot be read, or is neither a file nor a folder.

    >>> digest(b"steel")[:12]
    'cf74e56cc0aa'
    """
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, bytes):
            total.update(b"file" + hashlib.sha256(item).digest())
            continue
        path = Path(item)
        try:
            if path.is_dir():
                total.update(b"folder" + _digest_of_folder(path))
            else:
                total.update(b"file" + _digest_of_file(path))
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
            if isinstance(error, InputError):
                raise
            reason = clip(getattr(error, "strerror", None) or error)
            raise InputError(f"{named(path)}: cannot be read ({reason})") from error
    return total.hexdigest()


def _digest_of_file(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        reason = "is a pipe or a device, whose content cannot be read twice; give a file"
        raise InputError(f"{named(path)}: {reason}")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _digest_of_folder(folder: Path) -> bytes:
    """Names and contents of all files below a folder.

    Links are followed, each folder is read once.
    """
    total = hashlib.sha256()
    entered = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        real = os.path.realpath(parent)
        if real in entered:  # a link to a folder above
            folders.clear()
            continue
        entered.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and path.is_file():
                relative_name = path.relative_to(folder).as_posix()
                total.update(hashlib.sha256(os.fsencode(relative_name)).digest())
                total.update(_digest_of_file(path))
    return total.digest()


def _raise(error: OSError) -> None:
    raise error


def temporary(path: Path, ending: str = "new") -> Path:
    """A name beside `path` that nobody else has: dotted, with 16 random letters."""
    return path.with_name(f".{path.name[:50]}.{secrets.token_hex(8)}.{ending}")


def companion(path: Path, ending: str) -> Path:
    """The name beside `path` of what belongs to it, such as its parts: the same at each call.

    Names that differ after their fifty first letters have different companions.
    """
    letters = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
    return path.with_name(f".{path.name[:50]}.{letters}.{ending}")


def remove(folder: Path) -> None:
    """Deletes a folder if it is there; of a link the link alone."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def begin(folder: Path) -> None:
    """Makes an empty folder of patsim's own, in the place of what a killed command left.

    InputError: what is there is not known to be patsim's.
    """
    refuse_foreign(folder)
    remove(folder)
    folder.mkdir(parents=True)
    (folder / MARK).touch()


def refuse_foreign(folder: Path) -> None:
    """InputError where something is there that `begin` did not make."""
    if not os.path.lexists(folder):
        return
    is_begun = folder.is_dir() and not any(folder.iterdir())  # a kill came before the mark
    if not is_begun and not (folder / MARK).is_file():
        raise InputError(f"{named(folder)}: is there, and is not known to be of patsim; move it away")


def refuse_others(folder: Path, is_own: Callable[[Path], bool], what: str) -> None:
    """InputError where a folder that is to be replaced holds what a user put there, too.

    `is_own` says of a path within the folder whether it is a part of `what`. It is asked of all
    files, at any depth, and of the folders at the top. A link is a user's.
    """
    for path in sorted(folder.rglob("*")):
        is_asked = path.parent == folder or not path.is_dir()
        if path.is_symlink() or (is_asked and not is_own(path.relative_to(folder))):
            raise InputError(f"{named(path)}: is no part of {what}, which is to be replaced; move it away")


def swap(fresh: Path, target: Path) -> None:
    """Puts the folder `fresh` in the place of the folder `target`.

    `recover` mends what a kill in between leaves.

    The caller holds a lock of `target`. InputError: `target` is a file.
    """
    recover(target)
    if target.exists() and not target.is_dir():
        reason = "is a file, and a folder is to be written there; choose another name"
        raise InputError(f"{named(target)}: {reason}")
    aside = temporary(target, "swap")
    aside.mkdir()
    (aside / MARK).write_bytes(os.fsencode(target.name))
    if os.path.lexists(target):
        target.rename(aside / "old")
    fresh.rename(target)
    _discard(aside)


def recover(target: Path) -> None:
    """After a kill within `swap`: the older folder comes back where the new one did not get in."""
    for aside in _temporaries(target, "swap"):
        if not _made_by_swap(aside, target):
            continue
        if os.path.lexists(aside / "old") and not os.path.lexists(target):
            (aside / "old").rename(target)
        _discard(aside)


def needs_recovery(target: Path) -> bool:
    """Whether a swap of `target` is under way, or was killed."""
    return any(_made_by_swap(aside, target) for aside in _temporaries(target, "swap"))


def _temporaries(path: Path, ending: str) -> list[Path]:
    """What lies beside `path` under names that `temporary` gives."""
    pattern = re.compile(re.escape(f".{path.name[:50]}.") + r"[0-9a-f]{16}\." + ending)
    try:
        siblings = list(path.parent.iterdir())
    except OSError:  # no folder yet, or one that may not be listed
        siblings = []
    return [sibling for sibling in siblings if pattern.fullmatch(sibling.name)]


def _made_by_swap(aside: Path, target: Path) -> bool:
    """Whether the mark of a swap of `target` lies in the folder.

    A kill may come just before it does.
    """
    mark = aside / MARK
    if mark.is_file():
        return mark.read_bytes() == os.fsencode(target.name)
    return aside.is_dir() and not any(aside.iterdir())


def _discard(aside: Path) -> None:
    """Deletes what a swap has set aside; what is deleted in part is not called old any more."""
    if os.path.lexists(aside / "old"):
        (aside / "old").rename(aside / "outdated")
    remove(aside / "outdated")
    remove(aside)


@contextmanager
def lock(path: Path, what: str) -> Iterator[None]:
    """While it lasts no other process holds `path`, a file that is gone afterwards.

    The lock of a process that has died counts for nothing.

    InputError, which begins with `what`: another process holds it, or no file can be made there.
    """
    holder = filelock.FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder.acquire(timeout=0)
    except filelock.Timeout as error:
        reason = "is being written by another process; wait for it, or choose another name"
        raise InputError(f"{what} {reason}") from error
    except OSError as error:
        reason = f"no file can be made in {named(path.parent)} ({error.strerror or clip(error)})"
        raise InputError(f"{what} cannot be written: {reason}") from error
    try:
        yield
    finally:
        # While it is held: who has opened it meanwhile sees that it is gone, and makes another.
        with suppress(OSError):
            path.unlink(missing_ok=True)
        holder.release()


def write(path: Path, content: bytes) -> None:
    """Writes a file beside `path`, and puts it there when all is in it.

    What a killed writing of `path` left beside it is deleted.
    """
    _remove_abandoned(path)
    fresh = temporary(path)
    try:
        with _claimed(fresh):
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
    except BaseException as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.strerror:
            raise OSError(error.errno, error.strerror, str(path)) from error  # of which a full disk says nothing
        raise


@contextmanager
def _claimed(fresh: Path) -> Iterator[None]:
    """Makes a file, and holds its lock, by which others see that its writer lives."""
    if fcntl is None:
        yield
        return
    with fresh.open("xb") as file:
        with suppress(OSError):  # a disk without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_abandoned(path: Path) -> None:
    """Deletes the files of killed writings of `path`: nobody holds their lock.

    One that is younger than a second may not be locked yet.
    """
    if fcntl is None:
        return
    for abandoned in _temporaries(path, "new"):
        with suppress(OSError), abandoned.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.fstat(file.fileno()).st_mtime > 1:
                abandoned.unlink()


def write_text(path: Path, text: str) -> None:
    """Writes a text file at once."""
    write(path, text.encode())
