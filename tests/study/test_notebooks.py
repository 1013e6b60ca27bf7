"""The contract of the committed notebooks: thin, clean, one typed `parameters` cell with the defaults of Config."""

import ast
import re
from pathlib import Path

import nbformat
import papermill
import pytest
from nbformat import NotebookNode

from patsim_utils.config import Parameters
from patsim_utils.tool.web import lab

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
PARAMETER = re.compile(r"(\w+): (int|float|str|bool) = ([^=|#]+?)  # (\S.*)")
EACH = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def broken_rules(notebook: NotebookNode) -> list[str]:
    """What is wrong with a notebook, a phrase a finding."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    first, last = notebook.cells[0].source, notebook.cells[-1]
    parameters = code[0].source.splitlines()
    typed = [PARAMETER.fullmatch(line) for line in parameters]
    wrong = [line for line, one in zip(parameters, typed, strict=True) if not one]
    wrong += [one[0] for one in typed if one and type(ast.literal_eval(one[3])).__name__ != one[2]]
    rules = {
        "title": re.match(r"# \S", first),
        "questions": 3 <= len(re.findall(r"^\d\. .*\?$", first, flags=re.MULTILINE)) <= 5,
        "tags": ["parameters" in cell.metadata.get("tags", []) for cell in code] == [True] + [False] * (len(code) - 1)
        and all(
            cell.metadata.get("tags", ["engineers"]) == ["engineers"] for cell in notebook.cells if cell is not code[0]
        ),
        "environment": last.cell_type == "code" and "environment(" in last.source,
        f"parameters {wrong}": not wrong,
        "lines": all(len(list(filter(str.strip, cell.source.splitlines()))) <= 15 for cell in code[1:]),
        "definition": not any(re.search(r"^\s*(?:def|class) ", cell.source, flags=re.MULTILINE) for cell in code),
        "outputs": not any(cell.outputs or cell.execution_count for cell in code),
        "TeX": not any(re.search(r"\$[^$\n]+\$", c.source) for c in notebook.cells if c.cell_type == "markdown"),
        "ids": len({cell.id for cell in notebook.cells}) == len(notebook.cells),
        "metadata": set(notebook.metadata) == {"kernelspec", "language_info"}
        and notebook.metadata.kernelspec.name == "python3",
    }
    return [rule for rule, kept in rules.items() if not kept]


@EACH
def test_committed_notebooks_follow_the_rules(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert broken_rules(notebook) == []
    assert nbformat.writes(notebook) + "\n" == path.read_text(), "not as nbformat writes it"


@pytest.mark.parametrize(
    ("cell", "source", "rule"),
    [
        (0, "# Title\n\nOne question?", "questions"),
        (1, "rate: float = 1  # step", "parameters ['rate: float = 1  # step']"),
        (1, "rate: float | None = 1.0  # step", "parameters ['rate: float | None = 1.0  # step']"),
        (2, "a = 1\n" * 16, "lines"),
        (2, "if True:\n    def f(): pass", "definition"),
        (-1, "print(1)", "environment"),
    ],
)
def test_each_rule_is_enforced(cell: int, source: str, rule: str) -> None:
    notebook = nbformat.read(NOTEBOOKS[0], as_version=4)
    notebook.cells[cell].source = source
    assert broken_rules(notebook) == [rule]


@EACH
def test_a_notebook_that_was_run_is_saved_as_it_was(path: Path) -> None:
    run = nbformat.read(path, as_version=4)
    run.metadata.language_info |= {"version": "3.11.7", "codemirror_mode": {"name": "ipython"}}
    for cell in run.cells:
        if cell.cell_type == "code":
            cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01"}
            cell.execution_count, cell.outputs = 3, [nbformat.v4.new_output("stream", text="a line")]
    model = {"type": "notebook", "content": dict(run)}
    lab.clean(model, path=path.name, contents_manager=None)
    assert nbformat.writes(nbformat.from_dict(model["content"])) + "\n" == path.read_text()


@EACH
def test_parameters_have_the_defaults_of_the_model_and_papermill_reads_them(path: Path) -> None:
    cell = next(cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    python = {line.target.id: ast.literal_eval(line.value) for line in ast.parse(cell.source).body}
    examples = {"anchor", "target", "context", "other_context", "candidates", "query"}  # each notebook has its own
    defaults = Parameters().model_dump(exclude=examples)
    assert python.keys() <= Parameters.model_fields.keys()
    assert {name: value for name, value in python.items() if name not in examples}.items() <= defaults.items()
    assert Parameters.parse(python).chosen.keys() == python.keys()
    read = papermill.inspect_notebook(str(path))
    assert {name: ast.literal_eval(entry["default"]) for name, entry in read.items()} == python
