"""Where a target stands among the other targets of its anchor in its class.

A list of candidates says something about each of them: those that mean the same as the anchor are like each other, too,
and strangers are like nobody. Numbers of that kind make a score depend on its company, as the `list` layout does.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

STANDING = 9  # numbers of `standing`
NEAR = 0.1  # difference in likeness to the anchor, or to each other, that counts for e times as much
TYPICAL = 20  # targets of a group, about


def among(numbers: Tensor, groups: Sequence[np.ndarray]) -> Tensor:
    """Numbers (n, F) and the rows of each group -> (n, 2 F + 1): also less their group's mean, and the group's size."""
    less, size = torch.empty_like(numbers), numbers.new_empty(len(numbers), 1)
    for rows in map(torch.from_numpy, groups):
        less[rows] = numbers[rows] - numbers[rows].mean(0)
        size[rows] = len(rows) / TYPICAL
    return torch.cat([numbers, less, size], dim=1)


def standing(anchor: Tensor, targets: Tensor) -> Tensor:
    """Unit vectors of an anchor (W,) and of its K targets (K, W) -> numbers (K, STANDING), zeros for a single target.

    With s the cosines of the targets with the anchor and C those of the targets with each other, for each target:
    mean, largest, mean of the three largest and deviation of its row of C; the s of the others, more of those that are
    like it (softmax of C / NEAR); its row of C, more of those that are unlike the anchor (softmax of -s / NEAR); the
    share of the others that it exceeds in s, and in the mean of C; the mean s of the others.
    """
    count = len(targets)
    if count == 1:
        return targets.new_zeros(1, STANDING)
    likeness, alike = targets @ anchor, targets @ targets.T  # (K,), (K, K)
    itself = torch.eye(count, dtype=torch.bool, device=targets.device)
    others = alike.masked_fill(itself, 0.0)
    mean = others.sum(1) / (count - 1)
    best = alike.masked_fill(itself, -torch.inf).topk(min(3, count - 1), dim=1).values
    like_it = (alike / NEAR).masked_fill(itself, -torch.inf).softmax(1)
    strangers = (-likeness / NEAR).expand(count, -1).masked_fill(itself, -torch.inf).softmax(1)
    columns = [
        mean,
        best[:, 0],
        best.mean(1),
        (others.square().sum(1) / (count - 1) - mean.square()).clamp(min=0).sqrt(),
        like_it @ likeness,
        (others * strangers).sum(1),
        _share_exceeded(likeness),
        _share_exceeded(mean),
        (likeness.sum() - likeness) / (count - 1),
    ]
    return torch.stack(columns, dim=1)


def _share_exceeded(values: Tensor) -> Tensor:
    return (values[:, None] > values[None, :]).float().sum(1) / (len(values) - 1)


def bags(phrases: Sequence[Iterable[str]]) -> Tensor:
    """Parts of each phrase, such as its words -> unit vectors (n, parts in all) of which ones it has."""
    places = {part: place for place, part in enumerate(dict.fromkeys(part for parts in phrases for part in parts))}
    found = torch.zeros(len(phrases), len(places))
    for vector, parts in zip(found, phrases, strict=True):
        vector[[places[part] for part in parts]] = 1.0
    return F.normalize(found, dim=1)
