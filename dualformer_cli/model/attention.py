"""Local window attention (the paper's LW-MSA) and global pyramid attention (GP-MSA)."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualformer_cli.kernels.backend import Backend, is_plainly_recorded
from dualformer_cli.kernels.depthwise_conv3d import conv3d_channels_last
from dualformer_cli.kernels.pyramid_pool import pyramid_pool
from dualformer_cli.kernels.window_attention import attends_with_triton, window_attention
from dualformer_cli.model.cpu_pieces import can_work_in_pieces
from dualformer_cli.model.windows import Size3, merge_windows, split_windows


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention without a stored score matrix.

    Args:
        q: queries, shape (b, l, heads, d).
        k: keys, shape (b, p, heads, d).
        v: values, shape (b, p, heads, d).

    Returns:
        Shape (b, l, heads * d).
    """
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if q.dtype == torch.bfloat16 and can_work_in_pieces(q) and _prefers_products():
        return _attend_bfloat16(q, k, v)
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and is_plainly_recorded(q, k, v):
        return _AttendBfloat16.apply(q, k, v).transpose(1, 2).flatten(2)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class _AttendBfloat16(torch.autograd.Function):
    """PyTorch's fused attention on a CPU, whose backward pass computes in float32.

    In bfloat16 that one takes 7.9 to 9.1 ns a score with matrix tiles (AMX), in float32 4.2 to 5.5, casts apart; and
    the gradients' errors are a half to a quarter. As products in bfloat16 with a softmax it takes 5.0 to 7.1.
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


@cache
def _prefers_products() -> bool:
    """Return whether `_attend_bfloat16` is faster here than PyTorch's fused attention.

    It is where the processor multiplies bfloat16 in vectors (AVX-512 BF16), not in tiles (AMX). Without either, a
    product of matrices in bfloat16 runs through a plain loop: 25 times the time of the fused attention.
    """
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


_CACHED_SCORES = 2**19
"""Scores that are in work at a time: 1 MiB in bfloat16, a core's second cache."""


