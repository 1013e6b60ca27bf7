"""Ranks, scores and the ordinal head."""

import numpy as np
import pytest
import torch

from patsim_utils.method import ordinal
from patsim_utils.ratings import to_rank


def test_a_score_has_the_nearest_rank() -> None:
    assert to_rank(np.array([0, 0.25, 0.5, 0.75, 1])).tolist() == [0, 1, 2, 3, 4]
    # halves go up
    assert to_rank(np.array([-0.2, 0.124, 0.125, 0.6, 0.9, 1.3])).tolist() == [0, 0, 1, 2, 4, 4]


def test_thresholds_rise_and_probabilities_are_a_distribution() -> None:
    torch.manual_seed(0)
    head = ordinal.OrdinalHead(6)
    with torch.no_grad():
        head.steps.copy_(torch.tensor([-5.0, 0.0, 3.0]))  # any steps at all
    cumulative = head(torch.randn(50, 6) * 20)
    p = ordinal.probabilities(cumulative)
    assert (head.thresholds().diff() > 0).all()
    assert p.shape == (50, 5)
    assert p.min() >= 0
    torch.testing.assert_close(p.sum(-1), torch.ones(50))


def test_the_score_is_the_expected_rank_over_four() -> None:
    cumulative = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    expected = (ordinal.probabilities(cumulative) * torch.arange(5)).sum(-1) / 4
    torch.testing.assert_close(ordinal.score(cumulative), expected)
    assert ordinal.score(torch.full((1, 4), 100.0)).item() == pytest.approx(1)
