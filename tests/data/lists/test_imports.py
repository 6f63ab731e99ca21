"""Reading lists loads neither decoders, nor torch, nor the renderer of the built-in dataset."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dualformer_cli.data import lists

MODULES = sorted(path.stem for path in Path(lists.__path__[0]).glob("*.py") if path.stem != "__init__")
HEAVY = ["av", "decord", "torchcodec", "torch", "PIL"]
RENDERER = [f"dualformer_cli.data.camera_motion.{name}" for name in ("files", "pictures", "rendering", "scenes")]


@pytest.mark.parametrize("module", MODULES)
def test_reading_lists_loads_no_decoder_no_torch_and_no_renderer(module: str) -> None:
    script = f"import sys, dualformer_cli.data.lists.{module}; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert f"dualformer_cli.data.lists.{module}" in loaded
    assert {*HEAVY, *RENDERER}.isdisjoint(loaded)
