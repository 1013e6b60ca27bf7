"""What a study shows: its pages, the indexes of all studies, and the result table of the README.

Pages are made from executed notebooks, the indexes from what stands beside the pages. How they look stands in
`reports/template`; a page must open offline, so it loads nothing.
"""

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from patsim_utils import files
from patsim_utils.config import Config
from patsim_utils.environment import ROOT, commit
from patsim_utils.errors import InputError, clip

README_MARKS = ("<!-- results:start -->", "<!-- results:end -->")
SHOWN = ("described-v1", "best", "best-minilm", "listwise-minilm", "search", "published")  # studies in the README


def page(executed: Path, *, name: str, titles: dict[str, str], reports: Path) -> str:
    """The executed notebook of study `name` as one HTML page that needs no other file.

    `titles` are the study's pages, file stem -> heading, which the page links to besides the index.
    """
    study = {
        "name": name,
        "title": titles[executed.stem],
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "pages": [{"stem": stem, "title": text, "here": stem == executed.stem} for stem, text in titles.items()],
    }
    exporter = HTMLExporter(template_name="template", extra_template_basedirs=[str(reports)], exclude_anchor_links=True)
    html, _ = exporter.from_notebook_node(nbformat.read(executed, as_version=4), {"study": study})
    return html.replace(f"{reports.resolve().parent}/", "")  # a warning names the file it comes from


