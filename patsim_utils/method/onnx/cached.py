"""A model in ONNX's form, which is made once and lies in the cache."""

from pathlib import Path

import onnxruntime

from patsim_utils import storage
from patsim_utils.method import backbones
from patsim_utils.method.onnx.reader import Reader


def load(folder: Path) -> Reader:
    """The model of a folder; at its first use, or where it is damaged, it is put into the cache.

    InputError as in `export.write`.
    """
    name = f"{backbones.identity(folder)[:16]}-{backbones.code()[:16]}-{onnxruntime.__version__}"
    target = backbones.cache_folder() / "onnx" / name
    try:
        return Reader(target)
    except Exception:  # it is not there or, of many kinds, damaged
        from patsim_utils.method.onnx import export  # here, since it imports torch
    with storage.lock(target.with_name(f"{name}.lock"), f"ONNX form of {folder.name}"):
        export.write(folder, target)
    return Reader(target)
