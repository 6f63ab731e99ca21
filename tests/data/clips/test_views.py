"""Views of one video: the right frames in the right order, read once, and errors that name the video."""

from __future__ import annotations

import pickle
from dataclasses import replace

import av
import numpy as np
import pytest

from dualformer_cli.config.schema import ClipConfig, DataConfig, ViewsConfig
from dualformer_cli.data.clips import sampling
from dualformer_cli.data.clips import views as views_module
from dualformer_cli.data.clips.transforms import FrameTransform
from dualformer_cli.data.clips.views import read_views
from dualformer_cli.errors import TooShortError, VideoError
from dualformer_cli.video import pyav_reader
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import Part
from dualformer_cli.video.reader import VideoInfo

DATA = DataConfig(clip=ClipConfig(num_frames=4), crop_size=16, antialias=False)
VIEWS = ViewsConfig(num_clips=2, short_side=16)


def with_clip(**changes):
    """DATA with other settings of the clip."""
    return replace(DATA, clip=replace(DATA.clip, **changes))


class FakeReader:
    """A video whose frame i has the value i in red and the column in green."""

    def __init__(self, num_frames, *, height=16, width=32, fps=10.0, times=True, warnings=()):
        self.info = VideoInfo(
            path="clip.mp4",
            num_frames=num_frames,
            fps=fps,
            width=width,
            height=height,
            duration_seconds=None if fps is None else num_frames / fps,
            codec="fake",
            decoder="pyav",
            rotation=0,
            is_seekable=True,
            warnings=("has a strange header",),
        )
        self.times_seconds = np.arange(num_frames) / fps if times and fps else None
        self.warnings = list(warnings)
        self.index = None
        self.asked = []
        self.closed = False

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.closed = True

    def frame(self, index):
        pixels = np.zeros((self.info.height, self.info.width, 3), dtype=np.uint8)
        pixels[..., 0] = index
        pixels[..., 1] = np.arange(self.info.width)
        return pixels

    def read(self, indices, transform=None):
        self.asked.extend(indices)
        return np.stack([transform(self.frame(index)) for index in indices])


@pytest.fixture
def fake_video(monkeypatch):
    """The function fake_video(num_frames, ...) -> the FakeReader that read_views will open."""

    def make(num_frames, **changes):
        reader = FakeReader(num_frames, **changes)
        monkeypatch.setattr(views_module, "open_video", lambda path, *, decoder, frame_rate, frame_name, index: reader)
        return reader

    return make


