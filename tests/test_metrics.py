"""Measures against values worked out by hand and libraries, the bootstrap against its own slow loop."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from patsim_utils import metrics, ratings
from patsim_utils.environment import peak_memory


@pytest.fixture
def frame() -> pd.DataFrame:
    """240 rows of 12 anchors of uneven sizes; each anchor has its own level, so its rows hang together."""
    random = np.random.default_rng(3)
    anchor = np.sort(random.integers(12, size=240))
    level = random.normal(size=12)[anchor]
    score = np.clip(np.round(2 + level + random.normal(size=240)), 0, 4) / 4
    first, second = score + 0.2 * random.normal(size=240) + 0.1 * level, score + 0.4 * random.normal(size=240)
    return pd.DataFrame({"anchor": anchor, "score": score, "first": first, "second": second})


def columns(frame: pd.DataFrame, *names: str) -> list[pd.Series]:
    return [frame[name] for name in ("anchor", "score", *names)]


def slow_bootstrap(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Pearson (1000,) by repeating rows: each of the anchors 0 to 11 as often as its multinomial weight says."""
    values, table, anchors = [], frame[["score", column]].to_numpy(), frame["anchor"].to_numpy()
    for weight in np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), 1000):
        rows = np.repeat(table, weight[anchors], axis=0)
        values.append(np.corrcoef(*rows.T)[0, 1])
    return np.array(values)


def test_pearson_by_hand_and_in_spite_of_scale_and_shift():
    # deviations (-1, 0, 1) and (-4/3, -1/3, 5/3): 3 / sqrt(2 * 14/3)
    assert metrics.pearson([1, 2, 3], [1, 2, 4]) == pytest.approx(3 / np.sqrt(28 / 3), abs=1e-15)
    x, y = np.random.default_rng(7).normal(size=(2, 500))
    assert metrics.pearson(1e-6 * x + 1e3, -x - y) == pytest.approx(-stats.pearsonr(x, x + y).statistic, abs=1e-6)
    assert metrics.pearson(1e-9 * x, y) == pytest.approx(metrics.pearson(x, y), abs=1e-9)
    assert metrics.pearson(x, x) <= 1


def test_pearson_says_why_it_is_not_defined():
    wrong = {
        "^a correlation needs numbers that vary; all 3 are 0.3$": [0.3, 0.1 * 3, 0.3],  # 0.1 * 3 > 0.3
        "^a correlation needs numbers that vary; all 3 are 0.0$": [0, 0, 0],
        "^a correlation needs finite numbers$": [0, 1, np.nan],
        r"of equal length, not (\(3,\) and \(2,\)|\(2,\) and \(3,\))$": [0, 1],
    }
    for complaint, values in wrong.items():
        for pair in ((values, [0, 1, 2]), ([0, 1, 2], values)):
            with pytest.raises(ValueError, match=complaint):
                metrics.pearson(*pair)
    with pytest.raises(ValueError, match="at least 2 rows, not 1"):
        metrics.pearson([1], [2])


def test_qwk_by_hand():
    # squared distances: 1 observed in all; by chance, the sum over all 16 pairs / 4
    ranks, guess = np.array([0, 1, 2, 4]), np.array([0, 1, 3, 4])
    expected = ((ranks[:, None] - guess[None]) ** 2).sum() / 4
    assert metrics.qwk(ranks / 4, guess / 4) == pytest.approx(1 - 1 / expected, abs=1e-12)
    assert metrics.qwk(ranks / 4, ranks / 4 + 0.12) == 1  # the nearest rank counts
    assert metrics.qwk(np.array([0, 1]), np.array([0, 1])) == 1
    # ranks that do not occur keep their distance: squares of 0, 9 and 1; by chance, 54 over all 9 pairs
    assert metrics.qwk(np.array([0, 0, 1]), np.array([0, 0.75, 0.75])) == pytest.approx(1 - (10 / 3) / (54 / 9))
    complaint = "^weighted kappa is not defined: all scores and predictions are of the same rank$"
    with pytest.raises(ValueError, match=complaint):
        metrics.qwk(np.full(4, 0.5), np.array([0.49, 0.5, 0.51, 0.52]))


