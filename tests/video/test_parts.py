"""Parts of videos: which frames are shown between two times, and names of parts."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rendered_clips import frame_number

from dualformer_cli.errors import VideoError
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import WHOLE, Part, frame_at, seconds_of, split_part
from dualformer_cli.video.refusals import missing


@pytest.mark.parametrize(
    ("part", "frames"),
    [
        (WHOLE, (0, 40)),
        (Part(30, 20), (30, 10)),
        (Part(50), (50, 0)),
        (Part(start_seconds=0.4, end_seconds=1.2), (10, 20)),
        (Part(start_seconds=1.2), (30, 10)),
        (Part(end_seconds=0.2), (0, 5)),
        (Part(start_seconds=1.0, end_seconds=99.0), (25, 15)),
        (Part(start_seconds=7.0, end_seconds=9.0), (40, 0)),
        (Part(start_seconds=0.41, end_seconds=0.79), (10, 10)),  # the nearest frames: at 0.4 and 0.8
    ],
)
def test_a_part_of_a_video_of_25_frames_a_second(clips: Any, part: Part, frames: tuple[int, int]) -> None:
    with open_video(str(clips.path("h264.mp4"))) as reader:
        assert part.frames(reader) == frames


def test_times_of_an_uneven_video_are_those_of_its_frames() -> None:
    """50 frames in two seconds, then one every half second: the mean rate would find others."""
    times = np.array([*np.arange(50) / 25, *(2 + np.arange(20) / 2)])
    found = [frame_at(seconds, times, 70 / 12, 70) for seconds in (1.0, 2.0, 4.0, 8.1, 11.6, 12.0, 0.0)]
    assert found == [25, 50, 54, 62, 70, 70, 0]


def test_a_video_that_varies_its_rate_is_cut_where_its_frames_are_shown(clips: Any) -> None:
    with open_video(str(clips.path("h264_vfr.mp4"))) as reader:
        assert reader.times_seconds is not None
        middle = float(reader.times_seconds[20])
        first, count = Part(start_seconds=middle).frames(reader)
        assert (first, count) == (20, reader.info.num_frames - 20)
        assert [frame_number(frame) for frame in reader.read([first])] == [20]


def test_frames_without_a_rate_have_no_times(clips: Any, tmp_path: Any) -> None:
    with open_video(str(clips.path("h264.mp4"))) as reader:
        reader.info = replace(reader.info, fps=None)
        with pytest.raises(VideoError, match=r"no frame rate, so the part #t=1,2 cannot be found.*data.frame_rate=25"):
            Part(start_seconds=1.0, end_seconds=2.0).frames(reader)


@pytest.mark.parametrize(
    ("name", "video", "part"),
    [
        ("a.mp4#t=3.5,7", "a.mp4", Part(start_seconds=3.5, end_seconds=7.0)),
        ("a b#c.mp4#t=3.5", "a b#c.mp4", Part(start_seconds=3.5)),
        ("a.mp4#t=,1:02.5", "a.mp4", Part(end_seconds=62.5)),
        ("a.mp4#t=npt:10,20", "a.mp4", Part(start_seconds=10.0, end_seconds=20.0)),
        ("a.mp4#t=7,3", "a.mp4#t=7,3", WHOLE),
        ("a.mp4#t=", "a.mp4#t=", WHOLE),
        ("a.mp4#t=x", "a.mp4#t=x", WHOLE),
        ("a.mp4", "a.mp4", WHOLE),
    ],
)
def test_a_name_may_be_that_of_a_part(name: str, video: str, part: Part) -> None:
    assert split_part(name) == (video, part)


def test_a_file_that_is_called_like_a_part_is_that_file(tmp_path: Any) -> None:
    path = tmp_path / "a.mp4#t=1,2"
    path.touch()
    assert split_part(str(path)) == (str(path), WHOLE)


def test_the_name_of_a_part_reads_back() -> None:
    for part in (Part(start_seconds=0.1, end_seconds=1e-7 + 1), Part(end_seconds=3600.0), Part(start_seconds=2.0)):
        _, read = split_part(f"a.mp4{part.fragment}")
        assert (read.start_seconds or 0.0, read.end_seconds) == (part.start_seconds or 0.0, part.end_seconds)
    assert Part(12, 5).fragment == WHOLE.fragment == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("83.5", 83.5), ("1:23.5", 83.5), ("1:00:01", 3601.0), (" .5 ", 0.5), ("1e1", 10), ("00:00:07.", 7), ("100", 100)],
)
def test_times_are_read_as_seconds_or_as_clocks_show_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "nan", "inf", "1:2:3:4", "1:23:", "soon"),
        *("1_0", "\u0661\u0662", "1:75", "90:00", "1:60:00", "1:2:03", "1:2", "1:-5", "1:2e1", "1 000", "1,5", "0x10"),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """As the W3C's normal play time has it: seconds, or a clock whose minutes and seconds are two digits below 60."""
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not a time in seconds, or such as 1:23.5 or 1:02:03")):
        seconds_of(text)


def test_a_name_that_ends_in_no_times_says_what_times_are(tmp_path: Any) -> None:
    video = tmp_path / "a.mp4"
    video.touch()
    for name in (f"{video}#t=1:75", f"{video}#t=7,3"):
        assert split_part(name) == (name, WHOLE)
        assert missing(name).endswith("such as #t=3.5,7 or #t=1:02.5")
    assert missing(f"{tmp_path}/none.mp4#t=1,2") == "no such file or folder"
