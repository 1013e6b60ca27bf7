"""Where a table goes: a file in the form that its ending says, standard output, or a folder.

Nothing here imports pandas, so that an output is checked before anything slow is loaded.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import numbers
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patsim_utils import storage
from patsim_utils.data import workbooks
from patsim_utils.data.workbooks import plain
from patsim_utils.errors import InputError, clip, named

if TYPE_CHECKING:
    import pandas as pd

FORMS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".xlsx")  # as data.tables reads them
SHEET_ROWS = 2**20 - 1  # rows that a sheet of Excel holds below its header
FORMULA = ("=", "+", "-", "@")  # how a text begins that a spreadsheet runs
CONTROL = ("\t", "\r", "\n")  # a text that begins with one of these is escaped whatever follows
LEDGER = ".patsim.json"


def destination(words: str) -> Path | None:
    """The file or folder of this name; None for `-`, which is standard output. `./-` is a file."""
    return None if words == "-" else Path(words)


def check_output(
    path: Path | None,
    *,
    overwrite: bool = False,
    rows: int = 0,
    columns: Sequence[str] = (),
    forms: Sequence[str] = FORMS,
) -> None:
    """InputError where a table of these rows and columns cannot be written to `path`.

    A file that exists is replaced with `overwrite` only. Standard output (None) takes everything.
    """
    if path is None:
        return
    shown = named(path)
    name = path.name.lower()
    if not name.endswith(tuple(forms)):
        raise InputError(f"{shown}: its ending is none of {', '.join(forms)}; - alone is standard output")
    if len(os.fsencode(path.name)) > storage.LONGEST_NAME:
        raise InputError(f"{shown}: its name has more than {storage.LONGEST_NAME} bytes")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
        exists = path.is_symlink() or path.exists()
    except OSError as error:
        raise InputError(f"{shown}: no file can be written there ({error.strerror})") from error
    if exists and not path.is_file():
        raise InputError(f"{shown}: is a folder, a device or a link to nothing, not a file")
    if exists and not overwrite:
        raise InputError(f"{shown}: exists already; --overwrite replaces it")
    if name.endswith(".xlsx") and rows > SHEET_ROWS:
        raise InputError(f"{shown}: a sheet holds {SHEET_ROWS:,} rows, not {rows:,}; choose another ending")
    if name.endswith(".parquet") and len(set(columns)) < len(columns):
        raise InputError(f"{shown}: a Parquet file holds no two columns of one name; choose another ending")


def check_folder(path: Path | None, source: Path, *, overwrite: bool = False) -> None:
    """InputError where the scored tables of the folder `source` cannot be written into `path`."""
    if path is None:
        raise InputError("-: standard output is no folder, and a folder of tables is scored into one")
    if path.exists() and not path.is_dir():
        raise InputError(f"{named(path)}: is no folder, and a folder of tables is scored into one")
    if path.exists() and path.samefile(source) and not overwrite:
        reason = "holds the tables themselves; --overwrite replaces each by its scored one"
        raise InputError(f"{named(path)}: {reason}")
    existing = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(f"{named(path)}: no folder can be made there")


class Ledger:
    """Of what each table of an output folder was made, and with what content it was written.

    InputError: its file holds something else, which a user may want to keep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LEDGER
        self.entries: dict[str, Any] = {}
        if not os.path.lexists(self.path):
            return
        try:
            entries = json.loads(self.path.read_text("utf-8"))
            is_ledger = all(entry.keys() >= {"input", "content"} for entry in entries.values())
        except (OSError, ValueError, AttributeError, RecursionError):
            is_ledger = False
        if not is_ledger:
            raise InputError(f"{named(self.path)}: is no record of the tables that were scored here; move it away")
        self.entries = entries

    def state(self, name: str, identity: str) -> str:
        """`current`: made of the input of this identity; `outdated`: of another one.

        A table that is not there is `missing`, one that others changed or wrote is `foreign`.
        """
        path = self.folder / name
        if not os.path.lexists(path):
            return "missing"
        entry = self.entries.get(name)
        if entry is None or not path.is_file():
            return "foreign"
        content = storage.digest(path)
        if content == entry.get("content"):
            return "current" if entry.get("input") == identity else "outdated"
        if content == entry.get("before"):  # a kill came between the note and the writing
            return "outdated"
        return "foreign"

    def note(self, name: str, identity: str, content: bytes) -> None:
        """Records that a table is about to be written, of the input of this identity.

        It is called before the writing, so that a kill leaves no table of which nothing is known.
        """
        entry = {"input": identity, "content": storage.digest(content)}
        if self.state(name, identity) in ("current", "outdated"):
            before = storage.digest(self.folder / name)
            if before != entry["content"]:
                entry["before"] = before
        self.entries[name] = entry
        self._write()

    def remove(self, name: str) -> None:
        """Deletes a file, and what is known of it."""
        (self.folder / name).unlink()
        del self.entries[name]
        self._write()

    def _write(self) -> None:
        storage.write_text(self.path, json.dumps(self.entries, indent=1, sort_keys=True))


