"""Where a table goes: a file in the form that its ending says, standard output, or a folder.

Nothing here imports pandas, so that an output is checked before anything slow is loaded.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import numbers
import os
import re
import tempfile
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from patsim_utils import storage
from patsim_utils.errors import InputError, clip, named

if TYPE_CHECKING:
    import pandas as pd

FORMS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".xlsx")  # as data.tables reads them
SHEET_ROWS = 2**20 - 1  # rows that a sheet of Excel holds below its header
CELL = 32767  # characters that a cell of Excel holds
EXACT = 10**15  # integers from here on are written as text, since Excel's numbers have 15 digits
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
    """Of what each table of an output folder was made, and with what content it was written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / LEDGER
        try:
            entries = json.loads(self.path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError):  # none yet, or damaged: then nothing is known
            entries = {}
        self.entries: dict[str, Any] = entries if isinstance(entries, dict) else {}

    def state(self, name: str, identity: str) -> str:
        """`current`: made of the input of this identity; `outdated`: of another one.

        A table that is not there is `missing`, one that others changed or wrote is `foreign`.
        """
        path = self.folder / name
        if not path.exists() and not path.is_symlink():
            return "missing"
        entry = self.entries.get(name)
        if not isinstance(entry, dict) or not path.is_file():
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
            entry["before"] = storage.digest(self.folder / name)
        self.entries[name] = entry
        storage.write_text(self.path, json.dumps(self.entries, indent=1))


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
        frame = frame.set_axis([safe(name) for name in frame.columns], axis=1).map(safe)
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
        _write_sheet(frame, table)
    elif name.endswith(".json"):
        rows = json.loads(frame.to_json(orient="records"))
        table.write(json.dumps(rows, indent=1, ensure_ascii=False).encode())
    else:
        text = _text(frame, "\t" if name.removesuffix(".gz").endswith(".tsv") else ",")
        content = text.encode()
        if name.endswith(".gz"):
            content = gzip.compress(content, mtime=0)
        table.write(content)
    return table.getvalue()


def _text(frame: pd.DataFrame, separator: str) -> str:
    text = frame.to_csv(index=False, sep=separator, lineterminator="\n")
    if "\r" in text:  # left without quotes, readers take it for the end of a row
        text = frame.to_csv(index=False, sep=separator, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    return text


def _write_sheet(frame: pd.DataFrame, file: BinaryIO) -> None:
    import openpyxl  # here, since other forms do without
    import pandas as pd

    book = openpyxl.Workbook()
    sheet = book.active
    for row, values in enumerate([frame.columns, *frame.itertuples(index=False, name=None)], 1):
        for column, value in enumerate(values, 1):
            illegal = openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE
            if isinstance(value, str) and (len(value) > CELL or illegal.search(value)):
                raise ValueError(f"row {row}: {clip(value, 60)} is nothing for a cell of a sheet")
            missing = pd.api.types.is_scalar(value) and pd.isna(value)
            if isinstance(value, numbers.Integral) and abs(int(value)) >= EXACT:
                value = str(value)
            cell = sheet.cell(row, column, None if missing else value)
            if isinstance(value, str):
                cell.data_type = "s"  # also where it looks like a formula
    book.save(file)
