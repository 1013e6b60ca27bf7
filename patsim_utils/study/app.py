"""The form of notebook 0, for JupyterLab and, by Voilà, a page.

It takes two phrases and a class, or a list to rank.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import ipywidgets as widgets
import pandas as pd
from markupsafe import Markup

from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.layouts.words import Words
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import RELATION_WORDS, in_words
from patsim_utils.study.look.html_tables import Table
from patsim_utils.study.look.markup import fill, join
from patsim_utils.training.runs import run_folder

WIDE = widgets.Layout(width="min(40rem, 95%)")
LABEL = {"description_width": "6rem"}
HELP = "Type two phrases and a class, and press Compare; or paste a list, and have it ranked beside the first phrase."
# Four phrases and their classes, each with ten candidates; written for this project
QUERIES = {
    ("door lock", "E05"): "latch; key-operated closure; bolt mechanism; door hinge; padlock; "
    "electronic door opener; combination lock; window frame; canal lock; lock of hair",
    ("solar panel", "H02"): "photovoltaic module; array of solar cells; solar collector for water; "
    "wind turbine; inverter; mounting rack; control panel; battery; sunlight; panel discussion",
    ("pain reliever", "A61"): "analgesic; painkiller tablet; anti-inflammatory drug; bandage; "
    "local anaesthetic; antibiotic; massage device; pain; pressure relief valve; stimulant",
    ("image sensor", "H04"): "camera chip; array of photodetectors; charge-coupled device; "
    "digital camera; lens; temperature sensor; display panel; image file; odour sensor; printer",
}


def load(run: str = "") -> Matcher:
    """A trained model; "" for the small one that ships.

    `run`: the folder of a run, the name of its study, or the name of a model that ships. InputError
    where there is none.
    """
    if not run:
        return Matcher.load()
    folder = run_folder(run)
    if Path(run).name == run and folder.is_dir():
        return Matcher.load(folder)
    return Matcher.load(run)


def sentence(matcher: Matcher, anchor: str, target: str, context: str) -> str:
    """What the model says of a pair: `very likely the same; .92; the second is most probably a narrower term`."""
    predictions = matcher.read(pd.DataFrame({"anchor": [anchor], "target": [target], "context": [context]}))
    score = float(predictions.scores[0])
    text = f"{in_words(score)}; {short_number(score)}"
    if predictions.relations is not None:
        relation = predictions.relations.iloc[0].idxmax()
        text += f"; “{target}” is most probably {RELATION_WORDS[relation]}"
    return text


def short_number(score: float) -> str:
    """A score in [0, 1] with two digits: `.92`, `1`."""
    text = f"{score:.2f}".removeprefix("0")
    return "1" if text == "1.00" else text


def relations(matcher: Matcher, anchor: str, target: str, context: str) -> pd.DataFrame:
    """Probability of each kind of relation: relation, probability.

    Empty where the model has learned scores only.
    """
    predictions = matcher.read(pd.DataFrame({"anchor": [anchor], "target": [target], "context": [context]}))
    if predictions.relations is None:
        return pd.DataFrame(columns=["relation", "probability"])
    probabilities = predictions.relations.iloc[0]
    return pd.DataFrame({"relation": probabilities.index.map(RELATION_WORDS), "probability": probabilities.to_numpy()})


def phrases(text: str) -> list[str]:
    """The phrases of a pasted list: one a line, or with semicolons between them."""
    parts = text.replace(";", "\n").splitlines()
    return [part.strip() for part in parts if part.strip()]


def rankings(matcher: Matcher) -> dict[str, pd.DataFrame]:
    """The candidates of each of QUERIES, the nearest first: phrase and class -> rank, target, score."""
    tables = {}
    for (anchor, context), candidates in QUERIES.items():
        table = matcher.rank(anchor, phrases(candidates), context=context)
        tables[f"“{anchor}” in {context}"] = table[["rank", "target", "score"]]
    return tables


def firsts(tables: Mapping[str, pd.DataFrame]) -> str:
    """Of `rankings`: what stands first for each query, in one sentence."""
    parts = []
    for query, table in tables.items():
        row = table.iloc[0]
        parts.append(f"{query}: “{row['target']}” ({short_number(row['score'])})")
    return f"First for {'; '.join(parts)}."


class Form:
    """Fields for two phrases and a class, an answer in words, and a list that is ranked.

    `widget` shows itself.
    """

    def __init__(
        self,
        matcher: Matcher,
        *,
        anchor: str,
        target: str,
        context: str,
        candidates: str,
    ) -> None:
        self.matcher = matcher
        self.words = Words(matcher.tokenizer.get_vocab())
        options = {"layout": WIDE, "style": LABEL}
        self.anchor = widgets.Text(anchor, description="phrase", **options)
        self.target = widgets.Text(target, description="other phrase", **options)
        self.context = class_field(matcher.titles, context)
        self.answer = widgets.HTML()
        lines = "\n".join(phrases(candidates))
        options |= {"rows": 8, "placeholder": "one phrase a line"}
        self.candidates = widgets.Textarea(lines, description="list", **options)
        self.ranking = widgets.HTML()
        compare = widgets.Button(description="Compare", button_style="primary")
        compare.on_click(lambda _: self.compare())
        rank = widgets.Button(description="Rank the list", button_style="primary")
        rank.on_click(lambda _: self.rank())
        help_text = widgets.HTML(fill("<p>{text}</p>", text=HELP))
        pair = [help_text, self.anchor, self.target, self.context, compare, self.answer]
        self.widget = widgets.VBox([*pair, self.candidates, rank, self.ranking])
        for field in (self.anchor, self.target, self.context):
            field.observe(self._clear, names="value")

    def _clear(self, _: object) -> None:
        """Takes away answers to what the fields no longer hold."""
        self.answer.value = ""
        self.ranking.value = ""

    def compare(self) -> None:
        """Shows what the model says of the two phrases, or which field is wrong."""
        self.answer.value = answered(self._compared)

    def rank(self) -> None:
        """Shows the list, the nearest to the first phrase on top, or which field is wrong."""
        self.ranking.value = answered(self._ranked)

    def _compared(self) -> str:
        anchor = filled(self.anchor)
        target = filled(self.target)
        context = code_of(self.context)
        text = f"“{target}” for “{anchor}” in {context}: {sentence(self.matcher, anchor, target, context)}"
        return fill("<p><strong>{text}</strong></p>", text=text) + doubts(self.words, anchor, target)

    def _ranked(self) -> str:
        anchor = filled(self.anchor)
        listed = phrases(self.candidates.value)
        if not listed:
            raise InputError("The list is empty: type or paste phrases into it, one a line.")
        context = code_of(self.context)
        table = self.matcher.rank(anchor, listed, context=context)
        table["in words"] = table["score"].map(in_words)
        shown = Table(table, f"{len(table)} phrases, the nearest to “{anchor}” in {context} first")._repr_html_()
        return doubts(self.words, anchor, *listed) + Markup(shown)


def doubts(words: Words, *phrases: str) -> Markup:
    """A line for each phrase of which a score means little."""
    sentences = [words.doubt(phrase) for phrase in phrases]
    return join([fill('<p role="note">{text}.</p>', text=sentence) for sentence in sentences if sentence])


def class_field(titles: Mapping[str, str], context: str) -> widgets.Combobox:
    """A field in which a class is found by its code or a word of its title."""
    labels = {code: f"{code} {titles[code]}" for code in cpc.CLASSES}
    hint = "type a word, such as telephone, and pick a line; or a code, such as H04"
    options = {"layout": WIDE, "style": LABEL, "description": "class", "placeholder": hint}
    return widgets.Combobox(value=labels.get(context, ""), options=list(labels.values()), **options)


def code_of(field: widgets.Combobox) -> str:
    """The class that is chosen in a `class_field`; InputError where it holds none."""
    text = field.value.strip()
    if text in field.options:
        text = text.partition(" ")[0]
    code = cpc.class_of(text)
    if code is None:
        fault = f"“{text}” is no class" if text else "The field “class” is empty"
        raise InputError(
            f"{fault}: type a word of its title and pick one of the lines offered, or type a code, such as H04."
        )
    return code


def answered(work: Callable[[], str]) -> str:
    """What `work` returns, or the fault that the user can mend, as HTML."""
    try:
        return str(work())
    except InputError as error:
        return str(fill('<p role="alert">{error}</p>', error=str(error)))


def by_voila() -> bool:
    """Whether Voilà shows this notebook as a page to somebody who waits for it."""
    return os.environ.get("SERVER_SOFTWARE", "").startswith("voila")


def filled(field: widgets.Text) -> str:
    """The text of a field; InputError where it is empty."""
    text = field.value.strip()
    if not text:
        raise InputError(f"The field “{field.description}” is empty: type a phrase into it.")
    return text
