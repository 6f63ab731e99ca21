"""What ends a process: SIGTERM with all blocks unwound, and the end of its parent."""

from __future__ import annotations

import signal
from types import FrameType


def unwind_on_sigterm() -> None:
    """Turn SIGTERM into an exit that runs `finally` blocks, so that no worker or temporary file stays behind.

    Raises:
        ValueError: in a thread other than the main one.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, whatever code is running then (Linux)."""
    import ctypes  # costs --help 5 ms

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
