"""What cannot be read is called what it is, colour matrices that FFmpeg does not know are named or replaced, and a file
is not looked into more often than that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest

from dualformer_cli.errors import VideoError
from dualformer_cli.video.open import open_video


def render(path: Path, codec: str = "libx264", *, muxer: Any = None, matrix: str = "", pixels: str = "yuv420p") -> None:
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(
            codec, rate=25, options={"x264-params": f"colormatrix={matrix}"} if matrix else {}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
        for _ in range(10):
            picture = np.full((48, 64, 3), (50, 80, 200), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24").reformat(format=pixels)))
        container.mux(stream.encode(None))


def refusal_of(path: Path) -> str:
    with pytest.raises(VideoError) as caught:
        open_video(path)
    return str(caught.value).partition(": ")[2]


def test_segments_of_a_stream_are_told_apart(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    render(whole, muxer={"movflags": "frag_keyframe+empty_moov"})
    data = whole.read_bytes()
    cut = data.index(b"moof") - 4
    first, later, typed = tmp_path / "init.mp4", tmp_path / "1.m4s", tmp_path / "2.m4s"
    first.write_bytes(data[:cut])
    later.write_bytes(data[cut:])
    typed.write_bytes(b"\0\0\0\x10stypmsdh\0\0\0\0" + data[cut:])
    assert refusal_of(first).startswith("an initialization segment without any frames")
    assert refusal_of(later).startswith("a media segment without its initialization segment")
    assert refusal_of(typed).startswith("a media segment without its initialization segment")


def test_pictures_that_move_are_not_called_an_image(tmp_path: Path) -> None:
    pictures = [PIL.Image.new("RGB", (32, 32), (number * 30, 0, 0)) for number in range(5)]
    animated, still, jpeg, raw = (tmp_path / name for name in ("a.webp", "b.webp", "c.jpg", "d.mjpeg"))
    pictures[0].save(animated, save_all=True, append_images=pictures[1:])
    pictures[0].save(still)
    pictures[0].save(jpeg)
    render(raw, "mjpeg", pixels="yuvj420p")
    assert refusal_of(animated).startswith("an animated WebP")
    with open_video(raw) as reader:
        assert reader.info.num_frames == 10
    assert refusal_of(still) == refusal_of(jpeg) == "an image, not a video"


def test_a_matrix_that_nothing_comes_close_to_is_the_reason_given(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    render(path, matrix="YCgCo")
    with open_video(path) as reader, pytest.raises(VideoError, match="its colour matrix, YCgCo, cannot be turned"):
        reader.read([0])


def test_a_matrix_that_is_close_to_a_known_one_is_read_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    render(path, matrix="chroma-derived-nc")
    with open_video(path) as reader:
        assert np.abs(reader.read([5])[0].astype(int) - (50, 80, 200)).max() < 6
        assert [warning.partition(";")[0] for warning in reader.warnings] == ["its colour matrix is chroma-derived"]


def test_constant_luminance_is_read_by_the_usual_matrix_of_its_standard(tmp_path: Path) -> None:
    pictures = []
    for matrix in ("bt2020c", "bt2020nc", "smpte170m"):
        render(tmp_path / f"{matrix}.mp4", matrix=matrix)
        with open_video(tmp_path / f"{matrix}.mp4") as reader:
            pictures.append(reader.read([5])[0].astype(int))
    constant, usual, older = pictures
    assert (constant == usual).all()
    assert np.abs(constant - older).max() > 6


@pytest.mark.parametrize("larger_is_default", [False, True])
def test_the_default_stream_wins_over_the_largest(tmp_path: Path, larger_is_default: bool) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        streams = []
        for size, is_default in ((64, not larger_is_default), (128, larger_is_default)):
            stream = container.add_stream("libx264", rate=25)
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.disposition = av.stream.Disposition.default.value if is_default else 0
            streams.append(stream)
        for stream in streams:
            for _ in range(5):
                picture = av.VideoFrame.from_ndarray(np.zeros((stream.height, stream.width, 3), np.uint8), "rgb24")
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
    with open_video(path) as reader:
        assert reader.info.width == (128 if larger_is_default else 64)


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that were opened otherwise than by FFmpeg."""
    opened: list[Any] = []
    real = open

    def counting(file: Any, *args: Any, **options: Any) -> Any:
        opened.append(file)
        return real(file, *args, **options)

    monkeypatch.setattr("builtins.open", counting)
    return opened


def test_the_boxes_of_an_mp4_are_walked_over_once_per_opening(tmp_path: Path, readings: list[Any]) -> None:
    plain, whole, first = tmp_path / "plain.mp4", tmp_path / "whole.mp4", tmp_path / "init.mp4"
    render(plain)
    render(whole, muxer={"movflags": "frag_keyframe+empty_moov"})
    data = whole.read_bytes()
    first.write_bytes(data[: data.index(b"moof") - 4])
    readings.clear()
    open_video(plain).close()
    assert readings.count(str(plain)) == 2  # its first bytes, and its boxes
    refusal_of(first)
    assert readings.count(str(first)) == 2


def test_a_file_that_is_known_is_read_by_ffmpeg_alone(tmp_path: Path, readings: list[Any]) -> None:
    path = tmp_path / "clip.mp4"
    render(path)
    with open_video(path) as reader:
        index = reader.index
    readings.clear()
    with open_video(path, index=index) as reader:
        reader.read([3, 7])
    assert readings == []
