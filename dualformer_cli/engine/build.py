"""Models from presets: the place where a RunConfig becomes plain arguments of the network."""

from __future__ import annotations

from math import prod

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import DataConfig, RunConfig, Size3, ViewsConfig
from dualformer_cli.data.camera_motion.rendering import RenderPlan
from dualformer_cli.data.clips.augment import Pairs, TrainPlan
from dualformer_cli.data.clips.views import ViewPlan
from dualformer_cli.model.dualformer import DualFormer


def build_model(config: RunConfig, *, motion_heads: bool = False) -> DualFormer:
    """Build the network that a config describes, with random weights.

    Args:
        config: of the run.
        motion_heads: add the heads that are taught the motion at every token.

    Raises:
        ConfigError: if the clip's size does not fit windows and pools.
    """
    model, data = config.model, config.data
    return DualFormer(
        input_size=(data.clip.num_frames, data.crop_size, data.crop_size),
        num_classes=model.num_classes,
        embed_dims=model.embed_dims,
        depths=model.depths,
        num_heads=model.num_heads,
        patch_sizes=model.patch_sizes,
        window_size=model.window_size,
        fine_grid=model.fine_grid,
        coarse_grid=model.coarse_grid,
        mlp_ratio=model.mlp_ratio,
        dropout=model.dropout,
        drop_path=model.drop_path,
        token_head=model.token_head,
        motion_heads=motion_heads,
        start=model.start,
        gradient_checkpointing=model.gradient_checkpointing,
        kernels=config.runtime.kernels,
    )


def token_grid(config: RunConfig, input_size: Size3 | None = None) -> Size3:
    """Tokens (t, h, w) of the last stage for clips of (frames, height, width); those of the config when None."""
    data = config.data
    size = input_size or (data.clip.num_frames, data.crop_size, data.crop_size)
    pixels = (prod(patch[axis] for patch in config.model.patch_sizes) for axis in range(3))
    t, h, w = (side // of_token for side, of_token in zip(size, pixels, strict=True))
    return t, h, w


def first_activation(config: RunConfig) -> int:
    """Numbers (tokens x channels) that the first stage holds of one clip: its largest activation."""
    data, patch = config.data, config.model.patch_sizes[0]
    pixels = data.clip.num_frames * data.crop_size**2
    return pixels // prod(patch) * config.model.embed_dims[0]


def view_plan(data: DataConfig, views: ViewsConfig, *, every_seconds: float | None = None) -> ViewPlan:
    """How videos are cut into views for scoring; with `every_seconds`, into segments of a timeline."""
    return ViewPlan(
        num_frames=data.clip.num_frames,
        frame_interval=data.clip.frame_interval,
        sampling=data.clip.sampling,
        num_clips=views.num_clips,
        num_crops=views.num_crops,
        short_side=views.short_side,
        crop_size=data.crop_size,
        antialias=data.antialias,
        min_frames=data.min_frames,
        decoder=data.decoder,
        frame_rate=data.frame_rate,
        frame_name=data.frame_name,
        every_seconds=every_seconds,
    )


def train_plan(config: RunConfig, flip_pairs: Pairs, *, render: RenderPlan | None = None) -> TrainPlan:
    """How videos are cut into random clips, or with `render` clips are rendered.

    `flip_pairs` are the classes that a mirror turns into each other.
    """
    data, train = config.data, config.train
    return TrainPlan(
        num_frames=data.clip.num_frames,
        frame_interval=data.clip.frame_interval,
        sampling=data.clip.sampling,
        short_side=data.train.short_side,
        crop_size=data.crop_size,
        area=data.train.area,
        aspect=data.train.aspect,
        flip=data.train.flip,
        antialias=data.antialias,
        min_frames=data.min_frames,
        decoder=data.decoder,
        frame_rate=data.frame_rate,
        frame_name=data.frame_name,
        rand_augment_ops=train.rand_augment_ops,
        rand_augment_magnitude=train.rand_augment_magnitude,
        repeats=train.repeats,
        flip_labels=flip_pairs,
        render=render,
    )


def create_model(preset: str, *, num_classes: int | None = None) -> DualFormer:
    """Create a model with random weights, ready for `load_weights`.

    Args:
        preset: a size (tiny, small, base), a preset name or a preset file.
        num_classes: outputs of the classifier; the preset's when None.

    Returns:
        An nn.Module: clips (b, 3, T, H, W), normalised, to logits (b, num_classes); T, H, W are the preset's.

    Raises:
        ConfigError: if there is no such preset or the number of classes is below 1.
    """
    overrides = [] if num_classes is None else [f"model.num_classes={num_classes}", "data.classes=null"]
    return build_model(load_config(preset, overrides=overrides).config)
