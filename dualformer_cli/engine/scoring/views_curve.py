"""Accuracy against cost: what the first 1, 2, ... views of every video would have given."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dualformer_cli.documents.evaluate import ViewsPoint
from dualformer_cli.engine.scoring.metrics import Hits, Scores, accuracy, label_ranks


def view_order(num_clips: int, num_crops: int) -> list[int]:
    """In which order to add the views of a video: the middle clip, then always the one farthest from those before it.

    All centre crops come before all others. Views are numbered clip * num_crops + crop; a clip's centre crop is its
    last.
    """
    clips = [num_clips // 2]
    while len(clips) < num_clips:
        rest = [clip for clip in range(num_clips) if clip not in clips]
        clips.append(max(rest, key=lambda clip: min(abs(clip - other) for other in clips)))
    return [clip * num_crops + crop for crop in reversed(range(num_crops)) for clip in clips]


def view_hits(view_scores: Scores, label: int, order: Sequence[int]) -> Hits:
    """Whether the mean over the first 1, 2, ... views of a video in `order` recognises it, shape (v,).

    Args:
        view_scores: one row per view, shape (v, classes).
        label: class number.
        order: of the views, as `view_order` gives it.
    """
    totals = np.cumsum(view_scores[list(order)], axis=0, dtype=np.float64)
    return label_ranks(totals, np.full(len(totals), label)) < 1


def view_curve(hits: Hits) -> tuple[ViewsPoint, ...]:
    """Return the accuracy of 1, 2, ... views, from the `view_hits` of all videos (n, v)."""
    return tuple(ViewsPoint(views=number, top1=accuracy(column)) for number, column in enumerate(hits.T, start=1))
