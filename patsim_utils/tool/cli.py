"""The command `patsim`: compare two phrases, score tables, search a corpus, run a study, keep the record.

Exit status: 0 done; 1 a notebook or a disk failed; 2 the input was wrong, nothing was done with it; 130, 143 stopped.
What is wrong with arguments, names and files is said before torch or pandas are imported.
"""

import argparse
import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip, named
from patsim_utils.tool import arguments, models, outputs, work

if TYPE_CHECKING:
    from patsim_utils.config import Parameters

SEARCH_FORMS = (".json", *outputs.FORMS)


class Stopped(KeyboardInterrupt):
    """SIGTERM came."""


def tell(error: object, status: int) -> int:
    """Prints an error as one line; returns the exit status."""
    print(f"error: {InputError(str(error))}", file=sys.stderr)
    return status


def run_ask(words: argparse.Namespace) -> None:
    """`patsim ask`."""
    folder = _model_folder(words)
    clock = work.Clock()
    from patsim_utils.method.matcher import Matcher
    from patsim_utils.tool import answers

    work.use_threads(words.threads, clock)
    print(answers.ask(Matcher.load(folder), words.anchor, words.target, context=words.context))


def run_models(words: argparse.Namespace) -> None:
    """`patsim models`."""
    print(models.listing())


def run_score(words: argparse.Namespace) -> int:
    """`patsim score`; 2 also where rows or tables had something wrong and the others were scored."""
    _check_engine(words)
    folder = _model_folder(words)
    source = words.pairs
    target = outputs.destination(words.output)
    _check_readable(source)
    if source.is_dir():
        outputs.check_folder(target, source, overwrite=words.overwrite)
    else:
        if target is not None and target.is_dir():
            target = target / source.name
        outputs.check_output(target, overwrite=words.overwrite)
    if words.status is not None:
        outputs.check_output(words.status, overwrite=True, forms=(".json",))
    clock = work.Clock()
    from patsim_utils.tool import scoring

    options = scoring.Options(
        names=scoring.Columns(words.anchor_column, words.target_column, words.context_column, words.context),
        unknown=words.unknown,
        explain=words.explain,
        skip_errors=words.on_error == "skip",
        columns=words.columns,
        spreadsheet_safe=words.spreadsheet_safe,
        overwrite=words.overwrite,
        workers=words.workers if words.engine == "ray" else 0,
        status=words.status,
    )
    prepare = partial(work.use_threads, words.threads, clock) if words.engine == "local" else None
    model = scoring.Model(folder, prepare=prepare)
    score = scoring.score_folder if source.is_dir() else scoring.score_table
    return 2 if score(source, target, model, options) else 0


def run_search(words: argparse.Namespace) -> None:
    """`patsim search`: the phrases of a corpus that mean the same as a query in a class, or as each of many."""
    _check_engine(words)
    _check_query(words)
    folder = _model_folder(words)
    output = outputs.destination(words.output)
    outputs.check_output(output, overwrite=words.overwrite, forms=SEARCH_FORMS)
    if words.corpus != "sample":
        _check_readable(Path(words.corpus))
    clock = work.Clock()
    from patsim_utils.search.corpus import read_queries
    from patsim_utils.search.search import Search, check_count
    from patsim_utils.tool import scale

    check_count(words.top, where="--top")
    check_count(words.candidates, where="--candidates")
    queries = None if words.queries is None else read_queries(words.queries)
    note = work.use_threads(words.threads, clock)
    progress = work.Progress(0, unit="phrases of the index", note=note)
    encode = scale.encoder(words.workers) if words.engine == "ray" else None
    try:
        options = {"retriever": words.retriever, "encode": encode, "progress": progress.reach}
        search = Search.open(folder, words.corpus, **options)
    finally:
        progress.close()
    options = {"top": words.top, "candidates": words.candidates, "only_class": words.only_class}
    answer = search(words.query, words.context, **options) if queries is None else search.table(queries, **options)
    if answer.empty:
        print("no phrase of such a class is in this corpus", file=sys.stderr)
    outputs.write_table(answer, output, spreadsheet_safe=words.spreadsheet_safe)


