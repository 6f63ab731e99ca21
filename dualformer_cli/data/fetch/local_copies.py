"""Remote videos are fetched a few ahead of their use, and removed after it: a thousand of them do not fill the disk."""

from __future__ import annotations

import os
import shutil
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from types import TracebackType

from dualformer_cli.data.fetch.web_videos import file_name
from dualformer_cli.errors import VideoError
from dualformer_cli.system.files import cache_dir
from dualformer_cli.system.threads import begin
from dualformer_cli.system.words import os_reason
from dualformer_cli.video.addresses import is_address, mask_credentials
from dualformer_cli.video.parts import WHOLE, Part, split_part
from dualformer_cli.video.remote_videos import fetch_video

_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A video where a decoder can read it."""

    name: str
    """As it was found: a path or an address."""
    path: str
    """Of the file: that of the name, if it is no address."""
    error: VideoError | None = None
    """Why there is no file."""
    part: Part = WHOLE
    """That the name means."""
    is_copy: bool = False


class LocalCopies:
    """Local files in place of remote ones. Use it in a `with`, which removes all that are left.

    Args:
        ahead: how many files are fetched at the same time, before they are asked for.
    """

    def __init__(self, ahead: int = 4) -> None:
        self._ahead = ahead
        self._folder: Path | None = None
        self._num_fetched = 0
        self._is_closed = False

    def __enter__(self) -> LocalCopies:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_closed = True
        self._remove_all()

    def of(self, names: Iterable[str]) -> Iterator[LocalCopy]:
        """Yield a local file for each name, in order; names are taken as they are needed.

        At most `ahead` files are there that were not yielded yet; those that were stay until `remove`.
        """
        waiting: deque[Future[LocalCopy]] = deque()
        for name in names:
            is_remote = is_address(name)
            path, part = (name, WHOLE) if is_remote else split_part(name)
            if not (is_remote or waiting):
                yield LocalCopy(name, path, part=part)
                continue
            waiting.append(self._start(name) if is_remote else _done(LocalCopy(name, path, part=part)))
            if len(waiting) >= self._ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def remove(self, copy: LocalCopy) -> None:
        """Remove a file that is no longer needed, if it is a copy."""
        if copy.is_copy:
            with suppress(OSError):
                os.unlink(copy.path)

    def _start(self, name: str) -> Future[LocalCopy]:
        """Fetch a file in a thread."""
        self._num_fetched += 1
        try:
            path = os.path.join(self._made_folder(), f"{self._num_fetched}-{file_name(name)}")
        except OSError as error:
            reason = f"cannot be fetched into {str(cache_dir())!r}: {os_reason(error)}"
            return _done(LocalCopy(name, name, VideoError(mask_credentials(name), reason)))

        def fetch() -> LocalCopy:
            try:
                fetch_video(name, path)
                return LocalCopy(name, path, is_copy=True)
            except VideoError as error:
                with suppress(OSError):
                    os.unlink(path)
                return LocalCopy(name, name, error)
            finally:
                if self._is_closed:  # while the file was on its way
                    self._remove_all()

        return begin(fetch, "dualformer-fetch")

    def _remove_all(self) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _made_folder(self) -> Path:
        """Return the folder of the copies; when it is made, those that killed runs left a day ago are removed."""
        if self._folder is None:
            parent = cache_dir() / "copies"
            parent.mkdir(parents=True, exist_ok=True)
            for other in parent.iterdir():
                with suppress(OSError):
                    if time.time() - other.stat().st_mtime > _STALE_SECONDS:
                        shutil.rmtree(other, ignore_errors=True)
            self._folder = Path(mkdtemp(dir=parent))
        return self._folder


def _done(copy: LocalCopy) -> Future[LocalCopy]:
    future: Future[LocalCopy] = Future()
    future.set_result(copy)
    return future
