"""torchcodec gives the frames of a sequential decode, or the video is refused by name."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from dualformer_cli.config.schema import Decoder
from dualformer_cli.errors import VideoError
from dualformer_cli.video import torchcodec_reader
from dualformer_cli.video.open import open_video
from dualformer_cli.video.torchcodec_reader import load_torchcodec

needs_torchcodec = pytest.mark.skipif(
    load_torchcodec() is None, reason="torchcodec, or FFmpeg for it, is not installed"
)

TO_THE_BIT = [
    "h264.mp4",
    "h264.mkv",
    "h264_front.mp4",
    "h264_444.mp4",
    "h264_odd_size.mp4",
    "h264_one_frame.mp4",
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
NEARLY = ["h264_10bit.mp4", "h264_interlaced.mp4"]
REFUSED = {
    "mpeg4.avi": "misplaces frames that the times of packets do not lead to, as in avi with mpeg4",
    "h264.avi": "misplaces frames that the times of packets do not lead to, as in avi with h264",
    "h264.ts": "misplaces frames that the times of packets do not lead to, as in mpegts with h264",
    "h264.h264": "misplaces frames that the times of packets do not lead to, as in h264 with h264",
    "mpeg2.mpg": "misplaces frames that the times of packets do not lead to, as in mpeg with mpeg2video",
    "h264_intra_refresh.mp4": "starts at packets that the file calls key frames and that are none",
    "mirrored.mp4": "does not mirror pictures",
}


@needs_torchcodec
@pytest.mark.parametrize("name", TO_THE_BIT + NEARLY)
def test_frames_by_number_are_those_of_a_sequential_decode(clips: Any, name: str) -> None:
    expected = np.stack(clips.frames(name))
    rng = random.Random(name)
    with open_video(clips.path(name), decoder="torchcodec") as reader:
        assert (reader.info.decoder, reader.info.num_frames, reader.warnings) == ("torchcodec", len(expected), [])
        for count in (1, 3, 12):
            indices = [rng.randrange(len(expected)) for _ in range(count)]
            difference = np.abs(reader.read(indices).astype(int) - expected[indices])
            assert difference.mean() <= (0 if name in TO_THE_BIT else 0.6)
        difference = np.abs(np.stack(list(reader.frames())).astype(int) - expected)
        assert difference.mean() <= (0 if name in TO_THE_BIT else 0.6)


@needs_torchcodec
def test_a_frame_that_torchcodec_cannot_reach_is_refused(clips: Any) -> None:
    expected, refused = clips.frames("h264_open_groups.mp4"), []
    with open_video(clips.path("h264_open_groups.mp4"), decoder="torchcodec") as reader:
        for index in range(40):
            try:
                assert (reader.read([index])[0] == expected[index]).all()
            except VideoError as error:
                refused.append((index, error.reason))
    assert refused in ([], [(39, "torchcodec fails on frame 39; use --set data.decoder=auto")])  # by FFmpeg's version


@needs_torchcodec
@pytest.mark.parametrize("name", ["h264.mp4", "h264_444.mp4", "vp9.webm"])
def test_a_known_index_gives_the_same_reader_and_frames(clips: Any, name: str) -> None:
    with open_video(clips.path(name), decoder="torchcodec") as reader:
        info, index, frames = reader.info, reader.index, reader.read([31, 2])
    assert index is not None
    with open_video(clips.path(name), decoder="torchcodec", index=index) as reader:
        assert reader.info == info
        assert (reader.read([31, 2]) == frames).all()


def in_place_of_torchcodec(monkeypatch: pytest.MonkeyPatch, decoder: Callable[..., Any]) -> None:
    monkeypatch.setattr(torchcodec_reader, "load_torchcodec", lambda: SimpleNamespace(VideoDecoder=decoder))


@pytest.mark.parametrize("name", REFUSED)
def test_what_torchcodec_would_get_wrong_is_refused_by_name(
    clips: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_place_of_torchcodec(monkeypatch, lambda *_, **__: pytest.fail("asked torchcodec"))
    with pytest.raises(VideoError) as caught:
        open_video(clips.path(name), decoder="torchcodec")
    assert str(caught.value) == f"{str(clips.path(name))!r}: torchcodec {REFUSED[name]}; use --set data.decoder=auto"


@needs_torchcodec
@pytest.mark.parametrize("name", ["mpeg4.avi", "h264.avi", "h264_intra_refresh.mp4"])
def test_what_is_refused_is_what_torchcodec_gets_wrong(clips: Any, name: str) -> None:
    torchcodec, wrong = load_torchcodec(), 0
    decoder = torchcodec.VideoDecoder(str(clips.path(name)), dimension_order="NHWC", device="cpu")
    for index in (31, 7, 19, 3, 38, 11):
        try:
            frame = decoder.get_frame_at(index).data.numpy()
        except RuntimeError:
            wrong += 1
            continue
        wrong += clips.number_of(frame) != index
    assert wrong


class FakeDecoder:
    """The decoder of torchcodec for a clip of 25 frames per second, and what may be wrong with it."""

    def __init__(self, frames: list[Any], fault: str = "") -> None:
        self.frames, self.fault = frames, fault

    def __call__(self, path: str, **options: Any) -> FakeDecoder:
        assert options == {"stream_index": 0, "dimension_order": "NHWC", "num_ffmpeg_threads": 1, "device": "cpu"}
        if self.fault == "refuses":
            raise RuntimeError("no such codec")
        return self

    def __len__(self) -> int:
        return len(self.frames) - (self.fault == "count")

    def get_frame_at(self, index: int) -> Any:
        frame, seconds = self.frames[index], 7 + index / 25
        if self.fault == "picture":
            frame = frame[:, ::-1].copy()
        if self.fault == "size" and index == 5:
            frame = frame[:48]
        if self.fault == "time" and index == 5:
            seconds += 1 / 25
        if self.fault == "read" and index == 5:
            raise RuntimeError("Requested next frame while there are no more frames left to decode.")
        return SimpleNamespace(data=torch.from_numpy(np.ascontiguousarray(frame)), pts_seconds=seconds)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("", ""),
        ("refuses", "fails on it"),
        ("count", "counts 39 frames, PyAV 40"),
        ("picture", "shows another first picture, or turns it otherwise"),
        ("time", "shows frame 5 at another time"),
        ("size", "makes frame 5 128x48 pixels, not of the first's size"),
        ("read", "fails on frame 5"),
    ],
)
def test_a_frame_that_is_not_the_one_asked_for_is_noticed(
    clips: Any, fault: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = clips.frames("h264.mp4")
    in_place_of_torchcodec(monkeypatch, FakeDecoder(expected, fault))
    reasons = []
    try:
        with open_video(clips.path("h264.mp4"), decoder="torchcodec") as reader:
            assert (reader.read([4, 30]) == np.stack([expected[4], expected[30]])).all()
            assert (reader.read([5])[0] == expected[5]).all()
    except VideoError as error:
        reasons.append(error.reason)
    assert reasons == ([f"torchcodec {reason}; use --set data.decoder=auto"] if fault else [])


@pytest.mark.parametrize("missing", ["torchcodec", "torchcodec.decoders"])
def test_a_missing_torchcodec_is_named(clips: Any, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torchcodec.decoders", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        VideoError, match="torchcodec or FFmpeg, which it needs, is not installed; pip install torchcodec"
    ):
        open_video(clips.path("h264.mp4"), decoder="torchcodec")


def test_torchcodec_needs_pyav(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_place_of_torchcodec(monkeypatch, lambda *_, **__: pytest.fail("asked torchcodec"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match="PyAV is not installed; pip install av"):
        open_video(clips.path("h264.mp4"), decoder="torchcodec")


def test_every_decoder_of_the_configuration_is_a_file_and_every_file_is_in_the_configuration() -> None:
    folder = Path(torchcodec_reader.__file__).parent
    assert {
        "auto",
        *(path.name.removesuffix("_reader.py").replace("_", "-") for path in folder.glob("*_reader.py")),
    } == set(get_args(Decoder))
