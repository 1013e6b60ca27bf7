"""A matcher for one class, with the calls of sentence-transformers' CrossEncoder."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from patsim_utils.data import cpc
from patsim_utils.errors import InputError, clip


class Scorer(Protocol):
    """What is needed of a matcher."""

    def score(self, frame: pd.DataFrame) -> np.ndarray: ...


class CardData:
    """Keeps what an evaluator of sentence-transformers tells a model's card, by the evaluator's name."""

    def __init__(self) -> None:
        self.metrics: dict[str, dict[str, Any]] = {}

    def set_evaluation_metrics(self, evaluator: object, metrics: dict[str, Any], epoch: int = 0, step: int = 0) -> None:
        name = getattr(evaluator, "name", "") or type(evaluator).__name__
        self.metrics[name] = dict(metrics)


class ForClass:
    """`predict` and `rank` as a CrossEncoder has them, for pairs that are compared in one CPC class.

    Whatever takes a CrossEncoder for these two calls takes it, such as CrossEncoderRerankingEvaluator. Options that
    mean nothing here (prompts, activation functions, devices) are taken and ignored. InputError: no CPC class.
    """

    def __init__(self, matcher: Scorer, context: str) -> None:
        code = cpc.class_of(context)
        if code is None:
            raise InputError(f"context: {clip(context)} is no CPC class, such as H04")
        self.matcher = matcher
        self.context = code
        self.model_card_data = CardData()

    def predict(
        self,
        inputs: Sequence[Sequence[str]] | Sequence[str],
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: object = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        **ignored: object,
    ) -> np.ndarray | Tensor | list[Tensor]:
        """Scores (n,) float32 in [0, 1] of (anchor, target) pairs; of one pair a single score.

        A tensor with `convert_to_tensor`, else a list of tensors without `convert_to_numpy`. The batches are the
        matcher's own, by tokens.
        """
        single = len(inputs) > 0 and isinstance(inputs[0], str)
        pairs = [inputs] if single else list(inputs)
        for pair in pairs:
            if isinstance(pair, str) or len(pair) != 2:
                raise InputError(f"pairs: {clip(pair)} is no pair of two phrases")
        frame = pd.DataFrame(pairs, columns=["anchor", "target"], dtype=object)
        frame["context"] = self.context
        scores = torch.from_numpy(self.matcher.score(frame)).float()
        if single:
            scores = scores[0]
        if convert_to_tensor:
            return scores
        if convert_to_numpy:
            return scores.numpy() if not single else scores.numpy()[()]
        return scores if single else list(scores)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **ignored: object,
    ) -> list[dict[str, Any]]:
        """The best `top_k` documents by falling score: dicts with `corpus_id`, `score` and, if asked for, `text`."""
        if isinstance(documents, str):
            raise InputError(f"documents: {clip(documents)} is one text; needed is a list of phrases")
        scores = self.predict([(query, document) for document in documents])
        order = np.argsort(-scores, kind="stable")[:top_k]
        ranked = []
        for position in order.tolist():
            entry: dict[str, Any] = {"corpus_id": position, "score": float(scores[position])}
            if return_documents:
                entry["text"] = documents[position]
            ranked.append(entry)
        return ranked
