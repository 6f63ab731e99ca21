"""Local window attention (the paper's LW-MSA) and global pyramid attention (GP-MSA)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dualformer_cli.kernels.backend import Backend, Size3
from dualformer_cli.kernels.linear import Linear
from dualformer_cli.kernels.window_attention import attends_with_triton, window_attention
from dualformer_cli.model.cpu_attention import own_attention
from dualformer_cli.model.pyramid import PyramidPool
from dualformer_cli.model.windows import merge_windows, split_windows


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
    attention = own_attention(q, k, v) or F.scaled_dot_product_attention
    return attention(q, k, v).transpose(1, 2).flatten(2)


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
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

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
        self.q = Linear(dim, dim)
        self.kv = Linear(dim, 2 * dim)
        self.proj = Linear(dim, dim)

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
