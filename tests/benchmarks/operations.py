"""The kernels at the shapes of the model's stages, beside their PyTorch references, for speed.py.

Contenders are the Triton kernel (on a GPU), the reference run eagerly, and if asked torch.compile of the reference.
Before any timing, the largest error of each against float64 is taken, on one clip, over results and gradients; a kernel
whose error is over twice the reference's fails the run. Inputs are random and the same for all contenders; on a GPU the
L2 cache is emptied before each run. Rates count the least work: every input and result moved once, and for attention
the products of the forward pass (2.5 times as many in the backward pass).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from timing import DTYPES, Deadline, Row, failure, paired_rounds, peak_mib, timed
from torch import Tensor

from dualformer_cli.config.load import load_config
from dualformer_cli.kernels.add_layer_norm import add_layer_norm, add_layer_norm_reference
from dualformer_cli.kernels.backend import Size3
from dualformer_cli.kernels.bias_gelu import bias_gelu, bias_gelu_reference
from dualformer_cli.kernels.depthwise_conv3d import depthwise_conv3d, depthwise_conv3d_reference
from dualformer_cli.kernels.frame_patches import frame_patches, frame_patches_reference
from dualformer_cli.kernels.pyramid_pool import pyramid_pool, pyramid_pool_reference
from dualformer_cli.kernels.window_attention import window_attention, window_attention_reference
from dualformer_cli.model.dualformer import plan_stages

CACHE_BYTES = 2**28
"""Written before each timed run on a GPU: more than its L2 holds."""


@dataclass(frozen=True)
class Case:
    """One operation at one stage."""

    operation: str
    size: str
    stage: int
    token_shape: tuple[int, ...]
    """Of the input for one clip, (t, h, w, channels)."""
    weight_shapes: tuple[tuple[int, ...], ...]
    kernel: Callable[..., Any]
    reference: Callable[..., Any]
    multiply_adds: int
    """Matrix products of one clip, forward; 0 for what memory limits."""
    num_inputs: int = 1
    """How many of that shape there are."""
    is_trained: bool = True
    """Whether it has gradients."""

    def inputs(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Fresh random inputs that want gradients."""
        shapes = [*[(batch_size, *self.token_shape)] * self.num_inputs, *self.weight_shapes]
        return [torch.randn(shape, device=device, dtype=dtype).requires_grad_() for shape in shapes]


