"""Training on clips that are rendered on the fly: from the configuration to a list and a plan."""

from __future__ import annotations

import hashlib
import json

from dualformer_cli.config.schema import DataConfig, RunConfig
from dualformer_cli.data.camera_motion.files import Settings
from dualformer_cli.data.camera_motion.paths import FLIP_PAIRS
from dualformer_cli.data.camera_motion.rendering import RENDERED, RenderPlan, picture_files
from dualformer_cli.data.camera_motion.scenes import CLASSES
from dualformer_cli.data.lists.samples import LabelledList, Sample
from dualformer_cli.errors import ConfigError


def check_rendering(config: RunConfig) -> None:
    """Refuse settings that contradict each other.

    Raises:
        ConfigError: naming them.
    """
    train = config.train
    if config.data.train_list != RENDERED:
        return
    mixed = [name for name in ("mixup_alpha", "cutmix_alpha", "rand_augment_ops") if getattr(train, name)]
    if mixed:
        raise ConfigError(f"train.{mixed[0]} must be 0 where clips are rendered, got {getattr(train, mixed[0])}")
    taught = [name for name in ("teacher", "token_labels") if getattr(train, name) is not None]
    if taught:
        raise ConfigError(f"train.{taught[0]} must be null where clips are rendered, which have their motion to teach")
    if config.data.multi_label:
        raise ConfigError("data.multi_label must be false where clips are rendered: each has one motion")


def render_plan(data: DataConfig, *, files: tuple[str, ...], epoch: int) -> RenderPlan:
    """How clips are rendered in an epoch.

    Args:
        data: of the configuration.
        files: of the pictures, as `rendered_pictures` finds them.
        epoch: from 0; in the first ones the clips are easier.
    """
    render = data.render
    return RenderPlan(
        num_clips=render.num_clips,
        num_frames=data.clip.num_frames,
        size=data.crop_size,
        difficulty=render.difficulty * min(1.0, epoch / render.easy_epochs if render.easy_epochs else 1.0),
        without_motion=render.without_motion,
        pictures=files,
        stock=epoch,
    )


def rendered_pictures(data: DataConfig) -> tuple[str, ...]:
    """Picture files that the configuration names.

    Raises:
        DualFormerError: if a folder is missing or has none.
    """
    return picture_files(data.render.pictures)


def rendered_list(data: DataConfig, files: tuple[str, ...]) -> LabelledList:
    """The clips of an epoch as a list; those without a motion have no label."""
    plan = render_plan(data, files=files, epoch=0)
    numbered = [plan.label(number) for number in range(plan.num_clips)]
    labels: list[tuple[int, ...]] = [() if label is None else (label,) for label in numbered]
    names = [f"{RENDERED}/{number:07d}" for number in range(plan.num_clips)]
    render = data.render
    facts = [render.num_clips, render.difficulty, render.easy_epochs, render.without_motion]
    content = json.dumps([*facts, Settings(pictures=files).fingerprint()])
    return LabelledList(
        source=RENDERED,
        samples=[Sample(name, labels=of_clip) for name, of_clip in zip(names, labels, strict=True)],
        files=names,
        labels=labels,
        class_names=list(CLASSES),
        flip_pairs=FLIP_PAIRS,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        multi_label=False,
    )
