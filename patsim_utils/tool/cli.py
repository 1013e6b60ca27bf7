"""The command `patsim`: compare two phrases, score tables, search a corpus, run a study, keep the record.

Exit status: 0 done; 1 a notebook or a disk failed; 2 the input was wrong, nothing was done with it; 130, 143 stopped.
What is wrong with arguments, names and files is said before torch or pandas are imported.
"""

import argparse
import io
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from patsim_utils.errors import InputError, named
from patsim_utils.tool import arguments
from patsim_utils.tool.commands import checks, studies, use


class Stopped(KeyboardInterrupt):
    """SIGTERM came."""


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "ask": use.run_ask,
    "models": use.run_models,
    "score": use.run_score,
    "search": use.run_search,
    "serve": use.run_serve,
    "study": studies.run_study,
    "ablation": studies.run_ablation,
    "train": studies.run_train,
    "distil": studies.run_distil,
    "readme": studies.run_readme,
    "check-name": studies.run_check_name,
    "record": studies.run_record,
}


def _terminate(*_: Any) -> NoReturn:
    raise Stopped


def _give_up_output() -> None:
    """Lets what is left of an output go that cannot be written, which the interpreter would try again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _of_disk(error: OSError) -> str:
    """Which file cannot be read or written, and why."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return f"{named(os.fsdecode(error.filename))}: {error.strerror}"


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
        return checks.tell(f"P: {error}", 2)
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a sign that the terminal does not know is no fault
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        values = parser.parse_args(words)
        status = COMMANDS[values.command](values) or 0
        sys.stdout.flush()  # a full disk, or a reader that has gone, is noticed here
        return status
    except InputError as error:
        return checks.tell_once(error, 2)
    except BrokenPipeError:
        _give_up_output()
        return 1
    except OSError as error:
        _give_up_output()
        return checks.tell_once(_of_disk(error), 1)
    except KeyboardInterrupt as error:
        print("stopped; give the same command again to go on", file=sys.stderr)
        return 143 if isinstance(error, Stopped) else 130
