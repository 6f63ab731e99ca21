"""The one join of annotations and files: `download` counts with it, and `prepare` makes its lists with it.

An annotation names a video by one or several stems, because copies are named in different ways. What is meant is the
file, or the folder of frames, that has one of them. Where it names a folder too, as the same name is in several, the
video has to be in that folder, or in none.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from dualformer_cli.data.datasets.formats.base import Annotation, Names
from dualformer_cli.data.lists.column_names import SPLITS
from dualformer_cli.data.lists.matching import loose_key
from dualformer_cli.video.suffixes import is_video_name, stem_of

Key = tuple[str, Names, str]
"""What makes two annotations mean the same video: split, names and folder."""

_SECOND_LEVEL = {"training": "train", "validation": "val", "testing": "test"}
"""Folders that hold the splits of Moments in Time."""
_REPLACEMENT = "_replacement"
"""End of the folder whose videos are taken where another has the same."""


class VideosOnDisk:
    """The videos of a dataset that are there, numbered, and which of them annotations mean.

    Args:
        found: their paths, by the folder that holds them, as `find_videos` returns them.
        takes_frames: of a video that is there as a file and in frames, take the frames.
    """

    def __init__(self, found: Mapping[str, list[str]], *, takes_frames: bool = False) -> None:
        self.paths: list[str] = []
        self.tops: list[str] = []
        self.used: set[int] = set()
        self.copies: list[str] = []
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        paths = [(path, top) for top, paths in found.items() for path in paths]
        # Of several copies of a video the first is taken: a replacement, then a file, or frames if these are asked for.
        paths.sort(
            key=lambda each: (not each[1].endswith(_REPLACEMENT), is_video_name(each[0]) is takes_frames, each[1])
        )
        for path, _ in paths:
            self._by_stem[stem_of(path)].append(len(self.paths))
            self.paths.append(path)
            self.tops.append(_top_of(path))

    def take(self, numbers: Sequence[int]) -> int:
        """Return the first video; the others are noted as its copies."""
        first = numbers[0]
        if first not in self.used:
            self.copies += [self.paths[number] for number in numbers[1:]]
        self.used.update(numbers)
        return first

    def named(self, stem: str, split: str) -> list[int]:
        """Return the videos of a split that have this stem; those that replace others come first."""
        return [number for number in self._by_stem.get(stem, ()) if _may_hold(self.tops[number], split)]

    def in_place(self, stem: str, split: str, folder: str) -> list[int]:
        """Return the videos of a split that have this stem, or one of another case, and are in this folder or none.

        Copies of UCF101 differ in case.
        """
        spellings = self._spellings.get(stem.casefold(), ())
        numbers = self.named(stem, split) or [one for spelled in spellings for one in self.named(spelled, split)]
        return self.in_folder(numbers, folder) or [one for one in numbers if self.paths[one].count(os.sep) < 2]

    def in_folder(self, numbers: Iterable[int], folder: str) -> list[int]:
        """Return those that are in a folder of this name, or in folders of these names, however they are spelled."""
        wanted = _keys(folder)
        return [one for one in numbers if _keys(os.path.dirname(self.paths[one]))[-len(wanted) :] == wanted]

    @cached_property
    def _spellings(self) -> dict[str, list[str]]:
        spellings: dict[str, list[str]] = defaultdict(list)
        for stem in self._by_stem:
            spellings[stem.casefold()].append(stem)
        return spellings


@dataclass(slots=True)
class JoinedSplit:
    """What became of the annotations of one split; one that repeats another is counted apart."""

    found: list[tuple[int, Annotation]] = field(default_factory=list)
    """Number of the video, and its annotation."""
    missing: list[str] = field(default_factory=list)
    """Usual names of the videos that are not there, with their folders if these count."""
    ambiguous: list[str] = field(default_factory=list)
    """Names of the videos whose only file may be that of several."""
    repeated: int = 0

    @property
    def annotated(self) -> int:
        """How many videos are annotated."""
        return len(self.found) + len(self.missing) + len(self.ambiguous)


def join(annotations: Sequence[Annotation], videos: VideosOnDisk) -> dict[str, JoinedSplit]:
    """Return what became of all annotations by split: train, val, test; then train_1, val_1 and so on."""
    distinct = {annotation.names for annotation in annotations}  # some are in several splits
    others = Counter(name for names in distinct for name in names[1:])
    splits: dict[str, JoinedSplit] = defaultdict(JoinedSplit)
    seen: set[Key] = set()
    for annotation in annotations:
        split = splits[annotation.split]
        if key_of(annotation) in seen:
            split.repeated += 1
            continue
        seen.add(key_of(annotation))
        numbers = _find(annotation, videos, others)
        if numbers:
            split.found.append((videos.take(numbers), annotation))
        elif numbers is None:
            split.ambiguous.append(annotation.names[0])
        else:
            split.missing.append(os.path.join(annotation.folder, annotation.names[0]))
    return dict(sorted(splits.items(), key=by_split))


def _find(annotation: Annotation, videos: VideosOnDisk, others: Mapping[str, int]) -> list[int] | None:
    """Return the copies of the video that is meant; None if there is one that may also be the video of another."""
    for position, name in enumerate(annotation.names):
        if annotation.folder:
            numbers = videos.in_place(name, annotation.split, annotation.folder)
        else:
            numbers = videos.named(name, annotation.split)
            if numbers and position > 0 and others[name] > 1:  # an id, and videos of other times have it too
                labels = annotation.labels[:1]
                return next((found for label in labels if (found := videos.in_folder(numbers, str(label)))), None)
        if numbers:
            return numbers
    return []


def key_of(annotation: Annotation) -> Key:
    """Return what two annotations of one video have in common."""
    return annotation.split, annotation.names, annotation.folder


def by_split(item: tuple[str, Any]) -> tuple[str, int]:
    """Sort key of items whose first part is a split: train, val, test; then train_1, val_1 and so on."""
    kind, _, number = item[0].partition("_")
    return number, SPLITS.index(kind)


def _may_hold(top: str, split: str) -> bool:
    """Whether videos of a split can be in this folder of a dataset: in that of the split, or one for all."""
    kind = split.partition("_")[0]
    return not top.endswith(tuple(f"_{other}" for other in SPLITS if other != kind))


def _top_of(path: str) -> str:
    """Return the folder that says to which split a video belongs, in the form NAME_SPLIT if any.

    Args:
        path: as `find_videos` returns it, with the folder of the dataset that holds the video at its beginning.
    """
    parts = path.split(os.sep)
    split = _SECOND_LEVEL.get(parts[1]) if len(parts) > 3 else None  # classes have such names too, one level below
    return f"{parts[0]}_{split}" if split else parts[0]


@lru_cache(maxsize=1 << 16)
def _keys(folder: str) -> tuple[str, ...]:
    return tuple(map(loose_key, folder.split(os.sep)))
