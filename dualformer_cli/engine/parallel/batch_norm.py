"""BatchNorm over the clips of a rank, of all ranks, or with frozen statistics; and what all ranks agree on."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dualformer_cli.engine.parallel.devices import widened
from dualformer_cli.engine.parallel.reductions import all_reduce, exchange, scatter_flat, world_size

BatchNormMode = Literal["per_rank", "synchronized", "frozen"]


def convert_batch_norm(model: nn.Module, mode: BatchNormMode) -> nn.Module:
    """Choose which statistics the BatchNorm3d layers of a model train with; names in the state dict stay.

    per_rank: of the rank's own micro-batch, as in the published runs: results depend on how the batch is cut.
    synchronized: of the micro-batches of all ranks together, whatever their sizes. Every rank then runs the same
    number of forward passes, one without samples included (an empty batch).
    frozen: the running statistics, which stay as they are; scale and shift still learn.

    Args:
        model: changed in place; parameters and buffers stay the same tensors.
        mode: one of the three.

    Returns:
        The model; another module only if it is a BatchNorm itself.

    Raises:
        ValueError: if there is no such mode, or frozen layers have no running statistics.
    """
    if mode not in ("per_rank", "synchronized", "frozen"):
        raise ValueError(f"mode must be per_rank, synchronized or frozen, got {mode!r}")
    if isinstance(model, nn.BatchNorm3d):
        return _converted(model, mode)
    for name, child in model.named_children():
        setattr(model, name, convert_batch_norm(child, mode))
    return model


def average_running_statistics(model: nn.Module) -> None:
    """Give every rank the same buffers: means of the running statistics, and the maximum of each counter."""
    if world_size() == 1:
        return
    buffers = list(model.buffers())
    floats = [buffer for buffer in buffers if buffer.is_floating_point()]
    counters = [buffer for buffer in buffers if not buffer.is_floating_point()]
    if floats:  # in float64, so that the mean of equal values is that value
        total = torch.cat([buffer.reshape(-1).double() for buffer in floats])
        all_reduce(total, "averaging running statistics")
        scatter_flat(total / world_size(), floats)
    if counters:
        most = torch.cat([buffer.reshape(-1).long() for buffer in counters])
        all_reduce(most, "averaging running statistics", dist.ReduceOp.MAX)
        scatter_flat(most, counters)


class SynchronizedBatchNorm(nn.BatchNorm3d):
    """BatchNorm whose training statistics are those of all ranks' batches together, on CPU and on GPUs."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Exchanges stay out of compiled graphs. A decorator would load the compiler, 3 s, with this file.
        self._uncompiled = torch.compiler.disable(SynchronizedBatchNorm._forward_together)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, ...) to (b, c, ...); b may differ between ranks and be 0 on some."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        return self._uncompiled(self, x)

    def _forward_together(self, x: Tensor) -> Tensor:
        mean, variance, count = _moments_over_ranks(x.detach())
        if self.track_running_stats:
            self._follow(mean, variance, count)
        wide = widened(x).dtype
        mean, scale = mean.to(wide), torch.rsqrt(variance + self.eps).to(wide)
        weight = torch.ones_like(mean) if self.weight is None else self.weight
        bias = torch.zeros_like(mean) if self.bias is None else self.bias
        return _NormalizeOverRanks.apply(x, weight, bias, mean, scale, count)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics; the variance there is unbiased, and a step without samples moves nothing."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1 / self.num_batches_tracked.double() if self.momentum is None else self.momentum
        step = momentum * (count > 0).double()
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.add_((mean - self.running_mean) * step)
        self.running_var.add_((unbiased - self.running_var) * step)


class FrozenBatchNorm(nn.BatchNorm3d):
    """BatchNorm that uses its running statistics in training too, and leaves them as they are."""

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, ...) to (b, c, ...)."""
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class _NormalizeOverRanks(torch.autograd.Function):
    """(x - mean) * scale * weight + bias, where mean and scale come from the x of all ranks.

    The loss is the sum over ranks, so the gradient of x has terms of every rank's output gradient. Gradients of
    weight and bias are of this rank's samples only, like those of all parameters until `sum_gradients`.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, scale: Tensor, count: Tensor
    ) -> Tensor:
        """Shapes: x (b, c, ...); count (), samples per channel on all ranks; the others (c,)."""
        ctx.save_for_backward(x, weight, mean, scale, count)
        y = (widened(x) - _along(mean, x)) * _along(scale * weight, x) + _along(bias, x)
        return y.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias, with one exchange of 2 c numbers."""
        x, weight, mean, scale, count = ctx.saved_tensors
        gradient = widened(gradients[0])
        normalized = (widened(x) - _along(mean, x)) * _along(scale, x)
        axes = _axes_but_channels(x)
        sums = torch.stack([gradient.sum(axes), (gradient * normalized).sum(axes)])
        grad_bias, grad_weight = sums.to(weight.dtype).unbind()
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, None, None, None
        total = sums.to(torch.float64, copy=True)
        all_reduce(total, "exchanging statistics of BatchNorm")
        mean_gradient, mean_product = (total / count.clamp(min=1)).to(sums.dtype).unbind()
        grad_x = gradient - _along(mean_gradient, x) - normalized * _along(mean_product, x)
        grad_x = grad_x * _along(scale * weight, x)
        return grad_x.to(x.dtype), grad_weight, grad_bias, None, None, None


def _moments_over_ranks(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean (c,), biased variance (c,) and samples per channel () of all ranks' x (b, c, ...), in float64.

    Each rank sends its mean and squared deviations, which lose less to rounding than sums of squares.
    """
    axes, channels = _axes_but_channels(x), x.shape[1]
    size = x.numel() // max(1, channels)
    own_mean = widened(x).sum(axes) / max(1, size)
    own_deviation = (widened(x) - _along(own_mean, x)).square().sum(axes)
    own = torch.cat([own_mean.double(), own_deviation.double(), own_mean.new_full((1,), size).double()])
    rows = [torch.empty_like(own) for _ in range(world_size())]
    exchange("exchanging statistics of BatchNorm", dist.all_gather, rows, own)
    means, deviations, sizes = torch.stack(rows).split([channels, channels, 1], dim=1)
    count = sizes.sum()
    mean = (means * sizes).sum(0) / count.clamp(min=1)
    deviation = deviations.sum(0) + (sizes * (means - mean).square()).sum(0)
    return mean, deviation / count.clamp(min=1), count


def _axes_but_channels(x: Tensor) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != 1]


def _along(values: Tensor, x: Tensor) -> Tensor:
    """(c,) to (c, 1, ...), which broadcasts along the channels of x (b, c, ...)."""
    return values.view(-1, *[1] * (x.dim() - 2))


def _converted(layer: nn.BatchNorm3d, mode: BatchNormMode) -> nn.BatchNorm3d:
    if mode == "frozen" and layer.running_mean is None:
        raise ValueError("a BatchNorm without running statistics cannot be frozen")
    wanted = {"per_rank": nn.BatchNorm3d, "synchronized": SynchronizedBatchNorm, "frozen": FrozenBatchNorm}[mode]
    if type(layer) is wanted:
        return layer
    new = wanted(
        layer.num_features,
        eps=layer.eps,
        momentum=layer.momentum,
        affine=layer.affine,
        track_running_stats=layer.track_running_stats,
        device="meta",
    )
    new.weight, new.bias = layer.weight, layer.bias
    new.running_mean, new.running_var = layer.running_mean, layer.running_var
    new.num_batches_tracked = layer.num_batches_tracked
    new.training = layer.training
    return new
