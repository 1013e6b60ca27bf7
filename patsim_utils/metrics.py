"""How good predictions are: correlations and errors, with intervals over anchors.

Rows of one anchor share its phrase and are not independent: the bootstrap draws anchors, not rows.
All functions take arrays of equal length n, scores and predictions in [0, 1]; every interval is a
95 % percentile interval.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from patsim_utils.ratings import RANKS, to_rank

RESAMPLES = 1000  # of every bootstrap
ENDS = (0.025, 0.975)  # quantiles of an interval
Values = np.ndarray | pd.Series


def evaluate(frame: pd.DataFrame, prediction: Values, *, loss: float | None = None, seed: int = 0) -> dict[str, Any]:
    """The measures of one split, as plain numbers for JSON.

    `frame`: n rows with `anchor` and `score`; `loss`: mean loss of the split, of a system that has
    one. Returns `n`, `pearson`, `pearson_ci` [low, high] (over anchors), `spearman`, `mae` (in
    scores), `qwk` and, if given, `loss`. ValueError where one of them is not defined for these
    numbers, or not finite.
    """
    from scipy.stats import spearmanr  # here, since it takes a while

    score = frame["score"].to_numpy(dtype=np.float64)
    prediction = np.asarray(prediction)
    measures = {
        "n": len(frame),
        "pearson": pearson(score, prediction),
        "pearson_ci": list(pearson_interval(frame["anchor"], score, prediction, seed=seed)),
        "spearman": float(spearmanr(score, prediction).statistic),
        "mae": float(np.abs(score - prediction).mean()),
        "qwk": qwk(score, prediction),
    }
    if loss is not None:
        if not np.isfinite(loss):
            raise ValueError(f"the loss is {loss}, not a finite number")
        measures["loss"] = float(loss)
    return measures


def evaluate_or_none(frame: pd.DataFrame, prediction: Values, *, seed: int = 0) -> dict[str, Any] | None:
    """`evaluate` of a baseline, None where its numbers vary too little.

    ValueError: they are not n finite numbers.
    """
    prediction = np.asarray(prediction)
    if prediction.shape != (len(frame),) or not np.isfinite(prediction).all():
        raise ValueError(f"a baseline needs {len(frame)} finite numbers, one a row")
    try:
        return evaluate(frame, prediction, seed=seed)
    except ValueError:  # undefined, and no reason to stop a study
        return None


def pearson(x: Values, y: Values) -> float:
    """Pearson correlation of two arrays (n,), n >= 2, neither of them constant (else ValueError).

    >>> round(pearson([1, 2, 3], [1, 2, 4]), 3)
    0.982
    """
    return float(np.corrcoef(*_checked(x, y))[0, 1])


def qwk(score: Values, prediction: Values) -> float:
    """Quadratic weighted kappa of the nearest ranks 0..4 (n,); 1 is full agreement.

    ValueError: all are of one rank.
    """
    from sklearn.metrics import cohen_kappa_score  # here, since it takes a while

    rank = to_rank(score)
    predicted = to_rank(prediction)
    if len(np.union1d(rank, predicted)) < 2:
        reason = "all scores and predictions are of the same rank"
        raise ValueError(f"weighted kappa is not defined: {reason}")
    return float(cohen_kappa_score(rank, predicted, weights="quadratic", labels=range(RANKS)))


def pearson_interval(anchor: Values, score: Values, *predictions: Values, seed: int = 0) -> tuple[float, float]:
    """Interval (low, high) of Pearson's correlation.

    Of several runs, of their mean, over anchors and runs.

    ValueError for fewer than two anchors, and where scores or predictions are constant.
    """
    return _interval(_bootstrap(anchor, score, *predictions, seed=seed), seed=seed)


def paired_difference(
    anchor: Values, score: Values, first: Sequence[Values], second: Sequence[Values], *, seed: int = 0
) -> dict[str, float]:
    """How much better a second system is: `difference` of Pearson, second - first, `low`, `high`.

    Each is a mean over runs. Both systems were run with the same seeds and are measured on the same
    drawn anchors and pairs of runs, so that what makes an anchor hard for both cancels out.
    ValueError where they have not equally many runs.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} runs cannot be paired with {len(second)}")
    drawn = _bootstrap(anchor, score, *first, *second, seed=seed)
    drawn_first = drawn[:, : len(first)]
    drawn_second = drawn[:, len(first) :]
    low, high = _interval(drawn_second - drawn_first, seed=seed)
    pearson_first = [pearson(score, prediction) for prediction in first]
    pearson_second = [pearson(score, prediction) for prediction in second]
    difference = np.mean(np.subtract(pearson_second, pearson_first))
    return {"difference": float(difference), "low": low, "high": high}


