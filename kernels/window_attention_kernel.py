"""Triton kernels of `window_attention`, forward and backward.

Flash-style: a program owns a block of one window's tokens in one head and walks over the others in blocks, with running
maximum and sum (forward) or with the saved logarithm of the sum (backward); every result is written by exactly one
program, so there are no atomics and two runs give the same bits. Tuning may choose only what leaves each sum in the
same order, so that processes that tune on their own still agree on every bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import e, log, log2, prod
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dualformer_cli.kernels.backend import is_interpreted
from dualformer_cli.kernels.rounding import cast, dot

LN2 = tl.constexpr(log(2.0))
"""Exponentials are taken in base 2, which the hardware has."""


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
    columns: tl.tensor,  # (d,)
    stride: tl.tensor,  # from row to row
    valid: tl.tensor,  # (l,)
    MASKED: tl.constexpr,
) -> tl.tensor:
    """Tokens (l, d), zeros where not valid."""
    pointers = base + rows[:, None] * stride + columns[None, :]
    if MASKED:
        return tl.load(pointers, mask=valid[:, None], other=0.0)
    return tl.load(pointers)


@triton.jit
def _attend_block(
    acc: tl.tensor,  # (BLOCK_M, D) float32, values weighted so far
    highest: tl.tensor,  # (BLOCK_M,) highest score so far
    total: tl.tensor,  # (BLOCK_M,) sum of exp2(score - highest)
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
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """Add the keys start, ..., start + BLOCK_N - 1."""
    keys = start + tl.arange(0, BLOCK_N)
    columns = head * D + tl.arange(0, D)
    rows = _token_rows(window, keys, grid_h, grid_w, WT, WH, WW)
    valid = keys < WT * WH * WW
    k = _load(qkv + channels, rows, columns, 3 * channels, valid, MASKED)
    v = _load(qkv + 2 * channels, rows, columns, 3 * channels, valid, MASKED)
    scores = dot(q, tl.trans(k)) * scale
    if MASKED:
        scores = tl.where(valid[None, :], scores, float("-inf"))
    new_highest = tl.maximum(highest, tl.max(scores, 1))
    shrink = tl.exp2(highest - new_highest)
    weights = tl.exp2(scores - new_highest[:, None])
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
    scale: tl.tensor,  # log2(e) / sqrt(D)
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    D: tl.constexpr,
    WITH_LOGSUMEXP: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries of a program
    BLOCK_N: tl.constexpr,  # keys of a step; the sums' order depends on it
) -> None:
    """A program per (window, head, block of queries), blocks next to each other: they share keys and values in L2."""
    TOKENS: tl.constexpr = WT * WH * WW
    BLOCKS: tl.constexpr = (TOKENS + BLOCK_M - 1) // BLOCK_M
    WHOLE: tl.constexpr = TOKENS // BLOCK_N * BLOCK_N
    program = tl.program_id(0)
    head = program // BLOCKS % num_heads
    window = program // (BLOCKS * num_heads)
    queries = program % BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = head * D + tl.arange(0, D)
    rows = _token_rows(window, queries, grid_h, grid_w, WT, WH, WW)
    valid = queries < TOKENS
    q = _load(qkv, rows, columns, 3 * channels, valid, True)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    highest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, WHOLE, BLOCK_N):
        acc, highest, total = _attend_block(
            acc, highest, total, q, qkv, start, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, D, BLOCK_N, False,
        )  # fmt: skip
    if WHOLE < TOKENS:
        acc, highest, total = _attend_block(
            acc, highest, total, q, qkv, WHOLE, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, D, BLOCK_N, True,
        )  # fmt: skip
    result = cast(acc / total[:, None], out.dtype.element_ty)
    tl.store(out + rows[:, None] * channels + columns[None, :], result, mask=valid[:, None])
    if WITH_LOGSUMEXP:
        first = (window.to(tl.int64) * num_heads + head) * TOKENS
        tl.store(logsumexp + first + queries, highest + tl.log2(total), mask=valid)


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
    D: tl.constexpr,
    BLOCK_N: tl.constexpr,
    MASKED: tl.constexpr,
) -> tl.tensor:
    """Add what the keys start, ..., start + BLOCK_N - 1 contribute."""
    keys = start + tl.arange(0, BLOCK_N)
    columns = head * D + tl.arange(0, D)
    rows = _token_rows(window, keys, grid_h, grid_w, WT, WH, WW)
    valid = keys < WT * WH * WW
    k = _load(qkv + channels, rows, columns, 3 * channels, valid, MASKED)
    v = _load(qkv + 2 * channels, rows, columns, 3 * channels, valid, MASKED)
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
    scale: tl.tensor,  # log2(e) / sqrt(D)
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries of a program
    BLOCK_N: tl.constexpr,  # keys of a step; the sums' order depends on it
) -> None:
    """A program per (window, head, block of queries)."""
    TOKENS: tl.constexpr = WT * WH * WW
    BLOCKS: tl.constexpr = (TOKENS + BLOCK_M - 1) // BLOCK_M
    WHOLE: tl.constexpr = TOKENS // BLOCK_N * BLOCK_N
    program = tl.program_id(0)
    head = program // BLOCKS % num_heads
    window = program // (BLOCKS * num_heads)
    queries = program % BLOCKS * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = head * D + tl.arange(0, D)
    rows = _token_rows(window, queries, grid_h, grid_w, WT, WH, WW)
    valid = queries < TOKENS
    q = _load(qkv, rows, columns, 3 * channels, valid, True)
    grad_out = _load(grad, rows, columns, channels, valid, True)
    result = _load(out, rows, columns, channels, valid, True)
    first = (window.to(tl.int64) * num_heads + head) * TOKENS
    row_delta = tl.sum(grad_out.to(tl.float32) * result.to(tl.float32), 1)
    tl.store(delta + first + queries, row_delta, mask=valid)
    row_logsumexp = tl.load(logsumexp + first + queries, mask=valid, other=float("inf"))
    grad_q = tl.zeros((BLOCK_M, D), tl.float32)
    for start in range(0, WHOLE, BLOCK_N):
        grad_q = _query_gradient_block(
            grad_q, q, grad_out, row_logsumexp, row_delta, qkv, start, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, D, BLOCK_N, False,
        )  # fmt: skip
    if WHOLE < TOKENS:
        grad_q = _query_gradient_block(
            grad_q, q, grad_out, row_logsumexp, row_delta, qkv, WHOLE, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, D, BLOCK_N, True,
        )  # fmt: skip
    grad_q = cast(grad_q * (scale * LN2), grad_qkv.dtype.element_ty)
    tl.store(grad_qkv + rows[:, None] * (3 * channels) + columns[None, :], grad_q, mask=valid[:, None])


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
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,
    MASKED: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """Add what the queries start, ..., start + BLOCK_M - 1 contribute."""
    queries = start + tl.arange(0, BLOCK_M)
    columns = head * D + tl.arange(0, D)
    rows = _token_rows(window, queries, grid_h, grid_w, WT, WH, WW)
    valid = queries < WT * WH * WW
    q = _load(qkv, rows, columns, 3 * channels, valid, MASKED)
    grad_out = _load(grad, rows, columns, channels, valid, MASKED)
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
    scale: tl.tensor,  # log2(e) / sqrt(D)
    WT: tl.constexpr,
    WH: tl.constexpr,
    WW: tl.constexpr,
    D: tl.constexpr,
    BLOCK_M: tl.constexpr,  # queries of a step; the sums' order depends on it
    BLOCK_N: tl.constexpr,  # keys of a program
) -> None:
    """A program per (window, head, block of keys)."""
    TOKENS: tl.constexpr = WT * WH * WW
    BLOCKS: tl.constexpr = (TOKENS + BLOCK_N - 1) // BLOCK_N
    WHOLE: tl.constexpr = TOKENS // BLOCK_M * BLOCK_M
    program = tl.program_id(0)
    head = program // BLOCKS % num_heads
    window = program // (BLOCKS * num_heads)
    keys = program % BLOCKS * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = head * D + tl.arange(0, D)
    rows = _token_rows(window, keys, grid_h, grid_w, WT, WH, WW)
    valid = keys < TOKENS
    k = _load(qkv + channels, rows, columns, 3 * channels, valid, True)
    v = _load(qkv + 2 * channels, rows, columns, 3 * channels, valid, True)
    first = (window.to(tl.int64) * num_heads + head) * TOKENS
    grad_k = tl.zeros((BLOCK_N, D), tl.float32)
    grad_v = tl.zeros((BLOCK_N, D), tl.float32)
    for start in range(0, WHOLE, BLOCK_M):
        grad_k, grad_v = _key_gradient_block(
            grad_k, grad_v, k, v, grad, qkv, logsumexp + first, delta + first, start, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, D, BLOCK_M, False,
        )  # fmt: skip
    if WHOLE < TOKENS:
        grad_k, grad_v = _key_gradient_block(
            grad_k, grad_v, k, v, grad, qkv, logsumexp + first, delta + first, WHOLE, window, head, channels,
            grid_h, grid_w, scale, WT, WH, WW, D, BLOCK_M, True,
        )  # fmt: skip
    grad_k = grad_k * (scale * LN2)
    pointers = grad_qkv + rows[:, None] * (3 * channels) + columns[None, :]
    tl.store(pointers + channels, cast(grad_k, grad_qkv.dtype.element_ty), mask=valid[:, None])
    tl.store(pointers + 2 * channels, cast(grad_v, grad_qkv.dtype.element_ty), mask=valid[:, None])


def _tuned(kernel: Any, *configs: dict[str, int]) -> Any:
    """The kernel behind a choice of launches, timed once per kind of window and type, and remembered on disk."""
    choices = [
        triton.Config(
            {name: value for name, value in config.items() if name.startswith("BLOCK")},
            num_warps=config["num_warps"],
            num_stages=config["num_stages"],
        )
        for config in configs
    ]
    return triton.autotune(choices, key=["WT", "WH", "WW", "D"], cache_results=True)(kernel)


_INTERPRETED = {"BLOCK_M": 16, "BLOCK_N": 16}

FORWARD_CONFIGS = (
    {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3},
    {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 4, "num_stages": 3},
    {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
)
QUERY_CONFIGS = (
    {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2},
    {"BLOCK_M": 128, "BLOCK_N": 64, "num_warps": 8, "num_stages": 2},
)
KEY_CONFIGS = (
    {"BLOCK_M": 64, "BLOCK_N": 64, "num_warps": 4, "num_stages": 2},
    {"BLOCK_M": 64, "BLOCK_N": 128, "num_warps": 8, "num_stages": 2},
)

_tuned_forward = _tuned(window_attention_forward_kernel, *FORWARD_CONFIGS)
_tuned_query = _tuned(window_attention_backward_query_kernel, *QUERY_CONFIGS)
_tuned_key = _tuned(window_attention_backward_key_kernel, *KEY_CONFIGS)


def forward(qkv: Tensor, out: Tensor, logsumexp: Tensor, window_size: Sequence[int], num_heads: int) -> None:
    """Fill `out` and, where it is not empty, `logsumexp`; shapes as in the kernel, all contiguous."""
    grid, numbers, constants = _sizes(qkv, window_size, num_heads)
    constants["WITH_LOGSUMEXP"] = logsumexp.numel() > 0
    with torch.cuda.device_of(qkv):
        kernel, config = _pick(window_attention_forward_kernel, _tuned_forward, qkv, constants["D"])
        kernel[grid("BLOCK_M")](qkv, out, logsumexp, *numbers, **constants, **config)


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
    grid, numbers, constants = _sizes(qkv, window_size, num_heads)
    delta = torch.empty_like(logsumexp)
    with torch.cuda.device_of(qkv):
        kernel, config = _pick(window_attention_backward_query_kernel, _tuned_query, qkv, constants["D"])
        kernel[grid("BLOCK_M")](grad, qkv, out, logsumexp, delta, grad_qkv, *numbers, **constants, **config)
        kernel, config = _pick(window_attention_backward_key_kernel, _tuned_key, qkv, constants["D"])
        kernel[grid("BLOCK_N")](grad, qkv, logsumexp, delta, grad_qkv, *numbers, **constants, **config)


Grid = Callable[[dict[str, int]], tuple[int]]


def _sizes(
    qkv: Tensor, window_size: Sequence[int], num_heads: int
) -> tuple[Callable[[str], Grid], tuple[int | float, ...], dict[str, int]]:
    """Launch grid by the name of a program's block, numbers, and constants that the three kernels share."""
    _, _, grid_h, grid_w, triple = qkv.shape
    tokens, channels = prod(window_size), triple // 3
    width = channels // num_heads
    pairs = qkv.numel() // triple // tokens * num_heads  # of window and head

    def grid(block: str) -> Grid:
        return lambda config: (pairs * triton.cdiv(tokens, config[block]),)

    numbers = (num_heads, channels, grid_h, grid_w, log2(e) / width**0.5)
    return grid, numbers, dict(zip(("WT", "WH", "WW", "D"), (*window_size, width), strict=True))


def _pick(kernel: Any, tuned: Any, qkv: Tensor, width: int) -> tuple[Any, dict[str, int]]:
    """What to launch, and with which blocks if they are not tuned."""
    if is_interpreted():
        return kernel, _INTERPRETED
    return (kernel, float32_config(width)) if qkv.dtype == torch.float32 else (tuned, {})


def float32_config(width: int) -> dict[str, int]:
    """Products of float32 run on the ordinary units, out of registers: blocks that do not spill."""
    side = 32 if width <= 32 else 16
    return {"BLOCK_M": side, "BLOCK_N": side, "num_warps": 8, "num_stages": 1}
