"""A folder of token labels: its header, shards, and what is damaged or of another run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualformer_cli.data.clips.crops import Box
from dualformer_cli.data.tokens.store import Header, LabelClip, LabelFolder, TokenCounts
from dualformer_cli.data.tokens.tiles import LabelJob, Layout
from dualformer_cli.documents.tokenlabel import TeacherFacts
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.video.parts import WHOLE

HEADER = Header(
    teacher=TeacherFacts(source="a.pt", weights_sha256="0", precision="fp32"),
    source="list.csv",
    list_fingerprint="f",
    num_videos=3,
    clip=LabelClip(num_frames=4, frame_interval=1, sampling="interval", crop_size=64, antialias=True, min_frames=1),
    grid=(2, 3, 3),
    top_k=2,
    class_names=("a", "b", "c"),
    videos_per_shard=2,
    versions={"torch": "1"},
)


def write_shard(folder: LabelFolder, shard: int, *, fails_at: int | None = None) -> None:
    info: Any = None
    layout = Layout(info=info, starts=(0, 8), part=(0, 16), tiles=(Box(0, 0, 64, 64),), size=(64, 64))

    def records(index: int) -> Any:
        for clip in range(2):
            if index == fails_at and clip == 1:
                raise VideoError("x", "breaks in the middle")
            yield np.full((1, *HEADER.grid), 10 * index + clip, HEADER.record)

    with folder.shard_writer(shard) as writer:
        for index in HEADER.videos_of(shard):
            writer.add(LabelJob(index, "x", WHOLE), f"{index}.mp4", layout, records(index), (0,))


def test_a_video_that_breaks_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = LabelFolder(tmp_path / "labels")
    folder.write_header(HEADER)
    write_shard(folder, 0, fails_at=0)
    videos, records = folder.read_shard(0, HEADER)
    assert [(video.path, video.reason, video.num_records) for video in videos] == [
        ("0.mp4", "breaks in the middle", 0),
        ("1.mp4", None, 2),
    ]
    assert records["values"].astype(int).reshape(2, -1)[:, 0].tolist() == [10, 11]
    assert folder.read_header() == HEADER


def test_what_is_left_half_written_goes_and_what_is_damaged_is_named(tmp_path: Path) -> None:
    folder = LabelFolder(tmp_path)
    (tmp_path / ".shard-00000.1234abcd.part.bin").write_bytes(b"x")
    folder.write_header(HEADER)
    write_shard(folder, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["header.json", "shard-00000.bin", "shard-00000.json"]
    assert [folder.has_shard(shard) for shard in range(HEADER.num_shards)] == [True, False]
    with pytest.raises(DualFormerError, match=r"shard-00001.json': no such file.*; run tokenlabel write again"):
        folder.read_shard(1, HEADER)
    (tmp_path / "shard-00000.bin").write_bytes(b"x" * 10)
    with pytest.raises(
        DualFormerError, match=r"shard-00000.bin' are damaged \(10 bytes, not 576\); delete shard-00000"
    ):
        folder.read_shard(0, HEADER)
    (tmp_path / "shard-00000.bin").unlink()
    with pytest.raises(DualFormerError, match=r"shard-00000.bin': no such file .*; delete shard-00000.json"):
        folder.read_shard(0, HEADER)
    (tmp_path / "shard-00000.json").write_text('{"videos": [1]}')
    with pytest.raises(DualFormerError, match=r"shard-00000.json' are damaged; delete the file and run"):
        folder.read_shard(0, HEADER)
    (tmp_path / "header.json").write_text("[]")
    with pytest.raises(DualFormerError, match="is not the header of token labels, or damaged; write them again"):
        folder.read_header()
    (tmp_path / "header.json").write_text('{"format": 99}')
    with pytest.raises(DualFormerError, match="are of another version; write them again"):
        folder.read_header()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"top_k": 3}, "top k is another: 2, now 3"),
        ({"class_names": ("a",)}, "class names are another"),
        ({"videos_per_shard": 9}, "videos per shard is another: 2, now 9"),
        ({"teacher": replace(HEADER.teacher, weights_sha256="1")}, "teacher is another: .*'0'.*, now .*'1'"),
    ],
)
def test_other_labels_are_told_apart(change: dict[str, Any], said: str) -> None:
    difference = HEADER.difference(replace(HEADER, **change))
    assert difference is not None
    assert re.match(said, difference)


def test_another_name_or_version_makes_no_other_labels() -> None:
    moved = replace(HEADER, source="x.csv", versions={}, teacher=replace(HEADER.teacher, source="b.pt"))
    assert HEADER.difference(moved) is None


def test_agreement_counts_every_label_of_a_video() -> None:
    counts = TokenCounts.of(np.array([[0, 1], [1, 3]], np.uint16), (0, 1))
    assert (counts.tokens, counts.agreeing, dict(counts.best)) == (4, 3, {0: 1, 1: 2, 3: 1})


def test_tokens_of_a_shard_are_counted_but_those_of_a_video_that_breaks(tmp_path: Path) -> None:
    """Two clips of 18 tokens a video: classes 0 and 1 of the first, 10 and 11 of the second; all are labelled 0."""
    folder = LabelFolder(tmp_path / "labels")
    folder.write_header(HEADER)
    write_shard(folder, 0)
    assert folder.read_index(0)[1] == TokenCounts({0: 18, 1: 18, 10: 18, 11: 18}, tokens=72, agreeing=18)
    write_shard(folder, 0, fails_at=0)
    assert folder.read_index(0)[1] == TokenCounts({10: 18, 11: 18}, tokens=36, agreeing=0)
    index = (tmp_path / "labels" / "shard-00000.json").read_text()
    assert index.startswith('{"sha256": "')
    assert '"statistics": {"agreeing": 0, "best": {"10": 18, "11": 18}, "tokens": 36}' in index


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DualFormerError, match=r"file/labels' cannot be made: not a directory; name another --output"):
        LabelFolder(tmp_path / "file" / "labels").write_header(HEADER)
