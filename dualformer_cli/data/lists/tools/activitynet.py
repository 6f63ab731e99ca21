"""JSON of ActivityNet and Kinetics, and of tools that write what theirs look like."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dualformer_cli.data.lists.tables import kinetics_name
from dualformer_cli.data.lists.tools.base import Annotations, Entry, Folder, got, got_two, reading, seconds_part, texts
from dualformer_cli.video.parts import Part


def is_activitynet(document: Mapping[str, Any]) -> bool:
    """Return whether an object is such a file: it has a "database" of videos, or is one. Some may lack annotations."""
    videos = document.get("database", document)
    said = (
        (each.get("annotations") for each in videos.values() if isinstance(each, dict))
        if isinstance(videos, dict)
        else ()
    )
    return any(isinstance(each, list) or (isinstance(each, dict) and "segment" in each) for each in said)


def read_activitynet(document: Mapping[str, Any], files: Folder) -> Annotations:
    """Return what is said of each video: of its parts, with times; of the whole where there are none.

    A video is called NAME or v_NAME. One of Kinetics has one annotation, and is a file called after its times.
    """
    found = Annotations([])
    for name, said in document.get("database", document).items():
        with reading(f"video {name!r}"):
            found.entries += _of(name, said, files)
    return found


def _of(name: str, said: object, files: Folder) -> Iterator[Entry]:
    where, split = f"video {name!r}", got(said, "subset", str, "")
    annotated = got(said, "annotations", object, None)
    if isinstance(annotated, dict):
        part = _segment(annotated)
        path = files.first(kinetics_name(name, part.start_seconds or 0.0, part.end_seconds or 0.0), name)
        yield Entry(where, path, texts(annotated.get("label")), split=split)
        return
    path = files.first(name, f"v_{name}")
    if not annotated:
        yield Entry(where, path, (), split=split)
    for each in got(said, "annotations", list, None) or ():
        yield Entry(where, path, texts(got(each, "label", object)), _segment(each), split)


def _segment(said: object) -> Part:
    return seconds_part(*(got_two(said, "segment") or got(said, "segment", list)))
