"""Depth-wise 3-D convolutions of a channels-last token grid: position, x + conv3x3x3(x), and the plain ones.

Each output token is, per channel, a weighted sum of the tokens under its kernel: memory-bound, 2 values moved per
token and channel. PyTorch's own convolution does it well on a CPU when the memory really is channels-last: on 2 cores a
3x3x3 kernel over (16, 56, 56, 64) in float32 takes 4.3 ms, against 96 ms channels-first. On CUDA it has no good path.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dualformer_cli.kernels.backend import (
    Backend,
    Size3,
    check_operands,
    register_autocast,
    shapes_in_words,
    uses_triton,
)
from dualformer_cli.kernels.depthwise_conv3d_cpu import conv3d_cpu, has_own_backward


def conv3d_channels_last(
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
    if has_own_backward(x, weight, stride=stride, padding=padding):
        return conv3d_cpu(x, weight, bias, stride=stride, padding=padding)
    channels_first = x.permute(0, 4, 1, 2, 3)  # a view: the memory stays channels-last
    if x.is_cuda:  # channels-last goes to cuDNN, which may have no engine for it in 16 bits, and may multiply in TF32
        channels_first = channels_first.contiguous()
    y = F.conv3d(channels_first, weight, bias, stride=stride, padding=padding, groups=x.shape[-1])
    return y.permute(0, 2, 3, 4, 1).contiguous()


def depthwise_conv3d_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Compute `depthwise_conv3d` in PyTorch."""
    return x + conv3d_channels_last(x, weight, bias, padding=(1, 1, 1))


@torch.library.custom_op(
    "dualformer::depthwise_conv3d", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def _operation(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    from dualformer_cli.kernels.depthwise_conv3d_kernel import forward

    _check(x, weight, bias)
    check_operands(x, weight, bias)
    y = _empty(x)
    forward(x.contiguous(), weight, bias.contiguous(), y)
    return y


@torch.library.custom_op(
    "dualformer::depthwise_conv3d_backward_input", mutates_args=(), schema="(Tensor grad, Tensor weight) -> Tensor"
)
def _backward_input(grad: Tensor, weight: Tensor) -> Tensor:
    from dualformer_cli.kernels.depthwise_conv3d_kernel import backward_input

    _check(grad, weight)
    check_operands(grad, weight)
    grad_x = _empty(grad)
    backward_input(grad.contiguous(), weight, grad_x)
    return grad_x


@_operation.register_fake
@_backward_input.register_fake
def _empty(x: Tensor, *_: object) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "dualformer::depthwise_conv3d_backward_weight",
    mutates_args=(),
    schema="(Tensor grad, Tensor x) -> (Tensor, Tensor)",
)
def _backward_weight(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    from dualformer_cli.kernels.depthwise_conv3d_kernel import backward_weight

    if grad.shape != x.shape:
        raise ValueError(f"grad and x must have one shape, got {tuple(grad.shape)} and {tuple(x.shape)}")
    check_operands(grad, x)
    grad_weight, grad_bias = _empty_weights(grad, x)
    backward_weight(grad.contiguous(), x.contiguous(), grad_weight, grad_bias)
    return grad_weight, grad_bias


@_backward_weight.register_fake
def _empty_weights(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[-1], 1, 3, 3, 3), x.new_empty(x.shape[-1])


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    x, weight, _ = inputs
    needs_x, *needs_weights = ctx.needs_input_grad
    ctx.save_for_backward(x if any(needs_weights) else None, weight if needs_x else None)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    x, weight = ctx.saved_tensors
    grad_x = None if weight is None else _backward_input(grad, weight)
    grad_weight, grad_bias = (None, None) if x is None else _backward_weight(grad, x)
    return grad_x, grad_weight, grad_bias


_operation.register_autograd(_differentiate, setup_context=_save)
register_autocast("depthwise_conv3d", _operation, lower=False)


def depthwise_conv3d(x: Tensor, weight: Tensor, bias: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Compute x + conv3x3x3(x), zero-padded, every channel with its own kernel.

    Args:
        x: tokens, shape (b, t, h, w, c).
        weight: shape (c, 1, 3, 3, 3).
        bias: shape (c,).
        backend: who computes it; auto is the kernel on CUDA, the reference elsewhere.

    Returns:
        Tokens, the shape of x.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check(x, weight, bias)
    if uses_triton(backend, x):
        y: Tensor = _operation(x, weight, bias)
        return y
    return depthwise_conv3d_reference(x, weight, bias)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    channels = x.shape[-1] if x.dim() else 0
    if x.dim() != 5 or weight.shape != (channels, 1, 3, 3, 3) or (bias is not None and bias.shape != (channels,)):
        raise ValueError(
            f"x (b, t, h, w, c), weight (c, 1, 3, 3, 3) and bias (c,) must fit, got {shapes_in_words(x, weight, bias)}"
        )
