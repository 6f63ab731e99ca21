"""Triton kernels of `bias_gelu`, forward and backward.

The gradient of the bias is summed by each program over its own tokens, and then over programs in a fixed order.
"""

from __future__ import annotations

from math import pi, sqrt

import torch
import triton
import triton.language as tl
from torch import Tensor

from dualformer_cli.kernels.depthwise_conv3d_kernel import ENOUGH_PROGRAMS
from dualformer_cli.kernels.rounding import cast

SQRT_HALF = tl.constexpr(sqrt(0.5))
DENSITY_AT_0 = tl.constexpr(1 / sqrt(2 * pi))
"""Of the normal distribution."""


@triton.jit(do_not_specialize=["num_rows"])
def bias_gelu_forward_kernel(
    x: tl.tensor,  # (rows, c)
    bias: tl.tensor,  # (c,)
    y: tl.tensor,  # (rows, c)
    num_rows: tl.tensor,
    channels: tl.tensor,
    BLOCK_R: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """A program per (block of tokens, block of channels)."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = columns < channels
    inside = (rows < num_rows)[:, None] & is_channel[None, :]
    offsets = rows[:, None] * channels + columns[None, :]
    shift = tl.load(bias + columns, mask=is_channel, other=0.0).to(tl.float32)
    values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) + shift[None, :]
    result = values * 0.5 * (1.0 + tl.erf(values * SQRT_HALF))
    tl.store(y + offsets, cast(result, y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_rows", "rows_per_program"])
def bias_gelu_backward_kernel(
    grad: tl.tensor,  # (rows, c)
    x: tl.tensor,  # (rows, c)
    bias: tl.tensor,  # (c,)
    grad_x: tl.tensor,  # (rows, c)
    partial: tl.tensor,  # (programs, c) float32
    num_rows: tl.tensor,
    rows_per_program: tl.tensor,
    channels: tl.tensor,
    BLOCK_R: tl.constexpr,  # tokens of a step
    BLOCK_C: tl.constexpr,
) -> None:
    """A program per (part of the tokens, block of channels)."""
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = columns < channels
    shift = tl.load(bias + columns, mask=is_channel, other=0.0).to(tl.float32)
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float32)
    first = tl.program_id(0).to(tl.int64) * rows_per_program
    last = tl.minimum(first + rows_per_program, num_rows)
    for start in range(first, last, BLOCK_R):
        rows = start + tl.arange(0, BLOCK_R).to(tl.int64)
        inside = (rows < last)[:, None] & is_channel[None, :]
        offsets = rows[:, None] * channels + columns[None, :]
        values = tl.load(x + offsets, mask=inside, other=0.0).to(tl.float32) + shift[None, :]
        above = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
        share = 0.5 * (1.0 + tl.erf(values * SQRT_HALF))
        slope = share + values * tl.exp(values * values * -0.5) * DENSITY_AT_0
        result = above * slope
        tl.store(grad_x + offsets, cast(result, grad_x.dtype.element_ty), mask=inside)
        total += result
    sums = partial + tl.program_id(0).to(tl.int64) * channels + columns
    tl.store(sums, tl.sum(total, 0), mask=is_channel)


BLOCK_CHANNELS = 128
BLOCK_NUMBERS = 2048
"""Numbers of a program, or of its step."""


def forward(x: Tensor, bias: Tensor, y: Tensor) -> None:
    """Fill y; x and y (..., c) contiguous."""
    if x.numel() == 0:
        return
    num_rows, num_blocks, block = _sizes(x)
    with torch.cuda.device_of(x):
        bias_gelu_forward_kernel[(triton.cdiv(num_rows, block["BLOCK_R"]), num_blocks)](
            x, bias, y, num_rows, x.shape[-1], **block, num_warps=4
        )


def backward(grad: Tensor, x: Tensor, bias: Tensor, grad_x: Tensor, grad_bias: Tensor) -> None:
    """Fill grad_x and grad_bias; grad, x and grad_x (..., c) contiguous."""
    if x.numel() == 0:
        grad_bias.zero_()
        return
    num_rows, num_blocks, block = _sizes(x)
    parts = max(1, ENOUGH_PROGRAMS // num_blocks)
    rows_per_program = triton.cdiv(triton.cdiv(num_rows, block["BLOCK_R"]), parts) * block["BLOCK_R"]
    channels = x.shape[-1]
    partial = x.new_empty(triton.cdiv(num_rows, rows_per_program), channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        bias_gelu_backward_kernel[(len(partial), num_blocks)](
            grad, x, bias, grad_x, partial, num_rows, rows_per_program, channels, **block, num_warps=4
        )
    grad_bias.copy_(partial.sum(0))


def _sizes(x: Tensor) -> tuple[int, int, dict[str, int]]:
    """Return the tokens, the blocks of channels, and the sizes of a block."""
    channels = x.shape[-1]
    block_c = min(BLOCK_CHANNELS, triton.next_power_of_2(channels))
    return (
        x.numel() // channels,
        triton.cdiv(channels, block_c),
        {"BLOCK_R": BLOCK_NUMBERS // block_c, "BLOCK_C": block_c},
    )
