"""The command `patsim`: run a study, score a file of pairs, run an ablation, keep the record.

Exit status: 0 done; 1 a notebook or a disk failed; 2 the input was wrong, nothing was done with it; 130, 143 stopped.
"""

import argparse
import hashlib
import importlib.util
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip, named

NOTEBOOKS = ["1_explore", "2_train", "3_errors"]
CHUNK = 4096  # pairs that are scored at a time; a break costs at most one chunk
EXAMPLES = """examples:
  patsim study --preset sample
  patsim study --preset described --data path/to/folder --name real -p epochs 1
  patsim score --run runs/real pairs.csv -o scored.csv
  patsim search --run runs/sample --corpus sample --context H04 "wireless handset"
"""


class Stopped(KeyboardInterrupt):
    """SIGTERM came."""


class Parser(argparse.ArgumentParser):
    """Tells what is wrong with a command in one line."""

    def error(self, message: str) -> NoReturn:
        sys.exit(tell(f"{message[:400]} ({self.prog} --help tells more)", 2))


def tell(error: object, status: int) -> int:
    """Prints an error as one line, once where several devices have it; returns the exit status."""
    if os.environ.get("RANK", "0") == "0":
        print(f"error: {InputError(str(error))}", file=sys.stderr)
    return status


def run_train(given: argparse.Namespace) -> int:
    """`patsim train`: the training of notebook 2 alone, also as one of several processes that torchrun started."""
    from patsim_utils import analysis, data, devices, runs, study, train

    name = given.name or given.preset
    found = study.parameters(given.preset, data=given.data, name=name, given=given.p)
    try:
        with chdir(ROOT):  # where the paths in `found` start
            with devices.processes().main_process_first():  # which may fetch data and backbone
                found, config = study.check(found, notebooks=[])
                splits = data.load(config.data, protocol=config.protocol, seed=config.seed)
            told = str(found.get("report_to", "none"))
            metrics = train.fit(splits, config, runs.run_folder(name), replace=given.replace, report_to=told)
    except FloatingPointError as error:
        return tell(error, 1)
    except RuntimeError as error:
        if not devices.lost(error):
            raise
        print(f"error: another device's process ended ({clip(error)})", file=sys.stderr)
        return 1
    devices.processes().destroy_process_group()
    if os.environ.get("RANK", "0") == "0":
        print(analysis.summary(metrics).replace("**", ""))
    return 0


def run_study(given: argparse.Namespace) -> int:
    """`patsim study` and `patsim ablation`."""
    from patsim_utils import ablation, runs, study  # here, as in each command: --help does without torch

    name, before = given.name or given.preset, lambda: None
    found = study.parameters(given.preset, data=given.data, name=name, given=given.p) | {"replace": given.replace}
    found, config = study.check(found, notebooks=given.notebooks)
    if given.command == "ablation":
        if {"share", "variants"} & {key for key, _ in given.p}:
            raise InputError("-p: share and variants are set with --share and --variants")
        if not 0 < given.share <= 1 or given.processes < 1:
            raise InputError("--share: is not in (0, 1], or --processes is not at least 1")
        found |= {"variants": given.variants, "share": given.share}
        variants, folder = ablation.read_variants(given.variants, config), runs.run_folder(f"{name}-{given.variants}")
        options = {"share": given.share, "processes": given.processes}
        before = partial(ablation.run_variants, variants, folder, **options)
    try:
        study.study(name, found, notebooks=given.notebooks, before=before)
    except (study.StudyError, ablation.VariantsError) as error:
        return tell(error, 1)
    return 0


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


def run_score(given: argparse.Namespace) -> int | None:
    """`patsim score`: one table, or every table of a folder, one after the other, into a folder."""
    from patsim_utils import files

    _check_engine(given)
    pairs, output = given.pairs, given.output
    if not pairs.is_dir():
        return score_table(given, pairs, output / pairs.name if output.is_dir() else output)
    tables = sorted(path for path in pairs.iterdir() if path.name.lower().endswith(files.FORMS))
    if not tables:
        raise InputError(f"{named(pairs)}: holds no table ({', '.join(files.FORMS)})")
    if str(output) == "-" or (output.exists() and not output.is_dir()):
        raise InputError(f"{clip(str(output))}: is no folder, and a folder of tables is scored into one")
    output.mkdir(exist_ok=True)
    status = 0
    for table in tables:
        scored = output / table.name
        try:
            if scored.exists() and not given.overwrite:
                print(f"{scored}: is there already and stays as it is", flush=True)
            else:
                score_table(given, table, scored)
        except InputError as error:  # the others are scored all the same
            status = tell(error, 2)
    return status


def _check_engine(given: argparse.Namespace) -> None:
    if given.workers < 1 or (given.workers > 1 and given.engine != "ray"):
        raise InputError("--workers: is not at least 1, or without --engine ray")
    if given.engine == "ray" and not importlib.util.find_spec("ray"):
        raise InputError("--engine ray: Ray is not installed; pip install -e '.[scale]'")


