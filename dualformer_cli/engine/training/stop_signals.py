"""Signals that end a run after the step in hand, with its state saved."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from time import monotonic
from types import FrameType

import torch
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from dualformer_cli.engine.parallel.reductions import RanksLost, in_touch, sum_over_ranks, world_size
from dualformer_cli.engine.parallel.watch import give_up_soon
from dualformer_cli.system.signals import STOPPING

LOOK_SECONDS = 0.5
"""Time between two looks at what other ranks have received."""
_RUNS = count()
"""A store keeps what was in it from one run of a process to the next."""


class StopSignals:
    """What SIGTERM, SIGUSR1 and Ctrl-C ask of a run; every rank makes one."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._key = f"stop-signals/{next(_RUNS)}"
        self._has_passed_on = False
        self._looked = 0.0

    def of_any_rank(self) -> int | None:
        """Return the signal that a rank has received, the same one on every rank; None where none has any."""
        return self.agree()[0]

    def agree(self, *, is_due: bool = False) -> tuple[int | None, bool]:
        """Return the signal that a rank has received, or None, and whether anything is due on any rank."""
        return self.agreed(sum_over_ranks(self.asks(is_due=is_due)))

    def asks(self, *, is_due: bool = False) -> Tensor:
        """Return what this rank asks for, in numbers that ranks can add up."""
        return torch.tensor([*(self._received == number for number in STOPPING), is_due], dtype=torch.float64)

    def agreed(self, asked: Tensor) -> tuple[int | None, bool]:
        """Return what `agree` says, of the sum of what all ranks asked for; a rank alone obeys what came since, too."""
        *received, due = asked.tolist()
        if world_size() == 1:
            return self._received, bool(due)
        signals = [int(number) for number, count in zip(STOPPING, received, strict=True) if count]
        return max(signals, default=None), bool(due)

    def heard(self) -> bool:
        """Return whether a signal has come to this rank, or a moment ago to another one.

        It waits for no rank: each may ask whenever it likes, between two calls that all make.
        """
        if world_size() == 1:
            return self._received is not None
        with in_touch("asking whether to stop"):
            if self._received is not None and not self._has_passed_on:
                PrefixStore(self._key, _get_default_store()).set("signal", str(self._received))
                self._has_passed_on = True
            elif self._received is None and monotonic() - self._looked > LOOK_SECONDS:
                self._looked = monotonic()
                store = PrefixStore(self._key, _get_default_store())
                if store.check(["signal"]):
                    self._received, self._has_passed_on = int(store.get("signal")), True
        return self._received is not None

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Let SIGTERM, SIGUSR1 and the first Ctrl-C end the run after the step in hand; a second Ctrl-C at once.

        Where a rank dies, torchrun's agent sends SIGTERM to the others. One that finds the dead rank gone only after
        that leaves in silence: the agent knows who failed, and nothing can be agreed and saved any more. So does one
        that waits for a rank that does not come.
        """

        def ask(signum: int, frame: FrameType | None) -> None:
            if signum == signal.SIGINT and self._received is not None:
                raise KeyboardInterrupt
            self._received = signum
            give_up_soon()

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
