"""The tables behind every figure of the notebooks: tidy frames in, tidy frames out, nothing drawn here.

`splits` is what `data.load` returns; `frame` holds scored pairs, the rows of a run's predictions.csv. Intervals are of
95 %, by a bootstrap over anchors. First what notebook 1 shows, the data; then the run, then its errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from patsim_utils import cpc, metrics
from patsim_utils.data import SCORES
from patsim_utils.matcher import Matcher
from patsim_utils.ordinal import to_rank

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
BATCH = {
    "input_ids": "token ids of B sequences, padded to T tokens",
    "position_ids": "position of each token; in the packed layout every target goes on from the prefix",
    "block": "which tokens see each other: 0 is seen by all, j by block j alone, -1 is padding",
    "code": "class of each sequence, a row of the embedding table",
    "anchor_span": "tokens of the anchor of each of N pairs, places in the flattened batch, filled up with -1",
    "target_span": "tokens of the target of each pair",
    "rows": "row of each pair in the frame",
    "rank": "score of each pair times 4",
    "rating": "rating of each pair, -100 where it has none",
    "anchor_text": "which phrase the anchor is; equal ids are no negatives of each other",
    "target_text": "which phrase the target is",
}
SYSTEMS = {"word_jaccard": "word-Jaccard", "pretrained_cosine": "pretrained cosine", "features": "features alone"}
MIN_ROWS, MIN_ANCHORS = 40, 3  # below either, a group gets no correlation of its own


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval, if it has one, three decimals: `0.736 [0.701, 0.769]`."""
    return f"{value:.3f}" if np.isnan(low) else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def percent(share: float) -> str:
    """A share in [0, 1] as text: `12 %`, and `0.4 %` where whole percents would say nothing."""
    return f"{100 * share:.0f} %" if share >= 0.095 or share == 0 else f"{100 * share:.1f} %"


