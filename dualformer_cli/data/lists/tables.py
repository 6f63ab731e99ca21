"""Lists with a header: the manifest that `prepare` writes, and the annotations of Kinetics.

A manifest is a CSV file: fields with commas, quotes or line breaks are quoted. Only the column `path` must be there;
labels are class numbers or names, several of a multi-label list with semicolons between them ("3;7", or "3;" for one).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import NamedTuple, TypeVar

from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample
from dualformer_cli.data.lists.time_columns import TimeColumns, check_times, find_time_columns
from dualformer_cli.errors import DualFormerError

COLUMNS = ("path", "label", "num_frames", "fps", "width", "height", "duration_seconds", "status")
"""Header of a manifest. Columns for parts of videos come last, where some row needs them."""

_PARTS = ("start", "start_seconds", "end_seconds")
_KNOWN = (*COLUMNS, *_PARTS)
PATH_NAMES = (
    *("path", "file", "filename", "file_name", "filepath", "file_path", "video", "video_path", "video_name"),
    *("video_file", "clip", "clip_path", "name", "video_id", "clip_id"),
)
"""What people call the column of files, the usual name first."""
LABEL_NAMES = (
    *("label", "labels", "class", "class_name", "class_id", "label_name", "label_id", "category", "action", "target"),
    "activity",
)
"""What people call the column of labels, the usual name first."""
SPLIT_NAMES = ("split", "subset", "set", "partition")
"""What people call the column that says in which split a video is."""
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What people call a split, to its name."""
_COLUMN_NAME = re.compile(r"[a-z_][a-z0-9_ ]*")
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')
_KINETICS = ("youtube_id", "time_start", "time_end")

T = TypeVar("T")


class _Table(NamedTuple):
    header: list[str]
    lines: list[int]
    """Where each row starts."""
    rows: list[list[str]]
    columns: list[tuple[str, ...]]
    """The same values; empty while rows may still differ in length."""

    def where(self, row: int) -> str:
        return f"line {self.lines[row]}"


def find_delimiter(first_line: str) -> str | None:
    """Return what separates the columns if the line is the header of a table that `parse_table` reads, else None."""
    for delimiter in ",;\t":
        names = column_names(first_line.split(delimiter))
        is_named = not {"path", "youtube_id"}.isdisjoint(names) or (len(names) > 1 and names[0] in PATH_NAMES)
        is_named = is_named or (not set(PATH_NAMES).isdisjoint(names) and not set(LABEL_NAMES).isdisjoint(names))
        if is_named and all(map(_COLUMN_NAME.fullmatch, names)):
            return delimiter
    return None


def unknown_header(first_line: str, second_line: str) -> list[str] | None:
    """Return the names in a first line that is a header by its looks, though none is known; None if it is a row."""
    for delimiter in ",;\t":
        names, values = column_names(first_line.split(delimiter)), second_line.split(delimiter)
        is_like_one = len(names) == len(values) > 1 and all(map(_COLUMN_NAME.fullmatch, names))
        has_numbers = any(re.search("[0-9]", name) for name in names)
        if is_like_one and not has_numbers and any(re.search(r"[0-9./\\]", value) for value in values):
            return names
    return None


def parse_table(text: str, delimiter: str, labels: Labels, *, with_splits: bool = False) -> ParsedList:
    """Parse a manifest, or annotations of Kinetics, which name `id_start_end.mp4`.

    Args:
        text: the list.
        delimiter: what separates its columns.
        labels: knows the classes.
        with_splits: whether a manifest may hold several splits, as a column says.

    Raises:
        DualFormerError: if a row or a value is not as the header says, or a label is not one of the classes.
    """
    table = _read_table(text, delimiter, labels)
    pieces = (piece.strip() for value in set(_column(table, "label")) for piece in value.split(";"))
    labels.report(filter(None, pieces))
    if "path" not in table.header:
        return _parse_kinetics(table, labels)
    times = find_time_columns(table.header, f"list {labels.source!r}")
    _check_columns(table.header, times, labels)
    named = [name for name in SPLIT_NAMES if name in table.header]
    _check_splits(table, named[1:] if with_splits else named, labels)
    splits = [value.strip().lower() for value in _column(table, named[0])] if with_splits and named else None
    paths = _column(table, "path")
    for row, path in enumerate(paths):
        if not path:
            raise _error(table, row, labels, "the path is empty")
    listed, is_multi_label = _read_labels(table, labels)
    starts, ends = _read_times(table, times, labels)
    frames = [0] * len(paths)
    if times is None or times.start != "start":
        frames = [start or 0 for start in _convert(table, "start", _whole, labels)]
    samples = map(
        Sample,
        paths,
        [each[0] if each and not is_multi_label else None for each in listed],
        listed,
        frames,
        _convert(table, "num_frames", _whole, labels),
        _convert(table, "fps", _number, labels),
        _convert(table, "width", _whole, labels),
        _convert(table, "height", _whole, labels),
        _convert(table, "duration_seconds", _number, labels),
        [status.strip() or "ok" for status in _column(table, "status")],
        starts,
        ends,
    )
    notes = (times.note,) if times and times.note else ()
    return ParsedList(list(samples), is_multi_label, notes, splits)


