"""Videos that look alike: a few frames of each become 64 bits that survive another size and another compression."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import PIL.Image

from dualformer_cli.video.reader import Frame

FRAMES_PER_VIDEO = 4
MAX_BITS = 3.75
"""Two videos look alike when their frames differ by at most so many of 64 bits, on average."""

_MIN_FRAMES = 2
_FLAT = 4.0
"""A frame whose grey levels vary less, as a black one, says nothing about its video."""
_MARGIN = 2
"""Grey levels by which a neighbour must be brighter: what compression makes of an even area is not a picture."""
_BANDS = 4
"""Words of 16 bits in a hash. Videos within MAX_BITS agree in one word of one frame, for 4 words have 15 bits to differ
by at most 3 each: only videos that share a word are compared."""
_MAX_PAIRS = 4_000_000
"""Words that more pairs of videos share are left out: they are those of dark edges and skies."""

Hashes = tuple[int | None, ...]
"""Of each frame; None for a flat one."""


class LookAlike(NamedTuple):
    """Two videos, by number."""

    first: int
    second: int
    bits: float
    """Mean difference of their frames, of 64 bits."""


def frames_to_hash(num_frames: int) -> list[int]:
    """Return the numbers of the frames that stand for a video."""
    return [num_frames * (2 * part + 1) // (2 * FRAMES_PER_VIDEO) for part in range(FRAMES_PER_VIDEO)]


def shrink(frame: Frame) -> Frame:
    """Return the frame as 8 rows of 9 grey levels, which is what `hash_frame` looks at."""
    return np.asarray(PIL.Image.fromarray(frame).convert("L").resize((9, 8), PIL.Image.Resampling.BOX))


def hash_frame(small: Frame) -> int | None:
    """Return one bit per neighbouring pair: whether it brightens from left to right. None for a flat frame."""
    levels = small.astype(np.int16)
    if levels.std() < _FLAT:
        return None
    bits = np.diff(levels, axis=1) > _MARGIN
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def find_look_alikes(hashes: Sequence[Hashes], splits: Sequence[int] | None = None) -> list[LookAlike]:
    """Find pairs of videos that look alike, the most alike first.

    Args:
        hashes: of each video, FRAMES_PER_VIDEO frames each; () for a video that cannot be read.
        splits: number of each video's split; pairs in the same one are left out. None finds all.
    """
    words = np.zeros((len(hashes), FRAMES_PER_VIDEO), np.uint64)
    is_known = np.zeros(words.shape, np.bool_)
    for video, frames in enumerate(hashes):
        for place, value in enumerate(frames):
            if value is not None:
                words[video, place], is_known[video, place] = value, True
    found: dict[tuple[int, int], float] = {}
    for left, right in _candidates(words, is_known, None if splits is None else np.asarray(splits)):
        both = is_known[left] & is_known[right]
        count = both.sum(axis=1)
        bits = (np.bitwise_count(words[left] ^ words[right]) * both).sum(axis=1)
        for index in np.flatnonzero((count >= _MIN_FRAMES) & (bits <= MAX_BITS * count)):
            found[int(left[index]), int(right[index])] = float(bits[index] / count[index])
    return sorted((LookAlike(*pair, bits) for pair, bits in found.items()), key=lambda pair: (pair.bits, pair))


def _candidates(words: Any, is_known: Any, splits: Any) -> Iterator[tuple[Any, Any]]:
    """Yield arrays of pairs (first, second), first < second, that share a word and not their split."""
    for place in range(FRAMES_PER_VIDEO):
        for band in range(_BANDS):
            buckets: dict[int, list[int]] = defaultdict(list)
            keys = (words[:, place] >> np.uint64(16 * band)) & np.uint64(0xFFFF)
            for video in np.flatnonzero(is_known[:, place]).tolist():
                buckets[int(keys[video])].append(video)
            for videos in buckets.values():
                yield from _pairs(np.array(videos), splits)


def _pairs(videos: Any, splits: Any) -> Iterator[tuple[Any, Any]]:
    if splits is None:
        if len(videos) * (len(videos) - 1) // 2 <= _MAX_PAIRS:
            first, second = np.triu_indices(len(videos), 1)
            yield videos[first], videos[second]
        return
    own = splits[videos]
    kinds = np.unique(own).tolist()
    for number, one in enumerate(kinds):
        for other in kinds[number + 1 :]:
            a, b = videos[own == one], videos[own == other]
            if len(a) * len(b) <= _MAX_PAIRS:
                left, right = np.repeat(a, len(b)), np.tile(b, len(a))
                yield np.minimum(left, right), np.maximum(left, right)
