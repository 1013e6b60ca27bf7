"""Losses against slow loops, published values, and finite differences."""

import math

import pytest
import torch

from patsim_utils.config import Config
from patsim_utils.method import losses, ordinal
from patsim_utils.method.model import Outputs


def cumulative(n: int, seed: int = 0) -> torch.Tensor:
    """Falling logits (n, 4), as the ordinal head gives them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator, dtype=torch.float64).sort(-1, descending=True).values


RANK = torch.tensor([0, 1, 2, 3, 4, 2])


@pytest.mark.parametrize(
    ("error", "expected"),
    [(0.0, 0.0), (0.25, 0.0), (-0.25, 0.0), (0.5, 4 * 0.25**2), (-1.0, 4 * 0.75**2), (4.0, 4 * 3.75**2)],
)
def test_smooth_k2_is_flat_near_the_label_and_quadratic_beyond(error: float, expected: float) -> None:
    label = torch.tensor([2.0])
    assert losses.smooth_k2(label + error, label).item() == pytest.approx(expected, abs=1e-6)


def test_smooth_k2_gradient_is_two_k_times_the_excess() -> None:
    prediction = torch.tensor([1.0, 2.2, 3.5], dtype=torch.float64, requires_grad=True)
    losses.smooth_k2(prediction, torch.full((3,), 2.0, dtype=torch.float64), alpha=3.0, beta=0.25).backward()
    expected = torch.tensor([-2 * 3 * 0.75, 0.0, 2 * 3 * 1.25], dtype=torch.float64) / 3
    torch.testing.assert_close(prediction.grad, expected)


def test_smooth_k2_works_on_ranks_not_scores() -> None:
    """A prediction one rank off costs; on scores in [0, 1] the flat zone would hide it."""
    flat = torch.full((1, 4), 0.0)  # expected rank 2
    assert losses.ordinal_loss(flat, torch.tensor([3]), kind="smooth_k2").item() == pytest.approx(4 * 0.75**2)


def test_ordinal_logistic_matches_the_published_value() -> None:
    """Logits, levels and the mean of 0.6920 as documented by coral-pytorch."""
    logits = torch.tensor([[2.1, 1.8, -2.1, -1.8], [1.9, -1.0, -1.5, -1.3], [1.9, 1.8, 1.7, 1.6]])
    assert losses.ordinal_logistic(logits, torch.tensor([2, 1, 4])).item() == pytest.approx(0.6920, abs=1e-4)


def test_bce_is_the_textbook_one() -> None:
    z = cumulative(6)
    score = ordinal.score(z)
    expected = torch.nn.functional.binary_cross_entropy(score, RANK.double() / 4)
    assert losses.bce(z, RANK).item() == pytest.approx(expected.item(), rel=1e-6)


def test_bce_stays_finite_where_the_score_is_zero_or_one() -> None:
    for sign in (1, -1):
        logits = torch.full((2, 4), sign * 200.0, requires_grad=True)
        loss = losses.bce(logits, torch.tensor([0, 4]))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_one_minus_pearson() -> None:
    x, y = torch.tensor([0.1, 0.4, 0.2, 0.9]), torch.tensor([0.0, 0.5, 0.25, 0.75])
    expected = 1 - torch.corrcoef(torch.stack([x, y]))[0, 1]
    assert losses.one_minus_pearson(x, y).item() == pytest.approx(expected.item(), abs=1e-4)
    constant = torch.zeros(4, requires_grad=True)
    losses.one_minus_pearson(constant, y).backward()
    assert constant.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["smooth_k2", "ordinal_logistic", "bce", "mse", "pearson"])
def test_every_ordinal_loss_passes_gradcheck_and_prefers_the_truth(kind: str) -> None:
    z = cumulative(6, seed=1).requires_grad_()
    functions = {
        "smooth_k2": lambda z: losses.smooth_k2(ordinal.score(z) * 4, RANK.double()),
        "ordinal_logistic": lambda z: losses.ordinal_logistic(z, RANK),
        "bce": lambda z: losses.bce(z, RANK),
        "mse": lambda z: (ordinal.score(z) - RANK / 4).square().mean(),
        "pearson": lambda z: losses.one_minus_pearson(ordinal.score(z), RANK.double() / 4),
    }
    assert torch.autograd.gradcheck(functions[kind], z)
    direct = losses.ordinal_loss(z.detach(), RANK, kind=kind)
    assert losses.ordinal_loss(z.detach().bfloat16(), RANK, kind=kind).dtype == torch.float32
    assert direct.item() == pytest.approx(functions[kind](z.detach()).item(), abs=1e-5)
    truth = (ordinal.levels(RANK) * 2.0 - 1) * 3
    assert losses.ordinal_loss(truth, RANK, kind=kind) < losses.ordinal_loss(-truth.flip(0), RANK, kind=kind)


def vectors(n: int, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    anchor, target = torch.randn(2, n, 8, generator=generator, dtype=torch.float64)
    return anchor, target


ANCHOR_TEXT = torch.tensor([0, 0, 1, 2, 3, 4])
TARGET_TEXT = torch.tensor([5, 6, 7, 8, 5, 0])  # rows 0 and 4 share a target; the target of row 5 is the anchor of 0, 1


def slow_ntxent(anchor: torch.Tensor, target: torch.Tensor, weight: list[float], tau: float) -> float:
    views = [*anchor, *target]
    owner, text = [*ANCHOR_TEXT.tolist()] * 2, ANCHOR_TEXT.tolist() + TARGET_TEXT.tolist()
    n, total = len(anchor), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)

        def similarity(j: int, i: int = i) -> float:
            return torch.nn.functional.cosine_similarity(views[i], views[j], dim=0).item() / tau

        below = math.exp(similarity(partner))
        for j in range(2 * n):
            same = owner[i] == owner[j] or text[i] == text[j] or owner[i] == text[j] or text[i] == owner[j]
            if j != i and j != partner and not same:
                below += math.exp(similarity(j))
        total -= weight[i % n] * math.log(math.exp(similarity(partner)) / below)
    return total / (2 * n)


def test_ntxent_matches_a_loop_with_masks_and_weights() -> None:
    anchor, target = vectors(6)
    weight = losses.positives(torch.tensor([4, 3, 2, 0, 4, 3]))
    assert weight.tolist() == [1, 0.5, 0, 0, 1, 0.5]
    allowed = losses.in_batch_negatives(ANCHOR_TEXT, TARGET_TEXT)
    found = losses.ntxent(anchor, target, positive=weight, negative=allowed, temperature=0.3)
    assert found.item() == pytest.approx(slow_ntxent(anchor, target, weight.tolist(), 0.3), rel=1e-5)


def test_ntxent_without_positives_is_zero_with_zero_gradient() -> None:
    anchor = torch.randn(4, 8, requires_grad=True)
    allowed = losses.in_batch_negatives(torch.arange(4), torch.arange(4, 8))
    loss = losses.ntxent(anchor, torch.randn(4, 8), positive=torch.zeros(4), negative=allowed)
    loss.backward()
    assert loss.item() == 0
    assert anchor.grad.abs().max() == 0


def test_ntxent_is_finite_at_any_scale() -> None:
    for scale in (1e-8, 1.0, 1e8):
        anchor = (torch.randn(5, 8) * scale).requires_grad_()
        one_anchor = torch.zeros(5, dtype=torch.long)  # no negatives at all
        allowed = losses.in_batch_negatives(one_anchor, torch.arange(5))
        loss = losses.ntxent(anchor, anchor.detach() * 2, positive=torch.ones(5), negative=allowed)
        loss.backward()
        assert loss.isfinite()
        assert anchor.grad.isfinite().all()


def test_ntxent_gradcheck() -> None:
    anchor, target = vectors(4)
    view = torch.cat([anchor, target]).requires_grad_()
    allowed = losses.in_batch_negatives(torch.arange(4), torch.arange(4, 8))

    def loss(view: torch.Tensor) -> torch.Tensor:
        return losses.ntxent(*view.chunk(2), positive=torch.tensor([1.0, 0.5, 0.0, 1.0]), negative=allowed)

    assert torch.autograd.gradcheck(loss, view)


def outputs_of(n: int) -> tuple[Outputs, dict[str, torch.Tensor]]:
    """What a network says of n pairs of n / 2 anchors, and their batch; one pair has no rating."""
    generator = torch.Generator().manual_seed(2)
    outputs = Outputs(*(torch.randn(n, width, generator=generator) for width in (4, 8, 8, 10)))
    numbers = torch.arange(n)
    rating = numbers % 10
    rating[1] = -100
    return outputs, {
        "rank": (4 + numbers) % 5,
        "rating": rating,
        "anchor_text": numbers // 2,
        "target_text": 9 + numbers,
    }


def test_the_dual_loss_is_the_weighted_sum_of_its_three_terms() -> None:
    outputs, batch = outputs_of(6)
    config = Config(loss="smooth_k2", alpha=3.0, beta=0.1, contrast_weight=0.3, temperature=0.5, rating_weight=0.7)
    terms = losses.dual_loss(outputs, batch, config)
    expected_rank = 4 * ordinal.score(outputs.ordinal_logits)
    ordinal_term = losses.smooth_k2(expected_rank, batch["rank"].float(), alpha=3.0, beta=0.1)
    negative = losses.in_batch_negatives(batch["anchor_text"], batch["target_text"])
    views = (outputs.contrast_anchor, outputs.contrast_target)
    weights = losses.positives(batch["rank"])
    contrast = losses.ntxent(*views, positive=weights, negative=negative, temperature=0.5)
    log_p = outputs.rating_logits.log_softmax(-1)
    of_rated = [-log_p[row, batch["rating"][row]] for row in (0, 2, 3, 4, 5)]
    assert list(terms) == ["ordinal", "contrast", "rating"]
    torch.testing.assert_close(terms["ordinal"], ordinal_term)
    torch.testing.assert_close(terms["contrast"], 0.3 * contrast)
    torch.testing.assert_close(terms["rating"], 0.7 * torch.stack(of_rated).mean())
    assert contrast > 0.1


def test_terms_that_are_not_in_use_are_zero() -> None:
    outputs, batch = outputs_of(4)
    alone = Outputs(outputs.ordinal_logits, outputs.contrast_anchor, outputs.contrast_target, None)
    terms = losses.dual_loss(alone, batch, Config(loss="bce", contrast_weight=0.0, rating_weight=0.0))
    assert terms["ordinal"] == losses.bce(outputs.ordinal_logits, batch["rank"])
    assert [terms[name].item() for name in ("contrast", "rating")] == [0.0, 0.0]
    assert {term.shape for term in terms.values()} == {torch.Size([])}


def test_temperature_and_flat_zone_have_the_values_of_the_papers_by_default() -> None:
    outputs, batch = outputs_of(6)
    views = (outputs.contrast_anchor, outputs.contrast_target)
    by_default = losses.contrast_loss(*views, batch)
    assert by_default == losses.contrast_loss(*views, batch, temperature=0.1)
    negative = losses.in_batch_negatives(batch["anchor_text"], batch["target_text"])
    assert by_default == losses.ntxent(*views, positive=losses.positives(batch["rank"]), negative=negative)
    z, rank = outputs.ordinal_logits, batch["rank"]
    chosen = losses.ordinal_loss(z, rank, kind="smooth_k2", alpha=4.0, beta=0.25)
    assert losses.ordinal_loss(z, rank, kind="smooth_k2") == chosen
    assert losses.smooth_k2_of_ranks(z, rank) == chosen
    assert losses.ordinal_loss(z, rank, kind="smooth_k2", alpha=8.0) == pytest.approx(2 * chosen.item())


def test_one_minus_pearson_of_few_and_small_numbers_is_damped() -> None:
    """eps = 1e-6 beside the sums of squares, which are 2e-6 here: the correlation of 1 counts 2 / 3."""
    x = torch.tensor([0.0, 1e-3, 2e-3], dtype=torch.float64)
    assert losses.one_minus_pearson(x, x).item() == pytest.approx(1 / 3, abs=1e-9)
