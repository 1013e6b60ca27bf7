"""The figures of the notebooks: a tidy frame in, a figure out.

A figure is matplotlib's own, with a caption and an alternative text: as the last expression of a cell it shows itself,
and `figure.axes[0]` restyles it. No fact hangs on colour alone.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import MaxNLocator, PercentFormatter

from patsim_utils.study.explore import interval, percent
from patsim_utils.study.look.figures import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    PALE,
    Picture,
    labels,
    new,
    note,
    setup,
    short,
    style,
)
from patsim_utils.study.look.figures import provenance as environment
from patsim_utils.study.look.html_tables import table
from patsim_utils.study.look.markup import Shown, answer

__all__ = ["answer", "environment", "note", "setup", "style", "table"]  # what notebooks use beside the figures

Line = tuple[str, float]  # name and position of a dashed line
POINTS = 400  # of a line at most: more are not seen, and make a page heavy
LEGIBLE = 4.5  # least contrast of a number in a heatmap with its square


def forest(
    table: pd.DataFrame,
    label: str,
    *,
    caption: str,
    value: str = "pearson",
    axis: str = "Pearson, 95 % interval",
    mark: str = "",
    colour: str = "",
    reference: Line | None = None,
) -> Picture | Shown:
    """The value and interval of each row of the table, the first on top; a sentence where the table is empty.

    `label`: column of the names; a missing value stands as "undefined". `mark`: column of a second value, a diamond.
    `colour`: column of the rows' colours. `reference`: name and position of a dashed line. The interval stands in the
    columns low and high, or <value>_low and <value>_high. Values named `difference` have a line at 0; what does not
    differ significantly is grey and open.
    """
    if table.empty:
        return note(f"The data has too little to show here: {caption}.")
    rows = table.reset_index(drop=True)
    rows = rows.rename(columns={f"{value}_low": "low", f"{value}_high": "high"})
    spans = rows[[value, "low", "high"]].to_numpy(dtype=float)
    texts = ["undefined" if np.isnan(span[0]) else interval(*span) for span in spans]
    figure, ax = new(0.9 + 0.32 * len(rows))
    _draw_intervals(ax, rows, value, rows[colour] if colour else BLUE)
    if mark:
        ax.plot(rows[mark], rows.index, "D", color=ORANGE, ms=5, mfc="none", mew=1.6, label=mark)
        figure.legend(loc="outside upper right")
    if reference:
        ax.axvline(reference[1], color=ORANGE, lw=1.2, ls="--", zorder=0)
    elif value == "difference":
        ax.axvline(0, color=ORANGE, lw=1.2, ls="--", zorder=0)
    _name_rows(ax, rows[label], texts)
    ax.set_xlabel(axis)
    if axis.startswith("Pearson"):  # the same in all figures, so that they can be compared
        ax.set_xlim(min([0, *1.05 * rows["low"].dropna()]), 1)
    facts = _extremes(rows, label, value, texts)
    if mark:
        facts = [_farthest(rows, label, value, mark, texts)]
    if reference:
        facts.append(f"dashed line: {reference[0]} {reference[1]:.3f}")
    alt = f"{len(rows)} dots, {rows['low'].notna().sum()} of them with an interval"
    alt += f"; {axis.removesuffix(', 95 % interval')}: from {rows[value].min():.3f} to {rows[value].max():.3f}"
    if mark:
        alt += f", each beside a diamond for {mark}"
    return figure.describe(f"{caption}: {'; '.join(facts)}.", f"{alt}.")


def _draw_intervals(ax: Axes, rows: pd.DataFrame, value: str, colours: pd.Series | str) -> None:
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
        ax.text(1.02, row, number, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
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
    return f"farthest from its {mark}: {short(rows[label][row])}: {texts[row]}, {mark} {rows[mark][row]:.3f}"


def _number(value: float) -> str:
    """Three digits; all of them of a large number."""
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def bars(
    table: pd.DataFrame, label: str, value: str, *, caption: str, axis: str = "", hue: str = "", share: bool = False
) -> Picture | Shown:
    """A bar with its number for each row of the table, those of one label side by side, a colour for each `hue`.

    `share`: the values are shares in [0, 1], shown in percent.
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
        ax.bar_label(group, numbers, padding=3, fontsize="small", color=GREY)
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


