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

from dualformer_cli.documents.predict import LabelCounts, LiveClip, ModelFacts, PredictionRun, RunCounts
from dualformer_cli.outputs.predictions import print_clip, print_counts, print_predictions, print_run

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


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((4, 4, 0, 0), "4 videos: 4 classified"),
        (
            (4, 3, 1, 2),
            "4 videos: 3 classified, 1 failed (predictions.csv names them, --retry-failed tries again), "
            "2 were done before",
        ),
    ],
)
def test_a_run_says_how_many_failed_and_how_they_are_tried_again(counts: tuple[int, ...], said: str) -> None:
    listed, ok, failed, kept = counts
    videos = RunCounts(listed=listed, ok=ok, failed=failed, kept=kept, lost=0)
    facts = ModelFacts(preset="p", weights="w", weights_sha256=None, device="cpu", precision="fp32", views="4x1")
    stream = io.StringIO()
    print_run(
        PredictionRun(facts=facts, fallback=None, output="run", videos=videos, files=()), stream=stream, width=120
    )
    assert stream.getvalue() == f"{said}\n"


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
    assert "  00:00.0 - 00:12.0  tai chi        25.0%  █████\n" in text
    assert "  00:12.0 - 00:18.0  surfing water  50.0%  ██████████\n" in text


def test_a_timeline_that_reaches_an_hour_shows_hours_in_every_line() -> None:
    text = shown(result(segments=[segment(0, 3599.98), segment(3599.98, 3700)]))
    assert "  0:00:00.0 - 1:00:00.0  tai chi" in text
    assert "  1:00:00.0 - 1:01:40.0  tai chi" in text


def test_a_timeline_in_40_columns_gives_the_label_its_own_line() -> None:
    lines = shown(result(segments=[segment(0, 12, "passing American football (not in game)")]), width=40).splitlines()
    assert "  00:00.0 - 00:12.0   50.0%  ███" in lines
    assert "    passing American football (not in g…" in lines


def test_parts_that_say_too_little_are_one_part_called_unsure() -> None:
    parts = [
        segment(0, 4, "tai chi", 0.1, 1),
        segment(4, 6, "surfing", 0.16, 2),
        segment(6, 9, "surfing", 0.5, 2),
        segment(9, 10, "unsure", 0.9, 3),
        segment(10, 12, "tai chi", 0.1, 1),
    ]
    shown_lines = shown(result(segments=parts, unsure_below=0.19)).splitlines()
    assert [re.sub(" +[█▏▎▍▌▋▊▉ ]*$", "", line) for line in shown_lines[5:-1]] == [
        "  00:00.0 - 00:06.0  unsure   12.0%",
        "  00:06.0 - 00:09.0  surfing  50.0%",
        "  00:09.0 - 00:10.0  unsure   90.0%",
        "  00:10.0 - 00:12.0  unsure   10.0%",
    ]
    assert "unsure" not in shown(result(segments=parts[2:3], unsure_below=0.19))
    assert "unsure" not in shown(result(segments=parts[2:3], unsure_below=0.5))  # a score that reaches it is sure


def test_a_video_whose_best_label_says_too_little_says_so() -> None:
    text = shown(result(unsure_below=0.8))
    assert text.splitlines()[1] == "  250 frames, 25 fps, 10.0 s, 4 views, unsure: no label reaches 80.0%"
    assert "surfing water   75.0%" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_lines_of_a_live_input_stand_one_below_the_other(width: int) -> None:
    clips = [(0.0, 2.5, "tai chi", 0.05, None), (3599.9, 3602.25, HOSTILE, 1.0, None), (7, 9, "x", 0.1, 0.19)]
    stream = io.StringIO()
    for start, end, label, score, limit in clips:
        times = {"start_seconds": start, "end_seconds": end}
        clip = LiveClip(path="camera:0", **times, predictions=(scored(label, score),), unsure_below=limit)
        print_clip(clip, stream=stream, width=width)
    lines = stream.getvalue().splitlines()
    assert [line[:31] for line in lines] == [
        "    00:00.0 -   00:02.5    5.0%",
        "    59:59.9 - 1:00:02.2  100.0%",
        "    00:07.0 -   00:09.0   10.0%",
    ]
    assert max(map(cell_len, lines)) <= width
    assert lines[2].endswith("  unsure")
    labels = [
        lines[0].index("tai chi"),
        lines[1].index("[red]"[: width - lines[2].index("unsure")]),
        lines[2].index("unsure"),
    ]
    assert len(set(labels)) == 1


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((3, 1, 0), "3 of 4 videos right (75.0%)"),
        ((1, 0, 2), "1 of 1 video right (100.0%); 2 videos not compared: with an error, or a label that the model does "
         "not have"),
        ((0, 0, 1), "1 video not compared: with an error, or a label that the model does not have"),
    ],
)  # fmt: skip
def test_right_and_wrong_labels_are_counted(counts: tuple[int, int, int], expected: str) -> None:
    stream = io.StringIO()
    right, wrong, rest = counts
    print_counts(LabelCounts(right=right, wrong=wrong, not_compared=rest), stream=stream)
    assert stream.getvalue() == f"{expected}\n"
    stream = io.StringIO()
    print_counts(LabelCounts(right=right, wrong=wrong, not_compared=rest), stream=stream, width=40)
    assert max(map(len, stream.getvalue().splitlines())) <= 40
    assert stream.getvalue().split() == expected.split()


def test_a_label_of_a_list_stands_below_the_predictions() -> None:
    lines = shown(result(labels=["tai chi", "surfing"], is_right=False)).splitlines()
    assert lines[4] == "  wrong: the list says tai chi, surfing"
    assert shown(result(labels=["surfing water"], is_right=True)).splitlines()[4].startswith("  right: ")


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
