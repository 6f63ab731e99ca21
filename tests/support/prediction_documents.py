"""Results of videos as `predict` makes them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dualformer_cli.documents.predict import ScoredLabel, Segment, VideoResult


def scored(label: str, score: float, index: int = 0) -> ScoredLabel:
    return ScoredLabel(label=label, index=index, score=score)


def result(path: str = "clip.mp4", **changes: Any) -> VideoResult:
    video = VideoResult(
        path=path,
        status="ok",
        num_frames=250,
        fps=25.0,
        duration_seconds=10.0,
        views=4,
        predictions=(scored("surfing water", 0.75, 3), scored("tai chi", 0.125, 7)),
    )
    return replace(video, **{name: tuple(v) if isinstance(v, list) else v for name, v in changes.items()})


def failed(path: str = "bad.mp4", error: str = "no video stream") -> VideoResult:
    return VideoResult(path=path, status="error", error=error)


def segment(start: float, end: float, label: str = "tai chi", score: float = 0.5, index: int = 0) -> Segment:
    return Segment(start_seconds=start, end_seconds=end, label=label, index=index, score=score)
