"""Triton kernels of `window_attention`, forward and backward.

Flash-style: a program owns a block of one window's tokens in one head and walks over the others in blocks, with running
maximum and sum (forward) or with the saved logarithm of the sum (backward); every result is written by exactly one
program, so there are no atomics and two runs give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import e, log, log2, prod

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.driver import driver

from dualformer_cli.kernels.backend import is_interpreted
from dualformer_cli.kernels.rounding import cast, dot

LN2 = tl.constexpr(log(2.0))
"""Exponentials are taken in base 2, which the hardware has."""


@triton.constexpr_function
def tail_block(count: int) -> int:
    """Return the size of the block that takes the last tokens: a power of two that products of matrices take."""
    return max(16, triton.next_power_of_2(count))


@triton.jit
def _token_rows(
    window: tl.tensor,  # number of the window among all clips
    tokens: tl.tensor,  # numbers of tokens in the window
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
) -> tl.tensor:
    """Rows of a window's tokens in the grid (b t h w), int64."""
    num_h = grid_h // WH
    num_w = grid_w // WW
    first_w = window % num_w * WW
    first_h = window // num_w % num_h * WH
    frame = window // (num_w * num_h) * WT + tokens // (WH * WW)  # over all clips: windows in time divide a clip
    h = first_h + tokens // WW % WH
    w = first_w + tokens % WW
    return (frame.to(tl.int64) * grid_h + h) * grid_w + w


@triton.jit
def _load(
    base: tl.tensor,  # of the first token's first channel
    rows: tl.tensor,  # (l,) int64
    head: tl.tensor,
    stride: tl.tensor,  # from row to row
    valid: tl.tensor,  # (l,)
    MASKED: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
) -> tl.tensor:
    """Tokens (l, D), zeros where not valid and beyond the head's channels."""
    columns = tl.arange(0, D)
    pointers = base + rows[:, None] * stride + (head * WIDTH + columns)[None, :]
    if WIDTH < D:
        return tl.load(pointers, mask=valid[:, None] & (columns < WIDTH)[None, :], other=0.0)
    if MASKED:
        return tl.load(pointers, mask=valid[:, None], other=0.0)
    return tl.load(pointers)


@triton.jit
def _store(
    base: tl.tensor,  # of the first token's first channel
    rows: tl.tensor,  # (l,) int64
    head: tl.tensor,
    stride: tl.tensor,  # from row to row
    valid: tl.tensor,  # (l,)
    result: tl.tensor,  # (l, D) float32
    WIDTH: tl.constexpr,
    D: tl.constexpr,
) -> None:
    """Round and store the head's channels of the valid tokens."""
    columns = tl.arange(0, D)
    pointers = base + rows[:, None] * stride + (head * WIDTH + columns)[None, :]
    mask = valid[:, None]
    if WIDTH < D:
        mask = mask & (columns < WIDTH)[None, :]
    tl.store(pointers, cast(result, base.dtype.element_ty), mask=mask)


