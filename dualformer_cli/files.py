"""Writing files so that a reader never meets half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dualformer_cli.errors import DualFormerError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`, with the same suffix; rename it on success, delete it on failure.

    Raises:
        DualFormerError: if the folder does not exist or cannot be written.
    """
    target = Path(path)
    if target.is_dir():
        raise DualFormerError(f"cannot write {str(target)!r}: it is a folder; name a file")
    if not target.parent.is_dir():
        raise DualFormerError(f"cannot write {str(target)!r}: folder {str(target.parent)!r} does not exist; create it")
    if not os.access(target.parent, os.W_OK):
        raise DualFormerError(f"cannot write {str(target)!r}: no permission to write in {str(target.parent)!r}")
    temporary = target.with_name(f".{target.stem[:40]}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def cache_dir() -> Path:
    """Return the folder of fetched files: DUALFORMER_CACHE, else $XDG_CACHE_HOME/dualformer or ~/.cache/dualformer."""
    if explicit := os.environ.get("DUALFORMER_CACHE"):
        return Path(explicit)
    if xdg := os.environ.get("XDG_CACHE_HOME"):
        return Path(xdg) / "dualformer"
    return Path.home() / ".cache" / "dualformer"
