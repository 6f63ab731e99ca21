"""What people and scripts read: tables, JSON, CSV, subtitles, progress."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs import report
from dualformer_cli.system.words import printable

any_text = st.text(st.characters(exclude_categories=()), max_size=60)
plain_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
HOSTILE = "[red]x[/red]\n\x1b[31m:smile:\r\x9b2J\u202eevil\udcff.mp4"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def ascii_stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", newline="")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def scored(label: str, score: float, index: int = 0) -> dict[str, Any]:
    return {"label": label, "index": index, "score": score}


def result(path: str = "clip.mp4", **changes: Any) -> dict[str, Any]:
    video: dict[str, Any] = {
        "path": path,
        "status": "ok",
        "num_frames": 250,
        "fps": 25.0,
        "duration_seconds": 10.0,
        "views": 4,
        "predictions": [scored("surfing water", 0.75, 3), scored("tai chi", 0.125, 7)],
    }
    return {**video, **changes}


def failed(path: str = "bad.mp4", error: str = "no video stream") -> dict[str, Any]:
    return {"path": path, "status": "error", "error": error}


def segment(start: float, end: float, label: str = "tai chi", score: float = 0.5) -> dict[str, Any]:
    return {"start_seconds": start, "end_seconds": end, **scored(label, score)}


def shown(video: dict[str, Any], **options: Any) -> str:
    stream = io.StringIO()
    report.print_predictions(video, stream=stream, **options)
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
    report.print_predictions(failed(), stream=stream, width=60)
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
    report.print_predictions(result(), stream=stream)
    assert "\x1b[36m" in stream.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    report.print_predictions(result(), stream=stream)
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
    report.print_predictions(result("ü.mp4", predictions=[scored("é" * 60, 0.5)]), stream=stream, width=40)
    text = stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "\\xfc.mp4\n" in text
    assert re.search(r"\.\.\.   50\.0%  ###\n", text)


def test_a_score_out_of_range_cannot_break_a_line() -> None:
    text = shown(result(predictions=[scored("a", 7.0), scored("b", -1.0), scored("c", float("nan"))]), width=80)
    assert max(map(len, text.splitlines())) <= 80


FLOPS: dict[str, Any] = {
    "model": "base",
    "num_classes": 600,
    "input": [3, 32, 224, 224],
    "views": 4,
    "multiply_adds_per_view": 1_072_345_678_901,
    "multiply_adds_per_video": 4_289_382_715_604,
    "parameters_backbone": 86_250_000,
    "parameters": 86_865_240,
}


def test_flops_show_what_is_per_view_and_what_per_video() -> None:
    stream = io.StringIO()
    report.print_flops(FLOPS, stream=stream)
    assert stream.getvalue().splitlines() == [
        "model          base, 600 classes",
        "input          3 x 32 x 224 x 224",
        "multiply-adds  1,072.346 G per view",
        "               4,289.383 G per video (4 views)",
        "parameters     86.87 M",
        "               86.25 M without the classifier",
    ]


def test_flops_by_module_keep_the_end_of_long_names_and_fit() -> None:
    modules = [
        {"module": "stages.2.blocks.17.attention.pyramid", "multiply_adds": 536_172_839_450, "parameters": 999_999},
        {"module": "classifier", "multiply_adds": 0, "parameters": 12},
    ]
    stream = io.StringIO()
    report.print_flops({**FLOPS, "by_module": modules}, stream=stream, width=40)
    table = stream.getvalue().splitlines()[7:]
    assert table[0].split() == ["module", "mult-adds", "share", "params"]
    assert re.fullmatch(r"….*pyramid +536\.2 G +50\.0% +1\.000 M", table[1])
    assert re.fullmatch(r"classifier +0 +0\.0% +12", table[2])
    assert max(map(len, table)) <= 40


def test_flops_show_the_latency_that_was_measured() -> None:
    stream = io.StringIO()
    latency = {"device": "cpu", "median_ms": 12.34567, "percentiles": {"p20_ms": 11.0}}
    report.print_flops({**FLOPS, "latency": latency}, stream=stream)
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()[7:]]
    assert lines == ["latency", "device cpu", "median ms 12.35", "percentiles, p20 ms 11"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.000 K"),
        (12_345, "12.35 K"),
        (999_960, "1.000 M"),
        (67_300_000_000, "67.30 G"),
        (99_996_000_000, "100.0 G"),
        (4_289_382_715_604, "4,289 G"),
    ],
)
def test_counts_keep_four_digits_and_stop_at_giga(count: int, expected: str) -> None:
    stream = io.StringIO()
    report.print_flops({**FLOPS, "parameters": count}, stream=stream)
    assert f"parameters     {expected}\n" in stream.getvalue()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
@example({"path": HOSTILE})
def test_json_comes_back_as_it_was_and_holds_no_control_characters(document: Any) -> None:
    stream = ascii_stream()
    report.print_json(document, stream=stream)
    text = stream.buffer.getvalue().decode("utf-8")  # type: ignore[attr-defined]
    assert printable(text.replace("\n", "")) == text.replace("\n", "")
    loaded = json.loads(text)
    assert json.dumps(loaded) == json.dumps(document)


def test_json_is_one_utf8_document_on_stdout(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    report.print_json({"label": "跑步", "scores": (1.0, 2)})
    assert capsysbinary.readouterr().out == '{\n  "label": "跑步",\n  "scores": [\n    1.0,\n    2\n  ]\n}\n'.encode()


def test_json_has_null_for_numbers_that_are_not_finite() -> None:
    stream = io.StringIO()
    report.print_json({"map": float("nan"), "list": [float("inf"), 0.5]}, stream=stream)
    assert json.loads(stream.getvalue()) == {"map": None, "list": [None, 0.5]}


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_csv_has_a_row_per_prediction_per_segment_and_per_failure(tmp_path: Path) -> None:
    videos = [result(segments=[segment(0.0, 2.5)]), failed(error='moov, "atom"\nmissing')]
    report.write_csv(videos, tmp_path / "out.csv")
    rows = read_csv(tmp_path / "out.csv")
    assert list(rows[0]) == list(report.CSV_COLUMNS)
    assert [list(row.values()) for row in rows] == [
        ["clip.mp4", "ok", "", "", "", "1", "surfing water", "3", "0.75"],
        ["clip.mp4", "ok", "", "", "", "2", "tai chi", "7", "0.125"],
        ["clip.mp4", "ok", "", "0.0", "2.5", "1", "tai chi", "0", "0.5"],
        ["bad.mp4", "error", 'moov, "atom"\nmissing', "", "", "", "", "", ""],
    ]


@given(label=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40), score=st.floats(0, 1))
@example(label='a,"b"\r\n;', score=0.1)
@example(label="=1+1", score=1e-17)
def test_csv_values_come_back_exactly(label: str, score: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "exact.csv"
    report.write_csv([result(predictions=[scored(label, score)])], path)
    (row,) = read_csv(path)
    assert (row["label"], float(row["score"])) == (label, score)


def test_csv_keeps_the_bytes_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    report.write_csv([failed(name, "class \ud800")], tmp_path / "out.csv")
    assert b"\r\ncaf\xe9.mp4,error,class \\ud800,,,,,,\r\n" in (tmp_path / "out.csv").read_bytes()


def test_a_failure_in_the_middle_leaves_the_old_csv_alone(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")

    def videos() -> Any:
        yield result()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        report.write_csv(videos(), tmp_path / "out.csv")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "old")]


@given(st.integers(0, 10**9))
def test_a_timecode_says_its_milliseconds(milliseconds: int) -> None:
    match = re.fullmatch(r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3})", report.timecode(milliseconds))
    assert match is not None
    hours, minutes, seconds, rest = map(int, match.groups())
    assert ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest == milliseconds


def test_subtitles_have_one_cue_per_segment_in_time_order(tmp_path: Path) -> None:
    path = tmp_path / "out.srt"
    report.write_srt(result(segments=[segment(12.3456, 3601.0, "surfing"), segment(0, 12.3456)]), path)
    assert path.read_bytes().decode() == (
        "1\n00:00:00,000 --> 00:00:12,346\ntai chi (50%)\n\n2\n00:00:12,346 --> 01:00:01,000\nsurfing (50%)\n"
    )


def test_subtitles_without_segments_show_the_best_label_all_along(tmp_path: Path) -> None:
    report.write_srt(result(), tmp_path / "out.srt")
    assert (tmp_path / "out.srt").read_text() == "1\n00:00:00,000 --> 00:00:10,000\nsurfing water (75%)\n"


@given(spans=st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5), any_text), min_size=1, max_size=4))
@example(spans=[(1.0, 1.0, "a\n\n2\n00:00:01,000 --> 00:00:02,000\nb ---> c")])
def test_a_cue_is_three_lines_and_lasts_whatever_the_label(
    spans: list[tuple[float, float, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.srt"
    report.write_srt(result(segments=[segment(start, end, label) for start, end, label in spans]), path)
    cues = path.read_bytes().decode().rstrip("\n").split("\n\n")
    assert len(cues) == len(spans)
    for number, cue in enumerate(cues, start=1):
        head, times, text = cue.split("\n")
        start, end = times.split(" --> ")
        assert head == str(number)
        assert end > start or len(end) > len(start)
        assert text.strip()
        assert "-->" not in text


def test_subtitles_of_a_failed_video_are_refused_with_its_error(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"no subtitles for 'bad\.mp4': no video stream"):
        report.write_srt(failed(), tmp_path / "out.srt")
    assert not list(tmp_path.iterdir())


def test_subtitles_need_a_duration_and_say_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"'clip\.mp4': its duration is unknown; set data\.frame_rate"):
        report.write_srt(result(duration_seconds=None, fps=None), tmp_path / "out.srt")


def test_log_is_one_escaped_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    report.log("a\nb\x1b[2J")
    assert capsys.readouterr() == ("", "a\\nb\\x1b[2J\n")


def test_progress_without_a_terminal_is_plain_lines_and_a_total() -> None:
    stream = io.StringIO()
    with report.Progress("predict", total=2, stream=stream, interval_seconds=0) as progress:
        progress.advance(note="a\n[red].mp4")
        progress.advance()
    first, second, last = stream.getvalue().splitlines()
    assert re.fullmatch(r"predict: 1/2, \d\d:\d\d\.\d left, a\\n\[red\]\.mp4", first)
    assert second == r"predict: 2/2, a\n[red].mp4"
    assert re.fullmatch(r"predict: 2/2 done in \d\d:\d\d\.\d", last)


def test_progress_that_was_quick_prints_nothing_to_a_pipe() -> None:
    stream = io.StringIO()
    with report.Progress("predict", stream=stream) as progress:
        progress.advance(3)
    assert stream.getvalue() == ""
    assert progress.done == 3


def test_progress_of_unknown_length_counts() -> None:
    stream = io.StringIO()
    with report.Progress("scan", stream=stream, interval_seconds=0) as progress:
        progress.advance(3)
    assert stream.getvalue().splitlines()[0] == "scan: 3"


def test_silent_progress_shows_nothing_even_on_a_terminal() -> None:
    stream = Terminal()
    with report.Progress("predict", total=1, stream=stream, silent=True, interval_seconds=0) as progress:
        progress.advance()
    assert stream.getvalue() == ""


def test_a_bar_makes_way_for_results_and_they_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    stream = Terminal()
    with report.Progress("predict", total=2, stream=stream) as progress:
        progress.advance(note="[red]a\x1b[2J")
        progress.print("result [red]\n")
        with progress.paused():
            drawn = stream.getvalue()
            report.print_json({"a": 1})
    shown_bar = stream.getvalue()
    assert "1/2" in shown_bar
    assert r"[red]a\x1b[2J" in shown_bar
    assert "\x1b[2J" not in shown_bar
    assert drawn.endswith("\x1b[1A\x1b[2K")  # the bar's line is erased while the body prints
    assert shown_bar.endswith("\x1b[1A\x1b[2K")
    assert "result" not in shown_bar
    assert capsys.readouterr().out == 'result [red]\\n\n{\n  "a": 1\n}\n'


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with report.Progress("predict", total=1, stream=stream, interval_seconds=0) as progress:
        progress.advance()
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().startswith("predict: 1/1\n")


def test_a_failure_inside_leaves_no_total_and_no_bar() -> None:
    stream = Terminal()

    def fail_after_one_step() -> None:
        with report.Progress("predict", total=2, stream=stream) as progress:
            progress.advance()
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail_after_one_step()
    assert stream.getvalue().endswith("\x1b[1A\x1b[2K")
    assert not isinstance(sys.stderr, Terminal)
