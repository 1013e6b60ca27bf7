"""The figures and tables of the notebooks: a table of `analysis` in, one HTML figure displayed, nothing
returned.

A figure is an inline PNG with a caption and an alternative text that both carry its numbers, so that a page
is one file and says the same to those who cannot see it. Colours are of the Okabe-Ito palette, and no fact
hangs on colour alone. Figures are narrow and tall: their letters stay readable at phone width. Every bar or
whisker around a mark is a 95 % interval over anchors.
"""

import html
import time
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from IPython.display import HTML, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, NullLocator

from patsim_utils.readings import interval, percent

WIDTH, DPI = 4.8, 160  # inches, pixels an inch: 768 pixels, sharp on a phone and about 40 kB
BLUE, ORANGE, GREEN, GREY, PALE = "#0072B2", "#D55E00", "#009E73", "#5F6B73", "#D9E2E8"
SHADES = ("#C9D3D9", "#9DC3DC", "#5BA3CF", "#0072B2", "#003F66")  # scores 0 to 1
SPLITS = {"train": GREY, "validation": BLUE, "test": ORANGE}
SYSTEMS = {"word-Jaccard": GREY, "zero-shot cosine": ORANGE, "evidence alone": GREEN, "trained model": BLUE}
SECTIONS = dict(
    zip(
        "ABCDEFGHY",
        ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#56B4E9", "#E69F00", "#000000", "#777777"),
        strict=True,
    )
)

HIDDEN = "The pairs themselves are left out of this page: show_pairs is false."


def setup() -> float:
    """Sets the style of all figures; returns the clock (seconds) for `readings.environment`."""
    sns.set_theme(
        style="ticks",
        rc={
            "font.size": 10.5,
            "axes.labelsize": 10.5,
            "xtick.labelsize": 10,
            "ytick.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.grid": False,
            "legend.frameon": False,
        },
    )
    return time.perf_counter()


# ----------------------------------------------------------------------------------------------------- the HTML of it


def note(text: str) -> None:
    """Displays a plain sentence, where there is nothing to draw."""
    display(HTML(f'<p class="note">{html.escape(text)}</p>'))


def _new(height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    # a Figure without pyplot: nothing is left open behind it
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.1, h_pad=0.06)
    return figure, figure.subplots(rows, 1, **options)


