"""The rows of a table that can be scored, by the names of its columns, and those that cannot."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from patsim_utils.data.pairs import KEY, check_pairs, normalise
from patsim_utils.errors import InputError, RowError, clip

SHOWN = 10  # names that a message lists, at most


@dataclass(frozen=True)
class Columns:
    """Names of a table's columns; `code` is the class of every row where there is no such column."""

    anchor: str = "anchor"
    target: str = "target"
    context: str = "context"
    code: str | None = None


def phrases_of(frame: pd.DataFrame, columns: Columns, source: str) -> pd.DataFrame:
    """anchor, target, context of a table, by its columns' names, in which capitals do not count."""
    known = [normalise(str(name)) for name in frame.columns]
    phrases: dict[str, object] = {}
    wanted = {"anchor": columns.anchor, "target": columns.target, "context": columns.context}
    for role, name in wanted.items():
        count = known.count(normalise(name))
        if role == "context" and columns.code is not None:
            if count:
                reason = f"has a column {clip(name)}; --context is for a table without one"
                raise InputError(f"{source}: {reason}")
            phrases[role] = columns.code
            continue
        if not count:
            hint = f"--{role}-column names another"
            if role == "context":
                hint += ", --context H04 one class for all rows"
            shown = clip(", ".join(map(str, frame.columns)))
            raise InputError(f"{source}: column {clip(name)} is missing; there are {shown}; {hint}")
        if count > 1:
            raise InputError(f"{source}: column {clip(name)} stands {count} times, capitals aside")
        phrases[role] = frame.iloc[:, known.index(normalise(name))].to_list()
    return pd.DataFrame(phrases, index=range(len(frame)), columns=KEY, dtype=object)


def checked(
    phrases: pd.DataFrame, lines: Sequence[int], source: str, *, unknown: str, skip: bool
) -> tuple[pd.DataFrame, dict[int, str]]:
    """The rows that can be scored, by their positions, and the reason of each of the others.

    InputError where a row cannot be scored and is not to be skipped, or none can.
    """
    try:
        return check_pairs(phrases, unknown=unknown, source=source, lines=lines), {}
    except RowError as error:
        if not skip:
            raise InputError(f"{error}; --on-error skip leaves such rows without a score") from error
        good = phrases.drop(index=list(error.faults))
        if good.empty:
            raise InputError(f"{error}; no row of the table can be scored") from error
        kept = [lines[position] for position in good.index]
        return check_pairs(good, unknown=unknown, source=source, lines=kept), error.faults


def joined(frame: pd.DataFrame, results: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """The columns of the output; `score` is the prediction."""
    if names[: len(frame.columns)] == list(frame.columns):  # also where two of them have one name
        return pd.concat([frame, results[names[len(frame.columns) :]]], axis=1)
    existing = list(frame.columns)
    columns = []
    for name in names:
        if name == "score":
            columns.append(results["prediction"])
        elif name in existing:
            columns.append(frame.iloc[:, existing.index(name)])
        else:
            columns.append(results[name])
    return pd.concat(columns, axis=1).set_axis(names, axis=1)
