"""The models that ship with this package, and the model that a command uses; nothing slow is imported at first."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, counted, named

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from patsim_utils.method.matcher import Matcher
    from patsim_utils.method.onnx.reader import Reader

FOLDER = Path(__file__).parents[1] / "models"
NAMES = ("small", "large")
NOTE = "matcher.json"


def shipped() -> list[str]:
    """Names of the models that are in this copy of the package, `small` first."""
    names = {path.parent.name for path in FOLDER.glob(f"*/{NOTE}")}
    known = [name for name in NAMES if name in names]
    return known + sorted(names - set(NAMES))


def model_folder(model: str | None = None, run: Path | None = None) -> Path:
    """The folder that holds matcher.json: of a `run`, else of the `model` that ships, by default `small`.

    InputError where there is no model.
    """
    if run is not None:
        return _folder_of_run(run)
    name = model or "small"
    if name not in shipped():
        others = ", ".join(shipped())
        hint = f"there are {others}" if others else "`make study` trains one, which --run runs/sample uses"
        raise InputError(f"--model: no model {name!r} ships with this copy of patsim; {hint}")
    return FOLDER / name


def _folder_of_run(run: Path) -> Path:
    for folder in (run / "model", run):
        if (folder / NOTE).is_file():
            return folder
    finished = sorted(path.parent.parent.name for path in (ROOT / "runs").glob(f"*/model/{NOTE}"))
    hint = "`make study` trains one into runs/sample"
    if finished:
        hint += f"; there are {', '.join(f'runs/{name}' for name in finished[:10])}"
    raise InputError(f"{named(run.absolute())}: there is no model here; {hint}")


def figures(name: str) -> dict[str, Any]:
    """What is known of a model that ships: `pearson`, `low`, `high`, `split`, `seeds`, `megabytes`,
    `pairs_per_second`, `threads`; empty where nothing is.
    """
    try:
        return dict(json.loads((FOLDER / name / "figures.json").read_text("utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, TypeError, ValueError) as error:
        raise InputError(f"{named(FOLDER / name / 'figures.json')}: is damaged") from error


def listing() -> str:
    """The models that ship, with figure, size and speed; InputError where there is none."""
    names = shipped()
    if not names:
        raise InputError("no model ships with this copy of patsim; `make study` trains one, which --run uses")
    return "\n".join(_line(name, figures(name)) for name in names)


def _line(name: str, known: dict[str, Any]) -> str:
    parts = [f"{name:8}"]
    if "pearson" in known:
        interval = f"[{known['low']:.3f}, {known['high']:.3f}]"
        seeds = counted(known["seeds"], "seed")
        parts.append(f"Pearson {known['pearson']:.3f} {interval} on {known['split']}, {seeds}")
    if "megabytes" in known:
        parts.append(f"{known['megabytes']:g} MB")
    if "pairs_per_second" in known:
        parts.append(f"{known['pairs_per_second']:,.0f} pairs a second on {counted(known['threads'], 'thread')}")
    if len(parts) == 1:
        parts.append("its figures are not recorded")
    return "  ".join([parts[0], "; ".join(parts[1:])])


class Model:
    """A model folder: known by its content, and loaded when it is first needed.

    Before that `prepare` is called, which gives a `note` of how the model computes. The `engine` is
    torch ("local", and "ray" in its workers) or ONNX Runtime ("onnx").
    """

    def __init__(self, folder: Path, *, engine: str = "local", prepare: Callable[[], str] | None = None) -> None:
        self.folder = folder
        self.engine = engine
        self.prepare = prepare
        self.note = ""

    @cached_property
    def identity(self) -> str:
        """What the scores depend on; what is scored by another engine or version of patsim is scored anew."""
        from patsim_utils.method import backbones

        identity = f"{backbones.identity(self.folder)}-{backbones.code()}"
        return f"onnx-{identity}" if self.engine == "onnx" else identity

    @cached_property
    def matcher(self) -> Matcher:
        from patsim_utils.method.matcher import Matcher

        self._get_ready()
        return Matcher.load(self.folder)

    @cached_property
    def reader(self) -> Reader:
        from patsim_utils.method.onnx import cached

        self._get_ready()
        return cached.load(self.folder)

    def _get_ready(self) -> None:
        if self.prepare is not None:
            self.note = self.prepare()

    @property
    def listwise(self) -> bool:
        """Whether a score also depends on the other rows; ONNX Runtime reads no such model."""
        return self.engine != "onnx" and self.matcher.config.listwise

    def values(self, pairs: pd.DataFrame, **settings: Any) -> np.ndarray:
        """What `scale.values` gives for checked pairs; the settings are its."""
        if self.engine == "onnx":
            return self.reader.values(pairs, **settings)
        from patsim_utils.tool import scale

        return scale.values(self.matcher, pairs, **settings)
