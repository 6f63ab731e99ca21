"""What every annotation format gives, and what their readers share."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import cannot_read, counted

Names = tuple[str, ...]
"""Stems that one video can have; the first is the usual one."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a video that has a label."""

    start_seconds: float
    end_seconds: float
    label: str
    problem: str = ""
    """Why it cannot be used; empty if it can."""
    ends_beyond: bool = False
    """Whether it ends beyond the end of its video, so that less of it is there."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is said of one video."""

    split: str
    """train, val or test; or such a word, "_" and which of several: train_2."""
    names: Names
    labels: tuple[str | int, ...] = ()
    """Names of its classes, or their numbers; () if it is not labelled."""
    where: str = ""
    """File and line, for messages."""
    folder: str = ""
    """Folder that the video is in, or its last levels, where others have its names; "" for any."""
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class ClassIndex:
    """The classes as the annotations number them."""

    path: str
    """File that says it."""
    groups: dict[str, list[str]]
    """Names of each group of classes; one group called "" where there are no groups."""


Found = Iterator[Annotation]


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How the annotations of a dataset are read."""

    files: Mapping[str, str]
    """Patterns of file names in lower case, the authors' before those of other tools, with | between them, to splits.

    A format whose splits are several of a kind, or in one file, has those of its first list.
    """
    read: Callable[[Path], Found]
    """Yields all annotations below a folder, in the order of the files."""
    classes: Callable[[Path], Iterator[ClassIndex]] | None = None
    """Yields the index of the classes, if it is there; None where the dataset has none."""


def first_files(folder: Path, names: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """Return the first file that is there of each split, whatever folder below it was unpacked into.

    Args:
        folder: where the annotations lie; what is in it comes before what is below.
        names: patterns of names in lower case, with | between alternatives, to splits.
    """
    there = all_files(folder)
    for patterns, split in names.items():
        paths = (path for pattern in patterns.split("|") for path in there if fnmatchcase(path.name.lower(), pattern))
        if path := next(paths, None):
            yield split, path


BESIDE_A_FILE = (".sha256", ".lock", ".part", ".part.json", ".broken")
"""Ends of what a download puts beside a file; it is none of the data."""


def all_files(folder: Path) -> list[Path]:
    """Return all files below a folder, the less deep ones first; hidden ones and what is beside them are left out."""
    found = [
        Path(at, name)
        for at, folders, names in os.walk(folder)
        for name in names
        if not name.startswith(".") and not name.endswith(BESIDE_A_FILE)
        if not any(part.startswith((".", "__MACOSX")) for part in Path(at).relative_to(folder).parts)
    ]
    return sorted(found, key=lambda path: (len(path.parts), path.name.lower(), str(path)))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Put what is wrong with a file into one line."""
    try:
        yield
    except KeyError as error:
        raise DualFormerError(f"annotations {str(path)!r}: an entry has no {error.args[0]!r}") from None
    except OSError as error:
        raise DualFormerError(cannot_read("annotations", path, error)) from None
    except (ValueError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DualFormerError(
            f"annotations {str(path)!r} are damaged or of another kind: {reason}; delete the file and fetch it again"
        ) from None


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield where each line is, and the line; empty ones are left out."""
    with reading(path), path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"annotations {str(path)!r}, line {number}", line.strip()


def text_lines(path: Path) -> Iterator[str]:
    return (line for _, line in numbered_lines(path))


def read_json(path: Path) -> Any:
    with reading(path):
        return json.loads(path.read_text(encoding="utf-8-sig"))


def read_table(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row of a comma-separated table is, and the row by its columns in lower case.

    Raises:
        DualFormerError: if the table lacks one of `columns`, or a row is shorter or longer than the header.
    """
    with reading(path), path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file)
        header = [name.strip().lower() for name in next(rows, [])]
        lacking = [name for name in columns if name not in header]
        if lacking:
            raise DualFormerError(
                f"annotations {str(path)!r} have no column {lacking[0]!r}; their first line is "
                f"{','.join(header)[:100]!r} and should name {','.join(columns)}. If it is a list of paths and labels, "
                "train and eval read it as it is: --data FILE"
            )
        for row in rows:
            where = f"annotations {str(path)!r}, line {rows.line_num}"
            if any(row) and len(row) != len(header):
                raise DualFormerError(
                    f"{where}: it has {counted(len(row), 'field')} and the header {len(header)}; fetch it again"
                )
            if any(row):
                yield where, dict(zip(header, (value.strip().strip('"') for value in row), strict=True))


def stem_of_name(name: str) -> str:
    return os.path.splitext(os.path.basename(name))[0]


def in_order(path: Path, numbers: Mapping[str, int]) -> ClassIndex:
    """Return the names by their numbers.

    Raises:
        DualFormerError: if the numbers are not those from 0 up.
    """
    names = sorted(numbers, key=lambda name: numbers[name])
    for expected, name in enumerate(names):
        if numbers[name] != expected:
            raise DualFormerError(
                f"class index {str(path)!r} has no class {expected}: {name!r} is {numbers[name]}, and all numbers from "
                "the first on are needed, each once; fetch it again"
            )
    return ClassIndex(str(path), {"": names})
