"""The index of a table: made once, and made anew when the table or the retriever has changed."""

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils import storage
from patsim_utils.errors import InputError, named
from patsim_utils.method import backbones
from patsim_utils.search import retriever as retrievers
from patsim_utils.search.corpus import read_corpus
from patsim_utils.search.index import COPY, NOTE, TABLE, Encode, Index, Progress, read_note

SOURCE = "corpus.json"  # of a finished index: what it was made of, and the sizes of its files
BEGUN = "begun.json"  # of an unfinished one: what it is made of
FILES = (NOTE, SOURCE, BEGUN, COPY)  # of an index's folder, beside LanceDB's
LANCE_FOLDER = f"{TABLE}.lance"
LANCE = (".lance", ".manifest", ".txn", ".idx", ".arrow", ".bin")  # endings of LanceDB's own files
HINT = "latest_version_hint.json"  # another file of LanceDB's

Source = dict[str, str]  # digests of the table and of the retriever


def open_index(table: Path, *, retriever: str, encode: Encode | None = None, progress: Progress | None = None) -> Index:
    """The index of a table, `<table>.index`; made if it is missing, damaged or of other content.

    Where the table's folder cannot be written, the index lies in the cache. An unfinished index is
    completed. `encode` and `progress` are those of `Index.add`.

    InputError: the table is no corpus, or a pipe; a folder of that name is no index; the
    retriever cannot be loaded.
    """
    if len(os.fsencode(table.name)) > storage.LONGEST_NAME:
        raise InputError(f"{named(table)}: its name is too long for an index beside it; give it a shorter one")
    retriever_folder = retrievers.folder_of(retriever)
    source = {"table": storage.digest(table), "retriever": retrievers.identity_of(retriever_folder)}
    folders = [table.with_name(f"{table.name}.index"), _cached(table)]
    for folder in folders:
        if is_current(folder, source):
            _finish_swap(folder)
            return Index(folder, retriever=retriever)
    folder = folders[0] if _can_hold_index(table.parent) else folders[1]
    refuse_foreign(folder)
    frame = read_corpus(table)
    if storage.digest(table) != source["table"]:
        raise InputError(f"{named(table)}: was changed while it was read; give the command again")
    retrievers.load(retriever_folder, source["retriever"])  # if it cannot be, nothing is left behind
    with storage.lock(storage.companion(folder, "lock"), named(folder)):
        if not is_current(folder, source):  # another process may have made it meanwhile
            fresh = storage.companion(folder, "new")
            index = _begun(fresh, source, frame, retriever=retriever)
            index.add(frame.iloc[len(index) :], encode=encode, progress=progress)
            _finish(fresh, source)
            storage.swap(fresh, folder)
    return Index(folder, retriever=retriever)


def _can_hold_index(folder: Path) -> bool:
    """Whether a folder can be written, and is none of the system's, as of /dev/stdin."""
    is_system = folder.resolve().parts[:2] in (("/", "dev"), ("/", "proc"))
    return os.access(folder, os.W_OK) and not is_system


def _cached(table: Path) -> Path:
    """Where the index of a table lies whose folder cannot be written."""
    folder = backbones.cache_folder() / "indexes" / storage.digest(os.fsencode(table.resolve()))[:16]
    return folder / f"{table.name}.index"


def is_current(folder: Path, source: Source) -> bool:
    """Whether a finished index of this content is in the folder, and all its files are whole."""
    try:
        note = json.loads((folder / SOURCE).read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in note["files"]}
        return note == source | {"files": sizes, "copy": _digest_of_copy(folder)}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _digest_of_copy(folder: Path) -> str:
    """sha256 of what a search reads of a small index; "" where there is no copy."""
    copy = folder / COPY
    return storage.digest(copy) if copy.is_file() else ""


def _finish_swap(folder: Path) -> None:
    """Deletes the older index that a kill right after the new one came in has left."""
    if not storage.needs_recovery(folder):
        return
    holder = storage.lock(storage.companion(folder, "lock"), named(folder))
    with suppress(InputError, OSError), holder:  # another process is at it, or it may not be deleted
        storage.recover(folder)


def refuse_foreign(folder: Path) -> None:
    """InputError where a folder is there that is no index, or that holds a user's file, too."""
    if not os.path.lexists(folder):
        return
    advice = "the table's index belongs there; move it away"
    if not folder.is_dir() or not (folder / NOTE).is_file():
        raise InputError(f"{named(folder)}: is no index that patsim made; {advice}")
    read_note(folder)
    storage.refuse_others(folder, _is_of_index, "an index")


def _is_of_index(path: Path) -> bool:
    """Whether patsim or LanceDB makes something of this path within an index's folder."""
    top = path.parts[0]
    if len(path.parts) == 1:
        # left by a kill within `storage.write`
        is_temporary = any(top.startswith(f".{name}.") for name in FILES)
        return top in (*FILES, LANCE_FOLDER) or is_temporary
    return top == LANCE_FOLDER and (path.suffix in LANCE or path.name == HINT)


def _begun(fresh: Path, source: Source, frame: pd.DataFrame, *, retriever: str) -> Index:
    """The unfinished index of this content if its rows are the frame's first; else a new one."""
    begun = fresh / BEGUN
    if begun.is_file() and begun.read_text() == json.dumps(source):
        try:
            index = Index(fresh, retriever=retriever, create=True)
            if _holds_first_rows(index, frame):
                return index
        except (InputError, OSError):  # it is damaged
            pass
    storage.remove(fresh)
    index = Index(fresh, retriever=retriever, create=True)
    storage.write_text(begun, json.dumps(source))
    return index


def _holds_first_rows(index: Index, frame: pd.DataFrame) -> bool:
    """Whether an index can be read, holds the first rows of a frame, and a unit vector of each."""
    start = 0
    for phrases, vectors in index.batches():
        end = start + len(phrases)
        lengths = np.linalg.norm(vectors, axis=1)
        if phrases != frame["phrase"].iloc[start:end].to_list() or not np.allclose(lengths, 1, atol=0.01):
            return False
        start = end
    return True


def _finish(fresh: Path, source: Source) -> None:
    """Notes what an index was made of, the sizes of its files, and the content of the copy that is searched.

    A file that is cut is noticed by its size, a bit of the copy that is another by its content.
    """
    sizes = {}
    for path in sorted(fresh.rglob("*")):
        name = str(path.relative_to(fresh))
        is_temporary = path.name.startswith(".")  # left by a kill within `storage.write`
        if path.is_file() and not is_temporary and name not in (SOURCE, BEGUN):
            sizes[name] = path.stat().st_size
    storage.write_text(fresh / SOURCE, json.dumps(source | {"files": sizes, "copy": _digest_of_copy(fresh)}))
    (fresh / BEGUN).unlink()
