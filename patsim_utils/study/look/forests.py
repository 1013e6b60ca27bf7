"""A figure of values with their intervals, one below the other."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from patsim_utils.study.explore import interval
from patsim_utils.study.look.figures import BLUE, GREY, ORANGE, PALE, SMALL, Picture, labels, new, short
from patsim_utils.study.look.markup import Shown, note

Line = tuple[str, float]  # name and position of a dashed line
DASHED: dict[str, Any] = {"color": ORANGE, "lw": 1.2, "ls": "--", "zorder": 0}


def forest(
    table: pd.DataFrame,
    label: str,
    *,
    caption: str,
    value: str = "pearson",
    axis: str = "Pearson, 95 % interval",
    mark: str = "",
    colour: str = "",
    own: str = "",
    reference: Line | None = None,
) -> Picture | Shown:
    """The value and interval of each row, the first on top; a sentence where there is none.

    `label`: column of the names. `mark`: column of a second value, a diamond. `colour`: column of
    the rows' colours. `own`: how the names of one's own systems start; the others, baselines, are grey.
    `reference`: name and position of a dashed line. The interval stands in the
    columns low and high, or <value>_low and <value>_high. A missing value stands as "undefined".
    Values named `difference` have a line at 0; what does not differ significantly is grey, open.
    """
    if table.empty:
        return note(f"The data has too little to show here: {caption}.")
    rows = _with_interval(table.reset_index(drop=True), value)
    spans = rows[[value, "low", "high"]].to_numpy(dtype=float)
    texts = ["undefined" if np.isnan(span[0]) else interval(*span) for span in spans]
    figure, ax = new(0.9 + 0.27 * len(rows))
    colours = rows[colour] if colour else _own_or_grey(rows[label], own)
    _draw_intervals(ax, rows, value, colours)
    if mark:
        ax.plot(rows[mark], rows.index, "D", color=ORANGE, ms=5, mfc="none", mew=1.6, label=mark)
        figure.legend(loc="outside upper right")
    _draw_dashed(ax, value, reference)
    _name_rows(ax, rows[label], texts)
    ax.set_xlabel(axis)
    if axis.startswith("Pearson"):  # the same in all figures, so that they can be compared
        ax.set_xlim(min([0, *1.05 * rows["low"].dropna()]), 1)
    facts = [_farthest(rows, label, value, mark, texts)] if mark else _extremes(rows, label, value, texts)
    if own and (colours == GREY).any():
        facts.append("grey: baselines")
    if reference:
        facts.append(f"dashed line: {reference[0]} {reference[1]:.3f}")
    alt = _said(rows, value, axis, mark)
    return figure.describe(f"{caption}: {'; '.join(facts)}.", alt)


def _with_interval(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """The rows with the interval of `value` in low and high, in place of another value's."""
    if f"{value}_low" not in rows:
        return rows
    return rows.assign(low=rows[f"{value}_low"], high=rows[f"{value}_high"])


def _draw_dashed(ax: Axes, value: str, reference: Line | None) -> None:
    """The line of the reference; of differences, that of none."""
    if reference:
        ax.axvline(reference[1], **DASHED)
    elif value == "difference":
        ax.axvline(0, **DASHED)


def _own_or_grey(names: pd.Series, own: str) -> pd.Series:
    """Blue for names that start with `own`, grey for the others."""
    starts = names.astype(str).str.startswith(own)
    return pd.Series(BLUE, names.index).where(starts, GREY)


def _said(rows: pd.DataFrame, value: str, axis: str, mark: str) -> str:
    """What a person hears of a figure of dots with intervals."""
    quantity = axis.removesuffix(", 95 % interval")
    values = rows[value]
    text = f"{len(rows)} dots, {rows['low'].notna().sum()} of them with an interval"
    text += f"; {quantity}: from {values.min():.3f} to {values.max():.3f}"
    if mark:
        text += f", each beside a diamond for {mark}"
    return f"{text}."


def _draw_intervals(ax: Axes, rows: pd.DataFrame, value: str, colours: pd.Series) -> None:
    """A dot and a line for each row; grey and open where a difference is not significant."""
    rows = rows.assign(colour=colours, filling=colours)
    unsure = (rows["low"] <= 0) & (rows["high"] >= 0) & (value == "difference")
    rows.loc[unsure, ["colour", "filling"]] = [GREY, "white"]
    known = rows[rows[value].notna()]
    for (colour, filling), part in known.groupby(["colour", "filling"], sort=False):
        ax.hlines(part.index, part["low"], part["high"], color=colour, lw=2)
        ax.plot(part[value], part.index, "o", color=colour, mfc=filling, ms=6)


def _name_rows(ax: Axes, names: pd.Series, texts: list[str]) -> None:
    """Names at the left of the rows, their numbers at the right, the first row on top."""
    for row, text in enumerate(texts):
        number = text.split(" ")[0]
        options = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": SMALL}
        ax.text(1.02, row, number, **options)
    ax.set(yticks=range(len(names)), yticklabels=labels(names), ylim=(len(names) - 0.5, -0.6))
    ax.grid(axis="x", color=PALE)


def _extremes(rows: pd.DataFrame, label: str, value: str, texts: list[str]) -> list[str]:
    """Name and value of the highest and the lowest row; of all where there are two or less."""
    named = [f"{short(name)}: {text}" for name, text in zip(rows[label], texts, strict=True)]
    if len(rows) <= 2 or rows[value].isna().all():
        return named
    return [f"highest {named[rows[value].idxmax()]}", f"lowest {named[rows[value].idxmin()]}"]


def _farthest(rows: pd.DataFrame, label: str, value: str, mark: str, texts: list[str]) -> str:
    """The row whose value is farthest from its mark, in words."""
    row = (rows[value] - rows[mark]).abs().idxmax()
    name = short(rows[label][row])
    return f"farthest from its {mark}: {name}: {texts[row]}, {mark} {rows[mark][row]:.3f}"
