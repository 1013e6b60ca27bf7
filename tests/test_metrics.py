"""Measures against values worked out by hand and libraries, the bootstrap against its own slow loop."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from patsim_utils import metrics

RANDOM = np.random.default_rng(7)


@pytest.fixture
def frame() -> pd.DataFrame:
    """240 rows of 12 anchors of uneven sizes; each anchor has its own level, so its rows hang together."""
    random = np.random.default_rng(3)
    anchor = np.sort(random.integers(12, size=240))
    level = random.normal(size=12)[anchor]
    score = np.clip(np.round(2 + level + random.normal(size=240)), 0, 4) / 4
    first = score + 0.2 * random.normal(size=240) + 0.1 * level
    second = score + 0.4 * random.normal(size=240)
    return pd.DataFrame({"anchor": anchor, "score": score, "first": first, "second": second})


def slow_bootstrap(frame: pd.DataFrame, column: str, *, resamples: int, seed: int) -> np.ndarray:
    """Pearson (resamples,) by repeating rows: each anchor as often as its multinomial weight says."""
    anchors = frame["anchor"].unique()
    weights = np.random.default_rng(seed).multinomial(len(anchors), np.full(len(anchors), 1 / len(anchors)), resamples)
    values = []
    for weight in weights:
        rows = frame.loc[frame.index.repeat(frame["anchor"].map(dict(zip(anchors, weight, strict=True))))]
        values.append(stats.pearsonr(rows["score"], rows[column]).statistic)
    return np.array(values)


def test_pearson_by_hand():
    # deviations (-1, 0, 1) and (-4/3, -1/3, 5/3): 3 / sqrt(2 * 14/3)
    assert metrics.pearson([1, 2, 3], [1, 2, 4]) == pytest.approx(3 / np.sqrt(28 / 3), abs=1e-15)


def test_pearson_agrees_with_scipy_and_ignores_scale_and_shift():
    x, y = RANDOM.normal(size=(2, 500))
    y = y + x
    assert metrics.pearson(x, y) == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
    assert metrics.pearson(1e-6 * x + 1e3, -y) == pytest.approx(-metrics.pearson(x, y), abs=1e-6)
    assert metrics.pearson(x, x) == pytest.approx(1, abs=1e-12)
    assert metrics.pearson(x, x) <= 1


@pytest.mark.parametrize(
    ("x", "y", "complaint"),
    [
        ([0.5, 0.5, 0.5], [0, 1, 2], "all 3 are 0.5"),
        ([0, 1, 2], [0.1, 0.1, 0.1], "all 3 are 0.1"),
        ([0, 1, 2], [0.3, 0.1 * 3, 0.3], "all 3 are 0.3"),  # rounding is no variation
        ([1], [2], "at least 2 rows, not 1"),
        ([], [], "at least 2 rows, not 0"),
        ([0, 1, 2], [0, 1, np.nan], "finite"),
        ([0, 1, 2], [0, 1], "equal length"),
    ],
)
def test_pearson_says_why_it_is_not_defined(x: list, y: list, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        metrics.pearson(x, y)


def test_qwk_by_hand():
    # squared distances: 1 observed in all; by chance, the sum over all 16 pairs / 4
    ranks, guess = np.array([0, 1, 2, 4]), np.array([0, 1, 3, 4])
    expected = ((ranks[:, None] - guess[None]) ** 2).sum() / 4
    assert metrics.qwk(ranks / 4, guess / 4) == pytest.approx(1 - 1 / expected, abs=1e-12)


def test_qwk_of_equal_opposite_and_nearly_equal_predictions():
    score = np.array([0, 0.25, 0.5, 0.75, 1])
    assert metrics.qwk(score, score) == 1
    assert metrics.qwk(score, score + 0.12) == 1  # the nearest rank counts
    assert metrics.qwk(score, 1 - score) == pytest.approx(-1)


def test_qwk_of_a_single_rank_is_not_defined():
    with pytest.raises(ValueError, match="kappa is not defined"):
        metrics.qwk(np.full(4, 0.5), np.array([0.49, 0.5, 0.51, 0.52]))


def test_the_interval_is_that_of_the_slow_loop(frame: pd.DataFrame):
    slow = slow_bootstrap(frame, "first", resamples=200, seed=5)
    fast = metrics.pearson_interval(frame["anchor"], frame["score"], frame["first"], resamples=200, seed=5)
    assert fast == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=1e-12)
    assert fast[0] < metrics.pearson(frame["score"], frame["first"]) < fast[1]


def test_the_paired_difference_is_that_of_the_slow_loop(frame: pd.DataFrame):
    slow = slow_bootstrap(frame, "second", resamples=200, seed=5) - slow_bootstrap(
        frame, "first", resamples=200, seed=5
    )
    fast = metrics.paired_difference(
        frame["anchor"], frame["score"], frame["first"], frame["second"], resamples=200, seed=5
    )
    assert (fast["low"], fast["high"]) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])), abs=1e-12)
    difference = metrics.pearson(frame["score"], frame["second"]) - metrics.pearson(frame["score"], frame["first"])
    assert fast["difference"] == pytest.approx(difference, abs=1e-15)
    assert fast["high"] < 0, "the second prediction has twice the noise"


def test_a_prediction_does_not_differ_from_its_copy_or_its_rescaling(frame: pd.DataFrame):
    same = metrics.paired_difference(frame["anchor"], frame["score"], frame["first"], frame["first"])
    assert same == {"difference": 0, "low": 0, "high": 0}
    scaled = metrics.paired_difference(frame["anchor"], frame["score"], frame["first"], 3 * frame["first"] - 2)
    assert list(scaled.values()) == pytest.approx([0, 0, 0], abs=1e-9)


def test_the_interval_keeps_to_its_seed_and_not_to_the_order_of_rows_in_an_anchor(frame: pd.DataFrame):
    def interval(rows: pd.DataFrame, seed: int = 0) -> tuple[float, float]:
        return metrics.pearson_interval(rows["anchor"], rows["score"], rows["first"], seed=seed)

    mixed = frame.sample(frac=1, random_state=1).sort_values("anchor", kind="stable")
    assert interval(mixed) == pytest.approx(interval(frame), abs=1e-12)
    assert interval(frame) == interval(frame)
    assert interval(frame, seed=1) != interval(frame)


def test_anchors_make_a_wider_interval_than_rows(frame: pd.DataFrame):
    frame = pd.concat([frame] * 4, ignore_index=True)  # copies of rows are no new evidence
    low, high = metrics.pearson_interval(frame["anchor"], frame["score"], frame["first"])
    naive_low, naive_high = metrics.pearson_interval(frame.index, frame["score"], frame["first"])
    assert high - low > 1.5 * (naive_high - naive_low)


def test_an_interval_needs_anchors_that_vary():
    with pytest.raises(ValueError, match="at least 2 anchors, not 1"):
        metrics.pearson_interval(["a", "a"], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="resamples are constant"):
        metrics.pearson_interval(["a", "b"], [0, 1], [0, 1])
    with pytest.raises(ValueError, match="all 4 are 0.5"):
        metrics.pearson_interval(["a", "a", "b", "b"], [0, 1, 0, 1], [0.5] * 4)


def test_evaluate_gives_plain_finite_numbers(frame: pd.DataFrame):
    result = metrics.evaluate(frame, frame["first"].to_numpy(dtype=np.float32), loss=np.float32(0.25), seed=2)
    assert list(result) == ["n", "pearson", "pearson_ci", "spearman", "mae", "qwk", "loss"]
    assert result["n"] == 240
    assert result["pearson"] == pytest.approx(metrics.pearson(frame["score"], frame["first"]), abs=1e-6)
    assert result["spearman"] == pytest.approx(stats.spearmanr(frame["score"], frame["first"]).statistic, abs=1e-6)
    assert result["mae"] == pytest.approx((frame["score"] - frame["first"]).abs().mean(), abs=1e-6)
    interval = metrics.pearson_interval(frame["anchor"], frame["score"], frame["first"], seed=2)
    assert result["pearson_ci"] == pytest.approx(list(interval), abs=1e-6)
    numbers = [value for key, value in result.items() if key not in ("n", "pearson_ci")] + result["pearson_ci"]
    assert all(type(number) is float and np.isfinite(number) for number in numbers)


def test_evaluate_leaves_the_loss_out_where_there_is_none_and_refuses_one_that_is_not_finite(
    frame: pd.DataFrame,
):
    assert "loss" not in metrics.evaluate(frame, frame["first"], loss=None)
    with pytest.raises(ValueError, match="the loss is nan"):
        metrics.evaluate(frame, frame["first"], loss=float("nan"))


def test_evaluate_refuses_a_constant_prediction(frame: pd.DataFrame):
    with pytest.raises(ValueError, match="numbers that vary"):
        metrics.evaluate(frame, np.full(len(frame), 0.3), loss=0.1)


def test_word_jaccard_by_hand():
    frame = pd.DataFrame(
        [("steel beam", "beam of steel"), ("steel beam", "steel beam"), ("lamp", "lamps"), ("a a b", "b c")],
        columns=["anchor", "target"],
    )
    assert metrics.word_jaccard(frame) == pytest.approx([2 / 3, 1, 0, 1 / 3])


def test_effects_over_seeds_are_those_of_one_run_where_there_is_one(frame: pd.DataFrame) -> None:
    columns = frame["anchor"], frame["score"]
    one = metrics.paired_effect(*columns, [frame["first"]], [frame["second"]])
    assert one == pytest.approx(metrics.paired_difference(*columns, frame["first"], frame["second"]))
    assert metrics.mean_interval(*columns, [frame["first"]]) == metrics.pearson_interval(*columns, frame["first"])


def test_effects_over_seeds_know_of_anchors_and_seeds(frame: pd.DataFrame) -> None:
    """The mean difference is plain; runs that differ among themselves make the interval wider."""
    noise = np.random.default_rng(5).normal(size=(3, len(frame)))
    first = [frame["first"]] * 3
    alike = [frame["first"] + 0.3 * noise[0]] * 3
    unlike = [frame["first"] + size * noise[0] for size in (0.0, 0.3, 0.9)]
    found = metrics.paired_effect(frame["anchor"], frame["score"], first, unlike)
    each = [metrics.pearson(frame["score"], x) - metrics.pearson(frame["score"], frame["first"]) for x in unlike]
    assert found["difference"] == pytest.approx(np.mean(each))
    assert found["low"] < found["difference"] < found["high"]
    same = metrics.paired_effect(frame["anchor"], frame["score"], first, alike)
    assert found["high"] - found["low"] > 1.5 * (same["high"] - same["low"])
    with pytest.raises(ValueError, match="1 runs cannot be paired with 3"):
        metrics.paired_effect(frame["anchor"], frame["score"], first[:1], alike)
