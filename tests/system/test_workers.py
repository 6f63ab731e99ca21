"""Worker processes: what one item does to its worker never reaches the others, and nothing is left behind."""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from types import NoneType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.system import launchers, workers
from dualformer_cli.system.workers import Outcome, WorkerDied, WorkerPool, WorkerStartError, WorkerTimeout

HERE = Path(__file__).parent
REPOSITORY = HERE.parent.parent


@pytest.fixture(scope="module")
def jobs():
    """The module worker_jobs, where workers can import it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        yield importlib.import_module("worker_jobs")


@pytest.fixture(params=["forked", "spawned"])
def pool_of(request, monkeypatch):
    """WorkerPool, with either way to start workers."""
    if request.param == "forked" and not workers._CAN_FORK:
        pytest.skip("forking a template needs Linux")
    monkeypatch.setattr(workers, "_CAN_FORK", request.param == "forked")
    return WorkerPool


@pytest.fixture(scope="module")
def shared_pool(jobs):
    """Three workers for tests that do them no harm."""
    with WorkerPool(3, 20.0) as pool:
        yield pool


def wait_until(condition, *, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert condition()


def is_gone(pid):
    """No process of that number, and no zombie either, unless it is one that init has yet to collect."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state[0] == "Z" and int(state[1]) != os.getpid()


def run_script(tmp_path, text, *arguments):
    return subprocess.run(
        [sys.executable, *arguments], input=text, cwd=tmp_path, env=script_environment(), capture_output=True, text=True
    )


def script_environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(HERE)])}


def test_results_come_in_the_order_of_the_items_and_errors_stay_with_theirs(pool_of, jobs):
    kinds = ["a", "video", "b", "bug", "c"]
    with pool_of(2, 20.0) as pool:
        outcomes = list(pool.imap(jobs.fail, kinds))
    assert [outcome.item for outcome in outcomes] == kinds
    assert [outcome.value for outcome in outcomes] == ["a", None, "b", None, "c"]
    assert [type(outcome.error) for outcome in outcomes] == [NoneType, VideoError, NoneType, IndexError, NoneType]
    assert [outcome.reason for outcome in outcomes] == [
        "",
        "holds no video",
        "",
        "unexpected IndexError: list index out of range; -v shows where",
        "",
    ]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 0.01), max_size=12), st.one_of(st.none(), st.integers(1, 5)))
def test_no_duration_changes_the_order(shared_pool, jobs, durations, ahead):
    items = list(enumerate(durations))
    assert list(shared_pool.imap(jobs.double_after, items, ahead=ahead)) == [
        Outcome(item, 2 * item[0]) for item in items
    ]


def test_many_items_pass_through_few_workers(shared_pool, jobs):
    assert list(shared_pool.imap(jobs.double, range(500))) == [Outcome(number, 2 * number) for number in range(500)]


def test_items_are_taken_only_when_there_is_room(shared_pool, jobs):
    taken = itertools.count()
    num_taken = 0

    def items():
        nonlocal num_taken
        for number in taken:
            num_taken = number + 1
            yield number

    for ahead, room in ((None, 4), (1, 1), (2, 2)):
        taken, num_taken = itertools.count(), 0
        results = shared_pool.imap(jobs.double, items(), ahead=ahead)
        assert num_taken == 0
        for num_given in range(1, 20):
            next(results)
            assert num_taken == num_given + room - 1
        results.close()


def test_an_error_of_the_items_ends_the_run(shared_pool, jobs):
    def items():
        yield 1
        raise OSError("the list is on a disk that is gone")

    with pytest.raises(OSError, match="the list is on a disk that is gone"):
        list(shared_pool.imap(jobs.double, items()))


def test_a_video_error_arrives_as_it_was(shared_pool, jobs):
    outcome = shared_pool.call(jobs.fail, "video")
    with pytest.raises(VideoError, match=r"^'clip é\.mp4': holds no video$") as caught:
        outcome.result()
    assert caught.value is outcome.error
    assert (caught.value.path, caught.value.reason) == ("clip é.mp4", "holds no video")
    assert caught.value.__cause__ is None


def test_a_bug_arrives_with_the_traceback_of_the_worker(shared_pool, jobs):
    error = shared_pool.call(jobs.fail, "bug").error
    assert isinstance(error, IndexError)
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    assert "worker_jobs.py" in text
    assert "return str([][1])" in text


def test_an_error_that_cannot_travel_is_named(shared_pool, jobs):
    with pytest.raises(
        RuntimeError, match=r"^StubbornError: one two \(raised in a worker; cannot be pickled: "
    ) as caught:
        shared_pool.call(jobs.fail, "stubborn").result()
    assert "in fail" in str(caught.value.__cause__)


