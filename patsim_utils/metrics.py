"""How good are predictions: correlations and errors, with intervals that keep an anchor's rows together.

Rows of one anchor share its phrase and are not independent: the bootstrap draws anchors, not rows. All functions take
arrays of equal length n, scores and predictions in [0, 1]; every interval is a 95 % percentile interval.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from patsim_utils import ordinal

LEVEL = 0.95  # of every interval
Values = np.ndarray | pd.Series


def evaluate(
    frame: pd.DataFrame, prediction: Values, *, loss: float | None, seed: int = 0, resamples: int = 1000
) -> dict[str, Any]:
    """The measures of one split, as plain numbers for JSON.

    Args:
        frame: n rows with `anchor` and `score`.
        prediction: (n,) finite.
        loss: mean loss of the split, finite; None for a system that has none (it is left out then).

    Returns:
        `n`, `pearson`, `pearson_ci` [low, high] (over anchors), `spearman`, `mae` (in scores), `qwk`, `loss`.

    Raises:
        ValueError: a measure is not defined for these numbers, or one of them is not finite.
    """
    score = frame["score"].to_numpy(dtype=np.float64)
    prediction = np.asarray(prediction, dtype=np.float64)
    result = {
        "n": len(frame),
        "pearson": pearson(score, prediction),
        "pearson_ci": list(pearson_interval(frame["anchor"], score, prediction, resamples=resamples, seed=seed)),
        "spearman": float(spearmanr(score, prediction).statistic),
        "mae": float(np.abs(score - prediction).mean()),
        "qwk": qwk(score, prediction),
    }
    if loss is None:
        return result
    if not np.isfinite(loss):
        raise ValueError(f"the loss is {loss}, not a finite number")
    return result | {"loss": float(loss)}


def evaluate_or_none(frame: pd.DataFrame, prediction: Values, *, seed: int = 0) -> dict[str, Any] | None:
    """`evaluate` of a baseline without a loss, or None where its numbers vary too little to have a correlation.

    Numbers that are not finite, or not as many as rows, are still a ValueError.
    """
    prediction = np.asarray(prediction, dtype=np.float64)
    if prediction.shape != (len(frame),) or not np.isfinite(prediction).all():
        raise ValueError(f"a baseline needs {len(frame)} finite numbers, one a row")
    try:
        return evaluate(frame, prediction, loss=None, seed=seed)
    except ValueError:  # constant, or hardly an anchor varies: undefined, and no reason to stop a study
        return None


def check_measurable(frame: pd.DataFrame, *, seed: int = 0) -> None:
    """ValueError with the reason where no prediction of these rows could be measured, even the scores themselves."""
    pearson_interval(frame["anchor"], frame["score"], frame["score"], seed=seed)


def pearson(x: Values, y: Values) -> float:
    """Pearson correlation of two arrays (n,), n >= 2, neither of them constant (else ValueError)."""
    x, y = _checked(x, y)
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip((x / np.linalg.norm(x)) @ (y / np.linalg.norm(y)), -1, 1))


def qwk(score: Values, prediction: Values) -> float:
    """Quadratic weighted kappa of the ranks 0..4 nearest to scores and predictions (n,); 1 is full agreement.

    ValueError where all scores and all predictions fall into one and the same rank: kappa is 0/0 there.
    """
    true, guess = ordinal.to_rank(score), ordinal.to_rank(prediction)
    if len(np.union1d(true, guess)) < 2:
        raise ValueError("weighted kappa is not defined: all scores and predictions are of the same rank")
    return float(cohen_kappa_score(true, guess, weights="quadratic", labels=range(ordinal.RANKS)))


def pearson_interval(
    anchor: Values, score: Values, prediction: Values, *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Interval (low, high) of Pearson's correlation, anchors drawn with replacement.

    ValueError for fewer than two anchors, and where scores or predictions are constant.
    """
    return _interval(_bootstrap(anchor, score, prediction, resamples=resamples, seed=seed)[:, 0])


