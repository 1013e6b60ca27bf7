"""Random tables and folders for `python -m tests.fuzz`: what is carried along, quotes, and swaps that are killed.

Nothing is lost, changed or read as something else without a word; what the user made stays as it was.
"""

import contextlib
import csv
import datetime as dt
import gzip
import json
import random
from pathlib import Path
from unittest.mock import patch

import openpyxl
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from patsim_utils import storage
from patsim_utils.data import csv_text, tables
from patsim_utils.tool import outputs

FORMS = ("csv", "csv.gz", "tsv", "parquet", "xlsx")
TEXTS = (
    "",
    "x",
    "010",
    "1e3",
    "NA",
    "null",
    "=1+1",
    'a "b"',
    '"5',
    "a,b;c\td",
    "two\nlines",
    " x ",
    "é ß",
    "1.10",
    "'",
)
INTEGERS = (None, 0, -7, 12, 2**53 + 1, 2**63 - 1, -(2**63))
UNSIGNED = (None, 0, 2**63, 2**64 - 1)
NUMBERS = (None, 0.5, 1e22, 1e-7, 1 / 3, -3.25)  # a sheet holds 16 digits
COLUMNS = {
    "note": (TEXTS, pa.string()),
    "id": (INTEGERS, pa.int64()),
    "unsigned": (UNSIGNED, pa.uint64()),
    "small": ((None, 1, -128, 127), pa.int8()),
    "number": (NUMBERS, pa.float64()),
}


class WrongError(Exception):
    """A silent wrong answer."""


def check(right: bool, what: str) -> None:
    if not right:
        raise WrongError(what)


def shown(value: object) -> str:
    """A value as a text file has it."""
    return "" if value is None or value is pd.NA or value != value else str(value)


def written(path: Path, names: list[str], rows: list[list], category: bool) -> None:
    """A table in the form of the ending, by other code than that which is tested."""
    if path.name.endswith("parquet"):
        columns = {}
        for position, name in enumerate(names):
            values = pa.array([row[position] for row in rows], COLUMNS.get(name, (None, pa.string()))[1])
            columns[name] = values.dictionary_encode() if category else values
        pq.write_table(pa.table(columns), path)
    elif path.name.endswith("xlsx"):
        book = openpyxl.Workbook()
        for number, row in enumerate([names, *rows], 1):
            for position, value in enumerate(row, 1):
                cell = book.active.cell(number, position, shown(value) or None)
                cell.data_type = "s" if shown(value) else "n"
        book.save(path)
    else:
        opened = gzip.open if path.name.endswith("gz") else open
        with opened(path, "wt", newline="", encoding="utf-8") as file:
            separator = "\t" if path.name.endswith("tsv") else ","
            csv.writer(file, delimiter=separator).writerows([names, *[map(shown, row) for row in rows]])


def read_back(path: Path) -> list[list[str]]:
    """The cells of a table as texts, the header first, by other code than that which is tested."""
    if path.name.endswith("parquet"):
        table = pq.read_table(path)
        return [table.column_names, *[[shown(value) for value in row.values()] for row in table.to_pylist()]]
    if path.name.endswith("xlsx"):
        sheet = openpyxl.load_workbook(path).active
        return [[shown(cell) for cell in row] for row in sheet.iter_rows(values_only=True)]
    opened = gzip.open if path.name.endswith("gz") else open
    with opened(path, "rt", newline="", encoding="utf-8") as file:
        return list(csv.reader(file, delimiter="\t" if path.name.endswith("tsv") else ","))


def carried(draw: random.Random, folder: Path) -> None:
    """A table in some form, read and written in another: each cell comes out as it went in."""
    work = folder / "carried"
    storage.remove(work)
    work.mkdir()
    extra = draw.sample(list(COLUMNS), draw.randint(1, len(COLUMNS)))
    names = ["anchor", *extra]
    rows = [["x", *[draw.choice(COLUMNS[name][0]) for name in extra]] for _ in range(draw.randint(1, 5))]
    source = work / f"in.{draw.choice(FORMS)}"
    target = work / f"out.{draw.choice(FORMS)}"
    written(source, names, rows, category=draw.random() < 0.3)
    before = storage.digest(work)
    frame, _ = tables.read_table(source)
    outputs.write_table(frame, target)
    cells = read_back(target)
    expected = [names, *[list(map(shown, row)) for row in rows]]
    check(cells == expected, f"{source.name}, {target.name}: {expected} became {cells}")
    target.unlink()
    check(storage.digest(work) == before, "the source, or its folder, is not what it was")


def _shown_number(draw: random.Random) -> tuple[object, str, str]:
    """A whole number, the format of its cell, and the text with as many digits as the format has."""
    groups = draw.choice([[5], [5, 4], [3, 2, 4], [13], [1]])
    digits = sum(groups)
    number = draw.randrange(10 ** draw.randint(1, 12))
    number_format = draw.choice(["-", "\\-"]).join("0" * group for group in groups)
    number_format = draw.choice(["", '"DE-"', "[$-407]"]) + number_format + draw.choice(["", ";@", "_ "])
    return number, number_format, f"{number:0{digits}}"


def _shown_day(draw: random.Random) -> tuple[object, str, str]:
    """A moment, a format with or without its time, and the text."""
    day = dt.datetime(2000, 1, 1) + dt.timedelta(days=draw.randrange(20_000))
    moment = day + dt.timedelta(seconds=draw.choice([0, 0, 1, 43_200]))
    number_format = draw.choice(["yyyy-mm-dd", "d.m.yy", "yyyy-mm-dd hh:mm", "dd/mm/yyyy hh:mm:ss"])
    is_day = moment == day and "h" not in number_format
    return moment, number_format, str(day.date()) if is_day else str(moment)


