"""Where a target stands among its group: against a slow loop, for one and two targets, and in any order."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from patsim_utils import company


def slowly(anchor: torch.Tensor, targets: torch.Tensor, place: int) -> list[float]:
    """One target's numbers by loops over the others."""
    others = [j for j in range(len(targets)) if j != place]
    likeness = [float(t @ anchor) for t in targets]
    alike = {(i, j): float(targets[i] @ targets[j]) for i in range(len(targets)) for j in range(len(targets))}

    def mean(i: int) -> float:
        return sum(alike[i, j] for j in range(len(targets)) if j != i) / (len(targets) - 1)

    def weighted(values: list[float], weights: list[float]) -> float:
        return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)

    mine = [alike[place, j] for j in others]
    best = sorted(mine, reverse=True)[:3]
    return [
        mean(place),
        best[0],
        sum(best) / len(best),
        (sum((x - mean(place)) ** 2 for x in mine) / len(mine)) ** 0.5,
        weighted([likeness[j] for j in others], [np.exp(x / company.NEAR) for x in mine]),
        weighted(mine, [np.exp(-likeness[j] / company.NEAR) for j in others]),
        sum(likeness[place] > likeness[j] for j in others) / len(others),
        sum(mean(place) > mean(j) for j in others) / len(others),
        sum(likeness[j] for j in others) / len(others),
    ]


@pytest.mark.parametrize("count", [2, 3, 7])
def test_standing_is_that_of_a_slow_loop(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    anchor = F.normalize(torch.randn(8, generator=generator), dim=0)
    targets = F.normalize(torch.randn(count, 8, generator=generator), dim=1)
    found = company.standing(anchor, targets)
    expected = [slowly(anchor, targets, place) for place in range(count)]
    np.testing.assert_allclose(found, expected, atol=1e-3 if count == 2 else 1e-5)  # the deviation of one number is 0
    order = torch.randperm(count, generator=generator)
    torch.testing.assert_close(company.standing(anchor, targets[order]), found[order], atol=1e-3, rtol=0)


def test_a_single_target_stands_nowhere() -> None:
    assert company.standing(torch.ones(4), torch.ones(1, 4)).eq(0).all()


def test_bags_are_unit_vectors_of_parts() -> None:
    found = company.bags([["gear", "box"], ["box"], []])
    torch.testing.assert_close(found @ found.T, torch.tensor([[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 0]]))


def test_a_group_is_compared_with_its_mean() -> None:
    numbers = torch.rand(5, 3)
    found = company.among(numbers, [np.array([0, 3]), np.array([4, 1, 2])])
    torch.testing.assert_close(found[:, :3], numbers)
    mean = (numbers[1] + numbers[2] + numbers[4]) / 3
    torch.testing.assert_close(found[2, 3:], torch.cat([numbers[2] - mean, torch.tensor([3 / company.TYPICAL])]))
    torch.testing.assert_close(found[0, 3:], torch.cat([(numbers[0] - numbers[3]) / 2, torch.tensor([0.1])]))
