"""torchcodec-cuda: the wiring of a card's decoder, on a machine without a card."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dualformer_cli.errors import VideoError
from dualformer_cli.video import torchcodec_reader
from dualformer_cli.video.open import open_video
from dualformer_cli.video.torchcodec_cuda_reader import CARD_VARIABLE, difference_from_exact


class OnCard:
    """A picture on a card: there are no numbers before it is copied."""

    def __init__(self, picture: Any) -> None:
        self.picture = picture

    def cpu(self) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.picture))


class Card:
    """torchcodec's decoder of a clip of 25 frames per second on a card that makes each level brighter."""

    def __init__(self, frames: list[Any], *, brighter: int = 2, falls_back: bool = False) -> None:
        self.frames, self.brighter, self.cpu_fallback = frames, brighter, falls_back
        self.devices: list[str] = []

    def __call__(self, path: str, *, device: str, **options: Any) -> Card:
        assert options == {"stream_index": 0, "dimension_order": "NHWC", "num_ffmpeg_threads": 1}
        self.devices.append(device)
        return self

    def __len__(self) -> int:
        return len(self.frames)

    def get_frame_at(self, index: int) -> Any:
        levels = np.minimum(self.frames[index].astype(int) + self.brighter, 255).astype(np.uint8)
        return SimpleNamespace(data=OnCard(levels), pts_seconds=index / 25)


def put_in(monkeypatch: pytest.MonkeyPatch, card: Card) -> None:
    monkeypatch.setattr(torchcodec_reader, "load_torchcodec", lambda: SimpleNamespace(VideoDecoder=card))


@pytest.mark.parametrize(("variable", "device"), [(None, "cuda:0"), ("cuda:3", "cuda:3")])
def test_frames_come_from_the_card_of_the_process_into_memory(
    clips: Any, monkeypatch: pytest.MonkeyPatch, variable: str | None, device: str
) -> None:
    monkeypatch.delenv(CARD_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(CARD_VARIABLE, variable)
    expected = clips.frames("h264.mp4")
    card = Card(expected)
    put_in(monkeypatch, card)
    with open_video(clips.path("h264.mp4"), decoder="torchcodec-cuda") as reader:
        assert (reader.info.decoder, reader.warnings) == ("torchcodec-cuda", [])
        frames = reader.read([30, 4])
    assert card.devices == [device]
    assert (type(frames), frames.dtype) == (np.ndarray, np.uint8)
    assert (frames == np.minimum(np.stack([expected[30], expected[4]]).astype(int) + 2, 255)).all()


def test_what_the_card_leaves_to_the_processor_is_said(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, Card(clips.frames("h264.mp4"), falls_back=True))
    with open_video(clips.path("h264.mp4"), decoder="torchcodec-cuda") as reader:
        assert reader.warnings == ["decoded by the processor, as the card does not decode such h264"]


def test_a_picture_that_is_another_one_is_refused(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put_in(monkeypatch, Card([np.rot90(frame, 2) for frame in clips.frames("h264.mp4")]))
    with pytest.raises(VideoError) as caught:
        open_video(clips.path("h264.mp4"), decoder="torchcodec-cuda")
    reason = "torchcodec-cuda shows another first picture, or turns it otherwise; use --set data.decoder=auto"
    assert caught.value.reason == reason


def test_the_difference_is_that_of_the_cards_levels_from_the_exact_ones(
    clips: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in(monkeypatch, Card(clips.frames("h264.mp4"), brighter=3))
    mean, most = difference_from_exact(str(clips.path("h264.mp4")))
    assert most == 3
    assert 2.5 < mean <= 3.0  # white stays white


def test_without_a_card_a_video_is_refused(clips: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **options: Any) -> Any:
        raise RuntimeError(f"no kernel for {options['device']}")

    monkeypatch.setattr(torchcodec_reader, "load_torchcodec", lambda: SimpleNamespace(VideoDecoder=fail))
    with pytest.raises(VideoError, match=r"torchcodec-cuda fails on it; use --set data\.decoder=auto"):
        open_video(clips.path("h264.mp4"), decoder="torchcodec-cuda")
