"""Time our model against the published architecture run eagerly: same process, weights, clips; paired runs.

    PYTHONPATH=. python tests/benchmarks/model.py --size tiny base --precision fp32 bf16 --json model.json
    PYTHONPATH=. python tests/benchmarks/model.py --training --size base --precision bf16 --rounds 3

Before any timing, our logits must be close to the baseline's. Each round runs every contender once, in alternating
order, so that a machine's slow minutes hit all of them; a speed-up is the median over rounds of the paired ratio.
In 16 bits the baseline runs under autocast, as the published mixed-precision runs did, and once more in float32, which
is what it does on a CPU unless told; ours runs with cast weights, as `dualformer predict --precision bf16` does.

With --training a run is one forward and backward pass under autocast, also of ours with gradient checkpointing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from published_baseline import SIZES, pattern_baseline
from torch import Tensor, nn

from dualformer_cli import create_model, load_weights

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
FP32_TOLERANCE = 1e-4
"""Largest difference of float32 logits, over the largest logit."""


@dataclass(frozen=True)
class Contender:
    """One way to run one model."""

    name: str
    model: nn.Module
    dtype: torch.dtype = torch.float32
    """Of the clips."""
    autocast_dtype: torch.dtype | None = None
    training: bool = False
    """Whether a call also computes the gradients."""

    def __call__(self, clips: Tensor) -> Tensor:
        autocast: AbstractContextManager[object] = nullcontext()
        if self.autocast_dtype is not None:
            autocast = torch.autocast(clips.device.type, self.autocast_dtype)
        if self.training:
            return self._forward_backward(clips, autocast)
        with torch.inference_mode(), autocast:
            logits: Tensor = self.model(clips.to(self.dtype))
        return logits.float()

    def _forward_backward(self, clips: Tensor, autocast: AbstractContextManager[object]) -> Tensor:
        with autocast:
            logits: Tensor = self.model(clips)
        torch.nn.functional.cross_entropy(logits.float(), torch.arange(len(clips), device=clips.device)).backward()
        self.model.zero_grad(set_to_none=True)
        return logits.detach().float()


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    size: str
    precision: str
    batch_size: int
    contender: str
    median_ms: float
    p20_ms: float
    p80_ms: float
    clips_per_second: float
    speedup: float
    """Median over rounds of the time of the baseline, in this precision, over this contender's."""
    speedup_p20: float
    speedup_p80: float
    speedup_over_fp32: float
    """The same over the baseline in float32."""
    peak_mib: float | None
    """Memory of one forward pass above what was held before it; None where the system does not tell."""
    difference: float | None
    """Largest difference of logits from the float32 baseline's, over their largest; None for random training passes."""


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """Return the 20th, 50th and 80th percentiles."""
    p20, median, p80 = torch.tensor(values).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
    return p20, median, p80


def build_contenders(size: str, precision: str, device: torch.device, *, compiled: bool) -> list[Contender]:
    """Build everything to time: the baseline first, the float32 baseline last."""
    dtype = DTYPES[precision]
    baseline = pattern_baseline(size).to(device)
    ours = create_model(size)
    load_weights(ours, baseline.state_dict())
    ours = ours.to(device, dtype).eval()
    autocast_dtype = None if precision == "fp32" else dtype
    contenders = [
        Contender("published", baseline, autocast_dtype=autocast_dtype),
        Contender("ours", ours, dtype=dtype),
    ]
    if compiled:
        contenders += [
            Contender("published, compiled", torch.compile(baseline), autocast_dtype=autocast_dtype),
            Contender("ours, compiled", torch.compile(ours), dtype=dtype),
        ]
    return [*contenders, Contender("published, fp32", baseline)] if precision != "fp32" else contenders


def build_training(size: str, precision: str, device: torch.device) -> list[Contender]:
    """Build what trains: the baseline, ours, and ours with gradient checkpointing."""
    autocast_dtype = None if precision == "fp32" else DTYPES[precision]
    baseline = pattern_baseline(size).to(device).train()
    ours, checkpointed = create_model(size).to(device).train(), create_model(size).to(device).train()
    checkpointed.set_gradient_checkpointing(True)
    named = {"published": baseline, "ours": ours, "ours, checkpointed": checkpointed}
    return [Contender(name, model, autocast_dtype=autocast_dtype, training=True) for name, model in named.items()]


def check(contenders: list[Contender], clips: Tensor, precision: str) -> dict[str, float]:
    """Return each contender's difference from the float32 baseline; stop if one is not the same model.

    In 16 bits a difference may be at most twice the baseline's own.
    """
    exact = Contender("exact", contenders[0].model)(clips)
    differences = {c.name: float((c(clips) - exact).abs().max() / exact.abs().max()) for c in contenders}
    bound = FP32_TOLERANCE if precision == "fp32" else 2 * differences["published"]
    for name, difference in differences.items():
        if not difference <= bound:
            sys.exit(
                f"{name} differs from the published model by {difference:.2g} of the largest logit, over {bound:.2g}"
            )
    return differences


