"""The rules for committed notebooks: thin, clean, one typed `parameters` cell, and presets that fit."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

from patsim_utils import study
from patsim_utils.data import load

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PRESETS = sorted((ROOT / "notebooks" / "presets").glob("*.yaml"))
PARAMETER = re.compile(r"(\w+): (int|float|str|bool) = ([^=|#]+?)  # (\S.*)")


def broken_rules(notebook: NotebookNode) -> list[str]:
    """What is wrong with a notebook, one sentence a finding."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [place for place, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    first, last = notebook.cells[0], notebook.cells[-1]
    if first.cell_type != "markdown" or not re.match(r"# \S", first.source):
        found.append("the first cell does not begin with a title")
    elif not 3 <= len(re.findall(r"^\d\. .*\?$", first.source, flags=re.MULTILINE)) <= 5:
        found.append("the first cell does not ask three to five questions")
    if tagged != [0]:
        found.append("the first code cell, and no other, must have the tag `parameters`")
    if len(code) > 25:
        found.append(f"{len(code)} code cells are more than 25")
    if last.cell_type != "code" or "environment(" not in last.source:
        found.append("the last cell does not show the environment")
    for line in code[0].source.splitlines():
        match = PARAMETER.fullmatch(line)
        if match is None:
            found.append(f"not of the form `name: type = default  # meaning`: {line}")
        elif type(ast.literal_eval(match[3])).__name__ != match[2]:
            found.append(f"the default is no {match[2]}: {line}")
    for place, cell in enumerate(code):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        if place and len(lines) > 15:
            found.append(f"code cell {place} has {len(lines)} lines, more than 15")
        if re.search(r"^\s*(?:async )?(?:def|class) ", cell.source, flags=re.MULTILINE):
            found.append(f"code cell {place} defines a function or class")
        if cell.outputs or cell.execution_count is not None:
            found.append(f"code cell {place} was committed with outputs or an execution count")
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.search(r"\$[^$\n]+\$", cell.source):
            found.append(f"a formula in TeX, which the pages cannot show: {cell.source[:60]}")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is not python3")
    return found


def good() -> NotebookNode:
    """A notebook that follows every rule."""
    new = nbformat.v4
    cells = [
        new.new_markdown_cell("# Title\n\n1. How many?\n2. How long?\n3. How often?"),
        new.new_code_cell('name: str = "sample"  # of the study', metadata={"tags": ["parameters"]}),
        new.new_code_cell("import patsim_utils"),
        new.new_code_cell("print(environment(seed=0))"),
    ]
    return new.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python"}})


def test_a_good_notebook_breaks_no_rule() -> None:
    assert broken_rules(good()) == []


@pytest.mark.parametrize(
    ("cell", "source", "said"),
    [
        (0, "1. Why?\n2. How?\n3. What?", "title"),
        (0, "# Title\n\nOne question?", "questions"),
        (1, "rate: float = 1  # step", "the default is no float"),
        (1, "rate = 1.0  # step", "not of the form"),
        (1, "rate: float = 1.0", "not of the form"),
        (1, "rate: float | None = 1.0  # step", "not of the form"),
        (1, 'mode: str = "a"  # a\nother: str = mode  # derived', "malformed"),
        (2, "a = 1\n" * 16, "more than 15"),
        (2, "def f():\n    pass", "defines"),
        (2, "if True:\n    class A:\n        pass", "defines"),
        (3, "print(1)", "environment"),
        (0, "# Title\n\n1. Why?\n2. How?\n3. What is $\\alpha$?", "TeX"),
    ],
)
def test_each_rule_is_enforced(cell: int, source: str, said: str) -> None:
    notebook = good()
    notebook.cells[cell].source = source
    if said == "malformed":
        with pytest.raises(ValueError, match="malformed node"):
            broken_rules(notebook)
    else:
        assert [said in finding for finding in broken_rules(notebook)] == [True]


