"""The only module in which text enters HTML: all of it is escaped."""

from collections.abc import Sequence
from typing import Protocol

from markupsafe import Markup

TOP = '<section class="summary"'  # how the top of a page begins


class Picture(Protocol):
    """A figure, or a sentence in its place."""

    def _repr_html_(self) -> str: ...


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


def top(verdict: str, tiles: Sequence[tuple[str, str]], picture: Picture | None) -> Shown:
    """What a page begins with: a sentence, tiles of a short figure and its words, and a chart."""
    tile = "<p><strong>{figure}</strong> {words}</p>"
    shown = [fill(tile, figure=figure, words=words) for figure, words in tiles]
    template = (
        TOP + ' aria-label="Summary"><p class="verdict">{verdict}</p><div class="tiles">{tiles}</div>{chart}</section>'
    )
    chart = Markup("") if picture is None else Markup(picture._repr_html_())
    return Shown(fill(template, verdict=verdict, tiles=join(shown), chart=chart))
