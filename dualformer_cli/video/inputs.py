"""What the user names on the command line becomes a list of videos."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.system.words import cannot_read, natural_key, os_reason
from dualformer_cli.video.addresses import is_live, mask_credentials
from dualformer_cli.video.frame_folders import kind_of_folder
from dualformer_cli.video.live_inputs import absent_camera
from dualformer_cli.video.parts import split_part
from dualformer_cli.video.refusals import missing
from dualformer_cli.video.remote_files import is_remote, list_videos, require_remote
from dualformer_cli.video.remote_videos import is_in_shard, list_shard, name_of
from dualformer_cli.video.suffixes import is_video_name
from dualformer_cli.video.tar_members import expand_ranges, is_shard_name, is_there, members

Complain = Callable[[str, str], None]
"""Takes a name and what is wrong with it."""
ListedLabel = tuple[int, str | None]
"""A label that a list gives a video: number and name of the class; None where the list has no names."""
ListedVideo = tuple[str, tuple[ListedLabel, ...]]
"""Where a video of a list is, and its labels."""
ReadLabelled = Callable[[str, str], Sequence[ListedVideo] | None]
"""Takes path and text of a list; returns its videos if it is one with labels, None if it is names alone."""
MOST_LOOKED_FOR = 100_000
"""Entries of a list, which may have millions on a slow disk, that are looked for before the first one is read."""
_LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".lst", ".list")


@dataclass(frozen=True, slots=True)
class InputList:
    """The inputs that were found, and what gave none."""

    paths: list[str] = field(default_factory=list)
    """Videos, folders of numbered frames and live addresses, each once."""
    remote: set[str] = field(default_factory=set)
    """Those of them that are files on other machines, fetched when their turn comes."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """(name, what is wrong with it) of lists, folders and patterns that gave nothing or could not be read."""
    labels: dict[str, tuple[ListedLabel, ...]] = field(default_factory=dict)
    """Those that a list gives, by path."""


class InputSink(Protocol):
    """Takes inputs as they are found."""

    def put(self, identity: str, path: str, *, is_remote: bool, labels: tuple[ListedLabel, ...] = ()) -> None:
        """Take an input with the labels that a list gives it, unless one with the same identity came before."""

    def complain(self, name: str, reason: str) -> None:
        """Take the name of a list, folder or pattern that gave nothing, and what is wrong with it."""


def _names_alone(path: str, text: str) -> None:
    """Take every list for one of names."""


def expand_inputs(
    names: Sequence[str],
    *,
    stdin: TextIO | None,
    offline: bool = False,
    read_labelled: ReadLabelled = _names_alone,
) -> InputList:
    """Expand files, folders, patterns, lists and live addresses, in the order given.

    * An existing file stands for itself and wins over every other meaning of its name; only `-` is always stdin.
      A name that does not exist is kept: reading it will say so.
    * A folder is searched, with the folders in it, for videos by suffix, in natural order (clip2 before clip10).
      A folder that holds numbered frames and no videos is one input. Hidden entries are skipped; links are followed,
      but no folder is entered twice.
    * A pattern has `*`, `?` or `[`, and `**` for any number of folders. Files without a video suffix are left out,
      unless the pattern spells the suffix itself (`*.bin`); matching folders are searched.
    * `@list.txt` is a file with one name a line, relative to the list's folder; `-` is such a list on stdin, relative
      to the current folder. Blank lines and lines that start with # are skipped. Names separated by NUL characters,
      as `find -print0` writes them, may contain line breaks. A list does not name other lists. What `read_labelled`
      makes of a list file goes before.
    * A tar archive, also one that a pattern matches, stands for the videos in it, named `shard.tar/NAME.mp4`.
      `shard-{000..099}.tar` names a hundred of them.
    * An address that fsspec reads is a file (`s3://bucket/clip.mp4`), or one that ends in a slash a folder, or a
      pattern; both are listed as `list_videos` says.
    * `clip.mp4#t=3.5,7` is the part of a video from 3.5 to 7 seconds.
    * Camera names, stream addresses and web addresses without `*` are passed through.

    The same file named twice, in whichever way, is one input, at its first place.

    Raises:
        DualFormerError: if an address needs a package that is not installed, or may not be asked as `offline` is true.
    """
    sink = _Listed()
    list_inputs(names, sink, stdin=stdin, offline=offline, read_labelled=read_labelled)
    return InputList(list(sink.paths.values()), sink.remote, sink.problems, sink.labels)


def list_inputs(
    names: Sequence[str],
    sink: InputSink,
    *,
    stdin: TextIO | None,
    offline: bool = False,
    read_labelled: ReadLabelled = _names_alone,
) -> None:
    """Give inputs to `sink` as they are found, as `expand_inputs` finds them; nothing is kept, as they may be many."""
    expansion = _Expansion(sink, read_labelled, offline=offline)
    for name in names:
        if name == "-":
            expansion.add_list(name, read_stdin(stdin), folder="")
        elif _is_list(name):
            expansion.add_list_file(name)
        else:
            expansion.add(name, folder="")


def find_absent(
    names: Sequence[str], *, stdin: TextIO | None, read_labelled: ReadLabelled = _names_alone
) -> tuple[list[tuple[str, str]], bool]:
    """Return why each input that leads to nothing does, with its name, and whether all of them do.

    Files are not opened, and no other machine is asked: what only these could say counts as there. So does what lists
    name behind their first entries, `MOST_LOOKED_FOR` of each: it is found to be missing when its turn comes.
    """
    problems, is_all = list[tuple[str, str]](), True
    for name in dict.fromkeys(names):
        if name == "-" or _is_list(name):
            lookup = _Lookup(read_labelled)
            with suppress(_PresentError):
                if name == "-":
                    lookup.add_list(name, read_stdin(stdin), folder="")
                else:
                    lookup.add_list_file(name)
            problems += lookup.problems
            is_all &= not lookup.is_any_there
        else:
            found = _why_absent(name, folder="")
            problems += found
            is_all &= bool(found)
    return problems, is_all


def _is_list(name: str) -> bool:
    return name.startswith("@") and not os.path.lexists(name)


def _why_absent(name: str, *, folder: str) -> list[tuple[str, str]]:
    """Return what is wrong with an input that leads to nothing; an empty list where it leads somewhere."""
    camera = absent_camera(name)
    if is_remote(name) or (is_live(name) and camera is None):
        return []
    sink = _Absent()
    try:
        if camera is not None:
            sink.complain(name, camera)
        else:
            _Expansion(sink, _names_alone, offline=True).add(name, folder=folder)
    except _PresentError:
        return []
    return sink.problems


class _PresentError(Exception):
    """An input that is there was found."""


class _Absent:
    """Takes complaints alone."""

    def __init__(self) -> None:
        self.problems: list[tuple[str, str]] = []

    def put(self, identity: str, path: str, *, is_remote: bool, labels: tuple[ListedLabel, ...] = ()) -> None:
        if is_there(split_part(path)[0]):
            raise _PresentError
        self.complain(path, missing(path))

    def complain(self, name: str, reason: str) -> None:
        self.problems.append((name, reason))


class _Listed:
    """Inputs in memory."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        """By what identifies the file."""
        self.remote: set[str] = set()
        self.problems: list[tuple[str, str]] = []
        self.labels: dict[str, tuple[ListedLabel, ...]] = {}

    def put(self, identity: str, path: str, *, is_remote: bool, labels: tuple[ListedLabel, ...] = ()) -> None:
        if self.paths.setdefault(identity, path) == path and labels:
            self.labels.setdefault(path, labels)
        if is_remote:
            self.remote.add(path)

    def complain(self, name: str, reason: str) -> None:
        self.problems.append((name, reason))


class _Expansion:
    """Finds inputs, and the problems met on the way."""

    def __init__(self, sink: InputSink, read_labelled: ReadLabelled, *, offline: bool) -> None:
        self._sink, self._read_labelled, self._offline = sink, read_labelled, offline
        self._num_problems = 0
        self._real_folders: dict[str, str] = {}

    def complain(self, name: str, reason: str) -> None:
        self._num_problems += 1
        self._sink.complain(name, reason)

    def _put(self, path: str, *, identity: str | None = None, is_remote: bool = False) -> None:
        self._sink.put(path if identity is None else identity, path, is_remote=is_remote)

    def add_list_file(self, name: str) -> None:
        path = name.removeprefix("@")
        try:
            with open(path, "rb") as file:
                text = os.fsdecode(file.read())
            videos = self._read_labelled(path, text)
        except OSError as error:
            self.complain(name, cannot_read("list", path, error))
        except DualFormerError as error:
            self.complain(name, error.reason)
        else:
            if videos is None:
                self.add_list(name, text, folder=os.path.dirname(path))
            for video, labels in videos or ():
                self._sink.put(self._identity(video), video, is_remote=False, labels=labels)

    def add_list(self, name: str, text: str, *, folder: str) -> None:
        """Add the entries of a list; relative ones are found in `folder`."""
        is_empty = True
        for entry in _list_entries(text, folder):
            is_empty = False
            self.add(entry, folder=folder)
        if is_empty:
            self.complain(name, "the list is empty; write one name a line")

    def add(self, name: str, *, folder: str) -> None:
        """Add what one name stands for; a relative one is found in `folder`."""
        path = os.path.join(folder, name)
        if os.path.isdir(path):
            self._add_all(path, _videos_below(path, self.complain), "the folder holds no videos and no numbered frames")
        elif is_there(path):
            self._add_file(path)
        elif is_there(split_part(path)[0]):
            file, part = split_part(path)
            self._put(path, identity=self._identity(file) + part.fragment)
        elif is_remote(name):
            self._add_remote(name)
        elif is_live(name):
            self._put(name)
        elif glob.has_magic(name):
            pattern = os.path.join(glob.escape(folder), name)
            self._add_all(path, _videos_matching(pattern, self.complain), "the pattern matches no videos")
        elif is_shard_name(name) and (shards := expand_ranges(name)) != [name]:
            for shard in shards:
                self.add(shard, folder=folder)
        else:
            self._put(path)

    def _add_all(self, name: str, videos: Iterable[str], complaint: str) -> None:
        known_problems, found = self._num_problems, 0
        for video in videos:
            found += 1
            self._add_file(video)
        if not found and self._num_problems == known_problems:
            self.complain(name, complaint)

    def _add_file(self, path: str) -> None:
        """Add a file, or the videos of an archive."""
        if _is_text(path):
            self.complain(path, f"it is text and no video; a list of videos is named as {'@' + path!r}")
            return
        if not (is_shard_name(path) and os.path.isfile(path)):
            self._put(path, identity=self._identity(path))
            return
        known_problems, found = self._num_problems, 0
        try:
            for member in members(path):
                if is_video_name(member.name):
                    found += 1
                    self._put(member.path, identity=self._identity(member.path))
        except VideoError as error:
            self.complain(path, error.reason)
        if not found and self._num_problems == known_problems:
            self.complain(path, "the archive holds no videos")

    def _add_remote(self, name: str) -> None:
        for each in expand_ranges(name) if is_shard_name(name) else [name]:
            try:
                require_remote(each, offline=self._offline)
                videos = list_videos(each)
            except VideoError as error:
                self.complain(mask_credentials(each), error.reason)
                continue
            for video in videos:
                if is_shard_name(video) or (video == each and is_in_shard(each)):
                    self._add_remote_shard(video)
                else:
                    self._put(video, is_remote=True)

    def _add_remote_shard(self, address: str) -> None:
        try:
            for video in list_shard(address):
                self._put(video, identity=name_of(video), is_remote=True)
        except VideoError as error:
            self.complain(mask_credentials(address), error.reason)

    def _identity(self, path: str) -> str:
        """Return one spelling for all that name a file in its folder; a link to a file stays a file of its own."""
        folder, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir):
            return os.path.realpath(path)
        if folder not in self._real_folders:
            self._real_folders[folder] = os.path.realpath(folder)
        return os.path.join(self._real_folders[folder], name)


class _Lookup(_Expansion):
    """Looks whether the entries of a list are there, in place of what they stand for."""

    def __init__(self, read_labelled: ReadLabelled) -> None:
        super().__init__(self, read_labelled, offline=True)
        self.problems: list[tuple[str, str]] = []
        self.is_any_there = False
        self._num_looked_for = 0

    def put(self, identity: str, path: str, *, is_remote: bool, labels: tuple[ListedLabel, ...] = ()) -> None:
        self.add(path, folder="")

    def complain(self, name: str, reason: str) -> None:
        self.problems.append((name, reason))

    def add(self, name: str, *, folder: str) -> None:
        self._num_looked_for += 1
        if self._num_looked_for > MOST_LOOKED_FOR:
            self.is_any_there = True
            raise _PresentError
        found = [] if os.path.lexists(os.path.join(folder, name)) else _why_absent(name, folder=folder)
        self.problems += found
        self.is_any_there |= not found


def _is_text(path: str) -> bool:
    """Return whether a file with the name of a list begins as text does."""
    if not path.lower().endswith(_LIST_SUFFIXES) or not os.path.isfile(path):
        return False
    try:
        with open(path, "rb") as file:
            start = file.read(512)
    except OSError:
        return False
    return b"\0" not in start and start.decode("utf-8", "ignore").strip() != ""


def read_stdin(stdin: TextIO | None) -> str:
    """Read names as the file system spells them: stdin's own decoding refuses names that are not UTF-8."""
    if stdin is None:  # closed before Python started
        return ""
    raw = getattr(stdin, "buffer", None)
    return stdin.read() if raw is None else os.fsdecode(raw.read())


