"""Excel workbooks: the first sheet that is not hidden is read, with its stored values; one is written.

Of formats those count that say how many digits a whole number has, and whether a day has a time;
0.5 is 0.5, also where the spreadsheet shows 50 %.
"""

from __future__ import annotations

import io
import math
import numbers
import re
import warnings
import zipfile
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

from patsim_utils.data.names import KNOWN, PHRASES, clean_name, say_once
from patsim_utils.errors import LISTED, InputError, clip

if TYPE_CHECKING:
    import pandas as pd

LARGEST_UNPACKED = 2**29  # bytes of all parts of a workbook, which is a zip file
SMALL_UNPACKED = 2**26  # bytes to which any file may unpack
UNPACKED_TIMES = 50  # to so many times its size a larger one may
PIECE = 2**20  # bytes that are unpacked at a time
# Parts of which every tag becomes an object; of others those of a text in several fonts, <r>, do
WHOLE_PARTS = ("styles.xml", "workbook.xml", "[Content_Types].xml", ".rels", "core.xml", "custom.xml")
MOST_TAGS = 500_000  # of those in a part; Excel allows 64,000 formats of cells
MOST_ROWS = 2**20
MOST_CELLS = 20_000_000  # rows times columns of a sheet
DATE_OR_ERROR = ("d", "e")  # types of cells
NUMBER = ("n", "b")
SPELT_OUT = re.compile("_x([0-9A-Fa-f]{4})_")  # how the format spells signs out, such as a carriage return
ZEROS = re.compile("0{2,30}")  # formats of a postal code, or of another number of so many digits
LITERALS = re.compile(r'"[^"]*"|\\.|_.|\[[^]]*\]|[- ()]')  # of a format, beside its digits
TIME = re.compile("[hs]", re.IGNORECASE)  # in the format of a date that is shown with its time
MIDNIGHT = time()
MOST_UNNAMED = 100  # columns right of the header's last name that may hold values
CELL = 32767  # characters that a cell holds
DIGITS = 15  # of a number
EXACT = 10**DIGITS  # integers from here on are written as text
FIRST_DATE = "1900-03-01"  # from which on Excel counts days as others do


