"""Models from the configuration: the place where its sections become plain arguments of the network."""

from __future__ import annotations

from math import prod

from dualformer_cli.config.schema import DataConfig, Kernels, ModelConfig, Size3
from dualformer_cli.model.dualformer import DualFormer


def build_model(
    model: ModelConfig, data: DataConfig, *, kernels: Kernels = "auto", motion_heads: bool = False
) -> DualFormer:
    """Build the network that the configuration describes, with random weights.

    Args:
        model: the network.
        data: what a clip is.
        kernels: as `runtime.kernels`.
        motion_heads: add the heads that are taught the motion at every token.

    Raises:
        ConfigError: if the clip's size does not fit windows and pools.
    """
    return DualFormer(
        input_size=_clip_size(data),
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
        motion_vote=model.motion_vote,
        motion_heads=motion_heads,
        start=model.start,
        gradient_checkpointing=model.gradient_checkpointing,
        kernels=kernels,
    )


def token_grid(model: ModelConfig, data: DataConfig, input_size: Size3 | None = None) -> Size3:
    """Return the tokens (t, h, w) of the last stage for clips of (frames, height, width); those of `data` when None."""
    pixels = (prod(patch[axis] for patch in model.patch_sizes) for axis in range(3))
    t, h, w = (side // of_token for side, of_token in zip(input_size or _clip_size(data), pixels, strict=True))
    return t, h, w


def first_activation(model: ModelConfig, data: DataConfig) -> int:
    """Return the numbers (tokens x channels) that the first stage holds of one clip: its largest activation."""
    return prod(_clip_size(data)) // prod(model.patch_sizes[0]) * model.embed_dims[0]


def _clip_size(data: DataConfig) -> Size3:
    return data.clip.num_frames, data.crop_size, data.crop_size
