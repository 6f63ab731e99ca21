"""Videos that look alike across splits."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.prepare import look_alikes
from dualformer_cli.data.prepare.convert import Conversion, transcode
from dualformer_cli.data.prepare.look_alikes import MAX_BITS, find_look_alikes, frames_to_hash, hash_frame, shrink
from dualformer_cli.video.open import open_video

WORDS = st.integers(0, 2**64 - 1)


def hashes_of(path):
    with open_video(path) as reader:
        return tuple(map(hash_frame, reader.read(frames_to_hash(reader.info.num_frames), shrink)))


@given(st.integers(1, 10_000))
def test_the_frames_that_stand_for_a_video_exist_and_rise(num_frames: int) -> None:
    frames = frames_to_hash(num_frames)
    assert len(frames) == look_alikes.FRAMES_PER_VIDEO
    assert frames == sorted(frames)
    assert 0 <= frames[0] <= frames[-1] < num_frames


def test_the_frames_that_stand_for_a_video_are_the_middles_of_its_quarters() -> None:
    assert frames_to_hash(80) == [10, 30, 50, 70]  # not the first one, which is black or a title


def test_a_black_frame_says_nothing(clips) -> None:
    assert hash_frame(shrink(np.full((90, 120, 3), 3, np.uint8))) is None
    assert hash_frame(shrink(clips.draw(5))) is not None


def test_another_size_and_compression_changes_few_bits(clips, tmp_path) -> None:
    source = clips.path("h264.mp4")
    job = Conversion(
        source=str(source),
        target=str(tmp_path / "a.mp4"),
        short_side=64,
        quality=35,
        num_frames=40,
        width=128,
        height=96,
    )
    transcode(job)
    found = find_look_alikes(
        [hashes_of(source), hashes_of(tmp_path / "a.mp4"), hashes_of(clips.path("rotated_180.mp4"))], [0, 1, 1]
    )
    assert [(pair.first, pair.second) for pair in found] == [(0, 1)]


def brute_force(hashes, splits):
    found = {}
    for a, b in itertools.combinations(range(len(hashes)), 2):
        both = [(x, y) for x, y in zip(hashes[a], hashes[b], strict=False) if x is not None and y is not None]
        bits = sum((x ^ y).bit_count() for x, y in both)
        if splits[a] != splits[b] and len(both) >= 2 and bits <= MAX_BITS * len(both):
            found[a, b] = bits / len(both)
    return found


@settings(deadline=None)
@given(st.data())
def test_no_pair_is_missed_and_none_is_invented(data) -> None:
    base = data.draw(st.lists(st.tuples(*[st.one_of(st.none(), WORDS)] * 4), min_size=1, max_size=3))
    noise = st.lists(st.integers(0, 63), max_size=5)
    hashes = [()]
    for _ in range(data.draw(st.integers(1, 10))):
        frames = []
        for word in data.draw(st.sampled_from(base)):
            for bit in data.draw(noise) if word is not None else ():
                word ^= 1 << bit
            frames.append(word)
        hashes.append(tuple(frames))
    splits = data.draw(st.none() | st.lists(st.integers(0, 2), min_size=len(hashes), max_size=len(hashes)))
    found = find_look_alikes(hashes, splits)
    assert {(pair.first, pair.second): pair.bits for pair in found} == brute_force(hashes, splits or range(99))
    assert [pair.bits for pair in found] == sorted(pair.bits for pair in found)


def test_words_that_all_share_cost_no_more_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look_alikes, "_MAX_PAIRS", 100)
    rng = np.random.default_rng(0)
    hashes = [tuple(int(word) << 16 for word in rng.integers(0, 2**47, 4)) for _ in range(60)]
    hashes[40] = hashes[3]
    found = find_look_alikes(hashes, [0] * 30 + [1] * 30)
    assert [(pair.first, pair.second) for pair in found] == [(3, 40)]
    assert [(pair.first, pair.second) for pair in find_look_alikes(hashes)] == [(3, 40)]
