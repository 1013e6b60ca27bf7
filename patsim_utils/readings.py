"""The sentences of the notebooks: each function turns a table of `analysis` into Markdown, so that no number
is typed.

Formulas are plain Unicode and HTML: a report must open offline, without MathJax.
"""

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from patsim_utils import evidence, report
from patsim_utils.analysis import MIN_ANCHORS, MIN_ROWS
from patsim_utils.environment import environment as environment_of
from patsim_utils.train import Settings


def interval(value: float, low: float, high: float) -> str:
    """A number with its interval, three decimals: `0.736 [0.701, 0.769]`."""
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def percent(share: float) -> str:
    """A share in [0, 1] as text: `12 %`, and `0.4 %` where whole percents would say nothing."""
    return f"{100 * share:.0f} %" if share >= 0.095 or share == 0 else f"{100 * share:.1f} %"


def count(number: int, noun: str, *, plural: str = "") -> str:
    """`1 anchor`, `1,699 anchors`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))


# ------------------------------------------------------------------------------------------------------------ explore


def overview(table: pd.DataFrame, *, name: str, data: str, protocol: str) -> str:
    """From `analysis.overview`."""
    parts = [
        f"{count(row.rows, 'pair')} of {count(row.anchors, 'anchor')} in **{row.split}**" for row in table.itertuples()
    ]
    return f"Study **{name}**, data `{Path(data).name}`, protocol `{protocol}`: {listed(parts)}."


def labels(scores: pd.DataFrame, ratings: pd.DataFrame) -> str:
    """From `analysis.score_shares` and `analysis.rating_shares`."""
    rows = scores.groupby("score")["rows"].sum()
    share = rows / rows.sum()
    text = (
        f"Half a point or less is the rule: {percent(share[share.index <= 0.5].sum())} of all pairs score 0,"
        f" 0.25 or 0.5, and only {percent(share[1.0])} are the same thing in other words. "
    )
    if ratings.empty:
        return text + "This data has no rating letters, so what kind of match a pair is cannot be told."
    middle = ratings[ratings["score"] == 0.5].set_index("rating")["rows"]
    return (
        text + f"A score of 0.5 stands for {count(middle['2a'], 'narrower target')},"
        f" {count(middle['2b'], 'broader one')} and"
        f" {count(middle['2c'], 'structural match', plural='structural matches')}: the score alone cannot"
        " tell them apart."
    )


def classes(sections: pd.DataFrame, counts: pd.DataFrame) -> str:
    """From `analysis.section_shares` and `analysis.class_counts`."""
    rows = sections.groupby("section")["rows"].sum().sort_values()
    top = counts.head(10)["rows"].sum() / counts["rows"].sum()
    return (
        f"Section {rows.index[-1]} gives the most pairs ({percent(rows.iloc[-1] / rows.sum())}), section"
        f" {rows.index[0]} the fewest ({percent(rows.iloc[0] / rows.sum())}). Of"
        f" {count(len(counts), 'class', plural='classes')} the ten largest hold {percent(top)} of the pairs;"
        f" {count(int((counts['anchors'] < 3).sum()), 'class has', plural='classes have')} fewer than three"
        " anchors, too few to say anything about the class alone."
    )


def groups(sizes: pd.DataFrame, repeated: Mapping[str, float]) -> str:
    """From `analysis.group_sizes` and `analysis.same_pair_two_classes`."""
    text = (
        f"A group has {sizes['targets'].mean():.0f} targets on average (median"
        f" {sizes['targets'].median():.0f}, most {sizes['targets'].max()}). "
    )
    if not repeated["repeated"]:
        return text + "No pair is rated in two classes, so the labels cannot show what the class changes."
    return (
        text + f"{count(repeated['repeated'], 'pair is', plural='pairs are')} rated in two or more classes "
        f"({percent(repeated['repeated'] / repeated['pairs'])} of the distinct pairs), and "
        f"{percent(repeated['differing'])} of these have another score in another class: "
        "that is how much the class alone decides."
    )


def phrases(words: pd.DataFrame, tokens: Mapping[str, np.ndarray]) -> str:
    """From `analysis.word_counts` and the token counts (n,) of each split."""
    mean = (words["words"] * words["phrases"]).groupby(words["side"]).sum() / words.groupby("side")["phrases"].sum()
    every = np.concatenate(list(tokens.values()))
    return (
        f"Anchors have {mean['anchor']:.1f} words on average, targets {mean['target']:.1f}. With its class"
        f" text a pair is {every.mean():.0f} tokens long, 95 % are at most {np.quantile(every, 0.95):.0f},"
        f" the longest {every.max()}: padding every pair to 128 tokens would compute {128 / every.mean():.1f}"
        " times as many tokens as there are."
    )


def overlap(shared: pd.DataFrame) -> str:
    """From `data.shared_anchors`."""
    anchors = int(shared["anchors"].sum())
    if anchors == 0:
        return "**No anchor stands in two splits**: what is measured on the held-out pairs is measured on new anchors."
    return (
        f"**Splits share anchors ({anchors:,} in all) and {count(int(shared['pairs'].sum()), 'pair')}**: a"
        " model can know the answers of an anchor from training. Such numbers are no estimate for a new"
        " anchor."
    )


def words_alone(table: pd.DataFrame) -> str:
    """From `analysis.words_alone`."""
    parts = []
    for split, rows in table.groupby("split", sort=False):
        jaccard, cosine = (
            interval(*rows.loc[rows["system"] == system, ["pearson", "low", "high"]].iloc[0])
            for system in ("word-Jaccard", "zero-shot cosine")
        )
        parts.append(
            f"On {split}, counting shared words reaches a Pearson of {jaccard}, the untrained cosine {cosine}."
        )
    return " ".join(parts) + " These are the marks that a trained model has to beat."


# -------------------------------------------------------------------------------------------------------------- train

ORDINAL_FORMULAS = {
    "smooth_k2": (
        "<b>Smooth K2</b>: L = α · max(|r̂ − r| − β, 0)², α = {alpha:g}, β = {beta:g}, where r = 0…4 is the"
        " rank of the score and r̂ = 4ŝ the predicted one. Within β of the label nothing is asked; beyond it"
        " the error counts squared."
    ),
    "as_run": (
        "<b>the source's own program</b>: L = {alpha:g} · BCE(P(rank &gt; k), smoothed levels) + {beta:g} · "
        "mean (p<sub>k+1</sub> − p<sub>k</sub>)²."
    ),
    "coral": "<b>CORAL</b>: L = Σ<sub>k</sub> BCE(P(rank &gt; k), [r &gt; k]).",
    "all_threshold": "<b>all-threshold</b>: L = Σ<sub>k</sub> |2(k − r) + 1| · BCE(P(rank &gt; k), [r &gt; k]).",
    "bce": "<b>binary cross-entropy</b> of the score: L = −s log ŝ − (1 − s) log(1 − ŝ).",
    "mse": "<b>squared error</b>: L = (ŝ − s)².",
    "pearson": "<b>correlation</b>: L = 1 − Pearson(ŝ, s) within the batch.",
}
CONTRAST_FORMULAS = {
    "ntxent": (
        "<b>NT-Xent</b> at τ = {temperature:g} on the anchor's and the target's span after layer {contrast_layer}:"
        " C = −(1/N) Σ<sub>i</sub> w<sub>i</sub> log [ exp(cos(a<sub>i</sub>, t<sub>i</sub>)/τ) / Σ<sub>j</sub>"
        " exp(cos(a<sub>i</sub>, v<sub>j</sub>)/τ) ] over the N pairs of the batch, the mean of both ways round. The"
        " weight w is 1 for a score of 1, ½ for 0.75 and 0 below; the v<sub>j</sub> are the partner and"
        " {others}."
    ),
    "cosent": (
        "<b>CoSENT</b> on the spans after layer {contrast_layer}: C = log(1 + Σ exp 20(cos<sub>j</sub> −"
        " cos<sub>i</sub>)) over all i, j of the batch with s<sub>i</sub> &gt; s<sub>j</sub>."
    ),
    "classes": (
        "<b>class vectors alone</b> at τ = {temperature:g}: vectors of one class are positives of each other, those of"
        " the batch's other classes negatives; anchor and target take no part."
    ),
    "none": "no contrastive term.",
}
NEGATIVES = {
    "batch": "the batch's other phrases, without those of the same anchor or of the same text",
    "anchor": "the targets that the same anchor rates lower in the same class",
}
NEGATIVES["both"] = f"{NEGATIVES['batch']}, and {NEGATIVES['anchor']}"
FUSION_FORMULAS = {
    "add": "h′ = h + U c",
    "gate": "h′ = h + σ(W[h; c]) · U c",
    "graph": "h′ = h + U c, where two steps of message passing over the CPC tree make c from the titles",
    "attention": "h′ = h + U · softmax(Q h · K c) V c over the section and the class",
    "pooled": "f′ = f + U c",
    "none": "h′ = h, no class vector",
}

EVIDENCE = {
    "words": "the words, word stems and letters that they share",
    "pieces": "the words, stems and letters that they share, and how alike their word pieces are before any layer",
    "group": "the words, stems and letters that they share, how alike their tokens are in the embeddings and the last"
    " layer of the untouched backbone, how alike the target is to the anchor's other targets in that class, and how far"
    " each of these lies from the mean over them, so that a score depends on the company of its pair",
    "all": "the words, stems and letters that they share, and how alike their tokens are in the embeddings and the last"
    " layer of the untouched backbone",
}

SCORE_ONLY = ("smooth_k2", "bce", "mse", "pearson")  # losses that say nothing about a single rank


def method(settings: Mapping[str, Any]) -> str:
    """The method as these settings (`dataclasses.asdict` of a `Settings`) have it, with its formulas."""
    low_rank = f"r = {settings['lora_rank']}, α = {settings['lora_alpha']}, dropout {settings['lora_dropout']:g}"
    adapter = {
        "lora": f"LoRA with {low_rank}",
        "hyperlora": f"HyperLoRA with {low_rank}: ΔW = B diag(1 + V c) A, so that the class scales each rank",
        "full": "all weights trained",
    }[settings["adapter"]]
    lowest = settings["separate_layers"]
    apart = f"; in its lowest {lowest} layers anchor, target and class text do not see each other" if lowest else ""
    fusion = FUSION_FORMULAS[settings["fusion"]]
    place = "the pooled features f of a pair" if settings["fusion"] == "pooled" else "every token's embedding h"
    if settings["fusion"] != "none":
        fusion += f", where c is the class's learned {settings['cpc_dim']}-d vector of unit length and U starts at zero"
    lines = [
        (
            f"**Input.** anchor, target and context text (`{settings['context_text']}`) in the"
            f" `{settings['layout']}` layout{'' if settings['target_sep'] else ', without [SEP] behind the targets'}."
        ),
        f"**The class** enters at {place}: {fusion}.",
        f"**Encoder** `{settings['backbone']}`, {adapter}{apart}.",
        (
            f"**Head.** {settings['pooling']} pooling gives one strength z; four rising thresholds θ cut it"
            " into five ranks, P(rank &gt; k) = σ(z − θ<sub>k</sub>), and the score is ŝ = ¼ Σ<sub>k</sub>"
            " P(rank &gt; k), in [0, 1]."
        ),
        "**Ordinal loss.** " + ORDINAL_FORMULAS[settings["loss"]].format(**settings),
        "**Contrastive loss.** "
        + CONTRAST_FORMULAS[settings["contrast"]].format(**settings, others=NEGATIVES[settings["negatives"]]),
    ]
    if settings["evidence"] != "none":
        lines.insert(
            3,
            f"**Evidence.** A small network beside the encoder reads numbers that compare anchor and target:"
            f" {EVIDENCE[settings['evidence']]}. They hardly say which phrases these are, so they are hard to"
            " learn by heart. It is fitted to them alone, by the same losses, before the encoder is trained, and stays"
            " as it is. Its features join those of the spans before the head, and its own P(rank &gt; k) makes"
            f" {percent(evidence.share(settings['evidence'], stacked=settings['stack'] > 0))} of the score.",
        )
    if settings["stack"]:
        lines.insert(
            3,
            f"**Stack.** The training anchors are cut into {settings['stack']} parts. For each of them two models are"
            " trained first, on the other parts alone: a reader, an encoder that reads phrases alone, so that the"
            " cosine of two of them tells their score; and a judge, the lowest layers of the backbone in the `packed`"
            " layout with these losses but the contrastive one. A training pair is compared and judged by the two that"
            " have not seen its anchor, as pairs of new anchors are by all of them, on the mean. What they say are"
            " numbers for the evidence (stacked generalization).",
        )
    terms = {"λ C": settings["contrast_weight"]} if settings["contrast"] != "none" else {}
    if settings["rating_weight"]:
        lines.append(
            "**Auxiliary task.** From the same features a second head tells the ten ratings (synonym, hyponym, antonym"
            " …) apart; R is its cross-entropy. The score is made of the mean of both heads' P(rank &gt; k)."
        )
        terms["μ R"] = settings["rating_weight"]
    if terms:
        factors = ", ".join(f"{term[0]} = {value:g}" for term, value in terms.items())
        lines.append(f"**Total.** {' + '.join(['L', *terms])} with {factors}.")
    return "\n".join(f"- {line}" for line in lines)


def losses(history: pd.DataFrame) -> str:
    """From a run's history.csv."""
    tenth = max(1, len(history) // 10)
    first, last = history[:tenth], history[-tenth:]
    text = (
        f"From the first tenth of the steps to the last, the ordinal loss goes from {first['ordinal'].mean():.2f} to "
    )
    text += f"{last['ordinal'].mean():.2f}"
    if history["contrast"].any():
        text += f", the contrastive one from {first['contrast'].mean():.2f} to {last['contrast'].mean():.2f}"
    return (
        text + f". All {count(len(history), 'step')} are finite; the gradient's norm is"
        f" {history['grad_norm'].median():.1f} in the middle, {history['grad_norm'].max():.1f} at most,"
        " before clipping."
    )


def epochs(numbers: Mapping[str, Any], *, keep: str) -> str:
    """From a run's metrics.json; `keep` is the setting best or last."""
    rows = numbers["epochs"]
    best = max(rows, key=lambda row: row["pearson"])
    kept = best if keep == "best" else rows[-1]
    text = (
        f"The kept model is that of epoch {kept['epoch']}, {kept['seconds']:,.0f} s into the run, with a"
        " validation Pearson of "
    )
    text += f"{kept['pearson']:.3f}. "
    if keep == "best" and len(rows) > 1:
        text += "As it was chosen on validation, that number is a little too kind; "
        text += (
            "the test split was not looked at. "
            if "test" in numbers
            else "this data has no test split to check it on. "
        )
    return text


def results(table: pd.DataFrame, *, protocol: str, seed: int) -> str:
    """From `analysis.results`: the headline with its interval, split, protocol and seed."""
    lines = []
    for split, rows in table.groupby("split", sort=False):
        rows = rows.set_index("system")
        model, cosine = rows.loc["trained model"], rows.loc["zero-shot cosine"]
        lines.append(
            f"**On {split} ({count(int(model['n']), 'pair')}, protocol `{protocol}`, seed {seed}) the model"
            f" reaches a Pearson of {interval(model['pearson'], model['low'], model['high'])}**, the"
            f" untrained backbone {interval(cosine['pearson'], cosine['low'], cosine['high'])}; Spearman"
            f" {model['spearman']:.3f}, mean absolute error {model['mae']:.3f}, quadratic kappa"
            f" {model['qwk']:.3f}."
        )
    return "\n\n".join(lines) + "\n\nIntervals are 95 %, from a bootstrap over anchors."


def leak(table: pd.DataFrame) -> str:
    """From `analysis.leak`."""
    if table.empty:
        return "Not asked for in this run (`leak` is false)."
    rows = table.set_index("protocol")["pearson"]
    return (
        f"On a random tenth of the training rows the same method reaches {rows['random rows']:.3f}, on"
        f" anchors it has never seen {rows['anchors unseen']:.3f}: a difference of"
        f" {rows['random rows'] - rows['anchors unseen']:+.3f}. The two are measured on different pairs, so"
        " part of it may be that these are harder. Only the number for unseen anchors is worth quoting."
    )


# ------------------------------------------------------------------------------------------------------------- errors


def by_group(frame: pd.DataFrame, table: pd.DataFrame, key: str, *, plural: str) -> str:
    """From `analysis.by_group` of `frame`: the best and worst group, and what was left out."""
    missing = frame.loc[~frame[key].isin(table[key]), key]
    rest = (
        f"{missing.nunique()} of {frame[key].nunique()} {plural} ({count(len(missing), 'pair')}) are left"
        f" out: fewer than {MIN_ROWS} pairs, or fewer than {MIN_ANCHORS} anchors with scores that vary."
    )
    rest = rest if len(missing) else ""
    if len(table) < 2:
        return f"Too few {plural} have enough pairs to be compared. {rest}".strip()
    low, high = table.loc[table["pearson"].idxmin()], table.loc[table["pearson"].idxmax()]
    apart = "do not overlap" if low["high"] < high["low"] else "overlap, so their order may be chance"
    return (
        f"The lowest of {len(table)} {plural} is **{low[key]}** with"
        f" {interval(low['pearson'], low['low'], low['high'])}, the highest **{high[key]}** with"
        f" {interval(high['pearson'], high['low'], high['high'])}; these two intervals {apart}. {rest}"
    ).strip()


def surface(table: pd.DataFrame, *, what: str) -> str:
    """From `analysis.by_group`: error and bias of each group, in the order of the table. Empty for an empty
    table."""
    parts = [f"{row[0]}: {row.mae:.3f} ({row.bias:+.3f})" for row in table.itertuples(index=False)]
    return (
        f"Mean absolute error by {what}, in brackets the mean of prediction - score: {'; '.join(parts)}."
        if parts
        else ""
    )


def confusion(counts: pd.DataFrame) -> str:
    """From `analysis.confusion`."""
    values = counts.to_numpy()
    distance = np.abs(np.subtract.outer(np.arange(len(values)), np.arange(len(values))))
    exact, near = (values[distance <= reach].sum() / values.sum() for reach in (0, 1))
    predicted = values.sum(0) / values.sum()
    return (
        f"{percent(exact)} of the pairs get exactly their score and {percent(near)} are at most one step off."
        f" {percent(predicted[[0, -1]].sum())} of the predictions round to 0 or 1, while"
        f" {percent(values[[0, -1]].sum() / values.sum())} of the pairs have one of these scores."
    )


def calibration(bins: pd.DataFrame, ranks: pd.DataFrame, *, loss: str) -> str:
    """From `analysis.calibration` and `analysis.rank_shares`."""
    gap = float(np.average((bins["prediction"] - bins["score"]).abs(), weights=bins["n"]))
    outside = int(((bins["prediction"] < bins["low"]) | (bins["prediction"] > bins["high"])).sum())
    worst = ranks.loc[(ranks["expected"] - ranks["seen"]).abs().idxmax()]
    text = (
        f"On average a prediction is {gap:.3f} away from the mean score of its bin; in {outside} of"
        f" {len(bins)} bins it lies outside the interval. The rank probabilities miss most at"
        f" {worst['score']:g}: expected {percent(worst['expected'])}, seen {percent(worst['seen'])}."
    )
    if loss in SCORE_ONLY:
        text += f" The loss `{loss}` sees the score alone, so nothing has taught the model these probabilities."
    return text


def ratings(table: pd.DataFrame, difference: Mapping[str, float]) -> str:
    """From `analysis.by_rating` and `analysis.rating_difference`."""
    if table.empty:
        return "This data has no rating letters, or too few anchors of each: the question cannot be asked here."
    worst = table.loc[table["mae"].idxmax()]
    text = (
        f"The model errs most on **{worst['rating']}** ({worst['meaning']}): mean absolute error"
        f" {worst['mae']:.3f}, mean prediction {worst['prediction']:.2f} for a score of {worst['score']:g}. "
    )
    if not difference:
        return text + "Hyponyms and hypernyms are too few to be compared."
    apart = "does" if difference["low"] > 0 or difference["high"] < 0 else "does not clearly"
    return (
        text + "Hyponym and hypernym have the same score, so a right model has no need to tell them apart; this"
        f" one {apart} score them differently: mean prediction {difference['difference']:+.3f}"
        f" [{difference['low']:+.3f}, {difference['high']:+.3f}] for the narrower target, and a narrower"
        f" one is above a broader one in {percent(difference['auc'])} of the cases (50 % is no difference)."
    )


def anchors(table: pd.DataFrame, frame: pd.DataFrame) -> str:
    """From `analysis.anchor_errors` of `frame`."""
    if table.empty:
        return "No anchor has enough pairs."
    tenth = table.head(max(1, round(len(table) / 10)))
    share = (tenth["n"] * tenth["mae"]).sum() / frame["size"].sum()
    return (
        f"The hardest tenth ({len(tenth)} of {len(table)} anchors, {percent(tenth['n'].sum() / len(frame))}"
        f" of the pairs) makes up {percent(share)} of all error."
    )


def embedding(structure: Mapping[str, float], nearest: pd.DataFrame) -> str:
    """From `analysis.section_structure` and `analysis.nearest_classes`."""
    if not structure or nearest.empty:
        return "Too few classes of one section have scored pairs to say what the embedding learned."
    finding = "more alike than" if structure["share"] < 0.05 else "not clearly more alike than"
    return (
        f"Over the {structure['classes']} classes with scored pairs, the mean cosine is"
        f" {structure['within']:.3f} within a section and {structure['between']:.3f} between sections: two"
        f" classes of one section are {finding} two of different ones (p = {structure['share']:.3f}, sections"
        " shuffled). The nearest neighbour of a class shares its section in"
        f" {percent(nearest['same section'].mean())} of the cases. The vectors start at random, so what is"
        " not in the training pairs is still noise."
    )


def context(table: pd.DataFrame) -> str:
    """From `analysis.context_effect`."""
    rest, parts = table.iloc[1:], []
    for row in rest.itertuples():
        clear = row.difference_high < 0 or row.difference_low > 0
        change = f"{row.difference:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]"
        found = "the interval excludes zero" if clear else "the interval holds zero"
        parts.append(f"With {row.context}: {change} in Pearson, {found}.")
    used = (rest["difference_high"] < 0).any()
    last = "The model uses the class." if used else "That the model needs the class is not shown here."
    return " ".join([*parts, last])


# ---------------------------------------------------------------------------------------------------------- both ends


def speed(rates: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    """From `speed.rates` and `speed.accuracy`: what packing gains and costs beside the CrossEncoder."""
    lines = []
    times = rates.set_index(["system", "what"])["times"]
    for row in accuracy[accuracy["system"].str.startswith("ours: packed")].itertuples():
        sure = row.difference_low > 0 or row.difference_high < 0
        verdict = ("higher" if row.difference > 0 else "lower") if sure else "not surely another"
        lines.append(
            f"**{row.system.removeprefix('ours: ')}** trains {times[row.system, 'training']:.1f} times and"
            f" scores one query against 100 candidates {times[row.system, 'scoring 1 x 100']:.1f} times as many pairs a"
            f" second as the CrossEncoder, at a Pearson that is {verdict}: difference"
            f" {interval(row.difference, row.difference_low, row.difference_high)}."
        )
    return "\n\n".join(lines)


def step(note: Mapping[str, float], rate: float, *, model: str, pairs: int) -> str:
    """From `speed.steps` and `speed.matrix_rate`; `pairs`: rows of the training split."""
    return (
        f"A training step of {model} on {note['rows']:.0f} pairs takes {1000 * note['seconds']:,.0f} ms for"
        f" {note['gflop']:,.1f} GFLOP of products: {note['gflops']:,.0f} GFLOP/s, {percent(note['gflops'] / rate)} of"
        f" the {rate:,.0f} GFLOP/s that this machine reaches in one large matrix product. {percent(note['padding'])} of"
        f" the tokens are padding. At that rate three epochs over the {pairs:,} training pairs take"
        f" {3 * pairs / note['rows'] * note['seconds']:,.0f} s, without the update of the weights."
    )


def ideas(table: pd.DataFrame) -> str:
    """From `ablation.effects`: one sentence an arm."""
    lines = []
    for row in table.dropna(subset="difference").itertuples():
        if row.difference_low <= 0 <= row.difference_high:
            verdict = "makes no sure difference"
        elif row.compared > 1:
            verdict = "helps" if row.difference > 0 else "harms"
        else:
            verdict = f"scored {'higher' if row.difference > 0 else 'lower'} in its one run"
        lines.append(
            f"- **{row.arm}** ({row.idea}) {verdict} against `{row.against}`:"
            f" {interval(row.difference, row.difference_low, row.difference_high)}, {count(row.compared, 'seed')}."
        )
    unseen = table.set_index("arm")["pearson"]
    for row in table[table["difference"].isna() & (table["against"] != "")].itertuples():
        lines.append(
            f"- **{row.arm}** ({row.idea}): {interval(row.pearson, row.low, row.high)} on its own held-out rows, where"
            f" `{row.against}` has {unseen[row.against]:.3f} on anchors that it never saw. Other pairs, so not a paired"
            f" difference; {row.pearson - unseen[row.against]:+.3f} is what the split alone makes of it."
        )
    return "\n".join(lines)


def ablation_base(settings: Settings, *, share: float, table: pd.DataFrame) -> str:
    """What all arms start from, and how far their figures reach; `table` from `ablation.effects`."""
    several = int((table["seeds"] > 1).sum())
    base = table[table["against"] == ""].iloc[0]
    sure = table.dropna(subset="difference")
    excluding = int(((sure["difference_low"] > 0) | (sure["difference_high"] < 0)).sum())
    return (
        f"All arms start from: {report.method(asdict(settings))}; {settings.batch_size} pairs a step, learning rate"
        f" {settings.learning_rate:g} ({settings.head_learning_rate:g} for what is new), trained on {percent(share)} of"
        f" the training anchors. `{base.arm}` has {interval(base.pearson, base.low, base.high)}; its seeds alone lie"
        f" between {base.seed_low:.3f} and {base.seed_high:.3f}. {several} of {count(len(table), 'arm')} have several"
        f" seeds. The intervals of {excluding} of {count(len(sure), 'comparison')} leave out zero; by chance alone"
        " one in twenty would."
    )


def headline(name: str, config: Mapping[str, Any], frame: pd.DataFrame) -> str:
    """Which run and which pairs notebook 3 is about; from config.json and `analysis.with_errors`."""
    parts = listed([f"{rows:,} of {split}" for split, rows in frame["split"].value_counts(sort=False).items()])
    text = (
        f"Run **{name}**: backbone `{config['backbone']}`, loss `{config['loss']}`, contrast `{config['contrast']}`,"
        f" fusion `{config['fusion']}`, protocol `{config['protocol']}`, seed {config['seed']}. What follows is"
        f" measured on **all held-out pairs**: {parts}, {count(frame['anchor'].nunique(), 'anchor')}."
    )
    if config["keep"] == "best":
        text += " The validation pairs have chosen the epoch, so that they are a little too kind."
    return text


def environment(started: float, *, seed: int) -> str:
    """The last cell: versions, commit, seed and wall time since `started` (seconds of
    `time.perf_counter`)."""
    found = environment_of(seed=seed)
    return (
        f"Commit `{found['commit']}` · {found['date']} · Python {found['python']}, torch {found['torch']},"
        f" transformers {found['transformers']} on {platform.system()} {platform.machine()} · seed"
        f" {found['seed']} · wall time {time.perf_counter() - started:.0f} s"
    )