def test_outputs_counts_tags_and_many_cells_are_found() -> None:
    notebook = good()
    notebook.cells[2].execution_count = 1
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text="1")]
    notebook.cells[3].metadata["tags"] = ["parameters"]
    assert len(broken_rules(notebook)) == 3
    notebook = good()
    notebook.cells[2:3] = [nbformat.v4.new_code_cell("1") for _ in range(24)]
    assert broken_rules(notebook) == ["26 code cells are more than 25"]


def test_the_notebooks_of_a_study_are_there() -> None:
    assert {path.stem for path in NOTEBOOKS} >= set(study.NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebooks_follow_the_rules(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert broken_rules(notebook) == []
    identities = [cell.id for cell in notebook.cells]
    assert len(set(identities)) == len(identities)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_understands_every_parameter(path: Path) -> None:
    """papermill reads the cell with a regular expression of its own; it must find what Python finds."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    python = {line.target.id: line.annotation.id for line in ast.parse(cell.source).body}
    assert study.declared(path) == python
    assert {"data", "name"} & python.keys()


def test_a_parameter_has_one_type_and_one_default_in_all_notebooks() -> None:
    seen: dict[str, tuple[str, str]] = {}
    for path in NOTEBOOKS:
        for name, entry in study.papermill.inspect_notebook(path).items():
            typed = (entry["inferred_type_name"], entry["default"])
            assert seen.setdefault(name, typed) == typed, f"{name} in {path.name}"


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_name_known_parameters_of_the_right_type(path: Path) -> None:
    given = study.parameters(path.stem, data="sample", name="one", given=[])
    assert given.keys() >= {"data", "name"}


def test_there_is_a_preset_for_each_way_of_running() -> None:
    assert {path.stem for path in PRESETS} >= {"sample", "described", "cpu", "search", "gpu"}


@pytest.fixture
def copy(tmp_path: Path, tiny_backbone) -> Path:
    """A copy of the repository with a preset `tiny` (random weights), two arms `few`, and a little of the sample."""
    for part in ("patsim_utils", "notebooks", "reports/template"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    settings = {"backbone": tiny_backbone("bert"), "contrast_layer": 1, "epochs": 1, "batch_size": 64, "share": 0.5}
    (tmp_path / "notebooks" / "presets" / "tiny.yaml").write_text(json.dumps(settings))
    arms = {"one": {"idea": "the preset"}, "two": {"idea": "no class", "against": "one", "change": {"fusion": "none"}}}
    (tmp_path / "notebooks" / "arms" / "few.yaml").write_text(json.dumps({"arms": arms}))
    (tmp_path / "data").mkdir()
    for split, frame in load("sample").items():
        kept = frame["anchor"].drop_duplicates()[::3] if split == "train" else frame["anchor"].drop_duplicates()
        frame[frame["anchor"].isin(kept)].to_csv(tmp_path / "data" / f"{split}.csv", index=False)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "pages"),
    [
        ([], ["1_explore", "2_train", "3_errors"]),
        (["--notebooks", "4_speed", "-p", "threads", "1"], ["4_speed"]),
        (["ablation", "-p", "arms", "few"], ["5_ablation"]),
    ],
    ids=["study", "speed", "ablation"],
)
def test_papermill_runs_the_notebooks_to_their_end(copy: Path, options: list[str], pages: list[str]) -> None:
    command = [sys.executable, "-m", "patsim_utils.study", "--preset", "tiny", "--data", "data", "--name", "tiny"]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    done = subprocess.run([*command, *options], cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = copy / "reports" / "tiny"
    assert sorted(page.stem for page in folder.glob("*.html")) == pages
    for page in pages:
        html = (folder / f"{page}.html").read_text()
        assert "Traceback (most recent call last)" not in html
        assert not re.search(r">\s*nan\s*<", html, flags=re.IGNORECASE)
        assert html.count("<figure") >= 3
    if "2_train" in pages:
        found = json.loads((folder / "metrics.json").read_text())
        assert {"validation", "test", "train", "protocol"} <= found.keys()
    else:
        assert any((copy / "runs" / "tiny").iterdir())
