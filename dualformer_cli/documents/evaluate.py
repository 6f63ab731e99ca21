"""What `eval` says of a scored list: the document of --json, what training logs of it, and the content of the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dualformer_cli.config.metric_table import METRICS, says_something
from dualformer_cli.documents.base import absent, inlined

Bucket = Literal["scored", "missing", "unreadable", "too_short"]
MetricValue = float | tuple[float, float]
"""A number, or the two ends of an interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoCounts:
    """How many videos are listed, and what became of them."""

    listed: int
    scored: int
    missing: int
    """There is no such file."""
    unreadable: int
    """The file is there and cannot be decoded."""
    too_short: int
    """It has no frames where the list says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The scores of a list added up; training logs it after every validation."""

    videos: VideoCounts
    digest: str
    """SHA-256 over path and scores of every scored video: equal scores have an equal digest."""
    metrics: Mapping[str, MetricValue] = inlined(
        **{name: tuple[float, float] if row.interval_of else float for name, row in METRICS.items()}
    )
    """Of the scored videos that have labels, by the names of the metric table; percents are 0 to 100."""
    num_classes: int | None = absent()
    """That the model tells apart."""
    label_order: str | None = absent()
    """A sentence, where labels and predictions seem to number the classes differently."""

    @property
    def shown_metrics(self) -> dict[str, MetricValue]:
        """Return those that say something: of five classes, every label is among the best five."""
        return {name: value for name, value in self.metrics.items() if says_something(name, self.num_classes)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewsPoint:
    """What a number of views per video would have given."""

    views: int
    top1: float
    """Percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlippedVideo:
    """A video that only one of two runs recognises; classes are numbers."""

    path: str
    label: int
    first: int
    second: int


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """Whether two classifiers differ, from the videos that only one of them recognises."""

    p_value: float
    """Exact and two-sided."""
    chi_squared: float
    """With continuity correction."""
    p_value_chi_squared: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs over the videos that both scored."""

    videos: int
    only_in_first: int
    """Videos that the other run did not score."""
    only_in_second: int
    top1_first: float
    top1_second: float
    both_right: int
    first_right: int
    """Videos that only the first recognises."""
    second_right: int
    both_wrong: int
    test: McNemar = inlined()
    flipped: tuple[FlippedVideo, ...]
    """Sorted by path."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """`eval --json`."""

    facts: Mapping[str, str | int | None] = inlined(
        preset=str,
        weights=str,
        weights_sha256=str | None,
        device=str,
        precision=str,
        views=str,
        list=str,
        root=str | None,
        list_fingerprint=str,
        dualformer=str,
        torch=str,
    )
    """What the scores can be traced to: preset, weights and their hash, list and its fingerprint, versions."""
    summary: Summary = inlined()
    views_curve: tuple[ViewsPoint, ...] | None = absent()
    """Top-1 of the first 1, 2, ... views of every video, the middle clip first."""
    comparison: Comparison | None = absent()
    """With another run's dump."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class of the page."""

    label: str
    index: int
    videos: int
    correct: int
    accuracy: float | None
    """Percent; None without videos."""
    taken_for: str | None
    """The wrong class that was predicted most."""
    taken_for_videos: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfusedPair:
    """A common mistake."""

    label: str
    predicted: str
    videos: int
    share: float
    """Percent of the label's videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstVideo:
    """A wrong answer whose label has a low score."""

    path: str
    label: str
    label_score: float
    """0 to 1."""
    predicted: str
    score: float
    """Of the predicted class, 0 to 1."""
    thumbnail: bytes | None = None
    """JPEG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBin:
    """Videos whose best score lies between `low` and `high`; confidence and accuracy are percents."""

    low: float
    high: float
    videos: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How far scores are from shares of right answers."""

    expected_calibration_error: float
    """Mean distance of the two over videos, in percent points."""
    bins: tuple[CalibrationBin, ...]
    """Those with videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnscoredVideo:
    """A video of the list without scores."""

    path: str
    status: Bucket
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationPage:
    """What the page shows beside the document. Parts that say nothing are empty or None."""

    evaluation: Evaluation
    unscored: tuple[UnscoredVideo, ...] = ()
    other: str | None = None
    """What the run is called that this one is compared with."""
    classes: tuple[ClassRow, ...] = ()
    confusion: tuple[tuple[int, ...], ...] = ()
    """Of few classes: how many videos of the row's class were taken for the column's."""
    confused: tuple[ConfusedPair, ...] = ()
    worst: tuple[WorstVideo, ...] = ()
    calibration: Calibration | None = None
