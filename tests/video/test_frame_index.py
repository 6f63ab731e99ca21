"""Files that say untrue things of themselves: frames, numbers and times are still those of a plain decode."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dualformer_cli.errors import VideoError
from dualformer_cli.video import bitstream, scan
from dualformer_cli.video.decord_reader import load_decord
from dualformer_cli.video.open import open_video
from dualformer_cli.video.pyav_reader import PyAVReader

Change = Callable[[Any, int], None]


def picture(number: int, width: int = 128, height: int = 96) -> np.ndarray:
    """Draw a noisy picture that changes everywhere with its number, so that wrong references show."""
    noise = np.random.default_rng(7).integers(0, 60, (height, width, 3))
    moved = np.roll(noise, 5 * number, axis=1)
    moved[:, :, number % 3] += 40 + 5 * number % 90
    moved[(3 * number) % 60 : (3 * number) % 60 + 30, 20:80] += 80
    return moved.clip(0, 255).astype(np.uint8)


def encode(
    path: Path,
    codec: str,
    *,
    pix_fmt: str = "yuv420p",
    num_frames: int = 40,
    size: tuple[int, int] = (128, 96),
    **options: str,
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), "rgb24").reformat(format=pix_fmt)
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def copy(source: Path, target: Path, change: Change) -> Path:
    """Copy the packets of a file, each changed on the way."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        stream = whole.streams.video[0]
        out = part.add_stream_from_template(stream)
        for number, packet in enumerate(whole.demux(stream)):
            if packet.size:
                change(packet, number)
                packet.stream = out
                part.mux(packet)
    return target


def flag_all(packet: Any, number: int) -> None:
    packet.is_keyframe = True


def flag_every_seventh(packet: Any, number: int) -> None:
    packet.is_keyframe = number % 7 == 0


def time_of_decoding(packet: Any, number: int) -> None:
    packet.pts = packet.dts


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def assert_reads_as_decoded(path: Path) -> None:
    """Every frame alone in a fresh reader, all in a random order, and four spread clips: as in a plain decode."""
    expected = decode(path)
    with open_video(path, decoder="pyav") as reader:
        assert reader.info.num_frames == len(expected)
        order = random.Random(1).sample(range(len(expected)), len(expected))
        assert (reader.read(order) == np.stack([expected[number] for number in order])).all()
        index = reader.index
    for number in (*order[:12], len(expected) - 1):
        with open_video(path, decoder="pyav", index=index) as reader:
            assert (reader.read([number])[0] == expected[number]).all()
    clips = sorted({start + 2 * step for start in (0, 8, 17, 26) for step in range(4)})
    with open_video(path, decoder="pyav") as reader:
        assert (reader.read(clips) == np.stack([expected[number] for number in clips])).all()