def sheets(draw: random.Random, folder: Path) -> None:
    """Numbers and days with a format: zeros that are shown stay, and a day gets no time."""
    cells = [draw.choice([_shown_number, _shown_day])(draw) for _ in range(draw.randint(1, 5))]
    book = openpyxl.Workbook()
    book.active.append(["anchor", "note"])
    for row, (value, number_format, _) in enumerate(cells, 2):
        book.active.cell(row, 1, "x")
        book.active.cell(row, 2, value).number_format = number_format
    book.save(folder / "sheets.xlsx")
    texts = tables.read_table(folder / "sheets.xlsx")[0]["note"].tolist()
    check(texts == [text for _, _, text in cells], f"{cells} became {texts}")


MOMENTS = (
    dt.time(1, 2, 3),
    dt.time(1, 2, 3, 4),
    dt.timedelta(days=2, seconds=5),
    dt.timedelta(microseconds=-5),
    dt.datetime(2020, 1, 2, 3, 4, 5),
    dt.datetime(2020, 1, 2, tzinfo=dt.UTC),
    dt.datetime(2020, 1, 2, microsecond=7),
    dt.date(1800, 1, 2),
    b"text",
    1e-12,
    2**63 - 1,
)


def moments(draw: random.Random, folder: Path) -> None:
    """Times, durations, bytes and small numbers, written in each form that is no Parquet, are what they were."""
    values = draw.choices(MOMENTS, k=draw.randint(1, 4))
    frame = pd.DataFrame({"anchor": "x", "note": pd.Series(values, dtype=object)})
    expected = [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    for ending in ("csv", "xlsx", "json"):
        path = folder / f"moments.{ending}"
        outputs.write_table(frame, path)
        if ending == "json":
            cells = [str(row["note"]) for row in json.loads(path.read_text())]
        else:
            cells = [row[1] for row in read_back(path)[1:]]
        check(cells == expected, f"{ending}: {expected} became {cells}")


def quotes(draw: random.Random, folder: Path) -> None:
    """Rows with signs of inches, which nobody has put in quotes: all of them are read, or it is said that not."""
    names = draw.choice([["phrase"], ["phrase", "note"], ["anchor", "target", "context"]])
    words = ["hose", "5 in pipe", '"5 in pipe', 'pipe 5"', '5" pipe', '"pipe"', '""', "a; b"]
    rows = [[draw.choice(words) for _ in names] for _ in range(draw.randint(1, 6))]
    path = folder / "quotes.csv"
    path.write_text("\n".join(",".join(row) for row in [names, *rows]) + "\n")
    said: list[str] = []
    with patch.object(csv_text, "say_once", said.append):
        frame, _ = tables.read_table(path)
    fewer = len([row for row in rows if set(row) != {'""'}]) - len(frame)  # an empty row at the end is none
    check(fewer <= 0 or any("over several lines" in line for line in said), f"{rows}: {fewer} rows fewer, unsaid")


def swaps(draw: random.Random, folder: Path) -> None:
    """A swap that is killed at any step, beside folders of the user's: those stay, the target is old or new."""
    work = folder / "swaps"
    storage.remove(work)
    name = draw.choice(["run", "x" * 60, "a.index", "ü"])
    own = [f"{name}.old", f"{name}.new", f".{name}.old", f".{name[:50]}.{'0' * 16}.swap", f"{name}.swap"]
    for other in draw.sample(own, draw.randint(0, len(own))):
        (work / other).mkdir(parents=True)
        (work / other / "file").write_text("the user's")
    own_digest = storage.digest(work) if work.exists() else storage.digest()
    existing = {path.name for path in work.iterdir()} if work.exists() else set()
    target = work / name
    for content, path in (("old", target), ("new", work / "fresh")):
        path.mkdir(parents=True)
        (path / "file").write_text(content)
    steps = iter(range(99))
    last = draw.randint(0, 8)

    def until(step):
        def counted(*values, **options):
            if next(steps) == last:
                raise InterruptedError
            return step(*values, **options)

        return counted

    with (
        patch.object(Path, "rename", until(Path.rename)),
        patch.object(Path, "mkdir", until(Path.mkdir)),
        patch.object(Path, "write_bytes", until(Path.write_bytes)),
        patch.object(storage.shutil, "rmtree", until(storage.shutil.rmtree)),
        contextlib.suppress(InterruptedError),
    ):
        storage.swap(work / "fresh", target)
    storage.recover(target)
    check((target / "file").read_text() in ("old", "new"), "the target is neither the old nor the new one")
    storage.remove(target)
    storage.remove(work / "fresh")
    check({path.name for path in work.iterdir()} == existing, f"left over: {sorted(work.iterdir())}")
    check(not existing or storage.digest(work) == own_digest, "a folder of the user's changed")


def encodings(draw: random.Random, folder: Path) -> None:
    """A text with a byte that is no UTF-8: read as Windows-1252 as a whole, or refused."""
    text = "anchor,target,context\n" + "".join(f"café {i},naïve “x”,H01\n" for i in range(draw.randint(1, 3)))
    content = bytearray(text.encode(draw.choice(["utf-8", "cp1252"])))
    content[draw.randrange(len(content))] = draw.randrange(128, 256)
    path = folder / "bytes.csv"
    path.write_bytes(content)
    frame, _ = tables.read_table(path)
    joined = " ".join([*frame.columns, *frame.to_numpy().ravel()])
    check("Ã©" not in joined and "â€" not in joined, f"UTF-8 was read as Windows-1252: {joined}")
