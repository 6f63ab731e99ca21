"""Rar archives: what is in them is read here, and unpacking is left to a program of the machine.

The formats of RAR 4 (1.5 to 4.x) and RAR 5 are documented by their maker; their compression is not free. Headers are
read before any program runs, so that no program is handed names or links that lead out, and what it wrote is held
against sizes and checksums of the headers, so that no program is trusted with its exit code.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dualformer_cli.data.fetch.archive_members import (
    Budget,
    DamagedArchiveError,
    UnfitFileError,
    inside,
    member_parts,
    refuse,
)
from dualformer_cli.system.words import os_reason

RAR4_MARK = b"Rar!\x1a\x07\x00"
RAR5_MARK = b"Rar!\x1a\x07\x01\x00"
_MAX_HEADER_BYTES = 1 << 21

_TOOLS: dict[str, Callable[[str, str], list[str]]] = {
    "unrar": lambda archive, folder: ["x", "-idq", "-y", "-o+", "-p-", archive, f"{folder}/"],
    "7z": lambda archive, folder: ["x", "-y", "-bd", f"-o{folder}", archive],
    "7zz": lambda archive, folder: ["x", "-y", "-bd", f"-o{folder}", archive],
    "unar": lambda archive, folder: ["-quiet", "-force-overwrite", "-no-directory", "-o", folder, archive],
    "bsdtar": lambda archive, folder: ["-x", "-f", archive, "-C", folder],
}
"""Programs that unpack rar, in the order in which they are tried, and how each is called."""

_PACKAGES = {"unrar": "unrar", "unar": "unar", "bsdtar": "libarchive-tools", "": "7zip-rar"}
"""What brings a program that reads rar. With Debian's package 7zip, 7zz is there and cannot."""
_SUMMARY = re.compile(r"errors?:? \d+$|Error exit delayed|^Extraction to directory", re.IGNORECASE)
"""Last lines of programs that have said before what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RarMember:
    """A file in a rar archive."""

    name: str
    """Folders separated by slashes."""
    num_bytes: int
    """Unpacked."""
    crc32: int | None
    """Checksum; some archives have another one instead."""


def find_tools() -> dict[str, str]:
    """Return the installed programs that unpack rar, name to path, in the order in which they are tried."""
    found = ((name, shutil.which(name)) for name in _TOOLS)
    return {name: path for name, path in found if path is not None}


def missing_tool() -> str:
    """Say what to install, as the rest of a sentence that begins with an archive's path."""
    return (
        f"is a rar archive, and none of the programs that unpack it is installed ({', '.join(_TOOLS)}); "
        f"install one, {_packages(())}"
    )


def _packages(there: Iterable[str]) -> str:
    """Name packages with other programs than those that are there, as the rest of a sentence that says to install."""
    *first, last = (package for program, package in _PACKAGES.items() if program not in there)
    return f"such as the package {', '.join(first)}{' or ' if first else ''}{last}"


def unpack_rar(path: Path, folder: Path, budget: Budget, *, held: int | None = None) -> None:
    """Unpack a rar archive with the first program that can.

    Args:
        path: the archive.
        folder: an empty folder.
        budget: counts what comes out.
        held: a descriptor that the program keeps open, so that a lock lasts as long as it runs.

    Raises:
        DamagedArchiveError: if it is cut off, or its headers are damaged, or a program read it, and not to its end.
        UnfitFileError: if it is refused, or no program that is installed can read it.
    """
    members = read_members(path, budget)
    tools = find_tools()
    if not tools:
        raise UnfitFileError(path, missing_tool())
    failures, is_read = [], False
    for name, program in tools.items():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        problem = _run([program, *_TOOLS[name](str(path.absolute()), str(folder.absolute()))], held)
        problem = problem or _difference(folder, members)
        if problem is None:
            return
        is_read = is_read or any(path.is_file() and path.stat().st_size > 0 for path in map(folder.joinpath, members))
        failures.append(f"{name}: {problem}")
    reason = f"cannot be unpacked by what is installed ({'; '.join(failures)})"
    install = f"install another program, {_packages(tools)}"
    at_fault = f"{reason}; it is kept: {install}"
    # What programs say does not tell damage from what they cannot do. That nothing came out of headers that are right
    # does: it is no archive for which another copy would be better.
    if is_read:
        raise DamagedArchiveError(path, f"is damaged, or {reason}; if it is right, {install}", at_fault)
    raise UnfitFileError(path, at_fault)


