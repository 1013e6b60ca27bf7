"""A frame as a table of a page; sorted and searched without a library."""

import zlib
from collections.abc import Callable
from urllib.parse import quote

import numpy as np
import pandas as pd
from markupsafe import Markup

from patsim_utils.study.look.markup import Shown, fill, join, note

ON_PAPER = 20  # rows
WHOLE = 15  # rows, up to which a table does not scroll down by itself: a row just below the edge would be missed
WIDE = 100  # letters of a row, from which on a table is wider than the text
PHONE = 46  # letters of a row, from which on a phone shows each row as a block
PADDING = 3  # letters, of a column
NARROW = 24  # letters of a column that paper does not break
UNBROKEN = 12  # letters of a column that is never broken, such as dates


class Link(str):
    """A cell that leads to a page: `Link("best", "best/3_errors.html")`.

    >>> Link("odd", "javascript:alert(1)/a b.html").href
    'javascript%3Aalert%281%29/a%20b.html'
    """

    href: str

    def __new__(cls, text: str, href: str) -> "Link":
        link = super().__new__(cls, text)
        link.href = quote(href)  # a folder's name is no address of its own
        return link


class Folded(str):
    """A cell with more behind a click on "settings": `Folded("MiniLM", "minilm, LoRA r=8")`."""

    settings: str

    def __new__(cls, text: str, settings: str) -> "Folded":
        folded = super().__new__(cls, text)
        folded.settings = settings
        return folded


class Reference(str):
    """A cell in the colour of what is there to be compared with."""


class Table:
    """A frame that JupyterLab and the pages show as a table with a caption.

    `frame` is the frame itself. Columns such as low and high, or recall_low and recall_high, are shown
    as one column, an interval of 95 %.
    """

    def __init__(self, frame: pd.DataFrame, caption: str, *, search: bool = False) -> None:
        self.frame = frame
        self.caption = caption
        self.search = search

    def _repr_html_(self) -> str:
        shown = with_intervals(self.frame)
        cells = {column: _cells(shown[column]) for column in shown}
        widths = {}
        for column in shown:
            widths[column] = max([len(str(column)), *_widths(shown[column], cells[column])])
        name = f"table-{zlib.crc32((self.caption + self.frame.to_csv()).encode()):08x}"
        paper = Markup("")
        if len(shown) > ON_PAPER:
            paper = fill('<span class="paper"> On paper: the first {rows} rows.</span>', rows=ON_PAPER)
        field = Markup("")
        script = Markup("")
        if self.search:
            field = Markup('<label>Search <input type="search"></label> <span role="status"></span>')
            script = Markup(f"<script>{_SCRIPT.replace('ID', name)}</script>")
        template = (
            '{style}<figure id="{name}" class="{kind}"><figcaption>{caption}{paper}</figcaption>{field}'
            '<div tabindex="0" role="region" aria-label="{caption}">{body}</div></figure>{script}'
        )
        style = Markup(f"<style>{_style(shown, widths).replace('ID', name)}</style>")
        letters = sum(widths.values()) + PADDING * len(widths)
        kind = "mathjax_ignore"
        if letters > WIDE:
            kind += " wide"
        if letters > PHONE:
            kind += " blocks"
        body = _body(cells, buttons=self.search, with_names=letters > PHONE)
        parts = {"style": style, "kind": kind, "paper": paper, "field": field}
        parts |= {"body": body, "script": script}
        return str(fill(template, name=name, caption=self.caption, **parts))


def table(frame: pd.DataFrame, caption: str, *, search: bool = False) -> Table | Shown:
    """A frame as a table, with `search` to be sorted and searched; a sentence where it is empty."""
    if frame.empty:
        return note(f"Nothing to show: {caption}")
    return Table(frame, caption, search=search)


