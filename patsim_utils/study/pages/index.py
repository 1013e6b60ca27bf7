"""The index of all studies: one chart and one table, from the records beside their pages and reports/results.csv."""

import filecmp
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.data.splits import GOOGLE
from patsim_utils.errors import InputError, clip
from patsim_utils.study import html_tables, plots

COLUMNS = ["study", "pearson", "low", "high", "seeds", "tested on", "minutes", "million trained weights"]
COLUMNS += ["what", "date", "note"]
RECORDS = ("metrics.json", "config.json")  # what notebooks leave in the run folder for the reports
RANDOM = "split at random: training has seen the anchors"
OTHER = "sample|other data"  # in the column `tested on`: figures that no other can be compared with
LISTWISE = "listwise: scores depend on the other targets"


def write_index(reports: Path, *, shared_too: bool = False) -> None:
    """Makes `reports/index.html` of all studies anew, and `reports/recorded/index.html` of the shared ones if asked."""
    loader = jinja2.FileSystemLoader(reports / "template")
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    template = template.get_template("studies.html.j2")
    shared = reports / "recorded"
    places = [(shared, "", [])] if shared_too else []  # the repository keeps it, so a study leaves it alone
    for folder, link, own in (*places, (reports, "recorded/", _own(reports))):
        rows = [*own, *_recorded(reports, link=link)]
        table = pd.DataFrame(rows, columns=[*COLUMNS, "track"])
        table["study"] = pd.Series([row["study"] for row in rows], dtype=object)  # a column of text drops the links
        leaked = table["note"].astype(str).str.contains(RANDOM, regex=False)
        table["track"] = table["track"].astype(object).mask(leaked, "random")
        other = table["tested on"].astype(str).str.contains(OTHER) | table["track"].isin(["listwise", "random"])
        single = [row for row in table[~other].itertuples() if row.pearson > 0]
        linked = [row for row in single if isinstance(row.study, html_tables.Link)]
        best = max(linked, key=lambda row: row.pearson).study if linked else None
        errors = f"{Path(best.href).parent}/3_errors.html" if best else ""
        found = {"own": own, "best": best, "errors": errors if (folder / errors).is_file() else ""}
        places = [place for part in ("recorded", ".") for place in folder.glob(f"{part}/[!.]*/5_ablation.html")]
        pages = {place.parent.name: place.relative_to(folder).as_posix() for place in places}  # one's own goes first
        found["ablations"] = [html_tables.Link(*one) for one in pages.items() if not one[0].endswith(".old")]
        storage.write_text(folder / "index.html", template.render(tracks=_tracks(table), **found))


