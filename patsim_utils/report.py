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
SHOWN = ("described", "best", "listwise", "search", "described-random", "published")  # studies in the README


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
    names = {path.parent.name for path in folder.glob("*/*.html") if not path.parent.name.startswith(".")}
    names = {name for name in names if not name.endswith(".old")}
    names |= {path.name[1:-12] for path in folder.glob(".*.failed.json")}
    found = []
    for name in sorted(names):
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
    """The recorded results of the studies SHOWN in Markdown, a row each, from `reports/results.csv`."""
    table = pd.read_csv(path) if path.is_file() else pd.DataFrame(columns=["study", "variant"])
    rows = ["| study | Pearson [95 %] | split | minutes of training | what it is |", "|---|---|---|---|---|"]
    for study in SHOWN:
        one = table[(table["study"] == study) & table["variant"].isna()]
        if one.empty:
            continue
        one = one[one["split"] == one["split"].iloc[0]]
        mean = (
            one[one["seed"].isna()] if one["seed"].isna().any() else one
        )  # a row of all seeds, or rows of single ones
        seeds = max(int(mean["seeds"].max()), len(mean))
        figures = "{pearson:.3f} [{low:.3f}, {high:.3f}]".format(**mean[["pearson", "low", "high"]].mean())
        first = mean.iloc[0]
        kind = f"{first['split']}, " + ("anchors unseen" if first["protocol"] == "anchor_disjoint" else "random rows")
        minutes = f"{mean['seconds'].mean() / 60:.0f}" if mean["seconds"].notna().any() else ""
        cells = [f"`{study}`", figures + f", {seeds} seeds" * (seeds > 1), kind, minutes, first["what"]]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(rows) if len(rows) > 2 else "No result has been recorded yet."


def write_readme() -> None:
    """Writes the table between the two marks of README.md; InputError where a mark is missing."""
    start, end = README_MARKS
    before, found_start, rest = (ROOT / "README.md").read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise InputError(f"README.md: the marks {start} and {end} are not both there")
    table = results_table(ROOT / "reports" / "results.csv")
    files.write_text(ROOT / "README.md", f"{before}{start}\n{table}\n{end}{after}")


def record(name: str) -> None:
    """Copies the pages of study `name` to `reports/recorded/` and puts its figures into `reports/results.csv`."""
    reports = ROOT / "reports"
    try:
        metrics, config = (json.loads((reports / name / f"{one}.json").read_text()) for one in ("metrics", "config"))
    except (OSError, ValueError) as error:
        raise InputError(f"reports/{name}: there is no study with a run to record ({clip(str(error))})") from error
    parsed, environment, train = Config.parse(config), metrics["environment"], metrics["train"]
    base, _, _ = name.partition("-seed")
    common = {"study": base, "seed": environment["seed"], "seeds": 1, "protocol": metrics["protocol"]}
    common |= {"track": "listwise" if parsed.listwise else "pair", "what": parsed.describe()}
    common |= {"seconds": train["seconds"], "parameters": train["trainable_parameters"], "device": train["device"]}
    common |= {key: environment[key] for key in ("date", "commit")}
    rows = []
    for split in [split for split in ("validation", "test") if split in metrics]:
        scores = metrics[split]
        low, high = scores["pearson_ci"]
        figures = {key: scores[key] for key in ("n", "pearson", "spearman", "mae", "qwk", "loss")}
        rows.append({**common, "split": split, **figures, "low": low, "high": high})
    table = pd.read_csv(reports / "results.csv")
    key = ["study", "variant", "seed", "split"]
    table = pd.concat([table, pd.DataFrame(rows).reindex(columns=table.columns)]).drop_duplicates(key, keep="last")
    files.write_text(reports / "results.csv", table.to_csv(index=False))
    fresh = reports / "recorded" / f".{name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(reports / name, fresh)
    files.recover(reports / "recorded" / name)
    files.swap(fresh, reports / "recorded" / name)
    write_index(reports)
