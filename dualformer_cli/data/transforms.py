"""Frames become a resized, cropped, normalised clip.

Frames stay uint8 and channels-last until `normalize`: a cast before the resize costs twenty times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

Frames = npt.NDArray[np.uint8]

MAX_ASPECT_RATIO = 32
"""Long side over short side. A 20000x20 frame, resized to a short side of 224, would take 150 MB."""

ANTIALIAS_ABOVE = 1.5
"""Antialiasing starts when a side shrinks by more than this: milder shrinking loses nothing without."""


class FrameSizeError(ValueError):
    """Frames of a size that cannot be resized and cropped; the caller knows which video they come from."""


def resized_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Return the (height, width) that brings the short side to `short_side`, rounded as the published recipe does."""
    scale = short_side / min(height, width)
    return int(height * scale + 0.5), int(width * scale + 0.5)


def resize_frame(frame: Frames, size: tuple[int, int], *, antialias: bool) -> Frames:
    """Resize one frame by half-pixel bilinear interpolation in uint8.

    Args:
        frame: shape (H, W, 3).
        size: (height, width) of the result.
        antialias: whether to antialias if a side shrinks by more than ANTIALIAS_ABOVE.
    """
    height, width = frame.shape[:2]
    if (height, width) == size:
        return frame
    antialias = antialias and max(height / size[0], width / size[1]) > ANTIALIAS_ABOVE
    # The batch axis comes first: behind permute() its stride would hide from torch that this is channels-last,
    # and the resize would take three times as long (640x360 to 256: 0.6 instead of 0.2 ms, one thread).
    pixels = torch.from_numpy(np.require(frame, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=antialias)
    return np.asarray(resized.permute(0, 2, 3, 1)[0].numpy())


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTransform:
    """Resizes and crops one frame straight after decoding, so that full-size frames never pile up."""

    short_side: int
    """Frames are resized to this short side before the crop, in pixels."""
    crop_size: int
    """Height and width of a crop, in pixels."""
    num_crops: int
    """1 for the centre, 3 along the long side."""
    antialias: bool
    """Whether to antialias when shrinking by more than ANTIALIAS_ABOVE."""

    @staticmethod
    def check(height: int, width: int) -> None:
        """Refuse a frame size before anything is decoded.

        Raises:
            FrameSizeError: if the frame is too long for its width, or empty.
        """
        if min(height, width) < 1 or max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            raise FrameSizeError(
                f"has frames of {width}x{height} pixels; one side may be at most {MAX_ASPECT_RATIO} times the other"
            )

    def __call__(self, frame: Frames) -> Frames:
        """Return the crops of a frame, shape (num_crops, crop_size, crop_size, 3).

        Raises:
            FrameSizeError: if the frame is too long for its width, or empty.
        """
        height, width = frame.shape[:2]
        self.check(height, width)
        size = resized_size(height, width, self.short_side)
        resized = resize_frame(frame, size, antialias=self.antialias)
        side = self.crop_size
        offsets = crop_offsets(*size, side, self.num_crops)
        return np.stack([resized[y : y + side, x : x + side] for x, y in offsets])


def normalize(clips: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype) -> Tensor:
    """Turn uint8 views into the model's input: (value - mean) / std, computed in float32 on the clips' device.

    Args:
        clips: uint8, shape (b, T, H, W, 3).
        mean: of red, green, blue, in grey levels.
        std: of red, green, blue, in grey levels.
        dtype: of the result.

    Returns:
        Clips, shape (b, 3, T, H, W): a view whose memory stays (b, T, H, W, 3).
    """
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
        raise ValueError(f"clips must be uint8 of shape (b, T, H, W, 3), got {clips.dtype} {tuple(clips.shape)}")
    colours = torch.tensor([mean, std], dtype=torch.float32, device=clips.device)
    values = clips.contiguous().to(torch.float32).sub_(colours[0]).div_(colours[1])
    return values.to(dtype).permute(0, 4, 1, 2, 3)
