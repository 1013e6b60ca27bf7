"""search.index: to be written."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import lancedb
import numpy as np
import pandas as pd
import pyarrow as pa
from lancedb.index import Bitmap, IvfSq
from sentence_transformers import SentenceTransformer

from patsim_utils import storage
from patsim_utils.data import cpc
from patsim_utils.data.pairs import normalise
from patsim_utils.data.tables import read_table
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method import backbones
from patsim_utils.ratings import RELATIONS
from patsim_utils.search.retriever import _loaded, vectors

FORMAT = 1  # of an index
CHUNK = 8192  # phrases that are read at a time; a break costs at most one chunk
INDEXED = 10_000  # phrases from which on classes have an index
EXACT = 200_000  # phrases up to which a query is compared with each; beyond, with those of PROBES parts of them
PROBES = 50
SAME_CLASS = 0.05  # added to the similarity of a phrase of the query's class
# Retriever's folder, chunks of rows by number -> number and vectors (rows, width) of each chunk, in their order
Encode = Callable[[str, dict[int, pd.DataFrame]], Iterable[tuple[int, np.ndarray]]]
ANSWER = ("rank", "score", "found", "similarity")  # what an answer adds to a corpus's columns, beside RELATIONS


class Index:
    """Phrases with their vectors, on disk; columns beside `phrase` and `context` are carried along as text."""

    def __init__(self, folder: Path, *, retriever: str, create: bool = False) -> None:
        """The index in `folder`, new where it is not there and `create`; `retriever`: a name or folder.

        InputError: there is none, or it is of another retriever or version, or cannot be read.
        """
        self.folder = folder
        self.retriever = str(Path(backbones.path(retriever)).resolve())  # as Ray's workers find it, too
        self.fingerprint = _fingerprint(Path(self.retriever))
        note = {"format": FORMAT, "retriever": self.fingerprint}
        place = folder / "index.json"
        try:
            if not place.is_file():
                if not create:
                    raise InputError(f"{named(folder)}: there is no index here")
                _loaded(self.retriever, self.fingerprint)  # what cannot be loaded leaves nothing behind
                folder.mkdir(parents=True, exist_ok=True)
                storage.write_text(place, json.dumps(note))
            found = json.loads(place.read_text(encoding="utf-8"))
            self.database, there = lancedb.connect(folder), folder / "phrases.lance"
            if create and not any(there.glob("_versions/*")):
                storage.remove(there)  # a kill within the very first write has left a table without a version
            self.table = self.database.open_table("phrases") if there.is_dir() else None
        except OSError as error:
            raise InputError(f"{named(folder)}: cannot be read or written ({error.strerror or clip(error)})") from error
        except (ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{named(folder)}: is no whole index ({clip(error)})") from error
        if found != note:
            same = isinstance(found, dict) and found.get("format") == FORMAT
            what = "another retriever" if same else "another version of patsim"
            raise InputError(f"{named(folder)}: the index was made by {what}; make it anew in another folder")

    @property
    def model(self) -> SentenceTransformer:
        return _loaded(self.retriever, self.fingerprint)

    def __len__(self) -> int:
        return self.table.count_rows() if self.table else 0

    def add(
        self,
        frame: pd.DataFrame,
        *,
        encode: Encode | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Adds the rows of a frame with a column `phrase` and, if it has one, `context`, a chunk at a time.

        `encode` turns chunks into vectors, such as with workers of Ray; by default this process does. Above EXACT
        phrases the vectors have an approximate index, which later additions join.
        """
        frame = (frame if "context" in frame else frame.assign(context="")).astype(str)
        chunks = {start: frame.iloc[start : start + CHUNK] for start in range(0, len(frame), CHUNK)}
        for start, found in (encode or self._encode)(self.retriever, chunks):
            column = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), found.shape[1])
            rows = pa.Table.from_pandas(chunks[start], preserve_index=False).append_column("vector", column)
            with self._disk():
                if self.table is None:
                    self.table = self.database.create_table("phrases", rows)
                else:
                    self.table.add(rows)
            if progress:
                progress(start + len(rows), len(frame))
        with self._disk():
            self._index()

    def _encode(self, _: str, chunks: dict[int, pd.DataFrame]) -> Iterator[tuple[int, np.ndarray]]:
        """The vectors of each chunk, made in this process."""
        for start, rows in chunks.items():
            yield start, vectors(self.model, rows["phrase"])

    def _index(self) -> None:
        there = {tuple(one.columns) for one in self.table.list_indices()} if len(self) >= INDEXED else ()
        if len(self) >= INDEXED and ("context",) not in there:
            self.table.create_index("context", config=Bitmap())
        if len(self) > EXACT and ("vector",) not in there:
            self.table.create_index("vector", config=IvfSq(distance_type="dot"))
        if there:
            self.table.optimize()

    @contextmanager
    def _disk(self) -> Iterator[None]:
        """OSError, where LanceDB has a RuntimeError for a full disk or a file that is gone."""
        try:
            yield
        except RuntimeError as error:
            raise OSError(f"{named(self.folder)}: cannot be read or written ({clip(error)})") from error

    def candidates(self, query: str, *, context: str = "", count: int = 100, only_class: bool = False) -> pd.DataFrame:
        """The nearest phrases, each once: the corpus's columns, `similarity` (cosine) and `found` (rank, from 1).

        Phrases of the query's class are preferred by SAME_CLASS; with `only_class` there are no others.
        """
        if not len(self):
            raise InputError(f"{named(self.folder)}: the index holds no phrases")
        vector = vectors(self.model, [query])[0]
        columns = [name for name in self.table.schema.names if name != "vector"]
        conditions = [*([] if only_class else [None]), *([f"context = '{context}'"] if context else [])]

        def nearest(condition: str | None, limit: int) -> pd.DataFrame:
            asked = self.table.search(vector).distance_type("dot").nprobes(PROBES).refine_factor(2)
            asked = asked.select([*columns, "_distance"]).limit(limit)
            with self._disk():
                return (asked.where(condition, prefilter=True) if condition else asked).to_pandas()

        limit = 2 * count
        while True:  # more, until there are enough that differ: a phrase may stand in many rows
            found = [nearest(condition, limit) for condition in conditions]
            rows = pd.concat(found).assign(similarity=lambda rows: 1 - rows.pop("_distance"))
            rows["order"] = rows["similarity"] + SAME_CLASS * (rows["context"] == (context or None))
            rows = rows.sort_values("order", ascending=False, kind="stable")
            rows = rows[~rows["phrase"].map(normalise).duplicated()]
            if len(rows) >= count or all(len(part) < limit for part in found):
                rows = rows.head(count).drop(columns="order").reset_index(drop=True)
                return rows.assign(found=np.arange(1, len(rows) + 1))
            limit *= 4


