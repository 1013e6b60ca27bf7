"""Scores of a table of pairs, or of a folder of tables, in parts that outlive a break."""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils import storage
from patsim_utils.data import tables
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATIONS, SCORES
from patsim_utils.tool import outputs, rows, scale
from patsim_utils.tool.rows import SHOWN, Columns
from patsim_utils.tool.work import Progress

CHUNK = 4096  # pairs that this process scores at a time; a break costs at most one chunk
RAY_CHUNK = 4096  # pairs of a part that a worker of Ray scores, at most
DIGITS = 4  # of the numbers that are written
PROBABILITIES = [f"p_{score:g}" for score in SCORES]


@dataclass(frozen=True)
class Options:
    """How a table is read, scored and written."""

    names: Columns = Columns()  # of the columns that are read
    unknown: str = "error"  # of a context that is no CPC class: "error", "embedding" for the text alone
    explain: bool = False  # also the probability of each score, and the relation
    skip_errors: bool = False  # a bad row gets no score, and a file says why
    columns: tuple[str, ...] = ()  # that are written; () for all and the prediction
    spreadsheet_safe: bool = False
    overwrite: bool = False
    workers: int = 0  # of Ray; 0 for this process
    status: Path | None = None  # file that says how far the work is

    def identity(self) -> str:
        """What of the options decides what is written."""
        return json.dumps(asdict(replace(self, overwrite=False, workers=0, status=None)))


class Model:
    """A model folder: known by its content, and loaded when it is first needed.

    Before that `prepare` is called, which gives a `note` of how the model computes.
    """

    def __init__(self, folder: Path, *, prepare: Callable[[], str] | None = None) -> None:
        self.folder = folder
        self.prepare = prepare
        self.note = ""

    @cached_property
    def identity(self) -> str:
        return storage.digest(self.folder)

    @cached_property
    def matcher(self) -> Matcher:
        if self.prepare is not None:
            self.note = self.prepare()
        return Matcher.load(self.folder)


def score_folder(source: Path, target: Path, model: Model, options: Options) -> int:
    """Scores each table of a folder into a file of its name; returns how many tables had something wrong.

    A table whose scores are there stays as it is where table, model and options are those of
    before; it is scored anew where one of them changed. A file that is not known to be this
    command's is left, and that is said.
    """
    outputs.check_folder(target, source, overwrite=options.overwrite)
    names = sorted(path.name for path in source.iterdir() if path.name.lower().endswith(outputs.FORMS))
    if not names:
        raise InputError(f"{named(source)}: holds no table ({', '.join(outputs.FORMS)})")
    _name_tables_below(source, target)
    target.mkdir(parents=True, exist_ok=True)
    ledger = outputs.Ledger(target)
    wrong = 0
    with scale.cluster(options.workers) if options.workers else nullcontext():
        for name in names:
            try:
                wrong += _score_one_of_folder(source / name, target / name, model, options, ledger)
            except InputError as error:  # the others are scored all the same
                print(f"error: {error}", file=sys.stderr)
                wrong += 1
    return wrong


def _score_one_of_folder(source: Path, target: Path, model: Model, options: Options, ledger: outputs.Ledger) -> bool:
    identity = storage.digest(tables.read_bytes(source), options.identity().encode(), model.identity.encode())
    state = ledger.state(target.name, identity)
    if state == "current" and not options.overwrite:
        _discard_parts(target)
        print(f"{target}: is there already and stays as it is", flush=True)
        return False
    if state == "foreign" and not options.overwrite:
        reason = "is there already, and is not what this command wrote from the table"
        raise InputError(f"{named(target)}: {reason}; --overwrite replaces it")
    if state == "outdated":
        print(f"{target}: the table, the model or an option changed; it is scored anew", flush=True)
        options = replace(options, overwrite=True)
    return score_table(source, target, model, options, announce=partial(ledger.note, target.name, identity)) > 0


def _discard_parts(target: Path) -> None:
    """Deletes the parts that a kill right after the writing of a table has left."""
    folder = storage.companion(target, "parts")
    if folder.is_dir():
        with suppress(InputError), storage.lock(folder / "lock", named(target)):  # another process is at it
            shutil.rmtree(folder)