def format_table(samples: Sequence[Sample], *, is_multi_label: bool) -> str:
    """Return the samples as a manifest."""
    parts = [name for name in _PARTS if any(getattr(sample, name) for sample in samples)]
    columns = (*COLUMNS, *parts)
    lines = [",".join(columns)]
    for sample in samples:
        values = {name: getattr(sample, name) for name in columns}
        values["label"] = ";".join(map(str, sample.labels))
        if is_multi_label and len(sample.labels) == 1:
            values["label"] += ";"
        lines.append(",".join("" if value is None else _quoted(str(value)) for value in values.values()))
    return "\n".join(lines) + "\n"


def _check_columns(header: list[str], times: TimeColumns | None, labels: Labels) -> None:
    """Refuse a misspelt column; columns of other purposes are nobody's concern."""
    for name in header:
        absent = [known for known in _KNOWN if known not in header]
        is_known = name in _KNOWN or (times is not None and name in (times.start, times.end))
        if not is_known and (close := get_close_matches(name, absent, n=1, cutoff=0.75)):
            raise DualFormerError(
                f"list {labels.source!r}: the header has {name!r}; did you mean {close[0]!r}? "
                f"The columns of a manifest are {', '.join(_KNOWN)}"
            )


def _check_splits(table: _Table, names: Sequence[str], labels: Labels) -> None:
    """Refuse a list that holds several splits, of which one alone is meant."""
    for name in names:
        splits = sorted({value.strip() for value in _column(table, name)} & SPLIT_WORDS.keys())
        if len(splits) > 1:
            raise DualFormerError(
                f"list {labels.source!r} holds several splits, as its column {name!r} says ({', '.join(splits[:4])}); "
                f"dualformer prepare {labels.source} makes a list of each"
            )


def _quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if _NEEDS_QUOTES.search(value) else value


def column_names(fields: Sequence[str]) -> list[str]:
    """Return the names in a header as they are compared."""
    return [field.strip().strip('"').strip().lower() for field in fields]


def _read_table(text: str, delimiter: str, labels: Labels) -> _Table:
    """Cut the text into rows as long as its header; rows without any value are left out."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines, rows, line = [], [], 1
    try:
        for row in reader:
            if row and (row[0] or any(row)):
                lines.append(line)
                rows.append(row)
            line = reader.line_num + 1
    except csv.Error as error:
        raise DualFormerError(f"list {labels.source!r}, line {line}: {error}; mend the quotes of this row") from None
    header = _canonical(_canonical(column_names(rows[0]), PATH_NAMES, labels), LABEL_NAMES, labels)
    for name in header:
        if header.count(name) > 1:
            raise DualFormerError(f"list {labels.source!r}: two columns are called {name!r}")
    table = _Table(header, lines[1:], rows[1:], [])
    for index, row in enumerate(table.rows):
        if len(row) != len(header):
            problem = f"it has {len(row)} fields and the header has {len(header)}; quote fields that hold {delimiter!r}"
            raise _error(table, index, labels, problem)
    if not rows[1:]:
        raise DualFormerError(f"list {labels.source!r} is empty: it has a header and no rows")
    return table._replace(columns=list(zip(*table.rows, strict=True)))


def _canonical(header: list[str], names: Sequence[str], labels: Labels) -> list[str]:
    """Return the header with the usual name in place of what people call it, where that is clear."""
    usual, *others = names
    found = [name for name in others if name in header]
    if usual in header or not found or "youtube_id" in header:
        return header
    if len(found) > 1:
        raise DualFormerError(
            f"list {labels.source!r}: each of the columns {', '.join(map(repr, found))} may be the {usual}; "
            f"call the right one {usual!r}"
        )
    return [usual if name == found[0] else name for name in header]


def _column(table: _Table, name: str) -> Sequence[str]:
    """Return the values of a column, empty ones if there is no such column."""
    if name not in table.header:
        return [""] * len(table.rows)
    return table.columns[table.header.index(name)]


def _convert(table: _Table, name: str, convert: Callable[[str], T], labels: Labels) -> list[T | None]:
    values = _column(table, name)
    converted: dict[str, T | None] = {"": None}  # each distinct value once
    for row, value in enumerate(values):
        if value not in converted:
            try:
                converted[value] = convert(value)
            except ValueError:
                expected = "a whole number of at least 0" if convert is _whole else "a number of at least 0"
                if isinstance(convert, partial):
                    expected = "a time in seconds, or such as 1:23.5"
                problem = f"{name} {value!r} is not {expected}; leave it empty if it is unknown"
                raise _error(table, row, labels, problem) from None
    return [converted[value] for value in values]


def _read_times(
    table: _Table, times: TimeColumns | None, labels: Labels
) -> tuple[list[float | None], list[float | None]]:
    """Return the starts and ends of the rows' parts in seconds."""

    def read(name: str | None) -> list[float | None]:
        if times is None or name is None:
            return [None] * len(table.rows)
        return _convert(table, name, partial(times.seconds, name), labels)

    starts, ends = (read(times.start), read(times.end)) if times else (read(None), read(None))
    for row, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if problem := check_times(start, end):
            raise _error(table, row, labels, problem)
    return starts, ends


