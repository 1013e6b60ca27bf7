"""Tables that a search reads: a corpus of phrases, and queries."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from patsim_utils import storage
from patsim_utils.data import cpc
from patsim_utils.data.pairs import normalise
from patsim_utils.data.splits import load
from patsim_utils.data.tables import read_table
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method import backbones
from patsim_utils.ratings import RELATIONS

# Columns of an answer, beside the corpus's
ANSWER = ("rank", "score", *RELATIONS, "similarity", "found", "order")


def read_corpus(path: Path) -> pd.DataFrame:
    """A table of text: a column `phrase`, perhaps `context` (a CPC class or ""), and any others.

    InputError: a column's name stands twice or is one of an answer; with the row: a phrase is
    missing, or a context is no class; no row is there.
    """
    frame, lines = read_table(path)
    frame = _with_plain_names(frame, ("phrase", "context"), needed=("phrase",), where=named(path))
    refuse_names(frame.columns, ANSWER, where=named(path))
    if frame.empty:
        raise InputError(f"{named(path)}: has no row below its header")
    for line, phrase in zip(lines, frame["phrase"], strict=True):
        if not isinstance(phrase, str) or not normalise(phrase):
            raise InputError(f"{named(path)}, row {line}, column phrase: {clip(phrase)} is no phrase")
    columns = {name: [as_text(value) for value in frame[name]] for name in frame.columns}
    if "context" in columns:
        columns["context"] = _classes(columns["context"], lines, where=named(path))
    return pd.DataFrame(columns, dtype=str)


def read_queries(path: Path) -> pd.DataFrame:
    """A table with the columns `query` and `context` (a CPC class each), and any others.

    InputError: a column is missing, its name stands twice or is one of an answer; with the row: a
    query is no phrase, or a context no class; no row is there.
    """
    frame, lines = read_table(path)
    frame = _with_plain_names(frame, ("query", "context"), needed=("query", "context"), where=named(path))
    refuse_names(frame.columns, ("phrase", *ANSWER), where=named(path))
    if frame.empty:
        raise InputError(f"{named(path)}: has no row below its header")
    for line, query, context in zip(lines, frame["query"], frame["context"], strict=True):
        check_query(query, where=f"{named(path)}, row {line}, column query")
        class_of(context, where=f"{named(path)}, row {line}, column context")
    return frame


def check_query(query: object, *, where: str = "query") -> None:
    """InputError, which begins with `where`, where a query is no phrase."""
    if not isinstance(query, str) or not normalise(query):
        raise InputError(f"{where}: {clip(query)} is no phrase")
    if any("\ud800" <= letter <= "\udfff" for letter in query):
        raise InputError(f"{where}: {clip(query)} holds half a character")


def class_of(context: object, *, where: str = "--context") -> str:
    """The CPC class of a context; InputError, which begins with `where`, where that is none."""
    code = cpc.class_of(as_text(context))
    if code is None:
        raise InputError(f"{where}: {clip(context)} is no CPC class, such as H04")
    return code


def refuse_names(names: Iterable[str], taken: Sequence[str], *, where: str) -> None:
    """InputError where a column's name stands twice or, capitals aside, is one that is taken."""
    names = list(names)
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{where}: column {clip(name)} stands {names.count(name)} times; rename it")
        if name.lower() in taken:
            raise InputError(f"{where}: column {clip(name)} has a name that the answer needs; rename it")


def as_text(value: object) -> str:
    """A value as it is carried along: its text, "" where it is missing."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise InputError(f"corpus: {clip(value, 60)} is no text, and cannot be carried along") from error
    is_missing = pd.api.types.is_scalar(value) and pd.isna(value)
    return "" if is_missing else str(value)


def sample_table() -> Path:
    """A table in the cache with the targets of the sample, each with its class."""
    rows = pd.concat(load("sample").values())[["target", "context"]].drop_duplicates()
    text = rows.rename(columns={"target": "phrase"}).to_csv(index=False)
    path = backbones.cache_folder() / "sample.csv"
    if not path.is_file() or path.read_bytes() != text.encode():
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.write_text(path, text)
    return path


def _with_plain_names(frame: pd.DataFrame, names: Sequence[str], *, needed: Sequence[str], where: str) -> pd.DataFrame:
    """The frame, in which the columns `names` are written so, whatever their capitals were."""
    plain = []
    for name in frame.columns:
        lower = name.lower()
        plain.append(lower if lower in names else name)
    for name in needed:
        if name not in plain:
            raise InputError(f"{where}: has no column {name}; it has {clip(', '.join(frame.columns))}")
    return frame.set_axis(plain, axis=1)


def _classes(texts: Sequence[str], lines: Sequence[int], *, where: str) -> list[str]:
    """The class of each context; an empty one stays."""
    codes = []
    for line, text in zip(lines, texts, strict=True):
        if text.strip():
            codes.append(class_of(text, where=f"{where}, row {line}, column context"))
        else:
            codes.append("")
    return codes
