"""Videos become training batches: every video once an epoch across ranks, whatever their number.

What a step sees follows from the seed, the epoch and the position in it alone: not from the number of decoding
processes, nor from where a run was interrupted. With another number of ranks the same step holds the same clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice, tee

import numpy as np
import numpy.typing as npt
import torch

from dualformer_cli.data.camera_motion.rendering import RenderedClips, render_training_clips
from dualformer_cli.data.clips.augment import Fractions, TrainingClips, TrainPlan, read_training_clips
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.lists.manifest import Sample
from dualformer_cli.system.workers import Outcome, WorkerPool
from dualformer_cli.video.reader import FileIndex

Order = npt.NDArray[np.int64]


class IndexCache:
    """Indexes of the files that were read, so that later epochs need not read every file twice.

    It lives beside the workers, so that each of them profits from all. A full one takes no more: every file comes
    once an epoch, so there is none that will not be needed again.

    Args:
        max_bytes: bound of the memory; the default holds some 300,000 files.
    """

    def __init__(self, max_bytes: int = 128 * 2**20) -> None:
        self._indexes: dict[str, FileIndex] = {}
        self._bytes_left = max_bytes

    def get(self, path: str) -> FileIndex | None:
        """Return the index of a file, which may have changed since."""
        return self._indexes.get(path)

    def put(self, path: str, index: FileIndex) -> None:
        """Keep an index in place of an older one of this path, if there is room."""
        old = self._indexes.pop(path, None)
        if old is not None:
            self._bytes_left += _memory(old)
        if self._bytes_left >= _memory(index):
            self._bytes_left -= _memory(index)
            self._indexes[path] = index


def _memory(index: FileIndex) -> int:
    return len(index.packed) + 200  # of the objects around it


@dataclass(frozen=True, slots=True)
class Batch:
    """The clips of one forward pass on one rank."""

    clips: npt.NDArray[np.uint8]
    """Shape (b, T, S, S, 3)."""
    samples: tuple[int, ...]
    """Which video of the list each clip is from."""
    flipped: npt.NDArray[np.bool_]
    """Which clips are mirrored, shape (b,)."""
    unreadable: tuple[tuple[str, str], ...]
    """(path, reason) of the videos that are missing from the batch."""
    read_seconds: float
    """Time that the workers spent on it."""
    indices: Indices | None = None
    """Frame numbers of the clips in their videos, shape (b, T)."""
    boxes: Fractions | None = None
    """Crops of the clips as shares of the frame, (x, y, width, height), shape (b, 4)."""
    motion: npt.NDArray[np.float32] | None = None
    """How the content of rendered clips moves, as in `RenderedClips`, shape (b, T - 1, 2, 3); None for videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """How an epoch is cut into steps, ranks and forward passes; all counts are clips."""

    num_samples: int
    batch_size: int
    """Of one rank in one forward pass."""
    accumulation: int
    """Forward passes of a rank per step."""
    rank: int
    world_size: int
    repeats: int = 1
    """Clips from a video each time it is opened."""

    def __post_init__(self) -> None:
        if self.batch_size % self.repeats:
            raise ValueError(f"batch_size {self.batch_size} must be a multiple of repeats {self.repeats}")

    @property
    def videos_per_step(self) -> int:
        """Videos that all ranks open together in one step."""
        return self.batch_size * self.accumulation * self.world_size // self.repeats

    @property
    def steps_per_epoch(self) -> int:
        """Steps until every video was seen; the last one may be smaller."""
        return -(-self.num_samples // self.videos_per_step)

    def videos(self, order: Order, step: int) -> list[Order]:
        """The videos of this rank in one step, one array per forward pass; ranks differ by at most one video."""
        first = step * self.videos_per_step
        of_step = order[first : first + self.videos_per_step]
        passes = np.array_split(of_step, self.accumulation)
        return [np.array_split(of_pass, self.world_size)[self.rank] for of_pass in passes]


def epoch_order(num_samples: int, *, seed: int, epoch: int, labels: Sequence[int] | None = None) -> Order:
    """The order in which an epoch sees the videos.

    Args:
        num_samples: videos of the list.
        seed: of the run.
        epoch: its number, from 0.
        labels: one class per video, to draw every class equally often (with repetition); None draws every video once.
    """
    rng = np.random.default_rng([seed, epoch])
    if labels is None:
        return rng.permutation(num_samples)
    classes, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    weights = 1 / (counts[inverse] * len(classes))
    return rng.choice(num_samples, size=num_samples, p=weights)


def training_steps(
    samples: Sequence[Sample],
    paths: Sequence[str],
    plan: TrainPlan,
    batches: BatchPlan,
    pool: WorkerPool,
    *,
    order: Order,
    seed: int,
    epoch: int,
    first_step: int = 0,
    indexes: IndexCache | None = None,
    pin_memory: bool = False,
) -> Iterator[list[Batch]]:
    """Yield the forward passes of each step, while the workers read the next ones.

    A video that cannot be read makes its batch smaller and is named in it; nothing takes its place. `indexes`, kept
    from epoch to epoch, saves time and changes nothing else. `pin_memory` puts the
    clips where a GPU fetches them fastest.
    """
    indexes = IndexCache() if indexes is None else indexes
    positions = np.arange(len(order))
    of_steps = (batches.videos(positions, step) for step in range(first_step, batches.steps_per_epoch))
    wanted, planned = tee(chain.from_iterable(of_steps))
    jobs = (
        _Job(
            paths[order[p]],
            int(order[p]),
            samples[order[p]].start,
            samples[order[p]].num_frames,
            tuple((seed, epoch, int(p), repeat) for repeat in range(batches.repeats)),
            indexes.get(paths[order[p]]),
        )
        for of_pass in planned
        for p in of_pass
    )
    outcomes = pool.imap(partial(_read, plan), jobs, ahead=max(2, 2 * batches.batch_size // batches.repeats))
    collected = (_collect(order[of_pass].tolist(), outcomes, plan, indexes, pin_memory) for of_pass in wanted)
    while step := list(islice(collected, batches.accumulation)):
        yield step


@dataclass(frozen=True, slots=True)
class _Job:
    path: str
    number: int
    start: int
    num_frames: int | None
    seeds: tuple[tuple[int, ...], ...]
    index: FileIndex | None


def _read(plan: TrainPlan, job: _Job) -> TrainingClips | RenderedClips:
    if plan.render is not None:
        return render_training_clips(plan.render, job.number, job.seeds)
    return read_training_clips(job.path, plan, job.seeds, start=job.start, num_frames=job.num_frames, index=job.index)


def _collect(
    videos: list[int],
    outcomes: Iterator[Outcome[_Job, TrainingClips | RenderedClips]],
    plan: TrainPlan,
    indexes: IndexCache,
    pin_memory: bool,
) -> Batch:
    """Take the outcomes of one forward pass together."""
    read: list[TrainingClips] = []
    rendered: list[RenderedClips] = []
    samples, unreadable, seconds = [], [], 0.0
    for video, outcome in zip(videos, islice(outcomes, len(videos)), strict=True):
        if outcome.error is not None:
            unreadable.append((outcome.item.path, outcome.reason))
            continue
        clips = outcome.value
        samples += [video] * len(clips.clips)
        if isinstance(clips, RenderedClips):
            rendered.append(clips)
            seconds += clips.seconds
            continue
        read.append(clips)
        if clips.index is not None:
            indexes.put(outcome.item.path, clips.index)
        seconds += clips.decode_seconds + clips.preprocess_seconds
    nothing = np.empty((0, plan.num_frames, plan.crop_size, plan.crop_size, 3), np.uint8)
    everything: list[TrainingClips | RenderedClips] = [*read, *rendered]
    return Batch(
        clips=_joined([nothing, *(clips.clips for clips in everything)], pin_memory),
        samples=tuple(samples),
        flipped=np.concatenate([np.empty(0, np.bool_), *(clips.flipped for clips in everything)]),
        unreadable=tuple(unreadable),
        read_seconds=seconds,
        indices=np.concatenate([np.empty((0, plan.num_frames), np.int64), *(clips.indices for clips in read)]),
        boxes=np.concatenate([np.empty((0, 4)), *(clips.boxes for clips in read)]),
        motion=np.concatenate([clips.motion for clips in rendered]) if rendered else None,
    )


def _joined(clips: list[npt.NDArray[np.uint8]], pin_memory: bool) -> npt.NDArray[np.uint8]:
    """Clips of several videos in one array, written straight into page-locked memory if asked."""
    if not pin_memory:
        return np.concatenate(clips)
    shape = (sum(map(len, clips)), *clips[0].shape[1:])
    return np.concatenate(clips, out=torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy())
