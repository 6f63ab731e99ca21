"""Markers of archives that are unpacked: `.done/ENTRY/ARCHIVE.json` in the dataset's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from dualformer_cli.data.fetch.unpack import Unpacked
from dualformer_cli.system.files import atomic_path


@dataclass(frozen=True, slots=True)
class Marker:
    """What is noted of an archive that is unpacked."""

    archives: list[list[str | int]]
    """Name and size of the archive, or of each of its pieces."""
    into: str | None
    first: str | None
    """The first and last file that came out, below the dataset's folder."""
    last: str | None


def write_marker(marker: Path, archives: Sequence[Path], into: str | None, unpacked: Unpacked) -> None:
    """Note that an archive, or its pieces, is unpacked."""
    content = {"archives": _sizes(archives), "into": into, **asdict(unpacked)}
    with atomic_path(marker) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def read_marker(marker: Path) -> Marker | None:
    """Return what a marker says; None if it is not there or damaged."""
    try:
        content = json.loads(marker.read_text(encoding="utf-8"))
        return Marker(*(content[field.name] for field in fields(Marker)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def is_done(marker: Path, placed: Sequence[Path] = ()) -> bool:
    """Whether a marker says that an archive is unpacked, and its files are still there.

    Args:
        marker: the file.
        placed: the archive, where the user has put it there: it counts only while it is the same.
    """
    content = read_marker(marker)
    if content is None:
        return False
    folder = marker.parent.parent.parent
    is_there = all(name is None or os.path.lexists(folder / str(name)) for name in (content.first, content.last))
    return is_there and (not placed or content.archives == _sizes(placed))


def _sizes(archives: Sequence[Path]) -> list[list[str | int]]:
    return [[path.name, path.stat().st_size] for path in archives]
