"""Writing token labels: the same bytes whoever writes them, in the space that was estimated, from a checked teacher."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import warm

from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.data.tokens import tiles
from dualformer_cli.data.tokens.tiles import LabelJob
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.tokenlabel import LabelledVideos, TeacherTrial
from dualformer_cli.engine.training import label_writer as module
from dualformer_cli.engine.training.label_writer import Estimate, LabelWriter
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.parts import Part

Make = Callable[..., Any]


def shards_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("shard-*"))}


@pytest.fixture(scope="module")
def mixed_list(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> Path:
    """Videos of several lengths and shapes, one that is no video and one that is missing."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = ["path,label"]
    for number, (length, size) in enumerate([(40, (96, 64)), (9, (64, 64)), (20, (64, 160)), (90, (70, 64))]):
        clip_drawer(folder / f"video {number}.mp4", num_frames=length, size=size)
        rows.append(f"video {number}.mp4,{number}")
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    rows += ["broken.mp4,0", "missing.mp4,1"]
    (folder / "list.csv").write_text("".join(f"{row}\n" for row in rows))
    (folder / "classes.txt").write_text("dark\nred\ngreen\nblue\n")
    return folder / "list.csv"


def test_every_video_is_cut_into_clips_and_tiles_and_what_cannot_be_read_is_noted(
    write_labels: Make, mixed_list: Path, tmp_path: Path
) -> None:
    writer = write_labels(tmp_path / "labels", data=mixed_list)
    document = writer.summary()
    assert document.videos == LabelledVideos(listed=6, labelled=4, unreadable=2)
    clips = 5 * 2 + 2 * 1 + 3 * 3 + 12 * 2  # of 8 frames in tiles of 64 pixels, frames resized to a short side of 64
    assert (document.clips, document.tokens) == (clips, clips * 4 * 2 * 2)
    assert [Path(row.path).name for row in document.unreadable] == ["broken.mp4", "missing.mp4"]
    assert sum(entry.percent for entry in document.classes) == pytest.approx(100)
    assert min(entry.percent for entry in document.classes) >= 100 / (clips * 16)
    assert json.loads((tmp_path / "labels" / "summary.json").read_text()) == to_json(document)
    videos, records = writer.folder.read_shard(0, writer.header)
    assert [video.num_records for video in videos] == [10, 2, 9]
    assert (np.diff(records["values"].astype(np.float32), axis=-1) <= 0).all()
    agreeing = sum(
        (records["classes"][video.first_record :][: video.num_records][..., 0] == video.index).sum() for video in videos
    )
    statistics = json.loads((tmp_path / "labels" / "shard-00000.json").read_text())["statistics"]
    assert statistics["agreeing"] == agreeing
    indexes = [
        json.loads(path.read_text())["statistics"] for path in sorted((tmp_path / "labels").glob("shard-*.json"))
    ]
    total = sum(index["agreeing"] for index in indexes)
    assert document.agreement == pytest.approx(100 * total / (clips * 16))


