"""Figures and tables: returned, with a caption and an alternative text of their own numbers, and nothing left open."""

import html
import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from patsim_utils.study import plots, run_plots
from patsim_utils.study.look import contrast
from patsim_utils.study.look.figures import BLUE, GREY, Picture
from patsim_utils.study.look.html_tables import Folded, Link

NAMES = ["one", "two $5 to $10_a^b", "three"]  # `$...$` around such a text is no formula: to parse it raises
GROUPS = pd.DataFrame({"group": NAMES, "pearson": [0.5, -0.1, 0.25], "other": [0.5, 0.2, 0.3]})
GROUPS = GROUPS.assign(low=[0.4, -0.3, 0.2], high=[0.6, 0.1, 0.3])
HISTORY = pd.DataFrame({"step": range(1, 41), "ordinal": 2 / np.arange(1, 41), "contrast": 0.5, "rating": 0.0})
BINS = pd.DataFrame({"prediction": [0.1, 0.9], "score": [0.2, 0.9], "low": [0.15, 0.8], "high": [0.3, 1], "n": 10})
WORDS = pd.DataFrame({"side": ["a", "a", "b"], "words": [1, 4, 2]})
RANKS = pd.Index([0.0, 1.0], name="rank")
COUNTS = pd.DataFrame([[3, 1], [0, 0]], index=RANKS, columns=RANKS)


def epochs(cosine: dict | None) -> Figure:
    rows = [{"epoch": 1, "pearson": 0.4}, {"epoch": 2, "pearson": 0.55}]
    return run_plots.epochs({"epochs": rows, "baselines": {"pretrained_cosine": {"validation": cosine}}})


def page(figure: Picture) -> str:
    """Caption of a figure, after the checks that hold for all of them."""
    assert isinstance(figure, Figure)
    shown = figure._repr_html_()
    assert len(shown) < 60_000
    assert not re.search(r'<style|<g id=|font-family|(?<!xlink:)href="(?!#)', shown)
    assert f"<figcaption>{html.escape(figure.caption)}</figcaption>" in shown
    assert f'aria-label="{html.escape(figure.alt)}"' in shown
    assert re.search(r"\d", figure.alt)
    assert "nan" not in re.findall(r"\w+", f"{figure.caption} {figure.alt}".lower())
    assert plt.get_fignums() == []
    return figure.caption


def test_a_figure_follows_the_page_and_its_text_stays_text() -> None:
    plots.style()
    shown = plots.forest(GROUPS, "group", caption="<Groups>")._repr_html_()
    texts = re.findall(r"<text[^>]*>([^<]*)", shown)
    assert {"one", "two $5 to $10_a^b", "0.500"} <= {*texts}
    assert "currentColor" in shown
    assert "#1c2733" not in shown
    assert "<figcaption>&lt;Groups&gt;" in shown


def test_numbers_of_a_heatmap_stand_out_from_their_squares() -> None:
    for share in np.linspace(0, 1, 101):
        colour = colormaps["Blues"](share)
        assert contrast.contrast(contrast.legible_on(colour), colour) >= contrast.LEGIBLE
    assert contrast.contrast("#000000", "#ffffff") == pytest.approx(21)