X264 = {"preset": "veryfast", "g": "12", "bf": "3", "x264-params": "scenecut=0"}
CODED = {
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg4.mkv": ("mpeg4", {"g": "12"}),
    "mpeg2.mkv": ("mpeg2video", {"g": "12", "bf": "2"}),
    "msmpeg4.mkv": ("msmpeg4", {"g": "12"}),
    "h264.mp4": ("libx264", X264),
    "h264.mkv": ("libx264", X264),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=12:bframes=3:log-level=none"}),
    "vp8.mkv": ("libvpx", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "vp9.mkv": ("libvpx-vp9", {"g": "12", "deadline": "realtime", "cpu-used": "8"}),
    "ffv1.mp4": ("ffv1", {"g": "8", "level": "3", "slices": "4"}),
    "ffv1.mkv": ("ffv1", {"g": "8", "level": "3", "coder": "1", "context": "1"}),
}


@pytest.mark.parametrize("flag", [flag_all, flag_every_seventh])
@pytest.mark.parametrize("name", CODED)
def test_packets_that_are_falsely_flagged_as_keys_give_no_garbage(tmp_path: Path, name: str, flag: Change) -> None:
    codec, options = CODED[name]
    source = encode(tmp_path / name, codec, **options)
    assert_reads_as_decoded(copy(source, tmp_path / f"flagged-{name}", flag))


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4", "vp9.mkv"])
@pytest.mark.parametrize(("suffix", "flag"), [("mp4", flag_all), ("mkv", flag_all), ("mp4", flag_every_seventh)])
def test_true_keys_are_sought_among_false_ones(
    tmp_path: Path, name: str, suffix: str, flag: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, options = CODED[name]
    whole = copy(encode(tmp_path / name, codec, **options), tmp_path / "flagged.mkv", flag)
    path = tmp_path / f"fragments.{suffix}"
    fragments = {"movflags": "frag_every_frame+empty_moov+default_base_moof"} if suffix == "mp4" else {}
    with av.open(str(whole)) as source, av.open(str(path), "w", options=fragments) as target:
        out = target.add_stream_from_template(source.streams.video[0])
        previous = -1000
        for number, packet in enumerate(source.demux(video=0)):
            if packet.size:
                flag(packet, number)
                packet.dts = previous = packet.dts if packet.dts is not None else previous + 1
                packet.stream = out
                target.mux(packet)
    monkeypatch.setattr(PyAVReader, "_decode_from_start", lambda *_: pytest.fail("decoded from the start"))
    expected = decode(path)
    for number in (0, 13, 30, 38):
        with open_video(path, decoder="pyav") as reader:
            assert (reader.read([number, 25])[0] == expected[number]).all()


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libsvtav1", {"preset": "12", "g": "15"}),
        ("ffv1", {"g": "8", "level": "1"}),
        ("ffv1", {"g": "8", "level": "3", "coder": "1"}),
        ("libvpx-vp9", {"g": "15", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    ],
)
def test_packets_say_themselves_what_the_decoder_says_of_their_frames(
    tmp_path: Path, codec: str, options: dict[str, str]
) -> None:
    try:
        path = encode(tmp_path / "in.mkv", codec, **options)
    except (av.FFmpegError, ValueError, av.codec.codec.UnknownCodecError):
        pytest.skip(f"this PyAV cannot write {codec}")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        name = stream.codec_context.codec.canonical_name
        told = [bitstream.is_start(name, memoryview(packet), b"") for packet in container.demux(stream) if packet.size]
        container.seek(0)
        decoded = [frame.key_frame for frame in container.decode(stream)]
    assert told == decoded
    assert 1 < sum(told) < len(told)


def test_false_keys_of_h263_in_a_phone_file_give_no_garbage(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.3gp", "h263", size=(176, 144), g="12")
    assert_reads_as_decoded(copy(source, tmp_path / "out.3gp", flag_all))


@pytest.mark.parametrize(("codec", "pix_fmt"), [("rpza", "rgb555le"), ("qtrle", "rgb24"), ("smc", "pal8")])
def test_codecs_that_never_name_a_key_are_not_sought_in(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    try:
        source = encode(tmp_path / "in.mov", codec, pix_fmt=pix_fmt, g="10")
    except (av.FFmpegError, ValueError, av.codec.codec.UnknownCodecError):
        pytest.skip(f"this PyAV cannot write {codec}")
    path = copy(source, tmp_path / "out.mov", flag_all)
    assert_reads_as_decoded(path)
    with open_video(path) as reader:
        assert not reader.info.is_seekable


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.mp4"])
def test_times_of_decoding_in_spite_of_b_frames_are_not_believed(tmp_path: Path, name: str) -> None:
    codec, options = CODED[name]
    path = copy(encode(tmp_path / name, codec, **options), tmp_path / f"copied-{name}", time_of_decoding)
    assert_reads_as_decoded(path)
    with open_video(path) as reader:
        assert reader.info.fps == pytest.approx(25)
        assert reader.times_seconds is not None
        assert np.allclose(reader.times_seconds, np.arange(len(reader.times_seconds)) / 25)


def test_times_of_decoding_that_begin_half_way_are_not_believed(tmp_path: Path) -> None:
    source, path = encode(tmp_path / "in.mp4", "libx264", num_frames=60, **X264), tmp_path / "out.mkv"
    with av.open(str(path), "w") as joined:
        out, step, start = None, 0, 0
        for part in range(2):
            with av.open(str(source)) as whole:
                stream = whole.streams.video[0]
                out = out or joined.add_stream_from_template(stream)
                for number, packet in enumerate(whole.demux(stream)):
                    if packet.size:
                        step = packet.duration
                        if part:
                            packet.pts = packet.dts = start + number * step
                        packet.stream = out
                        joined.mux(packet)
            start = 64 * step
    assert len(decode(path)) == 120
    assert_reads_as_decoded(path)


def test_true_times_are_read_at_packet_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan._Scan, "_count_frames", lambda *_, **__: pytest.fail("decoded the whole file"))
    for name in ("h264.mp4", "h264.mkv", "hevc.mp4", "vp8.mkv", "vp9.mkv"):
        codec, options = CODED[name]
        assert_reads_as_decoded(encode(tmp_path / name, codec, **options))
    without_b = {**X264, "bf": "0"}
    assert_reads_as_decoded(encode(tmp_path / "plain.mp4", "libx264", **without_b))


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "options"),
    [
        ("ffv1.mkv", "ffv1", "yuv420p", {"g": "6", "level": "3"}),
        ("huffyuv.avi", "huffyuv", "yuv422p", {}),
        ("raw.avi", "rawvideo", "yuv420p", {}),
        ("j2k.mov", "jpeg2000", "yuv420p", {}),
        ("mjpeg.avi", "mjpeg", "yuvj420p", {}),
        ("prores.mov", "prores", "yuv422p10le", {}),
    ],
)
def test_codecs_whose_packets_are_pictures_are_opened_at_packet_cost(
    tmp_path: Path, name: str, codec: str, pix_fmt: str, options: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan._Scan, "_count_frames", lambda *_, **__: pytest.fail("decoded the whole file"))
    path = encode(tmp_path / name, codec, pix_fmt=pix_fmt, **options)
    assert_reads_as_decoded(path)
    with open_video(path) as reader:
        assert reader.info.is_seekable


def test_hidden_frames_of_vp8_are_no_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan._Scan, "_count_frames", lambda *_, **__: pytest.fail("decoded the whole file"))

    def hide_two(packet: Any, number: int) -> None:
        if number in (7, 20):  # the fifth bit says whether the picture is shown (RFC 6386, 9.1)
            data = bytes(packet)
            packet.update(bytes([data[0] & 0xEF]) + data[1:])

    path = copy(encode(tmp_path / "in.webm", "libvpx", g="12"), tmp_path / "out.webm", hide_two)
    assert len(decode(path)) == 38
    assert_reads_as_decoded(path)


