"""What became of each video of a list that is scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from dualformer_cli.documents.evaluate import Bucket

BUCKETS: tuple[Bucket, ...] = get_args(Bucket)


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """What became of one video of the list."""

    index: int
    """Its line in the list, from 0."""
    path: str
    """As listed."""
    labels: tuple[int, ...]
    bucket: Bucket
    reason: str | None
    """Why it was not scored."""
    scores: npt.NDArray[np.float32] | None
    """One row per view, shape (v, classes)."""

    def mean(self) -> npt.NDArray[np.float64]:
        """Scores of the video: the mean over its views."""
        assert self.scores is not None, "not scored"
        return self.scores.mean(axis=0, dtype=np.float64)
