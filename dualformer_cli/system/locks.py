"""Keeping other processes from a file or folder while it is made; the system frees the lock of a killed process."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from dualformer_cli.errors import CannotWriteError, DualFormerError
from dualformer_cli.system.words import os_reason

POLL_SECONDS = 0.2
LOCK_NAME = ".lock"

_LOGGER = logging.getLogger(__name__)


@contextmanager
def locked(target: Path) -> Iterator[int]:
    """Hold the lock `.NAME.lock` beside `target`, after waiting for another process or thread that holds it.

    Yields:
        The descriptor that the lock belongs to; a program that inherits it holds the lock until it ends.
    """
    with target.with_name(f".{target.name}.lock").open("w") as file:
        if not try_lock(file):
            _LOGGER.warning("waiting for another process that makes %r", str(target))
            while not try_lock(file):
                time.sleep(POLL_SECONDS)
        yield file.fileno()


class FolderLock:
    """A folder that one process at a time writes into, for as long as this is open.

    The system frees the lock when the process ends, however it ends: at once on a disk of this machine, and on a
    network file system once the server knows that the other machine is gone.

    Args:
        folder: is made.
        known_as: the folder that the user named, for messages, where that is another one.
    """

    def __init__(self, folder: Path, *, known_as: Path | None = None) -> None:
        self.folder, self._known_as = folder, known_as or folder
        self._path = folder / LOCK_NAME
        self._file: IO[str] | None = None

    def __enter__(self) -> FolderLock:
        self.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def take(self) -> None:
        """Make the folder if it is not there, and lock it.

        Raises:
            CannotWriteError: if it cannot be made.
            DualFormerError: if another process has it; the message names the process.
        """
        try:
            while not self.is_held():  # whoever had it before may just have removed the file
                self.folder.mkdir(parents=True, exist_ok=True)
                file = self._path.open("a+", encoding="utf-8")
                if not try_lock(file):
                    file.seek(0)
                    holder = file.read(200).strip()
                    file.close()
                    raise DualFormerError(
                        f"another run writes into {str(self._known_as)!r}{holder and ': '}{holder}; name another folder"
                    )
                self._file = file
            assert self._file is not None
            self._file.truncate(0)
            self._file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            self._file.flush()
        except OSError as error:
            raise CannotWriteError(f"cannot write into {str(self.folder)!r}: {os_reason(error)}") from error

    def is_held(self) -> bool:
        """Return whether the lock is that of the file which lies in the folder now: somebody may have removed it."""
        try:
            return self._file is not None and os.path.samestat(os.fstat(self._file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Leave the folder to others; one that holds nothing goes."""
        if self._file is None:
            return
        with suppress(OSError):
            if self.is_held() and os.listdir(self.folder) == [LOCK_NAME]:
                self._path.unlink()
                self.folder.rmdir()
        self._file.close()
        self._file = None


def try_lock(file: IO[Any]) -> bool:
    """Lock a file until it is closed; return False if another process or thread holds the lock.

    A file system without locks, or Windows, is warned of and counts as locked.
    """
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError) as error:  # not on Windows, nor on some network file systems
        reason = getattr(error, "strerror", None) or error
        _LOGGER.warning("no lock for %r (%s): a second process could write it too", file.name, reason)
    return True
