"""Maps of a video's views laid onto its frames: on the source timeline, or one view after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dualformer_cli.data.clips.crops import crop_offsets
from dualformer_cli.data.clips.sampling import Indices
from dualformer_cli.data.clips.transforms import resized_size
from dualformer_cli.data.clips.views import VideoViews
from dualformer_cli.engine.explain.gradcam import Explanation, Maps, stretch


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Heatmaps of frames, in the order in which they are shown."""

    frames: Indices
    """Numbers of the source frames, shape (F,)."""
    heatmaps: Maps
    """0 to 1, shape (F, H, W)."""
    boxes: npt.NDArray[np.float64]
    """Part of the frame that a heatmap covers: left, top, right, bottom as shares of the frame, shape (F, 4)."""
    curve: Maps
    """Mean of each heatmap over what the model saw of the frame, shape (F,)."""
    breaks: tuple[int, ...]
    """Where views after the first begin; () on the source timeline."""


def merge_views(explanation: Explanation, views: VideoViews, short_side: int) -> Timeline:
    """Lay all views onto the source timeline: at each frame the mean of the views that reach over it.

    Frames have the clips' step. A view between whose frames one lies is interpolated there. One scale holds for all
    frames, so that heat can be compared over the whole video.

    Args:
        explanation: the maps of the views.
        views: all views of the video.
        short_side: to which frames were resized before the crop.
    """
    offsets, size = _geometry(views, short_side)
    left, top = (min(offset[axis] for offset in offsets) for axis in (0, 1))
    side: int = views.clips.shape[2]
    right, bottom = (max(offset[axis] for offset in offsets) + side for axis in (0, 1))
    frames = _frames_between(views.indices)
    sums = np.zeros((len(frames), bottom - top, right - left), np.float32)
    counts = np.zeros_like(sums)
    for view in range(len(explanation.grid)):
        clip, crop = divmod(view, len(offsets))
        x, y = offsets[crop][0] - left, offsets[crop][1] - top
        numbers, maps = _in_order(views.indices[clip], explanation.resized(view))
        for place in np.flatnonzero((frames >= numbers[0]) & (frames <= numbers[-1])):
            area = (place, slice(y, y + side), slice(x, x + side))
            sums[area] += _at(frames[place], numbers, maps)
            counts[area] += 1
    seen = counts > 0
    sums[seen] = stretch(sums[seen] / counts[seen])
    box = _shares((left, top, right, bottom), size)
    return Timeline(
        frames=frames,
        heatmaps=sums,
        boxes=np.tile(box, (len(frames), 1)),
        curve=(sums.sum(axis=(1, 2)) / seen.sum(axis=(1, 2))).astype(np.float32),
        breaks=(),
    )


def _frames_between(indices: Indices) -> Indices:
    """Frame numbers over which clips (clips, T) reach, in steps as usual in the clips."""
    steps = np.diff(np.unique(indices[0]))  # a short video repeats frames within a clip
    step = int(np.median(steps)) if len(steps) else 1
    frames = np.arange(indices.min(), indices.max() + 1, step)
    first, last = indices.min(axis=1), indices.max(axis=1)
    reached = ((frames >= first[:, None]) & (frames <= last[:, None])).any(axis=0)
    return frames[reached]


def _in_order(numbers: Indices, maps: Maps) -> tuple[Indices, Maps]:
    """A clip's frame numbers, ascending and each once, with their maps; repeats get the mean."""
    unique, places = np.unique(numbers, return_inverse=True)
    if len(unique) == len(numbers):
        return unique, maps[np.argsort(numbers)]
    sums = np.zeros((len(unique), *maps.shape[1:]), np.float32)
    np.add.at(sums, places.reshape(-1), maps)
    sums /= np.bincount(places.reshape(-1))[:, None, None]
    return unique, sums


def _at(frame: int, numbers: Indices, maps: Maps) -> Maps:
    """The map at a frame between the first and the last of `numbers`."""
    after = int(np.searchsorted(numbers, frame))
    if numbers[after] == frame:
        return maps[after]
    share = np.float32((frame - numbers[after - 1]) / (numbers[after] - numbers[after - 1]))
    return maps[after - 1] * (1 - share) + maps[after] * share


def concatenate_views(explanation: Explanation, views: VideoViews, short_side: int) -> Timeline:
    """Show all frames of all views, one view after the other, each in its own scale: as the published code does."""
    offsets, size = _geometry(views, short_side)
    num_frames = views.indices.shape[1]
    heatmaps = explanation.heatmaps()
    side: int = views.clips.shape[2]
    boxes = [_shares((x, y, x + side, y + side), size) for x, y in offsets] * len(views.indices)
    return Timeline(
        frames=np.repeat(views.indices, len(offsets), axis=0).reshape(-1),
        heatmaps=heatmaps.reshape(-1, side, side),
        boxes=np.repeat(boxes, num_frames, axis=0),
        curve=heatmaps.mean(axis=(2, 3)).reshape(-1),
        breaks=tuple(range(num_frames, len(heatmaps) * num_frames, num_frames)),
    )


def _geometry(views: VideoViews, short_side: int) -> tuple[list[tuple[int, int]], tuple[int, int]]:
    """(x, y) of each crop's corner in the resized frame, and that frame's (height, width)."""
    size = resized_size(views.info.height, views.info.width, short_side)
    return crop_offsets(*size, views.clips.shape[2], len(views.clips) // len(views.indices)), size


def _shares(box: tuple[int, int, int, int], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    height, width = size
    return np.array(box) / (width, height, width, height)
