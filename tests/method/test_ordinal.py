"""Ranks, scores and the ordinal head."""

import numpy as np
import pytest
import torch

from patsim_utils.method import ordinal
from patsim_utils.ratings import RATING_RANKS, to_rank


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


def test_a_new_head_has_thresholds_one_apart() -> None:
    head = ordinal.OrdinalHead(6)
    torch.testing.assert_close(head.thresholds(), torch.tensor([-1.5, -0.5, 0.5, 1.5]), atol=1e-3, rtol=0)
    hidden, activation, dropout, _ = head.strength
    assert hidden.out_features == 256
    assert isinstance(activation, torch.nn.GELU)
    assert dropout.p == 0.1
    features = torch.randn(3, 6)
    head.eval()
    torch.testing.assert_close(head(features), head.strength(features) - head.thresholds())


def test_the_heads_are_combined_as_the_mean_of_their_probabilities_of_a_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    cumulative = torch.randn(3, 4, generator=generator).sort(-1, descending=True).values
    rating_logits = torch.randn(3, 10, generator=generator)
    combined = ordinal.combined(cumulative.bfloat16(), rating_logits.bfloat16())
    assert combined.dtype == torch.float32
    by_rating = rating_logits.bfloat16().float().softmax(-1)
    for k in range(4):
        above = [number for number, rank in enumerate(RATING_RANKS.values()) if rank > k]
        both = (by_rating[:, above].sum(-1) + cumulative.bfloat16().float()[:, k].sigmoid()) / 2
        torch.testing.assert_close(combined[:, k].sigmoid(), both)
    certain = ordinal.combined(torch.full((1, 4), 200.0), torch.tensor([[200.0] + [0.0] * 9]))
    torch.testing.assert_close(certain, torch.full((1, 4), 999_999.0).log(), atol=0.1, rtol=0)