def _tracks(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Title, chart and table (HTML) of each track, as the template wants them."""
    plots.style()
    found = []
    for title, rows in (
        ("Single pairs", table[~table["track"].isin(["listwise", "random"])]),
        ("Listwise: all targets of an anchor together", table[table["track"] == "listwise"]),
        ("Rows split at random, a leak: training has seen the anchors", table[table["track"] == "random"]),
    ):
        rows = rows.sort_values("pearson", ascending=False, kind="stable", ignore_index=True)
        if rows.empty:
            continue
        known = rows[rows["pearson"].notna() & ~rows["tested on"].astype(str).str.contains(OTHER)]
        known = known.assign(label=known["study"].map(str))
        caption = "Correlation with people's scores, mean over the seeds"
        caption += "; what was published is of other pairs" * any(known["label"].str.startswith("published"))
        chart = plots.forest(known, "label", caption=caption)
        rows = rows.astype({"seeds": "Int64"}).assign(minutes=rows["minutes"].round().astype("Int64"))
        shown = html_tables.Table(rows[COLUMNS], f"{title}: all studies.", search=True)
        found.append({"title": title, "chart": chart._repr_html_(), "table": shown._repr_html_()})
    return found


def _recorded(reports: Path, *, link: str = "") -> list[dict[str, Any]]:
    """A row for each study, baseline and publication in results.csv, seeds merged; variants of an ablation are not."""
    if not (reports / "results.csv").is_file():
        return []
    table = pd.read_csv(reports / "results.csv")
    table = table[table["variant"].isna() | table["study"].isin(["baseline", "published"])]
    rows = []
    for (study, variant), one in table.groupby(["study", table["variant"].fillna("")], sort=False):
        one = one[one["split"].eq(one["split"].iloc[0]) | one["split"].isna()]
        first, mean = one.iloc[0], one[["pearson", "low", "high", "seconds", "parameters"]].mean()
        name = f"{study}: {variant}" if variant else study
        pages = reports / "recorded" / study / "2_train.html"
        tested = first["split"] if first["split"] in ("validation", "test") else "other pairs"
        tested = "a tenth of train" if tested == "validation" and first["protocol"] == "random" else tested
        row = {"study": html_tables.Link(name, f"{link}{study}/2_train.html") if pages.is_file() else name}
        row |= mean[["pearson", "low", "high"]].to_dict()
        row["seeds"] = len(one) if first["date"] == first["date"] else np.nan
        try:
            sample = json.loads((reports / "recorded" / study / "config.json").read_text("utf-8"))["data"] == "sample"
        except (OSError, ValueError, KeyError, TypeError):  # its pages have gone, or their record is broken
            sample = re.search(r"\bsample\b", name)
        row |= {"tested on": "sample" if sample else tested, "minutes": mean["seconds"] / 60}
        row |= {"million trained weights": mean["parameters"] / 1e6, "what": first["what"], "date": first["date"]}
        note = RANDOM if first["protocol"] == "random" else LISTWISE if first["track"] == "listwise" else ""
        rows.append(row | {"note": note, "track": first["track"]})
    return rows


def _own(reports: Path) -> list[dict[str, Any]]:
    """A row for each study in `reports` that is not shared as it is, also where it failed or its record is broken."""
    names = {path.parent.name for path in reports.glob("[!.]*/*.html") if path.parent.name != "recorded"}
    shared = {path.parent.name for path in reports.glob("recorded/*/metrics.json")}
    linked = {name for name in shared if (reports / "recorded" / base(name) / "2_train.html").is_file()}
    names -= {name for name in linked & names if _same(reports / name, reports / "recorded" / name)}
    names |= {path.name.removeprefix(".").removesuffix(".failed.json") for path in reports.glob(".*.failed.json")}
    rows = []
    for name in sorted(name for name in names if not name.endswith(".old")):
        pages = sorted((reports / name).glob("*.html"), key=lambda page: (page.stem != "2_train", page.stem))
        row: dict[str, Any] = {"study": html_tables.Link(name, f"{name}/{pages[0].name}") if pages else name}
        notes = []
        for told in (_failure, _record):
            try:
                found, note = told(reports, name)
                row |= found
                notes += [note] if note else []
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                reason = error if isinstance(error, InputError) else f"{type(error).__name__} {clip(str(error))}"
                notes.append(f"the record beside these pages is broken: {reason}")
        rows.append(row | {"note": "; ".join(notes)})
    return rows


def _same(one: Path, other: Path) -> bool:
    return filecmp.cmpfiles(one, other, RECORDS, shallow=False)[0] == [*RECORDS]


def _failure(reports: Path, name: str) -> tuple[dict[str, Any], str]:
    """What the note on a failed run says, if there is one."""
    path = reports / f".{name}.failed.json"
    if not path.is_file():
        return {}, ""
    note = json.loads(path.read_text(encoding="utf-8"))
    told = f"last run failed on {note['date']} ({note['notebook']}: {note['reason']})"
    dates = [page.stat().st_mtime for page in (reports / name).glob("*.html")]
    pages = f"pages are of {datetime.fromtimestamp(max(dates), UTC).date()}" if dates else "never succeeded"
    return {}, f"{told}; {pages}"


def _record(reports: Path, name: str) -> tuple[dict[str, Any], str]:
    """The figures of the run that the pages of a study are about, if they are about one."""
    path = reports / name / "metrics.json"
    if not path.is_file():
        return {}, ""
    found, given = (json.loads((reports / name / record).read_text("utf-8")) for record in RECORDS)
    config = Config.parse(given, source="config.json")
    split = next((split for split in ("validation", "test") if split in found), None)
    row = {"pearson": found[split]["pearson"], "seeds": 1, "what": config.describe()}
    row |= dict(zip(("low", "high"), found[split]["pearson_ci"], strict=True))
    known = found["data"]["train"] == GOOGLE or config.data == "kaggle"
    tested = "a tenth of train" if found["protocol"] == "random" else split if known else f"{split}, other data"
    row |= {"tested on": "sample" if config.data == "sample" else tested, "minutes": found["train"]["seconds"] / 60}
    row |= {"million trained weights": found["train"]["trainable_parameters"] / 1e6}
    row["date"] = found["environment"]["date"]
    row["track"] = "listwise" if config.listwise else "pair"
    return row, RANDOM if found["protocol"] == "random" else LISTWISE if config.listwise else ""


def base(name: str) -> str:
    """The study of which `name` is a seed: `best` for best-seed1; else the name itself."""
    return re.sub(r"-seed\d+$", "", name)
