"""What a study shows: its pages, the index of all studies, and the result table of the README.

Everything is made from executed notebooks and from what they recorded: `reports/<name>/metrics.json`, `config.json` and
`effects.csv`. How they look stands in `reports/template`; a page must open offline, so it loads nothing.
"""

import functools
import json
import re
from datetime import UTC, datetime
from pathlib import Path

import jinja2
import nbformat
import pandas as pd
from nbconvert import HTMLExporter

from patsim_utils.environment import commit
from patsim_utils.errors import InputError

README_MARKS = ("<!-- results:start -->", "<!-- results:end -->")


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


def recorded(reports: Path) -> list[dict]:
    """The studies below `reports`, by name.

    Each has `name`, `pages` (file stem -> heading), and `metrics` and `config` of its run, both None where none of its
    pages is about a run.
    """

    def read(path: Path) -> dict | None:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    found = []
    for folder in sorted({path.parent for path in reports.glob("*/*.html")}):
        stems = sorted(html.stem for html in folder.glob("*.html"))
        found.append(
            {
                "name": folder.name,
                "metrics": read(folder / "metrics.json"),
                "config": read(folder / "config.json"),
                "pages": {stem: title(reports.parent / "notebooks" / f"{stem}.ipynb") for stem in stems},
            }
        )
    return found


def interval(scores: dict) -> str:
    """Pearson of one split with its interval, such as `0.741 [0.712, 0.768]`."""
    low, high = scores["pearson_ci"]
    return f"{scores['pearson']:.3f} [{low:.3f}, {high:.3f}]"


def method(config: dict) -> str:
    """The settings of a run in one line."""
    names = {"lora": "LoRA", "hyperlora": "HyperLoRA"}
    adapter = (
        f"{names[config['adapter']]} r={config['lora_rank']}" if config["adapter"] in names else "all weights trained"
    )
    losses = config["loss"]
    if config["contrast"] != "none":
        losses += f" + {config['contrast_weight']:g} {config['contrast']}"
    if config.get("rating_weight"):  # younger than some recorded runs, as are the `get`s below
        losses += f" + {config['rating_weight']:g} ratings"
    backbone = config["backbone"]
    if config.get("layers"):
        backbone += f", lowest {config['layers']} layers"
    layout = f"{config['layout']} layout" + ("" if config.get("target_sep", True) else " without target [SEP]")
    evidence = f"evidence {config.get('evidence')}"
    if config.get("stack"):
        evidence += f" with a stack of {config['stack']}"
    parts = [
        backbone,
        adapter,
        f"context {config['context_text']}",
        f"fusion {config['fusion']}",
        *([evidence] if config.get("evidence", "none") != "none" else []),
        f"loss {losses}",
        layout,
        f"{config['epochs']} epochs",
    ]
    return ", ".join(parts)


def in_company(config: dict) -> bool:
    """Whether the score of a pair also depends on the other targets of its anchor: a track of its own."""
    return config["layout"] == "list" or config.get("evidence") == "group"


def write_index(reports: Path) -> None:
    """Makes `reports/index.html` anew: each recorded study's headline, settings, date, commit and links."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(reports / "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals |= {"interval": interval, "method": method, "in_company": in_company}
    html = environment.get_template("studies.html.j2").render(studies=recorded(reports))
    (reports / "index.html").write_text(html, encoding="utf-8")


def results_table(reports: Path) -> str:
    """The recorded results in Markdown, a row for each study and split.

    Studies named `<base>-seed<k>` are the seeds of one study.
    """
    studies: dict[str, list[dict]] = {}
    for one in filter(lambda one: one["metrics"], recorded(reports)):
        studies.setdefault(re.sub(r"-seed\d+$", "", one["name"]), []).append(one)
    ablations = [line for path in sorted(reports.glob("*/effects.csv")) for line in ("", *_effects(path))]
    if not studies:
        return "\n".join(["No study has been recorded under `reports/` yet.", *ablations])
    rows = [
        "| study | split | pairs | Pearson [95 % over anchors] | Spearman | MAE | zero-shot | words alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for base, seeds in studies.items():
        runs, track = [one["metrics"] for one in seeds], "in company, " * in_company(seeds[0]["config"])
        for split in ("validation", "test"):
            if evaluated := [run for run in runs if split in run]:
                rows.append(_row(base, split, evaluated, track))
        if leaks := [{**run, **run["leak"], "protocol": "random", "baselines": {}} for run in runs if "leak" in run]:
            rows.append(_row(base, "validation", leaks, track))
    rows += ["", *(f"- `{base}`: {method(seeds[0]['config'])}" for base, seeds in studies.items())]
    return "\n".join([*rows, *ablations])


def _effects(path: Path) -> list[str]:
    """The arms of one ablation, folded, in the order of their effects; those without a difference are last."""
    table = pd.read_csv(path)
    rows = [
        f"<details><summary>What each idea is worth: the ablation of <code>{path.parent.name}</code>, {len(table)} arms"
        "</summary>",
        "",
        "| arm | what it is | seeds | Pearson | against | difference [95 %] | seconds of training |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        difference = ""
        if pd.notna(row.difference):
            difference = f"{row.difference:+.3f} [{row.difference_low:+.3f}, {row.difference_high:+.3f}]"
            if row.difference_low > 0 or row.difference_high < 0:
                difference = f"**{difference}**"
        against = f"`{row.against}`" if pd.notna(row.against) else ""
        if 0 < row.compared < row.seeds:
            against += f", {row.compared} x"
        cells = [f"`{row.arm}`", row.idea, row.seeds, f"{row.pearson:.3f}", against, difference, f"{row.seconds:.0f}"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return [*rows, "", "</details>"]


def _row(base: str, split: str, runs: list[dict], track: str) -> str:
    """One line of the table: means over the seeds, and each seed's Pearson with its interval."""

    def mean(*keys: str) -> str:
        values = [functools.reduce(lambda found, key: found.get(key, {}), keys, run) for run in runs]
        return "" if {} in values else f"{sum(values) / len(values):.3f}"

    seeds = sorted(runs, key=lambda run: run["environment"]["seed"])
    pearson = [f"seed {run['environment']['seed']}: {interval(run[split])}" for run in seeds]
    if len(runs) > 1:
        pearson.insert(0, f"mean of {len(runs)} seeds: **{mean(split, 'pearson')}**")
    anchors = "anchors unseen" if runs[0]["protocol"] == "anchor_disjoint" else "random, anchors leak"
    cells = [
        f"`{base}`",
        f"{split}, {track}{anchors}",
        f"{runs[0][split]['n']:,}",
        "<br>".join(pearson),
        mean(split, "spearman"),
        mean(split, "mae"),
        mean("baselines", "zero_shot", split, "pearson"),
        mean("baselines", "word_jaccard", split, "pearson"),
    ]
    return f"| {' | '.join(cells)} |"


def with_results(readme: str, table: str) -> str:
    """`readme` with `table` between its two marks; an InputError where a mark is missing."""
    start, end = README_MARKS
    before, found_start, rest = readme.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise InputError(f"README.md: the marks {start} and {end} are not both there")
    return f"{before}{start}\n{table}\n{end}{after}"
