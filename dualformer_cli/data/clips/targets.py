"""Targets of training clips: labels, those of mirrored clips exchanged, as the scores that a model is to learn."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dualformer_cli.data.clips.source import Flags
from dualformer_cli.data.lists.samples import Pairs


def swap_flipped_labels(labels: Sequence[Sequence[int]], flipped: Flags, pairs: Pairs) -> list[tuple[int, ...]]:
    """Exchange the classes of each pair in the labels of flipped clips.

    Args:
        labels: the classes of each clip, as `Sample.labels` has them.
        flipped: which clips are mirrored, one per clip.
        pairs: classes that a mirror turns into each other.
    """
    mirrored = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    return [
        tuple(mirrored.get(label, label) for label in of_clip) if is_flipped else tuple(of_clip)
        for of_clip, is_flipped in zip(labels, flipped, strict=True)
    ]


def one_hot(labels: Sequence[Sequence[int]], num_classes: int, smoothing: float = 0.0) -> Tensor:
    """Turn labels into targets: 1 for each class of a clip, of which `smoothing` is spread over all classes.

    Args:
        labels: the classes of each clip, as `Sample.labels` has them; one each, or several for multi-label.
        num_classes: of the model.
        smoothing: share, 0 to 1.

    Returns:
        float32, shape (b, num_classes). A row with one label sums to 1.

    Raises:
        ValueError: if a label is not a class.
    """
    targets = torch.full((len(labels), num_classes), smoothing / num_classes)
    for row, of_clip in zip(targets, labels, strict=True):
        for label in of_clip:
            if not 0 <= label < num_classes:
                raise ValueError(f"label {label} is not one of the {num_classes} classes")
        row[list(of_clip)] += 1 - smoothing
    return targets
