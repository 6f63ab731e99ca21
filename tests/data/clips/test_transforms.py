"""Resize, crop and normalisation: the published numbers, and what must hold for any frame."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dualformer_cli.data.clips import transforms
from dualformer_cli.data.clips.crops import CROP_TRIES, Box, random_resized_crop
from dualformer_cli.data.clips.transforms import FrameSizeError, FrameTransform, resize_clip, resize_frame

RECIPES = {  # name in the golden file: (short side, crops)
    "k400_test_center": (224, 1),
    "k400_val_center_256": (256, 1),
    "three_crop": (224, 3),
    "diving48_three_crop": (224, 3),
}

SIDES = st.integers(1, 400)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def golden_frame(pattern):
    """The function golden_frame(height, width) -> the golden file's frame of that size."""

    def make(height, width):
        small = torch.from_numpy(pattern(f"frame-{height}x{width}", (3, 12, 16)))
        large = F.interpolate(small[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        return ((large + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    return make


@pytest.mark.parametrize("recipe", RECIPES)
def test_views_equal_the_published_ones_within_a_grey_level(recipe, golden, golden_frame):
    preprocess = golden("golden_recipe")["preprocess"]
    mean, std = preprocess["mean"], preprocess["std"]
    if recipe.startswith("diving48"):
        mean, std = [104.0, 117.0, 128.0], [1.0, 1.0, 1.0]
    short_side, num_crops = RECIPES[recipe]
    for case in preprocess[recipe]:
        height, width = case["source_hw"]
        resized_hw = transforms.resized_size(height, width, short_side)
        assert list(resized_hw) == case["resized_hw"]
        offsets = transforms.crop_offsets(*resized_hw, 224, num_crops)
        assert [list(offset) for offset in offsets] == case["crop_offsets_xy"]

        cut = FrameTransform(short_side=short_side, crop_size=224, num_crops=num_crops, antialias=False)
        crops = cut(golden_frame(height, width))
        views = transforms.normalize(torch.from_numpy(crops)[:, None], mean, std, torch.float32)[:, :, 0]
        expected = case["normalized"]
        assert list(views.shape) == expected["shape"]
        values = views.flatten()[expected["index"]].numpy()
        grey_level = 1.001 / min(std)
        np.testing.assert_allclose(values, expected["value"], rtol=0, atol=grey_level)
        assert np.abs(values - expected["value"]).mean() < 0.5 * grey_level
        # The golden resize rounds down more often than to the nearest: 0.14 of a grey level darker on average.
        assert abs(views.mean().item() - expected["mean"]) < 0.2 * grey_level
        assert abs(views.std().item() - expected["std"]) < 0.2 * grey_level


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 512))
def test_resizing_brings_the_short_side_to_its_length_and_keeps_the_shape(height, width, short_side):
    new_height, new_width = transforms.resized_size(height, width, short_side)
    assert min(new_height, new_width) == short_side
    assert (new_height >= new_width) == (height >= width) or new_height == new_width
    scale = short_side / min(height, width)
    assert abs(max(new_height, new_width) - max(height, width) * scale) <= 0.5 + 1e-6


@given(st.integers(8, 600), st.integers(8, 600), st.integers(1, 8), st.sampled_from([1, 3]))
def test_crops_lie_inside_the_frame_and_the_last_is_the_centre(height, width, crop_size, num_crops):
    offsets = transforms.crop_offsets(height, width, crop_size, num_crops)
    assert len(offsets) == num_crops
    for x, y in offsets:
        assert 0 <= x <= width - crop_size
        assert 0 <= y <= height - crop_size
    assert offsets[-1] == ((width - crop_size) // 2, (height - crop_size) // 2)


def test_three_crops_follow_the_long_side_and_centre_the_other():
    assert transforms.crop_offsets(256, 455, 224, 3) == [(0, 16), (230, 16), (115, 16)]
    assert transforms.crop_offsets(455, 256, 224, 3) == [(16, 0), (16, 230), (16, 115)]


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)), st.tuples(st.integers(1, 60), st.integers(1, 60)), st.booleans()
)
def test_resized_frames_stay_within_the_range_of_their_source(source, size, antialias):
    frame = np.random.default_rng(0).integers(50, 200, (*source, 3), dtype=np.uint8)
    resized = transforms.resize_frame(frame, size, antialias=antialias)
    assert resized.shape == (*size, 3)
    assert resized.dtype == np.uint8
    assert frame.min() <= resized.min()
    assert resized.max() <= frame.max()


