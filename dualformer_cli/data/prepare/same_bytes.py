"""Videos that are the same, byte for byte. Sizes tell most apart: only what has the size of another is read."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from dualformer_cli.documents.prepare import LabelledVideo, SameBytes
from dualformer_cli.video.frame_folders import find_frames

_END = 2**16
"""Bytes at the beginning and at the end of a file that are compared before all of it is."""
_CHUNK = 2**20
_FEW = 5


def find_same(paths: Sequence[str]) -> list[list[int]]:
    """Return groups of videos, by number, that hold the same bytes; folders hold those of their frames, in order.

    What cannot be read, and a file without a byte, is like nothing.
    """
    parts = {number: own for number, path in enumerate(paths) if (own := _parts(path))}
    groups = [list(parts)]
    for key in (_first_size, _sizes, _hash_of_ends, _hash):
        groups = [same for group in groups for same in _split(group, parts, key)]
    return sorted(groups)


def describe_same(paths: Sequence[str], labels: Sequence[Sequence[str]], names: Sequence[str]) -> SameBytes:
    """Return which videos are the same under two labels, and how many are the same under one.

    Args:
        paths: where each video is.
        labels: of each; a video without one disagrees with none.
        names: what each is called.
    """
    conflicts, within = [], 0
    for group in find_same(paths):
        by_label: dict[frozenset[str], list[int]] = defaultdict(list)
        for number in group:
            by_label[frozenset(labels[number])].append(number)
        within += sum(len(own) - 1 for own in by_label.values())
        firsts = [own[0] for label, own in by_label.items() if label]
        if len(firsts) > 1:
            conflicts.append(
                tuple(LabelledVideo(path=names[number], labels=tuple(labels[number])) for number in firsts)
            )
    return SameBytes(two_labels=len(conflicts), one_label=within, examples=tuple(conflicts[:_FEW]))


def _split(
    group: Iterable[int], parts: Mapping[int, Sequence[str]], key: Callable[[Sequence[str]], Hashable]
) -> list[list[int]]:
    """Part a group by what a key says of the files of each; None, and what nothing else is like, is left out."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for number in group:
        try:
            found[key(parts[number])].append(number)
        except OSError:
            continue
    return [same for value, same in found.items() if value is not None and len(same) > 1]


def _parts(path: str) -> list[str]:
    """Return the files of a video: itself, or the frames of a folder."""
    try:
        if not os.path.isdir(path):
            return [path]
        frames = find_frames(os.listdir(path))
    except (OSError, ValueError):
        return []
    return [] if frames is None else [os.path.join(path, name) for _, name in frames.names]


def _first_size(parts: Sequence[str]) -> Hashable:
    return len(parts), _size(parts[0])


def _sizes(parts: Sequence[str]) -> Hashable:
    sizes = tuple(map(_size, parts))
    return sizes if any(sizes) else None


def _size(path: str) -> int:
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path!r} is no file")
    return status.st_size


def _hash_of_ends(parts: Sequence[str]) -> Hashable:
    digest = hashlib.sha256()
    for path in dict.fromkeys((parts[0], parts[-1])):
        with open(path, "rb") as file:
            digest.update(file.read(_END))
            file.seek(max(0, _size(path) - _END))
            digest.update(file.read(_END))
    return digest.digest()


def _hash(parts: Sequence[str]) -> Hashable:
    digest = hashlib.sha256()
    for path in parts:
        with open(path, "rb") as file:
            while data := file.read(_CHUNK):
                digest.update(data)
    return digest.digest()
