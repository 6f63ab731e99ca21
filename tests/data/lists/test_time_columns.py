"""Columns of times: which are understood, and what is refused; the whole way from a table to the frames read."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
from preparation_plans import plan_of
from rendered_clips import frame_number

from dualformer_cli.data.lists.folders import read_folder
from dualformer_cli.data.lists.labelled_lists import read_lists
from dualformer_cli.data.lists.manifest import Manifest, Sample, read_manifest, write_manifest
from dualformer_cli.data.lists.time_columns import find_time_columns
from dualformer_cli.data.prepare.preparation import prepare
from dualformer_cli.data.prepare.work import unwatched
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import Part


@pytest.fixture
def listed(tmp_path: Path) -> Any:
    """The function listed(text, name="list.csv") -> the manifest that the text is."""

    def read(text: str, name: str = "list.csv") -> Manifest:
        (tmp_path / name).write_text(text)
        return read_manifest(str(tmp_path / name))

    return read


@pytest.mark.parametrize(
    ("names", "note"),
    [
        ("start_seconds,end_seconds", ""),
        ("start_sec,stop_sec", ""),
        ("start,end", "its columns 'start' and 'end' are read as seconds"),
        ("start_time,end_time", "its columns 'start_time' and 'end_time' are read as seconds"),
        ("clip_start,clip_end", "its columns 'clip_start' and 'clip_end' are read as seconds"),
        ("t_start,t_end", "its columns 't_start' and 't_end' are read as seconds"),
        ("starttime,endtime", "its columns 'starttime' and 'endtime' are read as seconds"),
        ("start seconds,end seconds", ""),
        ("Start Time (s),End Time [s]", ""),
    ],
)
def test_columns_of_times_make_parts(listed: Any, names: str, note: str) -> None:
    manifest = listed(f"path,label,{names}\na.mp4,0,1.0,2.5\na.mp4,1,0:02.5,\nb.mp4,0,,\n")
    assert [sample.part for sample in manifest.samples] == [
        Part(start_seconds=1.0, end_seconds=2.5),
        Part(start_seconds=2.5),
        Part(),
    ]
    notes = [warning.partition(": ")[2] for warning in manifest.warnings]
    assert notes == ([note] if note else [])


def test_milliseconds_are_thousandths(listed: Any) -> None:
    (sample,) = listed("path,label,start_ms,end_ms\na.mp4,0,1500,2250\n").samples
    assert sample.part == Part(start_seconds=1.5, end_seconds=2.25)


def test_a_start_alone_is_seconds_unless_frames_are_counted_beside_it(listed: Any) -> None:
    manifest = listed("path,label,start\na.mp4,0,1.0\n")
    assert manifest.samples[0].part == Part(start_seconds=1.0)
    assert manifest.warnings == (f"list {manifest.source!r}: its column 'start' is read as seconds",)
    assert listed("path,label,num_frames,start\na.mp4,0,300,7\n").samples[0].part == Part(7, 300)
    both = listed("path,label,num_frames,start,end\na.mp4,0,300,1.5,4\n").samples[0]
    assert both.part == Part(start_seconds=1.5, end_seconds=4.0)


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        ("path,label,start_frame,end_frame", "the column 'start_frame' means a time or a place in the video"),
        ("path,label,timestamp", "the column 'timestamp' means a time or a place in the video, and it is not clear"),
        ("path,label,from,to", "the column 'from' means a time"),
        ("path,label,start_stop", "the column 'start_stop' means a time"),
        ("path,label,start,start_time", "'start' and 'start_time' may each be the start of a part"),
        ("path,label,start,until", "the column 'until' means a time"),
        ("path,label,onset,offset", "the column 'offset' means a time"),
        ("path,label,in,out", "the column 'in' means a time"),
        ("path,label,time_from,time_to", "the column 'time_from' means a time"),
        ("path,label,begin_seconds,to_seconds", "the column 'to_seconds' means a time"),
        ("path,label,time_s", "the column 'time_s' means a time"),
        ("path,label,start_seconds,duration", "'duration' may be the length of the video or of the part"),
    ],
)
def test_columns_that_mean_time_and_are_not_understood_are_refused(listed: Any, header: str, complaint: str) -> None:
    with pytest.raises(DualFormerError, match=complaint):
        listed(f"{header}\n" + ",".join(["a.mp4", "0", *["1"] * (header.count(",") - 1)]) + "\n")


def test_other_columns_are_nobodys_concern() -> None:
    assert (
        find_time_columns(
            ["path", "label", "created_at", "start_date", "duration", "restart", "weekend", "clip", "action"], "x"
        )
        is None
    )
    assert find_time_columns(["youtube_id", "time_start", "time_end", "path"], "x") is None
    found = find_time_columns(["video_id", "start_timestamp", "stop_timestamp", "start_frame", "stop_frame"], "x")
    assert found is not None
    assert (found.start, found.end) == ("start_timestamp", "stop_timestamp")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a.mp4,0,3,2", r"line 2: 'a.mp4,0,3,2': its part ends at 2 seconds and starts at 3"),
        ("a.mp4,0,-1,2", r"start_seconds '-1' is not a time in seconds, or such as 1:23.5"),
        ("a.mp4,0,soon,2", r"start_seconds 'soon' is not a time"),
    ],
)
def test_parts_that_are_none_are_named_with_their_line(listed: Any, row: str, complaint: str) -> None:
    with pytest.raises(DualFormerError, match=complaint):
        listed(f"path,label,start_seconds,end_seconds\n{row}\n")


def test_json_has_times_and_the_names_of_tables(listed: Any) -> None:
    text = '[{"video": "a.mp4", "class": 1, "start": 0.5, "end": 2}, {"filename": "b.mp4", "label": [0]}]'
    assert [(s.path, s.labels, s.part) for s in listed(text, "list.json").samples] == [
        ("a.mp4", (1,), Part(start_seconds=0.5, end_seconds=2.0)),
        ("b.mp4", (0,), Part()),
    ]
    with pytest.raises(DualFormerError, match=r"entry 1.*its part ends at 1 seconds and starts at 2"):
        listed('[{"filename": "a.mp4", "label": 0, "start_seconds": 2, "end_seconds": 1}]', "list.json")
    with pytest.raises(
        DualFormerError, match=r"entry 1.*it has no label, and those in 'parts' are not read; give each"
    ):
        listed('[{"video": "a.mp4", "parts": [{"label": 0, "start": 1, "end": 2}]}]', "list.json")


def test_manifests_keep_times_and_have_a_fingerprint_of_them(tmp_path: Path) -> None:
    samples = [
        Sample("a.mp4", 0, (0,), start_seconds=1.5),
        Sample("a.mp4", 1, (1,), end_seconds=0.5),
        Sample("b.mp4", 0, (0,)),
    ]
    write_manifest(Manifest(samples=samples, root=str(tmp_path)), tmp_path / "list.csv")
    again = read_manifest(str(tmp_path / "list.csv"))
    assert again.samples == samples
    assert again.fingerprint != Manifest(samples=[Sample("a.mp4", 0, (0,)), *samples[1:]]).fingerprint


def test_prepare_writes_the_frames_of_parts_which_hold_what_was_labelled(
    clips: Any, tmp_path: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames 10 to 29 of a clip of 25 frames a second are what is shown from 0.4 to 1.2 s."""
    monkeypatch.setattr("dualformer_cli.data.prepare.preparation.WorkerPool", lambda *_, **__: here_pool())
    for name in ("one", "two"):
        (tmp_path / f"{name}.mp4").symlink_to(clips.path("h264.mp4"))
    (tmp_path / "labels.csv").write_text(
        "file,label,split,start,end\none.mp4,run,train,0.4,1.2\none.mp4,walk,train,1.2,\ntwo.mp4,run,val,,0.4\n"
    )
    for content in (read_folder(str(tmp_path)), read_lists([str(tmp_path / "labels.csv")])):
        assert sum(note.endswith("its columns 'start' and 'end' are read as seconds") for note in content.notes) == 1
        root = tmp_path / "prepared"
        plan = plan_of(content, root, overwrite=True)
        prepare(plan, watch=unwatched, say=lambda _line: None, start=lambda _found: None)
        rows = [
            (row["path"], row["label"], row["start"] or "0", row["num_frames"], row["duration_seconds"])
            for row in csv.DictReader((root / "train.csv").open())
        ]
        assert rows == [("../one.mp4", "0", "10", "20", "0.8"), ("../one.mp4", "1", "30", "10", "0.4")]
        val = read_manifest(str(root / "val.csv"))
        assert [sample.part for sample in val.samples] == [Part(0, 10)]
        sample = read_manifest(str(root / "train.csv")).samples[0]
        with open_video(str(root / sample.path)) as reader:
            first, count = sample.part.frames(reader)
            assert [frame_number(frame) for frame in reader.read([first, first + count - 1])] == [10, 29]


