"""Where a process computes and in which precision."""

from __future__ import annotations

import ctypes
import sys

import torch

from dualformer_cli.engine.parallel.placement import Placement
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system import memory
from dualformer_cli.system.words import counted

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Turn auto or the name of a device into one that this machine has; auto takes a CUDA GPU when there is one.

    Raises:
        DualFormerError: if there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = counted(count, "CUDA device") if count else "no CUDA device"
            raise DualFormerError(f"device {name!r} is not here: this machine has {found}; use --device auto or cpu")
        device = torch.device("cuda", device.index or 0)
    elif device.type in ("mps", "xpu") and not getattr(torch, device.type).is_available():
        maker = "Apple" if device.type == "mps" else "Intel"
        raise DualFormerError(f"device {name!r} is not here: torch finds no GPU of {maker}; use --device auto or cpu")
    return device


def widest(device: torch.device) -> torch.dtype:
    """Return the widest floating-point type of a device; GPUs of Apple have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def pick_precision(name: str, device: torch.device, *, bf16_on_cpu: bool = False) -> str:
    """Turn auto into bf16 on GPUs that have it and fp32 elsewhere; other names come back unchanged.

    cuDNN's convolutions stop taking TF32 for fp32 in this process, as PyTorch's products of matrices do not either.

    Args:
        name: auto, fp32, bf16 or fp16.
        device: where the model runs.
        bf16_on_cpu: take auto for bf16 on a processor that has instructions for it, too.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and bf16_on_cpu and multiplies_bf16() else "fp32"


def multiplies_bf16() -> bool:
    """Return whether this processor multiplies matrices faster in bfloat16 than in float32: AVX-512 BF16, or AMX."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def dtype_of(precision: str) -> torch.dtype:
    """Return the floating-point type of fp32, bf16 or fp16."""
    return _DTYPES[precision]


def widened(x: torch.Tensor) -> torch.Tensor:
    """Return x in float32 at least, where sums are taken."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def keep_freed_memory() -> None:
    """Have the C library keep what activations leave for the next ones, up to 128 MiB (Linux; nothing elsewhere).

    It gives blocks of that size back to the system at once, and gets them again as pages that are found and cleared one
    by one: a tenth of the time of the built-in model's pass over a video, 3,300 pages.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 2**25)
        mallopt(m_trim_threshold, 2**27)


def peak_memory_mib(device: torch.device) -> float:
    """Return the peak memory of a GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return memory.peak_memory_mib()


def device_of(placement: Placement, name: str) -> torch.device:
    """Return the device of this process: among others, the GPU with its local rank.

    Raises:
        DualFormerError: if there are not enough GPUs, or several processes were given one by its number.
    """
    if placement.world_size == 1 or name == "cpu" or not torch.cuda.is_available():
        return pick_device(name)
    if name not in ("auto", "cuda"):
        if placement.local_world_size > 1:
            raise DualFormerError(
                f"device {name!r} is one GPU for {placement.local_world_size} processes on this machine; "
                "use --device cuda, and each takes its own"
            )
        return pick_device(name)
    count = torch.cuda.device_count()
    if placement.is_srun and count == 1:  # --gpus-per-task hides the other tasks' GPUs
        return torch.device("cuda", 0)
    if placement.local_rank >= count:
        raise DualFormerError(
            f"{max(placement.local_world_size, placement.local_rank + 1)} processes on this machine need a GPU each, "
            f"it has {count}; start {count}, or use --device cpu"
        )
    return torch.device("cuda", placement.local_rank)
