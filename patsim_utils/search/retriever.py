"""The retriever, a sentence encoder: phrases become unit vectors, compared by their cosine.

The one that ships, `tuned`, is MiniLM trained on the data's rated pairs; in the package lies what
that has changed, as of a model that ships.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from patsim_utils import storage
from patsim_utils.data.pairs import normalise
from patsim_utils.errors import InputError, clip, named
from patsim_utils.method import backbones, encoder
from patsim_utils.method.weights import adapters, files, sizes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

TUNED = Path(__file__).resolve().parents[1] / "models" / "retriever"
UPDATE = "model.safetensors"  # in TUNED
POSITIVE = 0.75  # score from which on a pair is one that the retriever learns to bring together
NEGATIVE = 0.25  # score up to which a target is a hard negative of its anchor


def folder_of(retriever: str) -> Path:
    """The folder of tuned, minilm, mpnet or of another retriever. InputError: it has no safetensors."""
    folder = TUNED if retriever == "tuned" else Path(backbones.path(retriever)).resolve()
    if not any(folder.glob("*.safetensors")):
        names = "tuned, minilm or mpnet"
        raise InputError(f"--retriever: {clip(retriever)} is no folder with *.safetensors, and not {names}")
    return folder


def identity_of(folder: Path) -> str:
    """What the vectors of the retriever in a folder depend on, as sha256."""
    return storage.digest(folder / UPDATE if folder == TUNED else folder)


class MeanPooled:
    """MiniLM as a retriever, without sentence-transformers, whose import takes two seconds.

    `update`: a file with what a training has changed (`write_update`). InputError: it is damaged.
    """

    def __init__(self, update: Path | None = None) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, self.tokenizer = encoder.load_to_score("minilm")
        if update is not None:
            state = adapters.restore(files.read_tensors(update), network, source=update)
            files.fill(nn.ModuleDict({"backbone": network}), state, source=update)
        self.network = network.to(self.device)

    def encode(self, phrases: Sequence[str], **_: Any) -> np.ndarray:
        """Unit vectors (n, width) of phrases."""
        return encoder.sentence_vectors(phrases, tokenizer=self.tokenizer, model=self.network).numpy()


@lru_cache(1)
def load(folder: Path, identity: str) -> SentenceTransformer | MeanPooled:
    """The retriever in a folder, loaded once.

    `identity` is what `identity_of` says of it, by which a change is noticed.
    InputError: the folder holds something else, or a damaged file.
    """
    try:
        if folder == folder_of("minilm"):
            return MeanPooled()
        if folder == TUNED:
            return MeanPooled(folder / UPDATE)
        shapes = _shapes(folder)
        for config_path in folder.rglob("config.json"):
            sizes.check(config_path, shapes)
        from sentence_transformers import SentenceTransformer

        encoder.library()  # which then shows no progress bars
        with sizes.few_modules(len(shapes)), sizes.few_numbers(shapes):
            return SentenceTransformer(str(folder), trust_remote_code=False)
    except Exception as error:  # of many kinds
        raise InputError(f"--retriever: {clip(str(folder))} cannot be loaded ({clip(error)})") from error


def _shapes(folder: Path) -> files.State:
    """The tensors of all parts of a retriever, which take no memory."""
    shapes = {}
    for path in folder.rglob("*.safetensors"):
        for name, tensor in files.read_shapes(path).items():
            shapes[f"{path.relative_to(folder)}: {name}"] = tensor
    return shapes


def vectors(model: SentenceTransformer | MeanPooled, phrases: Iterable[str], *, precision: str = "auto") -> np.ndarray:
    """Unit vectors (n, width) float32 of phrases.

    `precision`: "auto" computes in bfloat16 where that is fast, for the many phrases of a corpus;
    "fp32" is for queries, whose vectors then do not depend on the others of their batch.
    """
    texts = [normalise(phrase) for phrase in phrases]
    with encoder.autocast(precision, model.device):
        values = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    return values.astype(np.float32)


def write_update(retriever: Path, target: Path, *, rank: int) -> None:
    """Writes what a training (`train`) has changed of MiniLM, each matrix approximated by a product of a `rank`."""
    trained = nn.ModuleDict({"backbone": encoder.load_backbone(str(retriever))})
    pretrained = encoder.load_backbone("minilm")
    kept = adapters.compress(trained, pretrained, svd_rank=rank, scaling=1.0, dtype=torch.float16)
    files.save_tensors(kept, target)


def train(
    frame: pd.DataFrame,
    folder: Path,
    *,
    epochs: int = 1,
    kind: str = "multiple_negatives",
    seed: int = 0,
) -> Path:
    """Trains MiniLM as a retriever on rated pairs, and puts it into `folder` when it is done.

    The loss is multiple negatives ranking (that is NT-Xent): of each pair rated POSITIVE or more,
    the batch's other targets are in-batch negatives. A finished retriever of the same pairs and
    settings is not trained again.

    Args:
        frame: columns anchor, target, context, score.
        kind: "multiple_negatives", or "hard_negatives", where each pair brings a target rated
            NEGATIVE or less of the same anchor and class, too, and pairs whose anchor has none are
            left out.

    InputError: the folder is there and was not trained by this function, or another process
    writes it.
    """
    rows = training_rows(frame, hard_negatives=kind == "hard_negatives", seed=seed)
    pairs = storage.digest(rows.to_csv(index=False).encode())
    settings = json.dumps({"pairs": pairs, "epochs": epochs, "kind": kind, "seed": seed})
    note = folder / "training.json"
    if note.is_file() and note.read_text() == settings:
        return folder
    if folder.exists() and not note.is_file():
        raise InputError(f"{named(folder)}: is a retriever that was not trained here; move it away to train one")
    storage.refuse_others(folder, _is_of_retriever, "a retriever")
    fresh = storage.companion(folder, "new")
    with storage.lock(storage.companion(folder, "lock"), named(folder)):
        storage.remove(fresh)  # of a training that was stopped
        model = _fit(rows, fresh, epochs=epochs, seed=seed)
        model.save_pretrained(str(fresh), create_model_card=False)
        storage.write_text(fresh / note.name, settings)
        storage.swap(fresh, folder)
    return folder


def _is_of_retriever(path: Path) -> bool:
    """Whether `train` leaves something of this path within a retriever's folder."""
    is_module = re.fullmatch(r"\d+_\w+", path.parts[0]) is not None
    is_file = path.suffix in (".json", ".safetensors") or path.name == "vocab.txt"
    return is_file or (is_module and len(path.parts) == 1)


