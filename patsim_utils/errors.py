"""Errors that are the user's to mend: the command line shows one line and exits with status 2."""

from collections.abc import Sequence
from pathlib import Path

LONGEST = 200  # characters of a value or a path in a message
LISTED = 10  # rows that a message lists


class InputError(ValueError):
    """Bad data, parameter or path.

    `str(error)` is one printable line: the place, the value and what is allowed.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_printable(message))


class RowError(InputError):
    """Rows of a table that break a rule.

    `faults` has, by the position of each such row, the column and what is wrong.

    The message names the first of them and lists the labels of others.
    """

    def __init__(self, message: str, faults: dict[int, str]) -> None:
        super().__init__(message)
        self.faults = faults


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def clip(value: object, longest: int = LONGEST) -> str:
    """A value as a message shows it: text in quotes, nothing unprintable, not longer than that.

    >>> clip("tab\\there"), clip("a long phrase", 8)
    ("'tab\\\\there'", "'a long…")
    """
    text = _printable(repr(value) if isinstance(value, str) else str(value))
    if len(text) <= longest:
        return text
    return text[: longest - 1] + "…"


def counted(count: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "thread"), counted(2, "thread")
    ('1 thread', '2 threads')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def named(path: str | Path) -> str:
    """A path as a message shows it: without quotes and, of a long one, the end."""
    text = str(path)
    if not text.isprintable():
        text = repr(text)[1:-1]
    if len(text) <= LONGEST:
        return text
    return "…" + text[1 - LONGEST :]


def and_more(labels: Sequence[object]) -> str:
    """The end of a message on a row: how many others have a fault, too, and the first nine.

    >>> and_more([12, 15]), and_more([])
    (' (and 2 more rows: 12, 15)', '')
    """
    if not len(labels):
        return ""
    shown = ", ".join(clip(label, 20) for label in labels[: LISTED - 1])
    if len(labels) >= LISTED:
        shown += ", …"
    noun = "row" if len(labels) == 1 else "rows"
    return f" (and {len(labels):,} more {noun}: {shown})"
