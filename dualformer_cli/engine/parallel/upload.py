"""Arrays go to the device that computes: on CUDA from page-locked memory, while it computes something else."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def upload(values: npt.NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Bring numbers in this computer's memory to a device.

    Args:
        values: any shape and type; in page-locked memory they are copied once less.
        device: where they are needed.

    Returns:
        The same shape and type, usable at once: on a CPU it is the memory of `values`; on CUDA the copy runs on a
        stream of its own beside what was launched before, and what is launched from now on waits for it.
    """
    tensor = torch.as_tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    computing, copying = torch.cuda.current_stream(device), _copy_stream(device)
    with torch.cuda.stream(copying):  # the copy alone: it must not wait for what is computed
        uploaded = tensor.pin_memory().to(device, non_blocking=True)
    computing.wait_stream(copying)
    uploaded.record_stream(computing)  # or its memory could be taken for the next copy while it is still read
    return uploaded


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
