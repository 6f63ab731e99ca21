"""Small clips, rendered on first use, whose frames carry their number as eight bright or dark blocks."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

Frame = npt.NDArray[np.uint8]

_RATE = 25
_H264 = {"preset": "veryfast", "g": "12", "bf": "3", "x264-params": "scenecut=0"}
_X265 = "keyint=12:min-keyint=12:bframes=3:log-level=none"
_VPX = {"g": "12", "deadline": "realtime", "cpu-used": "8"}


@dataclass(frozen=True)
class Recipe:
    """How a clip is made; the defaults are H.264 with B-frames and a key frame every 12."""

    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: _H264)
    pix_fmt: str = "yuv420p"
    size: tuple[int, int] = (128, 96)
    num_frames: int = 40
    ticks: tuple[int, ...] | None = None
    """When each frame is shown, in ticks of 1/90 s; None: 25 frames per second."""
    muxer: dict[str, str] = field(default_factory=dict)
    made_from: str | None = None
    """The clip that `remake` turns into this one."""
    remake: Callable[[Path, Path], None] | None = None


def numbered_frame(number: int, width: int = 128, height: int = 96) -> Frame:
    """Draw a moving picture with `number` in its second quarter from the top."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 4] = 60 + number * 7 % 100
    frame[height // 2 :] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    frame[height // 2 :, :, 1] = np.roll(frame[height // 2 :, :, 1], number * 3, axis=1)
    block = width // 8
    for bit in range(8):
        frame[height // 4 : height // 2, bit * block : (bit + 1) * block] = 235 if number >> bit & 1 else 20
    return frame


def frame_number(frame: Frame) -> int:
    """Read the number that `numbered_frame` drew."""
    height, width = frame.shape[:2]
    band = frame[height // 4 + height // 16 : height // 2 - height // 16].mean(axis=(0, 2))
    block = width // 8
    return sum(
        1 << bit for bit in range(8) if band[bit * block + block // 4 : (bit + 1) * block - block // 4].mean() > 127
    )


def render(path: Path, recipe: Recipe) -> None:
    time_base = Fraction(1, 90 if recipe.ticks else _RATE)
    width, height = recipe.size
    with av.open(str(path), "w", options=recipe.muxer) as container:
        stream = container.add_stream(recipe.codec, rate=_RATE, options=recipe.options)
        stream.width, stream.height, stream.pix_fmt = width, height, recipe.pix_fmt
        stream.codec_context.time_base = time_base
        for number in range(recipe.num_frames):
            frame = av.VideoFrame.from_ndarray(numbered_frame(number, width, height), format="rgb24")
            frame = frame.reformat(format=recipe.pix_fmt)
            frame.pts = recipe.ticks[number] if recipe.ticks else number
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_plainly(path: Path) -> list[Frame]:
    """Decode a file from start to end in the simplest way, and turn each frame upright."""
    frames = []
    with av.open(str(path), metadata_errors="ignore") as container:
        for packet in container.demux(container.streams.video[0]):
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                continue
            frames += [np.rot90(f.to_ndarray(format="rgb24"), f.rotation % 360 // 90) for f in decoded]
    return frames


def _rotate(matrix: tuple[int, int, int, int]) -> Callable[[Path, Path], None]:
    """Write a display matrix into the header of an MP4."""

    def remake(source: Path, target: Path) -> None:
        data = bytearray(source.read_bytes())
        header = data.index(b"tkhd") + 4
        place = header + 4 + (32 if data[header] else 20) + 16
        a, b, c, d = (value << 16 for value in matrix)
        data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
        target.write_bytes(data)

    return remake


def _cut(source: Path, target: Path) -> None:
    """Copy packets from the key packet before frame 17 on; an edit list hides the frames before 17."""
    with av.open(str(source)) as whole, av.open(str(target), "w") as part:
        stream = whole.streams.video[0]
        copy = part.add_stream_from_template(stream)
        start = sorted(packet.pts for packet in whole.demux(stream) if packet.size)[17]
        whole.seek(start, stream=stream)
        for packet in whole.demux(stream):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, copy
                part.mux(packet)


RECIPES = {
    "h264.mp4": Recipe(),
    "h264.mkv": Recipe(),
    "h264_front.mp4": Recipe(muxer={"movflags": "faststart"}),
    "h264_open_groups.mp4": Recipe(options=_H264 | {"x264-params": "scenecut=0:open-gop=1"}),
    "h264_intra_refresh.mp4": Recipe(options=_H264 | {"bf": "0", "intra-refresh": "1"}),
    "h264_10bit.mp4": Recipe(pix_fmt="yuv420p10le"),
    "h264_444.mp4": Recipe(pix_fmt="yuv444p"),
    "h264_odd_size.mp4": Recipe(pix_fmt="yuv444p", size=(131, 97)),
    "h264_interlaced.mp4": Recipe(options=_H264 | {"flags": "+ilme+ildct", "x264-params": "tff=1:scenecut=0"}),
    "h264_one_frame.mp4": Recipe(num_frames=1),
    "h264_vfr.mp4": Recipe(ticks=tuple(int(t) for t in np.cumsum([0] + [1 + i * i % 5 for i in range(39)]))),
    "h264_vfr.mkv": Recipe(ticks=tuple(int(t) for t in np.cumsum([0] + [1 + i * i % 5 for i in range(39)]))),
    "h264.avi": Recipe(),
    "h264.ts": Recipe(),
    "h264.h264": Recipe(),
    "h264_small.h264": Recipe(size=(64, 48), num_frames=5),
    "mpeg4.mp4": Recipe("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg4.avi": Recipe("mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2.mpg": Recipe("mpeg2video", {"g": "12", "bf": "2"}),
    "mpeg2.mkv": Recipe("mpeg2video", {"g": "12", "bf": "2"}),
    "vp9.webm": Recipe("libvpx-vp9", _VPX),
    "vp8.webm": Recipe("libvpx", _VPX),
    "hevc.mp4": Recipe("libx265", {"preset": "ultrafast", "x265-params": _X265 + ":open-gop=0"}),
    "hevc_open_groups.mkv": Recipe("libx265", {"preset": "ultrafast", "x265-params": _X265 + ":open-gop=1"}),
    "av1.mp4": Recipe("libsvtav1", {"preset": "12", "g": "12"}),
    "mjpeg.mp4": Recipe("mjpeg", {}, "yuvj420p"),
    "mjpeg.avi": Recipe("mjpeg", {}, "yuvj420p"),
    "mpeg4_keys.avi": Recipe("mpeg4", {"g": "1"}),
    "rotated_90.mp4": Recipe(made_from="h264.mp4", remake=_rotate((0, 1, -1, 0))),
    "rotated_180.mp4": Recipe(made_from="h264.mp4", remake=_rotate((-1, 0, 0, -1))),
    "rotated_270.mp4": Recipe(made_from="h264.mp4", remake=_rotate((0, -1, 1, 0))),
    "mirrored.mp4": Recipe(made_from="h264.mp4", remake=_rotate((-1, 0, 0, 1))),
    "edit_list.mp4": Recipe(made_from="h264.mp4", remake=_cut),
}


class Clips:
    """Paths and frames of the clips in RECIPES, made on first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._frames: dict[str, list[Frame]] = {}

    def path(self, name: str) -> Path:
        path = self.folder / name
        if path.exists():
            return path
        recipe = RECIPES[name]
        try:
            av.Codec(recipe.codec, "w")
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this PyAV has no encoder {recipe.codec}")
        if recipe.remake is None:
            render(path, recipe)
        else:
            assert recipe.made_from is not None
            recipe.remake(self.path(recipe.made_from), path)
        return path

    def frames(self, name: str) -> list[Frame]:
        """Return every frame as a plain sequential decode gives it."""
        if name not in self._frames:
            self._frames[name] = decode_plainly(self.path(name))
        return self._frames[name]

    @staticmethod
    def number_of(frame: Frame) -> int:
        return frame_number(frame)

    @staticmethod
    def plain_decode(path: Path) -> list[Frame]:
        return decode_plainly(path)

    @staticmethod
    def draw(number: int, width: int = 128, height: int = 96) -> Frame:
        return numbered_frame(number, width, height)
