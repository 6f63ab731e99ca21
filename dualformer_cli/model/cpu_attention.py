"""Softmax attention in bfloat16 on a CPU, by the way that is fastest on the processor at hand.

PyTorch's fused attention keeps its scores in float32, and its errors are a quarter of what products of bfloat16
matrices leave, which are those of the published model under autocast. But where a processor multiplies bfloat16 in
vectors (AVX-512 BF16) and not in tiles (AMX), the products take half its time, as many queries at a time as keep their
scores in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dualformer_cli.kernels.backend import is_plainly_recorded
from dualformer_cli.model.cpu_pieces import can_work_in_pieces, for_each_piece


def own_attention(q: Tensor, k: Tensor, v: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor] | None:
    """Return what computes attention over these tensors in this pass, or None where PyTorch's own does.

    Args:
        q: queries, shape (b, heads, l, d).
        k, v: keys and values, shape (b, heads, p, d).
    """
    if q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return None
    if is_plainly_recorded(q, k, v):
        return cast("Callable[..., Tensor]", _Products.apply if _prefers_products() else _WideBackward.apply)
    return attend_by_products if can_work_in_pieces(q) and _prefers_products() else None


@cache
def _prefers_products() -> bool:
    """Return whether products in bfloat16 are faster here than PyTorch's fused attention.

    Without vectors and tiles for it, a product of matrices in bfloat16 runs through a plain loop: 25 times the time of
    the fused attention.
    """
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


_CACHED_SCORES = 2**20
"""Scores that are in work at a time, 2 MiB in bfloat16: the time is flat from 2^19 to 2^20, and rises on both sides."""

_Part = tuple[int, slice, slice]
"""Number of a part among those of its heads, its heads, and its queries."""


def _parts(num_heads: int, num_queries: int, num_keys: int) -> Iterator[_Part]:
    rows = max(1, min(num_queries, _CACHED_SCORES // num_keys))
    count = max(1, _CACHED_SCORES // (rows * num_keys))
    for first in range(0, num_heads, count):
        for number, start in enumerate(range(0, num_queries, rows)):
            yield number, slice(first, first + count), slice(start, start + rows)


def attend_by_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as products in q's type.

    On an AMD EPYC (Zen 5) it takes 0.9 to 1.1 ns a score in bfloat16 and PyTorch's fused one 1.7 to 2.0, one thread
    each; with matrix tiles 1.6 to 3.0 and 0.8 to 1.1.

    Args:
        q: queries, shape (b, heads, l, d).
        k, v: keys and values, shape (b, heads, p, d).

    Returns:
        Shape (b, heads, l, d).
    """
    queries, keys, values = q.flatten(0, 1) * q.shape[-1] ** -0.5, k.flatten(0, 1).mT.contiguous(), v.flatten(0, 1)
    out = torch.empty_like(queries)

    def attend(part: _Part) -> None:
        _, heads, rows = part
        scores = torch.bmm(queries[heads, rows], keys[heads])
        torch.bmm(torch.softmax(scores, dim=-1, out=scores), values[heads], out=out[heads, rows])

    with torch.autocast("cpu", enabled=False):
        for_each_piece(attend, _parts(len(queries), q.shape[2], k.shape[2]))
    return out.view(q.shape)


class _Products(torch.autograd.Function):
    """`attend_by_products`, whose backward pass computes the scores again.

    On an AMD EPYC (Zen 5) that one takes 1.9 to 2.2 ns a score, and PyTorch's fused one 2.7 to 4.5 in bfloat16 and 3.4
    to 4.3 in float32, one thread each.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, heads, l, d) and twice (b, heads, p, d) to (b, heads, l, d)."""
        ctx.save_for_backward(q, k, v)
        return attend_by_products(q, k, v)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Gradients of queries, keys and values."""
        q, k, v = ctx.saved_tensors
        grad, keys, values = (x.flatten(0, 1).contiguous() for x in (*gradients, k, v))
        scale = q.shape[-1] ** -0.5
        queries = q.flatten(0, 1) * scale
        keys_turned, values_turned = keys.mT.contiguous(), values.mT.contiguous()
        of_queries = torch.empty_like(queries)
        parts = list(_parts(len(queries), q.shape[2], k.shape[2]))
        last, _, _ = parts[-1]
        of_keys, of_values = (x.new_empty(last + 1, *x.shape) for x in (keys, values))

        def go_back(part: _Part) -> None:
            number, heads, rows = part
            shares = torch.bmm(queries[heads, rows], keys_turned[heads])
            torch.softmax(shares, dim=-1, out=shares)
            slope = grad[heads, rows]
            of_shares = torch.bmm(slope, values_turned[heads])
            of_scores = torch._softmax_backward_data(of_shares, shares, dim=-1, input_dtype=shares.dtype)
            torch.bmm(of_scores, keys[heads], out=of_queries[heads, rows])
            torch.bmm(of_scores.mT, queries[heads, rows], out=of_keys[number, heads])
            torch.bmm(shares.mT, slope, out=of_values[number, heads])

        for_each_piece(go_back, parts)
        found = (of_queries.mul_(scale), _sum_of_parts(of_keys), _sum_of_parts(of_values))
        return tuple(x.view(of.shape) for x, of in zip(found, (q, k, v), strict=True))


def _sum_of_parts(parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(0)


class _WideBackward(torch.autograd.Function):
    """PyTorch's fused attention on a CPU, whose backward pass computes in float32.

    In bfloat16 that one takes 7.9 to 9.1 ns a score with matrix tiles (AMX), in float32 4.2 to 5.5, casts apart; and
    the gradients' errors are a half to a quarter.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(b, heads, l, d) and twice (b, heads, p, d) to (b, heads, l, d)."""
        out, logsumexp = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v)
        ctx.save_for_backward(q, k, v, out, logsumexp)
        return cast(Tensor, out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        """Gradients of queries, keys and values."""
        *operands, logsumexp = ctx.saved_tensors
        wide = [each.float() for each in (*gradients, *operands)]
        found = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*wide, logsumexp, 0.0, False)
        return tuple(gradient.to(operands[0].dtype) for gradient in found)
