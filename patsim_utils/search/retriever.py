"""search.retriever: to be written."""

import json
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer import losses
from transformers.trainer_callback import PrinterCallback

from patsim_utils import storage
from patsim_utils.data.pairs import normalise
from patsim_utils.errors import InputError, clip
from patsim_utils.method import backbones, encoder


def vectors(model: SentenceTransformer, phrases: Iterable[str]) -> np.ndarray:
    """Unit vectors (n, width) float32 of phrases, in bfloat16 where that is fast."""
    texts = [normalise(phrase) for phrase in phrases]
    with encoder.autocast("auto", model.device):
        found = model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    return found.astype(np.float32)


@lru_cache(1)
def _loaded(folder: str, fingerprint: str) -> SentenceTransformer:
    """The retriever in a folder, for all indexes; the `fingerprint` tells a new one in its place."""
    try:
        return SentenceTransformer(folder, trust_remote_code=False)
    except Exception as error:  # of many kinds, where the folder holds something else or a damaged file
        raise InputError(f"--retriever: {clip(folder)} cannot be loaded ({clip(error)})") from error


LOSSES = {"cosent": losses.CoSENTLoss, "multiple_negatives": losses.MultipleNegativesRankingLoss}


def train(frame: pd.DataFrame, folder: Path, *, loss: str, epochs: int = 1, seed: int = 0) -> Path:
    """Trains MiniLM as a retriever on scored pairs, or finds it in `folder`, where it is put at once when it is done.

    `loss`: "cosent" on all scores (CoSENT, a ranking of pairs by cosine); "multiple_negatives" on the pairs rated .75
    or more, with the batch's other targets as negatives (that is NT-Xent).
    """
    if loss not in LOSSES:
        raise InputError(f"parameter train_retriever: {clip(loss)} is none of {', '.join(LOSSES)}")
    note = json.dumps({"loss": loss, "epochs": epochs, "seed": seed})
    if (folder / "training.json").is_file() and (folder / "training.json").read_text() == note:
        return folder
    fresh = folder.with_name(f".{folder.name}.new")
    model = SentenceTransformer(backbones.path("minilm"), trust_remote_code=False)
    model.model_card_data.widget = [{}]  # else examples are sought for a card that is not written, with a progress bar
    columns = ["anchor", "target", "score"]
    if loss == "multiple_negatives":
        frame, columns = frame[(frame["score"] >= 0.75) & (frame["anchor"] != frame["target"])], columns[:2]
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(fresh),
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
    rows = datasets.Dataset.from_pandas(frame[columns], preserve_index=False)
    trainer = SentenceTransformerTrainer(model=model, args=arguments, train_dataset=rows, loss=LOSSES[loss](model))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    model.save_pretrained(str(fresh), create_model_card=False)
    storage.write_text(fresh / "training.json", note)
    storage.swap(fresh, folder)
    return folder
