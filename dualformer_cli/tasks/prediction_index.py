"""Which videos a run folder was asked for, in order, and where their results lie: on disk, as they may be many."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from tempfile import gettempdir
from typing import Any
from urllib.parse import urlsplit

from dualformer_cli.data.fetch.web_videos import fetch_addresses, is_web_address
from dualformer_cli.documents.base import from_json
from dualformer_cli.documents.predict import RunCounts, VideoResult
from dualformer_cli.engine.scoring.video_scores import failure
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.result_parts import Parts
from dualformer_cli.tasks.session import Fetching
from dualformer_cli.video import file_index, remote_files, remote_videos
from dualformer_cli.video.addresses import is_address, is_live, mask_credentials
from dualformer_cli.video.inputs import InputList, InputSink, ListedLabel
from dualformer_cli.video.parts import split_part
from dualformer_cli.video.suffixes import is_video_name

Stamp = list[int | str] | None
"""Size and time of a file when it was read; None: it could not be, and is tried again in the next run."""
Input = tuple[str, str, Stamp]
"""A path or address to read, the name that it has in results, and the stamp that it was found with, if it was asked."""

_Found = tuple[str, str, str, str | None, tuple[ListedLabel, ...], Stamp]
"""An input: its identity, path, name in results, problem if it has one, the labels that a list gives it, and stamp."""
_LONGEST = sys.float_info.max
"""Seconds: no patience but an infinite one lasts longer."""
_BLOCK = 500
_POLL_SECONDS = 0.02


def stamp_of(path: str, ask: Callable[[str], tuple[int, str]] = remote_files.stamp_of) -> Stamp:
    """Return what shows that a file, a member of an archive or a remote file has changed; None if there is none.

    Args:
        path: of the file.
        ask: tells the version of a file on another machine.
    """
    try:
        if is_address(path):
            return list(remote_videos.version_of(path, ask))
        return list(file_index.stamp_of(split_part(path)[0])[:2])
    except (OSError, ValueError, DualFormerError):
        return None


@contextmanager
def index_in_words() -> Iterator[None]:
    """Turn what SQLite says of a `PredictionIndex` into one line.

    Raises:
        DualFormerError: if there is no room for it, or its folder is closed or gone.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise DualFormerError(
            f"the list of inputs, which a temporary file holds while the command runs, cannot be kept: {error}; make "
            f"room in {gettempdir()!r}, or set TMPDIR to a folder with some; the same command goes on from what is done"
        ) from error


