"""Documents of `eval` from plain dictionaries, as its JSON has them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from dualformer_cli.config.metric_table import METRICS
from dualformer_cli.documents.evaluate import (
    Calibration,
    CalibrationBin,
    ClassRow,
    Comparison,
    ConfusedPair,
    Evaluation,
    EvaluationPage,
    FlippedVideo,
    McNemar,
    Summary,
    UnscoredVideo,
    VideoCounts,
    ViewsPoint,
    WorstVideo,
)


def evaluation_of(document: dict[str, Any]) -> Evaluation:
    """Return the document that has this JSON; counts that are missing are 0."""
    left = dict(document)
    counts = {each.name: 0 for each in fields(VideoCounts)} | left.pop("videos")
    metrics = {name: left.pop(name) for name in METRICS if name in left}
    metrics = {name: tuple(value) if isinstance(value, list) else value for name, value in metrics.items()}
    summary = Summary(
        videos=VideoCounts(**counts),
        digest=left.pop("digest", ""),
        metrics=metrics,
        num_classes=left.pop("num_classes", None),
        label_order=left.pop("label_order", None),
    )
    curve, comparison = left.pop("views_curve", None), left.pop("comparison", None)
    return Evaluation(
        facts=left,
        summary=summary,
        views_curve=None if curve is None else tuple(ViewsPoint(**point) for point in curve),
        comparison=None if comparison is None else comparison_of(comparison),
    )


def comparison_of(document: dict[str, Any]) -> Comparison:
    """Return the comparison that has this JSON."""
    left = dict(document)
    test = McNemar(**{each.name: left.pop(each.name) for each in fields(McNemar)})
    flipped = tuple(FlippedVideo(**video) for video in left.pop("flipped"))
    return Comparison(test=test, flipped=flipped, **left)


def page_of(document: dict[str, Any]) -> EvaluationPage:
    """Return the content of a page from its parts beside each other."""
    left = dict(document)
    kinds: dict[str, Any] = {
        "unscored": UnscoredVideo,
        "classes": ClassRow,
        "confused": ConfusedPair,
        "worst": WorstVideo,
    }
    parts: dict[str, Any] = {name: tuple(kind(**row) for row in left.pop(name, ())) for name, kind in kinds.items()}
    if (calibration := left.pop("calibration", None)) is not None:
        bins = tuple(CalibrationBin(**row) for row in calibration["bins"])
        parts["calibration"] = Calibration(
            expected_calibration_error=calibration["expected_calibration_error"], bins=bins
        )
    return EvaluationPage(evaluation=evaluation_of(left), **parts)
