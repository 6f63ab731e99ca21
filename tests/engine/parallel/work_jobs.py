"""Run by test_shared_work.py in a process of its own: worlds of forked ranks that draw work, each of which stores what
it saw.

Usage: work_jobs.py FOLDER. Writes FOLDER/WORLD-RANK.pt. One interpreter imports torch for all of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rank_jobs import World, free_ports, run_worlds
from torch.distributed.distributed_c10d import _get_default_store

from dualformer_cli.engine.parallel import watch
from dualformer_cli.engine.parallel.ranks import init_ranks
from dualformer_cli.engine.parallel.shared_work import SharedWork
from dualformer_cli.errors import DualFormerError

FOLDER = Path(sys.argv[1])
LOST_SECONDS = 1.0


def wait_for(name: str) -> None:
    """Wait until a rank has written a file of that name."""
    deadline = time.monotonic() + 30
    while not (FOLDER / name).exists():
        assert time.monotonic() < deadline, f"nobody wrote {name}"
        time.sleep(0.005)


def note(name: str, content: object = None) -> None:
    """Write a file for the other ranks, at once and whole."""
    temporary = FOLDER / f"{name}.part"
    temporary.write_text(json.dumps(content))
    temporary.rename(FOLDER / name)


def in_order(rank: int, world_size: int) -> dict[str, Any]:
    """Many items, then none, then a few; later items take less time."""

    def work(items: Iterator[int]) -> Iterator[list[int]]:
        held: list[int] = []  # as a pool of decoders does, it draws ahead
        for item in items:
            held.append(item)
            if len(held) == 3:
                time.sleep(0.002 * (held[0] % 7 == rank))
                yield [held.pop(0) ** 2, rank]
        for item in held:
            yield [item**2, rank]

    with init_ranks("cpu") as ranks:
        store = _get_default_store()
        keys = [store.num_keys()]
        runs = []
        for count in (100, 0, 5, 400):
            runs.append(list(SharedWork[int](ranks).in_order(range(count), work)))
            dist.barrier()
            keys.append(store.num_keys())
            dist.barrier()
    return {"runs": runs, "keys": keys, "lost": ranks.lost}


def slow_rank(rank: int, world_size: int) -> list[list[int]]:
    """Rank 1 is not done with its first item until the others have done all the rest."""
    done = 0

    def work(items: Iterator[int]) -> Iterator[list[int]]:
        nonlocal done
        for item in items:
            if rank == 1:
                note("slow-has-one")
                wait_for("slow-rest-is-done")
            wait_for("slow-has-one")
            done += 1
            if rank == 0 and done == 59:
                note("slow-rest-is-done")
            yield [item, rank]

    with init_ranks("cpu") as ranks:
        return list(SharedWork[int](ranks).in_order(range(60), work))


def killed_rank(rank: int, world_size: int) -> dict[str, Any]:
    """Rank 1 dies with two items in hand and one done; there are more items until later results have been seen."""
    seen: list[int] = []

    def items() -> Iterator[int]:
        number = 0
        while number < 5000 and not any(item > 50 for item in seen):
            yield number
            number += 1
        note(f"killed-count-{world_size}", number)

    def work(drawn: Iterator[int]) -> Iterator[int]:
        if rank == 1:
            first = next(drawn)
            yield first
            note(f"killed-{world_size}", [first, next(drawn), next(drawn)])
            os.kill(os.getpid(), signal.SIGKILL)
        for item in drawn:
            wait_for(f"killed-{world_size}")
            time.sleep(0.002)
            yield item

    with init_ranks("cpu") as ranks:
        shared = SharedWork[int](ranks, lost_seconds=LOST_SECONDS)
        for result in shared.in_order(items(), work):
            seen.append(result)
        return {"seen": seen, "lost": ranks.lost, "lost_items": shared.lost_items}


def failing_items(rank: int, world_size: int) -> dict[str, Any]:
    """The list of items ends in an error."""

    def items() -> Iterator[int]:
        yield from range(20)
        raise DualFormerError("the list is gone")

    seen: list[int] = []
    with init_ranks("cpu") as ranks:
        try:
            for result in SharedWork[int](ranks).in_order(items(), lambda drawn: (item + 1 for item in drawn)):
                seen.append(result)
            message = ""
        except DualFormerError as error:
            message = str(error)
        ranks.lost.append(-1)  # no barrier is needed: the files make rank 0, which has the store, the last one
        if rank == 0:
            wait_for("failing-1")
        note(f"failing-{rank}")
    return {"seen": seen, "message": message}


def failing_work(rank: int, world_size: int) -> str:
    """Rank 0's own work fails, as on a full disk, while rank 1 waits for items that never come."""

    def items() -> Iterator[int]:
        yield 0
        wait_for("work-1")

    def work(drawn: Iterator[int]) -> Iterator[int]:
        for item in drawn:
            note("work-drawn")
            if item == 0:
                raise DualFormerError("no space left for 0")
            yield item

    with init_ranks("cpu") as ranks:
        try:
            if rank == 1:
                wait_for("work-drawn")
            list(SharedWork[int](ranks).in_order(items(), work))
        except DualFormerError as error:
            ranks.lost.append(-1)
            if rank == 0:
                wait_for("work-1")
            note(f"work-{rank}")
            return str(error)
    return "nothing happened"


def few_ahead(rank: int, world_size: int) -> list[int]:
    """How many items were listed when the first one was done; rank 1 comes later."""
    listed = 0

    def items() -> Iterator[int]:
        nonlocal listed
        for number in range(100):
            listed += 1
            yield number

    def work(drawn: Iterator[int]) -> Iterator[int]:
        if rank == 1:
            wait_for("ahead-first-is-done")
        for item in drawn:
            if item == 0:
                time.sleep(0.5)
                note("ahead-first-is-done")
            yield listed

    with init_ranks("cpu") as ranks:
        return list(SharedWork[int](ranks).in_order(items(), work))


def lose_main(rank: int, world_size: int) -> str:
    """Rank 0 dies while rank 1 works."""

    def work(drawn: Iterator[int]) -> Iterator[int]:
        for item in drawn:
            time.sleep(0.01)
            if rank == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield item

    try:
        with init_ranks("cpu") as ranks:
            list(SharedWork[int](ranks, lost_seconds=LOST_SECONDS).in_order(range(100), work))
    except DualFormerError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing happened"


def lose_main_with_store_elsewhere(rank: int, world_size: int) -> str:
    """The same where the launcher holds the store, as torchrun does."""
    os.environ.update(MASTER_PORT=str(STORE.port), TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
    return lose_main(rank, world_size)


def main() -> None:
    torch.set_num_threads(1)
    watch.BEAT_SECONDS = 0.1
    global STORE
    STORE = dist.TCPStore("127.0.0.1", *free_ports(1), None, True, timedelta(seconds=30), wait_for_workers=False)
    worlds = [
        World("two", in_order, 2),
        World("three", in_order, 3),
        World("slow", slow_rank, 2),
        World("killed_of_two", killed_rank, 2),
        World("killed_of_three", killed_rank, 3),
        World("failing_items", failing_items, 2),
        World("failing_work", failing_work, 2),
        World("ahead", few_ahead, 2),
        World("no_main", lose_main, 2),
        World("no_main_but_store", lose_main_with_store_elsewhere, 2),
    ]
    run_worlds(worlds, FOLDER)


if __name__ == "__main__":
    main()
