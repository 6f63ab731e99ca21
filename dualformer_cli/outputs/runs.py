"""Results of training and evaluation, as people read them."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from dualformer_cli.config.metric_table import METRICS
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.evaluate import ClassRow, Comparison, Evaluation, MetricValue, Summary
from dualformer_cli.documents.train import Preflight, TrainResult
from dualformer_cli.outputs.screen import fitting
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.status import clear_status
from dualformer_cli.system.words import counted, duration_in_words, printable, size_in_words


def write_json_lines(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write one JSON document a line; the file appears only when complete."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")  # ASCII, so that any path survives


def metric_line(summary: Summary) -> str:
    """Return the main metrics of a scored list in one line."""
    metrics = summary.shown_metrics
    parts = [
        f"{row.title} {with_unit(name, metrics[name])}"
        for name, row in METRICS.items()
        if name in metrics and (row.is_headline or row.chooses_best) and row.all_listed_of is None
    ]
    videos = summary.videos
    if videos.scored < videos.listed:
        parts.append(f"{videos.listed - videos.scored} of {counted(videos.listed, 'video')} not scored")
    return ", ".join(parts) or f"{counted(videos.scored, 'video')} scored, without labels"


def print_evaluation(
    document: Evaluation,
    *,
    classes: Sequence[ClassRow] = (),
    other: str | None = None,
    stream: TextIO | None = None,
) -> None:
    """Print the result of `eval`: buckets, metrics, what they can be traced to, and a comparison if there is one.

    Args:
        document: the result.
        classes: of which the worst ones are named.
        other: what the run is called that this one is compared with.
        stream: to print on; stdout when None.
    """
    summary = document.summary
    counts = to_json(summary.videos)
    rows = [("videos", ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items()))]
    metrics = sorted(summary.shown_metrics.items(), key=lambda item: not METRICS[item[0]].is_headline)
    for name, value in metrics:
        if METRICS[name].is_headline or METRICS[name].is_percent:
            rows.append((METRICS[name].title, with_unit(name, value)))
    if worst := _worst_classes(classes):
        rows.append(("worst classes", worst))
    if document.views_curve is not None:
        rows.append(("top-1 by views", ", ".join(f"{row.views}: {row.top1:.2f}%" for row in document.views_curve)))
    facts = {**document.facts, "digest": summary.digest}
    for name in ("preset", "weights", "views", "precision", "list", "digest"):
        is_said = name == "preset" and facts.get(name) == facts.get("weights")  # a checkpoint brings its own
        if facts.get(name) is not None and not is_said:
            rows.append((name, str(facts[name])))
    if summary.label_order is not None:
        rows.append(("warning", summary.label_order))
    if document.comparison is not None:
        rows += _comparison(document.comparison, other or "the other run")
    print_rows(rows, stream)


def with_unit(name: str, value: MetricValue) -> str:
    """Return `number_in_words` with its percent signs."""
    if isinstance(value, tuple):
        return " to ".join(with_unit(name, end) for end in value)
    return f"{number_in_words(name, value)}%" if METRICS[name].is_percent else number_in_words(name, value)


def _worst_classes(classes: Sequence[ClassRow], *, most: int = 3) -> str:
    """Return the classes with the most wrong videos in a hundred, of those that have any."""
    wrong = [row for row in classes if row.correct < row.videos]
    wrong.sort(key=lambda row: (row.correct / row.videos, -row.videos))
    return ", ".join(f"{row.label} ({row.correct} of {row.videos} right)" for row in wrong[:most])


def number_in_words(name: str, value: MetricValue) -> str:
    """Return the value of a metric: a percent with two decimals, an interval, or a number with four."""
    if isinstance(value, tuple):
        return " to ".join(f"{end:.2f}" for end in value)
    return f"{value:.2f}" if METRICS[name].is_percent else f"{value:.4f}"


def print_training(document: TrainResult, *, stream: TextIO | None = None) -> None:
    """Print the end of a run: what it reached, where the best checkpoint is, and what to type next."""
    found = "" if document.validation is None else f", {metric_line(document.validation.summary)}"
    best = document.checkpoint
    if document.best is not None:
        title = METRICS[document.best_metric].title
        best += f" ({title} {with_unit(document.best_metric, document.best)})"
    weights = f"--weights {shlex.quote(document.checkpoint)}"
    rows = [
        ("trained", f"{counted(document.epochs, 'epoch')}, {counted(document.steps, 'step')}{found}"),
        ("best", best),
        ("next", f"dualformer predict {weights} VIDEO"),
    ]
    if document.validation_list is not None:
        rows.insert(2, ("next", f"dualformer eval {weights} --data {shlex.quote(document.validation_list)}"))
    for change in document.changes or ():
        rows.insert(1, ("changed", f"{change.key} was {change.before}, and {change.now} after step {change.step}"))
    print_rows(rows, stream)


def _pace(clips_per_second: float) -> str:
    """Clips a second, or of a slow model the seconds that a clip takes."""
    return f"{clips_per_second:.1f} clips/s" if clips_per_second >= 1 else f"{1 / clips_per_second:.1f} s a clip"


def print_preflight(document: Preflight, *, stream: TextIO | None = None) -> None:
    """Print what `train --dry-run` measured."""
    needed, free = (size_in_words(gib * 2**30) for gib in (document.disk_needed_gib, document.disk_free_gib))
    rows = [("start", note) for note in document.notes]
    rows += [
        ("classes", str(document.classes)),
        ("lr", f"{document.lr:g}"),
        ("steps", f"{document.steps:,}"),
        ("peak memory", f"{document.peak_memory_mib:,.0f} MiB"),
        ("reading", _pace(document.read_clips_per_second)),
        ("model", f"{_pace(document.model_clips_per_second)}; limited by {document.limited_by}"),
        ("measured", f"one forward and backward pass, of which a step has {document.passes}"),
        ("time", f"about {duration_in_words(document.hours * 3600)}, without validation"),
        ("disk", f"{needed} needed, {free} free"),
    ]
    rows += [("warning", warning) for warning in document.warnings]
    print_rows(rows, stream)


def _comparison(comparison: Comparison, other: str) -> list[tuple[str, str]]:
    return [
        ("compared", f"with {other}, {counted(comparison.videos, 'video')} in both"),
        ("top-1 of both", f"{comparison.top1_first:.2f}% against {comparison.top1_second:.2f}%"),
        ("McNemar", f"p = {comparison.test.p_value:.3g}, {counted(len(comparison.flipped), 'video')} flipped"),
    ]


def print_rows(rows: Iterable[tuple[str, str]], stream: TextIO | None) -> None:
    listed = list(rows)
    out = sys.stdout if stream is None else stream
    clear_status()
    width = max(len(name) for name, _ in listed)
    for name, text in listed:
        shown = printable(text, getattr(out, "encoding", None) or "utf-8")
        line = f"{name:{width}}  {shown}"
        is_command = text.startswith("dualformer ")  # as in `fitting`
        out.write((line if is_command else fitting(line, out, indent=width + 2)) + "\n")
