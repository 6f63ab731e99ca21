"""Lines on stderr."""

from __future__ import annotations

import io

import pytest
from screens import Terminal

from dualformer_cli.outputs.screen import Screen, fitting, log, print_facts


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
    digest = "0123456789abcdef01"
    assert fitting(f"digest     {digest}", Terminal(), indent=11) == f"digest\n  {digest}", "whole, where it has room"
    log(text)
    assert capsys.readouterr().err == f"{text}\n"
    command = "dualformer train --resume --output runs/train"
    assert fitting(command, Terminal()) == command, "it is copied"


def test_facts_stand_below_each_other_in_whole_words_and_addresses_whole() -> None:
    stream = io.StringIO()
    address = "https://example.org/a/long/address/of/a/file"
    print_facts(Screen(stream, 30), [("name", "of several words that wrap"), ("address", address), ("", "")])
    assert stream.getvalue().splitlines() == [
        "name     of several words that",
        "         wrap",
        f"address  {address}",
        "",
    ]
    wide = io.StringIO()
    print_facts(Screen(wide, None), [("name", "word " * 50)])
    assert wide.getvalue() == f"name  {'word ' * 49}word\n"


def test_columns_of_a_table_that_do_not_fit_stand_below_the_others() -> None:
    head, rows = ("name", "videos", "size", "state"), [("hmdb51", "3570", "2.1 GB", "missing"), ("a", "1", "-", "here")]

    def printed(width: int | None) -> list[str]:
        stream = io.StringIO()
        Screen(stream, width).table(rows, right=(False, True, True, False), styles=[""] * 4, head=head)
        return stream.getvalue().splitlines()

    whole = ["name    videos    size  state", "hmdb51    3570  2.1 GB  missing", "a            1       -  here"]
    assert printed(None) == printed(31) == whole
    assert printed(30) == [
        *("name    videos    size", "  state"),
        *("hmdb51    3570  2.1 GB", "  missing"),
        *("a            1       -", "  here"),
    ]
    assert printed(19)[2:4] == ["hmdb51    3570", "  2.1 GB  missing"]
    assert printed(5)[4:8] == ["hmdb51", "    3570", "  2.1 GB", "  missing"]