def _whole(value: str) -> int:
    """Read a whole number, also as tools write it that turn columns with gaps into decimals ("300.0")."""
    number = float(value)
    if not number.is_integer() or not 0 <= number < 2**53:
        raise ValueError
    return int(number)


def _number(value: str) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError
    return number


def _error(table: _Table, row: int, labels: Labels, problem: str) -> DualFormerError:
    return labels.error(table.where(row), ",".join(table.rows[row]), problem)


def _read_labels(table: _Table, labels: Labels) -> tuple[list[tuple[int, ...]], bool]:
    """Return the labels of every row, and whether rows may have several."""
    read: dict[str, tuple[int, ...]] = {}  # each distinct value once
    values = _column(table, "label")
    is_multi_label = False
    for row, value in enumerate(values):
        if value not in read:
            try:
                read[value], several = read_label(value, labels)
            except ValueError as error:
                raise _error(table, row, labels, str(error)) from None
            is_multi_label = is_multi_label or several
    return [read[value] for value in values], is_multi_label


def read_label(value: str, labels: Labels) -> tuple[tuple[int, ...], bool]:
    """Return the classes that a value names, and whether it is written as several."""
    if not value.strip():
        return (), False
    if ";" not in value or (labels.classes is not None and labels.classes.find(value) is not None):
        return (one_label(value, labels),), False
    pieces = [piece for piece in value.split(";") if piece.strip()]
    return tuple(dict.fromkeys(one_label(piece, labels) for piece in pieces)), True


def one_label(value: str, labels: Labels) -> int:
    """Return the class that a value names, or the number that it is.

    Raises:
        ValueError: if it is none of the classes.
    """
    value = value.strip()
    if re.fullmatch(r"-?[0-9]{1,18}(?:\.0*)?", value):
        number = int(value.partition(".")[0])
        if problem := labels.problem(number):
            raise ValueError(problem)
        return number
    found = labels.classes.find(value) if labels.classes is not None else None
    if found is None:
        raise ValueError(labels.no_label(value))
    return found


def kinetics_name(youtube_id: str, start_seconds: float, end_seconds: float) -> str:
    """Return what the file of a clip of Kinetics is called, without its suffix: whole seconds, the rest is cut off."""
    return f"{youtube_id}_{int(start_seconds):06d}_{int(end_seconds):06d}"


def _parse_kinetics(table: _Table, labels: Labels) -> ParsedList:
    if "tags" in table.header:
        raise DualFormerError(
            f"list {labels.source!r} has the tags of HVU, whose classes come in groups; dualformer prepare hvu makes "
            "a list of each group"
        )
    for name in _KINETICS:
        if name not in table.header:
            raise DualFormerError(
                f"list {labels.source!r} has a column youtube_id but none called {name!r}; "
                f"annotations of Kinetics have {', '.join(_KINETICS)}, a manifest has path"
            )
    listed, is_multi_label = _read_labels(table, labels)
    starts = _convert(table, "time_start", _number, labels)
    ends = _convert(table, "time_end", _number, labels)
    samples = []
    for row, (clip, start, end) in enumerate(zip(_column(table, "youtube_id"), starts, ends, strict=True)):
        if not clip or start is None or end is None:
            raise _error(table, row, labels, "youtube_id, time_start and time_end must not be empty")
        label = listed[row][0] if listed[row] and not is_multi_label else None
        samples.append(Sample(kinetics_name(clip, start, end) + ".mp4", label, listed[row]))
    return ParsedList(samples, is_multi_label)
