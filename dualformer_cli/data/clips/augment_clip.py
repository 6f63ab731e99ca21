"""What training changes about a clip after it was cut (`crops`): the recipe per clip, and RandAugment.

Mixing and erasing need a whole batch: `augment_batch`.

A new change per clip needs a setting in `TrainConfig`, and a line in `CLIP_CHANGES` with the function that it calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import PIL.Image
from PIL import ImageEnhance, ImageOps

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.data.clips.transforms import Frames

Picture = PIL.Image.Image
ClipOp = Callable[[Picture, float], Picture]
"""Changes a picture by a strength between -1 and 1; those that have no sign take the absolute value."""

_FILL = (124, 116, 104)
"""What a shifted frame uncovers: ImageNet's mean, which normalisation turns into nearly 0."""


def augment_clip(clip: Frames, train: TrainConfig, rng: np.random.Generator) -> Frames:
    """Return a clip after all that the recipe changes about one clip, the same way in every frame.

    Args:
        clip: uint8, shape (T, S, S, 3); cut, resized and flipped.
        train: the recipe.
        rng: the clip's own; it decides all that is random.
    """
    for setting, change in CLIP_CHANGES.items():
        if getattr(train, setting):
            clip = change(clip, train, rng)
    return clip


CLIP_CHANGES: Mapping[str, Callable[[Frames, TrainConfig, np.random.Generator], Frames]] = {
    "rand_augment_ops": lambda clip, train, rng: rand_augment(
        clip, train.rand_augment_ops, train.rand_augment_magnitude, rng
    ),
}
"""What the recipe changes, in this order, by the setting that is not 0 where it does; rendered clips refuse each."""


def _affine(coefficients: Callable[[float, int], tuple[float, ...]]) -> ClipOp:
    """Make an op that takes the pixel (x, y) from (a x + b y + c, d x + e y + f), counted from the centre."""

    def apply(picture: Picture, strength: float) -> Picture:
        width, height = picture.size
        a, b, c, d, e, f = coefficients(strength, width)
        # Pillow counts from the corner, and puts a pixel's centre half a pixel from its edges.
        x, y = width / 2, height / 2
        centred = (a, b, c + x - a * x - b * y, d, e, f + y - d * x - e * y)
        # Bilinear takes six times as long, which is more than decoding the clip.
        return picture.transform(
            picture.size, PIL.Image.Transform.AFFINE, centred, PIL.Image.Resampling.NEAREST, fillcolor=_FILL
        )

    return apply


def _rotation(strength: float, width: int) -> tuple[float, ...]:
    angle = math.radians(30 * strength)
    return (math.cos(angle), math.sin(angle), 0.0, -math.sin(angle), math.cos(angle), 0.0)


_STILL_OPS: tuple[ClipOp, ...] = (
    lambda picture, strength: picture,
    lambda picture, strength: ImageOps.autocontrast(picture),
    lambda picture, strength: ImageOps.equalize(picture),
    lambda picture, strength: ImageOps.posterize(picture, 8 - round(4 * abs(strength))),
    lambda picture, strength: ImageOps.solarize(picture, 256 - round(256 * abs(strength))),
    lambda picture, strength: ImageEnhance.Color(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: ImageEnhance.Contrast(picture).enhance(1 + 0.9 * strength),
    lambda picture, strength: ImageEnhance.Brightness(picture).enhance(1 + 0.9 * strength),
)
"""Ops that look at one pixel, or at the histogram. They are done on all frames as one picture, so that frames keep
their brightness relative to each other: a histogram per frame would make the clip flicker."""

_FRAME_OPS: tuple[ClipOp, ...] = (
    lambda picture, strength: ImageEnhance.Sharpness(picture).enhance(1 + 0.9 * strength),
    _affine(_rotation),
    _affine(lambda strength, width: (1, 0.3 * strength, 0, 0, 1, 0)),
    _affine(lambda strength, width: (1, 0, 0, 0.3 * strength, 1, 0)),
    _affine(lambda strength, width: (1, 0, 0.45 * strength * width, 0, 1, 0)),
    _affine(lambda strength, width: (1, 0, 0, 0, 1, 0.45 * strength * width)),
)
"""Ops that move pixels: sharpness, rotation, shear along x and y, translation along x and y."""


def rand_augment(clip: Frames, num_ops: int, magnitude: float, rng: np.random.Generator) -> Frames:
    """Change a clip by random ops of RandAugment's fourteen, one of which does nothing; the same for all frames.

    The ops are Pillow's, which is here anyway. timm's RandAugment takes its random numbers from the process's global
    generators, and anew for each image: no clip could have a seed, or the same change in all of its frames.

    Args:
        clip: uint8, shape (T, S, S, 3).
        num_ops: ops done one after the other.
        magnitude: their strength, 0 to 10; at 10 they rotate by 30 degrees, shear by 0.3, shift by 0.45 of the side,
            and change brightness by 90 percent. Which way is random.
        rng: decides ops and directions.
    """
    for _ in range(num_ops):
        op = int(rng.integers(len(_STILL_OPS) + len(_FRAME_OPS)))
        strength = magnitude / 10 * (1 if rng.random() < 0.5 else -1)
        if op < len(_STILL_OPS):
            tall = PIL.Image.fromarray(clip.reshape(-1, *clip.shape[2:]))
            clip = np.asarray(_STILL_OPS[op](tall, strength)).reshape(clip.shape)
        else:
            change = _FRAME_OPS[op - len(_STILL_OPS)]
            clip = np.stack([np.asarray(change(PIL.Image.fromarray(frame), strength)) for frame in clip])
    return clip
