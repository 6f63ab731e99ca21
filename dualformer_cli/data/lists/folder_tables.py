"""Tables of labels in a folder of videos: a row per file, with its label, and maybe its split and group."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from unicodedata import normalize

from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.column_names import LABEL_NAMES, PATH_NAMES, SPLIT_NAMES, SPLIT_WORDS
from dualformer_cli.data.lists.samples import is_encodable
from dualformer_cli.data.lists.tables import column_names
from dualformer_cli.data.lists.time_columns import TimeColumns, check_times, find_time_columns
from dualformer_cli.errors import DualFormerError, nearest
from dualformer_cli.system.words import cannot_read, counted
from dualformer_cli.video.parts import WHOLE, Part

_MAX_TABLE_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class TableRow:
    where: str
    path: str
    labels: tuple[str, ...]
    split: str | None
    group: str | None
    part: Part
    note: str
    """What the user should know of the table; maybe nothing."""


class FileFinder:
    """Finds the file that a table means: by its path, an absolute one into the folder too, or without its suffix.

    Letters with accents may be composed otherwise.
    """

    def __init__(self, folder: str, videos: Sequence[str]) -> None:
        self._folder = folder
        self._known = set(videos)
        composed = {video: normalize("NFC", video) for video in videos}
        stems = Counter(os.path.splitext(name)[0] for name in composed.values())
        self._others = {name: video for video, name in composed.items()}
        self._others |= {
            stem: video for video, name in composed.items() if stems[stem := os.path.splitext(name)[0]] == 1
        }

    def find(self, name: str, where: str) -> str:
        """Return the path relative to the folder; there may be no such file."""
        path = os.path.relpath(name, os.path.abspath(self._folder)) if os.path.isabs(name) else os.path.normpath(name)
        if path in self._known:
            return path
        if (other := self._others.get(normalize("NFC", path))) is not None:
            return other
        if not is_encodable(name) or path == os.curdir or path.split(os.sep)[0] == os.pardir:
            raise DualFormerError(f"{where}: {name!r} is not inside of the folder; name files relative to the folder")
        return path


def is_table(path: str) -> bool:
    try:
        encoding, errors = ("utf-16", "replace") if _is_utf16(path) else ("utf-8-sig", "surrogateescape")
        with open(path, encoding=encoding, errors=errors) as file:
            line = file.readline(65536)
    except OSError:
        return False
    header = column_names(line.rstrip("\r\n").split(_delimiter(line)))
    return _column(header, PATH_NAMES) is not None and _column(header, LABEL_NAMES) is not None


def read_table(
    path: str, finder: FileFinder, split: str | None, *, multi_label: bool, group_column: str | None
) -> list[TableRow]:
    lines = _table_lines(path)
    header = column_names(lines[0][1])
    file_column, label_column = _column(header, PATH_NAMES), _column(header, LABEL_NAMES)
    if file_column is None or label_column is None:
        raise DualFormerError(
            f"table {path!r}: its header {','.join(lines[0][1])!r} must name a column of files "
            f"({', '.join(PATH_NAMES)}) and one of labels ({', '.join(LABEL_NAMES)})"
        )
    split_column = _column(header, SPLIT_NAMES) if split is None else None
    times = find_time_columns(header, f"table {path!r}")
    group = None
    if group_column is not None:
        if group_column.lower() not in header:
            hint = nearest(group_column.lower(), header)
            raise DualFormerError(f"table {path!r} has no column {group_column!r}{hint}; it has {', '.join(header)}")
        group = header.index(group_column.lower())
    rows = []
    for number, values in lines[1:]:
        where = f"table {path!r}, line {number}"
        if len(values) != len(header):
            raise DualFormerError(
                f"{where}: it has {counted(len(values), 'field')} and the header {len(header)}; quote commas"
            )
        row_split = split if split_column is None else _split_named(values[split_column], where)
        labels = _labels(values[label_column], multi_label=multi_label)
        if not labels and row_split != "test":
            raise DualFormerError(f"{where}: {values[file_column]!r} has no label; only test videos may lack one")
        if not values[file_column]:
            raise DualFormerError(f"{where}: it names no file")
        found = finder.find(values[file_column], where)
        in_group = (values[group] or None) if group is not None else None
        part = WHOLE if times is None else _part(dict(zip(header, values, strict=True)), times, where)
        rows.append(TableRow(where, found, labels, row_split, in_group, part, times.note if times else ""))
    return rows


def _part(row: Mapping[str, str], times: TimeColumns, where: str) -> Part:
    """Return the part of its video that a row is about."""
    seconds: list[float | None] = []
    for name in (times.start, times.end):
        value = row[name].strip() if name else ""
        try:
            seconds.append(times.seconds(name, value) if name and value else None)
        except ValueError as error:
            raise DualFormerError(f"{where}: {error}") from None
    if problem := check_times(*seconds):
        raise DualFormerError(f"{where}: {problem}")
    return Part(start_seconds=seconds[0], end_seconds=seconds[1])


def _table_lines(path: str) -> list[tuple[int, list[str]]]:
    """Return the rows of a table that are not empty, each with its line number."""
    try:
        if os.path.getsize(path) > _MAX_TABLE_BYTES:
            raise DualFormerError(f"table {path!r} is larger than 1 GiB")
        if _is_utf16(path):
            raise DualFormerError(f"table {path!r} is UTF-16 text; save it as UTF-8")
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline(65536)
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(first), strict=True)
            rows, line = [], 1
            for row in reader:
                if any(row):
                    rows.append((line, row))
                line = reader.line_num + 1
    except OSError as error:
        raise DualFormerError(cannot_read("table", path, error)) from None
    except csv.Error as error:
        raise DualFormerError(f"table {path!r}, line {line}: {error}; mend the quotes of this row") from None
    if len(rows) < 2:
        raise DualFormerError(f"table {path!r} is empty; it needs a header such as file,label and a row per video")
    return rows


def _is_utf16(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) in (b"\xff\xfe", b"\xfe\xff")


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _split_named(value: str, where: str) -> str | None:
    if not value.strip():
        return None
    split = SPLIT_WORDS.get(value.strip().lower())
    if split is None:
        raise DualFormerError(f"{where}: split {value!r} is none of {', '.join(SPLIT_WORDS)}")
    return split


def _labels(value: str, *, multi_label: bool) -> tuple[str, ...]:
    pieces = value.split(";") if multi_label else [value]
    return tuple(dict.fromkeys(piece.strip() for piece in pieces if piece.strip()))


def name_classes(rows: Sequence[TableRow], folder: str) -> tuple[list[str], dict[str, str], str]:
    """Return the class names, the class that each label of the table means, and what to say of it."""
    labels = sorted({label for row in rows for label in row.labels})
    if not all(re.fullmatch(r"[0-9]{1,9}", label) for label in labels):
        return labels, {label: label for label in labels}, ""
    beside = os.path.join(folder, "classes.txt")
    if os.path.exists(beside):
        names = load_class_names(beside)
        for row in rows:
            for label in row.labels:
                if int(label) >= len(names):
                    raise DualFormerError(f"{row.where}: label {label} is none of the {len(names)} of {beside!r}")
        return names, {label: names[int(label)] for label in labels}, f"label numbers are lines of {beside!r}, from 0"
    ordered = sorted({int(label) for label in labels})
    named = {label: str(int(label)) for label in labels}
    if ordered == list(range(len(ordered))):
        note = "labels are numbers from 0 and keep them; put their names, one a line, into classes.txt beside the table"
    else:
        note = f"labels are numbers with gaps: {ordered[0]} becomes class 0, and so on in order; classes.txt tells"
    return list(map(str, ordered)), named, note
