"""Predictions as text."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prediction_documents import failed, result, scored, segment
from rich.cells import cell_len
from screens import HOSTILE, Terminal, ascii_stream, plain_text

from dualformer_cli.outputs.predictions import print_predictions

pytestmark = pytest.mark.usefixtures("_plain_environment")


def shown(video: dict[str, Any], **options: Any) -> str:
    stream = io.StringIO()
    print_predictions(video, stream=stream, **options)
    return stream.getvalue()


def test_predictions_show_facts_labels_percents_and_bars_in_proportion() -> None:
    lines = shown(result()).splitlines()
    assert lines[0] == "clip.mp4"
    assert lines[1] == "  250 frames, 25 fps, 10.0 s, 4 views"
    first = re.fullmatch(r"  1  surfing water   75\.0%  (█+)", lines[2])
    second = re.fullmatch(r"  2  tai chi         12\.5%  (█+)", lines[3])
    assert first is not None
    assert second is not None
    assert len(first[1]) == 6 * len(second[1]) == 30


def test_a_bar_is_exact_to_an_eighth_of_a_column() -> None:
    line = shown(result(predictions=[scored("a", 0.5 + 3 / 8 / 40)])).splitlines()[2]
    assert line.split()[-1] == "█" * 20 + "▍"


def test_unknown_facts_are_left_out_and_singular_is_singular() -> None:
    text = shown(result(fps=None, duration_seconds=None, num_frames=1, views=1))
    assert text.splitlines()[1] == "  1 frame, 1 view"
    live = shown(result("camera:0", fps=None, duration_seconds=4.0, num_frames=None, views=3))
    assert live.splitlines()[1] == "  4.0 s, 3 views"


@pytest.mark.parametrize(("seconds", "expected"), [(59.94, "59.9 s"), (59.97, "01:00.0"), (4000.0, "1:06:40.0")])
def test_a_long_duration_is_a_clock_time(seconds: float, expected: str) -> None:
    assert f" {expected}, " in shown(result(duration_seconds=seconds)).splitlines()[1]


def test_a_timeline_has_one_line_per_segment() -> None:
    text = shown(result(segments=[segment(0, 12, "tai chi", 0.25), segment(12.0, 18.0, "surfing water", 0.5)]))
    assert "  00:00.0 - 00:12.0  tai chi        0.25  █████\n" in text
    assert "  00:12.0 - 00:18.0  surfing water  0.50  ██████████\n" in text


def test_a_timeline_that_reaches_an_hour_shows_hours_in_every_line() -> None:
    text = shown(result(segments=[segment(0, 3599.98), segment(3599.98, 3700)]))
    assert "  0:00:00.0 - 1:00:00.0  tai chi" in text
    assert "  1:00:00.0 - 1:01:40.0  tai chi" in text


def test_a_timeline_in_40_columns_gives_the_label_its_own_line() -> None:
    lines = shown(result(segments=[segment(0, 12, "passing American football (not in game)")]), width=40).splitlines()
    assert "  00:00.0 - 00:12.0  0.50  ███" in lines
    assert "    passing American football (not in g…" in lines


def test_a_failed_video_is_one_red_line_under_its_path() -> None:
    stream = Terminal()
    print_predictions(failed(), stream=stream, width=60)
    assert stream.getvalue() == "\x1b[1mbad.mp4\x1b[0m\n\x1b[31m  error: no video stream\x1b[0m\n\n"


def test_warnings_stand_beneath_the_predictions() -> None:
    lines = shown(result(warnings=["3 frames missing"])).splitlines()
    assert lines[-2:] == ["  warning: 3 frames missing", ""]


def test_names_from_outside_are_printed_and_never_obeyed() -> None:
    text = shown(result(HOSTILE, predictions=[scored(HOSTILE, 0.5)], warnings=[HOSTILE]))
    escaped = r"[red]x[/red]\n\x1b[31m:smile:\r\x9b2J\u202eevil\udcff.mp4"
    assert text.splitlines()[0] == escaped
    assert text.count(escaped) == 3
    assert escaped in shown(failed(HOSTILE, HOSTILE)).splitlines()[1]


def test_colours_are_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in shown(result(segments=[segment(0, 1)]))
    stream = Terminal()
    print_predictions(result(), stream=stream)
    assert "\x1b[36m" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    print_predictions(result(), stream=stream)
    assert "\x1b[36m" not in stream.getvalue()


@given(st.lists(plain_text, min_size=1, max_size=4), st.floats(0, 1), st.sampled_from([20, 30, 40, 80, 120]))
def test_every_line_but_the_path_fits_the_width(labels: list[str], score: float, width: int) -> None:
    video = result(
        predictions=[scored(label, score) for label in labels],
        segments=[segment(5, 4000, label, score) for label in labels] if width >= 40 else [],
        warnings=labels,
    )
    lines = shown(video, width=width).splitlines()[1:]
    assert max(map(cell_len, lines)) <= width


def test_a_pipe_gets_long_labels_uncut() -> None:
    label = "long " * 40 + "end"
    assert label in shown(result(predictions=[scored(label, 0.5)]))


def test_an_ascii_stream_gets_ascii_bars_and_ellipses() -> None:
    stream = ascii_stream()
    print_predictions(result("ü.mp4", predictions=[scored("é" * 60, 0.5)]), stream=stream, width=40)
    text = stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "\\xfc.mp4\n" in text
    assert re.search(r"\.\.\.   50\.0%  ###\n", text)


def test_a_score_out_of_range_cannot_break_a_line() -> None:
    text = shown(result(predictions=[scored("a", 7.0), scored("b", -1.0), scored("c", float("nan"))]), width=80)
    assert max(map(len, text.splitlines())) <= 80
