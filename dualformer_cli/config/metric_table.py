"""What each metric of a scored list is called and good for: text, pages, pictures and best_metric read it here.

A metric is a row of this table and the function of its name in engine/scoring/metrics.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One row: facts that everything that shows or compares the metric shares."""

    title: str
    """For pages and pictures; text and JSON have the row's own name."""
    is_percent: bool = True
    """0 to 100; else a number with four decimals."""
    is_multi_label: bool = False
    """Of lists whose videos may have several labels; else of lists with one label a video."""
    higher_is_better: bool = True
    interval_of: str | None = None
    """The metric whose 95% interval this is: a pair of numbers."""
    chooses_best: bool = False
    """Whether train.best_metric may name it."""
    is_headline: bool = True
    """Whether the text of a result and the tiles of a page have it."""
    is_drawn: bool = False
    """Whether the picture of a training run has a curve of it."""
    least_classes: int = 2
    """With fewer classes it says nothing, and only JSON has it."""
    all_listed_of: str | None = None
    """The metric that this is of all listed videos, those that were not scored counted as wrong."""


CONFIDENCE_PERCENT = 95
"""Of the interval of an accuracy."""

METRICS: dict[str, Metric] = {
    "top1": Metric(title="top-1", chooses_best=True, is_drawn=True),
    "top1_interval": Metric(title=f"{CONFIDENCE_PERCENT}% interval", interval_of="top1", is_headline=False),
    "top5": Metric(title="top-5", is_drawn=True, least_classes=6),
    "mean_class_accuracy": Metric(title="mean class accuracy", chooses_best=True),
    "top1_all_listed": Metric(title="top-1 of all listed", all_listed_of="top1"),
    "loss": Metric(title="loss", is_percent=False, higher_is_better=False, chooses_best=True, is_headline=False),
    "expected_calibration_error": Metric(title="calibration error", higher_is_better=False, is_headline=False),
    "mean_average_precision": Metric(title="mAP over classes", is_multi_label=True, chooses_best=True, is_drawn=True),
    "sample_average_precision": Metric(title="mAP over videos", is_multi_label=True),
}
"""In the order in which they are listed everywhere."""


def best_metrics(*, is_multi_label: bool | None = None) -> list[str]:
    """Return the metrics that may choose the best checkpoint, of one kind of list or of both."""
    return [
        name
        for name, metric in METRICS.items()
        if metric.chooses_best and is_multi_label in (None, metric.is_multi_label)
    ]


def is_better(name: str, value: float, other: float) -> bool:
    """Tell whether a value of a metric is better than another; equal ones are not."""
    return value > other if METRICS[name].higher_is_better else value < other


def says_something(name: str, num_classes: int | None) -> bool:
    """Tell whether a metric of so many classes is worth showing; their number may be unknown."""
    return num_classes is None or num_classes >= METRICS[name].least_classes
