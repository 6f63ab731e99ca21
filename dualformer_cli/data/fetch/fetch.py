"""Files are fetched and verified: resumed where they broke off, checked before they get their name, recorded after.

Beside a file stands `NAME.sha256`: what it was when it was first found good. While it is fetched, `.NAME.lock` keeps
other processes away. A download that was killed, at any moment, goes on with the next call.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import random
import shutil
import struct
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from http.client import HTTPException, HTTPResponse
from importlib.resources import files
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, Any, Literal, TypeVar

from dualformer_cli.data.datasets.catalogue import Catalogue, load_catalogue
from dualformer_cli.data.fetch.http import FileKind, Patience, Session, Source, TransferError, open_file
from dualformer_cli.data.fetch.members import UnfitFileError, archive_kind, foreign_kind, foreign_told
from dualformer_cli.data.fetch.resume import PartialFile
from dualformer_cli.errors import DownloadError, DualFormerError
from dualformer_cli.system.files import atomic_path, cache_dir

log = logging.getLogger(__name__)

Progress = Callable[[int, "int | None"], None]
"""Called with the bytes that are there and, when known, the bytes of the whole file."""
NamedProgress = Callable[[str, int, "int | None"], None]
"""The same with the file's name in front; called from several threads."""

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

SHIPPED_WEIGHTS = {"camera-motion": "camera-motion.safetensors"}
"""Presets whose weights come with the package, and their files in data/weights."""
CHUNK_BYTES = 1 << 18
BEGINNING_BYTES = 512
"""Enough to tell a tar archive."""
LOCK_POLL_SECONDS = 0.2
FILES_AT_ONCE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchResult:
    """A file that is there and was found good."""

    path: Path
    status: Literal["fetched", "present"]
    """Whether this call fetched it."""
    num_bytes: int
    sha256: str


