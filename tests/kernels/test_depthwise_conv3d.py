"""The depth-wise convolution on channels-last tokens equals PyTorch's own on channels-first ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dualformer_cli.kernels.depthwise_conv3d import conv3d_channels_last


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3, 3), (1, 1, 1), (1, 1, 1)), ((2, 4, 4), (2, 4, 4), (0, 0, 0)), ((1, 7, 7), (1, 7, 7), (0, 0, 0))],
)
def test_outputs_and_gradients_equal_those_of_conv3d(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: tuple[int, int, int]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 28, 28, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 1, *kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    ours = conv3d_channels_last(x, weight, bias, stride=stride, padding=padding)
    channels_first = x.permute(0, 4, 1, 2, 3).contiguous()
    expected = F.conv3d(channels_first, weight, bias, stride=stride, padding=padding, groups=5).permute(0, 2, 3, 4, 1)
    assert ours.is_contiguous()
    torch.testing.assert_close(ours, expected)
    inputs = (x, weight, bias)
    for found, wanted in zip(
        torch.autograd.grad(ours.square().sum(), inputs),
        torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)
