"""The tables of notebooks 1 and 2: data, batches, what a run reaches and costs.

`splits` is what `data.splits.load` returns, a frame for each split; `metrics` is a run's
metrics.json.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from patsim_utils import metrics as measures
from patsim_utils.ratings import MEANINGS

OWN = "trained model"  # the system that a study is about; the others beside it are baselines
BATCH = {
    "input_ids": "token ids of B sequences, padded to T tokens",
    "position_ids": "position of each token; in the packed layout every target goes on from the prefix",
    "block": "which tokens see each other: 0 is seen by all, j by block j alone, -1 is padding",
    "code": "class of each sequence, a row of the embedding table",
    "anchor_span": "tokens of the anchor of each of N pairs, as positions in the flat batch, then -1",
    "target_span": "tokens of the target of each pair",
    "rows": "row of each pair in the frame",
    "rank": "score of each pair times 4",
    "rating": "rating of each pair, -100 where it has none",
    "anchor_text": "which phrase the anchor is; equal ids are no negatives of each other",
    "target_text": "which phrase the target is",
}
SYSTEMS = {
    "word_jaccard": "word-Jaccard",
    "pretrained_cosine": "pretrained cosine",
    "features": "features alone",
}
EVALUATED = ("validation", "test")


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval, if it has one, three decimals: `0.736 [0.701, 0.769]`."""
    if np.isnan(low):
        return f"{value:.3f}"
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def percent(share: float) -> str:
    """A share in [0, 1] as text: `12 %`, and `0.4 %` where whole percents would say nothing."""
    if share >= 0.095 or share == 0:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.1f} %"


def duration(seconds: float) -> str:
    """A time as one says it: `0.4 s`, `22 s`, `12 min`, `2.3 h`."""
    if seconds < 9.5:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 5970:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def memory(mebibytes: float) -> str:
    """A size of memory as one says it: `412 MiB`, `1.3 GiB`."""
    if mebibytes < 1000:
        return f"{mebibytes:.0f} MiB"
    return f"{mebibytes / 1024:.1f} GiB"


