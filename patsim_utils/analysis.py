"""The tables behind every figure and sentence of the notebooks: tidy frames in, tidy frames out, nothing
drawn here.

`splits` is what `data.load` returns. `predictions` are the rows of a run's predictions.csv: split, anchor,
target, context, score, prediction and, where the data has it, rating. Every interval is a 95 % percentile
interval of a bootstrap over anchors: the rows of one anchor are not independent, a new anchor is what a user
brings. A group too small or too uniform for a correlation is left out, never filled with NaN.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.manifold import TSNE

from patsim_utils import cpc, metrics
from patsim_utils.matcher import Matcher
from patsim_utils.ordinal import RANKS, to_rank, to_score

RATINGS = {
    "4": "very high",
    "3": "high: synonym or abbreviation",
    "2a": "hyponym: the target is narrower",
    "2b": "hypernym: the target is broader",
    "2c": "structural match",
    "1a": "antonym",
    "1b": "meronym: the target is a part",
    "1c": "holonym: the target is the whole",
    "1d": "other match of the field",
    "0": "unrelated",
}
SCORES = {
    1.0: "the same thing",
    0.75: "synonym or abbreviation",
    0.5: "narrower, broader or alike in structure",
    0.25: "of the same field: part, whole, opposite",
    0.0: "unrelated",
}
RESAMPLES = 1000
MIN_ROWS, MIN_ANCHORS = 40, 3  # below either, a group gets no correlation of its own


# ----------------------------------------------------------------------------------------------------------- the data


def overview(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a split: rows, anchors, targets, classes, groups (an anchor in a class) and the mean score."""
    return pd.DataFrame(
        {
            "split": name,
            "rows": len(frame),
            "anchors": frame["anchor"].nunique(),
            "targets": frame["target"].nunique(),
            "classes": frame["context"].nunique(),
            "groups": frame.groupby(["anchor", "context"]).ngroups,
            "mean score": frame["score"].mean(),
        }
        for name, frame in splits.items()
    )


def examples(splits: dict[str, pd.DataFrame], *, titles: dict[str, str], seed: int = 0) -> pd.DataFrame:
    """One training pair for each rating (for each score, where the data has no ratings), highest first."""
    frame = splits["train"]
    key = "rating" if "rating" in frame else "score"
    meaning = RATINGS if key == "rating" else SCORES
    shuffled = frame.sample(frac=1, random_state=seed).drop_duplicates(key).set_index(key)
    rows = shuffled.loc[[value for value in meaning if value in shuffled.index]].reset_index()
    rows["meaning"], rows["field"] = rows[key].map(meaning), rows["context"].map(titles)
    return rows[[*dict.fromkeys(["score", key]), "meaning", "anchor", "target", "context", "field"]]


