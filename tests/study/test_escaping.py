"""HTML in the files of a run that somebody else made is text on every page, whichever field it stands in."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest

from patsim_utils import metrics
from patsim_utils.config import Config, Parameters
from patsim_utils.data.splits import load
from patsim_utils.method.matcher import Matcher
from patsim_utils.study import notebooks
from patsim_utils.study.look.markup import answer, fill, note
from patsim_utils.study.pages.page import page
from patsim_utils.training import runs

ROOT = Path(__file__).parents[2]
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
LIVE = re.compile(r"<script>alert|<img src=x")


def evil(value: Any) -> Any:
    """A JSON value with the script in each of its texts."""
    if isinstance(value, dict):
        return {key: evil(part) for key, part in value.items()}
    return f"{value}{EVIL}" if isinstance(value, str) else value


def make_run(folder: Path) -> None:
    """A run of an encoder with one layer, not trained, with a script in every text."""
    config = Config(layers=1, contrast_layer=1, epochs=1, adapter="full")  # whose folder holds all weights
    model = folder / "model"
    Matcher(config).save(model)
    saved = json.loads((model / "matcher.json").read_text())
    saved["config"]["backbone"] += EVIL
    saved["titles"] = evil(saved["titles"])
    (model / "matcher.json").write_text(json.dumps(saved))
    rows = load("sample")["validation"]
    score = rows["score"]
    noise = np.random.default_rng(0).normal(0, 0.2, len(rows))
    rows = rows.assign(split="validation", prediction=np.clip(score + noise, 0, 1))
    figures = metrics.evaluate(rows, rows["prediction"], loss=1.0)
    rows["anchor"] += EVIL
    rows["target"] += EVIL
    rows["rating"] += EVIL
    rows.loc[rows.index[-5:], "split"] += EVIL
    rows.to_csv(folder / "predictions.csv", index=False)
    numbers = {
        "validation": figures,
        "protocol": "anchor_disjoint",
        "data": {"train": "0"},
        "train": {"seconds": 9.0, "trainable_parameters": 7, "device": "cpu", "precision": "fp32"},
        "baselines": {"pretrained_cosine": {"validation": None}, f"own{EVIL}": {"validation": figures}},
        "environment": {"commit": "abc", "date": "2026-01-02", "seed": "0"},
    }
    (folder / "metrics.json").write_text(json.dumps(evil(numbers)))
    pd.DataFrame({"step": [1], "loss": [1.0]}).to_csv(folder / "history.csv", index=False)
    settings = config.model_dump() | {"backbone": f"./x{EVIL}", "data": EVIL, "cpc_titles": EVIL}
    (folder / "config.json").write_text(json.dumps(settings))


def test_what_enters_html_is_escaped_unless_it_is_html() -> None:
    for shown in (fill("<p>{text}</p>", text=EVIL), note(EVIL)._repr_html_(), answer(EVIL, EVIL)._repr_html_()):
        assert not LIVE.search(str(shown))
        assert "&lt;script&gt;" in str(shown)
    assert fill("<p>{part}</p>", part=fill("<b>{x}</b>", x="<")) == "<p><b>&lt;</b></p>"


def test_a_script_in_any_text_of_a_run_is_text_on_the_page_and_the_index(tmp_path: Path, monkeypatch) -> None:
    for part in ("patsim_utils", "notebooks", "reports/template"):
        shutil.copytree(ROOT / part, tmp_path / part)  # with what Python has compiled
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for module in (notebooks, runs):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "runs" / "theirs").mkdir(parents=True)
    make_run(tmp_path / "runs" / "theirs")
    pages = tmp_path / "reports" / "theirs"
    pages.mkdir()
    (pages / "<img src=x onerror=alert(1)>.html").write_text("an older page")
    failure = {"date": EVIL, "notebook": EVIL, "reason": EVIL}
    (tmp_path / "reports" / ".other.failed.json").write_text(json.dumps(failure))
    header = (ROOT / "reports" / "results.csv").read_text().partition("\n")[0]
    row = pd.DataFrame([dict.fromkeys(header.split(","), "")]).assign(study=EVIL, what=EVIL, pearson=0.5, track="pair")
    row.to_csv(tmp_path / "reports" / "results.csv", index=False)
    notebooks.study(Parameters(name="theirs"), notebooks=["3_errors"])
    for path in (pages / "3_errors.html", tmp_path / "reports" / "index.html"):
        text = path.read_text()
        assert not LIVE.search(text), path.name
        assert "&lt;script&gt;alert" in text, path.name


@pytest.mark.parametrize("text", [f"**bold** {EVIL}", f"[a]({EVIL})", f"`code` {EVIL}"])
def test_a_cell_that_shows_markdown_shows_no_html(tmp_path: Path, text: str) -> None:
    output = nbformat.v4.new_output("display_data", data={"text/markdown": text})
    cell = nbformat.v4.new_code_cell("show()", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "own.ipynb")
    titles = {"own": EVIL, "javascript:alert(1)<!--": "a page whose name would run"}
    shown = page(tmp_path / "own.ipynb", name=EVIL, titles=titles, reports=ROOT / "reports", credit=EVIL)
    assert 'href="javascript%3Aalert' in shown
    assert 'href="javascript:' not in shown
    assert not LIVE.search(shown)
    assert shown.count("&lt;script&gt;alert") >= 5
