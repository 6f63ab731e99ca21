"""The pyramid of pooled tokens that global attention attends to: how its levels are pooled.

`dualformer.plan_stages` says which levels a stage has, and with which kernels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dualformer_cli.kernels.backend import Backend, Size3
from dualformer_cli.kernels.pyramid_pool import pyramid_pool
from dualformer_cli.model.depthwise_conv3d import DepthwiseConv3d


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
