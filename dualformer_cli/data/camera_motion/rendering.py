"""Clips of camera motion rendered while a network trains on them: no files, and no clip twice.

A clip follows from the run's seed, the epoch and its place in it alone, as the clips of files do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from dualformer_cli.data.camera_motion.files import find_sources, share_out
from dualformer_cli.data.camera_motion.paths import STATIC
from dualformer_cli.data.camera_motion.pictures import Pixels
from dualformer_cli.data.camera_motion.scenes import CLASSES, PictureSource, render_clip

RENDERED = "render:camera-motion"
"""Name of the list whose clips are rendered."""

_LEAST_DIFFICULTY = 0.3
"""The easiest clips over the hardest ones."""
_ASPECTS = (1.0, 1.0, 4 / 3, 4 / 3, 16 / 9, 9 / 16)
"""Width over height of the frames, of which the middle is cut out."""
_NUM_DRAWN = 400
"""Pictures drawn for an epoch: drawing one takes as long as rendering a clip."""
_PHOTOGRAPHS_SHARE = 0.3
"""Share of the views that are of picture files, where there are some: they are few."""
_STOCK_SEED = 4
_CUT_STILLS = 0.4
"""Share of the cuts that are between two static clips, which otherwise look like one."""
_FLAT = 0.04
"""Share of the static clips that show one colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderPlan:
    """How clips are rendered."""

    num_clips: int
    """Of an epoch."""
    num_frames: int
    size: int
    """Height and width of a clip."""
    difficulty: float
    without_motion: float
    """Share of clips of noise or with a cut."""
    pictures: tuple[str, ...]
    """Picture files."""
    stock: int
    """Number of the stock of drawn pictures; each epoch has its own."""

    def label(self, number: int) -> int | None:
        """The class of a clip of the epoch, by its number from 0; the classes take turns, and the last have none."""
        has_motion = number < round(self.num_clips * (1 - self.without_motion))
        return number % len(CLASSES) if has_motion else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedClips:
    """Clips with their motion."""

    clips: Pixels
    """uint8, shape (repeats, num_frames, size, size, 3)."""
    flipped: npt.NDArray[np.bool_]
    """Which clips are mirrored, shape (repeats,)."""
    motion: npt.NDArray[np.float32]
    """As in `RenderedClip`, shape (repeats, num_frames - 1, 2, 3); not numbers where a clip has none."""
    seconds: float
    """Time it took."""


def picture_files(names: Sequence[str]) -> tuple[str, ...]:
    """The picture files of folders, or of the package that stands for one; those that `prepare` trains on are used.

    Raises:
        DualFormerError: if a folder is missing or has no picture.
    """
    return tuple(str(path) for path in share_out(find_sources(names), 0)["train"])


def render_training_clips(plan: RenderPlan, number: int, seeds: Sequence[Sequence[int]]) -> RenderedClips:
    """Render a clip of an epoch, and its mirror image for every other seed; runs in a worker process.

    Args:
        plan: how.
        number: of the clip in the epoch, which decides its class.
        seeds: one seed per clip.

    Raises:
        DualFormerError: if a picture cannot be read.
    """
    started = perf_counter()
    label = plan.label(number)
    clips: list[Pixels] = []
    motions: list[npt.NDArray[np.float32]] = []
    for repeat, seed in enumerate(seeds):
        if repeat % 2:
            clips.append(clips[-1][:, :, ::-1])
            motions.append(_mirror(motions[-1]))
            continue
        rng = np.random.default_rng(seed)
        frames, motion = _without_motion(rng, plan) if label is None else _with_motion(rng, plan, label)
        clips.append(frames)
        motions.append(motion)
    return RenderedClips(
        clips=np.stack(clips),
        flipped=np.arange(len(clips)) % 2 == 1,
        motion=np.stack(motions),
        seconds=perf_counter() - started,
    )


def _with_motion(rng: np.random.Generator, plan: RenderPlan, label: int) -> tuple[Pixels, npt.NDArray[np.float32]]:
    if label == STATIC and rng.random() < _FLAT:
        colour = (np.zeros(3) if rng.random() < 0.5 else rng.integers(0, 256, 3)).astype(np.uint8)
        still = np.tile(np.eye(2, 3, dtype=np.float32), (plan.num_frames - 1, 1, 1))
        return np.broadcast_to(colour, (plan.num_frames, plan.size, plan.size, 3)), still
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    height, width = (round(plan.size * max(1.0, side)) for side in (1 / aspect, aspect))
    clip = render_clip(
        rng.integers(0, 2**32, 4).tolist(),
        num_frames=plan.num_frames,
        size=(height, width),
        pictures=_stock(plan.stock, plan.pictures),
        label=label,
        difficulty=plan.difficulty * (1 - (1 - _LEAST_DIFFICULTY) * rng.random() ** 2),
    )
    top, left = (height - plan.size) // 2, (width - plan.size) // 2
    return clip.frames[:, top : top + plan.size, left : left + plan.size], clip.motion


def _without_motion(rng: np.random.Generator, plan: RenderPlan) -> tuple[Pixels, npt.NDArray[np.float32]]:
    """Noise, or two clips with a cut between them: their motion has no name."""
    shape = (plan.num_frames, plan.size, plan.size, 3)
    motion = np.full((plan.num_frames - 1, 2, 3), np.nan, np.float32)
    if rng.random() < 0.3:
        coarse = int(rng.choice((1, 2, 4)))
        small = rng.normal(
            rng.uniform(60, 190), rng.uniform(15, 80), (shape[0], *(-(-s // coarse) for s in shape[1:3]), 3)
        )
        if rng.random() < 0.5:
            small[:] = small[..., :1]
        noise = small.repeat(coarse, axis=1).repeat(coarse, axis=2)[:, : plan.size, : plan.size]
        return noise.clip(0, 255).astype(np.uint8), motion
    labels = (STATIC, STATIC) if rng.random() < _CUT_STILLS else rng.integers(len(CLASSES), size=2).tolist()
    before, after = (_with_motion(rng, plan, label)[0] for label in labels)
    cut = int(rng.integers(plan.num_frames // 4, 3 * plan.num_frames // 4 + 1))
    return np.concatenate([before[:cut], after[cut:]]), motion


def _mirror(motion: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The motion of the mirrored clip: x changes its sign before and after."""
    return motion * np.array([[1, -1, -1], [-1, 1, 1]], np.float32)


@lru_cache(maxsize=1)
def _stock(number: int, pictures: tuple[str, ...]) -> PictureSource:
    """Pictures that are drawn once in a worker and used for many clips; those that `prepare` draws are others."""
    seed = int(np.random.SeedSequence([number, _STOCK_SEED]).generate_state(1)[0])
    files = [Path(path) for path in pictures]
    return PictureSource(
        seed=seed, num_drawn=_NUM_DRAWN, files=files, taken_share=_PHOTOGRAPHS_SHARE, max_kept=3 * _NUM_DRAWN
    )
