"""Which annotated videos of a dataset are on the disk, and which are missing.

Only names are read here. An annotation names a video by one or several stems, because copies are named in different
ways; a video is there when a file or a folder of frames has one of them. Where the annotations tell its folder too, as
the same name is in several, that has to be the right one.
"""

from __future__ import annotations

import csv
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from dualformer_cli.data.annotations import Names, read_annotations
from dualformer_cli.data.catalogue import DatasetEntry
from dualformer_cli.data.inputs import VIDEO_SUFFIXES
from dualformer_cli.data.matching import loose_key
from dualformer_cli.errors import DualFormerError
from dualformer_cli.files import atomic_path

log = logging.getLogger(__name__)

MISSING_FILE = "missing.csv"
PREPARED = "prepared"
"""Folder, in the dataset's, that `prepare` writes."""
_SECOND_LEVEL = {"training": "train", "validation": "val", "testing": "test"}
"""Folders that hold the splits of Moments in Time."""


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
    missing = {split: _missing(split, wanted, there) for split, wanted in annotated.items()}
    _write_missing(folder / MISSING_FILE, missing)
    return [
        SplitPresence(
            split=split,
            annotated=len(wanted),
            present=len(wanted) - len(missing[split]),
            examples=tuple(missing[split][:3]),
        )
        for split, wanted in annotated.items()
    ]


def find_videos(folder: Path, leave_out: Collection[str] = ()) -> dict[str, list[str]]:
    """Find the videos of a dataset, but not in the folders to leave out.

    Returns:
        Paths below `folder` of video files and folders of frames, by the folder in it that holds them.
    """
    skipped = {"annotations", "archives", PREPARED, *leave_out}
    found: dict[str, list[str]] = {}
    try:
        tops = [entry for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:
        return found
    for top in sorted(tops, key=lambda entry: entry.name):
        if top.name not in skipped and not top.name.startswith("."):
            found[top.name] = sorted(path[len(top.path) - len(top.name) :] for path in _below(top.path))
    return {name: paths for name, paths in found.items() if paths}


def stem_of(path: str) -> str:
    """Return the name of a video without its suffix, or that of a folder of frames, which has none."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    return stem if suffix.lower() in VIDEO_SUFFIXES else stem + suffix


def belongs_to(split: str, top: str) -> bool:
    """Whether videos of a split can be in this folder of a dataset: in that of the split, or one for all."""
    kind = split.partition("_")[0]
    return not top.endswith(tuple(f"_{other}" for other in ("train", "val", "test") if other != kind))


def _below(folder: str) -> Iterator[str]:
    """Find videos and folders of images below a folder; a folder of frames is told by its first file."""
    for at, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        if names and not folders and at != folder and _suffix(names[0]) in (".jpg", ".jpeg", ".png"):
            yield at
            continue
        yield from (
            os.path.join(at, name) for name in names if _suffix(name) in VIDEO_SUFFIXES and not name.startswith(".")
        )


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def top_of(path: str) -> str:
    """Return the folder that says to which split a video belongs, in the form NAME_SPLIT if any.

    Args:
        path: as `find_videos` has it, with the folder of the dataset that holds the video at its beginning.
    """
    parts = path.split(os.sep)
    split = _SECOND_LEVEL.get(parts[1]) if len(parts) > 3 else None  # classes have such names too, one level below
    return f"{parts[0]}_{split}" if split else parts[0]


def is_in_folder(path: str, folder: str) -> bool:
    """Whether a video is in a folder of this name, or in folders of these names, however they are spelled."""
    wanted = _keys(folder)
    return _keys(os.path.dirname(path))[-len(wanted) :] == wanted


def is_in_no_folder(path: str) -> bool:
    """Whether a video is in no folder below that of the dataset that holds all."""
    return path.count(os.sep) < 2


@lru_cache(maxsize=1 << 16)
def _keys(folder: str) -> tuple[str, ...]:
    return tuple(map(loose_key, folder.split(os.sep)))


def _missing(split: str, wanted: Iterable[Wanted], there: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the videos that no folder has: those of the split where folders are by split, else all of them."""
    by_stem: dict[str, list[str]] = {}
    for path in chain.from_iterable(there.values()):
        if belongs_to(split, top_of(path)):
            by_stem.setdefault(stem_of(path), []).append(path)
    missing = []
    for video in wanted:
        paths = chain.from_iterable(by_stem.get(name, ()) for name in video.names)
        if not any(not video.folder or is_in_folder(path, video.folder) or is_in_no_folder(path) for path in paths):
            missing.append(video.path)
    return missing


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
