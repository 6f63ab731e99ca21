"""How far a command is."""

from __future__ import annotations

import io
import re
import sys
from types import SimpleNamespace

import pytest
from screens import Terminal

from dualformer_cli.outputs import progress as module
from dualformer_cli.outputs.json_text import print_json
from dualformer_cli.outputs.progress import PlainLines, Progress

pytestmark = pytest.mark.usefixtures("_plain_environment")


def test_progress_without_a_terminal_is_plain_lines_and_a_total() -> None:
    stream = io.StringIO()
    with Progress("predict", total=2, stream=stream, interval_seconds=0) as progress:
        progress.advance(note="a\n[red].mp4")
        progress.advance()
    first, second, last = stream.getvalue().splitlines()
    assert re.fullmatch(r"predict: 1/2, \d+ s left, a\\n\[red\]\.mp4", first)
    assert second == r"predict: 2/2, a\n[red].mp4"
    assert re.fullmatch(r"predict: 2/2 done in \d+ s", last)


def test_progress_that_was_quick_prints_nothing_to_a_pipe() -> None:
    stream = io.StringIO()
    with Progress("predict", stream=stream) as progress:
        progress.advance(3)
    assert stream.getvalue() == ""
    assert progress.done == 3


def test_progress_of_unknown_length_counts() -> None:
    stream = io.StringIO()
    with Progress("scan", stream=stream, interval_seconds=0) as progress:
        progress.advance(3)
    assert stream.getvalue().splitlines()[0] == "scan: 3"


def test_silent_progress_shows_nothing_even_on_a_terminal() -> None:
    stream = Terminal()
    with Progress("predict", total=1, stream=stream, silent=True, interval_seconds=0) as progress:
        progress.advance()
    assert stream.getvalue() == ""


def test_a_bar_makes_way_for_results_and_they_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()
    with Progress("predict", total=2, stream=stream) as progress:
        progress.advance(note="[red]a\x1b[2J")
        with progress.paused():
            drawn = stream.getvalue()
            print_json({"a": 1})
    shown_bar = stream.getvalue()
    assert "1/2" in shown_bar
    assert r"[red]a\x1b[2J" in shown_bar
    assert "\x1b[2J" not in shown_bar
    assert drawn.endswith("\x1b[1A\x1b[2K")  # the bar's line is erased while the body prints
    assert shown_bar.endswith("\x1b[1A\x1b[2K")
    assert '"a": 1' not in shown_bar
    assert capsys.readouterr().out == '{\n  "a": 1\n}\n'


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Progress("predict", total=1, stream=stream, interval_seconds=0) as progress:
        progress.advance()
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("predict: 1/1\n")


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("says_time_left", [False, True])
def test_a_bar_keeps_its_title_and_counts_whole_and_cuts_the_note(
    columns: int, says_time_left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Terminal()
    note = f"loss 1.2345, 12.3 clips/s, {'and so on, ' * 9}"
    with Progress("epoch 1/20", total=345, stream=stream, says_time_left=says_time_left) as progress:
        progress.advance(12, note=note)
        assert progress._bar is not None
        progress._bar.refresh()
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).split("\r")[-1].rstrip()
    assert len(shown) <= columns
    assert re.match(r"epoch 1/20 .* ?12/345 (--:-- )?loss 1.*…$", shown), shown


def test_a_failure_inside_leaves_no_total_and_no_bar() -> None:
    stream = Terminal()

    def fail_after_one_step() -> None:
        with Progress("predict", total=2, stream=stream) as progress:
            progress.advance()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail_after_one_step()
    assert stream.getvalue().endswith("\x1b[1A\x1b[2K")
    assert not isinstance(sys.stderr, Terminal)


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 5.0, 6.0, 11.0, 16.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(now)))
    lines = PlainLines()
    for done in (1_000_000, 2_000_000, 3_000_000, 4_000_000):
        lines("k400-tiny", done, 87_900_000)
    for done in (4_000_000, 5_000_000):
        lines("a\x1b[2J", done, None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "k400-tiny: 3.0 MB of 87.9 MB\na\\x1b[2J: 5.0 MB\n"
