"""Random folders and small hostile files for `python -m tests.fuzz`.

A second command after any change gives what a fresh one gives; nothing beside the outputs changes; and what is refused
is refused in little memory.
"""

import contextlib
import dataclasses
import functools
import gzip
import io
import os
import random
import resource
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from patsim_utils import storage
from patsim_utils.data import tables
from patsim_utils.errors import InputError, clip
from patsim_utils.plain_yaml import read_yaml
from patsim_utils.tool import outputs, rows, scoring
from patsim_utils.training import runs
from tests.fuzz_tables import WrongError, check

MOST_MEMORY = 2**30  # bytes that a refusal may take
ROWS = ("pump,valve,F04", "hose,pipe,F16", "pump,,F04", "steel,iron,E04", 'a "b",c,H01')
OWN = ("notes.txt", ".notes", "a.errors.csv", "z.csv", ".a.csv.notes.new", ".a.csv.parts/mine")


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scored_again(model: Path, other: Path) -> Callable[[random.Random, Path], None]:
    """A property of the scoring of folders; `other` is a model that may take the place of `model`."""

    def again(draw: random.Random, folder: Path) -> None:
        """Tables are scored; one thing changes; they are scored again, and as if it were the first time."""
        work = folder / "folders"
        storage.remove(work)
        source = work / "in"
        source.mkdir(parents=True)
        shutil.copytree(model, work / "model")
        for name in draw.sample(["a.csv", "b.tsv.gz", "c.csv"], draw.randint(1, 2)):
            _write_table(source / name, draw)
        options = scoring.Options(skip_errors=draw.random() < 0.7, explain=draw.random() < 0.5)
        _score(source, work / "out", work / "model", options)
        own = _put_own_files(work / "out", draw)
        options = _change(draw, work, other, options)
        before = snapshot(work)
        _score(source, work / "out", work / "model", options)
        after = snapshot(work)
        _score(source, work / "fresh", work / "model", options)
        fresh = snapshot(work / "fresh")
        for name in sorted(path.name for path in source.iterdir()):
            errors = rows.reasons_path(Path(name)).name
            if errors in own or name in own:
                continue  # the second command leaves the table, or its reasons, to the user
            for output in (name, errors):
                same = after.get(f"out/{output}") == fresh.get(output)
                check(same or name not in fresh, f"{output} is not what a fresh command writes")
        outside = {name for name in before.keys() | after.keys() if not name.startswith("out/")}
        outside |= {f"out/{name}" for name in own}
        changed = [name for name in sorted(outside) if before.get(name) != after.get(name)]
        check(not changed, f"changed beside the outputs: {changed}")
        known = {*fresh, *own, outputs.LEDGER}
        left = [name for name in after if name.startswith("out/") and name.removeprefix("out/") not in known]
        left = [name for name in left if name not in before]
        check(not left, f"left in the output: {left}")

    return again


def _write_table(path: Path, draw: random.Random) -> None:
    text = "\n".join(["anchor,target,context", *draw.choices(ROWS, k=draw.randint(1, 3))]) + "\n"
    if ".tsv" in path.name:
        text = text.replace(",", "\t")
    path.write_bytes(gzip.compress(text.encode(), mtime=0) if path.name.endswith(".gz") else text.encode())


def _score(source: Path, target: Path, model: Path, options: scoring.Options) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        scoring.score_folder(source, target, scoring.Model(model), options)


def _put_own_files(folder: Path, draw: random.Random) -> set[str]:
    """Files of a user's in the output folder, by names; a file that is there already stays."""
    names = set()
    for name in draw.sample(OWN, draw.randint(0, 3)):
        path = folder / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
            names.add(name)
    return names


