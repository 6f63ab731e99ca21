"""The stored labels of a training clip, wherever it lies in its video.

A training clip takes the label of each of its tokens from the stored clip and the tile in which that place is, bilinear
between the tokens there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.source import Fractions
from dualformer_cli.data.tokens.store import StoredVideo


@dataclass(frozen=True, slots=True)
class Corners:
    """The stored tokens around each token of a clip, and how much each of them counts."""

    weights: npt.NDArray[np.float32]
    """Shape (corners, t, h, w); they add up to 1 over the corners."""
    values: npt.NDArray[np.float32]
    """Logits, shape (corners, t, h, w, k)."""
    classes: npt.NDArray[np.int64]
    """Shape (corners, t, h, w, k)."""


def find_corners(
    video: StoredVideo,
    records: npt.NDArray[Any],
    *,
    indices: Indices,
    box: Fractions,
    flipped: bool,
    frame_interval: int | None,
) -> Corners:
    """Find the labels of one training clip.

    Args:
        video: where its labels are in `records`.
        records: of the shard, shape (records, t, h, w).
        indices: the clip's frame numbers in the video, shape (T,).
        box: the clip's crop as shares of the frame, (x, y, width, height).
        flipped: whether the clip is mirrored.
        frame_interval: step between the clip's frames; None where each comes from a segment of its own.
    """
    t, h, w = records.shape[1:]
    first, shape = video.first_record, (len(video.starts), len(video.tiles), t, h, w)
    stored = records[first : first + video.num_records].reshape(shape)
    if frame_interval is None:
        clip, time = np.zeros(t, np.int64), np.arange(t, dtype=np.float64)
    else:
        clip, time = _times(np.array(video.starts), int(indices[0]), t, frame_interval * len(indices) // t)
    tiles = np.array(video.tiles)
    x, y = (
        start + extent * (np.arange(count) + 0.5) / count
        for start, extent, count in ((box[0], box[2], w), (box[1], box[3], h))
    )
    tile_x, column = _in_tiles(x[::-1] if flipped else x, tiles[:, 0], tiles[:, 2], w)
    tile_y, row = _in_tiles(y, tiles[:, 1], tiles[:, 3], h)
    tile = np.maximum(tile_y[:, None], tile_x[None])  # along one side all tiles are alike, and the first is taken
    sides = [_neighbours(time, t), _neighbours(row, h), _neighbours(column, w)]
    weights, found = [], []
    for at, share_t in sides[0]:
        for below, share_h in sides[1]:
            for beside, share_w in sides[2]:
                weight = share_t[:, None, None] * share_h[:, None] * share_w
                if weight.any():
                    weights.append(weight)
                    found.append(
                        stored[clip[:, None, None], tile, at[:, None, None], below[:, None], beside[None, None]]
                    )
    corner = np.stack(found)
    return Corners(
        np.stack(weights).astype(np.float32),
        corner["values"].astype(np.float32),
        corner["classes"].astype(np.int64),
    )


def _times(starts: Indices, start: int, t: int, step: int) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Return for each of a clip's t tokens in time the stored clip that it is in, and where there, in tokens.

    Of several stored clips the one that starts nearest to the clip is taken, so that a clip that was stored is found
    again as it is.
    """
    places = (start + step * np.arange(t)[:, None] - starts) / step  # (t, stored clips)
    outside = np.maximum(0, np.maximum(-places, places - (t - 1)))
    distance = np.abs(starts - start) / (1 + np.abs(starts - start).max())  # below 1, to break ties only
    clip = np.argmin(np.ceil(outside) + distance, axis=1)
    return clip, places[np.arange(t), clip]


def _in_tiles(
    places: npt.NDArray[np.float64],
    offsets: npt.NDArray[np.float64],
    extents: npt.NDArray[np.float64],
    count: int,
) -> tuple[Indices, npt.NDArray[np.float64]]:
    """Return for each place along a side of the frame the tile with the nearest centre, and where there, in tokens."""
    tile = np.abs(places[:, None] - (offsets + extents / 2)).argmin(axis=1)
    return tile, (places - offsets[tile]) / extents[tile] * count - 0.5


def _neighbours(places: npt.NDArray[np.float64], count: int) -> list[tuple[Indices, npt.NDArray[np.float64]]]:
    """Return the tokens before and after each place, and the share of each; outside the grid it is the last token."""
    inside = np.clip(places.round(6), 0, count - 1)  # 1.9999999 is token 2
    low = np.floor(inside).astype(np.int64)
    share = inside - low
    return [(low, 1 - share), (np.minimum(low + 1, count - 1), share)]
