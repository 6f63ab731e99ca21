"""What `prepare` has done so far, so that another run goes on where one was stopped, kill -9 included.

One line of JSON per step, written when the step is done. The last line may be torn; it is left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.disk import is_full
from dualformer_cli.system.locks import try_lock
from dualformer_cli.system.words import os_reason

_LEFT_OVER = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]*)?", re.DOTALL)
"""What `files.atomic_path` and its like call a file that is not complete."""


class Journal:
    """The steps of one folder. Opened by `open_journal`."""

    def __init__(self, file: TextIO, records: dict[tuple[str, str], dict[str, Any]]) -> None:
        self._file = file
        self._records = records

    def find(self, step: str, path: str) -> dict[str, Any] | None:
        """Return what was noted last of this step of this file."""
        return self._records.get((step, path))

    def add(self, step: str, path: str, **facts: Any) -> None:
        """Note a step; it is on disk, as far as the kernel knows, when this returns."""
        self._add({"step": step, "path": path, **facts})

    def know(self, path: str) -> None:
        """Take what another process has noted until now as known; the file stays as it is."""
        with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            self._records |= _read(file)[0]

    def adopt(self, path: str, step: str = "") -> int:
        """Take over the journal of a process that has ended, and delete its file; return its records of a step."""
        with open(path, encoding="utf-8") as file:
            records, _ = _read(file)
        for record in records.values():
            self._add(record)
        os.unlink(path)
        return sum(record["step"] == step for record in records.values())

    def _add(self, record: dict[str, Any]) -> None:
        self._records[record["step"], record["path"]] = record
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


@contextmanager
def open_journal(path: str) -> Iterator[Journal]:
    """Open the journal of a folder, for one process at a time.

    Raises:
        DualFormerError: if another process has it open, it cannot be written, or the disk is full.
    """
    folder = os.path.dirname(path)
    try:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115  # closed below
    except OSError as error:
        raise _cannot_write(folder, error) from None
    try:
        with file:
            if not try_lock(file):
                raise DualFormerError(
                    f"another dualformer prepare is at work in {folder!r}; wait for it, or name another folder with "
                    "--root"
                )
            records, is_torn = _read(file)
            if is_torn:
                file.write("\n")
            yield Journal(file, records)
    except OSError as error:
        if not is_full(error):
            raise
        raise _cannot_write(folder, error) from None


def _cannot_write(folder: str, error: OSError) -> DualFormerError:
    reason = os_reason(error)
    advice = "free some space, or " if is_full(error) else ""
    return DualFormerError(f"cannot write in {folder!r}: {reason}; {advice}name another folder with --root")


def stamp(path: str) -> list[int] | None:
    """Return what changes when a file or a folder of images does; None if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def remove_left_overs(folder: str) -> int:
    """Delete what a killed run has left half written below a folder; return how many files and folders it was."""
    count = 0
    for current, folders, names in os.walk(folder):
        for name in [name for name in folders if _LEFT_OVER.fullmatch(name)]:
            shutil.rmtree(os.path.join(current, name), ignore_errors=True)
            folders.remove(name)
            count += 1
        for name in filter(_LEFT_OVER.fullmatch, names):
            with suppress(OSError):
                os.unlink(os.path.join(current, name))
                count += 1
    return count


def _read(file: TextIO) -> tuple[dict[tuple[str, str], dict[str, Any]], bool]:
    """Return the records, and whether the last line lacks its end."""
    file.seek(0)
    records = {}
    text = file.read()
    for line in text.split("\n"):
        with suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            records[record["step"], record["path"]] = record
    return records, bool(text) and not text.endswith("\n")
