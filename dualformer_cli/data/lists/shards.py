"""Tar archives in the layout of WebDataset as a list: the label of NAME.mp4 is in NAME.cls or NAME.json beside it.

Archives on other machines are lists, too: their headers and labels are read, and the videos stay where they are.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample
from dualformer_cli.data.lists.tables import read_label
from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.system.files import atomic_path, cache_dir
from dualformer_cli.system.threads import begin
from dualformer_cli.system.words import counted, natural_key, os_reason
from dualformer_cli.video.addresses import is_address, mask_credentials
from dualformer_cli.video.remote_files import list_videos, open_file, require_remote, stamp_of
from dualformer_cli.video.remote_videos import place_of
from dualformer_cli.video.suffixes import is_video_name
from dualformer_cli.video.tar_members import Member, expand_ranges, members_in

_MAX_LABEL_BYTES = 1 << 20
_FORMAT = 1
"""Of what is kept of an archive on another machine."""
_AT_A_TIME = 8
"""Archives on other machines whose headers are read; each read waits for an answer."""
_LOGGER = logging.getLogger(__name__)
_Row = tuple[Member, str]
"""A video, and the text of its label, which is empty where it has none."""


def shards_folder(source: str) -> str:
    """Return the folder that all archives of a name, pattern or range lie in or below."""
    return os.path.dirname(re.split(r"[*?[{]", source, maxsplit=1)[0])


def read_shards(source: str, labels: Labels) -> ParsedList:
    """Return the videos in tar archives, in the order of the archives and in them, with their labels.

    Args:
        source: an archive, a pattern (`shards/*.tar`) or a range (`shard-{000..099}.tar`), or an address of these.
        labels: knows the classes. A label is what NAME.cls holds, else the value of "label" in NAME.json: the number or
            the name of a class, several with semicolons between them or as a list in JSON.

    Raises:
        DualFormerError: if an archive cannot be read, has a name twice, or a label is not one of the classes.
    """
    folder, is_remote = shards_folder(source), is_address(source)
    rows = [row for of_archive in _read_archives(_archives(source)) for row in of_archive]
    if not rows:
        raise DualFormerError(f"list {labels.source!r}: the archives hold no videos; name others")
    pieces = (piece.strip() for text in {text for _, text in rows} for piece in text.split(";"))
    labels.report(filter(None, pieces))
    samples, some_have_several = [], False
    for member, text in rows:
        path = (
            member.path.removeprefix(f"{folder}/")
            if is_remote
            else f"{os.path.relpath(member.archive, folder or os.curdir)}/{member.name}"
        )
        try:
            found, has_several = read_label(text, labels)
        except ValueError as error:
            raise labels.error(f"the label of {path!r}", text, str(error)) from None
        some_have_several = some_have_several or has_several
        samples.append(Sample(path, found[0] if found else None, found))
    if some_have_several:
        samples = [Sample(sample.path, None, sample.labels) for sample in samples]
    unlabelled = [sample.path for sample in samples if not sample.labels]
    warnings = []
    if 0 < len(unlabelled) < len(samples):
        videos = counted(len(unlabelled), "video")
        warnings.append(f'{videos} without a .cls or a .json with "label", such as {unlabelled[0]!r}')
    places = [place_of(member) for member, _ in rows] if is_remote else None
    return ParsedList(samples, some_have_several, tuple(warnings), places=places)


def check_shards(source: str, *, offline: bool) -> None:
    """Refuse archives that are not there, or may not be asked for, before any work; of a remote range one is tried.

    Raises:
        DualFormerError: with what is wrong.
    """
    if is_address(source):
        require_remote(source, offline=offline)
    first, *_ = _archives(source)
    if is_address(first):
        with _of_list(source):
            stamp_of(first)


def _archives(source: str) -> list[str]:
    """Return the archives that a name, pattern or range stands for, each once.

    Raises:
        DualFormerError: if it stands for none, or one of them is not there.
    """
    found: dict[str, None] = {}
    for name in expand_ranges(source):
        if is_address(name):
            with _of_list(source):
                found.update(dict.fromkeys(list_videos(name)))
            continue
        if not os.path.exists(name) and not glob.has_magic(name):
            raise DualFormerError(f"list {source!r}: there is no archive {name!r}; mend the name or the range")
        is_pattern = not os.path.exists(name)
        found.update(dict.fromkeys(sorted(glob.glob(name, recursive=True), key=natural_key) if is_pattern else [name]))
    if not found:
        raise DualFormerError(f"list {source!r}: the pattern matches no archive")
    return list(found)


@contextmanager
def _of_list(source: str) -> Iterator[None]:
    """Say of which list an address is that cannot be read."""
    try:
        yield
    except VideoError as error:
        raise DualFormerError(f"list {mask_credentials(source)!r}: {error}") from None


def _read_archives(archives: Sequence[str]) -> Iterator[list[_Row]]:
    """Yield the videos of each archive, in the order of the archives.

    Raises:
        DualFormerError: if one cannot be read, or holds a label that is none.
    """
    if not is_address(archives[0]):
        yield from map(_read_archive, archives)
        return
    _LOGGER.info("reading the headers of %s", counted(len(archives), "archive"))
    waiting: deque[Future[list[_Row]]] = deque()
    for archive in archives:
        waiting.append(begin(partial(_read_remote, archive), "dualformer-list"))
        if len(waiting) == _AT_A_TIME:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _read_archive(archive: str) -> list[_Row]:
    try:
        with open(archive, "rb") as file:
            return _rows(file, archive)
    except OSError as error:
        raise VideoError(archive, f"the archive cannot be read: {os_reason(error)}") from None


def _read_remote(archive: str) -> list[_Row]:
    """Return what an archive on another machine holds; what was read of this version of it is in the cache."""
    stamp = list(stamp_of(archive))
    kept = (
        cache_dir() / "shards" / f"{hashlib.sha256(archive.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.json"
    )
    with suppress(OSError, ValueError, TypeError):
        version, found = json.loads(kept.read_bytes())
        if version == [_FORMAT, *stamp]:
            return [(Member(archive, name, start, size), text) for name, start, size, text in found]
    with open_file(archive) as file:
        rows = _rows(file, archive)
    if stamp[1]:  # else nothing tells a version of the same size
        with suppress(OSError, DualFormerError):
            kept.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(kept) as temporary:
                members = [(member.name, member.start, member.size, text) for member, text in rows]
                temporary.write_text(json.dumps([[_FORMAT, *stamp], members]))
    return rows


def _rows(file: BinaryIO, archive: str) -> list[_Row]:
    videos: dict[str, Member] = {}
    texts: dict[str, str] = {}
    names: set[str] = set()
    shown = mask_credentials(archive) if is_address(archive) else archive
    for member in members_in(file, shown):
        stem, suffix = os.path.splitext(member.name)
        is_video = is_video_name(member.name)
        if not is_video and suffix not in (".cls", ".json"):
            continue
        if member.name in names:
            raise DualFormerError(f"{shown!r} has two members called {member.name!r}; rename one")
        names.add(member.name)
        if is_video:
            videos[member.name] = replace(member, archive=archive)
        elif suffix == ".cls":
            texts[stem] = _text(file, member).strip()
        elif stem not in texts:
            texts[stem] = _label_in_json(file, member)
    return [(member, texts.get(os.path.splitext(name)[0], "")) for name, member in videos.items()]


def _text(file: BinaryIO, member: Member) -> str:
    if member.size > _MAX_LABEL_BYTES:
        raise DualFormerError(f"{member.path!r} has {member.size:,} bytes, too many for a label")
    file.seek(member.start)
    try:
        return file.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DualFormerError(f"{member.path!r} is not UTF-8 text; it should hold a label") from None


def _label_in_json(file: BinaryIO, member: Member) -> str:
    """Return the label in a JSON object as it would stand in a table; empty if it has none."""
    try:
        document = json.loads(_text(file, member))
    except (ValueError, RecursionError):
        raise DualFormerError(f"{member.path!r} is not JSON; it should hold an object with a label") from None
    label = document.get("label") if isinstance(document, dict) else None
    several = label if isinstance(label, list) else [label]
    if any(isinstance(each, bool | dict | list) for each in several):
        raise DualFormerError(f'{member.path!r}: "label" is neither a number nor a name of a class, nor a list of them')
    joined = ";".join(str(each) for each in several if each is not None)
    return f"{joined};" if isinstance(label, list) and joined else joined
