"""Triton kernels of `pyramid_pool`, forward and backward.

Programs come in slabs: the frames of a clip that whole boxes of both levels cover, first the slab's fine tokens, then
its coarse ones. Those of a slab run at about the same time, so the second reading of its tokens finds them in L2.
"""

from __future__ import annotations

from math import lcm, prod

import torch
import triton
import triton.language as tl
from torch import Tensor

from dualformer_cli.kernels.depthwise_conv3d_kernel import ENOUGH_PROGRAMS, block_of_channels, taps_first
from dualformer_cli.kernels.rounding import cast


@triton.jit
def _box_rows(
    tokens: tl.tensor,  # (n,) int64 numbers of boxes in the level, over all clips
    taps: tl.tensor,  # (m,) numbers of tokens in a box
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    KT: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
) -> tl.tensor:
    """Rows (n, m) of the boxes' tokens in the grid (b t h w), int64."""
    level_w = grid_w // KW
    level_h = grid_h // KH
    frame = tokens // (level_w * level_h) * KT  # over all clips: boxes in time divide a clip
    h = tokens // level_w % level_h * KH
    w = tokens % level_w * KW
    inner = (taps // (KH * KW)).to(tl.int64) * grid_h * grid_w + taps // KW % KH * grid_w + taps % KW
    return ((frame * grid_h + h) * grid_w + w)[:, None] + inner[None, :]


@triton.jit
def _pool(
    x: tl.tensor,
    weight: tl.tensor,  # (taps, c)
    bias: tl.tensor,  # (c,)
    level: tl.tensor,  # (b, t', h', w', c)
    first: tl.tensor,  # first box, int64
    num_boxes: tl.tensor,  # of the slab that are left, from the first one
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    KT: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Compute and store BLOCK_B tokens of a level."""
    boxes = tl.arange(0, BLOCK_B)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_box = boxes < num_boxes
    is_channel = columns < channels
    acc = tl.zeros((BLOCK_B, BLOCK_T, BLOCK_C), tl.float32)
    for start in range(0, KT * KH * KW, BLOCK_T):
        taps = start + tl.arange(0, BLOCK_T)
        is_tap = taps < KT * KH * KW
        rows = _box_rows(first + boxes, taps, grid_h, grid_w, KT, KH, KW)
        inside = is_box[:, None, None] & is_tap[None, :, None] & is_channel[None, None, :]
        tokens = tl.load(x + rows[:, :, None] * channels + columns[None, None, :], mask=inside, other=0.0)
        kernel = tl.load(
            weight + taps[:, None] * channels + columns[None, :], mask=is_tap[:, None] & is_channel[None, :], other=0.0
        )
        acc += tokens.to(tl.float32) * kernel.to(tl.float32)[None, :, :]
    result = tl.sum(acc, 1) + tl.load(bias + columns, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    pointers = level + (first + boxes)[:, None] * channels + columns[None, :]
    tl.store(pointers, cast(result, level.dtype.element_ty), mask=is_box[:, None] & is_channel[None, :])


@triton.jit
def pyramid_pool_forward_kernel(
    x: tl.tensor,  # (b, t, h, w, c)
    fine_weight: tl.tensor,  # (fine taps, c)
    fine_bias: tl.tensor,  # (c,)
    fine: tl.tensor,  # (b, t', h', w', c)
    coarse_weight: tl.tensor,  # (coarse taps, c)
    coarse_bias: tl.tensor,  # (c,)
    coarse: tl.tensor,  # (b, t'', h'', w'', c)
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    fine_boxes: tl.tensor,  # of a slab
    coarse_boxes: tl.tensor,  # of a slab; 0 without that level
    FT: tl.constexpr,
    FH: tl.constexpr,
    FW: tl.constexpr,
    CT: tl.constexpr,
    CH: tl.constexpr,
    CW: tl.constexpr,
    BLOCK_B: tl.constexpr,  # boxes of a program
    BLOCK_T: tl.constexpr,  # tokens of a box that are read in a step
    BLOCK_C: tl.constexpr,
) -> None:
    """A program per (slab, few boxes of one level, block of channels)."""
    fine_programs = tl.cdiv(fine_boxes, BLOCK_B)
    programs = fine_programs + tl.cdiv(coarse_boxes, BLOCK_B)
    slab = (tl.program_id(0) // programs).to(tl.int64)
    part = tl.program_id(0) % programs
    if part < fine_programs:
        start = part * BLOCK_B
        _pool(
            x, fine_weight, fine_bias, fine, slab * fine_boxes + start, fine_boxes - start,
            grid_h, grid_w, channels, FT, FH, FW, BLOCK_B, BLOCK_T, BLOCK_C,
        )  # fmt: skip
    else:
        start = (part - fine_programs) * BLOCK_B
        _pool(
            x, coarse_weight, coarse_bias, coarse, slab * coarse_boxes + start, coarse_boxes - start,
            grid_h, grid_w, channels, CT, CH, CW, BLOCK_B, BLOCK_T, BLOCK_C,
        )  # fmt: skip


@triton.jit
def _spread(
    grad: tl.tensor,  # (b, t', h', w', c) of a level
    weight: tl.tensor,  # (taps, c)
    frame: tl.tensor,  # (n,) int64, over all clips
    h: tl.tensor,  # (n,)
    w: tl.tensor,  # (n,)
    columns: tl.tensor,  # (c,)
    inside: tl.tensor,  # (n, c)
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    KT: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
) -> tl.tensor:
    """What a level contributes to the gradient of tokens, (n, c) float32."""
    box = (frame // KT * (grid_h // KH) + h // KH) * (grid_w // KW) + w // KW
    tap = (frame % KT * KH + h % KH) * KW + w % KW
    above = tl.load(grad + box[:, None] * channels + columns[None, :], mask=inside, other=0.0)
    kernel = tl.load(weight + tap[:, None] * channels + columns[None, :], mask=inside, other=0.0)
    return above.to(tl.float32) * kernel.to(tl.float32)


@triton.jit(do_not_specialize=["num_rows"])
def pyramid_pool_backward_input_kernel(
    grad_fine: tl.tensor,  # (b, t', h', w', c)
    fine_weight: tl.tensor,  # (fine taps, c)
    grad_coarse: tl.tensor,  # (b, t'', h'', w'', c)
    coarse_weight: tl.tensor,  # (coarse taps, c)
    grad_x: tl.tensor,  # (b, t, h, w, c)
    num_rows: tl.tensor,  # b t h w
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    WITH_COARSE: tl.constexpr,
    FT: tl.constexpr,
    FH: tl.constexpr,
    FW: tl.constexpr,
    CT: tl.constexpr,
    CH: tl.constexpr,
    CW: tl.constexpr,
    BLOCK_P: tl.constexpr,  # tokens of a program
    BLOCK_C: tl.constexpr,
) -> None:
    """A program per (block of tokens, block of channels)."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = (rows < num_rows)[:, None] & (columns < channels)[None, :]
    frame = rows // (grid_h * grid_w)
    h = (rows // grid_w % grid_h).to(tl.int32)
    w = (rows % grid_w).to(tl.int32)
    result = _spread(grad_fine, fine_weight, frame, h, w, columns, inside, grid_h, grid_w, channels, FT, FH, FW)
    if WITH_COARSE:
        result += _spread(
            grad_coarse, coarse_weight, frame, h, w, columns, inside, grid_h, grid_w, channels, CT, CH, CW
        )
    pointers = grad_x + rows[:, None] * channels + columns[None, :]
    tl.store(pointers, cast(result, grad_x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["num_boxes", "boxes_per_program"])
def pyramid_pool_backward_weight_kernel(
    grad: tl.tensor,  # (b, t', h', w', c) of a level
    x: tl.tensor,  # (b, t, h, w, c)
    partial: tl.tensor,  # (programs, taps, c) float32
    num_boxes: tl.tensor,  # b t' h' w'
    boxes_per_program: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    channels: tl.tensor,
    KT: tl.constexpr,
    KH: tl.constexpr,
    KW: tl.constexpr,
    BLOCK_B: tl.constexpr,  # boxes of a step
    BLOCK_T: tl.constexpr,  # taps of a program
    BLOCK_C: tl.constexpr,
) -> None:
    """A program per (part of the boxes, block of taps, block of channels)."""
    TAPS: tl.constexpr = KT * KH * KW
    BLOCKS: tl.constexpr = (TAPS + BLOCK_T - 1) // BLOCK_T
    part = (tl.program_id(0) // BLOCKS).to(tl.int64)
    taps = tl.program_id(0) % BLOCKS * BLOCK_T + tl.arange(0, BLOCK_T)
    columns = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_weight = (taps < TAPS)[:, None] & (columns < channels)[None, :]
    first = part * boxes_per_program
    last = tl.minimum(first + boxes_per_program, num_boxes)
    acc = tl.zeros((BLOCK_B, BLOCK_T, BLOCK_C), tl.float32)
    for start in range(first, last, BLOCK_B):
        boxes = start + tl.arange(0, BLOCK_B).to(tl.int64)
        is_box = boxes < last
        rows = _box_rows(boxes, taps, grid_h, grid_w, KT, KH, KW)
        above = tl.load(
            grad + boxes[:, None] * channels + columns[None, :],
            mask=is_box[:, None] & (columns < channels)[None, :],
            other=0.0,
        )
        tokens = tl.load(
            x + rows[:, :, None] * channels + columns[None, None, :],
            mask=is_box[:, None, None] & is_weight[None, :, :],
            other=0.0,
        )
        acc += tokens.to(tl.float32) * above.to(tl.float32)[:, None, :]
    pointers = partial + part * TAPS * channels + taps[:, None] * channels + columns[None, :]
    tl.store(pointers, tl.sum(acc, 0), mask=is_weight)


BLOCK_BOXES = 4
BLOCK_TAPS = 16
BLOCK_TOKENS = 32


def forward(
    x: Tensor,
    fine_weight: Tensor,
    fine_bias: Tensor,
    fine: Tensor,
    coarse_weight: Tensor | None,
    coarse_bias: Tensor | None,
    coarse: Tensor,
) -> None:
    """Fill `fine` and, with a coarse level, `coarse`; x and levels (b, t, h, w, c) contiguous."""
    if x.numel() == 0:
        return
    b, t, h, w, channels = x.shape
    ft, fh, fw = fine_weight.shape[2:]
    ct, ch, cw = (ft, fh, fw) if coarse_weight is None else coarse_weight.shape[2:]
    frames = lcm(ft, ct)
    fine_boxes = frames * h * w // (ft * fh * fw)
    coarse_boxes = 0 if coarse_weight is None else frames * h * w // (ct * ch * cw)
    block_c = block_of_channels(channels)
    programs = triton.cdiv(fine_boxes, BLOCK_BOXES) + triton.cdiv(coarse_boxes, BLOCK_BOXES)
    fine_taps = taps_first(fine_weight)
    coarse_taps = fine_taps if coarse_weight is None else taps_first(coarse_weight)
    with torch.cuda.device_of(x):
        pyramid_pool_forward_kernel[(b * t // frames * programs, triton.cdiv(channels, block_c))](
            x, fine_taps, fine_bias, fine, coarse_taps, fine_bias if coarse_bias is None else coarse_bias, coarse,
            h, w, channels, fine_boxes, coarse_boxes, FT=ft, FH=fh, FW=fw, CT=ct, CH=ch, CW=cw,
            BLOCK_B=BLOCK_BOXES, BLOCK_T=BLOCK_TAPS, BLOCK_C=block_c, num_warps=4,
        )  # fmt: skip


def backward_input(
    grad_fine: Tensor, fine_weight: Tensor, grad_coarse: Tensor, coarse_weight: Tensor | None, grad_x: Tensor
) -> None:
    """Fill grad_x; all gradients (b, t, h, w, c) contiguous."""
    if grad_x.numel() == 0:
        return
    h, w, channels = grad_x.shape[2:]
    ft, fh, fw = fine_weight.shape[2:]
    ct, ch, cw = (ft, fh, fw) if coarse_weight is None else coarse_weight.shape[2:]
    num_rows = prod(grad_x.shape[:4])
    block_c = block_of_channels(channels)
    fine_taps = taps_first(fine_weight)
    coarse_taps = fine_taps if coarse_weight is None else taps_first(coarse_weight)
    with torch.cuda.device_of(grad_x):
        pyramid_pool_backward_input_kernel[(triton.cdiv(num_rows, BLOCK_TOKENS), triton.cdiv(channels, block_c))](
            grad_fine, fine_taps, grad_coarse, coarse_taps, grad_x, num_rows, h, w, channels,
            WITH_COARSE=coarse_weight is not None, FT=ft, FH=fh, FW=fw, CT=ct, CH=ch, CW=cw,
            BLOCK_P=BLOCK_TOKENS, BLOCK_C=block_c, num_warps=4,
        )  # fmt: skip


def backward_weight(grad: Tensor, x: Tensor, grad_weight: Tensor, grad_bias: Tensor) -> None:
    """Fill one level's grad_weight (c, 1, kt, kh, kw) and grad_bias (c,); grad and x contiguous."""
    if x.numel() == 0:
        grad_weight.zero_()
        grad_bias.zero_()
        return
    h, w, channels = x.shape[2:]
    kt, kh, kw = grad_weight.shape[2:]
    taps, num_boxes = kt * kh * kw, prod(grad.shape[:4])
    block_c = block_of_channels(channels)
    blocks = triton.cdiv(taps, BLOCK_TAPS)
    num_blocks = triton.cdiv(channels, block_c)
    parts = min(triton.cdiv(num_boxes, 2 * BLOCK_BOXES), max(1, ENOUGH_PROGRAMS // (blocks * num_blocks)))
    boxes_per_program = triton.cdiv(num_boxes, parts)
    partial = x.new_empty(triton.cdiv(num_boxes, boxes_per_program), taps, channels, dtype=torch.float32)
    with torch.cuda.device_of(x):
        pyramid_pool_backward_weight_kernel[(len(partial) * blocks, num_blocks)](
            grad, x, partial, num_boxes, boxes_per_program, h, w, channels, KT=kt, KH=kh, KW=kw,
            BLOCK_B=BLOCK_BOXES, BLOCK_T=BLOCK_TAPS, BLOCK_C=block_c, num_warps=8,  # 4 spill on some cards
        )  # fmt: skip
    grad_weight.copy_(partial.sum(0).t().reshape(grad_weight.shape))
    grad_bias.copy_(grad.sum(dim=(0, 1, 2, 3), dtype=torch.float32))