def _list_entries(text: str, folder: str) -> Iterator[str]:
    """Yield the names in a list. Spaces around a name, or # before it, belong to it if there is such a file."""
    text = text.removeprefix("\ufeff")
    between = "\0" if "\0" in text else "\n"
    for match in re.finditer(f"[^{between}]+", text):  # as they may be a million, not all at once
        if between == "\0":
            yield match[0]
            continue
        entry = match[0].removesuffix("\r")
        if entry and os.path.lexists(os.path.join(folder, entry)):
            yield entry
        elif entry.strip() and not entry.lstrip().startswith("#"):
            yield entry.strip()


def _videos_below(top: str, complain: Complain) -> Iterator[str]:
    """Yield the videos and the folders of numbered frames in a folder and the folders below it."""
    for folder, files in walk(top, complain):
        if kind_of_folder(os.path.relpath(folder, top), files) == "frames":
            yield folder
        else:
            yield from (os.path.join(folder, file) for file in files if is_video_name(file))


def _videos_matching(pattern: str, complain: Complain) -> Iterator[str]:
    """Yield the videos that a pattern matches, and those in the folders that it matches."""
    suffix = os.path.splitext(pattern)[1]
    spells_suffix = bool(suffix) and not glob.has_magic(suffix)
    for path in _matches(pattern, complain):
        if os.path.isdir(path):
            yield from _videos_below(path, complain)
        elif spells_suffix or is_video_name(path):
            yield path


