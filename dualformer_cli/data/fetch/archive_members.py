"""What is in an archive, and what is refused before a byte of it is written."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NoReturn

from dualformer_cli.system.words import size_in_words

ArchiveKind = Literal["rar", "zip", "gzip", "tar"]
Parts = tuple[str, ...]
"""A path inside an archive: its folders and its name."""

BLOCK_BYTES = 512
"""Of a tar archive, and enough to recognise any kind."""
_MAX_NAME_BYTES = 255
_MAX_DEPTH = 64
_JUNK = ("._*", ".DS_Store", "__MACOSX", "Thumbs.db")
_SUFFIX = re.compile(r"(\.(tar|tgz|gz|zip|rar))+$", re.IGNORECASE)


class UnfitFileError(Exception):
    """A file that is there, but is not what its name says or cannot be used.

    Args:
        path: the file.
        reason: what is wrong with it, as the rest of a sentence that begins with its path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{str(path)!r} {reason}")
        self.path = path
        self.reason = reason


class DamagedArchiveError(UnfitFileError):
    """An archive that is cut off or damaged: another copy can be good.

    Args:
        path: the file.
        reason: what is wrong with it.
        if_right: what is wrong if it turns out to be as it was published; None for the same.
    """

    def __init__(self, path: Path, reason: str, if_right: str | None = None) -> None:
        super().__init__(path, reason)
        self.if_right = UnfitFileError(path, if_right or reason)


class RefusedArchiveError(UnfitFileError):
    """An archive that would do harm if it were unpacked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an archive may unpack to. Videos and images hardly compress: the archives of datasets stay far below."""

    ratio: int = 200
    """Unpacked bytes for each byte of the archive."""
    free_bytes: int = 256 << 20
    """Unpacked bytes that are allowed whatever the ratio: small lists compress well."""
    num_bytes: int = 4 << 40
    num_files: int = 20_000_000


class Budget:
    """Counts what comes out of one archive, and stops what goes beyond the limits.

    Args:
        path: the archive.
        archive_bytes: its size.
        limits: of it.
        room_bytes: bytes that may be written to the disk.
    """

    def __init__(self, path: Path, archive_bytes: int, limits: Limits, room_bytes: int) -> None:
        self.num_bytes = 0
        self.num_files = 0
        self._path, self._archive_bytes, self._limits, self._room = path, archive_bytes, limits, room_bytes

    def add_file(self) -> None:
        """Count one more member.

        Raises:
            RefusedArchiveError: if they are too many.
        """
        self.num_files += 1
        if self.num_files > self._limits.num_files:
            refuse(self._path, f"holds more than {self._limits.num_files} files")

    def add_bytes(self, count: int) -> None:
        """Count bytes before they are written.

        Raises:
            RefusedArchiveError: if they are more than such an archive can honestly hold.
            UnfitFileError: if they do not fit on the disk.
        """
        self.num_bytes += count
        self.check(self.num_bytes)

    def check(self, num_bytes: int) -> None:
        """Raise as `add_bytes` does if the archive gave so many bytes."""
        limits = self._limits
        if num_bytes > max(limits.free_bytes, limits.ratio * self._archive_bytes):
            refuse(self._path, f"unpacks to more than {limits.ratio} times its {self._archive_bytes} bytes")
        if num_bytes > limits.num_bytes:
            refuse(self._path, f"unpacks to more than {limits.num_bytes} bytes")
        if num_bytes > self._room:
            raise UnfitFileError(
                self._path, f"unpacks to more than the {size_in_words(self._room)} that are free; free some space"
            )


def refuse(path: Path, why: str) -> NoReturn:
    """Raise RefusedArchiveError."""
    raise RefusedArchiveError(path, f"is not unpacked, it {why}")


def archive_kind(beginning: bytes) -> ArchiveKind | None:
    """Tell the kind of an archive from its first 512 bytes; suffixes lie."""
    if beginning.startswith(b"Rar!\x1a\x07"):
        return "rar"
    if beginning.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if beginning.startswith(b"\x1f\x8b"):
        return "gzip"
    return "tar" if _is_tar(beginning) else None


