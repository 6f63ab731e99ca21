"""Scores of views become one video's result: the document that reports print and files store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dualformer_cli.data.clips.views import VideoViews
from dualformer_cli.documents.predict import FeatureRow, ScoredLabel, Segment, Timing, VideoResult
from dualformer_cli.engine.scoring.unsure import unsure_below
from dualformer_cli.video.reader import VideoInfo

Scores = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model said about one input, or why it could not."""

    result: VideoResult
    features: tuple[FeatureRow, ...] = ()
    """Of the video, or of each segment of its timeline."""
    file: str = ""
    """Where the input was read: its path, or that of a copy, which is there until the next prediction is asked for."""
    error: Exception | None = None
    """What reading or scoring it has raised."""


def failure(path: str, reason: str, *, interrupted: bool | None = None) -> Prediction:
    """Return the result of an input that cannot be used."""
    return Prediction(VideoResult(path=path, status="error", error=reason, interrupted=interrupted))


def top(scores: Scores, class_names: Sequence[str], top_k: int) -> tuple[ScoredLabel, ...]:
    """Return the best classes of a score vector (classes,), best first."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return tuple(ScoredLabel(label=class_names[i], index=int(i), score=float(scores[i])) for i in order)


def merge_segments(
    starts_seconds: Sequence[float],
    ends_seconds: Sequence[float],
    scores: Scores,
    class_names: Sequence[str],
    *,
    min_score: float = 0.0,
) -> tuple[Segment, ...]:
    """Join neighbouring segments with the same best class; the score is their mean, weighted by duration.

    Args:
        starts_seconds, ends_seconds: of each segment, in order.
        scores: shape (segments, classes).
        class_names: one name per class.
        min_score: segments whose best score reaches it are never joined with those whose does not.
    """
    merged: list[Segment] = []
    for start, end, row in zip(starts_seconds, ends_seconds, scores, strict=True):
        (best,) = top(row, class_names, 1)
        times = {"start_seconds": float(start), "end_seconds": float(end)}
        segment = Segment(**times, label=best.label, index=best.index, score=best.score)
        last = merged[-1] if merged else None
        is_same = last is not None and last.index == best.index
        if last is not None and is_same and (last.score >= min_score) == (best.score >= min_score):
            merged[-1] = last.joined(segment)
        else:
            merged.append(segment)
    return tuple(merged)


class VideoScores:
    """Collects the views of one video, which may come in several parts, until its result can be told."""

    def __init__(self) -> None:
        self._info: VideoInfo | None = None
        self._is_timeline = False
        self._num_views = 0
        self._scores: list[Scores] = []
        self._features: list[Features] = []
        self._starts: list[float] = []
        self._ends: list[float] = []
        self._warnings: dict[str, None] = {}
        self._seconds = dict.fromkeys(("decode_seconds", "preprocess_seconds", "forward_seconds"), 0.0)

    def add(self, views: VideoViews, scores: Scores, features: Features, *, forward_seconds: float) -> None:
        """Take in a part: its scores (v, classes) and features (v, c), one row per view."""
        rows = len(scores) // views.num_views
        self._scores.append(scores.reshape(rows, views.num_views, -1).mean(axis=1))
        self._features.append(features.reshape(rows, views.num_views, -1).mean(axis=1))
        if views.starts_seconds is not None and views.ends_seconds is not None:
            self._is_timeline = True
            self._starts.extend(views.starts_seconds.tolist())
            self._ends.extend(views.ends_seconds.tolist())
        self._info = views.info
        self._num_views += len(scores)
        self._warnings.update(dict.fromkeys(views.warnings))
        self._seconds["decode_seconds"] += views.decode_seconds
        self._seconds["preprocess_seconds"] += views.preprocess_seconds
        self._seconds["forward_seconds"] += forward_seconds

    def prediction(self, path: str, class_names: Sequence[str], top_k: int, min_score: float = 0.0) -> Prediction:
        """The result of the whole video: scores are means over its views, or over its segments by their duration."""
        assert self._info is not None, "add() comes first"
        scores = np.concatenate(self._scores)
        durations = np.subtract(self._ends, self._starts) if self._is_timeline else None
        if durations is not None and not durations.any():  # one frame that lasts for nobody knows how long
            durations = None
        starts: list[float | None] = [*self._starts] if self._is_timeline else [None]
        ends: list[float | None] = [*self._ends] if self._is_timeline else [None]
        predictions = top(np.average(scores, axis=0, weights=durations), class_names, top_k)
        segments = None
        if self._is_timeline:
            segments = merge_segments(self._starts, self._ends, scores, class_names, min_score=min_score)
        result = VideoResult(
            path=path,
            status="ok",
            num_frames=self._info.num_frames,
            fps=self._info.fps,
            duration_seconds=self._info.duration_seconds,
            views=self._num_views,
            predictions=predictions,
            segments=segments,
            unsure_below=unsure_below(predictions, segments, min_score),
            warnings=tuple(self._warnings) or None,
            timing=Timing(**self._seconds),
        )
        return Prediction(result, _feature_rows(path, starts, ends, list(np.concatenate(self._features))))


class LiveScores:
    """Collects the clips of a live input until it ends."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.ends: list[float] = []
        self.interrupted = False
        self.warning: str | None = None
        self._scores: list[Scores] = []
        self._features: list[Features] = []

    def add(self, start: float, end: float, scores: Scores, features: Features) -> None:
        """Take in one clip: its scores (classes,) and features (c,).

        It speaks for the time since the one before it, which is `starts`; clips may overlap.
        """
        self.starts.append(self.ends[-1] if self.ends else start)
        self.ends.append(end)
        self._scores.append(scores)
        self._features.append(features)

    def prediction(self, name: str, class_names: Sequence[str], top_k: int, min_score: float = 0.0) -> Prediction:
        """The result of everything seen; an input that gave no clip has failed."""
        if not self.ends:
            if not self.interrupted:
                return failure(name, "no frames")
            return failure(name, "interrupted before the first clip was complete", interrupted=True)
        scores = np.stack(self._scores)
        predictions = top(scores.mean(axis=0), class_names, top_k)
        segments = merge_segments(self.starts, self.ends, scores, class_names, min_score=min_score)
        result = VideoResult(
            path=name,
            status="ok",
            duration_seconds=self.ends[-1],
            views=len(scores),
            predictions=predictions,
            segments=segments,
            unsure_below=unsure_below(predictions, segments, min_score),
            interrupted=self.interrupted or None,
            warnings=None if self.warning is None else (self.warning,),
        )
        return Prediction(result, _feature_rows(name, self.starts, self.ends, self._features))


def _feature_rows(
    path: str, starts: Sequence[float | None], ends: Sequence[float | None], features: Sequence[Features]
) -> tuple[FeatureRow, ...]:
    return tuple(
        FeatureRow(path=path, start_seconds=start, end_seconds=end, features=row)
        for start, end, row in zip(starts, ends, features, strict=True)
    )
