"""The index of all studies: where to start, charts and tables.

It reads the records beside their pages and reports/results.csv.
"""

from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from patsim_utils import storage
from patsim_utils.method.weights.folders import NAMES
from patsim_utils.study import plots
from patsim_utils.study.look.figures import BLUE, GREY, ORANGE, style
from patsim_utils.study.look.html_tables import Link, Reference, Table
from patsim_utils.study.pages.rows import own_rows, recorded_rows

COLUMNS = ["study", "Pearson", "low", "high", "what it is", "seeds", "tested on", "minutes", "date", "note"]
OTHER = "sample|other data"  # in the column `tested on`: figures that no other can be compared with
TRACKS = {
    "pair": "Single pairs",
    "listwise": "Listwise: all targets of an anchor together, so that a score depends on the others",
    "random": "Rows split at random, a leak: training has seen the anchors",
}
# By the first word of a row's name; one's own are blue
COLOURS = {"published": ORANGE, "baseline": GREY}


def write_index(reports: Path, *, shared_too: bool = False) -> None:
    """Makes `reports/index.html` of all studies anew.

    `shared_too`: also `reports/recorded/index.html`, of the shared ones.
    """
    loader = jinja2.FileSystemLoader(reports / "template")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.get_template("studies.html.j2")
    own = own_rows(reports)
    if shared_too:  # the repository keeps it, so a study leaves it alone
        folder = reports / "recorded"
        content = _content(folder, recorded_rows(reports), [])
        storage.write_text(folder / "index.html", template.render(content))
    rows = [*own, *recorded_rows(reports, link="recorded/")]
    storage.write_text(reports / "index.html", template.render(_content(reports, rows, own)))


def _content(folder: Path, rows: list[dict[str, Any]], own: list[dict[str, Any]]) -> dict[str, Any]:
    """What the template of the index in `folder` wants."""
    table = pd.DataFrame(rows, columns=[*COLUMNS, "track"])
    for column in ("study", "what it is"):  # of objects: a column of text drops links and folds
        table[column] = pd.Series([row.get(column, "") for row in rows], dtype=object)
    table["track"] = table["track"].astype(object).fillna("pair")
    shipped = _first_pages(folder)
    best = None if shipped else _best(table)
    pages = {path.parent.name: path for path in folder.glob("recorded/[!.]*/5_ablation.html")}
    # one's own goes first
    pages |= {path.parent.name: path for path in folder.glob("[!.]*/5_ablation.html")}
    links = []
    for name, path in pages.items():
        links.append(Link(name, path.relative_to(folder).as_posix()))
    return {"tracks": _tracks(table), "own": own, "shipped": shipped, "best": best, "ablations": links}


def _first_pages(folder: Path) -> list[Link]:
    """The recorded pages on which the models that ship are tried."""
    links = []
    for recorded in ("recorded/", ""):
        for name in NAMES:
            page = f"{recorded}{name}/0_try.html"
            if (folder / page).is_file():
                links.append(Link(name, page))
        if links:
            break
    return links


def _best(table: pd.DataFrame) -> Link | None:
    """The best study with pages among those of single pairs that can be compared."""
    comparable = ~table["tested on"].astype(str).str.contains(OTHER) & (table["track"] == "pair")
    ordered = table[comparable & table["Pearson"].notna()]
    ordered = ordered.sort_values("Pearson", ascending=False, kind="stable")
    for name in ordered["study"]:
        if isinstance(name, Link):
            return name
    return None


def _tracks(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Title, chart and table (HTML) of each track, as the template wants them."""
    style()
    tracks = []
    for key, title in TRACKS.items():
        rows = table[table["track"] == key]
        rows = rows.sort_values("Pearson", ascending=False, kind="stable", ignore_index=True)
        if rows.empty:
            continue
        known = rows[rows["Pearson"].notna() & ~rows["tested on"].astype(str).str.contains(OTHER)]
        known = known.assign(label=known["study"].map(str))
        known["colour"] = known["label"].map(_colour)
        caption = "Correlation with people's scores, mean over the seeds"
        if (known["colour"] == ORANGE).any():
            caption += "; what was published (orange) is of other pairs"
        if (known["colour"] == GREY).any():
            caption += "; grey: without training"
        chart = plots.forest(known, "label", value="Pearson", colour="colour", caption=caption)
        drawing = Markup(chart._repr_html_())
        tracks.append({"title": title, "chart": drawing, "table": _table(rows, title)})
    return tracks


def _colour(name: str) -> str:
    """The colour of a row: what is published or needs no training is a reference."""
    return COLOURS.get(name.partition(":")[0], BLUE)


def _table(rows: pd.DataFrame, title: str) -> Markup:
    """The rows of a track as HTML: studies first, then references, in their colour."""
    shown = rows[COLUMNS].astype({"seeds": "Int64"})
    shown["minutes"] = shown["minutes"].round().astype("Int64")
    if not shown["note"].astype(bool).any():
        shown = shown.drop(columns="note")
    reference = shown["study"].map(lambda name: _colour(name) != BLUE).astype(bool)
    names = [Reference(name) if other else name for name, other in zip(shown["study"], reference, strict=True)]
    shown["study"] = pd.Series(names, index=shown.index, dtype=object)
    shown = pd.concat([shown[~reference], shown[reference]])
    return Markup(Table(shown, f"{title}: all studies.", search=True)._repr_html_())
