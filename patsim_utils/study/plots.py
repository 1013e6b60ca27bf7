"""The figures and tables of the notebooks: a tidy frame in, a figure out.

A figure is matplotlib's own, with a caption and an alternative text: as the last expression of a cell it shows itself,
and `figure.axes[0]` restyles it. Colours are those of Okabe and Ito, and no fact hangs on colour alone.
"""

import html
import os
import time
from base64 import b64encode
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from patsim_utils.environment import ROOT
from patsim_utils.environment import environment as provenance
from patsim_utils.study.explore import interval, percent
from patsim_utils.study.html_tables import Table

WIDTH, DPI = 5.6, 150  # inches, pixels an inch: sharp on a phone, about 40 kB
BLUE, ORANGE, GREEN, GREY, PALE = "#0072B2", "#D55E00", "#009E73", "#5F6B73", "#D9E2E8"
COLOURS = (BLUE, ORANGE, GREEN, "#CC79A7", "#8A6D00", "#56B4E9", "#E69F00", "#000000", "#777777")
Line = tuple[str, float] | None  # name and place of a dashed line


class Picture(Figure):
    """A figure that JupyterLab and the pages show as <figure>, with `caption` and `alt`."""

    caption: str
    alt: str

    def told(self, caption: str, alt: str) -> "Picture":
        self.caption, self.alt = caption, alt
        return self

    def _repr_html_(self) -> str:
        drawn, png = BytesIO(), BytesIO()
        self.savefig(drawn, format="png", dpi=DPI, facecolor="white")
        Image.open(drawn).convert("RGB").quantize(64).save(png, "png", optimize=True)  # a third of the bytes
        return (
            f'<figure class="mathjax_ignore" style="margin:1em 0;max-width:{self.get_figwidth() * 115:.0f}px">'
            f'<img style="width:100%;height:auto" alt="{html.escape(self.alt)}" '
            f'src="data:image/png;base64,{b64encode(png.getvalue()).decode()}">'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>"
        )


def setup() -> float:
    """Sets the style of all figures; returns the clock (seconds) for `environment`.

    From here on the notebook runs in the repository's root, so that a path means the same as on the command line.
    """
    os.chdir(ROOT)
    style()
    return time.perf_counter()


def style() -> None:
    """Sets the style of all figures."""
    spines = {f"axes.spines.{side}": False for side in ("top", "right")}
    sns.set_theme("paper", "ticks", palette=COLOURS, rc=spines | {"axes.edgecolor": GREY, "legend.frameon": False})


def environment(started: float, *, seed: int) -> Markdown:
    """The last cell of a notebook: commit, versions, seed and the wall time since `setup`."""
    found = provenance(seed=seed) | {"wall time": f"{time.perf_counter() - started:.0f} s"}
    text = " · ".join(f"{name} {value}" for name, value in found.items())
    return Markdown(text.replace("+ ·", "+ (with changes that are not committed) ·"))


def note(text: str) -> HTML:
    """A plain sentence, where there is nothing to draw."""
    return HTML(f'<p class="note">{html.escape(text)}</p>')


def table(frame: pd.DataFrame, caption: str, *, search: bool = False) -> Table | HTML:
    """A frame as a table, with `search` to be sorted and searched; a sentence where it is empty."""
    if frame.empty:
        return note(f"Nothing to show: {caption}")
    return Table(frame, caption, search=search)


def short(text: object) -> str:
    """Text of at most 40 letters, cut between words; a number without needless zeros."""
    text = f"{text:g}" if isinstance(text, float) else str(text)
    return text if len(text) <= 40 else text[:40].rsplit(" ", 1)[0].rstrip(" ,;") + " …"


def plain(names: Iterable[object]) -> list[str]:
    """Names from the data as labels of a figure: short, and `$` is a dollar, never the start of a formula."""
    return [short(name).replace("$", r"\$") for name in names]


def new(height: float, rows: int = 1, **options: Any) -> tuple[Picture, Any]:
    """A figure and its axes, one below the other; pyplot does not know it, so nothing is left open behind it."""
    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


