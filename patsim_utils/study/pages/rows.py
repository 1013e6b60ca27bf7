"""The rows of the index: a study, baseline or publication each, with its figures in plain words."""

import filecmp
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from patsim_utils.config import Config
from patsim_utils.data.splits import is_google
from patsim_utils.errors import InputError, clip
from patsim_utils.study.explore import evaluated
from patsim_utils.study.look.html_tables import Folded, Link

RECORDS = ("metrics.json", "config.json")  # what notebooks leave in the run folder for the reports
# What a study's settings mean in plain words: a part of `Config.describe()`, and its words
ENCODERS = {"mpnet": "MPNet, the larger model", "minilm": "MiniLM, the small model"}
WORDS = {
    "all weights trained": "all weights trained",
    "LoRA": "few added weights trained",
    "similarity features": "counts shared words and letters",
    "features of the group": "reads the other candidates, too",
}
# What a damaged record may raise
DAMAGE = (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)


def recorded_rows(reports: Path, *, link: str = "") -> list[dict[str, Any]]:
    """A row for each study, baseline and publication in results.csv.

    Seeds are merged; variants of an ablation have no row.
    """
    if not (reports / "results.csv").is_file():
        return []
    table = pd.read_csv(reports / "results.csv", dtype={"study": str, "variant": str})
    for figure in ("pearson", "low", "high", "seconds"):
        table[figure] = pd.to_numeric(table[figure], errors="coerce")  # a text there is shown as a gap
    table = table[table["variant"].isna() | table["study"].isin(["baseline", "published"])]
    rows = []
    table = table.fillna({"variant": ""})
    for (study, variant), seeds in table.groupby(["study", "variant"], sort=False):
        first_split = seeds["split"].iloc[0]
        seeds = seeds[seeds["split"].eq(first_split) | seeds["split"].isna()]
        rows.append(_recorded_row(reports, study, variant, seeds, link=link))
    return rows


def _recorded_row(
    reports: Path,
    study: str,
    variant: str,
    seeds: pd.DataFrame,
    *,
    link: str,
) -> dict[str, Any]:
    """The row of one study: means over `seeds`, its rows of results.csv."""
    first = seeds.iloc[0]
    name = f"{study}: {variant}" if variant else study
    mean = seeds[["pearson", "low", "high", "seconds"]].mean()
    row: dict[str, Any] = {"study": _link(name, reports / "recorded" / study, f"{link}{study}")}
    row |= {"Pearson": mean["pearson"], "low": mean["low"], "high": mean["high"]}
    row["minutes"] = mean["seconds"] / 60
    row["seeds"] = np.nan
    if pd.notna(first["date"]):
        row["seeds"] = len(seeds)
    row["tested on"] = _tested_on(reports / "recorded" / study, name, first)
    row["track"] = "random" if first["protocol"] == "random" else first["track"]
    return row | {"date": first["date"], "note": "", "what it is": in_plain_words(str(first["what"]))}


def _tested_on(pages: Path, name: str, row: pd.Series) -> str:
    """Which pairs a recorded figure is of."""
    try:
        sample = json.loads((pages / "config.json").read_text("utf-8"))["data"] == "sample"
    except DAMAGE:  # its pages have gone, or their record is broken
        sample = bool(re.search(r"\bsample\b", name))
    if sample:
        return "sample"
    if row["split"] == "validation" and row["protocol"] == "random":
        return "a tenth of train"
    if row["split"] in ("validation", "test"):
        return row["split"]
    return "other pairs"


def _link(name: str, pages: Path, address: str) -> str:
    """The name as a link to the study's page Errors, else to its first page.

    Without pages the name alone.
    """
    stems = sorted(path.stem for path in pages.glob("*.html"))
    for stem in ("3_errors", "2_train", *stems):
        if stem in stems:
            return Link(name, f"{address}/{stem}.html")
    return name


def in_plain_words(what: str) -> str:
    """The settings of a run (`Config.describe`) in plain words, with the settings themselves folded.

    Other text stays as it is.
    """
    encoder = what.partition(",")[0].removeprefix("older code: ")
    words = [text for part, text in WORDS.items() if part in what]
    if not words:
        return what
    plain = ", ".join([ENCODERS.get(encoder, encoder), *words])
    return Folded(plain, what)


def own_rows(reports: Path) -> list[dict[str, Any]]:
    """A row for each study in `reports` that is not shared as it is.

    Also for those that failed or whose record is broken.
    """
    recorded = reports / "recorded"
    names = {path.parent.name for path in reports.glob("[!.]*/*.html")} - {"recorded"}
    shared = {path.parent.name for path in recorded.glob("*/metrics.json")}
    linked = {name for name in shared if (recorded / base(name) / "2_train.html").is_file()}
    names -= {name for name in linked & names if _same(reports / name, recorded / name)}
    for path in reports.glob(".*.failed.json"):
        names.add(path.name.removeprefix(".").removesuffix(".failed.json"))
    return [_own_row(reports, name) for name in sorted(names)]


def _own_row(reports: Path, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"study": _link(name, reports / name, name)}
    notes = []
    for read in (_failure, _record):
        try:
            facts, note = read(reports, name)
        except DAMAGE as error:
            reason = f"{type(error).__name__} {clip(str(error))}"
            if isinstance(error, InputError):
                reason = str(error)
            facts = {}
            note = f"the record beside these pages is broken: {reason}"
        row |= facts
        if note:
            notes.append(note)
    return row | {"note": "; ".join(notes)}


def _same(pages: Path, others: Path) -> bool:
    return filecmp.cmpfiles(pages, others, RECORDS, shallow=False)[0] == [*RECORDS]


def _failure(reports: Path, name: str) -> tuple[dict[str, Any], str]:
    """What the note on a failed run says, if there is one."""
    path = reports / f".{name}.failed.json"
    if not path.is_file():
        return {}, ""
    record = json.loads(path.read_text(encoding="utf-8"))
    note = f"last run failed on {record['date']} ({record['notebook']}: {record['reason']})"
    dates = [page.stat().st_mtime for page in (reports / name).glob("*.html")]
    if not dates:
        return {}, f"{note}; never succeeded"
    return {}, f"{note}; pages are of {datetime.fromtimestamp(max(dates), UTC).date()}"


def _record(reports: Path, name: str) -> tuple[dict[str, Any], str]:
    """The figures of the run that the pages of a study are about, if they are about one."""
    folder = reports / name
    if not (folder / "metrics.json").is_file():
        return {}, ""
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    config = Config.parse(settings, source="config.json")
    splits = evaluated(metrics)
    if not splits:
        raise KeyError("validation")
    split = splits[0]
    low, high = metrics[split]["pearson_ci"]
    row = {"Pearson": float(metrics[split]["pearson"]), "low": float(low), "high": float(high)}
    row |= {"seeds": 1, "minutes": metrics["train"]["seconds"] / 60}
    row["date"] = str(metrics["environment"]["date"])
    row["what it is"] = in_plain_words(config.describe())
    known = is_google(metrics["data"]) or config.data == "kaggle"
    row["tested on"] = split if known else f"{split}, other data"
    row["track"] = "listwise" if config.listwise else "pair"
    if metrics["protocol"] == "random":
        row["track"] = "random"
        row["tested on"] = "a tenth of train"
    if config.data == "sample":
        row["tested on"] = "sample"
    return row, ""


def base(name: str) -> str:
    """The study of which `name` is a seed: `best` for best-seed1; else the name itself."""
    return re.sub(r"-seed\d+$", "", name)
