"""Transcoded files and extracted frames: the source's frames, one to one, upright."""

from __future__ import annotations

import json
import os

import av
import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.data.prepare import convert as convert_module
from dualformer_cli.data.prepare.convert import Conversion, extract_frames, fitted_size, transcode
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.video.open import open_video

NAMES = [
    *("h264.mp4", "h264_vfr.mp4", "h264_10bit.mp4", "h264_444.mp4", "h264_odd_size.mp4", "h264_one_frame.mp4"),
    *(
        "mpeg4.avi",
        "mpeg2.mpg",
        "vp9.webm",
        "mjpeg.avi",
        "rotated_90.mp4",
        "rotated_180.mp4",
        "edit_list.mp4",
        "h264.ts",
    ),
]


def job_for(source, target, *, short_side=256, quality=23):
    with open_video(source) as reader:
        info = reader.info
    return Conversion(
        source=str(source),
        target=str(target),
        short_side=short_side,
        quality=quality,
        num_frames=info.num_frames,
        width=info.width,
        height=info.height,
    )


def all_frames(path):
    with open_video(path) as reader:
        return reader.read(range(reader.info.num_frames)), reader.info, reader.times_seconds


@pytest.mark.parametrize("name", NAMES)
def test_each_frame_stays_itself_at_its_time(clips, name, tmp_path) -> None:
    source, target = clips.path(name), tmp_path / "out.mp4"
    result = transcode(job_for(source, target))
    frames, info, times = all_frames(source)
    ours, our_info, our_times = all_frames(target)
    assert [clips.number_of(frame) for frame in ours] == [clips.number_of(frame) for frame in frames] or info.rotation
    assert (our_info.num_frames, our_info.codec, our_info.rotation) == (info.num_frames, "h264", 0)
    assert our_info.is_seekable
    assert (our_info.width, our_info.height) == (result.width, result.height)
    assert (result.width, result.height) == (info.width - info.width % 2, info.height - info.height % 2)
    assert np.abs(our_times - times).max() < 0.002
    assert result.num_bytes == target.stat().st_size
    if (result.width, result.height) == (info.width, info.height):
        difference = np.abs(ours.astype(int) - frames)
        assert difference.mean() < 6
        assert abs((ours.astype(float) - frames).mean()) < 2  # no darker and no brighter


def test_colours_of_full_range_and_of_hd_come_out_the_same(tmp_path) -> None:
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, :32], pixels[:, 32:64], pixels[:, 64:] = (200, 40, 30), (40, 180, 60), (30, 60, 210)
    for colorspace, color_range in ((5, 2), (1, 1), (9, 1)):
        source, target = tmp_path / f"{colorspace}.mp4", tmp_path / "out.mp4"
        with av.open(str(source), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
            for _ in range(4):
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(
                    format="yuv420p", dst_color_range="JPEG" if color_range == 2 else "MPEG"
                )
                frame.colorspace, frame.color_range = colorspace, color_range
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        transcode(job_for(source, target, quality=10))
        frames, ours = all_frames(source)[0].astype(int), all_frames(target)[0].astype(int)
        assert np.abs(ours - frames)[:, 8:-8, 8:24].max() <= 6
        assert np.abs(ours - frames)[:, 8:-8, 72:88].max() <= 6


def coloured_bars(width: int, height: int):
    """Draw bars of 32 rows in six colours that differ in hue, each with a vertical edge of its own, and a grey end."""
    colours = ((220, 40, 40), (40, 200, 60), (50, 70, 220), (220, 210, 50), (200, 60, 210), (60, 200, 210))
    pixels = np.full((height, width, 3), 128, np.uint8)
    for bar, top in enumerate(range(0, height, 32)):
        edge = width // 3 + 2 * bar
        pixels[top : top + 32, :edge] = colours[bar % 6]
        pixels[top : top + 32, edge : width - 16] = colours[(bar + 3) % 6]
    return pixels


def write_losslessly(path, pixels) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "bgr0"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode(None))


def assert_looks_like(path, pixels, size: tuple[int, int]) -> None:
    """Compare every frame of a file, decoded by plain PyAV, with a picture that Pillow scaled."""
    drawn = np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.BICUBIC)).astype(int)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 3
    for frame in frames:
        assert frame.shape == drawn.shape
        assert np.abs(frame - drawn).mean(axis=(0, 1)).max() < 8  # edges of colour are blurred by 4:2:0


@pytest.mark.parametrize("width", [96, 97, 98, 99])
@pytest.mark.parametrize("height", [120, 121, 122, 123])
@pytest.mark.parametrize("short_side", [256, 78])
def test_colours_stay_in_their_place_at_every_size(tmp_path, width: int, height: int, short_side: int) -> None:
    source, target, pixels = tmp_path / "in.mkv", tmp_path / "out.mp4", coloured_bars(width, height)
    write_losslessly(source, pixels)
    result = transcode(job_for(source, target, short_side=short_side, quality=8))
    assert_looks_like(target, pixels, (result.width, result.height))


