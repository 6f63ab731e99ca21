"""What a model costs: multiply-adds and parameters counted, latency measured."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from dualformer_cli.config.schema import RunConfig, RuntimeConfig, Size3
from dualformer_cli.documents.flops import Flops, Latency, ModuleCost
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.parallel.devices import dtype_of, pick_device, pick_precision

with warnings.catch_warnings():  # fvcore still uses torch.jit; that it is deprecated is no news for our users
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import get_shape

InputSize = tuple[int, int, int, int]
"""Channels, frames, height and width of one clip."""

HEADS = ("classifier", "token_head")
"""The modules that do not belong to the backbone."""

ROWS = re.compile(
    r"stages\.\d+(\.(patch_embed|position|blocks\.\d+(\.(attention|mlp))?))?|norm|motion_vote|classifier|token_head"
)
"""The modules that a table lists, each with everything inside it."""

Handle = Callable[[list[Any], list[Any]], int]
"""Multiply-adds of one traced call, from its inputs and outputs (torch._C.Value)."""


def _attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Count q k^T and scores v of any shape (..., l, d), as fvcore counts the two matmuls."""
    query, key, value = map(_shape, inputs[:3])
    return prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _window_attention(inputs: list[Any], outputs: list[Any]) -> int:
    """Count attention inside windows: arguments (qkv, window_size, ...), result (b, t, h, w, c)."""
    tokens_per_window = prod(int(size.toIValue()) for size in inputs[1].node().inputs())
    return 2 * prod(_shape(outputs[0])) * tokens_per_window


def _depthwise_conv3d(inputs: list[Any], outputs: list[Any]) -> int:
    """Count one kernel per result value: arguments (x, weight (c, 1, kt, kh, kw), ...), result (b, t, h, w, c)."""
    return prod(_shape(outputs[0])) * prod(_shape(inputs[1])[1:])


def _pyramid_pool(inputs: list[Any], outputs: list[Any]) -> int:
    """Count both levels: arguments (x, fine weight, bias, coarse weight, bias); no numbers are no coarse level."""
    levels = zip(outputs, (inputs[1], inputs[3]), strict=True)
    return sum(prod(_shape(level)) * prod(_shape(weight)[1:]) for level, weight in levels if prod(_shape(level)))


def _add_layer_norm(inputs: list[Any], outputs: list[Any]) -> int:
    """Count LayerNorm as fvcore does, 5 per value, and no addition: results are the sum and the normed tokens."""
    return 5 * prod(_shape(outputs[1]))


def _bias_gelu(inputs: list[Any], outputs: list[Any]) -> int:
    """Count nothing, as fvcore does for a bias and for GELU."""
    return 0


def _shape(tensor: Any) -> list[int]:
    return list(get_shape(tensor))


_ATTENTION_OPS = (
    "aten::scaled_dot_product_attention",
    "aten::_scaled_dot_product_attention_math",
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
)

KERNEL_HANDLES: dict[str, Handle] = {
    "dualformer::window_attention": _window_attention,
    "dualformer::depthwise_conv3d": _depthwise_conv3d,
    "dualformer::pyramid_pool": _pyramid_pool,
    "dualformer::add_layer_norm": _add_layer_norm,
    "dualformer::bias_gelu": _bias_gelu,
}
"""How to count our own operations. One without an entry here fails the count: it would silently add 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Complexity:
    """The cost of one view."""

    input_size: InputSize
    multiply_adds_per_view: int
    """Of the backbone, which is what the published table counts."""
    multiply_adds_with_classifier: int
    parameters_backbone: int
    parameters: int
    by_module: tuple[ModuleCost, ...]
    """Stages, their parts, and attention and MLP of every block, in the model's order."""


def describe(config: RunConfig, *, name: str, with_modules: bool = False, with_latency: bool = False) -> Flops:
    """Return what a model costs.

    Args:
        config: the model, its clips and test views, and for the latency the runtime.
        name: what to call the model.
        with_modules: add `by_module`.
        with_latency: add `latency`.

    Raises:
        DualFormerError: if the runtime's device is not on this machine.
    """
    if with_latency:
        pick_device(config.runtime.device)  # fail before the slow part
    with torch.device("meta"):
        model = build_model(config.model, config.data, kernels="torch")
    cost = count(model, (3, config.data.clip.num_frames, config.data.crop_size, config.data.crop_size))
    views = config.data.clips_of(config.data.test) * config.data.test.num_crops
    return Flops(
        model=name,
        num_classes=config.model.num_classes,
        input=cost.input_size,
        views=views,
        multiply_adds_per_view=cost.multiply_adds_per_view,
        multiply_adds_per_video=cost.multiply_adds_per_view * views,
        parameters_backbone=cost.parameters_backbone,
        parameters=cost.parameters,
        by_module=cost.by_module if with_modules else None,
        latency=_latency(config, cost.input_size) if with_latency else None,
    )


def _latency(config: RunConfig, input_size: InputSize) -> Latency:
    model = build_model(config.model, config.data, kernels=config.runtime.kernels)
    return measure_latency(model, input_size, config.runtime)


