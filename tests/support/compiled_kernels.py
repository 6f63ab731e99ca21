"""Our kernels as their own launch functions compile them, for NVIDIA cards that need not be here.

Tensors are on the device "meta": they have a shape and no memory. Triton gets a driver that names a card.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from dualformer_cli.kernels import add_layer_norm_kernel as norm
from dualformer_cli.kernels import bias_gelu_kernel as gelu
from dualformer_cli.kernels import depthwise_conv3d_kernel as conv
from dualformer_cli.kernels import frame_patches_kernel as patches
from dualformer_cli.kernels import pyramid_pool_kernel as pool
from dualformer_cli.kernels import window_attention_kernel as window
from dualformer_cli.kernels.window_attention import HEAD_WIDTHS

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

SHARED_KIB = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""Shared memory that a program can have, in KiB, by CUDA capability."""

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WINDOW = (8, 7, 7)


class Launch(NamedTuple):
    """One launch of a kernel."""

    kernel: str
    code: Any
    """What Triton compiled."""


class Usage(NamedTuple):
    """What a thread and a program of a compiled kernel take."""

    registers: int
    spilled_bytes: int
    shared_kib: float


class _Card:
    """As much of a driver as compiling asks for."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return self._capability  # compiled kernels are kept by the device's number

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling_for(capability: int) -> Iterator[list[Launch]]:
    """Compile what is launched for a card, instead of launching it; yields the launches so far."""
    launches: list[Launch] = []
    run = JITFunction.run

    def record(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
        code = run(kernel, *arguments, grid=grid, warmup=True, **options)
        launches.append(Launch(kernel.fn.__name__, code))

    before = driver._active  # reading driver.active would look for a card
    JITFunction.run = record
    driver.set_active(_Card(capability))
    try:
        yield launches
    finally:
        JITFunction.run = run
        driver._active = before


def usage(code: Any) -> Usage:
    """Return what a compiled kernel takes, as its machine code says."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code.asm["cubin"])
        file.flush()
        found = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack = (int(re.search(rf"{name}:(\d+)", found)[1]) for name in ("REG", "STACK"))  # type: ignore[index]
    return Usage(registers, stack, code.metadata.shared / 1024)


def empty(*shape: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor without memory."""
    return torch.empty(shape, dtype=dtype, device="meta")


def attend(width: int, dtype: torch.dtype, *, b: int = 2, num_heads: int = 2) -> None:
    """Launch window attention, forward and backward."""
    channels = num_heads * width
    qkv = empty(b, 16, 14, 14, 3 * channels, dtype=dtype)
    out = empty(b, 16, 14, 14, channels, dtype=dtype)
    logsumexp = empty(b, 8, num_heads, 392, dtype=torch.float32)
    window.forward(qkv, out, logsumexp, WINDOW, num_heads)
    window.backward(out, qkv, out, logsumexp, qkv, WINDOW, num_heads)


def position(channels: int, dtype: torch.dtype, *, b: int = 2) -> None:
    """Launch the position's convolution, forward and backward."""
    x, weight = empty(b, 16, 28, 28, channels, dtype=dtype), empty(channels, 1, 3, 3, 3, dtype=dtype)
    bias = empty(channels, dtype=dtype)
    conv.forward(x, weight, bias, x)
    conv.backward_input(x, weight, x)
    conv.backward_weight(x, x, weight, bias)


def pyramid(channels: int, dtype: torch.dtype, *, b: int = 2) -> None:
    """Launch the pyramid's pooling, forward and backward, with both levels and with the fine one alone."""
    x = empty(b, 16, 56, 56, channels, dtype=dtype)
    fine_weight, coarse_weight = (empty(channels, 1, *box, dtype=dtype) for box in ((2, 8, 8), (1, 7, 7)))
    fine, coarse = empty(b, 8, 7, 7, channels, dtype=dtype), empty(b, 16, 8, 8, channels, dtype=dtype)
    bias = empty(channels, dtype=dtype)
    pool.forward(x, fine_weight, bias, fine, coarse_weight, bias, coarse)
    pool.forward(x, fine_weight, bias, fine, None, None, empty(0, dtype=dtype))
    pool.backward_input(fine, fine_weight, coarse, coarse_weight, x)
    pool.backward_weight(fine, x, fine_weight, bias)
    pool.backward_weight(coarse, x, coarse_weight, bias)


def add_and_normalise(channels: int, dtype: torch.dtype, *, b: int = 2) -> None:
    """Launch LayerNorm of a sum: in one type, and forward and backward as autocast trains; and without a branch."""
    shape = (b, 16, 14, 14, channels)
    for stream, drops in dict.fromkeys(((dtype, False), (torch.float32, True))):
        x, branch = empty(*shape, dtype=stream), empty(*shape, dtype=dtype)
        weight, factors = empty(channels, dtype=stream), empty(b, dtype=torch.float32) if drops else None
        norm.forward(x, branch, weight, weight, factors, 1e-5, x, branch)
        norm.forward(x, None, weight, weight, None, 1e-5, x, branch)
        norm.backward(x, branch, x, weight, factors, 1e-5, x, branch, weight, weight)
        norm.backward(None, branch, x, weight, None, 1e-5, x, None, weight, weight)


def activate(channels: int, dtype: torch.dtype, *, b: int = 2) -> None:
    """Launch GELU with a bias, forward and backward, the bias in the type of the tokens and as autocast trains."""
    x = empty(b, 16, 14, 14, channels, dtype=dtype)
    for bias in (empty(channels, dtype=kind) for kind in dict.fromkeys((dtype, torch.float32))):
        gelu.forward(x, bias, x)
        gelu.backward(x, x, bias, x, bias)


def cut_frames(side: int, dtype: torch.dtype, *, b: int = 2) -> None:
    """Launch the normalisation of frames into patches of this side."""
    frames, colours = empty(b, 16, 96, 96, 3, dtype=torch.uint8), empty(2, 3, dtype=torch.float32)
    of_patch = 2 * side * side * 3
    patches.forward(frames, colours, empty(b, 8, 96 // side, 96 // side, of_patch, dtype=dtype), (2, side, side))


OPERATIONS: dict[str, tuple[Callable[..., None], tuple[int, ...]]] = {
    "window_attention": (attend, tuple(HEAD_WIDTHS)),
    "depthwise_conv3d": (position, (24, 32, 64, 96)),
    "pyramid_pool": (pyramid, (24, 32, 64, 96)),
    "add_layer_norm": (add_and_normalise, (64, 192, 1024)),
    "bias_gelu": (activate, (64, 256)),
    "frame_patches": (cut_frames, (4, 12)),
}
"""How to launch each operation, and the widths to try: channels of a head, or of a token."""
