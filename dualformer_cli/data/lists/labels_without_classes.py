"""Labels that are class names at the ends of lines, where no file says which classes there are."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from dualformer_cli.video.suffixes import VIDEO_SUFFIXES, is_video_name

_VIDEO = "|".join(re.escape(suffix) for suffix in sorted(VIDEO_SUFFIXES))
_AFTER_VIDEO = re.compile(rf".*(?:{_VIDEO})[ \t,;]+(\S.*)", re.IGNORECASE | re.DOTALL)
_LAST_NUMBER = re.compile(r"[ \t,;](-?[0-9]+)$")
_TRAILING_NUMBERS = re.compile(r"(?:-?[0-9]+[ \t,;]+)+(?=\S)")
"""Frame counts between the path and the label."""


def labels_of_lines(lines: Iterable[str]) -> Iterator[str | None]:
    """Yield the label at the end of each line; None of a line that has none.

    Args:
        lines: without spaces around them, and none empty; they are gone through several times.
    """
    if number := _LAST_NUMBER.search(next(iter(lines), "")):
        yield number[1]  # most lists have numbers, and whoever looks for names stops here, before the whole is searched
    # What stands in every line between two fields at least; spaces are in names.
    separator = next((separator for separator in "\t,;" if all(separator in line for line in lines)), None)
    yield from (_label_of_line(line, separator) or None for line in lines)


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