def test_a_result_that_cannot_travel_is_named(shared_pool, jobs):
    with pytest.raises(TypeError, match=r"a worker's result of type function cannot be sent back: .*lambda"):
        shared_pool.call(jobs.return_lambda, None).result()
    assert shared_pool.call(jobs.double, 2).value == 4


def test_a_hang_costs_its_item_and_a_slow_job_with_heartbeats_lives(pool_of, jobs):
    items = ["fine", "hang", "beat", "good"]
    started = time.monotonic()
    with pool_of(2, timeout_seconds=1.0) as pool:
        outcomes = {outcome.item: outcome for outcome in pool.imap(jobs.end, items)}
    assert time.monotonic() - started < 10
    assert [outcomes[item].value for item in ("fine", "beat", "good")] == ["fine", "beat", "good"]
    assert isinstance(outcomes["hang"].error, WorkerTimeout)
    assert outcomes["hang"].error.item == "hang"
    assert outcomes["hang"].reason == "decoder made no progress for 1 s"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does not say how long a process waits for a core")
def test_time_in_which_a_worker_waits_for_a_core_is_no_hang(jobs, tmp_path, monkeypatch):
    started = time.monotonic()
    monkeypatch.setattr(launchers, "starved_seconds", lambda pid: min(time.monotonic() - started, 1.5))
    with WorkerPool(1, 0.3) as pool:
        assert isinstance(pool.call(jobs.end, "hang").error, WorkerTimeout)
    assert time.monotonic() - started > 1.7
    started = time.monotonic()
    (tmp_path / "hangs_on_import.py").write_text("import signal; signal.pause()")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(launchers, "START_SECONDS", 0.3)
    monkeypatch.setattr(launchers, "REAP_SECONDS", 0.1)
    with (
        WorkerPool(1, 20.0, preload=["hangs_on_import"]) as pool,
        pytest.raises(WorkerStartError, match="not ready after"),
    ):
        pool.call(jobs.double, 1)
    assert time.monotonic() - started > 1.7


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no such account")
def test_the_kernel_says_how_long_a_process_has_waited_for_a_core():
    ran, waited, _ = map(int, Path("/proc/self/schedstat").read_text().split())
    assert 0 < ran / 1e9 < time.process_time() + 60
    assert waited / 1e9 <= launchers.starved_seconds(os.getpid()) < waited / 1e9 + 60
    assert launchers.starved_seconds(0) == 0.0


def test_a_death_costs_its_item_and_says_how(pool_of, jobs):
    with pool_of(1, 20.0) as pool:
        outcomes = list(pool.imap(jobs.end, ["segfault", "one", "kill", "two", "exit", "three"]))
    assert [outcome.value for outcome in outcomes] == [None, "one", None, "two", None, "three"]
    deaths = {outcome.item: outcome.error for outcome in outcomes if isinstance(outcome.error, WorkerDied)}
    assert {item: (error.item, error.exit_code, str(error)) for item, error in deaths.items()} == {
        "segfault": ("segfault", -signal.SIGSEGV, "decoder crashed (signal SIGSEGV)"),
        "kill": ("kill", -signal.SIGKILL, "decoder was killed (signal SIGKILL), most likely for lack of memory"),
        "exit": ("exit", 3, "decoder ended without a result (exit code 3)"),
    }


def test_a_result_that_never_came_raises_what_became_of_the_worker(jobs):
    with WorkerPool(1, 0.3) as pool:
        with pytest.raises(WorkerDied, match=r"^decoder crashed \(signal SIGSEGV\)$"):
            pool.call(jobs.end, "segfault").result()
        with pytest.raises(WorkerTimeout, match=r"^decoder made no progress for 0\.3 s$"):
            pool.call(jobs.end, "hang").result()
        assert pool.call(jobs.double, 21).value == 42


def test_errors_of_workers_are_for_the_user_and_survive_pickling():
    for error in (WorkerTimeout("a.mp4", 20.0), WorkerDied("a.mp4", -9), WorkerDied("a.mp4", None)):
        assert isinstance(error, DualFormerError)
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), copy.item) == (type(error), str(error), "a.mp4")
    assert str(WorkerTimeout("a.mp4", 20.0)) == "decoder made no progress for 20 s"


def test_a_worker_that_was_killed_while_idle_costs_nothing(jobs):
    with WorkerPool(1, 20.0) as pool:
        first = pool.call(jobs.surroundings, None).value["pid"]
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not pool._workers or not next(iter(pool._workers)).channel.is_open())
        assert pool.call(jobs.surroundings, None).value["pid"] != first


