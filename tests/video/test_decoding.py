"""Every promise of the readers, on clips rendered here whose frames carry their number."""

from __future__ import annotations

import os
import pickle
import random
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.errors import VideoError
from dualformer_cli.video import decord_reader, pyav_file, pyav_reader, scan
from dualformer_cli.video import reader as reader_module
from dualformer_cli.video.decord_reader import DecordReader
from dualformer_cli.video.image_frames import FrameFolderReader
from dualformer_cli.video.open import open_video
from dualformer_cli.video.pyav_reader import PyAVReader
from dualformer_cli.video.reader import VideoReader
from dualformer_cli.video.torchcodec_reader import load_torchcodec

has_decord = decord_reader.load_decord() is not None
needs_decord = pytest.mark.skipif(not has_decord, reason="decord is not installed")
DECODERS = ["pyav", pytest.param("decord", marks=needs_decord)]
needs_torchcodec = pytest.mark.skipif(
    load_torchcodec() is None, reason="torchcodec, or FFmpeg for it, is not installed"
)
ALL_DECODERS = [*DECODERS, pytest.param("torchcodec", marks=needs_torchcodec)]

SOUGHT = [
    "h264.mp4",
    "h264.mkv",
    "h264_front.mp4",
    "h264_open_groups.mp4",
    "h264_10bit.mp4",
    "h264_444.mp4",
    "h264_odd_size.mp4",
    "h264_interlaced.mp4",
    "h264_vfr.mp4",
    "h264_vfr.mkv",
    "mpeg4.mp4",
    "mpeg2.mkv",
    "vp9.webm",
    "vp8.webm",
    "hevc.mp4",
    "hevc_open_groups.mkv",
    "av1.mp4",
    "mjpeg.mp4",
    "mjpeg.avi",
    "rotated_90.mp4",
    "rotated_180.mp4",
    "rotated_270.mp4",
    "edit_list.mp4",
]
FROM_THE_START = ["h264.avi", "h264.ts", "h264.h264", "mpeg4.avi", "mpeg2.mpg"]
REPAIRED = ["h264_intra_refresh.mp4", "h264_one_frame.mp4"]


def assert_same(frame: Any, expected: Any) -> None:
    """decord converts 10-bit and interlaced pixels a little differently; a wrong frame differs by 40 and more."""
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 1


def numbers_in(reader: VideoReader, clips: Any, indices: list[int]) -> list[int]:
    turns = -reader.info.rotation // 90
    return [clips.number_of(np.rot90(frame, turns)) for frame in reader.read(indices)]


# Which frames


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", SOUGHT + FROM_THE_START + REPAIRED)
def test_a_frame_number_gives_the_frame_of_a_sequential_decode(clips: Any, name: str, decoder: Any) -> None:
    expected = clips.frames(name)
    first = 17 if name == "edit_list.mp4" else 0
    rng = random.Random(name)
    with open_video(clips.path(name), decoder=decoder) as reader:
        assert reader.info.num_frames == len(expected)
        for count in (1, 3, 12):
            indices = [rng.randrange(len(expected)) for _ in range(count)]
            assert numbers_in(reader, clips, indices) == [first + index for index in indices]
            for index, frame in zip(indices, reader.read(indices), strict=True):
                assert_same(frame, expected[index])
        for frame, wanted in zip(reader.frames(), expected, strict=True):
            assert_same(frame, wanted)


@pytest.mark.parametrize("name", [*SOUGHT, *FROM_THE_START])
def test_pyav_gives_every_clip_bit_for_bit(clips: Any, name: str) -> None:
    expected = clips.frames(name)
    with open_video(clips.path(name), decoder="pyav") as reader:
        for start in (0, 5, len(expected) - 9):
            clip = list(range(start, min(start + 16, len(expected)), 2))
            assert (reader.read(clip) == np.stack([expected[index] for index in clip])).all()


@pytest.mark.parametrize("name", ["h264.mp4", "h264_vfr.mkv", "vp9.webm", "mpeg4.avi", "edit_list.mp4"])
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_list_of_numbers_gives_its_frames_in_the_order_asked(clips: Any, name: str, data: st.DataObject) -> None:
    expected = clips.frames(name)
    indices = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=12))
    with open_video(clips.path(name)) as reader:
        assert (reader.read(indices) == np.stack([expected[index] for index in indices])).all()


