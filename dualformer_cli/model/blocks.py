"""The parts that stages are made of: patch embedding, position convolution, MLP, block."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from dualformer_cli.kernels.add_layer_norm import add_branch, add_layer_norm
from dualformer_cli.kernels.backend import Backend, Size3, uses_triton
from dualformer_cli.kernels.bias_gelu import bias_gelu
from dualformer_cli.kernels.depthwise_conv3d import depthwise_conv3d
from dualformer_cli.kernels.frame_patches import split_patches
from dualformer_cli.kernels.linear import Linear, linear
from dualformer_cli.model.attention import GlobalPyramidAttention, LocalWindowAttention
from dualformer_cli.model.cpu_pieces import PIECE_NUMBERS, can_work_in_pieces, for_each_piece
from dualformer_cli.model.depthwise_conv3d import DepthwiseConv3d
from dualformer_cli.model.windows import merge_windows, split_windows


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens: a convolution whose kernel is its stride, then LayerNorm.

    Args:
        in_dim: channels of the input.
        dim: channels of a token.
        patch_size: input positions per token along (time, height, width).
    """

    def __init__(self, in_dim: int, dim: int, *, patch_size: Size3) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv3d(in_dim, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to (b, t', h', w', c')."""
        return self.embed(split_patches(x, self.patch_size))

    def embed(self, patches: Tensor) -> Tensor:
        """Patches (b, t', h', w', pt ph pw c) to (b, t', h', w', c')."""
        weight = rearrange(self.proj.weight, "o c pt ph pw -> o (pt ph pw c)")  # as a matrix product, copy-free output
        return self.norm(linear(patches, weight, self.proj.bias))


class PositionConv(DepthwiseConv3d):
    """Position from the neighbourhood: x + depth-wise 3x3x3 convolution of x, zero-padded."""

    def __init__(self, dim: int, *, kernels: Backend = "auto") -> None:
        super().__init__(dim, (3, 3, 3), stride=(1, 1, 1), padding=(1, 1, 1))
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to the same shape."""
        return depthwise_conv3d(x, self.weight, self.bias, backend=self.kernels)


class DropPath(nn.Module):
    """Stochastic depth: in training, leave a branch out for a whole clip and scale the others up to keep the mean.

    It gives the factors; they are multiplied where the branch is added. timm has such a layer, but importing it takes 2
    seconds, more than torch itself.
    """

    def __init__(self, drop_prob: float) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor | None:
        """A branch (b, ...) to the factor of each clip, (b,), in float32 or better; None if nothing is dropped."""
        if not self.training or self.drop_prob == 0:
            return None
        keep = 1 - self.drop_prob
        return x.new_empty(len(x), dtype=torch.promote_types(x.dtype, torch.float32)).bernoulli_(keep).div_(keep)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"{self.drop_prob:.3f}"


class AddNorm(nn.LayerNorm):
    """LayerNorm of the sum of tokens and a branch."""

    def __init__(self, dim: int, *, kernels: Backend = "auto") -> None:
        super().__init__(dim, eps=1e-5)
        self.kernels = kernels

    def forward(  # type: ignore[override]
        self, x: Tensor, branch: Tensor | None = None, factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Tokens and a branch (b, ..., c), the branch times its clips' factors (b,), to the sum and the normed sum."""
        return add_layer_norm(x, branch, self.weight, self.bias, factors=factors, eps=self.eps, backend=self.kernels)


class Mlp(nn.Module):
    """Two linear layers with GELU (erf) between."""

    def __init__(self, dim: int, hidden_dim: int, *, kernels: Backend = "auto") -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim)
        self.fc2 = Linear(hidden_dim, dim)
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) to (..., c)."""
        if uses_triton(self.kernels, x):  # the kernel adds the bias, whose gradient it sums
            return self.fc2(bias_gelu(F.linear(x, self.fc1.weight), self.fc1.bias, backend=self.kernels))
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP.

    Args:
        dim: channels of a token.
        attention: local window or global pyramid attention on the grid.
        mlp_ratio: hidden width of the MLP over dim.
        drop_path: probability of leaving a branch out for a whole clip, in training.
        kernels: who computes norms and GELU.
    """

    def __init__(
        self,
        dim: int,
        *,
        attention: LocalWindowAttention | GlobalPyramidAttention,
        mlp_ratio: float,
        drop_path: float,
        kernels: Backend = "auto",
    ) -> None:
        super().__init__()
        self.norm1 = AddNorm(dim, kernels=kernels)
        self.attention = attention
        self.norm2 = AddNorm(dim, kernels=kernels)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), kernels=kernels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(b, t, h, w, c) to the same shape."""
        if not self.training and can_work_in_pieces(x):
            return self._forward_in_pieces(x)
        return add_branch(*self.advance(x))

    def advance(
        self, x: Tensor, branch: Tensor | None = None, factors: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The block but for its last sum, which the next block's norm can add.

        Args:
            x: tokens, shape (b, t, h, w, c).
            branch: what is still to be added to them, in the same shape, or None.
            factors: what the branch of each clip is multiplied by first, shape (b,); None is 1.

        Returns:
            Tokens, what is still to be added to them, and its factors.
        """
        x, normed = self.norm1(x, branch, factors)
        branch = self.attention(normed)
        x, normed = self.norm2(x, branch, self.drop_path(branch))
        branch = self.mlp(normed)
        return x, branch, self.drop_path(branch)

    def _forward_in_pieces(self, x: Tensor) -> Tensor:
        """The same computation, a few windows or tokens at a time (model/cpu_pieces.py)."""
        if isinstance(self.attention, LocalWindowAttention):
            return self._local_in_pieces(x, self.attention)
        return self._global_in_pieces(x, self.attention)

    def _local_in_pieces(self, x: Tensor, attention: LocalWindowAttention) -> Tensor:
        def advance(piece: Tensor) -> None:
            piece += attention.attend_windows(self.norm1(piece)[1])
            piece += self.mlp(self.norm2(piece)[1])

        windows = split_windows(x, attention.window_size)
        if windows.data_ptr() == x.data_ptr():  # a single window: nothing was copied
            windows = windows.clone()
        for_each_piece(advance, windows.split(max(1, PIECE_NUMBERS // windows[0].numel())))
        return merge_windows(windows, attention.window_size, (x.shape[1], x.shape[2], x.shape[3]))

    def _global_in_pieces(self, x: Tensor, attention: GlobalPyramidAttention) -> Tensor:
        _, normed = self.norm1(x)
        k, v = attention.context(normed)
        tokens, queries = x.flatten(1, 3), normed.flatten(1, 3)
        out = torch.empty_like(tokens)

        def advance(piece: tuple[slice, slice]) -> None:
            clip = piece[0]
            y = tokens[piece] + attention.attend_context(queries[piece], k[clip], v[clip])
            torch.add(y, self.mlp(self.norm2(y)[1]), out=out[piece])

        size = max(1, PIECE_NUMBERS // x.shape[-1])
        starts = range(0, tokens.shape[1], size)
        for_each_piece(advance, [(slice(b, b + 1), slice(s, s + size)) for b in range(len(tokens)) for s in starts])
        return out.view(x.shape)
