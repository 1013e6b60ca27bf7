"""The words of the command `patsim`, and what each may be; nothing slow is imported."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from patsim_utils.data import cpc
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.tool import models, outputs

NOTEBOOKS = ["1_explore", "2_train", "3_errors"]
EXAMPLES = """examples:
  patsim ask "bolt" "screw" --context F16
  patsim score pairs.csv -o scored.csv
  patsim search --corpus sample --context H04 "wireless handset"
  patsim study --preset sample
  patsim study --preset described --data path/to/folder --name real -p epochs 1
"""
OUTPUT = "csv, csv.gz, tsv, tsv.gz, parquet, xlsx, or a folder; - for standard output"
MOST = 1024  # threads, workers or processes
LAST_PORT = 65535

Add = Callable[..., Any]


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line: InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message[:400]} ({self.prog} --help tells more)")


def whole(text: str) -> int:
    """A whole number of at least 1, of at most nine digits."""
    if not text.isdecimal() or not text.strip("0"):
        raise argparse.ArgumentTypeError(f"{clip(text)} is no whole number of at least 1")
    if len(text) > 9:
        raise argparse.ArgumentTypeError(f"{clip(text)} has more than nine digits")
    return int(text)


def several(text: str) -> int:
    """A number of threads, workers or processes, of which a machine has a limited number."""
    count = whole(text)
    if count > MOST:
        raise argparse.ArgumentTypeError(f"{clip(text)} is more than {MOST:,}")
    return count


def port(text: str) -> int:
    """A port to listen on."""
    number = whole(text)
    if number > LAST_PORT:
        raise argparse.ArgumentTypeError(f"{clip(text)} is no port: the last one is {LAST_PORT}")
    return number


def share(text: str) -> float:
    """A number in (0, 1]."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{clip(text)} is not in (0, 1]")
    return value


def cpc_class(text: str) -> str:
    """The class of a CPC symbol."""
    code = cpc.class_of(text)
    if code is None:
        raise argparse.ArgumentTypeError(f"{clip(text)} is no CPC class, such as H04")
    return code