@settings(max_examples=20, deadline=None)
@given(st.tuples(st.integers(2, 60), st.integers(2, 60)), st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_resize_agrees_with_float64_bilinear_within_a_grey_level(source, size):
    frame = np.random.default_rng(1).integers(0, 256, (*source, 3), dtype=np.uint8)
    exact = F.interpolate(torch.from_numpy(frame).permute(2, 0, 1)[None].double(), size=size, mode="bilinear")
    resized = transforms.resize_frame(frame, size, antialias=False)
    assert np.abs(resized - exact[0].permute(1, 2, 0).numpy()).max() < 1.1


def test_antialiasing_starts_above_a_shrink_of_one_and_a_half():
    frame = np.random.default_rng(2).integers(0, 256, (90, 90, 3), dtype=np.uint8)

    def differs(side):
        plain = transforms.resize_frame(frame, (side, side), antialias=False)
        return bool((plain != transforms.resize_frame(frame, (side, side), antialias=True)).any())

    assert not differs(120)
    assert not differs(60)
    assert differs(59)


def test_a_frame_that_has_the_size_already_is_not_touched():
    frame = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    assert transforms.resize_frame(frame, (20, 30), antialias=True) is frame


def test_frames_that_are_views_in_memory_give_the_same_pixels():
    frame = np.random.default_rng(4).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    cut = FrameTransform(short_side=16, crop_size=16, num_crops=3, antialias=True)
    rotated = np.rot90(frame)
    np.testing.assert_array_equal(cut(rotated), cut(np.ascontiguousarray(rotated)))


def test_frames_that_may_not_be_written_are_resized_without_a_warning(recwarn):
    frame = np.random.default_rng(5).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    frame.flags.writeable = False
    assert transforms.resize_frame(frame, (8, 6), antialias=False).shape == (8, 6, 3)
    assert not recwarn.list


def test_crops_are_cut_in_order_and_own_their_memory():
    frame = np.zeros((16, 32, 3), dtype=np.uint8)
    frame[:, :, 0] = np.arange(32)
    crops = FrameTransform(short_side=16, crop_size=16, num_crops=3, antialias=False)(frame)
    assert crops.shape == (3, 16, 16, 3)
    assert crops[:, 0, 0, 0].tolist() == [0, 16, 8]
    assert crops.base is None


@pytest.mark.parametrize(("height", "width"), [(20, 20_000), (20_000, 20), (1, 33), (0, 5)])
def test_frames_that_are_far_too_long_are_refused_by_size(height, width):
    cut = FrameTransform(short_side=224, crop_size=224, num_crops=1, antialias=False)
    message = f"has frames of {width}x{height} pixels; one side may be at most 32 times the other"
    with pytest.raises(FrameSizeError, match=message):
        cut(np.zeros((height, width, 3), dtype=np.uint8))
    cut.check(1, 32)


def test_a_frame_transform_survives_pickling():
    cut = FrameTransform(short_side=256, crop_size=224, num_crops=3, antialias=True)
    assert pickle.loads(pickle.dumps(cut)) == cut


def test_crops_that_do_not_fit_and_odd_numbers_of_crops_are_named():
    with pytest.raises(ValueError, match="crop of 224 pixels does not fit into a frame of 300x200"):
        transforms.crop_offsets(200, 300, 224, 1)
    with pytest.raises(ValueError, match="num_crops must be 1 or 3, got 2"):
        transforms.crop_offsets(300, 300, 224, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_normalised_clips_are_channels_last_in_memory(dtype):
    clips = torch.randint(0, 256, (2, 3, 4, 5, 3), dtype=torch.uint8)
    mean, std = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    result = transforms.normalize(clips, mean, std, dtype)
    assert result.shape == (2, 3, 3, 4, 5)
    assert result.dtype == dtype
    assert result.permute(0, 2, 3, 4, 1).is_contiguous()
    expected = (clips.permute(0, 4, 1, 2, 3).double() - torch.tensor(mean).view(3, 1, 1, 1)) / torch.tensor(std).view(
        3, 1, 1, 1
    )
    torch.testing.assert_close(result.double(), expected, rtol=1e-2 if dtype != torch.float32 else 1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_normalising_in_pieces_gives_the_bits_of_the_plain_formula(dtype):
    clips = torch.randint(0, 256, (2, 3, 5, 7, 3), dtype=torch.uint8)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    for view in (clips, clips[:, :, 1:, ::2]):
        result = transforms.normalize(view, mean.tolist(), std.tolist(), dtype)
        assert torch.equal(result.permute(0, 2, 3, 4, 1), ((view.float() - mean) / std).to(dtype))


@pytest.mark.parametrize("like", [(2, 3, 2, 5, 7), (2, 3, 2, 7, 5), (1, 3, 2, 5, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_memory_of_a_spent_batch_is_taken_only_where_it_fits(like, dtype):
    old, clips = torch.randint(0, 256, (2, 2, 2, 5, 7, 3), dtype=torch.uint8)
    colours = [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]
    for spent in (transforms.normalize(old, *colours, torch.float32), torch.zeros(like)):
        before = spent.clone()
        result = transforms.normalize(clips, *colours, dtype, spent=spent)
        assert torch.equal(result, transforms.normalize(clips, *colours, dtype))
        assert result.permute(0, 2, 3, 4, 1).is_contiguous()
        fits = dtype == spent.dtype and spent.permute(0, 2, 3, 4, 1).is_contiguous() and spent.shape == result.shape
        assert (result.data_ptr() == spent.data_ptr()) == fits
        assert fits or torch.equal(spent, before)


@settings(max_examples=200, deadline=None)
@given(
    side=st.sampled_from([144, 240, 256, 272, 320, 360, 480]) | st.integers(1, 90),
    other=st.sampled_from([176, 340, 426, 568, 640]) | st.integers(1, 90),
    short_side=st.sampled_from([224, 256]) | st.integers(1, 60),
    antialias=st.booleans(),
    data=st.data(),
)
def test_a_part_of_a_resized_frame_has_the_values_of_the_whole(side, other, short_side, antialias, data):
    assume(max(side, other) <= 32 * min(side, other))
    height, width = data.draw(st.permutations([side, other]))
    size = transforms.resized_size(height, width, short_side)
    y, x = (data.draw(st.integers(0, length - 1)) for length in size)
    h, w = (data.draw(st.integers(1, length - start)) for length, start in zip(size, (y, x), strict=True))
    assert_same_part(height, width, size, transforms.Box(x, y, w, h), antialias=antialias)


@pytest.mark.parametrize(
    ("height", "width", "size", "box"),
    [
        # Both widths odd: only the column in the middle has a weight of 1, which makes all weights coarser.
        (473, 545, (188, 217), (75, 37, 15, 145)),
        (99, 101, (33, 51), (0, 0, 10, 33)),
        # Twice the same size: the columns up to the box are as many as the frame has.
        (144, 176, (256, 313), (100, 20, 76, 50)),
        (144, 176, (256, 313), (0, 0, 176, 256)),
        # The usual ones: from the left, the right, the middle, all.
        (272, 640, (256, 602), (0, 0, 100, 100)),
        (272, 640, (256, 602), (502, 156, 100, 100)),
        (272, 640, (256, 602), (250, 70, 100, 100)),
        (272, 640, (256, 602), (0, 0, 602, 256)),
    ],
)
def test_columns_that_are_left_out_change_nothing_in_the_others(height, width, size, box):
    assert_same_part(height, width, size, transforms.Box(*box), antialias=False)


def assert_same_part(height, width, size, box, *, antialias):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    part = transforms.resize_and_cut(frame, size, box, antialias=antialias)
    whole = transforms.resize_frame(frame, size, antialias=antialias)
    np.testing.assert_array_equal(part, whole[box.window])


def test_normalise_refuses_what_is_not_a_stack_of_uint8_views():
    with pytest.raises(ValueError, match=r"uint8 of shape \(b, T, H, W, 3\), got torch.float32 \(1, 2, 4, 4, 3\)"):
        transforms.normalize(torch.zeros(1, 2, 4, 4, 3), [0.0] * 3, [1.0] * 3, torch.float32)


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


def test_a_crop_may_touch_every_edge_of_the_frame():
    options = {"area": (0.3, 0.3), "aspect": (1.0, 1.0)}  # 5x5 pixels
    boxes = [random_resized_crop(8, 10, **options, rng=np.random.default_rng(seed)) for seed in range(100)]
    assert {box.x for box in boxes} == set(range(6))
    assert {box.y for box in boxes} == set(range(4))


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
