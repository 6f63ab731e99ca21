"""Room on a disk: how much is free, and whether what is to be written fits."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from dualformer_cli.system.words import size_in_words


def free_bytes(path: str | os.PathLike[str]) -> int:
    """Return the room at `path`, which need not be there yet: on the disk of the nearest folder above that exists."""
    folder = Path(os.path.abspath(path))
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def lack_of_room(path: str | os.PathLike[str], num_bytes: float) -> str:
    """Return in words that `num_bytes` do not fit at `path`; empty if they do."""
    free = free_bytes(path)
    if num_bytes <= free:
        return ""
    return f"about {size_in_words(num_bytes)} are needed in {os.fspath(path)!r}, and {size_in_words(free)} are free"


def is_full(error: OSError) -> bool:
    """Return whether writing failed for lack of room."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)