def forest(
    table: pd.DataFrame,
    label: str,
    *,
    caption: str,
    value: str = "pearson",
    axis: str = "Pearson, 95 % interval",
    mark: str = "",
    reference: Line = None,
) -> Picture | HTML:
    """The value and interval of each row of the table, the first on top; a sentence where the table is empty.

    `label`: column of the names; a missing value stands as "undefined". `mark`: column of a second value, a diamond.
    `reference`: name and place of a dashed line. The interval stands in the columns low and high, or <value>_low and
    <value>_high. Values named `difference` have a line at 0; what does not differ significantly is grey and open.
    """
    zero = value == "difference"
    low, high = (f"{value}_{end}" if f"{value}_{end}" in table else end for end in ("low", "high"))
    if table.empty:
        return note(f"The data has too little to show here: {caption}.")
    figure, ax = new(0.9 + 0.32 * len(table))
    rows = table.reset_index(drop=True)
    known = rows[rows[value].notna()]
    unsure = zero & (known[low] <= 0) & (known[high] >= 0)
    for part, colour, fill in ((known[~unsure], BLUE, BLUE), (known[unsure], GREY, "white")):
        ax.hlines(part.index, part[low], part[high], color=colour, lw=2)
        ax.plot(part[value], part.index, "o", color=colour, mfc=fill, ms=6)
    if mark:
        ax.plot(rows[mark], rows.index, "D", color=ORANGE, ms=5, mfc="none", mew=1.6, label=mark)
        figure.legend(loc="outside upper right")
    if zero or reference:
        ax.axvline(reference[1] if reference else 0, color=ORANGE, lw=1.2, ls="--", zorder=0)
    spans = rows[[value, low, high]].itertuples(index=False)
    spoken = ["undefined" if np.isnan(span[0]) else interval(*span) for span in spans]
    for y, text in enumerate(spoken):
        ax.text(1.02, y, text.split(" ")[0], transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    ax.set(yticks=rows.index, yticklabels=plain(rows[label]), ylim=(len(rows) - 0.5, -0.6), xlabel=axis)
    if axis.startswith("Pearson"):  # the same in all figures, so that they can be compared
        ax.set_xlim(min([0, *1.05 * known[low]]), 1)
    ax.grid(axis="x", color=PALE)
    said = told = [f"{short(name)}: {text}" for name, text in zip(rows[label], spoken, strict=True)]
    if mark:
        far = (rows[value] - rows[mark]).abs().idxmax()
        said = [f"farthest from its {mark}: {told[far]}, {mark} {rows[mark][far]:.3f}"]
    elif len(rows) > 2 and len(known):
        said = [f"highest {told[known[value].idxmax()]}", f"lowest {told[known[value].idxmin()]}"]
    said = [*said, f"dashed line: {reference[0]} {reference[1]:.3f}"] if reference else said
    seen = f"{len(rows)} dots, {rows[low].notna().sum()} of them with an interval"
    seen += f"; {axis.removesuffix(', 95 % interval')}: from {rows[value].min():.3f} to {rows[value].max():.3f}"
    seen += f", each beside a diamond for {mark}" * bool(mark)
    return figure.told(f"{caption}: {'; '.join(said)}.", f"{seen}.")


def bars(
    table: pd.DataFrame, label: str, value: str, *, caption: str, axis: str = "", hue: str = "", share: bool = False
) -> Picture | HTML:
    """A bar with its number for each row of the table, those of one label side by side, a colour for each `hue`.

    `share`: the values are shares in [0, 1], shown in percent.
    """
    if table.empty:
        return note(f"The data has too little to show here: {caption}.")
    series = table[hue].nunique() if hue else 1
    figure, ax = new(0.8 + (0.12 + 0.17 * series) * table[label].nunique())
    rows = table.assign(**{label: table[label].astype(str)})
    sns.barplot(rows, x=value, y=label, hue=hue or None, orient="h", errorbar=None, ax=ax)
    tell = percent if share else lambda number: f"{number:,.3g}" if abs(number) < 1000 else f"{number:,.0f}"
    for group in ax.containers:
        ax.bar_label(group, [tell(number) for number in group.datavalues], padding=3, fontsize="small", color=GREY)
    ax.margins(x=0.12)
    ax.set(ylabel="", xlabel=axis or value)
    ax.set_yticks(ax.get_yticks(), plain(table[label].drop_duplicates()))
    if share:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if hue:
        sns.move_legend(ax, "lower right", bbox_to_anchor=(1, 1), ncols=4, title=None)
    ends = table.iloc[[table[value].argmax(), table[value].argmin()]]
    most, least = (
        f"{short(row[label])}{f' ({row[hue]})' if hue else ''}, {tell(row[value])}" for _, row in ends.iterrows()
    )
    return figure.told(f"{caption}; the longest bar: {most}.", f"{len(table)} bars, the shortest for {least}.")


def heatmap(counts: pd.DataFrame, *, caption: str) -> Picture:
    """A square table of counts: percent of each row, with the counts beneath; the caption says how much is in place."""
    values = counts.to_numpy()
    share = values / np.maximum(values.sum(1, keepdims=True), 1)
    texts = [f"{100 * s:.0f} %\n{n:,}" if n else "" for s, n in zip(share.flat, values.flat, strict=True)]
    names = [short(name) for name in counts]
    figure, ax = new(1.0 + 0.5 * len(counts))
    options = {"xticklabels": names, "yticklabels": names, "cmap": "Blues", "vmin": 0, "vmax": 1, "cbar": False}
    sns.heatmap(share, annot=np.reshape(texts, values.shape), fmt="", annot_kws={"size": "small"}, ax=ax, **options)
    ax.set(xlabel=counts.columns.name, ylabel=counts.index.name)
    ax.tick_params(length=0, rotation=0)
    told = "; ".join(f"{name} {percent(share[i, i])}" for i, name in enumerate(names) if values[i].sum())
    caption += f": {percent(np.trace(values) / values.sum())} of these pairs are on the diagonal."
    return figure.told(caption, f"Squares; those on the diagonal: {told}.")


def lines(
    table: pd.DataFrame, x: str, columns: Mapping[str, str], *, caption: str, smooth: int = 1, reference: Line = None
) -> Picture:
    """A panel for each of the columns (and their names with units) over `x`; the caption has first, last and highest.

    `smooth`: rows of a running mean, with the values themselves pale behind it. `reference`: name and height of a line.
    """
    figure, axes = new(0.6 + 1.5 * len(columns), rows=len(columns), sharex=True, squeeze=False)
    said = []
    for ax, (column, name), colour in zip(axes[:, 0], columns.items(), COLOURS, strict=False):
        mean = table[column].rolling(smooth, min_periods=1).mean()
        ax.plot(table[x], table[column], color=colour, lw=0.8, alpha=0.25)
        ax.plot(table[x], mean, color=colour, lw=2, marker="o" if len(table) <= 12 else "")
        if reference:
            ax.axhline(reference[1], color=ORANGE, ls="--", lw=1.2, label=reference[0])
        else:
            top = max(1.08 * table[column].quantile(0.995), 1.02 * mean.max())  # single high values may lie above
            ax.set_ylim(bottom=min(0.0, table[column].min()), top=top or 1)
        ax.set_ylabel(name)
        form = ".3f" if reference else ".3g"
        whole = mean.iloc[min(smooth, len(mean)) - 1 :]
        highest = f", at most {whole.max():{form}}" if whole.max() > max(whole.iloc[0], whole.iloc[-1]) else ""
        said.append(f"{name} {whole.iloc[0]:{form}} to {whole.iloc[-1]:{form}}{highest}")
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[-1, 0].set_xlabel(x)
    said += [f"dashed line: {reference[0]} {reference[1]:.3f}"] if reference else []
    seen = f"{' and '.join(columns.values())} over {len(table)} values of {x}, a line each."
    return figure.told(f"{caption}: {'; '.join(said)}.", seen)


def trade_off(tables: Mapping[str, pd.DataFrame]) -> Picture | HTML:
    """Precision and recall over the threshold, from `selection.thresholds`, a panel for each of the tables."""
    known = {name: table for name, table in tables.items() if len(table)}
    if not known:
        return note("No pair is rated so high that there would be something to find.")
    figure, axes = new(0.6 + 2.1 * len(known), rows=len(known), sharex=True, squeeze=False)
    said, seen = [], []
    for ax, (name, table) in zip(axes[:, 0], known.items(), strict=True):
        for column, colour, line in (("precision", BLUE, "-"), ("recall", ORANGE, "--")):
            defined = table[column].dropna()  # precision is undefined where nothing is kept
            seen.append(f"{column} of {name} from {defined.iloc[0]:.2f} to {defined.iloc[-1]:.2f}" * bool(len(defined)))
            ends = table["threshold"], table[f"{column}_low"], table[f"{column}_high"]
            ax.plot(table["threshold"], table[column], color=colour, ls=line, lw=2, label=column)
            ax.fill_between(*ends, color=colour, alpha=0.15, lw=0)
        ax.set(ylim=(0, 1.02), ylabel=f"share, {name}")
        ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        ax.grid(color=PALE)
        half = table.iloc[(table["threshold"] - 0.5).abs().argmin()]
        kept = "" if np.isnan(half["precision"]) else f", precision {half['precision']:.2f}"
        said.append(f"{name}: recall {half['recall']:.2f}{kept}")
    axes[0, 0].legend(loc="lower left")
    axes[-1, 0].set_xlabel("threshold: pairs with this score or more are kept")
    caption = f"At a threshold of 0.5, {'; '.join(said)}. Bands: 95 % intervals."
    return figure.told(caption, f"As the threshold goes from 0.1 to 0.9: {', '.join(filter(None, seen))}.")


def histogram(table: pd.DataFrame, value: str, *, axis: str, caption: str, hue: str | None = None) -> Picture:
    """How often a column holds each whole number, in percent of each `hue`; the caption has mean and range."""
    figure, ax = new(2.4)
    options = {"discrete": True, "stat": "percent", "common_norm": False, "multiple": "dodge", "shrink": 0.85}
    sns.histplot(table, x=value, hue=hue, ax=ax, **options)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel=axis, ylabel="percent")
    groups = table.groupby(hue, sort=False)[value] if hue else [("", table[value])]
    told = "; ".join(f"{name} {v.min()} to {v.max()}, mean {v.mean():.1f}".strip() for name, v in groups)
    return figure.told(f"{caption}: {told}.", f"A histogram of {axis} with {len(table):,} values.")


