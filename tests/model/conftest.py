"""Models with the golden files' weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from published_layout import to_published

from dualformer_cli import load_weights
from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model
from dualformer_cli.model.dualformer import DualFormer


@pytest.fixture(scope="session")
def golden_state_dict(pattern: Callable[..., np.ndarray]) -> Callable[[DualFormer], dict[str, torch.Tensor]]:
    """The published-layout float64 weights that golden_model.json was made with, for any model."""

    def tensor(key: str, shape: tuple[int, ...]) -> torch.Tensor:
        if key.endswith("num_batches_tracked"):
            return torch.tensor(0)
        p = torch.from_numpy(pattern(key, shape))
        if key.endswith("running_var"):
            return 1 + 0.5 * p
        if key.endswith("running_mean"):
            return 0.1 * p
        if key.endswith("bias"):
            return 0.05 * p
        if len(shape) == 1:
            return 1 + 0.1 * p
        return p * (3 / (p.numel() / shape[0])) ** 0.5

    def state_dict(model: DualFormer) -> dict[str, torch.Tensor]:
        return {key: tensor(key, tuple(value.shape)) for key, value in to_published(model.state_dict()).items()}

    return state_dict


@pytest.fixture
def golden_model(golden_state_dict: Any) -> Callable[..., DualFormer]:
    """The function golden_model(size, num_classes, dtype, num_frames=32) -> that model with the golden weights."""

    def make(size: str, num_classes: int, dtype: torch.dtype = torch.float32, *, num_frames: int = 32) -> DualFormer:
        overrides = [f"model.num_classes={num_classes}", "data.classes=null", f"data.clip.num_frames={num_frames}"]
        config = load_config(size, overrides=overrides, environ={}).config
        with torch.device("meta"):  # no time for initial values
            model = build_model(config.model, config.data)
        model.to_empty(device="cpu").to(dtype).eval()
        load_weights(model, golden_state_dict(model))
        return model

    return make
