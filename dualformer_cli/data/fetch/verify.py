"""Whether a file is what its source says: its beginning, its size, its hashes; what was found good is recorded.

Beside a file stands `NAME.sha256`: what it was when it was first found good.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from dualformer_cli.data.fetch.archive_members import UnfitFileError, archive_kind, foreign_kind, foreign_problem
from dualformer_cli.data.fetch.http import FileKind, Source
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import os_reason

log = logging.getLogger(__name__)

BEGINNING_BYTES = 512
"""Enough to recognise a tar archive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """A file that is there and was found good."""

    path: Path
    status: Literal["fetched", "present"]
    """Whether this call fetched it."""
    num_bytes: int
    sha256: str


def checked_file(source: Source, path: Path) -> FetchResult | None:
    """Return a file that is there and good, or None when it is not there.

    A file of the size and time that it had when it was found good is not read again.

    Raises:
        UnfitFileError: if it is there and not good.
    """
    try:
        return _checked_file(source, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnfitFileError(path, f"cannot be read ({os_reason(error)})") from error


def _checked_file(source: Source, path: Path) -> FetchResult:
    stat, record = path.stat(), _read_record(path)
    is_untouched = record.get("num_bytes") == stat.st_size and record.get("mtime_ns") == stat.st_mtime_ns
    is_sized = stat.st_size >= source.minimum_bytes and source.num_bytes in (None, stat.st_size)
    fits = is_sized and source.sha256 in (None, record.get("sha256"))
    if is_untouched and fits:
        return FetchResult(path=path, status="present", num_bytes=stat.st_size, sha256=str(record["sha256"]))
    sha256 = verify(source, path)
    recorded = record.get("sha256", sha256)
    if recorded != sha256:
        record_path = str(_record_path(path))
        reason = f"has SHA-256 {sha256}, but had {recorded} before; if you replaced it, delete {record_path!r}"
        raise UnfitFileError(path, reason)
    write_record(path, sha256)
    return FetchResult(path=path, status="present", num_bytes=stat.st_size, sha256=sha256)


def verify(source: Source, path: Path) -> str:
    """Read a whole file, check it against what is known of its source, and return its SHA-256.

    Raises:
        UnfitFileError: if it has another size, is of another kind, damaged, or has another hash than the published one.
    """
    if not path.is_file():
        raise UnfitFileError(path, "is not a file")
    num_bytes = path.stat().st_size
    with path.open("rb") as file:
        beginning = file.read(BEGINNING_BYTES)
        file.seek(0)
        if problem := beginning_problem(beginning, source.kind):
            raise UnfitFileError(path, problem)
        if num_bytes < source.minimum_bytes:
            raise UnfitFileError(
                path, f"has {num_bytes} bytes, and cannot be right with less than {source.minimum_bytes}"
            )
        if source.num_bytes not in (None, num_bytes):
            raise UnfitFileError(path, f"has {num_bytes} bytes, and {source.num_bytes} are published")
        if source.kind == "checkpoint" and beginning.startswith(b"PK") and (problem := _zip_problem(file)):
            raise UnfitFileError(path, problem)
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        _hash(file, sha256, *([md5] if source.md5 else []))
    if source.sha256 not in (None, sha256.hexdigest()):
        raise UnfitFileError(path, f"has SHA-256 {sha256.hexdigest()}, and {source.sha256} is published")
    if source.md5 not in (None, md5.hexdigest()):
        raise UnfitFileError(path, f"has MD5 {md5.hexdigest()}, and {source.md5} is published")
    return sha256.hexdigest()


def beginning_problem(beginning: bytes, kind: FileKind) -> str | None:
    """Say why the first bytes of a file are not those of its kind."""
    if kind == "any":
        return None
    wanted = {"checkpoint": "a PyTorch checkpoint", "archive": "an archive", "text": "a text"}[kind]
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return f"is a web page, not {wanted}"
    is_archive = archive_kind(beginning) is not None
    if kind == "archive" and (foreign := foreign_kind(beginning)):
        return foreign_problem(foreign)
    good = {
        "checkpoint": beginning.startswith((b"PK\x03\x04", b"\x80")),  # a zip archive, or a bare pickle
        "archive": is_archive,
        "text": bool(beginning) and not is_archive and b"\0" not in beginning,
    }[kind]
    return None if good else f"is not {wanted}, it begins with {beginning[:4].hex(' ') or 'nothing'}"


def _zip_problem(file: IO[bytes]) -> str | None:
    """Say what is wrong with a zip archive that should be a checkpoint; its checksums are all checked."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if not any(entry.filename.endswith("data.pkl") for entry in entries):
                return "is a zip archive, but not a PyTorch checkpoint (no data.pkl in it)"
            # PyTorch stores without compression, so these only stop archives made to do harm.
            if {entry.compress_type for entry in entries} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                return "is a zip archive compressed as no checkpoint is"
            if sum(entry.file_size for entry in entries) > 20 * file.seek(0, os.SEEK_END):
                return "is a zip archive that unpacks to more than a checkpoint can hold"
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, RuntimeError, ValueError) as error:
        return f"is damaged or cut off ({' '.join(str(error).split()) or type(error).__name__})"
    finally:
        file.seek(0)
    return f"is damaged (wrong checksum of {damaged!r})" if damaged else None


def _hash(file: IO[bytes], *digests: hashlib._Hash) -> None:
    """Feed a file to some hashes."""
    while chunk := file.read(1 << 20):
        for digest in digests:
            digest.update(chunk)


def _read_record(path: Path) -> Mapping[str, object]:
    """Return what is recorded of a file; nothing if it was never found good or the record is damaged."""
    try:
        record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("sha256"), str) else {}


def write_record(path: Path, sha256: str) -> None:
    """Record a good file, so that the next check need not read it; a folder that cannot be written goes without."""
    stat = path.stat()
    record = {"sha256": sha256, "num_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    try:
        with atomic_path(_record_path(path)) as temporary:
            temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    except (OSError, DualFormerError) as error:
        log.debug("no record of %r: %s", str(path), error)


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")