def fetch(
    source: Source,
    target: Path,
    *,
    progress: Progress | None = None,
    patience: Patience | None = None,
    offline: bool = False,
) -> FetchResult:
    """Make sure that a file is there and good, fetching what is missing of it.

    A file that is already there is checked, not trusted by its name; one that fails the check is replaced and kept as
    `NAME.broken`. Of several processes that want the same file, one fetches it and the others wait.

    Args:
        source: where the file comes from.
        target: where it goes; folders are made.
        progress: told about the bytes as they come.
        patience: timeouts and retries.
        offline: fail instead of using the network.

    Raises:
        DownloadError: naming the reason, the page to fetch the file from by hand, and the path to put it at.
    """
    try:
        found = _look(source, target)
        if isinstance(found, FetchResult):
            return found
        if offline:
            raise TransferError(f"offline, and the file {found}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            found = _look(source, target)  # another process may have fetched it while this one waited
            if isinstance(found, FetchResult):
                return found
            if target.exists():
                log.warning("%r %s; fetching it anew", str(target), found)
            return _fetch(source, target, progress, patience or Patience())
    except TransferError as error:
        raise _by_hand(source, target, str(error)) from error
    except OSError as error:
        raise _by_hand(source, target, f"{error.strerror or error} ({str(error.filename or target)!r})") from error


def _by_hand(source: Source, target: Path, reason: str) -> DownloadError:
    """The one line that a user gets when a file cannot be fetched."""
    more = f" ({source.by_hand})" if source.by_hand else ""
    return DownloadError(
        f"{source.name}: {reason}; fetch {source.browser_url} by hand and put it at {str(target)!r}{more}", reason
    )


def _look(source: Source, target: Path) -> FetchResult | str:
    """Return the file if it is there and good, else what is wrong with it."""
    try:
        return checked_file(source, target) or "is missing"
    except UnfitFileError as error:
        return error.reason


def _fetch(source: Source, target: Path, progress: Progress | None, patience: Patience) -> FetchResult:
    """Fetch, verify, name and record a file that is missing or broken."""
    part = PartialFile(target, source.url)
    _require_space(target.parent, (source.num_bytes or source.minimum_bytes) - part.size)
    sha256 = _fill_and_verify(part, source, progress, patience)
    if target.exists():
        os.replace(target, target.with_name(f"{target.name}.broken"))
    os.replace(part.path, target)
    part.discard()
    _write_record(target, sha256)
    return FetchResult(path=target, status="fetched", num_bytes=target.stat().st_size, sha256=sha256)


def _fill_and_verify(part: PartialFile, source: Source, progress: Progress | None, patience: Patience) -> str:
    """Fetch a file and return its hash. Pieces that do not make a good file are fetched once more, in one piece."""
    for is_last_try in (False, True):
        _fill(part, source, progress, patience)
        try:
            return verify(source, part.path)
        except UnfitFileError as error:
            may_be_the_joint = part.joined and not is_last_try
            part.discard()
            if not may_be_the_joint:
                raise TransferError(f"what came {error.reason}") from error
            log.warning("%s: what came in pieces %s; fetching it anew", source.name, error.reason)
    raise AssertionError("the last try returns or raises")


def _fill(part: PartialFile, source: Source, progress: Progress | None, patience: Patience) -> None:
    """Bring a partial file to its full length, trying again after passing faults."""
    session = Session(patience, check_certificate=source.check_certificate)
    failures, furthest = 0, part.size
    while not part.is_complete:
        try:
            _receive(part, source, session, progress)
        except TransferError as error:
            if part.size == 0:
                part.discard()
            if not error.passing:
                raise
            # Google cuts connections after about an hour: one that got further than any before it is no failure.
            failures = 1 if part.size > furthest else failures + 1
            furthest = max(furthest, part.size)
            if failures > patience.retries:
                raise TransferError(f"{error}; tried {failures} times, the next run goes on from there") from error
            wait = _wait_seconds(failures, error, patience)
            log.info("%s: %s; trying again in %.1f s", source.name, error, wait)
            time.sleep(wait)


def _wait_seconds(failures: int, error: TransferError, patience: Patience) -> float:
    """Return the wait before the next try: what the server asks for, else doubling, with jitter against herds."""
    if error.wait_seconds is None:
        doubled = patience.back_off_seconds * 2.0 ** (failures - 1)
        return min(patience.longest_wait_seconds, doubled) * random.uniform(0.5, 1.0)
    if error.wait_seconds > patience.longest_wait_seconds:
        raise TransferError(f"{error}, and asks to wait {error.wait_seconds:.0f} seconds") from error
    return error.wait_seconds


def _receive(part: PartialFile, source: Source, session: Session, progress: Progress | None) -> None:
    """Ask once for what is missing of a file, and append what comes."""
    with open_file(session, source, part.range_headers()) as response:
        part.accept(response)
        _require_space(part.path.parent, (part.length or 0) - part.size)
        with part.path.open("ab") as file:
            for chunk in _chunks(response, source, at_start=part.size == 0):
                file.write(chunk)
                file.flush()
                part.size += len(chunk)
                if progress is not None:
                    progress(part.size, part.length)
            os.fsync(file.fileno())
    part.end()


def _chunks(response: HTTPResponse, source: Source, *, at_start: bool) -> Iterator[bytes]:
    """Read an answer piece by piece. Nothing is passed on of what does not begin like the file that was asked for."""
    chunk = _read(response.read, BEGINNING_BYTES)
    if at_start and chunk and (problem := _beginning_problem(chunk, source.kind)):
        raise TransferError(f"what came {problem}")
    while chunk:
        yield chunk
        chunk = _read(response.read1, CHUNK_BYTES)


def _read(read: Callable[[int], bytes], num_bytes: int) -> bytes:
    """Read from a connection. That it breaks is a passing fault, unlike a full disk."""
    try:
        return read(num_bytes)
    except TimeoutError as error:
        raise TransferError("the server stopped sending", passing=True) from error
    except (OSError, HTTPException) as error:
        raise TransferError(f"the connection broke ({type(error).__name__})", passing=True) from error


def _require_space(folder: Path, num_bytes: int) -> None:
    """Fail before a download that cannot fit on the disk."""
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise TransferError(f"{num_bytes / 1e6:.1f} MB do not fit into the {free / 1e6:.1f} MB free in {str(folder)!r}")


@contextmanager
def locked(target: Path) -> Iterator[int]:
    """Keep other processes and threads from making the same file; the system frees the lock of a killed process.

    Yields:
        The descriptor that the lock belongs to; a program that inherits it holds the lock until it ends.
    """
    with target.with_name(f".{target.name}.lock").open("w") as file:
        if not _try_lock(file):
            log.warning("waiting for another process that makes %r", str(target))
            while not _try_lock(file):
                time.sleep(LOCK_POLL_SECONDS)
        yield file.fileno()


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # some network file systems have no locks
        log.warning("no lock for %r (%s): a second process could fetch it too", file.name, error.strerror)
    return True


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
        raise UnfitFileError(path, f"cannot be read ({error.strerror})") from error


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
    _write_record(path, sha256)
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
        if problem := _beginning_problem(beginning, source.kind):
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


def _beginning_problem(beginning: bytes, kind: FileKind) -> str | None:
    """Say why the first bytes of a file are not those of its kind."""
    if kind == "any":
        return None
    wanted = {"checkpoint": "a PyTorch checkpoint", "archive": "an archive", "text": "a text"}[kind]
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return f"is a web page, not {wanted}"
    is_archive = archive_kind(beginning) is not None
    if kind == "archive" and (foreign := foreign_kind(beginning)):
        return foreign_told(foreign)
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


def _record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _read_record(path: Path) -> dict[str, Any]:
    """Return what is recorded of a file; nothing if it was never found good or the record is damaged."""
    try:
        record = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("sha256"), str) else {}