def _check_query(words: argparse.Namespace) -> None:
    """InputError where the words of a search name no query, or two kinds of them."""
    if words.query is None and words.queries is None:
        raise InputError("query: is missing; name a phrase, or a table with --queries")
    if words.query is not None and words.queries is not None:
        raise InputError("--queries: a query is given, too; name one of both")
    if words.query is not None and words.context is None:
        raise InputError("--context: is missing; name a CPC class, such as H04")
    if words.queries is not None and words.context is not None:
        raise InputError("--context: is not for --queries, whose table has a column context")
    if words.queries is not None:
        _check_readable(words.queries)


def run_study(words: argparse.Namespace) -> int:
    """`patsim study`."""
    asked = _parameters(words).model_copy(update={"replace": words.replace})
    clock = work.Clock()
    from patsim_utils.study import notebooks

    asked = notebooks.check(asked, notebooks=words.notebooks)
    os.environ["OMP_NUM_THREADS"] = str(work.chosen_threads(words.threads, clock))  # of the notebooks' processes
    try:
        notebooks.study(asked, notebooks=words.notebooks)
    except notebooks.StudyError as error:
        return tell(error, 1)
    return 0


def run_ablation(words: argparse.Namespace) -> int:
    """`patsim ablation`: trains the variants, then runs the notebook that compares them."""
    if {"share", "variants"} & {key for key, _ in words.p}:
        raise InputError("-p: share and variants are set with --share and --variants")
    asked = _parameters(words).model_copy(update={"variants": words.variants, "share": words.share})
    clock = work.Clock()
    from patsim_utils.experiments import ablation
    from patsim_utils.experiments.variants import read_variants
    from patsim_utils.study import notebooks
    from patsim_utils.training import runs

    asked = notebooks.check(asked, notebooks=["5_ablation"])
    variants = read_variants(words.variants, asked.config)
    os.environ["OMP_NUM_THREADS"] = str(work.chosen_threads(words.threads, clock))
    folder = runs.run_folder(f"{asked.name}-{words.variants}")
    train = partial(ablation.run_variants, variants, folder, share=words.share, processes=words.processes)
    try:
        notebooks.study(asked, notebooks=["5_ablation"], before=train)
    except (notebooks.StudyError, ablation.VariantsError) as error:
        return tell(error, 1)
    return 0


def run_train(words: argparse.Namespace) -> int:
    """`patsim train`: the training of notebook 2 alone, also as one of several processes that torchrun started."""
    asked = _parameters(words)
    clock = work.Clock()
    from patsim_utils.data.splits import load
    from patsim_utils.study import explore, notebooks
    from patsim_utils.training import devices, runs
    from patsim_utils.training.fit import fit

    try:
        with chdir(ROOT):  # where the paths in `asked` start
            with devices.processes().main_process_first():  # which may fetch data and backbone
                asked = notebooks.check(asked, notebooks=[])
                config = asked.config
                splits = load(config.data, protocol=config.protocol, seed=config.seed)
            if "RANK" not in os.environ:  # torchrun has shared the cores out
                print(work.use_threads(words.threads, clock), file=sys.stderr, flush=True)
            folder = runs.run_folder(asked.name)
            metrics = fit(splits, config, folder, replace=words.replace, report_to=asked.report_to)
    except FloatingPointError as error:
        return _tell_once(error, 1)
    except RuntimeError as error:
        if not devices.lost(error):
            raise
        return tell(f"another device's process ended ({clip(error)})", 1)
    devices.processes().destroy_process_group()
    if _first_process():
        print(explore.summary(metrics).replace("**", ""))
    return 0


