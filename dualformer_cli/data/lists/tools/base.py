"""What every reader of an annotation tool's file gives, and what they share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from unicodedata import normalize

from dualformer_cli.data.lists.listed_files import Spelling
from dualformer_cli.data.lists.time_columns import check_times
from dualformer_cli.system.numbers import count_in
from dualformer_cli.video.parts import WHOLE, Part, seconds_of
from dualformer_cli.video.suffixes import stem_of

_T = TypeVar("_T")
_KINDS: dict[type, str] = {list: "a list", dict: "an object", str: "text"}
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Entry:
    """What a file says of a video, or of a part of it."""

    where: str
    path: str
    labels: tuple[str, ...]
    """Names of classes or their numbers; () if nobody said."""
    part: Part = WHOLE
    split: str = ""


@dataclass(slots=True)
class Annotations:
    """What a file of an annotation tool says."""

    entries: list[Entry]
    classes: Sequence[str] = ()
    """All classes, where the file names them."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""


class Folder:
    """Finds the videos that tools name by a path on another machine, or without a suffix.

    Args:
        root: folder that relative paths start from.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._names: dict[str, set[str]] = {}
        self._spelling = Spelling(root)

    def first(self, *names: str) -> str:
        """Return the first of some names that is there, with a suffix or without; else the first of them."""
        return next((name for name in names if self.has(name)), names[0])

    def has(self, name: str) -> bool:
        """Return whether a video or folder is there, with a suffix or without."""
        folder, base = os.path.split(name)
        if folder not in self._names:
            try:
                found = os.listdir(os.path.join(self._root, self._spelling.of(folder)) or os.curdir)
            except (OSError, ValueError):
                found = []
            self._names[folder] = {normalize("NFC", name) for name in (*found, *map(stem_of, found))}
        return normalize("NFC", base) in self._names[folder]


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Say of which video, task, row or track it is what is wrong with a file.

    Raises:
        ValueError: if the entry lacks something or holds something of another kind.
    """
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{where}: {error}; mend it there, or export the list again") from None


def got(entry: object, name: str, kind: type[_T], default: object = _ABSENT) -> _T:
    """Return what an object of JSON has under a name.

    Args:
        entry: the object.
        name: of what is wanted.
        kind: list, dict or str; object for any.
        default: for an entry that has no such thing, or null.

    Raises:
        ValueError: if it is no object, has nothing of that name, or something of another kind.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{shown(entry)} stands where an object is expected")
    found = entry.get(name)
    if found is None and default is not _ABSENT:
        return default  # type: ignore[return-value]
    if name not in entry:
        raise ValueError(f"it has no {name!r}; it has {', '.join(map(repr, entry)) or 'nothing'}")
    if not isinstance(found, kind):
        raise ValueError(f"its {name!r} is {shown(found)}, and {_KINDS[kind]} is expected")
    return found


def got_two(entry: object, name: str) -> list[object] | None:
    """Return start and end, which an object has under a name; None if it has null or nothing there.

    Raises:
        ValueError: if it has something else.
    """
    found = got(entry, name, list, None)
    if found is not None and len(found) != 2:
        raise ValueError(f"its {name!r} is {shown(found)}, and two numbers are expected, start and end")
    return found


def shown(value: object) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def seconds_part(start: object, end: object) -> Part:
    """Return the part between two times, which are numbers of seconds or text as lists have it.

    Raises:
        ValueError: if one is none, or they are the wrong way round.
    """
    first, last = (seconds_of(each if isinstance(each, str) else shown(each)) for each in (start, end))
    if problem := check_times(first, last):
        raise ValueError(problem)
    return Part(start_seconds=first, end_seconds=last)


def frames_part(first: object, last: object) -> Part:
    """Return the part from one frame to another, which belongs to it; they count from 1.

    Raises:
        ValueError: if one is none, or they are the wrong way round.
    """
    start, end = frame(first), frame(last)
    if not 1 <= start <= end:
        raise ValueError(f"its frames {start} to {end} are none: they count from 1, the first one first")
    return Part(start - 1, end - start + 1)


def frame(value: object) -> int:
    """Return the number of a frame.

    Raises:
        ValueError: if it is none.
    """
    try:
        return count_in(value if isinstance(value, str) else shown(value))
    except ValueError:
        raise ValueError(f"{shown(value)} is not the number of a frame, a whole one of at least 0") from None


def texts(values: object) -> tuple[str, ...]:
    """Return labels, one or several, as text; numbers are those of classes, and null is none.

    Raises:
        ValueError: if one is something else.
    """
    listed: Iterable[object] = values if isinstance(values, list | tuple) else [values]
    found = [value for value in listed if value is not None]
    for value in found:
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"{shown(value)} is no label: neither text nor the number of a class")
    return tuple(text for value in found if (text := str(value).strip()))