def test_h264_headers_tell_fields_from_frames(tmp_path: Path) -> None:
    for name, interlaced in (("a.mp4", False), ("b.mp4", True)):
        options = {**X264, "flags": "+ildct+ilme", "x264-params": "tff=1:scenecut=0"} if interlaced else X264
        path = encode(tmp_path / name, "libx264", **options)
        with av.open(str(path)) as container:
            extradata = container.streams.video[0].codec_context.extradata
        assert bitstream.codes_whole_frames(extradata) is not interlaced
        assert_reads_as_decoded(path)


def test_b_slices_are_told_from_the_others(tmp_path: Path) -> None:
    path = encode(tmp_path / "h264.mp4", "libx264", **X264)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        extradata, told, kinds = stream.codec_context.extradata or b"", {}, {}
        for packet in container.demux(stream):
            if packet.size:
                told[packet.pts] = bitstream.holds_b_slice(memoryview(packet), extradata)
        container.seek(0)
        for frame in container.decode(stream):
            kinds[frame.pts] = str(frame.pict_type).rpartition(".")[2]
    assert {pts for pts, is_b in told.items() if is_b} == {pts for pts, kind in kinds.items() if kind in ("B", "3")}
    assert any(told.values())


# Times


def test_a_jump_of_a_streams_clock_is_not_a_duration(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.ts", "mpeg2video", g="12")

    def jump(packet: Any, number: int) -> None:
        if number >= 20:
            packet.pts, packet.dts = packet.pts + 90_000 * 1000, packet.dts + 90_000 * 1000

    path = copy(source, tmp_path / "out.ts", jump)
    with open_video(path) as reader:
        assert reader.info.fps == pytest.approx(25, rel=0.01)
        assert reader.info.duration_seconds == pytest.approx(reader.info.num_frames / 25, rel=0.02)
        assert reader.times_seconds is not None
        assert np.diff(reader.times_seconds).max() < 0.1


def test_a_picture_that_stands_still_in_an_mp4_is_a_duration(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.mp4", "mpeg4")

    def wait(packet: Any, number: int) -> None:
        if number >= 20:
            step = 30 * packet.time_base.denominator
            packet.pts, packet.dts = packet.pts + step, packet.dts + step

    with open_video(copy(source, tmp_path / "out.mp4", wait)) as reader:
        assert reader.info.duration_seconds == pytest.approx(31.6, abs=0.05)


def test_h264_copied_into_an_avi_keeps_its_rate(tmp_path: Path) -> None:
    source, path = encode(tmp_path / "in.mp4", "libx264", **X264), tmp_path / "out.avi"
    with av.open(str(source)) as whole, av.open(str(path), "w") as part:
        out = part.add_stream_from_template(whole.streams.video[0])
        bare = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", whole.streams.video[0], out)
        for packet in whole.demux(video=0):
            for changed in bare.filter(packet):
                changed.stream = out
                part.mux(changed)
    with open_video(path) as reader:
        assert reader.info.num_frames == 40
        assert reader.info.fps == pytest.approx(25, rel=0.01)


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", "h264"), ("libx265", "hevc")])
def test_bare_streams_are_as_fast_as_their_header_says(tmp_path: Path, codec: str, suffix: str) -> None:
    path = tmp_path / f"bare.{suffix}"
    with av.open(str(path), "w", format=suffix) as container:
        stream = container.add_stream(codec, rate=60)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for number in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))
        container.mux(stream.encode(None))
    with open_video(path) as reader:
        assert (reader.info.num_frames, reader.info.fps) == (30, 60)
        assert reader.info.duration_seconds == pytest.approx(0.5)


