"""Training clips and mixed batches: what is random stays in range and follows from the seed alone."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualformer_cli.data.clips import augment, sampling
from dualformer_cli.data.clips.augment import (
    CROP_TRIES,
    ERASED_AREA,
    TrainPlan,
    mix_batch,
    one_hot,
    rand_augment,
    random_erasing,
    random_resized_crop,
    read_training_clips,
    resize_clip,
    swap_flipped_labels,
)
from dualformer_cli.data.clips.transforms import Box, resize_frame, resized_size
from dualformer_cli.errors import TooShortError, VideoError
from dualformer_cli.video.reader import VideoInfo

PLAN = TrainPlan(
    num_frames=4,
    frame_interval=2,
    sampling="interval",
    short_side=40,
    crop_size=24,
    area=(0.08, 1.0),
    aspect=(3 / 4, 4 / 3),
    flip=0.5,
    antialias=False,
    min_frames=2,
    decoder="auto",
    frame_rate=None,
    rand_augment_ops=0,
    rand_augment_magnitude=9,
    repeats=1,
    flip_labels=(),
)
SEEDS = [(7, epoch, repeat) for epoch in range(3) for repeat in range(2)]
OPS = ["identity", "autocontrast", "equalize", "posterize", "solarize", "color", "contrast", "brightness"]
OPS += ["sharpness", "rotate", "shear_x", "shear_y", "translate_x", "translate_y"]
SIDES = st.integers(1, 400)


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
        monkeypatch.setattr(augment, "open_video", lambda path, **options: reader)
        return reader

    return make


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def numbered(num_frames, height=48, width=64):
    """Frames that are grey, as many levels as their number."""
    return np.tile(np.arange(num_frames, dtype=np.uint8)[:, None, None, None], (1, height, width, 3))


def straightforward_clip(frames, plan, seed):
    """Do what the recipe says to whole frames, one step and one frame after the other."""
    rng = np.random.default_rng(seed)
    if plan.sampling == "segments":
        indices = sampling.segment_clip(len(frames), num_frames=plan.num_frames, rng=rng)
    else:
        indices = sampling.random_clip(
            len(frames), num_frames=plan.num_frames, frame_interval=plan.frame_interval, rng=rng
        )
    size = resized_size(*frames[0].shape[:2], plan.short_side)
    box = random_resized_crop(*size, area=plan.area, aspect=plan.aspect, rng=rng)
    flipped = rng.random() < plan.flip
    clip = []
    for index in indices:
        resized = resize_frame(np.ascontiguousarray(frames[index]), size, antialias=plan.antialias)
        crop = np.ascontiguousarray(resized[box.y : box.y + box.height, box.x : box.x + box.width])
        image = resize_frame(crop, (plan.crop_size, plan.crop_size), antialias=plan.antialias)
        clip.append(image[:, ::-1] if flipped else image)
    return np.stack(clip), flipped, indices


@pytest.mark.parametrize("name", ["h264.mp4", "h264_odd_size.mp4", "rotated_90.mp4"])
@pytest.mark.parametrize(
    "changes", [{}, {"antialias": True, "short_side": 32, "crop_size": 8}, {"sampling": "segments"}]
)
def test_clips_of_a_real_file_equal_those_of_whole_frames_step_by_step(clips, name, changes):
    plan = replace(PLAN, **changes)
    got = read_training_clips(str(clips.path(name)), plan, SEEDS)
    assert got.clips.shape == (len(SEEDS), plan.num_frames, plan.crop_size, plan.crop_size, 3)
    assert got.clips.dtype == np.uint8
    for clip, seed in enumerate(SEEDS):
        expected, flipped, indices = straightforward_clip(clips.frames(name), plan, seed)
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
    plan = replace(PLAN, short_side=short_side, crop_size=crop_size, antialias=antialias, min_frames=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, "open_video", lambda path, **options: FakeReader(frames))
        got = read_training_clips("clip.mp4", plan, [(seed,), (seed, 1)])
    for clip, own_seed in enumerate([(seed,), (seed, 1)]):
        np.testing.assert_array_equal(got.clips[clip], straightforward_clip(frames, plan, own_seed)[0])


@pytest.mark.parametrize("rand_augment_ops", [0, 2])
def test_a_clip_follows_from_its_seed_alone(fake_video, rand_augment_ops):
    reader = fake_video(noise(30, 48, 64, 3))
    plan = replace(PLAN, rand_augment_ops=rand_augment_ops)
    together = read_training_clips("clip.mp4", plan, SEEDS)
    assert reader.times_opened == 1
    for order in (SEEDS[::-1], SEEDS[3:], [SEEDS[2]]):
        again = read_training_clips("clip.mp4", plan, order)
        for clip, seed in enumerate(order):
            same = SEEDS.index(seed)
            np.testing.assert_array_equal(again.clips[clip], together.clips[same])
            assert again.flipped[clip] == together.flipped[same]
    assert len({clip.tobytes() for clip in together.clips}) == len(SEEDS)


def test_a_flip_mirrors_the_clip_and_changes_nothing_else(fake_video):
    fake_video(noise(30, 48, 64, 3))
    straight = read_training_clips("clip.mp4", replace(PLAN, flip=0.0), SEEDS)
    mirrored = read_training_clips("clip.mp4", replace(PLAN, flip=1.0), SEEDS)
    assert not straight.flipped.any()
    assert mirrored.flipped.all()
    assert mirrored.flipped.dtype == np.bool_
    np.testing.assert_array_equal(mirrored.clips, straight.clips[:, :, :, ::-1])


@pytest.mark.parametrize("rand_augment_ops", [0, 3])
def test_all_frames_of_a_clip_share_what_is_random(fake_video, rand_augment_ops):
    fake_video(np.tile(noise(1, 48, 64, 3), (30, 1, 1, 1)))
    plan = replace(PLAN, rand_augment_ops=rand_augment_ops)
    got = read_training_clips("clip.mp4", plan, [(seed,) for seed in range(20)])
    for clip in got.clips:
        assert (clip == clip[0]).all()


def test_clips_show_the_frames_that_were_drawn(fake_video):
    fake_video(numbered(30), warnings=("has a strange header", "is odd at the end"))
    got = read_training_clips("clip.mp4", PLAN, SEEDS)
    assert (np.diff(got.indices, axis=1) == PLAN.frame_interval).all()
    assert len(set(got.indices[:, 0])) > 1
    np.testing.assert_array_equal(got.clips[..., 0], np.broadcast_to(got.indices[..., None, None], got.clips.shape[:4]))
    assert got.info.num_frames == 30
    assert got.warnings == ("has a strange header", "is odd at the end")
    assert got.decode_seconds >= 0
    assert got.preprocess_seconds > 0


@pytest.mark.parametrize("mode", ["interval", "segments"])
@pytest.mark.parametrize(("start", "num_frames", "allowed"), [(11, 9, range(11, 20)), (5, 90, range(5, 30))])
def test_clips_stay_in_the_listed_part_of_a_video(fake_video, mode, start, num_frames, allowed):
    fake_video(numbered(30))
    plan = replace(PLAN, sampling=mode)
    seeds = [(seed,) for seed in range(40)]
    got = read_training_clips("clip.mp4", plan, seeds, start=start, num_frames=num_frames)
    assert set(got.indices.ravel()) <= set(allowed)
    assert got.indices.min() == allowed[0]
    assert got.indices.max() >= allowed[-1] - 1  # a clip takes up num_frames * frame_interval frames
    np.testing.assert_array_equal(got.clips[:, :, 0, 0, 0], got.indices)


def test_a_part_shorter_than_a_clip_wraps_around_inside_itself(fake_video):
    fake_video(numbered(30))
    got = read_training_clips("clip.mp4", PLAN, [(1,)], start=10, num_frames=3)
    assert got.indices.tolist() == [[10, 12, 11, 10]]


def test_a_video_of_one_tiny_frame_makes_a_clip(fake_video):
    picture = noise(1, 1, 3, 3)
    fake_video(picture)
    got = read_training_clips("clip.mp4", replace(PLAN, min_frames=1), [(1,)])
    assert got.indices.tolist() == [[0, 0, 0, 0]]
    np.testing.assert_array_equal(got.clips[0], straightforward_clip(picture, PLAN, (1,))[0])


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
        read_training_clips("clip.mp4", replace(PLAN, min_frames=5), [(1,)], start=start, num_frames=num_frames)
    assert message in str(raised.value)


def test_frames_too_long_for_their_width_are_named_with_their_size(fake_video):
    fake_video(numbered(9, height=2, width=66))
    with pytest.raises(VideoError, match="has frames of 66x2 pixels; one side may be at most 32 times the other"):
        read_training_clips("clip.mp4", PLAN, [(1,)])


def test_a_file_that_is_no_video_is_named(tmp_path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with pytest.raises(VideoError, match=r"notes\.mp4': a text file, not a video"):
        read_training_clips(str(path), PLAN, [(1,)])


def test_plans_and_clips_survive_the_trip_between_processes(fake_video):
    fake_video(numbered(9))
    got = read_training_clips("clip.mp4", pickle.loads(pickle.dumps(PLAN)), SEEDS[:1])
    again = pickle.loads(pickle.dumps(got))
    np.testing.assert_array_equal(again.clips, got.clips)
    assert again.info == got.info


@settings(max_examples=300, deadline=None)
@given(
    height=SIDES,
    width=SIDES,
    area=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    aspect=st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_crop_lies_in_the_frame_and_keeps_its_area_and_aspect(height, width, area, aspect, seed):
    box = random_resized_crop(height, width, area=tuple(area), aspect=tuple(aspect), rng=np.random.default_rng(seed))
    x, y, w, h = box
    assert 0 <= x < x + w <= width
    assert 0 <= y < y + h <= height
    # Before its sides were rounded the crop had this aspect, if it could have it at all.
    assert (w - 0.5) / (h + 0.5) <= aspect[1] * (1 + 1e-9) or w == 1
    assert (w + 0.5) / max(h - 0.5, 1e-9) >= aspect[0] * (1 - 1e-9) or h == 1
    is_largest_central = (x, y) == ((width - w) // 2, (height - h) // 2) and (w == width or h == height)
    if not is_largest_central:
        assert (w - 0.5) * (h - 0.5) <= area[1] * height * width * (1 + 1e-9)
        assert (w + 0.5) * (h + 0.5) >= area[0] * height * width * (1 - 1e-9)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 1000, Box(493, 0, 13, 10)), (1000, 10, Box(0, 493, 10, 13)), (300, 300, Box(0, 0, 300, 300))],
)
def test_a_frame_that_holds_no_size_drawn_gives_its_largest_central_crop(height, width, box):
    class Largest:
        def uniform(self, low, high, size):
            assert size == CROP_TRIES
            return np.full(size, high)

    assert random_resized_crop(height, width, area=(1.0, 1.1), aspect=(0.75, 4 / 3), rng=Largest()) == box


def test_crops_spread_evenly_over_area_log_aspect_and_place():
    rng = np.random.default_rng(0)
    boxes = np.array([random_resized_crop(2000, 2000, area=(0.1, 0.3), aspect=(0.5, 2), rng=rng) for _ in range(4000)])
    x, y, w, h = boxes.T
    for values, low, high in [
        (w * h / 2000**2, 0.1, 0.3),
        (np.log(w / h), -math.log(2), math.log(2)),
        (x / (2000 - w), 0, 1),
        (y / (2000 - h), 0, 1),
    ]:
        counts, _ = np.histogram(values, bins=8, range=(low, high))
        assert counts.sum() >= 3990  # rounding may leave a few just outside
        assert abs(counts - 500).max() < 100  # 4.8 standard deviations


@settings(max_examples=50, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    size=st.integers(1, 40),
    antialias=st.booleans(),
    flip=st.booleans(),
)
def test_a_clip_is_resized_as_its_frames_are(height, width, size, antialias, flip):
    frames = noise(3, height + 2, width + 5, 3)[:, 1:-1, 3:-2]
    got = resize_clip(frames, size, antialias=antialias, flip=flip)
    expected = np.stack(
        [resize_frame(np.ascontiguousarray(frame), (size, size), antialias=antialias) for frame in frames]
    )
    np.testing.assert_array_equal(got, expected[:, :, ::-1] if flip else expected)


class Chosen:
    """Draws one op, in one direction."""

    def __init__(self, op, sign=1):
        self.op, self.sign = OPS.index(op), sign

    def integers(self, high):
        assert high == len(OPS)
        return self.op

    def random(self):
        return 0.0 if self.sign > 0 else 0.9


def augmented(op, clip, magnitude=10.0, sign=1):
    return rand_augment(clip, 1, magnitude, Chosen(op, sign))


@pytest.mark.parametrize("op", [op for op in OPS if op not in ("autocontrast", "equalize")])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_op_of_no_magnitude_changes_nothing(op, sign):
    clip = noise(2, 21, 21, 3)
    np.testing.assert_array_equal(augmented(op, clip, magnitude=0, sign=sign), clip)


@pytest.mark.parametrize("op", OPS[1:])
def test_every_op_but_one_changes_the_clip(op):
    clip = noise(2, 20, 20, 3) // 2
    got = augmented(op, clip)
    assert got.shape == clip.shape
    assert got.dtype == np.uint8
    assert (got != clip).any()


def test_ops_of_full_magnitude_do_what_they_say():
    clip = noise(2, 20, 20, 3)
    np.testing.assert_array_equal(augmented("identity", clip), clip)
    np.testing.assert_array_equal(augmented("solarize", clip), 255 - clip)
    np.testing.assert_array_equal(augmented("posterize", clip), clip & 0xF0)
    np.testing.assert_array_equal(augmented("translate_x", clip)[:, :, :-9], clip[:, :, 9:])
    np.testing.assert_array_equal(augmented("translate_x", clip, sign=-1)[:, :, 9:], clip[:, :, :-9])
    np.testing.assert_array_equal(augmented("translate_y", clip)[:, :-9], clip[:, 9:])
    assert (augmented("translate_y", clip)[:, -9:] == (124, 116, 104)).all()
    darker = augmented("brightness", clip, sign=-1)
    assert np.abs(darker - 0.1 * clip).max() <= 1
    grey = augmented("color", clip, sign=-1)
    assert np.ptp(grey.astype(int), axis=-1).max() <= 0.1 * 255 + 1


def test_a_shear_moves_the_rows_apart_and_keeps_the_middle():
    clip = np.zeros((1, 21, 21, 3), np.uint8)
    clip[:, :, 10] = 255
    got = augmented("shear_x", clip)
    columns = got[0, :, :, 0].argmax(axis=1)
    np.testing.assert_allclose(columns, 10 - 0.3 * (np.arange(21) - 10), atol=0.51)


def test_a_rotation_turns_about_the_middle_by_thirty_degrees():
    clip = np.zeros((1, 101, 101, 3), np.uint8)
    clip[:, 50, 90] = clip[:, 50, 50] = 255
    for sign in (1, -1):
        lit = {(y, x) for y, x in zip(*np.nonzero(augmented("rotate", clip, sign=sign)[0, :, :, 0]), strict=True)}
        assert (50, 50) in lit
        end = (50 + sign * 40 * math.sin(math.radians(30)), 50 + 40 * math.cos(math.radians(30)))
        assert any(math.dist(end, place) < 1 for place in lit), (sign, lit)


def test_histograms_are_taken_over_the_clip_so_that_it_does_not_flicker():
    clip = np.full((2, 8, 8, 3), 100, np.uint8)
    clip[1] = 150
    np.testing.assert_array_equal(augmented("autocontrast", clip)[:, 0, 0, 0], [0, 255])
    np.testing.assert_array_equal(np.argsort(augmented("equalize", clip)[:, 0, 0, 0]), [0, 1])


def test_sharpness_does_not_blend_one_frame_into_the_next():
    clip = np.zeros((4, 8, 8, 3), np.uint8)
    clip[::2] = 255
    np.testing.assert_array_equal(augmented("sharpness", clip, sign=-1), clip)


def test_mirrored_clips_swap_the_classes_of_each_pair():
    labels = [(0,), (1,), (5,), (1, 5, 3), (0,)]
    flipped = np.array([True, True, True, True, False])
    assert swap_flipped_labels(labels, flipped, ((0, 1), (3, 4))) == [(1,), (0,), (5,), (0, 5, 4), (0,)]
    assert swap_flipped_labels(labels, flipped, ()) == labels


def test_targets_hold_each_label_and_spread_the_smoothing():
    torch.testing.assert_close(one_hot([(2,), (0,)], 4), torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]]))
    smooth = one_hot([(2,)], 4, 0.2)
    torch.testing.assert_close(smooth, torch.tensor([[0.05, 0.05, 0.85, 0.05]]))
    torch.testing.assert_close(one_hot([(0, 3), ()], 4), torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]]))
    assert one_hot([], 4).shape == (0, 4)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class_is_named(label):
    with pytest.raises(ValueError, match=f"label {label} is not one of the 4 classes"):
        one_hot([(1,), (label,)], 4)


def batch(num_clips, height=12, width=16):
    """Clips of constant brightness i for clip i, channels last in memory as `normalize` makes them, and targets."""
    levels = torch.arange(num_clips, dtype=torch.float32)
    clips = levels.view(-1, 1, 1, 1, 1).expand(-1, 2, height, width, 3).contiguous().permute(0, 4, 1, 2, 3)
    return clips, one_hot([(i,) for i in range(num_clips)], num_clips)


@settings(max_examples=100, deadline=None)
@given(
    num_clips=st.integers(2, 6),
    alphas=st.sampled_from([(0.8, 0.0), (0.0, 1.0), (0.2, 0.7)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_mixed_targets_sum_to_one_and_say_what_the_clip_shows(num_clips, alphas, seed):
    clips, targets = batch(num_clips)
    before = clips.clone()
    rng = np.random.default_rng(seed)
    got, mixed = mix_batch(clips, targets, mixup_alpha=alphas[0], cutmix_alpha=alphas[1], rng=rng)
    torch.testing.assert_close(mixed.sum(dim=1), torch.ones(num_clips))
    shown = got.mean(dim=(1, 2, 3, 4))
    torch.testing.assert_close(shown, mixed @ torch.arange(num_clips, dtype=torch.float32), rtol=1e-4, atol=1e-4)
    assert (mixed > 0).sum(dim=1).max() <= 2
    assert torch.equal(clips, before)
    assert got.stride() == clips.stride()
    assert torch.equal(got[:, :, 0], got[:, :, 1])  # all frames alike


def test_mixing_follows_from_the_generator_alone():
    clips, targets = batch(5)
    options = {"mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    runs = [mix_batch(clips, targets, **options, rng=np.random.default_rng(seed)) for seed in [3, 3, 4]]
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][0], runs[2][0])


def test_both_kinds_of_mixing_take_turns():
    clips, targets = batch(3)
    rngs = [np.random.default_rng(seed) for seed in range(40)]
    mixed = [mix_batch(clips, targets, mixup_alpha=0.8, cutmix_alpha=1.0, rng=rng)[0] for rng in rngs]
    num_blended = sum(bool((clip != clip.round()).any()) for clip in mixed)
    assert 10 < num_blended < 30


def test_nothing_is_mixed_when_off_or_alone():
    clips, targets = batch(3)
    rng = np.random.default_rng(0)
    off = mix_batch(clips, targets, mixup_alpha=0.0, cutmix_alpha=0.0, rng=rng)
    assert off[0] is clips
    assert off[1] is targets
    alone = mix_batch(clips[:1], targets[:1], mixup_alpha=1.0, cutmix_alpha=1.0, rng=rng)
    assert torch.equal(alone[0], clips[:1])
    assert torch.equal(alone[1], targets[:1])
    nobody = mix_batch(clips[:0], targets[:0], mixup_alpha=1.0, cutmix_alpha=1.0, rng=rng)
    assert nobody[0].shape[0] == 0


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_an_erased_box_is_the_same_in_all_frames_and_within_its_share(seed):
    clips = batch(3, 30, 40)[0] + 1
    got = random_erasing(clips, 1.0, np.random.default_rng(seed))
    assert torch.equal(got, random_erasing(clips, 1.0, np.random.default_rng(seed)))
    assert got.stride() == clips.stride()
    assert (clips > 0).all()
    for clip, before in zip(got, clips, strict=True):
        erased = clip == 0
        assert torch.equal(erased, erased[:1, :1].expand_as(erased))
        assert torch.equal(clip[~erased], before[~erased])
        rows, columns = erased[0, 0].nonzero(as_tuple=True)
        sides = (int(np.ptp(rows.numpy())) + 1, int(np.ptp(columns.numpy())) + 1)
        assert len(rows) == sides[0] * sides[1]
        assert ERASED_AREA[0] * 0.8 < len(rows) / 1200 < ERASED_AREA[1] * 1.1


def test_clips_are_erased_with_the_probability_given():
    clips = batch(200)[0] + 1
    assert random_erasing(clips, 0.0, np.random.default_rng(0)) is clips
    erased = (random_erasing(clips, 0.25, np.random.default_rng(0)) == 0).flatten(1).any(dim=1)
    assert 30 < int(erased.sum()) < 70
