"""Which part of a frame a clip shows: the random crops of training, the fixed ones of a test."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

CROP_TRIES = 10
"""Sizes that are tried for a random crop before the largest central one is taken."""


class Box(NamedTuple):
    """A rectangle of pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def window(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def random_resized_crop(
    height: int, width: int, *, area: tuple[float, float], aspect: tuple[float, float], rng: np.random.Generator
) -> Box:
    """Choose a crop by its share of the frame, evenly, and its width over height, evenly in the logarithm.

    Of CROP_TRIES random sizes the first that the frame can hold is taken; without one, the crop is the largest central
    one whose width over height lies in the range.
    """
    areas = rng.uniform(*area, size=CROP_TRIES) * height * width
    aspects = np.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1]), size=CROP_TRIES))
    widths, heights = np.rint(np.sqrt(areas * aspects)), np.rint(np.sqrt(areas / aspects))
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    if fits.any():
        chosen = int(fits.argmax())
        w, h = int(widths[chosen]), int(heights[chosen])
        return Box(int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1)), w, h)
    w = max(1, min(width, round(height * aspect[1])))
    h = max(1, min(height, round(width / aspect[0])))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def crop_offsets(height: int, width: int, crop_size: int, num_crops: int) -> list[tuple[int, int]]:
    """Return the (x, y) of each crop's top left corner.

    One crop is the centre. Three lie along the long side, in the published order: left or top, right or bottom,
    centre; the first two are equally far from the centre, so an odd remainder leaves one pixel over.

    Raises:
        ValueError: if the crop is larger than the frame or num_crops is not 1 or 3.
    """
    if num_crops not in (1, 3):
        raise ValueError(f"num_crops must be 1 or 3, got {num_crops}")
    if crop_size > min(height, width):
        raise ValueError(f"crop of {crop_size} pixels does not fit into a frame of {width}x{height}")
    x, y = (width - crop_size) // 2, (height - crop_size) // 2
    if num_crops == 1:
        return [(x, y)]
    if width >= height:
        return [(0, y), (2 * x, y), (x, y)]
    return [(x, 0), (x, 2 * y), (x, y)]
