"""Keeping other processes from a file or folder while it is made; the system frees the lock of a killed process."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

POLL_SECONDS = 0.2

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
