"""Several processes of one machine: their output, their signals and their ends, with light scripts in torch's place."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent

from dualformer_cli.engine.parallel.launch import _agent, relaunch
from dualformer_cli.errors import DualFormerError

REPOSITORY = Path(__file__).resolve().parents[3]

HEAD = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
rank, here = int(os.environ["RANK"]), Path(__file__).parent
def others_are_ready():
    (here / f"{rank}.ready").touch()
    while len(list(here.glob("*.ready"))) < int(os.environ["WORLD_SIZE"]):
        time.sleep(0.01)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
(here / f"{rank}.pid").write_text(f"{os.getpid()} {child.pid}")
"""

Launch = Callable[..., int]


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    """launch(body, *arguments): run a script in two processes; each starts with a child of its own."""
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)

    def run(body: str, *arguments: str) -> int:
        script = tmp_path / "rank.py"
        script.write_text(HEAD + body)
        return relaunch(2, device="cpu", argv=arguments, command=(sys.executable, str(script)))

    return run


def processes(folder: Path) -> list[int]:
    """Pids of the ranks and of their children."""
    return [int(pid) for path in sorted(folder.glob("*.pid")) for pid in path.read_text().split()]


def exists(pid: int) -> bool:
    """Whether the kernel knows the process, be it a zombie."""
    return Path(f"/proc/{pid}").exists()


