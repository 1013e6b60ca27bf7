"""The ordinal head: five ordered ranks behind one latent strength, and the way between ranks and scores.

A pair's features become one number z. Four ordered thresholds cut it into the ranks 0..4: P(rank > k) =
sigmoid(z - threshold_k). The score is the mean of these four probabilities, that is the expected rank / 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from patsim_utils.ratings import RANKS, RATINGS


def levels(rank: Tensor) -> Tensor:
    """Ranks (N,) -> extended binary labels bool (N, 4), level k is true where rank > k."""
    return rank[:, None] > torch.arange(RANKS - 1, device=rank.device)


def score(cumulative: Tensor) -> Tensor:
    """Cumulative logits (N, 4) of P(rank > k) -> expected score (N,) in [0, 1]."""
    return cumulative.sigmoid().mean(-1)


def combined(cumulative: Tensor, ratings: Tensor) -> Tensor:
    """Cumulative logits (N, 4) and logits of RATINGS (N, 10) -> the cumulative logits (N, 4) of their mean."""
    rank = torch.tensor([int(rating[0]) for rating in RATINGS], device=ratings.device)
    by_rating = ratings.float().softmax(-1) @ levels(rank).float()  # (N, 10) @ (10, 4)
    return torch.logit((cumulative.float().sigmoid() + by_rating) / 2, eps=1e-6)


def probabilities(cumulative: Tensor) -> Tensor:
    """Cumulative logits (N, 4), falling along k -> probability of each rank (N, 5), rows sum to 1."""
    above = F.pad(F.pad(cumulative.sigmoid(), (1, 0), value=1.0), (0, 1))  # P(rank >= k) for k = 0..5
    return above[:, :-1] - above[:, 1:]


def small_network(width: int, outputs: int) -> nn.Sequential:
    """Features (N, width) -> (N, outputs) through one hidden layer."""
    return nn.Sequential(nn.Linear(width, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, outputs))


class OrdinalHead(nn.Module):
    """Features (N, width) -> cumulative logits (N, 4), falling along the ranks by construction.

    The thresholds are the first one plus positive steps (softplus), so that no probability of a rank can be
    negative (the ordered-logit model, McCullagh 1980; with a shared slope as in CORAL, Cao et al. 2020).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.strength = small_network(width, 1)
        self.first = nn.Parameter(torch.tensor(-1.5))
        self.steps = nn.Parameter(torch.full((RANKS - 2,), 0.5413))  # softplus(0.5413) = 1

    def thresholds(self) -> Tensor:
        """The four cut points (4,), rising."""
        return self.first + torch.cat([self.steps.new_zeros(1), F.softplus(self.steps).cumsum(0)])

    def forward(self, features: Tensor) -> Tensor:
        return self.strength(features) - self.thresholds()  # (N, 1) - (4,) -> (N, 4)
