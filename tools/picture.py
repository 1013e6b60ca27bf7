"""The picture of README: how the model that ships ranks candidates of four queries. `python tools/picture.py`"""

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from patsim_utils import Matcher

OUTPUT = Path(__file__).parents[1] / "reports" / "picture.png"
# Query, class, and candidates in no order; written for this project.
QUERIES = [
    ("strong material", "E04", ["soft material", "paper", "robust material", "steel", "weak material", "material"]),
    (
        "wireless handset",
        "H04",
        ["wired handset", "handset", "radio wave", "mobile phone", "cordless telephone", "oven"],
    ),
    ("bolt", "F16", ["lightning", "screw", "fastener", "bolt head", "bolts", "gear"]),
    ("vehicle door", "B60", ["automobile door", "door handle", "window", "door of vehicle", "wheel", "garage door"]),
]
BLUE = "#2b6a99"


def main() -> None:
    mpl.use("Agg")
    model = sys.argv[1] if len(sys.argv) > 1 else "small"
    matcher = Matcher.load(model)
    figure, axes = plt.subplots(2, 2, figsize=(9, 4.6), layout="constrained", sharex=True)
    for axis, (query, context, candidates) in zip(axes.flat, QUERIES, strict=True):
        ranked = matcher.rank(query, candidates, context=context)[::-1]
        bars = axis.barh(ranked["target"], ranked["score"], color=BLUE, height=0.6)
        axis.bar_label(bars, labels=[f"{score:.2f}" for score in ranked["score"]], padding=3, fontsize=8)
        axis.set_title(f"{query}, in class {context}", loc="left", fontsize=9, fontweight="bold")
        axis.set_xlim(0, 1.12)
        axis.tick_params(labelsize=8, length=0)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.set_xticks([])
    figure.savefig(OUTPUT, dpi=130)
    print(OUTPUT)


if __name__ == "__main__":
    main()
