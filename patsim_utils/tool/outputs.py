"""tool.outputs: to be written."""

import csv
import gzip
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import pandas as pd

from patsim_utils.data.tables import ENDINGS as FORMS
from patsim_utils.errors import InputError, clip
from patsim_utils.storage import write

SHEET_ROWS, CELL = 2**20 - 1, 32767  # what Excel holds: rows below the header, characters a cell


def check_output(
    path: Path,
    *,
    overwrite: bool = False,
    rows: int = 0,
    columns: Sequence[str] = (),
    forms: Sequence[str] = FORMS,
) -> None:
    """InputError where a table of these rows and columns could not be written to `path`, or would replace a file
    unasked.
    """
    if str(path) == "-":
        return
    place = clip(str(path))
    if not path.name.lower().endswith(tuple(forms)):
        raise InputError(f"{place}: its ending is none of {', '.join(forms)}; - is standard output")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
        there = path.is_symlink() or path.exists()
    except OSError as error:
        raise InputError(f"{place}: no file can be written there ({error.strerror})") from error
    if there and not (overwrite and path.is_file()):
        told = "exists already; --overwrite replaces it" if path.is_file() else "is a folder or a device, not a file"
        raise InputError(f"{place}: {told}")
    if path.suffix.lower() == ".xlsx" and rows > SHEET_ROWS:
        raise InputError(f"{place}: a sheet holds {SHEET_ROWS:,} rows, not {rows:,}; choose another ending")
    if path.suffix.lower() == ".parquet" and len({*columns}) < len(columns):
        raise InputError(f"{place}: a Parquet file holds no two columns of one name; choose another ending")


def write_table(frame: pd.DataFrame, path: Path, *, spreadsheet_safe: bool = False) -> None:
    """Writes a table at once, in the form that the ending says, one of FORMS or .json; `-` is CSV on standard output.

    Text stays as it is. With `spreadsheet_safe`, a ' goes before text that a spreadsheet would run.
    """
    if spreadsheet_safe:
        frame = frame.set_axis([_safe(name) for name in frame.columns], axis=1).map(_safe)
    ending, table = path.suffix.lower(), io.BytesIO()
    try:
        if ending == ".parquet":
            frame.to_parquet(table, index=False)
        elif ending == ".xlsx":
            _write_sheet(frame, table)
        elif ending == ".json":
            rows = json.loads(frame.to_json(orient="records"))
            table.write(json.dumps(rows, indent=1, ensure_ascii=False).encode())
        else:
            tabs = path.name.lower().removesuffix(".gz").endswith(".tsv")
            options = {"index": False, "sep": "\t" if tabs else ",", "lineterminator": "\n"}
            text = frame.to_csv(**options)
            if "\r" in text:  # which the csv module leaves without quotes, and readers take for the end of a row
                text = frame.to_csv(**options, quoting=csv.QUOTE_NONNUMERIC)
            table.write(gzip.compress(text.encode(), mtime=0) if ending == ".gz" else text.encode())
    except (ValueError, TypeError) as error:  # of an engine, on what its form cannot hold
        raise InputError(f"{clip(str(path))}: cannot hold this table ({clip(error)})") from error
    content = table.getvalue()
    if str(path) != "-":
        return write(path, content)
    while content:
        content = content[os.write(1, content) :]


def _safe(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _write_sheet(frame: pd.DataFrame, file: BinaryIO) -> None:
    import openpyxl  # here, since other forms do without

    sheet = (book := openpyxl.Workbook()).active
    for row, values in enumerate([frame.columns, *frame.itertuples(index=False, name=None)], 1):
        for column, value in enumerate(values, 1):
            if isinstance(value, str) and (len(value) > CELL or openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE.search(value)):
                raise ValueError(f"row {row}: {clip(value, 60)} is nothing for a cell of a sheet")
            cell = sheet.cell(row, column, None if pd.api.types.is_scalar(value) and pd.isna(value) else value)
            if isinstance(value, str):
                cell.data_type = "s"  # also where it looks like a formula
    book.save(file)
