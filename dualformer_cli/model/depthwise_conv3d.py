"""The depth-wise convolution of position and of the pyramid, as a module."""

from __future__ import annotations

from torch import Tensor, nn

from dualformer_cli.kernels.backend import Size3
from dualformer_cli.kernels.depthwise_conv3d import conv3d_channels_last


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
