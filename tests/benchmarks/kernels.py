"""Check and time the kernels at the shapes of the model's stages, beside their PyTorch references.

    PYTHONPATH=. python tests/benchmarks/kernels.py --json kernels.json                     # on a GPU
    PYTHONPATH=. python tests/benchmarks/kernels.py --size tiny --stages 3 --precision fp32 # on a CPU: no kernels there

Contenders are the Triton kernel (on a GPU), the reference run eagerly, and torch.compile of the reference. Before any
timing, the largest error of each against float64 is taken, on one clip, over results and gradients; a kernel whose
error is over twice the reference's ends the run with exit code 1 after the table. Each round runs all contenders once,
in alternating order, on the same fresh random inputs, with the L2 cache emptied before each on a GPU. Rates count the
least work: every input and result moved once, and for attention the products of the forward pass (2.5 times as many
in the backward pass).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import torch
from model import DTYPES, machine, quantiles
from torch import Tensor

from dualformer_cli.config.load import load_config
from dualformer_cli.kernels.depthwise_conv3d import depthwise_conv3d, depthwise_conv3d_reference
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

    def inputs(self, batch_size: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        """Fresh random inputs that want gradients."""
        shapes = [(batch_size, *self.token_shape), *self.weight_shapes]
        return [torch.randn(shape, device=device, dtype=dtype).requires_grad_() for shape in shapes]


@dataclass(frozen=True)
class Row:
    """One line of the table; with `failure`, the numbers are None."""

    operation: str
    size: str
    stage: int
    batch_size: int
    precision: str
    direction: str
    contender: str
    median_ms: float | None = None
    p20_ms: float | None = None
    p80_ms: float | None = None
    gigabytes_per_second: float | None = None
    tera_multiply_adds_per_second: float | None = None
    peak_mib: float | None = None
    """Memory of one run above what was held before it; None on a CPU."""
    error: float | None = None
    """Largest error over results (and gradients), each over the largest magnitude of the exact one."""
    failure: str | None = None


def cases(sizes: list[str], stages: list[int], operations: list[str]) -> Iterator[Case]:
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
            if "window_attention" in operations:
                arguments = {"window_size": plan.window_size, "num_heads": heads}
                yield Case(
                    "window_attention", size, stage, (*plan.grid, 3 * dim), (),
                    _with(window_attention, backend="triton", **arguments),
                    _with(window_attention_reference, **arguments),
                    2 * prod(plan.grid) * prod(plan.window_size) * dim,
                )  # fmt: skip
            if "depthwise_conv3d" in operations:
                yield Case(
                    "depthwise_conv3d", size, stage, (*plan.grid, dim), ((dim, 1, 3, 3, 3), (dim,)),
                    _with(depthwise_conv3d, backend="triton"), depthwise_conv3d_reference, 0,
                )  # fmt: skip
            if "pyramid_pool" in operations and plan.fine_kernel is not None:
                kernels = [plan.fine_kernel, *(plan.coarse_kernels or ())[:1]]
                weights = [shape for kernel in kernels for shape in ((dim, 1, *kernel), (dim,))]
                yield Case(
                    "pyramid_pool", size, stage, (*plan.grid, dim), tuple(weights),
                    _with(pyramid_pool, backend="triton"), _pool_reference, 0,
                )  # fmt: skip


def _with(function: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
    return lambda *inputs: function(*inputs, **arguments)


def _pool_reference(*inputs: Tensor) -> Any:
    return pyramid_pool_reference(*inputs, *[None] * (5 - len(inputs)))


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
    grads = gradients_for(case, inputs)
    exact_inputs = [x.detach().double().requires_grad_() for x in inputs]
    exact = run(case.reference, exact_inputs, [grad.double() for grad in grads])
    return {
        name: max(
            ((value.double() - right).abs().max() / right.abs().max()).item()
            for value, right in zip(run(contender, inputs, grads), exact, strict=True)
        )
        for name, contender in contenders.items()
    }


def seconds_of(function: Callable[[], object], device: torch.device, cache: Tensor | None) -> float:
    """Time one run."""
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


def peak_mib(function: Callable[[], object], device: torch.device) -> float | None:
    """Memory of one run above what is held before."""
    if device.type != "cuda":
        return None
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    function()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def measure(
    case: Case, batch_size: int, precision: str, device: torch.device, *, rounds: int, compiled: bool
) -> Iterator[Row]:
    """Check, warm up, and time all contenders forward, and forward and backward."""
    dtype = DTYPES[precision]
    contenders = {"kernel": case.kernel} if device.type == "cuda" else {}
    contenders["eager"] = case.reference
    if compiled:
        contenders["compiled"] = torch.compile(case.reference)
    found = errors(case, contenders, device, dtype)
    inputs = case.inputs(batch_size, device, dtype)
    cache = torch.empty(CACHE_BYTES, dtype=torch.int8, device=device) if device.type == "cuda" else None
    for direction in ("forward", "training"):
        grads = None if direction == "forward" else gradients_for(case, inputs)
        runs = {name: _with_inputs(contender, inputs, grads) for name, contender in contenders.items()}
        peaks = {}
        for name, function in runs.items():
            function()  # warm up: compile, tune
            peaks[name] = peak_mib(function, device)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for index in range(rounds):
            for name in list(runs) if index % 2 == 0 else reversed(list(runs)):
                seconds[name].append(seconds_of(runs[name], device, cache))
        results = run(case.reference, inputs, grads)
        moved = sum(tensor.nbytes for tensor in [*inputs, *(grads or []), *results])
        work = case.multiply_adds * batch_size * (1 if grads is None else 3.5)
        for name, times in seconds.items():
            p20, median, p80 = quantiles(times)
            yield Row(
                case.operation, case.size, case.stage, batch_size, precision, direction, name,
                median_ms=1000 * median, p20_ms=1000 * p20, p80_ms=1000 * p80,
                gigabytes_per_second=moved / median / 1e9,
                tera_multiply_adds_per_second=work / median / 1e12 if work else None,
                peak_mib=peaks[name], error=found[name],
            )  # fmt: skip


def _with_inputs(
    function: Callable[..., Any], inputs: list[Tensor], grads: list[Tensor] | None
) -> Callable[[], list[Tensor]]:
    return lambda: run(function, inputs, grads)


def measured_or_failed(case: Case, batch_size: int, precision: str, device: torch.device, **options: Any) -> list[Row]:
    """The rows of a setting; one that says why where the card's memory is too small or something fails."""
    try:
        return list(measure(case, batch_size, precision, device, **options))
    except Exception as error:  # a long run goes on; the row says so and the exit code is 1
        reason = "out of memory" if isinstance(error, torch.OutOfMemoryError) else f"{type(error).__name__}: {error}"
        failure = reason.splitlines()[0]
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return [Row(case.operation, case.size, case.stage, batch_size, precision, "-", "-", failure=failure)]