@dataclass(frozen=True)
class FramesCase(Case):
    """Frames as they come, uint8, to the patches of the first stage."""

    def inputs(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Random frames, mean and std of their colours, and nothing of the type that is wanted."""
        frames = torch.randint(0, 256, (batch_size, *self.token_shape), device=device, dtype=torch.uint8)
        colours = torch.tensor([[123.675, 116.28, 103.53], [58.395, 57.12, 57.375]], device=device)
        return [frames, colours, torch.empty(0, device=device, dtype=dtype)]


def cases(sizes: list[str], stages: list[int]) -> Iterator[Case]:
    """The operations of the asked stages, with the shapes that the presets give them."""
    for size in sizes:
        config = load_config(size, environ={}).config
        model, data = config.model, config.data
        plans = plan_stages(
            (data.clip.num_frames, data.crop_size, data.crop_size),
            patch_sizes=model.patch_sizes,
            window_size=model.window_size,
            fine_grid=model.fine_grid,
            coarse_grid=model.coarse_grid,
        )
        for stage in stages:
            plan, dim, heads = plans[stage], model.embed_dims[stage], model.num_heads[stage]
            arguments = {"window_size": plan.window_size, "num_heads": heads}
            yield Case(
                "window_attention", size, stage, (*plan.grid, 3 * dim), (),
                _with(window_attention, backend="triton", **arguments),
                _with(window_attention_reference, **arguments),
                2 * prod(plan.grid) * prod(plan.window_size) * dim,
            )  # fmt: skip
            yield Case(
                "depthwise_conv3d", size, stage, (*plan.grid, dim), ((dim, 1, 3, 3, 3), (dim,)),
                _with(depthwise_conv3d, backend="triton"), depthwise_conv3d_reference, 0,
            )  # fmt: skip
            yield Case(
                "add_layer_norm", size, stage, (*plan.grid, dim), ((dim,), (dim,)),
                _with(add_layer_norm, backend="triton"), _norm_reference, 0, num_inputs=2,
            )  # fmt: skip
            hidden = int(dim * model.mlp_ratio)
            yield Case(
                "bias_gelu", size, stage, (*plan.grid, hidden), ((hidden,),),
                _with(bias_gelu, backend="triton"), bias_gelu_reference, 0,
            )  # fmt: skip
            if plan.fine_kernel is not None:
                kernels = [plan.fine_kernel, *(plan.coarse_kernels or ())[:1]]
                weights = [shape for kernel in kernels for shape in ((dim, 1, *kernel), (dim,))]
                yield Case(
                    "pyramid_pool", size, stage, (*plan.grid, dim), tuple(weights),
                    _with(pyramid_pool, backend="triton"), _pool_reference, 0,
                )  # fmt: skip
            if stage == 0:
                yield FramesCase(
                    "frame_patches", size, stage, (data.clip.num_frames, data.crop_size, data.crop_size, 3), (),
                    _with(_patches, patch_size=model.patch_sizes[0]),
                    _with(_patches_reference, patch_size=model.patch_sizes[0]), 0, is_trained=False,
                )  # fmt: skip


def _with(function: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
    return lambda *inputs: function(*inputs, **arguments)


def _pool_reference(*inputs: Tensor) -> Any:
    return pyramid_pool_reference(*inputs, *[None] * (5 - len(inputs)))


def _norm_reference(*inputs: Tensor) -> Any:
    return add_layer_norm_reference(*inputs, None, 1e-5)


def _patches(frames: Tensor, colours: Tensor, wanted: Tensor, *, patch_size: Size3) -> Tensor:
    return frame_patches(frames, colours, patch_size, wanted.dtype, backend="triton")


def _patches_reference(frames: Tensor, colours: Tensor, wanted: Tensor, *, patch_size: Size3) -> Tensor:
    return frame_patches_reference(frames, colours, patch_size, wanted.dtype)


def run(function: Callable[..., Any], inputs: list[Tensor], grads: list[Tensor] | None) -> list[Tensor]:
    """Results, and with `grads` for them the gradients of all inputs."""
    with torch.set_grad_enabled(grads is not None):
        found = function(*inputs)
        results = [y for y in (found if isinstance(found, tuple) else (found,)) if y is not None]
        return results if grads is None else [*results, *torch.autograd.grad(results, inputs, grads)]


def gradients_for(case: Case, inputs: list[Tensor]) -> list[Tensor]:
    """Random gradients of the results."""
    return [torch.randn_like(result) for result in run(case.reference, inputs, None)]


def errors(
    case: Case, contenders: dict[str, Callable[..., Any]], device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """Largest relative error of each contender against float64, on one clip."""
    inputs = case.inputs(1, device, dtype)
    grads = gradients_for(case, inputs) if case.is_trained else None
    exact_inputs = [x.detach().double().requires_grad_() if x.dtype == dtype else x for x in inputs]
    exact = run(case.reference, exact_inputs, None if grads is None else [grad.double() for grad in grads])
    return {
        name: max(
            ((value.double() - right).abs().max() / right.abs().max()).item()
            for value, right in zip(run(contender, inputs, grads), exact, strict=True)
        )
        for name, contender in contenders.items()
    }


def _seconds_of(function: Callable[[], object], device: torch.device, cache: Tensor | None) -> float:
    """Time one run; on a GPU without the launch, after emptying its L2 cache."""
    if cache is None:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start
    cache.zero_()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000


def measure(
    case: Case,
    precision: str,
    batch_size: int,
    device: torch.device,
    *,
    rounds: int,
    compiled: bool,
    deadline: Deadline,
) -> Iterator[Row]:
    """Check, warm up, and time all contenders forward, and forward and backward ("training")."""
    head: Row = {
        "operation": case.operation, "size": case.size, "stage": case.stage, "precision": precision,
        "batch_size": batch_size,
    }  # fmt: skip
    if not deadline.seconds_left():
        yield {**head, "note": "skipped: no time left"}
        return
    try:
        yield from ({**head, **row} for row in _measure(case, precision, batch_size, device, rounds, compiled))
    except Exception as error:  # a long run goes on; the row says so, and what is no lack of memory fails the run
        yield {**head, "note": failure(error, device)}


def _measure(
    case: Case, precision: str, batch_size: int, device: torch.device, rounds: int, compiled: bool
) -> Iterator[Row]:
    torch.manual_seed(0)
    dtype = DTYPES[precision]
    contenders = {"kernel": case.kernel} if device.type == "cuda" else {}
    contenders["eager"] = case.reference
    if compiled:
        torch.compiler.reset()  # each shape is compiled for itself, not as one of many
        contenders["compiled"] = torch.compile(case.reference)
    found = errors(case, contenders, device, dtype)
    inputs = case.inputs(batch_size, device, dtype)
    cache = torch.empty(CACHE_BYTES, dtype=torch.int8, device=device) if device.type == "cuda" else None
    for direction in ("forward", "training")[: 1 + case.is_trained]:
        grads = None if direction == "forward" else gradients_for(case, inputs)
        runs = {name: _with_inputs(contender, inputs, grads) for name, contender in contenders.items()}
        peaks = {}
        for name, function in runs.items():
            function()  # warm up: compile, tune
            peaks[name] = peak_mib(function, device)
        timers = {
            name: lambda function=function: _seconds_of(function, device, cache) for name, function in runs.items()
        }
        seconds = paired_rounds(timers, rounds)
        results = run(case.reference, inputs, grads)
        moved = sum(tensor.nbytes for tensor in [*inputs, *(grads or []), *results])
        work = case.multiply_adds * batch_size * (1 if grads is None else 3.5)
        for name, times in seconds.items():
            row: Row = {"direction": direction, "contender": name, **timed(times), "peak_mib": peaks[name]}
            row["gigabytes_per_second"] = moved / row["median_ms"] / 1e6
            row["tera_multiply_adds_per_second"] = work / row["median_ms"] / 1e9 if work else None
            row["error"] = found[name]
            if name == "kernel" and found[name] > 2 * found["eager"]:
                row["note"] = "failed: over twice the error of PyTorch"
            yield row


def _with_inputs(
    function: Callable[..., Any], inputs: list[Tensor], grads: list[Tensor] | None
) -> Callable[[], list[Tensor]]:
    return lambda: run(function, inputs, grads)
