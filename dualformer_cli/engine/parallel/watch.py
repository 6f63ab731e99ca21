"""What every rank does and since when, so that ranks that wait can say for whom, and give up when it takes too long.

A thread of each rank keeps a note about its main thread in the store by which the ranks have met, and reads those of
the others. Exchanges are counted, the same on all ranks: who has entered fewer is who is waited for.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import inf
from time import monotonic, process_time, sleep, thread_time
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist

from dualformer_cli.system.words import duration_in_words, some_of

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_LOGGER = logging.getLogger(__name__)

BEAT_SECONDS = 2.0
"""Time between two notes of a rank."""
LINE_SECONDS = 60.0
"""Time between two lines about a wait."""
GRACE_SECONDS = 15.0
"""For so long the other ranks leave the last word to the one that speaks, and a rank may be slow to send a note."""
STACK_SECONDS = 6.0
"""For so long a rank is asked where it is."""
IDLE_SECONDS = 60.0
"""A rank whose process has computed nothing for so long hangs, whatever it does: reading, waiting for a network or for
decoders computes a little."""
_ALIVE = 0.01
"""Of a core: what counts as computing."""
SECONDS_AFTER_A_SIGNAL = 25.0
"""For so long a rank that shall end waits for the others; schedulers kill after 30."""
_MOST_NAMED = 4
_FRAMES = 12


class Activity(NamedTuple):
    """What a rank does."""

    what: str = "starting"
    since: float = 0.0
    """By the clock of its process; in a note, for how many seconds."""
    is_long: bool = True
    """Whether it may take as long as it likes, unless it is idle: a start with its downloads, validating, saving."""
    is_waiting: bool = False
    """Whether it is in an exchange."""
    exchange: int = 0
    """How many exchanges it has entered."""
    asked: tuple[int, ...] = ()
    """Ranks that it asks for their stacks."""
    idle: float = 0.0
    """For how many seconds its process has computed nothing."""


_activity = Activity()
"""Of this process."""
_watch: Watch | None = None
"""Of this process, where it is one of several."""


def doing(what: str) -> None:
    """Note what this rank does from here on; the others wait for it no longer than the exchange timeout."""
    _begin(what)


@contextmanager
def long_work(what: str) -> Iterator[None]:
    """Note what this rank does inside the `with` block, for which the others wait as long as it computes anything."""
    with _noted(what, is_long=True):
        yield


@contextmanager
def waiting(what: str, *, is_long: bool = False) -> Iterator[None]:
    """Note that this rank is in an exchange inside the `with` block, which all ranks enter.

    Args:
        what: the exchange.
        is_long: whether it waits for what a rank does alone, however long that takes.
    """
    with _noted(what, is_long=is_long, is_waiting=True):
        yield


@contextmanager
def _noted(what: str, *, is_long: bool, is_waiting: bool = False) -> Iterator[None]:
    global _activity
    before = _activity
    _begin(what, is_long=is_long, is_waiting=is_waiting)
    try:
        yield
    finally:
        since = before.since if is_waiting else monotonic()
        _activity = before._replace(since=since, exchange=_activity.exchange)


def _begin(what: str, *, is_long: bool = False, is_waiting: bool = False) -> None:
    global _activity
    _activity = Activity(what, monotonic(), is_long, is_waiting, _activity.exchange + is_waiting)


def end_of_wait(began: float) -> str | None:
    """Return who did not come, where an exchange has waited too long; None while it may wait.

    Args:
        began: when it began, by the monotonic clock.
    """
    return None if _watch is None else _watch.end_of_wait(began)


def give_up_soon() -> None:
    """Wait for no exchange much longer, as this process has been asked to end."""
    if _watch is not None:
        _watch.hurry()


class Notes:
    """The notes of all ranks about what they do, as this rank knows them.

    Args:
        store: that keeps them.
        rank: number of this process.
        world_size: number of processes.
    """

    def __init__(self, store: Store, rank: int, world_size: int) -> None:
        self.rank, self.world_size = rank, world_size
        self.looked = monotonic()
        self._store = store.clone()  # a connection of its own: another thread's call never holds up a note
        self._notes = [b""] * world_size
        self._heard = [monotonic()] * world_size
        """When each rank's note has changed."""

    def publish(self, *, asked: Sequence[int] = (), idle: float = 0.0) -> None:
        """Write what this rank does, whom it asks for their stacks, and for how many seconds it has been idle."""
        now = _activity
        note = now._replace(since=round(monotonic() - now.since, 3), asked=tuple(asked), idle=round(idle, 3))
        self._store.set(f"note/{self.rank}", json.dumps(note))

    def read(self) -> list[Activity]:
        """Return what each rank does."""
        notes = self._store.multi_get([f"note/{rank}" for rank in range(self.world_size)])
        self.looked = monotonic()
        for rank, note in enumerate(notes):
            if note != self._notes[rank]:
                self._notes[rank], self._heard[rank] = note, self.looked
        return [Activity(*json.loads(note)) for note in notes]

    def absent(self) -> list[int]:
        """Return the ranks that have written none yet."""
        return [rank for rank in range(self.world_size) if not self._store.check([f"note/{rank}"])]

    def silence(self, rank: int) -> float:
        """Return for how many seconds nothing has been heard of a rank."""
        return self.looked - self._heard[rank]

    def stacks(self, ranks: Sequence[int]) -> dict[int, str]:
        """Return where other ranks are, in Python; in words, where one does not answer."""
        others = [rank for rank in ranks if rank != self.rank]
        for rank in others:
            self._store.delete_key(f"stack/{rank}")  # of an earlier wait
        self.publish(asked=others)
        deadline = monotonic() + (STACK_SECONDS if others else 0)
        stacks = {self.rank: stack_here()} if self.rank in ranks else {}
        while len(stacks) < len(ranks) and monotonic() < deadline:
            sleep(BEAT_SECONDS / 10)
            for rank in others:
                if rank not in stacks and self._store.check([f"stack/{rank}"]):
                    stacks[rank] = self._store.get(f"stack/{rank}").decode()
        silent = "  no answer: it is stopped, gone, or deep in code that is not Python"
        return {rank: stacks.get(rank, silent) for rank in ranks}

    def answer(self, seen: Sequence[Activity]) -> None:
        """Send this rank's stack to whoever asks."""
        if any(self.rank in each.asked for each in seen):
            self._store.set(f"stack/{self.rank}", stack_here())