def score_table(given: argparse.Namespace, pairs: Path, output: Path) -> None:
    """Writes the rows of a table with the prediction of each, in their order."""
    from patsim_utils import data, files, matcher, tables

    place = named(pairs)
    files.check_output(output, overwrite=given.overwrite)
    frame, lines = tables.read_table(pairs)
    checked = data.check_pairs(frame, unknown=given.unknown, place=place, lines=lines)
    if checked.empty:
        raise InputError(f"{place}: has no row below its header")
    files.check_output(output, overwrite=given.overwrite, rows=len(frame))
    there, names = list(frame.columns), given.columns.split(",") if given.columns else None
    if missing := [name for name in names or [] if name not in (*there, "score", "prediction")]:
        raise InputError(f"--columns: {clip(missing[0])} is none of {clip(', '.join(there))}, score")
    if "prediction" in (names or ["prediction"]) and "prediction" in there:
        raise InputError(f"{place}: there is a column 'prediction' already; --columns can leave it out")
    model, digest = matcher.Matcher.load(given.run), hashlib.sha256(f"{given.unknown} {CHUNK}".encode())
    for path in (pairs, *sorted(path for path in given.run.rglob("*") if path.is_file())):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    standard = str(output) == "-"
    folder = Path(tempfile.mkdtemp()) if standard else output.with_name(f".{output.name[:100]}.parts")
    with files.lock(folder / "lock", clip(str(output))):
        prediction = _predictions(model, checked, given, folder / digest.hexdigest())
    frame.insert(len(there), "prediction", prediction, allow_duplicates=True)
    if names:
        places = [-1 if name == "score" else [*there, "prediction"].index(name) for name in names]
        frame = frame.iloc[:, places].set_axis(names, axis=1)
    files.write_table(frame, output, spreadsheet_safe=given.spreadsheet_safe)
    shutil.rmtree(folder)
    print(f"{output}: {len(frame):,} pairs", file=sys.stderr if standard else sys.stdout)


def _predictions(model: Any, checked: Any, given: argparse.Namespace, kept: Path) -> Any:
    """The prediction of each checked row (n,); chunks that are done outlive a break in the folder `kept`."""
    import numpy as np

    from patsim_utils import files, ordinal, scale

    group = checked.groupby(["anchor", "context"], sort=False).ngroup().to_numpy()
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order], append=-1)) + 1  # of the groups, which a chunk has as a whole
    cuts = np.unique(ends[np.searchsorted(ends, range(CHUNK, len(order), CHUNK))])
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
            yield number, ordinal.score(model.logits(rows, unknown=given.unknown, progress=progress)).double().numpy()

    ray = given.engine == "ray"
    scored = scale.predictions(todo, given.run, unknown=given.unknown, workers=given.workers) if ray else local()
    for number, values in scored:
        files.write(paths[number], values.tobytes())
        progress.size, progress.done = 0, progress.done + len(values)
        progress(0, 1)
    found = np.empty(len(order))
    for rows, path in zip(chunks, paths, strict=True):
        found[rows] = np.fromfile(path)
    print("\r\033[K" if sys.stderr.isatty() else "", end="", file=sys.stderr)
    return found


def run_search(given: argparse.Namespace) -> None:
    """`patsim search`: the phrases of a corpus that mean the same as a query in a class."""
    from patsim_utils import files, search

    _check_engine(given)
    output = given.output
    if min(given.top, given.candidates) < 1:
        raise InputError("--top, --candidates: are not at least 1")
    if output.suffix.lower() != ".json":
        files.check_output(output, overwrite=given.overwrite)
    elif output.exists() and not given.overwrite:
        raise InputError(f"{named(output)}: exists already; --overwrite replaces it")

    def told(done: int, total: int) -> None:
        print(f"index: {done:,} of {total:,} phrases", file=sys.stderr, flush=True)

    workers = given.workers if given.engine == "ray" else 0
    found = search.Search.open(given.run, given.corpus, retriever=given.retriever, workers=workers, progress=told)
    options = {"top": given.top, "candidates": max(given.candidates, given.top), "only_class": given.only_class}
    answer = found(given.query, context=given.context, **options)
    if answer.empty:
        print(f"no phrase of class {clip(given.context)} is in this corpus", file=sys.stderr)
    search.write_answer(answer, output)


def _add_engine(add: Callable) -> None:
    add("--engine", choices=("local", "ray"), default="local", help="this process (default), or workers of Ray")
    add("--workers", type=int, default=1, help="Ray's workers, of one core each")


