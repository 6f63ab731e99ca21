"""An archive becomes files in a folder, and nothing outside of that folder is touched.

An archive is unpacked into a fresh folder, `.unpacking` in the place where its files will be. When all of it is there,
each file is renamed to its place. A run that is killed leaves that folder, which the next one empties and fills again.
Links are never made, so that no name can lead through one.
"""

from __future__ import annotations

import errno
import gzip
import io
import logging
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from dualformer_cli.data.fetch.archive_members import (
    BLOCK_BYTES,
    Budget,
    DamagedArchiveError,
    Layout,
    Limits,
    Parts,
    UnfitFileError,
    archive_kind,
    check_link,
    foreign_kind,
    foreign_problem,
    inside,
    is_junk,
    member_parts,
    refuse,
    stem,
)
from dualformer_cli.data.fetch.http import OnBytes
from dualformer_cli.data.fetch.rar import unpack_rar
from dualformer_cli.system.disk import free_bytes
from dualformer_cli.video.suffixes import IMAGE_FORMATS, VIDEO_SUFFIXES

log = logging.getLogger(__name__)

STAGING = ".unpacking"
_CHUNK_BYTES = 1 << 20
_RESERVE_BYTES = 64 << 20
"""Left free on the disk."""
_DAMAGE = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OverflowError,
    EOFError,
    struct.error,
    NotImplementedError,
    UnicodeError,
    ValueError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """What came out of an archive."""

    num_files: int
    num_bytes: int
    first: str | None
    """The first and last file, relative to the folder that was unpacked into."""
    last: str | None


def unpack(
    archives: Sequence[Path],
    root: Path,
    layout: Layout,
    *,
    limits: Limits | None = None,
    progress: OnBytes | None = None,
    held: int | None = None,
) -> Unpacked:
    """Unpack an archive, whatever its kind, into a folder. A file that is there already is kept.

    Args:
        archives: the archive, or its pieces in order, which are read as one stream without a second copy on disk.
        root: folder that `layout` is relative to.
        layout: where each member goes.
        limits: of what may come out.
        progress: called with the bytes of the archive that are done.
        held: descriptor that programs started for it keep open.

    Raises:
        DamagedArchiveError: if it is cut off or damaged.
        RefusedArchiveError: if it names paths or links out of its folder or devices, or unpacks without end.
        UnfitFileError: if it is of no known kind or cannot be unpacked here.
    """
    name = stem(archives[0].name)
    layout = _filled(layout, name)
    staging = staging_folder(root, layout) / archives[0].name
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    room = max(0, free_bytes(staging) - _RESERVE_BYTES)
    num_bytes = sum(archive.stat().st_size for archive in archives)
    budget = Budget(archives[0], num_bytes, limits or Limits(), room)
    try:
        _unpack_into(staging, archives, budget, progress, held)
        if layout.nested:
            _unpack_nested(staging, budget, held)
        if layout.holds_videos:
            _require_videos(archives[0], staging)
        return _move_into_place(staging, root, layout)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def staging_folder(root: Path, layout: Layout) -> Path:
    """Return the folder in which archives are unpacked first; on the disk where their files will be."""
    top = [part for part in layout.into.split("/") if part not in ("", ".")][:1]
    return inside(root, (*top, STAGING))


def _filled(layout: Layout, name: str) -> Layout:
    return Layout(
        into=layout.into.replace("{stem}", name),
        strip=[outer.replace("{stem}", name) for outer in layout.strip],
        annotations=layout.annotations,
        nested=layout.nested,
        holds_videos=layout.holds_videos,
    )


def _require_videos(path: Path, folder: Path) -> None:
    """Refuse an archive of videos from which none came, and no image of one.

    Raises:
        UnfitFileError: saying what came instead.
    """
    first, num_files = None, 0
    for at, _, names in os.walk(folder):
        inner = Path(at).relative_to(folder).parts
        for name in names:
            if is_junk((*inner, name)):
                continue
            if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES | IMAGE_FORMATS.keys():
                return
            first, num_files = first or name, num_files + 1
    held = f"only {num_files} other files, such as {first!r}" if num_files else "nothing"
    raise UnfitFileError(path, f"should hold videos and holds {held}; it is another archive, or packed in another way")


