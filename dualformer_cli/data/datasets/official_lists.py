"""A downloaded dataset becomes the lists of its official splits: annotations are joined with the files that are there.

What is not there is left out and counted; nothing is put in its place.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dualformer_cli.data.datasets.annotations import (
    read_annotations,
    read_class_index,
    there_files,
    wanted_files,
)
from dualformer_cli.data.datasets.catalogue import Catalogue, DatasetEntry
from dualformer_cli.data.datasets.find_videos import PREPARED, find_videos
from dualformer_cli.data.datasets.formats.base import Annotation, ClassIndex, Part
from dualformer_cli.data.datasets.join_files import JoinedSplit, Key, VideosOnDisk, by_split, join, key_of
from dualformer_cli.data.datasets.missing import published_beyond
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.folders import Row, Video, VideoFolder, VideoList
from dualformer_cli.data.lists.matching import ClassLookup, match_classes
from dualformer_cli.documents.prepare import DatasetCounts, DatasetSplit, Examples
from dualformer_cli.errors import DualFormerError, nearest
from dualformer_cli.system.words import counted, some_of
from dualformer_cli.video import parts as video_parts
from dualformer_cli.video.suffixes import stem_of

_FEW = 5
"""Examples named of each kind of thing that was found."""


@dataclass(slots=True)
class _Split:
    """What can be listed of the annotations of one split, and what cannot though its video is there."""

    joined: JoinedSplit
    rows: list[tuple[int, Annotation]] = field(default_factory=list)
    """Number of the video, and its annotation."""
    unlabelled: int = 0
    conflicting: list[str] = field(default_factory=list)
    """Videos with two different classes where one is asked for."""


def prepared_folder(root: Path, name: str) -> Path:
    """Return where the lists of a dataset go, below the folder of all datasets."""
    return root / name / PREPARED


def read_dataset(catalogue: Catalogue, name: str, root: Path, *, takes_frames: bool = False) -> VideoFolder:
    """Join the annotations of a dataset with the videos that are there.

    Args:
        catalogue: what is known of datasets.
        name: as `Catalogue.datasets` has it.
        root: folder below which `download` put it.
        takes_frames: of a video that is there as a file and in frames, take the frames.

    Returns:
        The videos, and a list for each official split; of HVU for each split and group of tags, of ActivityNet also of
        the annotated parts. Class numbers are those of the index that came with the data, else ours.

    Raises:
        DualFormerError: if annotations or all videos are missing, or they cannot be read.
    """
    entry = catalogue.datasets[name]
    annotations = root / name / "annotations"
    said = read_annotations(entry.annotation_format, annotations) if entry.annotation_format else []
    if not said:
        raise DualFormerError(
            f"no annotations of {name} are in {str(annotations)!r}{_wanted_and_there(entry, annotations)}; dualformer "
            f"download {name} --only annotations --root {root!s} fetches them, or says what to do by hand"
        )
    classes = _Classes(entry, annotations)
    videos = root / (entry.videos_of or name)
    there = VideosOnDisk(find_videos(videos, entry.not_used), takes_frames=takes_frames)
    classes.notes += [*_not_used(entry, root / name), *_fewer_than_published(entry, said)]
    if entry.folders_tell_labels:
        said += _labelled_by_folder(said, there, classes)
    conflicting = set() if entry.labels == "multi" else _conflicting(said)
    splits = {split: _listed(joined, conflicting) for split, joined in join(said, there).items()}
    if not any(split.rows for split in splits.values()):
        raise DualFormerError(_nothing_there(entry, name, root, videos, there))
    return _content(entry, name, videos, splits, there, classes)


def _fewer_than_published(entry: DatasetEntry, said: Iterable[Annotation]) -> list[str]:
    """Say of which splits the annotations name fewer videos than are published."""
    counts = Counter(split for split, _, _ in {key_of(annotation) for annotation in said})
    return [
        f"the annotations of {split} name {counted(count, 'video')}, and {published:,} are published: they are cut "
        "off, or an edition of their own"
        for split, count in sorted(counts.items(), key=by_split)
        if (published := published_beyond(entry, split, count)) is not None
    ]


def _wanted_and_there(entry: DatasetEntry, annotations: Path) -> str:
    """Say what the annotations should be called, and what is there, if anything is."""
    there = there_files(annotations)
    if not there:
        return ""
    shown = some_of(there, _FEW)
    return f": looked for {wanted_files(entry.annotation_format)} and other spellings of them, and there is {shown}"


def _not_used(entry: DatasetEntry, folder: Path) -> list[str]:
    """Say what is there and not used, and why."""
    there: dict[str, list[str]] = defaultdict(list)
    for name, why in entry.not_used.items():
        if (folder / name).exists():
            there[why].append(name)
    return [f"{' and '.join(names)} not used: {why}" for why, names in there.items()]


def _nothing_there(entry: DatasetEntry, name: str, root: Path, videos: Path, there: VideosOnDisk) -> str:
    if there.paths:
        found = f"of {counted(len(there.paths), 'video')} in {str(videos)!r}, such as {there.paths[0]!r}, none is"
        return (
            f"{found} among the annotated and labelled videos of {name}; is it another dataset, or were files renamed?"
        )
    source = entry.videos_of or name
    return (
        f"no videos of {name} are in {str(videos)!r}; dualformer download {source} --only videos --root {root!s} "
        "fetches them, or says what to do by hand"
    )


class _Classes:
    """The classes of a dataset in the order of the index that came with it, else of the package's list."""

    def __init__(self, entry: DatasetEntry, annotations: Path) -> None:
        self._entry = entry
        shipped = {self._group(source): load_class_names(source) for source in entry.classes}
        index = read_class_index(entry.annotation_format, annotations)
        self.notes: list[str] = []
        self.unknown: Counter[str] = Counter()
        """Labels of a multi-label dataset that are no class."""
        groups = shipped if index is None else index.groups
        if index is not None and shipped:
            self._compare(index, shipped)
        self.groups: dict[str, list[str]] = groups or {"": []}
        self.source = index.path if index else f"the class list {', '.join(entry.classes)} of this package"
        self.is_grouped = len(self.groups) > 1
        self._lookups = {group: ClassLookup(names) for group, names in self.groups.items()}
        self._group_of = {name: group for group, names in self.groups.items() for name in names}

    def _group(self, source: str) -> str:
        """Return what a shipped list is a group of: hvu_action of action."""
        return source.partition("_")[2] if len(self._entry.classes) > 1 else ""

    def _compare(self, index: ClassIndex, shipped: Mapping[str, list[str]]) -> None:
        for group, names in index.groups.items():
            match = match_classes(names, shipped.get(group, []))
            if match is not None:
                of = f" of {group}" if group else ""
                message = match.message.replace("data and model have", "both have").replace("the data", "this file")
                message = message.replace("the model", "ours")
                self.notes.append(
                    f"the classes{of} are numbered as in {index.path!r}, which is not our order: {message}"
                )

    def lookup(self, annotation: Annotation) -> list[tuple[str, int]]:
        """Return the group and the number of each class of a video.

        Raises:
            DualFormerError: if one is none of the classes; of a grouped dataset such are counted and left out.
        """
        found = []
        for label in annotation.labels:
            group = self._group_of.get(str(label), next(iter(self.groups)))
            number = label if isinstance(label, int) else self._lookups[group].find(label)
            names = self.groups[group]
            if isinstance(label, int) and not names:
                found.append((group, label))
            elif number is not None and 0 <= number < len(names):
                found.append((group, number))
            elif self.is_grouped:
                self.unknown[str(label)] += 1
            else:
                raise self._error(annotation, label, names)
        return list(dict.fromkeys(found))

    def _error(self, annotation: Annotation, label: str | int, names: Sequence[str]) -> DualFormerError:
        hint = nearest(str(label), names) if isinstance(label, str) else f"; they count from 0 to {len(names) - 1}"
        return DualFormerError(
            f"{annotation.where}: {label!r} is none of the {len(names)} classes of {self.source}{hint or ''}; fetch "
            "the annotations again, or put the class names, one a line in the order of their numbers, into classes.txt "
            "beside them"
        )

    def number_names(self, labels: Iterable[int]) -> None:
        """Name classes by their numbers, where nothing names them."""
        if self.groups == {"": []}:
            self.groups = {"": [str(number) for number in range(max(labels, default=-1) + 1)]}
            self.notes.append("nothing names the classes, which are called by their numbers")

    def find(self, folder: str) -> str | None:
        """Return the class that a folder is called after."""
        (names,) = self.groups.values()
        number = self._lookups[""].find(folder)
        return None if number is None else names[number]


