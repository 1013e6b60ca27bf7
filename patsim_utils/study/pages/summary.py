"""What stands on top of a study's pages: the verdict, three tiles, use and limits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.data.splits import is_google
from patsim_utils.errors import InputError
from patsim_utils.ratings import MEANINGS
from patsim_utils.study import errors, explore, plots
from patsim_utils.study.look.figures import short, style
from patsim_utils.training.runs import Run

CREDIT_GOOGLE = "Phrases: Patent Phrase Similarity, Google, CC BY 4.0, Aslanyan & Wetherbee 2022"
CREDIT_SAMPLE = "Phrases: the sample of patsim, CC0"


def credit(data: str, prints: Mapping[str, str]) -> str:
    """Whose phrases a page shows; "" if unknown.

    `prints`: fingerprints of the splits.
    """
    if data == "sample":
        return CREDIT_SAMPLE
    if data == "kaggle" or is_google(prints):
        return CREDIT_GOOGLE
    return ""


def summary(folder: Path) -> dict[str, Any] | None:
    """What the page's template shows of the run in a folder; None without a finished run.

    Returns verdict, tiles (figure and words), picture, sentences, is_demonstration (of the sample alone).
    """
    try:
        run = Run.open(folder)
    except InputError:
        return None
    frame = errors.with_errors(run.predictions)  # all that was held out, as the page Errors has it
    style()
    results = explore.results(run.metrics)
    picture = plots.forest(results, "label", own=explore.OWN, caption="Correlation with people's scores")
    seed = run.config.seed
    sentences = [about(run, frame), *fields(frame, seed=seed), *relations(frame, seed=seed)]
    return {
        "verdict": verdict(run, frame),
        "tiles": tiles(frame, seed=seed),
        "picture": Markup(picture._repr_html_()),
        "sentences": [*sentences, *use(run.config)],
        "is_demonstration": run.config.data == "sample",
    }


def verdict(run: Run, frame: pd.DataFrame) -> str:
    """One sentence: how good the run is, on which pairs, with which seed."""
    hundred = f"{100 * errors.ranked_rightly(frame):.0f}"
    known = "on anchors that training never saw"
    if run.metrics["protocol"] != "anchor_disjoint":
        known = "on anchors that training has seen (new ones are harder)"
    figures = []
    for split in explore.evaluated(run.metrics):
        entry = run.metrics[split]
        figures.append(f"Pearson {explore.interval(entry['pearson'], *entry['pearson_ci'])} on {split}")
    return f"It orders {hundred} of 100 pairs rightly, {known}: {', '.join(figures)}, seed {run.config.seed}."


def tiles(frame: pd.DataFrame, *, seed: int = 0) -> list[dict[str, str]]:
    """Three facts, each a short figure and what it means."""
    hundred = f"{100 * errors.ranked_rightly(frame):.0f} of 100"
    facts = [{"figure": hundred, "words": "times the better of two pairs is ranked higher; guessing gets 50."}]
    table = errors.thresholds(frame, relevant=0.5, seed=seed)
    if len(table):
        half = table.iloc[(table["threshold"] - 0.5).abs().argmin()]
        words = "of what people rated .5 or more has a score of .5 or more"
        if pd.notna(half["precision"]):
            words += f"; {explore.percent(half['precision'])} of what has it is right"
        facts.append({"figure": explore.percent(half["recall"]), "words": f"{words}."})
    facts.append({"figure": "Weakest", "words": weakest(frame, seed=seed)})
    return facts


def weakest(frame: pd.DataFrame, *, seed: int = 0) -> str:
    """The relation that is farthest off, and the section with the lowest correlation."""
    parts = []
    ratings = errors.by_rating(frame, seed=seed)
    if len(ratings):
        row = ratings.loc[(ratings["prediction"] - ratings["score"]).abs().idxmax()]
        scored = f"scored {row['prediction']:.2f} on average, by people {row['score']:g}"
        parts.append(f"pairs rated “{MEANINGS[row['rating']]}” ({scored})")
    sections = errors.by_group(frame, "section", names=cpc.titles(), seed=seed)
    if len(sections) > 1:
        row = sections.loc[sections["pearson"].idxmin()]
        parts.append(f"section {short(row['label'])} (Pearson {row['pearson']:.2f})")
    if not parts:
        return "Too few pairs to say where."
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def about(run: Run, frame: pd.DataFrame) -> str:
    """What the model does, and what it was measured on."""
    return (
        f"The model reads two phrases and a patent class and gives a score from 0 (unrelated) to 1 "
        f"(the same thing). Its scores for {len(frame):,} pairs of {frame['anchor'].nunique()} "
        f"anchors were compared with those that people gave."
    )


def fields(frame: pd.DataFrame, *, seed: int = 0) -> list[str]:
    """The sections with a correlation significantly unlike that of all pairs."""
    whole = frame["score"].corr(frame["prediction"])
    sections = errors.by_group(frame, "section", names=cpc.titles(), seed=seed)
    sentences = []
    parts = {
        "higher": sections[sections["low"] > whole],
        "lower": sections[sections["high"] < whole],
    }
    for word, part in parts.items():
        names = []
        for row in part.itertuples():
            figures = explore.interval(row.pearson, row.low, row.high)
            names.append(f"{short(row.label)} {figures}")
        if names:
            sentence = f"The correlation is {word} than over all pairs ({whole:.3f})"
            sentences.append(f"{sentence} in {'; '.join(names)}.")
    if sentences:
        return sentences
    total = frame["section"].nunique()
    sentence = f"{len(sections)} of {total} sections have enough pairs and anchors for a correlation of their own"
    if len(sections):
        sentence += "; none is significantly higher or lower than that of all pairs"
    return [f"{sentence}."]


def relations(frame: pd.DataFrame, *, seed: int) -> list[str]:
    """Which kinds of relation are taken for more alike, or less, than they are."""
    table = errors.by_rating(frame, seed=seed)
    table = table[table["rating"] != "0"]
    sentences = []
    parts = {
        "high": table[table["low"] > table["score"]],
        "low": table[table["high"] < table["score"]],
    }
    for word, part in parts.items():
        if part.empty:
            continue
        worst = part.loc[(part["prediction"] - part["score"]).abs().idxmax()]
        kind = f"“{MEANINGS[worst['rating']]}” ({worst['rating']})"
        figures = f"{worst['prediction']:.2f} on average, where people gave {worst['score']:.2f}"
        sentences.append(f"Scored too {word}, of related pairs most of all those rated {kind}: {figures}.")
    return sentences


def use(config: Config, protocol: str | None = None) -> list[str]:
    """What a model of this configuration is meant for, and what not, in sentences."""
    sentences = [
        "Meant for ranking candidate phrases that a person then looks at. Not meant to decide alone "
        "that two terms of a claim mean the same, nor for whole sentences or other languages than "
        "English."
    ]
    if config.listwise:
        sentences.append("All candidates of an anchor are scored together: a pair's score depends on the other ones.")
    if (protocol or config.protocol) == "random":
        sentences.append("The pairs were split at random, so training has seen these anchors: new ones are harder.")
    if not config.rating_weight:
        sentences.append(
            "It has learned scores only, and does not tell narrower from broader, or a part from the opposite."
        )
    if config.data == "sample":
        sentences.append("It was trained on the small sample that comes with patsim: a demonstration, not for use.")
    return sentences