def read_rows(source: str, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """The number of each row, and its values, equally many; the first filled row is the header.

    Sheets that are not read, and numbers in a column of phrases, are said.

    InputError: a cell is a formula whose value is not stored, or, in a column that means something,
    a date or an error of the spreadsheet; a sheet is too large, or cannot be read.
    """
    try:
        _refuse_large(source, content)
        with warnings.catch_warnings():
            # openpyxl warns of styles and extensions, which are no data
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", ".* is marked as a date")  # which it is too large for
            rows = _Rows(source)
            for number, cells in enumerate(_sheet(source, content).iter_rows(), 1):
                rows.add(number, cells)
            if rows.may_hold_formulas:
                _refuse_formulas(source, content)
    except InputError:
        raise
    except Exception as error:  # the engine raises errors of many kinds for a damaged file
        reason = f"cannot be read as an Excel file, .xlsx ({clip(error)})"
        raise InputError(f"{source}: {reason}") from error
    rows.say_numbers()
    yield from rows.padded()


def most_unpacked(packed: int, largest: int) -> int:
    """To how many bytes a file of so many may unpack: a small one to less, since tables pack to a tenth.

    >>> most_unpacked(1000, 2**29) == 2**26, most_unpacked(2**24, 2**29) == 2**29
    (True, True)
    """
    return min(largest, max(SMALL_UNPACKED, UNPACKED_TIMES * packed))


def _refuse_large(source: str, content: bytes) -> None:
    most = most_unpacked(len(content), LARGEST_UNPACKED)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(part.file_size for part in archive.infolist())
        if size > most:
            excess = f"{size:,} bytes, more than {most:,}"
            raise InputError(f"{source}: unpacks to {excess}; save it as CSV")
        for name in archive.namelist():
            sign = b"<" if name.endswith(WHOLE_PARTS) else b"<r>"
            if _count(archive, name, sign) > MOST_TAGS:
                raise InputError(f"{source}: {clip(name)} has more than {MOST_TAGS:,} tags; save it as CSV")


def _count(archive: zipfile.ZipFile, name: str, sign: bytes) -> int:
    with archive.open(name) as part:
        return sum(piece.count(sign) for piece in iter(lambda: part.read(PIECE), b""))


def _sheet(source: str, content: bytes, *, data_only: bool = True) -> Any:
    from openpyxl import load_workbook  # here, since it takes a while and no other form needs it

    file = io.BytesIO(content)
    sheets = load_workbook(file, read_only=True, data_only=data_only, keep_links=False).worksheets
    sheet = next((sheet for sheet in sheets if sheet.sheet_state == "visible"), sheets[0])
    others = [_described(other) for other in sheets if other is not sheet]
    if others:
        names = ", ".join(others[:LISTED])
        say_once(f"{source}: sheet {clip(sheet.title)} is read; not read: {names}")
    sheet.reset_dimensions()  # some programs write wrong ones
    return sheet


def _described(sheet: Any) -> str:
    if sheet.sheet_state == "visible":
        return clip(sheet.title)
    return f"{clip(sheet.title)} (hidden)"


class _Rows:
    """The rows of a sheet that have been read, and what is odd in them."""

    def __init__(self, source: str) -> None:
        from openpyxl.cell.read_only import ReadOnlyCell

        self.source = source
        self.kind = ReadOnlyCell  # of cells that stand in the file; others only fill gaps
        self.rows: list[tuple[int, list[str]]] = []
        self.header: list[str] = []  # names in lower case
        self.width = 0  # columns up to the last value
        self.cells = 0
        self.known: dict[str, str] = {}  # equal texts are kept once
        self.may_hold_formulas = False
        self.numbers = 0  # cells with a number in a column of phrases
        self.first_number = ""

    def add(self, number: int, cells: tuple) -> None:
        self.cells += max(len(cells), self.width)
        if number > MOST_ROWS or self.cells > MOST_CELLS:
            self._refuse_size(number)
        stored = [(column, cell) for column, cell in enumerate(cells) if type(cell) is self.kind]
        texts = {column: _text_of(cell) for column, cell in stored}
        filled = [column for column, text in texts.items() if text.strip()]
        width = filled[-1] + 1 if filled else 0
        last = max((column for column, text in texts.items() if text and column < len(self.header)), default=-1)
        values = [texts.get(column, "") for column in range(max(width, last + 1))]
        values = [self.known.setdefault(text, text) for text in values]
        if values and not self.header:
            self.header = [clean_name(value).lower() for value in values]
        if width > len(self.header) + MOST_UNNAMED:
            distance = f"{width - len(self.header):,} columns right of the last name in the header"
            complaint = f"{clip(values[-1])} stands {distance}; delete it"
            raise InputError(f"{self.source}, row {number}: {complaint}")
        self.width = max(self.width, width)
        self.rows.append((number, values))
        for column, cell in stored:
            if _may_be_formula(cell):
                self.may_hold_formulas = True
            elif column < width and cell.data_type != "s":
                self._check_type(number, column, cell.data_type, values[column])

    def _check_type(self, number: int, column: int, data_type: str, value: str) -> None:
        name = self.header[column] if column < len(self.header) else ""
        if data_type in DATE_OR_ERROR and name in KNOWN:
            complaint = f"{clip(value)} is a date or an error of the spreadsheet; write it as text"
            raise InputError(f"{self.source}, row {number}, column {name}: {complaint}")
        if data_type in NUMBER and name in PHRASES and value:
            self.numbers += 1
            self.first_number = self.first_number or f"row {number}, column {name}: {clip(value)}"

    def padded(self) -> Iterator[tuple[int, list[str]]]:
        if len(self.rows) * self.width > MOST_CELLS:
            self._refuse_size(len(self.rows))
        for number, values in self.rows:
            yield number, values + [""] * (self.width - len(values))

    def say_numbers(self) -> None:
        if self.numbers:
            count = f"numbers that are read as phrases: {self.numbers:,}"
            say_once(f"{self.source}: {count}, such as {self.first_number}")

    def _refuse_size(self, number: int) -> NoReturn:
        limits = f"{MOST_ROWS:,} rows, or {MOST_CELLS:,} cells up to the last column that is used"
        raise InputError(f"{self.source}, row {number}: the sheet has more than {limits}; save it as CSV")


def _may_be_formula(cell: Any) -> bool:
    """Whether a cell that stands in the file has no value: a style alone, or a formula."""
    return cell.value is None and cell.data_type == "n"


def _refuse_formulas(source: str, content: bytes) -> None:
    """InputError where a formula has no stored value; openpyxl gives one of both, so read twice."""
    value_rows = _sheet(source, content).iter_rows()
    formula_rows = _sheet(source, content, data_only=False).iter_rows()
    broken = []
    for values, formulas in zip(value_rows, formula_rows, strict=True):
        for value, formula in zip(values, formulas, strict=True):
            if formula.data_type == "f" and _may_be_formula(value):
                broken.append(formula.coordinate)
                if len(broken) == LISTED:
                    break
    if broken:
        complaint = "a formula has no stored value"
        advice = "open and save the file in a spreadsheet, or write the value"
        raise InputError(f"{source}, cell {', '.join(broken[:LISTED])}: {complaint}; {advice}")


def _text_of(cell: Any) -> str:
    """A cell as text: a whole number with the zeros that its format puts before it, a day without a time."""
    value = cell.value
    if isinstance(value, int) and not isinstance(value, bool):
        zeros = LITERALS.sub("", cell.number_format.partition(";")[0])
        digits = str(abs(value)).zfill(len(zeros) if ZEROS.fullmatch(zeros) else 0)
        return f"-{digits}" if value < 0 else digits
    if isinstance(value, datetime) and value.time() == MIDNIGHT and not TIME.search(cell.number_format):
        return str(value.date())
    return _text(value)


def _text(value: Any) -> str:
    """A value as the spreadsheet's own CSV has it; numbers to its 15 digits."""
    if value is None:
        return ""
    if isinstance(value, str):
        return SPELT_OUT.sub(lambda match: chr(int(match[1], 16)), value)
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)


