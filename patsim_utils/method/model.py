"""method.model: to be written."""

from dataclasses import dataclass

from torch import Tensor

from patsim_utils.method import ordinal

CONTEXT_TOKENS = {"title": 8, "whole_title": 64, "code": 8, "none": 0}


@dataclass
class Output:
    """What a batch of N rows gives."""

    cumulative: Tensor  # logits of P(rank > k) (N, 4), by the ordinal head
    anchor: Tensor  # span means at the contrast layer (N, W)
    target: Tensor
    ratings: Tensor | None  # logits of data.RATINGS (N, 10), where the model learns them

    def logits(self) -> Tensor:
        """Cumulative logits (N, 4) float32 that scores are made of: the mean probabilities of both heads."""
        if self.ratings is None:
            return self.cumulative.float()
        return ordinal.combined(self.cumulative, self.ratings)


def span_mean(states: Tensor, span: Tensor) -> Tensor:
    """States (B, T, W) and spans (N, L) of flat token indices, -1 where shorter -> means (N, W)."""
    tokens = states.flatten(0, 1)[span.clamp(min=0)]  # (N, L, W)
    inside = (span >= 0)[..., None].to(tokens.dtype)
    return (tokens * inside).sum(1) / inside.sum(1)
