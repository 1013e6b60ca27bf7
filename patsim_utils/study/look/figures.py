"""What all figures share: the look, labels, and a figure that shows itself as SVG."""

import os
import re
import time
from collections.abc import Iterable
from io import StringIO
from typing import Any

import matplotlib
import seaborn as sns
from markupsafe import Markup
from matplotlib.figure import Figure

from patsim_utils.environment import ROOT, environment
from patsim_utils.study.explore import duration
from patsim_utils.study.look.markup import Shown, fill, note

# Inches of every figure: 389 points, so that letters of 10 points can be read on a phone
WIDTH = 5.4
LONGEST_LABEL = 40  # letters
SMALL = 9  # points of the numbers beside bars and dots
BLUE = "#0072b2"
ORANGE = "#d55e00"
GREEN = "#009e73"
GREY = "#5f6b73"
PALE = "#d9e2e8"
INK = "#1c2733"
# Okabe and Ito's colours, which people with any sight of colours tell apart
COLOURS = (BLUE, ORANGE, GREEN, "#cc79a7", "#8a6d00", "#56b4e9", "#e69f00", "#777777")
# Colours that follow the page, which may be dark
PAGE_COLOURS = {INK: "currentColor", GREY: f"var(--soft, {GREY})", PALE: f"var(--line, {PALE})"}
PAGE_COLOURS["#ffffff"] = "var(--paper, #fff)"


class Picture(Figure):
    """A figure that JupyterLab and the pages show as <figure>, with `caption` and `alt`."""

    caption: str
    alt: str

    def describe(self, caption: str, alt: str) -> "Picture":
        """Sets caption and alternative text; returns the figure."""
        self.caption = caption
        self.alt = alt
        return self

    def svg(self) -> Markup:
        """The drawing: text stays text, colours of ink and paper are those of the page."""
        text = StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": self.caption}):
            self.savefig(text, format="svg", transparent=True, metadata=nothing)
        drawing = text.getvalue().partition("<svg")[2]
        drawing = re.sub(r"<style.*?</style>", "", drawing, flags=re.DOTALL)  # a rule for the whole page
        drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # every figure has the same names
        drawing = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', "", drawing, count=1)
        drawing = re.sub(r"font-family: [^;]*;", "", drawing)  # that of the page
        drawing = re.sub(r'\s*\n(?=[LCQMz"])', " ", drawing)
        for colour, of_page in PAGE_COLOURS.items():
            drawing = drawing.replace(colour, of_page)
        return fill('<svg role="img" aria-label="{alt}"{rest}', alt=self.alt, rest=Markup(drawing))

    def _repr_html_(self) -> str:
        template = (
            '<figure class="mathjax_ignore" style="margin:1em 0;max-width:44rem">{svg}'
            "<figcaption>{caption}</figcaption></figure>"
        )
        return str(fill(template, svg=self.svg(), caption=self.caption))


def setup() -> float:
    """Sets the style of all figures; returns the clock (seconds) for `provenance`.

    From here on the notebook runs in the repository's root, so that a path means the same as on the
    command line.
    """
    os.chdir(ROOT)
    style()
    return time.perf_counter()


def style() -> None:
    """Sets the style of all figures."""
    settings: dict[str, Any] = {f"axes.spines.{side}": False for side in ("top", "right")}
    settings |= dict.fromkeys(("text.color", "axes.labelcolor"), INK)
    settings |= dict.fromkeys(("xtick.color", "ytick.color"), INK)
    settings |= {"axes.edgecolor": GREY, "legend.frameon": False, "font.size": 10}
    settings |= {f"{part}.labelsize": 10 for part in ("axes", "xtick", "ytick")}
    settings |= {"legend.fontsize": 10}
    sns.set_theme("paper", "ticks", palette=COLOURS, rc=settings)


def provenance(started: float, *, seed: int) -> Shown:
    """The last cell of a notebook: commit, versions, seed and the wall time since `setup`."""
    facts = environment(seed=seed)
    facts["wall time"] = duration(time.perf_counter() - started)
    if str(facts["commit"]).endswith("+"):
        facts["commit"] = f"{facts['commit']} (with changes that are not committed)"
    return note(" · ".join(f"{name} {value}" for name, value in facts.items()))


def new(height: float, rows: int = 1, **options: Any) -> tuple[Picture, Any]:
    """A figure and its axes, one below the other.

    pyplot does not know it, so nothing is left open behind it.
    """
    figure = Picture(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, 1, **options)


def short(text: object) -> str:
    """Text of at most 40 letters, cut between words; a number without needless zeros."""
    if isinstance(text, float):
        return f"{text:g}"
    text = str(text)
    if len(text) <= LONGEST_LABEL:
        return text
    return text[:LONGEST_LABEL].rsplit(" ", 1)[0].rstrip(" ,;") + " …"


def labels(names: Iterable[object]) -> list[str]:
    """Names from the data as labels: short, and `$` never starts a formula."""
    return [short(name).replace("$", r"\$") for name in names]
