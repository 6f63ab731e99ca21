"""Runs `accuracy.py` with Triton's interpreter, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).with_name("accuracy.py")


@pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton")
@pytest.mark.parametrize(
    "where",
    [
        "interpreter",
        pytest.param("gpu", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")),
    ],
)
def test_kernels_are_as_exact_as_pytorch(where: str) -> None:
    environment = {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if where == "interpreter" else {}
    environment |= {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}  # or else deterministic algorithms warn
    options = ["-o", "addopts=--import-mode=importlib -q"]  # in one process: the others have tests of their own to do
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(FILE)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        cwd=FILE.parents[2],
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