def test_a_start_that_is_not_0_is_not_part_of_the_duration(tmp_path: Path) -> None:
    source = encode(tmp_path / "in.mp4", "libx264", **X264)

    def later(packet: Any, number: int) -> None:
        start = 5000 * packet.time_base.denominator
        packet.pts, packet.dts = packet.pts + start, packet.dts + start

    with open_video(copy(source, tmp_path / "out.mkv", later)) as reader:
        assert reader.info.duration_seconds == pytest.approx(1.6, abs=0.05)
        assert reader.info.warnings == ()


def test_bare_jpeg_pictures_are_a_video_and_one_with_a_preview_is_an_image(tmp_path: Path) -> None:
    path = encode(tmp_path / "in.avi", "mjpeg", pix_fmt="yuvj420p", num_frames=12)
    with av.open(str(path)) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    (tmp_path / "bare.mjpeg").write_bytes(b"".join(pictures))
    (tmp_path / "photo.jpg").write_bytes(pictures[0] + pictures[1])
    with open_video(tmp_path / "bare.mjpeg") as reader:
        assert reader.info.num_frames == 12
        assert (reader.read([5, 0])[0] == decode(path)[5]).all()
    with pytest.raises(VideoError, match="an image, not a video"):
        open_video(tmp_path / "photo.jpg")


@pytest.mark.skipif(load_decord() is None, reason="decord is not installed")
@pytest.mark.parametrize(
    ("options", "change", "reason"),
    [
        ({"movflags": "frag_keyframe+empty_moov"}, None, "decord misplaces frames of fragmented MP4 files"),
        ({}, time_of_decoding, "its packets do not say when frames are shown"),
    ],
)
def test_decord_hands_over_what_it_would_misplace(tmp_path: Path, options: Any, change: Any, reason: str) -> None:
    path = encode(tmp_path / "in.mp4", "libx264", **X264)
    with av.open(str(path)) as whole, av.open(str(tmp_path / "out.mp4"), "w", options=options) as part:
        out = part.add_stream_from_template(whole.streams.video[0])
        for number, packet in enumerate(whole.demux(video=0)):
            if packet.size:
                if change is not None:
                    change(packet, number)
                packet.stream = out
                part.mux(packet)
    expected = decode(tmp_path / "out.mp4")
    with open_video(tmp_path / "out.mp4", decoder="decord") as reader:
        assert (reader.read([33, 5]) == np.stack([expected[33], expected[5]])).all()
        assert reader.info.decoder == "pyav"
        assert any(reason in warning for warning in reader.info.warnings)