def overview(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row a split: rows, anchors, targets, classes, groups and the mean score.

    A group is an anchor in a class.
    """
    columns: dict[str, Any] = {"anchors": "anchor", "targets": "target", "classes": "context"}
    columns["groups"] = ["anchor", "context"]
    rows = []
    for split, frame in splits.items():
        counts = {name: len(frame.value_counts(column)) for name, column in columns.items()}
        row = {"split": split, "rows": len(frame)} | counts
        rows.append(row | {"mean score": frame["score"].mean()})
    return pd.DataFrame(rows)


def examples(frame: pd.DataFrame, *, titles: Mapping[str, str], seed: int = 0) -> pd.DataFrame:
    """A pair of each rating, highest first, with its prediction if there is one.

    A pair of each score where there are no ratings.
    """
    kind = ["score", "rating"] if "rating" in frame else ["score"]
    rows = frame.sample(frac=1, random_state=seed).drop_duplicates(kind)
    rows["field"] = rows["context"].map(titles)
    if "rating" in frame:
        rows["meaning"] = rows["rating"].map(MEANINGS)
    wanted = ["anchor", "target", "score", "prediction", "rating", "meaning", "context", "field"]
    return rows.sort_values(kind, ascending=False, ignore_index=True).filter(wanted)


def shares(splits: dict[str, pd.DataFrame], column: str, names: Mapping[Any, str]) -> pd.DataFrame:
    """Rows of each value of a column (or of `section`) in each split.

    `names`: the values in their order, with a name for the label. Returns split, `column`, label, rows,
    share (of the split). What no split has is left out.
    """
    counts = {}
    for name, frame in splits.items():
        values = frame.get(column, pd.Series())
        if column == "section":
            values = frame["context"].str[0]
        counts[name] = values.value_counts().reindex(list(names), fill_value=0)
    table = pd.concat(counts, names=["split", column]).rename("rows").reset_index()
    sizes = {name: len(frame) for name, frame in splits.items()}
    table["share"] = table["rows"] / table["split"].map(sizes)
    table.insert(2, "label", [f"{value} {names[value]}".strip() for value in table[column]])
    return table[table.groupby(column)["rows"].transform("sum") > 0].reset_index(drop=True)


def class_counts(splits: dict[str, pd.DataFrame], *, titles: Mapping[str, str]) -> pd.DataFrame:
    """One row a CPC class, all splits together, most rows first.

    Returns context, rows, anchors, label (code and title).
    """
    groups = pd.concat(splits.values()).groupby("context", as_index=False)
    table = groups.agg(rows=("anchor", "size"), anchors=("anchor", "nunique"))
    table["label"] = table["context"] + " " + table["context"].map(titles)
    return table.sort_values(["rows", "context"], ascending=[False, True], ignore_index=True)


def group_sizes(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Targets of each anchor in a class, all splits together: anchor, context, targets."""
    groups = pd.concat(splits.values()).groupby(["anchor", "context"])
    return groups.size().reset_index(name="targets")


def same_pair_two_classes(splits: dict[str, pd.DataFrame]) -> str:
    """In a sentence, how often the class alone changes a label."""
    pairs = pd.concat(splits.values()).groupby(["anchor", "target"])[["context", "score"]].nunique()
    repeated = pairs[pairs["context"] > 1]
    if repeated.empty:
        return "No pair is rated in two classes, so that the labels cannot show what the class changes."
    changed = percent((repeated["score"] > 1).mean())
    return (
        f"{len(repeated):,} of {len(pairs):,} distinct pairs are rated in two or more classes; "
        f"{changed} of them have another score in another class."
    )


def word_counts(splits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Words of each distinct phrase, all splits together.

    Returns side (anchor or target), phrase, words.
    """
    pairs = pd.concat(splits.values())[["anchor", "target"]]
    phrases = pairs.melt(var_name="side", value_name="phrase").drop_duplicates(ignore_index=True)
    return phrases.assign(words=phrases["phrase"].str.split().str.len())


def words_alone(
    splits: dict[str, pd.DataFrame],
    cosine: Mapping[str, np.ndarray],
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """What needs no training: word-Jaccard, and the pretrained `cosine` (n,) of a split.

    Returns the columns of `results`.
    """
    rows = []
    for name, values in cosine.items():
        frame = splits[name]
        guesses = {"word-Jaccard": measures.word_jaccard(frame), "pretrained cosine": values}
        for system, guess in guesses.items():
            rows.append(_measured(system, name, measures.evaluate_or_none(frame, guess, seed=seed)))
    return pd.DataFrame(rows)


def batch_table(batch: Mapping[str, Tensor]) -> pd.DataFrame:
    """What is in a batch of `Pairs.collate`: name, shape, type, meaning."""
    rows = []
    for name, tensor in batch.items():
        shape = " x ".join(map(str, tensor.shape))
        kind = str(tensor.dtype).removeprefix("torch.")
        rows.append({"name": name, "shape": shape, "type": kind})
    table = pd.DataFrame(rows)
    return table.assign(meaning=table["name"].map(BATCH).fillna(""))


def _measured(system: str, split: str, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """One row of a table of systems.

    `entry` is one of metrics.json; None where the system is undefined.
    """
    row = {"system": system, "split": split, "label": f"{system}, {split}"}
    if entry is None:
        return row | dict.fromkeys(("n", "pearson", "low", "high", "spearman"), np.nan)
    low, high = entry["pearson_ci"]
    return row | {
        "n": entry["n"],
        "pearson": entry["pearson"],
        "low": low,
        "high": high,
        "spearman": entry["spearman"],
    }


def results(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Baselines and model of a run's metrics, a row for each system and split.

    Returns system, split, label, n, pearson, low, high, spearman, mae, qwk. NaN where a baseline is
    undefined; mae and qwk are NaN for baselines, which are on no scale of scores.
    """
    rows = []
    for split in evaluated(metrics):
        entry = metrics[split]
        for key, baseline in metrics["baselines"].items():
            row = _measured(SYSTEMS.get(key, key), split, baseline[split])
            rows.append(row | {"n": entry["n"]})
        model = _measured(OWN, split, entry)
        rows.append(model | {"mae": entry["mae"], "qwk": entry["qwk"]})
    return pd.DataFrame(rows)


def evaluated(metrics: Mapping[str, Any]) -> list[str]:
    """The splits that a run was measured on."""
    return [split for split in EVALUATED if split in metrics]


def summary(metrics: Mapping[str, Any]) -> str:
    """A line for each split: what a run reaches, on which pairs, with which seed."""
    unseen = "anchors unseen"
    if metrics["protocol"] != "anchor_disjoint":
        unseen = "rows split at random, anchors seen"
    sentences = []
    for split in evaluated(metrics):
        ours = metrics[split]
        cosine = metrics["baselines"]["pretrained_cosine"][split]
        beside = "undefined"
        if cosine:
            beside = f"{cosine['pearson']:.3f}"
        figures = interval(ours["pearson"], *ours["pearson_ci"])
        conditions = f"{ours['n']:,} pairs, {unseen}, seed {metrics['environment']['seed']}"
        sentences.append(f"Pearson {figures} on {split} ({conditions}); pretrained cosine {beside}.")
    return "\n".join(sentences)


def leak(metrics: Mapping[str, Any], random: Mapping[str, Any]) -> pd.DataFrame:
    """The same method under both protocols, with the columns of `results`."""
    runs = {"anchors unseen": metrics, "rows at random": random}
    rows = [_measured(name, "validation", run["validation"]) for name, run in runs.items()]
    return pd.DataFrame(rows)


def cost(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Time, memory and size of the training, in words: what, value (text)."""
    train = metrics["train"]
    texts = {
        "pairs": f"{train['n']:,}",
        "epochs": f"{train['epochs']}",
        "steps": f"{train['steps']:,}",
        "time of training": duration(train["seconds"]),
        "pairs a second": f"{train['pairs_per_second']:,.3g}",
        "time of evaluation": duration(train["evaluation_seconds"]),
        "peak memory": memory(train["peak_memory_mb"]),
        "trained weights": f"{train['trainable_parameters']:,}",
        "padding, share of tokens": percent(train["padding"]),
        "device": str(train["device"]),
        "precision": str(train["precision"]),
    }
    return pd.DataFrame(texts.items(), columns=["what", "value"])
