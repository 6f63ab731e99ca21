"""The page about JSON documents says what their types say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def json_page() -> ModuleType:
    path = Path(__file__).with_name("json_page.py")
    spec = importlib.util.spec_from_file_location("json_page", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_types_say(json_page: ModuleType) -> None:
    assert json_page.PAGE.read_text(encoding="utf-8") == json_page.page()


def test_the_page_names_fields_that_scripts_rely_on(json_page: ModuleType) -> None:
    rows = json_page.page().splitlines()
    assert "| `top1` | number | May be missing. |" in rows
    assert any(row.startswith("| `digest` | string | SHA-256") for row in rows)
