"""The checks of the configuration classes: each message names the key, the value and what is allowed."""

from __future__ import annotations

import ast
import inspect
from dataclasses import FrozenInstanceError, fields, is_dataclass
from math import inf
from typing import Any, get_type_hints

import pytest

from dualformer_cli.config import schema
from dualformer_cli.config.schema import (
    ClipConfig,
    DataConfig,
    ModelConfig,
    RunConfig,
    RuntimeConfig,
    TrainConfig,
    ViewsConfig,
)
from dualformer_cli.errors import ConfigError

REFUSED: list[tuple[type[Any], dict[str, Any], str]] = [
    (ModelConfig, {"depths": (2, 2)}, "depths must have one value per stage (4), got [2, 2]"),
    (ModelConfig, {"num_heads": (2, 4, 8, 0)}, "num_heads must be positive in every stage, got [2, 4, 8, 0]"),
    (ModelConfig, {"patch_sizes": ((1, 2, 2),)}, "patch_sizes must have one size per stage (4), got 1"),
    (ModelConfig, {"window_size": (8, 0, 7)}, "window_size must be positive, got [8, 0, 7]"),
    (
        ModelConfig,
        {"num_heads": (3, 4, 8, 16)},
        "embed_dims must divide into num_heads, got 64 channels and 3 heads",
    ),
    (ModelConfig, {"mlp_ratio": 0.0}, "mlp_ratio must be greater than 0, got 0.0"),
    (ModelConfig, {"num_classes": 0}, "num_classes must be from 1 to 1,000,000, got 0"),
    (ModelConfig, {"num_classes": 10**30}, f"num_classes must be from 1 to 1,000,000, got {10**30}"),
    (ModelConfig, {"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
    (ModelConfig, {"drop_path": -0.1}, "drop_path must be at least 0 and below 1, got -0.1"),
    (ClipConfig, {"num_frames": 0}, "num_frames must be at least 1, got 0"),
    (ClipConfig, {"frame_interval": 0}, "frame_interval must be at least 1, got 0"),
    (ClipConfig, {"sampling": "random"}, "sampling must be one of interval, segments, got 'random'"),
    (ViewsConfig, {"num_clips": 0}, "num_clips must be at least 1, got 0"),
    (ViewsConfig, {"num_crops": 2}, "num_crops must be one of 1, 3, got 2"),
    (ViewsConfig, {"short_side": 0}, "short_side must be at least 1, got 0"),
    (DataConfig, {"crop_size": 0}, "crop_size must be at least 1, got 0"),
    (DataConfig, {"crop_size": 256}, "test.short_side must be at least crop_size (256), got 224"),
    (
        DataConfig,
        {"crop_size": 200, "validation": ViewsConfig(short_side=199)},
        "validation.short_side must be at least crop_size (200), got 199",
    ),
    (DataConfig, {"std": (1.0, 0.0, 1.0)}, "std must be positive, got [1.0, 0.0, 1.0]"),
    (DataConfig, {"min_frames": 0}, "min_frames must be at least 1, got 0"),
    (DataConfig, {"frame_rate": 0.0}, "frame_rate must be greater than 0, got 0.0"),
    (
        DataConfig,
        {"decoder": "ffmpeg"},
        "decoder must be one of auto, pyav, decord, torchcodec, torchcodec-cuda, got 'ffmpeg'",
    ),
    (DataConfig, {"decode_timeout_seconds": 0.0}, "decode_timeout_seconds must be greater than 0, got 0.0"),
    (TrainConfig, {"epochs": 0}, "epochs must be at least 1, got 0"),
    (TrainConfig, {"warmup_epochs": -1.0}, "warmup_epochs must be at least 0, got -1.0"),
    (TrainConfig, {"lr": 0.0}, "lr must be greater than 0, got 0.0"),
    (TrainConfig, {"lr": 1.5}, "lr must be at most 1, got 1.5: a step of AdamW would move a weight by that much"),
    *(
        (
            TrainConfig,
            {"save_every": text},
            f"save_every must be a time such as 30s, 5m or 1h, or a number of steps such as 500 steps, got {text!r}",
        )
        for text in ("0s", "500", "1.5 steps", "5 minutes", "")
    ),
    (TrainConfig, {"backbone_lr_scale": -1.0}, "backbone_lr_scale must be at least 0, got -1.0"),
    (TrainConfig, {"weight_decay": -1.0}, "weight_decay must be at least 0, got -1.0"),
    (TrainConfig, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    (TrainConfig, {"global_batch_size": 0}, "global_batch_size must be at least 1, got 0"),
    (
        TrainConfig,
        {"init_from": "k400-tiny", "pretrained_2d": "timm"},
        "init_from must be null when pretrained_2d is 'timm', got 'k400-tiny'; set one of them to null",
    ),
    (RuntimeConfig, {"precision": "fp8"}, "precision must be one of auto, fp32, bf16, fp16, got 'fp8'"),
    (RuntimeConfig, {"device": "gpu"}, "device must be auto, cpu, cuda, cuda:INDEX, mps or xpu, got 'gpu'"),
    (RuntimeConfig, {"seed": -1}, "seed must be at least 0 and below 2**32, which NumPy allows, got -1"),
    (RuntimeConfig, {"seed": 2**32}, "seed must be at least 0 and below 2**32, which NumPy allows, got 4294967296"),
    (RuntimeConfig, {"exchange_timeout": "10"}, "exchange_timeout must be a time such as 30s, 10m or 1h, got '10'"),
    (RuntimeConfig, {"exchange_timeout": "0s"}, "exchange_timeout must be a time such as 30s, 10m or 1h, got '0s'"),
    (
        RuntimeConfig,
        {"exchange_timeout": "1 step"},
        "exchange_timeout must be a time such as 30s, 10m or 1h, got '1 step'",
    ),
    (RuntimeConfig, {"num_workers": 0}, "num_workers must be at least 1, got 0"),
    (
        RuntimeConfig,
        {"compile": True, "cuda_graphs": True},
        "compile and cuda_graphs do not go together: set one of them to false",
    ),
]


@pytest.mark.parametrize(("section", "values", "message"), REFUSED, ids=[message[:40] for _, _, message in REFUSED])
def test_a_value_that_is_not_allowed_is_named_with_what_is(
    section: type[Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        section(**values)
    assert str(caught.value) == message


def test_every_message_begins_with_its_key_so_that_the_loader_can_put_the_section_in_front() -> None:
    for section, _, message in REFUSED:
        name = message.split()[0]
        for part in name.split("."):
            assert part in get_type_hints(section), message
            section = get_type_hints(section)[part]


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_a_device_can_be_named(device: str) -> None:
    assert RuntimeConfig(device=device).device == device


@pytest.mark.parametrize("device", ["", "CPU", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "auto:1", "cuda:²", "cuda:0\n"])
def test_a_device_in_another_form_is_refused(device: str) -> None:
    with pytest.raises(ConfigError, match="device must be auto, cpu, cuda, cuda:INDEX, mps or xpu"):
        RuntimeConfig(device=device)


def test_a_config_cannot_be_changed_after_it_is_checked() -> None:
    with pytest.raises(FrozenInstanceError):
        RunConfig().weights = "other.pth"  # type: ignore[misc]


def test_every_key_says_what_it_means() -> None:
    for node in ast.walk(ast.parse(inspect.getsource(schema))):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and not _is_section(node.name, ast.unparse(statement.target)):
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert documented, f"{node.name}.{ast.unparse(statement.target)} has no docstring"


def _is_section(class_name: str, name: str) -> bool:
    section = getattr(schema, class_name)()
    assert name in {field.name for field in fields(section)}
    return is_dataclass(getattr(section, name))


@pytest.mark.parametrize(
    ("text", "interval"),
    [("5m", (300, inf)), ("90 s", (90, inf)), ("1.5h", (5400, inf)), ("500 steps", (inf, 500)), ("1 step", (inf, 1))],
)
def test_a_run_is_saved_by_the_clock_or_by_its_steps(text: str, interval: tuple[float, float]) -> None:
    assert TrainConfig(save_every=text).save_interval() == interval