def title(notebook: Path) -> str:
    """First heading of a notebook, which names its page; the file's stem where it has none or is gone."""
    if notebook.is_file():
        cells = nbformat.read(notebook, as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        if found := re.search(r"^# +(.+)$", text, flags=re.MULTILINE):
            return found[1].strip()
    return notebook.stem


def studies(folder: Path, *, link: str = "") -> list[dict[str, Any]]:
    """What the index tells of each study in `folder`, by name: links to pages, headlines, facts, cautions."""
    names = {path.parent.name for path in folder.glob("[!.]*/*.html") if path.parent.name != "recorded"}
    names |= {path.name.removeprefix(".").removesuffix(".failed.json") for path in folder.glob(".*.failed.json")}
    found = []
    for name in sorted(name for name in names if not name.endswith(".old")):
        pages = sorted((folder / name).glob("*.html"))
        notebooks = {path.stem: title(ROOT / "notebooks" / f"{path.stem}.ipynb") for path in pages}
        one = {"name": name, "link": link + name, "pages": notebooks, "headlines": [], "facts": [], "cautions": []}
        for told in (_failure, _record):
            try:
                told(folder, name, one)
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                reason = error if isinstance(error, InputError) else f"{type(error).__name__} {clip(str(error))}"
                one["cautions"].append(f"The record beside these pages is broken: {reason}")
        found.append(one)
    return found


def _failure(folder: Path, name: str, one: dict[str, Any]) -> None:
    """Adds what the note on a failed run says, if there is one."""
    path = folder / f".{name}.failed.json"
    if path.is_file():
        note = json.loads(path.read_text(encoding="utf-8"))
        told = f"last run failed on {note['date']} ({note['notebook']}: {note['reason']})"
        dates = [page.stat().st_mtime for page in (folder / name).glob("*.html")]
        pages = f"pages are of {datetime.fromtimestamp(max(dates), UTC).date()}" if dates else "never succeeded"
        one["cautions"].append(f"{told}; {pages}")


def _record(folder: Path, name: str, one: dict[str, Any]) -> None:
    """Adds the figures and settings of the run that the pages of a study are about, if they are about one."""
    path = folder / name / "metrics.json"
    if not path.is_file():
        return
    metrics = json.loads(path.read_text(encoding="utf-8"))
    splits = [split for split in ("validation", "test") if split in metrics]
    one["headlines"] += [(interval(metrics[split]), split, f"{metrics[split]['n']:,}") for split in splits]
    seed = f"seed {metrics['environment']['seed']}"
    if metrics["protocol"] == "anchor_disjoint":
        one["facts"].append(f"Anchors never seen in training · {seed}")
    else:
        one["cautions"].append(f"Random split: training has seen these anchors, so the figure flatters · {seed}")
    config = Config.parse(json.loads((folder / name / "config.json").read_text(encoding="utf-8")), source="config.json")
    if config.listwise:
        one["cautions"].append("A track of its own: a pair's score also depends on the other targets of its anchor")
    ran, trained = metrics["environment"], metrics["train"]
    cost = f"trained {trained['seconds']:.0f} s on {trained['device']}"
    one["facts"] += [config.describe(), f"{ran['date']} · commit {ran['commit']} · {cost}"]


def interval(scores: dict[str, Any]) -> str:
    """Pearson of one split with its interval, such as `0.741 [0.712, 0.768]`."""
    low, high = scores["pearson_ci"]
    return f"{scores['pearson']:.3f} [{low:.3f}, {high:.3f}]"


def write_index(reports: Path) -> None:
    """Makes `reports/index.html` of all studies and `reports/recorded/index.html` of the shared ones anew."""
    loader = jinja2.FileSystemLoader(reports / "template")
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    template = template.get_template("studies.html.j2")
    shared = reports / "recorded"
    if shared.is_dir():
        files.write_text(shared / "index.html", template.render(studies=studies(shared)))
    everything = studies(reports) + studies(shared, link="recorded/")
    files.write_text(reports / "index.html", template.render(studies=everything))


def results_table(path: Path) -> str:
    """The results of the studies SHOWN in Markdown, a row each, from `reports/results.csv`.

    Figures are means over the seeds, also the bounds of the intervals.
    """
    table = pd.read_csv(path)
    rows = [
        "| study | Pearson [95 % over anchors] | split | minutes of training | what it is |",
        "|---|---|---|---|---|",
    ]
    for study in [study for study in SHOWN if (table["study"] == study).any()]:
        one = table[table["study"] == study]
        one = one[one["variant"].isna()] if one["variant"].isna().any() else one.head(1)  # of what others published
        one, first = one[one["split"].eq(one["split"].iloc[0]) | one["split"].isna()], one.iloc[0]
        mean = one[["pearson", "low", "high", "seconds"]].mean()
        figures = f"{mean['pearson']:.3f}" + (f" [{mean['low']:.3f}, {mean['high']:.3f}]" if mean["low"] > -1 else "")
        figures += f", {len(one)} seeds" if len(one) > 1 else ""
        split = f"{first['split']}, " if isinstance(first["split"], str) else ""
        split += "anchors unseen" if first["protocol"] == "anchor_disjoint" else "anchors seen in training"
        split += ", listwise" if first["track"] == "listwise" else ""
        minutes = f"{mean['seconds'] / 60:.0f}" if mean["seconds"] > 0 else ""
        rows.append(f"| `{study}` | {figures} | {split} | {minutes} | {first['what']} |")
    return "\n".join(rows)


def write_readme() -> None:
    """Writes the table between the two marks of README.md; InputError where a mark is missing."""
    text, table = (ROOT / "README.md").read_text(encoding="utf-8"), results_table(ROOT / "reports" / "results.csv")
    parts = re.fullmatch("(.*{}\n).*({}.*)".format(*README_MARKS), text, flags=re.DOTALL)
    if not parts:
        raise InputError(f"README.md: the marks {' and '.join(README_MARKS)} are not both there")
    files.write_text(ROOT / "README.md", f"{parts[1]}{table}\n{parts[2]}")


def record(name: str) -> None:
    """Copies the pages of study `name` to `reports/recorded/` and puts its figures into `reports/results.csv`.

    A study `<base>-seed<k>` is a seed of study `<base>`.
    """
    reports = ROOT / "reports"
    try:
        metrics, config = (json.loads((reports / name / f"{one}.json").read_text()) for one in ("metrics", "config"))
    except (OSError, ValueError) as error:
        raise InputError(f"reports/{name}: there is no study of a run to record ({clip(str(error))})") from error
    config, rows = Config.parse(config, source="config.json"), []
    for split in [split for split in ("validation", "test") if split in metrics]:
        row = metrics["environment"] | metrics["train"] | metrics[split]
        row |= {"study": re.sub(r"-seed\d+$", "", name), "seeds": 1, "split": split, "protocol": metrics["protocol"]}
        row |= {"track": "listwise" if config.listwise else "pair", "what": config.describe()}
        row |= {"parameters": row["trainable_parameters"], "seconds": round(row["seconds"])}
        row |= dict(zip(("low", "high"), row["pearson_ci"], strict=True))
        rows.append({key: f"{value:.4f}" if isinstance(value, float) else str(value) for key, value in row.items()})
    table = pd.read_csv(reports / "results.csv", dtype=str, keep_default_na=False)
    table = pd.concat([table, pd.DataFrame(rows).reindex(columns=table.columns, fill_value="")])
    table = table.drop_duplicates(["study", "variant", "seed", "split"], keep="last")
    files.write_text(reports / "results.csv", table.to_csv(index=False))
    fresh = reports / "recorded" / f".{name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(reports / name, fresh)
    files.swap(fresh, reports / "recorded" / name)
    write_index(reports)