def test_a_template_that_was_killed_is_replaced(jobs):
    with WorkerPool(1, 20.0) as pool:
        template = pool._launcher._template._process
        assert pool.call(jobs.double, 1).value == 2
        template.kill()
        template.wait()
        wait_until(lambda: not next(iter(pool._workers)).channel.is_open())
        assert pool.call(jobs.double, 2).value == 4


def test_large_arrays_arrive_intact(pool_of, jobs):
    expected = jobs.arrays(7)
    with pool_of(1, 20.0) as pool:
        received = pool.call(jobs.arrays, 7).value
        assert pool.call(jobs.total, expected["frames"]).value == expected["frames"].sum()
    assert received["frames"].nbytes > 32e6
    for name, array in expected.items():
        np.testing.assert_array_equal(received[name], array)
        assert received[name].dtype == array.dtype
    received["frames"][0] = 0  # the receiver owns it
    assert received["columns"].flags.f_contiguous


def test_workers_have_no_stdin_one_thread_and_a_stdout_that_is_stderr(pool_of, jobs, capfd):
    with pool_of(1, 20.0, preload=["json.tool", "no_such_module"], initializer=jobs.note_initialized) as pool:
        seen = pool.call(jobs.surroundings, None).value
        assert pool.call(jobs.surroundings, None).value["pid"] == seen["pid"]
    assert seen.pop("pid") != os.getpid()
    assert seen == {
        "stdin": "",
        "threads": "1",
        "interrupt": True,
        "torch": False,
        "json.tool": True,
        "initialized": True,
        "frozen": workers._CAN_FORK,
    }
    written = capfd.readouterr()
    assert written.out == ""


def test_an_initializer_that_fails_is_no_items_fault(jobs):
    with WorkerPool(1, 20.0, initializer=jobs.fail_to_initialize) as pool:
        with pytest.raises(VideoError, match="'nowhere': no such decoder"):
            list(pool.imap(jobs.double, [1, 2]))
        with pytest.raises(VideoError, match="'nowhere': no such decoder"):
            pool.call(jobs.double, 1)


def test_workers_that_die_while_starting_are_no_items_fault(jobs):
    message = r"^cannot start a worker process: it crashed \(signal SIGSEGV\)$"
    with (
        WorkerPool(1, 20.0, initializer=jobs.die_while_initializing) as pool,
        pytest.raises(WorkerStartError, match=message),
    ):
        list(pool.imap(jobs.double, [1, 2]))