def _labelled_by_folder(said: Iterable[Annotation], there: VideosOnDisk, classes: _Classes) -> list[Annotation]:
    """Return annotations of the videos of train and val that lack one and are in a folder called after a class."""
    known = {name for annotation in said for name in annotation.names}
    found = []
    for number, path in enumerate(there.paths):
        split = there.tops[number].rpartition("_")[2]
        stem = stem_of(path)
        folder = os.path.basename(os.path.dirname(path))
        label = classes.find(folder) if split in ("train", "val") and stem not in known else None
        if label is not None:
            found.append(Annotation(split, (stem,), (label,), f"folder of {path!r}", folder))
    if found:
        classes.notes.append(
            f"the class of {counted(len(found), 'video')} that the annotations lack is that of the archive, such as of "
            f"{found[0].names[0]}"
        )
    return found


def _listed(joined: JoinedSplit, conflicting: Collection[Key]) -> _Split:
    """Return what of a split can be listed."""
    split = _Split(joined)
    for number, annotation in joined.found:
        if key_of(annotation) in conflicting:
            split.conflicting.append(annotation.names[0])
        elif not annotation.labels:
            split.unlabelled += 1
        else:
            split.rows.append((number, annotation))
    return split


def _conflicting(said: Iterable[Annotation]) -> set[Key]:
    """Return the videos that are annotated twice, with different labels."""
    labels: dict[Key, tuple[str | int, ...]] = {}
    return {
        key_of(annotation)
        for annotation in said
        if labels.setdefault(key_of(annotation), annotation.labels) != annotation.labels
    }


