"""Where training takes its clips from: what the loader asks of videos and of rendered clips alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.transforms import Frames
from dualformer_cli.video.reader import FileIndex

Flags = npt.NDArray[np.bool_]
Fractions = npt.NDArray[np.float64]
Seeds = Sequence[Sequence[int]]
"""One seed per clip, as `np.random.default_rng` takes it; it decides all that is random about the clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingClips:
    """Random clips of one sample, one per seed."""

    clips: Frames
    """uint8, shape (repeats, T, S, S, 3)."""
    flipped: Flags
    """Which clips are mirrored, shape (repeats,)."""
    indices: Indices
    """Frame numbers of the clips in their video, shape (repeats, T)."""
    boxes: Fractions
    """Crops as shares of the frame, (x, y, width, height), shape (repeats, 4)."""
    seconds: float
    """Time that it took."""
    motion: npt.NDArray[np.float32] | None = None
    """How the content of rendered clips moves, as in `RenderedClip`, shape (repeats, T - 1, 2, 3); not numbers where
    nobody can say. None for clips of videos."""
    index: FileIndex | None = None
    """What the next reader of the file need not find out again; None if the one given was right, or there is none."""


class ClipSource(ABC):
    """Samples, by their number from 0, of which training takes clips."""

    data: DataConfig
    """What a clip is."""

    @property
    @abstractmethod
    def labels(self) -> Sequence[tuple[int, ...]]:
        """Classes of each sample; () for one without."""

    @abstractmethod
    def name(self, number: int) -> str:
        """Return what messages call a sample."""

    @abstractmethod
    def read(self, number: int, seeds: Seeds) -> Callable[[], TrainingClips]:
        """Return the call that makes the clips of a sample: small and picklable, as a worker process does it."""

    @abstractmethod
    def keep(self, number: int, clips: TrainingClips) -> None:
        """Keep of a sample's clips what makes the next ones cheaper."""
