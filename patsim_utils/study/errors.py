"""The tables behind every figure of the notebooks: tidy frames in, tidy frames out, nothing drawn here.

`splits` is what `data.load` returns; `frame` holds scored pairs, the rows of a run's predictions.csv. Intervals are of
95 %, by a bootstrap over anchors. First what notebook 1 shows, the data; then the run, then its errors.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import ndcg_score

from patsim_utils import metrics
from patsim_utils.data import cpc
from patsim_utils.method.matcher import Matcher
from patsim_utils.metrics import mean_interval
from patsim_utils.ratings import MEANINGS, SCORES, to_rank

MIN_ROWS, MIN_ANCHORS = 40, 3  # below either, a group gets no correlation of its own


def with_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """Adds error (prediction - score), its size, section, overlap (word-Jaccard in three bins), words of the target."""
    frame = predictions.reset_index(drop=True)
    names = ["no word shared", "up to 40 % shared", "more than 40 % shared"]
    words = frame["target"].str.split().str.len().clip(upper=4)
    frame = frame.assign(error=frame["prediction"] - frame["score"], section=frame["context"].str[0])
    return frame.assign(
        size=frame["error"].abs(),
        overlap=pd.cut(metrics.word_jaccard(frame), [-1, 0, 0.4, 1], labels=names),
        words=words.map({1: "1 word", 2: "2 words", 3: "3 words", 4: "4 or more"}),
    )


def by_group(frame: pd.DataFrame, key: str, *, names: Mapping[str, str] | None = None, seed: int = 0) -> pd.DataFrame:
    """Each value of column `key`: key, label, n, anchors, pearson, low, high, mae, bias (mean of prediction - score).

    Left out: groups of fewer than MIN_ROWS rows, or of fewer than MIN_ANCHORS anchors that vary.
    """
    rows = []
    for value, group in frame.groupby(key, sort=True, observed=True):
        # with this many anchors that vary by themselves, hardly a resample is without a correlation
        varying = group.groupby("anchor")[["score", "prediction"]].nunique().gt(1).all(axis=1).sum()
        found = metrics.evaluate_or_none(group, group["prediction"], seed=seed) if varying >= MIN_ANCHORS else None
        if found and len(group) >= MIN_ROWS:
            row = (value, f"{value} {names[value]}" if names else str(value), len(group), group["anchor"].nunique())
            rows.append((*row, found["pearson"], *found["pearson_ci"], found["mae"], group["error"].mean()))
    return pd.DataFrame(rows, columns=[key, "label", "n", "anchors", "pearson", "low", "high", "mae", "bias"])


def confusion(true: Sequence, guess: Sequence, order: Sequence) -> pd.DataFrame:
    """How often each true value (rows) got each guess (columns), both in `order`: counts; without true ones outside."""
    known = np.isin(true, list(order))  # a split without ratings may stand beside one with them
    pair = (pd.Categorical(np.asarray(values)[known], list(order)) for values in (true, guess))
    return pd.crosstab(*pair, rownames=["given"], colnames=["predicted"], dropna=False)


def rank_confusion(frame: pd.DataFrame) -> pd.DataFrame:
    """`confusion` of the scores with the nearest score to each prediction."""
    return confusion(frame["score"], np.take(SCORES, to_rank(frame["prediction"])), SCORES)


def calibration(frame: pd.DataFrame, *, bins: int = 10, seed: int = 0) -> pd.DataFrame:
    """Mean score against mean prediction in bins of equally many rows: prediction, score, low, high, n."""
    quantile = pd.qcut(frame["prediction"].rank(method="first"), min(bins, len(frame)), labels=False)
    rows = [
        (group["prediction"].mean(), *mean_interval(group["anchor"], group["score"], seed=seed), len(group))
        for _, group in frame.groupby(quantile)
    ]
    return pd.DataFrame(rows, columns=["prediction", "score", "low", "high", "n"])


def rank_shares(frame: pd.DataFrame, probabilities: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """Share of each score, as seen and as the probabilities (n, 5) expect it: seen, low, high, label, expected."""
    seen = [mean_interval(frame["anchor"], frame["score"] == score, seed=seed) for score in SCORES]
    table = pd.DataFrame(seen, columns=["seen", "low", "high"])
    return table.assign(label=[f"score {score:g}" for score in SCORES], expected=probabilities.mean(0))


def by_rating(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Mean prediction of each rating of MIN_ANCHORS anchors or more: rating, label, score, n, prediction, low, high."""
    rows = []
    for rating, meaning in MEANINGS.items():
        group = frame[frame["rating"] == rating] if "rating" in frame else frame[:0]
        if group["anchor"].nunique() >= MIN_ANCHORS:
            mean = mean_interval(group["anchor"], group["prediction"], seed=seed)
            rows.append((rating, f"{rating} {meaning}", int(rating[0]) / 4, len(group), *mean))
    return pd.DataFrame(rows, columns=["rating", "label", "score", "n", "prediction", "low", "high"])