def _content(
    entry: DatasetEntry, name: str, folder: Path, splits: Mapping[str, _Split], there: VideosOnDisk, classes: _Classes
) -> VideoFolder:
    """Number the videos that are used, and make the lists."""
    rows = [(split, row) for split, found in splits.items() for row in found.rows]
    classes.number_names(label for _, (_, said) in rows for label in said.labels if isinstance(label, int))
    renumbered: dict[int, int] = {}
    videos: list[Video] = []
    for split, (number, said) in rows:
        if number not in renumbered:
            renumbered[number] = len(videos)
            labels = tuple(classes.groups[group][label] for group, label in classes.lookup(said))
            videos.append(Video(there.paths[number], labels, split.partition("_")[0]))
    lists = []
    for split, found in splits.items():
        of_split = [(renumbered[number], said) for number, said in found.rows]
        lists += _lists(entry, name, split, of_split, classes)
    grouped = classes.is_grouped
    return VideoFolder(
        folder=str(folder),
        layout=f"{entry.title}, its own splits",
        videos=videos,
        class_names=[label for names in classes.groups.values() for label in names],
        is_multi_label=entry.labels == "multi",
        notes=[*classes.notes, *_notes(splits, classes, lists, there), *([_GROUPED] if grouped else [])],
        lists=lists,
        dataset=_counts(entry, name, splits, there),
    )


_GROUPED = "a list holds the videos that have tags of its group: of the others, nobody said what they lack"


def _lists(
    entry: DatasetEntry, name: str, split: str, rows: Sequence[tuple[int, Annotation]], classes: _Classes
) -> list[VideoList]:
    """Return the lists of one split: one for each group of classes, and one of parts where these are annotated."""
    is_multi_label = entry.labels == "multi"
    kind, _, number = split.partition("_")
    old_name = f"{name}_{kind}_split_{number}" if number.isdecimal() else f"{name}_{split}_list"
    looked_up = [(video, classes.lookup(said)) for video, said in rows]
    lists = []
    for group, names in classes.groups.items():
        listed_rows = []
        for video, found in looked_up:
            labels = tuple(label for of, label in found if of == group)
            if labels:
                listed_rows.append(Row(video, labels if is_multi_label else labels[:1]))
        listed = f"{group}/{split}" if classes.is_grouped else split
        lists.append(
            VideoList(
                name=listed,
                old_name=old_name,
                class_names=names,
                is_multi_label=is_multi_label,
                rows=listed_rows,
                group=group if classes.is_grouped else "",
            )
        )
    parts = [_part_row(video, part, said, classes) for video, said in rows for part in said.parts if not part.problem]
    if parts:
        own_name = f"{split}_clips"
        old = f"{name}_{own_name}_list"
        lists.append(replace(lists[0], name=own_name, old_name=old, rows=parts))
    return lists


