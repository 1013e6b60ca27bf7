"""The parameters of a study, from a preset and a command line; needs no torch.

All are checked before anything runs.
"""

import os
import re
from collections.abc import Mapping, Sequence

import yaml

from patsim_utils.config import Parameters
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.plain_yaml import read_yaml

# In reports/, by something else
TAKEN = ("template", "recorded", "trials", "index.html", "results.csv", "trials.md")
STUDY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Parameters that are paths, and the words among their values that are none
KEYWORDS = {
    "data": ("sample", "kaggle"),
    "backbone": ("minilm", "mpnet"),
    "cpc_titles": (),
    "corpus": (),
    "retriever": ("auto", "tuned", "minilm", "mpnet"),
    "run": ("small", "large"),
}


def check_study_name(name: str) -> None:
    """InputError where `name` can be no folder of a study."""
    if not STUDY_NAME.fullmatch(name):
        rule = "1 to 64 letters, digits, '.', '_', '-', and the first is a letter or a digit"
        raise InputError(f"--name: {clip(name)} is no name of a study: {rule}")
    if name.lower() in TAKEN or (ROOT / "reports" / name).is_file():
        raise InputError(f"--name: {clip(name)} is the name of something else in reports/")


def parameters(
    preset_name: str,
    *,
    data: str | None,
    name: str,
    settings: Sequence[Sequence[str]],
) -> Parameters:
    """The parameters of study `name`: those of a preset, then `settings`, then the data.

    `settings` are [key, value] pairs. `data` is the path or keyword of --data; None keeps that of the
    preset. Paths start in the caller's folder; in the result they start in the repository's root,
    where the notebooks run. InputError: one line with the source, the parameter and what is allowed.
    """
    check_study_name(name)
    for key, _ in settings:
        if key in ("data", "name", "replace"):
            raise InputError(f"-p: {key} is set with --{key}")
    last = {"name": name}
    if data is not None:
        last["data"] = data
    merged: dict[str, object] = {}
    parts = {f"{preset_name}.yaml": preset(preset_name), "-p": dict(settings), "study": last}
    for source, part in parts.items():
        merged |= Parameters.parse(part, source=source).chosen
    for key in KEYWORDS:
        if key in merged:
            merged[key] = located(key, str(merged[key]))
    return Parameters.parse(merged)


def preset(name: str) -> Mapping[str, object]:
    """The mapping in `notebooks/presets/<name>.yaml`, not checked yet."""
    paths = sorted((ROOT / "notebooks" / "presets").glob("*.yaml"))
    known = {path.stem: path for path in paths if path.is_file()}
    if not known:
        raise InputError(f"--preset: {clip(name)} is not there: studies need a clone of the repository")
    if name not in known:
        raise InputError(f"--preset: {clip(name)} is none of {', '.join(known)}")
    try:
        settings = read_yaml(known[name].read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{name}.yaml: is no YAML ({clip(' '.join(str(error).split()))})") from error
    if not isinstance(settings, dict):
        raise InputError(f"{name}.yaml: a preset consists of lines `parameter: value`")
    return settings


def located(key: str, text: str) -> str:
    """The path `text` as one that starts in ROOT.

    A keyword of parameter `key`, or a hub's name, stays as it is. `data`, `./data` and `../data` are
    paths of the folder in which the command was typed; notebooks run in ROOT.
    """
    if not text or text in KEYWORDS[key]:
        return text
    try:
        os.stat(text)
    except (FileNotFoundError, NotADirectoryError):
        if key in ("backbone", "run") and not text.startswith((".", "/")):
            return text  # a name on the hub, or of a study
        return os.path.abspath(text)  # a message about it is to say where it was looked for
    except OSError as error:
        raise InputError(f"parameter {key}: {clip(text)} cannot be read ({error.strerror})") from error
    path = os.path.relpath(os.path.realpath(text), ROOT)
    return path if path.startswith("..") else f"./{path}"