def overview(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a split: rows, anchors, targets, classes, groups (an anchor in a class) and the mean score."""
    columns = {"anchors": "anchor", "targets": "target", "classes": "context", "groups": ["anchor", "context"]}
    rows = []
    for split, frame in splits.items():
        counts = {name: len(frame.value_counts(column)) for name, column in columns.items()}
        rows.append({"split": split, "rows": len(frame)} | counts | {"mean score": frame["score"].mean()})
    return pd.DataFrame(rows)


def examples(frame: pd.DataFrame, *, titles: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """A pair of each rating (of each score, where there are no ratings), highest first, with its prediction if any."""
    kind = ["score", "rating"] if "rating" in frame else ["score"]
    rows = frame.sample(frac=1, random_state=seed).drop_duplicates(kind)
    rows["field"] = rows["context"].map(titles)
    if "rating" in frame:
        rows["meaning"] = rows["rating"].map(RATINGS)
    wanted = ["anchor", "target", "score", "prediction", "rating", "meaning", "context", "field"]
    return rows.sort_values(kind, ascending=False, ignore_index=True).filter(wanted)


def shares(splits: dict[str, pd.DataFrame], column: str, names: Mapping[Any, str]) -> pd.DataFrame:
    """Rows of each value of a column (or of `section`) in each split: split, `column`, label, rows, share of the split.

    `names`: the values in their order, with a name for the label; what no split has is left out.
    """
    counts = {}
    for name, frame in splits.items():
        values = frame["context"].str[0] if column == "section" else frame.get(column, pd.Series())
        counts[name] = values.value_counts().reindex(list(names), fill_value=0)
    table = pd.concat(counts, names=["split", column]).rename("rows").reset_index()
    table["share"] = table["rows"] / table["split"].map({name: len(frame) for name, frame in splits.items()})
    table.insert(2, "label", [f"{value} {names[value]}".strip() for value in table[column]])
    return table[table.groupby(column)["rows"].transform("sum") > 0].reset_index(drop=True)


def class_counts(splits: dict[str, pd.DataFrame], *, titles: Mapping[str, str]) -> pd.DataFrame:
    """One row a CPC class, all splits together: context, rows, anchors, label (with its title); most rows first."""
    groups = pd.concat(splits.values()).groupby("context", as_index=False)
    table = groups.agg(rows=("anchor", "size"), anchors=("anchor", "nunique"))
    table["label"] = table["context"] + " " + table["context"].map(titles)
    return table.sort_values(["rows", "context"], ascending=[False, True], ignore_index=True)


def group_sizes(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Targets of each group (an anchor in a class), all splits together: anchor, context, targets."""
    return pd.concat(splits.values()).groupby(["anchor", "context"]).size().reset_index(name="targets")


def same_pair_two_classes(splits: dict[str, pd.DataFrame]) -> str:
    """In a sentence, how often the class alone changes a label."""
    pairs = pd.concat(splits.values()).groupby(["anchor", "target"])[["context", "score"]].nunique()
    repeated = pairs[pairs["context"] > 1]
    if repeated.empty:
        return "No pair is rated in two classes, so that the labels cannot show what the class changes."
    said = f"{len(repeated):,} of {len(pairs):,} distinct pairs are rated in two or more classes;"
    return f"{said} {percent((repeated['score'] > 1).mean())} of them have another score in another class."


def word_counts(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Words of each distinct phrase, all splits together: side (anchor or target), phrase, words."""
    phrases = pd.concat(splits.values())[["anchor", "target"]].melt(var_name="side", value_name="phrase")
    return phrases.drop_duplicates(ignore_index=True).assign(words=lambda table: table["phrase"].str.split().str.len())


def words_alone(splits: dict[str, pd.DataFrame], cosine: Mapping[str, np.ndarray], *, seed: int = 0) -> pd.DataFrame:
    """As `results`, what needs no training: word-Jaccard, and the pretrained `cosine` (n,) of each split to measure."""
    rows = []
    for name, values in cosine.items():
        for system, guess in (("word-Jaccard", metrics.word_jaccard(splits[name])), ("pretrained cosine", values)):
            rows.append(_measured(system, name, metrics.evaluate_or_none(splits[name], guess, seed=seed)))
    return pd.DataFrame(rows)


def batch_table(batch: Mapping[str, Tensor]) -> pd.DataFrame:
    """What is in a batch of `batching.Pairs.collate`: name, shape, type, meaning."""
    rows = [(name, " x ".join(map(str, x.shape)), str(x.dtype).removeprefix("torch.")) for name, x in batch.items()]
    table = pd.DataFrame(rows, columns=["name", "shape", "type"])
    return table.assign(meaning=table["name"].map(BATCH).fillna(""))


def _measured(system: str, split: str, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """One row of a table of systems; `found` is an entry of metrics.json, None where the system is undefined."""
    names = ("n", "pearson", "low", "high", "spearman")
    values = (found["n"], found["pearson"], *found["pearson_ci"], found["spearman"]) if found else [np.nan] * len(names)
    return {"system": system, "split": split, "label": f"{system}, {split}"} | dict(zip(names, values, strict=True))


def results(found: Mapping[str, Any]) -> pd.DataFrame:
    """Baselines and model of a run's metrics: system, split, label, n, pearson, low, high, spearman, mae, qwk.

    NaN where a baseline is undefined, and in mae and qwk of baselines, which are on no scale of scores.
    """
    rows = []
    for split in [name for name in ("validation", "test") if name in found]:
        for key, baseline in found["baselines"].items():
            rows.append(_measured(SYSTEMS.get(key, key), split, baseline[split]) | {"n": found[split]["n"]})
        model = {key: found[split][key] for key in ("mae", "qwk")}
        rows.append(_measured("trained model", split, found[split]) | model)
    return pd.DataFrame(rows)


def summary(found: Mapping[str, Any]) -> str:
    """The headline of a run's metrics with split, pairs, protocol and seed, beside the pretrained cosine (Markdown)."""
    lines = []
    unseen = "anchors unseen" if found["protocol"] == "anchor_disjoint" else "rows split at random, anchors seen"
    for split in [name for name in ("validation", "test") if name in found]:
        ours, cosine = found[split], found["baselines"]["pretrained_cosine"][split]
        figures = f"**Pearson {interval(ours['pearson'], *ours['pearson_ci'])} on {split}** ({ours['n']:,} pairs"
        beside = f"{cosine['pearson']:.3f}" if cosine else "undefined"
        lines.append(f"{figures}, {unseen}, seed {found['environment']['seed']}); pretrained cosine {beside}.")
    return "\n\n".join(lines)


def leak(found: Mapping[str, Any], random: Mapping[str, Any]) -> pd.DataFrame:
    """The same method under both protocols, from the metrics of both runs, as `results` has them."""
    both = {"anchors unseen": found, "rows at random": random}.items()
    return pd.DataFrame([_measured(name, "validation", run["validation"]) for name, run in both])


def cost(found: Mapping[str, Any]) -> pd.DataFrame:
    """Time (s), memory (MiB) and size of the training: what, value."""
    units = {"n": "pairs", "peak_memory_mb": "peak memory, MiB", "padding": "padding, share of tokens"}
    rows = [(units.get(name, name.replace("_", " ")), value) for name, value in found["train"].items()]
    return pd.DataFrame(rows, columns=["what", "value"])


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


def mean_interval(
    anchor: pd.Series, value: pd.Series, *, among: pd.Series | None = None, seed: int = 0
) -> tuple[float, float, float]:
    """Mean of `value` (n,), over the rows `among` (n,) where given, and the ends of its interval.

    NaN for a mean of no rows, and for the ends where half of the resamples have none, or all have the same mean: such
    as of one anchor, whose mean is no more certain for that.
    """
    group, among = pd.factorize(anchor)[0], np.ones(len(anchor)) if among is None else np.asarray(among)
    sums, counts = np.bincount(group, value * among), np.bincount(group, among)
    drawn = metrics.draws(len(sums), seed)
    with np.errstate(invalid="ignore"):
        mean, means = sums.sum() / counts.sum(), drawn @ sums / (drawn @ counts)
    known = means[~np.isnan(means)]
    enough = len(known) > len(means) / 2 and np.ptp(known) > 1e-12
    low, high = np.quantile(known, [0.025, 0.975]) if enough else (np.nan, np.nan)
    return float(mean), float(low), float(high)


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
    for rating, meaning in RATINGS.items():
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


def worst_pairs(frame: pd.DataFrame, *, titles: Mapping[str, str], count: int = 200) -> pd.DataFrame:
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
    said = matcher.explain(rows).replace({"rating": RATINGS}).rename(columns={"rating": "most probable relation"})
    return pd.concat([rows, said], axis=1)
