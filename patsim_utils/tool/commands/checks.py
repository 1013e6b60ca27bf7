"""What every command looks at before it imports anything slow, and how it says what is wrong."""

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from patsim_utils.errors import InputError, clip, named
from patsim_utils.tool import models


def tell(error: object, status: int) -> int:
    """Prints an error as one line; returns the exit status."""
    print(f"error: {InputError(str(error))}", file=sys.stderr)
    return status


def is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def tell_once(error: object, status: int) -> int:
    """Says an error that every device's process has in the first one alone; returns the exit status."""
    return tell(error, status) if is_first_process() else status


def model_folder(words: argparse.Namespace) -> Path:
    if words.model and words.run:
        raise InputError("--model, --run: one of them names the model, not both")
    return models.model_folder(words.model, words.run)


def check_engine(words: argparse.Namespace) -> None:
    if words.workers > 1 and words.engine != "ray":
        raise InputError("--workers: works with --engine ray only")
    if words.engine == "ray" and not importlib.util.find_spec("ray"):
        raise InputError("--engine ray: Ray is not installed; pip install -e '.[scale]'")
    if words.engine == "onnx":
        for package, name in (("onnxruntime", "ONNX Runtime"), ("onnx", "the package onnx")):
            if not importlib.util.find_spec(package):
                raise InputError(f"--engine onnx: {name} is not installed; pip install -e '.[onnx]'")


def say_other_letters(*phrases: str) -> None:
    """A line on stderr for each phrase that is not in Latin letters."""
    from patsim_utils.data.pairs import ENGLISH_ONLY, is_latin

    for phrase in phrases:
        if not is_latin(phrase):
            print(f"{clip(phrase)}: is not in Latin letters; {ENGLISH_ONLY}", file=sys.stderr)


def say_strange_words(vocabulary: Iterable[str], *phrases: str) -> None:
    """A line on stderr for each phrase of no word that is known; `vocabulary` is the model's."""
    from patsim_utils.layouts.words import NOTHING_KNOWN, Words

    words = Words(vocabulary)
    for phrase in phrases:
        if words.is_strange(phrase):
            print(f"{clip(phrase)}: {NOTHING_KNOWN}", file=sys.stderr)


def check_readable(path: Path) -> None:
    """InputError where a file or folder is not there, or may not be read."""
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{named(path)}: cannot be read ({clip(str(reason))})") from error
    if not os.access(path, os.R_OK):
        raise InputError(f"{named(path)}: cannot be read (Permission denied)")
