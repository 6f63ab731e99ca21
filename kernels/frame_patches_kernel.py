"""Triton kernel of `frame_patches`.

Numbers of a patch that lie next to each other come from a row of its pixels, also next to each other, so that a warp
reads few cache lines; the next programs find the rest of them in L2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from dualformer_cli.kernels.rounding import cast


@triton.jit(do_not_specialize=["num_patches"])
def frame_patches_kernel(
    frames: tl.tensor,  # (b, T, H, W, 3) uint8
    colours: tl.tensor,  # (2, 3) float32: mean, std
    patches: tl.tensor,  # (b, t, h, w, PT PH PW 3)
    num_patches: tl.tensor,  # of all clips
    grid_h: tl.tensor,  # patches
    grid_w: tl.tensor,  # patches
    PT: tl.constexpr,
    PH: tl.constexpr,
    PW: tl.constexpr,
    BLOCK_P: tl.constexpr,  # patches of a program
    BLOCK_K: tl.constexpr,  # numbers of a patch
) -> None:
    """A program per (block of patches, block of their numbers)."""
    NUMBERS: tl.constexpr = PT * PH * PW * 3
    patch = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    number = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    is_number = number < NUMBERS
    inside = (patch < num_patches)[:, None] & is_number[None, :]
    frame = patch // (grid_h * grid_w) * PT  # over all clips: patches in time divide a clip
    row = patch // grid_w % grid_h * PH
    column = patch % grid_w * PW
    width = grid_w * PW * 3
    start = (frame * (grid_h * PH) + row) * width + column * 3
    inner_row = number // (PW * 3)
    within = (inner_row // PH * (grid_h * PH) + inner_row % PH) * width + number % (PW * 3)
    grey = tl.load(frames + start[:, None] + within[None, :], mask=inside, other=0).to(tl.float32)
    mean = tl.load(colours + number % 3, mask=is_number, other=0.0)
    std = tl.load(colours + 3 + number % 3, mask=is_number, other=1.0)
    result = tl.div_rn(grey - mean[None, :], tl.broadcast_to(std[None, :], (BLOCK_P, BLOCK_K)))
    tl.store(patches + patch[:, None] * NUMBERS + number[None, :], cast(result, patches.dtype.element_ty), mask=inside)


BLOCK_NUMBERS = 2048
"""Numbers of a program."""


def forward(frames: Tensor, colours: Tensor, patches: Tensor, patch_size: Sequence[int]) -> None:
    """Fill patches (b, t, h, w, pt ph pw 3); all contiguous."""
    if frames.numel() == 0:
        return
    numbers = patches.shape[-1]
    num_patches = patches.numel() // numbers
    block_k = min(128, triton.next_power_of_2(numbers))
    block_p = BLOCK_NUMBERS // block_k
    pt, ph, pw = patch_size
    with torch.cuda.device_of(frames):
        frame_patches_kernel[(triton.cdiv(num_patches, block_p), triton.cdiv(numbers, block_k))](
            frames, colours, patches, num_patches, *patches.shape[2:4],
            PT=pt, PH=ph, PW=pw, BLOCK_P=block_p, BLOCK_K=block_k, num_warps=4,
        )  # fmt: skip