def _unpack_into(
    folder: Path, archives: Sequence[Path], budget: Budget, progress: OnBytes | None, held: int | None
) -> None:
    """Unpack an archive of any kind into an empty folder."""
    path = archives[0]
    num_bytes = sum(archive.stat().st_size for archive in archives)
    with ExitStack() as stack:
        try:
            pieces = _pieces(archives, stack)
            raw = _Joined(pieces, num_bytes)
            joined = stack.enter_context(io.BufferedReader(raw, _CHUNK_BYTES))
            beginning = _peek(joined)
            kind = archive_kind(beginning)
            if progress is not None and kind in ("gzip", "tar"):
                raw.report_to(progress)
            if kind == "rar" and len(archives) == 1:
                unpack_rar(path, folder, budget, held=held)
            elif kind == "zip" and len(archives) == 1:
                _unpack_zip(path, folder, budget, progress)
            elif kind == "gzip":
                with gzip.GzipFile(fileobj=joined) as inner:
                    _unpack_stream(io.BufferedReader(inner, _CHUNK_BYTES), path, folder, budget)
            elif kind == "tar":
                _unpack_tar(joined, path, folder, budget)
            else:
                if foreign := foreign_kind(beginning):
                    raise UnfitFileError(path, foreign_problem(foreign))
                in_pieces = " in pieces" if len(archives) > 1 else ""
                raise UnfitFileError(path, f"is not an archive{in_pieces} that can be unpacked")
        except _DAMAGE as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DamagedArchiveError(path, f"is damaged or cut off ({reason})") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                refuse(path, "names a path that is too long")
            if error.errno in (None, errno.EINVAL):  # from a decompressor, or an offset that no file has
                raise DamagedArchiveError(path, f"is damaged or cut off ({error})") from error
            raise


def _unpack_stream(stream: io.BufferedReader[Any], path: Path, folder: Path, budget: Budget) -> None:
    """Unpack what was in gzip: a tar archive, or a single file. A server may have put a second gzip around it."""
    beginning = _peek(stream)
    if archive_kind(beginning) == "tar":
        return _unpack_tar(stream, path, folder, budget)
    if archive_kind(beginning) == "gzip":
        with gzip.GzipFile(fileobj=stream, mode="rb") as inner:  # the stream's own mode is a number
            inner_stream = io.BufferedReader(inner, _CHUNK_BYTES)
            if archive_kind(_peek(inner_stream)) == "tar":
                return _unpack_tar(inner_stream, path, folder, budget)
            reason = "is gzip within gzip, and no tar archive is in it; take the outer ones off by hand"
            raise UnfitFileError(path, reason)
    if kind := archive_kind(beginning) or foreign_kind(beginning):
        raise UnfitFileError(path, f"is {kind} within gzip, which is not unpacked here; take the outer one off by hand")
    budget.add_file()
    _write(stream, folder / stem(path.name), budget)


def _peek(stream: io.BufferedReader[Any]) -> bytes:
    """Return the first block without taking it. A peek can give less than there is, so it is asked again."""
    beginning = b""
    while len(beginning) < BLOCK_BYTES:
        more = stream.peek(BLOCK_BYTES)[:BLOCK_BYTES]
        if len(more) <= len(beginning):
            break
        beginning = more
    return beginning


def _pieces(archives: Sequence[Path], stack: ExitStack) -> list[Callable[[], IO[bytes]]]:
    """Return how to open each piece of an archive. Pieces that each came in a zip archive are read out of it."""
    openers: dict[str, Callable[[], IO[bytes]]] = {}
    for archive in archives:
        with archive.open("rb") as file:
            is_zipped = len(archives) > 1 and archive_kind(file.read(BLOCK_BYTES)) == "zip"
        if not is_zipped:
            openers[archive.name] = lambda archive=archive: archive.open("rb")  # type: ignore[misc]
            continue
        outer = stack.enter_context(zipfile.ZipFile(archive))
        for entry in outer.infolist():
            parts = member_parts(archive, entry.filename)
            if not entry.is_dir() and parts and not is_junk(parts):
                openers[parts[-1]] = lambda outer=outer, entry=entry: outer.open(entry)  # type: ignore[misc]
    check_gaps(archives[0], list(openers))
    return [openers[name] for name in sorted(openers)]