def training_rows(frame: pd.DataFrame, *, hard_negatives: bool, seed: int) -> pd.DataFrame:
    """One row a pair that is to be brought together: anchor, target and perhaps negative."""
    is_positive = (frame["score"] >= POSITIVE) & (frame["anchor"] != frame["target"])
    positives = frame.loc[is_positive, ["anchor", "target", "context"]]
    if not hard_negatives:
        return positives[["anchor", "target"]]
    negatives = frame.loc[frame["score"] <= NEGATIVE, ["anchor", "context", "target"]]
    negatives = negatives.rename(columns={"target": "negative"})
    rows = positives.merge(negatives, on=["anchor", "context"])
    rows = rows.sample(frac=1, random_state=seed).drop_duplicates(["anchor", "target", "context"])
    return rows[["anchor", "target", "negative"]]


def _fit(rows: pd.DataFrame, folder: Path, *, epochs: int, seed: int) -> SentenceTransformer:
    """MiniLM, trained on the rows; `folder` is where the trainer may write."""
    import datasets
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers.trainer_callback import PrinterCallback

    encoder.library()  # which then shows no progress bars
    model = SentenceTransformer(backbones.path("minilm"), trust_remote_code=False)
    model.model_card_data.widget = [{}]  # else examples are sought for a card that is not written, with a progress bar
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        per_device_train_batch_size=64,
        learning_rate=4e-5,
        warmup_steps=0.1,
        lr_scheduler_type="cosine",
        bf16=encoder.uses_bf16("auto", model.device),
        use_cpu=model.device.type == "cpu",
        save_strategy="no",
        report_to=[],
        seed=seed,
        disable_tqdm=True,
        logging_strategy="no",
    )
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments,
        train_dataset=datasets.Dataset.from_pandas(rows, preserve_index=False),
        loss=MultipleNegativesRankingLoss(model),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return model
