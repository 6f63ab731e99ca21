"""The pyramid's convolutions whose kernel is their stride: fine level, and the coarse level's first, of the same x.

Every fine or coarse token is, per channel, a weighted sum of the box of tokens that it covers. One launch computes both
levels, box next to box, so that x comes from memory once; its gradient is written once, each token having one box in
either level. Memory-bound: 1 value read per token and channel, far fewer written.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dualformer_cli.kernels.backend import (
    Backend,
    Size3,
    check_operands,
    register_autocast,
    shapes_in_words,
    uses_triton,
)
from dualformer_cli.kernels.depthwise_conv3d import conv3d_channels_last


def pyramid_pool_reference(
    x: Tensor, fine_weight: Tensor, fine_bias: Tensor, coarse_weight: Tensor | None, coarse_bias: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Compute `pyramid_pool` in PyTorch, one convolution after the other."""
    fine = conv3d_channels_last(x, fine_weight, fine_bias, stride=_size(fine_weight))
    if coarse_weight is None:
        return fine, None
    return fine, conv3d_channels_last(x, coarse_weight, coarse_bias, stride=_size(coarse_weight))


def _size(weight: Tensor) -> Size3:
    return weight.shape[2], weight.shape[3], weight.shape[4]


@torch.library.custom_op(
    "dualformer::pyramid_pool",
    mutates_args=(),
    schema="(Tensor x, Tensor fine_weight, Tensor fine_bias, Tensor? coarse_weight, Tensor? coarse_bias)"
    " -> (Tensor, Tensor)",
)
def _operation(
    x: Tensor, fine_weight: Tensor, fine_bias: Tensor, coarse_weight: Tensor | None, coarse_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    from dualformer_cli.kernels.pyramid_pool_kernel import forward

    _check_levels(x, fine_weight, fine_bias, coarse_weight, coarse_bias)
    check_operands(x, fine_weight, fine_bias, coarse_weight, coarse_bias)
    fine, coarse = _empty_levels(x, fine_weight, fine_bias, coarse_weight, coarse_bias)
    coarse_bias = None if coarse_bias is None else coarse_bias.contiguous()
    forward(x.contiguous(), fine_weight, fine_bias.contiguous(), fine, coarse_weight, coarse_bias, coarse)
    return fine, coarse


@_operation.register_fake
def _empty_levels(
    x: Tensor, fine_weight: Tensor, fine_bias: Tensor, coarse_weight: Tensor | None, coarse_bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Both levels; without a coarse one, a tensor of no numbers in its place."""
    fine = _empty_level(x, fine_weight)
    return fine, x.new_empty(0) if coarse_weight is None else _empty_level(x, coarse_weight)


def _empty_level(x: Tensor, weight: Tensor) -> Tensor:
    b, t, h, w, channels = x.shape
    kt, kh, kw = _size(weight)
    return x.new_empty(b, t // kt, h // kh, w // kw, channels)


@torch.library.custom_op(
    "dualformer::pyramid_pool_backward_input",
    mutates_args=(),
    schema="(Tensor grad_fine, Tensor grad_coarse, Tensor fine_weight, Tensor? coarse_weight) -> Tensor",
)
def _backward_input(
    grad_fine: Tensor, grad_coarse: Tensor, fine_weight: Tensor, coarse_weight: Tensor | None
) -> Tensor:
    from dualformer_cli.kernels.pyramid_pool_kernel import backward_input

    check_operands(grad_fine, grad_coarse, fine_weight, coarse_weight)
    grad_x = _empty_input(grad_fine, grad_coarse, fine_weight, coarse_weight)
    _check(grad_x, fine_weight)
    if coarse_weight is not None:
        _check(grad_x, coarse_weight)
        if grad_coarse.shape != _empty_level(grad_x, coarse_weight).shape:
            raise ValueError(f"gradients {tuple(grad_fine.shape)} and {tuple(grad_coarse.shape)} are not of one grid")
    backward_input(grad_fine.contiguous(), fine_weight, grad_coarse.contiguous(), coarse_weight, grad_x)
    return grad_x


@_backward_input.register_fake
def _empty_input(grad_fine: Tensor, grad_coarse: Tensor, fine_weight: Tensor, coarse_weight: Tensor | None) -> Tensor:
    b, t, h, w, channels = grad_fine.shape
    kt, kh, kw = _size(fine_weight)
    return grad_fine.new_empty(b, t * kt, h * kh, w * kw, channels)


@torch.library.custom_op(
    "dualformer::pyramid_pool_backward_weight",
    mutates_args=(),
    schema="(Tensor grad, Tensor x) -> (Tensor, Tensor)",
)
def _backward_weight(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of one level's weight and bias, from the gradient of its tokens."""
    from dualformer_cli.kernels.pyramid_pool_kernel import backward_weight

    _check_boxes(x, grad)
    check_operands(grad, x)
    grad_weight, grad_bias = _empty_weights(grad, x)
    backward_weight(grad.contiguous(), x.contiguous(), grad_weight, grad_bias)
    return grad_weight, grad_bias


@_backward_weight.register_fake
def _empty_weights(grad: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    kernel = [side // tokens for side, tokens in zip(x.shape[1:4], grad.shape[1:4], strict=True)]
    return x.new_empty(x.shape[-1], 1, *kernel), x.new_empty(x.shape[-1])


def _save(ctx: Any, inputs: tuple[Tensor | None, ...], output: tuple[Tensor, Tensor]) -> None:
    x, fine_weight, _, coarse_weight, _ = inputs
    ctx.save_for_backward(x if any(ctx.needs_input_grad[1:]) else None, fine_weight, coarse_weight)


def _differentiate(ctx: Any, grad_fine: Tensor, grad_coarse: Tensor) -> tuple[Tensor | None, ...]:
    x, fine_weight, coarse_weight = ctx.saved_tensors
    needs_x, *needs = ctx.needs_input_grad
    grad_x = _backward_input(grad_fine, grad_coarse, fine_weight, coarse_weight) if needs_x else None
    fine = _backward_weight(grad_fine, x) if any(needs[:2]) else (None, None)
    coarse = _backward_weight(grad_coarse, x) if any(needs[2:]) else (None, None)
    return grad_x, *fine, *coarse


_operation.register_autograd(_differentiate, setup_context=_save)
register_autocast("pyramid_pool", _operation, lower=True)


def pyramid_pool(
    x: Tensor,
    fine_weight: Tensor,
    fine_bias: Tensor,
    coarse_weight: Tensor | None = None,
    coarse_bias: Tensor | None = None,
    *,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Pool boxes of tokens with weights of their own, at two sizes of box.

    Args:
        x: tokens, shape (b, t, h, w, c).
        fine_weight: shape (c, 1, kt, kh, kw); a box has kt x kh x kw tokens.
        fine_bias: shape (c,).
        coarse_weight: the same for the other level, or None without it.
        coarse_bias: shape (c,), or None without that level.
        backend: who computes it; auto is the kernel on CUDA, the reference elsewhere.

    Returns:
        Fine tokens (b, t / kt, h / kh, w / kw, c) and coarse tokens, or None.

    Raises:
        ValueError: if the grid does not divide into boxes or the shapes do not fit.
    """
    _check_levels(x, fine_weight, fine_bias, coarse_weight, coarse_bias)
    if not uses_triton(backend, x):
        return pyramid_pool_reference(x, fine_weight, fine_bias, coarse_weight, coarse_bias)
    fine, coarse = _operation(x, fine_weight, fine_bias, coarse_weight, coarse_bias)
    return fine, None if coarse_weight is None else coarse


def _check_levels(
    x: Tensor, fine_weight: Tensor, fine_bias: Tensor, coarse_weight: Tensor | None, coarse_bias: Tensor | None
) -> None:
    _check(x, fine_weight, fine_bias)
    if (coarse_weight is None) != (coarse_bias is None):
        raise ValueError("coarse_weight and coarse_bias go together, got only one")
    if coarse_weight is not None:
        _check(x, coarse_weight, coarse_bias)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    channels = x.shape[-1] if x.dim() else 0
    shapes_fit = x.dim() == weight.dim() == 5 and weight.shape[:2] == (channels, 1)
    if not shapes_fit or (bias is not None and bias.shape != (channels,)):
        raise ValueError(
            "x (b, t, h, w, c), weight (c, 1, kt, kh, kw) and bias (c,) must fit, got "
            f"{shapes_in_words(x, weight, bias)}"
        )
    if any(box < 1 or side < box or side % box for side, box in zip(x.shape[1:4], weight.shape[2:], strict=True)):
        raise ValueError(f"token grid {tuple(x.shape[1:4])} does not divide into boxes of {tuple(weight.shape[2:])}")


def _check_boxes(x: Tensor, level: Tensor) -> None:
    shapes_fit = x.dim() == level.dim() == 5 and (x.shape[0], x.shape[4]) == (level.shape[0], level.shape[4])
    if not shapes_fit or any(box < 1 or side % box for side, box in zip(x.shape[1:4], level.shape[1:4], strict=True)):
        raise ValueError(f"tokens {tuple(x.shape)} do not divide into the boxes of a level {tuple(level.shape)}")