def paired_difference(
    anchor: Values, score: Values, first: Values, second: Values, *, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """How much better the second prediction is: `difference` of Pearson, second - first, with `low`, `high`.

    Both are measured on the same drawn anchors, so that what makes an anchor hard for both cancels out.
    """
    return paired_effect(anchor, score, [first], [second], resamples=resamples, seed=seed)


def mean_interval(
    anchor: Values, score: Values, predictions: list[Values], *, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Interval (low, high) of the mean Pearson of several runs, over anchors and runs, both drawn anew."""
    drawn = _bootstrap(anchor, score, *predictions, resamples=resamples, seed=seed)
    return _interval(_mean_of_drawn(drawn, seed=seed))


def paired_effect(
    anchor: Values, score: Values, first: list[Values], second: list[Values], *, resamples: int = 1000, seed: int = 0
) -> dict[str, float]:
    """`paired_difference` of two systems that were each run with the same seeds: means over the seeds.

    A resample draws anchors and pairs of runs. ValueError where the two have not equally many runs.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} runs cannot be paired with {len(second)}")
    drawn = _bootstrap(anchor, score, *first, *second, resamples=resamples, seed=seed)
    low, high = _interval(_mean_of_drawn(drawn[:, len(first) :] - drawn[:, : len(first)], seed=seed))
    each = [pearson(score, b) - pearson(score, a) for a, b in zip(first, second, strict=True)]
    return {"difference": float(np.mean(each)), "low": low, "high": high}


def _mean_of_drawn(values: Values, *, seed: int) -> np.ndarray:
    """Values (resamples, runs) -> the mean over runs drawn with replacement in each resample (resamples,)."""
    choice = np.random.default_rng((seed, 1)).integers(0, values.shape[1], values.shape)
    return np.take_along_axis(values, choice, axis=1).mean(axis=1)


def word_jaccard(frame: pd.DataFrame) -> np.ndarray:
    """Shared words over all words of anchor and target, (n,) in [0, 1]: how far the words alone get."""
    pairs = zip(frame["anchor"].str.split(), frame["target"].str.split(), strict=True)
    return np.array([len({*one} & {*two}) / len({*one} | {*two}) for one, two in pairs], dtype=np.float64)


def _bootstrap(anchor: Values, score: Values, *predictions: Values, resamples: int, seed: int) -> np.ndarray:
    """Pearson of the score with each prediction in each resample (resamples, predictions).

    A resample is a multinomial weight an anchor. Pearson needs only sums over rows, and a resample's sums are its
    weights times the sums of each anchor: one matrix product for all. Resamples in which a side is constant are left
    out as long as they are rare.
    """
    group, names = pd.factorize(np.asarray(anchor))
    count = len(names)
    if count < 2:
        raise ValueError(f"an interval over anchors needs at least 2 anchors, not {count}")
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), resamples)
    drawn = np.full((resamples, len(predictions)), np.nan)
    for j, prediction in enumerate(predictions):
        x, y = _checked(score, prediction)
        x, y = x - x.mean(), y - y.mean()  # near zero, so that the differences below lose no digits
        terms = (np.ones_like(x), x, y, x * x, y * y, x * y)
        sums = np.stack([np.bincount(group, term, count) for term in terms], axis=1)  # (anchors, 6)
        n, sx, sy, sxx, syy, sxy = (weights @ sums).T  # each (resamples,)
        sxx, syy, sxy = sxx - sx * sx / n, syy - sy * sy / n, sxy - sx * sy / n
        defined = (sxx > 1e-12 * (x @ x)) & (syy > 1e-12 * (y @ y))
        drawn[defined, j] = sxy[defined] / np.sqrt(sxx[defined] * syy[defined])
    drawn = drawn[~np.isnan(drawn).any(axis=1)]
    if len(drawn) < 0.9 * resamples:
        raise ValueError(f"{resamples - len(drawn)} of {resamples} resamples are constant: too few anchors vary")
    return drawn


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _checked(x: Values, y: Values) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64, or ValueError where they have no correlation."""
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"a correlation needs two rows of numbers of equal length, not {x.shape} and {y.shape}")
    if len(x) < 2:
        raise ValueError(f"a correlation needs at least 2 rows, not {len(x)}")
    for values in (x, y):
        if not np.isfinite(values).all():
            raise ValueError("a correlation needs finite numbers")
        if np.ptp(values) <= 1e-12 * np.abs(values).max():
            raise ValueError(f"a correlation needs numbers that vary; all {len(values)} are {values[0]}")
    return x, y
