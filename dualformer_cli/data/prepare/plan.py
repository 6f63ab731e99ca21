"""What shall become of labelled videos: which list each is in, and where its file is then."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from dualformer_cli.config.schema import ListFormat
from dualformer_cli.data.lists.column_names import SPLITS
from dualformer_cli.data.lists.folders import Row, VideoFolder, VideoList
from dualformer_cli.data.lists.splits import split_videos
from dualformer_cli.data.prepare.check import Finding
from dualformer_cli.data.prepare.convert import Conversion
from dualformer_cli.documents.prepare import Arguments, Convert
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.parts import WHOLE, Part

_FOLDERS: Mapping[Convert, str] = {"transcode": "videos", "frames": "frames"}
_LONGEST_NAME = 255
"""Bytes that the name of a file can have."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What shall become of the videos of a folder."""

    content: VideoFolder
    root: str
    """Folder that is written."""
    shares: tuple[float, ...]
    """Of train, val and maybe test, for videos that nothing puts into a split."""
    seed: int = 0
    group_look_alikes: bool = False
    """Whether videos that look alike stay in one split."""
    check: bool = False
    convert: Convert | None = None
    short_side: int
    quality: int
    """As `Conversion` has it."""
    formats: tuple[ListFormat, ...] = ()
    """Older list formats to write beside the manifests."""
    overwrite: bool = False
    num_workers: int
    timeout_seconds: float

    @property
    def arguments(self) -> Arguments:
        """Return all that decides what is written, beside the videos."""
        return Arguments(
            layout=self.content.layout,
            split=self.shares,
            seed=self.seed,
            group_look_alikes=self.group_look_alikes,
            check=self.check,
            formats=self.formats,
            convert=self.convert,
            short_side=self.short_side if self.convert else None,
            quality=self.quality if self.convert else None,
        )

    @cached_property
    def splits(self) -> list[int]:
        """Number of each video's split, in SPLITS."""
        videos = self.content.videos
        if all(video.split is not None for video in videos):
            return [SPLITS.index(video.split or "") for video in videos]
        return split_videos(
            [video.labels for video in videos], [video.group for video in videos], self.shares, seed=self.seed
        )

    @cached_property
    def lists(self) -> list[VideoList]:
        """The lists to write; those without rows are not written."""
        if self.content.lists:
            return self.content.lists
        numbers = {name: number for number, name in enumerate(self.content.class_names)}
        rows: list[list[Row]] = [[] for _ in SPLITS]
        for number, (video, split) in enumerate(zip(self.content.videos, self.splits, strict=True)):
            for labels, part in [(each.labels, each.part) for each in video.parts] or [(video.labels, WHOLE)]:
                rows[split].append(Row(number, tuple(numbers[label] for label in labels), part))
        return [
            VideoList(
                name=name,
                old_name=f"{name}_list",
                class_names=self.content.class_names,
                is_multi_label=self.content.is_multi_label,
                rows=of_split,
            )
            for name, of_split in zip(SPLITS, rows, strict=True)
        ]

    @cached_property
    def parts(self) -> Mapping[int, tuple[Part, ...]]:
        """The parts of each video that are listed, by its number; those by frames need not be found."""
        parts: dict[int, dict[Part, None]] = {}
        for listed in self.lists:
            for row in listed.rows:
                if row.part.is_timed:
                    parts.setdefault(row.video, {})[row.part] = None
        return {video: tuple(of_video) for video, of_video in parts.items()}

    @cached_property
    def sources(self) -> list[str]:
        """Path of each video."""
        return [os.path.join(self.content.folder, video.path) for video in self.content.videos]

    @cached_property
    def source_prefix(self) -> str:
        """Path of the videos' folder, relative to `root`."""
        return os.path.relpath(os.path.realpath(self.content.folder), os.path.realpath(self.root))

    @property
    def target_folder(self) -> str:
        """Return the folder of the converted videos, relative to `root`."""
        return _FOLDERS[self.convert] if self.convert else ""

    @cached_property
    def targets(self) -> list[str]:
        """Where each video is after the conversion, relative to `root`."""
        paths = [video.path for video in self.content.videos]
        if self.convert is None:
            return [os.path.join(self.source_prefix, path) for path in paths]
        suffix = ".mp4" if self.convert == "transcode" else ""
        return [os.path.join(self.target_folder, name) for name in target_names(paths, suffix)]

    def conversion(self, video: int, finding: Finding) -> Conversion:
        """Return the conversion of a video."""
        return Conversion(
            source=self.sources[video],
            target=os.path.join(self.root, self.targets[video]),
            short_side=self.short_side,
            quality=self.quality,
            num_frames=finding.num_frames or 0,
            width=finding.width or 1,
            height=finding.height or 1,
        )


def target_names(paths: Sequence[str], suffix: str) -> list[str]:
    """Return the name of each video's result: its suffix is replaced, or kept where two would have the same name.

    Raises:
        DualFormerError: if two videos have the same result in spite of that, or its name is too long for a file.
    """
    stems = [os.path.splitext(path)[0] for path in paths]
    counts = Counter(stems)
    names = [
        (path if counts[stem] > 1 and stem != path else stem) + suffix for path, stem in zip(paths, stems, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            first, second = [path for path, target in zip(paths, names, strict=True) if target == name][:2]
            raise DualFormerError(f"{first!r} and {second!r} would both become {name!r}; rename one of them")
    for path, name in zip(paths, names, strict=True):
        if (length := len(os.fsencode(os.path.basename(name)))) > _LONGEST_NAME:
            raise DualFormerError(
                f"{path!r} would become {name!r}, a name of {length} bytes, and {_LONGEST_NAME} are possible; rename it"
            )
    return names
