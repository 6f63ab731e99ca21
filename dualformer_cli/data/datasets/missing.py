"""How many of the annotated videos of a dataset are on the disk, and which are missing. Only names are read here."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from dualformer_cli.data.datasets.annotations import read_annotations
from dualformer_cli.data.datasets.catalogue import Catalogue, DatasetEntry
from dualformer_cli.data.datasets.find_videos import find_videos
from dualformer_cli.data.datasets.formats.base import Annotation
from dualformer_cli.data.datasets.join_files import VideosOnDisk, join
from dualformer_cli.documents.download import SplitPresence
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path

log = logging.getLogger(__name__)

MISSING_FILE = "missing.csv"


def count_present(
    catalogue: Catalogue, name: str, root: Path, splits: Sequence[str] | None = None
) -> list[SplitPresence]:
    """Return, as `present_and_annotated`, what is there of a dataset below `root`: of some splits, or of all."""
    entry = catalogue.datasets[name]
    rows = present_and_annotated(entry, root.absolute() / name, root.absolute() / (entry.videos_of or name))
    return [row for row in rows if splits is None or set(splits) & set(row.split.split("_"))]


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
    splits = join(_annotations(entry, folder / "annotations"), VideosOnDisk(there))
    if not splits:
        return [
            SplitPresence(split=name, annotated=wanted, present=len(there[name]), examples=())
            for name, wanted in entry.num_videos.items()
            if name in there
        ]
    missing = {split: joined.missing + joined.ambiguous for split, joined in splits.items()}
    _write_missing(folder / MISSING_FILE, missing)
    return [
        SplitPresence(
            split=split,
            annotated=joined.annotated,
            present=len(joined.found),
            examples=tuple(missing[split][:3]),
            published=published_beyond(entry, split, joined.annotated),
        )
        for split, joined in splits.items()
    ]


def _annotations(entry: DatasetEntry, folder: Path) -> list[Annotation]:
    """Return all annotations of a dataset; none where the format is not known or they cannot be read."""
    try:
        return read_annotations(entry.annotation_format, folder) if entry.annotation_format else []
    except DualFormerError as error:
        log.warning("the annotations in %r cannot be read: %s", str(folder), error)
        return []


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
