"""Readers: encoders that are tuned to find phrases alike, each without a part of the training anchors.

An encoder that has learned the task finds phrases alike on anchors that it has never seen far better than the untouched
one, and on those that it has learned from far too well. So the training anchors are cut into parts, one for each
reader, which learns from the others: a training row is then compared by the one reader that has not seen its anchor,
and what learns from these comparisons meets them as they will be on new anchors. This is stacked generalization
(Wolpert 1992, doi 10.1016/S0893-6080(05)80023-1). The judges of a stack, which read packed groups,
are whole models of their own: `train.fit_judges` trains them in the same way.

A reader reads each phrase alone, so each distinct phrase costs it a few tokens once.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from patsim_utils.evidence import read_phrases, whole_phrases
from patsim_utils.packing import Pairs

EPOCHS, LEARNING_RATE = 2, 1e-4
PARTS, TARGETS = 12, 8  # of a step: parts of groups, and targets of a part at most, so that it sees many anchors
SCALE, BIAS = 7.0, -4.4  # of the cosine, as a logit of the score: where MiniLM settles if they are learned


class Reader(nn.Module):
    """Distinct phrases (P) and, of N pairs, which ones they are -> logits (N,) of their scores."""

    def __init__(self, model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer

    def forward(self, phrases: list[list[int]], anchor: Tensor, target: Tensor) -> Tensor:
        vectors = whole_phrases(*read_phrases(phrases, model=self.model, tokenizer=self.tokenizer))
        return SCALE * (vectors[anchor] * vectors[target]).sum(-1) + BIAS


class ReaderTrainer(Trainer):
    """Trainer on the binary cross-entropy of scores, which says how far it is; `label` names the reader."""

    def __init__(self, model: Reader, *, label: str, **kwargs) -> None:
        super().__init__(model, **kwargs)
        self.label = label

    def compute_loss(
        self,
        model: Reader,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Tensor:
        logits = model(inputs["phrases"], inputs["anchor"], inputs["target"])
        return F.binary_cross_entropy_with_logits(logits, inputs["score"])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            if not (math.isfinite(logs["loss"]) and math.isfinite(logs["grad_norm"])):
                raise FloatingPointError(f"{self.label}: the loss is {logs['loss']}, its gradient {logs['grad_norm']}")
            if self.args.disable_tqdm:  # else the notebook's table shows it
                print(f"{self.label}, epoch {self.state.epoch:.1f} of {EPOCHS}: loss {logs['loss']:.4f}", flush=True)
        super().log(logs, start_time)


def collate(pairs: Pairs, rows: np.ndarray) -> dict[str, Any]:
    """Rows (N,) -> their distinct phrases as token ids, which ones anchor and target are, and their scores (N,)."""
    phrases, ids = np.unique(np.concatenate([pairs.anchor[rows], pairs.target[rows]]), return_inverse=True)
    anchor, target = torch.from_numpy(ids).tensor_split(2)
    score = torch.from_numpy(pairs.rank[rows] / 4).float()
    return {"phrases": [pairs.tokens[i] for i in phrases], "anchor": anchor, "target": target, "score": score}


def fit_readers(
    readers: nn.ModuleList,
    pairs: Pairs,
    *,
    unseen: np.ndarray,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
    folder: Path,
    keep: bool,
) -> None:
    """Tunes each reader on the training pairs whose anchors it may see; from then on it stays as it is.

    Args:
        unseen: (n,) the reader that must not see the row; all rows of an anchor have the same.
        folder: where the Trainer works. With `keep`, a reader that is ready is put there, and taken from there.

    Raises:
        FloatingPointError: a loss or gradient that does not stay finite.
    """
    cuda = torch.cuda.is_available()
    for place, model in enumerate(readers.requires_grad_(False)):
        ready = folder / f"reader-{place}.safetensors"
        if keep and ready.is_file():
            model.load_state_dict(load_file(ready))
            continue
        draw = np.random.default_rng([seed, place])
        parts = []
        for rows in pairs.groups():
            if unseen[rows[0]] != place:
                parts += np.array_split(draw.permutation(rows), -(-len(rows) // TARGETS))
        arguments = TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=PARTS,
            learning_rate=LEARNING_RATE,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            warmup_steps=math.ceil(0.1 * EPOCHS * len(parts) / PARTS),
            bf16=cuda and torch.cuda.is_bf16_supported(),
            dataloader_pin_memory=False,
            save_strategy="no",
            logging_steps=0.1,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            report_to=[],
            seed=seed,
            disable_tqdm=not transformers.utils.is_in_notebook(),
        )
        label = f"reader {place + 1} of {len(readers)}"
        if not arguments.disable_tqdm:
            print(f"{label}:")  # above the notebook's table of it
        trainer = ReaderTrainer(
            Reader(model.requires_grad_(True), tokenizer),
            label=label,
            args=arguments,
            train_dataset=parts,
            data_collator=lambda batch: collate(pairs, np.concatenate(batch)),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        model.requires_grad_(False)
        if keep:
            folder.mkdir(parents=True, exist_ok=True)
            fresh = ready.with_suffix(".new")
            save_file({name: value.contiguous() for name, value in model.state_dict().items()}, fresh)
            fresh.rename(ready)  # a kill in between leaves no half reader
