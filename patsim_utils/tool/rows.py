"""The rows of a table that can be scored, by the names of its columns, and those that cannot."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from patsim_utils.data.pairs import ENGLISH_ONLY, KEY, check_pairs, is_latin, normalise
from patsim_utils.errors import InputError, RowError, clip, named
from patsim_utils.tool import outputs

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

    InputError where a row cannot be scored and is not to be skipped, or none can. A line on stderr
    where phrases are not in Latin letters.
    """
    pairs, faults = _checked(phrases, lines, source, unknown=unknown, skip=skip)
    latin = pairs["anchor"].map(is_latin) & pairs["target"].map(is_latin)
    foreign = pairs.index[~latin]
    if len(foreign):
        first = lines[foreign[0]]
        note = f"{source}: {len(foreign):,} of {len(pairs):,} rows are not in Latin letters, such as row {first}"
        print(f"{note}; {ENGLISH_ONLY}", file=sys.stderr, flush=True)
    return pairs, faults


def _checked(
    phrases: pd.DataFrame, lines: Sequence[int], source: str, *, unknown: str, skip: bool
) -> tuple[pd.DataFrame, dict[int, str]]:
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


def reasons_path(target: Path) -> Path:
    """Where the reasons of a table's rows without a score go, such as scored.errors.csv."""
    ending = next(form for form in sorted(outputs.FORMS, key=len, reverse=True) if target.name.lower().endswith(form))
    return target.with_name(f"{target.name[: -len(ending)]}.errors.csv")


def refuse_own_reasons(source: Path, target: Path | None) -> None:
    """InputError where the reasons of a table would replace the table itself."""
    if target is None or not target.name.lower().endswith(outputs.FORMS):
        return
    path = reasons_path(target)
    if os.path.exists(path) and os.path.exists(source) and path.samefile(source):
        raise InputError(f"{named(path)}: is the table itself, and reasons of {named(target)} go there; rename one")


class Reasons:
    """Why rows have no score: a file beside the output, or lines where the output is standard output."""

    def __init__(
        self,
        target: Path | None,
        lines: Sequence[int],
        faults: Mapping[int, str],
        *,
        overwrite: bool,
        ledger: outputs.Ledger | None,
    ) -> None:
        self.path = None if target is None else reasons_path(target)
        self.table = pd.DataFrame({"row": [lines[position] for position in faults], "reason": list(faults.values())})
        self.overwrite = overwrite
        self.ledger = ledger

    @property
    def first(self) -> str:
        """The first reason; "" where all rows have a score."""
        return "" if self.table.empty else self.table["reason"].iloc[0]

    def check(self) -> None:
        """InputError where the file is another's, which would be replaced."""
        if self.table.empty or self.path is None or outputs.holds(self.path, self.table):
            return  # a file that holds them is of a command that was killed
        may_replace = outputs.may_replace(self.path, overwrite=self.overwrite, ledger=self.ledger)
        outputs.check_output(self.path, overwrite=may_replace)

    def write(self, identity: str) -> None:
        """Puts the reasons where they belong; those of an earlier command, which are outdated, go."""
        if self.path is None:
            for line, reason in self.table[:SHOWN].itertuples(index=False):
                print(f"row {line}, {reason}", file=sys.stderr)
            if len(self.table) > SHOWN:
                print(f"and {len(self.table) - SHOWN:,} more rows", file=sys.stderr)
        elif self.table.empty:
            self._remove_outdated()
        else:
            outputs.write_table(self.table, self.path, announce=lambda content: self._note(identity, content))

    def _note(self, identity: str, content: bytes) -> None:
        if self.ledger is not None:
            self.ledger.note(self.path.name, identity, content)

    def _remove_outdated(self) -> None:
        if self.ledger is not None and outputs.may_replace(self.path, overwrite=False, ledger=self.ledger):
            self.ledger.remove(self.path.name)
        elif self.path.is_file() and self.path.read_bytes().startswith(b"row,reason\n"):
            if self.overwrite:
                self.path.unlink()
            else:
                print(f"{named(self.path)}: is of an earlier command; now every row has a score", file=sys.stderr)

    def summary(self) -> str:
        """How many rows have no score and where the reasons are, behind a number of pairs."""
        if self.table.empty:
            return ""
        whereabouts = "see above" if self.path is None else named(self.path)
        return f", {len(self.table):,} rows without a score: {whereabouts}"
