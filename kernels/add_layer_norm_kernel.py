"""Triton kernels of `add_layer_norm`, forward and backward.

A program holds whole tokens, so that mean and variance are sums inside it. The gradients of weight and bias are summed
by each program over its own tokens, and then over programs in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dualformer_cli.kernels.depthwise_conv3d_kernel import ENOUGH_PROGRAMS
from dualformer_cli.kernels.rounding import cast


@triton.jit
def _normalise(
    total: tl.tensor,  # (BLOCK_R, BLOCK_C) float32, zeros beyond the channels
    is_channel: tl.tensor,  # (BLOCK_C,)
    channels: tl.tensor,
    eps: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """Tokens with mean 0 and variance 1, and what they were multiplied by, (BLOCK_R,)."""
    mean = tl.sum(total, 1) / channels
    centred = tl.where(is_channel[None, :], total - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / channels + eps)
    return centred * scale[:, None], scale


@triton.jit(do_not_specialize=["num_rows"])
def add_layer_norm_forward_kernel(
    x: tl.tensor,  # (rows, c)
    branch: tl.tensor,  # (rows, c), unused without HAS_BRANCH
    weight: tl.tensor,  # (c,)
    bias: tl.tensor,  # (c,)
    factors: tl.tensor,  # (b,) float32, unused without HAS_FACTORS
    total: tl.tensor,  # (rows, c), written with HAS_BRANCH
    normed: tl.tensor,  # (rows, c)
    num_rows: tl.tensor,  # tokens of all clips
    rows_per_clip: tl.tensor,
    channels: tl.tensor,
    eps: tl.tensor,
    HAS_BRANCH: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    BLOCK_R: tl.constexpr,  # tokens of a program
    BLOCK_C: tl.constexpr,  # the power of two from the channels on
) -> None:
    """A program per block of tokens."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = tl.arange(0, BLOCK_C)
    is_row = rows < num_rows
    is_channel = columns < channels
    inside = is_row[:, None] & is_channel[None, :]
    offsets = rows[:, None] * channels + columns[None, :]
    tokens = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32)
    if HAS_BRANCH:
        added = tl.load(branch + offsets, mask=inside, other=0.0).to(tl.float32)
        if HAS_FACTORS:
            added *= tl.load(factors + rows // rows_per_clip, mask=is_row, other=0.0)[:, None]
        rounded = cast(tokens + added, total.dtype.element_ty)
        tl.store(total + offsets, rounded, mask=inside)
        tokens = rounded.to(tl.float32)  # the backward pass finds these
    tokens, _ = _normalise(tokens, is_channel, channels, eps)
    slope = tl.load(weight + columns, mask=is_channel, other=0.0).to(tl.float32)
    shift = tl.load(bias + columns, mask=is_channel, other=0.0).to(tl.float32)
    result = tokens * slope[None, :] + shift[None, :]
    tl.store(normed + offsets, cast(result, normed.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_rows", "rows_per_program"])
def add_layer_norm_backward_kernel(
    grad_total: tl.tensor,  # (rows, c), unused without HAS_BRANCH
    grad_normed: tl.tensor,  # (rows, c)
    total: tl.tensor,  # (rows, c)
    weight: tl.tensor,  # (c,)
    factors: tl.tensor,  # (b,) float32, unused without HAS_FACTORS
    grad_x: tl.tensor,  # (rows, c)
    grad_branch: tl.tensor,  # (rows, c), written with HAS_BRANCH
    partial: tl.tensor,  # (programs, 2, c) float32: gradients of weight and bias
    num_rows: tl.tensor,  # tokens of all clips
    rows_per_clip: tl.tensor,
    rows_per_program: tl.tensor,
    channels: tl.tensor,
    eps: tl.tensor,
    HAS_BRANCH: tl.constexpr,
    HAS_FACTORS: tl.constexpr,
    BLOCK_R: tl.constexpr,  # tokens of a step
    BLOCK_C: tl.constexpr,  # the power of two from the channels on
) -> None:
    """A program per part of the tokens."""
    columns = tl.arange(0, BLOCK_C)
    is_channel = columns < channels
    slope = tl.load(weight + columns, mask=is_channel, other=0.0).to(tl.float32)
    grad_slope = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    grad_shift = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    first = tl.program_id(0).to(tl.int64) * rows_per_program
    last = tl.minimum(first + rows_per_program, num_rows)
    for start in range(first, last, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R).to(tl.int64)
        is_row = rows < last
        inside = is_row[:, None] & is_channel[None, :]
        offsets = rows[:, None] * channels + columns[None, :]
        tokens = tl.load(total + offsets, mask=inside, other=0.0).to(tl.float32)
        above = tl.load(grad_normed + offsets, mask=inside, other=0.0).to(tl.float32)
        tokens, scale = _normalise(tokens, is_channel, channels, eps)
        grad_slope += above * tokens
        grad_shift += above
        above *= slope[None, :]
        mean = tl.sum(above, 1) / channels
        along = tl.sum(above * tokens, 1) / channels
        grad = (above - mean[:, None] - tokens * along[:, None]) * scale[:, None]
        if HAS_BRANCH:
            grad += tl.load(grad_total + offsets, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_x + offsets, cast(grad, grad_x.dtype.element_ty), mask=inside)
        if HAS_BRANCH:
            if HAS_FACTORS:
                grad *= tl.load(factors + rows // rows_per_clip, mask=is_row, other=0.0)[:, None]
            tl.store(grad_branch + offsets, cast(grad, grad_branch.dtype.element_ty), mask=inside)
    sums = partial + tl.program_id(0).to(tl.int64) * 2 * channels + columns
    tl.store(sums, tl.sum(grad_slope, 0), mask=is_channel)
    tl.store(sums + channels, tl.sum(grad_shift, 0), mask=is_channel)


def forward(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    factors: Tensor | None,
    eps: float,
    total: Tensor,
    normed: Tensor,
) -> None:
    """Fill `normed` and, with a branch, `total`; shapes (b, ..., c), all contiguous."""
    if x.numel() == 0:
        return
    num_rows, rows_per_clip, block = _sizes(x)
    with torch.cuda.device_of(x):
        add_layer_norm_forward_kernel[(triton.cdiv(num_rows, block["BLOCK_R"]),)](
            x, x if branch is None else branch, weight, bias, weight if factors is None else factors, total, normed,
            num_rows, rows_per_clip, x.shape[-1], eps,
            HAS_BRANCH=branch is not None, HAS_FACTORS=factors is not None, **block,
        )  # fmt: skip


def backward(
    grad_total: Tensor | None,
    grad_normed: Tensor,
    total: Tensor,
    weight: Tensor,
    factors: Tensor | None,
    eps: float,
    grad_x: Tensor,
    grad_branch: Tensor | None,
    grad_weight: Tensor,
    grad_bias: Tensor,
) -> None:
    """Fill the gradients; shapes (b, ..., c), all contiguous; grad_total and grad_branch are there with a branch."""
    if total.numel() == 0:
        grad_weight.zero_()
        grad_bias.zero_()
        return
    num_rows, rows_per_clip, block = _sizes(total)
    steps = triton.cdiv(num_rows, block["BLOCK_R"])
    rows_per_program = triton.cdiv(steps, ENOUGH_PROGRAMS) * block["BLOCK_R"]
    channels = total.shape[-1]
    partial = total.new_empty(triton.cdiv(num_rows, rows_per_program), 2, channels, dtype=torch.float32)
    with torch.cuda.device_of(total):
        add_layer_norm_backward_kernel[(len(partial),)](
            total if grad_total is None else grad_total, grad_normed, total, weight,
            weight if factors is None else factors, grad_x, grad_x if grad_branch is None else grad_branch, partial,
            num_rows, rows_per_clip, rows_per_program, channels, eps,
            HAS_BRANCH=grad_branch is not None, HAS_FACTORS=factors is not None, **block,
        )  # fmt: skip
    sums = partial.sum(0)
    grad_weight.copy_(sums[0])
    grad_bias.copy_(sums[1])


def _sizes(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Return the tokens, those of a clip, and the blocks and warps of a launch."""
    channels = x.shape[-1]
    num_rows = x.numel() // channels
    block_c = triton.next_power_of_2(channels)
    block = {"BLOCK_R": max(1, 2048 // block_c), "BLOCK_C": block_c, "num_warps": 4 if block_c <= 2048 else 8}
    return num_rows, num_rows // len(x), block
