"""The figures of one run: its losses, its epochs, its calibration."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from patsim_utils.study.look.figures import BLUE, GREY, Picture, new
from patsim_utils.study.plots import lines

TERMS = {"ordinal": "ordinal loss", "contrast": "weight x contrast", "rating": "weight x rating"}


def losses(history: pd.DataFrame) -> Picture:
    """Every loss term in use at every step, times its weight, with its running mean."""
    names = {term: name for term, name in TERMS.items() if history[term].any()}
    window = max(2, len(history) // 25)
    caption = f"Losses, running mean of {window} steps"
    return lines(history, "step", names, smooth=window, caption=caption)


def epochs(metrics: Mapping[str, Any]) -> Picture:
    """The validation correlation after each epoch, beside the pretrained cosine."""
    cosine = metrics["baselines"]["pretrained_cosine"]["validation"]
    reference = None
    if cosine:
        reference = ("pretrained cosine", cosine["pearson"])
    caption = "Validation after each epoch; the best is kept"
    if "features" in metrics["baselines"]:
        caption = "Validation after each epoch, by the encoder without the features; the best is kept"
    table = pd.DataFrame(metrics["epochs"])
    return lines(table, "epoch", {"pearson": "Pearson"}, reference=reference, caption=caption)


def calibration(table: pd.DataFrame) -> Picture:
    """Mean score against mean prediction, with intervals, beside the diagonal.

    The table is that of `errors.calibration`.
    """
    figure, ax = new(2.7)
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1)
    ax.vlines(table["prediction"], table["low"], table["high"], color=BLUE, lw=2)
    ax.plot(table["prediction"], table["score"], "o-", color=BLUE, lw=1, ms=5)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05))
    ax.set(xlabel="mean prediction of the bin", ylabel="mean score of the bin")
    gap = np.average((table["prediction"] - table["score"]).abs(), weights=table["n"])
    # False without an interval
    outside = (table["prediction"] < table["low"]) | (table["prediction"] > table["high"])
    caption = (
        f"Mean score with its interval in {len(table)} bins of the prediction; dashed: no error. "
        f"Mean predictions of bins are {gap:.3f} off on average (single pairs by more), "
        f"significantly in {outside.sum()} of the bins."
    )
    below = (table["score"] < table["prediction"]).sum()
    scores = f"mean scores from {table['score'].min():.2f} to {table['score'].max():.2f}"
    alt = f"A curve of {len(table)} points, {scores}, {below} of them below the dashed diagonal."
    return figure.describe(caption, alt)