class Watch:
    """The thread of a rank; it runs inside the `with` block.

    Args:
        store: by which the ranks have met.
        rank: number of this process.
        world_size: number of processes.
        timeout: for how many seconds an exchange may wait for a rank that does not come.
        lost: ranks without which the work goes on.
    """

    def __init__(self, store: Store, rank: int, world_size: int, *, timeout: float, lost: list[int]) -> None:
        self.rank, self.world_size, self.timeout, self.lost = rank, world_size, timeout, lost
        self.store = store
        self.notes = Notes(store, rank, world_size)
        self._wait = _Wait()
        self._pulse = _Pulse()
        self._most = inf
        """Seconds of a wait for a process that shall end."""
        self._verdict: str | None = None
        """Why the wait of this rank is over."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        global _watch, _activity
        _activity = Activity(since=monotonic())
        self.notes.publish()
        _watch = self
        return self

    def start(self) -> None:
        """Begin to look at the others, all of which have entered."""
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        global _watch
        _watch = None
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(BEAT_SECONDS)

    def end_of_wait(self, began: float) -> str | None:
        """Do what the function of this name says."""
        if self._verdict is None and monotonic() - max(began, self.notes.looked) > self.timeout + GRACE_SECONDS:
            return (
                f"rank {self.rank} of {self.world_size} is cut off: for {duration_in_words(self.timeout)} neither the "
                "other ranks nor the store by which they met have answered"
            )
        return self._verdict

    def hurry(self) -> None:
        """Do what `give_up_soon` says."""
        self._most = min(self._most, self._wait.counted + SECONDS_AFTER_A_SIGNAL)

    def _run(self) -> None:
        with suppress(dist.DistError):  # the main thread finds out by itself, and says so
            while not self._stop.wait(BEAT_SECONDS):
                self.notes.publish(idle=self._pulse.idle())
                self._look()

    def _look(self) -> None:
        """Read all notes; answer, speak and give up where it is time."""
        before = self.notes.looked
        seen = self.notes.read()
        passed = min(self.notes.looked - before, 2 * BEAT_SECONDS)  # not while this process was stopped
        self.notes.answer(seen)
        waiters = [each for rank, each in enumerate(seen) if each.is_waiting and rank not in self.lost]
        number = max((each.exchange for each in waiters), default=0)
        if number != self._wait.number:
            self._wait, self._verdict = _Wait(number), None
        if not waiters:
            return
        wait = self._wait
        wait.missing = [rank for rank, each in enumerate(seen) if each.exchange < number and rank not in self.lost]
        last = [each for each in waiters if each.exchange == number]
        wait.what, wait.waited = last[0].what, max(each.since for each in last)
        if not wait.missing or any(self._counts(rank, seen[rank], last[0]) for rank in wait.missing):
            wait.counted += passed
        self._speak(seen)
        if wait.counted > min(self.timeout, self._most) + (0 if self._speaks() else GRACE_SECONDS):
            self._give_up(seen)

    def _counts(self, rank: int, activity: Activity, waiter: Activity) -> bool:
        """Return whether the time of waiting for a rank is limited."""
        hangs = self.notes.silence(rank) > GRACE_SECONDS or activity.idle > IDLE_SECONDS
        return hangs or not (activity.is_long or waiter.is_long)

    def _speaks(self) -> bool:
        """Return whether this is the first rank that is alive, which speaks for all."""
        alive = [rank for rank in range(self.world_size) if self.notes.silence(rank) <= GRACE_SECONDS]
        return self.rank == min(alive, default=self.rank)

    def _speak(self, seen: Sequence[Activity]) -> None:
        lines = int(self._wait.waited // LINE_SECONDS)
        if lines > self._wait.lines and self._speaks():
            level = logging.WARNING if self.rank == 0 else logging.ERROR  # others say less, and rank 0 cannot speak
            _LOGGER.log(level, "%s: all wait for %s", duration_in_words(self._wait.waited), self._missing(seen))
        self._wait.lines = lines

    def _missing(self, seen: Sequence[Activity]) -> str:
        """Return who is waited for, and what each last did."""
        if not (missing := self._wait.missing):
            return f"the network: all ranks are {self._wait.what}"
        return some_of([f"rank {rank} ({self._doing_of(rank, seen[rank])})" for rank in missing], _MOST_NAMED)

    def _doing_of(self, rank: int, activity: Activity) -> str:
        silence = self.notes.silence(rank)
        if silence > GRACE_SECONDS:
            return f"not heard for {duration_in_words(silence)}, last seen {activity.what}"
        hangs = f", idle for {duration_in_words(activity.idle)}" if activity.idle > IDLE_SECONDS else ""
        return f"{activity.what} for {duration_in_words(activity.since)}{hangs}"

    def _give_up(self, seen: Sequence[Activity]) -> None:
        """Log where the missing ranks are, and end this rank's wait; a rank that does not wait goes on."""
        wait = self._wait
        if wait.is_over:
            return
        wait.is_over = True
        for rank, stack in self.notes.stacks(wait.missing[:_MOST_NAMED]).items():
            for line in (f"rank {rank} is here:", *stack.splitlines()):
                _LOGGER.error("%s", line)
        if _activity.is_waiting and _activity.exchange == wait.number:
            self._verdict = (
                f"rank {self.rank} of {self.world_size} has waited {duration_in_words(wait.counted)} for "
                f"{self._missing(seen)} while {wait.what}; runtime.exchange_timeout allows "
                f"{duration_in_words(self.timeout)}"
            )


