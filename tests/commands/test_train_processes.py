"""`dualformer train` in processes of its own: signals, ranks that die, one line for what is wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import load_checkpoint
from training_runs import SMALL_RUN
from warm import WarmPython

from dualformer_cli.engine.parallel.placement import LAUNCHER_PID


@pytest.fixture
def command(_own_environment: None, mini_preset: Path, six_videos: Path, tmp_path: Path) -> Callable[..., Any]:
    """The function command(*options) -> a real process that trains."""

    def start(*options: str) -> subprocess.Popen[str]:
        arguments = ["train", "--preset", str(mini_preset), "--data", str(six_videos), *SMALL_RUN, *options]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "dualformer_cli", *arguments]
        return WarmPython(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    return start


def test_sigterm_saves_and_leaves_with_75(command: Any, tmp_path: Path) -> None:
    process = command("--output", str(tmp_path / "run"), "--set", "train.epochs=100000")
    for line in process.stderr:
        if "step 5/" in line:
            process.send_signal(signal.SIGTERM)
            break
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (75, "")
    assert "stopped by SIGTERM; the state is saved, go on with:\n" in stderr
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["step"] >= 5


def test_two_processes_train_and_end_with_75_too(command: Any, tmp_path: Path) -> None:
    options = ["--output", str(tmp_path / "run"), "--set", "train.epochs=100000", "--cpu-processes", "2"]
    process = command(*options)
    said = ""
    for line in process.stderr:
        said += line
        if "step 5/" in line:
            process.send_signal(signal.SIGTERM)
            break
    stdout, stderr = process.communicate(timeout=90)
    assert (process.returncode, stdout) == (75, ""), said + stderr
    assert said.count("2 clips per step (kept): 2 processes x 1 clip x 1 pass") == 1
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["step"] >= 5


def environment_of(pid: str) -> dict[str, str]:
    try:
        pairs = Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:  # gone already, or another user's
        return {}
    return dict(pair.decode(errors="replace").split("=", 1) for pair in pairs if b"=" in pair)


def processes_of(launcher: int) -> dict[str, int]:
    """The ranks that a launcher started, and where there are workers of theirs: rank to process."""
    pids = [entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = {pid: environment_of(pid) for pid in pids}
    return {of["RANK"]: int(pid) for pid, of in found.items() if of.get(LAUNCHER_PID) == str(launcher) and "RANK" in of}


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "after the agent stopped the other"])
def test_a_rank_that_dies_ends_the_run_with_one_line_and_leaves_no_process(
    command: Any, tmp_path: Path, is_late: bool
) -> None:
    process = command("--output", str(tmp_path / "run"), "--set", "train.epochs=100000", "--cpu-processes", "2")
    for line in process.stderr:
        if "step 5/" in line:
            ranks = processes_of(process.pid)
            if is_late:  # as on a busy machine: the other rank finds out when SIGTERM has come already
                os.kill(ranks["0"], signal.SIGSTOP)
            os.kill(ranks["1"], signal.SIGKILL)
            if is_late:
                time.sleep(2)
                os.kill(ranks["0"], signal.SIGCONT)
            break
    stdout, stderr = process.communicate(timeout=90)
    said = [line for line in stderr.splitlines() if line.startswith("dualformer: ")]
    assert (process.returncode, stdout) == (1, "")
    assert said == [
        "dualformer: rank 1 of 2 was killed by SIGKILL, perhaps because memory ran out; all processes are stopped"
    ]
    assert "Traceback" not in stderr
    assert processes_of(process.pid) == {}


def test_a_port_that_is_taken_is_named(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        meeting = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in meeting.items():
            monkeypatch.setenv(name, str(value))
        stdout, stderr = command("--output", str(tmp_path / "run"), "--device", "cpu").communicate(timeout=90)
    assert stdout == ""
    assert re.fullmatch(rf"dualformer: rank 0 of 2 could not join the others at 127\.0\.0\.1:{port}: .*\n", stderr)


def test_a_failure_is_one_line_and_1(command: Any, tmp_path: Path) -> None:
    process = command("--output", str(tmp_path / "run"), "--set", "data.root=/nowhere")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (1, "")
    assert stderr.startswith("dualformer: folder '/nowhere'")
    assert stderr.count("\n") == 1
