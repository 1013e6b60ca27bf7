"""The form of notebook 6: a phrase and a class, and the phrases of the corpus that mean the same."""

import ipywidgets as widgets

from patsim_utils.layouts.words import Words
from patsim_utils.search.search import Search
from patsim_utils.study import answers
from patsim_utils.study.app import LABEL, WIDE, answered, class_field, code_of, doubts, filled
from patsim_utils.study.look.html_tables import Table
from patsim_utils.study.look.markup import fill

HELP = "Type a phrase, choose a class by its code or a word of its title, and press Search."
SHOWN = ("rank", "phrase", "score")


class Form:
    """Fields for a phrase and a class, and the best `top` phrases. `widget` shows itself."""

    def __init__(self, search: Search, *, query: str, context: str, top: int) -> None:
        self.search = search
        self.top = top
        self.words = Words(search.matcher.tokenizer.get_vocab())
        self.query = widgets.Text(query, description="phrase", layout=WIDE, style=LABEL)
        self.context = class_field(search.matcher.titles, context)
        self.answer = widgets.HTML()
        button = widgets.Button(description="Search", button_style="primary")
        button.on_click(lambda _: self.find())
        help_text = widgets.HTML(fill("<p>{text}</p>", text=HELP))
        self.widget = widgets.VBox([help_text, self.query, self.context, button, self.answer])

    def find(self) -> None:
        """Shows what is found, or which field is wrong."""
        self.answer.value = answered(self._found)

    def _found(self) -> str:
        query = filled(self.query)
        hits = self.search(query, context=code_of(self.context), top=self.top)
        sentence = fill("<p><strong>{text}</strong></p>", text=answers.nearest(hits)) + doubts(self.words, query)
        if hits.empty:
            return sentence
        return str(sentence) + Table(hits[list(SHOWN)], f"The nearest to “{query}”")._repr_html_()
