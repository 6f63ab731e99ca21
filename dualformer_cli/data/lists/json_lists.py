"""Lists in JSON: an array of objects, one for each video or part of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from dualformer_cli.data.lists.column_names import LABEL_NAMES, PATH_NAMES
from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample, is_encodable
from dualformer_cli.data.lists.time_columns import TimeColumns, check_times, find_time_columns
from dualformer_cli.errors import DualFormerError, nearest
from dualformer_cli.video.suffixes import is_video_name

_PATHS = ("filename", "frame_dir", *PATH_NAMES)


def load_json(text: str, source: str) -> object:
    """Return what a text in JSON holds.

    Raises:
        DualFormerError: if it is none, or an object has a key twice, of which one would be dropped.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            raise ValueError(f"an object has the key {twice!r} twice; keep one")
        return found

    try:
        document: object = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise DualFormerError(f"list {source!r} is not valid JSON: {error}") from None
    return document


def parse_json(entries: object, labels: Labels, label_group: str | None = None) -> ParsedList:
    """Parse a list of objects: filename or frame_dir; label, one or a list; and maybe total_frames and offset.

    Names that tables have for columns are known too, those of times among them.

    Args:
        entries: the list.
        labels: knows the classes.
        label_group: of labels that come in groups, {"action": [3], "scene": [1, 2]}, the one to read. Entries without
            it are left out, as nobody said which of its labels they lack.

    Raises:
        DualFormerError: if the text or an entry of it is something else.
    """
    if not isinstance(entries, list):
        keys = f" with the keys {', '.join(map(repr, list(entries)[:3]))}" if isinstance(entries, dict) else ""
        raise DualFormerError(
            f"list {labels.source!r} is a JSON {type(entries).__name__}{keys}; it needs a list like "
            '[{"filename": "a.mp4", "label": [0]}]'
        )
    names = dict.fromkeys(key.lower() for entry in entries if isinstance(entry, dict) for key in entry)
    times = find_time_columns([key for key in names if key != "offset"], f"list {labels.source!r}")
    labels.report(_labels_of(entries))
    numbered = list(enumerate(entries, start=1))
    warnings = [times.note] if times and times.note else []
    if label_group is not None:
        numbered = _of_group(numbered, label_group, labels)
        if num_left_out := len(entries) - len(numbered):
            warnings.append(
                f"{num_left_out} of {len(entries)} videos have no label of {label_group!r} and are left out"
            )
    samples = [_parse_entry(entry, f"entry {number}", labels, times) for number, entry in numbered]
    is_multi_label = label_group is not None or any(len(sample.labels) > 1 for sample in samples)
    if not is_multi_label:
        samples = [replace(sample, label=sample.labels[0]) if sample.labels else sample for sample in samples]
    return ParsedList(samples, is_multi_label, tuple(warnings))


def _labels_of(entries: Sequence[Any]) -> Iterator[str]:
    for entry in entries:
        listed = _value(entry, LABEL_NAMES) if isinstance(entry, dict) else None
        for label in listed if isinstance(listed, list) else [listed]:
            if isinstance(label, str | int) and not isinstance(label, bool):
                yield str(label).strip()


def _of_group(numbered: list[tuple[int, Any]], group: str, labels: Labels) -> list[tuple[int, Any]]:
    """Return the entries that have labels of a group, with these as their only ones."""
    groups: dict[str, None] = {}
    found = []
    for number, entry in numbered:
        listed = (entry.get("label") or {}) if isinstance(entry, dict) else None
        if not isinstance(listed, dict):
            problem = f"its labels do not come in groups; leave label_group ({group!r}) out, or mend the entry"
            raise labels.error(f"entry {number}", json.dumps(entry), problem)
        groups |= dict.fromkeys(listed)
        if listed.get(group):
            found.append((number, {**entry, "label": listed[group]}))
    if numbered and not found:
        raise DualFormerError(
            f"list {labels.source!r} has no labels of the group {group!r}{nearest(group, groups) or '.'} Its groups "
            f"are {', '.join(map(repr, groups)) or 'none'}"
        )
    return found


