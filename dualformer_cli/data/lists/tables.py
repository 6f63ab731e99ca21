"""Lists with a header: the manifest that `prepare` writes, and the annotations of Kinetics.

A manifest is a CSV file: fields with commas, quotes or line breaks are quoted. Only the column `path` must be there;
labels are class numbers or names, several of a multi-label list with semicolons between them ("3;7", or "3;" for one).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import chain, islice

import numpy as np

from dualformer_cli.data.lists.column_names import LABEL_NAMES, PATH_NAMES, SPLIT_NAMES, SPLIT_WORDS
from dualformer_cli.data.lists.row_arrays import CHUNK, Array, Column, ColumnBuilder, Columns, LabelSets, Texts
from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample, blocks_of
from dualformer_cli.data.lists.time_columns import TimeColumns, check_times, find_time_columns
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.numbers import amount_in, count_in
from dualformer_cli.system.words import counted

COLUMNS = ("path", "label", "num_frames", "fps", "width", "height", "duration_seconds", "status")
"""Header of a manifest. Columns for parts of videos come last, where some row needs them."""

_PARTS = ("start", "start_seconds", "end_seconds")
_KNOWN = (*COLUMNS, *_PARTS)
_COLUMN_NAME = re.compile(r"[^\W\d][\w ()\[\]]*")
_NEEDS_QUOTES = re.compile(r'[",\r\n]|^\s|\s$')
_KINETICS = ("youtube_id", "time_start", "time_end")


@dataclass(frozen=True, slots=True)
class _Table:
    """What stands in the columns that count, and the text, in which a row is found again to complain about it."""

    header: list[str]
    paths: Texts
    """Of the column `path`, else `youtube_id`."""
    columns: dict[str, Column[str]]
    """The others."""
    times: TimeColumns | None
    text: str
    delimiter: str

    def column(self, name: str) -> Column[str]:
        """Return the values of a column, empty ones if there is no such column."""
        return self.columns.get(name) or Column([""], np.zeros(len(self.paths), np.int32))

    def error(self, row: int, labels: Labels, problem: str) -> DualFormerError:
        """Return the error about one row, counted from 0 after the header."""
        return _error_of_row(self.text, self.delimiter, row, labels, problem)


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
    pieces = (piece.strip() for value in table.column("label").values for piece in value.split(";"))
    labels.report(filter(None, pieces))
    if "path" not in table.header:
        return _parse_kinetics(table, labels)
    _check_columns(table.header, table.times, labels)
    named = [name for name in SPLIT_NAMES if name in table.header]
    _check_splits(table, named[1:] if with_splits else named, labels)
    lengths = np.diff(table.paths.ends, prepend=0)
    if not lengths.all():
        raise table.error(int(np.argmin(lengths)), labels, "the path is empty")
    listed, is_multi_label = _read_labels(table, labels)
    starts, ends = _read_times(table, labels)
    times, statuses = table.times, table.column("status")
    has_frames = times is None or times.start != "start"
    samples = Columns(
        table.paths,
        listed,
        is_multi_label=is_multi_label,
        numbers={
            "start": _convert(table, "start", count_in, labels, empty=0) if has_frames else None,
            **{name: _convert(table, name, count_in, labels) for name in ("num_frames", "width", "height")},
            **{name: _convert(table, name, amount_in, labels) for name in ("fps", "duration_seconds")},
            "start_seconds": starts,
            "end_seconds": ends,
        },
        statuses=statuses.mapped(lambda status: status.strip() or "ok"),
    )
    splits = [word.strip().lower() for word in table.column(named[0])] if with_splits and named else None
    return ParsedList(samples, is_multi_label, (times.note,) if times and times.note else (), splits)


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
        splits = sorted({value.strip() for value in table.column(name).values} & SPLIT_WORDS.keys())
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
    batches = _rows(text, delimiter, labels)
    first = next(batch for batch in batches if batch)
    header = _canonical(_canonical(column_names(first.pop(0)), PATH_NAMES, labels), LABEL_NAMES, labels)
    for name in header:
        if header.count(name) > 1:
            raise DualFormerError(f"list {labels.source!r}: two columns are called {name!r}")
    times = find_time_columns(header, f"list {labels.source!r}")
    of_paths = "path" if "path" in header else "youtube_id"
    wanted = {*_KNOWN, *_KINETICS, *SPLIT_NAMES, *((times.start, times.end) if times else ())} - {of_paths}
    columns: dict[str, ColumnBuilder[str]] = {name: ColumnBuilder() for name in header if name in wanted}
    paths: list[Texts] = []
    num_rows = 0
    for batch in chain([first], batches):
        for row, values in enumerate(batch):
            if len(values) != len(header):
                problem = f"it has {counted(len(values), 'field')} and the header has {len(header)}"
                problem += f"; quote fields that hold {delimiter!r}"
                raise _error_of_row(text, delimiter, num_rows + row, labels, problem)
        num_rows += len(batch)
        for name, column in zip(header, zip(*batch, strict=True), strict=bool(batch)):
            if name == of_paths:
                paths.append(Texts.of(column))
            elif name in columns:
                columns[name].add(column)
    if not num_rows:
        raise DualFormerError(f"list {labels.source!r} is empty: it has a header and no rows")
    found = {name: builder.column() for name, builder in columns.items()}
    return _Table(header, Texts.joined(paths), found, times, text, delimiter)


def _rows(text: str, delimiter: str, labels: Labels) -> Iterator[list[list[str]]]:
    """Yield the rows that have any value, a few thousand at a time.

    Raises:
        DualFormerError: if the quotes of one are wrong.
    """
    reader = csv.reader(_lines(text), delimiter=delimiter, strict=True)
    try:
        while batch := list(islice(reader, CHUNK)):
            yield [row for row in batch if row and (row[0] or any(row))]
    except csv.Error:
        for _ in _numbered_rows(text, delimiter, labels):
            pass
        raise


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text with their ends, whatever these are, without all of them at once."""
    for block in blocks_of(text):
        yield from io.StringIO(block, newline="")


