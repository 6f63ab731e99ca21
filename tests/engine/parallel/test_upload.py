"""Numbers arrive on the device as they were."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dualformer_cli.engine.parallel.upload import upload

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


def test_on_a_cpu_nothing_is_copied() -> None:
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    uploaded = upload(values, torch.device("cpu"))
    assert uploaded.data_ptr() == values.ctypes.data
    assert (uploaded.dtype, tuple(uploaded.shape)) == (torch.uint8, (3, 4))
    tensor = torch.ones(2)
    assert upload(tensor, torch.device("cpu")) is tensor


@needs_cuda
def test_on_a_gpu_every_copy_is_complete_before_it_is_used_and_kept_while_it_is() -> None:
    device, rng = torch.device("cuda", 0), np.random.default_rng(0)
    arrays = [rng.integers(0, 256, 2**24, dtype=np.uint8) for _ in range(8)]
    busy = torch.randn(2048, 2048, device=device)
    sums = []
    for array in arrays:
        for _ in range(20):
            busy = (busy @ busy).clamp(-1, 1)  # so that copies overtake what is computed
        sums.append(upload(array, device).long().sum())
    assert [int(value) for value in sums] == [int(array.sum()) for array in arrays]


@needs_cuda
def test_on_a_gpu_page_locked_arrays_are_copied_as_they_are() -> None:
    pinned = torch.arange(1000, dtype=torch.int64, pin_memory=True)
    assert torch.from_numpy(pinned.numpy()).is_pinned()
    assert upload(pinned.numpy(), torch.device("cuda", 0)).tolist() == list(range(1000))
