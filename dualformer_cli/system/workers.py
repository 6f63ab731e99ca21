"""A pool of worker processes that may hang, crash or run out of memory on one item without harm to the others.

A pool has one thread per worker in this process. The thread starts its worker when the first job arrives, hands it
one job after another, and kills and replaces it when nothing was heard of it for too long. Finished results wait in
this process, so workers go on while the caller is busy.
"""

from __future__ import annotations

import pickle
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from dualformer_cli.errors import DualFormerError, reason_of
from dualformer_cli.system.channel import ERROR, RESULT, pack, unpack_error
from dualformer_cli.system.launchers import (
    START_SECONDS,
    ForkLauncher,
    SpawnLauncher,
    Worker,
    WorkerStartError,
    describe_exit,
)
from dualformer_cli.system.worker_process import heartbeat, initialize

__all__ = [
    "Outcome",
    "WorkerDied",
    "WorkerPool",
    "WorkerStartError",
    "WorkerTimeout",
    "heartbeat",
]

Item = TypeVar("Item")
Result = TypeVar("Result")

_Function = TypeVar("_Function")

_CAN_FORK = sys.platform == "linux"


class WorkerTimeout(DualFormerError):  # noqa: N818
    """The worker was killed because it made no progress on `item`."""

    def __init__(self, item: object, seconds: float) -> None:
        super().__init__(f"decoder made no progress for {seconds:g} s")
        self.item = item
        self.seconds = seconds

    def __reduce__(self) -> tuple[type[WorkerTimeout], tuple[object, float]]:
        return (WorkerTimeout, (self.item, self.seconds))


class WorkerDied(DualFormerError):  # noqa: N818
    """The worker ended by itself while it worked on `item`.

    Args:
        item: what it was working on.
        exit_code: as in subprocess, so minus the signal when a signal ended it; None when nobody knows.
    """

    def __init__(self, item: object, exit_code: int | None) -> None:
        super().__init__(f"decoder {describe_exit(exit_code)}")
        self.item = item
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[type[WorkerDied], tuple[object, int | None]]:
        return (WorkerDied, (self.item, self.exit_code))


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """What became of one item: a value or an error."""

    item: Item
    value: Result
    """What the function returned; None if there is an error."""
    error: Exception | None = None
    """What the function raised, or WorkerTimeout or WorkerDied; a bug carries the worker's traceback as its cause."""

    @classmethod
    def failed(cls, item: Item, error: Exception) -> Outcome[Item, Result]:
        """Return the outcome of an item that is lost."""
        return cls(item, cast(Result, None), error)

    @property
    def reason(self) -> str:
        """Return what went wrong in words, without the item's name; empty if nothing did."""
        return "" if self.error is None else reason_of(self.error)

    def result(self) -> Result:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value


@dataclass(eq=False)
class _Job:
    """One call, from the caller to the worker and back."""

    item: object
    pickled: bytes
    buffers: list[pickle.PickleBuffer]
    future: Future[Any] = field(default_factory=Future)
    worker: Worker | None = None
    is_abandoned: bool = False
    is_fault_of_pool: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    """For `worker` and `is_abandoned`, so that no worker is killed that has been released."""

    def assign(self, worker: Worker) -> bool:
        """Note who works on the job, so that it can be stopped; return False if nobody wants the job any more."""
        with self.lock:
            if not self.is_abandoned:
                self.worker = worker
        return self.worker is not None

    def release(self) -> None:
        """Note that nobody works on the job any more."""
        with self.lock:
            self.worker = None

    def abandon(self) -> None:
        """Stop work on a job whose result nobody will ask for; nothing happens to one that is done."""
        with self.lock:
            self.is_abandoned = True
            if self.worker is not None:
                self.worker.kill()

    def finish(self, kind: int, pickled: memoryview, buffers: Sequence[memoryview]) -> None:
        """Give a worker's reply to whoever waits for it."""
        try:
            if kind == RESULT:
                self.future.set_result(pickle.loads(pickled, buffers=buffers))
            else:
                self.future.set_exception(unpack_error(pickled, buffers))
        except Exception as error:  # of unpickling, which runs the classes' own code
            self.future.set_exception(TypeError(f"a worker's reply cannot be read: {error}"))

    def fail_with_pool(self, error: Exception) -> None:
        """Raise an error that is no item's fault where the caller waits."""
        self.is_fault_of_pool = True
        self.future.set_exception(error)


