"""The record of the studies: results.csv, the shared pages, the table of the README."""

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.study.explore import evaluated
from patsim_utils.study.pages.index import write_index
from patsim_utils.study.pages.rows import RECORDS, base
from patsim_utils.training import runs

README_MARKS = ("<!-- results:start -->", "<!-- results:end -->")
# The studies in the README, in plain words
SHOWN = {
    "small": "**ships, the default**: MiniLM, also taught by a large model's labels",
    "large": "**ships**: MPNet, each target beside an anchor of its own",
    "best": "the same with similarity features: the best of single pairs",
    "listwise": "the encoder of `best`, which also looks at the other candidates",
    "search": "MiniLM with similarity features",
    "described": "the method as its source describes it, on MiniLM",
    "described-mpnet": "the same method on MPNet",
    "best-random": "`best` on rows split at random, a **leak**: it has seen the anchors",
}
HEAD = "| study | Pearson [95 % over anchors] | minutes of training | what it is |"
METHOD = ["what", "protocol", "track"]  # columns that all seeds of a study have in common


def results_table(path: Path) -> str:
    """The studies SHOWN of `reports/results.csv` in Markdown, a row each.

    All figures are means over the seeds.
    """
    table = pd.read_csv(path)
    table = table[table["variant"].isna()]
    lines = [HEAD, "|---|---|---|---|"]
    for study in SHOWN:
        seeds = table[table["study"] == study]
        if len(seeds):
            lines.append(_line(study, seeds))
    return "\n".join(lines)


def _line(study: str, seeds: pd.DataFrame) -> str:
    """The row of one study in Markdown; `seeds` are its rows of results.csv."""
    seeds = seeds[seeds["split"] == seeds["split"].iloc[0]]
    mean = seeds[["pearson", "low", "high", "seconds"]].mean()
    figures = f"{mean['pearson']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]"
    if len(seeds) > 1:
        figures += f", {len(seeds)} seeds"
    return f"| `{study}` | {figures} | {mean['seconds'] / 60:.0f} | {SHOWN[study]} |"


def write_readme() -> None:
    """Writes the table between the two marks of README.md; InputError where a mark is missing."""
    readme = ROOT / "README.md"
    start, end = README_MARKS
    text = readme.read_text(encoding="utf-8")
    parts = re.fullmatch(f"(.*{start}\n).*({end}.*)", text, flags=re.DOTALL)
    if not parts:
        raise InputError(f"README.md: the marks {start} and {end} are not both there")
    table = results_table(ROOT / "reports" / "results.csv")
    storage.write_text(readme, f"{parts[1]}{table}\n{parts[2]}")


def record(name: str) -> None:
    """Copies the pages of study `name` to `reports/recorded/`, its figures to results.csv.

    A study `<base>-seed<k>` is a seed of study `<base>`. An ablation has a row for each variant.
    """
    reports = ROOT / "reports"
    with storage.lock(reports / ".record.lock", "reports/results.csv"):
        table = pd.read_csv(reports / "results.csv", dtype=str, keep_default_na=False)
        rows = _variants(name)
        if rows:  # those of an older ablation go
            table = table[(table["study"] != name) | (table["variant"] == "")]
        if not rows or (reports / name / "metrics.json").is_file():
            own = _run(reports / name)
            table = _without_others(table, own[0], name)
            rows += own
        filled = [{column: row.get(column, "") for column in table.columns} for row in rows]
        table = pd.concat([table, pd.DataFrame(filled)])
        table = table.drop_duplicates(["study", "variant", "seed", "split"], keep="last")
        storage.refuse_others(reports / "recorded" / name, partial(_is_of_record, reports / name), "a record")
        fresh = storage.temporary(reports / "recorded" / name)
        try:
            shutil.copytree(reports / name, fresh, ignore_dangling_symlinks=True)
        except FileNotFoundError as error:
            raise InputError(f"reports/{name}: there are no pages to record; run the study's notebook") from error
        storage.write_text(reports / "results.csv", table.to_csv(index=False))
        storage.swap(fresh, reports / "recorded" / name)
        write_index(reports, shared_too=True)


def _is_of_record(pages: Path, path: Path) -> bool:
    """Whether something of this path within a recorded study came from the study's `pages`."""
    return path.suffix == ".html" or path.name in RECORDS or (pages / path).exists()


def _without_others(table: pd.DataFrame, row: dict[str, str], name: str) -> pd.DataFrame:
    """The table without rows of the study that another method or split made.

    So a study whose method has changed begins anew with the seed that has its plain name. InputError
    where `name` is to be a seed of another method.
    """
    study = row["study"]
    own = (table["study"] == study) & (table["variant"] == "")
    others = own & (table[METHOD] != [row[key] for key in METHOD]).any(axis=1)
    if name == study:
        return table[~others]
    if others.any():
        raise InputError(f"--name: {name} is no seed of {study}, which has other settings; choose another name")
    if not name.endswith(f"-seed{row['seed']}"):
        raise InputError(f"--name: {name} has seed {row['seed']}; choose another name")
    return table


def _variants(name: str) -> list[dict[str, str]]:
    """The rows of the latest ablation of study `name`, as its notebook has written them.

    [] where there is none.
    """
    stems = [path.stem for path in (ROOT / "notebooks" / "variants").glob("*.yaml")]
    tables = [ROOT / "runs" / f"{name}-{stem}" / "effects.csv" for stem in stems]
    tables = [path for path in tables if path.is_file()]
    if not tables:
        return []
    latest = max(tables, key=lambda path: path.stat().st_mtime)
    table = pd.read_csv(latest).rename(columns={"idea": "what"})
    seconds = table["seconds"].round().astype(int)
    table = table.assign(study=name, split="validation", seconds=seconds)
    return [_texts(row) for row in table.to_dict("records")]


def _run(pages: Path) -> list[dict[str, str]]:
    """The row of each split that a study's run has measured.

    `pages`: the study's folder in reports/.
    """
    try:
        metrics = runs.read_metrics(pages / "metrics.json")
        settings = runs.read_object(pages / "config.json")
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"reports/{pages.name}: there is no study of a run to record ({clip(str(error))})") from error
    config = Config.parse(settings, source="config.json")
    rows = []
    for split in evaluated(metrics):
        low, high = metrics[split]["pearson_ci"]
        row = metrics["environment"] | metrics["train"] | metrics[split]
        row["study"] = base(pages.name)
        row["seeds"] = 1
        row["split"] = split
        row["protocol"] = metrics["protocol"]
        row["track"] = "listwise" if config.listwise else "pair"
        row["what"] = config.describe()
        row["parameters"] = metrics["train"]["trainable_parameters"]
        row["seconds"] = round(metrics["train"]["seconds"])
        row["low"] = low
        row["high"] = high
        rows.append(_texts(row))
    return rows


def _texts(row: dict[str, Any]) -> dict[str, str]:
    """The values of a row as results.csv has them: five decimals, nothing for NaN."""
    texts = {}
    for key, value in row.items():
        if isinstance(value, float):
            if value == value:  # NaN: nothing to compare with
                texts[key] = f"{value:.5f}"
        else:
            texts[key] = str(value)
    return texts