def test_intervals_are_those_of_the_slow_loop(frame: pd.DataFrame):
    first, second = slow_bootstrap(frame, "first"), slow_bootstrap(frame, "second")
    found = metrics.pearson_interval(*columns(frame, "first"), seed=5)
    assert found == pytest.approx(tuple(np.quantile(first, [0.025, 0.975])), abs=1e-12)
    paired = metrics.paired_difference(*columns(frame), [frame["first"]], [frame["second"]], seed=5)
    by_default = metrics.paired_difference(*columns(frame), [frame["first"]], [frame["second"]])
    assert by_default == metrics.paired_difference(*columns(frame), [frame["first"]], [frame["second"]], seed=0)
    assert (paired["low"], paired["high"]) == pytest.approx(tuple(np.quantile(second - first, [0.025, 0.975])))
    each = [metrics.pearson(frame["score"], frame[name]) for name in ("first", "second")]
    assert paired["difference"] == pytest.approx(each[1] - each[0], abs=1e-15)
    same = metrics.paired_difference(*columns(frame), [frame["first"]], [3 * frame["first"] - 2])
    assert list(same.values()) == pytest.approx([0, 0, 0], abs=1e-9)
    mixed = frame.sample(frac=1, random_state=1).sort_values("anchor", kind="stable")
    assert metrics.pearson_interval(*columns(mixed, "first"), seed=5) == pytest.approx(found)
    assert metrics.pearson_interval(*columns(frame, "first"), seed=6) != found
    assert metrics.pearson_interval(*columns(frame, "first")) == metrics.pearson_interval(
        *columns(frame, "first"), seed=0
    )


def test_intervals_hold_at_any_scale_and_of_runs_that_are_drawn_again(frame: pd.DataFrame) -> None:
    expected = metrics.pearson_interval(*columns(frame, "first"))
    for scale, shift, tolerance in ((1e-8, 0, 1e-9), (1, 1e6, 1e-6)):
        for name in ("score", "first"):
            scaled = frame.assign(**{name: scale * frame[name] + shift})
            assert metrics.pearson_interval(*columns(scaled, "first")) == pytest.approx(expected, abs=tolerance)
    single = frame.astype({"score": np.float32, "first": np.float32})
    double = single.astype({"score": np.float64, "first": np.float64})
    assert metrics.pearson_interval(*columns(single, "first")) == metrics.pearson_interval(*columns(double, "first"))
    runs = columns(frame, "first", "second")
    assert metrics.pearson_interval(*runs) == metrics.pearson_interval(*runs)


def test_resamples_without_variance_are_left_out_where_they_are_few() -> None:
    """A resample of one anchor has a single prediction; with five anchors they are rare, with two they are not."""
    frame = pd.DataFrame({"anchor": list("aabbccddee"), "score": [0, 1, 0.25, 0.5, 1, 0.5, 0.75, 0, 0.25, 1]})
    prediction = np.repeat([0.1, 0.3, 0.9, 0.2, 0.5], 2)
    low, high = metrics.pearson_interval(frame["anchor"], frame["score"], prediction)
    assert -1 <= low < high <= 1
    two = frame.head(4)
    constant = (metrics.draws(2, 0) == 2).any(axis=1).sum()
    with pytest.raises(ValueError, match=f"^{constant} of 1000 resamples are constant: too few anchors vary$"):
        metrics.pearson_interval(two["anchor"], two["score"], prediction[:4])


@pytest.mark.parametrize("within", [False, True])
def test_the_interval_of_a_mean_is_that_of_the_slow_loop(frame: pd.DataFrame, within: bool) -> None:
    among = frame["second"] > 0.6 if within else None
    kept = frame[among] if within else frame
    means = []
    for weight in metrics.draws(12, 4):
        means.append(np.average(kept["first"], weights=weight[kept["anchor"]]))
    expected = (kept["first"].mean(), *np.quantile(means, [0.025, 0.975]))
    value = frame["first"]
    assert metrics.mean_interval(frame["anchor"], value, among=among, seed=4) == pytest.approx(expected, abs=1e-12)
    default = metrics.mean_interval(frame["anchor"], value, among=among)
    assert default == metrics.mean_interval(frame["anchor"], value, among=among, seed=0)
    assert all(type(number) is float for number in default)


def test_a_mean_of_one_anchor_or_of_no_rows_has_no_interval() -> None:
    anchor = pd.Series(["a", "a", "b"])
    value = pd.Series([0.1, 0.4, 0.7])
    one = metrics.mean_interval(anchor, value, among=anchor == "a")
    assert one == pytest.approx((0.25, np.nan, np.nan), nan_ok=True)
    none = metrics.mean_interval(anchor, value, among=anchor == "c")
    assert np.isnan(none).all()
    rare = metrics.mean_interval(
        pd.Series(list("abcd")), pd.Series([0.0, 1.0, 0.0, 0.0]), among=pd.Series([1, 1, 0, 0])
    )
    assert rare == (0.5, 0.0, 1.0)


