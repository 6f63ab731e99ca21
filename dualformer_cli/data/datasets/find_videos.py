"""Which videos of a dataset lie on the disk."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from dualformer_cli.video.frame_folders import kind_of_folder
from dualformer_cli.video.suffixes import is_video_name

DATA = Path("data")
"""Folder of all datasets, where the user names no other."""
PREPARED = "prepared"
"""Folder, in the dataset's, that `prepare` writes."""


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


def _below(folder: str) -> Iterator[str]:
    """Find videos and folders of frames below a folder."""
    # The folders on the way to each, as links can lead in circles
    above: dict[str, tuple[str, ...]] = {folder: (os.path.realpath(folder),)}
    for at, folders, names in os.walk(folder, followlinks=True):
        way = above.pop(at)
        inner = {name: _real(at, way[-1], name) for name in folders if not name.startswith(".")}
        folders[:] = [name for name, real in inner.items() if real not in way]
        above |= {os.path.join(at, name): (*way, inner[name]) for name in folders}
        if at != folder and kind_of_folder(os.path.relpath(at, os.path.dirname(folder)), names) == "frames":
            yield at
        else:
            yield from (os.path.join(at, name) for name in names if is_video_name(name) and not name.startswith("."))


def _real(at: str, real: str, name: str) -> str:
    """Return where a folder in the folder `at`, which is `real` without links, really is."""
    path = os.path.join(at, name)
    return os.path.realpath(path) if os.path.islink(path) else os.path.join(real, name)
