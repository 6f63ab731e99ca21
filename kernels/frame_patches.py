"""Frames as they come, uint8, to the patches that the first matrix product of the model takes.

patch = (frame - mean) / std for each colour, computed in float32 and rounded once, the pixels of a patch next to each
other: one byte read and one number written. As PyTorch's operations, the cast, subtraction, division, rounding and copy
into patches move 31 bytes a number in 16 bits, all of them before the model's first product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor

from dualformer_cli.kernels.backend import DTYPES, Backend, Size3, uses_triton


def frame_patches_reference(frames: Tensor, colours: Tensor, patch_size: Size3, dtype: torch.dtype) -> Tensor:
    """Compute `frame_patches` in PyTorch."""
    values = frames.to(torch.float32).sub_(colours[0]).div_(colours[1]).to(dtype)
    return split_patches(values, patch_size)


def split_patches(x: Tensor, patch_size: Size3) -> Tensor:
    """(b, T, H, W, c) to non-overlapping patches (b, t, h, w, pt ph pw c)."""
    pt, ph, pw = patch_size
    return rearrange(x, "b (t pt) (h ph) (w pw) c -> b t h w (pt ph pw c)", pt=pt, ph=ph, pw=pw)


@torch.library.custom_op(
    "dualformer::frame_patches",
    mutates_args=(),
    schema="(Tensor frames, Tensor colours, int[] patch_size, ScalarType dtype) -> Tensor",
)
def _operation(frames: Tensor, colours: Tensor, patch_size: Sequence[int], dtype: torch.dtype) -> Tensor:
    from dualformer_cli.kernels.frame_patches_kernel import forward

    _check(frames, colours, patch_size)
    if dtype not in DTYPES:
        raise ValueError(f"there are no kernels for {dtype}")
    if frames.device != colours.device:
        raise ValueError(f"frames are on {frames.device}, colours on {colours.device}; they must be on one device")
    patches = _empty(frames, colours, patch_size, dtype)
    forward(frames.contiguous(), colours.contiguous(), patches, patch_size)
    return patches


@_operation.register_fake
def _empty(frames: Tensor, colours: Tensor, patch_size: Sequence[int], dtype: torch.dtype) -> Tensor:
    b, t, h, w, c = frames.shape
    pt, ph, pw = patch_size
    return frames.new_empty(b, t // pt, h // ph, w // pw, pt * ph * pw * c, dtype=dtype)


def frame_patches(
    frames: Tensor, colours: Tensor, patch_size: Size3, dtype: torch.dtype, *, backend: Backend = "auto"
) -> Tensor:
    """Normalise frames and cut them into patches.

    Args:
        frames: uint8, shape (b, T, H, W, 3).
        colours: mean and std of red, green, blue, in grey levels, float32, shape (2, 3).
        patch_size: pixels of a patch along (time, height, width).
        dtype: of the result.
        backend: who computes it; auto is the kernel on CUDA, the reference elsewhere.

    Returns:
        Patches, shape (b, t, h, w, pt ph pw 3).

    Raises:
        ValueError: if types or shapes do not fit, or frames do not divide into patches.
    """
    _check(frames, colours, patch_size)
    if uses_triton(backend, colours):
        patches: Tensor = _operation(frames, colours, list(patch_size), dtype)
        return patches
    return frame_patches_reference(frames, colours, patch_size, dtype)


def _check(frames: Tensor, colours: Tensor, patch_size: Sequence[int]) -> None:
    if frames.dtype != torch.uint8 or frames.dim() != 5 or frames.shape[-1] != 3:
        raise ValueError(f"frames must be uint8 of shape (b, T, H, W, 3), got {frames.dtype} {tuple(frames.shape)}")
    if colours.dtype != torch.float32 or colours.shape != (2, 3):
        raise ValueError(f"colours must be float32 of shape (2, 3), got {colours.dtype} {tuple(colours.shape)}")
    sides = list(zip(frames.shape[1:4], patch_size, strict=False))
    if len(patch_size) != 3 or any(patch < 1 or side % patch for side, patch in sides):
        raise ValueError(f"frames {tuple(frames.shape)} do not divide into patches of {tuple(patch_size)}")
