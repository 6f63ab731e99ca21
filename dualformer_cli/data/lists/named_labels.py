"""Lists whose labels are class names, with no file that says which classes there are: the list itself does."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Sequence
from contextlib import suppress

from dualformer_cli.data.lists.tables import label_column
from dualformer_cli.video.inputs import VIDEO_SUFFIXES, is_video_name

_VIDEO = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES))
_AFTER_VIDEO = re.compile(rf".*(?:{_VIDEO})[ \t,;]+(\S.*)", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?")
_LAST_NUMBER = re.compile(r"[ \t,;](-?[0-9]+)$")
_TRAILING_NUMBERS = re.compile(r"(?:-?[0-9]+[ \t,;]+)+(?=\S)")
"""Frame counts between the path and the label."""


def names_in_list(text: str, delimiter: str | None, *, is_json: bool, source: str) -> list[str] | None:
    """Return the class names that a list uses as labels, sorted; None if some labels are numbers, or it has none.

    Args:
        text: the list.
        delimiter: of its columns if it has a header, else None.
        is_json: whether it is a JSON list.
        source: what to call it.
    """
    if is_json:
        labels = set(_labels_of_json(text))
    elif delimiter is not None:
        labels = set(label_column(text, delimiter, source))
    else:
        labels = set(_labels_of_lines(text))
    return None if any(map(_NUMBER.fullmatch, labels)) else sorted(labels) or None


def _labels_of_json(text: str) -> list[str]:
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError):
        return []  # its parser says why
    labels = []
    for entry in entries if isinstance(entries, list) else []:
        own = entry.get("label") if isinstance(entry, dict) else None
        for label in own if isinstance(own, list) else [own]:
            if isinstance(label, str | int) and not isinstance(label, bool):
                labels.append(str(label).strip())
    return labels


def _labels_of_lines(text: str) -> list[str]:
    """Return the label at the end of each line; none at all unless every line has one."""
    lines = [line.strip(" \t\r") for line in text.split("\n") if line.strip(" \t\r")]
    separator = _common_separator(lines)
    labels = [_label_of_line(line, separator) for line in lines]
    return [label for label in labels if label] if all(labels) else []


def _common_separator(lines: Sequence[str]) -> str | None:
    """Return what stands in every line between two fields at least: a tab, comma or semicolon; spaces are in names."""
    return next((separator for separator in "\t,;" if all(separator in line for line in lines)), None)


def _label_of_line(line: str, separator: str | None) -> str | None:
    if number := _LAST_NUMBER.search(line):
        return number[1]
    if '"' in line and separator is not None:
        with suppress(csv.Error, StopIteration):
            return next(csv.reader([line], delimiter=separator, strict=True))[-1].strip()
    if after := _AFTER_VIDEO.fullmatch(line):
        rest = after[1].strip("\"'")
        if is_video_name(rest):
            return None  # a path with a space in it
        return _TRAILING_NUMBERS.sub("", rest, count=1) if _TRAILING_NUMBERS.match(rest) else rest
    return None if separator is None else line.rpartition(separator)[2].strip(" \"'")