def phrase(text: str) -> str:
    """A text that is not empty."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{clip(text)} is no phrase")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise argparse.ArgumentTypeError(f"{clip(text)} holds half a character")
    return text


def names(text: str) -> tuple[str, ...]:
    """Names of columns, with commas between them."""
    return tuple(text.split(","))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = Parser(
        prog="patsim",
        description="Train, explain and use a model of how alike two patent phrases are.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"{_presets()}\n{EXAMPLES}",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, help_text: str, epilog: str = EXAMPLES) -> Add:
        one_command = commands.add_parser(
            name,
            help=help_text,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=epilog,
        )
        return one_command.add_argument

    _add_studies(command)
    _add_ask(command)
    _add_score(command)
    _add_search(command)
    _add_serve(command)
    command("models", "list the models that ship, with figure, size and speed")
    command("readme", "write the recorded results into README.md")
    command("record", "share a study: reports/recorded/NAME")("name", metavar="NAME")
    command("check-name", "may a study have that name?")("name", metavar="NAME")
    return top


def _presets() -> str:
    """Each preset with the first line of its file."""
    lines = ["presets:"]
    for path in sorted((ROOT / "notebooks" / "presets").glob("*.yaml")):
        if path.is_file():
            first = path.read_text("utf-8", errors="replace").partition("\n")[0]
            lines.append(f"  {path.stem:12}{first.removeprefix('# ')}")
    return "\n".join([*lines, ""])


def _add_studies(command: Callable[..., Add]) -> None:
    epilog = f"{_presets()}\n{EXAMPLES}"
    study = command("study", "run the notebooks, write reports/NAME", epilog)
    ablation = command("ablation", "compare variants")
    train = command("train", "train alone, also on several devices by torchrun", epilog)
    distil = command("distil", "train a small model that also learns from a large one", epilog)
    for add in (study, ablation, train, distil):
        add("--preset", required=True, help="one of the presets below")
        add("--data", help="sample, kaggle, or a folder with train.csv")
        add("--name", help="name of the study and its folders (default: the preset's)")
        pair = {"nargs": 2, "action": "append", "default": [], "metavar": ("KEY", "VALUE")}
        add("-p", **pair, help="a setting, such as -p epochs 1; may be given again")
        _add_threads(add)
    study("--notebooks", nargs="+", default=NOTEBOOKS, help="run only these, such as 3_errors")
    teacher = "what labels pairs: large, or a run folder; the labels of several are averaged"
    distil("--teacher", action="append", required=True, help=teacher)
    distil(
        "--anchors",
        type=whole,
        default=5000,
        help="new anchors, of about 20 pairs (default: 5000)",
    )
    titles = "the official CPC title list (zip): half of the new anchors are what its groups are called"
    distil("--titles", type=Path, metavar="FILE", help=titles)
    for add in (study, train, distil):
        add("--replace", action="store_true", help="train anew where another run has this name")
    ablation(
        "--variants",
        default="ablation",
        help="file of notebooks/variants (default: ablation)",
    )
    ablation("--share", type=share, default=0.25, help="of the training anchors (default: 0.25)")
    ablation("--processes", type=several, default=1, help="variants at the same time (default: 1)")


def _add_ask(command: Callable[..., Add]) -> None:
    add = command("ask", "compare two phrases in a class, in words")
    add("anchor", type=phrase, help="a phrase")
    add("target", type=phrase, help="another phrase")
    add("--context", type=cpc_class, required=True, help="CPC class, such as F16")
    _add_model(add)
    _add_threads(add)


def _add_score(command: Callable[..., Add]) -> None:
    add = command("score", "score a table of pairs with a trained model")
    add("pairs", type=Path, help="table with anchor, target, context; or a folder of tables")
    add("-o", "--output", required=True, help=OUTPUT)
    _add_model(add)
    for role in ("anchor", "target", "context"):
        add(
            f"--{role}-column",
            default=role,
            metavar="NAME",
            help=f"the column of the {role} (default: {role})",
        )
    add("--context", type=cpc_class, help="class of all rows of a table that names none")
    unknown = "a context that is no CPC class: refuse it (default), or score by the text alone"
    add("--unknown", choices=("error", "embedding"), default="error", help=unknown)
    add("--explain", action="store_true", help="also an answer in words, each score's probability, and the relation")
    add("--columns", type=names, default=(), help="write only these, such as id,score")
    on_error = "a row that cannot be scored: refuse the table (default), or give it no score and say why"
    add("--on-error", choices=("refuse", "skip"), default="refuse", help=on_error)
    add("--status", type=Path, help="file that says how far the work is, as JSON")
    _add_written(add)
    onnx = "onnx: ONNX Runtime, which starts in less than half of the time"
    _add_engine(add, ("local", "onnx", "ray"), f"this process (default), Ray's workers, or {onnx}")


def _add_search(command: Callable[..., Add]) -> None:
    add = command("search", "find the phrases of a corpus that mean the same in a class")
    add("query", type=phrase, nargs="?", help="the phrase that is searched for")
    add("--context", type=cpc_class, help="CPC class, such as H04")
    queries = "many queries: a table with the columns query and context; others are carried along"
    add("--queries", type=Path, metavar="TABLE", help=queries)
    corpus = "table with a column phrase (its index is made beside it), an index, or sample"
    add("--corpus", required=True, help=corpus)
    _add_model(add)
    add("--top", type=whole, default=20, help="phrases of the answer (default: 20)")
    add("--candidates", type=whole, default=200, help="of the retriever (default: 200)")
    add(
        "--only-class",
        action="store_true",
        help="only phrases of the class; else they are preferred",
    )
    retriever = "tuned (ships), minilm, mpnet or a sentence-transformers folder (default: the run's own, else tuned)"
    add("--retriever", default="auto", help=retriever)
    add("-o", "--output", default="-", help="json, csv, tsv, parquet, xlsx; - (default) prints")
    _add_written(add)
    _add_engine(add, ("local", "ray"), "this process (default), or Ray's workers")


def _add_serve(command: Callable[..., Add]) -> None:
    add = command("serve", "answer over HTTP, with one model in memory")
    add("--port", type=port, default=8080, help="port to listen on (default: 8080)")
    add("--host", default="127.0.0.1", help="address to listen on (default: this machine's own)")
    add("--corpus", help="table, index, or sample, for /search (default: none)")
    _add_model(add)
    _add_threads(add)


def _add_model(add: Add) -> None:
    add(
        "--model",
        metavar="NAME",
        help=f"a model that ships: {' or '.join(models.NAMES)} (default: small)",
    )
    add("--run", type=Path, help="a run folder, in place of a model that ships")


def _add_written(add: Add) -> None:
    add("--overwrite", action="store_true", help="replace the output file if there is one")
    signs = " ".join(outputs.FORMULA)
    safe = f"a ' goes before text that a spreadsheet would run ({signs}); by default it stays"
    add("--spreadsheet-safe", action="store_true", help=safe)


def _add_engine(add: Add, choices: tuple[str, ...], help_text: str) -> None:
    add("--engine", choices=choices, default="local", help=help_text)
    add("--workers", type=several, default=1, help="Ray's workers, of one core each")
    _add_threads(add)


def _add_threads(add: Add) -> None:
    add("--threads", type=several, help="threads (default: PATSIM_THREADS, else as cores are idle)")
