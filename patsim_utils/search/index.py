"""An index: phrases with the unit vectors of a retriever, a LanceDB table on disk.

It can be added to; a kill leaves it as it was after the last whole chunk. Beside a table that is
compared with whole lies a copy of it, which is read without LanceDB, whose import takes two seconds.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from patsim_utils import storage
from patsim_utils.errors import InputError, clip, named
from patsim_utils.search import retriever as retrievers
from patsim_utils.search.corpus import ANSWER, as_text, refuse_names
from patsim_utils.search.nearest import Approximate, Candidates, Exact, Nearest, unpacked

if TYPE_CHECKING:
    import lancedb
    from sentence_transformers import SentenceTransformer

FORMAT = 2  # of an index
NOTE = "index.json"
TABLE = "phrases"
COPY = "phrases.arrow"  # of a table of at most EXACT phrases
CHUNK = 8192  # phrases that are encoded at a time; a kill loses at most one chunk
INDEXED = 10_000  # phrases from which on classes have an index
EXACT = 200_000  # phrases up to which a query is compared with each

# Retriever's folder, chunks of rows by number -> number and vectors (rows, width) of each chunk, in their order
Encode = Callable[[str, dict[int, pd.DataFrame]], Iterable[tuple[int, np.ndarray]]]
Progress = Callable[[int, int], None]  # phrases that are done, and all of them


class Index:
    """Phrases with their vectors, on disk; other columns than `context` are carried along as text."""

    def __init__(self, folder: Path, *, retriever: str, create: bool = False) -> None:
        """The index in `folder`, a new one where none is there and `create`.

        `retriever`: tuned, minilm, mpnet or a folder.

        InputError: there is no index, or it is of another retriever or version, or damaged; with
        `create`, the folder holds something else. OSError: it cannot be read or written.
        """
        self.folder = folder
        self.retriever = retrievers.folder_of(retriever)
        self.identity = retrievers.identity_of(self.retriever)
        self._nearest: Nearest | None = None
        if create and not (folder / NOTE).is_file():
            self._create()
        if create and not any(folder.glob(f"{TABLE}.lance/_versions/*")):
            storage.remove(folder / f"{TABLE}.lance")  # of a first write that a kill stopped
        self.columns = self._read_note()["columns"]

    def _create(self) -> None:
        """An index without phrases; a retriever that cannot be loaded leaves nothing behind."""
        _ = self.model
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise InputError(f"{named(self.folder)}: holds something that is no index; name another folder")
        self._write_note(columns=None)

    def _write_note(self, *, columns: list[str] | None) -> None:
        note = {"format": FORMAT, "retriever": self.identity, "columns": columns}
        storage.write_text(self.folder / NOTE, json.dumps(note))

    def _read_note(self) -> dict[str, Any]:
        """index.json, if it is of this version and of this retriever."""
        note = read_note(self.folder)
        if note["format"] != FORMAT:
            raise InputError(f"{named(self.folder)}: the index is of another version of patsim; delete the folder")
        if note["retriever"] != self.identity:
            raise InputError(f"{named(self.folder)}: the index is of another retriever; name it, or delete the folder")
        return note

    @cached_property
    def table(self) -> "lancedb.table.Table | None":
        """LanceDB's table, None where nothing has been added yet."""
        import lancedb

        with reading(self.folder):
            self.database = lancedb.connect(self.folder)
            return self.database.open_table(TABLE) if (self.folder / f"{TABLE}.lance").is_dir() else None

    @property
    def model(self) -> "SentenceTransformer | retrievers.MeanPooled":
        return retrievers.load(self.retriever, self.identity)

    def __len__(self) -> int:
        with reading(self.folder):
            if (self.folder / COPY).is_file():
                return len(read_copy(self.folder))
            return 0 if self.table is None else self.table.count_rows()

    def add(self, frame: pd.DataFrame, *, encode: Encode | None = None, progress: Progress | None = None) -> None:
        """Adds the rows of a frame with a column `phrase`, perhaps `context`, a chunk at a time.

        `encode` turns chunks into vectors, such as with workers of Ray; by default this process
        does. Above EXACT phrases the vectors have an approximate index, which later additions
        join. InputError: the frame has other columns than the index.
        """
        rows = self._stored(frame)
        chunks = {start: rows.iloc[start : start + CHUNK] for start in range(0, len(rows), CHUNK)}
        self._nearest = None
        storage.remove(self.folder / COPY)
        for start, values in (encode or encoded)(str(self.retriever), chunks):
            column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
            chunk = pa.Table.from_pandas(chunks[start], preserve_index=False).append_column("vector", column)
            with reading(self.folder):
                if self.table is None:
                    self.table = self.database.create_table(TABLE, chunk)
                else:
                    self.table.add(chunk)
            if progress:
                progress(start + len(chunk), len(rows))
        with reading(self.folder):
            make_indices(self.table, len(self))
            if 0 < len(self) <= EXACT:
                write_copy(self.table.to_arrow(), self.folder)

    def _stored(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows as they are stored: text, and numbers as names, since LanceDB minds some names."""
        if "phrase" not in frame:
            raise InputError("frame: has no column phrase")
        refuse_names(frame.columns, ANSWER, where="frame")
        columns = [name for name in frame.columns if name not in ("phrase", "context")]
        if self.table is None:
            self.columns = columns
            self._write_note(columns=columns)
        elif columns != self.columns:
            wanted = clip(", ".join(self.columns) or "none")
            raise InputError(f"{named(self.folder)}: the index carries other columns along than this table: {wanted}")
        rows = {"phrase": frame["phrase"].map(as_text)}
        rows["context"] = frame["context"].map(as_text) if "context" in frame else ""
        for number, name in enumerate(columns):
            rows[f"column_{number}"] = frame[name].map(as_text)
        return pd.DataFrame(rows, dtype=str)

    def batches(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """Phrases and their vectors, some thousand at a time. OSError: the index is damaged."""
        if self.table is None:
            return
        with reading(self.folder):
            for batch in self.table.search().select(["phrase", "vector"]).to_batches(CHUNK):
                yield batch["phrase"].to_pylist(), unpacked(batch["vector"])

    def whole(self) -> Exact:
        """All phrases in memory. OSError: the index is damaged."""
        with reading(self.folder):
            if (self.folder / COPY).is_file():
                return Exact(read_copy(self.folder), self.columns)
            return Exact(self.table.to_arrow(), self.columns)

    def candidates(self, query: str, *, context: str = "", count: int = 200, only_class: bool = False) -> pd.DataFrame:
        """The nearest phrases of a query, as in `nearest`."""
        return self.nearest([query], [context], count=count, only_class=only_class).rows

    def nearest(
        self,
        queries: Sequence[str],
        contexts: Sequence[str],
        *,
        count: int = 200,
        only_class: bool = False,
    ) -> Candidates:
        """The `count` nearest phrases of each query, each phrase once.

        Columns: the corpus's, `similarity` (the cosine) and `found` (the rank, from 1).

        Phrases of the query's class are preferred (`nearest.SAME_CLASS`); with `only_class` there
        are no others.
        """
        if not len(self):
            raise InputError(f"{named(self.folder)}: the index holds no phrases")
        if self._nearest is None:
            is_large = len(self) > EXACT
            self._nearest = Approximate(self.table, self.columns) if is_large else self.whole()
        values = retrievers.vectors(self.model, queries, precision="fp32")
        with reading(self.folder):
            candidates = self._nearest(values, contexts, count=count, only_class=only_class)
        candidates.rows["found"] = candidates.ranks()
        return candidates


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Turns LanceDB's errors, such as of a file that is cut, into an OSError with a way out."""
    try:
        yield
    except (RuntimeError, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        advice = "if it is damaged, delete that folder, and the index is made anew"
        reason = f"cannot be read or written ({clip(error)})"
        raise OSError(f"{named(folder)}: {reason}; {advice}") from error


def read_note(folder: Path) -> dict[str, Any]:
    """index.json of an index's folder. InputError: it is missing, damaged, or of something else."""
    try:
        note = json.loads((folder / NOTE).read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{named(folder)}: there is no index here") from error
    except OSError as error:
        raise InputError(f"{named(folder)}: cannot be read ({error.strerror or clip(error)})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{named(folder)}: {NOTE} is damaged; if this is an index, delete the folder") from error
    if not isinstance(note, dict) or not note.keys() >= {"format", "retriever"}:
        raise InputError(f"{named(folder)}: {NOTE} is none of an index; if this is an index, delete the folder")
    return note | {"columns": note.get("columns") or []}


def encoded(retriever: str, chunks: dict[int, pd.DataFrame]) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors of each chunk, made in this process."""
    folder = Path(retriever)
    model = retrievers.load(folder, retrievers.identity_of(folder))
    for start, rows in chunks.items():
        yield start, retrievers.vectors(model, rows["phrase"])


def read_copy(folder: Path) -> pa.Table:
    """The copy of an index's table; what is not used of it is not read."""
    with pa.memory_map(str(folder / COPY)) as file:
        return pa.ipc.open_file(file).read_all()


def write_copy(table: pa.Table, folder: Path) -> None:
    """Puts the copy of an index's table beside it, at once."""
    fresh = storage.temporary(folder / COPY)
    with pa.OSFile(str(fresh), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    fresh.replace(folder / COPY)


def make_indices(table: "lancedb.table.Table | None", count: int) -> None:
    """LanceDB's own indices of classes and vectors, where a table has enough rows for them to pay."""
    from lancedb.index import Bitmap, IvfSq

    if count < INDEXED:
        return
    indexed = {tuple(index.columns) for index in table.list_indices()}
    if ("context",) not in indexed:
        table.create_index("context", config=Bitmap())
    if count > EXACT and ("vector",) not in indexed:
        table.create_index("vector", config=IvfSq(distance_type="dot"))
    if indexed:
        table.optimize()
