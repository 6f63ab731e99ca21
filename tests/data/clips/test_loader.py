"""Batches: every video once, the same clips wherever and by how many processes they are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.config.schema import ClipConfig, DataConfig, TrainClipsConfig, TrainConfig
from dualformer_cli.data.clips import loader
from dualformer_cli.data.clips.epoch_plan import BatchPlan, epoch_order
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.clips.loader import Batch, training_steps
from dualformer_cli.data.clips.training_clips import VideoClips
from dualformer_cli.data.lists.samples import LabelledList, Sample
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video import pyav_reader
from dualformer_cli.video.reader import FileIndex

DATA = DataConfig(
    clip=ClipConfig(num_frames=4, frame_interval=1),
    crop_size=32,
    decoder="pyav",
    train=TrainClipsConfig(short_side=32, area=(0.3, 1.0)),
)
RECIPE = TrainConfig(rand_augment_ops=1)
BROKEN = (2, 5)


@pytest.fixture(scope="module")
def videos(clip_drawer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Seven videos, of which one is broken and one missing."""
    folder = tmp_path_factory.mktemp("videos")
    paths = [folder / f"{index}.mp4" for index in range(7)]
    for index, path in enumerate(paths):
        if index not in BROKEN:
            clip_drawer(path, num_frames=8 + index, size=(48, 32))
    paths[BROKEN[0]].write_bytes(b"\0" * 100)
    return [str(path) for path in paths]


def steps(
    paths: list[str],
    pool: Any,
    *,
    rank: int = 0,
    world_size: int = 1,
    repeats: int = 1,
    batch_size: int = 3,
    **options: Any,
) -> list[list[Batch]]:
    plan = BatchPlan(
        num_samples=len(paths),
        batch_size=batch_size,
        accumulation=1,
        rank=rank,
        world_size=world_size,
        repeats=repeats,
    )
    listed = LabelledList("list.csv", [Sample(path) for path in paths], paths, [()] * len(paths), [], (), "0", False)
    source = VideoClips(listed, DATA, RECIPE, options.pop("indexes", None))
    seed, epoch = options.pop("seed", 1), options.pop("epoch", 0)
    order = options.pop("order", epoch_order(len(paths), seed=seed, epoch=epoch))
    return list(training_steps(source, plan, pool, order=order, seed=seed, epoch=epoch, **options))


def clips_of(batches: list[list[Batch]]) -> dict[tuple[int, int], bytes]:
    """The pixels of each (video, repeat)."""
    found: dict[tuple[int, int], bytes] = {}
    for batch in (batch for step in batches for batch in step):
        for sample, clip in zip(batch.samples, batch.clips, strict=True):
            repeat = sum(key[0] == sample for key in found)
            found[sample, repeat] = clip.tobytes()
    return found


sizes = st.integers(1, 6)


@given(st.integers(1, 100), sizes, sizes, sizes, sizes)
def test_every_video_is_read_once_an_epoch_by_any_number_of_ranks(
    num_samples: int, videos_per_batch: int, accumulation: int, world_size: int, repeats: int
) -> None:
    order = epoch_order(num_samples, seed=3, epoch=1)
    plans = [
        BatchPlan(
            num_samples=num_samples,
            batch_size=videos_per_batch * repeats,
            accumulation=accumulation,
            rank=rank,
            world_size=world_size,
            repeats=repeats,
        )
        for rank in range(world_size)
    ]
    seen: list[int] = []
    for step in range(plans[0].steps_per_epoch):
        of_ranks = [plan.videos(order, step) for plan in plans]
        assert all(len(passes) == accumulation for passes in of_ranks)
        for of_pass in zip(*of_ranks, strict=True):
            lengths = [len(videos) for videos in of_pass]
            assert max(lengths) <= videos_per_batch
            assert max(lengths) - min(lengths) <= 1
        of_step = [int(video) for passes in of_ranks for videos in passes for video in videos]
        assert of_step
        assert set(of_step) == set(order[len(seen) : len(seen) + len(of_step)].tolist())
        seen += of_step
    assert sorted(seen) == list(range(num_samples))