def _numbered_rows(text: str, delimiter: str, labels: Labels) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows that have any value, each with the line where it starts."""
    reader, line = csv.reader(_lines(text), delimiter=delimiter, strict=True), 1
    try:
        for row in reader:
            if row and (row[0] or any(row)):
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise DualFormerError(f"list {labels.source!r}, line {line}: {error}; mend the quotes of this row") from None


def _error_of_row(text: str, delimiter: str, row: int, labels: Labels, problem: str) -> DualFormerError:
    line, values = next(islice(_numbered_rows(text, delimiter, labels), row + 1, None))
    return labels.error(f"line {line}", ",".join(values), problem)


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


def _convert(
    table: _Table, name: str, convert: Callable[[str], float], labels: Labels, *, empty: float | None = None
) -> Array | None:
    """Return the numbers in a column; None if it has none."""
    column = table.column(name)
    converted: list[float | None] = []
    for number, value in enumerate(column.values):
        try:
            converted.append(convert(value) if value else empty)
        except ValueError as error:
            what = str(error) if isinstance(convert, partial) else f"{name} {error}"
            problem = f"{what}; leave it empty if it is unknown"
            raise table.error(column.first_row_of(number), labels, problem) from None
    return column.numbers(converted, int if convert is count_in else float)


def _read_times(table: _Table, labels: Labels) -> tuple[Array | None, Array | None]:
    """Return the starts and ends of the rows' parts in seconds; None where no row has one."""

    def read(name: str | None) -> Array | None:
        return None if times is None or name is None else _convert(table, name, partial(times.seconds, name), labels)

    times = table.times
    starts, ends = (read(times.start), read(times.end)) if times else (None, None)
    if ends is not None:
        is_over = ends <= (0.0 if starts is None else np.nan_to_num(starts))
        if is_over.any():
            row = int(np.argmax(is_over))
            start = None if starts is None or np.isnan(starts[row]) else starts[row]
            raise table.error(row, labels, check_times(start, ends[row]))
    return starts, ends


def _read_labels(table: _Table, labels: Labels) -> tuple[LabelSets, bool]:
    """Return the labels of every row, and whether rows may have several."""
    column, sets = table.column("label"), []
    is_multi_label = False
    for number, value in enumerate(column.values):  # each distinct value once
        try:
            found, several = read_label(value, labels)
        except ValueError as error:
            raise table.error(column.first_row_of(number), labels, str(error)) from None
        sets.append(found)
        is_multi_label = is_multi_label or several
    return LabelSets.chosen(sets, column.codes), is_multi_label


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
    starts = _convert(table, "time_start", amount_in, labels)
    ends = _convert(table, "time_end", amount_in, labels)
    has_all = np.diff(table.paths.ends, prepend=0) > 0
    for times in (starts, ends):
        has_all &= False if times is None else ~np.isnan(times)
    if starts is None or ends is None or not has_all.all():
        raise table.error(int(np.argmin(has_all)), labels, "youtube_id, time_start and time_end must not be empty")
    names = map(kinetics_name, table.paths, starts, ends)
    return ParsedList(
        Columns(Texts.of(f"{name}.mp4" for name in names), listed, is_multi_label=is_multi_label), is_multi_label
    )
