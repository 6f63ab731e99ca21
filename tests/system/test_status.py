"""What a command waits for before its first line."""

from __future__ import annotations

import io
import os
import pty
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from screens import Terminal

import dualformer_cli
from dualformer_cli.outputs.json_text import print_json
from dualformer_cli.outputs.progress import Progress
from dualformer_cli.outputs.runs import print_rows
from dualformer_cli.outputs.screen import Screen, log
from dualformer_cli.system.status import clear_status, show_status

ERASE = "\r\x1b[2K"


def terminal_as_stderr(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a stderr that is 20 columns wide."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    return stream


def test_a_status_stands_on_a_line_of_its_own_until_something_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_as_stderr(monkeypatch)
    show_status("loading\x1b a model of a long name")
    assert terminal.getvalue() == ERASE + r"loading\x1b a model"
    log("a line")
    log("another")
    assert terminal.getvalue() == ERASE + r"loading\x1b a model" + ERASE + "a line\nanother\n"


@pytest.mark.parametrize(
    "print_something",
    [
        lambda: Screen(io.StringIO(), 20).line(("text", "")),
        lambda: print_rows([("a", "b")], io.StringIO()),
        lambda: print_json({}, stream=io.StringIO()),
        lambda: Progress("a bar").__enter__().__exit__(None, None, None),
        clear_status,
    ],
)
def test_whatever_prints_takes_it_away(print_something: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = terminal_as_stderr(monkeypatch)
    show_status("loading")
    print_something()
    assert terminal.getvalue().startswith(f"{ERASE}loading{ERASE}")
    assert terminal.getvalue().count("loading") == 1


def test_logs_pipes_and_terminals_that_cannot_erase_get_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show_status("loading")
    clear_status()
    assert capsys.readouterr() == ("", "")
    stream = terminal_as_stderr(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    show_status("loading")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("rank", [None, "0", "1"])
def test_a_command_says_what_it_loads_before_it_does_on_one_of_its_processes(rank: str | None, tmp_path: Path) -> None:
    """The model is no preset: the command ends before torch is loaded."""
    ranks = {} if rank is None else {"RANK": rank, "WORLD_SIZE": "2", "LOCAL_RANK": rank}
    environ = {**os.environ, **ranks, "PYTHONPATH": str(Path(dualformer_cli.__file__).parents[1]), "TERM": "xterm"}
    child, descriptor = pty.fork()
    if child == 0:
        os.chdir(tmp_path)
        words = ["gradcam", "--preset", "nothing", str(Path(__file__))]
        os.execve(sys.executable, [sys.executable, "-m", "dualformer_cli", *words], environ)
    printed = b""
    try:
        while block := os.read(descriptor, 65536):
            printed += block
    except OSError:  # the child has left the terminal
        pass
    os.close(descriptor)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    status = f"{ERASE}loading nothing ...{ERASE}".encode()
    assert printed.startswith(b"dualformer: preset 'nothing'" if rank == "1" else status + b"dualformer: preset ")
