"""Similarity of two patent phrases within a CPC class.

    from patsim_utils import Matcher

    matcher = Matcher.load()  # the model "small"; a run is loaded by its folder
    matcher.rank("strong material", ["steel", "paper"], context="E04")

`Config`, `load` and `fit` are here, too: settings, data and training. Each is imported on first
use, so that the import of the package takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from patsim_utils.config import Config as Config
    from patsim_utils.data.splits import load as load
    from patsim_utils.method.matcher import Matcher as Matcher
    from patsim_utils.training.fit import fit as fit

MODULES = {
    "Config": "patsim_utils.config",
    "Matcher": "patsim_utils.method.matcher",
    "load": "patsim_utils.data.splits",
    "fit": "patsim_utils.training.fit",
}
__all__ = ["Config", "Matcher", "fit", "load"]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *MODULES])
