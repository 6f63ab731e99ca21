"""Views to scores: the one place where the model runs over clips of a video.

Where the memory of a GPU is full, it takes half as many views at a time (`Scorer._score_all`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from time import perf_counter
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dualformer_cli.data.clips.transforms import colours_of, normalize
from dualformer_cli.engine.parallel.devices import widest
from dualformer_cli.engine.parallel.upload import upload
from dualformer_cli.engine.scoring.graphs import ForwardGraphs
from dualformer_cli.engine.scoring.video_scores import Features, Scores
from dualformer_cli.errors import FULL_GPU
from dualformer_cli.model.cpu_pieces import PIECE_NUMBERS, for_each_piece
from dualformer_cli.model.dualformer import DualFormer, Stage

_LOGGER = logging.getLogger(__name__)

Clips = npt.NDArray[np.uint8]
"""Views of one video, shape (v, T, H, W, 3)."""
Item = TypeVar("Item")

_VIEWS_PER_THREAD = 4
"""Of a small model: together they take two thirds of the time that they take one by one."""


@dataclass(frozen=True, slots=True)
class Scored:
    """What the views of one item score."""

    scores: Scores
    """Shape (v, classes)."""
    features: Features
    """Shape (v, c)."""
    seconds: float
    """The share of these views in the time of their batch."""


@dataclass(frozen=True, slots=True)
class NoMemory:
    """One view of an item takes more than the memory of the GPU."""

    error: torch.OutOfMemoryError
    reason: str = FULL_GPU


@dataclass(frozen=True, slots=True)
class _Launched:
    """Views of videos that a GPU may still compute."""

    scores: Tensor
    """Of all that differ."""
    features: Tensor
    equal: list[tuple[list[int], list[int]]]
    """For each video, what `_distinct` returns."""
    begin: torch.cuda.Event | float
    end: torch.cuda.Event | float

    def read(self) -> tuple[list[tuple[Scores, Features]], float]:
        """Wait for the scores and features of each video; return them and the seconds that they took."""
        if isinstance(self.begin, float) or isinstance(self.end, float):
            seconds = cast(float, self.end) - cast(float, self.begin)
        else:
            self.end.synchronize()
            seconds = self.begin.elapsed_time(self.end) / 1000
        scores, features = self.scores.numpy(), self.features.numpy()
        ends = list(accumulate(len(distinct) for _, distinct in self.equal))
        videos = [
            (scores[start:end][places], features[start:end][places])
            for start, end, (places, _) in zip([0, *ends], ends, self.equal, strict=False)
        ]
        return videos, seconds


def views_at_a_time(device: torch.device) -> int:
    """Return how many views are scored together, where memory allows it."""
    return 16 if device.type == "cuda" else 1


class Scorer:
    """Runs a model over the views of videos.

    A GPU takes 16 views at a time, of one video or of several, or what its memory holds: there the last digits of a
    score may depend on how many views share a batch. It computes a batch while the next one is fetched and uploaded. On
    a CPU a score never depends on other videos. Of a small model each thread takes up to 4 views of a video; of a large
    one each takes a view, no two threads wait for each other before the end of a video, and views that are fewer than
    the threads are computed one after the other by all.

    Args:
        model: on its device, in the mode and precision that it is to run in.
        mean, std: of red, green, blue, in grey levels.
        multi_label: scores are sigmoids, not a softmax.
        compile: compile the forward pass.
        autocast: run in this lower precision over float32 weights, as training does.
        graphs: on a GPU, replay the forward pass as a CUDA graph.

    Raises:
        ValueError: if graphs and autocast go together: it keeps casts of weights that a graph would not find again.
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
        graphs: bool = False,
    ) -> None:
        self.model, self.mean, self.std, self.multi_label = model, mean, std, multi_label
        self.parameter = next(model.parameters())
        self.autocast = autocast
        self.batch_size = views_at_a_time(self.parameter.device)
        self._is_ahead = self.parameter.device.type == "cuda"
        """Whether a batch is launched before the scores of the one before are waited for."""
        self._is_compiled = compile
        self._takes_frames = model.takes_frames()
        forward: Callable[..., Tensor] = model.forward_frames if self._takes_frames else model.forward_tokens
        if graphs and autocast is not None:
            raise ValueError("graphs of a forward pass under autocast are not offered")
        self._graphs = ForwardGraphs(forward) if graphs and self.parameter.device.type == "cuda" else None
        if graphs and self._graphs is None:
            _LOGGER.warning("runtime.cuda_graphs: there are none on %s", self.parameter.device.type)
        self._tokens = torch.compile(forward) if compile else self._graphs or forward

    def score(self, clips: Clips) -> tuple[Scores, Features]:
        """Views (v, T, H, W, 3) to scores (v, classes), which sum to 1 unless multi-label, and features (v, c).

        Views that are equal, as all clips of a video shorter than one are, are computed once.
        """
        ((scores, features),), _ = self._launch([clips]).read()
        return scores, features

    def score_each(
        self, items: Iterable[Item], clips_of: Callable[[Item], Clips | None]
    ) -> Iterator[tuple[Item, Scored | NoMemory | None]]:
        """Score items as they come, on a GPU as many at a time as fill a batch.

        Args:
            items: what has views.
            clips_of: the views of an item, as `score` takes them; None if it has none.

        Yields:
            Each item in order with what its views score; None if it has none, NoMemory if one view is too much. On
            a GPU those of a batch come once the next one is launched.
        """
        waiting: list[Item] = []
        clips: list[Clips] = []
        before: Iterator[tuple[Item, Scored | NoMemory | None]] = iter(())
        for item in items:
            waiting.append(item)
            if (views := clips_of(item)) is not None:
                clips.append(views)
            if self._is_enough(clips):
                begun = self._begin(waiting, clips, clips_of)
                yield from before
                before = begun
                if not self._is_ahead:
                    yield from before
                waiting, clips = [], []
        begun = self._begin(waiting, clips, clips_of)
        yield from before
        yield from begun

    def _begin(
        self, items: Sequence[Item], clips: Sequence[Clips], clips_of: Callable[[Item], Clips | None]
    ) -> Iterator[tuple[Item, Scored | NoMemory | None]]:
        """Launch the views of items, and return what waits for their scores."""
        try:
            launched = self._launch(clips)
        except torch.OutOfMemoryError as error:
            full = NoMemory(error.with_traceback(None))  # whose frames hold tensors
            torch.cuda.empty_cache()
            return self._each_by_itself(items, len(clips), clips_of, full)
        return self._finish(items, clips_of, launched)

    def _each_by_itself(
        self, items: Sequence[Item], num_videos: int, clips_of: Callable[[Item], Clips | None], full: NoMemory
    ) -> Iterator[tuple[Item, Scored | NoMemory | None]]:
        """Score items whose views together were too much, most of which may be smaller."""
        for item in items:
            views = clips_of(item)
            if num_videos == 1:
                yield item, None if views is None else full
            else:
                yield from self._begin([item], [] if views is None else [views], clips_of)

    def _finish(
        self, items: Sequence[Item], clips_of: Callable[[Item], Clips | None], launched: _Launched
    ) -> Iterator[tuple[Item, Scored | NoMemory | None]]:
        videos, seconds = launched.read()
        num_views = sum(len(scores) for scores, _ in videos)
        results = iter(videos)
        for item in items:
            if clips_of(item) is None:
                yield item, None
            else:
                scores, features = next(results)
                yield item, Scored(scores, features, seconds * len(scores) / num_views)

    def _is_enough(self, videos: Sequence[Clips]) -> bool:
        """Return whether the views of these videos keep the device busy."""
        if self.batch_size > 1:
            return sum(map(len, videos)) >= self.batch_size
        return not videos or not self._is_small(videos[0]) or len(videos) >= torch.get_num_threads() // 2

    def _launch(self, videos: Sequence[Clips]) -> _Launched:
        device = self.parameter.device
        begin, equal = _now(device), [_distinct(clips) for clips in videos]
        parts = [
            clips if len(distinct) == len(clips) else clips[distinct]
            for clips, (_, distinct) in zip(videos, equal, strict=True)
        ]
        if not parts:
            scores = features = torch.empty(0)
        elif self._is_small(parts[0]):
            scores, features = _joined(self._score_small(parts))
        else:
            scores, features = _joined(self._score_all(parts[0] if len(parts) == 1 else np.concatenate(parts)))
        return _Launched(scores, features, equal, begin, _now(device))

    def _score_small(self, videos: Sequence[Clips]) -> list[tuple[Tensor, Tensor]]:
        """Score views of a small model, whose every operation is done before threads could share it."""
        pieces = [
            clips[start : start + _VIEWS_PER_THREAD]
            for clips in videos
            for start in range(0, len(clips), _VIEWS_PER_THREAD)
        ]
        return self._score_on_threads(pieces)

    def _score_all(self, clips: Clips) -> list[tuple[Tensor, Tensor]]:
        num_threads = torch.get_num_threads()
        is_shared = self.parameter.device.type == "cpu" and not self._is_compiled
        num_alone = len(clips) // num_threads * num_threads if is_shared else 0
        parts = self._score_on_threads([clips[number : number + 1] for number in range(num_alone)])
        start = len(parts)
        while start < len(clips):
            try:
                parts.append(self._score_batch(clips[start : start + self.batch_size]))
                start += self.batch_size
            except torch.OutOfMemoryError:
                if self._graphs is not None and self._graphs.give_up("GPU memory is full"):
                    torch.cuda.empty_cache()
                    continue
                if self.batch_size == 1:
                    raise
                self.batch_size //= 2
                torch.cuda.empty_cache()
                _LOGGER.warning("GPU memory is full: scoring %d views at a time", self.batch_size)
        return parts

    def _score_on_threads(self, pieces: Sequence[Clips]) -> list[tuple[Tensor, Tensor]]:
        """Score each piece on a thread of its own."""
        parts: list[tuple[Tensor, Tensor] | None] = [None] * len(pieces)

        def score(number: int) -> None:
            parts[number] = self._score_batch(pieces[number])

        for_each_piece(score, range(len(pieces)))
        return cast(list[tuple[Tensor, Tensor]], parts)

    def _is_small(self, clips: Clips) -> bool:
        """Return whether a view's largest activation is a single piece, so that one thread computes it anyway."""
        if self.parameter.device.type != "cpu" or self._is_compiled:
            return False
        dim, _, *patch = cast(Stage, self.model.stages[0]).patch_embed.proj.weight.shape
        return prod(clips.shape[1:4]) // prod(patch) * dim <= PIECE_NUMBERS

    def _score_batch(self, clips: Clips) -> tuple[Tensor, Tensor]:
        """Scores and features on the device, which may still compute them while the next views are uploaded."""
        device, dtype = self.parameter.device, self.parameter.dtype
        with torch.inference_mode(), torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            frames = upload(clips, device)
            if self._takes_frames:
                tokens = self._tokens(frames, colours_of(self.mean, self.std, device))
            else:
                tokens = self._tokens(normalize(frames, self.mean, self.std, dtype))
            logits = self.model.classify(tokens)
            logits = logits.to(widest(logits.device))
            scores = logits.sigmoid() if self.multi_label else logits.softmax(-1)
            return scores, self.model.pool(tokens.float())


def _joined(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Scores and features of all parts in this computer's memory, to where a GPU may still be copying them."""
    scores, features = (torch.cat(part) for part in zip(*parts, strict=True))
    return scores.to("cpu", non_blocking=scores.is_cuda), features.to("cpu", non_blocking=features.is_cuda)


def _now(device: torch.device) -> torch.cuda.Event | float:
    """Return a mark after what a GPU is to compute by now, or the time."""
    if device.type != "cuda":
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _distinct(clips: Clips) -> tuple[list[int], list[int]]:
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
