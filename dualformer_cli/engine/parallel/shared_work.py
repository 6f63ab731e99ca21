"""Work that is drawn: each rank takes the next item when it is free, so that none waits for a slower one.

Items go out, and results come back, through the store by which the ranks of a run have met; no exchange needs all of
them. A rank that dies costs what it had in hand.
"""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count as count_up
from typing import Generic, TypeVar

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.reductions import RanksLost, first_sentence
from dualformer_cli.engine.parallel.watch import long_work, waiting
from dualformer_cli.errors import reason_of

Item = TypeVar("Item")
Result = TypeVar("Result")

LOST_SECONDS = 60.0
"""A rank of which nothing is heard for so long is taken for dead."""
_STOP_SECONDS = 2.0
_POLL_SECONDS = 0.02
_AHEAD_PER_RANK = 4
_RUNS = count_up()
"""A store may outlive a process group, and keeps what was in it."""


class SharedWork(Generic[Item]):
    """Items that all ranks work on; every rank makes one.

    Args:
        ranks: this process among the others; `lost` of it names those that died.
        lost_seconds: how long a rank may be silent.
    """

    def __init__(self, ranks: Ranks, *, lost_seconds: float = LOST_SECONDS) -> None:
        self.ranks = ranks
        self.lost_items: list[Item] = []
        """On rank 0, what ranks that died had in hand."""
        self._lost_seconds = lost_seconds
        self._ownerless: dict[int, float] = {}
        """Items that a rank has drawn without a word, and since when."""
        self._mine: deque[int] = deque()
        self._next = 0
        """On rank 0, the number of the item whose result comes next."""
        self._stop = threading.Event()
        self._failure: BaseException | None = None

    def in_order(self, items: Iterable[Item], work: Callable[[Iterator[Item]], Iterator[Result]]) -> Iterator[Result]:
        """Have every rank work on what it draws; call it on all of them, and take all that it yields.

        Args:
            items: of rank 0, which hands them out as the ranks draw; on other ranks not looked at.
            work: gives one result for each item, in order.

        Yields:
            On rank 0 the results of all ranks in the order of the items, each as soon as those before it are there,
            but for lost items; on other ranks nothing.

        Raises:
            RanksLost: if the store is gone; on other ranks also if rank 0 has failed or is silent.
        """
        if self.ranks.world_size == 1:
            yield from work(iter(items))
            return
        self._store = PrefixStore(f"shared-work/{next(_RUNS)}", _get_default_store())
        try:
            with self._fed(items), long_work("working on shared items"):
                if self.ranks.is_main:
                    yield from self._lead(work)
                else:
                    self._follow(work)
        except dist.DistError as error:
            raise RanksLost(f"rank {self.ranks.rank} lost the others: {first_sentence(error)}") from error

    def _lead(self, work: Callable[[Iterator[Item]], Iterator[Result]]) -> Iterator[Result]:
        """Work as the others do, yield what is ready in between, and say how it ended."""
        reason = "it was stopped"
        try:
            ready: dict[int, Result] = {}
            for result in work(self._draw()):
                ready[self._mine.popleft()] = result
                yield from self._in_turn(ready)
            with waiting("waiting for results", is_long=True):
                while self._next < self._end():
                    yield from self._in_turn(ready)
                    time.sleep(_POLL_SECONDS)
            if self._failure is not None:
                raise self._failure
            self._wait_for_others("done")
            reason = ""
        except BaseException as error:
            reason = reason_of(error) if isinstance(error, Exception) else reason
            raise
        finally:
            with suppress(dist.DistError):
                self._store.set("finished", json.dumps([self.ranks.lost, reason]))
        if self.ranks.lost:  # no barrier keeps this process, which may hold the store, until the others know
            self._wait_for_others("left")

    def _follow(self, work: Callable[[Iterator[Item]], Iterator[Result]]) -> None:
        for result in work(self._draw()):
            self._put(f"result/{self._mine.popleft()}", result)
        self._store.set(f"done/{self.ranks.rank}", "")
        with waiting("waiting for results", is_long=True):
            while not self._store.check(["finished"]):
                self._require_main()
                time.sleep(_POLL_SECONDS)
        lost, reason = json.loads(self._store.get("finished"))
        if reason:
            raise RanksLost(f"rank {self.ranks.rank} stops, as rank 0 has failed: {reason}")
        self.ranks.lost.extend(lost)
        self._store.set(f"left/{self.ranks.rank}", "")

    def _draw(self) -> Iterator[Item]:
        while True:
            number = self._store.add("drawn", 1) - 1
            self._store.set(f"owner/{number}", str(self.ranks.rank))
            while not self._store.check([f"item/{number}"]):
                if self._store.check(["finished"]) or (self._store.check(["end"]) and number >= self._end()):
                    return
                self._require_main()
                time.sleep(_POLL_SECONDS)
            self._mine.append(number)
            yield pickle.loads(self._store.get(f"item/{number}"))

    def _in_turn(self, ready: dict[int, Result]) -> Iterator[Result]:
        """Yield results for as long as the next one is there; `ready` has those of this rank."""
        while True:
            number = self._next
            is_lost = False
            if number not in ready:
                if self._store.check([f"result/{number}"]):
                    ready[number] = pickle.loads(self._store.get(f"result/{number}"))
                elif not (is_lost := self._is_lost(number)):
                    return
            for kind in ("result", "item", "owner"):  # a million of them would fill the store
                self._store.delete_key(f"{kind}/{number}")
            self._next += 1
            if not is_lost:
                yield ready.pop(number)

    def _is_lost(self, number: int) -> bool:
        """Return whether the owner of an item has died without a result; its item is noted then."""
        if number >= self._store.add("drawn", 0) or not self._store.check([f"item/{number}"]):
            return False
        owner = int(self._store.get(f"owner/{number}")) if self._store.check([f"owner/{number}"]) else None
        if owner is None:  # it died between the two, if it does not say so very soon
            if time.monotonic() - self._ownerless.setdefault(number, time.monotonic()) < self._lost_seconds:
                return False
        elif owner == self.ranks.rank or not self._is_silent(owner):
            return False
        if self._store.check([f"result/{number}"]):  # its last words
            return False
        self.lost_items.append(pickle.loads(self._store.get(f"item/{number}")))
        return True

    def _wait_for_others(self, word: str) -> None:
        """Wait until every other rank has said a word, or has died."""
        for rank in range(1, self.ranks.world_size):
            while not self._store.check([f"{word}/{rank}"]) and not self._is_silent(rank):
                time.sleep(_POLL_SECONDS)

    def _is_silent(self, rank: int) -> bool:
        """Return whether nothing has been heard of a rank for so long that it counts as lost; rank 0 notes it."""
        if rank in self.ranks.lost:
            return True
        assert self.ranks.watch is not None
        is_silent = self.ranks.watch.notes.silence(rank) > self._lost_seconds
        if is_silent and self.ranks.is_main:
            self.ranks.lost.append(rank)
        return is_silent

    def _require_main(self) -> None:
        if not self.ranks.is_main and self._is_silent(0):
            raise RanksLost(f"rank 0 has been silent for {self._lost_seconds:g} s; the same command goes on from here")

    def _put(self, key: str, value: object) -> None:
        self._store.set(key, pickle.dumps(value))  # type: ignore[arg-type]  # takes bytes as well

    def _end(self) -> int:
        return int(self._store.get("end"))

    @contextmanager
    def _fed(self, items: Iterable[Item]) -> Iterator[None]:
        """Hand items out inside the `with` block, on rank 0."""
        feeder = threading.Thread(target=self._feed, args=(items,), daemon=True)
        if self.ranks.is_main:
            feeder.start()
        try:
            yield
        finally:
            self._stop.set()
            if self.ranks.is_main:
                feeder.join(_STOP_SECONDS)

    def _feed(self, items: Iterable[Item]) -> None:
        """Put a few more items into the store than have been drawn, as there may be a million."""
        count = 0
        try:
            for item in items:
                self._put(f"item/{count}", item)
                count += 1
                ahead = _AHEAD_PER_RANK * self.ranks.world_size
                while count >= self._store.add("drawn", 0) + ahead and not self._stop.wait(_POLL_SECONDS):
                    pass
                if self._stop.is_set():
                    return
        except BaseException as error:  # of any kind: it is raised where rank 0 collects
            self._failure = error
        with suppress(dist.DistError):
            self._store.set("end", str(count))
