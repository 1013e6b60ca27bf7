"""The Cooperative Patent Classification: sections (`H`), classes (`H04`), what they are about, their tree.

`cpc.csv` lists the nine sections and the 128 classes of edition 2022.02 with short glosses written for this
project. The left-over classes `A99` to `H99` are not in it: they name no subject to learn from.
"""

import csv
import re
import zipfile
from pathlib import Path

import pandas as pd

from patsim_utils.errors import InputError

UNKNOWN = "unknown"

with Path(__file__).with_name("cpc.csv").open(encoding="utf-8", newline="") as _file:
    _GLOSSES = {row["code"]: row["title"] for row in csv.DictReader(_file)}

SECTIONS: tuple[str, ...] = tuple(code for code in _GLOSSES if len(code) == 1)
CLASSES: tuple[str, ...] = tuple(code for code in _GLOSSES if len(code) == 3)
CODES: tuple[str, ...] = (UNKNOWN, *SECTIONS, *CLASSES)  # the rows of the embedding table, in this order

_INDEX = {code: index for index, code in enumerate(CODES)}
_KNOWN_CLASSES = frozenset(CLASSES)


def is_class(text: str) -> bool:
    """Whether the text is a known class, with nothing around it: `H04`, but not `H`, `h04` or `H04L`."""
    return text in _KNOWN_CLASSES


def code_index(context: str, *, unknown: str = "error") -> int:
    """Row of a section or class in `CODES`, from 1.

    Args:
        unknown: what any other text does: "error" raises InputError, "embedding" gives 0 (`unknown`).
    """
    if unknown not in ("error", "embedding"):
        raise InputError(f"parameter unknown: {unknown!r} is none of error, embedding")
    index = _INDEX.get(context, 0)
    if index == 0 and unknown == "error":
        raise InputError(f"context {context!r} is no CPC section or class, such as H or H04")
    return index


def parent(code: str) -> str | None:
    """Class -> its section; section or `unknown` -> None. InputError for what is not in `CODES`."""
    if code not in _INDEX:
        raise InputError(f"{code!r} is no CPC section or class, such as H or H04")
    return code[0] if is_class(code) else None


def section(code: str) -> str:
    """Class or section -> section; `unknown` -> `unknown`."""
    return parent(code) or code


def path(code: str) -> tuple[str, ...]:
    """From the section down to the code: `H04` -> ("H", "H04")."""
    above = parent(code)
    return (above, code) if above else (code,)


def titles(path: str | Path | None = None) -> dict[str, str]:
    """What each of `CODES` is about, lower case, in the order of `CODES`; `unknown` has the empty text.

    Args:
        path: the official title list (bulk zip of the CPC site); without it the glosses of this package. A
            code that an edition of the list does not have keeps its gloss.
    """
    official = _official(Path(path)) if path else {}
    return {code: official.get(code, _GLOSSES.get(code, "")) for code in CODES}


def subclasses(code: str, path: str | Path) -> dict[str, str]:
    """Subclasses (`H04B`) below a class or section, with their titles, from the official title list zip."""
    parent(code)  # an unknown code is an error, not an empty answer
    return {key: title for key, title in _official(Path(path)).items() if len(key) == 4 and key.startswith(code)}


def tree() -> pd.DataFrame:
    """One row a section and class: `code`, `parent` ("" above a section), `title` (gloss)."""
    rows = [(code, parent(code) or "", _GLOSSES[code]) for code in CODES[1:]]
    return pd.DataFrame(rows, columns=["code", "parent", "title"])


def _official(path: Path) -> dict[str, str]:
    """Titles of the sections, classes and subclasses in the zip's files `cpc-section-H_<date>.txt`.

    A line holds code, level and title, tab-separated.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if re.search(r"cpc-section-[A-HY]_\d+\.txt$", name)]
            lines = [line for name in names for line in archive.read(name).decode("utf-8").splitlines()]
    except (OSError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as the CPC title list zip ({error})") from error
    fields = [line.split("\t") for line in lines]
    found = {field[0]: _clean(field[2]) for field in fields if len(field) == 3 and len(field[0]) in (1, 3, 4)}
    if not found:
        raise InputError(f"{path}: holds no titles in files named cpc-section-X_DATE.txt")
    return found


def _clean(title: str) -> str:
    """Official title -> lower case without (cross references) and braces; the text in braces stays."""
    title = title.replace("{", " ").replace("}", " ")
    removed = 1
    while removed:  # from the innermost brackets outwards
        title, removed = re.subn(r"\([^()]*\)", " ", title)
    title = re.sub(r"\s+([;,.])", r"\1", " ".join(title.split()))
    return title.strip(" ;,").lower()
