"""What training sees of some videos: random clips after everything that the recipe does to them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dualformer_cli.config.schema import RunConfig
from dualformer_cli.data.clips.augment_batch import augment_batch
from dualformer_cli.data.clips.epoch_plan import BatchPlan, epoch_order
from dualformer_cli.data.clips.loader import training_steps
from dualformer_cli.data.clips.targets import one_hot, swap_flipped_labels
from dualformer_cli.data.clips.training_clips import VideoClips
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.data.datasets.catalogue import flip_labels
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.errors import ConfigError, DualFormerError
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.remote_videos import name_of

_MIN_SHARE = 0.01
"""Of a label; label smoothing gives every class less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenClip:
    """One clip as the model would get it."""

    path: str
    label: str
    """Its class, or the classes that were mixed, with their shares."""
    frames: npt.NDArray[np.uint8]
    """Shape (T, S, S, 3), brought back from normalised values to grey levels."""


def preview_clips(config: RunConfig, *, num_videos: int) -> list[SeenClip]:
    """Read the first videos of the first epoch as training does, for `data.train_list`.

    Raises:
        DualFormerError: if there is no list, or none of the videos can be read.
    """
    data, train = config.data, config.train
    if data.train_list is None:
        raise ConfigError("there is no training list; set data.train_list")
    classes = data.classes if data.classes in flip_labels() else None  # a list has its own, and nothing else needs them
    listed = open_list(replace(data, classes=classes), data.train_list, class_names=None, usable_only=True)
    order = epoch_order(len(listed), seed=config.runtime.seed, epoch=0)[:num_videos]
    batches = BatchPlan(
        num_samples=len(order),
        batch_size=len(order) * train.repeats,
        accumulation=1,
        rank=0,
        world_size=1,
        repeats=train.repeats,
    )
    with WorkerPool(
        config.runtime.num_workers or 1,
        data.decode_timeout_seconds,
        preload=["dualformer_cli.data.clips.training_clips"],
    ) as pool:
        steps = training_steps(
            VideoClips(listed, data, train),
            batches,
            pool,
            order=order,
            seed=config.runtime.seed,
            epoch=0,
        )
        (batch,) = next(steps)
    if not len(batch.clips):
        path, reason = batch.unreadable[0]
        raise DualFormerError(f"none of {len(order)} videos of {data.train_list!r} can be read: {path!r}: {reason}")
    rng = np.random.default_rng(config.runtime.seed)
    clips = normalize(torch.from_numpy(batch.clips), data.mean, data.std, torch.float32)
    labels = swap_flipped_labels([listed.labels[video] for video in batch.samples], batch.flipped, listed.flip_pairs)
    targets = one_hot(labels, len(listed.class_names), train.label_smoothing)
    clips, targets = augment_batch(clips, targets, train, rng)
    colours = torch.tensor([data.std, data.mean])
    levels = (clips.permute(0, 2, 3, 4, 1) * colours[0] + colours[1]).round().clamp(0, 255).to(torch.uint8).numpy()
    return [
        SeenClip(path=name_of(listed.files[video]), label=_label(target.tolist(), listed.class_names), frames=frames)
        for video, target, frames in zip(batch.samples, targets, levels, strict=True)
    ]


def _label(target: list[float], names: list[str]) -> str:
    shares = sorted(((share, name) for share, name in zip(target, names, strict=True) if share >= _MIN_SHARE))[::-1]
    if len(shares) == 1 or all(share == 1 for share, _ in shares):
        return ", ".join(name for _, name in shares)
    return " + ".join(f"{share:.0%} {name}" for share, name in shares[:3])
