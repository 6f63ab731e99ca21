"""Depth-wise 3-D convolutions on a CPU whose backward pass PyTorch has no fast way for.

On one thread of a Xeon with AMX, torch 2.14.1, it takes 662 ms for a 3x3x3 kernel over (16, 56, 56, 64) in bfloat16 and
283 in float32, 60 and 30 times the forward pass, and 356 and 115 for boxes of 2x8x8. The gradient of the input is a
forward pass with the kernel turned round, or the gradient times the kernel where each token is under one alone; that of
the weight is a sum of two-dimensional ones, which have a fast way: 36 and 17 ms, and 16 and 19.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from dualformer_cli.kernels.backend import Size3, compute_dtype, is_plainly_recorded


def has_own_backward(x: Tensor, weight: Tensor, *, stride: Size3, padding: Size3) -> bool:
    """Whether `conv3d_cpu` takes tokens (b, t, h, w, c): in a pass that is recorded on a CPU, for the usual kernels."""
    if x.device.type != "cpu" or not x.numel() or not is_plainly_recorded(x, weight):
        return False
    kernel = weight.shape[2:]
    keeps_grid = stride == (1, 1, 1) and all(2 * pad + 1 == side for pad, side in zip(padding, kernel, strict=True))
    has_boxes = stride == tuple(kernel) and padding == (0, 0, 0)
    return keeps_grid or (has_boxes and not any(n % side for n, side in zip(x.shape[1:4], kernel, strict=True)))


def conv3d_cpu(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: Size3, padding: Size3) -> Tensor:
    """Do what `conv3d_channels_last` does, where `has_own_backward` says so."""
    if torch.is_autocast_enabled("cpu") and x.dtype != torch.float64:
        x = x.to(compute_dtype(x))  # autocast itself casts the weight, once a step
    y: Tensor = _Conv3d.apply(x, weight, bias, stride, padding)
    return y


class _Conv3d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size3, padding: Size3) -> Tensor:
        """Tokens (b, t, h, w, c) and weights (c, 1, kt, kh, kw) to (b, t', h', w', c)."""
        ctx.save_for_backward(x, weight)
        ctx.has_boxes = padding == (0, 0, 0) and stride != (1, 1, 1)
        return _convolve(x, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of tokens, weight and bias, computed in float32 or better."""
        (grad,), (x, weight), needs = gradients, ctx.saved_tensors, ctx.needs_input_grad
        of_input, of_weight = (
            (_input_of_boxes, _weight_of_boxes) if ctx.has_boxes else (_input_of_grid, _weight_of_grid)
        )
        wide = grad.to(torch.promote_types(grad.dtype, torch.float32))
        return (
            of_input(wide, weight.to(wide.dtype)).to(x.dtype) if needs[0] else None,
            of_weight(wide, x.to(wide.dtype), weight).to(weight.dtype) if needs[1] else None,
            wide.sum((0, 1, 2, 3)).to(weight.dtype) if needs[2] else None,
            None,
            None,
        )


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Size3, padding: Size3) -> Tensor:
    y = F.conv3d(x.permute(0, 4, 1, 2, 3), weight, bias, stride=stride, padding=padding, groups=x.shape[-1])
    return y.permute(0, 2, 3, 4, 1).contiguous()


def _input_of_boxes(grad: Tensor, weight: Tensor) -> Tensor:
    kernel = rearrange(weight, "c 1 kt kh kw -> kt 1 kh 1 kw c")
    boxes = rearrange(grad, "b t h w c -> b t 1 h 1 w 1 c") * kernel
    return rearrange(boxes, "b t kt h kh w kw c -> b (t kt) (h kh) (w kw) c")


def _weight_of_boxes(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    kt, kh, kw = weight.shape[2:]
    boxes = rearrange(x, "b (t kt) (h kh) (w kw) c -> b t kt h kh w kw c", kt=kt, kh=kh, kw=kw)
    products = boxes * rearrange(grad, "b t h w c -> b t 1 h 1 w 1 c")
    return rearrange(products.sum((0, 1, 3, 5)), "kt kh kw c -> c 1 kt kh kw")


def _input_of_grid(grad: Tensor, weight: Tensor) -> Tensor:
    kt, kh, kw = weight.shape[2:]
    return _convolve(grad, weight.flip(2, 3, 4), None, (1, 1, 1), (kt // 2, kh // 2, kw // 2))


def _weight_of_grid(grad: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    kt, kh, kw = weight.shape[2:]
    num_frames, channels = x.shape[1], x.shape[4]
    parts = []
    for offset in range(-(kt // 2), kt // 2 + 1):  # of the frame under this part of the kernel
        if abs(offset) >= num_frames:
            parts.append(torch.zeros_like(weight[:, :, 0], dtype=grad.dtype))
            continue
        frames = x[:, max(0, offset) : num_frames + min(0, offset)]
        slopes = grad[:, max(0, -offset) : num_frames + min(0, -offset)]
        _, part, _ = torch.ops.aten.convolution_backward(
            rearrange(slopes, "b t h w c -> (b t) c h w"), rearrange(frames, "b t h w c -> (b t) c h w"),
            weight[:, :, 0].to(grad.dtype), None, [1, 1], [kh // 2, kw // 2], [1, 1], False, [0, 0], channels,
            [False, True, False],
        )  # fmt: skip
        parts.append(part)
    return torch.stack(parts, dim=2)