class PredictionIndex:
    """The inputs of a run and the results in its parts, in a temporary file of SQLite's.

    Args:
        parts: with the results.
        check: gives a result the labels of its list.
        patience: seconds for which a decoder may make no progress now; files that were given up sooner are tried again,
            and at infinity all that failed are.
    """

    def __init__(
        self,
        parts: Parts,
        check: Callable[[VideoResult, Sequence[ListedLabel]], VideoResult],
        *,
        patience: float,
    ) -> None:
        self._parts, self._check, self._patience = parts, check, patience
        self._lock = threading.Lock()  # inputs are listed in a thread, and handed out in another
        self._base = sqlite3.connect("", check_same_thread=False)
        columns = "path BLOB PRIMARY KEY, stamp TEXT, status TEXT, part TEXT, offset INT, patience REAL"
        self._base.execute(f"CREATE TABLE results ({columns})")
        columns = (
            "number INTEGER PRIMARY KEY, identity BLOB UNIQUE, path BLOB, shown BLOB, problem TEXT, is_left INT, "
            "labels TEXT, stamp TEXT"
        )
        self._base.execute(f"CREATE TABLE inputs ({columns})")
        self._num_left = 0
        self._read_to: dict[str, int] = {}
        self.has_labels = False
        """Whether a list gives an input labels."""
        self._is_listed = threading.Event()
        self._failure: BaseException | None = None
        self.update()

    def update(self) -> None:
        """Find every result that has come into a part since the last time; of several of one path the latest counts."""
        rows = (
            (
                _blob(result["path"]),
                json.dumps(line.row["stamp"]),
                result["status"],
                line.part,
                line.offset,
                math.inf if result["status"] == "ok" else line.row.get("timeout", _LONGEST),
            )
            for line in self._parts.lines(self._read_to)
            for result in (line.row["result"],)
        )
        with self._lock, self._base:
            self._base.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?)", rows)

    def forget_old(self, lost: Iterable[Input]) -> None:
        """Take out what an earlier run said of lost inputs that have changed since."""
        old = [(_blob(shown),) for path, shown, _ in lost if not self._holds(path, shown, None)]
        with self._lock, self._base:
            self._base.executemany("DELETE FROM results WHERE path = ?", old)

    def find(self, list_into: Callable[[InputSink], None], fetching: Fetching, *, offline: bool) -> None:
        """Start to find the inputs, in a thread; `left` has those that are found."""

        def find_all() -> None:
            try:
                sink = _Sink(self._add, fetching, offline=offline)
                list_into(sink)
                sink.flush()
            except BaseException as error:  # of any kind: it is raised where the inputs are handed out
                self._failure = error
            self._is_listed.set()

        threading.Thread(target=find_all, name="dualformer-list", daemon=True).start()

    def num_left(self) -> int:
        """Return how many of the inputs that are found so far have, or had, no result that is kept."""
        return self._num_left

    def counts(self) -> RunCounts:
        """Return what became of the inputs, as `results` has them."""
        query = (
            "SELECT COUNT(*), TOTAL(problem IS NULL AND status = 'ok'), "
            "TOTAL(problem IS NOT NULL OR status = 'error'), TOTAL(problem IS NULL AND NOT is_left), "
            "TOTAL(problem IS NULL AND status IS NULL) "
            "FROM inputs LEFT JOIN results ON shown = results.path"
        )
        with self._lock:
            listed, ok, failed, kept, lost = map(int, self._base.execute(query).fetchone())
        return RunCounts(listed=listed, ok=ok, failed=failed, kept=kept, lost=lost)

    def left(self) -> Iterator[Input]:
        """Yield the inputs without a result that still holds, as they are found: new, changed, or not readable before.

        Raises:
            Exception: what finding the inputs has raised.
        """
        number = 0
        query = "SELECT number, path, shown, stamp FROM inputs WHERE is_left AND number > ? ORDER BY number LIMIT ?"
        while True:
            was_listed = self._is_listed.is_set()
            with self._lock:
                rows = self._base.execute(query, (number, _BLOCK)).fetchall()
            number = rows[-1][0] if rows else number
            for _, path, shown, stamp in rows:
                yield _name(path), _name(shown), json.loads(stamp)
            if not rows and was_listed:
                break
            if not rows:
                time.sleep(_POLL_SECONDS)
        if self._failure is not None:
            raise self._failure

    def results(self) -> Iterator[tuple[VideoResult | None, Mapping[str, Any], str]]:
        """Return the result of each input, None for one that is lost; with its row and its part."""
        number = 0
        query = (
            "SELECT number, shown, problem, part, offset, labels FROM inputs LEFT JOIN results ON shown = results.path "
            "WHERE number > ? ORDER BY number LIMIT ?"
        )
        while True:
            with self._lock:
                rows = self._base.execute(query, (number, _BLOCK)).fetchall()
            if not rows:
                return
            number = rows[-1][0]
            for _, shown, problem, part, offset, labels in rows:
                if problem is not None:
                    yield self._check(failure(_name(shown), problem).result, json.loads(labels)), {}, ""
                elif part is None:
                    yield None, {}, ""
                else:
                    row = self._parts.read(part, offset)
                    yield self._check(from_json(VideoResult, row["result"]), json.loads(labels)), row, part

    def problems(self) -> Iterator[VideoResult]:
        """Return the results of the lists, folders and patterns that gave nothing or could not be read."""
        with self._lock:
            query = "SELECT shown, problem FROM inputs WHERE problem IS NOT NULL ORDER BY number"
            rows = self._base.execute(query).fetchall()
        yield from (failure(_name(shown), problem).result for shown, problem in rows)

    def known(self) -> Iterator[VideoResult]:
        """Return the results of all inputs but those that are lost."""
        return (result for result, *_ in self.results() if result is not None)

    def _add(self, found: list[_Found]) -> None:
        """Note inputs, but those whose identity is known."""
        rows = []
        for identity, path, shown, problem, labels, stamp in found:
            is_left = problem is None and not self._holds(path, shown, stamp)
            names = (_blob(identity), _blob(path), _blob(shown))
            rows.append((*names, problem, is_left, json.dumps(labels), json.dumps(stamp)))
            self.has_labels |= bool(labels)
        with self._lock, self._base:
            for row in rows:
                added = self._base.execute(
                    "INSERT OR IGNORE INTO inputs (identity, path, shown, problem, is_left, labels, stamp) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    row,
                ).rowcount
                self._num_left += added and (row[4] or row[3] is not None)

    def _holds(self, path: str, shown: str, stamp: Stamp) -> bool:
        """Return whether there is a result of a file, and the file, whose stamp may be known, is still the same."""
        with self._lock:
            row = self._base.execute("SELECT stamp, patience FROM results WHERE path = ?", (_blob(shown),)).fetchone()
        if row is None or row[0] == "null" or row[1] < self._patience:
            return False
        return bool(json.loads(row[0]) == (stamp or stamp_of(path)))