def with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with one column of text for each two ends of an interval."""
    for low in [column for column in frame if str(column).endswith("low")]:
        start = low.removesuffix("low")
        high = f"{start}high"
        if high not in frame:
            continue
        text_of = number_format(pd.concat([frame[low], frame[high]]))
        texts = []
        for ends in zip(frame[low], frame[high], strict=True):
            known = all(pd.notna(end) for end in ends)
            texts.append(f"[{text_of(ends[0])},\u00a0{text_of(ends[1])}]" if known else "–")
        frame = frame.assign(**{low: texts}).drop(columns=high)
        frame = frame.rename(columns={low: f"{start.replace('_', ' ')}interval".strip()})
    return frame


def number_format(values: pd.Series) -> Callable[[float], str]:
    """How the numbers of a column are written.

    All have as many decimals as its largest number needs.
    """
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    known = numbers[np.isfinite(numbers)]
    largest = np.abs(known).max(initial=0)
    decimals = 3
    if np.array_equal(known, known.round(2)):  # such as scores
        decimals = 2
    if largest >= 100:
        decimals = 0
    elif largest >= 10:
        decimals = 1
    return lambda value: f"{round(value, decimals) + 0:,.{decimals}f}"  # + 0: no "-0.000"


def _cells(column: pd.Series) -> list[Markup]:
    """The cells of a column as HTML; a dash where there is no value."""
    text_of = number_format(column)
    return [_cell(value, text_of) for value in column]


def _widths(values: pd.Series, cells: list[Markup]) -> list[int]:
    """Letters of each cell that are seen."""
    widths = []
    for value, cell in zip(values, cells, strict=True):
        if isinstance(value, str):
            widths.append(len(value))
        else:
            widths.append(len(cell))
    return widths


def _cell(value: object, text_of: Callable[[float], str]) -> Markup:
    if isinstance(value, Link):
        return fill('<a href="{href}">{text}</a>', href=value.href, text=str(value))
    if isinstance(value, Folded):
        template = "{text} <details><summary>settings</summary>{settings}</details>"
        return fill(template, text=str(value), settings=value.settings)
    if isinstance(value, Reference):
        return fill('<span class="reference">{text}</span>', text=str(value))
    if isinstance(value, str):
        return fill("{text}", text=value)
    if pd.isna(value):
        return Markup("–")
    if isinstance(value, float | np.floating):
        return fill("{text}", text=text_of(value))
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return fill("{number}", number=f"{value:,}")
    return fill("{text}", text=str(value))


def _body(cells: dict[str, list[Markup]], *, buttons: bool, with_names: bool) -> Markup:
    """The <table> itself; with `buttons`, a click on a head sorts.

    `with_names`: each cell has the name of its column, which a phone shows before it.
    """
    head = '<th scope="col">{name}</th>'
    if buttons:
        head = '<th scope="col"><button type="button">{name}<span aria-hidden="true"></span></button></th>'
    heads = join([fill(head, name=str(column)) for column in cells])
    template = '<td data-name="{name}">{cell}</td>' if with_names else "<td>{cell}</td>"
    columns = [[fill(template, name=str(name), cell=cell) for cell in column] for name, column in cells.items()]
    rows = [fill("<tr>{cells}</tr>", cells=join(list(row))) for row in zip(*columns, strict=True)]
    template = '<table class="dataframe"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return fill(template, heads=heads, rows=join(rows, "\n"))


def _style(shown: pd.DataFrame, widths: dict[str, int]) -> str:
    """The rules of a table: text stands left, and long texts get room.

    On paper no number is broken if all fit.
    """
    rules = [_STYLE]
    if len(shown) <= WHOLE:
        rules.append("#ID div {max-height:none}")
    for number, column in enumerate(shown, 1):
        if not pd.api.types.is_numeric_dtype(shown[column]):
            rules.append(f"#ID :is(td,th):nth-child({number}) {{text-align:left}}")
        if widths[column] > WIDE // 2:  # else a narrow screen squeezes it into high rows
            rules.append(f"#ID td:nth-child({number}) {{min-width:28ch}}")
        elif widths[column] <= UNBROKEN:
            rules.append(f"#ID td:nth-child({number}) {{white-space:nowrap}}")
        if widths[column] > NARROW:
            long = f"#ID.blocks td:nth-child({number}) {{flex-basis:100%}}"
            rules.append(f"@media screen and (max-width:600px) {{{long}}}")
    narrow = [number for number, column in enumerate(shown, 1) if widths[column] <= NARROW]
    if sum(width for width in widths.values() if width <= NARROW) <= WIDE:
        columns = [f"#ID td:nth-child({number}) {{white-space:nowrap}}" for number in narrow]
        columns += [f"#ID th:nth-child({number}) {{overflow-wrap:normal}}" for number in narrow]
        rules.append(f"@media print {{{' '.join(columns)}}}")
    return "\n".join(rules)


# A box that scrolls by itself, so that the page never does; a shadow shows that there is more.
_STYLE = """#ID {margin:1em 0; --edge:var(--paper,#fff)} #ID .paper {display:none}
#ID button {font:inherit; color:inherit; border:0; background:none; padding:0}
#ID div {overflow:auto; max-height:var(--rows,22em); background:
  linear-gradient(90deg,var(--edge) 30%,#fff0) 0/40px 100% local,
  linear-gradient(270deg,var(--edge) 30%,#fff0) 100%/40px 100% local,
  radial-gradient(farthest-side at 0,#0004,#0000) 0/14px 100%,
  radial-gradient(farthest-side at 100%,#0004,#0000) 100%/14px 100%; background-repeat:no-repeat}
#ID :is(td,th) {text-align:right; background:none} #ID td {overflow-wrap:normal}
#ID th span::after {content:" ↕"} #ID th[aria-sort=ascending] span::after {content:" ▲"}
#ID th[aria-sort=descending] span::after {content:" ▼"}
@media (max-width:600px) {#ID table {font-size:.75rem} #ID :is(td,th) {padding:.25rem .3rem}}
@media screen and (max-width:600px) {#ID.blocks div {max-height:70vh} #ID.blocks table {font-size:.8125rem}
  #ID.blocks :is(table,tbody) {display:block; width:100%}
  #ID.blocks tr {display:flex; flex-wrap:wrap; gap:0 1em; padding:.4em 0; border-bottom:1px solid var(--line,#ddd)}
  #ID.blocks tr[hidden] {display:none} #ID.blocks :is(td,th) {border:0; padding:0; text-align:left}
  #ID.blocks td {min-width:0 !important; white-space:normal !important; overflow-wrap:anywhere}
  #ID.blocks td::before {content:attr(data-name) " "; color:var(--soft,#56657a)}
  #ID.blocks thead:not(:has(button)) {position:absolute; clip-path:inset(50%)}}
@media print {#ID div {max-height:none; overflow:visible; background:none}
  #ID .paper {display:inline}
  #ID label, #ID [role=status], #ID th span, #ID tbody tr:nth-child(n+21) {display:none}
  #ID table {width:100%; font-size:8pt} #ID td {min-width:0 !important}
  #ID :is(td,th) {padding:2pt 4pt; white-space:normal; overflow-wrap:break-word}}
"""

# Real buttons and a field, which keyboard and screen reader reach.
_SCRIPT = """(() => {
  const box = document.getElementById("ID"), body = box.querySelector("tbody");
  const rows = [...body.rows], status = box.querySelector("[role=status]");
  const filter = () => {
    const words = box.querySelector("input").value.toLowerCase().split(/\\s+/);
    const fits = row => words.every(word => row.textContent.toLowerCase().includes(word));
    rows.forEach(row => row.hidden = !fits(row));
    status.textContent = rows.filter(row => !row.hidden).length + " of " + rows.length;
  };
  box.querySelector("input").addEventListener("input", filter);
  const heads = box.querySelectorAll("th");
  const sort = (head, i) => {
    const sign = head.ariaSort === "ascending" ? -1 : 1;
    const text = row => row.cells[i].textContent.replace(/,/g, "");
    const number = text => text[0] === "[" ? parseFloat(text.slice(1)) : text;  // its lower end
    const value = row => number(text(row));
    heads.forEach(other => other.ariaSort = null);
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    rows.sort((a, b) => sign * ((value(a) - value(b)) || text(a).localeCompare(text(b))));
    body.append(...rows);
  };
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => sort(head, i)));
  filter();
})();"""
