"""A frame as a table of a page: sorted and searched without a library, on a phone and on paper, too."""

import html
import re
import zlib

import numpy as np
import pandas as pd

ON_PAPER = 20  # rows
WIDE = 100  # letters of a row, from which on a table is wider than the text


class Link(str):
    """A cell that leads somewhere: `Link("best", "best/2_train.html")`."""

    href: str

    def __new__(cls, text: str, href: str) -> "Link":
        made = super().__new__(cls, text)
        made.href = href
        return made


class Table:
    """A frame that JupyterLab and the pages show as a table with a caption; `frame` is the frame itself.

    Columns such as low and high, or recall_low and recall_high, are shown as one column, an interval of 95 %.
    """

    def __init__(self, frame: pd.DataFrame, caption: str, *, search: bool = False) -> None:
        self.frame, self.caption, self.search = frame, caption, search

    def _repr_html_(self) -> str:
        shown = _with_intervals(self.frame)
        cells, caption = shown.map(_cell), html.escape(self.caption)
        name = f"table-{zlib.crc32((self.caption + self.frame.to_csv()).encode()):08x}"
        with pd.option_context("display.max_colwidth", None):
            body = re.sub(r' style="text-align: \w+;"', "", cells.to_html(index=False, border=0, escape=False))
        button = r'<button type="button">\1<span aria-hidden="true"></span></button>' if self.search else r"\1"
        body = re.sub(r"<th>(.*?)</th>", rf'<th scope="col">{button}</th>', body)
        style, widths = _STYLE, []
        for place, column in enumerate(shown, 1):
            widths.append(max([len(str(column)), *cells[column].str.len()]))
            if not pd.api.types.is_numeric_dtype(shown[column]):
                style += f"#ID :is(td,th):nth-child({place}) {{text-align:left}}\n"
            if widths[-1] > WIDE // 3:  # else a narrow screen squeezes it into high rows
                style += f"#ID td:nth-child({place}) {{min-width:28ch}}\n"
        narrow = [place for place, width in enumerate(widths, 1) if width <= 24]
        if sum(widths[place - 1] for place in narrow) <= WIDE:  # on paper no number is broken, if they all fit
            rules = (
                f"#ID td:nth-child({n}) {{white-space:nowrap}} #ID th:nth-child({n}) {{overflow-wrap:normal}}"
                for n in narrow
            )
            style += f"@media print {{{' '.join(rules)}}}\n"
        kind = "mathjax_ignore wide" if sum(widths) > WIDE else "mathjax_ignore"
        field = '<label>Search <input type="search"></label> <span role="status"></span>' if self.search else ""
        script = f"<script>{_SCRIPT.replace('ID', name)}</script>" if self.search else ""
        paper = f'<span class="paper"> On paper: the first {ON_PAPER} rows.</span>' if len(shown) > ON_PAPER else ""
        start = f'<style>{style.replace("ID", name)}</style><figure id="{name}" class="{kind}">'
        box = f'<div tabindex="0" role="region" aria-label="{caption}">{body}</div>'
        return f"{start}<figcaption>{caption}{paper}</figcaption>{field}{box}</figure>{script}"


# A box that scrolls by itself, so that the page never does, with a shadow where there is more to the side.
_STYLE = """#ID {margin:1em 0} #ID .paper {display:none} #ID button {font:inherit; border:0; background:none; padding:0}
#ID div {overflow:auto; max-height:36em; background:
  linear-gradient(90deg,#fff 30%,#fff0) 0/40px 100% local, linear-gradient(270deg,#fff 30%,#fff0) 100%/40px 100% local,
  radial-gradient(farthest-side at 0,#0004,#0000) 0/14px 100%,
  radial-gradient(farthest-side at 100%,#0004,#0000) 100%/14px 100%; background-repeat:no-repeat}
#ID :is(td,th) {text-align:right; background:none} #ID td {overflow-wrap:normal} #ID th span::after {content:" ↕"}
#ID th[aria-sort=ascending] span::after {content:" ▲"} #ID th[aria-sort=descending] span::after {content:" ▼"}
@media print {#ID div {max-height:none; overflow:visible; background:none} #ID .paper {display:inline}
  #ID label, #ID [role=status], #ID th span, #ID tbody tr:nth-child(n+21) {display:none}
  #ID table {width:100%; font-size:8pt} #ID td {min-width:0 !important}
  #ID :is(td,th) {padding:2pt 4pt; white-space:normal; overflow-wrap:anywhere}}
"""

# Real buttons and a field, which keyboard and screen reader reach.
_SCRIPT = """(() => {
  const box = document.getElementById("ID"), body = box.querySelector("tbody"), rows = [...body.rows];
  const filter = () => {
    const words = box.querySelector("input").value.toLowerCase().split(/\\s+/);
    rows.forEach(row => row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word)));
    box.querySelector("[role=status]").textContent = rows.filter(row => !row.hidden).length + " of " + rows.length;
  };
  box.querySelector("input").addEventListener("input", filter);
  box.querySelectorAll("th").forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.ariaSort === "ascending" ? -1 : 1, text = row => row.cells[i].textContent.replace(/,/g, "");
    const value = row => text(row)[0] === "[" ? parseFloat(text(row).slice(1)) : text(row);  // its lower end
    box.querySelectorAll("th").forEach(other => other.ariaSort = null);
    head.ariaSort = sign > 0 ? "ascending" : "descending";
    rows.sort((a, b) => sign * ((value(a) - value(b)) || text(a).localeCompare(text(b))));
    body.append(...rows);
  }));
  filter();
})();"""


def _with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    for low in [column for column in frame if str(column).endswith("low")]:
        high = f"{low[:-3]}high"
        if high in frame:
            ends = zip(frame[low], frame[high], strict=True)
            joined = [f"[{_cell(a)},\u00a0{_cell(b)}]" if pd.notna(a) and pd.notna(b) else "–" for a, b in ends]
            frame = frame.assign(**{low: joined}).drop(columns=high)
            frame = frame.rename(columns={low: f"{low[:-3].replace('_', ' ')}interval".strip()})
    return frame


def _cell(value: object) -> str:
    if isinstance(value, str):
        text = html.escape(value)
        return f'<a href="{html.escape(value.href)}">{text}</a>' if isinstance(value, Link) else text
    if pd.isna(value):
        return "–"
    return f"{round(value, 3) + 0:,.3f}" if isinstance(value, float | np.floating) else f"{value:,}"  # no "-0.000"
