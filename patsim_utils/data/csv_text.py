"""CSV and TSV files, row by row.

They are read by the csv module, which counts lines and neither fills nor shifts a short row.
"""

import csv
import re
from collections.abc import Iterator

from patsim_utils.data.names import KNOWN, clean_name, say_once
from patsim_utils.errors import InputError, clip

SEPARATORS = ",;\t|"
MOST_CELLS = 50_000_000  # values of a table that is read at once
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
HEADER_WITH_CARRIAGE_RETURN = re.compile(r'[\r\n]*[^"\r\n]*(?:"[^"]*"[^"\r\n]*)*\r(?!\n)')
NAMES = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}

csv.field_size_limit(2**31 - 1)  # a long value is data like any other


def read_rows(
    source: str, content: bytes, separator: str, *, most_cells: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The line where each row begins, and its values; empty lines are no rows.

    `separator` is the one that the file's ending means; another is taken where the header is known
    by it alone. InputError, before any row is read: the text has more than `most_cells` values.
    """
    text = _decoded(source, content)
    separator = _separator(source, text, separator)
    cells = text.count(separator) + max(text.count("\n"), text.count("\r"))
    if most_cells is not None and cells > most_cells:
        excess = f"about {cells:,} values, more than {most_cells:,}"
        raise InputError(f"{source}: has {excess}; cut it into several tables")
    text, sign = _one_line_end(text)
    has_other_signs = "\0" in text
    lines: list[str] = []  # of the row that is being read
    reader = csv.reader(
        _remembered(text, lines),
        delimiter=separator,
        skipinitialspace=_has_spaces_after_separators(text, separator),
        strict=True,
    )
    width = 0
    spread: list[tuple[int, list[str]]] = []
    number = 1
    try:
        for values in reader:
            if len(values) > 1 or any(map(str.strip, values)):
                width = width or len(values)
                if len(lines) > 1:
                    _refuse_swallowed(source, number, lines, separator, width)
                    spread.append((number, values))
                if has_other_signs:
                    values = [value.replace("\0", sign) for value in values]
                yield number, values
            number += len(lines)
            lines.clear()
    except csv.Error as error:
        raise InputError(f"{source}, row {number}: is no CSV ({clip(error)})") from error
    if spread:
        _say_spread(source, spread)


def _decoded(source: str, content: bytes) -> str:
    """UTF-8, or UTF-16 with its mark; else Windows-1252, which is said."""
    encoding = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "UTF-8"
    try:
        text = content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        text = _windows_text(source, content, encoding, error)
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        advice = "is it text, in UTF-8 or in UTF-16 with its mark?"
        raise InputError(f"{source}, row {line}: holds a zero byte; {advice}")
    return text


def _windows_text(source: str, content: bytes, encoding: str, error: UnicodeDecodeError) -> str:
    """The text in Windows-1252.

    InputError where some of it is UTF-8 all the same, which is then damaged.
    """
    line = content.count(b"\n", 0, error.start) + 1
    readable = content.decode("utf-8", errors="ignore")
    if encoding == "UTF-8" and readable.isascii():
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            pass  # a byte that means nothing there
        else:
            words = text.split("\n")[line - 1].strip()
            example = f"such as row {line}: {clip(words, 60)}"
            say_once(f"{source}: is no UTF-8 and is read as Windows-1252, {example}")
            return text
    complaint = f"byte {content[error.start]:#04x} is not {encoding}"
    advice = "save it as UTF-8, or as .xlsx or .parquet"
    raise InputError(f"{source}, row {line}: {complaint}; {advice}")


def _separator(source: str, text: str, expected: str) -> str:
    """The separator by which the header has most names that mean something.

    The expected one where none has more.
    """
    header = text.lstrip("\r\n")
    header = re.split(r"[\r\n]", header, maxsplit=1)[0].lower().replace('"', "")

    def known_names(separator: str) -> int:
        names = {clean_name(name) for name in header.split(separator)}
        return len(names & set(KNOWN))

    best = max([expected, *SEPARATORS], key=known_names)  # the first of equals
    if best != expected:
        separators = f"by {NAMES[best]}, not by {NAMES[expected]}"
        say_once(f"{source}: its columns are separated {separators}, and read so")
    return best


def _one_line_end(text: str) -> tuple[str, str]:
    r"""The text in which lines end as the header does, and the other sign, a part of values.

    The other sign becomes \0 where it stands alone, since the csv module would end a row there.
    """
    if text.count("\r\r\n") == text.count("\n"):
        text = text.replace("\r\r\n", "\r\n")  # line ends that a program wrote twice
    if HEADER_WITH_CARRIAGE_RETURN.match(text):
        return re.sub(r"(?<!\r)\n", "\0", text), "\n"
    return re.sub(r"\r(?!\n)", "\0", text), "\r"


def _remembered(text: str, lines: list[str]) -> Iterator[str]:
    """The lines of the text, each also added to `lines`; io.StringIO would take 4 bytes a letter."""
    for match in LINE.finditer(text):
        lines.append(match[0])
        yield match[0]


def _has_spaces_after_separators(text: str, separator: str) -> bool:
    """Whether the header is like `"a", "b"`, where the space is no part of the value."""
    return re.match(rf'[^\r\n]*"{re.escape(separator)} +"', text) is not None


def _refuse_swallowed(source: str, number: int, lines: list[str], separator: str, width: int) -> None:
    """InputError where a value goes over lines that are whole rows: its quote is an inch sign."""
    if width > 1 and all(len(line.split(separator)) == width for line in lines):
        last = number + len(lines) - 1
        complaint = f"a quote opens a value that ends in row {last} only, over lines like rows"
        example = clip(lines[0].strip(), 60)
        advice = 'write a value with a " within quotes, and its " twice'
        raise InputError(f"{source}, row {number}: {complaint} ({example}); {advice}")


def _say_spread(source: str, spread: list[tuple[int, list[str]]]) -> None:
    line, values = spread[0]
    value = next(value for value in values if "\n" in value or "\r" in value)
    count = "1 row goes" if len(spread) == 1 else f"{len(spread):,} rows go"
    example = f"row {line}, {clip(value, 60)}"
    say_once(f"{source}: {count} over several lines, since a value in quotes does: {example}")
