"""Clips of videos for training: what is random follows from the seed alone, and lies where it should.

Numbers of parts and crops are worked out by hand.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualformer_cli.config.schema import ClipConfig, DataConfig, TrainClipsConfig, TrainConfig
from dualformer_cli.data.clips import sampling, training_clips
from dualformer_cli.data.clips.augment_clip import rand_augment
from dualformer_cli.data.clips.crops import random_resized_crop
from dualformer_cli.data.clips.epoch_plan import BatchPlan
from dualformer_cli.data.clips.loader import training_steps
from dualformer_cli.data.clips.targets import swap_flipped_labels
from dualformer_cli.data.clips.training_clips import VideoClips, read_training_clips
from dualformer_cli.data.clips.transforms import resize_clip, resize_frame, resized_size
from dualformer_cli.data.lists.samples import LabelledList, Sample
from dualformer_cli.errors import TooShortError, VideoError
from dualformer_cli.video.parts import Part
from dualformer_cli.video.reader import VideoInfo

SEEDS = [(7, epoch, repeat) for epoch in range(3) for repeat in range(2)]


CLIP = {"num_frames", "frame_interval", "sampling"}
CUT = {"short_side", "area", "aspect", "flip"}
RECIPE = {"rand_augment_ops", "rand_augment_magnitude", "repeats"}


def sections(**changes: Any) -> tuple[DataConfig, TrainConfig]:
    """Small clips of every other frame, with these settings changed wherever they belong."""
    changes = {"num_frames": 4, "short_side": 40, "crop_size": 24, "antialias": False, **changes}
    clip, cut, recipe = ({key: changes.pop(key) for key in keys & set(changes)} for keys in (CLIP, CUT, RECIPE))
    return DataConfig(clip=ClipConfig(**clip), train=TrainClipsConfig(**cut), **changes), TrainConfig(**recipe)


def uncut(**changes: Any) -> tuple[DataConfig, TrainConfig]:
    """Clips of neighbouring frames that show all of them."""
    whole: dict[str, Any] = {"frame_interval": 1, "short_side": 64, "crop_size": 32, "antialias": True}
    whole |= {"area": (1.0, 1.0), "aspect": (1.0, 1.0), "flip": 0.0, "min_frames": 1, "decoder": "pyav"}
    return sections(**{**whole, **changes})


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class FakeReader:
    """A video whose frames are `pictures`, asked for as a VideoReader is."""

    def __init__(self, pictures, warnings=()):
        self.pictures = pictures
        num_frames, height, width, _ = pictures.shape
        self.info = VideoInfo(
            path="clip.mp4",
            num_frames=num_frames,
            fps=10.0,
            width=width,
            height=height,
            duration_seconds=num_frames / 10,
            codec="fake",
            decoder="pyav",
            rotation=0,
            is_seekable=True,
            warnings=("has a strange header",),
        )
        self.warnings = list(warnings)
        self.times_opened = 0
        self.index = None

    def __enter__(self):
        self.times_opened += 1
        return self

    def __exit__(self, *error):
        pass

    def read(self, indices, transform=None):
        return np.stack([transform(self.pictures[index]) for index in indices])


@pytest.fixture
def fake_video(monkeypatch):
    """The function fake_video(pictures, ...) -> the FakeReader that read_training_clips will open."""

    def make(pictures, **changes):
        reader = FakeReader(pictures, **changes)
        monkeypatch.setattr(training_clips, "open_video", lambda path, **options: reader)
        return reader

    return make


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def numbered(num_frames, height=48, width=64):
    """Frames that are grey, as many levels as their number."""
    return np.tile(np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (1, height, width, 3))


def straightforward_clip(frames, data, seed):
    """Do what the recipe says to whole frames, one step and one frame after the other."""
    rng = np.random.default_rng(seed)
    if data.clip.sampling == "segments":
        indices = sampling.segment_clip(len(frames), num_frames=data.clip.num_frames, rng=rng)
    else:
        indices = sampling.random_clip(
            len(frames), num_frames=data.clip.num_frames, frame_interval=data.clip.frame_interval, rng=rng
        )
    size = resized_size(*frames[0].shape[:2], data.train.short_side)
    box = random_resized_crop(*size, area=data.train.area, aspect=data.train.aspect, rng=rng)
    flipped = rng.random() < data.train.flip
    clip = []
    for index in indices:
        resized = resize_frame(np.ascontiguousarray(frames[index]), size, antialias=data.antialias)
        crop = np.ascontiguousarray(resized[box.y : box.y + box.height, box.x : box.x + box.width])
        image = resize_frame(crop, (data.crop_size, data.crop_size), antialias=data.antialias)
        clip.append(image[:, ::-1] if flipped else image)
    return np.stack(clip), flipped, indices


@pytest.mark.parametrize("name", ["h264.mp4", "h264_odd_size.mp4", "rotated_90.mp4"])
@pytest.mark.parametrize(
    "changes", [{}, {"antialias": True, "short_side": 32, "crop_size": 8}, {"sampling": "segments"}]
)
def test_clips_of_a_real_file_equal_those_of_whole_frames_step_by_step(clips, name, changes):
    data, train = sections(**changes)
    got = read_training_clips(str(clips.path(name)), data, train, SEEDS)
    assert got.clips.shape == (len(SEEDS), 4, data.crop_size, data.crop_size, 3)
    assert got.clips.dtype == np.uint8
    for clip, seed in enumerate(SEEDS):
        expected, flipped, indices = straightforward_clip(clips.frames(name), data, seed)
        np.testing.assert_array_equal(got.clips[clip], expected)
        np.testing.assert_array_equal(got.indices[clip], indices)
        assert got.flipped[clip] == flipped


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    short_side=st.integers(1, 60),
    crop_size=st.integers(1, 40),
    antialias=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_clips_of_any_frame_size_equal_those_of_whole_frames(height, width, short_side, crop_size, antialias, seed):
    assume(max(height, width) <= 32 * min(height, width))
    frames = noise(5, height, width, 3)
    data, train = sections(short_side=short_side, crop_size=crop_size, antialias=antialias, min_frames=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_clips, "open_video", lambda path, **options: FakeReader(frames))
        got = read_training_clips("clip.mp4", data, train, [(seed,), (seed, 1)])
    for clip, own_seed in enumerate([(seed,), (seed, 1)]):
        np.testing.assert_array_equal(got.clips[clip], straightforward_clip(frames, data, own_seed)[0])


@pytest.mark.parametrize("rand_augment_ops", [0, 2])
def test_a_clip_follows_from_its_seed_alone(fake_video, rand_augment_ops):
    reader = fake_video(noise(30, 48, 64, 3))
    data, train = sections(rand_augment_ops=rand_augment_ops)
    together = read_training_clips("clip.mp4", data, train, SEEDS)
    assert reader.times_opened == 1
    for order in (SEEDS[::-1], SEEDS[3:], [SEEDS[2]]):
        again = read_training_clips("clip.mp4", data, train, order)
        for clip, seed in enumerate(order):
            same = SEEDS.index(seed)
            np.testing.assert_array_equal(again.clips[clip], together.clips[same])
            assert again.flipped[clip] == together.flipped[same]
    assert len({clip.tobytes() for clip in together.clips}) == len(SEEDS)


def test_a_flip_mirrors_the_clip_and_changes_nothing_else(fake_video):
    fake_video(noise(30, 48, 64, 3))
    straight = read_training_clips("clip.mp4", *sections(flip=0.0), SEEDS)
    mirrored = read_training_clips("clip.mp4", *sections(flip=1.0), SEEDS)
    assert not straight.flipped.any()
    assert mirrored.flipped.all()
    assert mirrored.flipped.dtype == np.bool_
    np.testing.assert_array_equal(mirrored.clips, straight.clips[:, :, :, ::-1])


@pytest.mark.parametrize("rand_augment_ops", [0, 3])
def test_all_frames_of_a_clip_share_what_is_random(fake_video, rand_augment_ops):
    fake_video(np.tile(noise(1, 48, 64, 3), (30, 1, 1, 1)))
    data, train = sections(rand_augment_ops=rand_augment_ops)
    got = read_training_clips("clip.mp4", data, train, [(seed,) for seed in range(20)])
    for clip in got.clips:
        assert (clip == clip[0]).all()


def test_clips_show_the_chosen_frames(fake_video):
    fake_video(numbered(30))
    got = read_training_clips("clip.mp4", *sections(), SEEDS)
    assert (np.diff(got.indices, axis=1) == 2).all()
    assert len(set(got.indices[:, 0])) > 1
    np.testing.assert_array_equal(got.clips[..., 0], np.broadcast_to(got.indices[..., None, None], got.clips.shape[:4]))
    assert got.seconds > 0
    assert got.motion is None


@pytest.mark.parametrize("mode", ["interval", "segments"])
@pytest.mark.parametrize(("start", "num_frames", "allowed"), [(11, 9, range(11, 20)), (5, 90, range(5, 30))])
def test_clips_stay_in_the_listed_part_of_a_video(fake_video, mode, start, num_frames, allowed):
    fake_video(numbered(30))
    data, train = sections(sampling=mode)
    seeds = [(seed,) for seed in range(40)]
    got = read_training_clips("clip.mp4", data, train, seeds, part=Part(start, num_frames))
    assert set(got.indices.ravel()) <= set(allowed)
    assert got.indices.min() == allowed[0]
    assert got.indices.max() >= allowed[-1] - 1  # a clip takes up num_frames * frame_interval frames
    np.testing.assert_array_equal(got.clips[:, :, 0, 0, 0], got.indices)


def test_a_part_shorter_than_a_clip_wraps_around_inside_itself(fake_video):
    fake_video(numbered(30))
    got = read_training_clips("clip.mp4", *sections(), [(1,)], part=Part(10, 3))
    assert got.indices.tolist() == [[10, 12, 11, 10]]


def test_a_video_of_one_tiny_frame_makes_a_clip(fake_video):
    picture = noise(1, 1, 3, 3)
    fake_video(picture)
    got = read_training_clips("clip.mp4", *sections(min_frames=1), [(1,)])
    assert got.indices.tolist() == [[0, 0, 0, 0]]
    np.testing.assert_array_equal(got.clips[0], straightforward_clip(picture, sections()[0], (1,))[0])


@pytest.mark.parametrize(
    ("start", "num_frames", "message"),
    [
        (0, None, "'clip.mp4': has 3 frames; at least 5 are needed, or allow fewer with --set data.min_frames=1"),
        (2, None, "'clip.mp4': has 1 frame in the listed part (of 3); at least 5 are needed"),
        (9, 20, "'clip.mp4': has 0 frames in the listed part (of 3); at least 5 are needed"),
    ],
)
def test_a_video_that_is_too_short_is_named_with_its_length(fake_video, start, num_frames, message):
    fake_video(numbered(3))
    with pytest.raises(TooShortError) as raised:
        read_training_clips("clip.mp4", *sections(min_frames=5), [(1,)], part=Part(start, num_frames))
    assert message in str(raised.value)


def test_frames_too_long_for_their_width_are_named_with_their_size(fake_video):
    fake_video(numbered(9, height=2, width=66))
    with pytest.raises(VideoError, match="has frames of 66x2 pixels; one side may be at most 32 times the other"):
        read_training_clips("clip.mp4", *sections(), [(1,)])


@pytest.mark.parametrize("antialias", [False, True])
def test_every_setting_reaches_what_it_decides(monkeypatch, antialias):
    data, train = sections(
        num_frames=12,
        frame_interval=3,
        crop_size=28,
        antialias=antialias,
        min_frames=5,
        decoder="pyav",
        frame_rate=12.5,
        frame_name="img_{:05}.jpg",
        short_side=30,
        area=(0.2, 0.7),
        aspect=(0.6, 1.5),
        flip=0.25,
        rand_augment_ops=3,
        rand_augment_magnitude=6,
    )
    opened, pictures = [], noise(90, 75, 100, 3)
    monkeypatch.setattr(
        training_clips, "open_video", lambda path, **options: opened.append((path, options)) or FakeReader(pictures)
    )
    found = read_training_clips("frames", data, train, [(5,)])
    asked = {"decoder": "pyav", "frame_rate": 12.5, "frame_name": "img_{:05}.jpg", "index": None}
    assert opened == [("frames", asked)]
    rng = np.random.default_rng(5)
    indices = sampling.random_clip(90, num_frames=12, frame_interval=3, rng=rng)
    box = random_resized_crop(30, 40, area=(0.2, 0.7), aspect=(0.6, 1.5), rng=rng)
    is_flipped = rng.random() < 0.25
    resized = np.stack([resize_frame(pictures[index], (30, 40), antialias=antialias) for index in indices])
    rows, columns = box.window
    cut = resize_clip(resized[:, rows, columns], 28, antialias=antialias, flip=is_flipped)
    np.testing.assert_array_equal(found.clips[0], rand_augment(cut, 3, 6, rng))
    assert found.boxes[0].tolist() == [box.x / 40, box.y / 30, box.width / 40, box.height / 30]


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with pytest.raises(VideoError, match=r"notes\.mp4': a text file, not a video"):
        read_training_clips(str(path), *sections(), [(1,)])


def test_sections_and_clips_survive_the_trip_between_processes(fake_video):
    fake_video(numbered(9))
    got = read_training_clips("clip.mp4", *pickle.loads(pickle.dumps(sections())), SEEDS[:1])
    again = pickle.loads(pickle.dumps(got))
    np.testing.assert_array_equal(again.clips, got.clips)
    np.testing.assert_array_equal(again.boxes, got.boxes)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> str:
    """40 frames of 96x64 pixels."""
    return str(clip_drawer(tmp_path_factory.mktemp("clips") / "clip.mp4"))


def test_a_clip_of_a_part_has_the_frames_of_the_part(clip: str) -> None:
    seeds = [(number,) for number in range(30)]
    found = read_training_clips(clip, *uncut(), seeds, part=Part(20, 9))
    assert set(found.indices[:, 0]) == set(range(20, 26))  # 9 - 4 + 1 places to begin at
    assert (found.indices == found.indices[:, :1] + np.arange(4)).all()
    short = read_training_clips(clip, *uncut(frame_interval=3), [(0,)], part=Part(30, 5))
    assert short.indices.tolist() == [[30, 33, 31, 34]]  # too short: it wraps around inside of the part
    rest = read_training_clips(clip, *uncut(), seeds, part=Part(35))
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
    found = read_training_clips(clip, *uncut(aspect=(aspect, aspect)), [(1,)])
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

    def read(path: str, data: Any, train: Any, seeds: Any, *, part: Part, **_: Any) -> Any:
        calls.append((path, tuple(seeds), part.start, part.num_frames))
        raise Asked

    monkeypatch.setattr(training_clips, "read_training_clips", read)
    return calls


def read_all(here_pool: Any, samples: list[Sample], *, epoch: int = 0, repeats: int = 1, seed: int = 7) -> None:
    batches = BatchPlan(
        num_samples=len(samples), batch_size=2 * repeats, accumulation=1, rank=0, world_size=1, repeats=repeats
    )
    files = [f"/videos/{sample.path}" for sample in samples]
    listed = LabelledList("list.csv", samples, files, [sample.labels for sample in samples], ["a", "b"], (), "0", False)
    steps = training_steps(
        VideoClips(listed, *uncut()),
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


def test_reading_a_clip_of_a_file_loads_no_renderer(clip: str) -> None:
    script = f"""
import sys
from dualformer_cli.config.schema import DataConfig, TrainConfig
from dualformer_cli.data.clips import loader
from dualformer_cli.data.clips.training_clips import read_training_clips
read_training_clips({clip!r}, DataConfig(crop_size=32), TrainConfig(), [(1,)])
print(*sys.modules, sep="\\n")
"""
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "dualformer_cli.data.clips.training_clips" in loaded
    assert [name for name in loaded if name.startswith("dualformer_cli.data.camera_motion")] == []


def test_work_for_a_worker_stays_small(clip: str) -> None:
    """Beside the pixels that come back, megabytes, and however long the list is."""
    samples = [Sample(f"{number}.mp4") for number in range(1000)]
    names = [sample.path for sample in samples]
    listed = LabelledList("list.csv", samples, names, [()] * 1000, [], (), "0", False)
    read = VideoClips(listed, DataConfig(), TrainConfig()).read(5, ((1, 2, 3, 4),))
    assert len(pickle.dumps(read)) < 4000
