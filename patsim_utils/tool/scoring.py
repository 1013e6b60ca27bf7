"""A table of pairs, or a folder of them, with the score of each by a run: in chunks, which outlive a break."""

import argparse
import hashlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from patsim_utils import storage
from patsim_utils.data import tables
from patsim_utils.data.pairs import check_pairs
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method.matcher import Matcher
from patsim_utils.tool import outputs, scale

CHUNK = 4096  # pairs that are scored at a time; a break costs at most one chunk


class Progress:
    """Rate and time left on stderr: on a terminal in one line, elsewhere every 30 s."""

    def __init__(self, total: int, *, done: int = 0, size: int = 0) -> None:
        self.total, self.began, self.skipped = total, time.monotonic(), done
        self.said, self.done, self.size = self.began, done, size  # rows that are done, and those of the next chunk

    def __call__(self, part: int, whole: int) -> None:
        now, terminal, done = time.monotonic(), sys.stderr.isatty(), self.done + self.size * part // whole
        if now - self.said >= (0.5 if terminal else 30):
            rate, self.said = max(1, done - self.skipped) / (now - self.began), now
            line = f"{done:,} of {self.total:,} pairs, {rate:,.0f} a second, {(self.total - done) / rate:,.0f} s left"
            print(f"\r{line}\033[K" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)


def score(given: argparse.Namespace) -> int:
    """Scores what the options of `patsim score` say; returns 2 where a folder holds tables that cannot be scored."""
    pairs, output = given.pairs, given.output

    @cache
    def model() -> tuple[Matcher, bytes]:
        """The model of the run, read once for all tables, and the digest of its files."""
        matcher, folder = Matcher.load(given.run), given.run / "model"
        paths = sorted(path for path in (folder if folder.is_dir() else given.run).rglob("*") if path.is_file())
        return matcher, b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)

    if not pairs.is_dir():
        score_table(pairs, output / pairs.name if output.is_dir() else output, model, given)
        return 0
    found = sorted(path for path in pairs.iterdir() if path.name.lower().endswith(outputs.FORMS))
    if not found:
        raise InputError(f"{named(pairs)}: holds no table ({', '.join(outputs.FORMS)})")
    if str(output) == "-" or (output.exists() and not output.is_dir()):
        raise InputError(f"{clip(str(output))}: is no folder, and a folder of tables is scored into one")
    if output.exists() and output.samefile(pairs) and not given.overwrite:
        raise InputError(f"{named(output)}: holds the tables themselves; --overwrite replaces each by its scored one")
    output.mkdir(parents=True, exist_ok=True)
    status = 0
    with scale.cluster(given.workers) if given.engine == "ray" else nullcontext():
        for table in found:
            scored = output / table.name
            try:
                if scored.exists() and not given.overwrite:
                    print(f"{scored}: is there already and stays as it is", flush=True)
                else:
                    score_table(table, scored, model, given)
            except InputError as error:  # the others are scored all the same
                print(f"error: {error}", file=sys.stderr)
                status = 2
    return status


def score_table(
    pairs: Path, output: Path, model: Callable[[], tuple[Matcher, bytes]], given: argparse.Namespace
) -> None:
    """Writes the rows of a table with the prediction of each, in their order."""
    place = named(pairs)
    outputs.check_output(output, overwrite=given.overwrite)
    frame, lines = tables.read_table(pairs)
    checked = check_pairs(frame, unknown=given.unknown, place=place, lines=lines)
    if checked.empty:
        raise InputError(f"{place}: has no row below its header")
    there, names = list(frame.columns), given.columns.split(",") if given.columns else None
    if missing := [name for name in names or [] if name not in (*there, "score", "prediction")]:
        raise InputError(f"--columns: {clip(missing[0])} is none of {clip(', '.join(there))}, score")
    if "prediction" in (names or ["prediction"]) and "prediction" in there:
        raise InputError(f"{place}: there is a column 'prediction' already; --columns can leave it out")
    outputs.check_output(output, overwrite=given.overwrite, rows=len(frame), columns=names or [*there, "prediction"])
    matcher, digest = model()
    identity = hashlib.sha256(f"{given.unknown} {CHUNK}".encode() + pairs.read_bytes() + digest).hexdigest()
    standard, parts = str(output) == "-", output.with_name(f".{output.name[:100]}.parts")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) if standard else parts
        stack.enter_context(storage.lock(folder / "lock", clip(str(output))))
        outputs.check_output(output, overwrite=given.overwrite)  # another process may have written it meanwhile
        prediction = _predictions(matcher, checked, given, folder / identity)
        frame.insert(len(there), "prediction", prediction, allow_duplicates=True)
        if names:
            places = [-1 if name == "score" else [*there, "prediction"].index(name) for name in names]
            frame = frame.iloc[:, places].set_axis(names, axis=1)
        outputs.write_table(frame, output, spreadsheet_safe=given.spreadsheet_safe)
        shutil.rmtree(folder)
    print(f"{output}: {len(frame):,} pairs", file=sys.stderr if standard else sys.stdout)


def _predictions(matcher: Matcher, checked: pd.DataFrame, given: argparse.Namespace, kept: Path) -> np.ndarray:
    """The prediction of each checked row (n,); chunks that are done outlive a break in the folder `kept`."""
    group = checked.groupby(["anchor", "context"], sort=False).ngroup().to_numpy()
    order, cuts = np.argsort(group, kind="stable"), range(CHUNK, len(group), CHUNK)
    if matcher.config.listwise:
        ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1  # of the groups, which a chunk has as a whole
        cuts = np.unique(ends[np.searchsorted(ends, cuts)])
    chunks = [rows for rows in np.split(order, cuts) if len(rows)]
    for other in set(kept.parent.glob("*/")) - {kept}:
        shutil.rmtree(other)  # of another input, model or option
    kept.mkdir(exist_ok=True)
    paths = [kept / f"{number}.f64" for number in range(len(chunks))]
    todo = {number: checked.iloc[rows] for number, rows in enumerate(chunks) if not paths[number].is_file()}
    progress = Progress(len(order), done=len(order) - sum(map(len, todo.values())))

    def local() -> Iterator[tuple[int, np.ndarray]]:
        for number, rows in todo.items():
            progress.size = len(rows)
            yield number, matcher.read(rows, unknown=given.unknown, progress=progress).scores

    ray, model = given.engine == "ray", (given.run.resolve(), given.unknown)
    scored = scale.mapped(scale.Scorer, model, todo, workers=given.workers) if ray else local()
    for number, values in scored:
        storage.write(paths[number], values.tobytes())
        progress.size, progress.done = 0, progress.done + len(values)
        progress(0, 1)
    found = np.empty(len(order))
    for rows, path in zip(chunks, paths, strict=True):
        found[rows] = np.fromfile(path)
    print("\r\033[K" if sys.stderr.isatty() else "", end="", file=sys.stderr)
    return found
