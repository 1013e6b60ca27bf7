"""The figures of the notebooks: a tidy frame in, a figure out.

A figure is matplotlib's own, with a caption and an alternative text. As the last expression of a
cell it shows itself, and `figure.axes[0]` restyles it. No fact hangs on colour alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from patsim_utils.study.explore import percent
from patsim_utils.study.look.contrast import legible_on
from patsim_utils.study.look.figures import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    PALE,
    SMALL,
    Picture,
    labels,
    new,
    note,
    setup,
    short,
    style,
)
from patsim_utils.study.look.figures import provenance as environment
from patsim_utils.study.look.forests import Line, forest
from patsim_utils.study.look.html_tables import table
from patsim_utils.study.look.markup import Shown, answer

# What notebooks use beside the figures
__all__ = ["answer", "environment", "forest", "note", "setup", "style", "table"]

POINTS = 400  # of a line at most: more are not seen, and make a page heavy


def _number(value: float) -> str:
    """Three digits; all of them of a large number."""
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def bars(
    table: pd.DataFrame,
    label: str,
    value: str,
    *,
    caption: str,
    axis: str = "",
    hue: str = "",
    share: bool = False,
    own: str = "",
) -> Picture | Shown:
    """A bar with its number for each row of the table, a colour for each `hue`.

    `share`: the values are in [0, 1], shown in percent. `own`: how one's own names start; others are grey.
    """
    if table.empty:
        return note(f"The data has too little to show here: {caption}.")
    text_of = percent if share else _number
    series = table[hue].nunique() if hue else 1
    figure, ax = new(0.8 + (0.12 + 0.17 * series) * table[label].nunique())
    rows = table.assign(**{label: table[label].astype(str)})
    sns.barplot(rows, x=value, y=label, hue=hue or None, orient="h", errorbar=None, ax=ax)
    for group in ax.containers:
        numbers = [text_of(number) for number in group.datavalues]
        ax.bar_label(group, numbers, padding=3, fontsize=SMALL, color=GREY)
    if own and not hue:
        _grey_others(ax, rows[label], own)
        caption += " (grey: baselines)"
    ax.margins(x=0.12)
    ax.set(ylabel="", xlabel=axis or value)
    ax.set_yticks(ax.get_yticks(), labels(table[label].drop_duplicates()))
    if share:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if hue:
        sns.move_legend(ax, "lower right", bbox_to_anchor=(1, 1), ncols=4, title=None)
    names = [short(name) for name in table[label]]
    if hue:
        names = [f"{name} ({group})" for name, group in zip(names, table[hue], strict=True)]
    most = table[value].argmax()
    least = table[value].argmin()
    values = table[value].to_numpy()
    return figure.describe(
        f"{caption}; the longest bar: {names[most]}, {text_of(values[most])}.",
        f"{len(table)} bars, the shortest for {names[least]}, {text_of(values[least])}.",
    )


def _grey_others(ax: Axes, names: pd.Series, own: str) -> None:
    """Paints the bars whose names do not start with `own`."""
    for bar, name in zip(ax.patches, names.drop_duplicates(), strict=True):
        if not name.startswith(own):
            bar.set_facecolor(GREY)


def heatmap(counts: pd.DataFrame, *, caption: str) -> Picture:
    """A square table of counts: percent of each row, with the counts beneath.

    The caption says how much is on the diagonal.
    """
    values = counts.to_numpy()
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    names = [short(name) for name in counts]
    size = len(counts)
    figure, ax = new(1.0 + 0.42 * size)
    colours = colormaps["Blues"](shares)
    ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors=PALE, linewidth=0.5)
    for row, column in np.argwhere(values > 0):
        text = f"{100 * shares[row, column]:.0f} %\n{values[row, column]:,}"
        colour = legible_on(colours[row, column])
        middle = {"ha": "center", "va": "center", "fontsize": SMALL}
        ax.text(column + 0.5, row + 0.5, text, color=colour, **middle)
    middles = np.arange(size) + 0.5
    ax.set(xticks=middles, yticks=middles, xticklabels=names, yticklabels=names, ylim=(size, 0))
    ax.set(xlabel=counts.columns.name, ylabel=counts.index.name)
    ax.tick_params(length=0)
    inside = [f"{name} {percent(shares[i, i])}" for i, name in enumerate(names) if values[i].sum()]
    diagonal = percent(np.trace(values) / values.sum())
    return figure.describe(
        f"{caption}: {diagonal} of these pairs are on the diagonal.",
        f"Squares; those on the diagonal: {'; '.join(inside)}.",
    )


def lines(
    table: pd.DataFrame,
    x: str,
    columns: Mapping[str, str],
    *,
    caption: str,
    smooth: int = 1,
    reference: Line | None = None,
) -> Picture:
    """A panel for each of the columns (and their names with units) over `x`.

    The caption has first, last and highest. `smooth`: rows of a running mean, with the values
    themselves pale behind it. `reference`: name and height of a line.
    """
    figure, axes = new(0.6 + 1.5 * len(columns), rows=len(columns), sharex=True, squeeze=False)
    step = max(1, len(table) // POINTS)
    marker = "o" if len(table) <= 12 else ""
    form = ".3f" if reference else ".3g"
    facts = []
    for ax, (column, name), colour in zip(axes[:, 0], columns.items(), COLOURS, strict=False):
        mean = table[column].rolling(smooth, min_periods=1).mean()
        ax.plot(table[x][::step], table[column][::step], color=colour, lw=0.8, alpha=0.25)
        ax.plot(table[x][::step], mean[::step], color=colour, lw=2, marker=marker)
        if reference:
            ax.axhline(reference[1], color=ORANGE, ls="--", lw=1.2, label=reference[0])
        else:
            # single high values may lie above
            top = max(1.08 * table[column].quantile(0.995), 1.02 * mean.max())
            ax.set_ylim(bottom=min(0.0, table[column].min()), top=top or 1)
        ax.set_ylabel(name)
        whole = mean.iloc[min(smooth, len(mean)) - 1 :]
        fact = f"{name} {whole.iloc[0]:{form}} to {whole.iloc[-1]:{form}}"
        if whole.max() > max(whole.iloc[0], whole.iloc[-1]):
            fact += f", at most {whole.max():{form}}"
        facts.append(fact)
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_xlabel(x)
    if reference:
        facts.append(f"dashed line: {reference[0]} {reference[1]:.3f}")
    alt = f"{' and '.join(columns.values())} over {len(table)} values of {x}, a line each."
    return figure.describe(f"{caption}: {'; '.join(facts)}.", alt)


def trade_off(tables: Mapping[str, pd.DataFrame]) -> Picture | Shown:
    """Precision and recall over the threshold, a panel for each table.

    The tables are those of `errors.thresholds`.
    """
    known = {name: table for name, table in tables.items() if len(table)}
    if not known:
        return note("No pair is rated so high that there would be something to find.")
    figure, axes = new(0.6 + 1.6 * len(known), rows=len(known), sharex=True, squeeze=False)
    facts = []
    ranges = []
    for ax, (name, curve) in zip(axes[:, 0], known.items(), strict=True):
        for column, colour, line in (("precision", BLUE, "-"), ("recall", ORANGE, "--")):
            ax.plot(curve["threshold"], curve[column], color=colour, ls=line, lw=2, label=column)
            band = [curve[f"{column}_low"], curve[f"{column}_high"]]
            ax.fill_between(curve["threshold"], *band, color=colour, alpha=0.15, lw=0)
            defined = curve[column].dropna()  # precision is undefined where nothing is kept
            if len(defined):
                ends = f"from {defined.iloc[0]:.2f} to {defined.iloc[-1]:.2f}"
                ranges.append(f"{column} of {name} {ends}")
        ax.set(ylim=(0, 1.02), ylabel=name.replace(" or ", "\nor "))
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.grid(color=PALE)
        half = curve.iloc[(curve["threshold"] - 0.5).abs().argmin()]
        fact = f"{name}: recall {half['recall']:.2f}"
        if not np.isnan(half["precision"]):
            fact += f", precision {half['precision']:.2f}"
        facts.append(fact)
    axes[0, 0].legend(loc="lower left")
    axes[-1, 0].set_xlabel("threshold: pairs with this score or more are kept")
    caption = f"At a threshold of 0.5, {'; '.join(facts)}. Bands: 95 % intervals."
    return figure.describe(caption, f"As the threshold goes from 0.1 to 0.9: {', '.join(ranges)}.")


def histogram(
    table: pd.DataFrame,
    value: str,
    *,
    axis: str,
    caption: str,
    hue: str | None = None,
) -> Picture:
    """How often a column holds each whole number, in percent of each `hue`.

    The caption has mean and range.
    """
    figure, ax = new(2.4)
    options: dict[str, Any] = {"discrete": True, "stat": "percent", "common_norm": False}
    options |= {"multiple": "dodge", "shrink": 0.85}
    sns.histplot(table, x=value, hue=hue, ax=ax, **options)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel=axis, ylabel="percent")
    groups = table.groupby(hue, sort=False)[value] if hue else [("", table[value])]
    facts = []
    for name, part in groups:
        fact = f"{name} {part.min()} to {part.max()}, mean {part.mean():.1f}"
        facts.append(fact.strip())
    alt = f"A histogram of {axis} with {len(table):,} values."
    return figure.describe(f"{caption}: {'; '.join(facts)}.", alt)