@pytest.mark.parametrize("name", SOUGHT)
def test_frames_in_trusted_containers_are_found_by_seeking(
    clips: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_video(clips.path(name), decoder="pyav") as reader:
        monkeypatch.setattr(PyAVReader, "_decode_from_start", lambda *_: pytest.fail("decoded from the start"))
        assert reader.info.is_seekable
        for indices in ([0], [reader.info.num_frames - 1], [3, 14, 13, 22]):
            reader.read(indices)


@pytest.mark.parametrize("name", SOUGHT + FROM_THE_START + REPAIRED)
def test_a_known_index_gives_the_same_reader_and_frames(clips: Any, name: str) -> None:
    expected, path = clips.frames(name), clips.path(name)
    with open_video(path, decoder="pyav") as reader:
        info, times, index = reader.info, reader.times_seconds, pickle.loads(pickle.dumps(reader.index))
    assert index is not None
    for indices in ([len(expected) - 1, 3 % len(expected)], [0], list(range(len(expected) // 2, len(expected)))):
        with open_video(path, decoder="pyav", index=index) as reader:
            assert reader.info == info
            assert reader.index is index
            np.testing.assert_array_equal(reader.times_seconds, times)
            for _ in range(2):
                assert (reader.read(indices) == np.stack([expected[number] for number in indices])).all()


def test_a_known_index_saves_reading_the_file(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_video(clips.path("h264.mp4"), decoder="pyav") as reader:
        index = reader.index
    monkeypatch.setattr(pyav_reader, "scan_file", lambda _: pytest.fail("read the whole file"))
    with open_video(clips.path("h264.mp4"), decoder="pyav", index=index) as reader:
        reader.read([5, 20])


@pytest.mark.parametrize("name", ["h264.mp4", "h264_444.mp4", "h264_10bit.mp4", "h264_open_groups.mp4", "hevc.mp4"])
def test_a_known_mp4_is_opened_by_its_header_alone_and_still_found_by_seeking(
    clips: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, path = clips.frames(name), clips.path(name)
    with open_video(path, decoder="pyav") as reader:
        index = reader.index
    monkeypatch.setattr(PyAVReader, "_decode_from_start", lambda *_: pytest.fail("decoded from the start"))
    for indices in ([30, 3, 17], [0], [39, 38]):
        with open_video(path, decoder="pyav", index=index) as reader:
            if reader.info.codec == "h264":  # whose header does not say it: FFmpeg has not looked into the packets
                assert reader.file.stream.codec_context.pix_fmt is None
            assert (reader.read(indices) == np.stack([expected[number] for number in indices])).all()


def write_two_streams(clips: Any, path: Path, codec: str, default: int | None = None) -> None:
    """Write a small and a larger stream of one file; `default` is the one that is flagged so."""
    with av.open(str(path), "w") as container:
        for number, (width, height) in enumerate(((64, 48), (128, 96))):
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            if default is not None:
                stream.disposition = av.stream.Disposition.default.value if number == default else 0
        for stream in container.streams.video:
            for number in range(9):
                picture = clips.draw(number + 100, stream.width, stream.height)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


@pytest.mark.parametrize(("default", "size"), [(0, (64, 48)), (1, (128, 96))])
def test_the_default_stream_is_the_video_in_a_known_file_too(
    clips: Any, tmp_path: Path, default: int, size: tuple[int, int]
) -> None:
    path = tmp_path / "two.mp4"
    write_two_streams(clips, path, "libx264", default)
    with open_video(path, decoder="pyav") as reader:
        info, frames = reader.info, reader.read([7, 2])
        assert (info.width, info.height) == size
        assert [clips.number_of(frame) for frame in frames] == [107, 102]
    with open_video(path, decoder="pyav", index=reader.index) as again:
        assert again.info == info
        assert (again.read([7, 2]) == frames).all()


@pytest.mark.parametrize("keeps_time", [False, True])
def test_the_index_of_a_file_that_was_replaced_is_ignored(clips: Any, tmp_path: Path, keeps_time: bool) -> None:
    path = tmp_path / "video.mp4"
    contents = [clips.path(name).read_bytes() for name in ("h264.mp4", "h264_odd_size.mp4")]
    first, other = (content.ljust(max(map(len, contents)), b"\0") for content in contents)  # sizes tell nothing
    path.write_bytes(first)
    with open_video(path, decoder="pyav") as reader:
        index = reader.index
    before = path.stat()
    path.write_bytes(other)
    if keeps_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with open_video(path, decoder="pyav", index=index) as reader:
        assert reader.index != index
        assert (reader.read([4])[0] == clips.frames("h264_odd_size.mp4")[4]).all()


def test_decoding_ends_with_the_packet_of_the_last_wanted_frame(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_video(clips.path("h264.mp4"), decoder="pyav") as reader:
        decoded: list[int] = []
        decode = pyav_file.PyAVFile.decode

        def count(file: Any, packet: Any) -> Any:
            if packet is not None:
                decoded.append(packet.pts)
            return decode(file, packet)

        monkeypatch.setattr(pyav_file.PyAVFile, "decode", count)
        (frame,) = reader.read([2])
        assert decoded[-1] == reader.frame_index.pts[2]
        assert (frame == clips.frames("h264.mp4")[2]).all()


@pytest.mark.parametrize("name", FROM_THE_START)
def test_other_containers_are_decoded_from_the_start(clips: Any, name: str) -> None:
    with open_video(clips.path(name), decoder="pyav") as reader:
        assert not reader.info.is_seekable


@pytest.mark.parametrize("landing", [0, 30, None])
def test_a_seek_that_lands_elsewhere_is_noticed(
    clips: Any, landing: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = clips.frames("h264.mp4")

    def seek(self: Any, pts: int) -> bool:
        if landing is not None:
            self.container.seek(landing * 512, stream=self.stream)
        return landing is not None

    with open_video(clips.path("h264.mp4"), decoder="pyav") as reader:
        monkeypatch.setattr(pyav_file.PyAVFile, "seek", seek)
        assert (reader.read([20, 2]) == np.stack([expected[20], expected[2]])).all()


@pytest.mark.parametrize("decoder", ALL_DECODERS)
def test_reads_and_full_passes_do_not_disturb_each_other(clips: Any, decoder: Any) -> None:
    expected = clips.frames("h264.mp4")
    with open_video(clips.path("h264.mp4"), decoder=decoder) as reader:
        for index, frame in enumerate(reader.frames()):
            assert_same(frame, expected[index])
            assert_same(reader.read([39 - index])[0], expected[39 - index])


def test_where_no_stream_is_the_default_the_largest_is_the_video(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "two.ts"
    write_two_streams(clips, path, "mpeg2video")
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == (128, 96)


def test_frames_that_change_size_half_way_keep_the_first_size(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "joined.h264"
    path.write_bytes(clips.path("h264.h264").read_bytes() + clips.path("h264_small.h264").read_bytes())
    with open_video(path, decoder="pyav") as reader:
        assert reader.info.num_frames == 45
        assert numbers_in(reader, clips, [39, 40, 44]) == [39, 0, 4]
        assert reader.read([40]).shape == (1, 96, 128, 3)


# What is known of a video


@pytest.mark.parametrize("decoder", ALL_DECODERS)
def test_a_plain_video_is_described(clips: Any, decoder: Any) -> None:
    path = clips.path("h264.mp4")
    with open_video(path, decoder=decoder) as reader:
        info = reader.info
        assert (info.path, info.num_frames, info.width, info.height) == (str(path), 40, 128, 96)
        assert (info.codec, info.decoder, info.rotation, info.warnings) == ("h264", decoder, 0, ())
        assert info.fps == pytest.approx(25)
        assert info.duration_seconds == pytest.approx(1.6)
        assert reader.times_seconds == pytest.approx(np.arange(40) / 25)
        assert reader.warnings == []


@pytest.mark.parametrize("name", ["h264.avi", "h264.ts", "h264.h264", "mpeg2.mpg"])
def test_containers_without_an_index_have_rate_and_times_too(clips: Any, name: str) -> None:
    with open_video(clips.path(name), decoder="pyav") as reader:
        assert reader.info.fps == pytest.approx(25)
        assert reader.info.duration_seconds == pytest.approx(1.6)
        assert reader.times_seconds == pytest.approx(np.arange(40) / 25)


@pytest.mark.parametrize("name", ["h264_vfr.mp4", "h264_vfr.mkv"])
def test_times_of_variable_frame_rate_are_those_of_the_file(clips: Any, name: str) -> None:
    ticks = np.cumsum([0] + [1 + i * i % 5 for i in range(39)])
    with open_video(clips.path(name)) as reader:
        assert reader.times_seconds == pytest.approx(ticks / 90, abs=1e-3)  # Matroska counts milliseconds
        assert reader.info.duration_seconds is not None
        assert reader.info.fps == pytest.approx(40 / reader.info.duration_seconds)


@pytest.mark.parametrize("decoder", ALL_DECODERS)
@pytest.mark.parametrize(("angle", "rotation"), [(90, 270), (180, 180), (270, 90)])
def test_rotated_videos_come_upright(clips: Any, angle: int, rotation: int, decoder: Any) -> None:
    upright = clips.frames(f"rotated_{angle}.mp4")[7]
    with open_video(clips.path(f"rotated_{angle}.mp4"), decoder=decoder) as reader:
        assert reader.info.rotation == rotation
        assert (reader.info.height, reader.info.width) == upright.shape[:2]
        assert upright.shape[:2] == ((96, 128) if angle == 180 else (128, 96))
        assert (reader.read([7])[0] == upright).all()


def test_frames_hidden_by_an_edit_list_do_not_count(clips: Any) -> None:
    with open_video(clips.path("edit_list.mp4"), decoder="pyav") as reader:
        assert reader.info.num_frames == 23
        assert reader.times_seconds == pytest.approx(np.arange(23) / 25)
        assert reader.info.fps == pytest.approx(25)
        assert numbers_in(reader, clips, [0, 22]) == [17, 39]


def test_one_frame_is_a_video(clips: Any) -> None:
    with open_video(clips.path("h264_one_frame.mp4")) as reader:
        assert reader.info.num_frames == 1
        assert reader.times_seconds == pytest.approx([0])
        assert reader.read([0, 0]).shape == (2, 96, 128, 3)


def test_container_tags_are_neither_shown_nor_an_obstacle(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "tagged.mp4"
    with av.open(str(clips.path("h264.mp4"))) as source, av.open(str(path), "w") as target:
        target.metadata["title"] = "secret place"
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.stream = copy
                target.mux(packet)
    path.write_bytes(path.read_bytes().replace(b"secret place", b"secret \xff\xfe\xfd\xfc\xfb"))
    with open_video(path) as reader:
        assert reader.info.num_frames == 40
        assert "secret" not in repr(reader.info)


# Reading


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_transform_sees_each_wanted_frame_once(clips: Any, decoder: Any) -> None:
    seen = []

    def shrink(frame: Any) -> Any:
        seen.append(clips.number_of(frame))
        return frame[::4, ::4].astype(np.float32)

    with open_video(clips.path("h264.mp4"), decoder=decoder) as reader:
        result = reader.read([9, 30, 9, 2], shrink)
    assert seen == [2, 9, 30]
    assert result.shape == (4, 24, 32, 3)
    assert result.dtype == np.float32
    assert (result[0] == result[2]).all()


def test_a_transform_of_changing_shape_is_a_mistake(clips: Any) -> None:
    with (
        open_video(clips.path("h264.mp4")) as reader,
        pytest.raises(ValueError, match=r"shape \(95, 128, 3\) of frame 1, \(96, 128, 3\) of others"),
    ):
        reader.read([0, 1], lambda frame: frame[clips.number_of(frame) :])


@pytest.mark.parametrize("indices", [[40], [3, -1], [10**20]])
def test_frames_that_do_not_exist_are_a_mistake(clips: Any, indices: list[int]) -> None:
    with open_video(clips.path("h264.mp4")) as reader:
        bad = next(index for index in indices if not 0 <= index < 40)
        with pytest.raises(ValueError, match=f"frame {bad} is not one of the 40 frames"):
            reader.read(indices)
        with pytest.raises(ValueError, match="no frame numbers"):
            reader.read([])


def test_results_too_large_are_refused_before_they_are_made(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_RESULT_BYTES", 100_000)
    with open_video(clips.path("h264.mp4")) as reader:
        reader.read([0, 1])
        with pytest.raises(VideoError, match=r"3 frames of shape \(96, 128, 3\) are 110,592 bytes, .* 100,000"):
            reader.read([0, 1, 1])


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi"])
def test_more_frames_than_allowed_are_refused(clips: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_FRAMES", 39)
    with pytest.raises(VideoError, match="more than 39 frames"):
        open_video(clips.path(name))


def test_frames_larger_than_allowed_are_refused(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "MAX_PIXELS", 12_287)
    with pytest.raises(VideoError, match="frames of 128x96 pixels are more than the 12,287 allowed"):
        open_video(clips.path("h264.mp4"))


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi"])
def test_progress_is_reported_for_every_frame(
    clips: Any, name: str, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = []
    for module in (pyav_file, decord_reader):
        monkeypatch.setattr(module, "heartbeat", lambda: beats.append(1))
    with open_video(clips.path(name), decoder=decoder) as reader:
        assert len(beats) >= 40
        beats.clear()
        assert len(list(reader.frames())) == 40
        assert len(beats) >= 40


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to count open files")
def test_closed_readers_leave_no_file_open(clips: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clips.path("h264.mp4").read_bytes()[:3000])
    before = len(os.listdir("/proc/self/fd"))
    for name in ("h264.mp4", "mpeg4.avi"):
        with open_video(clips.path(name)) as reader:
            reader.read([3])
            next(reader.frames())
    with pytest.raises(VideoError):
        open_video(broken)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "name",
    [
        "two\nlines.mp4",
        "\N{CLAPPER BOARD} caf\N{LATIN SMALL LETTER E WITH ACUTE}.mp4",
        "http:host.mp4",
        "concat:a|b.mp4",
        "%03d.mp4",
        "-i.mp4",
        os.fsdecode(b"latin1-\xe9.mp4"),
        "no suffix",
        "picture.jpg",
    ],
)
@pytest.mark.parametrize("decoder", ALL_DECODERS)
def test_any_file_name_will_do(
    clips: Any, name: str, decoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(clips.path("h264.mp4"), tmp_path / name)
    monkeypatch.chdir(tmp_path)  # relative, so that a name may look like an address or an option
    with open_video(name, decoder=decoder) as reader:
        assert reader.info.path == name
        assert numbers_in(reader, clips, [33]) == [33]


# decord


@needs_decord
@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264_vfr.mp4", "vp9.webm", "vp8.webm", "hevc.mp4"])
def test_decord_seeks_where_it_counts_right(clips: Any, name: str) -> None:
    with open_video(clips.path(name), decoder="decord") as reader:
        assert (reader.info.decoder, reader.info.is_seekable, reader.warnings) == ("decord", True, [])


@needs_decord
@pytest.mark.parametrize(
    "name",
    ["h264_open_groups.mp4", "h264_intra_refresh.mp4", "hevc_open_groups.mkv", "h264.avi", "mpeg4.avi", "mpeg4.mp4"],
)
def test_decord_decodes_from_the_start_where_its_seeks_go_wrong(clips: Any, name: str) -> None:
    with open_video(clips.path(name), decoder="decord") as reader:
        assert (reader.info.decoder, reader.info.is_seekable, reader.warnings) == ("decord", False, [])


@needs_decord
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("edit_list.mp4", "decord does not see the edit list, which hides frames"),
        ("h264_444.mp4", "decord garbles H.264 4:4:4"),
        ("h264.ts", "decord misplaces frames of mpegts files"),
        ("av1.mp4", "decord fails on it"),
    ],
)
def test_what_decord_gets_wrong_is_left_to_pyav(clips: Any, name: str, reason: str) -> None:
    with open_video(clips.path(name), decoder="decord") as reader:
        assert reader.info.decoder == "pyav"
        assert reader.warnings == [f"decoded by PyAV: {reason}"]
        assert reader.info.warnings == tuple(reader.warnings)


@needs_decord
def test_pyav_takes_over_when_decord_fails_half_way(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_video(clips.path("h264.mp4"), decoder="decord") as reader:
        assert isinstance(reader, DecordReader)
        plain_next, calls = reader._next, iter(range(1000))

        def failing_next(video: Any) -> Any:
            if next(calls) % 8 == 7:
                raise decord_reader._DecordError("decord fails on it")
            return plain_next(video)

        monkeypatch.setattr(reader, "_next", failing_next)
        assert [clips.number_of(frame) for frame in reader.frames()] == list(range(40))
        assert numbers_in(reader, clips, list(range(39, 0, -3))) == list(range(39, 0, -3))
        assert reader.warnings == ["decoded by PyAV: decord fails on it"]


# Missing packages


def test_a_missing_pyav_is_named(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match="PyAV is not installed; pip install av"):
        open_video(clips.path("h264.mp4"), decoder="pyav")


def test_a_missing_decord_is_named(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(VideoError, match="decord is not installed; pip install decord"):
        open_video(clips.path("h264.mp4"), decoder="decord")


def test_without_any_decoder_both_are_named(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(VideoError, match="neither PyAV nor decord is installed; pip install av"):
        open_video(clips.path("h264.mp4"))


@needs_decord
@pytest.mark.parametrize("name", ["h264.mp4", "h264_open_groups.mp4", "hevc_open_groups.mkv", "vp9.webm"])
def test_decord_alone_decodes_from_the_start(clips: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = clips.path(name)
    monkeypatch.setitem(sys.modules, "av", None)
    with open_video(path) as reader:
        assert (reader.info.decoder, reader.info.is_seekable, reader.info.num_frames) == ("decord", False, 40)
        assert reader.info.fps == pytest.approx(25)
        assert reader.times_seconds == pytest.approx(np.arange(40) / 25, abs=1e-6)
        assert "PyAV is not installed" in reader.info.warnings[0]
        assert numbers_in(reader, clips, [31, 5, 31, 12]) == [31, 5, 31, 12]


@needs_decord
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mpeg4.avi", "decord alone is right only for MP4, MOV, Matroska and WebM; pip install av"),
        ("edit_list.mp4", "decord alone cannot tell its frames apart; pip install av"),
    ],
)
def test_decord_alone_refuses_what_it_may_get_wrong(
    clips: Any, name: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = clips.path(name)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=reason):
        open_video(path)


# Hostile and damaged files


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"nowhere\.mp4': no such file or folder"):
        open_video(tmp_path / "nowhere.mp4")
    with pytest.raises(VideoError, match="not a directory"):
        open_video(Path(__file__) / "clip.mp4")
    with pytest.raises(VideoError, match="file name too long"):
        open_video(tmp_path / ("x" * 5000))
    with pytest.raises(VideoError, match="not a valid file name"):
        open_video("a\0b.mp4")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_not_a_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="a named pipe, not a file"):
        open_video(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match="a device, not a file"):
        open_video(os.devnull)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's address must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.mp4")
        with pytest.raises(VideoError, match="a socket, not a file"):
            open_video("s.mp4")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_say_so(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "locked.mp4"
    shutil.copy(clips.path("h264.mp4"), path)
    path.chmod(0)
    (tmp_path / "folder").mkdir(mode=0)
    for locked in (path, tmp_path / "folder"):
        with pytest.raises(VideoError, match="no permission to read it"):
            open_video(locked)


def test_refused_permission_says_so(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    path = clips.path("h264.mp4")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(VideoError, match="no permission to read it"):
        open_video(path)


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"


@pytest.mark.parametrize("decoder", ALL_DECODERS)
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"the file is empty \(0 bytes\)"),
        (b"not found\n", "a text file, not a video"),
        (b"\n <!DOCTYPE html><html>sign in</html>", "a web page, not a video"),
        (b"\xef\xbb\xbf<html>", "a web page, not a video"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nh264.ts\n#EXT-X-ENDLIST\n", "a playlist, not a video"),
        (b"ffconcat version 1.0\nfile h264.mp4\n", "a playlist, not a video"),
        (PNG + bytes(100), "an image, not a video"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(200), "an image, not a video"),
        (b"\0\0\0\x1cftypavif" + bytes(200), "an image, not a video"),
        (b"PK\x03\x04" + bytes(200), "an archive, not a video"),
        (b"ID3\x03" + bytes(200), "an audio file, not a video"),
        (bytes(range(256)) * 8, "not a video format that is known here"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2", "an MP4 without a readable index"),
    ],
)
def test_what_is_no_video_is_called_what_it_is(
    clips: Any, content: bytes, reason: str, decoder: Any, tmp_path: Path
) -> None:
    shutil.copy(clips.path("h264.mp4"), tmp_path / "h264.mp4")  # what the playlists name is there
    shutil.copy(clips.path("h264.ts"), tmp_path / "h264.ts")
    for name in ("clip.mp4", "clip.m3u8"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(VideoError, match=reason):
            open_video(path, decoder=decoder)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.webp", "image.bmp", "image.tiff"])
def test_an_image_is_not_a_video(clips: Any, name: str, tmp_path: Path) -> None:
    PIL.Image.fromarray(clips.draw(3)).save(tmp_path / name)
    with pytest.raises(VideoError, match="an image, not a video"):
        open_video(tmp_path / name)


@pytest.mark.parametrize("name", ["sound.mp4", "sound.mkv"])
def test_sound_alone_is_not_a_video(name: str, tmp_path: Path) -> None:
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(VideoError, match="no video in it, only audio"):
        open_video(tmp_path / name)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_mp4_with_its_index_in_front_gives_what_is_there(clips: Any, share: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    data = clips.path("h264_front.mp4").read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    expected = clips.plain_decode(path)
    with open_video(path) as reader:
        assert 0 < reader.info.num_frames == len(expected) < 40
        assert reader.info.warnings[0] == "the file is damaged or cut short: not all of it can be read"
        last = len(expected) - 1
        assert (reader.read([last, 0]) == np.stack([expected[last], expected[0]])).all()


def test_a_truncated_mp4_with_its_index_behind_is_an_error(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    data = clips.path("h264.mp4").read_bytes()
    for share in (0.3, 0.6, 0.9):
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(VideoError, match="MP4 without a readable index, as left by an unfinished download"):
            open_video(path)


@pytest.mark.parametrize("name", ["h264.mkv", "vp9.webm", "h264.ts", "mpeg4.avi"])
def test_other_truncated_files_give_what_is_there(clips: Any, name: str, tmp_path: Path) -> None:
    data = clips.path(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: len(data) * 7 // 10])
    expected = clips.plain_decode(path)
    with open_video(path) as reader:
        assert 0 < reader.info.num_frames == len(expected) < 40
        assert (reader.read([5])[0] == expected[5]).all()


def wipe_packets(source: Path, target: Path, packets: set[int]) -> None:
    """Copy a file with the payload of some packets set to zero."""
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        for number, packet in enumerate(container.demux(container.streams.video[0])):
            if number in packets:
                data[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    target.write_bytes(data)


def test_frames_that_cannot_be_decoded_repeat_the_nearest_earlier(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    wipe_packets(clips.path("mjpeg.mp4"), path, {0, 20, 21, 39})
    shown = [1, *range(1, 20), 19, 19, *range(22, 39), 38]
    with open_video(path, decoder="pyav") as reader:
        assert [clips.number_of(frame) for frame in reader.frames()] == shown
        assert reader.warnings == [
            "some frames cannot be decoded, the first is 0; each shows the nearest earlier frame"
        ]
        for indices in ([21], [0, 39], [22, 20, 5]):
            assert numbers_in(reader, clips, indices) == [shown[index] for index in indices]


def test_more_than_a_tenth_of_the_frames_missing_is_an_error(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    wipe_packets(clips.path("mjpeg.mp4"), path, {10, 11, 12, 20, 21})
    with open_video(path, decoder="pyav") as reader:
        assert numbers_in(reader, clips, [9, 13]) == [9, 13]
        assert numbers_in(reader, clips, [12]) == [9]
        with pytest.raises(VideoError, match="5 of its 40 frames cannot be decoded"):
            reader.read([0, 21])


def test_damaged_packets_of_containers_without_an_index_are_left_out(clips: Any, tmp_path: Path) -> None:
    path = tmp_path / "damaged.avi"
    wipe_packets(clips.path("mpeg4_keys.avi"), path, {3, 4})
    with open_video(path, decoder="pyav") as reader:
        assert [clips.number_of(frame) for frame in reader.frames()] == [0, 1, 2, *range(5, 40)]
        assert reader.info.warnings == ("2 of its 40 packets cannot be decoded; their frames are left out",)
    wipe_packets(clips.path("mpeg4_keys.avi"), path, {3, 4, 5, 6, 7})
    with pytest.raises(VideoError, match="5 of its 40 packets cannot be decoded"):
        open_video(path, decoder="pyav")


def test_a_stream_that_turns_up_late_ends_the_packets(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class LateStream:
        """A container as PyAV leaves it when packets of an unannounced stream came."""

        def __init__(self, container: Any) -> None:
            self.container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def demux(self, stream: Any) -> Iterator[Any]:
            yield from self.container.demux(stream)
            raise IndexError("list index out of range")

    open_container = pyav_file.open_container

    def open_late(path: str, known_stream: int | None) -> Any:
        container, *rest = open_container(path, known_stream)
        return LateStream(container), *rest

    monkeypatch.setattr(pyav_file, "open_container", open_late)
    with open_video(clips.path("h264.ts"), decoder="pyav") as reader:
        assert (reader.info.num_frames, reader.warnings) == (40, [])
        assert numbers_in(reader, clips, [39, 1]) == [39, 1]


def test_a_file_that_can_be_read_no_further_is_said_to_be_cut_short(
    clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        """A container on a disk that fails after 25 pictures."""

        def __init__(self, container: Any) -> None:
            self.container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self.container, name)

        def demux(self, stream: Any) -> Iterator[Any]:
            yield from islice(self.container.demux(stream), 25)
            raise av.error.OSError(5, "Input/output error", "mjpeg.avi")

    open_container = pyav_file.open_container

    def open_failing(path: str, known_stream: int | None) -> Any:
        container, *rest = open_container(path, known_stream)
        return Failing(container), *rest

    monkeypatch.setattr(pyav_file, "open_container", open_failing)
    with open_video(clips.path("mjpeg.avi"), decoder="pyav") as reader:
        assert reader.info.num_frames == 25
        assert reader.warnings == ["the file is damaged or cut short: not all of it can be read"]


def test_a_video_without_a_decodable_frame_is_an_error(clips: Any, tmp_path: Path) -> None:
    for name in ("mjpeg.mp4", "mjpeg.avi"):
        wipe_packets(clips.path(name), tmp_path / name, set(range(40)))
        with pytest.raises(VideoError, match=r"packets cannot be decoded|no frame of it can be decoded"):
            open_video(tmp_path / name, decoder="pyav")


@pytest.mark.parametrize("decoder", ALL_DECODERS)
@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "mpeg4.avi", "vp9.webm", "h264.ts"])
def test_flipped_bits_give_a_video_or_a_video_error_and_no_noise(
    clips: Any, name: str, decoder: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = clips.path(name).read_bytes()
    rng = random.Random(name)
    for trial in range(6):
        damaged = bytearray(data)
        for _ in range(1 + 10 * trial):
            damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = tmp_path / name
        path.write_bytes(damaged)
        try:
            with open_video(path, decoder=decoder) as reader:
                count = reader.info.num_frames
                reader.read([0, count // 2, count - 1])
                assert sum(1 for _ in reader.frames()) == count
        except VideoError:
            continue
    assert capfd.readouterr().err == ""


def test_options_of_no_meaning_are_a_mistake(clips: Any) -> None:
    with pytest.raises(
        ValueError, match="decoder must be one of auto, pyav, decord, torchcodec, torchcodec-cuda, got 'opencv'"
    ):
        open_video(clips.path("h264.mp4"), decoder="opencv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="frame_rate must be positive, got 0"):
        open_video(clips.path("h264.mp4"), frame_rate=0)


# Folders of frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "frames"
    path.mkdir()
    return path


def save(clips: Any, folder: Path, names: dict[str, int]) -> None:
    for name, number in names.items():
        PIL.Image.fromarray(clips.draw(number)).save(folder / name)


@pytest.mark.parametrize(
    "names",
    [
        ["img_00001.jpg", "img_00002.jpg", "img_00003.jpg"],
        ["00000.png", "00001.png", "00002.png"],
        ["frame9.jpeg", "frame10.jpeg", "frame11.jpeg"],
        ["cam2_98.BMP", "cam2_99.BMP", "cam2_100.BMP"],
        ["0.webp", "1.PNG", "2.jpg"],
    ],
)
def test_numbered_images_are_a_video_in_the_order_of_their_numbers(clips: Any, folder: Path, names: list[str]) -> None:
    save(clips, folder, {name: number for number, name in reversed(list(enumerate(names)))})
    (folder / "notes.txt").write_text("1")
    (folder / "cover.jpg").write_text("no number")
    (folder / "._img_00001.jpg").write_bytes(b"left by another system")
    (folder / "00007.jpg").mkdir()
    with open_video(folder) as reader:
        assert isinstance(reader, FrameFolderReader)
        assert (reader.info.num_frames, reader.info.width, reader.info.height) == (3, 128, 96)
        assert (reader.info.decoder, reader.info.warnings, reader.info.is_seekable) == ("frames", (), True)
        assert numbers_in(reader, clips, [2, 0, 2, 1]) == [2, 0, 2, 1]
        assert [clips.number_of(frame) for frame in reader.frames()] == [0, 1, 2]


def test_times_of_a_folder_come_from_the_frame_rate_given(clips: Any, folder: Path) -> None:
    save(clips, folder, {"1.png": 1, "2.png": 2, "3.png": 3})
    with open_video(folder) as reader:
        assert (reader.info.fps, reader.info.duration_seconds, reader.times_seconds) == (None, None, None)
    with open_video(folder, frame_rate=10) as reader:
        assert (reader.info.fps, reader.info.duration_seconds) == (10, pytest.approx(0.3))
        assert reader.times_seconds == pytest.approx([0, 0.1, 0.2])


def test_a_gap_in_the_numbers_is_a_warning(clips: Any, folder: Path) -> None:
    save(clips, folder, {"5.png": 1, "6.png": 2, "9.png": 3})
    with open_video(folder) as reader:
        assert numbers_in(reader, clips, [0, 1, 2]) == [1, 2, 3]
        assert reader.info.warnings == (
            "2 of the numbers 5 to 9 have no image; the others are taken as consecutive frames",
        )


def test_optical_flow_beside_the_frames_is_ignored(clips: Any, folder: Path) -> None:
    save(clips, folder, {"img_1.jpg": 1, "img_2.jpg": 2, "flow_x_1.jpg": 7, "flow_y_1.jpg": 8})
    with open_video(folder) as reader:
        assert reader.info.num_frames == 2


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ([], "holds no numbered images, such as img_00001.jpg"),
        (["a.jpg"], "holds no numbered images"),
        (["a_1.jpg", "b_1.jpg"], r"2 series of images \('a_1.jpg', 'b_1.jpg'\); keep one"),
        (["1.jpg", "01.jpg"], "'01.jpg' and '1.jpg' have the same number; keep one"),
    ],
)
def test_folders_that_are_no_video_say_why(clips: Any, folder: Path, names: list[str], reason: str) -> None:
    save(clips, folder, dict.fromkeys(names, 1))
    with pytest.raises(VideoError, match=reason):
        open_video(folder)


def test_a_folder_of_videos_where_one_is_wanted_names_one_of_them(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("b.mp4", "a.MKV", "notes.txt"):
        (folder / name).touch()
    held = "the folder holds 2 videos and no numbered images; name one video, such as "
    with pytest.raises(VideoError, match=re.escape(held + str(folder / "a.MKV"))):
        open_video(folder)


def test_images_of_another_size_are_named(clips: Any, folder: Path) -> None:
    save(clips, folder, {"1.png": 1})
    PIL.Image.fromarray(clips.draw(2, 64, 48)).save(folder / "2.png")
    with open_video(folder) as reader:
        reader.read([0])
        with pytest.raises(VideoError, match=r"'2.png' is 64x48 pixels, the first image 128x96; make them one size"):
            reader.read([0, 1])


@pytest.mark.parametrize("damage", [b"", b"text", "half"])
def test_unreadable_images_are_named(clips: Any, folder: Path, damage: bytes | str) -> None:
    save(clips, folder, {"1.png": 1, "2.png": 2})
    data = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(data[: len(data) // 2] if isinstance(damage, str) else damage)
    with open_video(folder) as reader, pytest.raises(VideoError, match=r"'2\.png' is not a readable image"):
        reader.read([1])


def test_images_larger_than_allowed_are_refused(clips: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(clips, folder, {"1.png": 1})
    monkeypatch.setattr(reader_module, "MAX_PIXELS", 12_287)
    with pytest.raises(VideoError, match="frames of 128x96 pixels are more than the 12,287 allowed"):
        open_video(folder)


def test_palettes_transparency_and_orientation_leave_plain_rgb(clips: Any, folder: Path) -> None:
    image = PIL.Image.fromarray(clips.draw(5))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(folder / "1.jpg", exif=exif)
    image.convert("RGBA").save(folder / "2.png")
    image.convert("P").save(folder / "3.png")
    image.convert("L").save(folder / "4.png")
    with open_video(folder) as reader:
        assert reader.read([0, 1, 2, 3]).shape == (4, 96, 128, 3)
        assert numbers_in(reader, clips, [0, 1, 2, 3]) == [5, 5, 5, 5]


def render_plain(path: Path, *, width: int, num_frames: int, fps: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = width, 64, "yuv420p"
        for number in range(num_frames):
            pixels = np.full((64, width, 3), 100 + number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@needs_decord
@pytest.mark.parametrize("width", [2, 4, 6, 8, 10, 12, 14, 16, 24, 32, 48])
def test_frames_so_narrow_that_decord_returns_its_padding_are_right(width: int, tmp_path: Path) -> None:
    path = tmp_path / "narrow.mp4"
    render_plain(path, width=width, num_frames=5, fps=25)
    with open_video(path, decoder="decord") as reader, open_video(path, decoder="pyav") as truth:
        np.testing.assert_array_equal(reader.read([0, 2, 4]), truth.read([0, 2, 4]))


def test_a_file_that_ends_long_before_its_header_says_is_warned_of(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole.mkv", tmp_path / "part.mkv"
    render_plain(whole, width=64, num_frames=40, fps=10)
    data = whole.read_bytes()
    part.write_bytes(data[: len(data) // 2])
    with open_video(whole) as reader:
        assert reader.info.warnings == ()
    with open_video(part) as reader:
        shown = reader.info.duration_seconds
        assert reader.info.warnings == (f"its header says 4.0 s, its pictures end after {shown:.1f} s",)
        assert shown is not None
        assert shown < 3
