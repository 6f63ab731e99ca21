"""What a video is and whether it can be relied on, found out in a worker process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dualformer_cli.data.prepare.look_alikes import frames_to_hash, hash_frame, shrink
from dualformer_cli.errors import VideoError
from dualformer_cli.video.open import open_video
from dualformer_cli.video.parts import Part
from dualformer_cli.video.reader import MAX_BAD_SHARE, Frame, VideoReader

_DAMAGED = "broken: only partly readable, "
_NUM_COMPARED = 6
_SAME_LEVELS = 1.0
"""Mean difference in grey levels up to which two decodes of a frame are the same."""
_UNEVEN = 0.1
"""Share of the mean frame distance by which a variable frame rate differs from it."""
_CLOCK_SECONDS = 0.002
"""What containers that count in milliseconds make of an even rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """One video to check."""

    path: str
    check: bool
    """Whether to decode all of it."""
    parts: tuple[Part, ...] = ()
    """By times: where their frames are is found out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What a video is. Only `status` is known of one that cannot be opened."""

    status: str
    """ok, sequential_only, or broken and why."""
    num_frames: int | None = None
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    duration_seconds: float | None = None
    codec: str | None = None
    is_decodable: bool = False
    """Whether a decode from the start gives its frames; then it can be converted."""
    notes: tuple[str, ...] = ()
    """What is odd about it, without making it unusable."""
    hashes: tuple[int | None, ...] = field(default=())
    """Of a few frames, for `find_look_alikes`."""
    parts: tuple[tuple[Part, int, int], ...] = ()
    """Those of the job, each with its first frame and how many it has; none if nothing says when frames are shown."""


def check_video(job: CheckJob) -> Finding:
    """Open a video and read a few frames of it; with `check`, decode it from start to end and compare.

    A video is `sequential_only` when a frame in its middle can be reached only by decoding all before it: it reads
    correctly but slowly. It is `broken` when it cannot be read, when more than a tenth of its frames is damaged or
    missing, or when a frame reached by seeking is not the one that a decode from the start gives.
    """
    try:
        with open_video(job.path) as reader:
            wanted = frames_to_hash(reader.info.num_frames)
            hashes = tuple(hash_frame(small) for small in reader.read(wanted, shrink))
            status, notes = _check(reader) if job.check else ("ok", ())
            parts = tuple((part, *part.frames(reader)) for part in job.parts) if reader.info.fps else ()
            return replace(_finding(reader, status, notes, hashes), parts=parts)
    except VideoError as error:
        return Finding(status=f"broken: {error.reason}")


def _finding(reader: VideoReader, status: str, notes: tuple[str, ...], hashes: tuple[int | None, ...]) -> Finding:
    info = reader.info
    return Finding(
        status=status,
        num_frames=info.num_frames,
        fps=info.fps,
        width=info.width,
        height=info.height,
        duration_seconds=info.duration_seconds,
        codec=info.codec,
        is_decodable=not status.startswith(_DAMAGED),
        notes=tuple(dict.fromkeys((*reader.warnings, *notes))),
        hashes=hashes,
    )


def _check(reader: VideoReader) -> tuple[str, tuple[str, ...]]:
    """Return the status of a video that opens, and what is odd about it."""
    info = reader.info
    wanted = sorted({info.num_frames * part // _NUM_COMPARED for part in range(_NUM_COMPARED)} | {info.num_frames - 1})
    strict = reader.decode_strictly(frozenset(wanted))
    if strict is None:
        return "ok", ()
    notes = _notes(reader, strict.has_edit_list, strict.stated_seconds)
    if strict.num_damaged:
        damage = f"{strict.num_damaged} of its {strict.num_expected} frames are damaged or missing"
        if strict.num_damaged > MAX_BAD_SHARE * strict.num_expected:
            return f"{_DAMAGED}{damage}", notes
        notes = (*notes, damage)
    if not info.is_seekable:
        return "sequential_only", notes
    for index in wanted[::-1]:  # each from another place than the decoder has reached
        (frame,) = reader.read([index])
        if index in strict.frames and not strict.num_damaged and not _is_same(frame, strict.frames[index]):
            return f"broken: seeking to frame {index} gives another frame than a decode from the start", notes
    return "ok", notes


def _is_same(a: Frame, b: Frame) -> bool:
    return a.shape == b.shape and float(np.abs(a.astype(np.int16) - b).mean()) <= _SAME_LEVELS


def _notes(reader: VideoReader, has_edit_list: bool, stated_seconds: float | None) -> tuple[str, ...]:
    info = reader.info
    notes = []
    if info.rotation:
        notes.append(f"stored turned by {info.rotation} degrees")
    if info.is_mirrored:
        notes.append("stored mirrored")
    if reader.times_seconds is not None and _is_uneven(reader.times_seconds):
        notes.append("variable frame rate")
    if has_edit_list:
        notes.append("an edit list hides frames")
    if info.duration_seconds is None or info.fps is None:
        notes.append("nothing says how long it is")
    elif stated_seconds is not None and abs(stated_seconds - info.duration_seconds) > 0.05 * stated_seconds + 1:
        notes.append(f"its header says {stated_seconds:.1f} s, its pictures last {info.duration_seconds:.1f} s")
    return tuple(notes)


def _is_uneven(times: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    steps = np.diff(times)
    return bool(len(steps) and np.abs(steps - steps.mean()).max() > _CLOCK_SECONDS + _UNEVEN * steps.mean())
