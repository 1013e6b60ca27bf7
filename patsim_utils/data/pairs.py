"""Checked phrase pairs: a row says, or asks, how alike anchor and target are in a CPC class.

Read are Google's Patent Phrase Similarity (CC BY 4.0, Aslanyan and Wetherbee 2022, arXiv
2208.01171: anchor, target, rating, score, context) and its Kaggle competition's form (id, anchor,
target, context, score). The sample is our own.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.data.names import COLUMNS, say_once
from patsim_utils.data.tables import read_table
from patsim_utils.data.variants import american
from patsim_utils.errors import InputError, RowError, and_more, clip, named
from patsim_utils.ratings import RATING_RANKS, RATINGS, SCORES

KEY = ["anchor", "target", "context"]
UNKNOWN = ("error", "embedding")  # what becomes of a context that is no CPC class
NO_CLASS = "is no CPC class that pairs are rated in, such as H04"
HINT = "; --unknown embedding (in Python unknown='embedding') takes any text in its place"
ENGLISH_ONLY = "the model has learned English, and its scores mean little there"  # of other letters than Latin
# What Unicode tells programs not to show: zero-width spaces, joiners, fillers, soft hyphens
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
_CONTROL = re.compile(r"[\0-\x1f\x7f-\x9f]")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def normalise(text: str) -> str:
    """The identity of a phrase: NFKC, lower case, single spaces, nothing unseen.

    Control characters count as spaces.

    >>> normalise("  Fuel\\tCELL ")
    'fuel cell'
    """
    if not (text.isascii() and text.isprintable()):
        text = _CONTROL.sub(" ", _UNSEEN.sub("", text))
        text = unicodedata.normalize("NFKC", text)
        text = unicodedata.normalize("NFKC", text.lower())
        text = _UNSEEN.sub("", text)
    return " ".join(text.lower().split())


def is_latin(text: str) -> bool:
    """Whether at least half of the letters are Latin ones.

    >>> is_latin("\u03b1-olefin"), is_latin("\u043d\u0430\u0441\u043e\u0441")
    (True, False)
    """
    if text.isascii():
        return True
    letters = [letter for letter in text if letter.isalpha()]
    latin = sum("LATIN" in unicodedata.name(letter, "") for letter in letters)
    return 2 * latin >= len(letters)


def is_one_phrase(anchor: pd.Series, target: pd.Series) -> pd.Series:
    """Whether two normalised phrases are one: they differ in spaces, hyphens and American spelling at most.

    So are `air bag`, `air-bag` and `airbag`, and `fibre` and `fiber`.
    """
    one_word = {phrase: _one_word(phrase) for phrase in {*anchor, *target}}
    return anchor.map(one_word) == target.map(one_word)


def _one_word(phrase: str) -> str:
    return american(phrase).replace(" ", "").replace("-", "")


def read_pairs(path: str | Path) -> pd.DataFrame:
    """The rated pairs of one table, as `check_pairs` gives them; none is there twice in a class."""
    frame, lines = read_table(path)
    pairs = check_pairs(frame, source=named(path), lines=lines, scored=True)
    if pairs.empty:
        raise InputError(f"{named(path)}: has no row below its header")
    return pairs


def check_pairs(
    frame: Any,
    *,
    unknown: str = "error",
    source: str = "frame",
    lines: list[int] | None = None,
    scored: bool = False,
) -> pd.DataFrame:
    """`anchor, target, context` of a DataFrame or datasets.Dataset, normalised, with their index.

    Header names count in any case. A class symbol such as `h01` or `H01M 8/04` becomes its class,
    which is said once a source, as a warning of the logger "patsim". InputError: a column is
    missing. RowError: rows that break a rule.

    Args:
        unknown: "error" refuses a context that is no CPC class, "embedding" leaves any as it is,
            also an empty one.
        source, lines: what messages call the table and its rows (else by the index).
        scored: `score`, and `rating` if there, are checked and returned, too.
    """
    if unknown not in UNKNOWN:
        raise InputError(f"parameter unknown: {clip(unknown)} is none of {', '.join(UNKNOWN)}")
    if hasattr(frame, "to_pandas"):
        frame = frame.to_pandas()
    if not isinstance(frame, pd.DataFrame):
        needed = "a DataFrame or a datasets.Dataset"
        raise InputError(f"{source}: is of type {type(frame).__name__}; needed is {needed}")
    columns = _columns(frame, source, needed=[*KEY, "score"] if scored else KEY)
    table = _Table(source, frame.index if lines is None else lines, columns)
    read_context = _any_context if unknown == "embedding" else _class
    texts = {
        "anchor": table.read("anchor", _phrase, "is an empty phrase"),
        "target": table.read("target", _phrase, "is an empty phrase"),
        "context": table.read("context", read_context, NO_CLASS),
    }
    table.refuse_faults(hint="" if scored else HINT)
    _say_changed_classes(source, columns["context"], texts["context"])
    pairs = pd.DataFrame(texts, index=frame.index, dtype=str)
    if scored:
        _add_scores(pairs, table)
        _refuse_repeated(pairs, table)
    return pairs


class _Table:
    """The columns of a table that mean something, and the faults of its rows."""

    def __init__(self, source: str, labels: Sequence[object], columns: dict[str, list]) -> None:
        self.source = source
        self.labels = labels  # what messages call the rows
        self.columns = columns
        # By the position of a row, its first fault: column and complaint
        self.faults: dict[int, tuple[str, str]] = {}

    def read(self, column: str, reader: Callable[[str], str | None], complaint: str) -> list[str]:
        """What `reader` makes of each value.

        A value that is missing, is no text, or of which it makes None, is a fault, and "" here.
        """
        known: dict[str, str | None] = {}
        texts = []
        for row, value in enumerate(self.columns[column]):
            if not isinstance(value, str):
                missing = pd.api.types.is_scalar(value) and pd.isna(value)
                reason = "the value is missing" if missing else f"{clip(value)} is no text"
                self.complain(row, column, reason)
                texts.append("")
                continue
            if value not in known:
                known[value] = reader(value)
            text = known[value]
            if text is None:
                self.complain(row, column, f"{clip(value)} {complaint}")
            elif not text.isascii() and _HALF_CHARACTER.search(text):
                self.complain(row, column, f"{clip(value)} holds half a character")
            texts.append(text or "")
        return texts

    def complain(self, row: int, column: str, complaint: str) -> None:
        self.faults.setdefault(row, (column, complaint))

    def refuse_faults(self, *, hint: str = "") -> None:
        """RowError: the first row that has a fault, and which others have one.

        The hint is for contexts alone.
        """
        if not self.faults:
            return
        first, *others = sorted(self.faults)
        column, complaint = self.faults[first]
        where = f"{self.source}, row {clip(self.labels[first])}, column {column}"
        more = and_more([self.labels[row] for row in others])
        concern_contexts = all(column == "context" for column, _ in self.faults.values())
        message = f"{where}: {complaint}{more}"
        if concern_contexts:
            message += hint
        reasons = {}
        for row in sorted(self.faults):
            column, complaint = self.faults[row]
            reasons[row] = f"column {column}: {complaint}"
        raise RowError(message, reasons)


def _columns(frame: pd.DataFrame, source: str, *, needed: list[str]) -> dict[str, list]:
    """The values of each of COLUMNS that is there.

    InputError where a needed one is missing, or one stands twice.
    """
    names = [normalise(str(name)) for name in frame.columns]
    columns = {}
    for name in COLUMNS:
        if names.count(name) > 1:
            count = names.count(name)
            raise InputError(f"{source}: column {name!r} stands {count} times, capitals aside")
        if name in names:
            columns[name] = frame.iloc[:, names.index(name)].to_list()
        elif name in needed:
            existing = clip(", ".join(names))
            raise InputError(f"{source}: column {name!r} is missing; there are {existing}")
    return columns


def _phrase(text: str) -> str | None:
    return normalise(text) or None


def _class(text: str) -> str | None:
    return cpc.class_of(normalise(text))


def _any_context(text: str) -> str:
    return _class(text) or text.strip()


def _say_changed_classes(source: str, values: list[str], codes: list[str]) -> None:
    """Says once a source that symbols such as H01M are read as their class."""
    changed = [row for row, value in enumerate(values) if value.strip() != codes[row]]
    if changed:
        first = changed[0]
        example = f"such as {clip(values[first])} as {codes[first]}"
        message = f"{source}: {len(changed)} contexts are read as their CPC class, {example}"
        say_once(message, key=f"{source}: contexts")


def _add_scores(pairs: pd.DataFrame, table: _Table) -> None:
    """Adds the columns `score` and, where the table has ratings, `rating`.

    InputError where they break a rule.
    """
    values = table.columns["score"]
    scores = pd.to_numeric([str(value) for value in values], errors="coerce")
    scores = scores + 0.0  # no negative zero
    for row in np.flatnonzero(~np.isin(scores, SCORES)):
        table.complain(int(row), "score", f"{clip(values[row])} is none of 0, 0.25, 0.5, 0.75, 1")
    table.refuse_faults()
    pairs["score"] = scores
    if "rating" not in table.columns:
        return
    ratings = [str(rating).strip().lower() for rating in table.columns["rating"]]
    for row, rating in enumerate(ratings):
        value = clip(table.columns["rating"][row])
        if rating not in RATINGS:
            table.complain(row, "rating", f"{value} is none of {', '.join(RATINGS)}")
        elif SCORES[RATING_RANKS[rating]] != scores[row]:
            reason = "its first digit is four times the score"
            complaint = f"{value} contradicts score {clip(values[row])}: {reason}"
            table.complain(row, "rating", complaint)
    table.refuse_faults()
    pairs["rating"] = pd.Series(ratings, pairs.index, dtype=str)


def _refuse_repeated(pairs: pd.DataFrame, table: _Table) -> None:
    """InputError where a pair stands twice in a class."""
    scores = table.columns["score"]
    first_rows: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(zip(*(pairs[name] for name in KEY), strict=True)):
        first = first_rows.setdefault(key, row)
        if first != row:
            words = ", ".join(clip(table.columns[name][row]) for name in KEY)
            reason = f"stand in row {clip(table.labels[first])} already"
            both = f"scores {clip(scores[first])} and {clip(scores[row])}"
            table.complain(row, "target", f"{words} {reason} ({both})")
    table.refuse_faults()