def _run(command: list[str], held: int | None) -> str | None:
    """Run a program; return what it complained about, None if it did not."""
    environ = {**os.environ, "LC_ALL": "C.UTF-8"}  # in another locale some mangle names
    descriptors = () if held is None else (held,)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environ,
            pass_fds=descriptors,
        )
    except OSError as error:
        return f"cannot be started ({os_reason(error)})"
    if done.returncode == 0:
        return None
    lines = [line.strip() for line in done.stderr.decode("utf-8", "replace").split("\n") if line.strip()]
    last = next((line for line in reversed(lines) if not _SUMMARY.search(line)), lines[-1] if lines else "no message")
    return f"exit code {done.returncode}, {last[:200]}"


def _difference(folder: Path, members: dict[str, RarMember]) -> str | None:
    """Say what a program wrote that is not in the headers, or did not write; None if all is as it should be."""
    wrote: set[str] = set()
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(at, name)
            mode = os.lstat(path).st_mode
            if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                return f"it wrote {name!r}, which is neither file nor folder"
            if stat.S_ISREG(mode):
                wrote.add(os.path.relpath(path, folder))
    if odd := wrote ^ set(members):
        one = min(odd)
        return f"it {'wrote' if one in wrote else 'did not write'} {one!r}"
    for name, member in members.items():
        if problem := _content_problem(folder / name, member):
            return f"{problem} of {name!r}"
    return None


def _content_problem(path: Path, member: RarMember) -> str | None:
    if path.stat().st_size != member.num_bytes:
        return "wrong size"
    if member.crc32 is None:
        return None
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return None if checksum == member.crc32 else "wrong checksum"


def read_members(path: Path, budget: Budget) -> dict[str, RarMember]:
    """Read the headers of an archive.

    Args:
        path: the archive.
        budget: counts what it says to hold.

    Returns:
        Its files by path. Folders are left out.

    Raises:
        RefusedArchiveError: if a name leads out, or it holds links or too much.
        DamagedArchiveError: if it is cut off or damaged.
        UnfitFileError: if it is encrypted, or one of several volumes.
    """
    members: dict[str, RarMember] = {}
    try:
        with path.open("rb") as file:
            mark = file.read(8)
            size = file.seek(0, os.SEEK_END)
            if mark.startswith(RAR4_MARK):
                headers = _read_rar4(file, path, size)
            elif mark == RAR5_MARK:
                headers = _read_rar5(file, path, size)
            else:
                raise DamagedArchiveError(path, "is not a rar archive of a known version")
            for member in headers:
                parts = member_parts(path, member.name)
                budget.add_file()
                budget.add_bytes(member.num_bytes)
                if parts:
                    members[str(inside(Path(), parts))] = member
    except (struct.error, IndexError) as error:
        raise DamagedArchiveError(path, "is damaged (a header ends too early)") from error
    return members


def _read_rar4(file: IO[bytes], path: Path, size: int) -> Iterator[RarMember]:
    """Read the blocks of RAR 1.5 to 4.x."""
    position = len(RAR4_MARK)
    while position < size:
        file.seek(position)
        base = file.read(7)
        checksum, kind, flags, length = struct.unpack("<HBHH", base)
        if length < 7:
            raise DamagedArchiveError(path, "is damaged (a header of no length)")
        header = base + file.read(length - 7)
        # Only files matter, and in old archives the checksums of other headers, or with comments, cover part of them.
        is_checked = kind == 0x74 and not flags & 0x08
        if len(header) < length or (is_checked and zlib.crc32(header[2:]) & 0xFFFF != checksum):
            raise DamagedArchiveError(path, f"is damaged or cut off (a header at byte {position})")
        packed = struct.unpack_from("<I", header, 7)[0] if flags & 0x8000 else 0
        if kind == 0x73 and flags & 0x80:
            raise UnfitFileError(path, "is encrypted")
        if kind == 0x73 and flags & 0x01:
            raise UnfitFileError(path, "is one of several volumes")
        if kind in (0x74, 0x7A) and flags & 0x100:
            packed |= struct.unpack_from("<I", header, 32)[0] << 32
        if kind == 0x7B:
            return
        if kind == 0x74 and (member := _rar4_member(header, flags, path)):
            yield member
        position += length + packed
    if position > size:
        raise DamagedArchiveError(path, f"is cut off ({size} of at least {position} bytes)")


def _rar4_member(header: bytes, flags: int, path: Path) -> RarMember | None:
    """Read a file header; None for a folder."""
    num_bytes, system, checksum, _, _, _, name_length, attributes = struct.unpack_from("<IBIIBBHI", header, 11)
    begin = 32
    if flags & 0x100:
        num_bytes |= struct.unpack_from("<I", header, 36)[0] << 32
        begin = 40
    name = _rar4_name(header[begin : begin + name_length], unicode=bool(flags & 0x200)).replace("\\", "/")
    if flags & 0x04:
        raise UnfitFileError(path, "is encrypted")
    if flags & 0x03:
        raise UnfitFileError(path, "is one of several volumes")
    is_folder = flags & 0xE0 == 0xE0
    if system == 3 and not is_folder and stat.S_IFMT(attributes) not in (0, stat.S_IFREG, stat.S_IFDIR):
        refuse(path, f"holds a link or a device, {name!r}")
    if is_folder:
        member_parts(path, name)
        return None
    return RarMember(name=name, num_bytes=num_bytes, crc32=checksum)