def may_replace(path: Path | None, *, overwrite: bool, ledger: Ledger | None) -> bool:
    """Whether a file may be replaced: it is asked for, or the folder's ledger knows it as this command's."""
    if overwrite or ledger is None or path is None:
        return overwrite
    return ledger.state(path.name, "") in ("current", "outdated")


def write_table(
    frame: pd.DataFrame,
    path: Path | None,
    *,
    spreadsheet_safe: bool = False,
    announce: Callable[[bytes], None] | None = None,
) -> None:
    """Writes a table at once, in the form of the ending: one of FORMS, or .json; to None as CSV.

    None is standard output.

    Text stays as it is. With `spreadsheet_safe`, a ' goes before text that a spreadsheet would run.
    `announce` is told the content of the file before it is there.
    """
    if spreadsheet_safe:
        frame = _mapped(frame.set_axis([safe(name) for name in frame.columns], axis=1), safe)
    try:
        content = _encoded(frame, "" if path is None else path.name.lower())
    except (ValueError, TypeError) as error:  # of an engine, on what its form cannot hold
        raise InputError(f"{named(path or '-')}: cannot hold this table ({clip(error)})") from error
    if announce is not None:
        announce(content)
    if path is not None:
        storage.write(path, content)
        return
    while content:
        content = content[os.write(1, content) :]


def holds(path: Path, frame: pd.DataFrame) -> bool:
    """Whether a file is what `write_table` makes of a table."""
    return path.is_file() and path.read_bytes() == _encoded(frame, path.name.lower())


def safe(value: object) -> object:
    """A text that a spreadsheet would take for a formula, with a ' before it; others as they are.

    Spaces and line breaks before the formula do not hide it, nor do full-width signs.

    >>> safe("=1+1"), safe(" =1+1"), safe("1=1")
    ("'=1+1", "' =1+1", '1=1')
    """
    if isinstance(value, bytes):
        text = value.decode(errors="replace")
        return value if safe(text) == text else b"'" + value
    if not isinstance(value, str):
        return value
    visible = re.sub(r"^[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]+", "", value)
    plain = unicodedata.normalize("NFKC", visible[:1])
    if value.startswith(CONTROL) or plain.startswith(FORMULA):
        return f"'{value}"
    return value


def _encoded(frame: pd.DataFrame, name: str) -> bytes:
    """The bytes of a table in the form that the (lower-case) name of its file says."""
    table = io.BytesIO()
    if name.endswith(".parquet"):
        frame.to_parquet(table, index=False)
    elif name.endswith(".xlsx"):
        workbooks.write(frame, table)
    elif name.endswith(".json"):
        names = list(frame.columns)
        frame = workbooks.with_short_numbers(frame)
        rows = [dict(zip(names, map(_for_json, values), strict=True)) for values in frame.itertuples(index=False)]
        table.write(json.dumps(rows, indent=1, ensure_ascii=False).encode())
    else:
        text = _text(frame, "\t" if name.removesuffix(".gz").endswith(".tsv") else ",")
        content = text.encode()
        if name.endswith(".gz"):
            content = gzip.compress(content, mtime=0)
        table.write(content)
    return table.getvalue()


def _text(frame: pd.DataFrame, separator: str) -> str:
    frame = _mapped(frame, plain)
    text = frame.to_csv(index=False, sep=separator, lineterminator="\n")
    if "\r" in text:  # left without quotes, readers take it for the end of a row
        text = frame.to_csv(index=False, sep=separator, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text


def _mapped(frame: pd.DataFrame, change: Callable[[object], object]) -> pd.DataFrame:
    """The frame with its texts changed; columns of numbers and dates stay as they are."""
    import pandas as pd

    frame = frame.copy(deep=False)
    for position, dtype in enumerate(frame.dtypes):
        if dtype.name in ("object", "str", "string", "category"):
            values = [change(value) for value in frame.iloc[:, position].astype(object)]
            # without a type of pandas' own, which writes days and durations in another way
            frame.isetitem(position, pd.Series(values, index=frame.index, dtype=object))
    return frame


def _for_json(value: object) -> object:
    """A value as JSON has it: what it has no form for, such as a date, as text."""
    if isinstance(value, dict):
        return {str(name): _for_json(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(part) for part in value]
    value = plain(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if value is None or isinstance(value, str | bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return str(value)
