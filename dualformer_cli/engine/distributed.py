"""Where a process computes: its device and its precision."""

from __future__ import annotations

import torch

from dualformer_cli.errors import DualFormerError

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """Turn auto, cpu, cuda or cuda:INDEX into a device that this machine has; auto takes a GPU when there is one.

    Raises:
        DualFormerError: if there is no such GPU.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            found = f"{count} CUDA device{'s' if count != 1 else ''}" if count else "no CUDA device"
            raise DualFormerError(f"device {name!r} is not here: this machine has {found}; use --device auto or cpu")
        device = torch.device("cuda", device.index or 0)
    return device


def pick_precision(name: str, device: torch.device) -> str:
    """Turn auto into bf16 on GPUs that have it and fp32 elsewhere; other names come back unchanged."""
    if name != "auto":
        return name
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def dtype_of(precision: str) -> torch.dtype:
    """The floating-point type of fp32, bf16 or fp16."""
    return _DTYPES[precision]