def _rar4_name(raw: bytes, *, unicode: bool) -> str:
    """Decode a name: plain bytes, UTF-8, or plain bytes followed by how they differ from UTF-16."""
    plain, zero, coded = raw.partition(b"\0")
    if not unicode:
        return plain.decode("utf-8", "surrogateescape")
    if not zero:
        return plain.decode("utf-8", "replace")
    units = list(_rar4_characters(plain, coded))
    return struct.pack(f"<{len(units)}H", *units).decode("utf-16-le", "replace")


def _rar4_characters(plain: bytes, coded: bytes) -> Iterator[int]:
    """Undo the packing of a name: two bits say of each character whether one byte, two, or a run of `plain` follow."""
    values = iter(coded)
    high = next(values, 0)
    done, bits, flags = 0, 0, 0
    while True:
        if bits == 0:
            flags, bits = next(values, -1), 8
            if flags < 0:
                return
        bits -= 2
        way = flags >> bits & 3
        first = next(values, -1)
        if first < 0:
            return
        if way == 3:
            correction = next(values, 0) if first & 0x80 else None
            for character in plain[done : done + (first & 0x7F) + 2]:
                yield character if correction is None else (character + correction & 0xFF) | high << 8
                done += 1
            continue
        yield first | (0, high, next(values, 0) if way == 2 else 0)[way] << 8
        done += 1


def _read_rar5(file: IO[bytes], path: Path, size: int) -> Iterator[RarMember]:
    """Read the blocks of RAR 5."""
    position = len(RAR5_MARK)
    while position < size:
        file.seek(position)
        start = file.read(7)
        length, after = _number(start, 4)
        if length > _MAX_HEADER_BYTES:
            raise DamagedArchiveError(path, f"is damaged (a header of {length} bytes)")
        file.seek(position)
        header = file.read(after + length)
        if len(header) < after + length or zlib.crc32(header[4:]) != struct.unpack_from("<I", header)[0]:
            raise DamagedArchiveError(path, f"is damaged or cut off (a header at byte {position})")
        kind, at = _number(header, after)
        flags, at = _number(header, at)
        extra, at = _number(header, at) if flags & 1 else (0, at)
        data, at = _number(header, at) if flags & 2 else (0, at)
        if kind == 4:
            raise UnfitFileError(path, "is encrypted")
        if (kind == 1 and _number(header, at)[0] & 1) or (kind == 2 and flags & 0x18):
            raise UnfitFileError(path, "is one of several volumes")
        if kind == 5:
            return
        if kind == 2 and (member := _rar5_member(header, at, len(header) - extra, path)):
            yield member
        position += len(header) + data
    raise DamagedArchiveError(path, f"is cut off (no end within its {size} bytes)")


def _rar5_member(header: bytes, at: int, end: int, path: Path) -> RarMember | None:
    """Read a file header; None for a folder.

    Args:
        header: all of it.
        at: where the fields of a file begin.
        end: where the records after them begin.
        path: the archive.
    """
    flags, at = _number(header, at)
    num_bytes, at = _number(header, at)
    _, at = _number(header, at)  # attributes
    at += 4 if flags & 2 else 0
    checksum = struct.unpack_from("<I", header, at)[0] if flags & 4 else None
    at += 4 if flags & 4 else 0
    _, at = _number(header, at)  # compression
    _, at = _number(header, at)  # system
    name_length, at = _number(header, at)
    name = header[at : at + name_length].decode("utf-8", "surrogateescape")
    for kind in _rar5_records(header, end):
        if kind == 1:
            raise UnfitFileError(path, "is encrypted")
        if kind == 5:
            refuse(path, f"holds a link, {name!r}")
    if flags & 8:
        raise UnfitFileError(path, f"does not tell the size of {name!r}")
    if flags & 1:
        member_parts(path, name)
        return None
    return RarMember(name=name, num_bytes=num_bytes, crc32=checksum)


def _rar5_records(header: bytes, at: int) -> Iterator[int]:
    """Return the kinds of the records after a header's fields."""
    while at < len(header):
        length, after = _number(header, at)
        kind, _ = _number(header, after)
        yield kind
        at = after + max(1, length)


def _number(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of seven bits a byte; returns it and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    return value, at
