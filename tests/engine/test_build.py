"""What of a config reaches the network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model, first_activation, token_grid
from dualformer_cli.engine.engine import BF16_ON_CPU_FROM
from dualformer_cli.errors import ConfigError
from dualformer_cli.model.blocks import DropPath


def test_the_choice_of_kernels_reaches_every_module_that_has_one() -> None:
    config = load_config("tiny", environ={"DUALFORMER_RUNTIME__KERNELS": "torch"}).config
    with torch.device("meta"):
        model = build_model(config.model, config.data, kernels=config.runtime.kernels)
    chosen = [module.kernels for module in model.modules() if hasattr(module, "kernels")]
    # local blocks, positions, pyramids, patches of stages, and of each of 18 blocks two norms and the MLP
    assert chosen == ["torch"] * (9 + 4 + 7 + 4 + 3 * 18)


@pytest.mark.parametrize(
    ("preset", "numbers", "is_large"),
    [("tiny", 16 * 56 * 56 * 64, True), ("ucf101-tiny", 8 * 56 * 56 * 64, True), ("camera-motion", 256 * 96, False)],
)
def test_published_sizes_are_large_and_the_built_in_model_is_not(preset: str, numbers: int, is_large: bool) -> None:
    config = load_config(preset, environ={}).config
    assert first_activation(config.model, config.data) == numbers
    assert (numbers >= BF16_ON_CPU_FROM) is is_large


def test_a_choice_of_kernels_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match=r"runtime\.kernels must be one of auto, triton, torch, got cuda"):
        load_config("tiny", overrides=["runtime.kernels=cuda"], environ={})


def test_every_setting_of_the_model_reaches_the_network() -> None:
    overrides = ["model.dropout=0.3", "model.drop_path=0.22", "model.mlp_ratio=3", "model.token_head=true"]
    overrides += ["model.gradient_checkpointing=true", "data.clip.num_frames=16", "data.crop_size=224"]
    config = load_config("tiny", overrides=overrides, environ={}).config
    with torch.device("meta"):
        model = build_model(config.model, config.data, motion_heads=True)
    rates = [module.drop_prob for module in model.modules() if isinstance(module, DropPath)]
    assert rates == pytest.approx([0.22 * block / 17 for block in range(18)])  # 2 + 2 + 10 + 4 blocks
    assert {module.p for module in model.modules() if isinstance(module, nn.Dropout)} == {0.3}
    assert sum(isinstance(module, nn.Dropout) for module in model.modules()) == 3
    assert [stage.blocks[0].mlp.fc1.out_features for stage in model.stages] == [3 * dim for dim in (64, 128, 256, 512)]
    assert all(stage.gradient_checkpointing for stage in model.stages)
    assert model.input_size == (16, 224, 224)
    assert len(model.motion_heads) == 4
    assert token_grid(config.model, config.data) == (8, 7, 7)
    assert token_grid(config.model, config.data, (32, 224, 448)) == (16, 7, 14)
