"""Signals that end a run after the step in hand, with its state saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from dualformer_cli.engine.parallel.reductions import RanksLost, any_rank, gather_objects
from dualformer_cli.system.signals import STOPPING


class StopSignals:
    """What SIGTERM, SIGUSR1 and Ctrl-C ask of a run."""

    def __init__(self) -> None:
        self._received: int | None = None

    def of_any_rank(self) -> int | None:
        """Return the signal that a rank has received, the same one on every rank; None where none has any."""
        if not any_rank(self._received is not None):
            return None
        return next(number for number in gather_objects(self._received) if number is not None)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Let SIGTERM, SIGUSR1 and the first Ctrl-C end the run after the step in hand; a second Ctrl-C at once.

        Where a rank dies, torchrun's agent sends SIGTERM to the others. One that finds the dead rank gone only after
        that leaves in silence: the agent knows who failed, and nothing can be agreed and saved any more.
        """

        def ask(signum: int, frame: FrameType | None) -> None:
            if signum == signal.SIGINT and self._received is not None:
                raise KeyboardInterrupt
            self._received = signum

        before = {name: signal.signal(name, ask) for name in STOPPING}
        try:
            yield
        except RanksLost:
            if self._received == signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)
