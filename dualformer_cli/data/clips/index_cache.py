"""Indexes of video files, kept from one reading to the next."""

from __future__ import annotations

from dualformer_cli.video.reader import FileIndex


class IndexCache:
    """Indexes of the files that were read, so that later epochs need not read every file twice.

    It lives beside the workers, so that each of them profits from all. A full one takes no more: every file comes
    once an epoch, so there is none that will not be needed again.

    Args:
        max_bytes: bound of the memory; the default holds some 300,000 files.
    """

    def __init__(self, max_bytes: int = 128 * 2**20) -> None:
        self._indexes: dict[str, FileIndex] = {}
        self._bytes_left = max_bytes

    def get(self, path: str) -> FileIndex | None:
        """Return the index of a file, which may have changed since."""
        return self._indexes.get(path)

    def put(self, path: str, index: FileIndex) -> None:
        """Keep an index in place of an older one of this path, if there is room."""
        old = self._indexes.pop(path, None)
        if old is not None:
            self._bytes_left += _memory(old)
        if self._bytes_left >= _memory(index):
            self._bytes_left -= _memory(index)
            self._indexes[path] = index


def _memory(index: FileIndex) -> int:
    return len(index.packed) + 200  # of the objects around it
