"""Scores and labels become numbers: accuracies in percent, intervals, average precision, calibration.

Everything here is NumPy on arrays of all videos, gathered from all ranks. The classes of a video are ranked by score;
of equal scores the lower class number comes first, as in `predict`. A metric is a function of `ScoredVideos` and the
row of its name in config/metric_table.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.config.metric_table import CONFIDENCE_PERCENT, METRICS
from dualformer_cli.documents.evaluate import Calibration, CalibrationBin, MetricValue

Scores = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.integer[Any]]
Hits = npt.NDArray[np.bool_]


def _ratio(part: Any, whole: Any) -> float:
    return float(part / whole) if whole else math.nan


def label_ranks(scores: Scores, labels: Labels) -> npt.NDArray[np.int64]:
    """How many classes come before the label, shape (n,); 0 is a top-1 hit, below 5 a top-5 hit.

    Args:
        scores: shape (n, classes).
        labels: class numbers, shape (n,).

    Raises:
        ValueError: if shapes differ, a label is no class or a score is NaN.
    """
    if scores.ndim != 2 or labels.shape != scores.shape[:1]:
        raise ValueError(f"scores {scores.shape} and labels {labels.shape} do not fit")
    if len(labels) and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ValueError(f"labels must be 0 to {scores.shape[1] - 1}, got {labels.min()} to {labels.max()}")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    own = np.take_along_axis(scores, labels[:, None], axis=1)
    before = np.arange(scores.shape[1]) < labels[:, None]
    return np.count_nonzero((scores > own) | ((scores == own) & before), axis=1)


def accuracy(hits: Hits) -> float:
    """Percent of True; NaN of nothing."""
    return 100 * _ratio(np.count_nonzero(hits), hits.size)


def accuracy_interval(hits: Hits, *, confidence: float = CONFIDENCE_PERCENT / 100) -> tuple[float, float]:
    """Return Wilson's interval of an accuracy in percent: the true rates that such a share of hits does not refute.

    Where all or no videos are hits it still has a width, which an interval from the videos drawn again has not.
    """
    n = hits.size
    if not n:
        return math.nan, math.nan
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    rate = float(np.count_nonzero(hits) / n)
    centre, reach = rate + z * z / (2 * n), z * math.sqrt(rate * (1 - rate) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + side) / (1 + z * z / n) for side in (-reach, reach))
    return 100 * max(min(low, rate), 0.0), 100 * min(max(high, rate), 1.0)


def multi_hot(labels: Sequence[Sequence[int]], num_classes: int) -> Hits:
    """Lists of class numbers to yes or no per class, shape (n, classes)."""
    table = np.zeros((len(labels), num_classes), dtype=np.bool_)
    for row, classes in zip(table, labels, strict=True):
        row[list(classes)] = True
    return table


def average_precision(scores: Scores, positives: Hits) -> float:
    """Precision averaged over the steps of recall, 0 to 1; equal scores are one step. NaN without positives.

    Args:
        scores, positives: shape (n,).
    """
    total = np.count_nonzero(positives)
    if not total:
        return math.nan
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(positives[order])
    step_ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    precision, new = found[step_ends] / (step_ends + 1), np.diff(found[step_ends], prepend=0)
    return float(np.sum(precision * new) / total)


def class_average_precisions(scores: Scores, positives: Hits) -> npt.NDArray[np.float64]:
    """Return the average precision of each class's ranking of the videos, 0 to 1; NaN where no video has it.

    Args:
        scores, positives: shape (n, classes).

    Returns:
        Shape (classes,).

    Raises:
        ValueError: if shapes differ or a score is NaN.
    """
    if scores.ndim != 2 or scores.shape != positives.shape or positives.dtype != np.bool_:
        raise ValueError(f"scores {scores.shape} and {positives.dtype} labels {positives.shape} do not fit")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    return np.array([average_precision(*column) for column in zip(scores.T, positives.T, strict=True)])


def calibration(scores: Scores, labels: Labels, *, num_bins: int = 15) -> Calibration:
    """Compare confidence with accuracy in bins of equal width of the best score.

    Args:
        scores: probabilities, shape (n, classes).
        labels: class numbers, shape (n,).
        num_bins: from 0 to 1.
    """
    confidence, hits = scores.max(axis=1, initial=0).astype(np.float64), label_ranks(scores, labels) < 1
    places = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    videos, confidences, right = (
        np.bincount(places, weights=weights, minlength=num_bins) for weights in (None, confidence, hits)
    )
    bins = [
        CalibrationBin(
            low=place / num_bins,
            high=(place + 1) / num_bins,
            videos=int(videos[place]),
            confidence=float(100 * confidences[place] / videos[place]),
            accuracy=float(100 * right[place] / videos[place]),
        )
        for place in np.flatnonzero(videos).tolist()
    ]
    error = _ratio(sum(row.videos * abs(row.confidence - row.accuracy) for row in bins), len(labels))
    return Calibration(expected_calibration_error=error, bins=tuple(bins))


@dataclass(frozen=True)
class ScoredVideos:
    """The videos of a list that have scores and labels.

    Raises:
        ValueError: if shapes differ, a label is no class or a score is NaN.
    """

    scores: Scores
    """Shape (n, classes); of lists with one label a video, rows of sum 1."""
    labels: Sequence[Sequence[int]]
    """Classes of each video."""
    num_listed: int
    """Videos of the list that have labels, scored or not."""

    @cached_property
    def first_labels(self) -> Labels:
        """One class per video, shape (n,)."""
        return np.array([labels[0] for labels in self.labels], dtype=np.int64)

    @cached_property
    def ranks(self) -> npt.NDArray[np.int64]:
        """How many classes come before the label, shape (n,)."""
        return label_ranks(self.scores, self.first_labels)

    @cached_property
    def positives(self) -> Hits:
        """Yes or no per class, shape (n, classes)."""
        return multi_hot(self.labels, self.scores.shape[1])


def top1(videos: ScoredVideos) -> float:
    """Percent of videos whose label has the highest score."""
    return accuracy(videos.ranks < 1)


def top1_interval(videos: ScoredVideos) -> tuple[float, float]:
    """Wilson's 95% interval of top1."""
    return accuracy_interval(videos.ranks < 1)