def read_corpus(path: Path) -> pd.DataFrame:
    """A table with a column `phrase`. InputError: a column's name cannot be carried along; with the row, a phrase is
    missing or a context is no class.
    """
    frame, lines = read_table(path)
    lower = [name.lower() for name in frame.columns]
    names = dict(zip(lower, frame.columns, strict=True))
    if "phrase" not in names:
        raise InputError(f"{named(path)}: has no column phrase; it has {clip(', '.join(frame.columns))}")
    taken = {"", *ANSWER, *RELATIONS, "vector", "order"}
    for name, plain in zip(frame.columns, lower, strict=True):
        if lower.count(plain) > 1 or plain in taken or plain.startswith("_") or "." in plain:
            told = "cannot be carried along: it stands twice, is the answer's, is empty, starts with _ or holds a dot"
            told += "; rename it"
            raise InputError(f"{named(path)}: column {clip(name)} {told}")
    frame = frame.rename(columns={names[name]: name for name in ("phrase", "context") if name in names})
    for line, phrase in zip(lines, frame["phrase"], strict=True):
        if not isinstance(phrase, str) or not normalise(phrase):
            raise InputError(f"{named(path)}, row {line}, column phrase: {clip(phrase)} is no phrase")
    if "context" in frame:
        texts = frame["context"].where(frame["context"].notna(), "").map(str)
        codes = [cpc.class_of(text) if text.strip() else "" for text in texts]
        for line, text, code in zip(lines, texts, codes, strict=True):
            if code is None:
                raise InputError(f"{named(path)}, row {line}, column context: {clip(text)} is no CPC class")
        frame["context"] = codes
    return frame


def _fingerprint(folder: Path) -> str:
    """sha256 of the retriever's weights and tokenizer; InputError where its folder has none."""
    weights, digest = sorted(folder.glob("*.safetensors")), hashlib.sha256()
    if not weights:
        raise InputError(f"--retriever: {clip(str(folder))} is no folder with *.safetensors, and not minilm or mpnet")
    for path in [*weights, *folder.glob("tokenizer.json")]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
