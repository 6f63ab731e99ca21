"""Where the files of a list are: as listed, in letters composed otherwise, or with the suffix that was left out."""

from __future__ import annotations

import os
from unicodedata import normalize

from dualformer_cli.data.lists.row_arrays import Files, Made, Texts
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.suffixes import is_video_name, stem_of

is_surely_video = Made(is_video_name)
"""Of the last six characters of a path, whether they alone make it that of a video; lists have a few thousand."""


def find_files(root: str, paths: Texts) -> Files:
    """Return where the file or folder of each listed path is.

    A path without the suffix of a video, as lists of Kinetics often have them, is the folder of that name, or else the
    one video of that name whatever its suffix. An accent may be a letter with its own in one and two letters in the
    other, as archives that a Mac packed have them.

    Args:
        root: folder that relative paths start from.
        paths: as listed.

    Raises:
        DualFormerError: if there are several such videos.
    """
    listings: dict[str, dict[str, list[str]]] = {}
    spelling = Spelling(root)
    others = {}
    for row, path in enumerate(paths):
        found = path if path.isascii() else spelling.of(path)
        if not (is_surely_video[path[-6:]] or is_video_name(path)):
            found = _with_suffix(root, found, listings)
        if found != path:
            others[row] = found
    return Files(root, paths, others)


class Spelling:
    """How the disk spells the names below a folder, whose letters and accents lists may compose otherwise.

    Args:
        root: folder that relative paths start from.
    """

    def __init__(self, root: str) -> None:
        self._folders: Made[str, str] = Made(self.of)
        self._names: Made[str, dict[str, str]] = Made(lambda folder: _names_in(os.path.join(root, folder)))

    def of(self, path: str) -> str:
        """Return a path as the disk spells it; as it is where nothing there is called so."""
        folder, name = os.path.split(path)
        if folder != path and not folder.isascii():
            folder = self._folders[folder]
        known = {} if name.isascii() else self._names[folder]
        return os.path.join(folder, known.get(name) or known.get(normalize("NFC", name), name))


def _names_in(folder: str) -> dict[str, str]:
    """Return the names in a folder that are not ASCII, by themselves and by their composed forms."""
    try:
        found = [name for name in os.listdir(folder or os.curdir) if not name.isascii()]
    except (OSError, ValueError):
        found = []
    return {**{normalize("NFC", name): name for name in found}, **{name: name for name in found}}


def _with_suffix(root: str, path: str, listings: dict[str, dict[str, list[str]]]) -> str:
    folder, name = os.path.split(path)
    if folder not in listings:
        listings[folder] = _by_stem(os.path.join(root, folder))
    found = listings[folder].get(normalize("NFC", name), [])
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
                    names.setdefault(normalize("NFC", stem_of(entry.name)), []).append(entry.name)
    except OSError:
        pass  # whoever opens the files says what is wrong
    return names
