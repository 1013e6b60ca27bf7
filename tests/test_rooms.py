"""Every import goes downhill: a room imports from itself and from rooms below it, never from one above."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "patsim_utils"
MODULES = sorted(PACKAGE.rglob("*.py"))
# From the ground up; `experiments` and `search` stand side by side.
FLOORS = {
    "ground": 0,
    "data": 1,
    "layouts": 2,
    "method": 3,
    "training": 4,
    "study": 5,
    "search": 6,
    "experiments": 6,
    "tool": 7,
}
FRONT_DOORS = ("__init__.py", "__main__.py", "matcher.py")  # they only pass on names of the rooms
HEAVY = {
    "peft",
    "sklearn",
    "sentence_transformers",
    "lancedb",
    "ray",
    "papermill",
    "matplotlib",
}


def room(path: Path) -> str:
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else "ground"


@cache
def imports(path: Path, *, everywhere: bool) -> list[str]:
    """Full names of what a module imports, at its head or everywhere in it."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if everywhere else tree.body
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def room_of_import(name: str) -> str:
    first = name.removeprefix("patsim_utils.").partition(".")[0]
    return first if first in FLOORS else "ground"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_import_goes_downhill(path: Path) -> None:
    if path.parent == PACKAGE and path.name in FRONT_DOORS:
        return
    own = room(path)
    for name in imports(path, everywhere=True):
        if not name.startswith("patsim_utils."):
            continue
        other = room_of_import(name)
        assert other == own or FLOORS[other] < FLOORS[own], f"{own} imports {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_lower_rooms_need_no_heavy_package(path: Path) -> None:
    heads = {name.partition(".")[0] for name in imports(path, everywhere=False)}
    if room(path) in ("data", "ground"):
        assert "torch" not in heads
    if room(path) in ("data", "layouts", "method"):
        assert not heads & HEAVY
    if room(path) == "search":
        assert "sentence_transformers" not in heads
    if path.parts[-2:] in (("layouts", "pairs.py"), ("layouts", "sequences.py"), ("onnx", "reader.py")):
        assert not heads & {"torch", "transformers", "pydantic"}  # an answer by ONNX Runtime needs none of them


def test_no_two_modules_import_each_other() -> None:
    """No circle of imports, also not one within a room."""
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    below = {name: {other for other in names if _imports(path, other)} for name, path in names.items()}
    while free := {name for name, others in below.items() if not others & below.keys()}:
        below = {name: others for name, others in below.items() if name not in free}
    assert not below


def _imports(path: Path, module: str) -> bool:
    found = imports(path, everywhere=True)
    return any(name == module or name.startswith(f"{module}.") for name in found)
