"""One executed notebook as a page that needs no other file."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from markupsafe import Markup
from nbconvert import HTMLExporter

from patsim_utils.environment import commit
from patsim_utils.study.look.markup import TOP, fill

# Explained where a page first uses them; the first word of each is also found in the plural.
GLOSSARY = {
    "anchor": "The phrase that a searcher starts from. The phrase that is compared with it is the target.",
    "Pearson": "A correlation: 1 where the model's scores rise in step with people's, 0 where they have "
    "nothing to do with each other.",
    "interval": "How far the figure depends on the anchors that happened to be measured: drawn anew "
    "at random from these anchors, it lies in this range in 95 of 100 cases.",
    "narrower": "“Steel” is a narrower term for “metal”: each steel is a metal. Linguists say hyponym.",
    "broader": "“Metal” is a broader term for “steel”. Linguists say hypernym.",
    "opposite": "“Soft” is the opposite of “hard”. Linguists say antonym.",
    "cross-encoder": "A model that reads both phrases of a pair together, every pair anew.",
    "bi-encoder": "A model that turns each phrase into numbers by itself; two phrases are compared by these.",
    "retriever": "What finds, of very many phrases, the few hundred that the model then reads.",
    "calibration": "Whether a score can be taken at its word: of pairs with a score near 0.6, the "
    "mean of people's scores should be 0.6.",
    "validation": "Pairs that were kept out of training. Which epoch's model is kept was decided by them.",
    "seed": "The number from which a training's random start follows; another one gives slightly other figures.",
    "precision": "Of what is kept, the share that is worth keeping.",
    "recall": "Of what is worth keeping, the share that is kept.",
    "nDCG": "1 where the best candidates stand first, in the order of people's scores; less, the lower they stand.",
    "pretrained cosine": "How alike the encoder finds the two phrases before any training on such pairs.",
    "word-Jaccard": "Shared words divided by all words of the two phrases.",
    "epoch": "One pass over all training pairs.",
    "token": "A word or a piece of a word, the unit in which the model reads.",
    "LoRA": "A few added weights are trained, while the encoder's own stay as they are.",
    "embedding": "A row of numbers that the model has learned for a class.",
}
_WORDS = "|".join(map(re.escape, GLOSSARY))
_UNTOUCHED = r"h\d|code|a|svg|button|summary"  # elements in which no term is explained
_TERMS = re.compile(rf"<({_UNTOUCHED})\b.*?</\1>|<[^>]*>|\b({_WORDS})s?\b", flags=re.IGNORECASE | re.DOTALL)
_KNOWN = {term.lower(): term for term in GLOSSARY}
_HEADING = re.compile(r"^## +(.+?)\s*$", flags=re.MULTILINE)
ENGINEERS = "engineers"  # tag of a section's first cell: it is folded


class Prose:
    """Explains the terms of one page; `explained` are those that it has, in their order."""

    def __init__(self) -> None:
        self.explained: list[str] = []

    def explain(self, text: str) -> str:
        """HTML in which each term of the glossary is a button where the page first uses it."""
        return _TERMS.sub(self._button, str(text))

    def _button(self, match: re.Match) -> str:
        term = _KNOWN.get((match[2] or "").lower())
        if term is None or term in self.explained:
            return match[0]
        self.explained.append(term)
        template = (
            '<button type="button" class="term" popovertarget="{id}">{text}</button>'
            '<span popover id="{id}" class="meaning"><strong>{term}</strong>: {meaning}</span>'
        )
        identity = f"term-{len(self.explained)}"
        return str(fill(template, id=identity, text=match[0], term=term, meaning=GLOSSARY[term]))

    @property
    def glossary(self) -> list[tuple[str, str]]:
        """The explained terms with their meanings, for paper."""
        return [(term, GLOSSARY[term]) for term in self.explained]


def page(
    executed: Path,
    *,
    name: str,
    titles: dict[str, str],
    reports: Path,
    summary: dict[str, Any] | None = None,
    credit: str = "",
) -> str:
    """The executed notebook of study `name` as one HTML page.

    `titles` are the study's pages, file stem -> heading, which the page links to besides the index.
    `summary` is what `summary.summary` returns: one page shows all of it, the others its verdict.
    `credit`: whose phrases these are.
    """
    notebook = nbformat.read(executed, as_version=4)
    prose = Prose()
    pages = []
    for stem, text in titles.items():
        pages.append({"stem": stem, "title": text, "here": stem == executed.stem})
    study = {
        "name": name,
        "title": titles[executed.stem],
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "credit": credit,
        "pages": pages,
        "contents": outline(notebook),
        "summary": summary,
        "top": own_top(notebook),
        "whole": executed.stem == summary_page(titles),
        "summary_page": summary_page(titles),
        "examples": executed.stem == "0_try",  # they stand before what explains
    }
    exporter = HTMLExporter(
        template_name="template",
        extra_template_basedirs=[str(reports)],
        exclude_anchor_links=True,
        filters={"explained": prose.explain, "glossary": lambda _: prose.glossary},
    )
    text, _ = exporter.from_notebook_node(notebook, {"study": study})
    return text.replace(f"{reports.resolve().parent}/", "")  # a warning names the file it comes from


def own_top(notebook: nbformat.NotebookNode) -> Markup:
    """What a cell of the notebook shows for the page's top (`markup.top`), which leaves that cell; else nothing."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            text = output.get("data", {}).get("text/html", "")
            if text.startswith(TOP):
                cell.outputs.remove(output)
                return Markup(text)
    return Markup("")


def summary_page(titles: Iterable[str]) -> str:
    """Which of a study's pages has the summary: 2_train, else that of one's own phrases, else Errors."""
    return next((stem for stem in ("2_train", "0_try", "3_errors") if stem in titles), "")


def outline(notebook: nbformat.NotebookNode) -> list[dict[str, Any]]:
    """Sets the id of each section of a notebook, and folds those for engineers.

    Returns id, heading, folded of each. The cell with the title goes, since the page's top has the
    title. The cells' metadata, which the template reads, say where a folded section starts and ends.
    """
    cells = notebook.cells
    if cells and cells[0].cell_type == "markdown" and cells[0].source.startswith("# "):
        cells.pop(0)
    contents: list[dict[str, Any]] = []
    last = None  # of an open folded section
    for cell in cells:
        heading = _HEADING.search(cell.source) if cell.cell_type == "markdown" else None
        if heading:
            if last is not None:
                last.metadata["section_end"] = True
                last = None
            section = {"id": f"s{len(contents) + 1}", "heading": heading[1], "folded": False}
            section["folded"] = ENGINEERS in cell.metadata.get("tags", [])
            contents.append(section)
            cell.source = _HEADING.sub("", cell.source, count=1)
            cell.metadata["section"] = section
            last = cell if section["folded"] else None
        elif last is not None:
            last = cell
    if last is not None:
        last.metadata["section_end"] = True
    return contents


def title(notebook: Path) -> str:
    """First heading of a notebook, which names its page; else the file's stem."""
    if not notebook.is_file():
        return notebook.stem
    cells = nbformat.read(notebook, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    heading = re.search(r"^# +(.+)$", text, flags=re.MULTILINE)
    return heading[1].strip() if heading else notebook.stem