def word_jaccard(frame: pd.DataFrame) -> np.ndarray:
    """Shared words over all words of anchor and target, (n,) in [0, 1]."""
    shares = []
    for anchor, target in zip(frame["anchor"], frame["target"], strict=True):
        anchor_words = set(anchor.split())
        target_words = set(target.split())
        shares.append(len(anchor_words & target_words) / len(anchor_words | target_words))
    return np.array(shares)


def mean_interval(
    anchor: pd.Series, value: pd.Series, *, among: pd.Series | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `value` (n,), over the rows `among` (n,) where given, and the ends of its interval.

    NaN for a mean of no rows, and for the ends where all resamples have the same mean: such as of
    one anchor, whose mean is no more certain for that.
    """
    group, _ = pd.factorize(anchor)
    among = np.ones(len(anchor)) if among is None else np.asarray(among)
    sums = np.bincount(group, value * among)
    counts = np.bincount(group, among)
    weights = draws(len(sums), seed)
    with np.errstate(invalid="ignore"):
        mean = sums.sum() / counts.sum()
        means = weights @ sums / (weights @ counts)
    known = means[~np.isnan(means)]
    if not len(known) or np.ptp(known) <= 1e-12:
        return float(mean), np.nan, np.nan
    low, high = np.quantile(known, ENDS)
    return float(mean), float(low), float(high)


@lru_cache(4)
def draws(count: int, seed: int) -> np.ndarray:
    """How often each of `count` anchors is in each resample (RESAMPLES, count)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(count, np.full(count, 1 / count), RESAMPLES)


def _bootstrap(anchor: Values, score: Values, *predictions: Values, seed: int) -> np.ndarray:
    """Pearson of the score with each prediction in each resample (resamples, predictions).

    Resamples in which a side is constant are left out as long as they are rare.
    """
    group, anchors = pd.factorize(np.asarray(anchor))
    if len(anchors) < 2:
        raise ValueError(f"an interval over anchors needs at least 2 anchors, not {len(anchors)}")
    weights = draws(len(anchors), seed)
    columns = [_resampled_pearson(group, weights, score, prediction) for prediction in predictions]
    drawn = np.stack(columns, axis=1)
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    if len(drawn) < 0.9 * RESAMPLES:
        constant = f"{RESAMPLES - len(drawn)} of {RESAMPLES} resamples are constant"
        raise ValueError(f"{constant}: too few anchors vary")
    return drawn


def _resampled_pearson(group: np.ndarray, weights: np.ndarray, score: Values, prediction: Values) -> np.ndarray:
    """Pearson in each resample (resamples,), NaN where a side is constant.

    Pearson needs only sums over rows, and a resample's sums are its weights (resamples, anchors)
    times the sums of each anchor: one matrix product for all.
    """
    x, y = _checked(score, prediction)
    x = x - x.mean()  # so that the differences below lose no digits
    y = y - y.mean()
    terms = (np.ones_like(x), x, y, x * x, y * y, x * y)
    sums = np.stack([np.bincount(group, term) for term in terms], axis=1)  # (anchors, 6)
    n, sum_x, sum_y, sum_xx, sum_yy, sum_xy = (weights @ sums).T  # each (resamples,)
    variance_x = sum_xx - sum_x * sum_x / n
    variance_y = sum_yy - sum_y * sum_y / n
    covariance = sum_xy - sum_x * sum_y / n
    varies = (variance_x > 1e-12 * (x @ x)) & (variance_y > 1e-12 * (y @ y))
    correlation = np.full(len(weights), np.nan)
    correlation[varies] = covariance[varies] / np.sqrt(variance_x[varies] * variance_y[varies])
    return correlation


def _interval(drawn: np.ndarray, *, seed: int) -> tuple[float, float]:
    """Interval of the mean over runs, which are drawn with replacement in each resample.

    `drawn` (resamples, runs).
    """
    generator = np.random.default_rng((seed, 1))
    runs = generator.integers(0, drawn.shape[1], drawn.shape)
    means = np.take_along_axis(drawn, runs, axis=1).mean(axis=1)
    low, high = np.quantile(means, ENDS)
    return float(low), float(high)


def _checked(x: Values, y: Values) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, or ValueError where they have no correlation."""
    x = np.asarray(x, dtype=np.float64)
    y = np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        shapes = f"{x.shape} and {y.shape}"
        raise ValueError(f"a correlation needs two rows of numbers of equal length, not {shapes}")
    if len(x) < 2:
        raise ValueError(f"a correlation needs at least 2 rows, not {len(x)}")
    for values in (x, y):
        if not np.isfinite(values).all():
            raise ValueError("a correlation needs finite numbers")
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            same = f"all {len(values)} are {values[0]}"
            raise ValueError(f"a correlation needs numbers that vary; {same}")
    return x, y
