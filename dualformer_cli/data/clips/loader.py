"""Videos become training batches: every video once an epoch across ranks, whatever their number.

What a step sees follows from the seed, the epoch and the position in it alone: not from the number of decoding
processes, nor from where a run was interrupted. With another number of ranks the same step holds the same clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, tee

import numpy as np
import numpy.typing as npt
import torch

from dualformer_cli.data.clips.epoch_plan import BatchPlan, Order
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.source import ClipSource, Flags, Fractions, TrainingClips
from dualformer_cli.data.clips.transforms import Frames
from dualformer_cli.system.workers import Outcome, WorkerPool


@dataclass(frozen=True, slots=True)
class Batch:
    """The clips of one forward pass on one rank."""

    clips: Frames
    """Shape (b, T, S, S, 3)."""
    samples: tuple[int, ...]
    """Which sample each clip is of."""
    flipped: Flags
    """Which clips are mirrored, shape (b,)."""
    unreadable: tuple[tuple[str, str], ...]
    """(path, reason) of the samples that are missing from the batch."""
    read_seconds: float
    """Time that the workers spent on it."""
    indices: Indices | None = None
    """Frame numbers of the clips in their videos, shape (b, T)."""
    boxes: Fractions | None = None
    """Crops of the clips as shares of the frame, (x, y, width, height), shape (b, 4)."""
    motion: npt.NDArray[np.float32] | None = None
    """How the content of rendered clips moves, as in `RenderedClip`, shape (b, T - 1, 2, 3); None for videos."""


def training_steps(
    source: ClipSource,
    batches: BatchPlan,
    pool: WorkerPool,
    *,
    order: Order,
    seed: int,
    epoch: int,
    first_step: int = 0,
    pin_memory: bool = False,
) -> Iterator[list[Batch]]:
    """Yield the forward passes of each step, while the workers read the next ones.

    A sample that cannot be read makes its batch smaller and is named in it; nothing takes its place. `pin_memory`
    puts the clips where a GPU fetches them fastest.
    """
    positions = np.arange(len(order))
    of_steps = (batches.videos(positions, step) for step in range(first_step, batches.steps_per_epoch))
    wanted, planned = tee(chain.from_iterable(of_steps))
    reads = (
        source.read(int(order[p]), tuple((seed, epoch, int(p), repeat) for repeat in range(batches.repeats)))
        for of_pass in planned
        for p in of_pass
    )
    outcomes = pool.imap(_run, reads, ahead=max(2, 2 * batches.batch_size // batches.repeats))
    collected = (_collect(order[of_pass].tolist(), outcomes, source, pin_memory) for of_pass in wanted)
    while step := list(islice(collected, batches.accumulation)):
        yield step


def _run(read: Callable[[], TrainingClips]) -> TrainingClips:
    return read()


def _collect(
    numbers: list[int],
    outcomes: Iterator[Outcome[Callable[[], TrainingClips], TrainingClips]],
    source: ClipSource,
    pin_memory: bool,
) -> Batch:
    """Take the outcomes of one forward pass together."""
    data = source.data
    frames, side = data.clip.num_frames, data.crop_size
    nothing = TrainingClips(
        clips=np.empty((0, frames, side, side, 3), np.uint8),
        flipped=np.empty(0, np.bool_),
        indices=np.empty((0, frames), np.int64),
        boxes=np.empty((0, 4)),
        seconds=0.0,
    )
    read, samples, unreadable = [nothing], [], []
    for number, outcome in zip(numbers, islice(outcomes, len(numbers)), strict=True):
        if outcome.error is not None:
            unreadable.append((source.name(number), outcome.reason))
            continue
        clips = outcome.value
        source.keep(number, clips)
        samples += [number] * len(clips.clips)
        read.append(clips)
    motion = [clips.motion for clips in read if clips.motion is not None]
    return Batch(
        clips=_joined([clips.clips for clips in read], pin_memory),
        samples=tuple(samples),
        flipped=np.concatenate([clips.flipped for clips in read]),
        unreadable=tuple(unreadable),
        read_seconds=sum(clips.seconds for clips in read),
        indices=np.concatenate([clips.indices for clips in read]),
        boxes=np.concatenate([clips.boxes for clips in read]),
        motion=np.concatenate(motion) if motion else None,
    )


def _joined(clips: list[Frames], pin_memory: bool) -> Frames:
    """Return all clips in one array, written straight into page-locked memory if asked."""
    if not pin_memory:
        return np.concatenate(clips)
    shape = (sum(map(len, clips)), *clips[0].shape[1:])
    return np.concatenate(clips, out=torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy())