def wait_until_gone(pids: list[int], seconds: float = 20.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if exists(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_every_rank_runs_the_command_and_rank_0_alone_is_heard(
    launch: Launch, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = dict(os.environ)
    body = """
print("stdout of", rank); print("stderr of", rank, file=sys.stderr)
names = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "MASTER_ADDR", "WORLD_SIZE", "LOCAL_RANK")
Path(f"{here}/{rank}.json").write_text(json.dumps([sys.argv[1:], *(os.environ[name] for name in names)]))
child.kill()
"""
    arguments = ["train", "--gpus", "2", "--preset", "a b", "--cpu-processes=2", "--gpus=2", "--", "--gpus", "x"]
    assert launch(body, *arguments) == 0
    assert capfd.readouterr() == ("stdout of 0\n", "stderr of 0\n")
    threads = str(max(1, len(os.sched_getaffinity(0)) // 2))
    for rank in (0, 1):
        seen = json.loads((tmp_path / f"{rank}.json").read_text())
        assert seen == [["train", "--preset", "a b", "--", "--gpus", "x"], threads, "", "127.0.0.1", "2", str(rank)]
    assert dict(os.environ) == before
    assert wait_until_gone(processes(tmp_path)) == []


@pytest.mark.parametrize("code", [3, 75, 130, 1])
def test_the_exit_code_of_rank_0_is_carried_through(
    code: int, launch: Launch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert launch(f"others_are_ready(); sys.exit({code} if rank == 0 else 0)") == code
    assert capfd.readouterr() == ("", "")
    assert wait_until_gone(processes(tmp_path)) == []


def test_where_processes_meet_is_closed_with_them(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    agents: list[LocalElasticAgent] = []

    def make(*arguments: Any) -> LocalElasticAgent:
        agents.append(_agent(*arguments))
        return agents[-1]

    monkeypatch.setattr("dualformer_cli.engine.parallel.launch._agent", make)
    assert launch("others_are_ready()") == 0
    assert not [each.name for each in threading.enumerate() if each.name.startswith("RendezvousKeepAlive")]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("SIGKILL", "perhaps because memory ran out"),
        ("SIGABRT", "as NCCL does when another rank or the link to it is gone"),
    ],
)
def test_a_dead_rank_is_named_and_takes_all_processes_along(
    launch: Launch, tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, reason: str
) -> None:
    body = f"others_are_ready()\nif rank == 1: os.kill(os.getpid(), signal.{name})\ntime.sleep(100)"
    message = f"rank 1 of 2 was killed by {name}, {reason}; all processes are stopped"
    with pytest.raises(DualFormerError, match=message):
        launch(body)
    assert capfd.readouterr() == ("", "")
    assert len(processes(tmp_path)) == 4
    assert wait_until_gone(processes(tmp_path)) == []


def test_the_message_of_a_rank_that_fails_is_passed_on(launch: Launch, capfd: pytest.CaptureFixture[str]) -> None:
    body = """
others_are_ready()
if rank == 1:
    print("warning: odd", file=sys.stderr); print("dualformer: no room left", file=sys.stderr); sys.exit(1)
time.sleep(100)
"""
    with pytest.raises(DualFormerError, match="rank 1 of 2 ended with exit code 1: no room left; all processes are st"):
        launch(body)
    assert capfd.readouterr() == ("", "")


def test_the_traceback_of_a_rank_that_fails_is_shown(launch: Launch, capfd: pytest.CaptureFixture[str]) -> None:
    body = "others_are_ready()\nif rank == 1: raise LookupError('a bug')\ntime.sleep(100)"
    with pytest.raises(DualFormerError, match="rank 1 of 2 ended with exit code 1; all processes are stopped"):
        launch(body)
    assert capfd.readouterr().err.endswith("LookupError: a bug\n")


SIGNALS = """
heard = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
    signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
others_are_ready()
if rank == 0:
    for _ in range(2):
        os.kill(os.getppid(), signal.Signals[sys.argv[1]])
        time.sleep(0.3)
while not heard:
    time.sleep(0.01)
time.sleep(1.0)
Path(f"{here}/{rank}.heard").write_text(" ".join(heard))
child.kill()
sys.exit(75 if rank == 0 else 0)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1"])
def test_a_signal_reaches_every_rank_once(name: str, launch: Launch, tmp_path: Path) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)]
    assert launch(SIGNALS, name) == 75
    assert [(tmp_path / f"{rank}.heard").read_text() for rank in (0, 1)] == [name, name]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)] == handlers


def test_a_second_interrupt_kills_ranks_that_do_not_listen(launch: Launch, tmp_path: Path) -> None:
    body = SIGNALS.replace("while not heard:", "while True:")
    with pytest.raises(KeyboardInterrupt):
        launch(body, "SIGINT")
    assert len(processes(tmp_path)) == 4
    assert wait_until_gone(processes(tmp_path)) == []


def test_ranks_that_just_die_of_a_forwarded_signal_are_no_failure(launch: Launch) -> None:
    body = "others_are_ready()\nif rank == 0: os.kill(os.getppid(), signal.SIGTERM)\ntime.sleep(100)"
    assert launch(body) == 128 + signal.SIGTERM


@pytest.mark.parametrize(
    ("wanted", "found", "message"),
    [
        (8, 2, "--gpus 8: this machine has 2 GPUs; use --gpus 2"),
        (2, 1, "--gpus 2: this machine has 1 GPU; use --gpus 1"),
        (2, 0, "--gpus 2: this machine has no GPU; use --cpu-processes 2"),
        (8, 0, "--gpus 8: this machine has no GPU; use --cpu-processes 3"),
        (0, 1, "the number of processes must be at least 1, got 0"),
    ],
)
def test_more_gpus_than_the_machine_has_are_refused(
    wanted: int, found: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: found)
    monkeypatch.setattr("dualformer_cli.engine.parallel.launch.usable_cores", lambda: 3)
    with pytest.raises(DualFormerError) as caught:
        relaunch(wanted, device="cuda", argv=[])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("wanted", "cores", "message"),
    [
        (8, 2, "--cpu-processes 8: this machine has 2 cores; use --cpu-processes 2"),
        (2, 1, "--cpu-processes 2: this machine has 1 core; use --device cpu"),
    ],
)
def test_more_processes_than_cores_are_refused(
    wanted: int, cores: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.engine.parallel.launch.usable_cores", lambda: cores)
    with pytest.raises(DualFormerError) as caught:
        relaunch(wanted, device="cpu", argv=[])
    assert str(caught.value) == message


def test_a_run_that_torchrun_has_started_starts_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DualFormerError, match="this is one of 4 that torchrun or srun started; leave the option out"):
        relaunch(2, device="cpu", argv=[])


def test_torchruns_usual_port_may_be_taken(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_PORT", "29500")
    with socket.socket() as other:
        with suppress(OSError):  # taken already is as good
            other.bind(("127.0.0.1", 29500))
            other.listen()
        assert launch("sys.exit(3 if rank == 0 and os.environ['MASTER_PORT'] != '29500' else 0)") == 3


def test_the_command_line_runs_by_default(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert relaunch(2, device="cpu", argv=["--help", "--cpu-processes", "2"]) == 0
    assert capfd.readouterr().out.count("Usage: dualformer") == 1


DRIVER = """
import sys
from dualformer_cli.engine.parallel.launch import relaunch
relaunch(1, device="cpu", argv=[], command=(sys.executable, "rank.py"))
"""

ENDLESS = """
import os, time
from pathlib import Path
from dualformer_cli.engine.parallel.ranks import init_ranks
with init_ranks("cpu"):
    Path("0.pid").write_text(str(os.getpid()))
    time.sleep(100)
"""


def test_ranks_die_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(ENDLESS)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=tmp_path, env=environment)
    try:
        deadline = time.monotonic() + 120
        while not processes(tmp_path):
            assert driver.poll() is None
            assert time.monotonic() < deadline, "the rank did not start"
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()
    assert wait_until_gone(processes(tmp_path)) == []
