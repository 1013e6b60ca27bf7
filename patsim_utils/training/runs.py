"""A run folder: config.json, history.csv, metrics.json, predictions.csv and model/, written at once and read back."""

import json
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import Trainer

from patsim_utils import metrics, storage
from patsim_utils.config import Config
from patsim_utils.data.splits import fingerprint
from patsim_utils.environment import ROOT, environment
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method import encoder, losses, ordinal
from patsim_utils.method.features import Regressor
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import to_rank

TEXT_COLUMNS = dict.fromkeys(("split", "anchor", "target", "context", "rating"), str)  # of predictions.csv


def run_folder(name: str) -> Path:
    """Folder of what the training of study `name` leaves: config, metrics, history, predictions, model."""
    return ROOT / "runs" / name


def work_folder(folder: Path) -> Path:
    """Where a run is made that is to be `folder`: checkpoints, the best model so far."""
    return folder.with_name(f".{folder.name}.work")


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder."""

    folder: Path
    config: Config
    metrics: dict[str, Any]  # metrics.json: one entry a split, `train`, `epochs`, `baselines`, `environment`
    history: pd.DataFrame  # one row a step
    predictions: pd.DataFrame  # one row a held-out pair

    @classmethod
    def open(cls, run: str | Path) -> Self:
        """The run of a name, such as "sample" for runs/sample, or in a folder.

        Text without a slash is a name; a `Path` is always a folder.

        Raises:
            InputError: no finished run is there (the message lists those that are), or it is damaged.
        """
        folder = Path(run)
        if isinstance(run, str) and folder.name == run:
            folder = run_folder(run)
        folder = folder.absolute()
        try:
            settings = _read_object(folder / "config.json")
            metrics = _read_object(folder / "metrics.json")
            history = pd.read_csv(folder / "history.csv")
            predictions = pd.read_csv(folder / "predictions.csv", keep_default_na=False, dtype=TEXT_COLUMNS)
        except FileNotFoundError as error:
            raise InputError(f"{named(folder)}: there is no finished run here{_others(folder)}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"{named(folder)}: the run is damaged ({clip(error)})") from error
        config = Config.parse(settings, source=named(folder / "config.json"))
        return cls(folder, config, metrics, history, predictions)


def _read_object(path: Path) -> dict[str, Any]:
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


def finished(config: Config, splits: dict[str, pd.DataFrame], folder: Path) -> dict[str, Any] | None:
    """Metrics of the finished run of this configuration and data in `folder`, None where nothing is there.

    InputError: another run is there.
    """
    storage.recover(folder)
    if not folder.exists():
        return None
    run = Run.open(folder)
    names = Config.model_fields.keys() - {"data"}  # the rows count, not where they lie
    changed = sorted(name for name in names if getattr(run.config, name) != getattr(config, name))
    if run.metrics.get("data") != fingerprint(splits):
        changed.append("the data's rows")
    if changed:
        fault = f"is the name of a finished run that differs in {', '.join(changed)}"
        raise InputError(f"{folder.name} {fault}: choose another name, or tell to replace it")
    return run.metrics


def summary(frame: pd.DataFrame, cumulative: Tensor, config: Config) -> dict[str, Any]:
    """The figures of one split in metrics.json: cumulative logits (n, 4) against the frame's scores."""
    rank = torch.from_numpy(to_rank(frame["score"].to_numpy()))
    loss = losses.ordinal_loss(cumulative, rank, kind=config.loss, alpha=config.alpha, beta=config.beta).item()
    return metrics.evaluate(frame, ordinal.score(cumulative).double().numpy(), loss=loss, seed=config.seed)


def write(splits: dict[str, pd.DataFrame], config: Config, trainer: Trainer, work: Path) -> dict[str, Any]:
    """Writes the run folder `work` / run from the best epoch's model; returns the metrics."""
    run, history = work / "run", pd.DataFrame(trainer.state.log_history)
    epochs = history.dropna(subset="eval_pearson")
    best = work / f"epoch-{round(epochs.loc[epochs['eval_pearson'].idxmax(), 'epoch'])}"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(best, run / "model")
    if config.features != "none":
        Regressor.fit(splits["train"], config).save(run / "model" / "features")
    model = Matcher.load(run)
    result: dict[str, Any] = {"protocol": config.protocol, "data": fingerprint(splits)}
    predictions, held_out = [], {name: frame for name, frame in splits.items() if name != "train"}
    for name, frame in held_out.items():
        said = model.predictions(frame)
        result[name] = summary(frame, said.logits, config)
        predictions.append(frame.assign(split=name, prediction=said.scores))
    result["train"] = _cost(splits, config, trainer, history)
    result["epochs"] = [
        {"epoch": round(row["epoch"]), "step": int(row["step"]), "seconds": row["seconds"]}
        | {name: row[f"eval_{name}"] for name in ("pearson", "spearman", "loss")}
        for _, row in epochs.iterrows()
    ]
    result["baselines"] = baselines(held_out, config, model.regressor)
    result["environment"] = environment(seed=config.seed)
    frame = pd.concat(predictions, ignore_index=True)
    order = ["split", "anchor", "target", "context", "score", "prediction"]
    frame[order + [column for column in frame if column not in order]].to_csv(run / "predictions.csv", index=False)
    columns = ["step", "epoch", "loss", "ordinal", "contrast", "rating", "learning_rate", "grad_norm", "seconds"]
    history.dropna(subset="loss")[columns].to_csv(run / "history.csv", index=False)
    (run / "config.json").write_text(json.dumps(config.model_dump(), indent=1))
    (run / "metrics.json").write_text(json.dumps(result, indent=1, allow_nan=False))
    return result


def _cost(splits: dict[str, pd.DataFrame], config: Config, trainer: Trainer, history: pd.DataFrame) -> dict[str, Any]:
    """The entry `train` of the metrics."""
    cuda, seconds = torch.cuda.is_available(), float(history["seconds"].max())
    return {
        "n": len(splits["train"]),
        "seconds": seconds,
        "epochs": config.epochs,
        "steps": int(history["step"].max()),
        "pairs_per_second": config.epochs * len(splits["train"]) / seconds,
        "peak_memory_mb": round(peak_memory(), 1),
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "device": torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
        "precision": "bf16" if encoder.uses_bf16(config.precision, trainer.model.device) else "fp32",
        "padding": trainer.sampler.padding(),
        "evaluation_seconds": float(history["eval_runtime"].sum()),  # of all that the run has had, if it was resumed
    }


def peak_memory() -> float:
    """Largest memory of this process so far in MiB, of the GPU where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    if (status := Path("/proc/self/status")).exists():  # where it is, since ru_maxrss is at least the parent's
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def baselines(held_out: dict[str, pd.DataFrame], config: Config, regressor: Regressor | None) -> dict[str, Any]:
    """What words, pretrained backbone and features alone reach on the evaluated splits; None where undefined."""
    systems = {
        "word_jaccard": metrics.word_jaccard,
        "pretrained_cosine": lambda frame: np.clip(encoder.pretrained_cosine(frame, backbone=config.backbone), 0, 1),
    }
    if regressor:
        systems["features"] = lambda frame: regressor(frame).mean(-1).double().numpy()
    return {
        name: {
            split: metrics.evaluate_or_none(frame, system(frame), seed=config.seed) for split, frame in held_out.items()
        }
        for name, system in systems.items()
    }
