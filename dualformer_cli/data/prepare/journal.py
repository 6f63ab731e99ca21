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
from dataclasses import dataclass
from typing import ClassVar, TextIO, TypeVar

from dualformer_cli.data.prepare.check import Finding
from dualformer_cli.data.prepare.convert import Converted
from dualformer_cli.documents.base import JsonObject, to_json
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.disk import is_full
from dualformer_cli.system.locks import try_lock
from dualformer_cli.system.words import os_reason
from dualformer_cli.video.parts import Part

Stamp = list[int]
"""Size and time of change of a file, or of a folder of images."""

_LEFT_OVER = re.compile(r"\..*\.[0-9a-f]{8}\.part(\.[^.]*)?", re.DOTALL)
"""What `files.atomic_path` and its like call a file that is not complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A video was checked; noted under its path in its folder."""

    step: ClassVar[str] = "look"
    stamp: Stamp | None
    check: bool
    """Whether all of it was decoded."""
    finding: Finding

    @classmethod
    def read(cls, record: JsonObject) -> Checked:
        """Return what a line of the journal says."""
        finding = record["finding"]
        parts = tuple((Part(*part), *frames) for part, *frames in finding.get("parts", ()))
        tuples = {"notes": tuple(finding["notes"]), "hashes": tuple(finding["hashes"]), "parts": parts}
        return cls(stamp=record["stamp"], check=record["check"], finding=Finding(**{**finding, **tuples}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A conversion has begun; noted under the path of its result, which is ours from then on."""

    step: ClassVar[str] = "begin"
    settings: str

    @classmethod
    def read(cls, record: JsonObject) -> Begun:
        """Return what a line of the journal says."""
        return cls(settings=record["settings"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A video was converted; noted under the path of the result."""

    step: ClassVar[str] = "done"
    settings: str
    recipe: int
    """The `convert.RECIPE` that it was made by."""
    stamp: Stamp | None
    """Of the source."""
    result: Converted

    @classmethod
    def read(cls, record: JsonObject) -> Done:
        """Return what a line of the journal says; the first version wrote no recipe."""
        result = Converted(**record["result"])
        recipe = record.get("recipe", 1)
        return cls(settings=record["settings"], recipe=recipe, stamp=record["stamp"], result=result)


Step = Checked | Begun | Done
_Step = TypeVar("_Step", Checked, Begun, Done)
_Records = dict[tuple[str, str], JsonObject]
"""Last line of each step of each path."""


class Journal:
    """The steps of one folder. Opened by `open_journal`."""

    def __init__(self, file: TextIO, records: _Records) -> None:
        self._file = file
        self._records = records

    def find(self, kind: type[_Step], path: str) -> _Step | None:
        """Return what was noted last of this step of this path."""
        record = self._records.get((kind.step, path))
        return None if record is None else kind.read(record)

    def add(self, path: str, step: Step) -> None:
        """Note a step; it is on disk, as far as the kernel knows, when this returns."""
        self._add({"step": step.step, "path": path, **to_json(step)})

    def know(self, path: str) -> None:
        """Take what another process has noted until now as known; the file stays as it is."""
        with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
            self._records |= _read(file)[0]

    def take_over(self, path: str) -> int:
        """Add the journal of a process that has ended, and delete its file; return how many conversions it has."""
        with open(path, encoding="utf-8") as file:
            records, _ = _read(file)
        for record in records.values():
            self._add(record)
        os.unlink(path)
        return sum(step == Done.step for step, _ in records)

    def _add(self, record: JsonObject) -> None:
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


def stamp_of(path: str) -> Stamp | None:
    """Return what changes when a file or a folder of images does; None if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def remove_left_overs(folder: str) -> int:
    """Delete what a killed run has left incomplete below a folder; return how many files and folders it was."""
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


def size_of(path: str) -> int:
    """Return the bytes of a file; 0 if it is not there."""
    return (stamp_of(path) or [0])[0]


def _read(file: TextIO) -> tuple[_Records, bool]:
    """Return the records, and whether the last line lacks its end."""
    file.seek(0)
    records: _Records = {}
    text = file.read()
    for line in text.split("\n"):
        with suppress(ValueError, TypeError, KeyError):
            record = json.loads(line)
            records[record["step"], record["path"]] = record
    return records, bool(text) and not text.endswith("\n")
