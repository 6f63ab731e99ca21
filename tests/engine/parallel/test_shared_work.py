"""Work that is drawn: order, slow ranks, and what the death of a rank costs; the ranks are work_jobs.py's."""

from __future__ import annotations

import json
import os
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import warm

from dualformer_cli.engine.parallel.ranks import init_ranks
from dualformer_cli.engine.parallel.shared_work import SharedWork

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[2]


class Worlds:
    """What the ranks of each world stored, and the notes that they wrote for each other."""

    def __init__(self, folder: Path, stderr: str) -> None:
        self.folder, self.stderr = folder, stderr

    def seen(self, world: str, rank: int) -> Any:
        path = self.folder / f"{world}-{rank}.pt"
        assert path.exists(), (path.name, self.stderr)
        return torch.load(path, weights_only=True)

    def note(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    folder = tmp_path_factory.mktemp("worlds")
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, str(HERE / "work_jobs.py"), str(folder)]
    done = warm.run(command, env=environment)
    assert done.returncode == 0, done.stderr
    return Worlds(folder, done.stderr)


@pytest.mark.parametrize(("world", "size"), [("two", 2), ("three", 3)])
def test_results_come_in_the_order_of_the_items_whoever_did_them(worlds: Worlds, world: str, size: int) -> None:
    runs = worlds.seen(world, 0)["runs"]
    assert [[square for square, _ in run] for run in runs] == [
        [number * number for number in range(count)] for count in (100, 0, 5, 400)
    ]
    assert {rank for _, rank in runs[3]} == set(range(size))
    for rank in range(1, size):
        assert worlds.seen(world, rank)["runs"] == [[], [], [], []]
    assert [worlds.seen(world, rank)["lost"] for rank in range(size)] == [[]] * size


@pytest.mark.parametrize(("world", "size"), [("two", 2), ("three", 3)])
def test_the_store_keeps_nothing_of_items_that_are_done(worlds: Worlds, world: str, size: int) -> None:
    keys = worlds.seen(world, 0)["keys"]
    grown = [after - before for before, after in pairwise(keys)]
    assert max(grown) <= 3 + 4 * size, "drawn, end and finished; a beat, a draw in vain and two words of each rank"
    assert grown[3] <= grown[1] + size, "400 items leave no more behind than none"


def test_a_slow_rank_does_not_hold_the_others_up(worlds: Worlds) -> None:
    seen = worlds.seen("slow", 0)
    assert [item for item, _ in seen] == list(range(60))
    assert [rank for _, rank in seen].count(1) == 1


@pytest.mark.parametrize(("world", "size"), [("killed_of_two", 2), ("killed_of_three", 3)])
def test_a_rank_that_is_killed_costs_what_it_had_in_hand(worlds: Worlds, world: str, size: int) -> None:
    done, *in_hand = worlds.note(f"killed-{size}")
    seen = worlds.seen(world, 0)
    count = worlds.note(f"killed-count-{size}")
    assert seen["lost_items"] == in_hand
    assert seen["lost"] == [1]
    assert seen["seen"] == [item for item in range(count) if item not in in_hand]
    assert done in seen["seen"]
    if size == 3:
        assert worlds.seen(world, 2) == {"seen": [], "lost": [1], "lost_items": []}


@pytest.mark.parametrize("size", [2, 3])
def test_results_behind_a_lost_item_are_not_held_back_until_the_end(worlds: Worlds, size: int) -> None:
    assert 50 < worlds.note(f"killed-count-{size}") < 5000


def test_an_error_among_the_items_ends_all_ranks_in_words_and_no_result_is_lost(worlds: Worlds) -> None:
    main, other = (worlds.seen("failing_items", rank) for rank in (0, 1))
    assert main == {"seen": list(range(1, 21)), "message": "the list is gone"}
    assert other == {"seen": [], "message": "rank 1 stops, as rank 0 has failed: the list is gone"}


def test_an_error_of_the_work_on_rank_0_ends_all_ranks_in_words(worlds: Worlds) -> None:
    assert worlds.seen("failing_work", 0) == "no space left for 0"
    assert worlds.seen("failing_work", 1) == "rank 1 stops, as rank 0 has failed: no space left for 0"


def test_items_are_listed_only_a_few_ahead(worlds: Worlds) -> None:
    seen = worlds.seen("ahead", 0)
    assert len(seen) == 100
    assert 1 < seen[0] <= 1 + 2 * 4, "one is in hand, and four wait for each of the two ranks"


def test_without_rank_0_the_others_end_in_words(worlds: Worlds) -> None:
    assert worlds.seen("no_main", 1).startswith("RanksLost: rank 1 lost the others: ")
    silent = "RanksLost: rank 0 has been silent for 1 s; the same command goes on from here"
    assert worlds.seen("no_main_but_store", 1) == silent


def test_one_process_works_on_all_items_as_they_come() -> None:
    listed: list[int] = []

    def items() -> Any:
        for number in range(3):
            listed.append(number)
            yield number

    with init_ranks("cpu") as ranks:
        results = SharedWork[int](ranks).in_order(items(), lambda drawn: (item * 10 for item in drawn))
        assert next(results) == 0
        assert listed == [0]
        assert list(results) == [10, 20]
