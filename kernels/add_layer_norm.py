"""Residual addition and LayerNorm: a branch is added to the stream of tokens, and the sum normalised for the next one.

total = x + factor * branch, normed = (total - mean) / sqrt(variance + eps) * weight + bias, over the channels of each
token; the factor is a clip's own (DropPath's). One pass reads x and the branch and writes both results, each in the
type that is wanted: under autocast the stream stays float32, the branch comes and the normed tokens go in 16 bits, 12
bytes a number in all. As PyTorch's operations it takes 28: the product (4), the sum (10), LayerNorm (8) and the cast
(6). The backward pass takes mean and variance from the total again, so that nothing else is stored, and adds the
gradient of the stream to LayerNorm's.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dualformer_cli.kernels.backend import Backend, check_operands, compute_dtype, shapes_in_words, uses_triton

MAX_CHANNELS = 4096
"""Channels of a token that the kernel takes: a program holds whole tokens."""


def add_branch(x: Tensor, branch: Tensor | None, factors: Tensor | None) -> Tensor:
    """Add a branch to tokens, times each clip's own factor."""
    if branch is None:
        return x
    if factors is not None:
        branch = branch * factors.to(branch.dtype).view(-1, *[1] * (branch.dim() - 1))
    return x + branch


def add_layer_norm_reference(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor, factors: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Compute `add_layer_norm` in PyTorch."""
    total = add_branch(x, branch, factors)
    return total, F.layer_norm(total, weight.shape, weight, bias, eps)


@torch.library.custom_op(
    "dualformer::add_layer_norm",
    mutates_args=(),
    schema="(Tensor x, Tensor? branch, Tensor weight, Tensor bias, Tensor? factors, float eps, ScalarType dtype)"
    " -> (Tensor, Tensor)",
)
def _operation(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    factors: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    from dualformer_cli.kernels.add_layer_norm_kernel import forward

    _check_kernel(x, branch, weight, bias, factors)
    total, normed = _empty_results(x, branch, weight, bias, factors, eps, dtype)
    check_operands(normed)
    forward(
        x.contiguous(), _contiguous(branch), weight.contiguous(), bias.contiguous(), _contiguous(factors), eps,
        total, normed,
    )  # fmt: skip
    return total, normed


@_operation.register_fake
def _empty_results(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    factors: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """The sum, of no numbers without a branch, where it is x itself; and the normed tokens."""
    return x.new_empty((0,) if branch is None else x.shape), x.new_empty(x.shape, dtype=dtype)


@torch.library.custom_op(
    "dualformer::add_layer_norm_backward",
    mutates_args=(),
    schema="(Tensor grad_total, Tensor grad_normed, Tensor total, Tensor weight, Tensor? factors, float eps,"
    " ScalarType? branch_dtype) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _backward_operation(
    grad_total: Tensor,
    grad_normed: Tensor,
    total: Tensor,
    weight: Tensor,
    factors: Tensor | None,
    eps: float,
    branch_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, of the branch (of no numbers without one), of the weight and of the bias."""
    from dualformer_cli.kernels.add_layer_norm_kernel import backward

    has_branch = branch_dtype is not None
    _check_kernel(total, grad_normed, weight, None, factors)
    if grad_total.shape != (total.shape if has_branch else (0,)) or grad_total.dtype != total.dtype:
        raise ValueError("grad_total must fit total as the results of dualformer::add_layer_norm do")
    check_operands(total, grad_total)
    grads = _empty_gradients(grad_total, grad_normed, total, weight, factors, eps, branch_dtype)
    check_operands(grads[1])
    backward(
        grad_total.contiguous() if has_branch else None, grad_normed.contiguous(), total.contiguous(),
        weight.contiguous(), _contiguous(factors), eps, grads[0], grads[1] if has_branch else None, *grads[2:],
    )  # fmt: skip
    return grads


@_backward_operation.register_fake
def _empty_gradients(
    grad_total: Tensor,
    grad_normed: Tensor,
    total: Tensor,
    weight: Tensor,
    factors: Tensor | None,
    eps: float,
    branch_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    branch = total.new_empty(grad_total.shape, dtype=branch_dtype or total.dtype)
    return total.new_empty(total.shape), branch, weight.new_empty(weight.shape), weight.new_empty(weight.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, branch, weight, _, factors, ctx.eps, _ = inputs
    ctx.branch_dtype = None if branch is None else branch.dtype
    ctx.save_for_backward(x if branch is None else output[0], weight, factors)


def _differentiate(ctx: Any, grad_total: Tensor, grad_normed: Tensor) -> tuple[Tensor | None, ...]:
    total, weight, factors = ctx.saved_tensors
    grad_x, grad_branch, grad_weight, grad_bias = _backward_operation(
        grad_total, grad_normed, total, weight, factors, ctx.eps, ctx.branch_dtype
    )
    return grad_x, None if ctx.branch_dtype is None else grad_branch, grad_weight, grad_bias, None, None, None


_operation.register_autograd(_differentiate, setup_context=_save)


def adds_with_triton(x: Tensor, backend: Backend = "auto") -> bool:
    """Whether `add_layer_norm` runs its kernel for tokens like `x`."""
    channels = x.shape[-1]
    problem = None if channels <= MAX_CHANNELS else f"LayerNorm has none for tokens of {channels} channels"
    return uses_triton(backend, x, problem=problem)


def add_layer_norm(
    x: Tensor,
    branch: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    factors: Tensor | None = None,
    eps: float = 1e-5,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Add a branch to tokens and normalise each of the sums over its channels.

    Args:
        x: tokens, shape (b, ..., c).
        branch: what is added, the shape of x; None adds nothing.
        weight, bias: of the normed tokens, shape (c,).
        factors: what the branch of each clip is multiplied by, shape (b,), float32 (float64 if x is); None is 1.
        eps: added to the variance.
        backend: who computes it; auto is the kernel on CUDA, the reference elsewhere.

    Returns:
        The sum, in the type of x, and the normed tokens, both in the shape of x. The kernel gives the normed tokens in
        autocast's type where it is on; PyTorch gives them in float32 there.

    Raises:
        ValueError: if the shapes do not fit.
    """
    _check(x, branch, weight, bias, factors)
    if not adds_with_triton(x, backend):
        return add_layer_norm_reference(x, branch, weight, bias, factors, eps)
    total, normed = _operation(x, branch, weight, bias, factors, eps, compute_dtype(x))
    return x if branch is None else total, normed


def _contiguous(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.contiguous()


def _check(x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, factors: Tensor | None) -> None:
    of_channels = (x.shape[-1],) if x.dim() else ()
    fits = x.dim() > 1 and weight.shape == of_channels and (bias is None or bias.shape == of_channels)
    fits = fits and (branch is None or branch.shape == x.shape) and (factors is None or factors.shape == x.shape[:1])
    if not fits or (factors is not None and factors.dtype != torch.promote_types(x.dtype, torch.float32)):
        raise ValueError(
            "x (b, ..., c), a branch of its shape, weight and bias (c,) and float32 factors (b,) must fit, got "
            f"{shapes_in_words(x, branch, weight, bias, factors)}"
        )


def _check_kernel(
    x: Tensor, branch: Tensor | None, weight: Tensor, bias: Tensor | None, factors: Tensor | None
) -> None:
    _check(x, branch, weight, bias, factors)
    check_operands(x, branch, weight, bias, factors, one_type=False)
    check_operands(weight, bias)
    if x.shape[-1] > MAX_CHANNELS:
        raise ValueError(f"the kernel takes tokens of up to {MAX_CHANNELS} channels, got {x.shape[-1]}")
