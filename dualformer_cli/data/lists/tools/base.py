"""What every reader of an annotation tool's file gives, and what they share."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from dualformer_cli.video.parts import WHOLE, Part
from dualformer_cli.video.suffixes import stem_of


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

    def first(self, *names: str) -> str:
        """Return the first of some names that is there, with a suffix or without; else the first of them."""
        return next((name for name in names if self.has(name)), names[0])

    def has(self, name: str) -> bool:
        """Return whether a video or folder is there, with a suffix or without."""
        folder, base = os.path.split(name)
        if folder not in self._names:
            try:
                found = os.listdir(os.path.join(self._root, folder) or os.curdir)
            except (OSError, ValueError):
                found = []
            self._names[folder] = {*found, *map(stem_of, found)}
        return base in self._names[folder]


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Say of which video or segment it is what is wrong with a file, in one line.

    Raises:
        ValueError: if the entry lacks something or holds something of another kind.
    """
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{where} has no {error.args[0]!r}") from None
    except (ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{where}: {error}") from None


def texts(values: object) -> tuple[str, ...]:
    """Return labels, one or several, as text."""
    listed: Iterable[object] = values if isinstance(values, list | tuple) else [values]
    return tuple(str(value).strip() for value in listed if value is not None and str(value).strip())