class _Sink:
    """Takes inputs as they are found, and notes them a few hundred at a time, or when a moment has passed."""

    def __init__(self, add: Callable[[list[_Found]], None], fetching: Fetching, *, offline: bool) -> None:
        self._add, self._fetching, self._offline = add, fetching, offline
        self._found: list[_Found] = []
        self._flushed = time.monotonic()
        self._version = lru_cache(maxsize=1)(remote_files.stamp_of)
        """Of an archive, which is asked for once for all videos in it."""

    def put(self, identity: str, path: str, *, is_remote: bool, labels: tuple[ListedLabel, ...] = ()) -> None:
        if not is_remote and is_web_address(path) and not os.path.lexists(path):
            if not self._offline and (stamp := _stamp_on_the_web(path)):  # fetched when its turn comes, and not kept
                self._append(identity, path, mask_credentials(path), None, labels, stamp)
            else:
                self._put_address(path)
        elif not is_remote and is_live(path) and not os.path.lexists(path):
            self.complain(mask_credentials(path), "a live input has no end; classify it without --output")
        else:
            stamp = stamp_of(path, self._version) if is_remote and remote_videos.is_placed(path) else None
            self._append(identity, path, remote_videos.name_of(path) if is_remote else path, None, labels, stamp)

    def complain(self, name: str, reason: str) -> None:
        self._append(f"problem {name}", name, name, reason)

    def flush(self) -> None:
        """Note what is left."""
        self._add(self._found)
        self._found, self._flushed = [], time.monotonic()

    def _put_address(self, address: str) -> None:
        """Fetch the file behind an address, or find the videos of a page."""
        found = InputList(paths=[address])
        shown = fetch_addresses(found, self._fetching, offline=self._offline)
        for name, reason in found.problems:
            self.complain(name, reason)
        for path in found.paths:
            if path == address:
                self.complain(mask_credentials(path), "a live input has no end; classify it without --output")
            else:
                self._append(path, path, shown.get(path, path), None)

    def _append(
        self,
        identity: str,
        path: str,
        shown: str,
        problem: str | None,
        labels: tuple[ListedLabel, ...] = (),
        stamp: Stamp = None,
    ) -> None:
        self._found.append((identity, path, shown, problem, labels, stamp))
        if len(self._found) >= _BLOCK or time.monotonic() - self._flushed > 0.1:
            self.flush()


def _stamp_on_the_web(address: str) -> Stamp:
    """Return the stamp of a file of some length, called as a video, that fsspec finds behind a web address, or None."""
    try:
        remote_files.check_protocol(address)
    except DualFormerError:  # whoever fetches it says what is wrong
        return None
    stamp = stamp_of(address) if is_video_name(urlsplit(address).path) else None
    return stamp if stamp and stamp[0] else None


def _blob(path: str) -> bytes:
    """Return a path as SQLite takes it: names that are not UTF-8 are no text."""
    return path.encode("utf-8", "surrogatepass")


def _name(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogatepass")
