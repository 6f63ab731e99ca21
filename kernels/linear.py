"""A linear layer, by the library that multiplies fastest on the processor at hand.

PyTorch gives products in float32 to MKL, which takes AVX-512 on Intel's processors alone. oneDNN, which PyTorch has as
well, takes it on all: on one core of an AMD EPYC (Zen 5) 115 to 126 billion multiply-adds a second in place of 50 to 57
at the shapes of tiny.
"""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualformer_cli.kernels.backend import is_eager

_FEW = 2**20
"""Multiply-adds of a product that costs either library about as much as being called."""


class Linear(nn.Linear):
    """nn.Linear, computed by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Do what torch.nn.functional.linear does.

    Args:
        x: shape (..., inputs).
        weight: shape (outputs, inputs).
        bias: shape (outputs,), or None.

    Returns:
        Shape (..., outputs).
    """
    # is_eager comes first: torch.compile cannot trace what follows
    if not (is_eager() and _prefers_onednn() and _is_large_product(x, weight)):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        return cast(Tensor, _Linear.apply(x, weight, bias))
    return _product(x, weight, bias)


@cache
def _prefers_onednn() -> bool:
    """Return whether MKL leaves half of this processor unused."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and _is_of_amd()
    )


def _is_of_amd() -> bool:
    if sys.platform == "linux":
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    return "AuthenticAMD" in platform.processor()


def _is_large_product(x: Tensor, weight: Tensor) -> bool:
    return (
        x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and x.numel() * len(weight) >= _FEW
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`linear` by oneDNN, of float32 tensors on a CPU in a pass that nobody records."""
    if not weight.is_contiguous() and not weight.t().is_contiguous():
        weight = weight.contiguous()  # oneDNN has nothing fast for rows with gaps: it would take 700 times as long
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise.default(x, weight, bias, "none", [], ""))


def _product_over_rows(a: Tensor, b: Tensor) -> Tensor:
    """Do what a.t() @ b does, for (n, i) and (n, o), where `_product` may be called.

    oneDNN gets the narrower one first, with which it is up to 2.6 times as fast.
    """
    if a.shape[1] <= b.shape[1]:
        return _product(a.t(), b.t())
    return _product(b.t(), a.t()).t()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(..., inputs), (outputs, inputs) and (outputs,) to (..., outputs)."""
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        (grad,), (x, weight), needs = gradients, ctx.saved_tensors, ctx.needs_input_grad
        rows, tokens = grad.flatten(0, -2), x.flatten(0, -2)
        return (
            _product(grad, weight.t()) if needs[0] else None,
            _product_over_rows(rows, tokens) if needs[1] else None,
            rows.sum(0) if needs[2] else None,
        )
