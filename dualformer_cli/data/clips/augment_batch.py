"""What training changes about a batch: mixing, which mixes targets alike, and erasing. RandAugment is in
`augment_clip`.

A new change per batch needs a setting in `TrainConfig`, and a line in `augment_batch` with the function that it calls.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.data.clips.crops import Box, random_resized_crop

ERASED_AREA = (0.02, 1 / 3)
"""Range of an erased box's share of the frame."""
ERASED_ASPECT = (0.3, 1 / 0.3)
"""Range of an erased box's width over height."""


def augment_batch(
    clips: Tensor, targets: Tensor, train: TrainConfig, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return clips and targets after all that the recipe changes about a batch.

    Args:
        clips: normalised, shape (b, 3, T, H, W).
        targets: shape (b, classes).
        train: the recipe.
        rng: of the batch; it decides all that is random.
    """
    if train.random_erasing:
        clips = random_erasing(clips, train.random_erasing, rng)
    return mix_batch(clips, targets, mixup_alpha=train.mixup_alpha, cutmix_alpha=train.cutmix_alpha, rng=rng)


def mix_batch(
    clips: Tensor, targets: Tensor, *, mixup_alpha: float, cutmix_alpha: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mix each clip of a batch with another one by mixup or cutmix, and their targets alike.

    The partners of a batch are the same clips, moved on by a random number of places, so that none meets itself.
    When both are on, each batch takes one of them, evenly. A single clip has no partner and stays as it is.

    Args:
        clips: floating point, shape (b, 3, T, H, W).
        targets: shape (b, classes).
        mixup_alpha: the share of the partner follows Beta(alpha, alpha); 0 turns mixup off.
        cutmix_alpha: so does the share of the frame that shows the partner, the same box in all frames; 0 is off.
        rng: decides all that is random.

    Returns:
        New clips in the memory layout of the given ones, and targets; when nothing is mixed, the given ones.
    """
    num_clips = len(clips)
    if num_clips < 2 or not (mixup_alpha or cutmix_alpha):
        return clips, targets
    is_mixup = rng.random() < 0.5 if mixup_alpha and cutmix_alpha else bool(mixup_alpha)
    alpha = mixup_alpha if is_mixup else cutmix_alpha
    share, shift = float(rng.beta(alpha, alpha)), int(rng.integers(1, num_clips))
    if is_mixup:
        mixed = clips.lerp(_partners(clips, shift), share)
    else:
        height, width = clips.shape[3:]
        box = _centred_box(height, width, share, rng)
        rows, columns = box.window
        mixed = clips.clone()
        mixed[..., rows, columns] = _partners(clips[..., rows, columns], shift)
        share = box.width * box.height / (height * width)
    return mixed, targets.lerp(_partners(targets, shift), share)


def _partners(batch: Tensor, shift: int) -> Tensor:
    return torch.cat([batch[-shift:], batch[:-shift]])


def _centred_box(height: int, width: int, share: float, rng: np.random.Generator) -> Box:
    """Return a box of this share and the frame's shape around a random place, less what lies outside of the frame."""
    half_height, half_width = (round(math.sqrt(share) * side / 2) for side in (height, width))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    top, left = max(0, y - half_height), max(0, x - half_width)
    bottom, right = min(height, y + half_height), min(width, x + half_width)
    return Box(left, top, right - left, bottom - top)


def random_erasing(clips: Tensor, probability: float, rng: np.random.Generator) -> Tensor:
    """Erase a random box, the same in all frames, from some of the clips.

    What is erased becomes 0, the mean colour however the clips were normalised.

    Args:
        clips: normalised, shape (b, 3, T, H, W).
        probability: of erasing, for each clip.
        rng: decides which clips and boxes.

    Returns:
        New clips in the memory layout of the given ones; when nothing is erased, the given ones.
    """
    chosen = np.flatnonzero(rng.random(len(clips)) < probability)
    if not len(chosen):
        return clips
    height, width = clips.shape[3:]
    erased = clips.clone()
    for clip in chosen:
        rows, columns = random_resized_crop(height, width, area=ERASED_AREA, aspect=ERASED_ASPECT, rng=rng).window
        erased[int(clip), ..., rows, columns] = 0
    return erased