class _Pulse:
    """Whether this process computes, but for the thread that asks."""

    def __init__(self) -> None:
        self._computed, self._asked = process_time(), monotonic()
        self._last = self._asked
        """When it has last been seen to compute."""

    def idle(self) -> float:
        """Return for how many seconds it has not."""
        computed, now = process_time() - thread_time(), monotonic()
        if computed - self._computed > _ALIVE * (now - self._asked):
            self._last = now
        self._computed, self._asked = computed, now
        return now - self._last


class _Wait:
    """The wait in hand: for the exchange with the highest number that a rank has entered."""

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.missing: list[int] = []
        self.what = ""
        self.waited = 0.0
        self.counted = 0.0
        """Seconds of it that count against the limit."""
        self.lines = 0
        """Said about it."""
        self.is_over = False


def stack_here() -> str:
    """Return the stacks of this process's Python threads, the main one first, and what NCCL's recorder has."""
    frames = sys._current_frames()
    threads = sorted(threading.enumerate(), key=lambda thread: thread is not threading.main_thread())
    parts = []
    for thread in threads:
        frame = frames.get(thread.ident or 0)
        if frame is not None and thread is not threading.current_thread():
            parts.append(f"  thread {thread.name}\n" + "".join(traceback.format_stack(frame)[-_FRAMES:]).rstrip())
    record = getattr(torch._C._distributed_c10d, "_dump_nccl_trace_json", None)
    if record is not None and torch.cuda.is_initialized():
        parts.append("  NCCL's flight recorder: " + record(onlyActive=True).decode())
    return "\n".join(parts)
