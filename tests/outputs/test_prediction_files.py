"""Predictions in tables and subtitles."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prediction_documents import failed, result, scored, segment
from screens import any_text

from dualformer_cli.data.lists.manifest import read_manifest
from dualformer_cli.documents.predict import VideoResult
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.prediction_files import (
    CSV_COLUMNS,
    csv_file,
    timecode,
    write_segments,
    write_srt,
    write_vtt,
)


def write_csv(results: Iterable[VideoResult], path: Path, *, with_labels: bool = False) -> None:
    with csv_file(path, with_labels=with_labels) as take:
        for each in results:
            take(each)


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_csv_has_a_row_per_prediction_per_segment_and_per_failure(tmp_path: Path) -> None:
    videos = [result(segments=[segment(0.0, 2.5)]), failed(error='moov, "atom"\nmissing')]
    write_csv(videos, tmp_path / "out.csv")
    rows = read_csv(tmp_path / "out.csv")
    assert list(rows[0]) == list(CSV_COLUMNS)
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
    write_csv([result(predictions=[scored(label, score)])], path)
    (row,) = read_csv(path)
    assert (row["label"], float(row["score"])) == (label, score)


def test_labels_of_a_list_have_columns_of_their_own(tmp_path: Path) -> None:
    videos = [
        result(predictions=[scored("a", 0.5)], labels=["a", "b"], is_right=True),
        result(predictions=[scored("a", 0.5)], labels=["c"], is_right=False),
        result(predictions=[scored("a", 0.5)], labels=["unknown"]),
        result(predictions=[scored("a", 0.5)]),
    ]
    write_csv(videos, tmp_path / "out.csv", with_labels=True)
    rows = read_csv(tmp_path / "out.csv")
    assert list(rows[0]) == [*CSV_COLUMNS, "listed_labels", "is_right"]
    assert [(row["listed_labels"], row["is_right"]) for row in rows] == [
        ("a; b", "true"),
        ("c", "false"),
        ("unknown", ""),
        ("", ""),
    ]


def test_csv_keeps_the_bytes_of_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    write_csv([failed(name, "class \ud800")], tmp_path / "out.csv")
    assert b"\r\ncaf\xe9.mp4,error,class \\ud800,,,,,,\r\n" in (tmp_path / "out.csv").read_bytes()


def test_a_failure_in_the_middle_leaves_the_old_csv_alone(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")

    def videos() -> Any:
        yield result()
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        write_csv(videos(), tmp_path / "out.csv")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.csv", "old")]


@given(st.integers(0, 10**9))
def test_a_timecode_says_its_milliseconds(milliseconds: int) -> None:
    match = re.fullmatch(r"(\d{2,}):([0-5]\d):([0-5]\d),(\d{3})", timecode(milliseconds))
    assert match is not None
    hours, minutes, seconds, rest = map(int, match.groups())
    assert ((hours * 60 + minutes) * 60 + seconds) * 1000 + rest == milliseconds


def test_subtitles_say_unsure_where_nothing_is_above_the_limit(tmp_path: Path) -> None:
    parts = [segment(0, 1, "tai chi", 0.1), segment(1, 2, "surfing", 0.12), segment(2, 3, "surfing", 0.5)]
    write_srt(result(segments=parts, unsure_below=0.2), tmp_path / "out.srt")
    assert (tmp_path / "out.srt").read_text().split("\n")[1:3] == ["00:00:00,000 --> 00:00:02,000", "unsure (11%)"]
    assert "surfing (50%)" in (tmp_path / "out.srt").read_text()
    write_srt(result(unsure_below=0.8), tmp_path / "whole.srt")
    assert "\nunsure (75%)\n" in (tmp_path / "whole.srt").read_text()


def test_subtitles_have_one_cue_per_segment_in_time_order(tmp_path: Path) -> None:
    path = tmp_path / "out.srt"
    write_srt(result(segments=[segment(12.3456, 3601.0, "surfing"), segment(0, 12.3456)]), path)
    assert path.read_bytes().decode() == (
        "1\n00:00:00,000 --> 00:00:12,346\ntai chi (50%)\n\n2\n00:00:12,346 --> 01:00:01,000\nsurfing (50%)\n"
    )


def test_subtitles_without_segments_show_the_best_label_all_along(tmp_path: Path) -> None:
    write_srt(result(), tmp_path / "out.srt")
    assert (tmp_path / "out.srt").read_text() == "1\n00:00:00,000 --> 00:00:10,000\nsurfing water (75%)\n"


@given(spans=st.lists(st.tuples(st.floats(0, 1e5), st.floats(0, 1e5), any_text), min_size=1, max_size=4))
@example(spans=[(1.0, 1.0, "a\n\n2\n00:00:01,000 --> 00:00:02,000\nb ---> c")])
def test_a_cue_is_three_lines_and_lasts_whatever_the_label(
    spans: list[tuple[float, float, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.srt"
    write_srt(result(segments=[segment(start, end, label) for start, end, label in spans]), path)
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
        write_srt(failed(), tmp_path / "out.srt")
    assert not list(tmp_path.iterdir())


def test_subtitles_need_a_duration_and_say_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"'clip\.mp4': its duration is unknown; set data\.frame_rate"):
        write_srt(result(duration_seconds=None, fps=None), tmp_path / "out.srt")


def test_webvtt_has_the_cues_of_subtitles_with_dots_and_escaped(tmp_path: Path) -> None:
    video = result(segments=[segment(0.0, 2.5, label="<b> & --> c"), segment(2.5, 3661.25)])
    write_vtt(video, tmp_path / "out.vtt")
    assert (tmp_path / "out.vtt").read_text() == (
        "WEBVTT\n\n"
        "00:00:00.000 --> 00:00:02.500\n&lt;b&gt; &amp; -- &gt; c (50%)\n\n"
        "00:00:02.500 --> 01:01:01.250\ntai chi (50%)\n"
    )


def test_a_part_has_its_times_for_a_cue(tmp_path: Path) -> None:
    write_srt(result("clip.mp4#t=1.5,3", duration_seconds=10.0, segments=None), tmp_path / "out.srt")
    assert "00:00:01,500 --> 00:00:03,000" in (tmp_path / "out.srt").read_text()


def test_segments_of_all_videos_are_a_list_again(tmp_path: Path) -> None:
    videos = [
        result("deep/a.mp4", segments=[segment(0.0, 2.5), segment(2.5, 4.0, label="surf, ing")]),
        failed(),
        result("b.mp4#t=1,2", duration_seconds=9.0, segments=None, unsure_below=0.9),  # a list has no class "unsure"
    ]
    write_segments(lambda: videos, tmp_path / "out.csv")
    manifest = read_manifest(str(tmp_path / "out.csv"))
    assert manifest.class_names == ["surf, ing", "surfing water", "tai chi"]
    assert [(sample.path, sample.labels, *sample.part[2:]) for sample in manifest.samples] == [
        ("deep/a.mp4", (2,), 0.0, 2.5),
        ("deep/a.mp4", (0,), 2.5, 4.0),
        ("b.mp4", (1,), 1.0, 2.0),
    ]


def test_segments_in_json_are_what_the_evaluation_of_activitynet_reads(tmp_path: Path) -> None:
    videos = [
        result("v_--0edUL8zmA.mp4", segments=[segment(0.0, 2.5)]),
        result("x/same.mp4", segments=[segment(0.0, 1.0)]),
        result("y/same.mp4", segments=[segment(1.0, 2.0)]),
    ]
    write_segments(lambda: videos, tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["version"] == "VERSION 1.3"
    assert document["results"] == {
        "--0edUL8zmA": [{"label": "tai chi", "score": 0.5, "segment": [0.0, 2.5]}],
        "x/same.mp4": [{"label": "tai chi", "score": 0.5, "segment": [0.0, 1.0]}],
        "y/same.mp4": [{"label": "tai chi", "score": 0.5, "segment": [1.0, 2.0]}],
    }
