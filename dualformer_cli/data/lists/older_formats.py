"""Lists of labelled videos with a line for each, as other projects write them: which format it is, what it says.

The formats have no header and no quoting. Fields are separated by spaces and tabs, or by commas or semicolons; as
paths may hold all of these, a line is read from its right end: labels and frame counts first, the rest is the path.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal, NamedTuple

from dualformer_cli.data.lists.matching import ClassLookup
from dualformer_cli.data.lists.named_labels import labels_of_lines
from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample
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
_VIDEO = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_AFTER_VIDEO = re.compile(rf"\.(?:{_VIDEO})[ \t,;]+(.+)", re.IGNORECASE | re.DOTALL)
_IMAGE = re.compile(rf"(?:{'|'.join(map(re.escape, IMAGE_FORMATS))})(?:$|[ \t,;])", re.IGNORECASE)
_ALL = 1 << 30


class _Row(NamedTuple):
    """A line, cut into the path and the labels and numbers after it."""

    line: int
    text: str
    path: str
    tail: tuple[int, ...]
    num_named: int
    """How many of the tail, from its end, were class names."""

    @property
    def where(self) -> str:
        return f"line {self.line}"


def parse_lines(text: str, list_format: LineFormat | None, labels: Labels) -> ParsedList:
    """Parse a list in one of the line formats; None finds out which.

    Raises:
        DualFormerError: if a line is not in the format, several formats fit, or a label is not one of the classes.
    """
    text = text.replace("\r\n", "\n").removesuffix("\r")
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip(" \t")]
    if "\r" in text:
        number, line = next((number, line) for number, line in lines if "\r" in line)
        raise labels.error(f"line {number}", line, "a carriage return; lines end in a line feed")
    labels.report(labels_of_lines([line.strip(" \t") for _, line in lines]))
    delimiter = _find_delimiter(lines, labels.classes)
    single_label = list_format is not None and not list_format.startswith("multilabel")
    longest = len(_FIELDS[list_format]) - 1 if list_format is not None and single_label else _ALL
    rows = [_Row(number, line, *_cut(line, delimiter, longest, labels.classes)) for number, line in lines]
    for row in rows:
        _check_path(row, labels)
    if not any(row.tail for row in rows) and list_format in (None, "video", "multilabel_video"):
        return _unlabelled(rows, list_format == "multilabel_video", labels)
    found = list_format or _detect(rows, labels)
    try:
        return _to_samples(rows, found, labels)
    except DualFormerError as error:
        if list_format is not None or found == "video":
            raise
        seen = f"{found} ({' '.join(_FIELDS[found])})"
        raise DualFormerError(f"{error}; it looks like {seen}: if it is not, set list_format to what it is") from None


def _find_delimiter(lines: list[tuple[int, str]], classes: ClassLookup | None) -> str:
    """Return what separates the labels: " " for spaces and tabs, "," or ";", by the first line that has any."""
    for _, line in lines:
        readings = {delimiter: _cut(line, delimiter, _ALL, classes) for delimiter in ",; "}
        named = [delimiter for delimiter, (_, _, num_named) in readings.items() if num_named]
        numbered = [delimiter for delimiter in " ,;" if readings[delimiter][1] and delimiter not in named]
        if named and named[0] != " ":
            return named[0]
        if numbered:
            before = readings[" "][0][-1:]  # "a.mp4, 3": the comma separates, not the space
            return before if before in numbered else numbered[0]
        if named:
            return " "
    return " "


def _cut(line: str, delimiter: str, longest: int, classes: ClassLookup | None) -> tuple[str, tuple[int, ...], int]:
    """Cut a line into its path, at most `longest` labels and numbers after it, and how many of them were names."""
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
    return glue.join(words[:end]).strip(" \t"), tuple(tail[::-1]), num_named


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
    """Refuse a path that has swallowed what was meant as something else."""
    if is_video_name(row.path):
        return
    if not row.path:
        raise labels.error(row.where, row.text, "the path is empty")
    if image := _IMAGE.search(row.path):
        name = row.path[: image.end()].rstrip(" \t,;")
        raise labels.error(row.where, row.text, f"{name!r} is an image; a row names a video or a folder of frames")
    if after := _AFTER_VIDEO.search(row.path):
        rest = after[1].strip(" \t\"'")
        if row.tail:
            problem = f"{rest!r} stands between the file name and what the format has after it; mend it or list_format"
        else:
            problem = _not_a_label(rest, labels)
        raise labels.error(row.where, row.text, problem)


def _unlabelled(rows: list[_Row], is_multi_label: bool, labels: Labels) -> ParsedList:
    for row in rows:
        separators = set(",;\t").intersection(row.path)
        if separators and not is_video_name(row.path):
            last = re.split(r"[,;\t]", row.path)[-1].strip(" \"'")
            raise labels.error(row.where, row.text, _not_a_label(last, labels))
    return ParsedList([Sample(row.path) for row in rows], is_multi_label)


def _detect(rows: list[_Row], labels: Labels) -> LineFormat:
    """Tell the format from how many numbers follow the paths, and whether these are video files."""
    counts = [len(row.tail) for row in rows]
    low, high = min(counts), max(counts)
    if low == 0:
        raise _no_label_error(rows, labels)
    if high == 1:
        return "video"
    candidates = _candidates(low, high, {is_video_name(row.path) for row in rows})
    longest = rows[counts.index(high)]
    if len(candidates) > 1:
        readings = " or ".join(f"{name} ({' '.join(_FIELDS[name])})" for name in candidates)
        problem = f"the list can be read in more than one way; set list_format to {readings}"
        raise labels.error(longest.where, longest.text, problem)
    if candidates[0] == "multilabel_rawframe" and all(part < row.tail[1] for row in rows for part in row.tail[2:]):
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


def _no_label_error(rows: list[_Row], labels: Labels) -> DualFormerError:
    row = next(row for row in rows if not row.tail)
    labelled = next(row for row in rows if row.tail)
    problem = f"has no label, but {labelled.where} has one; {_not_a_label(_last_word(row), labels)}"
    if row is rows[0]:
        problem += "; if this line is a header, it must have a column named path"
    return labels.error(row.where, row.text, problem)


def _not_a_label(text: str, labels: Labels) -> str:
    if _NUMBER.fullmatch(text):
        return f"{text!r} is not separated from the rest as the labels of other lines are"
    return labels.no_label(text)


def _last_word(row: _Row) -> str:
    return re.split(r"[ \t,;]+", row.text.rstrip(" \t,;"))[-1].strip("\"'")


def _to_samples(rows: list[_Row], list_format: LineFormat, labels: Labels) -> ParsedList:
    num_counts = _FIELDS[list_format].index("LABEL") - 1
    is_multi_label = list_format.startswith("multilabel")
    samples = []
    checked: dict[tuple[int, ...], tuple[int, ...]] = {}  # each distinct set of labels once
    for row in rows:
        key = (row.num_named, *row.tail[num_counts:])
        found = checked.get(key)
        if found is None:
            found = checked[key] = _check_labels(row, list_format, num_counts, labels)
        start = row.tail[0] if num_counts == 2 else 0
        num_frames = row.tail[num_counts - 1] if num_counts else None
        if start < 0 or (num_frames is not None and num_frames < 0):
            raise labels.error(row.where, row.text, "a first frame and a frame count are at least 0")
        samples.append(Sample(row.path, None if is_multi_label else found[0], found, start, num_frames))
    return ParsedList(samples, is_multi_label)


def _check_labels(row: _Row, list_format: LineFormat, num_counts: int, labels: Labels) -> tuple[int, ...]:
    """Return the labels of a line, each once, after a check that it has the numbers that the format asks for."""
    num_labels = len(row.tail) - num_counts
    if num_labels < 1 or row.num_named not in (0, num_labels):
        if not row.tail:
            reason = _not_a_label(_last_word(row), labels)
        elif num_labels > 0:
            reason = "class names and numbers are mixed"
        else:
            reason = f"there {'is 1 value' if len(row.tail) == 1 else f'are {len(row.tail)} values'} after the path"
        problem = f"is not {' '.join(_FIELDS[list_format])}, as list_format {list_format} has it: {reason}"
        raise labels.error(row.where, row.text, problem)
    for label in row.tail[num_counts:]:
        if out_of_range := labels.problem(label):
            raise labels.error(row.where, row.text, out_of_range)
    return tuple(dict.fromkeys(row.tail[num_counts:]))


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
