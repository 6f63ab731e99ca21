"""Small pictures of videos."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dualformer_cli.errors import VideoError
from dualformer_cli.video.thumbnails import SIDE, read_thumbnail, read_thumbnails


def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape(tmp_path: Path, clip_drawer: Callable[..., Path]) -> None:
    clip_drawer(tmp_path / "wide.mp4", num_frames=9, size=(480, 240))
    with Image.open(io.BytesIO(read_thumbnail(str(tmp_path / "wide.mp4")))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (SIDE, SIDE // 2))


@pytest.mark.parametrize(("part", "middle"), [("", 20), ("#t=0.8,1.6", 30), ("#t=0,0.4", 5), ("#t=1.52,9", 39)])
def test_a_thumbnail_shows_the_middle_of_what_is_named(clips: Any, part: str, middle: int) -> None:
    encoded = read_thumbnail(f"{clips.path('h264.mp4')}{part}")  # 40 frames, 25 a second
    assert clips.number_of(np.asarray(Image.open(io.BytesIO(encoded)))) == middle


def test_a_video_that_cannot_be_read_has_no_thumbnail(
    tmp_path: Path, clip_drawer: Callable[..., Path], here_pool: Any
) -> None:
    clip_drawer(tmp_path / "good.mp4", num_frames=9, size=(64, 48))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        read_thumbnail(str(tmp_path / "broken.mp4"))
    files = {name: str(tmp_path / name) for name in ("gone.mp4", "broken.mp4", "good.mp4")}
    with here_pool(1, 20.0) as pool:
        opened: list[str] = []
        assert list(read_thumbnails(files, pool, on_name=opened.append)) == ["good.mp4"]
    assert opened == ["broken.mp4", "good.mp4"]