def losses(history: pd.DataFrame) -> Picture:
    """A run's history: every loss term in use at every step, times its weight, pale, with its running mean."""
    names = {"ordinal": "ordinal loss", "contrast": "weight x contrast", "rating": "weight x rating"}
    names = {term: name for term, name in names.items() if history[term].any()}
    window = max(2, len(history) // 25)
    return lines(history, "step", names, smooth=window, caption=f"Losses, running mean of {window} steps")


def epochs(found: Mapping[str, Any]) -> Picture:
    """A run's metrics: the validation correlation after each epoch, beside the pretrained cosine (if defined)."""
    cosine = found["baselines"]["pretrained_cosine"]["validation"]
    reference = ("pretrained cosine", cosine["pearson"]) if cosine else None
    who = ", by the encoder without the features" if "features" in found["baselines"] else ""
    options = {"reference": reference, "caption": f"Validation after each epoch{who}; the best is kept"}
    return lines(pd.DataFrame(found["epochs"]), "epoch", {"pearson": "Pearson"}, **options)


def calibration(table: pd.DataFrame) -> Picture:
    """From `analysis.calibration`: mean score against mean prediction, with intervals, beside the diagonal."""
    figure, ax = new(3.4)
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1)
    ax.vlines(table["prediction"], table["low"], table["high"], color=BLUE, lw=2)
    ax.plot(table["prediction"], table["score"], "o-", color=BLUE, lw=1, ms=5)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.05), xlabel="mean prediction of the bin", ylabel="mean score of the bin")
    gap = np.average((table["prediction"] - table["score"]).abs(), weights=table["n"])
    outside = ((table["prediction"] < table["low"]) | (table["prediction"] > table["high"])).sum()  # if there are ends
    caption = f"Mean score with its interval in {len(table)} bins of the prediction; dashed: no error. Mean predictions"
    caption += f" of bins are {gap:.3f} off on average (single pairs by more), significantly in {outside} of the bins."
    below = (table["score"] < table["prediction"]).sum()
    scores = f"mean scores from {table['score'].min():.2f} to {table['score'].max():.2f}"
    return figure.told(caption, f"A curve of {len(table)} points, {scores}, {below} of them below the dashed diagonal.")
