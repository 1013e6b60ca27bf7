"""Variants: configurations that each change one thing, read from `notebooks/variants/<name>.yaml`.

The file maps a variant's name to its `idea`, the variant `against` which it is measured, what it
lets `change` in the base configuration, its `seeds` and, as a control, `shuffle_context`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patsim_utils.config import Config
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.plain_yaml import read_yaml

VARIANTS = ROOT / "notebooks" / "variants"
KEYS = ("idea", "against", "change", "seeds", "shuffle_context")  # of an entry of the file


class Variant(BaseModel):
    """A configuration that differs from that of the variant `against` in what `idea` says."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(pattern=r"^\w[\w.-]*$")
    idea: str
    against: str = ""
    config: Config
    seeds: int = Field(1, ge=1, le=100)
    shuffle_context: bool = False  # a control: groups trade their classes, which then say nothing
    stem: str  # of its run folders: its name, or that of an equal variant above it

    def runs(self, folder: Path) -> dict[int, Path]:
        """Run folder of each seed, from the configuration's own seed on."""
        first = self.config.seed
        seeds = range(first, first + self.seeds)
        return {seed: folder / f"{self.stem}-seed{seed}" for seed in seeds}

    def with_seed(self, seed: int) -> Config:
        """The configuration of one of its runs."""
        return self.config.model_copy(update={"seed": seed})


def read_variants(name: str, base: Config) -> list[Variant]:
    """The variants of `notebooks/variants/<name>.yaml` on top of `base`.

    Raises:
        InputError: there is no such file, or something in it is wrong.
    """
    paths = {path.stem: path for path in sorted(VARIANTS.glob("*.yaml"))}
    if name not in paths:
        raise InputError(f"parameter variants: {clip(name)} is none of {', '.join(paths)}")
    file = paths[name].name
    try:
        entries = dict(read_yaml(paths[name].read_text("utf-8")))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise InputError(f"{file}: is no mapping of variants ({clip(error)})") from error
    variants: dict[str, Variant] = {}
    for title, entry in entries.items():
        source = f"{file}: variant {clip(title)}"
        variants[title] = _read_entry(title, entry, base, variants, source=source)
    return list(variants.values())


def _read_entry(
    title: str,
    entry: Any,
    base: Config,
    above: Mapping[str, Variant],
    *,
    source: str,
) -> Variant:
    """One variant of the file, with those `above` it; InputError that begins with `source`."""
    if not isinstance(entry, dict) or not isinstance(entry.get("change", {}), dict):
        example = "{idea: squared error, change: {loss: mse}}"
        raise InputError(f"{source}: is no mapping such as {example}")
    unknown = [key for key in entry if key not in KEYS]
    if unknown:
        raise InputError(f"{source}: {clip(unknown[0])} is none of {', '.join(KEYS)}")
    against = entry.get("against", "")
    if against not in ("", *above):
        raise InputError(f"{source}: against is {clip(against)}, which is no variant above it")
    config = Config.parse(base.model_dump() | entry.get("change", {}), source=source)
    fields = {key: value for key, value in entry.items() if key != "change"}
    try:
        variant = Variant(name=title, config=config, stem=title, **fields)
    except ValidationError as error:
        fault = error.errors()[0]
        raise InputError(f"{source}: {fault['loc'][0]}: {fault['msg']}") from error
    for other in above.values():
        if other.config == config and other.shuffle_context == variant.shuffle_context:
            # Its runs are not made a second time.
            return variant.model_copy(update={"stem": other.stem})
    return variant
