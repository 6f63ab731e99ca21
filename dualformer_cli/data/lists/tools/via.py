"""VIA, the annotator of the Visual Geometry Group: a project of its video annotator, and its CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dualformer_cli.data.lists.tools.base import Annotations, Entry, Folder, texts
from dualformer_cli.system.words import counted
from dualformer_cli.video.parts import Part

CSV_HEADER = "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata"
_NO_LABEL = "_DEFAULT"
_CHECKBOX = 2
"""The type of an attribute of which several options hold."""


def is_via(document: Mapping[str, Any]) -> bool:
    """Return whether an object is a project of VIA 3."""
    return {"attribute", "file", "metadata", "view"} <= document.keys()


def read_via(document: Mapping[str, Any], files: Folder) -> Annotations:
    """Return the labelled segments of a project's videos."""
    names = {
        view: [document["file"][str(file)]["fname"] for file in said["fid_list"]]
        for view, said in document["view"].items()
    }
    rows = ((key, names[said["vid"]], said["z"], said["xy"], said["av"]) for key, said in document["metadata"].items())
    return _annotations(rows, document["attribute"], files)


def read_via_csv(text: str, files: Folder) -> Annotations:
    """Return the labelled segments of a CSV, whose comments say what its attributes are."""
    attributes: Mapping[str, Any] = {}
    lines = []
    for line in text.splitlines():
        if line.startswith("# ATTRIBUTE = "):
            attributes = json.loads(line.partition(" = ")[2])
        elif line.strip() and not line.startswith("#"):
            lines.append(line)
    rows = ((key, *map(json.loads, (names, z, xy, av))) for key, names, _, z, xy, av, *_ in csv.reader(lines))
    return _annotations(rows, attributes, files)


def _annotations(
    rows: Iterator[tuple[str, Sequence[str], Sequence[float], Sequence[float], Mapping[str, Any]]],
    attributes: Mapping[str, Any],
    files: Folder,
) -> Annotations:
    found = Annotations([])
    num_ignored = 0
    for key, names, times, region, said in rows:
        labels = texts([name for number, value in said.items() for name in _names(attributes.get(number), value)])
        if len(times) == 2 and not region and labels:
            path = files.first(names[0], names[0].rpartition("/")[2])
            part = Part(start_seconds=float(times[0]), end_seconds=float(times[1]))
            found.entries.append(Entry(f"segment {key!r}", path, labels, part))
        else:
            num_ignored += 1
    if num_ignored:
        found.notes.append(
            f"{counted(num_ignored, 'annotation')} of still frames and regions, or without a label, left out"
        )
    return found


def _names(attribute: Any, value: str) -> list[str]:
    """Return what a value of an attribute is called: of one with options, its number; of boxes to tick, some."""
    said = attribute if isinstance(attribute, dict) else {}
    ticked = value.split(",") if said.get("type") == _CHECKBOX else [value]
    return [said.get("options", {}).get(each, each) for each in ticked if each != _NO_LABEL]
