"""Score a file of phrase pairs with a trained model.

`python -m patsim_utils.score --run runs/N pairs.csv -o scored.csv`

The output has the input's rows and columns in their order, and `prediction` in [0, 1]. Bad input gives one line and
exit status 2, and no output file.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from patsim_utils import ordinal
from patsim_utils.data import read_pairs
from patsim_utils.errors import InputError
from patsim_utils.matcher import Matcher


def progress(done: int, total: int) -> None:
    """One line on a terminal, nothing elsewhere."""
    if sys.stderr.isatty():
        print(f"\r{done:,} of {total:,} pairs", end="\n" if done == total else "", file=sys.stderr, flush=True)


def score_file(run: Path, pairs: Path, output: Path, *, unknown: str = "error", column: str = "prediction") -> int:
    """Scores the rows of one CSV (columns anchor, target, context, and any others) into another; returns their number.

    Raises:
        InputError: no model in `run`, a row breaks a rule, or the output cannot be written.
    """
    if not output.parent.is_dir():
        raise InputError(f"{output}: its folder does not exist")
    frame = read_pairs(pairs, scored=False, unknown=unknown)
    if column in frame:
        raise InputError(f"{pairs}, row 1: there is a column {column!r} already")
    matcher = Matcher.load(run)
    cumulative = matcher.cumulative(
        matcher.pairs(frame[["anchor", "target", "context"]], unknown=unknown), progress=progress
    )
    frame[column] = np.asarray(ordinal.score(cumulative).double())
    frame.to_csv(output, index=False)
    return len(frame)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m patsim_utils.score", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", type=Path, help="CSV with the columns anchor, target, context")
    parser.add_argument("--run", type=Path, required=True, help="run folder, or the model folder in it")
    parser.add_argument("-o", "--output", type=Path, required=True, help="CSV to write")
    parser.add_argument(
        "--unknown",
        choices=("error", "embedding"),
        default="error",
        help="a context that is no CPC class: refuse the file (default), or score the pair by its text alone",
    )
    given = parser.parse_args(arguments)
    try:
        count = score_file(given.run, given.pairs, given.output, unknown=given.unknown)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.output}: {count} pairs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
