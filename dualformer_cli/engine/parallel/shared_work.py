"""Work that is drawn: each rank takes the next item when it is free, so that none waits for a slower one.

Items go out, and results come back, through the store by which the ranks of a run have met; no exchange needs all of
them. A rank that dies costs what it had in hand.
"""

from __future__ import annotations

import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.reductions import RanksLost, first_sentence

Item = TypeVar("Item")
Result = TypeVar("Result")

LOST_SECONDS = 60.0
"""A rank of which nothing is heard for so long is taken for dead."""
_BEAT_SECONDS = 2.0
_POLL_SECONDS = 0.02
_AHEAD_PER_RANK = 4


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
        self._mine: deque[int] = deque()
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
            RanksLost: if the store is gone; on other ranks also if rank 0 is silent.
        """
        if self.ranks.world_size == 1:
            yield from work(iter(items))
            return
        self._store = PrefixStore("shared-work", _get_default_store())
        try:
            with self._threads(items):
                if self.ranks.is_main:
                    yield from self._collect(work)
                else:
                    for result in work(self._draw()):
                        self._put(f"result/{self._mine.popleft()}", result)
                    self._wait_for_main()
        except dist.DistError as error:
            raise RanksLost(f"rank {self.ranks.rank} lost the others: {first_sentence(error)}") from error

    def _collect(self, work: Callable[[Iterator[Item]], Iterator[Result]]) -> Iterator[Result]:
        """Work as the others do, and yield what is ready in between; at the end wait for the others."""
        ready: dict[int, Any] = {}
        number = 0

        def next_ones() -> Iterator[Result]:
            nonlocal number
            while True:
                if number in ready:
                    result = ready.pop(number)
                elif self._store.check([f"result/{number}"]):
                    result = pickle.loads(self._store.get(f"result/{number}"))
                else:
                    return
                for kind in ("result", "item", "owner"):  # a million of them would fill the store
                    self._store.delete_key(f"{kind}/{number}")
                yield result
                number += 1

        for result in work(self._draw()):
            ready[self._mine.popleft()] = result
            yield from next_ones()
        if self._failure is not None:
            raise self._failure
        silent = _Silence(self._lost_seconds)
        while number < self._end():
            yield from next_ones()
            if number < self._end() and self._is_lost(number, silent):
                number += 1
            time.sleep(_POLL_SECONDS)
        self._store.set("finished", ",".join(map(str, self.ranks.lost)))

    def _draw(self) -> Iterator[Item]:
        while True:
            number = self._store.add("drawn", 1) - 1
            self._store.set(f"owner/{number}", str(self.ranks.rank))
            silent = _Silence(self._lost_seconds)
            while not self._store.check([f"item/{number}"]):
                if self._store.check(["end"]) and number >= self._end():
                    return
                self._require_main(silent)
                time.sleep(_POLL_SECONDS)
            self._mine.append(number)
            yield pickle.loads(self._store.get(f"item/{number}"))

    def _is_lost(self, number: int, silent: _Silence) -> bool:
        """Return whether the owner of an item has died without a result; its item is noted then."""
        owner = int(self._store.get(f"owner/{number}")) if self._store.check([f"owner/{number}"]) else None
        if owner == self.ranks.rank or not silent.of(owner, self._beat_of(owner)):
            return False
        if self._store.check([f"result/{number}"]):  # its last words
            return False
        if owner is not None and owner not in self.ranks.lost:
            self.ranks.lost.append(owner)
        self.lost_items.append(pickle.loads(self._store.get(f"item/{number}")))
        return True

    def _wait_for_main(self) -> None:
        silent = _Silence(self._lost_seconds)
        while not self._store.check(["finished"]):
            self._require_main(silent)
            time.sleep(_POLL_SECONDS)
        lost = self._store.get("finished").decode()
        self.ranks.lost.extend(int(rank) for rank in lost.split(",") if rank)

    def _require_main(self, silent: _Silence) -> None:
        if not self.ranks.is_main and silent.of(0, self._beat_of(0)):
            raise RanksLost(f"rank 0 has been silent for {self._lost_seconds:g} s; the same command goes on from here")

    def _put(self, key: str, value: object) -> None:
        self._store.set(key, pickle.dumps(value))  # type: ignore[arg-type]  # takes bytes as well

    def _beat_of(self, rank: int | None) -> int:
        return 0 if rank is None else self._store.add(f"beat/{rank}", 0)

    def _end(self) -> int:
        return int(self._store.get("end"))

    @contextmanager
    def _threads(self, items: Iterable[Item]) -> Iterator[None]:
        threads = [threading.Thread(target=self._beat, daemon=True)]
        if self.ranks.is_main:
            threads.append(threading.Thread(target=self._feed, args=(items,), daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(_BEAT_SECONDS)

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT_SECONDS):
            self._store.add(f"beat/{self.ranks.rank}", 1)

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
        self._store.set("end", str(count))


class _Silence:
    """For how long a rank's counter has stood still."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._seen: dict[int | None, tuple[int, float]] = {}

    def of(self, rank: int | None, beats: int) -> bool:
        """Return whether the rank has been silent for too long; `beats` is its counter now."""
        now = time.monotonic()
        before, since = self._seen.setdefault(rank, (beats, now))
        if beats != before:
            self._seen[rank] = (beats, now)
            return False
        return now - since > self._seconds
