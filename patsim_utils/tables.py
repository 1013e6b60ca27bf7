"""The one door for tables that come in: CSV, TSV (also .gz), Parquet and Excel files, read without a guess."""

import csv
import gzip
import io
import re
import zlib
from pathlib import Path

import pandas as pd

from patsim_utils.errors import InputError, clip

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".xlsx")
_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))

csv.field_size_limit(2**31 - 1)  # a long value is data like any other


def read_table(path: Path) -> tuple[pd.DataFrame, list[int]]:
    """A table and the row of the file where each of its rows begins: the header is row 1; in a text file, its line.

    Values of a text file and of a sheet are text as it stands there ("null" and "NA" are words, an empty cell is ""),
    those of a Parquet file have their types. Header names are stripped. Empty rows, and empty columns and rows at the
    end, are left out; nothing else is filled or shifted.

    Raises:
        InputError: the file cannot be read, with the row and the cause.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not content:
        raise InputError(f"{path}: is empty")
    name = path.name.lower()
    if content[:4] == b"PAR1" or name.endswith(".parquet"):
        return _binary(path, content, "Parquet file")
    if content[:4] == b"PK\3\4" or name.endswith(".xlsx"):
        return _binary(path, content, "Excel file (.xlsx)")
    if content[:2] == b"\x1f\x8b" or name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: is no whole gzip file ({clip(error)})") from error
    separator = "\t" if name.removesuffix(".gz").endswith(".tsv") else ","
    return _rows(path, _decoded(path, content), separator)


def _binary(path: Path, content: bytes, kind: str) -> tuple[pd.DataFrame, list[int]]:
    try:
        if kind == "Parquet file":
            frame = pd.read_parquet(io.BytesIO(content))
        else:
            frame = pd.read_excel(io.BytesIO(content), dtype=str, keep_default_na=False, engine="openpyxl")
    except Exception as error:  # the engines raise errors of many kinds for a damaged file
        raise InputError(f"{path}: cannot be read as {kind} ({clip(error)})") from error
    if kind != "Parquet file":
        frame.columns = ["" if str(name).startswith("Unnamed: ") else str(name) for name in frame.columns]
        filled = frame.ne("").any(axis=1).to_numpy().nonzero()[0]
        frame = frame.iloc[: filled.max() + 1 if len(filled) else 0]
        while len(frame.columns) and frame.columns[-1] == "" and frame.iloc[:, -1].eq("").all():
            frame = frame.iloc[:, :-1]
    frame.columns = [str(name).strip() for name in frame.columns]
    frame = frame.reset_index(drop=True)
    return frame, list(range(2, len(frame) + 2))


def _decoded(path: Path, content: bytes) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, row {line}: byte {content[error.start]:#04x} is not {encoding.upper()}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, row {line}: holds a zero byte; is it text, in UTF-8 or in UTF-16 with its mark?")
    return text


def _rows(path: Path, text: str, separator: str) -> tuple[pd.DataFrame, list[int]]:
    """By the csv module, not pandas: it counts lines, and neither fills nor shifts rows of a wrong length."""
    if "\n" in text:  # then a carriage return alone ends no row, also where it stands in no quotes
        text = re.sub(r"\r(?!\n)", "\0", text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows, lines, line = [], [], 1
    try:
        for row in reader:
            if any(row):
                rows.append([value.replace("\0", "\r") for value in row])
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(f"{path}, row {line}: is no CSV ({clip(str(error))})") from error
    if not rows:
        raise InputError(f"{path}: is empty")
    header, top = [name.strip() for name in rows.pop(0)], lines.pop(0)
    if len(header) == 1 and (found := re.search(r"[;\t,|]", header[0])):
        raise InputError(f"{path}, row {top}: the columns seem to be separated by {found[0]!r}, not by {separator!r}")
    width = max(
        place for place, name in enumerate(header, 1) if name or any(any(row[place - 1 : place]) for row in rows)
    )
    for place, (row, line) in enumerate(zip(rows, lines, strict=True)):
        if not any(row[width:]) and len(row) > width:
            rows[place] = row = row[:width]
        if len(row) != width:
            raise InputError(f"{path}, row {line}: has {len(row)} values, the header {width}")
    return pd.DataFrame(rows, columns=header[:width], dtype=str), lines
