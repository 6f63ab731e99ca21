"""Which part of which file a training clip is of, and where in the frame it lies. Numbers are worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualformer_cli.data.clips import loader
from dualformer_cli.data.clips.augment import TrainPlan, read_training_clips, swap_flipped_labels
from dualformer_cli.data.clips.loader import BatchPlan, training_steps
from dualformer_cli.data.lists.samples import Sample


def plan_of(**changes: Any) -> TrainPlan:
    settings: dict[str, Any] = {
        "num_frames": 4,
        "frame_interval": 1,
        "sampling": "interval",
        "short_side": 64,
        "crop_size": 32,
        "area": (1.0, 1.0),
        "aspect": (1.0, 1.0),
        "flip": 0.0,
        "antialias": True,
        "min_frames": 1,
        "decoder": "pyav",
        "frame_rate": None,
        "rand_augment_ops": 0,
        "rand_augment_magnitude": 0,
        "repeats": 1,
        "flip_labels": (),
    }
    return TrainPlan(**{**settings, **changes})


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> str:
    """40 frames of 96x64 pixels."""
    return str(clip_drawer(tmp_path_factory.mktemp("clips") / "clip.mp4"))


def test_a_clip_of_a_part_has_the_frames_of_the_part(clip: str) -> None:
    seeds = [(number,) for number in range(30)]
    found = read_training_clips(clip, plan_of(), seeds, start=20, num_frames=9)
    assert set(found.indices[:, 0]) == set(range(20, 26))  # 9 - 4 + 1 places to begin at
    assert (found.indices == found.indices[:, :1] + np.arange(4)).all()
    short = read_training_clips(clip, plan_of(frame_interval=3), [(0,)], start=30, num_frames=5)
    assert short.indices.tolist() == [[30, 33, 31, 34]]  # too short: it wraps around inside of the part
    rest = read_training_clips(clip, plan_of(), seeds, start=35)
    assert set(rest.indices[:, 0]) == {35, 36}


@pytest.mark.parametrize(
    ("aspect", "share"),
    [
        (0.5, (1 / 3, 0, 1 / 3, 1)),  # 32 of 96 columns, all of 64 rows
        (3.0, (0, 0.25, 1, 0.5)),  # all columns, 32 of 64 rows
        (1.5, (0, 0, 1, 1)),
    ],
)
def test_a_crop_is_told_as_shares_of_width_and_height(clip: str, aspect: float, share: tuple[float, ...]) -> None:
    """No frame has room for all of its area in another shape, so the largest crop of the shape is taken, centred."""
    found = read_training_clips(clip, plan_of(aspect=(aspect, aspect)), [(1,)])
    assert found.boxes.tolist() == [pytest.approx(share)]


def test_classes_of_a_pair_are_exchanged_both_ways() -> None:
    labels = swap_flipped_labels([(0,), (1,), (2, 0)], np.array([True, True, True]), ((0, 1),))
    assert labels == [(1,), (0,), (2, 1)]


class Asked(Exception):  # noqa: N818
    """Stands for a video that cannot be read: what the loader asks for is enough."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """(path, seeds, start, number of frames) of each read."""
    calls: list[tuple[Any, ...]] = []

    def read(path: str, plan: Any, seeds: Any, *, start: int = 0, num_frames: int | None = None, **_: Any) -> Any:
        calls.append((path, tuple(seeds), start, num_frames))
        raise Asked

    monkeypatch.setattr(loader, "read_training_clips", read)
    return calls


def read_all(here_pool: Any, samples: list[Sample], *, epoch: int = 0, repeats: int = 1, seed: int = 7) -> None:
    batches = BatchPlan(
        num_samples=len(samples), batch_size=2 * repeats, accumulation=1, rank=0, world_size=1, repeats=repeats
    )
    steps = training_steps(
        samples,
        [f"/videos/{sample.path}" for sample in samples],
        plan_of(repeats=repeats),
        batches,
        here_pool(),
        order=np.arange(len(samples))[::-1],
        seed=seed,
        epoch=epoch,
    )
    assert len(list(steps)) == batches.steps_per_epoch == -(-len(samples) // 2)


def test_the_loader_reads_the_parts_that_the_list_names(here_pool: Any, asked: list[tuple[Any, ...]]) -> None:
    samples = [
        Sample("a.mp4", labels=(0,)),
        Sample("b.mp4", labels=(1,), start=30, num_frames=20),
        Sample("c.mp4", labels=(1,), start=5),
    ]
    read_all(here_pool, samples)
    assert [(path, start, frames) for path, _, start, frames in asked] == [
        ("/videos/c.mp4", 5, None),
        ("/videos/b.mp4", 30, 20),
        ("/videos/a.mp4", 0, None),
    ]


def test_seeds_differ_between_runs_epochs_videos_and_repeats(here_pool: Any, asked: list[tuple[Any, ...]]) -> None:
    samples = [Sample(f"{number}.mp4", labels=(0,)) for number in range(3)]
    for seed, epoch in ((7, 0), (7, 1), (8, 0)):
        read_all(here_pool, samples, epoch=epoch, seed=seed, repeats=2)
    seeds = [seed for _, of_video, *_ in asked for seed in of_video]
    assert len(seeds) == len(set(seeds)) == 3 * 3 * 2