def marks(figure: Picture, marker: str) -> dict[str, list[float]]:
    """Places of the marks of one form, by their filling."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() == marker]
    return {line.get_markerfacecolor(): list(line.get_xdata()) for line in lines if len(line.get_xdata())}


def test_forest_has_a_mark_an_interval_and_a_number_a_row():
    figure = plots.forest(GROUPS, "group", caption="Groups", reference=("all", 0.3))
    assert marks(figure, "o") == {BLUE: [0.5, -0.1, 0.25]}
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.500", "-0.100", "0.250"]
    lowest = "two $5 to $10_a^b: -0.100 [-0.300, 0.100]"
    assert page(figure) == f"Groups: highest one: 0.500 [0.400, 0.600]; lowest {lowest}; dashed line: all 0.300."
    seen = "3 dots, 3 of them with an interval; Pearson: from -0.100 to 0.500."
    assert figure.alt == seen
    differences = GROUPS.rename(columns={"pearson": "difference"})
    figure = plots.forest(differences, "group", value="difference", caption="What is not significant is grey and open")
    assert marks(figure, "o") == {BLUE: [0.5, 0.25], "white": [-0.1]}
    figure = plots.forest(GROUPS, "group", caption="Both", mark="other")
    assert marks(figure, "D") == {"none": [0.5, 0.2, 0.3]}
    assert page(figure) == f"Both: farthest from its other: {lowest}, other 0.200."


def test_what_is_undefined_says_so_and_nothing_is_a_sentence():
    two = GROUPS[:2].assign(pearson=[np.nan, 0.5], low=[np.nan, 0.4], high=[np.nan, 0.6], group=["a", "b"])
    assert page(plots.forest(two, "group", caption="Two")) == "Two: a: undefined; b: 0.500 [0.400, 0.600]."
    empty = plots.forest(two[:0], "group", caption="G"), plots.bars(two[:0], "group", "low", caption="G", axis="r")
    for nothing in (*empty, plots.table(two[:0], "G")):
        assert re.fullmatch(r'<p class="note">[A-Z].+</p>', nothing.data)


def test_bars_keep_alike_names_apart_and_their_order():
    long = "a name that is the same for its first forty letters $_^$ and then "
    table = pd.DataFrame({"name": [f"{long}{i}" for i in (2, 1, 1)], "part": [0.25, 0.5, 1.0], "of": ["x", "x", "y"]})
    figure = plots.bars(table, "name", "part", hue="of", caption="Parts", axis="part", share=True)
    assert [[bar.get_width() for bar in group] for group in figure.axes[0].containers] == [[0.25, 0.5], [1.0]]
    assert page(figure) == "Parts; the longest bar: a name that is the same for its first … (y), 100 %."
    figure = plots.bars(GROUPS, "group", "high", caption="Dollars", axis="r")
    assert page(figure).endswith("one, 0.6.")
    assert figure.axes[0].get_yticklabels()[1].get_text() == r"two \$5 to \$10_a^b"


@pytest.mark.parametrize(
    ("draw", "panels", "said"),
    [
        (lambda: run_plots.losses(HISTORY), 2, "ordinal loss 1.5 to 0.0506; weight x contrast 0.5 to 0.5."),
        (lambda: run_plots.losses(HISTORY.assign(rating=1.5)), 3, "contrast 0.5 to 0.5; weight x rating 1.5 to 1.5."),
        (lambda: epochs(None), 1, "kept: Pearson 0.4 to 0.55."),
        (lambda: epochs({"pearson": 0.3}), 1, "kept: Pearson 0.400 to 0.550; dashed line: pretrained cosine 0.300."),
        (lambda: plots.heatmap(COUNTS, caption="C"), 1, "C: 75 % of these pairs are on the diagonal."),
        (lambda: run_plots.calibration(BINS), 1, "(single pairs by more), significantly in 1 of the bins."),
        (lambda: plots.histogram(WORDS, "words", hue="side", axis="w", caption="W"), 1, "2.5; b 2 to 2, mean 2.0."),
    ],
)
def test_captions_say_the_numbers(draw, panels: int, said: str):
    figure = draw()
    assert len(figure.axes) == panels
    assert page(figure).endswith(said)


def test_tables_escape_align_and_keep_the_frame():
    frame = pd.DataFrame({"a": ["a <b> RFID" + " long" * 20], "n": [1234], "r": [0.25], "none": [np.nan]})
    table = plots.table(frame, "Four <kinds>.")
    shown = table._repr_html_()
    assert table.frame is frame
    assert "<figcaption>Four &lt;kinds&gt;.</figcaption>" in shown
    for cell in (html.escape(frame["a"][0]), "1,234", "0.25", "–"):
        assert re.search(rf"<td[^>]*>{re.escape(cell)}</td>", shown)
    assert '<th scope="col">a</th>' in shown
    assert re.findall(r"nth-child\((\d)\) {text-align:left}", shown) == ["1"]  # numbers stand right


def test_a_table_joins_the_ends_of_an_interval_and_links() -> None:
    frame = pd.DataFrame({"study": pd.Series([Link("<best>", "a.html"), "x"], dtype=object), "pearson": [0.8, 0.7]})
    frame = frame.assign(low=[0.75, np.nan], high=[0.85, np.nan], recall_low=0.1, recall_high=0.2)
    shown = plots.table(frame, "Two")._repr_html_()
    assert re.findall(r'scope="col">(.*?)<', shown) == ["study", "pearson", "interval", "recall interval"]
    best, pearson, interval, recall, *_, last, _ = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert (best, pearson) == ('<a href="a.html">&lt;best&gt;</a>', "0.80")
    assert (interval, recall, last) == ("[0.75,\u00a00.85]", "[0.10,\u00a00.20]", "–")


def test_a_column_has_as_many_decimals_as_its_largest_number_needs() -> None:
    frame = pd.DataFrame({"<b>": [0.1234, -0.0001], "ms": [12.345, 1.5], "s": [1234.5, np.nan]})
    frame["what"] = pd.Series(["minilm", Folded("small", "<lora>")], dtype=object)
    shown = plots.table(frame, "C")._repr_html_()
    cells = re.findall(r"<td[^>]*>(.*?)</td>", shown)
    assert cells[:4] == ["0.123", "12.3", "1,234", "minilm"]
    assert cells[4:7] == ["0.000", "1.5", "–"]
    assert cells[7] == "small <details><summary>settings</summary>&lt;lora&gt;</details>"
    assert '<th scope="col">&lt;b&gt;</th>' in shown


def test_search_tables_do_not_share_their_script():
    frame = pd.DataFrame({"a": [f"row {i}" for i in range(200)], "b": 1.0})
    first, second = (plots.table(frame, caption, search=True)._repr_html_() for caption in ("First.", "Second."))
    assert (first.count("<tr"), first.count('<th scope="col"><button')) == (201, 2)
    names = [re.search(r'<figure id="(table-\w+)"', shown)[1] for shown in (first, second)]
    assert f'getElementById("{names[0]}")' in first
    assert names[1] not in first
    text = plots.environment(plots.setup(), seed=7).data
    assert re.search(r"commit \S+( \(.*?\))? · date \d{4}-\d\d-\d\d · .*seed 7 · wall time [\d.]+ s", text)


def test_a_forest_of_differences_takes_their_interval_not_that_of_another_value() -> None:
    rows = {"system": ["ours", "theirs"], "pearson": [0.5, 0.4], "low": [0.4, 0.3], "high": [0.6, 0.5]}
    rows |= {"difference": [0.1, -0.2], "difference_low": [0.05, -0.3], "difference_high": [0.15, -0.1]}
    figure = plots.forest(pd.DataFrame(rows), "system", value="difference", axis="difference", caption="D")
    assert "[0.050, 0.150]" in figure.caption
    assert "0.400" not in figure.caption


def test_baselines_are_grey_beside_ones_own() -> None:
    rows = pd.DataFrame({"label": ["trained model, test", "words"], "pearson": [0.5, 0.4], "low": 0.3, "high": 0.6})
    figure = plots.forest(rows, "label", own="trained model", caption="C")
    assert "grey: baselines" in figure.caption
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert colours == [BLUE, GREY]
    assert "grey" not in plots.forest(rows.head(1), "label", own="trained model", caption="C").caption


def test_bars_of_baselines_are_grey_beside_ones_own() -> None:
    rows = pd.DataFrame({"system": ["ours", "theirs"], "rate": [2.0, 1.0]})
    figure = plots.bars(rows, "system", "rate", own="ours", caption="C")
    assert [to_hex(bar.get_facecolor()) == GREY for bar in figure.axes[0].patches] == [False, True]
    assert "grey: baselines" in figure.caption
    assert "grey" not in plots.bars(rows, "system", "rate", caption="C").caption


def test_a_table_whose_columns_need_more_than_the_text_uses_the_window() -> None:
    columns = {f"column {number}": [0.123] for number in range(10)}
    assert 'class="mathjax_ignore wide blocks"' in plots.table(pd.DataFrame(columns), "W")._repr_html_()
    few = pd.DataFrame(columns).iloc[:, :3]
    assert 'class="mathjax_ignore"' in plots.table(few, "N")._repr_html_()


def test_a_phone_shows_wide_rows_as_blocks_whose_cells_name_their_columns() -> None:
    frame = pd.DataFrame({"<anchor>": ["a long phrase of some words"], "target": ["another phrase"], "score": [0.5]})
    shown = plots.table(frame, "P")._repr_html_()
    assert 'class="mathjax_ignore blocks"' in shown
    assert '<td data-name="&lt;anchor&gt;">a long phrase of some words</td><td data-name="target">' in shown
    assert "data-name=" not in plots.table(frame[["score"]], "N")._repr_html_().split("</style>")[1]


def test_a_short_table_is_shown_whole() -> None:
    whole = "{max-height:none}"
    frame = pd.DataFrame({"kind": [f"kind {row}" for row in range(16)]})
    assert whole in plots.table(frame.head(15), "Kinds")._repr_html_()
    assert whole not in plots.table(frame, "Kinds")._repr_html_()
