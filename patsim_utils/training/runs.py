"""A run folder: config.json, metrics.json, history.csv, predictions.csv and model/."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data.splits import fingerprint
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip, named

PACKAGED = ("minilm", "mpnet")  # backbones that are checked against known content wherever they lie
ENCODER_FILES = (
    ".json",
    ".safetensors",
    ".txt",
    ".model",
)  # endings of what is read of a backbone's folder
FILES_OF_A_RUN = ("config.json", "metrics.json", "history.csv", "predictions.csv")
# What notebook 6 adds to them
FILES_OF_A_SEARCH = ("corpus.csv", "corpus-pretrained.csv", "retrieval.csv")
# Folders of a run; all but the first are of notebook 6.
FOLDERS = ("model", "retriever", "corpus.csv.index", "corpus-pretrained.csv.index")
# Endings of the files in these folders
ENDINGS = (".json", ".safetensors", ".model", ".lance", ".manifest", ".txn", ".idx", ".arrow", ".bin")
VOCABULARIES = ("vocab.txt", "merges.txt")  # of a tokenizer
# Entries of `identity`'s files, as a message names them.
FILES = {"backbone": "the backbone's files", "cpc_titles": "the title list's content"}
# Columns of predictions.csv that are text, also where it looks like a number or a gap.
TEXT_COLUMNS = dict.fromkeys(("split", "anchor", "target", "context", "rating"), str)


def run_folder(name: str) -> Path:
    """The run folder of the study `name`."""
    return ROOT / "runs" / name


def work_folder(folder: Path) -> Path:
    """Where a run is made that is to be `folder`: checkpoints, the best model so far."""
    return folder.with_name(f".{folder.name}.work")


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path
    config: Config
    metrics: dict[str, Any]  # one entry a split, `train`, `epochs`, `baselines`, `environment`
    history: pd.DataFrame  # one row a step
    predictions: pd.DataFrame  # one row a held-out pair

    @classmethod
    def open(cls, run: str | Path) -> Self:
        """The run of a name, such as "sample" for runs/sample, or in a folder.

        Text without a slash is a name; a `Path` is always a folder.

        Raises:
            InputError: no finished run is there (the message lists those that are), or it is
                damaged.
        """
        folder = Path(run)
        if isinstance(run, str) and folder.name == run:
            folder = run_folder(run)
        folder = folder.absolute()
        try:
            settings = read_object(folder / "config.json")
            metrics = read_metrics(folder / "metrics.json")
            history = pd.read_csv(folder / "history.csv")
            predictions = _read_predictions(folder / "predictions.csv")
        except FileNotFoundError as error:
            fault = f"{named(folder)}: there is no finished run here"
            raise InputError(fault + _others(folder)) from error
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{named(folder)}: the run is damaged ({clip(error)})") from error
        config = Config.parse(settings, source=named(folder / "config.json"))
        return cls(folder, config, metrics, history, predictions)


class Environment(BaseModel):
    """Where a run was made, as its metrics.json has it."""

    model_config = ConfigDict(strict=True)

    commit: str
    date: str
    seed: int | str


class Training(BaseModel):
    """What a training took, as metrics.json has it."""

    model_config = ConfigDict(strict=True)

    seconds: float
    trainable_parameters: int
    device: str
    precision: str


class Figures(BaseModel):
    """What a split was measured with, as metrics.json has it; NaN where that is not defined."""

    model_config = ConfigDict(strict=True)

    n: int
    pearson: float
    pearson_ci: Annotated[list[float], Field(min_length=2, max_length=2)]
    spearman: float
    mae: float
    qwk: float
    loss: float


class Metrics(BaseModel):
    """What pages, records and model cards read of metrics.json; it may hold more."""

    model_config = ConfigDict(strict=True)

    protocol: str
    data: dict[str, str]
    environment: Environment
    train: Training
    baselines: dict[str, dict[str, Any]]
    validation: Figures
    test: Figures | None = None
    epochs: list[dict[str, Any]] = []


def read_metrics(path: Path) -> dict[str, Any]:
    """What metrics.json holds; ValueError where an entry of `Metrics` is missing or of another kind."""
    metrics = read_object(path)
    try:
        Metrics.model_validate(metrics)
    except ValidationError as error:
        first = error.errors()[0]
        entry = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path.name}: {entry}: {first['msg']}") from error
    return metrics


def _read_predictions(path: Path) -> pd.DataFrame:
    """predictions.csv; ValueError where a column is missing, or holds no numbers."""
    predictions = pd.read_csv(path, keep_default_na=False, dtype=TEXT_COLUMNS)
    for column in ("split", "anchor", "target", "context", "score", "prediction"):
        if column not in predictions:
            raise ValueError(f"{path.name} has no column {column}")
    for column in ("score", "prediction"):
        predictions[column] = pd.to_numeric(predictions[column])
    return predictions


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; ValueError where it holds something else."""
    content = json.loads(path.read_text("utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no JSON object")
    return content


def _others(folder: Path) -> str:
    """The end of a message: which finished runs lie beside a folder that is none."""
    names = sorted(path.parent.name for path in folder.parent.glob("*/metrics.json"))
    if not names:
        return ", nor beside it; `make study` trains one into runs/sample"
    shown = ", ".join(names[:20])
    if len(names) > 20:
        shown += f" and {len(names) - 20} more"
    return f"; finished runs beside it: {shown}"


def refuse_foreign(folder: Path) -> None:
    """InputError where a run folder that is to be replaced holds a user's file, too."""
    storage.refuse_others(folder, _is_of_run, "a run")


def _is_of_run(path: Path) -> bool:
    """Whether a training or notebook 6 leaves something of this path within a run folder."""
    top = path.parts[0]
    if top.startswith("."):  # of an editor
        return True
    if len(path.parts) == 1:
        return top in (*FILES_OF_A_RUN, *FILES_OF_A_SEARCH, *FOLDERS)
    return top in FOLDERS and (path.suffix in ENDINGS or path.name in VOCABULARIES)


def refuse_foreign_work(work: Path) -> None:
    """InputError where something that no training left is at the place of a run's work folder."""
    if os.path.lexists(work) and not (work / "identity.json").is_file():
        # a kill right after its making leaves it empty
        is_empty = work.is_dir() and all(path.name.startswith(".") for path in work.iterdir())
        if not is_empty:
            raise InputError(f"{named(work)}: is no run that a training left; move it away")


def identity(config: Config, splits: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """What a run's result depends on: its settings, the rows of its data, files that its settings name.

    Data is known by its rows, wherever it lies; a file by its path and its content.
    """
    return {
        "config": config.model_dump(exclude={"data"}),
        "data": fingerprint(splits),
        "files": _file_digests(config),
    }


def _file_digests(config: Config) -> dict[str, str]:
    """sha256 of the content of each file or folder that the settings name."""
    digests = {}
    folder = Path(config.backbone)
    if config.backbone not in PACKAGED and folder.is_dir():  # else the name of a model hub
        parts: list[Path | bytes] = []
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.suffix in ENCODER_FILES:
                parts += [path.name.encode(), path]
        digests["backbone"] = storage.digest(*parts)
    if config.cpc_titles:
        digests["cpc_titles"] = storage.digest(config.cpc_titles)
    return digests


def finished(config: Config, splits: dict[str, pd.DataFrame], folder: Path) -> dict[str, Any] | None:
    """Metrics of the finished run of this configuration and data in `folder`; None without one.

    InputError: another run is there.
    """
    storage.recover(folder)
    if not folder.exists():
        return None
    run = Run.open(folder)
    changed = differences(run, config, splits)
    if changed:
        fault = f"is the name of a finished run that differs in {', '.join(changed)}"
        raise InputError(f"{folder.name} {fault}: choose another name, or tell to replace it")
    return run.metrics


def differences(run: Run, config: Config, splits: dict[str, pd.DataFrame]) -> list[str]:
    """In what a finished run differs from what a configuration and data would give, in words."""
    current = identity(config, splits)
    settings = run.config.model_dump()
    changed = sorted(name for name, value in current["config"].items() if settings[name] != value)
    if run.metrics.get("data") != current["data"]:
        changed.append("the data's rows")
    recorded = run.metrics.get("files")
    if isinstance(recorded, dict):  # runs of older versions do not say it
        for name, words in FILES.items():
            same_path = name not in changed
            if same_path and recorded.get(name) != current["files"].get(name):
                changed.append(words)
    return changed
