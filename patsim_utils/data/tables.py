"""The one door for tables that come in: CSV, TSV (also .gz), Parquet and Excel files, read without a guess."""

import csv
import gzip
import io
import re
import warnings
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from patsim_utils.errors import InputError, clip, named

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".xlsx")
COLUMNS = ("anchor", "target", "context", "score", "rating")  # those that mean something, in upper or lower case

csv.field_size_limit(2**31 - 1)  # a long value is data like any other


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, or all that comes through a pipe, which gives them once; InputError where it cannot."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = clip(getattr(error, "strerror", None) or error)
        raise InputError(f"{named(path)}: cannot be read ({reason})") from error


def read_table(path: str | Path, content: bytes | None = None) -> tuple[pd.DataFrame, list[int]]:
    """A table and where each of its rows begins: the line of a text file, else the row, of which the header is 1.

    Values of a text file and of a sheet (the first one) are text as it stands there: "null" and "NA" are words, an
    empty cell is "". Those of a Parquet file have their types. Names in the header are stripped. Empty lines, empty
    rows at both ends and empty columns at the end are left out; nothing else is filled or shifted. `content`: the
    bytes of the file, where they have been read already.

    InputError: the file cannot be read, with the row and the cause.
    """
    path = Path(path)
    place = named(path)
    if content is None:
        content = read_bytes(path)
    name = path.name.lower()
    if name.endswith(".parquet") or content[:4] == b"PAR1":
        return _parquet(place, content)
    if name.endswith(".xlsx") or content[:4] == b"PK\3\4":
        return _sheet(place, content)
    if name.endswith(".gz") or content[:2] == b"\x1f\x8b":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{place}: is no whole gzip file ({clip(error)})") from error
    return _text(place, _decoded(place, content), "\t" if name.removesuffix(".gz").endswith(".tsv") else ",")


def _parquet(place: str, content: bytes) -> tuple[pd.DataFrame, list[int]]:
    try:
        frame = pd.read_parquet(io.BytesIO(content))
        frame = frame.reset_index(drop=all(name is None for name in frame.index.names))
        _ = [values.to_list() for _, values in frame.items()]  # text that is damaged is noticed here at the latest
    except Exception as error:  # the engine raises errors of many kinds for a damaged file
        raise InputError(f"{place}: cannot be read as a Parquet file ({clip(error)})") from error
    frame.columns = _header(place, 1, list(map(str, frame.columns)))
    return frame, list(range(2, len(frame) + 2))


def _sheet(place: str, content: bytes) -> tuple[pd.DataFrame, list[int]]:
    from openpyxl import load_workbook  # here, since it takes a while and no other form needs it

    rows, odd = [], []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # openpyxl warns of styles and extensions, which are no data
            sheet = load_workbook(io.BytesIO(content), read_only=True, data_only=True).worksheets[0]
            sheet.reset_dimensions()  # some programs write wrong ones
            for number, cells in enumerate(sheet.iter_rows(), 1):
                rows.append([_cell(cell.value) for cell in cells])
                odd += [(number, i, rows[-1][i]) for i, cell in enumerate(cells) if cell.data_type in ("d", "e")]
    except Exception as error:  # the engine raises errors of many kinds for a damaged file
        raise InputError(f"{place}: cannot be read as an Excel file, .xlsx ({clip(error)})") from error
    width = max(map(len, rows), default=0)
    frame, lines = _table(place, [row + [""] * (width - len(row)) for row in rows], list(range(1, len(rows) + 1)))
    for number, i, value in odd:
        if i < len(frame.columns) and (name := frame.columns[i]).lower() in (*COLUMNS, "phrase") and number in lines:
            complaint = f"{clip(value)} is a date or an error of the spreadsheet; write it as text"
            raise InputError(f"{place}, row {number}, column {name}: {complaint}")
    return frame, lines


def _cell(value: Any) -> str:
    """A cell as the spreadsheet's own CSV has it; numbers to its 15 digits."""
    if isinstance(value, str):
        return value.replace("_x000D_", "\r")  # how the format spells a carriage return
    if isinstance(value, bool):
        return str(value).upper()
    return "" if value is None else f"{value:.15g}" if isinstance(value, float) else str(value)


def _decoded(place: str, content: bytes) -> str:
    form = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "UTF-8"
    try:
        text = content.decode(form).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        complaint = f"byte {content[error.start]:#04x} is not {form}; forms that are read: {', '.join(ENDINGS)}"
        raise InputError(f"{place}, row {line}: {complaint}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{place}, row {line}: holds a zero byte; is it text, in UTF-8 or in UTF-16 with its mark?")
    return text


def _text(place: str, text: str, separator: str) -> tuple[pd.DataFrame, list[int]]:
    """By the csv module, not pandas: it counts lines, and neither fills nor shifts rows of a wrong length."""
    if text.count("\r\r\n") == text.count("\n"):
        text = text.replace("\r\r\n", "\r\n")  # line ends that a program wrote twice
    # lines end as the header does: the other sign, where it stands alone, is part of a value
    old = re.match(r'[\r\n]*[^"\r\n]*(?:"[^"]*"[^"\r\n]*)*\r(?!\n)', text)
    text, sign = re.sub(r"(?<!\r)\n" if old else r"\r(?!\n)", "\0", text), "\n" if old else "\r"
    spaced = re.match(rf'[^\r\n]*"{separator} +"', text) is not None  # `"a", "b"`: the space is none of the value
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=spaced, strict=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if len(row) > 1 or any(map(str.strip, row)):  # an empty line is no row
                rows.append([value.replace("\0", sign) for value in row])
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{place}, row {line}: is no CSV ({clip(error)})") from error
    header = separator.join(rows[0]).lower().replace('"', "") if rows else ""
    for other in ";\t|,".replace(separator, ""):
        if {"anchor", "target"} <= {*map(str.strip, header.split(other))}:
            raise InputError(f"{place}, row {lines[0]}: columns seem separated by {other!r}, not by {separator!r}")
    return _table(place, rows, lines)


def _table(place: str, rows: list[list[str]], lines: list[int]) -> tuple[pd.DataFrame, list[int]]:
    filled = [max((i for i, value in enumerate(row, 1) if value.strip()), default=0) for row in rows]
    if not any(filled):
        raise InputError(f"{place}: is empty")
    kept = [i for i, length in enumerate(filled) if length]
    rows, lines, filled = (values[kept[0] : kept[-1] + 1] for values in (rows, lines, filled))
    width = max(length for length in filled if length <= len(rows[0]))
    for i, (row, line) in enumerate(zip(rows, lines, strict=True)):
        if len(row) < width or filled[i] > width:
            raise InputError(f"{place}, row {line}: has {len(row)} values, the header {width}")
        rows[i] = row[:width]
    return pd.DataFrame(rows[1:], columns=_header(place, lines[0], rows[0]), dtype=str), lines[1:]


def _header(place: str, line: int, names: list[str]) -> list[str]:
    names = [name.strip(" \t\r\n\ufeff\u200b\u00a0") for name in names]
    for name in names:
        if name.lower() in COLUMNS and names.count(name) > 1:  # others are only carried along
            raise InputError(f"{place}, row {line}: column {clip(name)} stands {names.count(name)} times")
    return names