def check_gaps(path: Path, names: Sequence[str]) -> None:
    """Refuse pieces of which one is missing: their suffixes have to count from 0 (or aa, or 001) without a gap.

    Raises:
        DamagedArchiveError: naming the first that is missing.
    """
    if len(names) < 2:
        return
    ordered = sorted(names)
    digits = re.search(r"\d+$", stem(ordered[0]))
    width = len(digits[0]) if digits else 2
    begin = 1 if digits and width != 2 and int(digits[0]) == 1 else 0  # split counts 00, 01, and others 001, 002
    for number, name in enumerate(ordered, start=begin):
        expected = f"{number:0{width}d}" if digits else f"{chr(97 + number // 26)}{chr(97 + number % 26)}"
        if stem(name)[-width:] != expected:
            wanted = stem(name)[:-width] + expected
            raise DamagedArchiveError(path, f"is one of {len(names)} pieces, and the piece {wanted!r} is missing")


class _Joined(io.RawIOBase):
    """Pieces of a file as one stream, which reports how far it is."""

    def __init__(self, pieces: Sequence[Callable[[], IO[bytes]]], num_bytes: int) -> None:
        self._progress: OnBytes = lambda done, total: None
        self._waiting = list(pieces)
        self._current: IO[bytes] | None = None
        self._done, self._num_bytes = 0, num_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._current is None:
                if not self._waiting:
                    return 0
                self._current = self._waiting.pop(0)()
            chunk = self._current.read(len(buffer))
            if chunk:
                break
            self._current.close()
            self._current = None
        buffer[: len(chunk)] = chunk
        self._done += len(chunk)
        self._progress(min(self._done, self._num_bytes), self._num_bytes)
        return len(chunk)

    def report_to(self, progress: OnBytes) -> None:
        """Tell how far it is, now and whenever it gets further."""
        self._progress = progress
        progress(min(self._done, self._num_bytes), self._num_bytes)

    def close(self) -> None:
        if self._current is not None:
            self._current.close()
        super().close()


class _Watched:
    """A stream of a tar archive: stops one that unpacks without end, and knows where its last byte that is not 0 is."""

    def __init__(self, stream: io.BufferedReader[Any], budget: Budget) -> None:
        self._stream, self._budget = stream, budget
        self.position = 0
        self.content_end = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        trailing = len(data) - len(data.rstrip(b"\0"))
        if trailing < len(data):
            self.content_end = self.position + len(data) - trailing
        self.position += len(data)
        self._budget.check(self.position)
        return data


def _unpack_tar(stream: io.BufferedReader[Any], path: Path, folder: Path, budget: Budget) -> None:
    watched = _Watched(stream, budget)
    with tarfile.open(fileobj=watched, mode="r|", bufsize=_CHUNK_BYTES) as archive:  # type: ignore[call-overload]
        while (member := archive.next()) is not None:
            archive.members.clear()  # or a few million frames fill the memory
            budget.add_file()
            parts = member_parts(path, member.name)
            if parts and not is_junk(parts):
                _unpack_tar_member(archive, member, parts, path, folder, budget)
        end = archive.offset
    while watched.read(_CHUNK_BYTES):
        pass
    # Python's tarfile takes a damaged header, or a file cut between two members, for the end.
    if watched.content_end > end or watched.position < end + BLOCK_BYTES:
        raise DamagedArchiveError(path, f"is damaged or cut off (no end of the archive at byte {end})")