def _matches(pattern: str, complain: Complain) -> Iterator[str]:
    """Yield the files and folders that a pattern matches. The standard `**` would follow links in circles."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        yield from sorted(glob.glob(pattern), key=natural_key)
        return
    at = parts.index("**")
    before, after = os.sep.join(parts[:at]), os.sep.join(parts[at + 1 :])
    roots = sorted(glob.glob(before + os.sep), key=natural_key) if at else [""]
    for root in roots:
        if not after:
            yield root or os.curdir
            continue
        for folder, _ in walk(root, complain):
            yield from _matches(os.path.join(glob.escape(folder), after), complain)


def walk(
    top: str,
    complain: Complain,
    *,
    on_hidden: Callable[[str], object] = str,
    on_repeated: Callable[[str], object] = str,
) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder from `top` down with the names of its files, in natural order; hidden entries are skipped.

    Args:
        top: where to start.
        complain: called with each folder that cannot be read, and why.
        on_hidden: called with the path of each entry whose name starts with a dot.
        on_repeated: called with each folder that a link leads to a second time, which is not entered again.
    """
    entered: set[tuple[int, int]] = set()
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            status = os.stat(folder or os.curdir)
            if (status.st_dev, status.st_ino) in entered:
                on_repeated(folder)
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder or os.curdir) as scan:
                found = list(scan)
            entries = [(entry.name, _leads_to_folder(entry)) for entry in found if not entry.name.startswith(".")]
        except OSError as error:
            complain(folder or os.curdir, f"the folder cannot be read: {os_reason(error)}")
            continue
        for entry in found:
            if entry.name.startswith("."):
                on_hidden(entry.path)
        entries.sort(key=lambda entry: natural_key(entry[0]))
        yield folder, [name for name, is_folder in entries if not is_folder]
        pending.extend(os.path.join(folder, name) for name, is_folder in reversed(entries) if is_folder)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one; entry.is_dir() alone fails on a link to itself."""
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
