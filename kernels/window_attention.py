"""Self-attention among the tokens of each local window, on the grid.

For every window and head: softmax(q k^T / sqrt(d)) v over the l tokens of the window (392 in the published models).
The kernel reads qkv where it lies, (b, t, h, w, 3c), finds a window's tokens by index arithmetic and keeps the l x l
scores on chip: 4c values move per token, against 8c for copies into windows and back plus 2 l heads per access to
stored scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from dualformer_cli.kernels.backend import Backend, Size3, check_operands, compute_dtype, register_autocast, uses_triton

HEAD_WIDTHS = range(8, 65, 8)
"""Channels per head that the kernel takes; it multiplies 16, 32 or 64 of them, of which the last may be zeros."""


def window_attention_reference(qkv: Tensor, window_size: Size3, num_heads: int) -> Tensor:
    """Compute `window_attention` in PyTorch, through contiguous windows."""
    wt, wh, ww = window_size
    q, k, v = rearrange(
        qkv,
        "b (nt wt) (nh wh) (nw ww) (three heads d) -> three (b nt nh nw) heads (wt wh ww) d",
        three=3, heads=num_heads, wt=wt, wh=wh, ww=ww,
    )  # fmt: skip
    nt, nh, nw = (side // window for side, window in zip(qkv.shape[1:4], window_size, strict=True))
    return rearrange(
        F.scaled_dot_product_attention(q, k, v),
        "(b nt nh nw) heads (wt wh ww) d -> b (nt wt) (nh wh) (nw ww) (heads d)",
        nt=nt, nh=nh, nw=nw, wt=wt, wh=wh, ww=ww,
    )  # fmt: skip


@torch.library.custom_op(
    "dualformer::window_attention",
    mutates_args=(),
    schema="(Tensor qkv, int[] window_size, int num_heads, bool with_logsumexp) -> (Tensor, Tensor)",
)
def _operation(qkv: Tensor, window_size: Sequence[int], num_heads: int, with_logsumexp: bool) -> tuple[Tensor, Tensor]:
    from dualformer_cli.kernels.window_attention_kernel import forward

    _check_kernel(qkv, window_size, num_heads)
    out, logsumexp = _empty_outputs(qkv, window_size, num_heads, with_logsumexp)
    forward(qkv.contiguous(), out, logsumexp, window_size, num_heads)
    return out, logsumexp


@_operation.register_fake
def _empty_outputs(
    qkv: Tensor, window_size: Sequence[int], num_heads: int, with_logsumexp: bool
) -> tuple[Tensor, Tensor]:
    """Results (b, t, h, w, c), and one number per query, (b, windows of a clip, heads, l), or nothing."""
    of_out, of_logsumexp = _shapes(qkv, window_size, num_heads)
    shape = of_logsumexp if with_logsumexp else (0,)
    return qkv.new_empty(of_out), qkv.new_empty(shape, dtype=torch.float32)


def _shapes(qkv: Tensor, window_size: Sequence[int], num_heads: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    b, t, h, w, channels = qkv.shape
    tokens = prod(window_size)
    return (b, t, h, w, channels // 3), (b, t * h * w // tokens, num_heads, tokens)


@torch.library.custom_op(
    "dualformer::window_attention_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor qkv, Tensor out, Tensor logsumexp, int[] window_size, int num_heads) -> Tensor",
)
def _backward_operation(
    grad: Tensor, qkv: Tensor, out: Tensor, logsumexp: Tensor, window_size: Sequence[int], num_heads: int
) -> Tensor:
    from dualformer_cli.kernels.window_attention_kernel import backward

    _check_kernel(qkv, window_size, num_heads, grad, out)
    shapes = _shapes(qkv, window_size, num_heads)
    if (out.shape, logsumexp.shape) != shapes or grad.shape != out.shape or logsumexp.dtype != torch.float32:
        raise ValueError("grad, out and logsumexp must fit qkv as the results of dualformer::window_attention do")
    grad_qkv = torch.empty_like(qkv, memory_format=torch.contiguous_format)
    backward(*(x.contiguous() for x in (grad, qkv, out, logsumexp)), grad_qkv, window_size, num_heads)
    return grad_qkv


@_backward_operation.register_fake
def _empty_gradient(grad: Tensor, qkv: Tensor, *_: object) -> Tensor:
    return torch.empty_like(qkv, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    qkv, ctx.window_size, ctx.num_heads, with_logsumexp = inputs
    if not with_logsumexp:
        raise ValueError("gradients of dualformer::window_attention need with_logsumexp=True")
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(qkv, *output)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, grad: Tensor | None, _: object) -> tuple[Tensor | None, None, None, None]:
    if grad is None:
        return None, None, None, None
    return _backward_operation(grad, *ctx.saved_tensors, ctx.window_size, ctx.num_heads), None, None, None


_operation.register_autograd(_differentiate, setup_context=_save)
register_autocast("window_attention", _operation, lower=True)


def attends_with_triton(x: Tensor, head_width: int, backend: Backend = "auto") -> bool:
    """Whether `window_attention` runs its kernel for tokens like `x`, on its device and of its type.

    In float32 auto leaves it to PyTorch, whose products run on the matrix units; the kernel's do not.
    """
    if backend == "auto" and x.device.type == "cuda" and compute_dtype(x) == torch.float32:
        return False
    problem = None if head_width in HEAD_WIDTHS else f"window attention has none for {head_width} channels per head"
    return uses_triton(backend, x, problem=problem)


def window_attention(qkv: Tensor, window_size: Size3, num_heads: int, *, backend: Backend = "auto") -> Tensor:
    """Attend within each window.

    Args:
        qkv: queries, keys and values of each token, shape (b, t, h, w, 3c), c = heads * d.
        window_size: tokens per window along (time, height, width).
        num_heads: attention heads.
        backend: who computes it; auto is the kernel on CUDA in 16 bits, the reference elsewhere.

    Returns:
        Shape (b, t, h, w, c).

    Raises:
        ValueError: if a grid side is not a multiple of its window side, or 3 * num_heads does not divide the channels.
    """
    _check(qkv, window_size, num_heads)
    if not attends_with_triton(qkv, qkv.shape[-1] // (3 * num_heads), backend):
        return window_attention_reference(qkv, window_size, num_heads)
    with_logsumexp = torch.is_grad_enabled() and qkv.requires_grad
    out: Tensor = _operation(qkv, list(window_size), num_heads, with_logsumexp)[0]
    return out


def _check(qkv: Tensor, window_size: Sequence[int], num_heads: int) -> None:
    sides = list(zip(qkv.shape[1:4], window_size, strict=False))
    if qkv.dim() != 5 or len(window_size) != 3 or any(window < 1 or side % window for side, window in sides):
        raise ValueError(
            f"tokens {tuple(qkv.shape)}, (b, t, h, w, 3c), do not divide into windows of {tuple(window_size)}"
        )
    if num_heads < 1 or qkv.shape[-1] % (3 * num_heads):
        raise ValueError(f"{qkv.shape[-1]} channels of qkv are not 3 times {num_heads} equal heads")


def _check_kernel(qkv: Tensor, window_size: Sequence[int], num_heads: int, *others: Tensor) -> None:
    _check(qkv, window_size, num_heads)
    check_operands(qkv, *others)
    width = qkv.shape[-1] // (3 * num_heads)
    if width not in HEAD_WIDTHS:
        raise ValueError(f"the kernel takes heads of 8, 16, 24, ... or 64 channels, got {width}")