def anchor_errors(frame: pd.DataFrame) -> pd.DataFrame:
    """Anchors of at least 8 rows, hardest first: anchor, classes (joined codes), n, mae, bias."""
    groups = frame.groupby("anchor", as_index=False)
    classes = ("context", lambda codes: " ".join(sorted(set(codes))))
    table = groups.agg(classes=classes, n=("score", "size"), mae=("size", "mean"), bias=("error", "mean"))
    return table[table["n"] >= 8].sort_values(["mae", "anchor"], ascending=[False, True], ignore_index=True)


def worst_pairs(frame: pd.DataFrame, *, titles: Mapping[str, str], count: int = 50) -> pd.DataFrame:
    """The rows with the largest error: anchor, target, score, prediction, error, rating (if known), context, field."""
    rows = frame.sort_values(["size", "anchor", "target"], ascending=[False, True, True], ignore_index=True).head(count)
    wanted = ["anchor", "target", "score", "prediction", "error", "rating", "context", "field"]
    return rows.assign(field=rows["context"].map(titles)).filter(wanted)


def right_pairs(frame: pd.DataFrame, *, titles: Mapping[str, str], count: int = 20) -> pd.DataFrame:
    """As `worst_pairs`, of the pairs rated .5 or more that share no word those with the smallest error."""
    rows = frame[(frame["score"] >= 0.5) & (frame["overlap"] == "no word shared")]
    return worst_pairs(rows.nsmallest(count, "size", keep="first"), titles=titles, count=count).iloc[::-1]


def nearest_classes(vectors: pd.DataFrame, *, counts: pd.Series, titles: Mapping[str, str]) -> pd.DataFrame:
    """Of each class with scored pairs the other one nearest to it: code, title, pairs, nearest, cosine, same section,
    chance (of the same section, were it drawn at random); `vectors` (codes x D) have unit length.
    """
    used = vectors[vectors.index.isin(cpc.CLASSES) & vectors.index.isin(counts.index)].astype(np.float64)
    if len(used) < 2:
        return pd.DataFrame(columns=["code", "title", "pairs", "nearest", "cosine"])
    cosine = (used @ used.T).to_numpy(copy=True)
    np.fill_diagonal(cosine, -np.inf)
    near, code = used.index[cosine.argmax(1)], used.index.to_series()
    table = pd.DataFrame({"code": code, "title": code.map(titles), "pairs": counts[used.index]})
    table["nearest"], table["cosine"] = [f"{one} {titles[one]}" for one in near], cosine.max(1)
    table["same section"] = code.str[0] == near.str[0]
    others = code.groupby(code.str[0]).transform("size") - 1
    return table.assign(chance=others / (len(used) - 1)).reset_index(drop=True)


