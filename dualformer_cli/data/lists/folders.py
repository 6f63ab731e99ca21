"""A folder of your own becomes a list of labelled videos: how it is laid out is found out from what lies in it.

* Class folders: `FOLDER/CLASS/.../clip.mp4`.
* Predefined splits: `FOLDER/train/CLASS/clip.mp4`, `FOLDER/val/...` and maybe `FOLDER/test/...`.
* A table: a CSV file in FOLDER with a column of files and one of labels, maybe of splits and groups too; or one such
  file per split (`train.csv`, `val.csv`).

A video is a file with the suffix of one, or a folder of numbered images.
"""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from dualformer_cli.data.lists.manifest import check_class_names, load_class_names
from dualformer_cli.data.lists.samples import is_encodable
from dualformer_cli.data.lists.tables import LABEL_NAMES, PATH_NAMES, SPLIT_NAMES
from dualformer_cli.errors import DualFormerError, nearest
from dualformer_cli.video.frame_names import holds_frames, is_flow_folder
from dualformer_cli.video.inputs import is_video_name, walk

Layout = Literal["auto", "folders", "splits", "table"]
LAYOUTS: tuple[Layout, ...] = ("auto", "folders", "splits", "table")

SPLITS = ("train", "val", "test")
STATE_FILE = ".dualformer-prepare.jsonl"
"""Lies in every folder that `prepare` writes; such folders are not searched for videos."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_TABLE_SUFFIXES = (".csv", ".tsv")
_MAX_TABLE_BYTES = 2**30


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
    """Videos of one group stay in one split; None is a group of its own."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a list that is to be written."""

    video: int
    """Number of the video in its folder."""
    labels: tuple[int, ...]
    part_seconds: tuple[float, float] | None = None
    """Start and end of the part that counts; None for all of it."""


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
    facts: dict[str, Any] = field(default_factory=dict)
    """More for the summary."""


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
        videos = [name for name in names if is_video_name(name)]
        if not videos and prefix and holds_frames(names):
            if is_flow_folder(prefix):
                found.num_flow += 1
            else:
                found.videos.append(prefix)
            continue
        found.videos += [os.path.join(prefix, name) for name in videos]
        found.others += [os.path.join(prefix, name) for name in names if not is_video_name(name)]
    ours = set(inside_excluded)
    found.num_hidden = sum(os.path.dirname(path) not in ours for path in hidden)
    return found


def _find_tables(folder: str, others: Iterable[str]) -> list[str]:
    """Return the tables in the folder itself that have a column of files and one of labels."""
    candidates = [name for name in others if os.sep not in name and name.lower().endswith(_TABLE_SUFFIXES)]
    paths = [os.path.join(folder, name) for name in candidates]
    return [path for path in paths if _is_table(path)]


def _is_table(path: str) -> bool:
    try:
        encoding, errors = ("utf-16", "replace") if _is_utf16(path) else ("utf-8-sig", "surrogateescape")
        with open(path, encoding=encoding, errors=errors) as file:
            header = _names(_fields(file.readline(65536)))
    except OSError:
        return False
    return _column(header, PATH_NAMES) is not None and _column(header, LABEL_NAMES) is not None


