"""Tar archives in the layout of WebDataset, written member by member for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def write_shard(path: Path, members: Iterable[tuple[str, bytes | str | Path]]) -> Path:
    """Write (name, content) pairs in order; a name may come twice, and content may be a file."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            data = content.read_bytes() if isinstance(content, Path) else content
            data = data.encode() if isinstance(data, str) else data
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path
