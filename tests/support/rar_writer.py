"""Writes rar archives without compression, of both formats, for tests: programs that can are not free."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence

RAR4, RAR5 = b"Rar!\x1a\x07\x00", b"Rar!\x1a\x07\x01\x00"


def rar5(
    files: Mapping[str, bytes],
    *,
    folders: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    checksums: bool = True,
    main_flags: int = 0,
    end: bool = True,
) -> bytes:
    """Return an archive of RAR 5.

    Args:
        files: content by name.
        folders: names of folders.
        links: target by name of symbolic links.
        sizes: unpacked sizes that are claimed instead of the true ones.
        checksums: whether CRC-32 is stored.
        main_flags: of the archive; 1 for one of several volumes.
        end: whether the end is marked.
    """
    out = RAR5 + _block5(1, _vint(main_flags))
    for name in folders:
        out += _block5(2, _file5(name, 1, 0, None))
    for name, target in (links or {}).items():
        record = _vint(5) + _vint(1) + _vint(0) + _vint(len(target.encode())) + target.encode()
        out += _block5(2, _file5(name, 0, 0, None), extra=_vint(len(record)) + record)
    for name, content in files.items():
        size = (sizes or {}).get(name, len(content))
        checksum = zlib.crc32(content) if checksums else None
        out += _block5(2, _file5(name, 0, size, checksum), data=content)
    return out + (_block5(5, _vint(0)) if end else b"")


def encrypted5() -> bytes:
    """Return an archive of RAR 5 of which even the names are encrypted."""
    return RAR5 + _block5(4, _vint(0) + _vint(0) + b"\x0f" + bytes(16))


def _file5(name: str, flags: int, size: int, checksum: int | None) -> bytes:
    flags |= 4 if checksum is not None else 0
    raw = name.encode("utf-8", "surrogateescape")
    told = b"" if checksum is None else struct.pack("<I", checksum)
    return (
        _vint(flags)
        + _vint(size)
        + _vint(0o40755 if flags & 1 else 0o100644)
        + told
        + _vint(0)
        + _vint(1)
        + _vint(len(raw))
        + raw
    )


def _block5(kind: int, fields: bytes, *, extra: bytes = b"", data: bytes = b"") -> bytes:
    flags = (1 if extra else 0) | (2 if kind == 2 else 0)
    header = _vint(kind) + _vint(flags)
    header += _vint(len(extra)) if extra else b""
    header += _vint(len(data)) if kind == 2 else b""
    header += fields + extra
    header = _vint(len(header)) + header
    return struct.pack("<I", zlib.crc32(header)) + header + data


def _vint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def rar4(
    files: Mapping[str, bytes],
    *,
    folders: Sequence[str] = (),
    mode: int = 0o100644,
    raw_names: Mapping[str, bytes] | None = None,
    main_flags: int = 0,
    file_flags: int = 0,
    end: bool = True,
) -> bytes:
    """Return an archive of RAR 4.

    Args:
        files: content by name.
        folders: names of folders.
        mode: Unix mode of the files; 0o120777 makes them links.
        raw_names: names as they are to be stored, with the flag of Unicode names.
        main_flags: of the archive; 1 for one of several volumes, 0x80 for encrypted headers.
        file_flags: of the files; 4 for encrypted ones.
        end: whether the end is marked.
    """
    out = RAR4 + _block4(0x73, main_flags, bytes(6))
    for name in folders:
        out += _block4(0x74, 0x80E0, _file4(_name4(name), b"", 0o40755))
    for name, content in files.items():
        raw = (raw_names or {}).get(name)
        flags = 0x8000 | file_flags | (0x200 if raw is not None else 0)
        out += _block4(0x74, flags, _file4(_name4(name) if raw is None else raw, content, mode)) + content
    return out + (_block4(0x7B, 0x4000, b"") if end else b"")


def _name4(name: str) -> bytes:
    return name.replace("/", "\\").encode()


def _file4(name: bytes, content: bytes, mode: int) -> bytes:
    size = len(content)
    return struct.pack("<IIBIIBBHI", size, size, 3, zlib.crc32(content), 0, 20, 0x30, len(name), mode) + name


def _block4(kind: int, flags: int, fields: bytes) -> bytes:
    rest = struct.pack("<BHH", kind, flags, 7 + len(fields)) + fields
    return struct.pack("<H", zlib.crc32(rest) & 0xFFFF) + rest
