"""Rows of a list of videos, the list that they make for a model, and what all list formats share in reading it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dualformer_cli.data.lists.matching import ClassLookup
from dualformer_cli.errors import DualFormerError, nearest
from dualformer_cli.system.words import counted
from dualformer_cli.video.parts import Part

USABLE = frozenset(("ok", "sequential_only"))
"""What `prepare` says of videos that can be read."""

LabelSet = tuple[int, ...]
"""All classes of one row."""
Pairs = tuple[tuple[int, int], ...]
"""Classes that a mirror turns into each other."""

_MAX_LABEL = 10**9
_CHARACTERS = 2**20
"""Cut into lines together."""
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]*)?")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a list. What a format does not say is None."""

    path: str
    """As listed; `Manifest.files` says where the file is."""
    label: int | None = None
    """The class; None if the row has no label, or the list is multi-label."""
    labels: tuple[int, ...] = ()
    """All classes of the row; () if it has no label."""
    start: int = 0
    """First frame of the part that counts, from 0."""
    num_frames: int | None = None
    """Frames of that part; None is all from `start` on."""
    fps: float | None = None
    width: int | None = None
    height: int | None = None
    duration_seconds: float | None = None
    status: str = "ok"
    """What `prepare` found: ok, sequential_only, or what is wrong with the file."""
    start_seconds: float | None = None
    """First moment of the part that counts; if there is one or an end, frame numbers do not say which part it is."""
    end_seconds: float | None = None

    @property
    def is_usable(self) -> bool:
        """Whether the file could be read when the list was made."""
        return self.status in USABLE

    @property
    def part(self) -> Part:
        """Return the part that counts."""
        if self.start_seconds is None and self.end_seconds is None:
            return Part(self.start, self.num_frames)
        return Part(start_seconds=self.start_seconds, end_seconds=self.end_seconds)

    @property
    def name(self) -> str:
        """Return the path, and after it the times of the part, which tell it from others of the same video."""
        return self.path + self.part.fragment


@dataclass(frozen=True, slots=True)
class LabelledList:
    """A list of videos with labels in the model's numbering."""

    source: str
    samples: Sequence[Sample]
    files: Sequence[str]
    """Where each video is."""
    labels: Sequence[LabelSet]
    """Classes of each video; () for one without a label."""
    class_names: list[str]
    """Of the model."""
    flip_pairs: Pairs
    fingerprint: str
    multi_label: bool

    def __len__(self) -> int:
        return len(self.samples)

    def first_labels(self) -> list[int]:
        """Return one class per video, to balance classes by."""
        return [labels[0] if labels else -1 for labels in self.labels]


@dataclass(frozen=True, slots=True)
class ParsedList:
    """The rows of a list."""

    samples: Sequence[Sample]
    is_multi_label: bool
    warnings: tuple[str, ...] = ()
    """What the user should know about it."""
    splits: list[str] | None = None
    """In lower case, what a column of splits says of each row; None if there is none, or it is not asked for."""
    has_frame_parts: bool = False
    """Whether a row that starts at frame 0 is a part of its video, and not all of it with the number of its frames."""
    places: Sequence[str] | None = None
    """What is put behind the name of each file; None if all are on this machine."""


@dataclass(slots=True)
class Labels:
    """Reads labels: the class's number, from 0, or its name. Complains about rows of one list."""

    source: str
    classes: ClassLookup | None
    may_be_named: bool = False
    """Whether the names that the list has for labels become its classes, where no known class is among them."""
    warning: str = ""
    """What the user should know of the classes, once their names are taken from the list."""

    def report(self, found: Iterable[str | None]) -> None:
        """Take the names that a list has for labels as its classes, in order, unless some label is a number.

        Args:
            found: labels as they stand in the list; None where one is lacking, so that the rest are no names.
        """
        if not self.may_be_named:
            return
        names = set()
        for label in found:
            if label is None or _NUMBER.fullmatch(label):
                return
            names.add(label)
        known = self.classes or ClassLookup(())
        if not names or any(known.find(name) is not None or nearest(name, known.names) for name in names):
            return  # an unknown name among known ones is a slip, and is named with its line
        self.classes = ClassLookup(sorted(names))
        shown = ", ".join(self.classes.names[:3]) + (", ..." if len(names) > 3 else "")
        classes = counted(len(names), "class")
        self.warning = f"list {self.source!r} names its labels: {classes} in the order of their names ({shown})"

    def error(self, where: str, text: str, problem: str) -> DualFormerError:
        """Return the error about one row; `where` is "line 3"."""
        shown = text if len(text) <= 160 else f"{text[:160]}..."
        return DualFormerError(f"list {self.source!r}, {where}: {shown!r}: {problem}")

    def problem(self, number: int) -> str | None:
        """Return what is wrong with a class number, if anything."""
        if number < 0:
            return f"label {number} is negative; classes count from 0, and a list without labels has none"
        if number > _MAX_LABEL:
            return f"{number} is too large for a class number"
        if self.classes is not None and number >= len(self.classes):
            return (
                f"label {number} is none of the {len(self.classes)} classes, which count from 0 to "
                f"{len(self.classes) - 1}; mend the label or the class names"
            )
        return None

    def no_label(self, text: str) -> str:
        """Return why `text` is not a label."""
        if self.classes is None:
            return (
                f"{text!r} is not a class number, and no class names are known; put them, one a line, into a file "
                "classes.txt beside the list, or name such a file with --set data.classes=FILE"
            )
        return f"{text!r} is neither a class number nor one of the {len(self.classes)} class names" + nearest(
            text, self.classes.names
        )


def blocks_of(text: str) -> Iterator[str]:
    """Yield a text in parts of whole lines: all lines at once need its memory several times."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + _CHARACTERS) + 1 or len(text)
        yield text[start:end]
        start = end


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines of a text as `text.split("\\n")` has them, without all of them at once."""
    last = ""
    for block in blocks_of(text):
        *lines, last = block.split("\n")
        yield from lines
    yield last


def is_encodable(path: str) -> bool:
    """Whether a file can have this name: text can hold NUL and half characters."""
    try:
        return "\0" not in path and bool(path.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return False
