"""The systems of the benchmark, on the same pairs, words, backbone and threads.

`ours` is a Matcher. `cross_encoder` is the CrossEncoder of sentence-transformers with its own
trainer, what people would otherwise train. `bi_encoder` is the cosine of the pretrained backbone,
which learns nothing here.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import sentence_transformers
import torch
from sentence_transformers import cross_encoder

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.method import backbones, encoder
from patsim_utils.method.features import Regressor
from patsim_utils.method.matcher import Matcher
from patsim_utils.training.fit import fit
from patsim_utils.training.trainer import MAX_GRAD_NORM, WARMUP, WEIGHT_DECAY

LONGEST = 128  # tokens that the other systems read of a text
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

Splits = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Trained:
    """A system that is ready to score."""

    score: Callable[[pd.DataFrame], np.ndarray]  # anchor, target, context (n rows) -> scores (n,)
    seconds: float  # of its training; 0 where there was none


def ours(splits: Splits, config: Config, folder: Path) -> Trained:
    """A run in the folder, without the time of its evaluations."""
    cost = fit(splits, config, folder / "run", replace=True)["train"]
    seconds = cost["seconds"] - cost["evaluation_seconds"]
    if config.features != "none":
        began = time.perf_counter()
        Regressor.fit(splits["train"], config)  # `fit` does so after the last step, uncounted
        seconds += time.perf_counter() - began
    matcher = Matcher.load(folder / "run")
    return Trained(matcher.score, seconds)


def trained_cross_encoder(splits: Splits, config: Config, folder: Path) -> Trained:
    """A CrossEncoder that has learned the scores by binary cross-entropy, its default."""
    path = backbones.path(config.backbone)
    model = sentence_transformers.CrossEncoder(path, num_labels=1, max_length=LONGEST)
    loss = cross_encoder.losses.BinaryCrossEntropyLoss(model)
    texts = words(config)
    arguments = cross_encoder.CrossEncoderTrainingArguments(**training_arguments(config, folder))
    began = time.perf_counter()
    anchors, targets = zip(*texts(splits["train"]), strict=True)
    columns = {"anchor": anchors, "target": targets, "label": splits["train"]["score"]}
    rows = datasets.Dataset.from_dict(columns)
    cross_encoder.CrossEncoderTrainer(model, arguments, rows, loss=loss).train()
    seconds = time.perf_counter() - began
    return Trained(lambda frame: model.predict(texts(frame), show_progress_bar=False), seconds)


def pretrained_bi_encoder(splits: Splits, config: Config, folder: Path) -> Trained:
    """Cosine of the phrases' vectors by the backbone as it comes; every phrase is read once."""
    model = sentence_transformers.SentenceTransformer(backbones.path(config.backbone))

    def score(frame: pd.DataFrame) -> np.ndarray:
        phrases = np.concatenate([frame["anchor"], frame["target"]])
        number, distinct = pd.factorize(phrases)
        vectors = model.encode(list(distinct), normalize_embeddings=True, show_progress_bar=False)
        anchors, targets = np.split(vectors[number], 2)
        return (anchors * targets).sum(-1)

    return Trained(score, seconds=0.0)


SYSTEMS = {
    "ours": ours,
    "cross_encoder": trained_cross_encoder,
    "bi_encoder": pretrained_bi_encoder,
}


def words(config: Config) -> Callable[[pd.DataFrame], list[tuple[str, str]]]:
    """A function from a frame to (anchor, target [SEP] class text): the words of our `pair` layout."""
    matcher = Matcher(config.model_copy(update={"layout": "pair"}))
    endings = _class_texts(matcher)

    def texts(frame: pd.DataFrame) -> list[tuple[str, str]]:
        targets = frame["target"] + frame["context"].map(endings)
        return list(zip(frame["anchor"], targets, strict=True))

    return texts


def _class_texts(matcher: Matcher) -> dict[str, str]:
    """What the `pair` layout reads of each class: [SEP] and its text, or nothing."""
    codes = cpc.CODES[1:]
    pairs = matcher.pairs(pd.DataFrame({"anchor": "a", "target": "a", "context": codes}))
    separator = matcher.tokenizer.sep_token_id
    texts = {}
    for row, code in enumerate(codes):
        tokens = pairs[np.array([row])].tokens  # [CLS] a [SEP] a [SEP] class text [SEP]
        behind_anchor = tokens.index(separator) + 1
        behind_target = tokens.index(separator, behind_anchor) + 1
        text = matcher.tokenizer.decode(tokens[behind_target:-1])
        texts[code] = f" {matcher.tokenizer.sep_token} {text}" if text else ""
    return texts


def training_arguments(config: Config, folder: Path) -> dict[str, Any]:
    """Arguments of another trainer: epochs, batch, rate, schedule and precision of ours."""
    return {
        "output_dir": str(folder),
        "seed": config.seed,
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": WARMUP,
        "weight_decay": WEIGHT_DECAY,
        "max_grad_norm": MAX_GRAD_NORM,
        "bf16": encoder.uses_bf16(config.precision, DEVICE),
        "use_cpu": DEVICE.type == "cpu",
        "dataloader_pin_memory": DEVICE.type == "cuda",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