def heatmap(counts: pd.DataFrame, *, caption: str) -> Picture:
    """A square table of counts: percent of each row, with the counts beneath; the caption says how much is in place."""
    values = counts.to_numpy()
    shares = values / np.maximum(values.sum(axis=1, keepdims=True), 1)
    names = [short(name) for name in counts]
    size = len(counts)
    figure, ax = new(1.0 + 0.5 * size)
    colours = colormaps["Blues"](shares)
    ax.pcolormesh(shares, cmap="Blues", vmin=0, vmax=1, edgecolors=PALE, linewidth=0.5)
    for row, column in np.argwhere(values > 0):
        text = f"{100 * shares[row, column]:.0f} %\n{values[row, column]:,}"
        colour = legible_on(colours[row, column])
        ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize="small", color=colour)
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


def legible_on(colour: tuple[float, ...]) -> str:
    """Nearly black or nearly white, whichever stands out more against a colour; always by LEGIBLE or more."""
    return max(("#000001", "#fffffe"), key=lambda ink: contrast(ink, colour))


def contrast(first: str | tuple[float, ...], second: str | tuple[float, ...]) -> float:
    """Contrast of two colours, 1 to 21, as the Web Content Accessibility Guidelines define it."""
    brighter, darker = sorted([_luminance(first), _luminance(second)], reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(colour: str | tuple[float, ...]) -> float:
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def lines(
    table: pd.DataFrame,
    x: str,
    columns: Mapping[str, str],
    *,
    caption: str,
    smooth: int = 1,
    reference: Line | None = None,
) -> Picture:
    """A panel for each of the columns (and their names with units) over `x`; the caption has first, last and highest.

    `smooth`: rows of a running mean, with the values themselves pale behind it. `reference`: name and height of a line.
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
            top = max(1.08 * table[column].quantile(0.995), 1.02 * mean.max())  # single high values may lie above
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
    """Precision and recall over the threshold, from `errors.thresholds`, a panel for each of the tables."""
    known = {name: table for name, table in tables.items() if len(table)}
    if not known:
        return note("No pair is rated so high that there would be something to find.")
    figure, axes = new(0.6 + 2.1 * len(known), rows=len(known), sharex=True, squeeze=False)
    facts = []
    ranges = []
    for ax, (name, curve) in zip(axes[:, 0], known.items(), strict=True):
        for column, colour, line in (("precision", BLUE, "-"), ("recall", ORANGE, "--")):
            ax.plot(curve["threshold"], curve[column], color=colour, ls=line, lw=2, label=column)
            lows = curve[f"{column}_low"]
            ax.fill_between(curve["threshold"], lows, curve[f"{column}_high"], color=colour, alpha=0.15, lw=0)
            defined = curve[column].dropna()  # precision is undefined where nothing is kept
            if len(defined):
                ranges.append(f"{column} of {name} from {defined.iloc[0]:.2f} to {defined.iloc[-1]:.2f}")
        ax.set(ylim=(0, 1.02), ylabel=f"share, {name}")
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


def histogram(table: pd.DataFrame, value: str, *, axis: str, caption: str, hue: str | None = None) -> Picture:
    """How often a column holds each whole number, in percent of each `hue`; the caption has mean and range."""
    figure, ax = new(2.4)
    options: dict[str, Any] = {"discrete": True, "stat": "percent", "common_norm": False}
    options |= {"multiple": "dodge", "shrink": 0.85}
    sns.histplot(table, x=value, hue=hue, ax=ax, **options)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel=axis, ylabel="percent")
    groups = table.groupby(hue, sort=False)[value] if hue else [("", table[value])]
    facts = [f"{name} {part.min()} to {part.max()}, mean {part.mean():.1f}".strip() for name, part in groups]
    return figure.describe(f"{caption}: {'; '.join(facts)}.", f"A histogram of {axis} with {len(table):,} values.")