def test_a_part_behind_the_end_of_its_video_is_listed_as_broken(
    clips: Any, tmp_path: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.data.prepare.preparation.WorkerPool", lambda *_, **__: here_pool())
    (tmp_path / "one.mp4").symlink_to(clips.path("h264.mp4"))  # of 1.6 seconds
    (tmp_path / "labels.csv").write_text("file,label,split,start,end\none.mp4,run,train,1,2\none.mp4,run,train,2,3\n")
    plan = plan_of(read_folder(str(tmp_path)), tmp_path / "prepared")
    prepare(plan, watch=unwatched, say=lambda _line: None, start=lambda _found: None)
    samples = read_manifest(str(tmp_path / "prepared" / "train.csv")).samples
    assert [(sample.part, sample.status) for sample in samples] == [
        (Part(25, 15), "ok"),
        (Part(40, 0), "broken: the part is outside of the video"),
    ]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("a.mp4,x,train,0,1\na.mp4,y,train,0,1\n", "was listed before"),
        ("a.mp4,x,train,,\na.mp4,y,train,0,1\n", "was listed before"),
        ("a.mp4,x,train,0,1\na.mp4,y,val,1,2\n", "is in another split or group than one before"),
    ],
)
def test_parts_of_a_video_are_listed_once_and_stay_together(tmp_path: Path, rows: str, complaint: str) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "labels.csv").write_text(f"file,label,split,start_seconds,end_seconds\n{rows}")
    with pytest.raises(DualFormerError, match=complaint):
        read_folder(str(tmp_path))
