"""VIA, the annotator of the Visual Geometry Group: a project of its video annotator, and its CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from dualformer_cli.data.lists.tools.base import Annotations, Entry, Folder, got, reading, seconds_part, shown, texts
from dualformer_cli.system.words import counted

CSV_HEADER = "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata"
_FIELDS = ("file_list", "temporal_coordinates", "spatial_coordinates", "metadata")
"""Of a CSV, those that are JSON and count."""
_NO_LABEL = "_DEFAULT"
_CHECKBOX = 2
"""The type of an attribute of which several options hold."""

_Row = tuple[list[Any], list[Any], list[Any], dict[Any, Any]]
"""Files, times, region and attributes of an annotation."""


def is_via(document: Mapping[str, Any]) -> bool:
    """Return whether an object is a project of VIA 3."""
    return {"attribute", "file", "metadata", "view"} <= document.keys()


def read_via(document: Mapping[str, Any], files: Folder) -> Annotations:
    """Return the labelled segments of a project's videos."""
    metadata, views, names = (got(document, name, dict) for name in ("metadata", "view", "file"))

    def row(said: object) -> _Row:
        view = got(views, got(said, "vid", str), dict)
        listed = [got(got(names, str(file), dict), "fname", str) for file in got(view, "fid_list", list)]
        return listed, got(said, "z", list), got(said, "xy", list), got(said, "av", dict)

    rows = ((f"segment {key!r}", partial(row, said)) for key, said in metadata.items())
    return _annotations(rows, got(document, "attribute", dict), files)


def read_via_csv(text: str, files: Folder) -> Annotations:
    """Return the labelled segments of a CSV, whose comments say what its attributes are."""
    attributes: Mapping[str, Any] = {}
    rows = []
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"line {number}"
        if line.startswith("# ATTRIBUTE = "):
            with reading(where):
                attributes = json.loads(line.partition(" = ")[2])
        elif line.strip() and not line.startswith("#"):
            rows.append((where, partial(_fields, line)))
    return _annotations(rows, attributes, files)


def _fields(line: str) -> _Row:
    """Return what a line of a CSV says.

    Raises:
        ValueError: if it does not have six fields, or one is no JSON of its kind.
    """
    fields = next(csv.reader([line], strict=True))
    if len(fields) < 6:
        raise ValueError(f"{shown(line)} has {counted(len(fields), 'field')}, and six are expected")
    _, names, _, times, region, said = fields[:6]
    found = {}
    for name, value in zip(_FIELDS, (names, times, region, said), strict=True):
        try:
            found[name] = json.loads(value)
        except ValueError as error:
            raise ValueError(f"its {name} {shown(value)} is not valid JSON: {error}") from None
    files, of_time, of_region = (got(found, name, list) for name in _FIELDS[:3])
    return files, of_time, of_region, got(found, _FIELDS[3], dict)


def _annotations(
    rows: Iterable[tuple[str, Callable[[], _Row]]], attributes: Mapping[str, Any], files: Folder
) -> Annotations:
    """Return the segments of rows, each with its place in the file and what reads it."""
    found = Annotations([])
    num_ignored = 0
    for where, read in rows:
        with reading(where):
            names, times, region, said = read()
            labels = texts(
                [name for number, value in said.items() for name in _names(got(attributes, number, dict, {}), value)]
            )
            if len(times) != 2 or region or not labels:
                num_ignored += 1
                continue
            if not names or not isinstance(names[0], str):
                raise ValueError(f"its list of files is {shown(names)}, and the name of a video is expected")
            path = files.first(names[0], names[0].rpartition("/")[2])
            found.entries.append(Entry(where, path, labels, seconds_part(*times)))
    if num_ignored:
        found.notes.append(
            f"{counted(num_ignored, 'annotation')} of still frames and regions, or without a label, left out"
        )
    return found


def _names(attribute: Mapping[str, Any], value: object) -> list[str]:
    """Return what a value of an attribute is called: of one with options, its number; of boxes to tick, some.

    Raises:
        ValueError: if it is neither text nor a number.
    """
    (text,) = texts([value]) or ("",)
    ticked = text.split(",") if attribute.get("type") == _CHECKBOX else [text]
    options = got(attribute, "options", dict, {})
    return [options.get(each, each) for each in ticked if each != _NO_LABEL]
