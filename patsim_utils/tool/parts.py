"""Parts of a table that is being scored: they outlive a kill, and no two processes have the same ones."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from patsim_utils import storage
from patsim_utils.errors import InputError, named

if TYPE_CHECKING:
    import pandas as pd

WRITTEN = "written.json"  # of what the table was made that was written last, and its content


@contextmanager
def folder_of(target: Path | None) -> Iterator[Path]:
    """The folder of a table's parts, which no other process has meanwhile; it goes when the table is written."""
    if target is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    folder = storage.companion(target, "parts")
    with storage.lock(folder / "lock", named(target)):
        yield folder
        shutil.rmtree(folder)


def begin(folder: Path) -> Path:
    """Makes the folder of one table's parts; those of another input, model or option go."""
    for other in set(folder.parent.glob("*/")) - {folder}:
        shutil.rmtree(other)
    folder.mkdir(exist_ok=True)
    return folder


def note_written(folder: Path, identity: str, content: bytes) -> None:
    """Records in a folder of parts what is about to be written."""
    entry = {"identity": identity, "content": storage.digest(content)}
    storage.write_text(folder / WRITTEN, json.dumps(entry))


def written_before(target: Path | None) -> str:
    """The identity that `note_written` has, where a kill came right after the writing; else ""."""
    if target is None:
        return ""
    note = storage.companion(target, "parts") / WRITTEN
    try:
        entry = json.loads(note.read_text("utf-8"))
        return entry["identity"] if entry["content"] == storage.digest(target) else ""
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # none, or damaged
        return ""


def discard(target: Path) -> None:
    """Deletes the parts that a kill right after the writing of a table has left."""
    folder = storage.companion(target, "parts")
    if folder.is_dir():
        with suppress(InputError), storage.lock(folder / "lock", named(target)):  # another process is at it
            shutil.rmtree(folder)


def chunks(pairs: pd.DataFrame, size: int, *, whole_groups: bool) -> list[np.ndarray]:
    """Rows of each part, about `size`: those of an anchor in a class side by side.

    With `whole_groups` they are in one part.
    """
    group = pairs.groupby(["anchor", "context"], sort=False).ngroup().to_numpy()
    order = np.argsort(group, kind="stable")
    cuts = np.arange(size, len(group), size)
    if whole_groups:
        ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1
        cuts = np.unique(ends[np.searchsorted(ends, cuts)])
    return [chunk for chunk in np.split(order, cuts) if len(chunk)]


def read(chunks: list[np.ndarray], paths: list[Path]) -> np.ndarray:
    """The parts' values in the order of the rows."""
    values_of_parts = [np.fromfile(path).reshape(len(chunk), -1) for chunk, path in zip(chunks, paths, strict=True)]
    order = np.concatenate(chunks)
    values = np.empty((len(order), values_of_parts[0].shape[1]))
    values[order] = np.concatenate(values_of_parts)
    return values
