"""The tables of notebook 3, where a model fails: tidy frames in, tidy frames out.

`frame` holds scored pairs: the rows of a run's predictions.csv, with the columns of `with_errors`.
Intervals are of 95 %, by a bootstrap over anchors.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import ndcg_score

from patsim_utils import metrics
from patsim_utils.data import cpc
from patsim_utils.method.matcher import Matcher
from patsim_utils.metrics import mean_interval
from patsim_utils.ratings import MEANINGS, RATING_RANKS, SCORES, to_rank

MIN_ROWS = 40  # of a group; below it has no correlation of its own
# Of a group, that vary by themselves: then hardly a resample is without a correlation
MIN_ANCHORS = 3
MOST_PAIRS = 50  # of the worst that a page shows
LONGEST_RANKING = 4000  # rows of which all pairs are compared
OVERLAPS = ("no word shared", "up to 40 % shared", "more than 40 % shared")
WORDS = {1: "1 word", 2: "2 words", 3: "3 words", 4: "4 or more"}
THRESHOLDS = np.arange(0.1, 0.95, 0.05).round(2)
CANDIDATES = (1, 3, 5, 10)  # first ones of a ranking
PAIR_COLUMNS = ["anchor", "target", "score", "prediction", "error", "rating", "context", "field"]


def with_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Adds error, size, section, overlap and words to the scored pairs.

    error: prediction - score; size: its absolute value; overlap: word-Jaccard in three bins;
    words: how many the target has.
    """
    frame = predictions.reset_index(drop=True)
    error = frame["prediction"] - frame["score"]
    words = frame["target"].str.split().str.len().clip(upper=4)
    overlap = pd.cut(metrics.word_jaccard(frame), [-1, 0, 0.4, 1], labels=OVERLAPS)
    return frame.assign(
        error=error,
        size=error.abs(),
        section=frame["context"].str[0],
        overlap=overlap,
        words=words.map(WORDS),
    )


