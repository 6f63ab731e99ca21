"""Videos in plain tar archives, which are read where they lie: SHARD.tar/NAME.mp4 names one.

FFmpeg reads the part of the archive that is the member, so that nothing is unpacked or copied to memory.
"""

from __future__ import annotations

import os
import posixpath
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import BinaryIO

from dualformer_cli.errors import VideoError
from dualformer_cli.system.words import os_reason
from dualformer_cli.system.workers import heartbeat

_SHARD = re.compile(r"\.(tar|tar\.\w+|tgz|tbz2|txz)$")
_RANGE = re.compile(r"\{(\d{1,6})\.\.(\d{1,6})\}")
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")


@dataclass(frozen=True, slots=True)
class Member:
    """One file in a tar archive."""

    archive: str
    name: str
    start: int
    """Where its bytes begin in the archive."""
    size: int

    @property
    def path(self) -> str:
        """Return what it is called everywhere: the archive, a slash and its name."""
        return f"{self.archive}/{self.name}"

    @property
    def address(self) -> str:
        """Return what FFmpeg opens."""
        return f"subfile,,start,{self.start},end,{self.start + self.size},,:file:{os.path.abspath(self.archive)}"


def is_shard_name(name: str) -> bool:
    """Return whether a file is called as tar archives are, compressed ones included, which `members` refuses."""
    return _SHARD.search(name) is not None


def expand_ranges(name: str) -> list[str]:
    """Return the names that `shard-{000..099}.tar` stands for; a name without such a range stands for itself."""
    match = _RANGE.search(name)
    if match is None:
        return [name]
    numbers = range(int(match[1]), int(match[2]) + 1)
    names = (f"{name[: match.start()]}{n:0{len(match[1])}}{name[match.end() :]}" for n in numbers)
    return [expanded for each in names for expanded in expand_ranges(each)]


def members(archive: str) -> Iterator[Member]:
    """Yield the files of an archive, in its order, as far as they are whole; hidden ones are left out.

    Raises:
        VideoError: where it cannot be read any further, with the reason.
    """
    try:
        with open(archive, "rb") as file:
            yield from members_in(file, archive)
    except OSError as error:
        raise VideoError(archive, f"the archive cannot be read: {os_reason(error)}") from None


def members_in(file: BinaryIO, archive: str) -> Iterator[Member]:
    """Yield the files of an archive that is open, as `members` does.

    Raises:
        VideoError: where its content makes no sense any further, with the reason.
        OSError: if it cannot be read.
    """
    last: Member | None = None
    try:
        if file.read(5).startswith(_COMPRESSED):
            reason = "a compressed archive: no member of it can be read alone; decompress it to a plain .tar first"
            raise VideoError(archive, reason)
        num_bytes = file.seek(0, os.SEEK_END)
        for last in _files(file, archive):
            if last.start + last.size > num_bytes:
                raise VideoError(archive, f"the archive is cut off within {last.name!r}; fetch or pack it again")
            if not any(part.startswith(".") for part in last.name.split("/")):
                yield last
        if file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE):
            return
    except tarfile.TarError:
        if last is None:
            raise VideoError(archive, "not a tar archive") from None
    where = "at its start" if last is None else f"after {last.name!r}"
    raise VideoError(archive, f"the archive is cut off or damaged {where}; fetch or pack it again")


def _files(file: BinaryIO, archive: str) -> Iterator[Member]:
    """Yield regular files and hard links to them, and leave `file` where the mark of the archive's end should be.

    Python's tarfile takes a damaged header for the end, and a file that was cut between two members.
    """
    file.seek(0)
    found: dict[str, Member] = {}
    with tarfile.open(fileobj=file, mode="r:") as tar:
        while (entry := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # they would fill the memory
            heartbeat()
            name = _name_inside(entry.name)
            if entry.isreg() and not entry.issparse():
                found[name] = Member(archive, name, entry.offset_data, entry.size)
            elif entry.islnk() and (target := found.get(_name_inside(entry.linkname))) is not None:
                found[name] = replace(target, name=name)
            else:
                continue
            yield found[name]
        file.seek(tar.offset)


def _name_inside(name: str) -> str:
    """Return what a member is called on every system: names that lead out of an archive have no other place than it."""
    return posixpath.normpath(f"/{name.lstrip('/')}")[1:]


def find_member(path: str) -> Member | None:
    """Return the member that a path names; None for a path that leads into no archive.

    Raises:
        VideoError: if the archive cannot be read or has no such member, or two.
    """
    at = path.find(".tar/")
    while at >= 0:
        archive, name = path[: at + 4], path[at + 5 :]
        if os.path.isfile(archive):
            status = os.stat(archive)
            return _find(archive, (status.st_size, status.st_mtime_ns), name, path)
        at = path.find(".tar/", at + 1)
    return None


@lru_cache(maxsize=16)  # opening a video asks several times
def _find(archive: str, stamp: tuple[int, int], name: str, path: str) -> Member:
    index, problem = _index(archive, stamp)
    key = f"\0\0{name}\0"
    at = index.find(key)
    if at < 0:
        raise VideoError(path, problem or f"no such member in {archive!r}")
    if index.find(key, at + 1) >= 0:
        raise VideoError(path, f"{archive!r} has two members of this name; rename one")
    start, size = index[at + len(key) : index.index("\0\0", at + len(key))].split("\0")
    return Member(archive, name, int(start), int(size))


@lru_cache(maxsize=4096)
def _index(archive: str, stamp: tuple[int, int]) -> tuple[str, str | None]:
    """Return where all members are, and what is wrong with the archive.

    As one text, as every worker of a training run has the members of all archives: it takes 33 bytes a member.
    """
    pieces, problem = list[str](), None
    try:
        pieces.extend(f"\0\0{member.name}\0{member.start}\0{member.size}" for member in members(archive))
    except VideoError as error:
        problem = error.reason
    return "".join([*pieces, "\0\0"]), problem


def is_there(path: str) -> bool:
    """Return whether a path leads to a file, a folder, or a member of an archive."""
    try:
        return os.path.lexists(path) or find_member(path) is not None
    except VideoError:
        return False


@contextmanager
def opened(path: str) -> Iterator[tuple[BinaryIO, int, int]]:
    """Open the file that holds a video's bytes.

    Yields:
        The file, and where in it the video begins and ends.

    Raises:
        OSError: if it cannot be opened.
        VideoError: as `find_member` does.
    """
    member = find_member(path)
    with open(path if member is None else member.archive, "rb") as file:
        if member is None:
            yield file, 0, os.fstat(file.fileno()).st_size
        else:
            yield file, member.start, member.start + member.size