def _value(entry: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Return what the first key of some that is there has."""
    return next((entry[name] for name in names if name in entry), None)


def _parse_entry(entry: Any, where: str, labels: Labels, times: TimeColumns | None) -> Sample:
    def fail(problem: str) -> DualFormerError:
        return labels.error(where, json.dumps(entry), problem)

    if not isinstance(entry, dict):
        raise fail('it needs an object like {"filename": "a.mp4", "label": [0]}')
    path = _value(entry, _PATHS)
    if not isinstance(path, str) or not path or not is_encodable(path):
        raise fail("it needs filename (a video) or frame_dir (a folder of frames)")
    listed = _value(entry, LABEL_NAMES)
    if listed is None and (nested := next(filter(None, map(_labelled_objects, entry.items())), None)):
        raise fail(
            f"it has no label, and those in {nested!r} are not read; give each part an entry of its own, "
            'like {"filename": "a.mp4", "label": "run", "start_seconds": 1, "end_seconds": 2}'
        )
    listed = [] if listed is None else listed
    if isinstance(listed, dict):
        raise fail(
            f"its labels come in groups ({', '.join(map(str, listed))}), each with numbers of its own; choose one, "
            f"as --set data.label_group={next(iter(listed), 'action')} does"
        )
    found = dict.fromkeys(
        _json_label(label, fail, labels) for label in (listed if isinstance(listed, list) else [listed])
    )
    start, num_frames = entry.get("offset", 0), entry.get("total_frames")
    if not _is_count(start) or not (num_frames is None or _is_count(num_frames)):
        raise fail(f"offset {start!r} and total_frames {num_frames!r} must be whole numbers and at least 0")
    start_seconds, end_seconds = (
        (_seconds(entry, name, times, fail) for name in (times.start, times.end)) if times else (None, None)
    )
    if problem := check_times(start_seconds, end_seconds):
        raise fail(problem)
    return Sample(path, None, tuple(found), start, num_frames, start_seconds=start_seconds, end_seconds=end_seconds)


def _labelled_objects(item: tuple[str, Any]) -> str | None:
    """Return a key whose value is a list of objects with labels."""
    key, value = item
    objects = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return key if any(name in each for each in objects for name in LABEL_NAMES) else None


def _seconds(
    entry: Mapping[str, Any], name: str | None, times: TimeColumns, fail: Callable[[str], DualFormerError]
) -> float | None:
    """Return the time that an entry has under a name; None without one."""
    value = next((value for key, value in entry.items() if key.lower() == name), None)
    if name is None or value is None:
        return None
    try:
        return times.seconds(name, str(value))
    except ValueError as error:
        raise fail(str(error)) from None


def _json_label(label: Any, fail: Callable[[str], DualFormerError], labels: Labels) -> int:
    if isinstance(label, str):
        number = labels.classes.find(label) if labels.classes is not None else None
        if number is None:
            raise fail(labels.no_label(label))
        return number
    if not isinstance(label, int) or isinstance(label, bool):
        raise fail(f"label {label!r} is not a class number, a class name or a list of them")
    if problem := labels.problem(label):
        raise fail(problem)
    return label


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def format_json(samples: Sequence[Sample], groups: Sequence[Mapping[str, Sequence[int]]] | None = None) -> str:
    """Return a list as JSON, one entry a line; `groups` are labels in groups, in place of those of the samples."""
    entries = []
    for number, sample in enumerate(samples):
        entry: dict[str, object] = {("filename" if is_video_name(sample.path) else "frame_dir"): sample.path}
        if sample.num_frames is not None:
            entry["total_frames"] = sample.num_frames
        if sample.start:
            entry["offset"] = sample.start
        for name in ("start_seconds", "end_seconds"):
            if (seconds := getattr(sample, name)) is not None:
                entry[name] = seconds
        if groups is not None:
            entry["label"] = {group: list(labels) for group, labels in groups[number].items()}
        elif sample.labels:
            entry["label"] = list(sample.labels)
        entries.append(json.dumps(entry))
    return "[" + ",\n ".join(entries) + "]\n"
