"""Where the files of a list are: as listed, or with the suffix that the list left out."""

from __future__ import annotations

import os

from dualformer_cli.data.lists.columns import Files, Made, Texts
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.suffixes import is_video_name, stem_of

is_surely_video = Made(is_video_name)
"""Of the last six characters of a path, whether they alone make it that of a video; lists have a few thousand."""


def find_files(root: str, paths: Texts) -> Files:
    """Return where the file or folder of each listed path is.

    A path without the suffix of a video, as lists of Kinetics often have them, is the folder of that name, or else the
    one video of that name whatever its suffix.

    Args:
        root: folder that relative paths start from.
        paths: as listed.

    Raises:
        DualFormerError: if there are several such videos.
    """
    listings: dict[str, dict[str, list[str]]] = {}
    others = {}
    for row, path in enumerate(paths):
        if is_surely_video[path[-6:]] or is_video_name(path):
            continue
        if (found := _with_suffix(root, path, listings)) != path:
            others[row] = found
    return Files(root, paths, others)


def _with_suffix(root: str, path: str, listings: dict[str, dict[str, list[str]]]) -> str:
    folder, name = os.path.split(path)
    if folder not in listings:
        listings[folder] = _by_stem(os.path.join(root, folder))
    found = listings[folder].get(name, [])
    if not found or name in found:
        return path
    if len(found) > 1:
        raise DualFormerError(
            f"{path!r} is listed without a suffix, and there are {' and '.join(map(repr, sorted(found)))} in "
            f"{os.path.join(root, folder)!r}; name the one that is meant"
        )
    return os.path.join(folder, found[0])


def _by_stem(folder: str) -> dict[str, list[str]]:
    """Return the videos of a folder by their names without suffix, and every folder in it by its name."""
    names: dict[str, list[str]] = {}
    try:
        with os.scandir(folder or os.curdir) as entries:
            for entry in entries:
                if is_video_name(entry.name) or entry.is_dir():
                    names.setdefault(stem_of(entry.name), []).append(entry.name)
    except OSError:
        pass  # whoever opens the files says what is wrong
    return names