@pytest.fixture
def real_video(tmp_path):
    """The path of an H.264 file: 30 frames of 64x48 at 10 frames per second."""
    path = str(tmp_path / "clip.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(30):
            pixels = np.full((48, 64, 3), 8 * index, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("every_seconds", [None, 1.0])
def test_views_of_a_real_file_equal_its_frames_cut_one_by_one(real_video, every_seconds):
    data = replace(DATA, antialias=True)
    views = read_views(real_video, data, replace(VIEWS, num_crops=3), every_seconds=every_seconds)
    cut = FrameTransform(short_side=16, crop_size=16, num_crops=3, antialias=True)
    with open_video(real_video) as reader:
        crops = np.stack([cut(frame) for frame in reader.frames()])
    assert len(views.clips) == 3 * len(views.indices)
    for clip, indices in enumerate(views.indices):
        for crop in range(3):
            np.testing.assert_array_equal(views.clips[3 * clip + crop], crops[indices, crop])
    if every_seconds is not None:
        np.testing.assert_allclose(views.ends_seconds, [1, 2, 3])


@pytest.mark.parametrize("every_seconds", [None, 1.0])
def test_a_known_file_is_not_read_as_a_whole_and_has_the_same_views(real_video, every_seconds, monkeypatch):
    first = read_views(real_video, DATA, VIEWS, every_seconds=every_seconds)
    monkeypatch.setattr(pyav_reader, "scan_file", lambda _: pytest.fail("read the whole file"))
    again = read_views(real_video, DATA, VIEWS, every_seconds=every_seconds, index=first.index)
    assert first.index is not None
    assert again.index is None
    assert again.info == first.info
    np.testing.assert_array_equal(again.indices, first.indices)
    np.testing.assert_array_equal(again.clips, first.clips)


@pytest.mark.parametrize("antialias", [False, True])
def test_every_setting_reaches_what_it_decides(monkeypatch, antialias):
    data = DataConfig(
        clip=ClipConfig(num_frames=12, frame_interval=3),
        crop_size=112,
        antialias=antialias,
        min_frames=5,
        decoder="pyav",
        frame_rate=12.5,
        frame_name="img_{:05}.jpg",
    )
    views = ViewsConfig(num_clips=6, num_crops=3, short_side=130)
    opened, reader = [], FakeReader(200)
    monkeypatch.setattr(views_module, "open_video", lambda path, **options: opened.append((path, options)) or reader)
    found = read_views("frames", data, views)
    asked = {"decoder": "pyav", "frame_rate": 12.5, "frame_name": "img_{:05}.jpg", "index": None}
    assert opened == [("frames", asked)]
    assert found.clips.shape == (18, 12, 112, 112, 3)
    assert found.indices[:, 0].tolist() == [13, 41, 68, 96, 123, 151]  # middles of six parts of 165 starts
    assert (np.diff(found.indices) == 3).all()
    transform = views_module._TimedTransform(data, views).frame_transform
    assert transform == FrameTransform(short_side=130, crop_size=112, num_crops=3, antialias=antialias)


def test_views_hold_the_sampled_frames_in_clip_order(fake_video):
    reader = fake_video(30)
    views = read_views("clip.mp4", DATA, VIEWS)
    expected = sampling.test_clips(30, num_frames=4, frame_interval=2, num_clips=2)
    assert views.indices.tolist() == expected.tolist()
    assert views.clips.shape == (2, 4, 16, 16, 3)
    assert views.clips.dtype == np.uint8
    assert views.clips[:, :, 0, 0, 0].tolist() == expected.tolist()
    assert views.num_views == 2
    assert views.starts_seconds is None
    assert views.ends_seconds is None
    assert views.num_segments is None
    assert reader.closed


def test_the_crops_of_a_clip_are_neighbours(fake_video):
    fake_video(30)
    views = read_views("clip.mp4", DATA, replace(VIEWS, num_crops=3))
    assert views.clips.shape == (6, 4, 16, 16, 3)
    assert views.num_views == 6
    first_column = views.clips[:, 0, 0, 0, 1].tolist()
    assert first_column == [0, 16, 8] * 2
    first_frame = views.clips[:, 0, 0, 0, 0].tolist()
    assert first_frame == [views.indices[0, 0]] * 3 + [views.indices[1, 0]] * 3


def test_each_needed_frame_is_read_once_in_order(fake_video):
    reader = fake_video(5)
    views = read_views("clip.mp4", DATA, VIEWS)
    assert views.clips[0, :, 0, 0, 0].tolist() == [0, 2, 4, 1]
    assert reader.asked == [0, 1, 2, 4]
    assert all(type(index) is int for index in reader.asked)


def test_segment_sampling_gives_one_clip_over_the_whole_video(fake_video):
    fake_video(40)
    views = read_views("clip.mp4", with_clip(sampling="segments"), VIEWS)
    assert views.indices.tolist() == [sampling.segment_clip(40, num_frames=4).tolist()]
    assert views.clips.shape == (1, 4, 16, 16, 3)
    assert views.num_views == 1


@pytest.mark.parametrize("kind", ["interval", "segments"])
def test_a_timeline_read_in_parts_equals_the_timeline_read_at_once(fake_video, kind):
    fake_video(100)
    data, views = with_clip(sampling=kind), replace(VIEWS, num_crops=3)
    whole = read_views("clip.mp4", data, views, every_seconds=2.0)
    assert whole.num_segments == 5
    assert whole.num_views == 3
    assert whole.clips.shape[0] == 15
    np.testing.assert_allclose(whole.starts_seconds, [0, 2, 4, 6, 8])
    np.testing.assert_allclose(whole.ends_seconds, [2, 4, 6, 8, 10])
    slices = [slice(start, start + 2) for start in (0, 2, 4)]
    parts = [read_views("clip.mp4", data, views, segments, every_seconds=2.0) for segments in slices]
    assert [part.num_segments for part in parts] == [5, 5, 5]
    for name in ("clips", "indices", "starts_seconds", "ends_seconds"):
        np.testing.assert_array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(whole, name))


def test_part_of_a_timeline_reads_only_its_own_frames(fake_video):
    reader = fake_video(100)
    read_views("clip.mp4", DATA, VIEWS, slice(4, 5), every_seconds=2.0)
    assert reader.asked == [87, 89, 91, 93]


def test_segments_that_do_not_exist_are_a_broken_contract(fake_video):
    fake_video(100)
    with pytest.raises(ValueError, match="selects nothing from 5 segments"):
        read_views("clip.mp4", DATA, VIEWS, slice(5, 9), every_seconds=2.0)
    with pytest.raises(ValueError, match="selects nothing from None segments"):
        read_views("clip.mp4", DATA, VIEWS, slice(0, 1))


def test_a_timeline_without_times_uses_the_frame_rate(fake_video):
    fake_video(100, times=False)
    for data in (DATA, replace(DATA, frame_rate=25.0)):  # the file's own rate is the one that counts
        views = read_views("clip.mp4", data, VIEWS, every_seconds=2.0)
        assert views.starts_seconds.tolist() == [0, 2, 4, 6, 8]
        assert (views.indices[:, 0] <= [10, 30, 50, 70, 90]).all()
        assert (views.indices[:, -1] >= [10, 30, 50, 70, 90]).all()
    fake_video(100, fps=None)
    assert read_views("clip.mp4", replace(DATA, frame_rate=25.0), VIEWS, every_seconds=2.0).num_segments == 2


def test_a_timeline_without_a_frame_rate_says_how_to_give_one(fake_video):
    fake_video(100, fps=None)
    with pytest.raises(VideoError, match=r"'clip.mp4': has no frame rate.*every 2 seconds.*--set data.frame_rate=25"):
        read_views("clip.mp4", DATA, VIEWS, every_seconds=2.0)
    assert read_views("clip.mp4", DATA, VIEWS).clips.shape[0] == 2


def test_a_timeline_of_absurd_length_names_the_video(fake_video):
    reader = fake_video(100)
    reader.times_seconds[-1] = 1e12
    with pytest.raises(VideoError, match=r"'clip.mp4': lasts 1e\+12 seconds, more than 200000 segments"):
        read_views("clip.mp4", DATA, VIEWS, every_seconds=2.0)


@pytest.mark.parametrize(("num_frames", "min_frames", "said"), [(1, 2, "has 1 frame;"), (7, 8, "has 7 frames;")])
def test_a_video_that_is_too_short_says_how_many_frames_it_has(fake_video, num_frames, min_frames, said):
    reader = fake_video(num_frames)
    with pytest.raises(VideoError, match=rf"'clip.mp4': {said} at least {min_frames} are needed.*data.min_frames=1"):
        read_views("clip.mp4", replace(DATA, min_frames=min_frames), VIEWS)
    assert reader.asked == []
    assert reader.closed


@pytest.mark.parametrize(("part", "said"), [(Part(18, 1), "has 1 frame"), (Part(30, 9), "has 0 frames")])
def test_a_part_that_is_too_short_says_so_however_long_its_video_is(fake_video, part, said):
    fake_video(20)
    with pytest.raises(TooShortError, match=rf"'clip.mp4': {said} in the listed part \(of 20\); at least 2"):
        read_views("clip.mp4", DATA, VIEWS, part=part)


def test_a_single_frame_is_repeated_where_that_is_allowed(fake_video):
    fake_video(1)
    assert read_views("clip.mp4", replace(DATA, min_frames=1), VIEWS).indices.tolist() == [[0] * 4] * 2


def test_frames_far_too_wide_are_refused_before_decoding(fake_video):
    reader = fake_video(30, height=20, width=20_000)
    with pytest.raises(VideoError, match=r"'clip.mp4': has frames of 20000x20 pixels"):
        read_views("clip.mp4", DATA, VIEWS)
    assert reader.asked == []


def test_frames_that_become_far_too_wide_midway_name_the_video(fake_video):
    reader = fake_video(30)
    reader.frame = lambda index: np.zeros((2, 900, 3), dtype=np.uint8)
    with pytest.raises(VideoError, match=r"'clip.mp4': has frames of 900x2 pixels"):
        read_views("clip.mp4", DATA, VIEWS)


def test_warnings_of_opening_and_reading_are_kept_once_each(fake_video):
    fake_video(30, warnings=["frame 3 is damaged", "has a strange header"])
    assert read_views("clip.mp4", DATA, VIEWS).warnings == ("has a strange header", "frame 3 is damaged")


def test_sections_and_views_survive_the_trip_to_a_worker_and_back(fake_video):
    fake_video(30)
    assert pickle.loads(pickle.dumps((DATA, VIEWS))) == (DATA, VIEWS)
    views = read_views("clip.mp4", DATA, VIEWS)
    returned = pickle.loads(pickle.dumps(views))
    np.testing.assert_array_equal(returned.clips, views.clips)
    assert returned.info == views.info
    assert views.decode_seconds >= 0
    assert views.preprocess_seconds > 0


def test_views_of_a_part_are_those_of_its_frames(real_video: str) -> None:
    """Also of a timeline, whose times are those of the video."""
    whole = read_views(real_video, DATA, VIEWS, every_seconds=0.2)
    assert whole.starts_seconds is not None
    fps = whole.info.fps or 0.0
    part = Part(start_seconds=8 / fps, end_seconds=18 / fps)
    views = read_views(real_video, DATA, VIEWS, part=part)
    assert views.indices.min() == 8
    assert views.indices.max() <= 17
    assert np.array_equal(views.clips, read_views(real_video, DATA, VIEWS, part=Part(8, 10)).clips)
    timeline = read_views(real_video, DATA, VIEWS, part=part, every_seconds=0.2)
    assert timeline.starts_seconds is not None
    assert timeline.ends_seconds is not None
    assert timeline.starts_seconds[0] == pytest.approx(8 / fps)
    assert timeline.ends_seconds[-1] == pytest.approx(18 / fps)
    assert (timeline.indices.min() >= 8, timeline.indices.max() <= 17) == (True, True)