def context_effect(matcher: Matcher, frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """What scoring without the class, or with a wrong one (every class stands for another), changes: context, pearson,
    difference (to the frame's own predictions, paired over anchors), low, high. Without what cannot be measured.
    """
    # groups stay as they are, since the score of a listwise model depends on them
    scores = {"no class": matcher.score(frame.assign(context="none for " + frame["context"]), unknown="embedding")}
    classes = np.random.default_rng(seed).permutation(sorted(set(frame["context"])))
    if len(classes) > 1:
        wrong = dict(zip(classes, np.roll(classes, 1), strict=True))
        scores["a wrong class"] = matcher.score(frame.assign(context=frame["context"].map(wrong)))
    rows, columns = [], (frame["anchor"], frame["score"], [frame["prediction"]])
    for context, other in scores.items():
        if found := metrics.evaluate_or_none(frame, other, seed=seed):
            difference = metrics.paired_difference(*columns, [other], seed=seed)
            rows.append({"context": context, "pearson": found["pearson"]} | difference)
    return pd.DataFrame(rows, columns=["context", "pearson", "difference", "low", "high"])


def ask(matcher: Matcher, anchor: str, target: str, context: str, *others: str) -> pd.DataFrame:
    """What a model says of a pair in one class or several: `Matcher.explain` beside the pair, relations in words."""
    rows = pd.DataFrame({"anchor": anchor, "target": target, "context": [context, *others]})
    said = matcher.explain(rows).replace({"rating": MEANINGS}).rename(columns={"rating": "most probable relation"})
    return pd.concat([rows, said], axis=1)


THRESHOLDS = np.arange(0.1, 0.95, 0.05).round(2)


def thresholds(frame: pd.DataFrame, *, relevant: float, seed: int = 0) -> pd.DataFrame:
    """What is kept of the pairs predicted at or above each of THRESHOLDS; empty where none is rated `relevant` or more.

    Returns threshold, kept (share of all pairs), precision (share of the kept that are relevant, NaN where nothing is
    kept), recall (share of the relevant that are kept), each of the last two with _low and _high.
    """
    rows, wanted = [], frame["score"] >= relevant
    for threshold in THRESHOLDS if wanted.any() else ():
        kept = frame["prediction"] >= threshold
        precision = mean_interval(frame["anchor"], wanted, among=kept, seed=seed)
        rows.append(
            (threshold, kept.mean(), *precision, *mean_interval(frame["anchor"], kept, among=wanted, seed=seed))
        )
    names = [f"{name}{end}" for name in ("precision", "recall") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["threshold", "kept", *names])


def first_candidates(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """How good the first k targets of an anchor in a class are, by prediction: what, value, low, high, groups.

    Precision at k: share rated .5 or more, and .75 or more, of groups with k targets or more. nDCG@10 (gain: the
    score), of groups in which something is rated above 0.
    """
    found, rows = [], []
    for (anchor, _), group in frame.groupby(["anchor", "context"], sort=False):
        best = group.sort_values("prediction", ascending=False, kind="stable")["score"].to_numpy()
        row = {"anchor": anchor}
        for level, k in itertools.product((0.5, 0.75), (1, 3, 5, 10)):
            hits = (best[:k] >= level).mean() if len(best) >= k else np.nan
            row[f"rated {level:g} or more among the first {k}"] = hits
        if len(best) > 1 and best.any():
            row["nDCG@10"] = ndcg_score(best[None], -np.arange(len(best))[None], k=10)
        found.append(row)
    for what, value in pd.DataFrame(found).set_index("anchor").items():
        if len(value := value.dropna()):
            rows.append((what, *mean_interval(value.index, value, seed=seed), len(value)))
    return pd.DataFrame(rows, columns=["what", "value", "low", "high", "groups"])


def ranked_rightly(frame: pd.DataFrame) -> float:
    """Of two pairs with unlike scores, how often the model ranks the better one higher, in [0, 1]; ties count half.

    Of at most 4,000 rows, the same ones every time. ValueError where all scores are equal.
    """
    drawn = frame.sample(n=min(4000, len(frame)), random_state=0)
    score, prediction = (drawn[column].to_numpy()[:, None] for column in ("score", "prediction"))
    above = score > score.T
    if not above.any():
        raise ValueError("all pairs have the same score")
    return float((np.sign(prediction - prediction.T)[above].mean() + 1) / 2)
