"""What of a config reaches the network."""

from __future__ import annotations

import pytest
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model, first_activation
from dualformer_cli.engine.engine import BF16_ON_CPU_FROM
from dualformer_cli.errors import ConfigError


def test_the_choice_of_kernels_reaches_every_module_that_has_one() -> None:
    config = load_config("tiny", environ={"DUALFORMER_RUNTIME__KERNELS": "torch"}).config
    with torch.device("meta"):
        model = build_model(config)
    chosen = [module.kernels for module in model.modules() if hasattr(module, "kernels")]
    assert chosen == ["torch"] * (9 + 4 + 7)  # local blocks, positions, pyramids


@pytest.mark.parametrize(
    ("preset", "numbers", "is_large"),
    [("tiny", 16 * 56 * 56 * 64, True), ("ucf101-tiny", 8 * 56 * 56 * 64, True), ("camera-motion", 256 * 96, False)],
)
def test_published_sizes_are_large_and_the_built_in_model_is_not(preset: str, numbers: int, is_large: bool) -> None:
    assert first_activation(load_config(preset, environ={}).config) == numbers
    assert (numbers >= BF16_ON_CPU_FROM) is is_large


def test_a_choice_of_kernels_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.kernels must be one of auto, triton, torch, got cuda"):
        load_config("tiny", overrides=["runtime.kernels=cuda"], environ={})
