"""Clips of camera motion rendered while a network trains on them: no files, and no clip twice.

A clip follows from the run's seed, the epoch and its place in it alone, as the clips of files do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter

import numpy as np
import numpy.typing as npt

from dualformer_cli.config.schema import RENDERED, DataConfig, TrainConfig
from dualformer_cli.data.camera_motion.classes import CLASSES, FLIP_PAIRS, SHAKE, STATIC
from dualformer_cli.data.camera_motion.files import Settings, find_sources, share_out
from dualformer_cli.data.camera_motion.paths import mixed_path
from dualformer_cli.data.camera_motion.pictures import PictureSource, Pixels
from dualformer_cli.data.camera_motion.render import render_clip, render_path
from dualformer_cli.data.clips.augment_clip import CLIP_CHANGES
from dualformer_cli.data.clips.source import ClipSource, Seeds, TrainingClips
from dualformer_cli.data.lists.samples import LabelledList, Sample
from dualformer_cli.documents.base import to_json
from dualformer_cli.errors import ConfigError

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
_WITHOUT_MOTION = {"noise": 0.15, "flat": 0.1, "cut": 0.35, "mixed": 0.4}
"""Kinds of clips whose motion has no name, and their shares."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedClips(ClipSource):
    """Clips of camera motion that are rendered in one epoch; no two of a run are equal."""

    data: DataConfig
    """What a clip is, and how it is rendered."""
    pictures: tuple[str, ...]
    """Picture files, as `picture_files` finds them."""
    epoch: int
    """From 0; in the first ones the clips are easier, and each has other drawn pictures."""

    @property
    def labels(self) -> list[tuple[int, ...]]:
        """The class of each clip: the classes take turns, and the last clips have none."""
        return [() if label is None else (label,) for label in map(self.label, range(self.data.render.num_clips))]

    def label(self, number: int) -> int | None:
        """Return the class of a clip of the epoch, by its number from 0; None for one without a motion."""
        render = self.data.render
        has_motion = number < round(render.num_clips * (1 - render.without_motion))
        if not has_motion:
            return None
        turns = [*range(len(CLASSES)), *[STATIC] * (render.static_turns - 1)]
        return turns[number % len(turns)]

    def name(self, number: int) -> str:
        """Return the name of a clip."""
        return f"{RENDERED}/{number:07d}"

    def read(self, number: int, seeds: Seeds) -> Callable[[], TrainingClips]:
        """Return the call that renders a clip, and its mirror image for every other seed."""
        return partial(self.render, number, seeds)

    def keep(self, number: int, clips: TrainingClips) -> None:
        """Keep nothing: no clip is rendered twice."""

    def render(self, number: int, seeds: Seeds) -> TrainingClips:
        """Render a clip of the epoch, whose number decides its class; runs in a worker process.

        Raises:
            DualFormerError: if a picture cannot be read.
        """
        started = perf_counter()
        label = self.label(number)
        clips: list[Pixels] = []
        motions: list[npt.NDArray[np.float32]] = []
        for repeat, seed in enumerate(seeds):
            if repeat % 2:
                clips.append(clips[-1][:, :, ::-1])
                motions.append(_mirror(motions[-1]))
                continue
            rng = np.random.default_rng(seed)
            frames, motion = self._without_motion(rng) if label is None else self._with_motion(rng, label)
            clips.append(frames)
            motions.append(motion)
        return TrainingClips(
            clips=np.stack(clips),
            flipped=np.arange(len(clips)) % 2 == 1,
            indices=np.tile(np.arange(self.data.clip.num_frames), (len(clips), 1)),
            boxes=np.tile([0.0, 0.0, 1.0, 1.0], (len(clips), 1)),
            seconds=perf_counter() - started,
            motion=np.stack(motions),
        )

    @property
    def difficulty(self) -> float:
        """The most that is in the way of seeing the motion in this epoch, 0 to 1."""
        render = self.data.render
        return render.difficulty * min(1.0, self.epoch / render.easy_epochs if render.easy_epochs else 1.0)

    def _with_motion(self, rng: np.random.Generator, label: int) -> tuple[Pixels, npt.NDArray[np.float32]]:
        num_frames = self.data.clip.num_frames
        clip = render_clip(
            rng.integers(0, 2**32, 4).tolist(),
            num_frames=num_frames,
            size=self._size(rng),
            pictures=_stock(self.epoch, self.pictures),
            label=label,
            difficulty=self._drawn_difficulty(rng),
            busy=self._busy,
        )
        return self._middle(clip.frames), clip.motion

    def _without_motion(self, rng: np.random.Generator) -> tuple[Pixels, npt.NDArray[np.float32]]:
        """Return a clip whose motion has no name: noise, one colour, a cut between two clips, or a mixture."""
        num_frames, side = self.data.clip.num_frames, self.data.crop_size
        unknown = np.full((num_frames - 1, 2, 3), np.nan, np.float32)
        kind = rng.choice(list(_WITHOUT_MOTION), p=list(_WITHOUT_MOTION.values()))
        if kind == "noise":
            return _noise(rng, num_frames, side), unknown
        if kind == "flat":
            colour = (np.zeros(3) if rng.random() < 0.5 else rng.integers(0, 256, 3)).astype(np.uint8)
            return np.broadcast_to(colour, (num_frames, side, side, 3)), unknown
        if kind == "mixed":
            return self._mixed(rng)
        labels = (STATIC, STATIC) if rng.random() < _CUT_STILLS else rng.integers(len(CLASSES), size=2).tolist()
        before, after = (self._with_motion(rng, label)[0] for label in labels)
        cut = int(rng.integers(num_frames // 4, 3 * num_frames // 4 + 1))
        return np.concatenate([before[:cut], after[cut:]]), unknown

    def _mixed(self, rng: np.random.Generator) -> tuple[Pixels, npt.NDArray[np.float32]]:
        """Return a clip of a camera that makes two motions."""
        size, difficulty = self._size(rng), self._drawn_difficulty(rng)
        path = mixed_path(rng, num_frames=self.data.clip.num_frames, size=size, difficulty=difficulty)
        clip = render_path(
            path,
            rng=rng,
            label=SHAKE,  # what matters is that it is not static
            size=size,
            window=size,
            pictures=_stock(self.epoch, self.pictures),
            difficulty=difficulty,
            busy=rng if rng.random() < self._busy else None,
        )
        return self._middle(clip.frames), clip.motion

    @property
    def _busy(self) -> float:
        """How likely a busy scene is in this epoch: like the difficulty, it rises."""
        render = self.data.render
        return render.busy * self.difficulty / render.difficulty if render.difficulty else 0.0

    def _drawn_difficulty(self, rng: np.random.Generator) -> float:
        return self.difficulty * (1 - (1 - _LEAST_DIFFICULTY) * rng.random() ** 2)

    def _size(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw (height, width) of the frames, whose middle is cut out."""
        aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
        side = self.data.crop_size
        return round(side * max(1.0, 1 / aspect)), round(side * max(1.0, aspect))

    def _middle(self, frames: Pixels) -> Pixels:
        side = self.data.crop_size
        top, left = ((longer - side) // 2 for longer in frames.shape[1:3])
        return frames[:, top : top + side, left : left + side]


def _noise(rng: np.random.Generator, num_frames: int, side: int) -> Pixels:
    """Draw frames that have nothing in common, fine or coarse."""
    coarse = int(rng.choice((1, 2, 4)))
    cells = -(-side // coarse)
    small = rng.normal(rng.uniform(60, 190), rng.uniform(15, 80), (num_frames, cells, cells, 3))
    if rng.random() < 0.5:
        small[:] = small[..., :1]
    noise = small.repeat(coarse, axis=1).repeat(coarse, axis=2)[:, :side, :side]
    return noise.clip(0, 255).astype(np.uint8)


def picture_files(names: Sequence[str]) -> tuple[str, ...]:
    """Return the picture files of folders, or of the package that stands for one: those that `prepare` trains on.

    Raises:
        DualFormerError: if a folder is missing or has no picture.
    """
    return tuple(str(path) for path in share_out(find_sources(names), 0)["train"])


def rendered_list(data: DataConfig, pictures: tuple[str, ...]) -> LabelledList:
    """Return the clips of an epoch as a list; those without a motion have no label."""
    clips, render = RenderedClips(data=data, pictures=pictures, epoch=0), data.render
    names = [clips.name(number) for number in range(render.num_clips)]
    labels = clips.labels
    facts = [
        render.num_clips,
        render.difficulty,
        render.easy_epochs,
        render.without_motion,
        render.busy,
        render.static_turns,
    ]
    content = json.dumps([*facts, to_json(Settings(pictures=pictures).fingerprint())])
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


def check_rendering(data: DataConfig, train: TrainConfig) -> None:
    """Refuse settings that contradict rendered clips, where the training list is of them.

    Raises:
        ConfigError: naming them.
    """
    if data.train_list != RENDERED:
        return
    mixed = [name for name in ("mixup_alpha", "cutmix_alpha", *CLIP_CHANGES) if getattr(train, name)]
    if mixed:
        raise ConfigError(f"train.{mixed[0]} must be 0 where clips are rendered, got {getattr(train, mixed[0])}")
    taught = [name for name in ("teacher", "token_labels") if getattr(train, name) is not None]
    if taught:
        raise ConfigError(f"train.{taught[0]} must be null where clips are rendered, which have their motion to teach")
    if data.multi_label:
        raise ConfigError("data.multi_label must be false where clips are rendered: each has one motion")


def _mirror(motion: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the motion of the mirrored clip: x changes its sign before and after."""
    return motion * np.array([[1, -1, -1], [-1, 1, 1]], np.float32)


@lru_cache(maxsize=1)
def _stock(number: int, pictures: tuple[str, ...]) -> PictureSource:
    """Return pictures that a worker draws once and uses for many clips; those that `prepare` draws are others."""
    seed = int(np.random.SeedSequence([number, _STOCK_SEED]).generate_state(1)[0])
    files = [Path(path) for path in pictures]
    return PictureSource(
        seed=seed, num_drawn=_NUM_DRAWN, files=files, taken_share=_PHOTOGRAPHS_SHARE, max_kept=3 * _NUM_DRAWN
    )
