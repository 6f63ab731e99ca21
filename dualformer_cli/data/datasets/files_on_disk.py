"""The videos of a dataset that are on the disk, by the names that annotations call them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from dualformer_cli.data.lists.matching import loose_key
from dualformer_cli.video.frame_names import find_frames, is_flow_folder
from dualformer_cli.video.inputs import VIDEO_SUFFIXES, is_video_name

PREPARED = "prepared"
"""Folder, in the dataset's, that `prepare` writes."""
_SECOND_LEVEL = {"training": "train", "validation": "val", "testing": "test"}
"""Folders that hold the splits of Moments in Time."""
_REPLACEMENT = "_replacement"
"""End of the folder whose videos are taken where another has the same."""


class Shelf:
    """The videos that are there.

    Args:
        found: their paths, by the folder that holds them.
        takes_frames: of a video that is there as a file and in frames, take the frames.
    """

    def __init__(self, found: Mapping[str, list[str]], *, takes_frames: bool = False) -> None:
        self.paths: list[str] = []
        self.tops: list[str] = []
        self._by_stem: dict[str, list[int]] = defaultdict(list)
        self.used: set[int] = set()
        self.copies: list[str] = []
        paths = [(path, top) for top, paths in found.items() for path in paths]
        # Of several copies of a video the first is taken: a replacement, then a file, or frames if these are asked for.
        paths.sort(
            key=lambda each: (not each[1].endswith(_REPLACEMENT), is_video_name(each[0]) is takes_frames, each[1])
        )
        for path, _ in paths:
            self._by_stem[stem_of(path)].append(len(self.paths))
            self.paths.append(path)
            self.tops.append(top_of(path))

    def of(self, stem: str, split: str) -> list[int]:
        """Return the videos of a split that have this stem; those that replace others come first."""
        return [number for number in self._by_stem.get(stem, ()) if belongs_to(split, self.tops[number])]

    def take(self, numbers: Sequence[int]) -> int:
        """Return the first video; the others are noted as its copies."""
        first = numbers[0]
        if first not in self.used:
            self.copies += [self.paths[number] for number in numbers[1:]]
        self.used.update(numbers)
        return first

    def in_place(self, stem: str, split: str, folder: str) -> list[int]:
        """Return the videos of a split that have this stem, or one of another case, and are in this folder or none."""
        numbers = self.of(stem, split) or self.of_any_case(stem, split)
        return self.in_folder(numbers, folder) or self.in_no_folder(numbers)

    def of_any_case(self, stem: str, split: str) -> list[int]:
        """Return the videos of a split whose stem differs in nothing but case: copies of UCF101 do."""
        numbers = (number for spelled in self._spellings.get(stem.casefold(), ()) for number in self._by_stem[spelled])
        return [number for number in numbers if belongs_to(split, self.tops[number])]

    @cached_property
    def _spellings(self) -> dict[str, list[str]]:
        spellings: dict[str, list[str]] = defaultdict(list)
        for stem in self._by_stem:
            spellings[stem.casefold()].append(stem)
        return spellings

    def in_folder(self, numbers: Sequence[int], folder: str) -> list[int]:
        """Return those that are in a folder of this name, however it is spelled."""
        return [number for number in numbers if is_in_folder(self.paths[number], folder)]

    def in_no_folder(self, numbers: Sequence[int]) -> list[int]:
        """Return those that are in no folder below the top."""
        return [number for number in numbers if is_in_no_folder(self.paths[number])]


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
    """Find videos and folders of frames below a folder."""
    # The folders on the way to each, as links can lead in circles
    above: dict[str, tuple[str, ...]] = {folder: (os.path.realpath(folder),)}
    for at, folders, names in os.walk(folder, followlinks=True):
        way = above.pop(at)
        inner = {name: _real(at, way[-1], name) for name in folders if not name.startswith(".")}
        folders[:] = [name for name, real in inner.items() if real not in way]
        above |= {os.path.join(at, name): (*way, inner[name]) for name in folders}
        if not folders and at != folder and find_frames(names) is not None and not any(map(is_video_name, names)):
            if not is_flow_folder(os.path.relpath(at, os.path.dirname(folder))):
                yield at
            continue
        yield from (
            os.path.join(at, name) for name in names if _suffix(name) in VIDEO_SUFFIXES and not name.startswith(".")
        )


def _real(at: str, real: str, name: str) -> str:
    """Return where a folder in the folder `at`, which is `real` without links, really is."""
    path = os.path.join(at, name)
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)


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
