"""Tensors in safetensors files: written, read and checked."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from patsim_utils.errors import InputError, clip

State = dict[str, Tensor]  # the tensors of a network by their names in its state dict


def save_weights(module: nn.Module, path: Path) -> None:
    """Writes all weights of a module with safetensors."""
    save_tensors(module.state_dict(), path)


def save_tensors(state: State, path: Path) -> None:
    """Writes tensors with safetensors; where two names share memory, each gets a copy."""
    save_file({name: value.detach().clone().contiguous() for name, value in state.items()}, path)
    path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors writes for the owner alone


def load_weights(module: nn.Module, path: Path) -> None:
    """Reads what `save_weights` wrote; InputError as in `read_tensors` and `fill`."""
    fill(module, read_tensors(path), source=path)


def read_tensors(path: Path) -> State:
    """The tensors of a safetensors file; InputError where it may not be read."""
    try:
        return load_file(path)
    except Exception as error:  # cut off, no safetensors, not there, not to be read
        raise _unreadable(path, error) from error


def read_shapes(path: Path) -> State:
    """The same from the file's header alone: tensors that take no memory (device "meta")."""
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return {name: _without_memory(file.get_slice(name)) for name in names}
    except Exception as error:
        raise _unreadable(path, error) from error


def _without_memory(tensor: Any) -> Tensor:
    dtypes = {
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "F64": torch.float64,
    }
    dtype = dtypes.get(tensor.get_dtype(), torch.int64)
    return torch.empty(tensor.get_shape(), dtype=dtype, device="meta")


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = str(error)
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return InputError(f"{path}: the weights may not be read ({clip(reason)})")


def fill(module: nn.Module, state: State, *, source: object) -> None:
    """Puts tensors into a module; InputError as in `check_shapes`, and where a value is not finite."""
    check_shapes(module.state_dict(), state, source=source)
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise InputError(f"{source}: weight {clip(name)} holds values that are not finite")
    module.load_state_dict(state)


def check_shapes(expected: Mapping[str, Tensor], state: State, *, source: object) -> None:
    """InputError where a tensor is missing, unknown, or of another shape or dtype than expected."""
    missing = expected.keys() - state.keys()
    if missing:
        raise InputError(f"{source}: weight {clip(min(missing))} is missing ({len(missing)} such)")
    unknown = state.keys() - expected.keys()
    if unknown:
        raise InputError(f"{source}: weight {clip(min(unknown))} is unknown ({len(unknown)} such)")
    for name, value in state.items():
        if value.shape != expected[name].shape or value.dtype != expected[name].dtype:
            form = f"{list(value.shape)} {value.dtype}"
            expected_form = f"{list(expected[name].shape)} {expected[name].dtype}"
            raise InputError(f"{source}: weight {clip(name)} is {form}, not {expected_form}")
