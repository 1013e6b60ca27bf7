"""What stands on top of a study's pages, for a reader without Python: the headline, what it means, use and limits."""

from pathlib import Path
from typing import Any

import pandas as pd

from patsim_utils.config import Config
from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.ratings import MEANINGS
from patsim_utils.study import errors, explore, plots
from patsim_utils.training.runs import Run


def summary(folder: Path) -> dict[str, Any] | None:
    """Of the run in a folder, for the page's template: headline, picture (HTML), said, good_and_bad, use (sentences).

    None where there is no finished run.
    """
    try:
        run = Run.open(folder)
    except InputError:
        return None
    frame = errors.with_errors(run.predictions)  # all that was held out, as the page Errors has it
    metrics = run.metrics
    figures = [
        f"{explore.interval(metrics[split]['pearson'], *metrics[split]['pearson_ci'])} on {split}"
        for split in ("validation", "test")
        if split in metrics
    ]
    seen = "that training never saw" if metrics["protocol"] == "anchor_disjoint" else "that training has seen"
    said = [
        f"The model reads two phrases and a patent class and gives a score from 0 (unrelated) to 1 (the same thing). "
        f"Its scores for {len(frame):,} pairs of {frame['anchor'].nunique()} anchors {seen} were compared with those "
        f"that people gave. Pearson's correlation of the two stands above, with its interval.",
        f"Of two pairs that people scored differently, it ranks the better one higher in "
        f"{100 * errors.ranked_rightly(frame):.0f} of 100 cases; guessing gets 50.",
    ]
    plots.style()
    picture = plots.forest(explore.results(metrics), "label", caption="Correlation with people's scores")
    return {
        "headline": f"Pearson {', '.join(figures)}, seed {run.config.seed}",
        "picture": picture._repr_html_(),
        "said": said,
        "good_and_bad": [*_fields(frame, seed=run.config.seed), *_relations(frame, seed=run.config.seed)],
        "use": use(run.config, metrics["protocol"]),
    }


def _fields(frame: pd.DataFrame, *, seed: int = 0) -> list[str]:
    """The sections with a correlation significantly above, or below, that of all pairs."""
    whole = frame["score"].corr(frame["prediction"])
    sections = errors.by_group(frame, "section", names=cpc.titles(), seed=seed)
    said = []
    for word, part in (("higher", sections.query("low > @whole")), ("lower", sections.query("high < @whole"))):
        names = [f"{plots.short(r.label)} {explore.interval(r.pearson, r.low, r.high)}" for r in part.itertuples()]
        said += [f"The correlation is {word} than over all pairs ({whole:.3f}) in {'; '.join(names)}."] if names else []
    there, known = frame["section"].nunique(), len(sections)
    told = f"{known} of {there} sections have enough pairs and anchors for a correlation of their own"
    return said or [f"{told}; none is significantly higher or lower than that of all pairs." if known else f"{told}."]


def _relations(frame: pd.DataFrame, *, seed: int) -> list[str]:
    """Which kinds of relation are taken for more alike, or less, than they are."""
    table = errors.by_rating(frame, seed=seed).query("rating != '0'")
    said = []
    for word, part in (("high", table.query("low > score")), ("low", table.query("high < score"))):
        if len(part):
            worst = part.loc[(part["prediction"] - part["score"]).abs().idxmax()]
            kind = f"“{MEANINGS[worst['rating']]}” ({worst['rating']})"
            figures = f"{worst['prediction']:.2f} on average, where people gave {worst['score']:.2f}"
            said.append(f"Scored too {word}, of related pairs most of all those rated {kind}: {figures}.")
    return said


def use(config: Config, protocol: str) -> list[str]:
    """What a model of this configuration is meant for, and what not, in sentences."""
    said = [
        "Meant for ranking candidate phrases that a person then looks at. Not meant to decide alone that two terms of "
        "a claim mean the same, nor for whole sentences or other languages than English."
    ]
    if config.listwise:
        said.append("All candidates of an anchor are scored together: a pair's score depends on the other ones.")
    if protocol == "random":
        said.append("The pairs were split at random, so training has seen these anchors: new ones are harder.")
    if not config.rating_weight:
        said.append("It has learned scores only, and does not tell narrower from broader, or a part from the opposite.")
    if config.data == "sample":
        said.append("It was trained on the small sample that comes with patsim: a demonstration, not for use.")
    return said