def _is_utf16(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(2) in (b"\xff\xfe", b"\xfe\xff")


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
    finder = _Finder(folder, found.videos)
    rows: list[_Row] = []
    for path, split in zip(tables, splits, strict=True):
        rows += _read_table(path, finder, split, multi_label=multi_label, group_column=group_column)
    _refuse_repeats(rows)
    class_names, named, note = _name_classes(rows, os.path.dirname(tables[0]))
    listed = {row.path for row in rows}
    not_listed = sum(path not in listed for path in found.videos)
    some_split = {row.split for row in rows}
    if None in some_split and len(some_split) > 1:
        row = next(row for row in rows if row.split is None)
        raise DualFormerError(f"{row.where}: it has no split, and others have; fill in the column for all, or for none")
    notes = [note] if note else []
    if not multi_label and any(";" in name for name in class_names):
        notes.append("some labels hold ';'; if they are several, say --multi-label")
    predefined = " and predefined splits" if None not in some_split else ""
    return VideoFolder(
        folder=folder,
        layout=f"a table of labels{predefined} ({', '.join(repr(os.path.basename(path)) for path in tables)})",
        videos=[Video(row.path, tuple(named[label] for label in row.labels), row.split, row.group) for row in rows],
        class_names=class_names,
        is_multi_label=multi_label,
        skipped={"not in the table": not_listed} if not_listed else {},
        notes=notes,
    )


@dataclass(frozen=True, slots=True)
class _Row:
    where: str
    path: str
    labels: tuple[str, ...]
    split: str | None
    group: str | None


class _Finder:
    """Finds the file that a table means: by its path, by an absolute path into the folder, or without its suffix."""

    def __init__(self, folder: str, videos: Sequence[str]) -> None:
        self._folder = folder
        self._known = set(videos)
        stems = Counter(os.path.splitext(video)[0] for video in videos)
        self._by_stem = {
            os.path.splitext(video)[0]: video for video in videos if stems[os.path.splitext(video)[0]] == 1
        }

    def find(self, name: str, where: str) -> str:
        """Return the path relative to the folder; there may be no such file."""
        path = os.path.relpath(name, os.path.abspath(self._folder)) if os.path.isabs(name) else os.path.normpath(name)
        if path in self._known:
            return path
        if path in self._by_stem:
            return self._by_stem[path]
        if not is_encodable(name) or path == os.curdir or path.split(os.sep)[0] == os.pardir:
            raise DualFormerError(f"{where}: {name!r} is not inside of the folder; name files relative to the folder")
        return path


def _read_table(
    path: str, finder: _Finder, split: str | None, *, multi_label: bool, group_column: str | None
) -> list[_Row]:
    lines = _table_lines(path)
    header = _names(lines[0][1])
    file_column, label_column = _column(header, PATH_NAMES), _column(header, LABEL_NAMES)
    if file_column is None or label_column is None:
        raise DualFormerError(
            f"table {path!r}: its header {','.join(lines[0][1])!r} must name a column of files "
            f"({', '.join(PATH_NAMES)}) and one of labels ({', '.join(LABEL_NAMES)})"
        )
    split_column = _column(header, SPLIT_NAMES) if split is None else None
    group = None
    if group_column is not None:
        if group_column.lower() not in header:
            hint = nearest(group_column.lower(), header)
            raise DualFormerError(f"table {path!r} has no column {group_column!r}{hint}; it has {', '.join(header)}")
        group = header.index(group_column.lower())
    rows = []
    for number, values in lines[1:]:
        where = f"table {path!r}, line {number}"
        if len(values) != len(header):
            raise DualFormerError(f"{where}: it has {len(values)} fields and the header {len(header)}; quote commas")
        own = split if split_column is None else _split_named(values[split_column], where)
        labels = _labels(values[label_column], multi_label=multi_label)
        if not labels and own != "test":
            raise DualFormerError(f"{where}: {values[file_column]!r} has no label; only test videos may lack one")
        if not values[file_column]:
            raise DualFormerError(f"{where}: it names no file")
        found = finder.find(values[file_column], where)
        rows.append(_Row(where, found, labels, own, (values[group] or None) if group is not None else None))
    return rows


def _table_lines(path: str) -> list[tuple[int, list[str]]]:
    """Return the rows of a table that are not empty, each with its line number."""
    try:
        if os.path.getsize(path) > _MAX_TABLE_BYTES:
            raise DualFormerError(f"table {path!r} is larger than 1 GiB")
        if _is_utf16(path):
            raise DualFormerError(f"table {path!r} is UTF-16 text; save it as UTF-8")
        with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            first = file.readline(65536)
            file.seek(0)
            reader = csv.reader(file, delimiter=_delimiter(first), strict=True)
            rows, line = [], 1
            for row in reader:
                if any(row):
                    rows.append((line, row))
                line = reader.line_num + 1
    except OSError as error:
        raise DualFormerError(f"table {path!r} cannot be read: {(error.strerror or str(error)).lower()}") from None
    except csv.Error as error:
        raise DualFormerError(f"table {path!r}, line {line}: {error}; mend the quotes of this row") from None
    if len(rows) < 2:
        raise DualFormerError(f"table {path!r} is empty; it needs a header such as file,label and a row per video")
    return rows


def _delimiter(line: str) -> str:
    return max(",;\t", key=line.count)


def _fields(line: str) -> list[str]:
    return line.rstrip("\r\n").split(_delimiter(line))


def _names(fields: Sequence[str]) -> list[str]:
    return [field.strip().strip('"').strip().lower() for field in fields]


def _column(header: Sequence[str], names: Sequence[str]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _split_named(value: str, where: str) -> str | None:
    if not value.strip():
        return None
    split = SPLIT_WORDS.get(value.strip().lower())
    if split is None:
        raise DualFormerError(f"{where}: split {value!r} is none of {', '.join(SPLIT_WORDS)}")
    return split


def _labels(value: str, *, multi_label: bool) -> tuple[str, ...]:
    pieces = value.split(";") if multi_label else [value]
    return tuple(dict.fromkeys(piece.strip() for piece in pieces if piece.strip()))


def _refuse_repeats(rows: Sequence[_Row]) -> None:
    first: dict[str, _Row] = {}
    for row in rows:
        if row.path in first:
            raise DualFormerError(f"{row.where}: {row.path!r} was listed before ({first[row.path].where}); keep one")
        first[row.path] = row


def _name_classes(rows: Sequence[_Row], folder: str) -> tuple[list[str], dict[str, str], str]:
    """Return the class names, the class that each label of the table means, and what to say of it."""
    labels = sorted({label for row in rows for label in row.labels})
    if not all(re.fullmatch(r"[0-9]{1,9}", label) for label in labels):
        return labels, {label: label for label in labels}, ""
    beside = os.path.join(folder, "classes.txt")
    if os.path.exists(beside):
        names = load_class_names(beside)
        for row in rows:
            for label in row.labels:
                if int(label) >= len(names):
                    raise DualFormerError(f"{row.where}: label {label} is none of the {len(names)} of {beside!r}")
        return names, {label: names[int(label)] for label in labels}, f"label numbers are lines of {beside!r}, from 0"
    ordered = sorted({int(label) for label in labels})
    named = {label: str(int(label)) for label in labels}
    if ordered == list(range(len(ordered))):
        note = "labels are numbers from 0 and keep them; put their names, one a line, into classes.txt beside the table"
    else:
        note = f"labels are numbers with gaps: {ordered[0]} becomes class 0, and so on in order; classes.txt tells"
    return list(map(str, ordered)), named, note


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
    return f"the {len(found.videos)} videos of {content.folder!r} have no labels; {advice}"


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
        notes.append(f"--group-pattern does not match {num_alone} videos; each is a group of its own")
    return replace(content, videos=videos, notes=notes)
