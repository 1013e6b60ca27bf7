"""The answer to each question of a notebook: one sentence, computed from its table.

No sentence would be false for another run: what cannot be computed is said so.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from patsim_utils.ratings import MEANINGS
from patsim_utils.study.explore import duration, interval, memory, percent
from patsim_utils.study.look.figures import short
from patsim_utils.study.pages.rows import in_plain_words

HALF = 0.5  # the threshold, and the score from which on a pair is worth finding


def settings(described: str) -> str:
    """Of `Config.describe`: what a run is, in plain words."""
    return f"This run: {in_plain_words(described)}."


def kept(table: pd.DataFrame, *, threshold: float = HALF) -> str:
    """Of `errors.thresholds`: what a threshold keeps, and how much of it is right."""
    if table.empty:
        return "Nothing in these pairs is rated so high that it would be missed."
    row = table.iloc[(table["threshold"] - threshold).abs().argmin()]
    sentence = f"At a score of {row['threshold']:g} or more you keep {percent(row['recall'])} of what people rated .5"
    if np.isnan(row["precision"]):
        return f"{sentence} or more: nothing scores that high."
    return f"{sentence} or more; {percent(row['precision'])} of what you keep was rated so."


def first(table: pd.DataFrame) -> str:
    """Of `errors.first_candidates`: how many of the first candidates were worth reading."""
    names = {5: "five", 3: "three", 1: "one"}
    for k, name in names.items():
        row = table[table["what"] == f"rated 0.5 or more among the first {k}"]
        if len(row):
            share = percent(row["value"].iloc[0])
            return f"Of the first {name} candidates of a list, {share} were rated .5 or more by people."
    return "No list is long enough to be judged by its first candidates."


def groups(table: pd.DataFrame, *, whole: float, kind: str) -> str:
    """Of `errors.by_group`: the best and the worst group, and which differ significantly."""
    if len(table) < 2:
        return f"Too few {kind} have enough pairs and anchors for a correlation of their own."
    best = table.loc[table["pearson"].idxmax()]
    worst = table.loc[table["pearson"].idxmin()]
    sentence = f"Best in {short(best['label'])} ({best['pearson']:.2f}), worst in {short(worst['label'])}"
    sentence += f" ({worst['pearson']:.2f})"
    below = table[table["high"] < whole]
    if below.empty:
        return f"{sentence}; none of these {len(table)} {kind} is significantly worse than all pairs ({whole:.2f})."
    return f"{sentence}; {len(below)} of these {len(table)} {kind} are significantly worse than all pairs."


def confused(counts: pd.DataFrame) -> str:
    """Of `errors.rank_confusion`: how often the nearest score is right."""
    values = counts.to_numpy()
    right = np.trace(values) / values.sum()
    steps = np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values))))
    far = values[steps > 1].sum() / values.sum()
    return (
        f"The nearest of the five scores is right for {percent(right)} of the pairs; "
        f"{percent(far)} are off by more than one step."
    )


def believable(table: pd.DataFrame) -> str:
    """Of `errors.calibration`: whether a prediction can be taken at its word."""
    gap = np.average((table["prediction"] - table["score"]).abs(), weights=table["n"])
    high = (table["prediction"] > table["high"]).sum()
    low = (table["prediction"] < table["low"]).sum()
    if high + low == 0:
        return f"On average over many pairs a prediction can be taken at its word: the gap is {gap:.3f}."
    direction = "too high" if high > low else "too low"
    return f"Predictions are {gap:.3f} off on average over many pairs, most often {direction}."


def relations(table: pd.DataFrame) -> str:
    """Of `errors.by_rating`: the relation that is scored farthest from what people say."""
    if table.empty:
        return "These pairs have no ratings, so that the kinds of relation cannot be told apart."
    gaps = (table["prediction"] - table["score"]).abs()
    row = table.loc[gaps.idxmax()]
    kind = MEANINGS[row["rating"]]
    return f"Farthest off are pairs rated “{kind}”: {row['prediction']:.2f} on average, people gave {row['score']:g}."


def surface(overlap: pd.DataFrame) -> str:
    """Of `errors.by_group` by shared words: whether pairs without a common word are scored worse."""
    table = overlap.set_index("overlap")
    if "no word shared" not in table.index or len(table) < 2:
        return "Too few pairs share no word, or some, for a comparison."
    without = table.loc["no word shared"]
    shared = table.drop("no word shared")
    best = shared.loc[shared["mae"].idxmin()]
    return (
        f"Where no word is shared, scores are {without['mae']:.2f} off; "
        f"where {best['label'].removesuffix(' shared')} of the words are, {best['mae']:.2f}."
    )


def hardest(anchors: pd.DataFrame) -> str:
    """Of `errors.anchor_errors`: how much of the error the hardest tenth of the anchors carries."""
    if len(anchors) < 10:
        return "Too few anchors have eight pairs or more to say whether some carry most of the error."
    count = round(len(anchors) / 10)
    sums = anchors["mae"] * anchors["n"]
    share = percent(sums.head(count).sum() / sums.sum())
    rows = percent(anchors["n"].head(count).sum() / anchors["n"].sum())
    return f"The hardest {count} of {len(anchors)} anchors carry {share} of the error, with {rows} of the pairs."


def needs_class(effect: pd.DataFrame) -> str:
    """Of `errors.context_effect`: what the model loses without the class."""
    row = effect[effect["context"] == "no class"]
    if row.empty:
        return "What the model does without the class cannot be measured on these pairs."
    change = row.iloc[0]
    figures = interval(change["difference"], change["low"], change["high"])
    if change["high"] < 0:
        return f"Yes: without the class, Pearson changes by {figures}."
    if change["low"] > 0:
        return f"No, it is better without: Pearson changes by {figures}."
    return f"It does not show: without the class, Pearson changes by {figures}, which may be chance."


def beats_words(results: pd.DataFrame) -> str:
    """Of `explore.results` or `explore.words_alone`: what is reached beside what words alone reach."""
    sentences = []
    for split, rows in results.dropna(subset="pearson").groupby("split", sort=False):
        named = rows.set_index("system")["pearson"]
        ours = named.get("trained model")
        others = named.drop("trained model", errors="ignore")
        if others.empty:
            continue
        best = f"{others.idxmax()} {others.max():.2f}"
        if ours is None:
            sentences.append(f"On {split}, {best} without any training.")
        else:
            sentences.append(f"On {split}, Pearson {ours:.2f} against {best}.")
    return " ".join(sentences) or "Nothing can be measured beside the model on these pairs."


def falls(history: pd.DataFrame) -> str:
    """Of a run's history: whether the loss fell from its first tenth to its last."""
    tenth = max(1, len(history) // 10)
    start = history["loss"].head(tenth).mean()
    end = history["loss"].tail(tenth).mean()
    word = "Yes" if end < start else "No"
    return f"{word}: from {start:.3g} in the first tenth of the steps to {end:.3g} in the last."


def best_epoch(epochs: list[dict]) -> str:
    """Of a run's metrics: which epoch is kept."""
    best = max(epochs, key=lambda epoch: epoch["pearson"])
    return f"Epoch {best['epoch']} of {len(epochs)} is kept: Pearson {best['pearson']:.3f} on validation."


def shared_anchors(table: pd.DataFrame) -> str:
    """Of `splits.shared_anchors`: whether anchors were seen in training."""
    total = int(table["anchors"].sum())
    if total == 0:
        return "No: no two splits share an anchor, so that those on which we measure are new to the model."
    return f"Yes: {total:,} anchors stand in two splits, so that figures on held-out pairs are too high."


def example(examples: pd.DataFrame) -> str:
    """Of `explore.examples`: what its first row says."""
    row = examples.iloc[0]
    pair = f"“{row['target']}” for “{row['anchor']}” in {row['context']}"
    if "meaning" in row:
        return f"{pair} has the score {row['score']:g}: {row['meaning']}."
    return f"{pair} has the score {row['score']:g}."


def commonest(shares: pd.DataFrame, *, what: str) -> str:
    """Of `explore.shares`: the value that most rows have, over all splits."""
    rows = shares.groupby("label", sort=False)["rows"].sum()
    return f"The commonest {what} is {short(rows.idxmax())}: {percent(rows.max() / rows.sum())} of the pairs."


def expense(metrics: Mapping[str, Any]) -> str:
    """Of a run's metrics: time and memory of its training."""
    train = metrics["train"]
    size = f"{train['epochs']} epochs of {train['n']:,} pairs"
    return f"{duration(train['seconds'])} and {memory(train['peak_memory_mb'])} for {size}, on {train['device']}."


def leaks(table: pd.DataFrame) -> str:
    """Of `explore.leak`: how much higher the figure is where training has seen the anchors."""
    named = table.set_index("system")["pearson"]
    seen = named["rows at random"]
    unseen = named["anchors unseen"]
    return f"With rows at random it is {seen:.2f}, with anchors that training never saw {unseen:.2f}."


def fastest(rates: pd.DataFrame, *, what: str) -> pd.Series:
    """Of `benchmark.rates`: the row with the highest rate at `what`."""
    rows = rates[rates["what"] == what]
    return rows.loc[rows["rate"].idxmax()]


def faster(rates: pd.DataFrame, *, what: str) -> str:
    """Of `benchmark.rates`: which system is the fastest at `what`, beside the CrossEncoder."""
    row = fastest(rates, what=what)
    sentence = f"Fastest is “{row['system']}” with {row['rate']:,.0f} pairs a second"
    if row["times"] == 1:
        return f"{sentence}."
    return f"{sentence}, {row['times']:.1f} times the CrossEncoder's."


def as_good(accuracy: pd.DataFrame, *, system: str) -> str:
    """Of `benchmark.accuracy`: whether a system is as good as the CrossEncoder."""
    row = accuracy.set_index("system").loc[system]
    figures = interval(row["difference"], row["difference_low"], row["difference_high"])
    if system.startswith("CrossEncoder"):
        return "The CrossEncoder is the fastest, so there is nothing to compare."
    if row["difference_high"] < 0:
        return f"No: “{system}” is significantly worse than the CrossEncoder, by {figures} of Pearson."
    if row["difference_low"] > 0:
        return f"Better: “{system}” differs from the CrossEncoder by {figures} of Pearson."
    return f"No significant difference: “{system}” less the CrossEncoder is {figures} of Pearson."


def precisions(table: pd.DataFrame) -> str:
    """Of notebook 4, a row for each precision: how much a score depends on it."""
    if len(table) < 2:
        return "Not measured: only float32 is fast on this machine."
    gap = table["largest difference of a score"].max()
    correlations = table["pearson"]
    change = correlations.max() - correlations.min()
    return f"A score changes by at most {gap:.3f}, Pearson by {change:.4f}."


def helps(effects: pd.DataFrame) -> str:
    """Of `comparison.effects`: how many changes help or harm significantly, and which most."""
    table = effects.dropna(subset="difference")
    if table.empty:
        return "No variant can be compared with another."
    sentence = f"Of {len(table)} changes"
    parts = []
    for verb, rows in {
        "help": table[table["difference_low"] > 0],
        "harm": table[table["difference_high"] < 0],
    }.items():
        part = f"{len(rows)} {verb} significantly"
        if len(rows):
            row = rows.loc[rows["difference"].abs().idxmax()]
            part += f", most of all “{row['idea']}” ({row['difference']:+.3f})"
        parts.append(part)
    return f"{sentence}, {'; '.join(parts)}."


def dearest(effects: pd.DataFrame) -> str:
    """Of `comparison.effects`: the variants that train longest and shortest."""
    long = effects.loc[effects["seconds"].idxmax()]
    brief = effects.loc[effects["seconds"].idxmin()]
    sentence = f"“{long['idea']}” trains longest, {duration(long['seconds'])}"
    return f"{sentence}; “{brief['idea']}” shortest, {duration(brief['seconds'])}."


def nearest(hits: pd.DataFrame) -> str:
    """Of a search's answer: the first phrase, and how many are worth reading."""
    if hits.empty:
        return "Nothing is in the corpus."
    first_hit = hits.iloc[0]
    worth = (hits["score"] >= HALF).sum()
    sentence = f"First is “{first_hit['phrase']}”, score {first_hit['score']:.2f}"
    return f"{sentence}; {worth} of these {len(hits)} score .5 or more."


def moved(hits: pd.DataFrame) -> str:
    """Of a search's answer: where the retriever had the phrases that the model puts first."""
    if hits.empty:
        return "Nothing is in the corpus."
    kept_rows = (hits["found"] <= len(hits)).sum()
    start = hits["found"].iloc[0]
    sentence = f"The retriever had the first as number {start}"
    return f"{sentence}; {kept_rows} of these {len(hits)} were among its first {len(hits)}."


def finds(compared: pd.DataFrame) -> str:
    """Of `evaluation.compare`: the best and the worst order of the first ten."""
    rows = compared[compared["measure"] == "nDCG@10"].dropna(subset="value")
    if rows.empty:
        return "No query has a phrase that people rated above 0."
    best = rows.loc[rows["value"].idxmax()]
    worst = rows.loc[rows["value"].idxmin()]
    sentence = f"By nDCG@10, “{best['system']}” is best with {best['value']:.2f}"
    return f"{sentence}, “{worst['system']}” last with {worst['value']:.2f}."
