"""study.explore: to be written."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from patsim_utils import metrics
from patsim_utils.ratings import MEANINGS

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
        rows["meaning"] = rows["rating"].map(MEANINGS)
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