def test_a_phone_video_keeps_its_colours(tmp_path) -> None:
    source, target, pixels = tmp_path / "in.mkv", tmp_path / "out.mp4", coloured_bars(540, 960)
    write_losslessly(source, pixels)
    transcode(job_for(source, target, quality=8))
    assert_looks_like(target, pixels, (256, 454))  # 9:16 at a short side of 256 is 455 high, made even


def test_the_file_has_short_groups_no_b_frames_no_sound_and_no_tags(clips, tmp_path) -> None:
    target = tmp_path / "out.mp4"
    transcode(job_for(clips.path("h264.mp4"), target, short_side=48))
    with av.open(str(target)) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        packets = [packet for packet in container.demux() if packet.size]
        assert [number for number, packet in enumerate(packets) if packet.is_keyframe] == [0, 16, 32]
        assert all(packet.pts == packet.dts for packet in packets)
        assert (container.streams.video[0].width, container.streams.video[0].height) == (64, 48)
        assert not set(container.metadata) & {"location", "title", "comment", "creation_time"}
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(16, 512))
def test_sizes_are_even_never_larger_and_keep_the_shape(width: int, height: int, short_side: int) -> None:
    w, h = fitted_size(width, height, short_side, even=True)
    assert w % 2 == h % 2 == 0
    assert w <= max(2, width)
    assert h <= max(2, height)
    assert min(w, h) <= max(2, short_side)
    scale = min(1, short_side / min(width, height))
    assert abs(w - width * scale) <= 2
    assert abs(h - height * scale) <= 2


def test_the_same_video_gives_the_same_bytes(clips, tmp_path) -> None:
    for name in ("a.mp4", "b.mp4"):
        transcode(job_for(clips.path("vp9.webm"), tmp_path / name))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_frames_become_numbered_images(clips, tmp_path) -> None:
    result = extract_frames(job_for(clips.path("rotated_90.mp4"), tmp_path / "clip", quality=90))
    names = sorted(os.listdir(tmp_path / "clip"))
    assert names == [f"img_{number:05d}.jpg" for number in range(1, 41)]
    assert result.num_bytes == sum((tmp_path / "clip" / name).stat().st_size for name in names)
    with PIL.Image.open(tmp_path / "clip" / names[0]) as image:
        assert image.size == (result.width, result.height) == (96, 128)
    frames, ours = all_frames(clips.path("rotated_90.mp4"))[0], all_frames(tmp_path / "clip")[0]
    assert np.abs(ours.astype(int) - frames).mean() < 6


def test_images_are_as_good_as_asked_for(clips, tmp_path) -> None:
    sizes, errors = [], []
    with open_video(clips.path("h264.mp4")) as reader:
        wanted = reader.read([5])[0].astype(int)
    for quality in (10, 50, 95):
        folder = tmp_path / str(quality)
        sizes.append(extract_frames(job_for(clips.path("h264.mp4"), folder, quality=quality)).num_bytes)
        with PIL.Image.open(folder / "img_00006.jpg") as image:
            errors.append(np.abs(np.asarray(image) - wanted).mean())
    assert sizes == sorted(sizes)
    assert sizes[2] > 1.5 * sizes[0]
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.5 * errors[2]


def test_a_folder_of_frames_can_be_transcoded(clips, tmp_path) -> None:
    extract_frames(job_for(clips.path("h264.mp4"), tmp_path / "clip", quality=95))
    transcode(job_for(tmp_path / "clip", tmp_path / "again.mp4"))
    assert [clips.number_of(frame) for frame in all_frames(tmp_path / "again.mp4")[0]] == list(range(40))


@pytest.mark.parametrize("convert", [transcode, extract_frames])
def test_a_video_that_changed_or_breaks_leaves_nothing(clips, tmp_path, convert) -> None:
    job = job_for(clips.path("h264_front.mp4"), tmp_path / "out.mp4")
    other = tmp_path / "source.mp4"
    data = clips.path("h264_front.mp4").read_bytes()
    other.write_bytes(data[: len(data) // 2])
    kept = {
        field: getattr(job, field) for field in ("target", "short_side", "quality", "num_frames", "width", "height")
    }
    with pytest.raises(VideoError, match=r"it has \d+ frames and had 40"):
        convert(Conversion(source=str(other), **kept))
    assert sorted(os.listdir(tmp_path)) == ["source.mp4"]


@pytest.mark.parametrize("convert", [transcode, extract_frames])
def test_a_target_that_cannot_be_written_is_named(clips, tmp_path, convert) -> None:
    with pytest.raises(DualFormerError, match=r"cannot write .*nowhere"):
        convert(job_for(clips.path("h264.mp4"), tmp_path / "nowhere" / "out"))


def test_an_estimate_is_near_what_the_whole_needs(clips, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_module, "SAMPLE_FRAMES", 20)
    for estimate, convert in (
        (convert_module.try_transcode, transcode),
        (convert_module.try_frames, extract_frames),
    ):
        job = job_for(clips.path("h264.mp4"), tmp_path / f"{convert.__name__}", quality=30)
        guess, result = estimate(job), convert(job)
        assert guess.num_frames == 20
        assert 0.5 < guess.num_bytes * 2 / result.num_bytes < 2, json.dumps([guess.num_bytes, result.num_bytes])
        assert guess.seconds > 0
