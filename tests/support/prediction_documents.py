"""Results of videos as `predict` makes them."""

from __future__ import annotations

from typing import Any


def scored(label: str, score: float, index: int = 0) -> dict[str, Any]:
    return {"label": label, "index": index, "score": score}


def result(path: str = "clip.mp4", **changes: Any) -> dict[str, Any]:
    video: dict[str, Any] = {
        "path": path,
        "status": "ok",
        "num_frames": 250,
        "fps": 25.0,
        "duration_seconds": 10.0,
        "views": 4,
        "predictions": [scored("surfing water", 0.75, 3), scored("tai chi", 0.125, 7)],
    }
    return {**video, **changes}


def failed(path: str = "bad.mp4", error: str = "no video stream") -> dict[str, Any]:
    return {"path": path, "status": "error", "error": error}


def segment(start: float, end: float, label: str = "tai chi", score: float = 0.5) -> dict[str, Any]:
    return {"start_seconds": start, "end_seconds": end, **scored(label, score)}
