"""Label Studio: JSON, JSON-MIN and CSV with choices, timeline labels, and labels that have a start and an end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dualformer_cli.data.lists.column_names import PATH_NAMES
from dualformer_cli.data.lists.samples import lines_of
from dualformer_cli.data.lists.tools.base import (
    Annotations,
    Entry,
    Folder,
    frame,
    frames_part,
    got,
    reading,
    seconds_part,
    shown,
    texts,
)
from dualformer_cli.system.words import counted
from dualformer_cli.video.suffixes import is_video_name

_COLUMNS = frozenset(("annotation_id", "annotator", "lead_time"))
"""Of every CSV and JSON-MIN."""
_NO_LABELS = _COLUMNS | {"id", "created_at", "updated_at", "agreement", "sentiment", "was_cancelled", "history"}
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)
"""What an uploaded file is called."""


def is_label_studio(document: Sequence[Any]) -> bool:
    """Return whether a list is JSON or JSON-MIN of Label Studio."""
    return any(
        (isinstance(each.get("data"), dict) and not {"annotations", "completions"}.isdisjoint(each))
        or is_label_studio_table(list(each))
        for each in document
        if isinstance(each, dict)
    )


def is_label_studio_table(header: Sequence[str]) -> bool:
    """Return whether the names of columns are those of a table of Label Studio."""
    return set(header) >= _COLUMNS


def header_of_table(text: str) -> list[str]:
    """Return the names of the columns of a CSV or TSV, with or without quotes around them."""
    line = next(lines_of(text)).strip()
    return [name.strip('"') for name in line.split(_delimiter(line))]


def read_label_studio(tasks: Sequence[Any], files: Folder) -> Annotations:
    """Return what the first annotation of each task says that nobody has cancelled, or that is called the truth.

    Frames of a timeline count from 1, and the last one belongs to the part. JSON-MIN is rows of a table.
    """
    if not any(isinstance(task, dict) and "data" in task for task in tasks):
        rows = [(f"entry {number}", task) for number, task in enumerate(tasks, start=1)]
        return _annotations(rows, files)
    found = Annotations([])
    ignored: Counter[str] = Counter()
    num_several = 0
    for number, task in enumerate(tasks, start=1):
        where = f"task {task['id'] if isinstance(task, dict) and 'id' in task else number}"
        with reading(where):
            path = _path(got(task, "data", dict), files)
            listed = got(task, "annotations", list, None)
            listed = got(task, "completions", list) if listed is None and "completions" in task else listed
            given = [each for each in listed or () if not got(each, "was_cancelled", object, None)]
            given.sort(key=lambda each: not each.get("ground_truth"))
            num_several += len(given) > 1
            results = [result for each in given[:1] for result in got(each, "result", list)]
            found.entries += _of_results(where, path, results, ignored) or [Entry(where, path, ())]
    if num_several:
        found.notes.append(f"{counted(num_several, 'video')} with several annotations: the first one counts")
    if ignored:
        kinds = ", ".join(ignored)
        found.notes.append(f"{counted(ignored.total(), 'result')} of other kinds ({kinds}) left out")
    return found


def read_label_studio_table(text: str, files: Folder) -> Annotations:
    """Return what a CSV or TSV of Label Studio says."""
    table = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0]), strict=True)
    header, rows = next(table), []
    line = table.line_num + 1
    for values in table:
        with reading(f"line {line}"):
            if values and len(values) != len(header):
                raise ValueError(f"it has {counted(len(values), 'field')} and the header {len(header)}; quote commas")
        row = {name: _json_in(value) for name, value in zip(header, values, strict=False)}
        if row and row.get("was_cancelled") != "True":
            rows.append((f"line {line}", row))
        line = table.line_num + 1
    return _annotations(rows, files)


def _annotations(rows: Sequence[tuple[str, Any]], files: Folder) -> Annotations:
    """Return what rows of a table say, each with its place in the file.

    Raises:
        ValueError: if it does not show which of its columns is the label.
    """
    _check_columns(row for _, row in rows if isinstance(row, dict))
    found = Annotations([])
    for where, row in rows:
        with reading(where):
            found.entries += _of_row(where, row, files)
    return found


def _delimiter(header: str) -> str:
    return "\t" if "\t" in header else ","


def _of_results(where: str, path: str, results: Sequence[Any], ignored: Counter[str]) -> list[Entry]:
    kinds = [got(each, "type", str) for each in results]
    values = [got(each, "value", dict, {}) for each in results]  # a relation of two others has none
    chosen = [got(value, "choices", list) for kind, value in zip(kinds, values, strict=True) if kind == "choices"]
    choices = texts([label for labels in chosen for label in labels])
    entries = [Entry(where, path, tuple(dict.fromkeys(choices)))] if choices else []
    for kind, value in zip(kinds, values, strict=True):
        if kind == "timelinelabels":
            entries += _of_timeline(where, path, value)
        elif kind == "labels" and "start" in value:
            entries.append(_of_times(where, path, value))
        elif kind != "choices":
            ignored[kind] += 1
    return entries


def _of_timeline(where: str, path: str, value: object) -> Iterator[Entry]:
    labels = texts(got(value, "timelinelabels", list))
    for frames in got(value, "ranges", list):
        first = max(1, frame(got(frames, "start", object)))
        yield Entry(where, path, labels, frames_part(first, got(frames, "end", object)))


def _of_times(where: str, path: str, value: object) -> Entry:
    part = seconds_part(got(value, "start", object), got(value, "end", object))
    return Entry(where, path, texts(got(value, "labels", list)), part)


def _check_columns(rows: Iterable[Mapping[str, Any]]) -> None:
    """Refuse a table in which several columns may be labels, as one of what was imported beside the video may."""
    names = sorted({name for row in rows for name, value in _said(row) if not _has_parts(value)})
    if len(names) > 1:
        raise ValueError(
            f"its columns {' and '.join(map(repr, names))} may all be the label, and it does not say which are; leave "
            "one, or export JSON"
        )


def _said(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield name and value of the columns that may be labels: those of control tags, and others of the task's data."""
    for name, value in row.items():
        if name not in _NO_LABELS and value and not _is_path(name, value):
            yield name, value.get("choices") if isinstance(value, dict) else value