def test_a_writer_that_is_killed_leaves_what_the_next_one_turns_into_the_same_bytes(
    write_labels: Make, toy_list: Path, toy_preset: Path, teacher_file: Path, tmp_path: Path
) -> None:
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    writer = write_labels(unbroken, data=toy_list, per_shard=1)
    writer.summary()
    command = [sys.executable, "-m", "dualformer_cli", "tokenlabel", "write", "--preset", str(toy_preset)]
    command += ["--data", str(toy_list), "--teacher", str(teacher_file), "--output", str(killed)]
    command += ["--videos-per-shard", "1"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    process = warm.WarmPython(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while len(list(killed.glob("shard-*.json"))) < 3 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was still at work"
    left = shards_of(killed)
    assert 6 <= len(left) < 64
    (killed / ".shard-00031.0123abcd.part.bin").write_bytes(b"half")  # what a kill inside a write leaves
    command += ["--cpu-processes", "2"]  # which draw what is left
    again = warm.run(command, env=environ, timeout=600)
    assert again.returncode == 0, again.stderr
    assert shards_of(killed) == shards_of(unbroken)
    assert not [path for path in killed.iterdir() if path.name.startswith(".")]
    for name in ("header.json", "summary.json"):
        assert (killed / name).read_bytes() == (unbroken / name).read_bytes()
    assert (killed / "sheet.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_space_for_ten_thousand_videos_is_estimated_within_a_tenth(
    label_writer: Make, write_labels: Make, mixed_list: Path, here_pool: Any, tmp_path: Path
) -> None:
    header, *rows = mixed_list.read_text().splitlines()
    part, whole = mixed_list.with_name("part.csv"), mixed_list.with_name("whole.csv")
    rng = np.random.default_rng(0)
    chosen = [rows[index] for index in rng.integers(len(rows), size=10_000)]
    part.write_text("\n".join([header, *chosen[:50]]) + "\n")
    whole.write_text("\n".join([header, *chosen]) + "\n")
    writer = write_labels(tmp_path / "part", data=part, per_shard=50)
    per_row = dict.fromkeys(rows, 0.0)
    videos, _ = writer.folder.read_shard(0, writer.header)
    for row, video in zip(chosen, videos, strict=False):
        per_row[row] = video.num_records * writer.header.bytes_per_tile + len(json.dumps(video.row())) + 2
    measured = sum(per_row[row] for row in chosen)
    assert sum(per_row[row] for row in chosen[:50]) == pytest.approx(writer.folder.size_bytes(), rel=0.03)
    estimate = label_writer(tmp_path / "whole", data=whole).estimate(here_pool())
    assert estimate.videos == module.VIDEOS_TO_MEASURE
    assert estimate.bytes == pytest.approx(measured, rel=0.1)
    assert abs(estimate.bytes - measured) < 4 * estimate.standard_error
    assert label_writer(tmp_path / "x", data=part).estimate(here_pool()).standard_error == 0


def test_a_disk_without_room_is_told_before_anything_is_written(
    label_writer: Make, one_clip_list: Path, here_pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = label_writer(tmp_path / "deep" / "labels", data=one_clip_list)
    estimate = writer.estimate(here_pool())
    writer.check_space(estimate)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=2**20))
    with pytest.raises(
        DualFormerError,
        match=r"no room for the labels: about 6\d\.\d MB are needed in '.*/deep/labels', and 1\.0 MB are free",
    ):
        writer.check_space(estimate)
    assert not (tmp_path / "deep").exists()


def test_a_teacher_is_tried_on_labelled_videos(
    label_writer: Make, one_clip_list: Path, here_pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer: LabelWriter = label_writer(tmp_path / "labels", data=one_clip_list)
    truth = iter(writer.listed.labels)

    def knows(clips: Any) -> Any:
        assert len(clips) == 1
        return np.eye(4)[[next(truth)[0]]], None

    monkeypatch.setattr(writer.teacher.engine.scorer, "score", knows)
    assert writer.verify(here_pool()) == TeacherTrial(videos=8, right=8, chance=pytest.approx(0.25**8))
    monkeypatch.setattr(writer.teacher.engine.scorer, "score", lambda clips: (np.eye(4)[[0]], None))
    found = writer.verify(here_pool())
    assert (found.videos, found.right) == (8, 2)
    assert found.chance == pytest.approx(1 - 0.75**8 - 8 * 0.25 * 0.75**7)
    assert found.chance > module.CHANCE
    writer.listed = replace(writer.listed, labels=[(0, 1)] * 8)  # a guess is right half of the time
    assert writer.verify(here_pool()) == TeacherTrial(videos=8, right=8, chance=pytest.approx(0.5**8))


def test_a_list_of_which_nothing_can_be_read_is_refused(
    label_writer: Make, mixed_list: Path, here_pool: Any, tmp_path: Path
) -> None:
    only = mixed_list.with_name("unreadable.csv")
    only.write_text("path,label\nbroken.mp4,0\nmissing.mp4,1\n")
    with pytest.raises(DualFormerError, match=r"none of 2 videos of .*unreadable.csv' can be read: .*missing.mp4"):
        label_writer(tmp_path / "labels", data=only).verify(here_pool())


def test_a_folder_of_something_else_is_left_alone(
    label_writer: Make, write_labels: Make, one_clip_list: Path, make_teacher: Make, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(DualFormerError, match=r"mine' holds something else than token labels; name another --output"):
        label_writer(tmp_path / "mine", data=one_clip_list)
    with pytest.raises(DualFormerError, match=r"letter.txt' is not a folder; name another --output"):
        label_writer(tmp_path / "mine" / "letter.txt", data=one_clip_list)
    write_labels(tmp_path / "labels", data=one_clip_list)
    with pytest.raises(DualFormerError, match=r"holds other token labels: their top k is another: 4, now 2; name"):
        label_writer(tmp_path / "labels", "train.token_top_k=2", data=one_clip_list)
    other = make_teacher(tmp_path / "other.pt", seed=9)
    with pytest.raises(DualFormerError, match=r"holds other token labels: their teacher is another: "):
        label_writer(tmp_path / "labels", data=one_clip_list, teacher=other)


def test_other_labels_are_refused_before_the_teacher_is_loaded_unless_they_are_another_teachers(
    label_writer: Make, write_labels: Make, one_clip_list: Path, tmp_path: Path
) -> None:
    write_labels(tmp_path / "labels", data=one_clip_list)
    teacher = tmp_path / "none.pt"
    with pytest.raises(DualFormerError, match=r"holds other token labels: their top k is another: 4, now 2; name"):
        label_writer(tmp_path / "labels", "train.token_top_k=2", data=one_clip_list, teacher=teacher)
    with pytest.raises(DualFormerError, match=r"none.pt' is neither a file nor a preset"):
        label_writer(tmp_path / "labels", data=one_clip_list, teacher=teacher)


def test_a_folder_that_cannot_be_made_is_told(write_labels: Make, one_clip_list: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DualFormerError, match=r"file/labels': '.*file' is not a folder; name another --output"):
        write_labels(tmp_path / "file" / "labels", data=one_clip_list)


def test_the_sheet_shows_what_training_would_take(
    write_labels: Make, mixed_list: Path, here_pool: Any, tmp_path: Path
) -> None:
    writer = write_labels(tmp_path / "labels", data=mixed_list)
    rows = writer.sheet(here_pool())
    assert [Path(row.path).name for row in rows] == [f"video {number}.mp4" for number in range(4)]
    assert rows[2].frame.shape == (160, 64, 3)
    video, records = writer.folder.read_shard(0, writer.header)[0][1], writer.folder.read_shard(0, writer.header)[1]
    stored = records["classes"][video.first_record + len(video.starts) // 2][..., 0]
    assert np.array_equal(rows[1].classes, stored[len(stored) // 2])


def test_a_video_that_went_since_is_not_on_the_sheet_and_is_named_once(
    write_labels: Make, mixed_list: Path, here_pool: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = write_labels(tmp_path / "labels", data=mixed_list)
    gone = writer.listed.samples[1].path
    files = [*writer.listed.files]
    files[1] = str(tmp_path / "gone.mp4")
    writer.listed = replace(writer.listed, files=files)
    assert gone not in {row.path for row in writer.sheet(here_pool())}
    assert f"not on the sheet: {gone!r}: no such file or folder" in caplog.messages


class Drawn:
    """Three shards are to be written: this rank draws the last, rank 1 has written the first, the second is lost."""

    def __init__(self, ranks: Any) -> None:
        self.is_main, self.lost_items = ranks.is_main, list[int]()

    def in_order(self, shards: list[int], write: Callable[..., Any]) -> Any:
        assert shards == [0, 1, 3], "those that are missing"
        if not self.is_main:
            list(write(iter([3])))
            return
        yield 1, 0
        self.lost_items.append(1)
        yield from write(iter([3]))


@pytest.mark.parametrize("is_main", [True, False])
def test_a_rank_writes_the_shards_that_it_draws_and_the_first_one_those_that_are_lost(
    monkeypatch: pytest.MonkeyPatch, is_main: bool
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(module, "barrier", lambda: happened.append("wait"))
    monkeypatch.setattr(module, "SharedWork", {int: Drawn})
    writer: Any = SimpleNamespace(
        ranks=SimpleNamespace(is_main=is_main, rank=0 if is_main else 2),
        folder=SimpleNamespace(
            write_header=lambda header: happened.append("header"), has_shard=lambda shard: shard == 2
        ),
        header=SimpleNamespace(num_shards=4, videos_of=lambda shard: [2 * shard, 2 * shard + 1]),
        listed=SimpleNamespace(samples=[SimpleNamespace(path=f"{index}.mp4") for index in range(8)]),
    )
    writer.missing_shards = lambda: LabelWriter.missing_shards(writer)

    def write_shard(shard: int, pool: Any, on_video: Callable[[str], None]) -> None:
        happened.append(f"shard {shard}")
        on_video(f"a video of shard {shard}")

    writer._write_shard = write_shard
    seen: list[str] = []
    LabelWriter.write(writer, None, seen.append)  # type: ignore[arg-type]
    if is_main:
        assert happened == ["header", "wait", "shard 3", "shard 1"]
        assert seen == ["0.mp4", "1.mp4", "a video of shard 3", "a video of shard 1"]
    else:
        assert (happened, seen) == (["wait", "shard 3"], [])


def test_videos_to_try_are_spread_over_the_list() -> None:
    assert module._spread(100, 4) == [12, 37, 62, 87]
    assert module._spread(3, 16) == [0, 1, 2]


def test_parts_of_files_are_labelled_and_tried_as_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = SimpleNamespace(samples=[Sample("a.mp4", labels=(0,), start=30, num_frames=20)], files=["/videos/a.mp4"])
    writer: Any = SimpleNamespace(listed=listed)
    job = LabelWriter._job(writer, 0)
    assert job == LabelJob(0, "/videos/a.mp4", Part(30, 20))
    monkeypatch.setattr(module, "read_views", lambda *given, **named: (given, named))
    data: Any = "settings"
    views: Any = "one view"
    assert module._read_views(data, views, job) == (
        ("/videos/a.mp4", data, views),
        {"part": Part(30, 20)},
    )


def test_a_token_has_its_best_logits_each_with_its_class() -> None:
    logits = torch.tensor([0.5, -1.0, 3.0, 2.0]).expand(1, 2, 1, 1, 4)
    writer: Any = SimpleNamespace(
        teacher=SimpleNamespace(token_logits=lambda clips: logits),
        header=SimpleNamespace(top_k=3, record=np.dtype([("values", "<f2", (3,)), ("classes", "<u2", (3,))])),
    )
    records = LabelWriter._records(writer, np.zeros((1, 8, 64, 64, 3), np.uint8), "a.mp4")
    assert records["values"].tolist() == [[[[[3.0, 2.0, 0.5]]], [[[3.0, 2.0, 0.5]]]]]
    assert records["classes"].tolist() == [[[[[2, 3, 0]]], [[[2, 3, 0]]]]]


def test_labels_are_the_same_however_many_clips_are_read_at_a_time(
    write_labels: Make, mixed_list: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labels(tmp_path / "eight", data=mixed_list)
    for each in (module, tiles):
        monkeypatch.setattr(each, "CLIPS_PER_READ", 4)  # the first video has 5
    write_labels(tmp_path / "four", data=mixed_list)
    assert shards_of(tmp_path / "eight") == shards_of(tmp_path / "four")


def test_what_is_written_needs_no_room_and_what_is_estimated_a_margin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1000 MiB, give or take 100, of which 300 are there: 900 are needed, and 64 to spare."""
    mib = 2**20
    writer: Any = SimpleNamespace(folder=SimpleNamespace(root=tmp_path / "labels", size_bytes=lambda: 300 * mib))
    estimate = Estimate(1000.0 * mib, 100.0 * mib, 10)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=965 * mib))
    LabelWriter.check_space(writer, estimate)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=963 * mib))
    with pytest.raises(DualFormerError, match=r"about 1\.0 GB are needed in '.*/labels', and 1\.0 GB are free"):
        LabelWriter.check_space(writer, estimate)