def score_shares(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows and share of each of the five scores in each split: split, score, rows, share."""
    tables = []
    for name, frame in splits.items():
        rows = frame["score"].value_counts().reindex(to_score(np.arange(RANKS)), fill_value=0)
        tables.append(
            pd.DataFrame(
                {
                    "split": name,
                    "score": rows.index,
                    "rows": rows.to_numpy(),
                    "share": rows.to_numpy() / len(frame),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def rating_shares(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Rows and share of each rating over all splits: rating, meaning, score, rows, share. Empty without
    ratings."""
    if not all("rating" in frame for frame in splits.values()):
        return pd.DataFrame(columns=["rating", "meaning", "score", "rows", "share"])
    rows = pd.concat([frame["rating"] for frame in splits.values()]).value_counts().reindex(list(RATINGS), fill_value=0)
    table = pd.DataFrame({"rating": rows.index, "meaning": list(RATINGS.values()), "rows": rows.to_numpy()})
    table["score"] = table["rating"].str[0].astype(float) / (RANKS - 1)
    return table.assign(share=table["rows"] / table["rows"].sum())


def section_shares(splits: dict[str, pd.DataFrame], *, titles: dict[str, str]) -> pd.DataFrame:
    """Share of each CPC section in each split: split, section, title, rows, share; sections nobody uses left
    out."""
    tables = []
    for name, frame in splits.items():
        rows = frame["context"].map(cpc.section).value_counts()
        tables.append(pd.DataFrame({"split": name, "section": rows.index, "rows": rows.to_numpy()}))
        tables[-1]["share"] = tables[-1]["rows"] / len(frame)
    table = pd.concat(tables, ignore_index=True)
    table.insert(2, "title", table["section"].map(titles))
    return table.sort_values(["section", "split"], kind="stable", ignore_index=True)


def class_counts(splits: dict[str, pd.DataFrame], *, titles: dict[str, str]) -> pd.DataFrame:
    """One row a CPC class, all splits together: context, title, rows, anchors, mean score; most rows
    first."""
    frame = pd.concat(splits.values())
    table = frame.groupby("context", as_index=False).agg(
        rows=("anchor", "size"), anchors=("anchor", "nunique"), **{"mean score": ("score", "mean")}
    )
    table.insert(1, "title", table["context"].map(titles))
    return table.sort_values(["rows", "context"], ascending=[False, True], ignore_index=True)


def group_sizes(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Targets of each group (an anchor in a class): split, anchor, context, targets."""
    sizes = {name: frame.groupby(["anchor", "context"]).size() for name, frame in splits.items()}
    return pd.concat(sizes, names=["split"]).rename("targets").reset_index()


def same_pair_two_classes(splits: dict[str, pd.DataFrame]) -> dict[str, float]:
    """How often the class alone changes a label: pairs rated in two or more classes, and the share rated
    differently.

    Returns:
        pairs (distinct anchor and target in one split), repeated (of them in two classes or more), differing
        (share of the repeated with more than one score, in [0, 1]; 0 where none is repeated).
    """
    frame = pd.concat(splits, names=["split"]).reset_index("split")
    pairs = frame.groupby(["split", "anchor", "target"]).agg(
        classes=("context", "nunique"), scores=("score", "nunique")
    )
    repeated = pairs[pairs["classes"] > 1]
    differing = float((repeated["scores"] > 1).mean()) if len(repeated) else 0.0
    return {"pairs": len(pairs), "repeated": len(repeated), "differing": differing}


def word_counts(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Distinct phrases by their number of words, all splits together: side (anchor or target), words,
    phrases, share."""
    tables = []
    for side in ("anchor", "target"):
        phrases = pd.concat([frame[side] for frame in splits.values()]).drop_duplicates()
        rows = phrases.str.split().str.len().value_counts().sort_index()
        tables.append(pd.DataFrame({"side": side, "words": rows.index, "phrases": rows.to_numpy()}))
        tables[-1]["share"] = tables[-1]["phrases"] / len(phrases)
    return pd.concat(tables, ignore_index=True)


def held_out(splits: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The splits that no model is trained on: validation and, where there is one, test."""
    return {name: frame for name, frame in splits.items() if name != "train"}


def words_alone(
    splits: dict[str, pd.DataFrame],
    cosine: dict[str, np.ndarray],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlation without training, one row a split and system: split, system, n, pearson, low, high.

    `cosine`: the zero-shot cosine (n,) of each split to be measured; word-Jaccard is computed here.
    """
    rows = []
    for name, values in cosine.items():
        frame = splits[name]
        for system, guess in (("word-Jaccard", metrics.word_jaccard(frame)), ("zero-shot cosine", values)):
            low, high = metrics.pearson_interval(frame["anchor"], frame["score"], guess, resamples=resamples, seed=seed)
            pearson = metrics.pearson(frame["score"], guess)
            rows.append(
                {
                    "split": name,
                    "system": system,
                    "n": len(frame),
                    "pearson": pearson,
                    "low": low,
                    "high": high,
                }
            )
    return pd.DataFrame(rows)


def similarity_by_score(splits: dict[str, pd.DataFrame], cosine: dict[str, np.ndarray]) -> pd.DataFrame:
    """Long frame of the two word-only similarities against the score: score, system, similarity."""
    tables = []
    for name, values in cosine.items():
        for system, guess in (
            ("word-Jaccard", metrics.word_jaccard(splits[name])),
            ("zero-shot cosine", values),
        ):
            tables.append(pd.DataFrame({"score": splits[name]["score"], "system": system, "similarity": guess}))
    return pd.concat(tables, ignore_index=True)


# ------------------------------------------------------------------------------------------------------------ the run


def read_run(folder: Path) -> tuple[dict, dict, pd.DataFrame, pd.DataFrame]:
    """A finished run: its config, metrics, history and predictions. Phrases such as "null" stay words."""
    config, numbers = (json.loads((folder / f"{name}.json").read_text()) for name in ("config", "metrics"))
    text = {"anchor": str, "target": str, "context": str, "rating": str, "split": str}
    predictions = pd.read_csv(folder / "predictions.csv", keep_default_na=False, dtype=text)
    return config, numbers, pd.read_csv(folder / "history.csv"), predictions


def results(numbers: dict) -> pd.DataFrame:
    """Model and baselines of a run's metrics, one row a split and system: split, system, n, pearson, low,
    high, spearman, mae, qwk (the last two only for the model: a cosine is on no scale of scores)."""
    rows = []
    for split in ("validation", "test"):
        if split not in numbers:
            continue
        baselines = {name: found[split] for name, found in numbers["baselines"].items()}
        for system, found in (
            ("word-Jaccard", baselines["word_jaccard"]),
            ("zero-shot cosine", baselines["zero_shot"]),
            *([("evidence alone", baselines["evidence"])] if "evidence" in baselines else []),
            ("trained model", numbers[split]),
        ):
            low, high = found["pearson_ci"]
            rows.append({"split": split, "system": system, "n": found["n"], "pearson": found["pearson"], "low": low})
            rows[-1] |= {"high": high, "spearman": found["spearman"]}
            if system == "trained model":
                rows[-1] |= {"mae": found["mae"], "qwk": found["qwk"]}
    return pd.DataFrame(rows)


def leak(numbers: dict) -> pd.DataFrame:
    """The same method under both protocols: protocol, n, pearson, low, high. Empty where no leak run was
    asked for."""
    if "leak" not in numbers:
        return pd.DataFrame(columns=["protocol", "n", "pearson", "low", "high"])
    rows = []
    for protocol, found in (
        ("anchors unseen", numbers["validation"]),
        ("random rows", numbers["leak"]["validation"]),
    ):
        low, high = found["pearson_ci"]
        rows.append({"protocol": protocol, "n": found["n"], "pearson": found["pearson"], "low": low, "high": high})
    return pd.DataFrame(rows)


def cost(numbers: dict) -> pd.DataFrame:
    """Time and memory of the training as a table of two columns: what, value (text with its unit)."""
    train = numbers["train"]
    memory = f"{train['peak_memory_mb']:,.0f} MB"
    return pd.DataFrame(
        [
            ("device", train["device"]),
            ("wall time", f"{train['seconds']:,.0f} s"),
            ("epochs and steps", f"{train['epochs']:g} epochs, {train['steps']:,} steps"),
            ("pace", f"{train['pairs_per_second']:,.0f} pairs a second"),
            ("padding", f"{100 * train['padding']:.1f} % of the tokens"),
            ("peak memory", memory),
            ("trained parameters", f"{train['trainable_parameters']:,}"),
        ],
        columns=["what", "value"],
    )


def scored_examples(predictions: pd.DataFrame, *, titles: dict[str, str], seed: int = 0) -> pd.DataFrame:
    """One held-out pair of each score, drawn by the seed, with its prediction; highest score first."""
    rows = predictions.sample(frac=1, random_state=seed).drop_duplicates("score")
    rows = rows.sort_values("score", ascending=False).assign(field=rows["context"].map(titles))
    return rows[["anchor", "target", "context", "field", "score", "prediction"]].reset_index(drop=True)


# --------------------------------------------------------------------------------------------------------- the errors


def with_errors(predictions: pd.DataFrame) -> pd.DataFrame:
    """All held-out pairs of a run, validation and test together, with what the error tables group by.

    Adds: error (prediction - score), size (its absolute value), section, overlap (word-Jaccard in three bins), words
    (of the target: 1, 2, 3, 4+).
    """
    frame = predictions.reset_index(drop=True)
    shared = pd.cut(
        metrics.word_jaccard(frame),
        [-1, 0, 0.4, 1],
        labels=["no word shared", "up to 40 % shared", "more shared"],
    )
    words = (
        frame["target"]
        .str.split()
        .str.len()
        .clip(upper=4)
        .map({1: "1 word", 2: "2 words", 3: "3 words", 4: "4 or more"})
    )
    error = frame["prediction"] - frame["score"]
    return frame.assign(
        error=error,
        size=error.abs(),
        section=frame["context"].map(cpc.section),
        overlap=shared,
        words=words,
    )


def mean_interval(
    anchor: pd.Series, value: pd.Series | np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `value` (n,) and the ends of its interval, bootstrap over anchors."""
    groups = pd.Series(np.asarray(value, dtype=np.float64)).groupby(pd.factorize(anchor)[0])
    sums, counts = groups.sum().to_numpy(), groups.size().to_numpy()
    draws = np.random.default_rng(seed).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    low, high = np.quantile(draws @ sums / (draws @ counts), [0.025, 0.975])
    return float(sums.sum() / counts.sum()), float(low), float(high)


def by_group(
    frame: pd.DataFrame,
    key: str,
    *,
    min_rows: int = MIN_ROWS,
    min_anchors: int = MIN_ANCHORS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlation and error of each value of column `key`: key, n, anchors, pearson, low, high, mae, bias.

    Left out: groups of fewer than `min_rows` rows, or of fewer than `min_anchors` anchors that have more than
    one score and prediction. `bias` is the mean of prediction - score. Rows sorted by `key`.
    """
    rows = []
    for name, group in frame.groupby(key, sort=True, observed=True):
        # with this many anchors that vary by themselves, hardly a resample is without a correlation
        varying = group.groupby("anchor")[["score", "prediction"]].nunique().gt(1).all(axis=1).sum()
        if len(group) < min_rows or varying < min_anchors:
            continue
        low, high = metrics.pearson_interval(
            group["anchor"], group["score"], group["prediction"], resamples=resamples, seed=seed
        )
        pearson = metrics.pearson(group["score"], group["prediction"])
        rows.append(
            {
                key: name,
                "n": len(group),
                "anchors": group["anchor"].nunique(),
                "pearson": pearson,
                "low": low,
                "high": high,
            }
        )
        rows[-1] |= {"mae": group["size"].mean(), "bias": group["error"].mean()}
    return pd.DataFrame(rows, columns=[key, "n", "anchors", "pearson", "low", "high", "mae", "bias"])


def confusion(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of each score (index) by the nearest score to the prediction (columns), 5 x 5 counts."""
    scores = to_score(np.arange(RANKS))
    counts = np.zeros((RANKS, RANKS), dtype=int)
    np.add.at(counts, (to_rank(frame["score"]), to_rank(frame["prediction"])), 1)
    return pd.DataFrame(counts, index=pd.Index(scores, name="score"), columns=pd.Index(scores, name="prediction"))


def calibration(frame: pd.DataFrame, *, bins: int = 10, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Mean score against mean prediction in bins of equally many rows: prediction, score, low, high, n."""
    quantile = pd.qcut(frame["prediction"].rank(method="first"), min(bins, len(frame)), labels=False)
    rows = []
    for _, group in frame.groupby(quantile):
        score, low, high = mean_interval(group["anchor"], group["score"], resamples=resamples, seed=seed)
        rows.append(
            {
                "prediction": group["prediction"].mean(),
                "score": score,
                "low": low,
                "high": high,
                "n": len(group),
            }
        )
    return pd.DataFrame(rows)


def rank_shares(
    frame: pd.DataFrame, probabilities: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Share of each score, as seen (with its interval) and as the probabilities (n, 5) expect it: score,
    seen, low, high, expected."""
    rows = []
    for rank, score in enumerate(to_score(np.arange(RANKS))):
        seen, low, high = mean_interval(frame["anchor"], frame["score"] == score, resamples=resamples, seed=seed)
        expected = float(probabilities[:, rank].mean())
        rows.append({"score": score, "seen": seen, "low": low, "high": high, "expected": expected})
    return pd.DataFrame(rows)


def by_rating(frame: pd.DataFrame, *, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Mean prediction of each rating beside its score: rating, meaning, score, n, prediction, low, high, mae.

    Ratings of fewer than three anchors are left out; empty where the data has no ratings.
    """
    rows = []
    for rating, meaning in RATINGS.items():
        group = frame[frame["rating"] == rating] if "rating" in frame else frame[:0]
        if group["anchor"].nunique() < MIN_ANCHORS:
            continue
        mean, low, high = mean_interval(group["anchor"], group["prediction"], resamples=resamples, seed=seed)
        score = float(rating[0]) / (RANKS - 1)
        rows.append({"rating": rating, "meaning": meaning, "score": score, "n": len(group), "prediction": mean})
        rows[-1] |= {"low": low, "high": high, "mae": group["size"].mean()}
    return pd.DataFrame(rows, columns=["rating", "meaning", "score", "n", "prediction", "low", "high", "mae"])


def rating_difference(
    frame: pd.DataFrame, first: str = "2a", second: str = "2b", *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, float]:
    """Does the model score two ratings of one rank apart? Mean prediction of `first` - of `second`, over
    anchors.

    Returns:
        difference, low, high, and auc: the chance that a row of `first` is predicted above one of `second`
        (ties count half; 0.5 is no separation). An empty dict where either rating has fewer than three
        anchors.
    """
    if "rating" not in frame:
        return {}
    both = frame[frame["rating"].isin([first, second])]
    groups = [both[both["rating"] == rating] for rating in (first, second)]
    if min(group["anchor"].nunique() for group in groups) < MIN_ANCHORS:
        return {}
    ids, anchors = pd.factorize(both["anchor"])
    draws = np.random.default_rng(seed).multinomial(
        len(anchors), np.full(len(anchors), 1 / len(anchors)), size=resamples
    )
    means, is_first = [], (both["rating"] == first).to_numpy()
    for chosen in (is_first, ~is_first):
        sums = np.bincount(ids[chosen], weights=both["prediction"].to_numpy()[chosen], minlength=len(anchors))
        counts = np.bincount(ids[chosen], minlength=len(anchors))
        held = draws @ counts
        means.append(np.divide(draws @ sums, held, out=np.full(resamples, np.inf), where=held > 0))
    # a resample may have drawn no anchor of one rating
    usable = np.isfinite(means[0]) & np.isfinite(means[1])
    low, high = np.quantile(means[0][usable] - means[1][usable], [0.025, 0.975])
    a, b = (group["prediction"].to_numpy() for group in groups)
    auc = float((a[:, None] > b).mean() + (a[:, None] == b).mean() / 2)
    return {"difference": float(a.mean() - b.mean()), "low": float(low), "high": float(high), "auc": auc}


def anchor_errors(frame: pd.DataFrame, *, min_rows: int = 8) -> pd.DataFrame:
    """Anchors of at least `min_rows` rows, hardest first: anchor, classes (joined codes), n, mae, bias."""
    table = frame.groupby("anchor", as_index=False).agg(
        classes=("context", lambda codes: " ".join(sorted(codes.unique()))),
        n=("score", "size"),
        mae=("size", "mean"),
        bias=("error", "mean"),
    )
    return table[table["n"] >= min_rows].sort_values(["mae", "anchor"], ascending=[False, True], ignore_index=True)


def worst_pairs(frame: pd.DataFrame, *, titles: dict[str, str], count: int = 200) -> pd.DataFrame:
    """The rows with the largest error: anchor, target, score, prediction, error, rating (where known), context,
    field."""
    rows = frame.sort_values(["size", "anchor", "target"], ascending=[False, True, True], ignore_index=True).head(count)
    rating = ["rating"] if "rating" in rows else []
    rows = rows.assign(field=rows["context"].map(titles))
    return rows[["anchor", "target", "score", "prediction", "error", *rating, "context", "field"]]


# -------------------------------------------------------------------------------------------------- the CPC embedding


def cpc_map(vectors: pd.DataFrame, *, counts: pd.Series, seed: int = 0) -> pd.DataFrame:
    """The unit vectors of the classes laid out in the plane by t-SNE on cosines: code, section, pairs, x, y.

    Args:
        vectors: rows indexed by code; only classes are drawn, not the sections. An empty frame gives an empty
        map. counts: rows of each class among the scored pairs, indexed by code; a class not in it gets 0
        pairs.
    """
    if vectors.empty:
        return pd.DataFrame(columns=["code", "section", "pairs", "x", "y"])
    classes = vectors[[cpc.is_class(code) for code in vectors.index]]
    layout = TSNE(perplexity=min(15.0, (len(classes) - 1) / 3), metric="cosine", init="random", random_state=seed)
    plane = layout.fit_transform(classes.to_numpy())
    pairs = counts.reindex(classes.index, fill_value=0).to_numpy()
    sections = [cpc.section(code) for code in classes.index]
    return pd.DataFrame(
        {"code": classes.index, "section": sections, "pairs": pairs, "x": plane[:, 0], "y": plane[:, 1]}
    )


def _met(vectors: pd.DataFrame, counts: pd.Series) -> tuple[list[str], np.ndarray]:
    """The classes with scored pairs, and their cosines (classes, classes)."""
    used = [code for code in vectors.index if cpc.is_class(code) and code in counts.index]
    chosen = vectors.loc[used].to_numpy(dtype=np.float64)
    return used, chosen @ chosen.T


def nearest_classes(
    vectors: pd.DataFrame, *, counts: pd.Series, titles: dict[str, str], nearest: int = 3
) -> pd.DataFrame:
    """The nearest other classes of each class with scored pairs, by cosine.

    Returns:
        code, title, pairs, nearest (the first with its title), cosine (of the first), same section (is the
        first in it?).
    """
    used, cosine = _met(vectors, counts)
    np.fill_diagonal(cosine, -np.inf)
    order = np.argsort(-cosine, axis=1, kind="stable")[:, : min(nearest, len(used) - 1)]
    rows = [
        {
            "code": code,
            "title": titles[code],
            "pairs": int(counts[code]),
            "nearest": " · ".join([f"{used[near[0]]} {titles[used[near[0]]]}", *(used[j] for j in near[1:])]),
            "cosine": float(cosine[i, near[0]]),
            "same section": cpc.section(code) == cpc.section(used[near[0]]),
        }
        for i, (code, near) in enumerate(zip(used, order, strict=True))
        if len(near)
    ]
    return pd.DataFrame(rows, columns=["code", "title", "pairs", "nearest", "cosine", "same section"])


def section_structure(
    vectors: pd.DataFrame, *, counts: pd.Series, shuffles: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Do classes of one section lie closer together than chance? Over the classes with scored pairs.

    Returns:
        within, between (mean cosine of two classes in one section, in two), share (of `shuffles` random
        relabellings with at least that gap: a one-sided p-value) and classes (how many). Empty where fewer
        than two sections have two classes each.
    """
    used, cosine = _met(vectors, counts)
    section = np.array([cpc.section(code) for code in used])
    if (np.unique(section, return_counts=True)[1] > 1).sum() < 2:
        return {}
    upper = np.triu_indices(len(used), 1)

    def gap(labels: np.ndarray) -> tuple[float, float]:
        same = (labels[:, None] == labels)[upper]
        return float(cosine[upper][same].mean()), float(cosine[upper][~same].mean())

    within, between = gap(section)
    rng = np.random.default_rng(seed)
    chance = np.array([np.subtract(*gap(rng.permutation(section))) for _ in range(shuffles)])
    share = float((1 + (chance >= within - between).sum()) / (1 + shuffles))
    return {"within": within, "between": between, "share": share, "classes": len(used)}


# ----------------------------------------------------------------------------------------------- is the class needed?


def wrong_context(frame: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """The frame with every row's class replaced by another one, drawn from the classes of the frame's other
    rows.

    Raises ValueError where the frame has one class only.
    """
    own = frame["context"].to_numpy(dtype=object)
    if len(set(own)) < 2:
        raise ValueError("a wrong class cannot be drawn: all rows have the same one")
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(own)
    while (same := drawn == own).any():
        drawn[same] = rng.choice(own, size=same.sum())
    return frame.assign(context=drawn)


def context_scores(matcher: Matcher, frame: pd.DataFrame, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Predictions (n,) with the right class (the frame's), none and, where it has two or more, a wrong
    one."""
    scores = {"right class": frame["prediction"].to_numpy()}
    if frame["context"].nunique() > 1:
        scores["wrong class"] = matcher.score(wrong_context(frame, seed=seed))
    return scores | {"no class": matcher.score(frame.assign(context=""), unknown="embedding")}


def context_effect(
    frame: pd.DataFrame, scores: dict[str, np.ndarray], *, resamples: int = RESAMPLES, seed: int = 0
) -> pd.DataFrame:
    """Correlation of each set of predictions, and how far it falls below the first one's, paired over
    anchors.

    Returns:
        context, pearson, low, high, mae, difference (to the first row), difference_low, difference_high; 0 in
        the first row.
    """
    rows, first = [], next(iter(scores.values()))
    for context, prediction in scores.items():
        low, high = metrics.pearson_interval(
            frame["anchor"], frame["score"], prediction, resamples=resamples, seed=seed
        )
        paired = metrics.paired_difference(
            frame["anchor"], frame["score"], first, prediction, resamples=resamples, seed=seed
        )
        rows.append(
            {
                "context": context,
                "pearson": metrics.pearson(frame["score"], prediction),
                "low": low,
                "high": high,
            }
        )
        rows[-1] |= {"mae": np.abs(prediction - frame["score"]).mean(), "difference": paired["difference"]}
        rows[-1] |= {"difference_low": paired["low"], "difference_high": paired["high"]}
    return pd.DataFrame(rows)