def _show(figure: Figure, *, caption: str, alt: str) -> None:
    png = BytesIO()
    figure.savefig(png, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    width = round(figure.get_figwidth() * 115)
    display(
        HTML(
            f'<figure style="margin:1em 0"><img style="width:{width}px;max-width:100%;height:auto" '
            f'alt="{html.escape(alt)}" src="data:image/png;base64,{b64encode(png.getvalue()).decode()}">'
            f'<figcaption style="max-width:{width}px">{html.escape(caption)}</figcaption></figure>'
        )
    )


def _cell(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return f"{value:,}" if isinstance(value, int | np.integer) else html.escape(str(value))


def _style(column: pd.Series) -> str:
    """Numbers on the right, long texts in a column that is not squeezed to a word a line."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        return "text-align:right"
    return "min-width:13em" if column.astype(str).str.len().max() > 30 else "text-align:left"


def _framed(heads: Sequence[str], frame: pd.DataFrame, caption: str, *, height: str) -> str:
    """A table in a box of its own that scrolls, so that the page never does; keyboards can reach the box.

    `heads` is the HTML inside each column's header. Numbers carry their full value for sorting.
    """
    styles = [_style(frame[column]) for column in frame]
    numeric = [style == "text-align:right" for style in styles]
    head = "".join(f'<th scope="col" style="{style}">{inner}</th>' for style, inner in zip(styles, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="{style}"' + (f' data-value="{float(value)}"' if number else "") + f">{_cell(value)}</td>"
            for style, number, value in zip(styles, numeric, row, strict=True)
        )
        + "</tr>"
        for row in frame.itertuples(index=False)
    )
    return (
        f'<div style="overflow:auto;max-height:{height}" tabindex="0" role="region"'
        f' aria-label="{html.escape(caption)}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def table(frame: pd.DataFrame, caption: str) -> None:
    """Displays a frame as a table with its caption; a note where the frame is empty."""
    if frame.empty:
        return note(f"Nothing to show: {caption}")
    body = _framed([html.escape(str(name)) for name in frame.columns], frame, caption, height="none")
    return display(HTML(f'<figure style="margin:1em 0"><figcaption>{html.escape(caption)}</figcaption>{body}</figure>'))


# Sorting and searching for one table: no library, and every control is a real button or field, so that
# keyboard and screen reader reach it. Without script the table is still there, in its first order.
_SCRIPT = """
(() => {
  const box = document.getElementById("ID"), body = box.querySelector("tbody"), rows = [...body.rows];
  const key = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent;
  const filter = () => {
    const words = box.querySelector("input").value.toLowerCase().split(/\\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every(word => text.includes(word));
      left += !row.hidden;
    }
    box.querySelector("[role=status]").textContent = left + " of " + rows.length + " rows";
  };
  box.querySelector("input").addEventListener("input", filter);
  box.querySelectorAll("th button").forEach((button, i) => button.addEventListener("click", () => {
    const head = button.parentElement, down = head.getAttribute("aria-sort") === "ascending";
    box.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const number = rows.length && "value" in rows[0].cells[i].dataset;
    const compare = (a, b) => number ? key(a, i) - key(b, i) : key(a, i).localeCompare(key(b, i));
    rows.sort((a, b) => (down ? -1 : 1) * compare(a, b));
    body.append(...rows);
  }));
  filter();
})();
"""


def search_table(frame: pd.DataFrame, caption: str) -> None:
    """Displays a frame as a table with a search field; a press on a header sorts, another the other way."""
    if frame.empty:
        return note(f"Nothing to show: {caption}")
    name = f"table-{zlib.crc32((caption + frame.to_json()).encode()):08x}"
    plain = "font:inherit;font-weight:bold;background:none;border:0;padding:.4em 0;cursor:pointer;color:inherit"
    heads = [
        f'<button type="button" style="{plain}">{html.escape(str(column))} <span aria-hidden="true">↕</span></button>'
        for column in frame.columns
    ]
    return display(
        HTML(
            f"<style>@media print{{#{name} div{{max-height:none!important}}}}</style>"
            f'<figure id="{name}" style="margin:1em 0"><figcaption>{html.escape(caption)}</figcaption>'
            '<p><label>Search <input type="search" style="font:inherit;max-width:60%" '
            'placeholder="word, class, score"></label> <span role="status"></span></p>'
            f"{_framed(heads, frame, caption, height='36em')}</figure>"
            f"<script>{_SCRIPT.replace('ID', name)}</script>"
        )
    )


def examples(frame: pd.DataFrame, *, show_pairs: bool) -> None:
    """From `analysis.examples` or `scored_examples`; a note where the data's rows are to stay out."""
    if not show_pairs:
        return note(HIDDEN)
    return table(frame, f"{len(frame)} pairs, drawn by the seed: one of each kind, highest first.")


# ------------------------------------------------------------------------------------------------------------ explore


def _label_bars(ax: Axes, values: Sequence[float], texts: Sequence[str]) -> None:
    """Horizontal bars get their text behind their end."""
    for y, (value, text) in enumerate(zip(values, texts, strict=True)):
        ax.text(value, y, f" {text}", va="center", fontsize=9.5, color=GREY)
    ax.set_xlim(0, max(values) * 1.4)
    ax.xaxis.set_visible(False)
    ax.spines["bottom"].set_visible(False)
    ax.tick_params(axis="y", length=0)


def score_shares(table: pd.DataFrame) -> None:
    """From `analysis.score_shares`: one stacked bar a split."""
    splits = list(dict.fromkeys(table["split"]))
    figure, ax = _new(0.9 + 0.55 * len(splits))
    for y, split in enumerate(splits):
        start = 0.0
        for row, colour in zip(table[table["split"] == split].itertuples(), SHADES, strict=True):
            ax.barh(y, row.share, left=start, color=colour, edgecolor="white", height=0.7)
            if row.share > 0.045:
                ink = "white" if row.score >= 0.5 else "black"
                ax.text(
                    start + row.share / 2,
                    y,
                    f"{row.score:g}\n{100 * row.share:.0f}",
                    ha="center",
                    va="center",
                    color=ink,
                    fontsize=9,
                )
            start += row.share
    ax.set_yticks(range(len(splits)), splits)
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.xaxis.set_visible(False)
    ax.spines[["bottom", "left"]].set_visible(False)
    shares = {
        s: ", ".join(f"{r.score:g}: {percent(r.share)}" for r in table[table["split"] == s].itertuples())
        for s in splits
    }
    text = "; ".join(f"{split} {share}" for split, share in shares.items())
    _show(
        figure,
        caption=f"Share of each score, in percent of a split's pairs. {text}.",
        alt=f"Stacked bars of the scores: {text}.",
    )


def rating_shares(table: pd.DataFrame) -> None:
    """From `analysis.rating_shares`: one bar a rating; a note where the data has none."""
    if table.empty:
        return note("This data has scores but no rating letters.")
    figure, ax = _new(3.6)
    ax.barh(
        [f"{r.rating}  {r.meaning}" for r in table.itertuples()],
        table["share"],
        color=[SHADES[int(4 * s)] for s in table["score"]],
    )
    ax.invert_yaxis()
    _label_bars(ax, table["share"], [percent(share) for share in table["share"]])
    top = table.loc[table["share"].idxmax()]
    text = "; ".join(f"{r.rating} {percent(r.share)}" for r in table.itertuples())
    _show(
        figure,
        caption=(
            "What kinds of match the pairs are, all splits. The darker, the higher the score; most frequent"
            f" is {top['rating']} ({top['meaning']}), {percent(top['share'])}."
        ),
        alt=f"Bars of the ratings' shares: {text}.",
    )


def section_shares(table: pd.DataFrame) -> None:
    """From `analysis.section_shares`: a dot a split and section, as share of the split."""
    sections = table.drop_duplicates("section")
    figure, ax = _new(0.9 + 0.42 * len(sections))
    place = {section: y for y, section in enumerate(sections["section"])}
    for section, rows in table.groupby("section"):
        ax.hlines(place[section], rows["share"].min(), rows["share"].max(), color=PALE, lw=3, zorder=0)
    for (split, colour), marker in zip(SPLITS.items(), "osD", strict=True):
        rows = table[table["split"] == split]
        if len(rows):
            ax.plot(rows["share"], rows["section"].map(place), marker, color=colour, label=split, ms=6)
    ax.set_yticks(list(place.values()), [f"{r.section}  {_short(r.title, 34)}" for r in sections.itertuples()])
    ax.invert_yaxis()
    ax.set_xlim(left=0)
    ax.xaxis.set_major_formatter(lambda x, _: f"{100 * x:.0f} %")
    ax.set_xlabel("share of the split's pairs")
    figure.legend(loc="outside upper right", ncols=3)
    text = "; ".join(
        f"{split} " + ", ".join(f"{r.section} {percent(r.share)}" for r in rows.itertuples())
        for split, rows in table.groupby("split")
    )
    _show(
        figure,
        caption=f"Pairs by CPC section in each split. {text}.",
        alt=f"Dot plot of section shares: {text}.",
    )


def class_counts(table: pd.DataFrame, *, top: int = 20) -> None:
    """From `analysis.class_counts`: bars of the largest classes."""
    rows = table.head(top)
    figure, ax = _new(0.6 + 0.27 * len(rows))
    ax.barh([f"{r.context}  {_short(r.title, 32)}" for r in rows.itertuples()], rows["rows"], color=BLUE)
    ax.invert_yaxis()
    _label_bars(ax, rows["rows"], [f"{r.rows:,} · {r.anchors}" for r in rows.itertuples()])
    text = ", ".join(f"{r.context} {r.rows:,}" for r in rows.itertuples())
    _show(
        figure,
        caption=(
            f"The {len(rows)} classes with the most pairs, of {len(table)}: pairs · anchors. They hold "
            f"{percent(rows['rows'].sum() / table['rows'].sum())} of all pairs."
        ),
        alt=f"Bars of pairs by CPC class: {text}.",
    )


def group_sizes(table: pd.DataFrame) -> None:
    """From `analysis.group_sizes`: how many targets an anchor has in a class."""
    figure, ax = _new(2.4)
    sizes = table["targets"]
    sns.histplot(x=sizes, discrete=True, color=BLUE, edgecolor="white", ax=ax)
    ax.axvline(sizes.mean(), color=ORANGE, lw=2)
    ax.text(sizes.mean(), ax.get_ylim()[1], f" mean {sizes.mean():.1f}", color=ORANGE, va="top")
    ax.set_xlabel("targets of one anchor in one class")
    ax.set_ylabel("groups")
    text = (
        f"{len(sizes):,} groups of {sizes.min()} to {sizes.max()} targets, mean {sizes.mean():.1f}, median"
        f" {sizes.median():.0f}"
    )
    _show(figure, caption=f"{text}.", alt=f"Histogram: {text}.")


def lengths(words: pd.DataFrame, tokens: Mapping[str, np.ndarray]) -> None:
    """From `analysis.word_counts` and each split's token counts: words of a phrase above, tokens of a pair
    below."""
    figure, (above, below) = _new(4.2, rows=2)
    for side, colour, shift in (("anchor", ORANGE, -0.2), ("target", BLUE, 0.2)):
        rows = words[(words["side"] == side) & (words["words"] <= 8)]
        above.bar(rows["words"] + shift, rows["share"], width=0.38, color=colour, label=side)
    above.set_xlabel("words of a distinct phrase (up to 8)")
    above.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    above.set_ylabel("phrases")
    above.legend()
    every = np.concatenate(list(tokens.values()))
    sns.histplot(x=every, discrete=True, color=GREEN, edgecolor="white", ax=below)
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    below.set_xlabel("tokens of a pair with its class text")
    below.set_ylabel("pairs")
    long = {side: int(words.loc[words["side"] == side, "words"].max()) for side in ("anchor", "target")}
    text = (
        f"anchors have up to {long['anchor']} words, targets up to {long['target']}; a pair has {every.min()}"
        f" to {every.max()} tokens, mean {every.mean():.1f}"
    )
    _show(figure, caption=f"Lengths: {text}.", alt=f"Two histograms: {text}.")


def similarity_by_score(table: pd.DataFrame) -> None:
    """From `analysis.similarity_by_score`: boxes of the two word-only similarities at every score."""
    figure, axes = _new(4.4, rows=2, sharex=True)
    medians = []
    for ax, (system, rows) in zip(axes, table.groupby("system"), strict=True):
        groups = [rows.loc[rows["score"] == score, "similarity"] for score in np.arange(5) / 4]
        drawn = [(score, group) for score, group in zip(np.arange(5) / 4, groups, strict=True) if len(group)]
        boxes = ax.boxplot(
            [g for _, g in drawn],
            positions=[4 * s for s, _ in drawn],
            widths=0.6,
            showfliers=False,
            patch_artist=True,
        )
        for box, (score, _) in zip(boxes["boxes"], drawn, strict=True):
            box.set(facecolor=SHADES[int(4 * score)], edgecolor=GREY)
        for line in boxes["medians"]:
            line.set(color=ORANGE, lw=2)
        ax.set_xticks(range(5), ["0", "0.25", "0.5", "0.75", "1"])
        ax.set_ylabel(system)
        medians.append(f"{system}: " + ", ".join(f"{np.median(group):.2f} at {score:g}" for score, group in drawn))
    axes[-1].set_xlabel("score")
    text = "; ".join(medians)
    _show(
        figure,
        caption=(
            "Similarity of the words against the score, held-out pairs (box: middle half, line: median)."
            f" Medians {text}."
        ),
        alt=f"Box plots. Medians {text}.",
    )


# -------------------------------------------------------------------------------------------------------------- train


def _short(text: str, length: int) -> str:
    """Text of at most `length` letters, cut between words where it must be cut."""
    if len(text) <= length:
        return text
    return text[:length].rsplit(" ", 1)[0].rstrip(" ,;") + " …"


def _forest(
    ax: Axes,
    labels: Sequence[str],
    table: pd.DataFrame,
    *,
    value: str = "pearson",
    low: str = "low",
    high: str = "high",
    colours: Sequence[str] | str = BLUE,
) -> None:
    """A mark with its interval a row, first row on top, the number above the mark."""
    colours = [colours] * len(table) if isinstance(colours, str) else colours
    for y, (row, colour) in enumerate(zip(table.to_dict("records"), colours, strict=True)):
        ax.plot([row[low], row[high]], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
        ax.plot(row[value], y, "o", color=colour, ms=6)
        ax.annotate(
            f"{row[value]:.3f}",
            (row[value], y),
            (0, 5),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            color=colour,
        )
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.7)
    ax.grid(axis="x", color=PALE)
    ax.set_axisbelow(True)


def _spoken(
    labels: Sequence[str],
    table: pd.DataFrame,
    *,
    value: str = "pearson",
    low: str = "low",
    high: str = "high",
) -> str:
    return "; ".join(
        f"{label} {interval(row[value], row[low], row[high])}"
        for label, row in zip(labels, table.to_dict("records"), strict=True)
    )


def method(settings: Mapping[str, Any]) -> None:
    """The method that these settings make (`dataclasses.asdict` of a `Settings`), drawn from the input up to
    the losses."""
    s = settings
    figure, ax = _new(6.6)
    ax.set(xlim=(0, 10), ylim=(0, 12.6))
    ax.axis("off")

    def box(x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
        ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.06", fc="white", ec=colour, lw=1.8))
        ax.text(
            x + width / 2,
            y + height / 2,
            text,
            ha="center",
            va="center",
            fontsize=9.5,
            color="black",
            linespacing=1.3,
        )

    def arrow(x: float, y: float, to_x: float, to_y: float, colour: str = GREY) -> None:
        ax.annotate("", (to_x, to_y), (x, y), arrowprops={"arrowstyle": "-|>", "color": colour, "lw": 1.6})

    fused, early = s["fusion"] != "none", s["fusion"] not in ("none", "pooled")
    contrasted = s["contrast"] != "none"
    low_rank = f"r={s['lora_rank']}, α={s['lora_alpha']}"
    train = {"lora": f"LoRA {low_rank}", "hyperlora": f"HyperLoRA {low_rank}", "full": "all weights trained"}[
        s["adapter"]
    ]
    box(0.2, 0.2, 2.0, 0.9, "anchor", GREY)
    box(2.5, 0.2, 2.0, 0.9, "target", GREY)
    context = {"title": "class title", "code": "class code", "none": "(no class text)"}[s["context_text"]]
    box(4.8, 0.2, 2.3, 0.9, context, GREY)
    box(0.2, 2.0, 6.9, 0.9, "token embeddings h", BLUE)
    for x in (1.2, 3.5, 5.9):
        arrow(x, 1.15, x, 1.95)
    if fused:
        box(7.6, 0.2, 2.2, 0.9, "CPC class", ORANGE)
        box(7.6, 2.0, 2.2, 0.9, f"c: {s['cpc_dim']} numbers,\nunit length", ORANGE)
        arrow(8.7, 1.15, 8.7, 1.95, ORANGE)
    if early:
        text = {
            "add": "h + U c",
            "gate": "h + σ(W[h;c]) · U c",
            "graph": "h + U c, c from the CPC tree",
            "attention": "h + U · attend(h; c)",
        }[s["fusion"]]
        box(0.2, 3.7, 9.6, 0.9, f"fusion: {text}", ORANGE)
        arrow(3.6, 2.95, 3.6, 3.65)
        arrow(8.7, 2.95, 8.7, 3.65, ORANGE)
    else:
        arrow(3.6, 2.95, 3.6, 5.25)
    apart = f"\nphrases apart up to layer {s['separate_layers']}" if s["separate_layers"] else ""
    if contrasted:
        box(0.2, 5.3, 6.0, 0.9, f"encoder to layer {s['contrast_layer']} · {train}{apart}", BLUE)
        box(0.2, 7.0, 6.0, 0.9, f"other layers · {train}", BLUE)
        arrow(3.6, 6.25, 3.6, 6.95)
        name = {"cosent": "CoSENT"}.get(s["contrast"], f"NT-Xent\nτ = {s['temperature']:g}")
        spans = s["contrast"] != "classes"
        box(
            6.7,
            7.0,
            3.1,
            1.9,
            f"{'spans of anchor' if spans else 'class vectors'}\n{'and target' if spans else 'alone'}\n{name}",
            GREEN,
        )
        arrow(*((6.3, 5.75) if spans else (8.7, 4.65 if early else 2.95)), 8.2, 6.95, GREEN)
    else:
        box(0.2, 5.3, 6.0, 2.6, f"encoder\n{train}{apart}", BLUE)
    if early:
        arrow(3.6, 4.65, 3.6, 5.25)
    pooling = f"{s['pooling']} pooling" + (" + U c" if s["fusion"] == "pooled" else "")
    box(0.2, 8.7, 6.0, 0.9, f"{pooling} → strength z\n→ P(rank > k)", BLUE)
    arrow(3.6, 7.95, 3.6, 8.65)
    beside = s["evidence"] != "none"
    if beside:
        likeness = {
            "words": "",
            "pieces": "\nlike pieces",
            "all": "\nlike tokens",
            "group": "\nlike tokens\n(of group)",
        }
        stack = f"\nstack of {s['stack']}" if s["stack"] else ""
        box(6.9, 9.2, 2.2, 1.8 + 0.45 * bool(stack), f"evidence:\nwords{likeness[s['evidence']]}{stack}", ORANGE)
        arrow(6.8, 9.6, 6.3, 9.3, ORANGE)
    loss = {"smooth_k2": f"Smooth K2\nα = {s['alpha']:g}, β = {s['beta']:g}"}.get(s["loss"], s["loss"])
    box(0.2, 10.4, 2.6, 0.9, "score in [0, 1]", GREY)
    box(3.2, 10.4, 3.0, 0.9, loss, GREEN)
    arrow(1.5, 9.65, 1.5, 10.35)
    arrow(4.7, 9.65, 4.7, 10.35)
    total = f"total = {loss.splitlines()[0]}" + (
        f" + {s['contrast_weight']:g} · {name.splitlines()[0]}" if contrasted else ""
    )
    if s["rating_weight"]:
        total += f" + {s['rating_weight']:g} · ratings"
    ax.text(5, 12.1, total, ha="center", fontsize=10.5 if len(total) < 45 else 8.5, color=GREEN, weight="bold")
    arrow(4.7, 11.35, 4.7, 11.85, GREEN)
    if contrasted:
        arrow(9.4, 8.95, 9.4, 11.85, GREEN)
    joins = {"none": "no class vector is used", "pooled": "the class vector joins the pooled features"}
    way = joins.get(s["fusion"], "the class vector joins every token embedding")
    fed = (
        "the class vectors alone feed"
        if s["contrast"] == "classes"
        else f"the spans after layer {s['contrast_layer']} feed"
    )
    second = f"; {fed} the contrastive loss" if contrasted else ""
    if beside:
        second = f" with evidence beside it ({s['evidence']}{stack and ', ' + stack.strip()})" + second
    text = (
        f"from the input at the bottom to the losses at the top: {way} ({s['fusion']}), the encoder ({train})"
        f" reads the pair, an ordinal head gives the score{second}; {total}"
    )
    _show(figure, caption=f"The method, {text}.", alt=f"Diagram {text}.")


def losses(history: pd.DataFrame) -> None:
    """A run's history: every loss term in use at every step, pale, with its running mean."""
    terms = ["ordinal", *(term for term in ("contrast", "rating") if history[term].any())]
    figure, axes = _new(0.6 + 1.9 * len(terms), rows=len(terms), sharex=True, squeeze=False)
    window = max(1, len(history) // 25)
    texts = []
    for ax, term, colour in zip(axes[:, 0], terms, (BLUE, GREEN, ORANGE, GREY), strict=False):
        smooth = history[term].rolling(window, min_periods=1).mean()
        ax.plot(history["step"], history[term], color=colour, alpha=0.25, lw=0.8)
        ax.plot(history["step"], smooth, color=colour, lw=2)
        ax.annotate(
            f"{smooth.iloc[-1]:.2f}",
            (history["step"].iloc[-1], smooth.iloc[-1]),
            (4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
        )
        ax.set_ylim(0, history[term].quantile(0.995) * 1.05)
        ax.set_ylabel(f"{term} loss")
        texts.append(f"{term} {smooth.iloc[min(window, len(smooth)) - 1]:.2f} to {smooth.iloc[-1]:.2f}")
    axes[-1, 0].set_xlabel("step")
    text = ", ".join(texts)
    _show(
        figure,
        caption=f"Loss of each step (pale) and mean of {window} steps: {text}.",
        alt=f"Two loss curves over the steps: {text}." if len(terms) == 2 else f"Loss curve: {text}.",
    )


def learning_rate(history: pd.DataFrame) -> None:
    """A run's history: learning rate above, norm of the gradient before clipping below."""
    figure, (above, below) = _new(3.6, rows=2, sharex=True)
    above.plot(history["step"], history["learning_rate"], color=ORANGE, lw=2)
    above.set_ylabel("learning rate")
    above.set_ylim(bottom=0)
    above.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
    below.plot(history["step"], history["grad_norm"], color=GREY, lw=0.8)
    below.set_ylabel("gradient norm")
    below.set_ylim(0, history["grad_norm"].quantile(0.995) * 1.1)
    below.set_xlabel("step")
    peak = history.loc[history["learning_rate"].idxmax()]
    text = (
        f"the rate rises to {peak['learning_rate']:.2g} at step {peak['step']:.0f} of"
        f" {history['step'].max():,} and falls along a cosine; the median gradient norm is"
        f" {history['grad_norm'].median():.2f}"
    )
    _show(figure, caption=f"Learning rate and gradient: {text}.", alt=f"Two curves over the steps: {text}.")


def epochs(numbers: Mapping[str, Any]) -> None:
    """A run's metrics.json: the validation correlation after each epoch beside the zero-shot one."""
    rows = pd.DataFrame(numbers["epochs"])
    zero = numbers["baselines"]["zero_shot"]["validation"]["pearson"]
    figure, ax = _new(2.6)
    ax.axhline(zero, color=ORANGE, lw=1.6, ls="--")
    ax.text(
        1,
        zero,
        f"zero-shot {zero:.3f}",
        color=ORANGE,
        ha="right",
        va="top",
        transform=ax.get_yaxis_transform(),
    )
    ax.plot(rows["epoch"], rows["pearson"], "o-", color=BLUE, lw=2)
    for row in rows.itertuples():
        ax.annotate(
            f"{row.pearson:.3f}",
            (row.epoch, row.pearson),
            (0, 6),
            textcoords="offset points",
            ha="center",
            color=BLUE,
        )
    ax.set_xticks(rows["epoch"])
    ax.margins(x=0.12)
    ax.set_ylim(min(rows["pearson"].min(), zero) - 0.05, max(rows["pearson"].max(), zero) + 0.05)
    ax.set_xlabel("epoch")
    ax.set_ylabel("Pearson, validation")
    text = ", ".join(f"{row.pearson:.3f} after epoch {row.epoch} ({row.seconds:,.0f} s)" for row in rows.itertuples())
    _show(
        figure,
        caption=f"Validation Pearson: {text}; zero-shot {zero:.3f}.",
        alt=f"Line of the validation Pearson: {text}; dashed line of the untrained backbone at {zero:.3f}.",
    )


def results(table: pd.DataFrame) -> None:
    """From `analysis.results` or `analysis.words_alone`: correlation of each system with its interval."""
    labels = [f"{row.system}\n{row.split}, n {row.n:,}" for row in table.itertuples()]
    figure, ax = _new(0.8 + 0.52 * len(table))
    _forest(ax, labels, table, colours=[SYSTEMS[system] for system in table["system"]])
    ax.set_xlabel("Pearson, 95 % interval")
    text = _spoken([f"{row.system} on {row.split}" for row in table.itertuples()], table)
    _show(figure, caption=f"{text}.", alt=f"Pearson correlations with intervals: {text}.")


def leak(table: pd.DataFrame) -> None:
    """From `analysis.leak`: both protocols; nothing where the run has no leak part."""
    if table.empty:
        return
    figure, ax = _new(1.7)
    _forest(ax, [f"{row.protocol}\nn {row.n:,}" for row in table.itertuples()], table, colours=[BLUE, ORANGE])
    ax.set_xlabel("Pearson, validation, 95 % interval")
    text = _spoken(list(table["protocol"]), table)
    _show(
        figure,
        caption=f"The same method under two protocols: {text}.",
        alt=f"Two correlations with intervals: {text}.",
    )


# ------------------------------------------------------------------------------------------------------------- errors


def groups(table: pd.DataFrame, what: str, *, whole: pd.DataFrame, titles: Mapping[str, str] | None = None) -> None:
    """From `analysis.by_group`: correlation of each group with its interval beside that of all pairs.

    A note where no group is large enough. `what` names the grouping, `whole` is the scored frame.
    """
    if table.empty:
        return note(f"No {what} has enough pairs for a correlation of its own.")
    every = float(np.corrcoef(whole["score"], whole["prediction"])[0, 1])
    groups = [str(group) for group in table.iloc[:, 0]]
    names = [f"{group}  {_short(titles[group], 28)}" if titles else group for group in groups]
    figure, ax = _new(1.0 + 0.42 * len(table))
    ax.axvline(every, color=ORANGE, lw=1.4, ls="--", zorder=1)
    ax.text(
        every,
        1,
        f"all {every:.3f}",
        color=ORANGE,
        ha="center",
        va="bottom",
        fontsize=9,
        transform=ax.get_xaxis_transform(),
    )
    under = [f"n {row.n:,}, {row.anchors} anchors" for row in table.itertuples()]
    _forest(ax, [f"{name}\n{size}" for name, size in zip(names, under, strict=True)], table)
    ax.tick_params(axis="y", labelsize=8.5)
    ax.set_xlabel("Pearson, 95 % interval")
    text = _spoken(groups, table)
    few = " Intervals of few anchors are rather too narrow." if table["anchors"].min() < 10 else ""
    return _show(
        figure,
        caption=f"By {what}; all pairs together {every:.3f}. {text}.{few}",
        alt=f"Correlation by {what} with intervals: {text}; all pairs {every:.3f}.",
    )


def confusion(counts: pd.DataFrame) -> None:
    """From `analysis.confusion`: rows in percent, counts beneath."""
    values = counts.to_numpy()
    share = values / np.maximum(values.sum(1, keepdims=True), 1)
    figure, ax = _new(4.0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (i, j), n in np.ndenumerate(values):
        ax.text(
            j,
            i,
            f"{100 * share[i, j]:.0f} %\n{n:,}",
            ha="center",
            va="center",
            fontsize=9,
            color="white" if share[i, j] > 0.55 else "black",
        )
    names = [f"{score:g}" for score in counts.index]
    ax.set_xticks(range(len(names)), names)
    ax.set_yticks(range(len(names)), names)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    ax.set_xlabel("nearest score to the prediction")
    ax.set_ylabel("score")
    right = ", ".join(f"{name}: {percent(share[i, i])}" for i, name in enumerate(names) if values[i].sum())
    _show(
        figure,
        caption=f"Rank given against rank predicted, in percent of a row, with the number of pairs. Right at {right}.",
        alt=f"Confusion matrix of the five scores. Share predicted right at {right}.",
    )


def calibration(table: pd.DataFrame) -> None:
    """From `analysis.calibration`: mean score against mean prediction, with intervals."""
    figure, ax = _new(3.8)
    ax.plot([0, 1], [0, 1], color=GREY, ls="--", lw=1)
    ax.text(0.97, 0.99, "perfect", color=GREY, ha="right", va="bottom", fontsize=9)
    ax.vlines(table["prediction"], table["low"], table["high"], color=BLUE, lw=2)
    ax.plot(table["prediction"], table["score"], "o-", color=BLUE, lw=1, ms=5)
    ax.set(xlim=(0, 1), ylim=(0, 1.05), xlabel="mean prediction of the bin", ylabel="mean score of the bin")
    text = "; ".join(
        f"{row.prediction:.2f} predicted, {row.score:.2f} [{row.low:.2f}, {row.high:.2f}] seen"
        for row in table.itertuples()
    )
    _show(
        figure,
        caption=(
            f"Calibration in {len(table)} bins of about {table['n'].mean():.0f} pairs: first"
            f" {text.split('; ')[0]}; last {text.split('; ')[-1]}."
        ),
        alt=f"Calibration curve: {text}.",
    )


def rank_shares(table: pd.DataFrame) -> None:
    """From `analysis.rank_shares`: seen share of each score with its interval, and the expected one."""
    figure, ax = _new(2.8)
    x = np.arange(len(table))
    ax.bar(x, table["seen"], color=PALE, width=0.7, label="seen")
    ax.vlines(x, table["low"], table["high"], color=GREY, lw=2)
    ax.plot(x, table["expected"], "D", color=ORANGE, ms=7, label="expected by the model")
    ax.set_xticks(x, [f"{score:g}" for score in table["score"]])
    ax.yaxis.set_major_formatter(lambda y, _: f"{100 * y:.0f} %")
    ax.set_xlabel("score")
    ax.set_ylabel("share of the pairs")
    figure.legend(loc="outside upper right", ncols=2)
    text = "; ".join(
        f"{row.score:g}: {percent(row.seen)} seen, {percent(row.expected)} expected" for row in table.itertuples()
    )
    _show(
        figure,
        caption=f"The ranks' probabilities against what there is. {text}.",
        alt=f"Bars of seen shares with diamonds of expected ones: {text}.",
    )


def by_rating(table: pd.DataFrame) -> None:
    """From `analysis.by_rating`: mean prediction of each rating with its interval beside the score it stands
    for."""
    if table.empty:
        return note("No figure: this data has no rating letters, or too few anchors of each.")
    figure, ax = _new(0.9 + 0.42 * len(table))
    ax.plot(
        table["score"],
        range(len(table)),
        "|",
        color=ORANGE,
        ms=18,
        mew=3,
        label="score of the rating",
        zorder=0,
    )
    _forest(
        ax,
        [f"{row.rating}  {row.meaning}\nn {row.n:,}" for row in table.itertuples()],
        table,
        value="prediction",
    )
    ax.tick_params(axis="y", labelsize=8.5)
    ax.set_xlim(-0.04, 1.08)
    ax.set_xlabel("mean prediction, 95 % interval")
    figure.legend(loc="outside upper right")
    text = "; ".join(f"{row.rating} {row.prediction:.2f} for {row.score:g}" for row in table.itertuples())
    _show(
        figure,
        caption=f"Mean prediction by rating: {text}.",
        alt=f"Mean predictions with intervals beside the scores of the ratings: {text}.",
    )


def anchor_errors(table: pd.DataFrame, *, show_pairs: bool, top: int = 15) -> None:
    """From `analysis.anchor_errors`: the hardest anchors by name, or, without names, the errors of all
    anchors in order."""
    if table.empty:
        return note("No anchor has enough pairs.")
    text = (
        f"{len(table)} anchors, mean absolute error {table['mae'].min():.3f} to {table['mae'].max():.3f},"
        f" median {table['mae'].median():.3f}"
    )
    if show_pairs:
        rows = table.head(top)
        figure, ax = _new(0.6 + 0.3 * len(rows))
        ax.barh(
            [f"{_short(r.anchor, 30)} · {_short(r.classes, 11)}" for r in rows.itertuples()],
            rows["mae"],
            color=[ORANGE if b > 0 else BLUE for b in rows["bias"]],
        )
        ax.invert_yaxis()
        _label_bars(ax, rows["mae"], [f"{r.mae:.2f}  ({r.bias:+.2f})" for r in rows.itertuples()])
        named = "; ".join(f"{r.anchor} {r.mae:.3f}" for r in rows.itertuples())
        caption = (
            f"The {len(rows)} hardest anchors and their classes: mean absolute error and, in brackets, mean"
            f" of prediction - score (orange: predicted too high). Of {text}."
        )
        return _show(figure, caption=caption, alt=f"Bars of the hardest anchors: {named}.")
    figure, ax = _new(2.4)
    ax.bar(
        np.arange(1, len(table) + 1),
        table["mae"],
        width=1.0,
        color=[ORANGE if b > 0 else BLUE for b in table["bias"]],
        lw=0,
    )
    ax.set_xlabel("anchors, hardest first (names left out)")
    ax.set_ylabel("mean absolute error")
    high = percent((table["bias"] > 0).mean())
    return _show(
        figure,
        caption=f"Error of every anchor: {text}. Orange: predicted too high on average ({high} of the anchors).",
        alt=f"Bars in falling order: {text}.",
    )


def worst_pairs(table: pd.DataFrame, *, show_pairs: bool) -> None:
    """From `analysis.worst_pairs`: a table to sort and search; a note where the data's rows are to stay
    out."""
    if not show_pairs:
        return note(HIDDEN)
    return search_table(table, f"The {len(table)} pairs with the largest error (prediction - score).")


def cpc_map(table: pd.DataFrame) -> None:
    """From `analysis.cpc_map`: the class codes in the plane; where pairs were scored, bold and in a section's
    colour.

    A note where the model has no class vectors.
    """
    if table.empty:
        return note("This model has no class vectors: its fusion is none.")
    figure, ax = _new(5.4)
    ax.set(xlim=_span(table["x"]), ylim=_span(table["y"]), xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    for row in table.sort_values("pairs").itertuples():
        met = row.pairs > 0
        ax.text(
            row.x,
            row.y,
            row.code,
            ha="center",
            va="center",
            fontsize=9 if met else 6.5,
            weight="bold" if met else "normal",
            color=SECTIONS[row.section] if met else "#B4BEC4",
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )
    met = table[table["pairs"] > 0]
    counts = ", ".join(f"{section} {len(rows)}" for section, rows in met.groupby("section"))
    text = f"{len(met)} of {len(table)} classes have scored pairs (by section: {counts})"
    return _show(
        figure,
        caption=(
            "The learned class vectors by t-SNE on their cosines; near means alike, the axes mean nothing."
            f" {text}; these are bold and coloured by section, the others grey."
        ),
        alt=f"Map of class codes. {text}.",
    )


def _span(values: pd.Series) -> tuple[float, float]:
    margin = 0.05 * (values.max() - values.min()) + 1e-9
    return values.min() - margin, values.max() + margin


def context_effect(table: pd.DataFrame) -> None:
    """From `analysis.context_effect`: correlation with each class above, paired differences to the right
    class below."""
    figure, (above, below) = _new(3.6, rows=2, height_ratios=[3, 2.4])
    _forest(above, list(table["context"]), table, colours=[BLUE, ORANGE, GREY][: len(table)])
    above.set_xlabel("Pearson, 95 % interval")
    rest = table.iloc[1:]
    labels = list(rest["context"])
    spans = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    below.axvline(0, color=GREY, lw=1, ls="--", zorder=1)
    _forest(below, labels, rest, colours=[ORANGE, GREY][: len(rest)], **spans)
    below.set_xlabel(f"difference to the {table['context'].iloc[0]}, paired")
    text = f"{_spoken(list(table['context']), table)}; differences {_spoken(labels, rest, **spans)}"
    _show(
        figure,
        caption=f"Does the model need the class? {text}.",
        alt=f"Correlations and paired differences with intervals: {text}.",
    )


# -------------------------------------------------------------------------------------------------------------- speed


def rates(table: pd.DataFrame, what: str) -> None:
    """From `speed.rates`: bars of pairs a second in one kind of work, the fastest on top."""
    rows = table[table["what"] == what].sort_values("rate")
    figure, ax = _new(0.6 + 0.36 * len(rows))
    ours = rows["system"].str.startswith("ours")
    ax.barh(rows["system"], rows["rate"], color=np.where(ours, BLUE, GREY), height=0.7)
    _label_bars(ax, rows["rate"], [f"{row.rate:,.0f} ({row.times:.1f} x)" for row in rows.itertuples()])
    text = "; ".join(f"{row.system} {row.rate:,.0f} ({row.times:.1f} times)" for row in rows[::-1].itertuples())
    _show(
        figure,
        caption=f"Pairs a second in {what}, and in brackets how many times the CrossEncoder's.",
        alt=f"Bars of pairs a second in {what}, beside the CrossEncoder: {text}.",
    )


def accuracies(table: pd.DataFrame) -> None:
    """From `speed.accuracy`: above, each system's correlation; below, the paired difference to the CrossEncoder."""
    figure, (above, below) = _new(1.4 + 0.8 * len(table), rows=2)
    labels = list(table["system"])
    _forest(above, labels, table)
    above.set_xlabel("Pearson [95 %]")
    parts = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    _forest(below, labels, table, **parts, colours=ORANGE)
    below.axvline(0, color=GREY, lw=1)
    below.set_xlabel("difference [95 %]")
    text = f"Pearson: {_spoken(labels, table)}. Difference to the CrossEncoder: {_spoken(labels, table, **parts)}."
    _show(
        figure,
        caption="Validation Pearson of each system, and its paired difference to the CrossEncoder.",
        alt=f"Correlations and differences with intervals. {text}",
    )


def growth(table: pd.DataFrame) -> None:
    """From `speed.growth`: seconds (left scale) as one thing grows, a panel each, both axes logarithmic."""
    kinds = list(dict.fromkeys(table["what"]))
    figure, axes = _new(1.9 * len(kinds), rows=len(kinds))
    said = []
    for ax, kind in zip(axes, kinds, strict=True):
        rows = table[table["what"] == kind]
        ax.loglog(rows["size"], 1000 * rows["seconds"], "o-", color=BLUE, lw=2)
        for row in rows.itertuples():
            ax.annotate(
                f"{1000 * row.seconds:,.0f}",
                (row.size, 1000 * row.seconds),
                (0, 5),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=BLUE,
            )
        ax.margins(y=0.25)
        ax.set_xticks(rows["size"], [f"{size:,}" for size in rows["size"]])
        ax.minorticks_off()
        ax.set_xlabel(kind)
        ax.set_ylabel("ms")
        said.append(
            f"{kind}: "
            + ", ".join(
                f"{r.size:,} in {1000 * r.seconds:,.0f} ms and {r.memory_mb:,.0f} MB" for r in rows.itertuples()
            )
        )
    text = "; ".join(said)
    _show(figure, caption=f"Time of scoring, and memory above the start. {text}.", alt=f"Lines of time: {text}.")


# ----------------------------------------------------------------------------------------------------------- ablation


def effects(table: pd.DataFrame) -> None:
    """From `ablation.effects`: a forest of the paired differences, the largest on top."""
    rows = table.dropna(subset="difference")
    figure, ax = _new(0.8 + 0.42 * len(rows))
    labels = [f"{row.arm}\nagainst {row.against}, {row.compared} x" for row in rows.itertuples()]
    parts = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    sure = (rows["difference_low"] > 0) | (rows["difference_high"] < 0)
    _forest(ax, labels, rows, **parts, colours=[BLUE if one else GREY for one in sure])
    ax.axvline(0, color=ORANGE, lw=1.2)
    ax.tick_params(axis="y", labelsize=8)
    ax.set_xscale("symlog", linthresh=0.03, linscale=2)  # one idea that breaks the model would squeeze all others
    low, high = 1.5 * min(-0.01, rows["difference_low"].min()), 1.5 * max(0.01, rows["difference_high"].max())
    ax.set_xlim(low, high)
    ax.set_xticks([x for x in (-0.1, -0.02, -0.01, 0, 0.01, 0.02, 0.1) if low < x < high])
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("difference of Pearson (log beyond .03)")
    text = _spoken([f"{row.arm} against {row.against}" for row in rows.itertuples()], rows, **parts)
    _show(
        figure,
        caption="What each change adds to the arm it is measured against; blue where the interval leaves out zero.",
        alt=f"Forest plot of paired differences: {text}.",
    )


def gain_and_cost(table: pd.DataFrame) -> None:
    """From `ablation.effects`: Pearson of each arm against the seconds of its training."""
    figure, ax = _new(3.4)
    ax.scatter(
        table["seconds"], table["pearson"], s=14 + 60 * table["parameters"] / table["parameters"].max(), color=BLUE
    )
    for row in table.itertuples():
        ax.annotate(row.arm, (row.seconds, row.pearson), (4, 3), textcoords="offset points", fontsize=7.5, color=GREY)
    ax.set_xlabel("seconds of training")
    ax.set_ylabel("Pearson")
    ax.margins(x=0.2)
    text = "; ".join(
        f"{row.arm} {row.pearson:.3f} in {row.seconds:,.0f} s with {row.parameters:,} trained parameters"
        for row in table.itertuples()
    )
    _show(
        figure,
        caption="Pearson and seconds of training; larger marks train more parameters.",
        alt=f"Scatter plot: {text}.",
    )
