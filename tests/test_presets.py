"""The shipped presets against the published configs and results of arXiv 2112.04674."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import NamedTuple

import pytest
import yaml

from dualformer_cli.config.load import ResolvedConfig, known_presets, load_config
from dualformer_cli.config.schema import ModelConfig, RunConfig, ViewsConfig

NUM_GPUS = 8
"""All published runs used 8 GPUs."""

KINETICS = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
RAW_FRAMES = ((104.0, 117.0, 128.0), (1.0, 1.0, 1.0))


class Row(NamedTuple):
    """One published config, as its file says it; micro x accumulation are clips per GPU per step."""

    size: str
    classes: str
    num_classes: int
    num_frames: int
    frame_interval: int
    drop_path: float
    weight_decay: float
    lr: float
    warmup_epochs: float
    epochs: int
    micro: int
    accumulation: int
    num_crops: int
    starts_from: str
    top1: str | None


PUBLISHED = {
    "k400-tiny": Row("tiny", "kinetics400", 400, 32, 2, 0.1, 0.02, 1e-3, 3, 30, 8, 1, 1, "2-D", "79.5"),
    "k400-small": Row("small", "kinetics400", 400, 32, 2, 0.2, 0.02, 1e-3, 2.5, 30, 4, 2, 1, "2-D", "80.6"),
    "k400-base": Row("base", "kinetics400", 400, 32, 2, 0.3, 0.05, 1e-3, 2.5, 30, 4, 2, 1, "2-D", "81.1"),
    "k600-base": Row("base", "kinetics600", 600, 32, 2, 0.3, 0.05, 5e-4, 2.5, 30, 4, 2, 1, "2-D", "85.2"),
    "diving48-small": Row("small", "diving48", 48, 32, 4, 0.2, 0.02, 1e-3, 1, 30, 8, 1, 3, "k400-small", "81.8"),
    "hmdb51-small": Row("small", "hmdb51", 51, 32, 4, 0.3, 0.1, 1e-3, 1, 16, 4, 4, 3, "k400-small", "76.4"),
    "ucf101-small": Row("small", "ucf101", 101, 32, 4, 0.3, 0.1, 1e-3, 1, 16, 4, 4, 3, "k400-small", "97.5"),
    "ucf101-tiny": Row("tiny", "ucf101", 101, 16, 4, 0.2, 0.05, 1e-3, 1, 16, 4, 4, 3, "k400-tiny", None),
    "k400-tiny-tokenlabel": Row("tiny", "kinetics400", 400, 32, 2, 0.1, 0.02, 1e-3, 3, 30, 8, 2, 1, "2-D", None),
    "k400-small-tokenlabel": Row("small", "kinetics400", 400, 32, 2, 0.2, 0.02, 1e-3, 2.5, 30, 4, 2, 1, "2-D", None),
}

SIZES = {
    "tiny": {"embed_dims": (64, 128, 256, 512), "num_heads": (2, 4, 8, 16), "depths": (2, 2, 10, 4), "drop_path": 0.1},
    "small": {
        "embed_dims": (96, 192, 384, 768),
        "num_heads": (3, 6, 12, 24),
        "depths": (2, 2, 18, 2),
        "drop_path": 0.2,
    },
    "base": {
        "embed_dims": (128, 256, 512, 1024),
        "num_heads": (4, 8, 16, 32),
        "depths": (2, 2, 18, 2),
        "drop_path": 0.3,
    },
}


def load(name: str) -> ResolvedConfig:
    return load_config(name, environ={})


def config_of(name: str) -> RunConfig:
    return load(name).config


def text_of(name: str) -> str:
    return files("dualformer_cli.presets").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def header_of(name: str) -> str:
    lines = text_of(name).splitlines()
    return "\n".join(line for line in lines[: [*lines, ""].index("")])


def test_every_published_run_and_every_size_has_a_preset() -> None:
    assert {*PUBLISHED, *SIZES} <= set(known_presets())


@pytest.mark.parametrize("name", SIZES)
def test_a_size_is_the_published_architecture_with_the_defaults_of_kinetics_400(name: str) -> None:
    config = config_of(name)
    assert config.model == ModelConfig(**SIZES[name], num_classes=400)  # type: ignore[arg-type]
    assert (config.data, config.train, config.runtime) == (RunConfig().data, RunConfig().train, RunConfig().runtime)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_model(name: str) -> None:
    row, model = PUBLISHED[name], config_of(name).model
    architecture = {**SIZES[row.size], "drop_path": row.drop_path, "token_head": name.endswith("-tokenlabel")}
    assert model == ModelConfig(**architecture, num_classes=row.num_classes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_recipe(name: str) -> None:
    row, train = PUBLISHED[name], config_of(name).train
    assert (train.lr, train.weight_decay) == (row.lr, row.weight_decay)
    assert (train.warmup_epochs, train.epochs) == (row.warmup_epochs, row.epochs)
    assert (train.batch_size, train.global_batch_size) == (row.micro, NUM_GPUS * row.micro * row.accumulation)
    assert (train.backbone_lr_scale, train.decay_norms) == (0.1, True)
    starts_from_image_weights = row.starts_from == "2-D"
    assert train.pretrained_2d == ("timm" if starts_from_image_weights else None)
    assert train.init_from == (None if starts_from_image_weights else row.starts_from)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_preset_has_the_published_clips_views_and_normalisation(name: str) -> None:
    row, data = PUBLISHED[name], config_of(name).data
    raw_frames = not row.classes.startswith("kinetics")
    assert (data.clip.num_frames, data.clip.frame_interval) == (row.num_frames, row.frame_interval)
    assert (data.clip.sampling, data.crop_size, data.antialias) == ("interval", 224, False)
    assert (data.mean, data.std) == (RAW_FRAMES if raw_frames else KINETICS)
    assert data.test == ViewsConfig(num_clips=4, num_crops=row.num_crops, short_side=224)  # type: ignore[arg-type]
    assert data.validation == ViewsConfig(num_clips=4 if raw_frames else 1, num_crops=1, short_side=256)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_class_list_of_a_preset_is_shipped_and_fits_its_classifier(name: str) -> None:
    row, config = PUBLISHED[name], config_of(name)
    assert config.data.classes == row.classes
    lines = (
        (files("dualformer_cli.data.datasets") / "classes" / f"{row.classes}.txt")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    assert len(lines) == len(set(lines)) == config.model.num_classes == row.num_classes


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_run_starts_from_is_a_preset_of_the_same_size(name: str) -> None:
    config = config_of(name)
    assert config.train.teacher == ("k400-base" if name.endswith("-tokenlabel") else None)
    assert (config.train.token_gamma, config.train.token_top_k, config.train.token_renormalise) == (0.5, 5, False)
    if config.train.init_from is not None:
        assert config_of(config.train.init_from).model.embed_dims == config.model.embed_dims


@pytest.mark.parametrize("name", known_presets())
def test_a_preset_names_only_what_differs_from_its_parent(name: str) -> None:
    resolved = load(name)
    parent = (yaml.safe_load(text_of(name)) or {}).get("extends")
    before = load_config(parent, environ={})
    own = [key for key, origin in resolved.origins.items() if origin == f"preset {name}"]
    assert own or parent is None
    for key in own:
        assert value_of(resolved.config, key) != value_of(before.config, key), f"{name} repeats {key}"


def value_of(config: RunConfig, key: str) -> object:
    value: object = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("name", known_presets())
def test_the_header_of_a_preset_says_what_it_is_its_source_the_command_and_the_result(name: str) -> None:
    header = header_of(name)
    assert all(line.startswith("# ") for line in header.splitlines())
    assert re.search(r"^# Source: .", header, re.MULTILINE)
    assert re.search(r"^# Result: .", header, re.MULTILINE)
    command = re.search(r"^# Command: dualformer (.+)$", header, re.MULTILINE)
    assert command
    assert name in command[1].split()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_header_gives_the_published_top1(name: str) -> None:
    top1 = PUBLISHED[name].top1
    result = header_of(name).partition("# Result: ")[2]
    assert "arXiv 2112.04674" in header_of(name)
    assert result.startswith("none published" if top1 is None else f"top1 {top1}, published by the authors")
