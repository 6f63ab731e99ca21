"""Frames become a resized, cropped, normalised clip.

Frames stay uint8 and channels-last until `normalize`: a cast before the resize costs twenty times as much.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dualformer_cli.data.clips.crops import Box, crop_offsets

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
    return _interpolate(frame, size, antialias=_shall_antialias(frame, size, antialias))


def resize_and_cut(frame: Frames, size: tuple[int, int], box: Box, *, antialias: bool) -> Frames:
    """Return the pixels that `resize_frame` gives inside of a box, without making most of the others.

    Args:
        frame: shape (H, W, 3).
        size: (height, width) of the whole frame, resized.
        box: the part of it that is wanted.
        antialias: whether to antialias if a side shrinks by more than ANTIALIAS_ABOVE.

    Returns:
        Shape (box.height, box.width, 3); it may be a view of the frame.
    """
    if frame.shape[:2] == size:
        return frame[box.window]
    rows, from_rows = _in_step(box.y, box.height, frame.shape[0], size[0])
    part, height = frame[from_rows], rows.stop - rows.start
    below = box._replace(y=box.y - rows.start)
    if _shall_antialias(frame, size, antialias):
        return _interpolate(part, (height, size[1]), antialias=True)[below.window]
    # Columns seldom have a short common step, so those on the left are resized too, but only across.
    across = _resize_across(part, size[1], box.x + box.width)[:, box.x : box.x + box.width]
    return _interpolate(across, (height, box.width), antialias=False)[below._replace(x=0).window]


def _in_step(start: int, length: int, side: int, new_side: int) -> tuple[slice, slice]:
    """Widen a range of a resized side until resizing that part of the frame alone gives the same values in it.

    Where the range starts and ends, a whole number of new pixels covers a whole number of old ones: the weights then
    are those of the whole frame. A margin keeps the part's edges, where neighbours are missing, out of sight.

    Returns:
        The range of new pixels, and that of the old ones that they are made from.
    """
    common = math.gcd(side, new_side)
    old_step, step = side // common, new_side // common
    margin = 1 + math.ceil(max(1, new_side / side))
    first = max(0, start - margin) // step
    last = min(common, -(-(start + length + margin) // step))
    return slice(first * step, last * step), slice(first * old_step, last * old_step)


def _resize_across(frame: Frames, width: int, num_columns: int) -> Frames:
    """Resize the rows of a frame to a new width, without antialiasing; only the first columns need come out."""
    old = frame.shape[1]
    if width == old:
        return frame
    # torch takes the inverse of a scale, where it takes old / width without one: they must not differ by a bit.
    guess = width / old
    scales = (math.nextafter(guess, 0), guess, math.nextafter(guess, math.inf))
    scale = next((scale for scale in scales if 1 / scale == old / width), None)
    # It rounds all weights more coarsely if one of them is 1, as that of the first middle of two odd steps is.
    common = math.gcd(old, width)
    if old // common % 2 and width // common % 2:
        num_columns = max(num_columns, width // common // 2 + 1)
    num_columns += num_columns == old  # which torch would take for nothing to do
    shape = (frame.shape[0], width if scale is None else min(num_columns, width))
    resized = torch.ops.aten.upsample_bilinear2d(_channels_first(frame), shape, False, None, scale)
    return np.asarray(resized.permute(0, 2, 3, 1)[0].numpy())


def _shall_antialias(frame: Frames, size: tuple[int, int], antialias: bool) -> bool:
    return antialias and max(frame.shape[0] / size[0], frame.shape[1] / size[1]) > ANTIALIAS_ABOVE


def resize_clip(frames: Frames, size: int, *, antialias: bool, flip: bool) -> Frames:
    """Resize frames to squares, as `resize_frame` does each, and mirror them if `flip`.

    Args:
        frames: shape (T, H, W, 3).
        size: height and width of the result.
        antialias: whether to antialias if a side shrinks by more than ANTIALIAS_ABOVE.
        flip: whether to swap left and right.
    """
    antialias = antialias and max(frames.shape[1:3]) / size > ANTIALIAS_ABOVE
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2)
    resized = F.interpolate(pixels, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)
    if flip:
        resized = resized.flip(-1)  # in torch, which knows channels-last: numpy's reversed copy takes 8 times as long
    return np.asarray(resized.permute(0, 2, 3, 1).numpy())


def _interpolate(frame: Frames, size: tuple[int, int], *, antialias: bool) -> Frames:
    if frame.shape[:2] == size:
        return frame
    resized = F.interpolate(
        _channels_first(frame), size=size, mode="bilinear", align_corners=False, antialias=antialias
    )
    return np.asarray(resized.permute(0, 2, 3, 1)[0].numpy())


def _channels_first(frame: Frames) -> Tensor:
    """Return a frame as torch resizes it, shape (1, 3, H, W) over memory (H, W, 3)."""
    # The batch axis comes first: behind permute() its stride would hide from torch that this is channels-last,
    # and the resize would take three times as long (640x360 to 256: 0.6 instead of 0.2 ms, one thread).
    return torch.from_numpy(np.require(frame, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)


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


def normalize(
    clips: Tensor, mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, spent: Tensor | None = None
) -> Tensor:
    """Turn uint8 views into the model's input: (value - mean) / std, computed in float32 on the clips' device.

    Args:
        clips: uint8, shape (b, T, H, W, 3).
        mean: of red, green, blue, in grey levels.
        std: of red, green, blue, in grey levels.
        dtype: of the result.
        spent: an earlier result that nobody needs any more. If it has the right shape and type a processor writes the
            new one over it, which saves the system finding and clearing that much memory: half of the time.

    Returns:
        Clips, shape (b, 3, T, H, W): a view whose memory stays (b, T, H, W, 3).
    """
    if clips.dtype != torch.uint8 or clips.ndim != 5 or clips.shape[-1] != 3:
        raise ValueError(f"clips must be uint8 of shape (b, T, H, W, 3), got {clips.dtype} {tuple(clips.shape)}")
    colours = colours_of(mean, std, clips.device)
    if clips.device.type != "cpu":
        values = clips.to(torch.float32).sub_(colours[0]).div_(colours[1]).to(dtype)
    else:
        values = torch.empty(clips.shape, dtype=dtype) if spent is None else spent.permute(0, 2, 3, 4, 1)
        if values.shape != clips.shape or values.dtype != dtype or not values.is_contiguous():
            values = torch.empty(clips.shape, dtype=dtype)
        _normalize_by_frame(clips, colours, values)
    return values.permute(0, 4, 1, 2, 3)


def colours_of(mean: Sequence[float], std: Sequence[float], device: torch.device) -> Tensor:
    """Return mean and std of red, green, blue, shape (2, 3), float32, on a device."""
    return _colours(tuple(mean), tuple(std), device)


@lru_cache(maxsize=8)
def _colours(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> Tensor:
    """Mean and std, shape (2, 3); kept, because a GPU would have to finish all its work to be given new ones."""
    with torch.inference_mode(False):  # what is kept must serve training, too
        return torch.tensor([mean, std], dtype=torch.float32, device=device)


def _normalize_by_frame(clips: Tensor, colours: Tensor, values: Tensor) -> None:
    """Do each frame in the processor's cache, its rows as long vectors: a third of the time of whole clips."""
    b, t, h, w, c = clips.shape
    mean, std = colours.repeat(1, w)
    centred = torch.empty((h, w * c))
    for frame, value in zip(clips.reshape(b * t, h, w * c), values.view(b * t, h, w * c), strict=True):
        torch.div(centred.copy_(frame).sub_(mean), std, out=value)