def _part_row(video: int, part: Part, said: Annotation, classes: _Classes) -> Row:
    ((_, label),) = classes.lookup(replace(said, labels=(part.label,)))
    return Row(video, (label,), video_parts.Part(start_seconds=part.start_seconds, end_seconds=part.end_seconds))


def _notes(
    splits: Mapping[str, _Split], classes: _Classes, lists: Sequence[VideoList], there: VideosOnDisk
) -> list[str]:
    """Say what is odd, and what was left out beside what is missing."""
    notes = []
    for split, found in splits.items():
        if found.unlabelled:
            notes.append(
                f"{counted(found.unlabelled, 'video')} of {split} without a label in the annotations: left out"
            )
        if found.joined.repeated:
            notes.append(
                f"{counted(found.joined.repeated, 'annotation')} of {split} for a video that has one: listed once"
            )
        for names, why in (
            (found.conflicting, "annotated twice with different classes: left out"),
            (found.joined.ambiguous, "with a file name that others have too: left out"),
        ):
            if names:
                notes.append(f"{counted(len(names), 'video')} of {split} {why}, such as {names[0]!r}")
        several = sum(len(said.labels) > 1 for _, said in found.rows)
        if several and not lists[0].is_multi_label:
            notes.append(f"{counted(several, 'video')} of {split} with several classes, of which the first is listed")
        other = splits.get(split.replace("train", "val", 1)) if split.startswith("train") else None
        shared = {number for number, _ in found.rows} & {number for number, _ in (other.rows if other else ())}
        if shared:
            example = there.paths[min(shared)]
            both = counted(len(shared), "video")
            notes.append(f"its val split has {both} of {split} too, such as {example!r}")
        notes += _part_notes(split, [said for _, said in found.rows])
    if classes.unknown:
        tag, _ = classes.unknown.most_common(1)[0]
        notes.append(
            f"{counted(len(classes.unknown), 'tag')} in no group of {classes.source}: left out, such as {tag!r}"
        )
    return notes


def _part_notes(split: str, said: Iterable[Annotation]) -> list[str]:
    """Count the annotated parts of which not all can be listed, by what is wrong with them."""
    examples: dict[str, list[str]] = defaultdict(list)
    for annotation in said:
        for part in annotation.parts:
            if part.problem:
                why = f"{part.problem} and are left out"
            elif part.ends_beyond:
                why = "end beyond the end of their video and are taken up to it"
            else:
                continue
            examples[why].append(f"{annotation.names[0]} {part.start_seconds:g} to {part.end_seconds:g} s")
    return [f"{len(found)} annotated parts of {split} {why}, such as {found[0]}" for why, found in examples.items()]


def _counts(entry: DatasetEntry, name: str, splits: Mapping[str, _Split], there: VideosOnDisk) -> DatasetCounts:
    """Return the annotations against the files that are there."""
    unused = [path for number, path in enumerate(there.paths) if number not in there.used]
    return DatasetCounts(
        name=name,
        title=entry.title,
        metric=entry.metric,
        splits={split: _split_counts(entry, split, found) for split, found in splits.items()},
        copies=Examples(videos=len(there.copies), examples=tuple(there.copies[:_FEW])),
        not_annotated=Examples(videos=len(unused), examples=tuple(unused[:_FEW])),
    )


def _split_counts(entry: DatasetEntry, split: str, found: _Split) -> DatasetSplit:
    joined = found.joined
    return DatasetSplit(
        annotated=joined.annotated,
        published=published_beyond(entry, split, joined.annotated),
        listed=len(found.rows),
        missing=len(joined.missing),
        unlabelled=found.unlabelled,
        repeated=joined.repeated,
        conflicting=len(found.conflicting),
        ambiguous=len(joined.ambiguous),
        missing_videos=tuple(joined.missing) if len(joined.missing) < joined.annotated else (),
    )
