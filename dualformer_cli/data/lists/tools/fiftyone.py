"""FiftyOne: labels.json of classifications and of temporal detections, whose videos are in data/ beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dualformer_cli.data.lists.tools.base import (
    Annotations,
    Entry,
    Folder,
    frames_part,
    got_two,
    reading,
    seconds_part,
    texts,
)
from dualformer_cli.video.parts import WHOLE, Part


def is_fiftyone(document: Mapping[str, Any]) -> bool:
    """Return whether an object is such a file: {"classes": [...] or null, "labels": {name: ...}}."""
    return "classes" in document and isinstance(document.get("labels"), dict)


def read_fiftyone(document: Mapping[str, Any], files: Folder) -> Annotations:
    """Return the label of each video, or of its parts: those have "timestamps", or "support", frames from 1."""
    with reading("'classes'"):
        classes = texts(document["classes"])
    found = Annotations([], classes)
    for name, target in document["labels"].items():
        with reading(f"video {name!r}"):
            found.entries += _of(name, target, classes, files)
    return found


def _of(name: str, target: Any, classes: tuple[str, ...], files: Folder) -> Iterator[Entry]:
    where, path = f"video {name!r}", files.first(f"data/{name}", name)
    parts = target if isinstance(target, list) and any(isinstance(each, dict) for each in target) else [target]
    for said in parts:
        label, part = said, WHOLE
        if isinstance(said, dict):
            label, part = said.get("label"), _part(said)
        several = label if isinstance(label, list) else [label]
        yield Entry(where, path, texts([_class(each, classes) for each in several]), part)


def _part(said: Mapping[str, Any]) -> Part:
    if times := got_two(said, "timestamps"):
        return seconds_part(*times)
    frames = got_two(said, "support")
    return frames_part(*frames) if frames else WHOLE


def _class(label: Any, classes: tuple[str, ...]) -> Any:
    """Return the name of a class that is named by its number."""
    if not isinstance(label, int) or isinstance(label, bool) or not classes:
        return label
    if not 0 <= label < len(classes):
        raise ValueError(f"label {label} is none of the {len(classes)} classes, which count from 0")
    return classes[label]
