"""Files are fetched: resumed where they broke off, checked before they get their name, recorded after.

While a file is fetched, `.NAME.lock` keeps other processes away. A download that was killed, at any moment, is resumed
by the next call.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from dualformer_cli.data.fetch.archive_members import UnfitFileError
from dualformer_cli.data.fetch.http import OnBytes, Patience, Session, Source, TransferError, open_file
from dualformer_cli.data.fetch.partial_file import PartialFile
from dualformer_cli.data.fetch.verify import (
    BEGINNING_BYTES,
    FetchResult,
    beginning_problem,
    checked_file,
    verify,
    write_record,
)
from dualformer_cli.errors import DownloadError
from dualformer_cli.system.disk import lack_of_room
from dualformer_cli.system.locks import locked
from dualformer_cli.system.threads import begin
from dualformer_cli.system.words import os_reason

log = logging.getLogger(__name__)

OnFileBytes = Callable[[str, int, "int | None"], None]
"""As OnBytes, with the file's name in front; called from several threads."""

T = TypeVar("T")
R = TypeVar("R")

CHUNK_BYTES = 1 << 18
FILES_AT_ONCE = 3


def fetch(
    source: Source,
    target: Path,
    *,
    progress: OnBytes | None = None,
    patience: Patience | None = None,
    offline: bool = False,
) -> FetchResult:
    """Make sure that a file is there and good, fetching what is missing of it.

    A file that is already there is checked, not trusted by its name; one that fails the check is replaced and kept as
    `NAME.broken`. Of several processes that want the same file, one fetches it and the others wait.

    Args:
        source: where the file comes from.
        target: where it goes; folders are made.
        progress: called with the bytes as they come.
        patience: timeouts and retries.
        offline: fail instead of using the network.

    Raises:
        DownloadError: naming the reason, the page to fetch the file from by hand, and the path to put it at.
    """
    try:
        found = _good_file(source, target)
        if isinstance(found, FetchResult):
            return found
        if offline:
            raise TransferError(f"offline, and the file {found}")
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(target):
            found = _good_file(source, target)  # another process may have fetched it while this one waited
            if isinstance(found, FetchResult):
                return found
            if target.exists():
                log.warning("%r %s; fetching it anew", str(target), found)
            return _fetch(source, target, progress, patience or Patience())
    except TransferError as error:
        raise not_fetched(source, target, str(error)) from error
    except OSError as error:
        raise not_fetched(source, target, f"{os_reason(error)} ({str(error.filename or target)!r})") from error


def not_fetched(source: Source, target: Path, reason: str) -> DownloadError:
    """The one line that a user gets when a file cannot be fetched."""
    more = f" ({source.by_hand})" if source.by_hand else ""
    return DownloadError(
        f"{source.name}: {reason}; fetch {source.browser_url} by hand and put it at {str(target)!r}{more}", reason
    )


def _good_file(source: Source, target: Path) -> FetchResult | str:
    """Return the file if it is there and good, else what is wrong with it."""
    try:
        return checked_file(source, target) or "is missing"
    except UnfitFileError as error:
        return error.reason


def _fetch(source: Source, target: Path, progress: OnBytes | None, patience: Patience) -> FetchResult:
    """Fetch, verify, name and record a file that is missing or broken."""
    part = PartialFile(target, source.url)
    _require_space(target.parent, (source.num_bytes or source.minimum_bytes) - part.size)
    sha256 = _fill_and_verify(part, source, progress, patience)
    if target.exists():
        os.replace(target, target.with_name(f"{target.name}.broken"))
    os.replace(part.path, target)
    part.discard()
    write_record(target, sha256)
    return FetchResult(path=target, status="fetched", num_bytes=target.stat().st_size, sha256=sha256)


def _fill_and_verify(part: PartialFile, source: Source, progress: OnBytes | None, patience: Patience) -> str:
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


def _fill(part: PartialFile, source: Source, progress: OnBytes | None, patience: Patience) -> None:
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
            log.debug("%s: %s; trying again in %.1f s", source.name, error, wait)
            time.sleep(wait)


def _wait_seconds(failures: int, error: TransferError, patience: Patience) -> float:
    """Return the wait before the next try: what the server asks for, else doubling, with jitter against herds."""
    if error.wait_seconds is None:
        doubled = patience.back_off_seconds * 2.0 ** (failures - 1)
        return min(patience.longest_wait_seconds, doubled) * random.uniform(0.5, 1.0)
    if error.wait_seconds > patience.longest_wait_seconds:
        raise TransferError(f"{error}, and asks to wait {error.wait_seconds:.0f} seconds") from error
    return error.wait_seconds


def _receive(part: PartialFile, source: Source, session: Session, progress: OnBytes | None) -> None:
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
    if at_start and chunk and (problem := beginning_problem(chunk, source.kind)):
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
    if lack := lack_of_room(folder, num_bytes):
        raise TransferError(lack)


def in_threads(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Call a function on each item, a few at a time, and return the results in order.

    The threads are daemons, so that Ctrl-C ends the process at once; the next run goes on with what they leave behind.
    """
    waiting: SimpleQueue[tuple[T, Future[R]]] = SimpleQueue()
    futures: list[Future[R]] = [Future() for _ in items]
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
        begin(work, "dualformer-fetch")
    return [future.result() for future in futures]


def await_answer(ask: Callable[[], object], seconds: float) -> None:
    """Call a function that asks a server. Looking up a name cannot be interrupted, so a thread asks.

    Raises:
        TransferError: if the function has not returned in time. What it raises itself is raised as it is.
    """
    answer = begin(ask, "dualformer-ask")
    try:
        answer.result(timeout=seconds)
    except FutureTimeoutError:
        if answer.done():  # the function's own
            raise
        raise TransferError(f"no answer within {seconds:g} seconds") from None
