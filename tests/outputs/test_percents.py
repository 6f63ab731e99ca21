"""A percentage is written in one way everywhere: 41.3%, in text, captions, pages, pictures and documentation."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "dualformer_cli"
APART = re.compile(r"\d %(?![\w(])")


def texts_of(source: str) -> Iterator[str]:
    """Yield the strings of a program; a value that is put into one counts as 0."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "0" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_the_search_finds_values_and_numbers_apart_from_their_sign() -> None:
    found = [text for text in texts_of("""x = f"{y:.1f} %", "95 % of", f"{y:.1f}%", 7 % 2""") if APART.search(text)]
    assert found == ["0 %", "95 % of"]


@pytest.mark.parametrize("folder", sorted(path.name for path in PACKAGE.iterdir() if path.is_dir()))
def test_no_percent_sign_stands_apart(folder: str) -> None:
    for path in sorted((PACKAGE / folder).rglob("*")):
        text = path.read_text("utf-8") if path.suffix in (".py", ".md", ".js", ".css", ".yaml") else ""
        parts = texts_of(text) if path.suffix == ".py" else text.replace("${", "0").replace("}", "0").splitlines()
        assert not [part for part in parts if APART.search(part)], path
