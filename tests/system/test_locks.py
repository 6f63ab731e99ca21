"""Locks: one process or thread at a time, and what happens without them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest

from dualformer_cli.errors import CannotWriteError, DualFormerError
from dualformer_cli.system import locks
from dualformer_cli.system.locks import FolderLock, locked, try_lock


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


def test_a_folder_belongs_to_one_until_it_is_released(tmp_path):
    folder = tmp_path / "a" / "run"
    with FolderLock(folder):
        (folder / "file").touch()
        with pytest.raises(DualFormerError) as refused:
            FolderLock(folder).take()
    assert str(refused.value).startswith(f"another run writes into {str(folder)!r}: process {os.getpid()} on ")
    with FolderLock(folder):
        pass
    assert sorted(os.listdir(folder)) == [".lock", "file"]


def test_a_folder_in_which_nothing_was_written_goes_with_its_lock(tmp_path):
    with FolderLock(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from dualformer_cli.system.locks import FolderLock\n"
        "lock = FolderLock(Path(sys.argv[1])); lock.take(); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        with pytest.raises(DualFormerError, match=f"another run .*: process {holder.pid} on "):
            FolderLock(tmp_path / "run").take()
        holder.kill()
        holder.wait()
        with FolderLock(tmp_path / "run") as lock:
            assert lock.is_held()


def test_a_lock_whose_folder_was_removed_is_taken_again_unless_another_was_faster(tmp_path):
    first, second = FolderLock(tmp_path / "run"), FolderLock(tmp_path / "run")
    first.take()
    shutil.rmtree(tmp_path / "run")
    assert not first.is_held()
    first.take()
    assert first.is_held()
    shutil.rmtree(tmp_path / "run")
    second.take()
    with pytest.raises(DualFormerError, match="another run writes into"):
        first.take()
    second.release()
    first.release()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CannotWriteError, match=r"^cannot write into '.*run': not a directory$"):
        FolderLock(tmp_path / "file" / "run").take()