def _write_record(path: Path, sha256: str) -> None:
    """Record a good file, so that the next check need not read it; a folder that cannot be written goes without."""
    stat = path.stat()
    record = {"sha256": sha256, "num_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    try:
        with atomic_path(_record_path(path)) as temporary:
            temporary.write_text(json.dumps(record) + "\n", encoding="utf-8")
    except (OSError, DualFormerError) as error:
        log.debug("no record of %r: %s", str(path), error)


def published_weights(
    preset: str, *, offline: bool, progress: Progress | None = None, connect_timeout: float = 10.0
) -> Path:
    """Return the file of a preset's published weights, fetching it into the cache if it is not there.

    Those that come with the package are taken from it.

    Args:
        preset: a preset with published weights.
        offline: fail instead of using the network.
        progress: told about the bytes as they come.
        connect_timeout: seconds to reach the server.

    Raises:
        DownloadError: a preset without published weights, or a file that cannot be fetched.
    """
    if (shipped := shipped_weights(preset)) is not None:
        return shipped
    catalogue = load_catalogue()
    patience = Patience(connect_seconds=connect_timeout)
    target = _weights_path(catalogue, preset, None)
    return fetch(catalogue.source(preset), target, progress=progress, patience=patience, offline=offline).path


def shipped_weights(preset: str) -> Path | None:
    """Return the file of weights that come with the package; None if the preset has none there."""
    name = SHIPPED_WEIGHTS.get(preset)
    path = None if name is None else Path(str(files("dualformer_cli.data.fetch") / "built_in" / name))
    return path if path is not None and path.is_file() else None


def weights_within_reach(
    preset: str, *, offline: bool, progress: Progress | None = None, answer_seconds: float = 4.0
) -> Path:
    """Like `published_weights`, but give up soon where no server answers.

    Args:
        preset: a preset with published weights.
        offline: fail instead of using the network.
        progress: told about the bytes as they come.
        answer_seconds: the server must have begun to send the file by then, looking up its name included.

    Raises:
        DownloadError: as `published_weights`.
    """
    if not offline and cached_weights(preset) is None:
        catalogue = load_catalogue()
        source = catalogue.source(preset)
        try:
            _await_answer(source, answer_seconds)
        except TransferError as error:
            raise _by_hand(source, _weights_path(catalogue, preset, None), str(error)) from error
    return published_weights(preset, offline=offline, progress=progress, connect_timeout=answer_seconds)


def _await_answer(source: Source, seconds: float) -> None:
    """Ask for a file and drop the answer. Looking up a name cannot be interrupted, so a thread asks.

    Raises:
        TransferError: if what comes is not the file, or nothing comes in time.
    """

    def ask(_: None) -> None:
        patience = Patience(connect_seconds=seconds, read_seconds=seconds)
        open_file(Session(patience), source, {}).close()

    answer = _start(ask, [None])[0]
    try:
        answer.result(timeout=seconds)
    except FutureTimeoutError:
        raise TransferError(f"no answer within {seconds:g} seconds") from None


def cached_weights(preset: str) -> Path | None:
    """Return the file of a preset's published weights if it is in the cache and good, without using the network.

    Raises:
        DownloadError: a preset without published weights.
    """
    catalogue = load_catalogue()
    state = _state(catalogue, preset, None)
    return Path(state.path) if state.state == "present" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsState:
    """One row of `download --list`: published weights and whether they are here."""

    name: str
    kind: Literal["weights"] = "weights"
    state: Literal["present", "missing", "broken"]
    path: str
    url: str
    """Page where a person fetches the file."""
    minimum_bytes: int
    """The real size is not published."""
    top1: float | None
    """Published top-1, in percent."""
    licence: str | None
    note: str


def list_weights(names: Sequence[str] | None = None, *, root: Path | None = None) -> list[WeightsState]:
    """Say what can be fetched, where it goes, and whether it is there; the network is not used.

    Args:
        names: presets; None for all with published weights.
        root: folder below which `weights/` lies; None for the cache.

    Raises:
        DownloadError: a preset without published weights.
    """
    catalogue = load_catalogue()
    return [_state(catalogue, name, root) for name in (catalogue.weights if names is None else dict.fromkeys(names))]


def _state(catalogue: Catalogue, name: str, root: Path | None) -> WeightsState:
    """Check one file; a broken one is worth a warning."""
    entry, path = catalogue.entry(name), _weights_path(catalogue, name, root)
    try:
        found = checked_file(catalogue.source(name), path)
        state: Literal["present", "missing", "broken"] = "present" if found else "missing"
    except UnfitFileError as error:
        log.warning("%s", error)
        state = "broken"
    return WeightsState(
        name=name,
        state=state,
        path=str(path),
        url=entry.browser_url,
        minimum_bytes=entry.minimum_bytes,
        top1=entry.top1,
        licence=entry.licence,
        note=entry.note,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOutcome:
    """What became of one name."""

    name: str
    kind: Literal["weights"] = "weights"
    status: Literal["fetched", "present", "error"]
    path: str
    url: str
    num_bytes: int | None = None
    sha256: str | None = None
    error: str | None = None


def fetch_weights(
    names: Sequence[str],
    *,
    root: Path | None = None,
    offline: bool = False,
    progress: NamedProgress | None = None,
    patience: Patience | None = None,
) -> list[FetchOutcome]:
    """Fetch published weights, several files at a time. One that fails does not stop the others.

    Args:
        names: presets; repeated ones count once.
        root: folder below which `weights/` is made; None for the cache.
        offline: fail instead of using the network.
        progress: told about the bytes of each name as they come, from several threads.
        patience: timeouts and retries.

    Raises:
        DownloadError: a preset without published weights; nothing is fetched then.
    """
    catalogue = load_catalogue()
    unique = list(dict.fromkeys(names))
    sources = [catalogue.source(name) for name in unique]

    def fetch_one(source: Source) -> FetchOutcome:
        path = _weights_path(catalogue, source.name, root)
        outcome = FetchOutcome(name=source.name, status="error", path=str(path), url=source.browser_url)
        tell = None if progress is None else lambda done, length: progress(source.name, done, length)
        try:
            result = fetch(source, path, progress=tell, patience=patience, offline=offline)
        except DownloadError as error:
            return replace(outcome, error=str(error))
        return replace(outcome, status=result.status, num_bytes=result.num_bytes, sha256=result.sha256)

    return in_threads(fetch_one, sources)


def in_threads(function: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Outcome]:
    """Call a function on each item, a few at a time, and return the results in order."""
    return [future.result() for future in _start(function, items)]


def _start(function: Callable[[Item], Outcome], items: Sequence[Item]) -> list[Future[Outcome]]:
    """Begin to call a function on each item, a few at a time.

    The threads are daemons, so that Ctrl-C ends the process at once; the next run goes on with what they leave behind.
    """
    waiting: SimpleQueue[tuple[Item, Future[Outcome]]] = SimpleQueue()
    futures: list[Future[Outcome]] = [Future() for _ in items]
    for pair in zip(items, futures, strict=True):
        waiting.put(pair)

    def work() -> None:
        with suppress(Empty):
            while True:
                item, future = waiting.get_nowait()
                try:
                    future.set_result(function(item))
                except BaseException as error:  # result() raises it in the caller's thread
                    future.set_exception(error)

    for _ in range(min(FILES_AT_ONCE, len(items))):
        threading.Thread(target=work, daemon=True).start()
    return futures


def _weights_path(catalogue: Catalogue, preset: str, root: Path | None) -> Path:
    folder = cache_dir() if root is None else root
    return folder.absolute() / "weights" / catalogue.entry(preset).file_name