class WorkerPool:
    """Worker processes that call functions on items, each worth no more than the item it works on.

    Use it as a context manager; leaving it kills the workers. Workers have no stdin, print to stderr, use one thread,
    and leave Ctrl-C and SIGTERM to this process.

    Args:
        num_workers: how many processes work at the same time; each starts when it is first needed.
        timeout_seconds: a worker is killed when its job has not called `heartbeat` (nor started, nor sent part of its
            result) for this long; a long job that makes progress is never killed. Time in which it waits for a core
            of a busy machine does not count, where the kernel says how much that is (Linux).
        preload: names of modules to import before the first item, once for all workers where they are forked.
        initializer: called once in every worker before its first item; an importable function, or a partial of one.
    """

    def __init__(
        self,
        num_workers: int,
        timeout_seconds: float,
        preload: Sequence[str] = (),
        initializer: Callable[[], object] | None = None,
    ) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers must be at least 1, got {num_workers}")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds must be positive, got {timeout_seconds}")
        self._num_workers = num_workers
        self._timeout_seconds = timeout_seconds
        self._setup = pack((initialize, (tuple(preload), _require_importable(initializer))))
        self._launcher = ForkLauncher(preload) if _CAN_FORK else SpawnLauncher()
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._is_closed = False
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._feed_worker, name=f"dualformer-worker-{number}", daemon=True)
            for number in range(num_workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers, whatever they do, and wait for their end; a second call does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            for worker in self._workers:
                worker.kill()
        self._launcher.interrupt()
        with suppress(queue.Empty):
            while (job := self._jobs.get_nowait()) is not None:
                job.fail_with_pool(_closed_error())
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._launcher.close()

    def call(self, function: Callable[[Item], Result], item: Item) -> Outcome[Item, Result]:
        """Return what becomes of function(item), computed in a worker; it raises what `imap` raises."""
        return next(self.imap(function, [item], ahead=1))

    def imap(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int | None = None
    ) -> Generator[Outcome[Item, Result], None, None]:
        """Yield the outcome of every item, in the order of the items.

        Items are taken one by one, when there is room. Closing the generator early kills the workers that still work
        on its items.

        Args:
            function: an importable function, or a partial of one.
            items: what to call it on.
            ahead: at most this many items are in work or wait for the caller; by default one more than workers.

        Raises:
            WorkerStartError: if no worker can be started.
            RuntimeError: if the pool is closed.
            Exception: whatever the initializer raises.
        """
        limit = self._num_workers + 1 if ahead is None else ahead
        if limit < 1:
            raise ValueError(f"ahead must be at least 1, got {ahead}")
        _require_importable(function)
        return self._imap(function, items, limit)

    def _imap(
        self, function: Callable[[Item], Result], items: Iterable[Item], limit: int
    ) -> Generator[Outcome[Item, Result], None, None]:
        jobs: deque[_Job] = deque()
        try:
            for item in items:
                jobs.append(self._submit(function, item))
                if len(jobs) == limit:
                    yield _first_outcome(jobs)
            while jobs:
                yield _first_outcome(jobs)
        finally:
            for job in jobs:
                job.abandon()

    def _submit(self, function: Callable[[Any], object], item: object) -> _Job:
        job = _Job(item, *pack((_require_importable(function), item)))
        with self._lock:
            if self._is_closed:
                raise _closed_error()
            self._jobs.put(job)
        return job

    def _feed_worker(self) -> None:
        """Body of one thread: job after job to one worker, which is replaced when it dies."""
        worker: Worker | None = None
        while (job := self._jobs.get()) is not None:
            if not job.is_abandoned:
                worker = self._do(job, worker)
            del job  # or its result would stay in memory until the next one comes
        if worker is not None:
            self._end(worker)

    def _do(self, job: _Job, worker: Worker | None) -> Worker | None:
        """Bring the job to its end; return the worker for the next one, None if a new one is needed."""
        if worker is not None and not worker.channel.is_open():  # killed while it was idle: not this job's doing
            self._end(worker)
            worker = None
        try:
            worker = worker or self._start()
        except Exception as error:  # goes to whoever waits for the job
            job.fail_with_pool(_closed_error() if self._is_closed else error)
            return None
        if not job.assign(worker):
            return worker
        try:
            reply = worker.ask(job.pickled, job.buffers, self._timeout_seconds)
        except (EOFError, OSError) as failure:
            job.release()
            exit_code = self._end(worker)
            if self._is_closed:
                job.fail_with_pool(_closed_error())
            elif isinstance(failure, TimeoutError):
                job.future.set_exception(WorkerTimeout(job.item, self._timeout_seconds))
            else:
                job.future.set_exception(WorkerDied(job.item, exit_code))
            return None
        job.release()
        job.finish(*reply)
        return worker

    def _start(self) -> Worker:
        """Start a worker and run its initializer.

        Raises:
            WorkerStartError: if it does not come up.
            Exception: whatever the initializer raises.
        """
        worker = self._launcher.start()
        with self._lock:
            self._workers.add(worker)
            if self._is_closed:
                worker.kill()
        try:
            kind, pickled, buffers = worker.ask(*self._setup, START_SECONDS)
        except TimeoutError as error:
            self._end(worker)
            raise WorkerStartError(f"cannot start a worker process: not ready after {START_SECONDS:g} s") from error
        except (EOFError, OSError) as error:
            raise WorkerStartError(f"cannot start a worker process: it {describe_exit(self._end(worker))}") from error
        if kind == ERROR:
            self._end(worker)
            raise unpack_error(pickled, buffers)
        return worker

    def _end(self, worker: Worker) -> int | None:
        """Make sure that the worker is dead and gone; return its exit code if known."""
        with self._lock:
            self._workers.discard(worker)
        exit_code = worker.reap()
        worker.channel.close()
        return exit_code


def _require_importable(function: _Function) -> _Function:
    """Refuse what a worker could not find, since workers do not run the main module."""
    inner = getattr(function, "func", function)
    if getattr(inner, "__module__", None) == "__main__":
        raise ValueError(f"workers cannot see {inner!r}: move it from the main program into a module")
    return function


def _closed_error() -> RuntimeError:
    return RuntimeError("the worker pool was closed")


def _first_outcome(jobs: deque[_Job]) -> Outcome[Any, Any]:
    """Wait for the first job and take it out."""
    job = jobs[0]
    error = cast("Exception | None", job.future.exception())
    jobs.popleft()
    if error is None:
        return Outcome(job.item, job.future.result())
    if job.is_fault_of_pool:
        raise error
    return Outcome.failed(job.item, error)
