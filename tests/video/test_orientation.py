"""Stored pictures are shown the right way up: turned and mirrored, by container or stream, read or transcoded."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from dualformer_cli.data.prepare.convert import Conversion, transcode
from dualformer_cli.video.decord_reader import load_decord
from dualformer_cli.video.open import open_video
from dualformer_cli.video.orientation import from_matrix

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 40), (40, 50, 220), (220, 210, 40)
STORED = (RED, GREEN, BLUE, YELLOW)
"""Upper left, upper right, lower left, lower right quarter of the picture in the file."""

UNIT = 1 << 16
SHOWN = {
    # matrix a, b, c, d: quarters as they are shown, worked out on paper from (x, y) -> (a x + c y, b x + d y)
    (1, 0, 0, 1): (RED, GREEN, BLUE, YELLOW),
    (-1, 0, 0, 1): (GREEN, RED, YELLOW, BLUE),
    (1, 0, 0, -1): (BLUE, YELLOW, RED, GREEN),
    (-1, 0, 0, -1): (YELLOW, BLUE, GREEN, RED),
    (0, 1, -1, 0): (BLUE, RED, YELLOW, GREEN),
    (0, -1, 1, 0): (GREEN, YELLOW, RED, BLUE),
    (0, 1, 1, 0): (RED, BLUE, GREEN, YELLOW),
    (0, -1, -1, 0): (YELLOW, GREEN, BLUE, RED),
    (0, 0, 0, 0): (RED, GREEN, BLUE, YELLOW),
}


def matrix_of(a: int, b: int, c: int, d: int) -> np.ndarray:
    return np.array([a * UNIT, b * UNIT, 0, c * UNIT, d * UNIT, 0, 0, 0, 1 << 30], np.int32)


def write(path: Path, width: int = 96, height: int = 64) -> Path:
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = STORED[:2]
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = STORED[2:]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def put_matrix(path: Path, matrix: np.ndarray) -> None:
    """Write a display matrix into the track header of an MP4 (ISO/IEC 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    place = header + 4 + (32 if data[header] else 20) + 16
    data[place : place + 36] = matrix.astype(">i4").tobytes()
    path.write_bytes(data)


def quarters(frame: np.ndarray) -> list[Any]:
    height, width = frame.shape[:2]
    return [frame[y, x] for y in (height // 4, height * 3 // 4) for x in (width // 4, width * 3 // 4)]


def assert_shown(path: Path, expected: tuple[Any, ...], size: tuple[int, int]) -> None:
    with open_video(path) as reader:
        assert (reader.info.width, reader.info.height) == size
        for frame in reader.read([0, 2]):
            assert frame.shape == (size[1], size[0], 3)
            assert np.abs(np.array(quarters(frame), int) - expected).max() < 12


@pytest.mark.parametrize(("entries", "expected"), SHOWN.items(), ids=str)
def test_the_whole_matrix_of_a_container_counts(tmp_path: Path, entries: Any, expected: Any) -> None:
    path = write(tmp_path / "in.mp4")
    put_matrix(path, matrix_of(*entries))
    is_turned = bool(entries[1])
    assert_shown(path, expected, (64, 96) if is_turned else (96, 64))
    with open_video(path) as reader:
        info, index = reader.info, reader.index
    with open_video(path, index=index) as again:
        assert again.info == info
        assert np.abs(np.array(quarters(again.read([1])[0]), int) - expected).max() < 12


@pytest.mark.skipif(load_decord() is None, reason="decord is not installed")
@pytest.mark.parametrize(("entries", "expected"), SHOWN.items(), ids=str)
def test_decord_gives_the_same_or_is_not_used(tmp_path: Path, entries: Any, expected: Any) -> None:
    path = write(tmp_path / "in.mp4", 64, 64)  # square, so that the size tells nothing
    put_matrix(path, matrix_of(*entries))
    with open_video(path, decoder="decord") as reader:
        assert np.abs(np.array(quarters(reader.read([2])[0]), int) - expected).max() < 12
        is_handed_over = any("turns it otherwise" in warning for warning in reader.warnings)
        assert is_handed_over or reader.info.decoder == "decord"


@pytest.mark.parametrize(("entries", "expected"), SHOWN.items(), ids=str)
def test_a_transcoded_copy_is_stored_upright(tmp_path: Path, entries: Any, expected: Any) -> None:
    path, target = write(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    put_matrix(path, matrix_of(*entries))
    size = (64, 96) if entries[1] else (96, 64)
    job = Conversion(
        source=str(path), target=str(target), short_side=256, quality=12, num_frames=3, width=size[0], height=size[1]
    )
    transcode(job)
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
        assert frame.side_data.get("DISPLAYMATRIX") is None
        assert np.abs(np.array(quarters(frame.to_ndarray(format="rgb24")), int) - expected).max() < 14


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("rotate=90", SHOWN[0, -1, 1, 0]),  # counter-clockwise, H.264 D.2.31
        ("rotate=180", SHOWN[-1, 0, 0, -1]),
        ("rotate=270", SHOWN[0, 1, -1, 0]),
        ("flip=horizontal", SHOWN[-1, 0, 0, 1]),
        ("flip=vertical", SHOWN[1, 0, 0, -1]),
    ],
)
def test_an_orientation_that_only_the_stream_states_counts(tmp_path: Path, option: str, expected: Any) -> None:
    source, path = write(tmp_path / "in.mp4", 64, 64), tmp_path / "out.mkv"
    with av.open(str(source)) as whole, av.open(str(path), "w") as part:
        stream = whole.streams.video[0]
        out = part.add_stream_from_template(stream)
        told = av.bitstream.BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{option}", stream, out)
        for packet in whole.demux(stream):
            for changed in told.filter(packet):
                changed.stream = out
                part.mux(changed)
    assert_shown(path, expected, (64, 64))


@pytest.mark.parametrize(
    ("degrees", "rotation"), [(10, 0), (40, 0), (50, 90), (100, 90), (200, 180), (300, 270), (350, 0)]
)
def test_a_turn_in_between_becomes_the_nearest_quarter(degrees: int, rotation: int) -> None:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))  # counter-clockwise, y downwards
    matrix = np.rint(np.array([cosine, -sine, 0, sine, cosine, 0, 0, 0, 0]) * UNIT).astype(np.int32)
    assert (from_matrix(matrix).rotation, from_matrix(matrix).is_mirrored) == (rotation, False)
