"""The only module in which text enters HTML: all of it is escaped."""

from markupsafe import Markup


def fill(template: str, **values: object) -> Markup:
    """A template of HTML with values in the places `{name}`; what is no Markup yet is escaped.

    >>> print(fill("<p>{text}</p>", text="a < b"))
    <p>a &lt; b</p>
    """
    return Markup(template).format(**values)


def join(parts: list[Markup], between: str = "") -> Markup:
    """Pieces of HTML one behind the other."""
    return Markup(between).join(parts)


class Shown:
    """HTML that JupyterLab and the pages show where it is the last value of a cell."""

    def __init__(self, markup: Markup) -> None:
        self.data = markup

    def _repr_html_(self) -> str:
        return str(self.data)


def note(text: str) -> Shown:
    """A plain sentence, such as where there is nothing to draw."""
    return Shown(fill('<p class="note">{text}</p>', text=text))


def answer(sentence: str, more: str = "") -> Shown:
    """The answer to a question of a notebook: a sentence in bold, and what else there is to say."""
    template = '<p class="answer"><strong>{sentence}</strong> {more}</p>'
    return Shown(fill(template, sentence=sentence, more=more))
