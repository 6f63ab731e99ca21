"""Which videos an epoch takes in which order, and which of them each step, process and forward pass gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]


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
        """Return the videos of this rank in one step, one array per forward pass; ranks differ by at most one video."""
        first = step * self.videos_per_step
        of_step = order[first : first + self.videos_per_step]
        passes = np.array_split(of_step, self.accumulation)
        return [np.array_split(of_pass, self.world_size)[self.rank] for of_pass in passes]


def epoch_order(num_samples: int, *, seed: int, epoch: int, labels: Sequence[int] | None = None) -> Order:
    """Return the order in which an epoch sees the videos.

    Args:
        num_samples: videos of the list.
        seed: of the run.
        epoch: its number, from 0.
        labels: one class per video, to take every class equally often (with repetition); None takes every video once.
    """
    rng = np.random.default_rng([seed, epoch])
    if labels is None:
        return rng.permutation(num_samples)
    classes, inverse, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    weights = 1 / (counts[inverse] * len(classes))
    return rng.choice(num_samples, size=num_samples, p=weights)