_FOREIGN = {
    b"\xfd7zXZ\0": "xz",
    b"BZh": "bzip2",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"\x04\x22\x4d\x18": "lz4",
    b"LZIP": "lzip",
}


def foreign_kind(beginning: bytes) -> str | None:
    """Name a compression or archive that is known and cannot be unpacked here."""
    return next((name for mark, name in _FOREIGN.items() if beginning.startswith(mark)), None)


def foreign_problem(name: str) -> str:
    """Say that a file is of a kind that cannot be unpacked, as the rest of a sentence that begins with its path."""
    return f"is {name}, which is not unpacked here; unpack it by hand, or pack it as tar, tar.gz, zip or rar"


def _is_tar(block: bytes) -> bool:
    """Whether a block is the header of a tar archive: its checksum says so, in old ones without `ustar` too."""
    if len(block) < BLOCK_BYTES or not block[0]:
        return False
    try:
        checksum = int(block[148:156].strip(b"\0 ").decode("ascii"), 8)
    except ValueError:
        return False
    return checksum == sum(block[:148]) + 8 * ord(" ") + sum(block[156:BLOCK_BYTES])


def stem(name: str) -> str:
    """Return an archive's name without its suffixes: .tar.gz, .tgz, .zip, .rar."""
    return _SUFFIX.sub("", name) or name


def member_parts(path: Path, name: str) -> Parts:
    """Split a member's name.

    Args:
        path: the archive.
        name: as it stands in the archive, folders separated by slashes.

    Returns:
        Folders and name; nothing for the top folder itself.

    Raises:
        RefusedArchiveError: if it leads out of the folder that is unpacked into, or no file can have that name.
    """
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match("[A-Za-z]:/", plain):
        refuse(path, f"names an absolute path, {name!r}")
    if ".." in plain.split("/"):
        refuse(path, f"names a path out of its folder, {name!r}")
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if len(parts) > _MAX_DEPTH or not all(map(_is_possible, parts)):
        refuse(path, f"names a path that no file can have, {name[:100]!r}")
    return parts


def _is_possible(name: str) -> bool:
    try:
        return "\0" not in name and len(name.encode("utf-8", "surrogateescape")) <= _MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def check_link(path: Path, name: str, parts: Parts, target: str) -> None:
    """Refuse a symbolic link that leads out.

    Args:
        path: the archive.
        name: of the link, as it stands in the archive.
        parts: the same, split.
        target: where it leads.

    Raises:
        RefusedArchiveError: if it leaves the folder that is unpacked into.
    """
    depth = len(parts) - 1
    plain = target.replace("\\", "/")
    outside = plain.startswith("/") or bool(re.match("[A-Za-z]:", plain))
    for part in plain.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        outside = outside or depth < 0
    if outside:
        refuse(path, f"holds a link out of its folder, {name!r} to {target!r}")


def is_junk(parts: Parts) -> bool:
    """Whether a member is what desktops leave behind, such as `._name`."""
    return any(fnmatchcase(part, pattern) for part in parts for pattern in _JUNK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the members of an archive go in the dataset's folder."""

    into: str
    """Folder of all members."""
    strip: Sequence[str] = ()
    """Outer folders that are left out where they are there, outermost first."""
    annotations: Sequence[str] = ()
    """Patterns of names that go to the folder `annotations`, without their own folders."""
    nested: bool = False
    """Whether archives in the archive are unpacked too, each into a folder of its name."""
    holds_videos: bool = False
    """Whether an archive without a video or image is another one than was wanted."""

    def place(self, parts: Parts) -> Parts:
        """Return the path of a member in the dataset's folder."""
        if any(fnmatchcase(parts[-1], pattern) for pattern in self.annotations):
            return ("annotations", parts[-1])
        for outer in self.strip:
            if len(parts) > 1 and parts[0] == outer:
                parts = parts[1:]
        return (*(part for part in self.into.split("/") if part not in ("", ".")), *parts)


def inside(folder: Path, parts: Parts) -> Path:
    """Return the path of a member below a folder."""
    return Path(os.path.join(folder, *parts))