def by_group(
    frame: pd.DataFrame,
    key: str,
    *,
    names: Mapping[str, str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """How good the predictions are for each value of column `key`.

    Returns key, label, n, anchors, pearson, low, high, mae, bias (mean of prediction - score).
    Groups of fewer than MIN_ROWS rows, or of fewer than MIN_ANCHORS anchors that vary, are left out.
    """
    rows = []
    for value, group in frame.groupby(key, sort=True, observed=True):
        varying = group.groupby("anchor")[["score", "prediction"]].nunique().gt(1).all(axis=1).sum()
        if len(group) < MIN_ROWS or varying < MIN_ANCHORS:
            continue
        figures = metrics.evaluate_or_none(group, group["prediction"], seed=seed)
        if figures is None:
            continue
        low, high = figures["pearson_ci"]
        row = {
            key: value,
            "label": f"{value} {names[value]}" if names else str(value),
            "n": len(group),
            "anchors": group["anchor"].nunique(),
            "pearson": figures["pearson"],
            "low": low,
            "high": high,
            "mae": figures["mae"],
            "bias": group["error"].mean(),
        }
        rows.append(row)
    columns = [key, "label", "n", "anchors", "pearson", "low", "high", "mae", "bias"]
    return pd.DataFrame(rows, columns=columns)


def confusion(true: Sequence, guess: Sequence, order: Sequence) -> pd.DataFrame:
    """Counts how often each true value (rows) gets each guess (columns), both in `order`.

    Rows whose true value is not in `order` are not counted.
    """
    known = np.isin(true, list(order))  # a split without ratings may stand beside one with them
    rows = pd.Categorical(np.asarray(true)[known], list(order))
    columns = pd.Categorical(np.asarray(guess)[known], list(order))
    return pd.crosstab(rows, columns, rownames=["given"], colnames=["predicted"], dropna=False)


def rank_confusion(frame: pd.DataFrame) -> pd.DataFrame:
    """`confusion` of the scores with the nearest score to each prediction."""
    nearest = np.take(SCORES, to_rank(frame["prediction"]))
    return confusion(frame["score"], nearest, SCORES)


def calibration(frame: pd.DataFrame, *, bins: int = 10, seed: int = 0) -> pd.DataFrame:
    """Mean score against mean prediction, in bins of equally many rows.

    Returns prediction, score, low, high, n.
    """
    order = frame["prediction"].rank(method="first")
    quantile = pd.qcut(order, min(bins, len(frame)), labels=False)
    rows = []
    for _, group in frame.groupby(quantile):
        mean, low, high = mean_interval(group["anchor"], group["score"], seed=seed)
        row = {"prediction": group["prediction"].mean(), "score": mean}
        rows.append(row | {"low": low, "high": high, "n": len(group)})
    return pd.DataFrame(rows)


def rank_shares(frame: pd.DataFrame, probabilities: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """The share of each score as seen, and as the probabilities (n, 5) expect it.

    Returns seen, low, high, label, expected.
    """
    rows = []
    for score, expected in zip(SCORES, probabilities.mean(axis=0), strict=True):
        seen, low, high = mean_interval(frame["anchor"], frame["score"] == score, seed=seed)
        row = {"seen": seen, "low": low, "high": high}
        rows.append(row | {"label": f"score {score:g}", "expected": expected})
    return pd.DataFrame(rows)


def by_rating(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Mean prediction of each rating that MIN_ANCHORS anchors or more have.

    Returns rating, label, score, n, prediction, low, high.
    """
    columns = ["rating", "label", "score", "n", "prediction", "low", "high"]
    rows = []
    for rating, meaning in MEANINGS.items():
        if "rating" not in frame:
            continue
        group = frame[frame["rating"] == rating]
        if group["anchor"].nunique() < MIN_ANCHORS:
            continue
        prediction, low, high = mean_interval(group["anchor"], group["prediction"], seed=seed)
        row = {"rating": rating, "label": f"{meaning} ({rating})"}
        row |= {"score": SCORES[RATING_RANKS[rating]], "n": len(group)}
        rows.append(row | {"prediction": prediction, "low": low, "high": high})
    return pd.DataFrame(rows, columns=columns)


def anchor_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """Anchors of at least 8 rows, hardest first: anchor, classes (joined codes), n, mae, bias."""
    groups = frame.groupby("anchor", as_index=False)
    classes = ("context", lambda codes: " ".join(sorted(set(codes))))
    counts = {"classes": classes, "n": ("score", "size")}
    table = groups.agg(**counts, mae=("size", "mean"), bias=("error", "mean"))
    table = table[table["n"] >= 8]
    return table.sort_values(["mae", "anchor"], ascending=[False, True], ignore_index=True)


def worst_pairs(frame: pd.DataFrame, *, titles: Mapping[str, str], count: int = MOST_PAIRS) -> pd.DataFrame:
    """The `count` rows with the largest error, the worst first.

    Returns anchor, target, score, prediction, error, rating with its meaning (if known), context, field.
    """
    order = ["size", "anchor", "target"]
    rows = frame.sort_values(order, ascending=[False, True, True], ignore_index=True).head(count)
    if "rating" in rows:
        meanings = rows["rating"].map(MEANINGS).fillna("")
        rows = rows.assign(rating=(rows["rating"] + " " + meanings).str.strip())
    return rows.assign(field=rows["context"].map(titles)).filter(PAIR_COLUMNS)


def right_pairs(frame: pd.DataFrame, *, titles: Mapping[str, str], count: int = 20) -> pd.DataFrame:
    """The best of the hard pairs: rated .5 or more, no word shared, smallest error first.

    Returns the columns of `worst_pairs`.
    """
    rows = frame[(frame["score"] >= 0.5) & (frame["overlap"] == "no word shared")]
    best = rows.nsmallest(count, "size", keep="first")
    return worst_pairs(best, titles=titles, count=count).iloc[::-1]


def nearest_classes(vectors: pd.DataFrame, *, counts: pd.Series, titles: Mapping[str, str]) -> pd.DataFrame:
    """For each class with scored pairs, the other class that is nearest to it.

    `vectors` (codes x D) have unit length. Returns code, title, pairs, nearest, cosine, same
    section, chance (that a class drawn at random is of the same section).
    """
    scored = vectors.index.isin(cpc.CLASSES) & vectors.index.isin(counts.index)
    used = vectors[scored].astype(np.float64)
    if len(used) < 2:
        return pd.DataFrame(columns=["code", "title", "pairs", "nearest", "cosine"])
    cosine = (used @ used.T).to_numpy(copy=True)
    np.fill_diagonal(cosine, -np.inf)
    code = used.index.to_series()
    nearest = used.index[cosine.argmax(axis=1)]
    others = code.groupby(code.str[0]).transform("size") - 1
    table = pd.DataFrame({"code": code, "title": code.map(titles), "pairs": counts[used.index]})
    table["nearest"] = [f"{other} {titles[other]}" for other in nearest]
    table["cosine"] = cosine.max(axis=1)
    table["same section"] = code.str[0] == nearest.str[0]
    table["chance"] = others / (len(used) - 1)
    return table.reset_index(drop=True)


def context_effect(matcher: Matcher, frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """What changes when the model scores without the class, or with a wrong one.

    Every class stands for another one where it is wrong. Returns context, pearson, difference (to the
    frame's own predictions, paired over anchors), low, high. What cannot be measured has no row.
    """
    # groups stay as they are, since the score of a listwise model depends on them
    without = frame.assign(context="none for " + frame["context"])
    scores = {"no class": matcher.score(without, unknown="embedding")}
    classes = np.random.default_rng(seed).permutation(sorted(set(frame["context"])))
    if len(classes) > 1:
        wrong = dict(zip(classes, np.roll(classes, 1), strict=True))
        scores["a wrong class"] = matcher.score(frame.assign(context=frame["context"].map(wrong)))
    rows = []
    for context, other in scores.items():
        figures = metrics.evaluate_or_none(frame, other, seed=seed)
        if figures is None:
            continue
        systems = [[frame["prediction"]], [other]]
        difference = metrics.paired_difference(frame["anchor"], frame["score"], *systems, seed=seed)
        rows.append({"context": context, "pearson": figures["pearson"]} | difference)
    return pd.DataFrame(rows, columns=["context", "pearson", "difference", "low", "high"])


def thresholds(frame: pd.DataFrame, *, relevant: float, seed: int = 0) -> pd.DataFrame:
    """What is kept of the pairs predicted at or above each of THRESHOLDS.

    Returns threshold, kept (share of all pairs), precision (share of the kept that are relevant, NaN
    where nothing is kept), recall (share of the relevant that are kept), the last two with _low and
    _high. Empty where no pair is rated `relevant` or more.
    """
    names = [f"{name}{end}" for name in ("precision", "recall") for end in ("", "_low", "_high")]
    wanted = frame["score"] >= relevant
    rows = []
    for threshold in THRESHOLDS:
        if not wanted.any():
            continue
        kept = frame["prediction"] >= threshold
        precision = mean_interval(frame["anchor"], wanted, among=kept, seed=seed)
        recall = mean_interval(frame["anchor"], kept, among=wanted, seed=seed)
        rows.append((threshold, kept.mean(), *precision, *recall))
    return pd.DataFrame(rows, columns=["threshold", "kept", *names])


def first_candidates(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How good the first k targets of an anchor in a class are, by prediction.

    Returns what, value, low, high, groups. Precision at k is the share rated .5 or more, and .75 or
    more, in groups with k targets or more. nDCG@10 takes the score as gain, in groups in which
    something is rated above 0.
    """
    measured = []
    for (anchor, _), group in frame.groupby(["anchor", "context"], sort=False):
        best = group.sort_values("prediction", ascending=False, kind="stable")["score"].to_numpy()
        measured.append({"anchor": anchor} | _ranking(best))
    rows = []
    for what, column in pd.DataFrame(measured).set_index("anchor").items():
        values = column.dropna()
        if len(values):
            mean, low, high = mean_interval(values.index, values, seed=seed)
            row = {"what": what, "value": mean, "low": low, "high": high}
            rows.append(row | {"groups": len(values)})
    return pd.DataFrame(rows)


def _ranking(scores: np.ndarray) -> dict[str, float]:
    """Measures of one ranking: the scores (n,) of its targets, the best by prediction first."""
    measures = {}
    for level in (0.5, 0.75):
        for k in CANDIDATES:
            share = np.nan
            if len(scores) >= k:
                share = (scores[:k] >= level).mean()
            measures[f"rated {level:g} or more among the first {k}"] = share
    if len(scores) > 1 and scores.any():
        order = -np.arange(len(scores))
        measures["nDCG@10"] = ndcg_score([scores], [order], k=10)
    return measures


def ranked_rightly(frame: pd.DataFrame) -> float:
    """How often the model ranks the better one of two pairs with unlike scores higher.

    In [0, 1]; ties count half. At most LONGEST_RANKING rows are compared, the same ones every time.
    ValueError where all scores are equal.
    """
    drawn = frame.sample(n=min(LONGEST_RANKING, len(frame)), random_state=0)
    score = drawn["score"].to_numpy()[:, None]
    prediction = drawn["prediction"].to_numpy()[:, None]
    above = score > score.T
    if not above.any():
        raise ValueError("all pairs have the same score")
    return float((np.sign(prediction - prediction.T)[above].mean() + 1) / 2)