def seconds_of(contender: Contender, clips: Tensor) -> float:
    """Time one forward pass."""
    start = time.perf_counter()
    contender(clips)
    if clips.is_cuda:
        torch.cuda.synchronize(clips.device)
    return time.perf_counter() - start


def peak_mib(contender: Contender, clips: Tensor) -> float | None:
    """Measure the memory of one forward pass above what is held before: the GPU's, or the process's resident set."""
    if clips.is_cuda:
        before = torch.cuda.memory_allocated(clips.device)
        torch.cuda.reset_peak_memory_stats(clips.device)
        contender(clips)
        return (torch.cuda.max_memory_allocated(clips.device) - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # memory that earlier runs freed but the C library kept would hide the peak
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present resident set
    before = memory_status("VmRSS")
    contender(clips)
    return (memory_status("VmHWM") - before) / 1024


def memory_status(field: str) -> int:
    """Return a field of this process's memory in KiB."""
    match = re.search(rf"^{field}:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def measure(
    size: str, precision: str, batch_size: int, device: torch.device, *, rounds: int, compiled: bool, training: bool
) -> Iterator[Row]:
    """Check, warm up, and time all contenders of one setting."""
    clips = torch.randn(batch_size, 3, 32, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)
    differences: dict[str, float] = {}
    if training:
        contenders = build_training(size, precision, device)
        for contender in contenders:
            contender(clips)
    else:
        contenders = build_contenders(size, precision, device, compiled=compiled)
        differences = check(contenders, clips, precision)
    peaks = {contender.name: peak_mib(contender, clips) for contender in contenders}
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for index in range(rounds):
        for contender in contenders if index % 2 == 0 else reversed(contenders):
            seconds[contender.name].append(seconds_of(contender, clips))
    for name, own in seconds.items():
        p20, median, p80 = quantiles(own)
        low, speedup, high = quantiles([theirs / mine for theirs, mine in zip(seconds["published"], own, strict=True)])
        in_fp32 = seconds.get("published, fp32", seconds["published"])
        yield Row(
            size=size,
            precision=precision,
            batch_size=batch_size,
            contender=name,
            median_ms=1000 * median,
            p20_ms=1000 * p20,
            p80_ms=1000 * p80,
            clips_per_second=batch_size / median,
            speedup=speedup,
            speedup_p20=low,
            speedup_p80=high,
            speedup_over_fp32=quantiles([theirs / mine for theirs, mine in zip(in_fp32, own, strict=True)])[1],
            peak_mib=peaks[name],
            difference=differences.get(name),
        )


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the numbers depend on."""
    facts: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        import triton

        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "cuda": torch.version.cuda, "triton": triton.__version__}
    return facts


def cpu_name() -> str:
    """Return the processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return match[1] if match else platform.processor()


COLUMNS = "{:5} {:4} {:>5}  {:20} {:>24}  {:>18} {:>9} {:>8} {:>8}"


def print_row(row: Row) -> None:
    """Print one line of the table."""
    print(
        COLUMNS.format(
            row.size,
            row.precision,
            row.batch_size,
            row.contender,
            f"{row.median_ms:.1f} ({row.p20_ms:.1f}-{row.p80_ms:.1f})",
            f"{row.speedup:.2f} ({row.speedup_p20:.2f}-{row.speedup_p80:.2f})",
            f"{row.speedup_over_fp32:.2f}",
            "-" if row.peak_mib is None else f"{row.peak_mib:,.0f}",
            "-" if row.difference is None else f"{row.difference:.1e}",
        ),
        flush=True,
    )


def main() -> None:
    """Measure every asked combination, print a table, write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=["tiny", "small", "base"])
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=["fp32", "bf16"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="also time both models under torch.compile")
    parser.add_argument("--training", action="store_true", help="forward and backward in place of forward alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    facts = machine(device)
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    print(
        COLUMNS.format(
            "size", "prec", "batch", "", "ms (p20-p80)", "speed-up (p20-p80)", "over fp32", "peak MiB", "diff"
        )
    )
    rows = []
    for size, precision, batch_size in product(arguments.size, arguments.precision, arguments.batch_size):
        for row in measure(
            size,
            precision,
            batch_size,
            device,
            rounds=arguments.rounds,
            compiled=arguments.compile,
            training=arguments.training,
        ):
            rows.append(asdict(row))
            print_row(row)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": facts, "rows": rows}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