def _add_tools(command: Callable[..., Callable]) -> None:
    """`patsim score` and `patsim search`, which use a run."""
    add = command("score", "score a table of pairs with a trained model", run_score)
    add("pairs", type=Path, help="table with anchor, target, context: csv, tsv, parquet or xlsx; or a folder of them")
    add("--run", type=Path, required=True, help="run folder, or the model folder in it")
    told = "csv, csv.gz, tsv, tsv.gz, parquet, xlsx, or a folder; - for standard output"
    add("-o", "--output", type=Path, required=True, help=told)
    _add_engine(add)
    told = "a context that is no CPC class: refuse it (default), or score by the text alone"
    add("--unknown", choices=("error", "embedding"), default="error", help=told)
    add("--columns", help="write only these, such as id,score; score is the prediction")
    add("--overwrite", action="store_true", help="replace the output file if there is one")
    told = "a ' goes before text that a spreadsheet would run (= + - @, tab, CR); by default text stays as it is"
    add("--spreadsheet-safe", action="store_true", help=told)
    add = command("search", "find the phrases of a corpus that mean the same in a class", run_search)
    add("query", help="the phrase that is searched for")
    add("--context", required=True, help="CPC class in which the phrases are compared, such as H04")
    told = "table with a column phrase (its index is made beside it), an index, or sample"
    add("--corpus", type=Path, required=True, help=told)
    add("--run", type=Path, required=True, help="run folder, or the model folder in it")
    add("--top", type=int, default=20, help="phrases of the answer (default: 20)")
    add("--candidates", type=int, default=100, help="phrases that the retriever hands on (default: 100)")
    add("--only-class", action="store_true", help="only phrases whose context is the class; else they are preferred")
    told = "a sentence-transformers model: minilm, mpnet or a folder (default: the run's own, else minilm)"
    add("--retriever", default="auto", help=told)
    _add_engine(add)
    add("-o", "--output", type=Path, default=Path("-"), help="json, csv, tsv, parquet or xlsx; - for standard output")
    add("--overwrite", action="store_true", help="replace the output file if there is one")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    paths = [path for path in sorted((ROOT / "notebooks" / "presets").glob("*.yaml")) if path.is_file()]
    presets = {path.stem: path.read_text("utf-8", errors="replace") for path in paths}
    lines = [f"  {name:12}" + text.partition("\n")[0].removeprefix("# ") for name, text in presets.items()]
    epilog = "\n".join(["presets:", *lines, "", EXAMPLES])
    shown = {"formatter_class": argparse.RawDescriptionHelpFormatter, "epilog": epilog}
    told = "Train, explain and use a model of how alike two patent phrases are."
    top = Parser(prog="patsim", description=told, **shown)
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, told: str, do: Callable[[argparse.Namespace], int | None], **defaults: Any) -> Callable:
        own = shown if do in (run_study, run_train) else shown | {"epilog": EXAMPLES}
        one = commands.add_parser(name, help=told, allow_abbrev=False, **own)
        one.set_defaults(do=do, **defaults)
        return one.add_argument

    study = command("study", "run the notebooks, write reports/NAME", run_study)
    ablation = command("ablation", "compare variants", run_study, replace=False, notebooks=["5_ablation"])
    train = command("train", "train alone, without notebooks; torchrun starts it on several devices", run_train)
    for add in (study, ablation, train):
        add("--preset", required=True, help="one of the presets below")
        add("--data", help="sample, kaggle, or a folder with train.csv (default: the preset's, or sample)")
        add("--name", help="name of the study and its folders in runs/ and reports/ (default: the preset's)")
        add("-p", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="a parameter of a notebook")
    study("--notebooks", nargs="+", default=NOTEBOOKS, help="run only these, such as 3_errors")
    for add in (study, train):
        add("--replace", action="store_true", help="train anew where another run has this name")
    ablation("--variants", default="ablation", help="a file of notebooks/variants (default: ablation)")
    ablation("--share", type=float, default=0.25, help="of the training anchors, in (0, 1] (default: 0.25)")
    ablation("--processes", type=int, default=1, help="variants that train at the same time (default: 1)")
    _add_tools(command)
    command("readme", "write the recorded results into README.md", keep_record)
    command("record", "share a study: reports/recorded/NAME", keep_record)("name", metavar="NAME")
    command("check-name", "may a study have that name?", keep_record)("name", metavar="NAME")
    return top


def keep_record(given: argparse.Namespace) -> None:
    """`patsim readme`, `patsim record` and `patsim check-name`."""
    from patsim_utils import report, study

    if given.command == "readme":
        return report.write_readme()
    study.check_study_name(given.name)
    if given.command == "record":
        report.record(given.name)


def _terminate(*_: object) -> NoReturn:
    raise Stopped


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] in (["study"], ["ablation"]):  # from make, which has no other way for words in quotes
            words += shlex.split(os.environ.get("PATSIM_P", ""))
    except ValueError as error:
        return tell(f"P: {error}", 2)
    given = parser().parse_args(words)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return given.do(given) or 0
    except InputError as error:
        return tell(error, 2)
    except OSError as error:
        return tell(error, 1)
    except KeyboardInterrupt as error:
        print("stopped; give the same command again to go on", file=sys.stderr)
        return 143 if isinstance(error, Stopped) else 130
