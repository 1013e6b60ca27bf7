"""The record of the studies: reports/results.csv, the shared pages in reports/recorded, the table of the README."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from patsim_utils import storage
from patsim_utils.config import Config
from patsim_utils.environment import ROOT
from patsim_utils.errors import InputError, clip
from patsim_utils.study.pages.index import base, write_index

README_MARKS = ("<!-- results:start -->", "<!-- results:end -->")
SHOWN = ("best", "listwise", "described-mpnet", "described", "search", "best-random")  # studies in the README


def results_table(path: Path) -> str:
    """The studies SHOWN of `reports/results.csv` in Markdown, a row each; all figures are means over the seeds."""
    table = pd.read_csv(path)
    rows = ["| study | Pearson [95 % over anchors] | split | minutes of training | what it is |", "|---" * 5 + "|"]
    table = table[table["variant"].isna()]
    for study in [study for study in SHOWN if (table["study"] == study).any()]:
        one = table[table["study"] == study]
        one, first = one[one["split"] == one["split"].iloc[0]], one.iloc[0]
        mean = one[["pearson", "low", "high", "seconds"]].mean()
        figures = f"{mean['pearson']:.3f} [{mean['low']:.3f}, {mean['high']:.3f}]"
        figures += f", {len(one)} seeds" if len(one) > 1 else ""
        unseen = first["protocol"] == "anchor_disjoint"
        split = f"{first['split']}, anchors unseen" if unseen else "rows at random, anchors seen in training"
        split += ", listwise" * (first["track"] == "listwise")
        rows.append(f"| `{study}` | {figures} | {split} | {mean['seconds'] / 60:.0f} | {first['what']} |")
    return "\n".join(rows)


def write_readme() -> None:
    """Writes the table between the two marks of README.md; InputError where a mark is missing."""
    readme = ROOT / "README.md"
    parts = re.fullmatch("(.*{}\n).*({}.*)".format(*README_MARKS), readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    if not parts:
        raise InputError(f"README.md: the marks {' and '.join(README_MARKS)} are not both there")
    storage.write_text(readme, f"{parts[1]}{results_table(ROOT / 'reports' / 'results.csv')}\n{parts[2]}")


def record(name: str) -> None:
    """Copies the pages of study `name` to `reports/recorded/` and puts its figures into `reports/results.csv`.

    A study `<base>-seed<k>` is a seed of study `<base>`. An ablation has a row for each variant.
    """
    reports = ROOT / "reports"
    with storage.lock(reports / ".record.lock", "reports/results.csv"):
        variants = sorted((ROOT / "notebooks" / "variants").glob("*.yaml"))
        ablations = [ROOT / "runs" / f"{name}-{one.stem}" / "effects.csv" for one in variants]
        ablations = sorted((path for path in ablations if path.is_file()), key=lambda path: path.stat().st_mtime)
        rows = _variants(ablations[-1], name) if ablations else []
        table = pd.read_csv(reports / "results.csv", dtype=str, keep_default_na=False)
        table = table[(table["study"] != name) | (table["variant"] == "") | (not rows)]  # an older ablation's go
        if not rows or (reports / name / "metrics.json").is_file():
            rows += (own := _run(reports, name))
            table = _without_others(table, own[0], name)
        filled = [{column: row.get(column, "") for column in table.columns} for row in rows]
        table = pd.concat([table, pd.DataFrame(filled)])
        table = table.drop_duplicates(["study", "variant", "seed", "split"], keep="last")
        fresh = reports / "recorded" / f".{name}.new"
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            shutil.copytree(reports / name, fresh)
        except FileNotFoundError as error:
            raise InputError(f"reports/{name}: there are no pages to record; run the study's notebook") from error
        storage.write_text(reports / "results.csv", table.to_csv(index=False))
        storage.swap(fresh, reports / "recorded" / name)
        write_index(reports, shared_too=True)


def _without_others(table: pd.DataFrame, row: dict[str, str], name: str) -> pd.DataFrame:
    """The table without rows of the study that another method or split made; InputError: `name` is to be a seed of it.

    So a study whose method has changed begins anew with the seed that has its plain name.
    """
    own = (table["study"] == row["study"]) & (table["variant"] == "")
    method = ["what", "protocol", "track"]
    others = own & (table[method] != [row[key] for key in method]).any(axis=1)
    if name == row["study"]:
        return table[~others]
    if others.any() or not name.endswith(f"-seed{row['seed']}"):
        told = f"is no seed of {row['study']}, which has other settings" if others.any() else f"has seed {row['seed']}"
        raise InputError(f"--name: {name} {told}; choose another name")
    return table


def _variants(effects: Path, name: str) -> list[dict[str, str]]:
    """The rows of an ablation, of the table that its notebook has written."""
    table = pd.read_csv(effects).rename(columns={"idea": "what"}).assign(study=name, split="validation")
    table = table.assign(seconds=table["seconds"].round().astype(int))
    return [_texts(row) for row in table.to_dict("records")]


def _run(reports: Path, name: str) -> list[dict[str, str]]:
    """The row of each split that a study's run has measured."""
    try:
        metrics, config = (json.loads((reports / name / f"{one}.json").read_text()) for one in ("metrics", "config"))
    except (OSError, ValueError) as error:
        raise InputError(f"reports/{name}: there is no study of a run to record ({clip(str(error))})") from error
    config, rows = Config.parse(config, source="config.json"), []
    for split in [split for split in ("validation", "test") if split in metrics]:
        row = metrics["environment"] | metrics["train"] | metrics[split]
        row |= {"study": base(name), "seeds": 1, "split": split, "protocol": metrics["protocol"]}
        row |= {"track": "listwise" if config.listwise else "pair", "what": config.describe()}
        row |= {"parameters": row["trainable_parameters"], "seconds": round(row["seconds"])}
        row["low"], row["high"] = row["pearson_ci"]
        rows.append(_texts(row))
    return rows


def _texts(row: dict[str, Any]) -> dict[str, str]:
    known = {key: value for key, value in row.items() if value == value}  # NaN: nothing to compare with
    return {key: f"{value:.5f}" if isinstance(value, float) else str(value) for key, value in known.items()}
