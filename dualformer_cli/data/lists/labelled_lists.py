"""Lists that people have become what `prepare` works on: their videos, labels and splits."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dualformer_cli.data.lists.annotation_tools import DamagedExportError
from dualformer_cli.data.lists.column_names import SPLIT_WORDS
from dualformer_cli.data.lists.folders import Video, VideoFolder, merge_parts
from dualformer_cli.data.lists.manifest import Manifest, check_class_names, is_export, read_manifest
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.parts import WHOLE, Part
from dualformer_cli.video.tar_members import is_shard_name


@dataclass(frozen=True, slots=True)
class _Listed:
    manifest: Manifest
    splits: list[str | None]
    """Of each row."""


def read_lists(sources: Sequence[str], *, group_pattern: str | None = None) -> VideoFolder:
    """Return the videos of one list or several, with their labels.

    A list is a split if its file name says so (train.csv, kinetics_val.txt), or its column `split` says it of each row;
    else a random split is drawn.

    Args:
        sources: manifests, tables or lists in one of the older formats.
        group_pattern: regular expression for the path that names a group; refused, as lists are not searched.

    Raises:
        DualFormerError: if a list cannot be read, or a video is in two of them.
    """
    if group_pattern is not None:
        raise DualFormerError("--group-pattern goes with a folder of videos; a list has --group-column")
    lists = [_read(source, is_alone=len(sources) == 1) for source in sources]
    files = [os.path.abspath(file) for listed in lists for file in listed.manifest.files]
    folder = os.path.commonpath([os.path.dirname(file) for file in files])
    names = _class_names(lists)
    rows: list[tuple[str, Video, Part]] = []
    first_seen: dict[tuple[str, Part], str] = {}
    for listed in lists:
        names_of_list, source = _names_of(listed.manifest, names), listed.manifest.source
        for sample, split, file in zip(listed.manifest.samples, listed.splits, listed.manifest.files, strict=True):
            path = os.path.relpath(os.path.abspath(file), folder)
            part = sample.part if sample.part.is_timed or listed.manifest.has_frame_parts else WHOLE
            if (path, part) in first_seen:
                seen = first_seen[path, part]
                raise DualFormerError(f"{sample.path!r} is in {seen!r} and in {source!r}; keep one of them")
            first_seen[path, part] = source
            video = Video(path, tuple(names_of_list[label] for label in sample.labels), split)
            rows.append((f"list {source!r}", video, part))
    videos = merge_parts(rows)
    if not any(video.labels for video in videos):
        raise DualFormerError(f"list {sources[0]!r} has no labels; add them, a class name or number after each path")
    some = {video.split for video in videos}
    if None in some and len(some) > 1:
        raise DualFormerError(f"some rows of {' and '.join(sources)} have a split and others none; fill it in for all")
    check_class_names(names)
    shown = ", ".join(repr(os.path.basename(source)) for source in sources)
    return VideoFolder(
        folder=folder,
        layout=f"{'a list' if len(sources) == 1 else 'lists'}{'' if None in some else ' with splits'} ({shown})",
        videos=videos,
        class_names=names,
        is_multi_label=any(listed.manifest.is_multi_label for listed in lists),
        notes=list(dict.fromkeys(warning for listed in lists for warning in listed.manifest.warnings)),
    )


def find_export(folder: str) -> tuple[str | None, list[str]]:
    """Return the file of an annotation tool in a folder that says what its videos are, if there is one.

    With it why others, which may be one, are none.

    Raises:
        DualFormerError: if there are several, or it is damaged.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.lower().endswith((".json", ".xml", ".csv")))
    except OSError:
        return None, []
    found, problems = [], []
    for path in (os.path.join(folder, name) for name in names):
        try:
            if is_export(path):
                found.append(path)
        except DamagedExportError:
            raise
        except DualFormerError as error:
            problems.append(f"{path!r} is left out: {error}")
    if len(found) > 1:
        raise DualFormerError(f"{found[0]!r} and {found[1]!r} both label the videos; name one with --labels")
    return (found[0] if found else None), problems


def _read(source: str, *, is_alone: bool) -> _Listed:
    if is_shard_name(source):
        raise DualFormerError(f"{source!r} is a tar archive; train and eval read it as it is")
    manifest = read_manifest(source, with_splits=True)
    if manifest.splits is not None:
        for number, word in enumerate(manifest.splits, start=2):
            if word and word not in SPLIT_WORDS:
                raise DualFormerError(
                    f"list {source!r}, row {number}: {word!r} is no split; these are {', '.join(SPLIT_WORDS)}"
                )
        return _Listed(manifest, [SPLIT_WORDS.get(word) for word in manifest.splits])
    words = re.split(r"[^a-z]+", os.path.splitext(os.path.basename(source))[0].lower())
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    split = found.pop() if len(found) == 1 else None
    if split is None and not is_alone:
        raise DualFormerError(f"list {source!r}: its name does not say which split it is; call it train, val or test")
    return _Listed(manifest, [None if is_alone else split] * len(manifest))


def _class_names(lists: Sequence[_Listed]) -> list[str]:
    """Return the classes of all lists: the names of one that has them all, else all names in order, else numbers."""
    named = [listed.manifest.class_names for listed in lists if listed.manifest.class_names is not None]
    if named:
        longest = max(named, key=len)
        everything = {name for names in named for name in names}
        return list(longest) if everything <= set(longest) else sorted(everything)
    labels = [label for listed in lists for sample in listed.manifest.samples for label in sample.labels]
    return [str(number) for number in range(max(labels, default=-1) + 1)]


def _names_of(manifest: Manifest, names: Sequence[str]) -> Sequence[str]:
    """Return what each label of a list is called."""
    if manifest.class_names is not None:
        return manifest.class_names
    highest = max((label for sample in manifest.samples for label in sample.labels), default=-1)
    if highest >= len(names):
        raise DualFormerError(
            f"list {manifest.source!r} has label {highest}, and there are {len(names)} classes, numbered from 0"
        )
    return names