def _name_tables_below(source: Path, target: Path) -> None:
    """Names the tables in subfolders, which are not read; those of the output folder are none."""
    paths = [path for path in source.rglob("*/*") if path.name.lower().endswith(outputs.FORMS)]
    below = [path.relative_to(source) for path in paths if not path.is_relative_to(target)]
    if below:
        shown = ", ".join(named(path) for path in sorted(below)[:SHOWN])
        print(f"{named(source)}: {len(below)} tables in subfolders are not read: {shown}", file=sys.stderr)


def score_table(
    source: Path,
    target: Path | None,
    model: Model,
    options: Options,
    *,
    announce: Callable[[bytes], None] | None = None,
) -> int:
    """Writes the rows of a table with their predictions; returns how many rows have none.

    `target` None is standard output. The table is read once, so that it may come through a pipe.
    `announce` is told the content of the output before it is there.

    InputError: the table, a row of it or the output is not as it must be; nothing is written then.
    """
    outputs.check_output(target, overwrite=options.overwrite)
    content = tables.read_bytes(source)
    frame, lines = tables.read_table(source, content)
    source_name = named(source)
    phrases = rows.phrases_of(frame, options.names, source_name)
    if phrases.empty:
        raise InputError(f"{source_name}: has no row below its header")
    names = _written_columns(frame, options, source_name)
    outputs.check_output(target, overwrite=options.overwrite, rows=len(frame), columns=names)
    pairs, faults = rows.checked(phrases, lines, source_name, unknown=options.unknown, skip=options.skip_errors)
    reasons = pd.DataFrame({"row": [lines[position] for position in faults], "reason": list(faults.values())})
    reasons_file = _reasons_file(target, reasons, options)
    identity = storage.digest(content, options.identity().encode(), model.identity.encode())
    with _parts_folder(target) as folder:
        # another process may have written it meanwhile
        outputs.check_output(target, overwrite=options.overwrite)
        values = _values(model, pairs, options, folder / identity, last_error=next(iter(faults.values()), ""))
        results = _results(values, pairs.index, len(frame), options)
        outputs.check_output(target, overwrite=options.overwrite)
        _write_reasons(reasons_file, reasons)  # first, since a table that is there counts as done
        table = rows.joined(frame, results, names)
        outputs.write_table(table, target, spreadsheet_safe=options.spreadsheet_safe, announce=announce)
    summary = f"{target or '-'}: {len(pairs):,} pairs"
    if faults:
        summary += f", {len(faults):,} rows without a score: {reasons_file or 'see above'}"
    print(summary, file=sys.stderr if target is None else sys.stdout)
    return len(faults)


@contextmanager
def _parts_folder(target: Path | None) -> Iterator[Path]:
    """The folder of a table's parts, which no other process has meanwhile; it goes when the table is written."""
    if target is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    folder = storage.companion(target, "parts")
    with storage.lock(folder / "lock", named(target)):
        yield folder
        shutil.rmtree(folder)


def _reasons_file(target: Path | None, reasons: pd.DataFrame, options: Options) -> Path | None:
    """Where the reasons of rows without a score go, such as scored.errors.csv."""
    if reasons.empty or target is None:
        return None
    ending = next(form for form in sorted(outputs.FORMS, key=len, reverse=True) if target.name.lower().endswith(form))
    path = target.with_name(f"{target.name[: -len(ending)]}.errors.csv")
    if not outputs.holds(path, reasons):  # else a command that was killed has written it
        outputs.check_output(path, overwrite=options.overwrite)
    return path


def _write_reasons(path: Path | None, reasons: pd.DataFrame) -> None:
    if path is not None:
        outputs.write_table(reasons, path)
        return
    for line, reason in reasons[:SHOWN].itertuples(index=False):
        print(f"row {line}, {reason}", file=sys.stderr)