def run_distil(words: argparse.Namespace) -> int:
    """`patsim distil`: a teacher labels pairs that nobody rated, and a student learns from them as well."""
    asked = _parameters(words)
    teachers = [teacher.resolve() for teacher in words.teacher]
    for teacher in teachers:
        _check_readable(teacher)
    clock = work.Clock()
    from patsim_utils.data.splits import load
    from patsim_utils.study import explore, notebooks
    from patsim_utils.training import runs
    from patsim_utils.training.distil import distil

    work.use_threads(words.threads, clock)
    try:
        with chdir(ROOT):  # where the paths in `asked` start
            asked = notebooks.check(asked, notebooks=[])
            config = asked.config
            splits = load(config.data, protocol=config.protocol, seed=config.seed)
            folder = runs.run_folder(asked.name)
            metrics = distil(splits, config, teachers, folder, anchors=words.anchors, replace=words.replace)
    except FloatingPointError as error:
        return tell(error, 1)
    print(explore.summary(metrics).replace("**", ""))
    return 0


def run_readme(words: argparse.Namespace) -> None:
    """`patsim readme`."""
    from patsim_utils.study.pages import record

    record.write_readme()


def run_check_name(words: argparse.Namespace) -> None:
    """`patsim check-name`."""
    from patsim_utils.study.parameters import check_study_name

    check_study_name(words.name)


def run_record(words: argparse.Namespace) -> None:
    """`patsim record`."""
    run_check_name(words)
    from patsim_utils.study.pages import record

    record.record(words.name)


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "ask": run_ask,
    "models": run_models,
    "score": run_score,
    "search": run_search,
    "study": run_study,
    "ablation": run_ablation,
    "train": run_train,
    "distil": run_distil,
    "readme": run_readme,
    "check-name": run_check_name,
    "record": run_record,
}


def _model_folder(words: argparse.Namespace) -> Path:
    if words.model and words.run:
        raise InputError("--model, --run: one of them names the model, not both")
    return models.model_folder(words.model, words.run)


def _check_engine(words: argparse.Namespace) -> None:
    if words.workers > 1 and words.engine != "ray":
        raise InputError("--workers: works with --engine ray only")
    if words.engine == "ray" and not importlib.util.find_spec("ray"):
        raise InputError("--engine ray: Ray is not installed; pip install -e '.[scale]'")


def _check_readable(path: Path) -> None:
    """InputError where a file or folder is not there, or may not be read."""
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{named(path)}: cannot be read ({clip(str(reason))})") from error
    if not os.access(path, os.R_OK):
        raise InputError(f"{named(path)}: cannot be read (Permission denied)")


def _parameters(words: argparse.Namespace) -> "Parameters":
    """The parameters of a study; InputError where one of them, the preset, the name or the data are not right."""
    from patsim_utils.study.parameters import parameters

    if words.data not in (None, "sample", "kaggle"):
        _check_readable(Path(words.data))
    return parameters(words.preset, data=words.data, name=words.name or words.preset, settings=words.p)


def _first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def _tell_once(error: object, status: int) -> int:
    """Says an error that every device's process has in the first one alone; returns the exit status."""
    return tell(error, status) if _first_process() else status


def _terminate(*_: Any) -> NoReturn:
    raise Stopped


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    words = list(sys.argv[1:] if words is None else words)
    parser = arguments.parser()
    if not words:
        parser.print_help()
        return 0
    try:
        if words[0] in ("study", "ablation"):  # from make, which has no other way for words in quotes
            words += shlex.split(os.environ.get("PATSIM_P", ""))
    except ValueError as error:
        return tell(f"P: {error}", 2)
    signal.signal(signal.SIGTERM, _terminate)
    try:
        values = parser.parse_args(words)
        return COMMANDS[values.command](values) or 0
    except InputError as error:
        return _tell_once(error, 2)
    except OSError as error:
        return _tell_once(error, 1)
    except KeyboardInterrupt as error:
        print("stopped; give the same command again to go on", file=sys.stderr)
        return 143 if isinstance(error, Stopped) else 130
