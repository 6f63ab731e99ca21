"""Label Studio: JSON, JSON-MIN and CSV with choices, timeline labels, and labels that have a start and an end."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from dualformer_cli.data.lists.samples import lines_of
from dualformer_cli.data.lists.tables import PATH_NAMES
from dualformer_cli.data.lists.tools.base import Annotations, Entry, Folder, texts
from dualformer_cli.system.words import counted
from dualformer_cli.video.parts import Part
from dualformer_cli.video.suffixes import is_video_name

_COLUMNS = frozenset(("annotation_id", "annotator", "lead_time"))
"""Of every CSV and JSON-MIN."""
_NO_LABELS = _COLUMNS | {"id", "created_at", "updated_at", "agreement", "sentiment", "was_cancelled", "history"}
_UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)
"""What an uploaded file is called."""


def is_label_studio(document: Sequence[Any]) -> bool:
    """Return whether a list is JSON or JSON-MIN of Label Studio."""
    first = document[0] if document and isinstance(document[0], dict) else {}
    is_full = isinstance(first.get("data"), dict) and not {"annotations", "completions"}.isdisjoint(first)
    return is_full or is_label_studio_table(list(first))


def is_label_studio_table(header: Sequence[str]) -> bool:
    """Return whether the names of columns are those of a table of Label Studio."""
    return set(header) >= _COLUMNS


def header_of_table(text: str) -> list[str]:
    """Return the names of the columns of a CSV or TSV, with or without quotes around them."""
    line = next(lines_of(text)).strip()
    return [name.strip('"') for name in line.split(_delimiter(line))]


def read_label_studio(tasks: Sequence[Any], files: Folder) -> Annotations:
    """Return what the first annotation of each task says that nobody has cancelled, or that is called the truth.

    Frames of a timeline count from 1, and the last one belongs to the part.

    Raises:
        ValueError: if a table does not show which of its columns is the label.
    """
    _check_columns([task for task in tasks if "data" not in task])
    found = Annotations([])
    ignored: Counter[str] = Counter()
    num_several = 0
    for number, task in enumerate(tasks, start=1):
        if "data" not in task:
            found.entries += _of_row(number, task, files)
            continue
        where, path = f"task {task.get('id', number)}", _path(task["data"], files)
        given = [each for each in task.get("annotations", task.get("completions")) if not each.get("was_cancelled")]
        given.sort(key=lambda each: not each.get("ground_truth"))
        num_several += len(given) > 1
        entries = [entry for each in given[:1] for entry in _of_results(where, path, each["result"], ignored)]
        found.entries += entries or [Entry(where, path, ())]
    if num_several:
        found.notes.append(f"{counted(num_several, 'video')} with several annotations: the first one counts")
    if ignored:
        kinds = ", ".join(ignored)
        found.notes.append(f"{counted(ignored.total(), 'result')} of other kinds ({kinds}) left out")
    return found


def read_label_studio_table(text: str, files: Folder) -> Annotations:
    """Return what a CSV or TSV of Label Studio says."""
    table = csv.DictReader(io.StringIO(text, newline=""), delimiter=_delimiter(text.partition("\n")[0]), strict=True)
    rows = [{name: _json_in(value) for name, value in row.items()} for row in table]
    return read_label_studio([row for row in rows if row.get("was_cancelled") != "True"], files)


def _delimiter(header: str) -> str:
    return "\t" if "\t" in header else ","


def _of_results(where: str, path: str, results: Sequence[Mapping[str, Any]], ignored: Counter[str]) -> Iterator[Entry]:
    choices = [label for each in results if each["type"] == "choices" for label in each["value"]["choices"]]
    if choices:
        yield Entry(where, path, texts(list(dict.fromkeys(choices))))
    for each in results:
        kind, value = each["type"], each["value"]
        if kind == "timelinelabels":
            yield from _of_timeline(where, path, value)
        elif kind == "labels" and "start" in value:
            part = Part(start_seconds=float(value["start"]), end_seconds=float(value["end"]))
            yield Entry(where, path, texts(value["labels"]), part)
        elif kind != "choices":
            ignored[kind] += 1


def _of_timeline(where: str, path: str, value: Mapping[str, Any]) -> Iterator[Entry]:
    for frames in value["ranges"]:
        first = max(1, int(frames["start"]))
        yield Entry(where, path, texts(value["timelinelabels"]), Part(first - 1, int(frames["end"]) - first + 1))


def _check_columns(rows: Sequence[Mapping[str, Any]]) -> None:
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


def _of_row(number: int, row: Mapping[str, Any], files: Folder) -> list[Entry]:
    """Return what a row of a CSV or of JSON-MIN says: its control tags are columns."""
    where, path = f"row {number}", _path(row, files)
    entries: list[Entry] = []
    for _, value in _said(row):
        if _has_parts(value):
            for each in value:
                if "timelinelabels" in each:
                    entries += _of_timeline(where, path, each)
                elif "start" in each and "labels" in each:
                    part = Part(start_seconds=float(each["start"]), end_seconds=float(each["end"]))
                    entries.append(Entry(where, path, texts(each["labels"]), part))
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
