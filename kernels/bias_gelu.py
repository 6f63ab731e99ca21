"""GELU (erf) of tokens to which a bias is added first.

y = v / 2 * (1 + erf(v / sqrt(2))) with v = x + bias: memory-bound, x read and y written once. The bias goes with it
rather than with the product of matrices before it, because then the backward pass, which reads x and the gradient
anyway, sums the bias's gradient on its way, and no operation reads the largest activation of a block for that alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dualformer_cli.kernels.backend import Backend, check_operands, shapes_in_words, uses_triton


def bias_gelu_reference(x: Tensor, bias: Tensor) -> Tensor:
    """Compute `bias_gelu` in PyTorch."""
    return F.gelu(x + bias.to(x.dtype))


@torch.library.custom_op("dualformer::bias_gelu", mutates_args=(), schema="(Tensor x, Tensor bias) -> Tensor")
def _operation(x: Tensor, bias: Tensor) -> Tensor:
    from dualformer_cli.kernels.bias_gelu_kernel import forward

    _check_kernel(x, bias)
    y = _empty(x, bias)
    forward(x.contiguous(), bias.contiguous(), y)
    return y


@_operation.register_fake
def _empty(x: Tensor, _: Tensor) -> Tensor:
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op(
    "dualformer::bias_gelu_backward", mutates_args=(), schema="(Tensor grad, Tensor x, Tensor bias) -> (Tensor, Tensor)"
)
def _backward_operation(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    from dualformer_cli.kernels.bias_gelu_kernel import backward

    _check_kernel(x, bias)
    if grad.shape != x.shape:
        raise ValueError(f"grad and x must have one shape, got {tuple(grad.shape)} and {tuple(x.shape)}")
    check_operands(grad, x)
    grad_x, grad_bias = _empty_gradients(grad, x, bias)
    backward(grad.contiguous(), x.contiguous(), bias.contiguous(), grad_x, grad_bias)
    return grad_x, grad_bias


@_backward_operation.register_fake
def _empty_gradients(grad: Tensor, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return _empty(x, bias), bias.new_empty(bias.shape)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    grads: tuple[Tensor, Tensor] = _backward_operation(grad, *ctx.saved_tensors)
    return grads


_operation.register_autograd(_differentiate, setup_context=_save)


def bias_gelu(x: Tensor, bias: Tensor, *, backend: Backend = "auto") -> Tensor:
    """Add a bias to every token and take GELU of the sums.

    Args:
        x: tokens, shape (..., c).
        bias: shape (c,), in the type of x or in another.
        backend: who computes it; auto is the kernel on CUDA, the reference elsewhere.

    Returns:
        The shape and type of x.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check(x, bias)
    if uses_triton(backend, x):
        y: Tensor = _operation(x, bias)
        return y
    return bias_gelu_reference(x, bias)


def _check(x: Tensor, bias: Tensor) -> None:
    if x.dim() < 1 or bias.shape != x.shape[-1:]:
        raise ValueError(f"x (..., c) and bias (c,) must fit, got {shapes_in_words(x, bias)}")


def _check_kernel(x: Tensor, bias: Tensor) -> None:
    _check(x, bias)
    check_operands(x, bias, one_type=False)