def _unpack_tar_member(
    archive: tarfile.TarFile, member: tarfile.TarInfo, parts: Parts, path: Path, folder: Path, budget: Budget
) -> None:
    target = inside(folder, parts)
    if member.isdir():
        return
    if member.issym():
        check_link(path, member.name, parts, member.linkname)
        log.warning("%s: the link %r is left out", path.name, member.name)
    elif member.islnk():
        linked = inside(folder, member_parts(path, member.linkname))
        if not linked.is_file():
            refuse(path, f"holds a link to what is not in it, {member.name!r} to {member.linkname!r}")
        _make_room(target, path)
        os.link(linked, target)
    elif not member.isreg():
        refuse(path, f"holds a device, {member.name!r}")
    else:
        content = archive.extractfile(member)
        assert content is not None, "a regular file"
        _write(content, target, budget, path)


def _unpack_zip(path: Path, folder: Path, budget: Budget, progress: OnBytes | None) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        total = sum(entry.compress_size for entry in entries)
        done = 0
        for entry in entries:
            budget.add_file()
            parts = member_parts(path, entry.filename)
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                refuse(path, f"holds a device, {entry.filename!r}")
            if entry.flag_bits & 1:
                raise UnfitFileError(path, "is encrypted")
            if entry.is_dir() or not parts or is_junk(parts):
                continue
            with archive.open(entry) as content:
                if stat.S_ISLNK(mode):
                    link = content.read(4096).decode("utf-8", "replace")
                    check_link(path, entry.filename, parts, link)
                    log.warning("%s: the link %r is left out", path.name, entry.filename)
                else:
                    _write(content, inside(folder, parts), budget, path)
            done += entry.compress_size
            if progress is not None:
                progress(done, total)


def _make_room(target: Path, path: Path | None) -> None:
    """Make the folders of a new file; of two files of one name the last counts, as tar has it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
    except (NotADirectoryError, FileExistsError, IsADirectoryError, PermissionError) as error:
        raise DamagedArchiveError(path or target, f"holds a file and a folder of one name, {target.name!r}") from error


def _write(content: IO[bytes], target: Path, budget: Budget, path: Path | None = None) -> None:
    """Write a member, counting its bytes before they reach the disk."""
    _make_room(target, path)
    with target.open("xb") as file:
        while chunk := content.read(_CHUNK_BYTES):
            budget.add_bytes(len(chunk))
            file.write(chunk)


def _unpack_nested(folder: Path, budget: Budget, held: int | None) -> None:
    """Unpack the archives in a folder, each into a folder of its name in the place where it lay, and delete them."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            if archive_kind(file.read(BLOCK_BYTES)) is None:
                continue
        unpacked = path.with_name(f"{path.name}{STAGING}")
        unpacked.mkdir()
        _unpack_into(unpacked, [path], budget, None, held)
        path.unlink()
        _move_into_place(unpacked, path.parent, Layout(into=stem(path.name), strip=[stem(path.name)]))
        shutil.rmtree(unpacked)


def _move_into_place(staging: Path, root: Path, layout: Layout) -> Unpacked:
    """Rename each file to its place. One that is there already is kept."""
    num_files = num_bytes = 0
    places: list[str] = []
    for at, folders, names in os.walk(staging):
        folders.sort()
        for name in sorted(names):
            path = Path(at, name)
            inner = path.relative_to(staging).parts
            if is_junk(inner):
                continue
            parts, size = layout.place(inner), path.stat().st_size
            _move(path, inside(root, parts), size)
            num_files, num_bytes = num_files + 1, num_bytes + size
            places[1:] = ["/".join(parts)]
    return Unpacked(
        num_files=num_files,
        num_bytes=num_bytes,
        first=places[0] if places else None,
        last=places[-1] if places else None,
    )


def _move(path: Path, target: Path, size: int) -> None:
    if os.path.lexists(target):
        if not target.is_file() or target.stat().st_size != size:
            log.warning("%r is kept, though the archive has another one of that name", str(target))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the folder is a link to another disk
            raise
        temporary = target.with_name(f".{target.name[:200]}.part")
        shutil.copyfile(path, temporary)
        os.rename(temporary, target)