def test_a_template_that_dies_while_starting_is_no_items_fault(jobs, tmp_path, monkeypatch):
    (tmp_path / "exits_on_import.py").write_text("import os; os._exit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    message = r"its template ended without a result \(exit code 7\); see the messages above$"
    with WorkerPool(1, 20.0, preload=["exits_on_import"]) as pool, pytest.raises(WorkerStartError, match=message):
        list(pool.imap(jobs.double, [1, 2]))


def test_a_template_that_is_not_ready_in_time_is_not_said_to_lack_memory(jobs, tmp_path, monkeypatch):
    (tmp_path / "hangs_on_import.py").write_text("import signal; signal.pause()")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(launchers, "START_SECONDS", 0.5)
    monkeypatch.setattr(launchers, "REAP_SECONDS", 0.1)
    message = r"not ready after 0.5 s; the machine is too busy, or a library that it loads hangs$"
    with WorkerPool(1, 20.0, preload=["hangs_on_import"]) as pool, pytest.raises(WorkerStartError, match=message):
        list(pool.imap(jobs.double, [1, 2]))


def test_closing_early_stops_the_work_and_leaves_the_pool_usable(jobs, tmp_path):
    with WorkerPool(2, 20.0) as pool:
        names = [str(tmp_path / name) for name in "ab"]
        work = iter([(jobs.double, 1), (jobs.note_and_sleep, names[0]), (jobs.note_and_sleep, names[1])])
        results = pool.imap(jobs.run, work)
        assert next(results).value == 2
        wait_until(lambda: Path(names[0]).exists())
        pid = int(Path(names[0]).read_text().split()[0])
        results.close()
        wait_until(lambda: is_gone(pid))
        assert [outcome.value for outcome in pool.imap(jobs.double, [1, 2, 3])] == [2, 4, 6]


def test_what_is_in_work_when_the_pool_is_closed_is_no_items_fault(jobs, tmp_path):
    names = [str(tmp_path / name) for name in "ab"]
    with WorkerPool(1, 20.0) as pool:
        results = pool.imap(jobs.run, [(jobs.note_and_sleep, name) for name in names], ahead=2)
        closing = threading.Thread(target=lambda: (wait_until(Path(names[0]).exists), pool.close()))
        closing.start()
        with pytest.raises(RuntimeError, match="the worker pool was closed"):
            next(results)
        closing.join()


def call_in_thread(pool, function, item):
    """Start pool.call elsewhere; return the thread and the list that its RuntimeError will be in."""
    errors = []

    def call():
        try:
            pool.call(function, item)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    return thread, errors


def test_close_ends_a_hanging_worker_at_once_and_leaves_no_process(pool_of, jobs, tmp_path):
    pool = pool_of(1, 20.0)
    caller, errors = call_in_thread(pool, jobs.hang_for_good, str(tmp_path / "pids"))
    wait_until((tmp_path / "pids").exists)
    pool.close()
    pool.close()
    caller.join()
    assert errors == ["the worker pool was closed"]
    worker, its_parent = map(int, (tmp_path / "pids").read_text().split())
    assert not Path(f"/proc/{worker}").exists()
    assert its_parent == os.getpid() or not Path(f"/proc/{its_parent}").exists()
    with pytest.raises(RuntimeError, match="the worker pool was closed"):
        pool.call(jobs.double, 1)


def test_closing_does_not_wait_for_slow_imports(jobs, tmp_path, monkeypatch):
    (tmp_path / "sleeps_on_import.py").write_text(
        f"open({str(tmp_path / 'begun')!r}, 'w')\nimport time; time.sleep(60)"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with WorkerPool(2, 20.0, preload=["sleeps_on_import"]) as pool:
        caller, errors = call_in_thread(pool, jobs.double, 1)
        wait_until((tmp_path / "begun").exists)
        started = time.monotonic()
    caller.join()
    assert time.monotonic() - started < 20
    assert errors == ["the worker pool was closed"]


KILLED = """
import functools, sys
import worker_jobs
from dualformer_cli.system import launchers, workers
workers._CAN_FORK = sys.argv[1] == "forked"
with workers.WorkerPool(1, 20.0) as pool:
    pool.call(worker_jobs.{job}, sys.argv[2])
"""


@pytest.mark.parametrize(
    ("way", "job"), [("forked", "hang_for_good"), ("forked", "note_and_sleep"), ("spawned", "note_and_sleep")]
)
def test_no_worker_outlives_a_parent_that_was_killed(tmp_path, way, job):
    (tmp_path / "script.py").write_text(KILLED.format(job=job))
    command = [sys.executable, "script.py", way, str(tmp_path / "pids")]
    parent = subprocess.Popen(command, cwd=tmp_path, env=script_environment())
    wait_until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    parent.kill()
    parent.wait()
    wait_until(lambda: all(is_gone(pid) for pid in pids))


def test_an_interrupt_of_the_whole_group_reaches_the_parent_only(tmp_path):
    (tmp_path / "script.py").write_text(KILLED.format(job="note_and_sleep"))
    command = [sys.executable, "script.py", "forked", str(tmp_path / "pids")]
    parent = subprocess.Popen(command, cwd=tmp_path, env=script_environment(), stderr=-1, start_new_session=True)
    wait_until((tmp_path / "pids").exists)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate()
    assert errors.decode().strip().endswith("KeyboardInterrupt")
    assert errors.count(b"Traceback") == 1
    assert all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


PROGRAM = """
print("main program runs")
import worker_jobs
from dualformer_cli.system.workers import WorkerPool
with WorkerPool(2, 20.0) as pool:
    print([outcome.value for outcome in pool.imap(worker_jobs.double, range(4))])
"""


@pytest.mark.parametrize("arguments", [("-",), ("-m", "program"), ("program.py",)])
def test_the_main_program_is_run_once_however_it_was_started(tmp_path, arguments):
    (tmp_path / "program.py").write_text(PROGRAM)
    run = run_script(tmp_path, PROGRAM, *arguments)
    assert (run.stdout, run.stderr) == ("main program runs\n[0, 2, 4, 6]\n", "")


def test_functions_of_the_main_program_are_refused(tmp_path):
    imports = "from dualformer_cli.system.workers import WorkerPool"
    program = f"{imports}\ndef work(x): pass\nWorkerPool(1, 20.0).imap(work, [1])"
    run = run_script(tmp_path, program, "-")
    assert run.stderr.splitlines()[-1].startswith("ValueError: workers cannot see <function work at ")
    assert run.stderr.splitlines()[-1].endswith(": move it from the main program into a module")


def test_settings_out_of_range_are_named(shared_pool, jobs):
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        WorkerPool(0, 20.0)
    with pytest.raises(ValueError, match="timeout_seconds must be positive, got 0"):
        WorkerPool(1, 0)
    with pytest.raises(ValueError, match="ahead must be at least 1, got 0"):
        shared_pool.imap(jobs.double, [], ahead=0)


def test_a_heartbeat_outside_a_worker_does_nothing():
    workers.heartbeat()
