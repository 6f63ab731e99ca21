"""Encrypted videos are refused as such, wherever the file says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.errors import VideoError
from dualformer_cli.video.open import open_video

KEY = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


def render(path: Path, options: dict[str, str], *, num_frames: int = 20) -> bytes:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number * 10, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


def without(data: bytes, *kinds: bytes) -> bytes:
    for kind in kinds:
        assert kind in data
        data = data.replace(kind, b"free")
    return data


def assert_refused(path: Path, decoder: Any = "pyav") -> None:
    with pytest.raises(VideoError, match=r"encrypted; it cannot be read$"):
        open_video(path, decoder=decoder)


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("flags", ["", "frag_keyframe+empty_moov", "faststart"])
def test_an_encrypted_mp4_is_refused(tmp_path: Path, flags: str, decoder: Any) -> None:
    if decoder == "decord":
        pytest.importorskip("decord")
    path = tmp_path / "clip.mp4"
    render(path, KEY | ({"movflags": flags} if flags else {}))
    assert_refused(path, decoder)


@pytest.mark.parametrize("gone", [(b"senc", b"saiz", b"saio"), (b"tenc",), (b"tenc", b"senc", b"saiz", b"saio")])
def test_an_encrypted_entry_is_refused_when_its_packets_say_nothing(tmp_path: Path, gone: tuple[bytes, ...]) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(without(render(path, KEY), *gone))
    assert_refused(path)


def test_a_protected_entry_of_an_older_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.m4v"
    path.write_bytes(render(path, KEY | {"f": "mp4"}).replace(b"encv", b"drmi"))
    assert_refused(path)


def test_a_protected_entry_whose_packets_are_encrypted_one_by_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    data = bytearray(render(path, KEY))
    place = data.index(b"tenc") + 4 + 6
    assert data[place] == 1
    data[place] = 0  # not encrypted unless said otherwise, and the packets say otherwise
    path.write_bytes(data)
    assert_refused(path)


def test_a_protected_entry_with_clear_packets_is_read(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    protected = render(path, KEY)
    start = protected.index(b"sinf") - 4
    sinf = bytearray(protected[start : start + int.from_bytes(protected[start : start + 4], "big")])
    sinf[sinf.index(b"tenc") + 10 : sinf.index(b"tenc") + 12] = b"\0\0"
    data = bytearray(render(path, {}))  # its index lies at the end: nothing else moves when it grows
    assert data.index(b"mdat") < data.index(b"moov")
    entry = data.index(b"avc1", data.index(b"stsd"))
    size = int.from_bytes(data[entry - 4 : entry], "big")
    data[entry : entry + 4] = b"encv"
    data[entry - 4 + size : entry - 4 + size] = sinf
    for kind in (b"encv", b"stsd", b"stbl", b"minf", b"mdia", b"trak", b"moov"):
        place = data.index(kind, data.index(b"moov")) - 4
        data[place : place + 4] = (int.from_bytes(data[place : place + 4], "big") + len(sinf)).to_bytes(4, "big")
    path.write_bytes(data)
    with open_video(path) as reader:
        assert reader.info.num_frames == 20
        assert abs(float(reader.read([15]).mean()) - 150) < 4


def test_an_encrypted_matroska_is_refused(tmp_path: Path) -> None:
    def element(name: str, content: bytes) -> bytes:
        return bytes.fromhex(name) + bytes([0x80 | len(content)]) + content

    path = tmp_path / "clip.mkv"
    data = render(path, {})
    encryption = element("5035", element("47E1", b"\5") + element("47E2", b"0123456789abcdef"))
    encodings = element("6D80", element("6240", element("5033", b"\1") + encryption))
    segment, tracks = data.index(bytes.fromhex("18538067")) + 4, data.rindex(bytes.fromhex("1654AE6B")) + 4
    entry = data.index(b"\xae", tracks) + 1
    start, size = number_at(data, entry)
    grown = bytearray(data[: start + size] + encodings + data[start + size :])
    for place in (segment, tracks, entry):
        start, size = number_at(data, place)
        marker = 1 << 7 * (start - place)
        grown[place:start] = (marker | size + len(encodings)).to_bytes(start - place, "big")
    path.write_bytes(grown)
    assert_refused(path)


def number_at(data: bytes, place: int) -> tuple[int, int]:
    """Return where the size that Matroska writes here ends, and the size."""
    num_bytes = 9 - data[place].bit_length()
    return place + num_bytes, int.from_bytes(data[place : place + num_bytes], "big") & (1 << 7 * num_bytes) - 1


def test_prepare_says_that_a_video_is_encrypted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        render(tmp_path / "videos" / name / "clear.mp4", {})
    render(tmp_path / "videos" / "b" / "hidden.mp4", KEY)
    made = CliRunner().invoke(app, ["prepare", str(tmp_path / "videos")])
    rows = "".join(path.read_text() for path in tmp_path.rglob("*.csv"))
    assert "broken: encrypted; it cannot be read" in rows, made.output
