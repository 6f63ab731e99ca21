"""Lists of labelled videos with a line for each, as other projects write them: which format it is, what it says.

The formats have no header and no quoting. Fields are separated by spaces and tabs, or by commas or semicolons; as
paths may hold all of these, a line is read from its right end: labels and frame counts first, the rest is the path.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Literal, NamedTuple

from dualformer_cli.data.lists.labels_without_classes import labels_of_lines
from dualformer_cli.data.lists.listed_files import is_surely_video
from dualformer_cli.data.lists.matching import ClassLookup
from dualformer_cli.data.lists.row_arrays import CHUNK, Column, ColumnBuilder, Columns, LabelSets, Texts
from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample, lines_of
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.suffixes import IMAGE_FORMATS, VIDEO_SUFFIXES, is_video_name

LineFormat = Literal["video", "rawframe", "rawframe_offset", "multilabel_video", "multilabel_rawframe"]

_FIELDS: dict[LineFormat, tuple[str, ...]] = {
    "video": ("PATH", "LABEL"),
    "rawframe": ("FOLDER", "NUM_FRAMES", "LABEL"),
    "rawframe_offset": ("FOLDER", "START", "NUM_FRAMES", "LABEL"),
    "multilabel_video": ("PATH", "LABEL", "..."),
    "multilabel_rawframe": ("FOLDER", "NUM_FRAMES", "LABEL", "..."),
}
_WORD = re.compile(r"[ \t]*[^ \t]+")
_NUMBER = re.compile(r"[ \t]*-?[0-9]{1,18}[ \t]*")
_USUAL = re.compile(r"([^ \t](?:[^\t]*[^ \t0-9])?) ([0-9]{1,18})", re.DOTALL)
"""A path, whose last word is no number, and a number."""
_VIDEO = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_AFTER_VIDEO = re.compile(rf"\.(?:{_VIDEO})[ \t,;]+(.+)", re.IGNORECASE | re.DOTALL)
_IMAGE = re.compile(rf"(?:{'|'.join(map(re.escape, IMAGE_FORMATS))})(?:$|[ \t,;])", re.IGNORECASE)
_ALL = 1 << 30


Tail = tuple[tuple[int, ...], int]
"""The labels and numbers after a path, and how many of them, from the end, were class names."""


class _Row(NamedTuple):
    """A line, cut into the path and what is after it."""

    line: int
    text: str
    path: str
    tail: Tail

    @property
    def where(self) -> str:
        return f"line {self.line}"


class _Lines:
    """The lines of a list that are not blank; without spaces around them, and as they are with their numbers."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __iter__(self) -> Iterator[str]:
        return (line.strip(" \t") for _, line in self.numbered())

    def numbered(self) -> Iterator[tuple[int, str]]:
        return ((number, line) for number, line in enumerate(lines_of(self._text), start=1) if line.strip(" \t"))


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of a list."""

    lines: _Lines
    cut: Callable[[str], tuple[str, Tail]]
    """What cuts one of the lines."""
    paths: Texts
    tails: Column[Tail]
    are_videos: set[bool]
    """Whether the paths are those of videos; both, if some are."""

    def row(self, number: int) -> _Row:
        """Return a row, to complain about it."""
        line, text = next(islice(self.lines.numbered(), number, None))
        return _Row(line, text, *self.cut(text))

    def first(self, is_such: Callable[[Tail], bool]) -> _Row:
        """Return the first row with such a tail."""
        return self.row(next(self.tails.first_row_of(i) for i, tail in enumerate(self.tails.values) if is_such(tail)))


def parse_lines(text: str, list_format: LineFormat | None, labels: Labels) -> ParsedList:
    """Parse a list in one of the line formats; None finds out which.

    Raises:
        DualFormerError: if a line is not in the format, several formats fit, or a label is not one of the classes.
    """
    lines = _Lines(text.replace("\r\n", "\n").removesuffix("\r"))
    if "\r" in text and (found := next((each for each in lines.numbered() if "\r" in each[1]), None)):
        raise labels.error(f"line {found[0]}", found[1], "a carriage return; lines end in a line feed")
    labels.report(labels_of_lines(lines))
    delimiter = _find_delimiter(lines, labels.classes)
    single_label = list_format is not None and not list_format.startswith("multilabel")
    longest = len(_FIELDS[list_format]) - 1 if list_format is not None and single_label else _ALL
    cut = partial(_cut, delimiter=delimiter, longest=longest, classes=labels.classes)
    rows = _read_rows(lines, cut, labels)
    if not any(tail for tail, _ in rows.tails.values) and list_format in (None, "video", "multilabel_video"):
        return _unlabelled(rows, list_format == "multilabel_video", labels)
    chosen = list_format or _detect(rows, labels)
    try:
        return _to_samples(rows, chosen, labels)
    except DualFormerError as error:
        if list_format is not None or chosen == "video":
            raise
        seen = f"{chosen} ({' '.join(_FIELDS[chosen])})"
        raise DualFormerError(f"{error}; it looks like {seen}: if it is not, set list_format to what it is") from None


def _read_rows(lines: _Lines, cut: Callable[[str], tuple[str, Tail]], labels: Labels) -> _Rows:
    """Cut all lines.

    Raises:
        DualFormerError: if a path has swallowed what was meant as something else.
    """
    tails, are_videos = ColumnBuilder[Tail](), set()

    def paths() -> Iterator[str]:
        numbered = lines.numbered()
        while chunk := list(islice(numbered, CHUNK)):
            rows = [cut(line) for _, line in chunk]
            tails.add([tail for _, tail in rows])
            for (number, line), (path, tail) in zip(chunk, rows, strict=True):
                is_video = is_surely_video[path[-6:]] or is_video_name(path)
                if not is_video:
                    _check_path(_Row(number, line, path, tail), labels)
                are_videos.add(is_video)
                yield path

    texts = Texts.of(paths())
    return _Rows(lines, cut, texts, tails.column(), are_videos)


def _find_delimiter(lines: _Lines, classes: ClassLookup | None) -> str:
    """Return what separates the labels: " " for spaces and tabs, "," or ";", by the first line that has any."""
    for _, line in lines.numbered():
        readings = {delimiter: _cut(line, delimiter, _ALL, classes) for delimiter in ",; "}
        named = [delimiter for delimiter, (_, (_, num_named)) in readings.items() if num_named]
        numbered = [delimiter for delimiter in " ,;" if readings[delimiter][1][0] and delimiter not in named]
        if named and named[0] != " ":
            return named[0]
        if numbered:
            before = readings[" "][0][-1:]  # "a.mp4, 3": the comma separates, not the space
            return before if before in numbered else numbered[0]
        if named:
            return " "
    return " "


def _cut(line: str, delimiter: str, longest: int, classes: ClassLookup | None) -> tuple[str, Tail]:
    """Cut a line into its path and at most `longest` labels and numbers after it."""
    if delimiter == " " and "  " not in line and (usual := _USUAL.fullmatch(line)):
        return usual[1], ((int(usual[2]),), 0)
    words, glue = _split(line, delimiter)
    end = len(words)
    tail: list[int] = []
    if classes is not None and not _NUMBER.fullmatch(words[-1]):
        most_words = classes.most_words if delimiter == " " else 1
        while end > 1 and len(tail) < longest:
            found = _find_name(words[max(1, end - most_words) : end], glue, classes)
            if found is None:
                break
            tail.append(found[0])
            end -= found[1]
    num_named = len(tail)
    while end > 1 and len(tail) < longest and _NUMBER.fullmatch(words[end - 1]):
        tail.append(int(words[end - 1]))
        end -= 1
    return glue.join(words[:end]).strip(" \t"), (tuple(tail[::-1]), num_named)


def _find_name(words: list[str], glue: str, classes: ClassLookup) -> tuple[int, int] | None:
    """Find the longest class name that the words end in: its number, and how many words it has."""
    for begin in range(len(words)):
        label = classes.find(glue.join(words[begin:]).strip(" \t"))
        if label is not None:
            return label, len(words) - begin
    return None


def _split(line: str, delimiter: str) -> tuple[list[str], str]:
    """Return the words of a line, and what joins neighbouring ones again."""
    if delimiter == " ":
        line = line.strip(" \t")
        if "\t" in line or "  " in line:
            return _WORD.findall(line), ""
        return line.split(" "), " "
    if '"' in line:
        with suppress(csv.Error):  # then the quote is part of a name
            return next(csv.reader([line], delimiter=delimiter, strict=True)), delimiter
    return line.split(delimiter), delimiter


def _check_path(row: _Row, labels: Labels) -> None:
    """Refuse a path, not that of a video, that has swallowed what was meant as something else."""
    if not row.path:
        raise labels.error(row.where, row.text, "the path is empty")
    if image := _IMAGE.search(row.path):
        name = row.path[: image.end()].rstrip(" \t,;")
        raise labels.error(row.where, row.text, f"{name!r} is an image; a row names a video or a folder of frames")
    if after := _AFTER_VIDEO.search(row.path):
        rest = after[1].strip(" \t\"'")
        if row.tail[0]:
            problem = f"{rest!r} stands between the file name and what the format has after it; mend it or list_format"
        else:
            problem = _not_a_label(rest, labels)
        raise labels.error(row.where, row.text, problem)


def _unlabelled(rows: _Rows, is_multi_label: bool, labels: Labels) -> ParsedList:
    for number, path in enumerate(rows.paths):
        separators = set(",;\t").intersection(path)
        if separators and not is_video_name(path):
            last = re.split(r"[,;\t]", path)[-1].strip(" \"'")
            row = rows.row(number)
            raise labels.error(row.where, row.text, _not_a_label(last, labels))
    unlabelled = LabelSets.chosen([()], rows.tails.codes)
    return ParsedList(Columns(rows.paths, unlabelled, is_multi_label=is_multi_label), is_multi_label)


def _detect(rows: _Rows, labels: Labels) -> LineFormat:
    """Tell the format from how many numbers follow the paths, and whether these are video files."""
    tails = [tail for tail, _ in rows.tails.values]
    low, high = min(map(len, tails)), max(map(len, tails))
    if low == 0:
        raise _no_label_error(rows, labels)
    if high == 1:
        return "video"
    candidates = _candidates(low, high, rows.are_videos)
    longest = rows.first(lambda tail: len(tail[0]) == high)
    if len(candidates) > 1:
        readings = " or ".join(f"{name} ({' '.join(_FIELDS[name])})" for name in candidates)
        problem = f"the list can be read in more than one way; set list_format to {readings}"
        raise labels.error(longest.where, longest.text, problem)
    if candidates[0] == "multilabel_rawframe" and all(part < tail[1] for tail in tails for part in tail[2:]):
        problem = (
            "this may be OmniSource's list of cut videos (FOLDER LABEL NUM_PARTS PART ...), which is not supported; "
            f"if it is {' '.join(_FIELDS[candidates[0]])}, set list_format to {candidates[0]}"
        )
        raise labels.error(longest.where, longest.text, problem)
    return candidates[0]


def _candidates(low: int, high: int, are_videos: set[bool]) -> list[LineFormat]:
    """Return the formats with `low` to `high` numbers, of which some line has at least 2, after the path."""
    if are_videos == {True}:
        if low == high and high in (2, 3):
            return ["multilabel_video", "rawframe" if high == 2 else "rawframe_offset"]
        return ["multilabel_video"]
    if len(are_videos) > 1:
        return ["multilabel_video", "multilabel_rawframe"]
    if low == 1:
        return ["multilabel_video", "video"]
    if low == high == 3:
        return ["rawframe_offset", "multilabel_rawframe"]
    return ["rawframe"] if high == 2 else ["multilabel_rawframe"]


def _no_label_error(rows: _Rows, labels: Labels) -> DualFormerError:
    row, labelled = rows.first(lambda tail: not tail[0]), rows.first(lambda tail: bool(tail[0]))
    problem = f"has no label, but {labelled.where} has one; {_not_a_label(_last_word(row), labels)}"
    if row == rows.row(0):
        problem += "; if this line is a header, it must have a column named path"
    return labels.error(row.where, row.text, problem)


def _not_a_label(text: str, labels: Labels) -> str:
    if _NUMBER.fullmatch(text):
        return f"{text!r} is not separated from the rest as the labels of other lines are"
    return labels.no_label(text)


def _last_word(row: _Row) -> str:
    return re.split(r"[ \t,;]+", row.text.rstrip(" \t,;"))[-1].strip("\"'")


def _to_samples(rows: _Rows, list_format: LineFormat, labels: Labels) -> ParsedList:
    num_counts = _FIELDS[list_format].index("LABEL") - 1
    is_multi_label = list_format.startswith("multilabel")
    sets, starts, frames = [], [], []
    for number, (tail, num_named) in enumerate(rows.tails.values):
        if (problem := _problem_of(tail, num_named, list_format, labels)) is not None:
            row = rows.row(rows.tails.first_row_of(number))
            raise labels.error(
                row.where, row.text, problem if tail else problem + _not_a_label(_last_word(row), labels)
            )
        sets.append(tuple(dict.fromkeys(tail[num_counts:])))
        starts.append(tail[0] if num_counts == 2 else 0)
        frames.append(tail[num_counts - 1] if num_counts else None)
    numbers = {
        "start": rows.tails.numbers(starts, int) if any(starts) else None,
        "num_frames": rows.tails.numbers(frames, int),
    }
    found = LabelSets.chosen(sets, rows.tails.codes)
    return ParsedList(Columns(rows.paths, found, is_multi_label=is_multi_label, numbers=numbers), is_multi_label)


def _problem_of(tail: tuple[int, ...], num_named: int, list_format: LineFormat, labels: Labels) -> str | None:
    """Return what is wrong with what stands after a path; its end is left to the caller where nothing stands there."""
    num_counts = _FIELDS[list_format].index("LABEL") - 1
    num_labels = len(tail) - num_counts
    if num_labels < 1 or num_named not in (0, num_labels):
        reason = ""
        if num_labels > 0:
            reason = "class names and numbers are mixed"
        elif tail:
            reason = f"there {'is 1 value' if len(tail) == 1 else f'are {len(tail)} values'} after the path"
        return f"is not {' '.join(_FIELDS[list_format])}, as list_format {list_format} has it: {reason}"
    for label in tail[num_counts:]:
        if out_of_range := labels.problem(label):
            return out_of_range
    return "a first frame and a frame count are at least 0" if min(tail[:num_counts], default=0) < 0 else None


def format_lines(samples: Sequence[Sample], list_format: LineFormat) -> str:
    """Return a list in one of the line formats; whether it reads back as the same is for the caller to see.

    Raises:
        DualFormerError: if a sample does not have what the format needs.
    """
    fields = _FIELDS[list_format]
    lines = []
    for sample in samples:
        numbers: list[int | None] = list(sample.labels)
        if "NUM_FRAMES" in fields:
            numbers.insert(0, sample.num_frames)
        if "START" in fields:
            numbers.insert(0, sample.start)
        if None in numbers:
            raise DualFormerError(
                f"{sample.path!r} has no number of frames, which a {list_format} list needs; "
                "write a manifest, or fill in its column num_frames"
            )
        lines.append(" ".join((sample.path, *map(str, numbers))) + "\n")
    return "".join(lines)