def _change(draw: random.Random, work: Path, other: Path, options: scoring.Options) -> scoring.Options:
    """Changes a table, the model, the options, an output, or nothing."""
    kind = draw.choice(["row", "row", "model", "options", "output", "nothing"])
    table = draw.choice(sorted((work / "in").iterdir()))
    status = table.stat()
    if kind == "row":
        _write_table(table, draw)
        os.utime(table, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif kind == "model":
        shutil.copytree(other, work / "model", dirs_exist_ok=True)
    elif kind == "options":
        return dataclasses.replace(options, explain=not options.explain)
    elif kind == "output" and (work / "out" / table.name).exists():
        (work / "out" / table.name).unlink()
    return options


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """While it lasts this process may take MOST_MEMORY more than it has; a refusal for want of it is none."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + MOST_MEMORY, limits[1]))
    try:
        yield
    except InputError as error:
        if "alloc" in str(error) or "memory" in str(error).lower():
            raise WrongError(f"it took more than a gigabyte: {error}") from error
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _texts(draw: random.Random, path: Path) -> Path:
    """A Parquet file that says a long text many times."""
    count = draw.randint(1500, 4000)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["x" * 2**20]))
    column = pa.ListArray.from_arrays([0, count], text) if draw.random() < 0.5 else text
    pq.write_table(pa.table({"phrase": column}), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


@functools.cache
def _long_list(count: int) -> bytes:
    """A Parquet file with one list of so many values; it takes seconds to write."""
    values = pa.ListArray.from_arrays([0, count], pa.nulls(count, pa.int8()))
    file = io.BytesIO()
    pq.write_table(pa.table({"anchor": ["x"], "long": values}), file)
    return file.getvalue()


def _lists(draw: random.Random, path: Path) -> Path:
    path.with_suffix(".parquet").write_bytes(_long_list(draw.choice([130, 145, 160]) * 10**6))
    return path.with_suffix(".parquet")


@functools.cache
def _repeated(row: bytes) -> bytes:
    """A row, packed, so often that it unpacks to 128 MiB."""
    return gzip.compress(row * (2**27 // len(row)), 1, mtime=0)


def _packed(draw: random.Random, path: Path) -> Path:
    """A text that packs to a thousandth."""
    row = draw.choice(["a,b,H01\n", "😀,,\n", '"\n', "\r"])
    path.with_suffix(".csv.gz").write_bytes(_repeated(row.encode()))
    return path.with_suffix(".csv.gz")


def _workbook(draw: random.Random, path: Path) -> Path:
    """A workbook whose parts unpack to much, or whose cells lie far apart."""
    path = path.with_suffix(".xlsx")
    pd.DataFrame({"phrase": ["x"]}).to_excel(path.with_name("plain.xlsx"), index=False)
    part = draw.choice(["xl/sharedStrings.xml", "xl/styles.xml", "xl/worksheets/sheet1.xml"])
    with zipfile.ZipFile(path.with_name("plain.xlsx")) as plain:
        contents = {name: plain.read(name) for name in plain.namelist()}
    if part.endswith("sheet1.xml"):
        cells = b'<row><c/><c r="XFD1" s="0"/></row>' * draw.randint(2000, 4000)
        contents[part] = contents[part].replace(b"</sheetData>", cells + b"</sheetData>")
    else:
        contents[part] = contents.get(part, b"") + b" " * 2**27
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for name, content in contents.items():
            packed.writestr(name, content)
    return path


def _nested_json(draw: random.Random, path: Path) -> Path:
    path.mkdir(exist_ok=True)
    for name in ("config.json", "metrics.json"):
        (path / name).write_text("[" * draw.randint(10**4, 10**6))
    return path


def _yaml(draw: random.Random, path: Path) -> Path:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]" for number in range(1, 12)]
    long = "\n".join(f"key_{number}: 1" for number in range(draw.randint(9_000, 10**5)))
    text = draw.choice(["\n".join(lines), "[" * 10**5, "{" + "a: " * 10**5, long])
    path = path.with_suffix(".yaml")
    path.write_text(text)
    return path


def _tags(draw: random.Random, path: Path) -> Path:
    """A workbook with very many formats, fonts, names, or changes of the font within a text."""
    path = path.with_suffix(".xlsx")
    pd.DataFrame({"phrase": ["x"]}).to_excel(path.with_name("plain.xlsx"), index=False)
    part, end, tag = draw.choice(MANY_TAGS)
    with (
        zipfile.ZipFile(path.with_name("plain.xlsx")) as plain,
        zipfile.ZipFile(path, "w", 8, compresslevel=1) as packed,
    ):
        for name in plain.namelist():
            content = plain.read(name)
            if name == part:
                content = content.replace(end, tag * draw.randint(600_000, 3_000_000) + end)
            packed.writestr(name, content)
    return path


def _columns(draw: random.Random, path: Path) -> Path:
    """A text of one line with very many columns."""
    path = path.with_suffix(".csv.gz")
    path.write_bytes(gzip.compress(b"a," * draw.randint(20_000, 2_000_000) + b"phrase\n", 1))
    return path


def _read_yaml(path: Path) -> None:
    try:
        read_yaml(path.read_text())
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(clip(" ".join(str(error).split()))) from error


MANY_TAGS = (
    ("xl/styles.xml", b"</cellXfs>", b"<xf/>"),
    ("xl/styles.xml", b"</fonts>", b"<font/>"),
    ("xl/workbook.xml", b"</sheets>", b"<x/>"),
    ("xl/worksheets/sheet1.xml", b"</sheetData>", b"<r></r>"),
)
HOSTILE: list[tuple[Callable[[random.Random, Path], Path], Callable]] = [
    (_texts, tables.read_table),
    (_lists, tables.read_table),
    (_packed, tables.read_table),
    (_workbook, tables.read_table),
    (_tags, tables.read_table),
    (_columns, tables.read_table),
    (_nested_json, runs.Run.open),
    (_yaml, _read_yaml),
]


def hostile(draw: random.Random, folder: Path) -> None:
    """A small file or folder that would take gigabytes: refused in one line, in less than one."""
    work = folder / "hostile"
    storage.remove(work)
    work.mkdir()
    make, read = draw.choice(HOSTILE)
    path = make(draw, work / "x")
    size = sum(len(content) for content in snapshot(work).values())
    check(size < 5 * 2**20, f"{path.name} is of {size:,} bytes")
    with little_memory():
        read(path)
    raise WrongError(f"{make.__name__}: accepted")
