"""What the parts of speed.py share: paired rounds, peak memory, time limits, the machine, tables."""

from __future__ import annotations

import ctypes
import math
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Row = dict[str, Any]
"""One line of a table, as it goes to the JSON file; `note` says why numbers are missing."""


class Deadline:
    """The end of a part's share of the time; without one, there is always time.

    Args:
        seconds: from now on.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.perf_counter() + seconds

    def seconds_left(self) -> float:
        """Seconds to the end, 0 after it."""
        return max(0.0, self._end - time.perf_counter())

    def rounds(self, wanted: int, seconds_per_round: float) -> int:
        """How many rounds can be run, besides one that warms up; 0 when not even one."""
        left = self.seconds_left()
        return wanted if math.isinf(left) else max(0, min(wanted, int(left / max(seconds_per_round, 1e-9)) - 1))


def share_of(part: str, shares: Mapping[str, int], parts: Sequence[str], seconds_left: float) -> Deadline:
    """The deadline of a part: its share among those still to come, so that time saved goes to the later ones."""
    coming = parts[parts.index(part) :]
    return Deadline(seconds_left * shares[part] / sum(shares[name] for name in coming))


def quantiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the 20th, 50th and 80th percentiles."""
    p20, median, p80 = torch.tensor(values).quantile(torch.tensor([0.2, 0.5, 0.8])).tolist()
    return p20, median, p80


def paired_rounds(runs: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run every contender once a round, in alternating order, so that slow minutes of the machine hit all of them.

    Args:
        runs: each runs once and returns its seconds.
        rounds: how often.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds):
        for name in list(runs) if index % 2 == 0 else reversed(list(runs)):
            seconds[name].append(runs[name]())
    return seconds


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Time one run, from an idle device to an idle device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Speedup:
    """Median over rounds of the paired ratio of times, and its 20th and 80th percentiles."""

    median: float
    p20: float
    p80: float


def speedup(theirs: Sequence[float], own: Sequence[float]) -> Speedup:
    """How many times as fast as theirs the own run is."""
    p20, median, p80 = quantiles([slow / fast for slow, fast in zip(theirs, own, strict=True)])
    return Speedup(median, p20, p80)


def peak_mib(function: Callable[[], object], device: torch.device) -> float | None:
    """Memory of one run above what is held before: the GPU's, or the process's resident set; None if unknown."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)  # memory that earlier runs freed but the C library kept would hide the peak
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present resident set
    before = _kib("/proc/self/status", "VmRSS")
    function()
    return (_kib("/proc/self/status", "VmHWM") - before) / 1024


def free_mib() -> float:
    """Memory that this machine can still give to a process; infinite where it does not tell."""
    return _kib("/proc/meminfo", "MemAvailable") / 1024 if Path("/proc/meminfo").exists() else math.inf


def _kib(file: str, field: str) -> int:
    match = re.search(rf"^{field}:\s*(\d+) kB", Path(file).read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1])


def lacks_memory(mib_per_clip: float | None, batch_size: int, device: torch.device) -> str | None:
    """Why a batch will not be tried on a CPU, where it would end the process; a GPU says so by itself."""
    if device.type == "cuda" or mib_per_clip is None or batch_size == 1:
        return None
    needed, free = mib_per_clip * batch_size, free_mib()
    return f"skipped: needs about {needed:,.0f} MiB, {free:,.0f} are free" if needed > 0.8 * free else None


def failure(error: Exception, device: torch.device) -> str:
    """What the table says of a setting that did not run to its end; a GPU's memory is free for the next one."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    if isinstance(error, torch.OutOfMemoryError):
        return "skipped: out of memory"
    return f"failed: {type(error).__name__}: {error}".splitlines()[0].replace("|", "/")


def random_clips(batch_size: int, device: torch.device) -> Tensor:
    """Clips (b, 3, 32, 224, 224) of noise, always the same."""
    return torch.randn(batch_size, 3, 32, 224, 224, generator=torch.Generator().manual_seed(0)).to(device)


def machine(device: torch.device) -> dict[str, Any]:
    """Describe what the numbers depend on."""
    import torchvision

    facts: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        import triton

        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "cuda": torch.version.cuda, "triton": triton.__version__}
    return facts


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*: (.*)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return match[1] if match else platform.processor()


class Table:
    """A Markdown table that is printed row by row.

    Args:
        title: printed above it.
        columns: head of each column, and what of a row stands in it.
    """

    def __init__(self, title: str, columns: Mapping[str, Callable[[Row], str]]) -> None:
        self._columns = columns
        print(f"\n### {title}\n\n{_line(columns)}\n{_line('---' for _ in columns)}", flush=True)

    def add(self, row: Row) -> None:
        """Print a row; cells whose numbers are missing stay empty."""
        print(_line(_cell(row, cell) for cell in self._columns.values()), flush=True)


def _cell(row: Row, cell: Callable[[Row], str]) -> str:
    try:
        return cell(row)
    except (KeyError, TypeError):  # a number that this row has not, or None in its place
        return ""


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def milliseconds(row: Row) -> str:
    """Median and percentiles of the time."""
    digits = 3 if row["median_ms"] < 10 else 1
    return f"{row['median_ms']:,.{digits}f} ({row['p20_ms']:,.{digits}f}-{row['p80_ms']:,.{digits}f})"


def timed(seconds: Sequence[float]) -> Row:
    """The numbers of a row that tell the time."""
    p20, median, p80 = quantiles(seconds)
    return {"rounds": len(seconds), "median_ms": 1000 * median, "p20_ms": 1000 * p20, "p80_ms": 1000 * p80}
