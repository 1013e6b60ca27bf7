"""Sizes that a config.json asks for, compared with its weights before memory is taken for them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)

from patsim_utils.errors import InputError, clip

LARGEST_NUMBER = 100_000  # numbers of a config.json up to this are accepted even if no tensor is that long
MODULES_PER_TENSOR = 8  # at most; encoders have one or two
COPIES = 4  # of each number of the weights, at most, while a model is put together
FEW_NUMBERS = 10_000_000  # that any model may have beside those of its weights


def check(config_path: Path, shapes: Mapping[str, Tensor]) -> None:
    """InputError where a config.json has a number that its weights do not have: 10^9 layers.

    It is read before an encoder is made of it, whose parts would fill the memory. An encoder has
    at least one tensor per layer, and none of its sizes is larger than its longest tensor.

    Args:
        config_path: config.json.
        shapes: tensors of the encoder's weights by their names.
    """
    try:
        settings = json.loads(config_path.read_text(encoding="utf-8"))
        numbers = list(_numbers(settings))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{config_path}: is damaged ({clip(error)})") from error
    longest = max((max(tensor.shape, default=0) for tensor in shapes.values()), default=0)
    for name, number in numbers:
        limit = max(longest, LARGEST_NUMBER)
        if "layer" in name:
            limit = len(shapes)
        if number > limit:
            raise InputError(f"{config_path}: {clip(name)} is {clip(number)}, which its weights do not have")


def _numbers(settings: object, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of something in a JSON value, with the name of the setting that it stands in.

    Whole ones, and of settings that count something also those written like 1e9.
    """
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from _numbers(value, key)
    elif isinstance(settings, list):
        for value in settings:
            yield from _numbers(value, name)
    elif isinstance(settings, int) or (isinstance(settings, float) and _counts(name)):
        yield name, settings


def _counts(name: str) -> bool:
    """Whether a setting says how many there are of something."""
    return "layer" in name or name.startswith("num_") or name.endswith("_size")


@contextmanager
def few_modules(tensors: int) -> Iterator[None]:
    """ValueError as soon as more modules are put together than an encoder of so many tensors has.

    Each takes memory, also without weights.
    """
    most = MODULES_PER_TENSOR * tensors + 100
    count = 0

    def hook(*_: object) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise ValueError(f"config.json describes more than {most:,} modules, and there are fewer weights")

    handle = register_module_module_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def few_numbers(shapes: Mapping[str, Tensor]) -> Iterator[None]:
    """ValueError as soon as a model has many more numbers than its weights, before they are set.

    Until then they take no memory.
    """
    most = COPIES * sum(tensor.numel() for tensor in shapes.values()) + FEW_NUMBERS
    count = 0

    def hook(_module: object, _name: str, parameter: Tensor | None) -> None:
        nonlocal count
        count += 0 if parameter is None else parameter.numel()
        if count > most:
            raise ValueError(f"it describes more than {most:,} numbers, and there are fewer weights")

    handle = register_module_parameter_registration_hook(hook)
    try:
        yield
    finally:
        handle.remove()
