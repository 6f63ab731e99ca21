"""Ranks that wait: who is named, who is given up, and what may take as long as it takes."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import warm

from dualformer_cli.engine.parallel import joining, watch
from dualformer_cli.engine.parallel.placement import Placement
from dualformer_cli.engine.parallel.ranks import init_ranks
from dualformer_cli.errors import DualFormerError

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What a rank of a world stored."""
    folder = tmp_path_factory.mktemp("watch")
    command = [sys.executable, str(HERE / "watch_jobs.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent.parent.parent), "OMP_NUM_THREADS": "1"}
    done = warm.run(command, env=environment)
    assert done.returncode == 0, done.stderr

    def of(world: str, rank: int = 0) -> Any:
        path = folder / f"{world}-{rank}.pt"
        assert path.exists(), done.stderr
        return torch.load(path, weights_only=True)

    return of


def test_a_rank_that_does_not_come_is_named_and_given_up_with_its_stack(seen: Any) -> None:
    found = seen("late")
    assert re.fullmatch(
        r"RanksLost: rank 0 of 2 has waited \d+ s for rank 1 \(reading the clips of step 7 for \d+ s\) while agreeing "
        r"on what to do next; runtime.exchange_timeout allows 2 s",
        found["error"],
    )
    assert found["seconds"] >= 1.5
    lines = found["lines"]
    assert re.fullmatch(r"1 s: all wait for rank 1 \(reading the clips of step 7 for \d+ s\)", lines[0])
    stack = lines[lines.index("rank 1 is here:") :]
    assert stack[1] == "  thread MainThread"
    assert any(line.endswith("in sleep_in_a_loader") for line in stack)


def test_a_rank_that_hangs_in_work_without_a_limit_is_given_up_when_its_process_has_been_idle(seen: Any) -> None:
    found = seen("asleep")
    assert re.search(r"for rank 1 \(starting for \d+ s, idle for \d+ s\) while agreeing on what to do", found["error"])
    assert "rank 1 is here:" in found["lines"]


def test_a_rank_that_is_stopped_is_given_up_whatever_it_does(seen: Any) -> None:
    found = seen("stopped")
    assert re.search(r"for rank 1 \(not heard for \d+ s, last seen validating\) while gathering", found["error"])
    place = found["lines"].index("rank 1 is here:")
    assert found["lines"][place + 1] == "  no answer: it is stopped, gone, or deep in code that is not Python"


def test_what_a_rank_does_alone_may_take_longer_than_the_timeout_and_is_named(seen: Any) -> None:
    assert seen("long_works", 1)["found"] == "made"
    assert seen("long_works", 1)["lines"] == [], "rank 0 speaks for all"
    lines = seen("long_works", 0)["lines"]
    assert any("all wait for rank 0 (saving for " in line for line in lines)
    assert not any("is here" in line for line in lines)


def test_an_interrupt_ends_a_wait_at_once(seen: Any) -> None:
    assert 0.2 < seen("interrupted") < 10


def test_a_rank_that_is_asked_to_end_waits_for_the_others_a_short_while(seen: Any) -> None:
    assert seen("ended") == 143


@pytest.mark.parametrize(("rank", "other"), [(0, 1), (1, 0)])
def test_sigterm_is_obeyed_while_ranks_join_and_a_line_says_who_is_waited_for(rank: int, other: int, seen: Any) -> None:
    found = seen("absent", rank)
    assert found["code"] == 143
    assert len(found["lines"]) == 1
    line = rf"rank {rank} of 2 waits at 127\.0\.0\.1:\d+ for rank {other}, for 10 min at most"
    assert re.fullmatch(line, found["lines"][0])


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Environment variables of a rank of two."""
    monkeypatch.setattr(joining, "UNKNOWN_HOST_SECONDS", 0.0)

    def set_variables(**others: str | None) -> None:
        variables = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", **others}
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return set_variables


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"MASTER_ADDR": None},
            "environment variable MASTER_ADDR, the machine of rank 0, is not set, but this is rank",
        ),
        ({"MASTER_PORT": None}, "environment variable MASTER_PORT must be a whole number, but is not set"),
        ({"MASTER_PORT": "70000"}, "environment variable MASTER_PORT must be between 1 and 65535, but is 70000"),
        ({"RANK": None}, "environment variable RANK must be a whole number, but is not set; start with torchrun"),
        ({"RANK": "1", "MASTER_ADDR": "no.invalid"}, "rank 1 of 2 could not .* no machine 'no.invalid' is known here"),
        ({"RANK": "0", "MASTER_ADDR": "no.invalid"}, "rank 0 of 2 could not .* no machine 'no.invalid' is known here"),
        ({"RANK": "1"}, "rank 1 of 2 could not .*127.0.0.1:1: rank 0 did not come within 1 s; check that all of them"),
    ],
)
def test_what_keeps_ranks_apart_is_named(variables: dict[str, str | None], message: str, world: Any) -> None:
    world(**variables)
    with pytest.raises(DualFormerError, match=message), init_ranks("cpu", timeout=0.5):
        pass


def test_a_port_in_use_is_named(world: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        world(MASTER_PORT=str(other.getsockname()[1]))
        wanted = f"another program has port {other.getsockname()[1]} of this machine, set another MASTER_PORT"
        with pytest.raises(DualFormerError, match=wanted), init_ranks("cpu", timeout=0.5):
            pass
    assert not capfd.readouterr().err, "the library's own account"


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "1"}, "there is a rank 1 already, or another run has the same MASTER_PORT"),
        ({"RANK": "0", "WORLD_SIZE": "3"}, "another of them says that they are 2"),
    ],
)
def test_processes_that_are_no_ranks_of_this_run_are_named(
    variables: dict[str, str], message: str, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)
    world(MASTER_PORT=str(store.port), TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0", RANK="1")
    monkeypatch.setattr(joining, "_RUNS", iter([0, 0]))
    with pytest.raises(DualFormerError, match="rank 0 did not come"), init_ranks("cpu", timeout=0.3):
        pass
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DualFormerError, match=message), init_ranks("cpu", timeout=0.3):
        pass


def test_ranks_of_launchers_with_other_counts_of_restarts_meet(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher that comes in place of a lost one has restarted nothing; rank 0 serves a store of its own then."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(joining, "_RUNS", iter([0, 0]))
    stores = []
    for rank, restarts in ((0, "1"), (1, "0")):
        world(MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="False", TORCHELASTIC_RESTART_COUNT=restarts)
        stores.append(joining.Joining(Placement(rank=rank, world_size=2), 20.0).store())
    stores[0].set("said", "hello")
    assert stores[1].get("said") == b"hello"  # waits: the server may hear of the second before the first


def test_a_stack_has_what_nccl_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "NCCL" not in watch.stack_here()
    library = torch._C._distributed_c10d
    monkeypatch.setattr(library, "_dump_nccl_trace_json", lambda *, onlyActive: b"[%d]" % onlyActive, raising=False)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert watch.stack_here().endswith("  NCCL's flight recorder: [1]")
