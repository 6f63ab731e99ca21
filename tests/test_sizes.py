"""How large a file, a class and a function may become before a reader loses the thread."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted([*(ROOT / "dualformer_cli").rglob("*.py"), *(ROOT / "kernels").glob("*.py")])
MOST_LINES, MOST_METHODS, MOST_FUNCTION_LINES, MOST_UNTYPED = 500, 15, 60, 5


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef, *, with_signature: bool) -> int:
    """Count the lines of a function; a command's options and help are a form to fill in."""
    assert function.end_lineno is not None
    has_help = ast.get_docstring(function) is not None
    return function.end_lineno - (function.lineno if with_signature else function.body[has_help].lineno) + 1


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_classes_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    is_command, is_kernel = path.parent.name == "commands", path.stem.endswith("_kernel")
    assert len(text.splitlines()) <= MOST_LINES
    large = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body)
            if methods > MOST_METHODS:
                large.append(f"{node.name}: {methods} methods")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_kernel:
            lines = lines_of(node, with_signature=not is_command)
            if lines > MOST_FUNCTION_LINES:
                large.append(f"{node.name}: {lines} lines")
    assert large == []


def test_dictionaries_of_anything_are_few() -> None:
    """What has names has a dataclass; the rest is JSON of others, and keyword arguments."""
    found = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("dict[str, Any]") for path in FILES}
    assert sum(found.values()) <= MOST_UNTYPED, {name: count for name, count in found.items() if count}
