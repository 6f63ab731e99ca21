"""Frames by torchcodec on an NVIDIA card: nearly those that PyAV gives, as a card makes other RGB of a picture."""

from __future__ import annotations

import os

import numpy as np

from dualformer_cli.video.pyav_reader import PyAVReader
from dualformer_cli.video.reader import FileIndex
from dualformer_cli.video.torchcodec_reader import TorchcodecReader

CARD_VARIABLE = "DUALFORMER_DECODING_CARD"
"""Environment variable by which worker processes know on which card they decode; cuda:0 without it."""
_COMPARED_FRAMES = 8


class TorchcodecCudaReader(TorchcodecReader):
    """The frames of a `TorchcodecReader`, decoded by a card and copied back.

    The same packets and times are checked. The first picture may differ by more, as the card's colours do.
    """

    name = "torchcodec-cuda"
    most_levels = 8.0  # an upside-down or torn picture differs by more

    def __init__(self, path: str, index: FileIndex | None = None) -> None:
        self.device = os.environ.get(CARD_VARIABLE, "cuda:0")
        super().__init__(path, index)
        if self._decoder.cpu_fallback:
            self._warn(f"decoded by the processor, as the card does not decode such {self.info.codec}")


def difference_from_exact(path: str) -> tuple[float, int]:
    """Return by how many grey levels frames of a video that the card decodes differ from PyAV's: mean, and most.

    Raises:
        VideoError: if one of both cannot decode it.
    """
    with TorchcodecCudaReader(path) as card, PyAVReader(path) as exact:
        last = card.info.num_frames - 1
        numbers = [round(last * place / (_COMPARED_FRAMES - 1)) for place in range(_COMPARED_FRAMES)]
        levels = np.abs(card.read(numbers).astype(np.int16) - exact.read(numbers))
    return float(levels.mean()), int(levels.max())


READER = TorchcodecCudaReader
