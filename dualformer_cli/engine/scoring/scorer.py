"""Views to scores: the one place where the model runs over clips of a video."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from math import prod
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.engine.parallel.upload import upload
from dualformer_cli.engine.scoring.video_scores import Features, Scores
from dualformer_cli.model.cpu_pieces import PIECE_NUMBERS, for_each_piece
from dualformer_cli.model.dualformer import DualFormer, Stage

_LOGGER = logging.getLogger(__name__)


class Scorer:
    """Runs a model over the views of one video at a time, so that a score never depends on other videos.

    A GPU takes 16 views at a time, or what its memory holds. On a CPU each thread takes a view of its own, and no two
    threads wait for each other before the end of a video; views of a large model that are fewer than the threads are
    computed one after the other, each by all threads.

    Args:
        model: on its device, in the mode and precision that it is to run in.
        mean, std: of red, green, blue, in grey levels.
        multi_label: scores are sigmoids, not a softmax.
        compile: compile the forward pass.
        autocast: run in this lower precision over float32 weights, as training does.
    """

    def __init__(
        self,
        model: DualFormer,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        multi_label: bool = False,
        compile: bool = False,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model, self.mean, self.std, self.multi_label = model, mean, std, multi_label
        self.parameter = next(model.parameters())
        self.autocast = autocast
        self.batch_size = 16 if self.parameter.device.type == "cuda" else 1
        self._is_compiled = compile
        self._tokens: Callable[[Tensor], Tensor] = (
            torch.compile(model.forward_tokens) if compile else model.forward_tokens
        )

    def score(self, clips: npt.NDArray[np.uint8]) -> tuple[Scores, Features]:
        """Views (v, T, H, W, 3) to scores (v, classes), which sum to 1 unless multi-label, and features (v, c).

        Views that are equal, as all clips of a video shorter than one are, are computed once.
        """
        places, distinct = _distinct(clips)
        scores, features = self._score_all(clips if len(distinct) == len(clips) else clips[distinct])
        return scores[places], features[places]

    def _score_all(self, clips: npt.NDArray[np.uint8]) -> tuple[Scores, Features]:
        parts = self._score_on_threads(clips)
        start = len(parts)
        while start < len(clips):
            try:
                parts.append(self._score_batch(clips[start : start + self.batch_size]))
                start += self.batch_size
            except torch.OutOfMemoryError:
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                torch.cuda.empty_cache()
                _LOGGER.warning("GPU memory is full: scoring %d views at a time", self.batch_size)
        scores, features = (torch.cat(part).cpu().numpy() for part in zip(*parts, strict=True))
        return scores, features

    def _score_on_threads(self, clips: npt.NDArray[np.uint8]) -> list[tuple[Tensor, Tensor]]:
        """Score the first views, each on a thread of its own: as many as keep all threads busy to the end."""
        num_threads = torch.get_num_threads()
        if self.parameter.device.type != "cpu" or self._is_compiled:
            return []
        count = len(clips) if self._is_small(clips) else len(clips) // num_threads * num_threads
        parts: list[tuple[Tensor, Tensor] | None] = [None] * count

        def score(number: int) -> None:
            parts[number] = self._score_batch(clips[number : number + 1])

        for_each_piece(score, range(count))
        return cast(list[tuple[Tensor, Tensor]], parts)

    def _is_small(self, clips: npt.NDArray[np.uint8]) -> bool:
        """Return whether a view's largest activation is a single piece, so that one thread computes it anyway."""
        dim, _, *patch = cast(Stage, self.model.stages[0]).patch_embed.proj.weight.shape
        return prod(clips.shape[1:4]) // prod(patch) * dim <= PIECE_NUMBERS

    def _score_batch(self, clips: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Scores and features on the device, which may still compute them while the next views are uploaded."""
        device, dtype = self.parameter.device, self.parameter.dtype
        with torch.inference_mode(), torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            tokens = self._tokens(normalize(upload(clips, device), self.mean, self.std, dtype))
            logits = self.model.classify(tokens).double()
            scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
            return scores, tokens.float().mean(dim=(1, 2, 3))


def _distinct(clips: npt.NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    """Return for each view the place of its equal among those that differ, and which views these are."""
    places: list[int] = []
    distinct: list[int] = []
    for number, clip in enumerate(clips):
        equals = (place for place, other in enumerate(distinct) if _is_equal(clip, clips[other]))
        place = next(equals, len(distinct))
        if place == len(distinct):
            distinct.append(number)
        places.append(place)
    return places, distinct


def _is_equal(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> bool:
    """Compare two views, a few of their pixels first."""
    return np.array_equal(a[:, ::16, ::16], b[:, ::16, ::16]) and np.array_equal(a, b)
