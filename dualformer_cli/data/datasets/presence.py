"""Which annotated videos of a dataset are on the disk, and which are missing.

Only names are read here. An annotation names a video by one or several stems, because copies are named in different
ways; a video is there when a file or a folder of frames has one of them. Where the annotations tell its folder too, as
the same name is in several, that has to be the right one.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dualformer_cli.data.datasets.annotations import Names, read_annotations
from dualformer_cli.data.datasets.catalogue import DatasetEntry
from dualformer_cli.data.datasets.files_on_disk import Shelf, find_videos
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path

log = logging.getLogger(__name__)

MISSING_FILE = "missing.csv"


class Wanted(NamedTuple):
    """An annotated video."""

    names: Names
    folder: str
    """As `Annotation` has it."""

    @property
    def path(self) -> str:
        """Its usual name, with its folder if that counts."""
        return os.path.join(self.folder, self.names[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPresence:
    """One split of a dataset, or one folder of it where the annotations are not there."""

    split: str
    annotated: int
    """Videos in the annotations, or those that the folder should have."""
    present: int
    examples: tuple[str, ...]
    """Some that are missing."""
    published: int | None = None
    """Videos that the annotations should name, where they name fewer."""


def present_and_annotated(entry: DatasetEntry, folder: Path, videos: Path) -> list[SplitPresence]:
    """Compare the annotations with the files, and write what is missing to `missing.csv` in the dataset's folder.

    Args:
        entry: the dataset.
        folder: of the dataset, with `annotations/`.
        videos: folder of the dataset whose archives hold its videos; often the same.

    Returns:
        A row per split. Without annotations, a row per folder with videos of which the number is known.
    """
    there = find_videos(videos, entry.not_used)
    if not there:
        return []
    annotated = annotated_videos(entry, folder / "annotations")
    if not annotated:
        return [
            SplitPresence(split=name, annotated=wanted, present=len(there[name]), examples=())
            for name, wanted in entry.num_videos.items()
            if name in there
        ]
    shelf = Shelf(there)
    missing = {split: _missing(split, wanted, shelf) for split, wanted in annotated.items()}
    _write_missing(folder / MISSING_FILE, missing)
    return [
        SplitPresence(
            split=split,
            annotated=len(wanted),
            present=len(wanted) - len(missing[split]),
            examples=tuple(missing[split][:3]),
            published=published_beyond(entry, split, len(wanted)),
        )
        for split, wanted in annotated.items()
    ]


def _missing(split: str, wanted: Iterable[Wanted], shelf: Shelf) -> list[str]:
    """Return the videos that no folder has: those of the split where folders are by split, else all of them."""
    return [
        video.path
        for video in wanted
        if not any(
            shelf.in_place(name, split, video.folder) if video.folder else shelf.of(name, split) for name in video.names
        )
    ]


def _write_missing(path: Path, missing: Mapping[str, list[str]]) -> None:
    """Write the names that are missing; a folder that cannot be written goes without."""
    try:
        if not any(missing.values()):
            path.unlink(missing_ok=True)
            return
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "video"))
            writer.writerows((split, name) for split, names in missing.items() for name in names)
    except (OSError, DualFormerError) as error:
        log.warning("no %s: %s", path.name, error)


def published_beyond(entry: DatasetEntry, split: str, annotated: int) -> int | None:
    """Return the published number of videos of a split where the annotations name fewer; None where they do not."""
    published = None if split in entry.rounded else entry.splits.get(split)
    return published if published is not None and annotated < published else None


def annotated_videos(entry: DatasetEntry, annotations: Path) -> dict[str, list[Wanted]]:
    """Read which videos are annotated.

    Args:
        entry: the dataset, whose `annotation_format` says how.
        annotations: folder of its annotations.

    Returns:
        Videos by split; splits whose files are not there are left out. Nothing where the format is not known.
    """
    if entry.annotation_format is None:
        return {}
    found: dict[str, list[Wanted]] = {}
    try:
        for annotation in read_annotations(entry.annotation_format, annotations):
            found.setdefault(annotation.split, []).append(Wanted(annotation.names, annotation.folder))
    except DualFormerError as error:
        log.warning("the annotations in %r cannot be read: %s", str(annotations), error)
        return {}
    return {split: list(dict.fromkeys(wanted)) for split, wanted in sorted(found.items(), key=by_split)}


def by_split(item: tuple[str, Any]) -> tuple[str, int]:
    """Sort key of items whose first part is a split: train, val, test; then train_1, val_1 and so on."""
    kind, _, number = item[0].partition("_")
    return number, ("train", "val", "test").index(kind)