def count(model: nn.Module, input_size: InputSize) -> Complexity:
    """Count multiply-adds and parameters as fvcore does.

    One multiply-add of a convolution, linear layer or attention product is 1, LayerNorm is 5 and BatchNorm 2 per
    value, everything else 0: the convention behind the published 60.088 G (tiny), 158.687 G and 267.965 G. fvcore
    traces one forward pass on the model's device; on "meta" nothing is computed.

    Args:
        model: takes clips (b, 3, T, H, W).
        input_size: (3, T, H, W) of a clip.

    Raises:
        ValueError: if an operation of ours, or a Python function, is not in `KERNEL_HANDLES`.
    """
    multiply_adds = _multiply_adds_by_name(model, input_size)
    parameters = {name: sum(p.numel() for p in module.parameters()) for name, module in model.named_modules()}
    return Complexity(
        input_size=input_size,
        multiply_adds_per_view=_without_heads(multiply_adds),
        multiply_adds_with_classifier=multiply_adds[""],
        parameters_backbone=_without_heads(parameters),
        parameters=parameters[""],
        by_module=tuple(
            ModuleCost(module=name, multiply_adds=multiply_adds[name], parameters=parameters[name])
            for name in parameters
            if ROWS.fullmatch(name)
        ),
    )


def _multiply_adds_by_name(model: nn.Module, input_size: InputSize) -> dict[str, int]:
    """Multiply-adds of every module; "" is the whole model."""
    parameter = next(model.parameters())
    clips = torch.zeros(1, *input_size, device=parameter.device, dtype=parameter.dtype)
    analysis = FlopCountAnalysis(model, clips)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    analysis.set_op_handle(**dict.fromkeys(_ATTENTION_OPS, _attention), **KERNEL_HANDLES)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _TracedConvolutions():
            by_name = {name: int(value) for name, value in analysis.by_module().items()}
    finally:
        model.train(was_training)
    unknown = sorted(op for op in analysis.unsupported_ops() if op.startswith(("dualformer::", "prim::PythonOp")))
    if unknown:
        raise ValueError(f"no multiply-adds are known for {', '.join(unknown)}; add them to KERNEL_HANDLES")
    return by_name


class _TracedConvolutions(TorchFunctionMode):
    """Computes a convolution of meta tensors as a matrix product that has as many multiply-adds.

    Its own meta kernel fails on the sizes of a trace, and hides from the trace what it does.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.conv3d and args[0].is_meta:
            func = _convolution_as_product
        return func(*args, **(kwargs or {}))


def _convolution_as_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Size3 = (1, 1, 1),
    padding: Size3 = (0, 0, 0),
    groups: int = 1,
) -> Tensor:
    """Return a tensor of the size of the convolution's result: one value is one row times one column."""
    sides = zip(x.shape[2:], weight.shape[2:], padding, stride, strict=True)
    grid = ((int(side) + 2 * zeros - int(kernel)) // step + 1 for side, kernel, zeros, step in sides)
    size = (int(x.shape[0]), int(weight.shape[0]), *grid)
    rows = x.new_empty(prod(size), prod(map(int, weight.shape[1:])))
    return (rows @ rows.new_empty(rows.shape[1], 1)).view(size)


def _without_heads(by_name: Mapping[str, int]) -> int:
    return by_name[""] - sum(by_name.get(head, 0) for head in HEADS)


def measure_latency(
    model: nn.Module,
    input_size: InputSize,
    runtime: RuntimeConfig,
    *,
    batch_size: int = 1,
    measure_seconds: float = 5.0,
) -> Latency:
    """Time forward passes over random clips, after warming up.

    Args:
        model: takes clips (b, 3, T, H, W); it is moved to the runtime's device, precision and to evaluation mode.
        input_size: (3, T, H, W) of a clip.
        runtime: where and how to run.
        batch_size: clips in one forward pass.
        measure_seconds: repeat for so long, and at least 5 times.

    Raises:
        DualFormerError: if the device is not on this machine.
    """
    device = pick_device(runtime.device)
    precision = pick_precision(runtime.precision, device)
    model = model.to(device, dtype_of(precision)).eval()
    shape = (batch_size, *input_size[1:], input_size[0])  # in memory as the frames come, channels last
    clips = torch.randn(shape, device=device, dtype=dtype_of(precision)).permute(0, 4, 1, 2, 3)
    forward = torch.compile(model) if runtime.compile else model
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(3):
            _seconds_of_run(forward, clips)
        while len(seconds) < 5 or sum(seconds) < measure_seconds:
            seconds.append(_seconds_of_run(forward, clips))
    p20, median, p80 = torch.tensor(seconds).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
    return Latency(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        precision=precision,
        compiled=runtime.compile,
        num_threads=torch.get_num_threads(),
        batch_size=batch_size,
        num_runs=len(seconds),
        median_ms=1000 * median,
        p20_ms=1000 * p20,
        p80_ms=1000 * p80,
        clips_per_second=batch_size / median,
    )


def _seconds_of_run(forward: Callable[[Tensor], Tensor], clips: Tensor) -> float:
    start = time.perf_counter()
    forward(clips)
    if clips.is_cuda:
        torch.cuda.synchronize(clips.device)
    return time.perf_counter() - start
