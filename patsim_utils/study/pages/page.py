"""One executed notebook as a page that needs no other file: summary, contents, glossary, code behind one switch."""

import html
import itertools
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter

from patsim_utils.environment import commit

# Explained where a page first uses them; the first word of each is also found in the plural.
GLOSSARY = {
    "anchor": "The phrase that a searcher starts from. The phrase that is compared with it is the target.",
    "Pearson": "A correlation: 1 where the model's scores rise in step with people's, 0 where they have nothing to do "
    "with each other.",
    "interval": "How far the figure depends on the anchors that happened to be measured: drawn anew at random from "
    "these anchors, it lies in this range in 95 of 100 cases.",
    "hyponym": "A narrower term: “steel” for “metal”.",
    "hypernym": "A broader term: “metal” for “steel”.",
    "meronym": "A part: “wheel” for “bicycle”.",
    "holonym": "The whole: “bicycle” for “wheel”.",
    "antonym": "The opposite: “soft” for “hard”.",
    "calibration": "Whether a score can be taken at its word: of pairs with a score near 0.6, the mean of people's "
    "scores should be 0.6.",
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
_TERMS = re.compile(rf"<(h\d|code|a)\b.*?</\1>|<[^>]*>|\b({_WORDS})s?\b", flags=re.IGNORECASE | re.DOTALL)
_KNOWN = {term.lower(): term for term in GLOSSARY}


class _Prose:
    """Filters of the template for one page: headings get the places that its contents name, terms their explanation."""

    def __init__(self) -> None:
        self.headings, self.told = itertools.count(1), []

    def numbered(self, text: str) -> str:
        """HTML whose <h2> have the ids s1, s2 ..."""
        return re.sub("<h2[^>]*>", lambda _: f'<h2 id="s{next(self.headings)}">', text)

    def explained(self, text: str) -> str:
        """HTML in which each term of the glossary is a button where the page first uses it."""
        return _TERMS.sub(self._explain, text)

    def _explain(self, found: re.Match) -> str:
        term = _KNOWN.get((found[2] or "").lower())
        if term is None or term in self.told:
            return found[0]
        self.told.append(term)
        place = f"term-{len(self.told)}"
        return (
            f'<button type="button" class="term" popovertarget="{place}">{found[0]}</button>'
            f'<span popover id="{place}" class="meaning"><strong>{term}</strong>: {html.escape(GLOSSARY[term])}</span>'
        )


def page(
    executed: Path, *, name: str, titles: dict[str, str], reports: Path, summary: dict[str, Any] | None = None
) -> str:
    """The executed notebook of study `name` as one HTML page, with what `summary.summary` returns on top.

    `titles` are the study's pages, file stem -> heading, which the page links to besides the index.
    """
    notebook, prose = nbformat.read(executed, as_version=4), _Prose()
    study = {
        "name": name,
        "title": titles[executed.stem],
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "pages": [{"stem": stem, "title": text, "here": stem == executed.stem} for stem, text in titles.items()],
        "contents": re.findall(r"^## +(.+?)\s*$", _markdown(notebook), flags=re.MULTILINE),
        "summary": summary,
    }
    options = {"template_name": "template", "extra_template_basedirs": [str(reports)], "exclude_anchor_links": True}
    exporter = HTMLExporter(**options, filters={"numbered": prose.numbered, "explained": prose.explained})
    found, _ = exporter.from_notebook_node(notebook, {"study": study})
    return found.replace(f"{reports.resolve().parent}/", "")  # a warning names the file it comes from


def title(notebook: Path) -> str:
    """First heading of a notebook, which names its page; the file's stem where it has none or is gone."""
    text = _markdown(nbformat.read(notebook, as_version=4)) if notebook.is_file() else ""
    found = re.search(r"^# +(.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else notebook.stem


def _markdown(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
