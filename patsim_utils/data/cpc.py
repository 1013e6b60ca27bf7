"""The Cooperative Patent Classification: sections (`H`), classes (`H04`), titles, tree.

`cpc.csv` lists the nine sections and the 128 classes of edition 2022.02 with short glosses written
for this project. The left-over classes `A99` to `H99` are not in it: they name no subject to learn
from.
"""

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterator
from pathlib import Path

from patsim_utils.errors import InputError, clip, named

UNKNOWN = "unknown"
SECTION_FILE = re.compile(r"(?:^|/)cpc-section-[A-HY]_\d+\.txt$")
LARGEST_LIST = 2**26  # bytes of all sections of the official list, of which the largest has 4 MB
LONGEST_TITLE = 5000  # characters of the title of a section or class

with Path(__file__).with_name("cpc.csv").open(encoding="utf-8", newline="") as _file:
    _GLOSSES = {row["code"]: row["title"] for row in csv.DictReader(_file)}

SECTIONS: tuple[str, ...] = tuple(code for code in _GLOSSES if len(code) == 1)
CLASSES: tuple[str, ...] = tuple(code for code in _GLOSSES if len(code) == 3)
# The rows of the embedding table, in this order
CODES: tuple[str, ...] = (UNKNOWN, *SECTIONS, *CLASSES)

_INDEX = {code: index for index, code in enumerate(CODES)}
# Words and signs that end the phrase that a title begins with
_PHRASE_END = re.compile(
    r"[,;:.\[/]|\b(?:a|acting|adapted|an|and|arranged|as|at|based|being|between|by|characterised|comprising|consisting"
    r"|containing|covered|for|from|having|in|including|involving|made|not|on|only|or|other|per|provided|relating"
    r"|responsive|specially|than|the|thereby|therefor|thereof|to|under|used|using|via|when|where|whereby|with|without)\b|^of\b"
)
_SYMBOL = re.compile(r"([A-HY]\d\d)\s*([A-Z]\s*(\d{1,4}\s*(/\s*\d{2,6})?)?)?")


def class_of(text: str) -> str | None:
    """The known class of a symbol in any spelling, else None.

    >>> class_of("H01"), class_of(" h01m 8/04"), class_of("H012")
    ('H01', 'H01', None)
    """
    symbol = _SYMBOL.fullmatch(unicodedata.normalize("NFKC", text).strip().upper())
    if symbol and symbol[1] in _INDEX:
        return symbol[1]
    return None


def code_index(context: str, *, unknown: str = "error") -> int:
    """Row of a section or class in `CODES`, from 1.

    Other text: InputError, or 0 where `unknown` is "embedding".
    """
    index = _INDEX.get(context, 0)
    if index == 0 and unknown == "error":
        raise InputError(f"context {clip(context)} is no CPC section or class, such as H or H04")
    return index


def parent(code: str) -> str | None:
    """Class -> its section; anything else -> None."""
    if code in CLASSES:
        return code[0]
    return None


def titles(path: str | Path | None = None) -> dict[str, str]:
    """What each of `CODES` is about, lower case, in the order of `CODES`.

    `unknown` has the empty text.

    Args:
        path: the official title list (bulk zip of the CPC site); without it the glosses of this
            package. A code that an edition of the list does not have keeps its gloss.

    >>> titles()["unknown"], list(titles())[1:4]
    ('', ['A', 'B', 'C'])
    """
    texts = dict(_GLOSSES)
    if path:
        texts |= _official(Path(path))
    return {code: texts.get(code, "") for code in CODES}


def _official(path: Path) -> dict[str, str]:
    """Section or class -> title, of the official list."""
    texts = {code: title for code, _, title in _titled(path) if code in _INDEX}
    if not texts:
        raise InputError(f"{named(path)}: has no title of a CPC section or class")
    for code, text in texts.items():
        if len(text) > LONGEST_TITLE:
            raise InputError(f"{named(path)}: the title of {code} has {len(text):,} characters")
    return {code: _clean(text) for code, text in texts.items()}


def title_phrases(path: str | Path) -> list[tuple[str, str, str]]:
    """What groups of the official list are called, and what the groups above them are called.

    Returns (phrase of the group above, phrase of the group, class), in the order of the list. A
    phrase is what a title begins with, in at most four words; groups without one are left out.

    Raises:
        InputError: the list cannot be read.
    """
    rows = []
    above: dict[int, str] = {}  # phrase of the last group of each level
    for code, level, title in _titled(Path(path)):
        depth = int(level) if level.isdecimal() else -1
        above = {other: phrase for other, phrase in above.items() if other < depth}
        phrase = _first_phrase(title)
        if phrase is None:
            continue
        if above and code[:3] in _INDEX:
            rows.append((above[max(above)], phrase, code[:3]))
        above[depth] = phrase
    return rows


def _first_phrase(title: str) -> str | None:
    """The phrase of one to four words that an official title begins with, if it begins with one.

    >>> _first_phrase("Hood latches {(locks for vehicles E05B)}; Catches"), _first_phrase("with teeth")
    ('hood latches', None)
    """
    start = _PHRASE_END.split(_clean(title[:LONGEST_TITLE]).replace("-", " "))[0].strip()
    words = start.removesuffix(" of").split()
    is_phrase = 1 <= len(words) <= 4 and re.fullmatch("[a-z0-9 ]+", start)
    if is_phrase and max(len(word) for word in words) >= 4:
        return " ".join(words)
    return None


def _titled(path: Path) -> list[tuple[str, str, str]]:
    """Code, level and title of all lines of the files `cpc-section-H_<date>.txt`, where tabs separate them."""
    try:
        rows = [line.rstrip("\r\n").split("\t") for line in _lines_of_sections(path)]
    except Exception as error:  # zipfile raises errors of many kinds for a damaged file
        reason = f"cannot be read as the CPC title list, a zip ({clip(error)})"
        raise InputError(f"{named(path)}: {reason}") from error
    titled = [(row[0], row[1], row[2]) for row in rows if len(row) == 3]
    if not titled:
        raise InputError(f"{named(path)}: holds no titles in files named cpc-section-X_DATE.txt")
    return titled


def _lines_of_sections(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        parts = [part for part in archive.infolist() if SECTION_FILE.search(part.filename)]
        size = sum(part.file_size for part in parts)
        if size > LARGEST_LIST:
            raise ValueError(f"its sections unpack to {size:,} bytes")
        for part in parts:
            # some editors write a mark at the start
            with io.TextIOWrapper(archive.open(part), encoding="utf-8-sig") as lines:
                yield from lines


def _clean(title: str) -> str:
    """Official title -> lower case without (cross references) and braces.

    The text in braces stays.
    """
    title = re.sub("[{}]", " ", title)
    removed = 1
    while removed:  # from the innermost brackets outwards
        title, removed = re.subn(r"\([^()]*\)", " ", title)
    title = " ".join(title.split())
    return re.sub(r"\s+([;,.])", r"\1", title).strip(" ;,").lower()
