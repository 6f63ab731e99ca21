"""Triton kernels of `depthwise_conv3d`, forward and backward.

Reading each token's 27 neighbours from the caches would cost more than reading x from memory. A program therefore walks
through time over a tile of positions and adds each plane that it reads to the three results which it belongs to, so a
token is read for its 9 neighbours in the plane only. The gradient of x is the same with the kernel mirrored. The
gradient of the weights is summed by each program over its own positions, and then over programs in a fixed order.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dualformer_cli.kernels.rounding import cast


@triton.jit
def _shifted(
    pointers: tl.tensor,  # (BLOCK_P, BLOCK_C) of the tile's own tokens
    h: tl.tensor,  # (BLOCK_P,)
    w: tl.tensor,  # (BLOCK_P,)
    inside: tl.tensor,  # (BLOCK_P, BLOCK_C)
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    shift_h: tl.tensor,
    shift_w: tl.tensor,
) -> tl.tensor:
    """Neighbours of the tile in its plane, float32, zeros beyond the grid."""
    near_h = h + shift_h
    near_w = w + shift_w
    near = (near_h >= 0) & (near_h < grid_h) & (near_w >= 0) & (near_w < grid_w)
    shift = (shift_h * grid_w + shift_w) * channels
    return tl.load(pointers + shift, mask=near[:, None] & inside, other=0.0).to(tl.float32)


@triton.jit(do_not_specialize=["num_frames"])
def depthwise_conv3d_forward_kernel(
    x: tl.tensor,  # (b, t, h, w, c)
    weight: tl.tensor,  # (27, c)
    bias: tl.tensor,  # (c,), unused when MIRRORED
    y: tl.tensor,  # (b, t, h, w, c)
    grid_t: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    num_tiles: tl.tensor,  # of positions in a plane
    num_frames: tl.tensor,  # results of a program along time
    MIRRORED: tl.constexpr,  # the gradient: kernel mirrored, no bias
    BLOCK_P: tl.constexpr,  # positions of a tile
    BLOCK_C: tl.constexpr,
) -> None:
    """A program per (clip, part of time, tile of positions, block of channels)."""
    program = tl.program_id(0)
    positions = program % num_tiles * BLOCK_P + tl.arange(0, BLOCK_P)
    num_parts = tl.cdiv(grid_t, num_frames)
    first = program // num_tiles % num_parts * num_frames
    clip = program // (num_tiles * num_parts)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = columns < channels
    inside = (positions < grid_h * grid_w)[:, None] & is_channel[None, :]
    h = positions // grid_w
    w = positions % grid_w
    plane = tl.cast(grid_h, tl.int64) * grid_w * channels
    offsets = clip.to(tl.int64) * grid_t * plane + positions[:, None].to(tl.int64) * channels + columns[None, :]
    start = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    if not MIRRORED:
        start += tl.load(bias + columns, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    before = start  # result of the plane before the one that is read
    same = start
    last = tl.minimum(first + num_frames, grid_t)
    for frame in range(first - 1, last + 1):
        after = start
        is_frame = (frame >= 0) & (frame < grid_t)
        pointers = x + offsets + frame * plane
        same += tl.load(pointers, mask=inside & is_frame, other=0.0).to(tl.float32)
        for shift_h in range(-1, 2):  # not unrolled: 27 kernel values a channel would not fit into registers
            for kernel_w in tl.static_range(3):
                tokens = _shifted(pointers, h, w, inside & is_frame, grid_h, grid_w, channels, shift_h, kernel_w - 1)
                tap = shift_h * 3 + kernel_w + 3
                if MIRRORED:
                    tap = 8 - tap
                kernel = weight + tap * channels + columns
                early = tl.load(kernel, mask=is_channel, other=0.0).to(tl.float32)
                middle = tl.load(kernel + 9 * channels, mask=is_channel, other=0.0).to(tl.float32)
                late = tl.load(kernel + 18 * channels, mask=is_channel, other=0.0).to(tl.float32)
                same += tokens * middle[None, :]
                if MIRRORED:
                    before += tokens * early[None, :]
                    after += tokens * late[None, :]
                else:
                    before += tokens * late[None, :]
                    after += tokens * early[None, :]
        is_result = (frame > first) & (frame <= last)
        tl.store(y + offsets + (frame - 1) * plane, cast(before, y.dtype.element_ty), mask=inside & is_result)
        before = same
        same = after


@triton.jit(do_not_specialize=["num_columns", "columns_per_program"])
def depthwise_conv3d_backward_weight_kernel(
    grad: tl.tensor,  # (b, t, h, w, c)
    x: tl.tensor,  # (b, t, h, w, c)
    partial: tl.tensor,  # (programs, 28, c) float32: 27 taps and the bias
    grid_t: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    num_tiles: tl.tensor,  # of positions in a plane
    num_columns: tl.tensor,  # tiles of all clips
    columns_per_program: tl.tensor,
    BLOCK_P: tl.constexpr,  # positions of a tile
    BLOCK_C: tl.constexpr,
) -> None:
    """A program per (row of the kernel, part of the tiles, block of channels), over all of time."""
    kernel_h = tl.program_id(0) % 3  # the three next to each other: they share x and grad in L2
    part = tl.program_id(0) // 3
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = columns < channels
    plane = tl.cast(grid_h, tl.int64) * grid_w * channels
    zero = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    early_0, early_1, early_2 = zero, zero, zero
    middle_0, middle_1, middle_2 = zero, zero, zero
    late_0, late_1, late_2 = zero, zero, zero
    total = zero
    first = part * columns_per_program
    for column in range(first, tl.minimum(first + columns_per_program, num_columns)):
        positions = column % num_tiles * BLOCK_P + tl.arange(0, BLOCK_P)
        clip = column // num_tiles
        inside = (positions < grid_h * grid_w)[:, None] & is_channel[None, :]
        h = positions // grid_w
        w = positions % grid_w
        offsets = clip.to(tl.int64) * grid_t * plane + positions[:, None].to(tl.int64) * channels + columns[None, :]
        before = zero
        same = tl.load(grad + offsets, mask=inside, other=0.0).to(tl.float32)
        for frame in range(0, grid_t):
            is_next = inside & (frame + 1 < grid_t)
            after = tl.load(grad + offsets + (frame + 1) * plane, mask=is_next, other=0.0).to(tl.float32)
            pointers = x + offsets + frame * plane
            left = _shifted(pointers, h, w, inside, grid_h, grid_w, channels, kernel_h - 1, -1)
            centre = _shifted(pointers, h, w, inside, grid_h, grid_w, channels, kernel_h - 1, 0)
            right = _shifted(pointers, h, w, inside, grid_h, grid_w, channels, kernel_h - 1, 1)
            early_0 += left * after
            early_1 += centre * after
            early_2 += right * after
            middle_0 += left * same
            middle_1 += centre * same
            middle_2 += right * same
            late_0 += left * before
            late_1 += centre * before
            late_2 += right * before
            total += same
            before = same
            same = after
    rows = partial + part.to(tl.int64) * 28 * channels + columns
    row = rows + kernel_h * 3 * channels
    tl.store(row, tl.sum(early_0, 0), mask=is_channel)
    tl.store(row + channels, tl.sum(early_1, 0), mask=is_channel)
    tl.store(row + 2 * channels, tl.sum(early_2, 0), mask=is_channel)
    tl.store(row + 9 * channels, tl.sum(middle_0, 0), mask=is_channel)
    tl.store(row + 10 * channels, tl.sum(middle_1, 0), mask=is_channel)
    tl.store(row + 11 * channels, tl.sum(middle_2, 0), mask=is_channel)
    tl.store(row + 18 * channels, tl.sum(late_0, 0), mask=is_channel)
    tl.store(row + 19 * channels, tl.sum(late_1, 0), mask=is_channel)
    tl.store(row + 20 * channels, tl.sum(late_2, 0), mask=is_channel)
    tl.store(rows + 27 * channels, tl.sum(total, 0), mask=is_channel & (kernel_h == 0))


FORWARD_POSITIONS = 32
WEIGHT_POSITIONS = 16
ENOUGH_PROGRAMS = 1024
"""Programs that fill a card several times over; beyond them each does more instead."""


def block_of_channels(channels: int) -> int:
    """Channels of a program: up to 64, which are one or two cache lines."""
    return min(64, triton.next_power_of_2(channels))


def taps_first(weight: Tensor) -> Tensor:
    """(c, 1, kt, kh, kw) to (taps, c): neighbouring channels next to each other."""
    return weight.flatten(1).t().contiguous()


def forward(x: Tensor, weight: Tensor, bias: Tensor, y: Tensor) -> None:
    """Fill y; x and y (b, t, h, w, c) contiguous."""
    _convolve(x, weight, bias, y, mirrored=False)


def backward_input(grad: Tensor, weight: Tensor, grad_x: Tensor) -> None:
    """Fill grad_x; grad and grad_x (b, t, h, w, c) contiguous."""
    _convolve(grad, weight, weight, grad_x, mirrored=True)


def _convolve(x: Tensor, weight: Tensor, bias: Tensor, y: Tensor, *, mirrored: bool) -> None:
    if x.numel() == 0:
        return
    b, t, h, w, channels = x.shape
    block_c = block_of_channels(channels)
    num_tiles = triton.cdiv(h * w, FORWARD_POSITIONS)
    num_blocks = triton.cdiv(channels, block_c)
    parts = min(triton.cdiv(t, 2), triton.cdiv(ENOUGH_PROGRAMS, b * num_tiles * num_blocks))
    num_frames = triton.cdiv(t, parts)
    grid = (b * num_tiles * triton.cdiv(t, num_frames), num_blocks)
    num_warps = 4 if x.dtype == torch.bfloat16 else 8  # with 4, other types do not fit into all cards' registers
    with torch.cuda.device_of(x):
        depthwise_conv3d_forward_kernel[grid](
            x, taps_first(weight), bias, y, t, h, w, channels, num_tiles, num_frames,
            MIRRORED=mirrored, BLOCK_P=FORWARD_POSITIONS, BLOCK_C=block_c, num_warps=num_warps,
        )  # fmt: skip


def backward_weight(grad: Tensor, x: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Fill grad_weight (c, 1, 3, 3, 3) and grad_bias (c,); grad and x (b, t, h, w, c) contiguous."""
    if x.numel() == 0:
        grad_weight.zero_()
        grad_bias.zero_()
        return
    b, t, h, w, channels = x.shape
    block_c = block_of_channels(channels)
    num_tiles = triton.cdiv(h * w, WEIGHT_POSITIONS)
    num_blocks = triton.cdiv(channels, block_c)
    parts = min(b * num_tiles, max(1, ENOUGH_PROGRAMS // (3 * num_blocks)))
    columns_per_program = triton.cdiv(b * num_tiles, parts)
    partial = x.new_empty(triton.cdiv(b * num_tiles, columns_per_program), 28, channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        depthwise_conv3d_backward_weight_kernel[(3 * len(partial), num_blocks)](
            grad, x, partial, t, h, w, channels, num_tiles, b * num_tiles, columns_per_program,
            BLOCK_P=WEIGHT_POSITIONS, BLOCK_C=block_c, num_warps=4,
        )  # fmt: skip
    sums = partial.sum(0)
    grad_weight.copy_(sums[:27].t().reshape(grad_weight.shape))
    grad_bias.copy_(sums[27])
