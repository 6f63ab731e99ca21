"""Run by test_watch.py in a process of its own: worlds of forked ranks in which one is late, each of which stores what
it saw.

Usage: watch_jobs.py FOLDER. Writes FOLDER/WORLD-RANK.pt. One interpreter imports torch for all of them.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rank_jobs import World, free_ports, run_worlds

from dualformer_cli.engine.parallel import joining, watch
from dualformer_cli.engine.parallel.gradients import GradientSums
from dualformer_cli.engine.parallel.ranks import Ranks, init_ranks
from dualformer_cli.engine.parallel.reductions import RanksLost, any_rank, barrier, broadcast_object, gather_objects
from dualformer_cli.engine.parallel.watch import doing, long_work
from dualformer_cli.engine.training.stop_signals import StopSignals
from dualformer_cli.system.signals import unwind_on_sigterm

FOLDER = Path(sys.argv[1])
TIMEOUT = 1.5


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        logger = logging.getLogger("dualformer_cli")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextmanager
def patient_start() -> Iterator[Any]:
    """Join without haste, as the machine may be busy; then wait for no rank longer than TIMEOUT."""
    with init_ranks("cpu") as ranks:
        assert ranks.watch is not None
        ranks.watch.timeout = TIMEOUT
        yield ranks


def wait_for(name: str) -> None:
    deadline = time.monotonic() + 60
    while not (FOLDER / name).exists():
        assert time.monotonic() < deadline, f"nobody wrote {name}"
        time.sleep(0.2)


def sleep_in_a_loader(name: str) -> None:
    """Stay here until rank 0 has given up."""
    wait_for(name)


def late(rank: int, world_size: int) -> Any:
    """Rank 1 reads its clips for longer than the others may wait."""
    lines = Lines()
    try:
        with patient_start():
            gather_objects(rank)
            doing("reading the clips of step 7")
            if rank == 1:
                sleep_in_a_loader("late")
                os._exit(0)
            began = time.monotonic()
            any_rank(False)
    except RanksLost as error:
        (FOLDER / "late").touch()
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.monotonic() - began, "lines": lines.lines}
    return {"error": "nothing happened"}


def asleep(rank: int, world_size: int) -> Any:
    """Rank 1 hangs in its start, which may take as long as it likes, while its watch goes on."""
    lines, watch.IDLE_SECONDS = Lines(), 2.0
    try:
        with patient_start():
            gather_objects(rank)
            if rank == 1:
                sleep_in_a_loader("asleep")
                os._exit(0)
            any_rank(False)
    except RanksLost as error:
        (FOLDER / "asleep").touch()
        return {"error": str(error), "lines": lines.lines}
    return {"error": "nothing happened"}


def stopped(rank: int, world_size: int) -> Any:
    """Rank 1 is stopped from outside, in work that may take as long as it likes."""
    lines = Lines()
    try:
        with patient_start() as ranks:
            pids = gather_objects(os.getpid())
            if rank == 1:
                with long_work("validating"):
                    while b"validating" not in ranks.watch.store.get("note/1"):
                        time.sleep(0.01)
                    os.kill(os.getpid(), signal.SIGSTOP)
            gather_objects(0)
    except RanksLost as error:
        os.kill(pids[1], signal.SIGKILL)
        return {"error": str(error), "lines": lines.lines}
    return {"error": "nothing happened"}


def long_works(rank: int, world_size: int) -> Any:
    """All that may take longer than the timeout: work that says so, what rank 0 makes for all, and its end."""
    lines = Lines()
    with patient_start():
        doing("computing")
        if rank == 0:
            with long_work("saving"):
                time.sleep(2 * TIMEOUT)
        any_rank(False)
        if rank == 0:
            time.sleep(TIMEOUT)
        found = broadcast_object("made" if rank == 0 else "")
        if rank == 0:
            time.sleep(TIMEOUT)
        barrier()
        if rank == 0:
            time.sleep(TIMEOUT)
    return {"found": found, "lines": lines.lines}


def interrupted(rank: int, world_size: int) -> Any:
    """Rank 0 waits for the gradients of rank 1 when Ctrl-C comes."""
    try:
        with init_ranks("cpu"):
            doing("computing")
            if rank == 1:
                wait_for("interrupted")
                os._exit(0)
            began = time.monotonic()
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            GradientSums([torch.nn.Parameter(torch.zeros(1))]).finish(torch.ones(1))
    except KeyboardInterrupt:
        (FOLDER / "interrupted").touch()
        return time.monotonic() - began
    return None


def ended(rank: int, world_size: int) -> Any:
    """Rank 0 is asked to end while it waits for rank 1, which does not come."""
    watch.SECONDS_AFTER_A_SIGNAL = 0.5
    try:
        with init_ranks("cpu") as ranks:
            doing("computing")
            if rank == 1:
                wait_for("ended")
                os._exit(0)
            _end_soon(ranks)
    except SystemExit as leave:
        (FOLDER / "ended").touch()
        return leave.code
    return None


def _end_soon(ranks: Ranks) -> None:
    signals = StopSignals()
    with signals.caught():
        os.kill(os.getpid(), signal.SIGTERM)
        signals.of_any_rank()


def absent(rank: int, world_size: int) -> Any:
    """SIGTERM comes once it is said who is waited for; each rank waits alone in a world of its own."""
    lines = Lines()
    unwind_on_sigterm()
    joining.FIRST_LINE_SECONDS = 0.2
    last = time.monotonic() + 60

    def end(number: int, frame: object) -> None:
        if lines.lines or time.monotonic() > last:
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, 0.5, 0.5)
    os.environ["MASTER_PORT"] = str(*free_ports(1))
    try:
        with init_ranks("cpu"):
            return None
    except SystemExit as leave:
        return {"code": leave.code, "lines": lines.lines}


def main() -> None:
    torch.set_num_threads(1)
    watch.BEAT_SECONDS, watch.LINE_SECONDS, watch.GRACE_SECONDS, watch.STACK_SECONDS = 0.1, 0.5, 4.0, 2.0
    jobs = (late, asleep, stopped, long_works, interrupted, ended, absent)
    run_worlds([World(job.__name__, job, 2) for job in jobs], FOLDER)


if __name__ == "__main__":
    main()
