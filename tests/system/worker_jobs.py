"""What the tests have worker processes do: functions that a worker can import, because it never sees a test module."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dualformer_cli.errors import VideoError
from dualformer_cli.system.workers import heartbeat

initialized_in: list[int] = []


class StubbornError(Exception):
    """Pickles, but cannot be made again from its pickle."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


def double(number: int) -> int:
    return 2 * number


def run(work: tuple[Callable[[object], object], object]) -> object:
    function, item = work
    return function(item)


def double_after(work: tuple[int, float]) -> int:
    number, seconds = work
    time.sleep(seconds)
    return 2 * number


def fail(kind: str) -> str:
    if kind == "video":
        raise VideoError("clip é.mp4", "holds no video")
    if kind == "bug":
        return str([][1])
    if kind == "stubborn":
        raise StubbornError("one", "two")
    return kind


def return_lambda(_: object) -> object:
    return lambda: None


def end(how: str) -> str:
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        sys.exit(3)
    elif how == "hang":
        hang_for_good()
    elif how == "beat":
        for _ in range(30):
            time.sleep(0.05)
            heartbeat()
    return how


def hang_for_good(pid_file: str | None = None) -> None:
    """Hang as a decoder does that never gives the interpreter back."""
    if pid_file is not None:
        note_pid(pid_file)
    ctypes.PyDLL(None).pause()


def note_pid(pid_file: str) -> None:
    Path(pid_file + ".part").write_text(f"{os.getpid()} {os.getppid()}")
    os.replace(pid_file + ".part", pid_file)


def note_and_sleep(pid_file: str) -> None:
    note_pid(pid_file)
    time.sleep(60)


def arrays(seed: int) -> dict[str, np.ndarray]:
    numbers = np.random.default_rng(seed)
    frozen = np.arange(1000)
    frozen.flags.writeable = False
    return {
        "frames": numbers.integers(0, 256, (100, 330, 333, 3), dtype=np.uint8),
        "columns": np.asfortranarray(numbers.normal(size=(300, 200))),
        "strided": numbers.normal(size=(300, 200))[::3, ::-2],
        "empty": np.empty((0, 3)),
        "frozen": frozen,
    }


def total(array: np.ndarray) -> float:
    return float(array.sum())


def surroundings(_: object) -> dict[str, object]:
    """Where a worker finds itself; also writes to stdout, as libraries do."""
    print("printed by a worker")
    return {
        "pid": os.getpid(),
        "stdin": sys.stdin.read(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "interrupt": signal.getsignal(signal.SIGINT) is signal.SIG_IGN,
        "torch": "torch" in sys.modules,
        "json.tool": "json.tool" in sys.modules,
        "initialized": initialized_in == [os.getpid()],
        "frozen": gc.get_freeze_count() > 0,
    }


def note_initialized() -> None:
    initialized_in.append(os.getpid())


def fail_to_initialize() -> None:
    raise VideoError("nowhere", "no such decoder")


def die_while_initializing() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)