def _attend_bfloat16(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over (b, heads, l, d) on a CPU, as many queries at a time as keep their scores in the cache.

    Without matrix tiles (AMX), PyTorch's fused attention takes 2.4 ns a score in bfloat16, this 1.7 to 2.1. With them
    that one takes 0.8 to 1.1 at the shapes of all stages, this 1.6 to 3.0, one thread each; it also keeps the scores in
    float32, so that its error is a quarter of this one's.
    """
    b, heads, length, d = q.shape
    p = k.shape[2]
    keys = k.transpose(2, 3).reshape(b * heads, d, p)
    values = v.reshape(b * heads, p, d)
    queries = (q * d**-0.5).reshape(b * heads, length, d)
    out = torch.empty_like(queries)
    rows = max(1, min(length, _CACHED_SCORES // p))
    count = max(1, _CACHED_SCORES // (rows * p))
    for first in range(0, b * heads, count):
        group = slice(first, first + count)
        for start in range(0, length, rows):
            part = (group, slice(start, start + rows))
            scores = torch.bmm(queries[part], keys[group])
            torch.bmm(torch.softmax(scores, dim=-1, out=scores), values[group], out=out[part])
    return out.view(b, heads, length, d).transpose(1, 2).flatten(2)


class DepthwiseConv3d(nn.Module):
    """One kernel per channel on a channels-last token grid; PyTorch's default initialisation of Conv3d."""

    def __init__(self, dim: int, kernel_size: Size3, *, stride: Size3, padding: Size3 = (0, 0, 0)) -> None:
        super().__init__()
        convolution = nn.Conv3d(dim, dim, kernel_size, groups=dim)
        self.weight, self.bias = convolution.weight, convolution.bias
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to (b, t', h', w', c)."""
        return conv3d_channels_last(x, self.weight, self.bias, stride=self.stride, padding=self.padding)

    def extra_repr(self) -> str:
        """Show the kernel like nn.Conv3d does."""
        return f"{self.weight.shape[0]}, kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class LocalWindowAttention(nn.Module):
    """Self-attention among the tokens of each local window.

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        window_size: tokens per window along (time, height, width).
        kernels: who computes the attention on the grid; without a kernel, windows are laid out one after the other.
    """

    def __init__(self, dim: int, num_heads: int, *, window_size: Size3, kernels: Backend = "auto") -> None:
        super().__init__()
        self.num_heads, self.window_size, self.kernels = num_heads, window_size, kernels
        self.head_width = dim // num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def attend_windows(self, windows: Tensor) -> Tensor:
        """Attention inside each window, (n, l, c) to (n, l, c)."""
        q, k, v = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1)).unbind(2)
        return self.proj(attend(q, k, v))

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to (b, t, h, w, c)."""
        if attends_with_triton(x, self.head_width, self.kernels):
            return self.proj(window_attention(self.qkv(x), self.window_size, self.num_heads, backend=self.kernels))
        grid = (x.shape[1], x.shape[2], x.shape[3])
        windows = self.attend_windows(split_windows(x, self.window_size))
        return merge_windows(windows, self.window_size, grid)


class PyramidPool(nn.Module):
    """The pyramid of context tokens: a fine level, a coarse level where the grid is large, and their LayerNorm.

    Args:
        dim: channels of a token.
        fine_kernel: tokens of the grid that one fine token covers.
        coarse_kernels: kernels of the coarse level's two convolutions, or None without that level.
        kernels: who computes the convolutions.
    """

    def __init__(
        self,
        dim: int,
        *,
        fine_kernel: Size3,
        coarse_kernels: tuple[Size3, Size3] | None,
        kernels: Backend = "auto",
    ) -> None:
        super().__init__()
        self.kernels = kernels
        self.fine = DepthwiseConv3d(dim, fine_kernel, stride=fine_kernel)
        self.has_coarse = coarse_kernels is not None
        if coarse_kernels is not None:
            first, second = coarse_kernels
            self.coarse_conv = DepthwiseConv3d(dim, first, stride=first)
            self.coarse_norm = nn.BatchNorm3d(dim)
            self.coarse_pool = DepthwiseConv3d(dim, second, stride=second)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to context tokens (b, p, c), fine ones first."""
        fine, coarse = self._pool(x, self.fine, self.coarse_conv if self.has_coarse else None)
        tokens = fine.flatten(1, 3)
        if coarse is not None:
            y = F.relu(self.coarse_norm(coarse.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1))
            tokens = torch.cat([tokens, self._pool(y, self.coarse_pool)[0].flatten(1, 3)], dim=1)
        return self.norm(tokens)

    def _pool(
        self, x: Tensor, fine: DepthwiseConv3d, coarse: DepthwiseConv3d | None = None
    ) -> tuple[Tensor, Tensor | None]:
        weights = (None, None) if coarse is None else (coarse.weight, coarse.bias)
        return pyramid_pool(x, fine.weight, fine.bias, *weights, backend=self.kernels)


class GlobalPyramidAttention(nn.Module):
    """Attention of every token to the pyramid of the whole clip, or to all tokens where the grid is small.

    Args:
        dim: channels of a token.
        num_heads: attention heads.
        pool: the pyramid, or None for plain attention among all tokens.
    """

    def __init__(self, dim: int, num_heads: int, *, pool: PyramidPool | None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.pool = pool
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def context(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (b, p, heads, d) that all tokens of the grid (b, t, h, w, c) attend to."""
        tokens = x.flatten(1, 3) if self.pool is None else self.pool(x)
        k, v = self.kv(tokens).unflatten(-1, (2, self.num_heads, -1)).unbind(2)
        return k, v

    def attend_context(self, tokens: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries of tokens (b, l, c) against a context, giving (b, l, c)."""
        q = self.q(tokens).unflatten(-1, (self.num_heads, -1))
        return self.proj(attend(q, k, v))

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to (b, t, h, w, c)."""
        k, v = self.context(x)
        return self.attend_context(x.flatten(1, 3), k, v).view(x.shape)