@given(st.integers(1, 60), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_a_step_holds_the_same_videos_on_any_number_of_ranks(num_samples: int, world_size: int) -> None:
    order = epoch_order(num_samples, seed=0, epoch=0)

    def videos(ranks: int, step: int) -> set[int]:
        plans = [
            BatchPlan(num_samples=num_samples, batch_size=12 // ranks, accumulation=1, rank=rank, world_size=ranks)
            for rank in range(ranks)
        ]
        return {int(video) for plan in plans for part in plan.videos(order, step) for video in part}

    for step in range(-(-num_samples // 12)):
        assert videos(world_size, step) == videos(1, step)


def test_the_order_changes_with_seed_and_epoch_only() -> None:
    order = epoch_order(50, seed=1, epoch=2)
    assert np.array_equal(order, epoch_order(50, seed=1, epoch=2))
    assert not np.array_equal(order, epoch_order(50, seed=1, epoch=3))
    assert not np.array_equal(order, epoch_order(50, seed=2, epoch=2))


def test_a_class_balanced_order_draws_classes_evenly() -> None:
    labels = [0] * 9000 + [1] * 900 + [2] * 100
    order = epoch_order(10000, seed=0, epoch=0, labels=labels)
    counts = np.bincount(np.array(labels)[order], minlength=3)
    assert counts.sum() == 10000
    assert np.abs(counts - 10000 / 3).max() < 250  # five standard deviations
    assert np.array_equal(order, epoch_order(10000, seed=0, epoch=0, labels=labels))


def test_a_batch_must_be_a_multiple_of_the_repeats() -> None:
    with pytest.raises(ValueError, match="batch_size 8 must be a multiple of repeats 3"):
        BatchPlan(num_samples=1, batch_size=8, accumulation=1, rank=0, world_size=1, repeats=3)


def test_clips_do_not_depend_on_ranks_or_where_an_epoch_begins(videos: list[str], here_pool: Any) -> None:
    whole = steps(videos, here_pool())
    expected = clips_of(whole)
    assert set(expected) == {(index, 0) for index in range(7) if index not in BROKEN}
    ranks = [clips_of(steps(videos, here_pool(), rank=rank, world_size=3, batch_size=1)) for rank in range(3)]
    assert {key: clip for found in ranks for key, clip in found.items()} == expected
    assert sum(map(len, ranks)) == len(expected)
    later = steps(videos, here_pool(), first_step=1)
    assert len(later) == len(whole) - 1
    for step, again in zip(whole[1:], later, strict=True):
        assert [batch.samples for batch in step] == [batch.samples for batch in again]
        assert all(np.array_equal(a.clips, b.clips) for a, b in zip(step, again, strict=True))
        assert all(np.array_equal(a.flipped, b.flipped) for a, b in zip(step, again, strict=True))
    assert clips_of(steps(videos, here_pool(), epoch=1)) != expected
    assert clips_of(steps(videos, here_pool(), seed=2)) != expected


def test_clips_are_the_same_in_page_locked_memory(
    videos: list[str], here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which only a machine with a GPU has: here ordinary memory stands for it, poisoned first."""
    asked, full = [], torch.full

    def empty(shape: Any, *, pin_memory: bool, **options: Any) -> torch.Tensor:
        asked.append(pin_memory)
        return full(shape, 255, **options)

    usual = clips_of(steps(videos, here_pool()))
    monkeypatch.setattr(torch, "empty", empty)
    assert clips_of(steps(videos, here_pool(), pin_memory=True)) == usual
    assert asked
    assert all(asked)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_clips_do_not_depend_on_the_number_of_workers(videos: list[str], here_pool: Any, num_workers: int) -> None:
    with WorkerPool(num_workers, 20.0, preload=["dualformer_cli.data.clips.training_clips"]) as pool:
        assert clips_of(steps(videos, pool)) == clips_of(steps(videos, here_pool()))


def test_later_epochs_read_no_file_as_a_whole_and_give_the_same_clips(
    videos: list[str], here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    readable = [path for index, path in enumerate(videos) if index not in BROKEN]
    indexes = IndexCache()
    steps(readable, here_pool(), indexes=indexes)
    expected = clips_of(steps(readable, here_pool(), epoch=1))
    monkeypatch.setattr(pyav_reader, "scan_file", lambda _: pytest.fail("read the whole file"))
    assert clips_of(steps(readable, here_pool(), epoch=1, indexes=indexes)) == expected


def test_indexes_take_up_no_more_memory_than_allowed() -> None:
    cache = IndexCache(max_bytes=2000)
    for number in range(10):
        cache.put(str(number), FileIndex(bytes(300)))
    assert [number for number in range(10) if cache.get(str(number)) is not None] == [0, 1, 2, 3]
    for _ in range(3):
        cache.put("0", FileIndex(bytes(200)))
    assert cache.get("0") == FileIndex(bytes(200))
    cache.put("3", FileIndex(bytes(1900)))
    assert cache.get("3") is None
    cache.put("4", FileIndex(bytes(300)))
    assert cache.get("4") is not None


def test_unreadable_videos_are_named_and_nothing_takes_their_place(videos: list[str], here_pool: Any) -> None:
    batches = [batch for step in steps(videos, here_pool()) for batch in step]
    missing = {path: reason for batch in batches for path, reason in batch.unreadable}
    assert set(missing) == {videos[index] for index in BROKEN}
    assert missing[videos[5]] == "no such file or folder"
    assert all(len(batch.clips) == len(batch.samples) == len(batch.flipped) for batch in batches)
    assert sum(len(batch.samples) for batch in batches) == 5
    assert sum(len(batch.samples) + len(batch.unreadable) for batch in batches) == 7
    assert all(batch.clips.shape[1:] == (4, 32, 32, 3) and batch.clips.dtype == np.uint8 for batch in batches)


def test_a_batch_of_unreadable_videos_only_is_empty(videos: list[str], here_pool: Any) -> None:
    [[batch]] = steps([videos[5]], here_pool())
    assert batch.clips.shape == (0, 4, 32, 32, 3)
    assert (batch.samples, len(batch.unreadable), batch.read_seconds) == ((), 1, 0.0)


def test_a_video_that_comes_twice_in_an_epoch_gives_different_clips(videos: list[str], here_pool: Any) -> None:
    [[batch]] = steps(videos[:2], here_pool(), order=np.array([1, 1]))
    assert batch.samples == (1, 1)
    assert batch.clips[0].tobytes() != batch.clips[1].tobytes()


def test_repeats_are_different_clips_of_one_video(videos: list[str], here_pool: Any) -> None:
    found = clips_of(steps(videos, here_pool(), repeats=3))
    assert len(found) == 15
    for index in set(range(7)) - set(BROKEN):
        assert len({found[index, repeat] for repeat in range(3)}) == 3


def test_a_bug_in_a_worker_costs_its_video_and_logs_its_traceback(
    videos: list[str], here_pool: Any, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    true_run = loader._run

    def run(read: Any) -> Any:
        if read.args[0] == videos[1]:
            raise ZeroDivisionError("no such number")
        return true_run(read)

    monkeypatch.setattr(loader, "_run", run)
    with caplog.at_level("DEBUG", logger="dualformer_cli"):
        [[batch]] = steps(videos[:2], here_pool())
    assert batch.unreadable == ((videos[1], "unexpected ZeroDivisionError: no such number; -v shows where"),)
    assert len(batch.clips) == 1
    assert "ZeroDivisionError: no such number" in caplog.text