COLUMNS = "{:17} {:5} {:>5} {:>5} {:4} {:8} {:8} {:>24} {:>8} {:>8} {:>8} {:>8}"


def print_row(row: Row) -> None:
    """Print a line of the table."""
    head = (row.operation, row.size, row.stage, row.batch_size, row.precision, row.direction, row.contender)
    numbers = [row.failure or "", "", "", "", ""]
    if row.median_ms is not None:
        numbers = [
            f"{row.median_ms:.3f} ({row.p20_ms:.3f}-{row.p80_ms:.3f})",
            f"{row.gigabytes_per_second:.1f}",
            "" if row.tera_multiply_adds_per_second is None else f"{row.tera_multiply_adds_per_second:.2f}",
            "" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
            f"{row.error:.1e}",
        ]
    print(COLUMNS.format(*head, *numbers).rstrip(), flush=True)


def too_inexact(rows: list[Row]) -> list[Row]:
    """Rows of kernels whose error is over twice the reference's."""
    library = {(*_setting(row),): row.error for row in rows if row.contender == "eager"}
    return [row for row in rows if row.contender == "kernel" and row.error > 2 * library[_setting(row)]]


def _setting(row: Row) -> tuple[object, ...]:
    return row.operation, row.size, row.stage, row.batch_size, row.precision, row.direction


def main() -> int:
    """Measure every asked combination, print a table, write the numbers."""
    gpu = torch.cuda.is_available()
    operations = ["window_attention", "depthwise_conv3d", "pyramid_pool"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=["tiny", "small", "base"], default=["tiny", "small", "base"])
    parser.add_argument("--stages", nargs="+", type=int, choices=range(4), default=[0, 1, 2, 3] if gpu else [2, 3])
    parser.add_argument("--operation", nargs="+", choices=operations, default=operations)
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=list(DTYPES) if gpu else ["fp32", "bf16"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1, 8, 32] if gpu else [1])
    parser.add_argument("--rounds", type=int, default=20 if gpu else 5)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    facts = machine(device)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(
        COLUMNS.format(
            "operation", "size", "stage", "batch", "prec", "", "", "ms (p20-p80)", "GB/s", "TMAC/s", "peak MiB", "error"
        )
    )
    rows: list[Row] = []
    for case in cases(arguments.size, arguments.stages, arguments.operation):
        for precision, batch_size in product(arguments.precision, arguments.batch_size):
            torch.manual_seed(0)
            torch.compiler.reset()  # each shape is compiled for itself, not as one of many
            new = measured_or_failed(
                case, batch_size, precision, device, rounds=arguments.rounds, compiled=not arguments.no_compile
            )
            for row in new:
                print_row(row)
            rows += new
            if arguments.json:  # what is measured survives a run that is cut off
                document = {"machine": facts, "rows": [asdict(row) for row in rows]}
                arguments.json.write_text(json.dumps(document, indent=2), encoding="utf-8")
    inexact = too_inexact(rows)
    for row in inexact:
        print(f"too inexact: {' '.join(map(str, _setting(row)))}", file=sys.stderr)
    failed = [row for row in rows if row.failure not in (None, "out of memory")]
    return 1 if inexact or failed else 0


if __name__ == "__main__":
    sys.exit(main())