def top5(videos: ScoredVideos) -> float:
    """Percent of videos whose label is among the five classes of the highest scores."""
    return accuracy(videos.ranks < 5)


def mean_class_accuracy(videos: ScoredVideos) -> float:
    """Mean percent of hits over the classes that have videos; NaN if none has.

    The published code also averaged in classes that were only predicted, as zeros.
    """
    labels, num_classes = videos.first_labels, videos.scores.shape[1]
    of_class = np.bincount(labels, minlength=num_classes)
    hits, present = np.bincount(labels[videos.ranks < 1], minlength=num_classes), of_class > 0
    return float(100 * (hits[present] / of_class[present]).mean()) if present.any() else math.nan


def top1_all_listed(videos: ScoredVideos) -> float:
    """The top1 of the whole list, with the videos that were not scored counted as wrong."""
    return _ratio(top1(videos) * len(videos.labels), videos.num_listed)


def loss(videos: ScoredVideos) -> float:
    """Mean of -log of the label's score; a score of 0 counts as the smallest normal float32."""
    own = videos.scores[np.arange(len(videos.labels)), videos.first_labels]
    return float(-np.log(np.maximum(own, np.finfo(np.float32).tiny)).mean()) if own.size else math.nan


def expected_calibration_error(videos: ScoredVideos) -> float:
    """Mean distance between the best score and the share of right answers, in percent points."""
    return calibration(videos.scores, videos.first_labels).expected_calibration_error


def mean_average_precision(videos: ScoredVideos) -> float:
    """Average precision of each class's ranking of the videos, in percent: the mean over classes that have videos."""
    return _mean_percent(class_average_precisions(videos.scores, videos.positives))


def sample_average_precision(videos: ScoredVideos) -> float:
    """Average precision of each video's ranking of the classes, in percent: the mean over videos."""
    return _mean_percent(class_average_precisions(videos.scores.T, videos.positives.T))


def _mean_percent(precisions: npt.NDArray[np.float64]) -> float:
    known = precisions[~np.isnan(precisions)]
    return float(100 * known.mean()) if known.size else math.nan


FUNCTIONS: dict[str, Callable[[ScoredVideos], MetricValue]] = {
    function.__name__: function
    for function in (
        top1,
        top1_interval,
        top5,
        mean_class_accuracy,
        top1_all_listed,
        loss,
        expected_calibration_error,
        mean_average_precision,
        sample_average_precision,
    )
}
"""Of every row of the metric table."""


def measure(videos: ScoredVideos, *, multi_label: bool) -> dict[str, MetricValue]:
    """Return the metrics of a list whose videos have one label each, or several, in the order of the table."""
    return {name: FUNCTIONS[name](videos) for name, row in METRICS.items() if row.is_multi_label is multi_label}
