"""A user's folder becomes a list of labelled videos: how it is laid out is found out from what lies in it.

* Class folders: `FOLDER/CLASS/.../clip.mp4`.
* Predefined splits: `FOLDER/train/CLASS/clip.mp4`, `FOLDER/val/...` and maybe `FOLDER/test/...`.
* A table: a CSV file in FOLDER with a column of files and one of labels, maybe of splits and groups too; or one such
  file per split (`train.csv`, `val.csv`).

A video is a file with the suffix of one, or a folder of numbered images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from dualformer_cli.data.lists.column_names import LABEL_NAMES, PATH_NAMES, SPLIT_WORDS
from dualformer_cli.data.lists.folder_tables import (
    FileFinder,
    TableRow,
    is_table,
    name_classes,
    read_table,
)
from dualformer_cli.data.lists.manifest import check_class_names
from dualformer_cli.documents.prepare import DatasetCounts
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import counted
from dualformer_cli.video.frame_folders import kind_of_folder
from dualformer_cli.video.inputs import walk
from dualformer_cli.video.parts import WHOLE, Part
from dualformer_cli.video.suffixes import is_video_name

Layout = Literal["auto", "folders", "splits", "table"]
LAYOUTS: tuple[Layout, ...] = ("auto", "folders", "splits", "table")

STATE_FILE = ".dualformer-prepare.jsonl"
"""Lies in every folder that `prepare` writes; such folders are not searched for videos."""

_TABLE_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class LabelledPart:
    """A part of a video with labels of its own."""

    labels: tuple[str, ...]
    part: Part


@dataclass(frozen=True, slots=True)
class Video:
    """One video of the folder."""

    path: str
    """Relative to the folder."""
    labels: tuple[str, ...]
    """Class names; () for a test video without a label."""
    split: str | None = None
    """Where the folder or the table puts it; None leaves it to a random split."""
    group: str | None = None
    """Videos of one group stay in one split; None is a group by itself."""
    parts: tuple[LabelledPart, ...] = ()
    """Those that are listed, each as a row; () lists the whole video. `labels` are those of all parts."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a list that is to be written."""

    video: int
    """Number of the video in its folder."""
    labels: tuple[int, ...]
    part: Part = WHOLE
    """That counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoList:
    """One list that is to be written."""

    name: str
    """File name without suffix, maybe in a folder: val, train_1, action/train."""
    old_name: str
    """Beginning of the file names of the older list formats, in the same folder."""
    class_names: list[str]
    is_multi_label: bool
    rows: list[Row]
    group: str = ""
    """Group of classes that it has the labels of, where a dataset has several; others share its `old_name`."""


@dataclass(frozen=True, kw_only=True)
class VideoFolder:
    """What a folder holds."""

    folder: str
    layout: str
    """How it was read, for the user."""
    videos: list[Video]
    """In natural order."""
    class_names: list[str]
    is_multi_label: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    """Why files were left out, and how many."""
    notes: list[str] = field(default_factory=list)
    """What the user should know."""
    lists: list[VideoList] = field(default_factory=list)
    """What a dataset has in place of one list for each split, in which every video is once."""
    dataset: DatasetCounts | None = None
    """Of a published dataset: its annotations against the files that are there."""


def read_folder(
    folder: str,
    *,
    layout: Layout = "auto",
    table: str | None = None,
    class_depth: int = 1,
    multi_label: bool = False,
    group_pattern: str | None = None,
    group_column: str | None = None,
    leave_out: Collection[str] = (),
) -> VideoFolder:
    """Find the videos of a folder and their labels.

    Args:
        folder: where they are.
        layout: how they are laid out; auto looks.
        table: CSV file with their labels; None looks for one in the folder.
        class_depth: how many folder levels make the class name, joined by "/".
        multi_label: whether a label of the table is several, with semicolons between them.
        group_pattern: regular expression for the path; what its first group matches, or all of it, names the group.
        group_column: column of the table that names the group.
        leave_out: folders that are not searched.

    Raises:
        DualFormerError: if the folder has no labelled videos, or they can be read in more than one way.
    """
    if not os.path.isdir(folder):
        raise DualFormerError(f"folder {folder!r} does not exist; name a folder with your videos")
    if os.path.lexists(os.path.join(folder, STATE_FILE)):
        raise DualFormerError(f"folder {folder!r} is what prepare has written; name the folder that holds your videos")
    found = _search(folder, leave_out)
    tables = [table] if table is not None else _find_tables(folder, found.others)
    chosen = _choose_layout(layout, found, tables, table)
    if group_column is not None and chosen != "table":
        raise DualFormerError(f"--group-column {group_column!r} needs a table with that column; {folder!r} has none")
    if multi_label and chosen != "table":
        raise DualFormerError("several labels for a video need a table, with semicolons between them")
    if chosen == "table":
        content = _read_tables(folder, found, tables, multi_label=multi_label, group_column=group_column)
    else:
        content = _read_class_folders(folder, found, class_depth=class_depth, with_splits=chosen == "splits")
    content = _with_search(content, found)
    if not any(video.labels for video in content.videos):
        raise DualFormerError(_nothing_found(content, found))
    check_class_names(content.class_names)
    if group_pattern is not None:
        content = _grouped(content, group_pattern)
    return content


@dataclass
class _Found:
    """What a search of the folder met."""

    videos: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """Files that are no videos."""
    num_hidden: int = 0
    num_flow: int = 0
    """Folders of images below one that is called optical flow."""
    problems: list[str] = field(default_factory=list)


def _search(folder: str, leave_out: Collection[str]) -> _Found:
    found = _Found()
    excluded = {os.path.realpath(path) for path in leave_out} - {os.path.realpath(folder)}  # that, `prepare` refuses
    inside_excluded: list[str] = []
    hidden: list[str] = []

    def complain(name: str, reason: str) -> None:
        found.problems.append(f"{name!r}: {reason}")

    def repeated(name: str) -> None:
        found.problems.append(f"{name!r} leads to a folder that was searched already; its videos count once")

    for current, names in walk(folder, complain, on_hidden=hidden.append, on_repeated=repeated):
        below = any(current.startswith(path + os.sep) for path in inside_excluded)
        if below or os.path.realpath(current) in excluded or os.path.lexists(os.path.join(current, STATE_FILE)):
            inside_excluded.append(current)
            continue
        relative = os.path.relpath(current, folder)
        prefix = "" if relative == os.curdir else relative
        kind = kind_of_folder(prefix, names) if prefix else "other"
        if kind == "frames":
            found.videos.append(prefix)
        elif kind == "flow":
            found.num_flow += 1
        else:
            for name in names:
                (found.videos if is_video_name(name) else found.others).append(os.path.join(prefix, name))
    ours = set(inside_excluded)
    found.num_hidden = sum(os.path.dirname(path) not in ours for path in hidden)
    return found


def _find_tables(folder: str, others: Iterable[str]) -> list[str]:
    """Return the tables in the folder itself that have a column of files and one of labels."""
    candidates = [name for name in others if os.sep not in name and name.lower().endswith(_TABLE_SUFFIXES)]
    paths = [os.path.join(folder, name) for name in candidates]
    return [path for path in paths if is_table(path)]


def _choose_layout(
    layout: Layout, found: _Found, tables: Sequence[str], named_table: str | None
) -> Literal["folders", "splits", "table"]:
    if layout == "table" or (layout == "auto" and (named_table or tables)):
        if not tables:
            raise DualFormerError(
                "there is no table of labels: a CSV file in the folder whose header names a column of files "
                f"({', '.join(PATH_NAMES)}) and one of labels ({', '.join(LABEL_NAMES)}); name one with --labels"
            )
        return "table"
    if named_table is not None:
        raise DualFormerError(f"--labels {named_table!r} does not go with --layout {layout}; leave one of them out")
    if layout != "auto":
        return layout
    tops = {path.split(os.sep)[0] for path in found.videos if os.sep in path}
    splits = {SPLIT_WORDS[top.lower()] for top in tops if top.lower() in SPLIT_WORDS}
    if len(splits) < 2 or "train" not in splits:
        return "folders"
    others = sorted(top for top in tops if top.lower() not in SPLIT_WORDS)
    if others:
        raise DualFormerError(
            f"the folder holds {' and '.join(sorted(splits))}, which look like splits, beside {others[0]!r}, which "
            "does not; say --layout splits to leave other folders out, or --layout folders if all are classes"
        )
    return "splits"


def _read_class_folders(folder: str, found: _Found, *, class_depth: int, with_splits: bool) -> VideoFolder:
    videos: list[Video] = []
    outside, no_class = 0, 0
    for path in found.videos:
        parts = path.split(os.sep)
        split = SPLIT_WORDS.get(parts[0].lower()) if with_splits else None
        above = parts[1:-1] if with_splits else parts[:-1]
        if with_splits and (split is None or len(parts) == 1):
            outside += 1
        elif len(above) >= class_depth:
            videos.append(Video(path, ("/".join(above[:class_depth]),), split))
        elif split == "test" and not above:
            videos.append(Video(path, (), split))
        else:
            no_class += 1
    names = sorted({name for video in videos for name in video.labels})
    depth = "" if class_depth == 1 else f" ({class_depth} levels)"
    skipped = {"outside of the split folders": outside, "not in a class folder": no_class}
    return VideoFolder(
        folder=folder,
        layout=f"predefined split folders with class folders{depth}" if with_splits else f"class folders{depth}",
        videos=videos,
        class_names=names,
        skipped={reason: count for reason, count in skipped.items() if count},
    )


def _read_tables(
    folder: str, found: _Found, tables: Sequence[str], *, multi_label: bool, group_column: str | None
) -> VideoFolder:
    splits: list[str | None] = [None] * len(tables)
    if len(tables) > 1:
        splits = [SPLIT_WORDS.get(os.path.splitext(os.path.basename(path))[0].lower()) for path in tables]
        if None in splits or len(set(splits)) < len(splits):
            names = ", ".join(repr(os.path.basename(path)) for path in tables)
            raise DualFormerError(f"the folder holds several tables of labels ({names}); name one with --labels")
    finder = FileFinder(folder, found.videos)
    rows: list[TableRow] = []
    for path, split in zip(tables, splits, strict=True):
        rows += read_table(path, finder, split, multi_label=multi_label, group_column=group_column)
    class_names, named, note = name_classes(rows, os.path.dirname(tables[0]))
    listed = {row.path for row in rows}
    not_listed = sum(path not in listed for path in found.videos)
    some_split = {row.split for row in rows}
    if None in some_split and len(some_split) > 1:
        row = next(row for row in rows if row.split is None)
        raise DualFormerError(f"{row.where}: it has no split, and others have; fill in the column for all, or for none")
    notes = list(dict.fromkeys(filter(None, [note, *(row.note for row in rows)])))
    if not multi_label and any(";" in name for name in class_names):
        notes.append("some labels hold ';'; if they are several, say --multi-label")
    predefined = " and predefined splits" if None not in some_split else ""
    return VideoFolder(
        folder=folder,
        layout=f"a table of labels{predefined} ({', '.join(repr(os.path.basename(path)) for path in tables)})",
        videos=merge_parts(
            [
                (
                    row.where,
                    Video(row.path, tuple(named[label] for label in row.labels), row.split, row.group),
                    row.part,
                )
                for row in rows
            ]
        ),
        class_names=class_names,
        is_multi_label=multi_label,
        skipped={"not in the table": not_listed} if not_listed else {},
        notes=notes,
    )


def merge_parts(rows: Iterable[tuple[str, Video, Part]]) -> list[Video]:
    """Return each video once, with its parts.

    Args:
        rows: where each stands in its list, for messages; its video; and which part of it is meant.

    Raises:
        DualFormerError: if a part is listed twice, or as a whole too, or parts are in several splits or groups.
    """
    seen: dict[str, list[tuple[str, Video, Part]]] = {}
    for where, video, part in rows:
        others = seen.setdefault(video.path, [])
        for before, other, other_part in others:
            if part == other_part or WHOLE in (part, other_part):
                raise DualFormerError(f"{where}: {video.path!r} was listed before ({before}); keep one")
            if (other.split, other.group) != (video.split, video.group):
                raise DualFormerError(
                    f"{where}: a part of {video.path!r} is in another split or group than one before ({before}); parts "
                    "of one video look alike and stay together"
                )
        others.append((where, video, part))
    merged = []
    for ((_, video, part), *_), of_video in zip(seen.values(), seen.values(), strict=True):
        if part == WHOLE:
            merged.append(video)
        else:
            labels = tuple(dict.fromkeys(label for _, each, _ in of_video for label in each.labels))
            parts = tuple(LabelledPart(each.labels, of_part) for _, each, of_part in of_video)
            merged.append(replace(video, labels=labels, parts=parts))
    return merged


def _with_search(content: VideoFolder, found: _Found) -> VideoFolder:
    skipped = {
        **content.skipped,
        "hidden": found.num_hidden,
        "optical flow": found.num_flow,
        "other than videos": len(found.others),
    }
    notes = [*content.notes, *found.problems]
    if len(content.class_names) == 1:
        notes.append(f"all videos are of one class, {content.class_names[0]!r}; a classifier needs at least two")
    return replace(content, skipped={reason: count for reason, count in skipped.items() if count}, notes=notes)


def _nothing_found(content: VideoFolder, found: _Found) -> str:
    advice = "put videos into one folder per class, or add a CSV file with the columns file and label"
    if not found.videos:
        counts = ", ".join(f"{count} {reason}" for reason, count in content.skipped.items())
        return f"folder {content.folder!r} holds no videos{f' ({counts})' if counts else ''}; {advice}"
    if len(found.videos) == 1:
        return f"the one video of {content.folder!r} has no label; {advice}"
    return f"the {len(found.videos):,} videos of {content.folder!r} have no labels; {advice}"


def _grouped(content: VideoFolder, pattern: str) -> VideoFolder:
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise DualFormerError(f"--group-pattern {pattern!r} is not a regular expression: {error}") from None
    videos, num_alone = [], 0
    for video in content.videos:
        match = regex.search(video.path)
        group = None if match is None else match[1] if regex.groups else match[0]
        num_alone += group is None
        videos.append(replace(video, group=group))
    if num_alone == len(videos):
        raise DualFormerError(
            f"--group-pattern {pattern!r} matches no path, such as {videos[0].path!r}; mend it or leave it out"
        )
    notes = [*content.notes]
    if num_alone:
        notes.append(f"--group-pattern does not match {counted(num_alone, 'video')}; each is a group of its own")
    return replace(content, videos=videos, notes=notes)
