"""A page of a notebook that was executed: its top, its contents, what is folded, whose phrases it shows."""

import html
import re
from pathlib import Path

import nbformat
import pytest
from markupsafe import Markup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from patsim_utils.config import Config
from patsim_utils.data.splits import GOOGLE
from patsim_utils.study.look.markup import answer, top
from patsim_utils.study.pages import summary
from patsim_utils.study.pages.page import page

ROOT = Path(__file__).parents[2]
TOP = {
    "verdict": "It orders 88 of 100 pairs rightly (Pearson 0.8).",
    "tiles": [{"figure": "88 of 100", "words": "of < them"}],
    "picture": Markup("<figure>chart</figure>"),
    "sentences": ["Meant for ranking."],
}


def executed(folder: Path, stem: str) -> Path:
    """A notebook with two questions, the second of which is for engineers, and a last part."""
    shown = answer("44 % are kept, with recall.", "More.")
    output = new_output("execute_result", data={"text/html": shown._repr_html_()}, execution_count=1)
    cells = [
        new_markdown_cell("# A title: of a notebook\n\n1. First?\n2. Second?"),
        new_markdown_cell("## First?\n\nAbout anchors."),
        new_code_cell("ask()", outputs=[output]),
        new_markdown_cell("## Second <b>?", metadata={"tags": ["engineers"]}),
        new_code_cell("shapes()", outputs=[new_output("stream", text="a shape")]),
        new_markdown_cell("## Where from"),
        new_code_cell("environment()"),
    ]
    path = folder / f"{stem}.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


def shown(folder: Path, stem: str, *, credit: str = "") -> str:
    titles = {"2_train": "Train: it", "3_errors": "Errors: where"}
    return page(executed(folder, stem), name="n", titles=titles, reports=ROOT / "reports", summary=TOP, credit=credit)


@pytest.mark.parametrize("is_demonstration", [True, False])
def test_the_page_of_a_demonstration_links_to_the_models_that_ship(
    is_demonstration, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(TOP, "is_demonstration", is_demonstration)
    links = shown(tmp_path, "2_train").count('<a href="../index.html">what they say of forty pairs</a>')
    assert links == is_demonstration
    assert summary.use(Config(data="sample"))[-1].endswith("a demonstration, not for use.")


def test_a_page_begins_with_title_and_verdict_and_the_summary_stands_once(tmp_path: Path) -> None:
    train = shown(tmp_path, "2_train")
    order = [
        train.index(text) for text in ("<h1>Train: it", 'class="verdict"', 'class="tiles"', "chart</figure>", "<h2")
    ]
    assert order == sorted(order)
    assert "of &lt; them" in train
    errors = shown(tmp_path, "3_errors")
    assert 'class="tiles"' not in errors
    assert "It orders 88 of 100 pairs rightly" in errors
    assert '<a href="2_train.html">Summary</a>' in errors
    assert "A title: of a notebook" not in errors  # the top has the page's own


def test_what_a_notebook_shows_for_the_top_stands_there_in_place_of_the_summary(tmp_path: Path) -> None:
    path = executed(tmp_path, "4_speed")
    notebook = nbformat.read(path, as_version=4)
    shown_top = top("It is 3 < 4 times as fast.", [("3 times", "the speed")], None)
    output = new_output("execute_result", data={"text/html": shown_top._repr_html_()}, execution_count=1)
    notebook.cells.insert(5, new_code_cell("tops.speed(rates)", outputs=[output]))
    nbformat.write(notebook, path)
    text = page(path, name="n", titles={"4_speed": "Speed: it"}, reports=ROOT / "reports", summary=TOP)
    assert text.count('class="verdict"') == text.count('class="tiles"') == 1
    assert (
        text.index("<h1>Speed")
        < text.index("It is 3 &lt; 4 times as fast.")
        < text.index("3 times")
        < text.index("<h2")
    )
    assert "It orders 88 of 100" not in text
    assert "tops.speed" in re.sub("<[^>]*>", "", text)  # its code stays where it was


def test_what_is_for_engineers_is_folded_and_the_contents_lead_to_it(tmp_path: Path) -> None:
    text = shown(tmp_path, "3_errors")
    folded = re.search(
        r'<details class="engineers" id="s2">(.*?a shape.*?)</details>\s*<h2 id="s3">', text, flags=re.DOTALL
    )
    assert "<summary>For engineers: Second &lt;b&gt;?</summary>" in folded[0]
    assert '<h2 id="s1">First?</h2>' in text
    for contents in re.findall(r"<ol>(.*?)</ol>", text, flags=re.DOTALL):
        assert re.findall('href="#(s.)"', contents) == ["s1", "s2", "s3"]
    assert len(re.findall("<ol>", text)) == 2  # at the side of a wide window, on top of a narrow one


def test_terms_are_explained_where_they_are_first_used_and_once_more_for_paper(tmp_path: Path) -> None:
    text = shown(tmp_path, "3_errors")
    assert re.search(r"<button[^>]*>recall</button>", text)  # also in a computed answer
    terms = re.findall(r"<dt>(.*?)</dt>", text)
    assert terms == ["Pearson", "anchor", "recall"]


@pytest.mark.parametrize(
    ("data", "prints", "credit"),
    [
        ("sample", {}, "CC0"),
        ("kaggle", {}, "Google, CC BY 4.0"),
        ("./folder", GOOGLE, "Google, CC BY 4.0"),
        ("./folder", GOOGLE | {"train": "of a student"}, "Google, CC BY 4.0"),
        ("./mine", {"train": "0"}, ""),
    ],
)
def test_a_page_says_whose_phrases_it_shows(tmp_path: Path, data: str, prints: dict[str, str], credit: str) -> None:
    line = summary.credit(data, prints)
    assert credit in line
    assert bool(line) == bool(credit)
    if line:
        assert f" · {html.escape(line)}" in shown(tmp_path, "3_errors", credit=line)