def _has_parts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _of_row(where: str, row: Any, files: Folder) -> list[Entry]:
    """Return what a row of a CSV or of JSON-MIN says: its control tags are columns."""
    if not isinstance(row, dict):
        raise ValueError(f"{shown(row)} stands where an object is expected")
    path = _path(row, files)
    entries: list[Entry] = []
    for _, value in _said(row):
        if _has_parts(value):
            for each in value:
                if got(each, "timelinelabels", object, None) is not None:
                    entries += _of_timeline(where, path, each)
                elif "start" in each and "labels" in each:
                    entries.append(_of_times(where, path, each))
        elif value:
            entries.append(Entry(where, path, texts(value)))
    return entries or [Entry(where, path, ())]


def _path(data: Mapping[str, Any], files: Folder) -> str:
    """Return the path of a task's video, which is an address of Label Studio's: the name of an upload, or a path.

    Raises:
        ValueError: if there is no video.
    """
    found = next((str(value) for name, value in data.items() if value and _is_path(name, value)), None)
    if found is None:
        raise ValueError(f"no column or key is a video: {', '.join(data)}")
    address = urlsplit(found)
    path = parse_qs(address.query).get("d", [unquote(address.path) if address.scheme or "/data/" in found else found])[
        0
    ]
    path = re.sub(r"^/data/(?:upload/(?:[0-9]+/)?|local-files/)", "", path)
    name = os.path.basename(path)
    uploaded = _UPLOADED.fullmatch(name)
    return files.first(path, name, *([uploaded[1]] if uploaded else []))


def _is_path(name: str, value: Any) -> bool:
    return isinstance(value, str) and (name in PATH_NAMES or is_video_name(urlsplit(value).path) or "?d=" in value)


def _json_in(value: str | None) -> Any:
    """Return what a field holds, which is JSON where it is several values."""
    if value and value[0] in "[{":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