@triton.jit
def _attend_block(
    acc: tl.tensor,  # (BLOCK_M, D) float32, values weighted so far
    highest: tl.tensor,  # (BLOCK_M,) highest score so far, not scaled
    total: tl.tensor,  # (BLOCK_M,) or (BLOCK_M, SUM_COLUMNS), sum of exp2(scale * (score - highest))
    q: tl.tensor,  # (BLOCK_M, D)
    qkv: tl.tensor,
    start: tl.tensor,  # first key
    window: tl.tensor,
    head: tl.tensor,
    channels: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    scale: tl.tensor,
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    SUM_COLUMNS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Add the keys start, ..., start + BLOCK_N - 1."""
    keys = start + tl.arange(0, BLOCK_N)
    rows = _token_rows(window, keys, grid_h, grid_w, WT, WH, WW)
    valid = keys < WT * WH * WW
    k = _load(qkv + channels, rows, head, 3 * channels, valid, MASKED, WIDTH, D)
    v = _load(qkv + 2 * channels, rows, head, 3 * channels, valid, MASKED, WIDTH, D)
    scores = dot(q, tl.trans(k))
    if MASKED:
        scores = tl.where(valid[None, :], scores, float("-inf"))
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    shift = tl.where(new_highest == float("-inf"), 0.0, new_highest * scale)  # -inf - -inf would be NaN
    shrink = tl.exp2(highest * scale - shift)
    weights = tl.exp2(scores * scale - shift[:, None])  # one multiply-add a score
    if SUM_COLUMNS:  # the units that multiply matrices add, too
        ones = cast(tl.full((BLOCK_N, SUM_COLUMNS), 1.0, tl.float32), v.dtype)
        total = total * shrink[:, None] + dot(cast(weights, v.dtype), ones)
    else:
        total = total * shrink + tl.sum(weights, 1)
    acc = acc * shrink[:, None] + dot(cast(weights, v.dtype), v)
    return acc, new_highest, total


@triton.jit
def window_attention_forward_kernel(
    qkv: tl.tensor,  # (b, t, h, w, 3 * channels)
    out: tl.tensor,  # (b, t, h, w, channels)
    logsumexp: tl.tensor,  # (windows, heads, l) float32, base 2
    num_heads: tl.tensor,
    channels: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    scale: tl.tensor,  # log2(e) / sqrt(WIDTH)
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    WIDTH: tl.constexpr,  # channels of a head
    D: tl.constexpr,  # the power of two from WIDTH on
    SUM_COLUMNS: tl.constexpr,  # of a matrix of ones whose product with the weights is their sum; 0 for adding them
    WITH_LOGSUMEXP: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries of a program
    BLOCK_N: tl.constexpr,  # keys of a step; the sums' order depends on it
) -> None:
    """A program per (window, head, block of queries), blocks next to each other: they share keys and values in L2."""
    TOKENS: tl.constexpr = WT * WH * WW
    BLOCKS: tl.constexpr = (TOKENS + BLOCK_M - 1) // BLOCK_M
    WHOLE: tl.constexpr = TOKENS // BLOCK_N * BLOCK_N
    TAIL: tl.constexpr = tail_block(TOKENS - WHOLE)
    program = tl.program_id(0)
    head = program // BLOCKS % num_heads
    window = program // (BLOCKS * num_heads)
    queries = program % BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    rows = _token_rows(window, queries, grid_h, grid_w, WT, WH, WW)
    valid = queries < TOKENS
    q = _load(qkv, rows, head, 3 * channels, valid, True, WIDTH, D)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M, SUM_COLUMNS) if SUM_COLUMNS else (BLOCK_M,), tl.float32)
    for start in range(0, WHOLE, BLOCK_N):
        acc, highest, total = _attend_block(
            acc, highest, total, q, qkv, start, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, WIDTH, D, SUM_COLUMNS, BLOCK_N, False,
        )  # fmt: skip
    if WHOLE < TOKENS:
        acc, highest, total = _attend_block(
            acc, highest, total, q, qkv, WHOLE, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, WIDTH, D, SUM_COLUMNS, TAIL, True,
        )  # fmt: skip
    if SUM_COLUMNS:
        total = tl.max(total, 1)  # all columns are equal
    _store(out, rows, head, channels, valid, acc / total[:, None], WIDTH, D)
    if WITH_LOGSUMEXP:
        first = (window.to(tl.int64) * num_heads + head) * TOKENS
        tl.store(logsumexp + first + queries, highest * scale + tl.log2(total), mask=valid)


@triton.jit
def _query_gradient_block(
    grad_q: tl.tensor,  # (BLOCK_M, D) float32, so far
    q: tl.tensor,  # (BLOCK_M, D)
    grad: tl.tensor,  # (BLOCK_M, D)
    logsumexp: tl.tensor,  # (BLOCK_M,)
    delta: tl.tensor,  # (BLOCK_M,)
    qkv: tl.tensor,
    start: tl.tensor,  # first key
    window: tl.tensor,
    head: tl.tensor,
    channels: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    scale: tl.tensor,
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
) -> tl.tensor:
    """Add what the keys start, ..., start + BLOCK_N - 1 contribute."""
    keys = start + tl.arange(0, BLOCK_N)
    rows = _token_rows(window, keys, grid_h, grid_w, WT, WH, WW)
    valid = keys < WT * WH * WW
    k = _load(qkv + channels, rows, head, 3 * channels, valid, MASKED, WIDTH, D)
    v = _load(qkv + 2 * channels, rows, head, 3 * channels, valid, MASKED, WIDTH, D)
    weights = tl.exp2(dot(q, tl.trans(k)) * scale - logsumexp[:, None])
    if MASKED:
        weights = tl.where(valid[None, :], weights, 0.0)
    grad_scores = weights * (dot(grad, tl.trans(v)) - delta[:, None])
    return grad_q + dot(cast(grad_scores, k.dtype), k)


@triton.jit
def window_attention_backward_query_kernel(
    grad: tl.tensor,  # (b, t, h, w, channels)
    qkv: tl.tensor,  # (b, t, h, w, 3 * channels)
    out: tl.tensor,  # (b, t, h, w, channels)
    logsumexp: tl.tensor,  # (windows, heads, l) float32, base 2
    delta: tl.tensor,  # (windows, heads, l) float32, written: sum over channels of grad * out
    grad_qkv: tl.tensor,  # (b, t, h, w, 3 * channels), the queries' third written
    num_heads: tl.tensor,
    channels: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    scale: tl.tensor,  # log2(e) / sqrt(WIDTH)
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries of a program
    BLOCK_N: tl.constexpr,  # keys of a step; the sums' order depends on it
) -> None:
    """A program per (window, head, block of queries)."""
    TOKENS: tl.constexpr = WT * WH * WW
    BLOCKS: tl.constexpr = (TOKENS + BLOCK_M - 1) // BLOCK_M
    WHOLE: tl.constexpr = TOKENS // BLOCK_N * BLOCK_N
    TAIL: tl.constexpr = tail_block(TOKENS - WHOLE)
    program = tl.program_id(0)
    head = program // BLOCKS % num_heads
    window = program // (BLOCKS * num_heads)
    queries = program % BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    rows = _token_rows(window, queries, grid_h, grid_w, WT, WH, WW)
    valid = queries < TOKENS
    q = _load(qkv, rows, head, 3 * channels, valid, True, WIDTH, D)
    grad_out = _load(grad, rows, head, channels, valid, True, WIDTH, D)
    result = _load(out, rows, head, channels, valid, True, WIDTH, D)
    first = (window.to(tl.int64) * num_heads + head) * TOKENS
    row_delta = tl.sum(grad_out.to(tl.float32) * result.to(tl.float32), 1)
    tl.store(delta + first + queries, row_delta, mask=valid)
    row_logsumexp = tl.load(logsumexp + first + queries, mask=valid, other=float("inf"))
    grad_q = tl.zeros((BLOCK_M, D), tl.float32)
    for start in range(0, WHOLE, BLOCK_N):
        grad_q = _query_gradient_block(
            grad_q, q, grad_out, row_logsumexp, row_delta, qkv, start, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, WIDTH, D, BLOCK_N, False,
        )  # fmt: skip
    if WHOLE < TOKENS:
        grad_q = _query_gradient_block(
            grad_q, q, grad_out, row_logsumexp, row_delta, qkv, WHOLE, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, WIDTH, D, TAIL, True,
        )  # fmt: skip
    _store(grad_qkv, rows, head, 3 * channels, valid, grad_q * (scale * LN2), WIDTH, D)


@triton.jit
def _key_gradient_block(
    grad_k: tl.tensor,  # (BLOCK_N, D) float32, so far
    grad_v: tl.tensor,  # (BLOCK_N, D) float32, so far
    k: tl.tensor,  # (BLOCK_N, D)
    v: tl.tensor,  # (BLOCK_N, D)
    grad: tl.tensor,
    qkv: tl.tensor,
    logsumexp: tl.tensor,  # (l,) of this window and head
    delta: tl.tensor,  # (l,) of this window and head
    start: tl.tensor,  # first query
    window: tl.tensor,
    head: tl.tensor,
    channels: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    scale: tl.tensor,
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    MASKED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Add what the queries start, ..., start + BLOCK_M - 1 contribute."""
    queries = start + tl.arange(0, BLOCK_M)
    rows = _token_rows(window, queries, grid_h, grid_w, WT, WH, WW)
    valid = queries < WT * WH * WW
    q = _load(qkv, rows, head, 3 * channels, valid, MASKED, WIDTH, D)
    grad_out = _load(grad, rows, head, channels, valid, MASKED, WIDTH, D)
    if MASKED:
        row_logsumexp = tl.load(logsumexp + queries, mask=valid, other=float("inf"))  # weight 0
        row_delta = tl.load(delta + queries, mask=valid, other=0.0)
    else:
        row_logsumexp = tl.load(logsumexp + queries)
        row_delta = tl.load(delta + queries)
    weights = tl.exp2(dot(k, tl.trans(q)) * scale - row_logsumexp[None, :])
    grad_v += dot(cast(weights, grad_out.dtype), grad_out)
    grad_scores = weights * (dot(v, tl.trans(grad_out)) - row_delta[None, :])
    grad_k += dot(cast(grad_scores, q.dtype), q)
    return grad_k, grad_v


@triton.jit
def window_attention_backward_key_kernel(
    grad: tl.tensor,  # (b, t, h, w, channels)
    qkv: tl.tensor,  # (b, t, h, w, 3 * channels)
    logsumexp: tl.tensor,  # (windows, heads, l) float32, base 2
    delta: tl.tensor,  # (windows, heads, l) float32
    grad_qkv: tl.tensor,  # (b, t, h, w, 3 * channels), the thirds of keys and values written
    num_heads: tl.tensor,
    channels: tl.tensor,
    grid_h: tl.tensor,
    grid_w: tl.tensor,
    scale: tl.tensor,  # log2(e) / sqrt(WIDTH)
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    WIDTH: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries of a step; the sums' order depends on it
    BLOCK_N: tl.constexpr,  # keys of a program
) -> None:
    """A program per (window, head, block of keys)."""
    TOKENS: tl.constexpr = WT * WH * WW
    BLOCKS: tl.constexpr = (TOKENS + BLOCK_N - 1) // BLOCK_N
    WHOLE: tl.constexpr = TOKENS // BLOCK_M * BLOCK_M
    TAIL: tl.constexpr = tail_block(TOKENS - WHOLE)
    program = tl.program_id(0)
    head = program // BLOCKS % num_heads
    window = program // (BLOCKS * num_heads)
    keys = program % BLOCKS * BLOCK_N + tl.arange(0, BLOCK_N)
    rows = _token_rows(window, keys, grid_h, grid_w, WT, WH, WW)
    valid = keys < TOKENS
    k = _load(qkv + channels, rows, head, 3 * channels, valid, True, WIDTH, D)
    v = _load(qkv + 2 * channels, rows, head, 3 * channels, valid, True, WIDTH, D)
    first = (window.to(tl.int64) * num_heads + head) * TOKENS
    grad_k = tl.zeros((BLOCK_N, D), tl.float32)
    grad_v = tl.zeros((BLOCK_N, D), tl.float32)
    for start in range(0, WHOLE, BLOCK_M):
        grad_k, grad_v = _key_gradient_block(
            grad_k, grad_v, k, v, grad, qkv, logsumexp + first, delta + first, start, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, WIDTH, D, BLOCK_M, False,
        )  # fmt: skip
    if WHOLE < TOKENS:
        grad_k, grad_v = _key_gradient_block(
            grad_k, grad_v, k, v, grad, qkv, logsumexp + first, delta + first, WHOLE, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, WIDTH, D, TAIL, True,
        )  # fmt: skip
    _store(grad_qkv + channels, rows, head, 3 * channels, valid, grad_k * (scale * LN2), WIDTH, D)
    _store(grad_qkv + 2 * channels, rows, head, 3 * channels, valid, grad_v, WIDTH, D)


_LAUNCHES = {
    "forward": {16: (64, 64, 4, 3), 32: (64, 64, 4, 3), 64: (64, 64, 4, 3)},
    "query": {16: (64, 64, 4, 2), 32: (64, 64, 4, 2), 64: (64, 32, 4, 2)},
    "key": {16: (64, 64, 4, 2), 32: (64, 64, 4, 2), 64: (32, 64, 4, 2)},
    "padded key": {16: (64, 64, 4, 2), 32: (32, 64, 4, 2), 64: (16, 64, 4, 2)},
}
"""Queries and keys of a block, warps and stages by kernel and channels of a head, in 16 bits: no registers are spilled.

Where the last channels of a head are zeros, the masks of the keys' kernel take registers too.

There is no tuning at run time: every process computes every sum in one order, a pass can be captured in a CUDA graph
from the first, and the first pass takes no memory for timing. `tests/benchmarks/kernel_table.py` shows what a launch
takes on each card.
"""
_PADDED_KEY_64_ON_SM_100 = (32, 64, 4, 2)
"""There 16 queries of a block would spill three registers; on other cards 32 would spill more."""
_LAUNCHES_FLOAT32 = {
    "forward": {16: (32, 32, 8, 1), 32: (32, 32, 8, 1), 64: (16, 16, 8, 1)},
    "query": {16: (16, 32, 8, 1), 32: (16, 32, 8, 1), 64: (16, 16, 8, 1)},
    "key": {16: (32, 16, 8, 1), 32: (32, 16, 8, 1), 64: (16, 16, 8, 1)},
    "padded key": {16: (32, 16, 8, 1), 32: (32, 16, 8, 1), 64: (16, 16, 8, 1)},
}
"""Products run on the ordinary units, out of registers. As three products of TF32 on the matrix units, whose error is
that of float32 (of sums of 392 products 0.4 times that of adding them one by one), the backward kernels would spill."""


def forward(qkv: Tensor, out: Tensor, logsumexp: Tensor, window_size: Sequence[int], num_heads: int) -> None:
    """Fill `out` and, where it is not empty, `logsumexp`; shapes as in the kernel, all contiguous."""
    if qkv.numel() == 0:
        return
    pairs, numbers, constants = _sizes(qkv, window_size, num_heads)
    config = launch_config("forward", qkv.dtype, constants["D"])
    grid = (pairs * triton.cdiv(prod(window_size), config["BLOCK_M"]),)
    with torch.cuda.device_of(qkv):
        window_attention_forward_kernel[grid](
            qkv,
            out,
            logsumexp,
            *numbers,
            **constants,
            SUM_COLUMNS=_sum_columns(qkv.dtype, constants["D"]),
            WITH_LOGSUMEXP=logsumexp.numel() > 0,
            **config,
        )


def backward(
    grad: Tensor,
    qkv: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    grad_qkv: Tensor,
    window_size: Sequence[int],
    num_heads: int,
) -> None:
    """Fill `grad_qkv`; shapes as in the kernels, all contiguous."""
    if qkv.numel() == 0:
        return
    pairs, numbers, constants = _sizes(qkv, window_size, num_heads)
    tokens, delta = prod(window_size), torch.empty_like(logsumexp)
    with torch.cuda.device_of(qkv):
        config = launch_config("query", qkv.dtype, constants["D"])
        window_attention_backward_query_kernel[(pairs * triton.cdiv(tokens, config["BLOCK_M"]),)](
            grad, qkv, out, logsumexp, delta, grad_qkv, *numbers, **constants, **config
        )
        is_padded = constants["WIDTH"] < constants["D"]
        config = launch_config("padded key" if is_padded else "key", qkv.dtype, constants["D"])
        window_attention_backward_key_kernel[(pairs * triton.cdiv(tokens, config["BLOCK_N"]),)](
            grad, qkv, logsumexp, delta, grad_qkv, *numbers, **constants, **config
        )


def _sizes(
    qkv: Tensor, window_size: Sequence[int], num_heads: int
) -> tuple[int, tuple[int | float, ...], dict[str, int]]:
    """Return the pairs of window and head, and the numbers and constants that the three kernels share."""
    _, _, grid_h, grid_w, triple = qkv.shape
    channels = triple // 3
    width = channels // num_heads
    pairs = qkv.numel() // triple // prod(window_size) * num_heads
    numbers = (num_heads, channels, grid_h, grid_w, log2(e) / width**0.5)
    block = max(16, triton.next_power_of_2(width))
    names = ("WT", "WH", "WW", "WIDTH", "D")
    return pairs, numbers, dict(zip(names, (*window_size, width, block), strict=True))


def _sum_columns(dtype: torch.dtype, block: int) -> int:
    """Return by how many columns of ones weights are added up: 8, the fewest that a product of matrices has, or none.

    By machine code, a step of 64 x 64 scores of heads of 32 in bf16 takes 285 instructions in place of 315 on sm_90,
    307 in place of 334 on sm_80, but 334 in place of 325 on sm_100, which adds in pairs. Heads of 64 would spill.
    """
    if dtype == torch.float32 or block > 32:
        return 0
    return 0 if not is_interpreted() and driver.active.get_current_target().arch == 100 else 8


def launch_config(kernel: str, dtype: torch.dtype, block: int) -> dict[str, int]:
    """Return the blocks, warps and stages of a launch.

    Args:
        kernel: forward, query, key or padded key.
        dtype: of the tokens.
        block: channels of a head that are multiplied: 16, 32 or 64.
    """
    if is_interpreted():
        return {"BLOCK_M": 16, "BLOCK_N": 16}
    in_float32 = dtype == torch.float32
    sizes = (_LAUNCHES_FLOAT32 if in_float32 else _LAUNCHES)[kernel][block]
    if (kernel, block, in_float32) == ("padded key", 64, False) and driver.active.get_current_target().arch == 100:
        sizes = _PADDED_KEY_64_ON_SM_100
    return dict(zip(("BLOCK_M", "BLOCK_N", "num_warps", "num_stages"), sizes, strict=True))
