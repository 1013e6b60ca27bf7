"""The network: token embeddings and class vector -> encoder -> spans of anchor and target -> two heads."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from patsim_utils.config import Config
from patsim_utils.method import encoder, ordinal
from patsim_utils.method.fusion import Fusion, RankScale
from patsim_utils.method.ordinal import OrdinalHead, small_network
from patsim_utils.ratings import RATINGS


@dataclass
class Outputs:
    """What the network says of a batch of N pairs."""

    cumulative: Tensor  # logits of P(rank > k) (N, 4), by the ordinal head
    anchor: Tensor  # mean state of the anchor's tokens at the contrast layer (N, W)
    target: Tensor  # the same of the target (N, W)
    ratings: Tensor | None  # logits of RATINGS (N, 10); None where the model does not learn them

    def logits(self) -> Tensor:
        """Cumulative logits (N, 4) float32 that scores are made of: of the mean probabilities of both heads."""
        if self.ratings is None:
            return self.cumulative.float()
        return ordinal.combined(self.cumulative, self.ratings)


def span_mean(states: Tensor, span: Tensor) -> Tensor:
    """States (B, T, W) and spans (N, L) of indices into the B * T tokens, -1 where shorter -> means (N, W)."""
    tokens = states.flatten(0, 1)[span.clamp(min=0)]  # (N, L, W)
    inside = (span >= 0)[..., None].to(tokens.dtype)
    return (tokens * inside).sum(1) / inside.sum(1)


def pair_features(anchor: Tensor, target: Tensor) -> Tensor:
    """Span means (N, W) of anchor and target -> what the heads read (N, 4 W): both, their product and difference."""
    return torch.cat([anchor, target, anchor * target, (anchor - target).abs()], dim=-1)


class Network(nn.Module):
    """A batch of `layouts.Pairs` -> `Outputs`.

    A batch holds B sequences of T tokens and N pairs: in the layout `pair` a sequence holds one pair, in the packed
    layouts many. So the encoder works on (B, T, W), and everything behind it on the spans of the N pairs.
    """

    def __init__(self, backbone: nn.Module, config: Config, *, titles: Tensor | None = None) -> None:
        """
        Args:
            backbone: the encoder, with its adapter in place (`adapters.adapt`).
            config: which parts the network has.
            titles: sentence vectors (len(cpc.CODES), W) of the class titles, which the fusion `graph` starts from.
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
    def encoder(self) -> nn.Module:
        """The encoder itself, with LoRA layers in place but without peft's wrapper."""
        wrapped = dict(self.backbone.named_children()).get("base_model")
        return self.backbone if wrapped is None else wrapped.model

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
        """While it lasts, HyperLoRA's update of sequence b is that of its class; nothing without HyperLoRA."""
        if self.hyperlora is None:
            return nullcontext()
        return self.hyperlora.of(self.fusion.embedding(codes))

    def _heads(self, states: tuple[Tensor, ...], batch: dict[str, Tensor]) -> Outputs:
        last = states[-1].float()
        features = pair_features(span_mean(last, batch["anchor_span"]), span_mean(last, batch["target_span"]))
        middle = states[min(self.contrast_layer, len(states) - 1)].float()
        return Outputs(
            cumulative=self.head(features),
            anchor=span_mean(middle, batch["anchor_span"]),
            target=span_mean(middle, batch["target_span"]),
            ratings=None if self.rating_head is None else self.rating_head(features),
        )
