"""What ends a process: SIGTERM with all blocks unwound, and the end of its parent."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

STOPPING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""Signals that ask a run to end; Windows has no SIGUSR1."""
KILL: int = getattr(signal, "SIGKILL", signal.SIGTERM)
"""The signal that ends a process whatever it does; Windows ends it so at SIGTERM."""


def unwind_on_sigterm() -> None:
    """Turn SIGTERM into an exit that runs `finally` blocks, so that no worker or temporary file stays behind.

    Raises:
        ValueError: in a thread other than the main one.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def kill_group(pid: int) -> None:
    """Kill a process with the children that share its session; alone on Windows.

    Raises:
        ProcessLookupError: if there is no such process.
    """
    if sys.platform == "win32":
        os.kill(pid, KILL)
    else:
        os.killpg(pid, KILL)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, whatever code is running then (Linux alone)."""
    if sys.platform != "linux":
        return
    import ctypes  # costs --help 5 ms

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(KILL))
