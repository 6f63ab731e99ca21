"""Results of training and evaluation, as people read them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from dualformer_cli.outputs.report import printable
from dualformer_cli.system.files import atomic_path

_PERCENTS = ("top1", "top5", "mean_class_accuracy", "top1_all_listed", "mean_average_precision")


def write_json_lines(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write one JSON document a line; the file appears only when complete."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")  # ASCII, so that any path survives


def metric_line(document: Mapping[str, Any]) -> str:
    """The main metrics of a validation in one line."""
    parts = [f"{name} {document[name]:.2f}" for name in _PERCENTS if name in document and name != "top1_all_listed"]
    if "loss" in document:
        parts.append(f"loss {document['loss']:.4f}")
    videos = document["videos"]
    if videos["scored"] < videos["listed"]:
        parts.append(f"{videos['listed'] - videos['scored']} of {videos['listed']} videos not scored")
    return ", ".join(parts) or f"{videos['scored']} videos scored, without labels"


def print_evaluation(document: Mapping[str, Any], *, stream: TextIO | None = None) -> None:
    """Print the result of `eval`: buckets, metrics, what they can be traced to, and a comparison if there is one."""
    videos = document["videos"]
    rows = [("videos", ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in videos.items()))]
    for name in _PERCENTS:
        if name in document:
            rows.append((name, f"{document[name]:.2f}"))
    if "top1_interval" in document:
        low, high = document["top1_interval"]
        rows.append(("95 % interval", f"{low:.2f} to {high:.2f}"))
    if "expected_calibration_error" in document:
        rows.append(("calibration error", f"{document['expected_calibration_error']:.2f}"))
    if "views_curve" in document:
        rows.append(
            ("top1 by views", ", ".join(f"{row['views']}: {row['top1']:.2f}" for row in document["views_curve"]))
        )
    for name in ("preset", "weights", "views", "precision", "list", "digest"):
        if document.get(name) is not None:
            rows.append((name, str(document[name])))
    if "label_order" in document:
        rows.append(("warning", document["label_order"]))
    if "comparison" in document:
        rows += _comparison(document["comparison"])
    print_rows(rows, stream)


def print_preflight(document: Mapping[str, Any], *, stream: TextIO | None = None) -> None:
    """Print what `train --dry-run` measured."""
    rows = [("start", note) for note in document["notes"]]
    rows += [
        ("classes", str(document["classes"])),
        ("lr", f"{document['lr']:g}"),
        ("steps", f"{document['steps']:,}"),
        ("peak memory", f"{document['peak_memory_mib']:,.0f} MiB"),
        ("reading", f"{document['read_clips_per_second']:.1f} clips/s"),
        ("model", f"{document['model_clips_per_second']:.1f} clips/s; limited by {document['limited_by']}"),
        ("time", f"{document['hours']:.1f} hours without validation"),
        ("disk", f"{document['disk_needed_gib']:.2f} GiB needed, {document['disk_free_gib']:.1f} GiB free"),
    ]
    rows += [("warning", warning) for warning in document["warnings"]]
    print_rows(rows, stream)


def _comparison(comparison: Mapping[str, Any]) -> list[tuple[str, str]]:
    flipped = comparison["flipped"]
    return [
        ("compared", f"{comparison['videos']} videos in both"),
        ("top1 of both", f"{comparison['top1_first']:.2f} against {comparison['top1_second']:.2f}"),
        ("McNemar", f"p = {comparison['p_value']:.3g}, {len(flipped)} videos flipped"),
    ]


def print_rows(rows: Iterable[tuple[str, str]], stream: TextIO | None) -> None:
    listed = list(rows)
    out = sys.stdout if stream is None else stream
    width = max(len(name) for name, _ in listed)
    for name, text in listed:
        out.write(f"{name:{width}}  {printable(text, getattr(out, 'encoding', None) or 'utf-8')}\n")