def write(frame: pd.DataFrame, file: BinaryIO) -> None:
    """Writes a workbook with one sheet; ValueError where a text is nothing for a cell."""
    import openpyxl  # here, since other forms do without

    book = openpyxl.Workbook()
    sheet = book.active
    rows = with_short_numbers(frame).itertuples(index=False, name=None)
    for row, values in enumerate([frame.columns, *rows], 1):
        for column, value in enumerate(map(_for_a_cell, values), 1):
            illegal = openpyxl.cell.cell.ILLEGAL_CHARACTERS_RE
            if isinstance(value, str) and (len(value) > CELL or illegal.search(value)):
                raise ValueError(f"row {row}: {clip(value, 60)} is nothing for a cell of a sheet")
            cell = sheet.cell(row, column, value)
            if isinstance(value, str):
                cell.data_type = "s"  # also where it looks like a formula
    book.save(file)


def with_short_numbers(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame, whose numbers of four bytes or two have as doubles no more digits than before."""
    frame = frame.copy(deep=False)
    for position, dtype in enumerate(frame.dtypes):
        if dtype in ("float16", "float32"):
            frame.isetitem(position, [float(str(value)) for value in frame.iloc[:, position].to_numpy()])
    return frame


def plain(value: object) -> object:
    """None for a missing value, bytes as the text that they are, others as they are.

    ValueError where bytes are no text.
    """
    import pandas as pd

    if pd.api.types.is_scalar(value) and pd.isna(value):
        return None
    return value.decode() if isinstance(value, bytes) else value


def _for_a_cell(value: object) -> object:
    """A value as a cell of a sheet holds it: as text where its numbers and dates would change it."""
    value = plain(value)
    if isinstance(value, str):
        escaped = re.sub(r"_(?=x[0-9A-Fa-f]{4}_)", "_x005F_", value)  # else it would be read as a sign
        return escaped.replace("\r", "_x000D_")
    if isinstance(value, numbers.Integral):
        return value if abs(int(value)) < EXACT else str(value)
    if isinstance(value, Decimal):
        return value if len(value.normalize().as_tuple().digits) <= DIGITS else str(value)
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    if isinstance(value, date | time | timedelta):
        return value if _is_exact(value) else str(value)
    return value


def _is_exact(value: date | time | timedelta) -> bool:
    """Whether a sheet holds a date, time or duration: whole seconds, not before its first, in no time zone."""
    if getattr(value, "tzinfo", None) is not None or "." in str(value):
        return False
    if isinstance(value, timedelta):
        return value >= timedelta(0)
    return isinstance(value, time) or str(value) >= FIRST_DATE
