"""The depth-wise convolution on channels-last tokens equals PyTorch's own on channels-first ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

from dualformer_cli.kernels.depthwise_conv3d import conv3d_channels_last
from dualformer_cli.kernels.depthwise_conv3d_cpu import has_own_backward

USUAL = [((3, 3, 3), (1, 1, 1), (1, 1, 1)), ((2, 4, 4), (2, 4, 4), (0, 0, 0)), ((1, 7, 7), (1, 7, 7), (0, 0, 0))]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "frames"),
    [
        *((*case, 4) for case in USUAL),
        (*USUAL[0], 1),
        ((1, 1, 1), (1, 1, 1), (0, 0, 0), 4),
        ((5, 3, 1), (1, 1, 1), (2, 1, 0), 4),
        ((3, 3, 3), (1, 2, 2), (1, 1, 1), 4),
        ((3, 3, 3), (3, 3, 3), (0, 0, 0), 4),
    ],
)
def test_outputs_and_gradients_equal_those_of_conv3d(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: tuple[int, int, int], frames: int
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, frames, 28, 28, 5, dtype=torch.float64, requires_grad=True)
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


@pytest.mark.parametrize(("kernel", "stride", "padding"), USUAL)
def test_gradients_under_autocast_are_near_those_in_float64_and_take_no_slow_way(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], padding: tuple[int, int, int]
) -> None:
    """PyTorch's backward pass of a three-dimensional convolution takes up to 60 times its forward pass."""
    torch.manual_seed(0)
    given = [torch.randn(1, 4, 28, 28, 5), torch.randn(5, 1, *kernel), torch.randn(5)]
    single, double = ([x.to(dtype).requires_grad_() for x in given] for dtype in (torch.float32, torch.float64))
    with torch.autocast("cpu", torch.bfloat16):
        found = conv3d_channels_last(*single, stride=stride, padding=padding)
    wanted = conv3d_channels_last(*double, stride=stride, padding=padding)
    assert found.dtype == torch.bfloat16
    slope = torch.randn(found.shape).bfloat16()
    with _Calls() as calls:
        gradients = torch.autograd.grad(found, single, slope)
    for own, truth in zip(gradients, torch.autograd.grad(wanted, double, slope.double()), strict=True):
        assert own.dtype == torch.float32
        assert (own - truth).norm() < 2**-7 * truth.norm()
    assert 5 not in calls.dimensions


class _Calls(TorchDispatchMode):
    """Dimensions of the convolutions that are differentiated."""

    def __init__(self) -> None:
        super().__init__()
        self.dimensions: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ == "convolution_backward":
            self.dimensions.append(args[0].dim())
        return func(*args, **(kwargs or {}))


def test_what_is_not_a_plain_recorded_pass_is_left_to_pytorch() -> None:
    """Forward-mode derivatives, torch.func and traces need to see a convolution."""
    x, weight = torch.zeros(1, 3, 6, 6, 2), torch.zeros(2, 1, 3, 3, 3, requires_grad=True)

    def has_own() -> bool:
        return has_own_backward(x, weight, stride=(1, 1, 1), padding=(1, 1, 1))

    assert has_own()
    with forward_ad.dual_level():
        assert not has_own()
    with torch.no_grad():
        assert not has_own()
    assert not torch.func.vmap(lambda number: number * 0 + has_own())(torch.zeros(1)).any()


def test_gradients_of_torch_func_are_those_of_a_backward_pass() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*shape, generator=generator) for shape in ((3, 4, 6, 6, 2), (2, 1, 3, 3, 3)))

    def loss(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        return conv3d_channels_last(x, weight, None, padding=(1, 1, 1)).square().sum()

    of_clips = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weight, x[:, None])
    for clip, found in zip(x, of_clips, strict=True):
        own = weight.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(own, clip[None]), own)
        torch.testing.assert_close(found, expected)


@pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a torch that knows CUDA")
def test_on_a_card_the_library_gets_channels_first_for_which_it_needs_no_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    convolve = torch.nn.functional.conv3d

    def watched(x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        seen.append(x.is_contiguous())
        return convolve(x, *arguments, **options)

    monkeypatch.setattr(torch.nn.functional, "conv3d", watched)
    with FakeTensorMode():
        x, weight, bias = (
            torch.empty(*shape, device="cuda", dtype=torch.float16)
            for shape in ((1, 2, 4, 4, 6), (6, 1, 1, 2, 2), (6,))
        )
        assert conv3d_channels_last(x, weight, bias, stride=(1, 2, 2)).shape == (1, 2, 2, 2, 6)
    assert seen == [True]
