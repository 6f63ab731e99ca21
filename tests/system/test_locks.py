"""Locks: one process or thread at a time, and what happens without them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from dualformer_cli.system import locks
from dualformer_cli.system.locks import locked, try_lock


def test_a_file_is_locked_once_until_it_is_closed(tmp_path):
    with (tmp_path / "x").open("w") as first, (tmp_path / "x").open("w") as second:
        assert try_lock(first)
        assert not try_lock(second)
        first.close()
        assert try_lock(second)


def test_who_comes_second_waits_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    order = []

    def second():
        with locked(tmp_path / "file"):
            order.append("second")

    with locked(tmp_path / "file"):
        thread = threading.Thread(target=second)
        thread.start()
        deadline = time.monotonic() + 10
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert caplog.messages == [f"waiting for another process that makes {str(tmp_path / 'file')!r}"]
    assert [path.name for path in tmp_path.iterdir()] == [".file.lock"]


def test_a_program_that_inherits_the_descriptor_keeps_the_lock(tmp_path):
    with locked(tmp_path / "file") as descriptor:
        sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[descriptor])
    with (tmp_path / ".file.lock").open("w") as file:
        assert not try_lock(file)
        sleeper.kill()
        sleeper.wait()
        assert try_lock(file)


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(OSError(38, "Function not implemented"), "Function not implemented"), (ImportError("no fcntl"), "no fcntl")],
)
def test_without_locks_the_work_goes_on_with_a_warning(tmp_path, monkeypatch, caplog, failure, reason):
    def refuse(*_):
        raise failure

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path / "file"):
        pass
    path = str(tmp_path / ".file.lock")
    assert caplog.messages == [f"no lock for {path!r} ({reason}): a second process could write it too"]
