"""The columns of a table that mean something, and what is said of a table once."""

import logging

COLUMNS = ("anchor", "target", "context", "score", "rating")  # of pairs, in upper or lower case
PHRASES = ("anchor", "target", "phrase", "query")  # columns of phrases; a corpus and queries have the last two
KNOWN = (*COLUMNS, "phrase", "query")
MOST_COLUMNS = 2**14  # of a table, as of a sheet

_SAID: set[str] = set()


def clean_name(name: str) -> str:
    """The name of a column without the spaces and marks around it."""
    return name.strip(" \t\r\n\ufeff\u200b\u00a0")


def say_once(message: str, *, key: str = "") -> None:
    """A warning of the logger "patsim", not said again in this process.

    What has the same key counts as the same.
    """
    if (key or message) not in _SAID:
        _SAID.add(key or message)
        logging.getLogger("patsim").warning(message)