def _written_columns(frame: pd.DataFrame, options: Options, source_name: str) -> list[str]:
    """Names of the columns of the output; InputError where one is not there, or there twice."""
    new = ["prediction"]
    if options.explain:
        new += [*PROBABILITIES, "relation", "relation_probability"]
    existing = list(frame.columns)
    names = list(options.columns) or [*existing, *new]
    for name in options.columns:
        if name not in (*existing, *new, "score"):
            known = clip(", ".join(map(str, [*existing, *new])))
            raise InputError(f"--columns: {clip(name)} is none of {known}, score")
    for name in new:
        if name in names and name in existing:
            reason = f"there is a column {name!r} already; --columns can leave it out"
            raise InputError(f"{source_name}: {reason}")
    return names


def _results(values: np.ndarray, positions: pd.Index, count: int, options: Options) -> pd.DataFrame:
    """The new columns of all rows, from the values (n, k) of those at these positions."""
    results = pd.DataFrame({"prediction": values[:, 0]}, index=positions)
    if options.explain:
        results[PROBABILITIES] = values[:, 1:6]
        shares = values[:, 6:]
        if shares.shape[1]:  # the model has learned ratings
            results["relation"] = np.array(list(RELATIONS))[shares.argmax(axis=1)]
            results["relation_probability"] = shares.max(axis=1)
        else:
            results["relation"] = ""
            results["relation_probability"] = np.nan
    return results.round(DIGITS).reindex(range(count))


def _chunks(pairs: pd.DataFrame, size: int, *, whole_groups: bool) -> list[np.ndarray]:
    """Rows of each part, about `size`: those of an anchor in a class side by side.

    With `whole_groups` they are in one part.
    """
    group = pairs.groupby(["anchor", "context"], sort=False).ngroup().to_numpy()
    order = np.argsort(group, kind="stable")
    cuts = np.arange(size, len(group), size)
    if whole_groups:
        ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1
        cuts = np.unique(ends[np.searchsorted(ends, cuts)])
    return [chunk for chunk in np.split(order, cuts) if len(chunk)]


def _values(model: Model, pairs: pd.DataFrame, options: Options, kept: Path, *, last_error: str) -> np.ndarray:
    """What `scale.values` gives for each row (n, k); parts that are done stay in the folder `kept`."""
    size = CHUNK
    if options.workers:
        size = min(RAY_CHUNK, -(-len(pairs) // (4 * options.workers)))
    kept = kept.with_name(f"{kept.name}-{size}")
    for other in set(kept.parent.glob("*/")) - {kept}:
        shutil.rmtree(other)  # of another input, model or option
    kept.mkdir(exist_ok=True)
    chunks = _chunks(pairs, size, whole_groups=model.matcher.config.listwise)
    paths = [kept / f"{number}.f64" for number in range(len(chunks))]
    missing = [number for number, path in enumerate(paths) if not path.is_file()]
    todo = {number: pairs.iloc[chunks[number]] for number in missing}
    done = len(pairs) - sum(map(len, todo.values()))
    progress = Progress(len(pairs), done=done, status=options.status, note=model.note)
    model.note = ""  # said once, also where there are many tables
    if last_error:
        progress.fail(last_error)
    try:
        for number, values in _scored(model, todo, options, progress):
            storage.write(paths[number], values.astype(np.float64).tobytes())
            progress.finish(len(values))
    finally:
        progress.close()
    return _read_parts(chunks, paths)


def _scored(
    model: Model, todo: dict[int, pd.DataFrame], options: Options, progress: Progress
) -> Iterator[tuple[int, np.ndarray]]:
    if options.workers:
        arguments = (model.folder.resolve(), options.unknown, options.explain)
        yield from scale.mapped(scale.Scorer, arguments, todo, workers=options.workers)
        return
    for number, part in todo.items():
        settings = {"unknown": options.unknown, "explain": options.explain, "progress": progress.within}
        yield number, scale.values(model.matcher, part, **settings)


def _read_parts(chunks: list[np.ndarray], paths: list[Path]) -> np.ndarray:
    """The parts' values in the order of the rows."""
    parts = [np.fromfile(path).reshape(len(chunk), -1) for chunk, path in zip(chunks, paths, strict=True)]
    order = np.concatenate(chunks)
    values = np.empty((len(order), parts[0].shape[1]))
    values[order] = np.concatenate(parts)
    return values
