"""Versions: of what is loaded, else of what is installed."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from types import SimpleNamespace

import dualformer_cli
from dualformer_cli.system.versions import version_of, versions


def test_each_package_has_its_version_in_the_order_asked_for():
    found = versions("torch", "dualformer", "python")
    assert list(found) == ["torch", "dualformer", "python"]
    assert found["python"] == platform.python_version()
    assert found["dualformer"] == dualformer_cli.__version__


def test_a_loaded_package_knows_better_than_the_installer(monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", SimpleNamespace(__version__="9.9+cu128"))
    assert version_of("typer") == "9.9+cu128"
    monkeypatch.delitem(sys.modules, "typer")
    assert version_of("typer") == metadata.version("typer")
    assert "typer" not in sys.modules


def test_what_is_not_there_is_said_to_be_not_installed():
    assert version_of("no-such-package") == "not installed"
