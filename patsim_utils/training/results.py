"""What a finished training leaves in its run folder: figures, predictions, history and model."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from transformers import Trainer

from patsim_utils import metrics
from patsim_utils.config import Config
from patsim_utils.data.pairs import is_one_phrase
from patsim_utils.environment import environment
from patsim_utils.method import encoder, losses, ordinal
from patsim_utils.method.features import Regressor
from patsim_utils.method.matcher import Matcher
from patsim_utils.method.weights import folders
from patsim_utils.ratings import to_rank
from patsim_utils.training import devices

HISTORY_COLUMNS = [
    "step",
    "epoch",
    "loss",
    "ordinal",
    "contrast",
    "rating",
    "learning_rate",
    "grad_norm",
    "seconds",
]
PREDICTION_COLUMNS = [
    "split",
    "anchor",
    "target",
    "context",
    "score",
    "prediction",
]  # before those of the data

Splits = dict[str, pd.DataFrame]
System = Callable[[pd.DataFrame], np.ndarray]  # anchor, target, context (n rows) -> scores (n,)


def figures(frame: pd.DataFrame, cumulative: Tensor, config: Config) -> dict[str, Any]:
    """One split's entry in metrics.json: cumulative logits (n, 4) against the frame's scores."""
    rank = torch.from_numpy(to_rank(frame["score"].to_numpy()))
    settings = {"kind": config.loss, "alpha": config.alpha, "beta": config.beta}
    loss = losses.ordinal_loss(cumulative, rank, **settings)
    scores = ordinal.score(cumulative).double().numpy()
    return metrics.evaluate(frame, scores, loss=loss.item(), seed=config.seed)


def write(splits: Splits, trainer: Trainer, work: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Writes the run folder `work / "run"` from the best epoch's model; returns the metrics.

    `identity`: of the run, as `runs.identity` has it.
    """
    config = trainer.matcher.config
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    history = pd.DataFrame(trainer.state.log_history)
    epochs = history.dropna(subset="eval_pearson")
    matcher = _best_model(epochs, splits["train"], config, work)
    held_out = {name: frame for name, frame in splits.items() if name != "train"}
    predictions = {name: matcher.predictions(frame) for name, frame in held_out.items()}

    entries = {"protocol": config.protocol, "data": identity["data"], "files": identity["files"]}
    for name, frame in held_out.items():
        entries[name] = figures(frame, predictions[name].logits, config)
    entries["train"] = _cost(splits["train"], trainer, history)
    entries["epochs"] = [_epoch(row) for _, row in epochs.iterrows()]
    entries["baselines"] = baselines(held_out, config, matcher.regressor)
    entries["environment"] = environment(seed=config.seed)

    # Predictions are those of `Matcher.score`, which knows that equal phrases are the same; the
    # figures above are of what the network says of them.
    tables = []
    for name, frame in held_out.items():
        scored = predictions[name].with_equal(is_one_phrase(frame["anchor"], frame["target"]))
        tables.append(frame.assign(split=name, prediction=scored.scores))
    table = pd.concat(tables, ignore_index=True)
    others = [column for column in table if column not in PREDICTION_COLUMNS]
    table[PREDICTION_COLUMNS + others].to_csv(run / "predictions.csv", index=False)
    history.dropna(subset="loss")[HISTORY_COLUMNS].to_csv(run / "history.csv", index=False)
    (run / "config.json").write_text(json.dumps(config.model_dump(), indent=1))
    (run / "metrics.json").write_text(json.dumps(entries, indent=1, allow_nan=False))
    return entries


def _best_model(epochs: pd.DataFrame, train: pd.DataFrame, config: Config, work: Path) -> Matcher:
    """The model of the epoch with the highest Pearson, with its regressor, in the run folder."""
    best = epochs.loc[epochs["eval_pearson"].idxmax(), "epoch"]
    run = work / "run"
    shutil.copytree(work / f"epoch-{round(best)}", run / "model")
    if config.features != "none":
        folders.add_regressor(run / "model", Regressor.fit(train, config))
    return Matcher.load(run)


def _epoch(row: pd.Series) -> dict[str, Any]:
    """One entry of `epochs` in the metrics, from a row of the log that an evaluation wrote."""
    return {
        "epoch": round(row["epoch"]),
        "step": int(row["step"]),
        "seconds": row["seconds"],
        "pearson": row["eval_pearson"],
        "spearman": row["eval_spearman"],
        "loss": row["eval_loss"],
    }


def _cost(train: pd.DataFrame, trainer: Trainer, history: pd.DataFrame) -> dict[str, Any]:
    """The entry `train` of the metrics; seconds are of all processes that a resumed run has had."""
    config = trainer.matcher.config
    seconds = float(history["seconds"].max())
    trainable = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
    bf16 = encoder.uses_bf16(config.precision, trainer.model.device)
    return {
        "n": len(train),
        "seconds": seconds,
        "epochs": config.epochs,
        "steps": int(history["step"].max()),
        "pairs_per_second": config.epochs * len(train) / seconds,
        "peak_memory_mb": round(devices.peak_memory(), 1),
        "trainable_parameters": sum(parameter.numel() for parameter in trainable),
        "device": devices.describe(),
        "precision": "bf16" if bf16 else "fp32",
        "padding": trainer.sampler.padding(),
        "evaluation_seconds": float(history["eval_runtime"].sum()),
    }


def baselines(held_out: Splits, config: Config, regressor: Regressor | None) -> dict[str, Any]:
    """What words, pretrained backbone and features alone reach on each split; None where undefined."""
    systems: dict[str, System] = {
        "word_jaccard": metrics.word_jaccard,
        "pretrained_cosine": partial(_pretrained_cosine, backbone=config.backbone),
    }
    if regressor:
        systems["features"] = partial(_expected_score, regressor)
    entries: dict[str, Any] = {}
    for name, system in systems.items():
        entries[name] = {}
        for split, frame in held_out.items():
            entries[name][split] = metrics.evaluate_or_none(frame, system(frame), seed=config.seed)
    return entries


def _pretrained_cosine(frame: pd.DataFrame, *, backbone: str) -> np.ndarray:
    return np.clip(encoder.pretrained_cosine(frame, backbone=backbone), 0, 1)


def _expected_score(regressor: Regressor, frame: pd.DataFrame) -> np.ndarray:
    """Of the regressor's P(rank > k) (n, 4), whose mean is the expected score."""
    return regressor(frame).mean(-1).double().numpy()
