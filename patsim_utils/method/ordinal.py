"""The ordinal head: five ordered ranks behind one latent strength; from ranks to scores.

A pair's features become one number z. Four ordered thresholds cut it into the ranks 0..4:
P(rank > k) = sigmoid(z - threshold_k) for k = 0..3. These four logits are called cumulative. The
score is the mean of the four probabilities, which is the expected rank / 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patsim_utils.ratings import RANKS, RATING_RANKS

CERTAIN = 1e-6  # probabilities are clamped to [1e-6, 1 - 1e-6] before their logit is taken


def levels(rank: Tensor) -> Tensor:
    """Ranks (N,) -> extended binary labels bool (N, 4): column k says whether the rank is above k.

    >>> levels(torch.tensor([2])).tolist()
    [[True, True, False, False]]
    """
    return rank[:, None] > torch.arange(RANKS - 1, device=rank.device)


def score(cumulative: Tensor) -> Tensor:
    """Cumulative logits (N, 4) -> expected score (N,) in [0, 1].

    >>> score(torch.zeros(1, 4))
    tensor([0.5000])
    """
    return cumulative.sigmoid().mean(-1)


def combined(cumulative: Tensor, rating_logits: Tensor) -> Tensor:
    """The mean of the two heads' P(rank > k), as logits (N, 4) float32.

    A rating implies a rank, its first digit: "2a" (the target is narrower) is of rank 2. So the
    rating head's P(rank > k) is the sum of its probabilities of all ratings with a digit above k.

    Args:
        cumulative: logits of the ordinal head (N, 4).
        rating_logits: of the ten RATINGS (N, 10), in their order.
    """
    ranks = torch.tensor(list(RATING_RANKS.values()), device=rating_logits.device)
    by_rating = rating_logits.float().softmax(-1) @ levels(ranks).float()  # (N, 10) @ (10, 4)
    by_rank = cumulative.float().sigmoid()
    return torch.logit((by_rank + by_rating) / 2, eps=CERTAIN)


def probabilities(cumulative: Tensor) -> Tensor:
    """Cumulative logits (N, 4), falling along k -> probability of each rank (N, 5); rows sum to 1.

    >>> probabilities(torch.tensor([[9.0, 9.0, 0.0, -9.0]])).round(decimals=2).tolist()
    [[0.0, 0.0, 0.5, 0.5, 0.0]]
    """
    at_least = F.pad(cumulative.sigmoid(), (1, 0), value=1.0)  # P(rank >= k) for k = 0..4
    above = F.pad(cumulative.sigmoid(), (0, 1), value=0.0)  # P(rank > k) for k = 0..4
    return at_least - above


def small_network(width: int, outputs: int) -> nn.Sequential:
    """Features (N, width) -> (N, outputs) through one hidden layer, with a fixed dropout of 0.1."""
    return nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, outputs))


class OrdinalHead(nn.Module):
    """Features (N, width) -> cumulative logits (N, 4), which fall along k by construction.

    The thresholds are the first one plus positive steps (softplus), so that no probability of a
    rank can be negative (the ordered-logit model, McCullagh 1980; with a shared slope as in CORAL,
    Cao et al. 2020, arXiv 1901.07884).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.strength = small_network(width, 1)
        self.first = nn.Parameter(torch.tensor(-1.5))
        self.steps = nn.Parameter(torch.full((RANKS - 2,), 0.5413))  # softplus(0.5413) = 1

    def thresholds(self) -> Tensor:
        """The four cut points (4,), rising."""
        rises = F.softplus(self.steps).cumsum(0)
        return self.first + F.pad(rises, (1, 0))

    def forward(self, features: Tensor) -> Tensor:
        return self.strength(features) - self.thresholds()  # (N, 1) - (4,) -> (N, 4)
