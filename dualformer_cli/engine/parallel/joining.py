"""The ranks of a run meet at a store that one of them, or the launcher, serves.

Whoever waits here looks again and again, so that signals are obeyed, and says for whom it waits.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import count
from time import monotonic, sleep
from typing import TYPE_CHECKING

from dualformer_cli.engine.parallel.placement import Placement, integer
from dualformer_cli.engine.parallel.reductions import first_sentence
from dualformer_cli.engine.parallel.watch import LINE_SECONDS
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import duration_in_words, some_of

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_LOGGER = logging.getLogger(__name__)

FIRST_LINE_SECONDS = 5.0
"""After so long a rank says for whom it waits."""
UNKNOWN_HOST_SECONDS = 10.0
"""For so long a name may be unknown, as it is where the machine of rank 0 just starts."""
_STORE_SECONDS = 20.0
"""A store that is there answers within it."""
_POLL_SECONDS = 0.1
_MOST_NAMED = 8
_RUNS = count()
"""A store may outlive a process group, and keeps what was in it."""


class Joining:
    """How this rank meets the others.

    Args:
        placement: this process among the others.
        timeout: for how many seconds it waits for them.

    Raises:
        DualFormerError: if a variable is missing or wrong.
    """

    def __init__(self, placement: Placement, timeout: float) -> None:
        self.placement, self.timeout = placement, timeout
        self.host, self.port = os.environ.get("MASTER_ADDR", ""), integer(os.environ, "MASTER_PORT")
        if not self.host:
            raise DualFormerError(
                f"environment variable MASTER_ADDR, the machine of rank 0, is not set, but this is rank "
                f"{placement.rank} of {placement.world_size}; start with torchrun"
            )
        if not 0 < self.port < 2**16:
            raise DualFormerError(f"environment variable MASTER_PORT must be between 1 and 65535, but is {self.port}")
        self._began = monotonic()
        self._next_line = self._began + FIRST_LINE_SECONDS

    def store(self) -> Store:
        """Return the store of this run, as soon as it can be reached.

        Raises:
            DualFormerError: if it cannot be, or other processes at it are no ranks of this run.
        """
        from torch._C._distributed_c10d import PrefixStore, TCPStore  # some builds of torch have no such module

        placement = self.placement
        outlives_ranks = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
        is_served_here = placement.rank == 0 and not outlives_ranks
        # Launchers count restarts each for itself: one that came in place of a lost one has made none.
        start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if outlives_ranks else "0"
        self._wait_for_address(is_served_here=is_served_here)
        try:
            store = TCPStore(
                self.host,
                self.port,
                placement.world_size,
                is_served_here,
                timedelta(seconds=_STORE_SECONDS),
                multi_tenant=True,
                wait_for_workers=False,
            )
            own = PrefixStore(f"run/{start}/{next(_RUNS)}", store)
            world_size = int(own.compare_set("world_size", "", str(placement.world_size)))
            is_first = own.add(f"joined/{placement.rank}", 1) == 1
        except RuntimeError as error:
            raise self.failure(_reason(error, is_served_here=is_served_here, port=self.port)) from error
        if world_size != placement.world_size:
            raise self.failure(f"another of them says that they are {world_size}")
        if not is_first:
            raise self.failure(f"there is a rank {placement.rank} already, or another run has the same MASTER_PORT")
        return own

    def wait_until_all_are_here(self, absent: Callable[[], Sequence[int]]) -> None:
        """Return as soon as no rank is absent; the first one that is here says who is.

        Raises:
            DualFormerError: if they do not come in time.
        """
        while missing := absent():
            self._pause(
                some_of([f"rank {rank}" for rank in missing], _MOST_NAMED),
                speaks=set(range(self.placement.rank)) <= set(missing),
            )

    def _wait_for_address(self, *, is_served_here: bool) -> None:
        """Return as soon as the address is known, and, unless it is served here, something answers there."""
        rank = self.placement.rank
        while True:
            try:
                if is_served_here:
                    socket.getaddrinfo(self.host, self.port)
                else:
                    socket.create_connection((self.host, self.port), timeout=2).close()
                return
            except socket.gaierror as error:
                if monotonic() - self._began > UNKNOWN_HOST_SECONDS:
                    raise self.failure(f"no machine {self.host!r} is known here") from error
            except OSError:
                pass
            self._pause("rank 0", speaks=rank <= 1 or self.placement.local_rank == 0)

    def _pause(self, missing: str, *, speaks: bool) -> None:
        """Sleep a moment, and say who is missing if it is time.

        Raises:
            DualFormerError: if the time is over.
        """
        now, placement = monotonic(), self.placement
        if now - self._began > self.timeout:
            raise self.failure(f"{missing} did not come within {duration_in_words(self.timeout)}")
        if now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            if speaks:
                _LOGGER.info(
                    "rank %d of %d waits at %s:%d for %s, for %s at most",
                    *(placement.rank, placement.world_size, self.host, self.port, missing),
                    duration_in_words(self.timeout),
                )
        sleep(_POLL_SECONDS)

    def failure(self, reason: str) -> DualFormerError:
        """Return the error that says why the ranks do not come together."""
        return DualFormerError(
            f"rank {self.placement.rank} of {self.placement.world_size} could not join the others at "
            f"{self.host}:{self.port}: {reason}; check that all of them run and that MASTER_ADDR and MASTER_PORT can "
            "be reached"
        )


def _reason(error: RuntimeError, *, is_served_here: bool, port: int) -> str:
    if "EADDRINUSE" in str(error):
        return f"another program has port {port} of this machine, set another MASTER_PORT"
    if is_served_here:
        return f"{first_sentence(error)}, but rank 0 must run on the machine that MASTER_ADDR names"
    return f"{first_sentence(error)}, so another program may have that port"
