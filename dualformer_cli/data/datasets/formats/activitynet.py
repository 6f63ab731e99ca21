"""ActivityNet: one JSON file of all videos, with the annotated parts of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dualformer_cli.data.datasets.formats import base
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Format, Found, Part
from dualformer_cli.data.lists.column_names import SPLIT_WORDS

FILES = {"*activity_net*.json|*activitynet*.json|*.json": "train"}


def _activitynet(folder: Path) -> Found:
    for _, path in base.first_files(folder, dict.fromkeys(FILES, "all")):
        content = base.read_json(path)
        with base.reading(path):
            for name, video in content["database"].items():
                parts = tuple(_part(part, video.get("duration")) for part in video.get("annotations", []))
                labels = tuple(dict.fromkeys(part.label for part in parts))
                where = f"annotations {str(path)!r}, video {name!r}"
                yield Annotation(SPLIT_WORDS[video["subset"]], (f"v_{name}", name), labels, where, parts=parts)


def _part(said: Mapping[str, Any], duration: Any) -> Part:
    """Read an annotated part of a video; one that cannot be used says why."""
    label = str(said["label"])
    try:
        start, end = (float(seconds) for seconds in said["segment"])
    except (TypeError, ValueError, KeyError):
        return Part(math.nan, math.nan, label, "have no start and end in seconds")
    if not (math.isfinite(start) and math.isfinite(end)) or start < 0:
        return Part(start, end, label, "have no start and end in seconds")
    if end <= start:
        return Part(start, end, label, "have no length")
    length = duration if isinstance(duration, int | float) and duration > 0 else math.inf
    if start >= length:
        return Part(start, end, label, "begin at or beyond the end of their video")
    return Part(start, end, label, ends_beyond=end > length)


def _action_names(folder: Path) -> Iterator[ClassIndex]:
    for _, path in base.first_files(folder, {"action_name.csv": ""}):
        lines = list(base.text_lines(path))
        yield ClassIndex(str(path), {"": lines[1:] if lines[:1] == ["action"] else lines})


FORMAT = Format(files=FILES, read=_activitynet, classes=_action_names)
