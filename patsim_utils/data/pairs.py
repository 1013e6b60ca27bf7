"""Read, normalise, check and split phrase pairs: a row rates how alike an anchor and a target are in one CPC class.

Read are Google's Patent Phrase Similarity (CC BY 4.0, Aslanyan and Wetherbee 2022, arXiv 2208.01171: anchor, target,
rating, score, context) and its Kaggle competition's form (id, anchor, target, context, score). The sample is our own.
"""

import logging
import re
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.data.tables import COLUMNS, read_table
from patsim_utils.errors import InputError, clip, named
from patsim_utils.ratings import RATINGS, SCORES

KEY = ["anchor", "target", "context"]
# What Unicode tells programs not to show, such as zero-width spaces, joiners, fillers and soft hyphens
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
_SAID: set[str] = set()  # the tables of which it was said that their class symbols are read as classes


def normalise(text: str) -> str:
    """The identity of a phrase: NFKC, lower case, single spaces, nothing unseen; control characters count as spaces."""
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFKC", re.sub(r"[\0-\x1f\x7f-\x9f]", " ", _UNSEEN.sub("", text)))
        text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text.lower()))
    return " ".join(text.lower().split())


def read_pairs(path: str | Path) -> pd.DataFrame:
    """The rated pairs of one table as `check_pairs` gives them, of which none may stand twice in a class."""
    frame, lines = read_table(path)
    checked = check_pairs(frame, place=named(path), lines=lines, scored=True)
    if checked.empty:
        raise InputError(f"{named(path)}: has no row below its header")
    return checked


class _Rows(NamedTuple):
    """The columns of a table that mean something, and what messages call the table and its rows."""

    place: str
    labels: pd.Index | list[int]
    columns: dict[str, list]

    def refuse(self, row: int, column: str, complaint: str, **more: object) -> NoReturn:
        values = {name: clip(values[row]) for name, values in self.columns.items()}
        where = f"{self.place}, row {clip(self.labels[row])}, column {column}"
        raise InputError(f"{where}: {complaint.format(values[column], **values, **more)}")

    def refuse_any(self, broken: pd.Series, column: str, complaint: str) -> None:
        if broken.any():
            self.refuse(int(np.argmax(broken)), column, complaint)

    def read(self, column: str, read: Callable[[str], str | None], complaint: str) -> list[str]:
        """`read` of each value; the first that is missing, is no text, or of which it makes None, is refused."""
        known: dict[str, str | None] = {}
        for row, value in enumerate(self.columns[column]):
            if not isinstance(value, str):
                missing = pd.api.types.is_scalar(value) and pd.isna(value)
                self.refuse(row, column, "the value is missing" if missing else "{} is no text")
            if value not in known:
                known[value] = read(value)
                if known[value] is None or re.search("[\ud800-\udfff]", value):
                    self.refuse(row, column, complaint if known[value] is None else "{} holds half a character")
        return [known[value] for value in self.columns[column]]


def check_pairs(
    frame: Any, *, unknown: str = "error", place: str = "frame", lines: list[int] | None = None, scored: bool = False
) -> pd.DataFrame:
    """`anchor, target, context` of a DataFrame or datasets.Dataset, normalised, in their order and with their index.

    Header names count in any case. A class symbol such as `h01` or `H01M 8/04` becomes its class, which is said once a
    place, as a warning of the logger "patsim". InputError: a column is missing, or the first row that breaks a rule.

    Args:
        unknown: "error" refuses a context that is no CPC class, "embedding" leaves any as it is, also an empty one.
        place, lines: what messages call the table and its rows (else by the index).
        scored: `score`, and `rating` if there, are checked and returned, too.
    """
    if unknown not in ("error", "embedding"):
        raise InputError(f"parameter unknown: {clip(unknown)} is none of error, embedding")
    frame = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    if not isinstance(frame, pd.DataFrame):
        raise InputError(f"{place}: is of type {type(frame).__name__}; needed is a DataFrame or a datasets.Dataset")
    names, columns = [normalise(str(name)) for name in frame.columns], {}
    for name in COLUMNS:
        if names.count(name) > 1:
            raise InputError(f"{place}: column {name!r} stands {names.count(name)} times, capitals aside")
        if name in names:
            columns[name] = frame.iloc[:, names.index(name)].to_list()
        elif name in KEY or (scored and name == "score"):
            raise InputError(f"{place}: column {name!r} is missing; there are {clip(', '.join(names))}")
    rows = _Rows(place, frame.index if lines is None else lines, columns)
    empty, no_class = "{} is an empty phrase", "{} is no CPC class that pairs are rated in, such as H04"
    found = {name: rows.read(name, lambda text: normalise(text) or None, empty) for name in ("anchor", "target")}
    kept = {"error": lambda text: None, "embedding": str.strip}[unknown]
    found["context"] = rows.read("context", lambda text: cpc.class_of(normalise(text)) or kept(text), no_class)
    changed = [pair for pair in zip(columns["context"], found["context"], strict=True) if pair[0].strip() != pair[1]]
    if changed and place not in _SAID:
        _SAID.add(place)
        text = f"{place}: {len(changed)} contexts are read as their CPC class, such as"
        logging.getLogger("patsim").warning(f"{text} {clip(changed[0][0])} as {changed[0][1]}")
    checked = pd.DataFrame(found, index=frame.index, dtype=str)
    return _with_scores(checked, rows) if scored else checked


def _with_scores(pairs: pd.DataFrame, rows: _Rows) -> pd.DataFrame:
    """The pairs with their scores and ratings; a pair that stands twice in a class is refused."""
    texts, ratings = rows.columns["score"], rows.columns.get("rating")
    pairs["score"] = pd.to_numeric([str(text) for text in texts], errors="coerce") + 0.0  # no negative zero
    rows.refuse_any(~pairs["score"].isin(SCORES), "score", "{} is none of 0, 0.25, 0.5, 0.75, 1")
    if ratings is not None:
        pairs["rating"] = pd.Series([str(rating).strip().lower() for rating in ratings], pairs.index, dtype=str)
        rows.refuse_any(~pairs["rating"].isin(RATINGS), "rating", "{} is none of " + ", ".join(RATINGS))
        broken = pairs["rating"].str[0].astype(int) != 4 * pairs["score"]
        rows.refuse_any(broken, "rating", "{} contradicts score {score}: its first digit is four times the score")
    if (twice := pairs.duplicated(KEY)).any():
        row = int(np.argmax(twice))
        first = int(np.argmax((pairs[KEY] == pairs[KEY].iloc[row]).all(axis=1)))
        complaint = "{anchor}, {target}, {context} stand in row {first} already (scores {earlier} and {score})"
        rows.refuse(row, "target", complaint, first=clip(rows.labels[first]), earlier=clip(texts[first]))
    return pairs
