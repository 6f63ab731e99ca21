"""Videos and GIFs read back with other libraries, and captions looked at pixel by pixel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs import annotated_video, fonts
from dualformer_cli.outputs.annotated_video import VideoWriter, draw_captions, save_annotated

LABELS = [("surfing water", 0.75), ("tai chi", 0.25)]


def frame(shade: int, *, height: int = 48, width: int = 64) -> annotated_video.Frame:
    """A horizontal ramp in red, a flat shade in green and blue."""
    image = np.full((height, width, 3), shade, dtype=np.uint8)
    image[..., 0] = np.linspace(0, 255, width, dtype=np.uint8)
    return image


def write(path: Path, frames: list[annotated_video.Frame], **options: Any) -> None:
    with VideoWriter(path, **{"fps": 25, **options}) as writer:
        for image in frames:
            writer.write(image)


def read_mp4(path: Path) -> tuple[av.VideoStream, list[annotated_video.Frame]]:
    with av.open(os.fspath(path)) as container:
        stream = container.streams.video[0]
        images = [
            np.asarray(image.reformat(format="rgb24", src_colorspace=image.colorspace).to_ndarray(), dtype=np.uint8)
            for image in container.decode(stream)
        ]
        return stream, images


def read_gif(path: Path) -> tuple[list[int], list[annotated_video.Frame]]:
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        pages = [(page.info["duration"], np.asarray(page.convert("RGB"))) for page in ImageSequence.Iterator(image)]
    return [duration for duration, _ in pages], [pixels for _, pixels in pages]


def test_an_mp4_is_h264_that_any_player_takes_with_every_frame_at_its_time(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", [frame(20 * n) for n in range(10)], fps=30000 / 1001)
    stream, images = read_mp4(tmp_path / "out.mp4")
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert stream.average_rate is not None
    assert float(stream.average_rate) == pytest.approx(30000 / 1001)
    assert len(images) == 10
    for n, image in enumerate(images):
        assert np.abs(image.astype(int) - frame(20 * n)).mean() < 4
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_odd_sides_are_padded_by_repeating_the_edge(tmp_path: Path) -> None:
    write(tmp_path / "out.mp4", [frame(90, height=47, width=63)])
    _, (image,) = read_mp4(tmp_path / "out.mp4")
    assert image.shape == (48, 64, 3)
    assert np.abs(image[:47, :63].astype(int) - frame(90, height=47, width=63)).mean() < 4
    assert np.abs(image[47].astype(int) - image[46]).mean() < 4


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [((90, 160), 100, (56, 100)), ((160, 90), 101, (100, 56)), ((90, 160), 160, (90, 160)), ((2, 400), 100, (2, 100))],
)
def test_sides_shrink_to_the_limit_and_stay_even(
    size: tuple[int, int], max_side: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    write(tmp_path / "out.mp4", [frame(9, height=size[0], width=size[1])], max_side=max_side)
    _, (image,) = read_mp4(tmp_path / "out.mp4")
    assert image.shape[:2] == expected


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_frames_of_another_size_get_the_size_of_the_first(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"out{suffix}"
    write(path, [frame(9), frame(99, height=96, width=128), frame(180, height=1, width=1)], fps=5)
    images = read_mp4(path)[1] if suffix == ".mp4" else read_gif(path)[1]
    assert [image.shape for image in images] == [(48, 64, 3)] * 3
    assert np.abs(images[1].astype(int) - frame(99)).mean() < 8


def test_a_gif_shows_slow_video_frame_by_frame_in_colour_for_ever(tmp_path: Path) -> None:
    frames = [frame(40 * n) for n in range(5)]
    write(tmp_path / "out.gif", frames, fps=4)
    durations, images = read_gif(tmp_path / "out.gif")
    assert durations == [250] * 5
    for image, original in zip(images, frames, strict=True):
        assert np.abs(image.astype(int) - original).mean() < 4


@pytest.mark.parametrize(
    ("fps", "kept", "milliseconds"),
    [(25, 10, 800), (25.002, 10, 800), (24, 10, 830), (30, 7, 700), (60, 4, 330), (10, 20, 2000)],
)
def test_a_gif_of_fast_video_leaves_out_frames_and_keeps_the_speed(
    fps: float, kept: int, milliseconds: int, tmp_path: Path
) -> None:
    write(tmp_path / "out.gif", [frame(10 * n) for n in range(20)], fps=fps)
    durations, _ = read_gif(tmp_path / "out.gif")
    assert len(durations) == kept
    assert sum(durations) == pytest.approx(milliseconds, abs=10)
    assert min(durations) >= 80


def test_what_stands_still_in_a_gif_keeps_its_colours(tmp_path: Path) -> None:
    still = np.zeros((96, 128, 3), np.uint8)
    still[:, :, 0] = np.linspace(0, 250, 128).astype(np.uint8)  # more colours than a palette holds
    still[:, :, 1] = np.linspace(250, 0, 96).astype(np.uint8)[:, None]
    still[:, :, 2] = 128
    frames = []
    for number in range(12):
        frames.append(still.copy())
        frames[-1][10:30, 5 + 8 * number : 25 + 8 * number] = (255, 20 * number, 255 - 20 * number)
    write(tmp_path / "out.gif", frames, fps=10)
    images = read_gif(tmp_path / "out.gif")[1]
    assert len(images) == 12
    for image, drawn in zip(images, frames, strict=True):
        difference = np.abs(image.astype(int) - drawn)
        assert difference.mean() < 8  # the palette and its dither
        assert np.abs(image[40:].mean(axis=(0, 1)) - drawn[40:].mean(axis=(0, 1))).max() < 2


def test_equal_frames_in_a_gif_last_as_long_as_different_ones(tmp_path: Path) -> None:
    write(tmp_path / "out.gif", [frame(50)] * 6, fps=10)
    assert sum(read_gif(tmp_path / "out.gif")[0]) == 600


def test_a_gif_is_at_most_480_wide(tmp_path: Path) -> None:
    write(tmp_path / "out.gif", [frame(50, height=300, width=600)], max_side=1280)
    assert read_gif(tmp_path / "out.gif")[1][0].shape == (240, 480, 3)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_no_frames_is_an_error_and_no_file(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=rf"cannot write '.*out\{suffix}': there are no frames"):
        save_annotated(iter(()), tmp_path / f"out{suffix}", fps=25, captions=lambda seconds: LABELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "suffix"), [("out.avi", ".avi"), ("out", ""), ("mp4", "")])
def test_another_suffix_is_refused_before_any_frame_is_asked_for(name: str, suffix: str, tmp_path: Path) -> None:
    def frames() -> Iterator[annotated_video.Frame]:
        raise AssertionError("asked for a frame")
        yield

    with pytest.raises(DualFormerError, match=rf"{name}': '{suffix}' is not a format for video; use \.mp4 or \.gif"):
        save_annotated(frames(), tmp_path / name, fps=25, captions=lambda seconds: LABELS)


def test_an_upper_case_suffix_is_the_same_format(tmp_path: Path) -> None:
    write(tmp_path / "OUT.GIF", [frame(1)])
    assert (tmp_path / "OUT.GIF").read_bytes()[:3] == b"GIF"


@pytest.mark.parametrize("fps", [0, -1, 0.001, 90000, float("nan"), float("inf")])
def test_a_frame_rate_that_no_player_takes_is_named(fps: float, tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=rf"at {fps} frames per second; use 0\.01 to 1000"):
        VideoWriter(tmp_path / "out.mp4", fps=fps)


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("frames_before", [0, 3])
def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(
    suffix: str, frames_before: int, tmp_path: Path
) -> None:
    path = tmp_path / f"out{suffix}"
    path.write_text("old")

    def frames() -> Iterator[annotated_video.Frame]:
        yield from [frame(1)] * frames_before
        raise RuntimeError("decoder stopped")

    with pytest.raises(RuntimeError, match="decoder stopped"):
        save_annotated(frames(), path, fps=25, captions=lambda seconds: LABELS)
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [(path.name, "old")]


def test_what_the_encoder_refuses_is_one_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"cannot write '.*out\.mp4': "):
        write(tmp_path / "out.mp4", [frame(1, height=2, width=20000)])
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"folder '.*nowhere' does not exist"):
        write(tmp_path / "nowhere" / "out.mp4", [frame(1)])


@pytest.mark.parametrize("name", ["a:b %03d 'x' [1].mp4", "http:x.gif", "caf\udce9.mp4", "-.gif"])
def test_any_name_can_be_written(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, [frame(1)])
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).stat().st_size > 0


def test_a_relative_path_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("pipe:x.mp4"), [frame(1)])
    assert os.listdir(tmp_path) == ["pipe:x.mp4"]


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_frame_is_refused_with_its_type_and_shape(image: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \(H, W, 3\), got (uint8|float64) \("):
        write(tmp_path / "out.mp4", [image])


def test_without_an_h264_encoder_the_file_is_mpeg4_and_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str, mode: str) -> None:
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av.codec, "Codec", missing)
    annotated_video._say_mpeg4.cache_clear()
    try:
        for fps in (25, 120000 / 1001):
            write(tmp_path / "out.mp4", [frame(20 * n) for n in range(5)], fps=fps)
    finally:
        annotated_video._say_mpeg4.cache_clear()
    stream, images = read_mp4(tmp_path / "out.mp4")
    assert stream.codec_context.name == "mpeg4"
    assert np.abs(images[4].astype(int) - frame(80)).mean() < 6
    assert capsys.readouterr().err.count("no H.264 encoder (libx264)") == 1


def test_captions_are_asked_for_at_each_frames_time_and_drawn_on_it(tmp_path: Path) -> None:
    asked = []

    def captions(seconds: float) -> annotated_video.Captions:
        asked.append(seconds)
        return LABELS if seconds >= 0.2 else []

    frames = [frame(90, height=120, width=160)] * 4
    save_annotated(iter(frames), tmp_path / "out.mp4", fps=10, captions=captions)
    assert asked == pytest.approx([0, 0.1, 0.2, 0.3])
    _, images = read_mp4(tmp_path / "out.mp4")
    darker = [np.abs(image.astype(int) - frames[0])[5:30, 5:150].mean() > 20 for image in images]
    assert darker == [False, False, True, True]


def test_captions_of_frames_that_a_gif_leaves_out_are_not_drawn(tmp_path: Path) -> None:
    asked = []

    def captions(seconds: float) -> annotated_video.Captions:
        asked.append(seconds)
        return LABELS

    save_annotated(iter([frame(90, height=120, width=160)] * 5), tmp_path / "out.gif", fps=25, captions=captions)
    assert asked == pytest.approx([0, 0.08, 0.16])


def test_text_is_drawn_after_shrinking_so_that_it_stays_sharp(tmp_path: Path) -> None:
    shapes = []

    def draw(image: annotated_video.Frame) -> annotated_video.Frame:
        shapes.append(image.shape)
        return image

    with VideoWriter(tmp_path / "out.mp4", fps=5, max_side=100) as writer:
        writer.write(frame(1, height=100, width=200), draw=draw)
    assert shapes == [(50, 100, 3)]


def test_captions_stay_inside_their_box_and_leave_the_frame_they_got_alone() -> None:
    image = frame(200, height=360, width=640)
    before = image.copy()
    shown = draw_captions(image, [("a very long label that cannot fit " * 5, 1.0), ("short", 0.0)])
    assert np.array_equal(image, before)
    changed = np.argwhere((shown != image).any(axis=2))
    top, left = changed.min(axis=0)
    bottom, right = changed.max(axis=0)
    assert 0 < top < bottom < 180
    assert 0 < left < right < 320
    assert shown[top:bottom, left:right].max() == 255


def test_a_bar_is_as_long_as_its_score() -> None:
    image = frame(0, height=360, width=640)
    lengths = []
    for score in (0.0, 0.5, 1.0):
        blue = draw_captions(image, [("", score)])[..., 2].astype(int)
        lengths.append(int((np.median(blue[8:24], axis=0) > 100).sum()))
    assert lengths[0] < 20
    assert lengths[1] == pytest.approx(lengths[2] / 2, abs=15)
    assert lengths[2] > 200


def test_a_box_is_rendered_once_for_equal_captions() -> None:
    annotated_video._caption_box.cache_clear()
    for n in range(10):
        draw_captions(frame(n, height=120, width=160), [("surfing", 0.5 + n / 10000)])
    assert annotated_video._caption_box.cache_info().misses == 1


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200),
    st.integers(1, 300),
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=()), max_size=30), st.floats(allow_nan=True, allow_infinity=True)
        ),
        max_size=12,
    ),
)
def test_any_label_in_any_script_can_be_drawn_on_any_size(
    height: int, width: int, captions: annotated_video.Captions
) -> None:
    shown = draw_captions(frame(9, height=height, width=width), captions)
    assert shown.shape == (height, width, 3)
    assert shown.dtype == np.uint8


@pytest.fixture
def _no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without fonts; what was found on this one is forgotten."""
    monkeypatch.setattr(fonts, "_system_fonts", lambda: ())
    for cached in (fonts._font_for, annotated_video._caption_box):
        cached.cache_clear()
    yield
    for cached in (fonts._font_for, annotated_video._caption_box):
        cached.cache_clear()


@pytest.mark.usefixtures("_no_system_fonts")
def test_accents_that_the_font_lacks_fall_back_to_their_letter() -> None:
    image = frame(9, height=240, width=320)
    assert np.array_equal(draw_captions(image, [("café", 0.5)]), draw_captions(image, [("cafe", 0.5)]))


@pytest.mark.usefixtures("_no_system_fonts")
def test_letters_that_the_font_lacks_are_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    fonts._say_boxes.cache_clear()
    for label in ("跑步", "书法"):
        draw_captions(frame(9, height=240, width=320), [(label, 0.5)])
    assert capsys.readouterr().err.count("\n") == 1
