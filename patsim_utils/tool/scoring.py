"""Scores of a table of pairs, or of a folder of tables, in parts that outlive a break."""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils import storage
from patsim_utils.data import tables
from patsim_utils.errors import InputError, clip, named
from patsim_utils.ratings import RELATIONS, SCORES, in_words
from patsim_utils.tool import outputs, parts, rows, scale
from patsim_utils.tool.models import Model
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
    explain: bool = False  # also the answer in words, the probability of each score, and the relation
    skip_errors: bool = False  # a bad row gets no score, and a file says why
    columns: tuple[str, ...] = ()  # that are written; () for all and the prediction
    spreadsheet_safe: bool = False
    overwrite: bool = False
    workers: int = 0  # of Ray; 0 for this process
    status: Path | None = None  # file that says how far the work is

    def identity(self) -> str:
        """What of the options decides what is written."""
        return json.dumps(asdict(replace(self, overwrite=False, workers=0, status=None)))


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
    if options.skip_errors:
        _refuse_shared_names(names, source)
    _name_tables_below(source, target)
    target.mkdir(parents=True, exist_ok=True)
    wrong = 0
    lock = storage.lock(storage.companion(target / outputs.LEDGER, "lock"), named(target))
    with lock, scale.cluster(options.workers) if options.workers else nullcontext():
        ledger = outputs.Ledger(target)
        for name in names:
            try:
                wrong += _score_one_of_folder(source / name, target / name, model, options, ledger)
            except InputError as error:  # the others are scored all the same
                print(f"error: {error}", file=sys.stderr)
                wrong += 1
    return wrong


def _score_one_of_folder(source: Path, target: Path, model: Model, options: Options, ledger: outputs.Ledger) -> bool:
    state = ledger.state(target.name, _identity(tables.read_bytes(source), model, options))
    if state == "current" and not options.overwrite:
        parts.discard(target)
        print(f"{named(target)}: is there already and stays as it is", flush=True)
        return False
    if state == "foreign" and not options.overwrite:
        reason = "is there already, and is not what this command wrote from the table"
        raise InputError(f"{named(target)}: {reason}; --overwrite replaces it")
    if state == "outdated":
        print(f"{named(target)}: the table, the model or an option changed; it is scored anew", flush=True)
    return score_table(source, target, model, options, ledger=ledger) > 0


def _identity(content: bytes, model: Model, options: Options) -> str:
    """What decides what is written of a table with this content."""
    return storage.digest(content, options.identity().encode(), model.identity.encode())


def _refuse_shared_names(names: list[str], source: Path) -> None:
    """InputError where the reasons of a table would go where another one, or its reasons, go."""
    taken = {name: name for name in names}
    for name in names:
        reasons = rows.reasons_path(Path(name)).name
        if reasons in taken:
            both = f"{clip(taken[reasons])} and what is wrong with {clip(name)}"
            raise InputError(f"{named(source)}: {both} would both be written to {clip(reasons)}; rename one")
        taken[reasons] = name


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
    ledger: outputs.Ledger | None = None,
) -> int:
    """Writes the rows of a table with their predictions; returns how many rows have none.

    `target` None is standard output. The table is read once, so that it may come through a pipe.
    What the `ledger` of a folder knows as this command's is replaced.

    InputError: the table, a row of it or the output is not as it must be; nothing is written then.
    """
    rows.refuse_own_reasons(source, target)
    may_replace = outputs.may_replace(target, overwrite=options.overwrite, ledger=ledger)
    finished = parts.written_before(target)
    outputs.check_output(target, overwrite=may_replace or bool(finished))
    content = tables.read_bytes(source)
    frame, lines = tables.read_table(source, content)
    source_name = named(source)
    phrases = rows.phrases_of(frame, options.names, source_name)
    if phrases.empty:
        raise InputError(f"{source_name}: has no row below its header")
    names = _written_columns(frame, options, source_name)
    pairs, faults = rows.checked(phrases, lines, source_name, unknown=options.unknown, skip=options.skip_errors)
    reasons = rows.Reasons(target, lines, faults, overwrite=options.overwrite, ledger=ledger)
    identity = _identity(content, model, options)
    if finished:  # a kill came right after the writing
        parts.discard(target)
    if finished != identity:
        outputs.check_output(target, overwrite=may_replace, rows=len(frame), columns=names)
        reasons.check()
        with parts.folder_of(target) as folder:
            # another process may have written it meanwhile
            outputs.check_output(target, overwrite=may_replace)
            values = _values(model, pairs, options, folder / identity, last_error=reasons.first)
            table = rows.joined(frame, _results(values, pairs.index, len(frame), options), names)
            outputs.check_output(target, overwrite=may_replace)
            reasons.write(identity)  # first, since a table that is there counts as done
            announce = partial(_announce, folder, target, identity, ledger)
            outputs.write_table(table, target, spreadsheet_safe=options.spreadsheet_safe, announce=announce)
    _say_done(target, f"{len(pairs):,} pairs{reasons.summary()}")
    return len(faults)


def _say_done(target: Path | None, what: str) -> None:
    """Says what was written, where an output on standard output is not disturbed by it."""
    if target is None:
        print(f"-: {what}", file=sys.stderr)
    else:
        print(f"{named(target)}: {what}")


def _announce(folder: Path, target: Path | None, identity: str, ledger: outputs.Ledger | None, content: bytes) -> None:
    """Notes what is about to be written to `target`, by which the next command knows it."""
    parts.note_written(folder, identity, content)
    if ledger is not None:
        ledger.note(target.name, identity, content)


def _written_columns(frame: pd.DataFrame, options: Options, source_name: str) -> list[str]:
    """Names of the columns of the output; InputError where one is not there, or there twice."""
    new = ["prediction"]
    if options.explain:
        new += ["answer", *PROBABILITIES, "relation", "relation_probability"]
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
        results["answer"] = results["prediction"].round(DIGITS).map(in_words)
        results[PROBABILITIES] = values[:, 1:6]
        shares = values[:, 6:]
        if shares.shape[1]:  # the model has learned ratings
            results["relation"] = np.array(list(RELATIONS))[shares.argmax(axis=1)]
            results["relation_probability"] = shares.max(axis=1)
        else:
            results["relation"] = ""
            results["relation_probability"] = np.nan
    return results.round(DIGITS).reindex(range(count))


def _values(model: Model, pairs: pd.DataFrame, options: Options, kept: Path, *, last_error: str) -> np.ndarray:
    """What `scale.values` gives for each row (n, k); parts that are done stay in the folder `kept`."""
    size = CHUNK
    if options.workers:
        size = min(RAY_CHUNK, -(-len(pairs) // (4 * options.workers)))
    kept = parts.begin(kept.with_name(f"{kept.name}-{size}"))
    chunks = parts.chunks(pairs, size, whole_groups=model.listwise)
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
    return parts.read(chunks, paths)


def _scored(
    model: Model, todo: dict[int, pd.DataFrame], options: Options, progress: Progress
) -> Iterator[tuple[int, np.ndarray]]:
    if options.workers:
        arguments = (model.folder.resolve(), options.unknown, options.explain)
        yield from scale.mapped(scale.Scorer, arguments, todo, workers=options.workers)
        return
    for number, part in todo.items():
        settings = {"unknown": options.unknown, "explain": options.explain, "progress": progress.within}
        yield number, model.values(part, **settings)
