"""How the package reads, in figures: `python -m tests.style [folder]`. A reading, not a purpose.

Counted are lines that are not blank, without their indentation. Rates are of 1,000 such lines.
"""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "patsim_utils"
VAGUE = ("found", "told", "given", "there", "place", "one")
GOALS = {
    "characters a line": 48,
    "conditional expressions in 1,000 lines": 18,
    "tuple assignments in 1,000 lines": 8,
    "lines over 100 characters, percent": 6,
    "longest function, lines": 45,
    "longest class, lines": 150,
    "longest module, lines": 300,
    "modules in a folder": 9,
    "variables with a vague name": 0,
}


def vague_names(tree: ast.AST) -> list[str]:
    """Vague names that are bound as a variable or a parameter."""
    stored = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    parameters = [node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)]
    return [name for name in [*stored, *parameters] if name in VAGUE]


def is_tuple_assignment(node: ast.AST) -> bool:
    """`a, b = 1, 2`: two facts in one line."""
    return isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple)


def longest(trees: list[ast.AST], *kinds: type) -> int:
    sizes = [node.end_lineno - node.lineno + 1 for tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]
    return max(sizes, default=0)


def measure(folder: Path) -> dict[str, float]:
    """The figures of all modules below a folder."""
    paths = sorted(folder.rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in paths]
    trees = [ast.parse(text) for text in texts]
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    thousands = len(lines) / 1000
    folders = [path.parent for path in paths if path.name != "__init__.py"]
    return {
        "lines": len(lines),
        "characters a line": sum(len(line.strip()) for line in lines) / len(lines),
        "conditional expressions in 1,000 lines": sum(isinstance(node, ast.IfExp) for node in nodes) / thousands,
        "tuple assignments in 1,000 lines": sum(map(is_tuple_assignment, nodes)) / thousands,
        "lines over 100 characters, percent": 100 * sum(len(line) > 100 for line in lines) / len(lines),
        "longest function, lines": longest(trees, ast.FunctionDef, ast.AsyncFunctionDef),
        "longest class, lines": longest(trees, ast.ClassDef),
        "longest module, lines": max(len(text.splitlines()) for text in texts),
        "modules in a folder": max(folders.count(parent) for parent in folders),
        "variables with a vague name": sum(len(vague_names(tree)) for tree in trees),
    }


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE
    for name, value in measure(folder).items():
        goal = f"   at most {GOALS[name]}" if name in GOALS else ""
        print(f"{name:42} {value:8.1f}{goal}")


if __name__ == "__main__":
    main()
