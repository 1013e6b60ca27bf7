"""The form of notebook 0: two phrases and a class, or a list to rank; for JupyterLab and, by Voilà, a page."""

from collections.abc import Callable
from pathlib import Path

import ipywidgets as widgets
import pandas as pd

from patsim_utils.data import cpc
from patsim_utils.errors import InputError
from patsim_utils.method.matcher import Matcher
from patsim_utils.ratings import MEANINGS, in_words
from patsim_utils.study.look.html_tables import Table
from patsim_utils.study.look.markup import fill
from patsim_utils.training.runs import run_folder

WIDE = widgets.Layout(width="min(40rem, 95%)")
LABEL = {"description_width": "6rem"}


def load(run: str = "") -> Matcher:
    """A model: of a run, by its folder or the name of its study, or one that ships, by its name; "" for the small one.

    InputError where there is none.
    """
    if not run:
        return Matcher.load()
    folder = run_folder(run)
    if Path(run).name == run and folder.is_dir():
        return Matcher.load(folder)
    return Matcher.load(run)


def sentence(matcher: Matcher, anchor: str, target: str, context: str) -> str:
    """What the model says of a pair, in words: `very likely the same; .92; most probably: synonym`."""
    row = matcher.explain(pd.DataFrame({"anchor": [anchor], "target": [target], "context": [context]})).iloc[0]
    text = f"{in_words(row['score'])}; {short_number(row['score'])}"
    if "rating" in row:
        text += f"; kind of relation, most probably: {MEANINGS[row['rating']]}"
    return text


def short_number(score: float) -> str:
    """A score in [0, 1] with two digits: `.92`, `1`."""
    text = f"{score:.2f}".removeprefix("0")
    return "1" if text == "1.00" else text


def relations(matcher: Matcher, anchor: str, target: str, context: str) -> pd.DataFrame:
    """Probability of each kind of relation: relation, probability; empty where the model has learned scores only."""
    if matcher.network.rating_head is None:
        return pd.DataFrame(columns=["relation", "probability"])
    pair = pd.DataFrame({"anchor": [anchor], "target": [target], "context": [context]})
    probabilities = matcher.ratings(pair).iloc[0]
    return pd.DataFrame({"relation": list(MEANINGS.values()), "probability": probabilities.to_numpy()})


def phrases(text: str) -> list[str]:
    """The phrases of a pasted list: one a line, or with semicolons between them; without empty ones."""
    parts = text.replace(";", "\n").splitlines()
    return [part.strip() for part in parts if part.strip()]


class Form:
    """Fields for two phrases and a class, an answer in words, and a list that is ranked; `widget` shows itself."""

    def __init__(self, matcher: Matcher, *, anchor: str, target: str, context: str, candidates: str) -> None:
        self.matcher = matcher
        self.classes = {f"{code} {matcher.titles[code]}": code for code in cpc.CLASSES}
        first = next((label for label, code in self.classes.items() if code == context), "")
        options = {"layout": WIDE, "style": LABEL}
        self.anchor = widgets.Text(anchor, description="phrase", **options)
        self.target = widgets.Text(target, description="other phrase", **options)
        hint = "type a word of its title, such as vehicles, or a code"
        self.context = widgets.Combobox(
            value=first, options=list(self.classes), description="class", placeholder=hint, **options
        )
        self.answer = widgets.HTML()
        lines = "\n".join(phrases(candidates))
        options |= {"rows": 8, "placeholder": "one phrase a line"}
        self.candidates = widgets.Textarea(lines, description="list", **options)
        self.ranking = widgets.HTML()
        compare = widgets.Button(description="Compare", button_style="primary")
        compare.on_click(lambda _: self.compare())
        rank = widgets.Button(description="Rank the list", button_style="primary")
        rank.on_click(lambda _: self.rank())
        pair = [self.anchor, self.target, self.context, compare, self.answer]
        self.widget = widgets.VBox([*pair, self.candidates, rank, self.ranking])

    def compare(self) -> None:
        """Shows what the model says of the two phrases; of an empty field or a wrong class a line."""
        self.answer.value = self._answered(self._compared)

    def rank(self) -> None:
        """Shows the list, the nearest to the first phrase on top; of an empty field or a wrong class a line."""
        self.ranking.value = self._answered(self._ranked)

    def _answered(self, work: Callable[[], str]) -> str:
        """What `work` returns, or the fault that the user can mend, as HTML."""
        try:
            return str(work())
        except InputError as error:
            return str(fill('<p role="alert">{error}</p>', error=str(error)))

    def _compared(self) -> str:
        anchor = _filled(self.anchor, "a phrase")
        target = _filled(self.target, "the phrase that is compared with it")
        text = sentence(self.matcher, anchor, target, self._code())
        return fill("<p><strong>{text}</strong></p>", text=text)

    def _ranked(self) -> str:
        anchor = _filled(self.anchor, "a phrase")
        listed = phrases(self.candidates.value)
        if not listed:
            raise InputError("The list is empty: type or paste phrases into it, one a line.")
        table = self.matcher.rank(anchor, listed, context=self._code())
        table["in words"] = table["score"].map(in_words)
        return Table(table, f"{len(table)} phrases, the nearest to “{anchor}” first")._repr_html_()

    def _code(self) -> str:
        """The chosen class; InputError where the field holds none."""
        text = self.context.value.strip()
        code = self.classes.get(text) or cpc.class_of(text)
        if code is None:
            raise InputError("Choose a class: type a word of its title, or a code such as H04, into the field class.")
        return code


def _filled(field: widgets.Text, what: str) -> str:
    """The text of a field; InputError where it is empty."""
    text = field.value.strip()
    if not text:
        raise InputError(f"The field “{field.description}” is empty: type {what} into it.")
    return text
