"""The command `patsim`: run a study, score a file of pairs, run an ablation, keep the record.

Exit status: 0 done; 1 a notebook or a disk failed; 2 the input was wrong, nothing was done with it; 130, 143 stopped.
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
from typing import Any, NoReturn

from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip

NOTEBOOKS = ["1_explore", "2_train", "3_errors"]
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
    from patsim_utils.data.splits import load
    from patsim_utils.study import explore, notebooks
    from patsim_utils.study.parameters import parameters
    from patsim_utils.training import devices, runs
    from patsim_utils.training.fit import fit

    name = given.name or given.preset
    asked = parameters(given.preset, data=given.data, name=name, settings=given.p)
    try:
        with chdir(ROOT):  # where the paths in `asked` start
            with devices.processes().main_process_first():  # which may fetch data and backbone
                asked = notebooks.check(asked, notebooks=[])
                config = asked.config
                splits = load(config.data, protocol=config.protocol, seed=config.seed)
            metrics = fit(splits, config, runs.run_folder(name), replace=given.replace, report_to=asked.report_to)
    except FloatingPointError as error:
        return tell(error, 1)
    except RuntimeError as error:
        if not devices.lost(error):
            raise
        print(f"error: another device's process ended ({clip(error)})", file=sys.stderr)
        return 1
    devices.processes().destroy_process_group()
    if os.environ.get("RANK", "0") == "0":
        print(explore.summary(metrics).replace("**", ""))
    return 0


def run_study(given: argparse.Namespace) -> int:
    """`patsim study` and `patsim ablation`."""
    from patsim_utils.study.parameters import parameters  # before torch: a misspelt parameter costs no import

    name, before = given.name or given.preset, lambda: None
    asked = parameters(given.preset, data=given.data, name=name, settings=given.p)
    from patsim_utils.experiments import ablation
    from patsim_utils.experiments.variants import read_variants
    from patsim_utils.study import notebooks
    from patsim_utils.training import runs  # here, as in each command: --help does without torch

    asked = notebooks.check(asked.model_copy(update={"replace": given.replace}), notebooks=given.notebooks)
    if given.command == "ablation":
        if {"share", "variants"} & {key for key, _ in given.p}:
            raise InputError("-p: share and variants are set with --share and --variants")
        if not 0 < given.share <= 1 or given.processes < 1:
            raise InputError("--share: is not in (0, 1], or --processes is not at least 1")
        asked = asked.model_copy(update={"variants": given.variants, "share": given.share})
        variants = read_variants(given.variants, asked.config)
        folder = runs.run_folder(f"{name}-{given.variants}")
        options = {"share": given.share, "processes": given.processes}
        before = partial(ablation.run_variants, variants, folder, **options)
    try:
        notebooks.study(asked, notebooks=given.notebooks, before=before)
    except (notebooks.StudyError, ablation.VariantsError) as error:
        return tell(error, 1)
    return 0


def run_score(given: argparse.Namespace) -> int:
    """`patsim score`."""
    from patsim_utils.tool import scoring

    _check_engine(given)
    return scoring.score(given)


def _check_engine(given: argparse.Namespace) -> None:
    if given.workers < 1 or (given.workers > 1 and given.engine != "ray"):
        raise InputError("--workers: is not at least 1, or without --engine ray")
    if given.engine == "ray" and not importlib.util.find_spec("ray"):
        raise InputError("--engine ray: Ray is not installed; pip install -e '.[scale]'")


def run_search(given: argparse.Namespace) -> None:
    """`patsim search`: the phrases of a corpus that mean the same as a query in a class."""
    from patsim_utils.search.search import Search, checked
    from patsim_utils.tool import outputs, scale

    _check_engine(given)
    output = given.output
    if min(given.top, given.candidates) < 1:
        raise InputError("--top, --candidates: are not at least 1")
    outputs.check_output(output, overwrite=given.overwrite, forms=(".json", *outputs.FORMS))
    checked(given.query, given.context)

    def told(done: int, total: int) -> None:
        print(f"index: {done:,} of {total:,} phrases", file=sys.stderr, flush=True)

    encode = scale.encoder(given.workers) if given.engine == "ray" else None
    found = Search.open(given.run, given.corpus, retriever=given.retriever, encode=encode, progress=told)
    options = {"top": given.top, "candidates": max(given.candidates, given.top), "only_class": given.only_class}
    answer = found(given.query, context=given.context, **options)
    if answer.empty:
        print(f"no phrase of class {clip(given.context)} is in this corpus", file=sys.stderr)
    outputs.write_table(answer, output)


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
    add("--corpus", required=True, help=told)
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

    notebooks = command("study", "run the notebooks, write reports/NAME", run_study)
    ablation = command("ablation", "compare variants", run_study, replace=False, notebooks=["5_ablation"])
    train = command("train", "train alone, without notebooks; torchrun starts it on several devices", run_train)
    for add in (notebooks, ablation, train):
        add("--preset", required=True, help="one of the presets below")
        add("--data", help="sample, kaggle, or a folder with train.csv (default: the preset's, or sample)")
        add("--name", help="name of the study and its folders in runs/ and reports/ (default: the preset's)")
        pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("KEY", "VALUE")}
        add("-p", **pair, help="a setting of config.py or of a notebook, such as -p epochs 1; may be given again")
    notebooks("--notebooks", nargs="+", default=NOTEBOOKS, help="run only these, such as 3_errors")
    for add in (notebooks, train):
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
    from patsim_utils.study.pages import record
    from patsim_utils.study.parameters import check_study_name

    if given.command == "readme":
        return record.write_readme()
    check_study_name(given.name)
    if given.command == "record":
        record.record(given.name)


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
