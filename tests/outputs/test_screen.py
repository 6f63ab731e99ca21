"""Lines on stderr."""

from __future__ import annotations

import pytest
from screens import Terminal

from dualformer_cli.outputs.screen import fitting, log


def test_log_is_one_escaped_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    log("a\nb\x1b[2J")
    assert capsys.readouterr() == ("", "a\\nb\\x1b[2J\n")


def test_a_terminal_gets_whole_words_and_a_pipe_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = "dualformer: list 'a/very-long-name/of-a-list.csv' not found"
    assert fitting(text, Terminal()) == "dualformer: list\n  'a/very-long-name/of-a-list.csv'\n  not found"
    assert fitting("short", Terminal()) == "short"
    assert fitting("a b " * 9, Terminal(), indent=4).splitlines()[1].startswith("    a b")
    log(text)
    assert capsys.readouterr().err == f"{text}\n"
