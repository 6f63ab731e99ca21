"""Results in parts: each process appends lines to a file of its own, and a run that was stopped goes on from them.

A line is in its file, for a reader after a kill, as soon as `append` returns; after a power cut all but the last few
seconds are. A line that was cut off has no end and is not read.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import replace_text
from dualformer_cli.system.locks import FolderLock
from dualformer_cli.system.words import os_reason

SYNC_SECONDS = 5.0
"""Time between two moments at which all results are on the disk, as far as the system says so."""

_SETTINGS = "settings.json"
_MOST_OPEN = 64
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Line:
    """One result in a part."""

    row: Mapping[str, Any]
    part: str
    """Name of the file."""
    offset: int
    """Where the line begins, in bytes."""


class Parts:
    """A folder of results in parts, with the settings that all of them were made with.

    Args:
        folder: where they are; it and the folder around it are made.
        settings: what a result depends on, as JSON holds it.
        holds: what the results are, for messages, such as "predictions".
        free: settings that may be others in the next run.
    """

    def __init__(self, folder: Path, settings: Mapping[str, object], *, holds: str, free: Collection[str] = ()) -> None:
        self.folder, self.settings, self.holds, self.free = folder, settings, holds, free
        self._lock = FolderLock(folder, known_as=folder.parent)
        self._files: dict[str, IO[bytes]] = {}

    def open(self) -> None:
        """Take the folder for this run, as one process of it does before the others write.

        Raises:
            DualFormerError: if another run has it, or the results in it are of other settings, or it cannot be written.
        """
        with self._naming():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.take()
            path = self.folder / _SETTINGS
            if not path.exists():
                replace_text(path, json.dumps(self.settings, indent=1))
                return
        self.check(are_all=True)

    def check(self, *, are_all: bool = False) -> None:
        """Refuse a folder of other settings; it is neither made nor taken.

        Args:
            are_all: whether the settings are all that there are; else others of the folder count as equal.

        Raises:
            DualFormerError: with each setting that differs.
        """
        path = self.folder / _SETTINGS
        with self._naming():
            if not path.exists():
                return
            try:
                before = dict(json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise DualFormerError(f"{str(path)!r} is damaged: {error}; delete {str(self.folder)!r}") from None
        now = json.loads(json.dumps(self.settings))
        keys = {**before, **now} if are_all else now
        if differences := _differences(before, now, [key for key in keys if key not in self.free]):
            raise DualFormerError(
                f"{str(self.folder.parent)!r} holds {self.holds} of other settings: {'; '.join(differences)}; name "
                "another folder, or delete it"
            )

    def remove(self) -> None:
        """Delete the folder, once its results are elsewhere."""
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def close(self) -> None:
        """Leave the folder to other runs."""
        self._lock.release()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def writer(self, rank: int) -> PartWriter:
        """Return a new part for this process; its name comes after those of all earlier runs.

        Call it on every rank once `open` has returned on one, and before any rank appends.
        """
        numbers = [int(name.split("-")[0]) for name in self._names()]
        with self._naming():
            return PartWriter(self.folder / f"{max(numbers, default=0) + 1:06d}-{rank}.jsonl", self._naming)

    def lines(self, read_to: dict[str, int] | None = None) -> Iterator[Line]:
        """Return every whole line, those of earlier runs first.

        Args:
            read_to: where each part has been read to, which is brought up to date: lines before are left out.
        """
        read_to = {} if read_to is None else read_to
        for name in self._names():
            with self._naming(), (self.folder / name).open("rb") as file:
                file.seek(offset := read_to.get(name, 0))
                for text in file:
                    if not text.endswith(b"\n"):  # cut off, or still being written
                        break
                    read_to[name] = offset + len(text)
                    if (row := _row(text)) is None:
                        _LOGGER.warning("%s: a damaged line at byte %d is left out", self.folder / name, offset)
                    else:
                        yield Line(row, name, offset)
                    offset += len(text)

    def read(self, part: str, offset: int) -> Mapping[str, Any]:
        """Return the row of a line that `lines` has found."""
        with self._naming():
            file = self._opened(part)
            file.seek(offset)
            return dict(json.loads(file.readline()))

    def blob(self, part: str, span: tuple[int, int]) -> bytes:
        """Return bytes that were appended with a row: `span` is what its "blob" says."""
        with self._naming():
            file = self._opened(f"{part.removesuffix('.jsonl')}.bin")
            file.seek(span[0])
            return file.read(span[1])

    def _opened(self, name: str) -> IO[bytes]:
        """Return a file that stays open, as the next line is mostly the one behind the last."""
        if name not in self._files:
            if len(self._files) >= _MOST_OPEN:
                self._files.pop(next(iter(self._files))).close()
            self._files[name] = (self.folder / name).open("rb")
        return self._files[name]

    def _names(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("*-*.jsonl"))

    def _naming(self) -> AbstractContextManager[None]:
        return _naming(self.folder, self.holds)


class PartWriter:
    """Appends results to a part of its own."""

    def __init__(self, path: Path, naming: Callable[[], AbstractContextManager[None]]) -> None:
        self._naming = naming
        self._blobs_path = path.with_suffix(".bin")
        self._file = path.open("ab", buffering=0)
        self._blobs: IO[bytes] | None = None
        self._synced = time.monotonic()

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write out what waits, and close the file."""
        with self._naming():
            self._sync()
            for file in filter(None, (self._file, self._blobs)):
                file.close()

    def append(self, row: Mapping[str, Any], blob: bytes = b"") -> None:
        """Store a row, and bytes that belong to it; the row's "blob" then says where they are.

        Raises:
            DualFormerError: if there is no room, or the folder is gone; what was stored before is safe.
        """
        with self._naming():
            if blob:
                self._blobs = self._blobs or self._blobs_path.open("ab", buffering=0)
                row = {**row, "blob": [self._blobs.tell(), len(blob)]}
                _write_all(self._blobs, blob)
            _write_all(self._file, json.dumps(row).encode() + b"\n")
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._sync()

    def _sync(self) -> None:
        for file in filter(None, (self._blobs, self._file)):
            os.fsync(file.fileno())
        self._synced = time.monotonic()


@contextmanager
def _naming(folder: Path, holds: str) -> Iterator[None]:
    """Turn what the system says into one line about the folder."""
    try:
        yield
    except OSError as error:
        raise DualFormerError(
            f"{holds} cannot be kept in {str(folder)!r}: {os_reason(error)}; what is there stays, and the same command "
            "goes on from it"
        ) from error


def _write_all(file: IO[bytes], content: bytes) -> None:
    """Write without a buffer, so that nothing waits in this process; a full disk may take a part only."""
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def _row(text: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(text)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], keys: Iterable[str]) -> list[str]:
    """Return each setting of these that differs, with both values."""
    changed = [key for key in keys if before.get(key) != now.get(key)]
    return [f"{key} was {_in_words(key, before.get(key))} and is {_in_words(key, now.get(key))}" for key in changed]


def _in_words(key: str, value: object) -> str:
    """Return the value of an option as it is typed, and of another key as YAML has it."""
    if key.startswith("--") and (value is None or isinstance(value, bool)):
        return "given" if value else "not given"
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
