"""The errors that a user can mend. `app.main` prints each as one line and exits with 1."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from os import PathLike, fspath

_LOGGER = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818
    """A signal ended a run, whose state is saved; no error."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class DualFormerError(Exception):
    """The user can fix it: the message says what was wrong, the value, what is allowed and what to do."""

    @property
    def reason(self) -> str:
        """Return what is wrong, without the name of the input that it is about."""
        return str(self)


class MissingError(DualFormerError):
    """Several things that a command lacks: the user hears of all of them at once.

    Args:
        problems: each a sentence that says what is lacking and what brings it.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(f"{len(problems)} things are missing: {'; '.join(problems)}")
        self.problems = tuple(problems)


class ConfigError(DualFormerError):
    """A preset, a key or a value that the configuration does not allow."""


class WeightsError(DualFormerError):
    """Weights that cannot be read or do not fit the model."""


class DownloadError(DualFormerError):
    """A file that could not be fetched; the message gives the manual route.

    Args:
        message: all of it, for a user who gets nothing else.
        reason: what is wrong, without the file's name and the manual route; the message when None.
    """

    def __init__(self, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self._reason = message if reason is None else reason

    @property
    def reason(self) -> str:
        return self._reason


class CannotWriteError(DualFormerError):
    """A file that cannot be written: a full disk, a folder without permission."""


class VideoError(DualFormerError):
    """One input that cannot be used as a video.

    Args:
        path: the input as the user named it.
        reason: what is wrong with it, in a few words, without the path.
    """

    def __init__(self, path: str | PathLike[str], reason: str) -> None:
        super().__init__(f"{fspath(path)!r}: {reason}")
        self.path = fspath(path)
        self._reason = reason

    @property
    def reason(self) -> str:
        return self._reason

    def __reduce__(self) -> tuple[type[VideoError], tuple[str, str]]:
        """Survive the trip from a worker process."""
        return (type(self), (self.path, self.reason))


class UnavailableError(VideoError):
    """A video on another machine that cannot be had; another try may get it."""


class TooShortError(VideoError):
    """A video with fewer frames than the configuration asks for."""


def reason_of(error: Exception) -> str:
    """Return what went wrong in words, without the name of the input; -v also shows the traceback of a bug."""
    if isinstance(error, DualFormerError):
        return error.reason
    _LOGGER.debug("unexpected error", exc_info=error)
    text = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}{': ' if text else ''}{text[:200]}; -v shows where"


FULL_GPU = (
    "the GPU's memory is full; --precision bf16 takes less, and so does an end to other programs there; --device cpu "
    "takes none"
)
"""What is said where one view of a video does not fit."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of a GPU is full, of whichever library the error is; torch is not loaded for it."""
    text = str(error)
    return isinstance(error, RuntimeError) and (
        type(error).__name__ == "OutOfMemoryError"
        or "CUDA error: out of memory" in text
        or "CUBLAS_STATUS_ALLOC_FAILED" in text
    )


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is probably a misspelling of; None where it is another word."""
    return next(iter(get_close_matches(name, list(known), n=1, cutoff=0.6)), None)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" when a known name is close to `name`, else an empty string."""
    close = closest(name, known)
    return f"; did you mean {close!r}?" if close else ""
