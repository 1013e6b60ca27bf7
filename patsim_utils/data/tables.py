"""Tables that come in: CSV, TSV (also .gz), Parquet and Excel files, read without a silent guess.

Limits: a .gz file unpacks to at most 256 MiB, a workbook to 512 MiB, and both to at most 64 MiB or
50 times their size; a table has at most 16,384 columns, one that is read at once at most 50 million
cells (rows times columns), a sheet of a workbook 20 million.
"""

import gzip
import io
import itertools
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from patsim_utils.data import csv_text, parquet, workbooks
from patsim_utils.data.names import COLUMNS, MOST_COLUMNS, clean_name
from patsim_utils.errors import InputError, clip, named

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet", ".xlsx")
LARGEST_UNPACKED = 2**28  # bytes of an unpacked .gz file
PIECE = 2**20  # bytes that are unpacked at a time
PIECE_ROWS = 100_000  # rows that are read at a time; a frame takes less memory than its rows as lists

Row = tuple[int, list[str]]  # where it begins, and its values


def read_table(path: str | Path, content: bytes | None = None) -> tuple[pd.DataFrame, list[int]]:
    """A table, and the line or row where each of its rows begins; the header's is 1.

    Values of a text file and of a sheet (the first that is not hidden) are text as it stands there:
    "null" and "NA" are words, an empty cell is "". Those of a Parquet file have their types;
    integers stay integers, also where some are missing. Names in the header are stripped. Empty
    lines, empty rows at both ends and empty columns at the end are left out; nothing else is filled
    or shifted.

    What is not plain is said once a table, as a warning of the logger "patsim": another separator
    than the ending says, Windows-1252, values over several lines, sheets that are not read, numbers
    in a column of phrases.

    Args:
        content: the bytes of the file where they have been read already, such as those of a pipe.

    InputError: the file cannot be read, with the row and the cause.
    """
    path = Path(path)
    source = named(path)
    if content is None:
        content = read_bytes(path)
    if _is_parquet(path, content):
        frame = parquet.read(source, content)
        frame.columns = _header(source, 1, list(map(str, frame.columns)))
        return frame, list(range(2, len(frame) + 2))
    rows = _rows(path, content, most_cells=csv_text.MOST_CELLS)
    return _together(list(_pieces(source, rows, PIECE_ROWS)))


def read_batches(path: str | Path, *, rows: int = PIECE_ROWS) -> Iterator[tuple[pd.DataFrame, list[int]]]:
    """`read_table` in pieces of at most so many rows, each with all columns.

    Columns without a name at the end stay, since later pieces may fill them; a table without rows
    gives one piece without any.
    """
    path = Path(path)
    source = named(path)
    content = read_bytes(path)
    if not _is_parquet(path, content):
        yield from _pieces(source, _rows(path, content, most_cells=None), rows)
        return
    first = 2
    for frame in parquet.read_batches(source, content, rows):
        frame.columns = _header(source, 1, list(map(str, frame.columns)))
        yield frame, list(range(first, first + len(frame)))
        first += len(frame)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, or all that comes through a pipe or a terminal.

    InputError where it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
                raise InputError(f"{named(path)}: is a device, which may have no end; give a file")
            return file.read()
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = clip(getattr(error, "strerror", None) or error)
        raise InputError(f"{named(path)}: cannot be read ({reason})") from error


def _is_parquet(path: Path, content: bytes) -> bool:
    return path.name.lower().endswith(".parquet") or content[:4] == b"PAR1"


def _rows(path: Path, content: bytes, *, most_cells: int | None) -> Iterable[Row]:
    """The rows of a workbook or a text file, the header among them."""
    source = named(path)
    name = path.name.lower()
    if name.endswith(".xlsx") or content[:4] == b"PK\3\4":
        return workbooks.read_rows(source, content)
    if name.endswith(".gz") or content[:2] == b"\x1f\x8b":
        content = _unpacked(source, content)
    separator = "\t" if name.removesuffix(".gz").endswith(".tsv") else ","
    return csv_text.read_rows(source, content, separator, most_cells=most_cells)


def _unpacked(source: str, content: bytes) -> bytes:
    """The content of a .gz file, whose size is looked at before it is kept."""
    try:
        size = 0
        most = workbooks.most_unpacked(len(content), LARGEST_UNPACKED)
        with gzip.open(io.BytesIO(content)) as file:
            for piece in iter(lambda: file.read(PIECE), b""):
                size += len(piece)
                if size > most:
                    excess = f"more than {most:,} bytes"
                    raise InputError(f"{source}: unpacks to {excess}; cut it into several")
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{source}: is no whole gzip file ({clip(error)})") from error


def _pieces(source: str, rows: Iterable[Row], size: int) -> Iterator[tuple[pd.DataFrame, list[int]]]:
    """Frames of at most `size` rows, and where their rows begin; at least one, of the columns."""
    rows = _without_empty_ends(rows)
    header_line, header = next(rows, (0, []))
    if not header:
        raise InputError(f"{source}: is empty")
    names = _header(source, header_line, header)
    named_width = _filled(header)
    piece = list(itertools.islice(rows, size))
    while True:
        values = [_of_width(source, row, len(header), least=named_width) for row in piece]
        lines = [line for line, _ in piece]
        yield pd.DataFrame(values, columns=names, dtype=str), lines
        piece = list(itertools.islice(rows, size))
        if not piece:
            return


def _without_empty_ends(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows from the first to the last that is not empty."""
    begun = False
    empty: list[Row] = []
    for row in rows:
        if _filled(row[1]):
            begun = True
            yield from empty
            empty.clear()
            yield row
        elif begun:
            empty.append(row)


def _together(pieces: list[tuple[pd.DataFrame, list[int]]]) -> tuple[pd.DataFrame, list[int]]:
    """One frame of all pieces, without empty columns at the end that have no name."""
    frame = pd.concat([piece for piece, _ in pieces], ignore_index=True)
    lines = list(itertools.chain.from_iterable(lines for _, lines in pieces))
    width = len(frame.columns)
    while not frame.columns[width - 1] and not frame.iloc[:, width - 1].str.strip().any():
        width -= 1
    return frame.iloc[:, :width], lines


def _filled(values: list[str]) -> int:
    """How many values there are up to the last that is not empty."""
    for position in range(len(values), 0, -1):
        if values[position - 1].strip():
            return position
    return 0


def _of_width(source: str, row: Row, width: int, *, least: int) -> list[str]:
    """The values of a row: at least so many, and those beyond `width` are empty."""
    line, values = row
    if len(values) == width:
        return values
    if len(values) < least or _filled(values) > width:
        raise InputError(f"{source}, row {line}: has {len(values)} values, the header {least}")
    return values[:width] + [""] * (width - len(values))


def _header(source: str, line: int, names: list[str]) -> list[str]:
    if len(names) > MOST_COLUMNS:
        raise InputError(f"{source}: has {len(names):,} columns, more than {MOST_COLUMNS:,}")
    names = [clean_name(name) for name in names]
    for name in names:
        if name.lower() in COLUMNS and names.count(name) > 1:  # others are only carried along
            count = names.count(name)
            raise InputError(f"{source}, row {line}: column {clip(name)} stands {count} times")
    return names
