"""The network: tokens and class vector -> encoder -> spans of anchor and target -> two heads."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.layouts import positions
from patsim_utils.layouts.pairs import Pairs
from patsim_utils.layouts.tokens import AnyTokenizer
from patsim_utils.method import encoder, ordinal
from patsim_utils.method.fusion import Fusion, RankScale
from patsim_utils.method.ordinal import OrdinalHead, small_network
from patsim_utils.method.weights import adapters
from patsim_utils.ratings import RANKS, RATINGS, RELATIONS, SCORES

BATCH_TOKENS = {"cuda": 8192, "cpu": 1024}  # in scoring; larger batches outgrow a CPU's caches
Progress = Callable[[int, int], None]  # called with the rows that are done and all rows


@dataclass
class Outputs:
    """What the network says of a batch of N pairs; the losses are computed from it."""

    ordinal_logits: Tensor  # cumulative logits of P(rank > k) (N, 4), by the ordinal head
    contrast_anchor: Tensor  # mean state of the anchor's tokens at the contrast layer (N, W)
    contrast_target: Tensor  # the same of the target (N, W)
    rating_logits: Tensor | None  # of RATINGS (N, 10); None where there is no rating head

    def combined_logits(self) -> Tensor:
        """The mean of the two heads' P(rank > k), as logits (N, 4) float32; scores come from this.

        Without a rating head, the ordinal head's alone.
        """
        if self.rating_logits is None:
            return self.ordinal_logits.float()
        return ordinal.combined(self.ordinal_logits, self.rating_logits)


@dataclass
class Predictions:
    """What a model says of n rows, in their order."""

    logits: Tensor  # cumulative logits of P(rank > k) (n, 4) float32
    rating_logits: Tensor | None  # of RATINGS (n, 10) float32; None where they were not learned

    @classmethod
    def zeros(cls, rows: int, *, with_ratings: bool) -> Self:
        """Logits 0 for each row, to be filled in."""
        rating_logits = torch.zeros(rows, len(RATINGS)) if with_ratings else None
        return cls(torch.zeros(rows, RANKS - 1), rating_logits)

    @property
    def scores(self) -> np.ndarray:
        """Expected scores (n,) in [0, 1]."""
        return ordinal.score(self.logits.double()).numpy()

    @property
    def probabilities(self) -> np.ndarray:
        """Probability of each of the scores 0, .25, .5, .75, 1: (n, 5), rows sum to 1."""
        return ordinal.probabilities(self.logits.double()).numpy()

    @property
    def ratings(self) -> pd.DataFrame | None:
        """Probability of each of RATINGS (n, 10); None where not learned."""
        if self.rating_logits is None:
            return None
        return pd.DataFrame(self.rating_logits.double().softmax(-1).numpy(), columns=list(RATINGS))

    @property
    def relations(self) -> pd.DataFrame | None:
        """Probability of each of RELATIONS (n, 8), such as narrower; None where ratings were not learned."""
        ratings = self.ratings
        if ratings is None:
            return None
        return pd.DataFrame({name: ratings[list(members)].sum(axis=1) for name, members in RELATIONS.items()})

    def table(self) -> pd.DataFrame:
        """A row for each pair.

        Columns: `score`; the probability of each score (`0`, `0.25` to `1`); where ratings were
        learned, the most probable `rating` and its `probability`.

        The rating is that of the rating head alone, while the score is of both heads and, with
        similarity features, of the regressor: the two may disagree.
        """
        table = pd.DataFrame(self.probabilities, columns=[f"{score:g}" for score in SCORES])
        table.insert(0, "score", self.scores)
        ratings = self.ratings
        if ratings is not None:
            table["rating"] = ratings.idxmax(axis=1)
            table["probability"] = ratings.max(axis=1)
        return table

    def with_equal(self, equal: np.ndarray) -> Self:
        """The same, but certain of score 1 and rating "4" where `equal` (n,) is true."""
        rows = torch.from_numpy(np.array(equal, dtype=bool))
        certain = torch.tensor(torch.inf)
        logits = torch.where(rows[:, None], certain, self.logits)
        if self.rating_logits is None:
            return type(self)(logits, None)
        is_four = torch.tensor([rating == "4" for rating in RATINGS])
        rating_logits = torch.where(rows[:, None] & ~is_four, -certain, self.rating_logits)
        return type(self)(logits, rating_logits)


def span_mean(states: Tensor, span: Tensor) -> Tensor:
    """Means (N, W) of the states (B, T, W) in spans (N, L): indices into B * T tokens, or -1.

    No span may be empty (all -1), since its mean is NaN; `layouts.Pairs` makes none.
    """
    tokens = states.flatten(0, 1)[span.clamp(min=0)]  # (N, L, W)
    inside = (span >= 0)[..., None].to(tokens.dtype)
    return (tokens * inside).sum(1) / inside.sum(1)


def pair_features(anchor: Tensor, target: Tensor) -> Tensor:
    """Span means (N, W) -> what the heads read (N, 4 W): both, their product, their distance."""
    return torch.cat([anchor, target, anchor * target, (anchor - target).abs()], dim=-1)


class Network(nn.Module):
    """A batch of `layouts.Pairs` -> `Outputs`.

    A batch holds B sequences of T tokens and N pairs. In the layout `pair` a sequence holds one
    pair and every token sees every other: B = N. In `packed` and `repeated` it holds many targets
    of one anchor in one class, each of which sees the anchor and itself, but no other target. In
    `packed` they share one copy of the anchor, which sees none of them: its vector is the same for
    all. In `repeated` each has a copy beside it, and both see each other. So the encoder works on
    (B, T, W), and all behind it on the N spans of anchors and of targets.

    The batch is a dictionary of int64 tensors. The network reads:

        input_ids                (B, T)  tokens
        position_ids             (B, T)  place of each token, as if its block followed the prefix at once
        block                    (B, T)  0 in the prefix that all see, 1, 2, ... in a block, -1 padding
        code                     (B,)    place of the sequence's class in `cpc.CODES`; 0 unknown
        anchor_span, target_span (N, L)  which of the B * T tokens are the phrase; -1 fills up

    The losses read, of each pair:

        rank                     (N,)    of its score, 0 to 4
        rating                   (N,)    place in RATINGS; -100 where it has none
        anchor_text, target_text (N,)    numbers of the phrases; equal texts have equal numbers
        rows                     (N,)    places of the pairs in their frame, for messages and results
        teacher                  (N, 14) float32, TEACHER_COLUMNS; only where a teacher has labelled pairs
    """

    def __init__(self, backbone: nn.Module, config: Config, *, titles: Tensor | None = None) -> None:
        """
        Args:
            backbone: the encoder, with its adapter in place (`adapters.adapt`).
            config: which parts the network has. There is a rating head where `rating_weight` is
                not 0, which also weighs its loss.
            titles: sentence vectors (len(cpc.CODES), W) of class titles, for the fusion `graph`.
        """
        super().__init__()
        width = backbone.config.hidden_size
        self.contrast_layer = config.contrast_layer
        self.backbone = backbone
        self.fusion = Fusion(config.fusion, width=width, titles=titles)
        self.hyperlora = None
        if config.adapter == "hyperlora":
            self.hyperlora = RankScale(self.encoder)
        self.head = OrdinalHead(4 * width)
        self.rating_head = None
        if config.rating_weight:
            self.rating_head = small_network(4 * width, len(RATINGS))

    @property
    def has_lora(self) -> bool:
        """Whether the encoder is in peft's wrapper, with LoRA layers that are not merged."""
        return "base_model" in dict(self.backbone.named_children())

    @property
    def encoder(self) -> nn.Module:
        """The encoder itself, without peft's wrapper."""
        if self.has_lora:
            return self.backbone.base_model.model
        return self.backbone

    @property
    def device(self) -> torch.device:
        return self.head.first.device

    def forward(self, batch: dict[str, Tensor]) -> Outputs:
        tokens = self.encoder.get_input_embeddings()(batch["input_ids"])  # (B, T, W)
        tokens = self.fusion(tokens, batch["code"])
        with self._adapted_to(batch["code"]):
            states = encoder.hidden_states(self.encoder, tokens, batch)
        with torch.autocast(self.device.type, enabled=False):  # the heads stay in float32
            return self._heads(states, batch)

    def _adapted_to(self, codes: Tensor) -> AbstractContextManager[None]:
        """Context in which each sequence gets its class's HyperLoRA update.

        Without HyperLoRA it does nothing.
        """
        if self.hyperlora is None:
            return nullcontext()
        return self.hyperlora.adapted_to(self.fusion.embedding(codes))

    def _heads(self, states: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Outputs:
        last = states[-1].float()
        features = pair_features(span_mean(last, batch["anchor_span"]), span_mean(last, batch["target_span"]))
        # With contrast_weight 0, `check_backbone` lets any contrast_layer through, and nothing reads this state.
        middle = states[min(self.contrast_layer, len(states) - 1)].float()
        return Outputs(
            ordinal_logits=self.head(features),
            contrast_anchor=span_mean(middle, batch["anchor_span"]),
            contrast_target=span_mean(middle, batch["target_span"]),
            rating_logits=None if self.rating_head is None else self.rating_head(features),
        )


def new_network(config: Config, tokenizer: AnyTokenizer, titles: dict[str, str]) -> Network:
    """A pretrained encoder with its adapter, and new heads; InputError where these do not fit."""
    backbone = encoder.load_backbone(config.backbone, layers=config.layers)
    check_backbone(backbone, config)
    title_vectors = None
    if config.fusion == "graph":  # before the adapter is in: the pretrained encoder reads the titles
        texts = [titles[code] for code in cpc.CODES]
        title_vectors = encoder.sentence_vectors(texts, tokenizer=tokenizer, model=backbone.eval())
    return Network(adapters.adapt(backbone, config), config, titles=title_vectors)


def check_backbone(backbone: nn.Module, config: Config) -> None:
    """InputError where an encoder does not suit the settings of contrast layer or layout.

    The contrast layer counts only where the contrastive loss is in use.
    """
    layers = backbone.config.num_hidden_layers
    if config.contrast_weight and config.contrast_layer > layers:
        raise InputError(f"parameter contrast_layer: {config.contrast_layer} is not in 0..{layers} of this backbone")
    positions.check(backbone, config.layout)


@torch.inference_mode()
def run(network: Network, pairs: Pairs, *, precision: str, progress: Progress | None = None) -> Predictions:
    """What a network says of all pairs, in their order. The network is in evaluation mode afterwards.

    `progress(done, all)` is called with numbers of rows after every batch.
    """
    if network.training:  # a walk over all modules, which takes longer than the scoring of one pair
        network.eval()
    predictions = Predictions.zeros(len(pairs), with_ratings=network.rating_head is not None)
    done = 0
    for sequences in pairs.batches(tokens=BATCH_TOKENS[network.device.type]):
        batch = pairs.collate(sequences)
        rows = batch["rows"]
        with encoder.autocast(precision, network.device):
            outputs = network({name: tensor.to(network.device) for name, tensor in batch.items()})
        predictions.logits[rows] = outputs.combined_logits().cpu()
        if outputs.rating_logits is not None:
            predictions.rating_logits[rows] = outputs.rating_logits.float().cpu()
        done += len(rows)
        if progress:
            progress(done, len(pairs))
    return predictions
