"""`predict --output` on several processes: nodes that torchrun started, and ranks and nodes that are killed."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import warm

REPOSITORY = Path(__file__).resolve().parents[2]
NUM_VIDEOS = 16

RANK = """
import os, sys, time
from pathlib import Path
from dualformer_cli.app import main
from dualformer_cli.engine.parallel import shared_work, watch
from dualformer_cli.tasks.prediction_run import _Worker
watch.BEAT_SECONDS = 0.2
shared_work.SharedWork.__init__.__kwdefaults__["lost_seconds"] = 3.0
keep = _Worker._keep
def keep_some(self, *given):
    while len(parts := list(Path("run/parts").glob("*-1.jsonl"))) != 1 or parts[0].read_bytes().count(b"\\n") < 3:
        if os.environ["RANK"] == "1":
            return keep(self, *given)
        time.sleep(0.01)
    while os.environ["RANK"] == "1":
        time.sleep(1)
    keep(self, *given)
if sys.argv.pop() == "stop":
    _Worker._keep = keep_some
main()
"""
"""The command, with short times; if it says `stop`, rank 1 hangs after three videos, and rank 0 waits for that."""


@pytest.fixture(scope="module")
def folder(
    tmp_path_factory: pytest.TempPathFactory, mini_preset: Path, mini_weights: Path, clip_drawer: Callable[..., Path]
) -> Path:
    """Videos, and in `one` the files of a run of one process."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "clips").mkdir()
    clip = clip_drawer(folder / "clips" / "0.mp4", num_frames=20)
    for number in range(1, NUM_VIDEOS - 1):
        shutil.copy(clip, folder / "clips" / f"{number}.mp4")
    clip_drawer(folder / "clips" / "5.mp4", num_frames=24)
    (folder / "clips" / "broken.mp4").write_bytes(b"no video")
    (folder / "rank.py").write_text(RANK)
    command = [sys.executable, "-m", "dualformer_cli", *arguments(mini_preset, mini_weights), "--output", "one"]
    done = warm.run(command, cwd=folder, env=environment())
    assert done.returncode == 3, done.stderr
    return folder


@pytest.fixture
def options(folder: Path, mini_preset: Path, mini_weights: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of the command in the current folder, for runs into `run`."""
    monkeypatch.chdir(folder)
    shutil.rmtree("run", ignore_errors=True)
    return [*arguments(mini_preset, mini_weights), "--output", "run"]


def arguments(preset: Path, weights: Path) -> list[str]:
    return ["predict", "clips", "--preset", str(preset), "--weights", str(weights), "--device", "cpu"]


def files(output: str) -> list[bytes]:
    return [Path(output, f"predictions.{suffix}").read_bytes() for suffix in ("jsonl", "csv")]


def environment() -> dict[str, str]:
    """Return variables for a process that is no rank yet."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    own = {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return {**kept, **own}


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and theirs."""
    children: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (task / "children").read_text().split())
    return [*children, *(each for child in children for each in descendants(child))]


def kill_all(pid: int) -> None:
    """SIGKILL for a process and all that it has started, as when its machine loses power."""
    for each in [pid, *descendants(pid)]:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


def num_kept(rank: str) -> int:
    return sum(part.read_bytes().count(b"\n") for part in Path("run", "parts").glob(f"*-{rank}.jsonl"))


def wait_until(condition: Callable[[], bool], *processes: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300  # a busy machine takes its time
    while not condition():
        assert all(process.poll() is None for process in processes), [each.communicate() for each in processes]
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def nodes(arguments: list[str]) -> Iterator[list[subprocess.Popen[str]]]:
    """Two launchers, as on two machines, each with one rank of one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--nproc-per-node",
        "1",
        "--master-addr",
        "127.0.0.1",
    ]
    running = [
        warm.WarmPython(
            [*launcher, "--master-port", port, "--node-rank", str(rank), "rank.py", *arguments],
            env=environment(),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        yield running
    finally:
        for process in running:
            kill_all(process.pid)
            process.communicate()


def test_a_node_that_dies_costs_its_videos_in_hand_and_the_same_command_ends_with_the_same_bytes(
    options: list[str],
) -> None:
    with nodes([*options, "--json", "stop"]) as (first, second):
        wait_until(lambda: num_kept("1") == 3, first, second)
        kill_all(second.pid)
        stdout, stderr = first.communicate(timeout=300)
    videos = json.loads(stdout)["videos"]
    assert (videos["listed"], videos["failed"]) == (NUM_VIDEOS, 1)
    assert videos["ok"] + videos["failed"] + videos["lost"] == NUM_VIDEOS
    assert 1 <= videos["lost"] <= 3, "what one rank has in hand: two that are decoded, and one for the next worker"
    assert "exitcode  : 3" in stderr, stderr
    with nodes([*options, "--json", "go on"]) as running:
        outputs = [process.communicate(timeout=300) for process in running]
    document = json.loads(outputs[0][0])
    assert (document["videos"]["kept"], document["videos"]["lost"]) == (NUM_VIDEOS - videos["lost"], 0), outputs
    assert outputs[1][0] == ""
    assert files("run") == files("one")


def test_a_rank_that_is_killed_starts_again_from_what_is_kept(options: list[str]) -> None:
    command = [sys.executable, "-m", "dualformer_cli", *options, "--cpu-processes", "2"]
    running = warm.WarmPython(command, env=environment(), text=True, stderr=subprocess.PIPE)
    try:
        wait_until(lambda: num_kept("*") >= 1, running)
        rank = next(
            pid for pid in descendants(running.pid) if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
        )
        os.kill(rank, signal.SIGKILL)
        _, stderr = running.communicate(timeout=300)
    finally:
        kill_all(running.pid)
    assert running.returncode == 3, stderr
    assert "rank 1 of 2 was killed by SIGKILL, perhaps because memory ran out; all processes are stopped; starting" in (
        stderr
    )
    assert files("run") == files("one")
    assert len({part.name.split("-")[0] for part in Path("run/parts").glob("*-*.jsonl")}) >= 2, "killed too late"


def test_a_disk_that_takes_no_more_ends_the_run_in_one_line_and_nothing_is_lost(options: list[str]) -> None:
    command = [sys.executable, "-m", "dualformer_cli", *options]
    full = warm.WarmPython(command, env=environment(), text=True, stderr=subprocess.PIPE)
    resource.prlimit(full.pid, resource.RLIMIT_FSIZE, (6000, 6000))
    _, stderr = full.communicate(timeout=300)
    said = (
        "predictions cannot be kept in 'run/parts': file too large; what is there stays, and the same command goes on"
    )
    assert full.returncode == 1
    assert stderr.splitlines()[-1] == f"dualformer: {said} from it"
    assert "Traceback" not in stderr
    num_lines = num_kept("0")
    assert 0 < num_lines < NUM_VIDEOS
    done = warm.run([*command, "--json"], env=environment())
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["videos"]["kept"] == num_lines
    assert files("run") == files("one")