def test_an_interval_needs_anchors_that_vary():
    one, two = (pd.DataFrame({"anchor": anchors, "score": [0, 1]}) for anchors in (["a", "a"], ["a", "b"]))
    with pytest.raises(ValueError, match="at least 2 anchors, not 1"):
        metrics.pearson_interval(one["anchor"], one["score"], one["score"])
    with pytest.raises(ValueError, match="resamples are constant"):
        metrics.pearson_interval(two["anchor"], two["score"], two["score"])


def test_evaluate_gives_plain_finite_numbers(frame: pd.DataFrame):
    result = metrics.evaluate(frame, frame["first"], loss=np.float32(0.25), seed=2)
    assert list(result) == ["n", "pearson", "pearson_ci", "spearman", "mae", "qwk", "loss"]
    assert result["n"] == 240
    assert result["spearman"] == pytest.approx(stats.spearmanr(frame["score"], frame["first"]).statistic)
    assert result["mae"] == pytest.approx((frame["score"] - frame["first"]).abs().mean())
    assert result["pearson_ci"] == list(metrics.pearson_interval(*columns(frame, "first"), seed=2))
    numbers = [value for key, value in result.items() if key not in ("n", "pearson_ci")] + result["pearson_ci"]
    assert all(type(number) is float and np.isfinite(number) for number in numbers)
    with pytest.raises(ValueError, match="the loss is nan"):
        metrics.evaluate(frame, frame["first"], loss=float("nan"))


def test_a_constant_baseline_is_undefined_and_a_broken_one_an_error(frame: pd.DataFrame):
    constant = np.full(len(frame), 0.3)
    with pytest.raises(ValueError, match="numbers that vary"):
        metrics.evaluate(frame, constant)
    assert metrics.evaluate_or_none(frame, constant) is None
    for seed in (0, 3):
        measures = metrics.evaluate(frame, frame["first"], seed=seed)
        assert metrics.evaluate_or_none(frame, frame["first"], seed=seed) == measures
    by_default = metrics.evaluate(frame, frame["first"])
    assert metrics.evaluate_or_none(frame, frame["first"]) == by_default
    assert metrics.evaluate(frame, frame["first"], seed=0) == by_default
    for broken in (np.full(len(frame), np.nan), constant[1:]):
        with pytest.raises(ValueError, match="240 finite numbers"):
            metrics.evaluate_or_none(frame, broken)


def test_word_jaccard_by_hand():
    rows = [("steel beam", "beam of steel"), ("steel beam", "steel beam"), ("lamp", "lamps"), ("a a b", "b c")]
    found = metrics.word_jaccard(pd.DataFrame(rows, columns=["anchor", "target"]))
    assert found == pytest.approx([2 / 3, 1, 0, 1 / 3])


def test_effects_over_seeds_know_of_anchors_and_seeds(frame: pd.DataFrame) -> None:
    """The mean difference is plain; runs that differ among themselves make the interval wider."""
    noise = np.random.default_rng(5).normal(size=len(frame))
    first = [frame["first"]] * 3
    unlike = [frame["first"] + size * noise for size in (0.0, 0.3, 0.9)]
    found = metrics.paired_difference(*columns(frame), first, unlike)
    each = [metrics.pearson(frame["score"], x) - metrics.pearson(frame["score"], frame["first"]) for x in unlike]
    assert found["difference"] == pytest.approx(np.mean(each))
    same = metrics.paired_difference(*columns(frame), first, [unlike[1]] * 3)
    assert found["high"] - found["low"] > 1.5 * (same["high"] - same["low"])
    of_one, of_three = (metrics.pearson_interval(*columns(frame), *first[:n]) for n in (1, 3))
    assert of_three == pytest.approx(of_one)
    with pytest.raises(ValueError, match="1 runs cannot be paired with 3"):
        metrics.paired_difference(*columns(frame), first[:1], unlike)


def test_every_rating_has_one_rank_and_one_relation() -> None:
    assert {rating[0] for rating in ratings.RATINGS} == set("01234")
    assert [ratings.RATING_RANKS[rating] for rating in ("4", "2c", "0")] == [4, 2, 0]
    assert sorted(rating for of in ratings.RELATIONS.values() for rating in of) == sorted(ratings.RATINGS)
    assert ratings.to_rank(np.array(ratings.SCORES)).tolist() == list(range(ratings.RANKS))


def test_the_memory_of_this_process_is_known_in_mib() -> None:
    before = peak_memory()
    block = np.ones(50 * 2**20 // 8)
    assert 20 < before <= peak_memory() < 100_000
    assert block.nbytes == 50 * 2**20
