"""One worker process: how it is started, what runs inside it, and the messages between it and its parent.

On Linux workers are forked from a template: a fresh, single-threaded interpreter that has only imported the modules
that they need. Forking the parent instead would copy the locks that torch's threads hold at that moment; a fresh
interpreter per worker would import torch each time (1.6 to 2.2 s of CPU and 500 MB). Elsewhere, where forking after
imports is unsafe, every worker is a fresh interpreter. Neither runs the caller's main module again.

Everything dies with the parent, kill -9 included: the template ends when its socket closes or its parent changes,
the kernel kills forked workers with the template, and fresh interpreters end when their stdin closes.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from dualformer_cli.errors import DualFormerError

Message = tuple[int, memoryview, list[memoryview]]
"""Its kind, a pickle, and the buffers that pickle protocol 5 keeps out of it."""
Packed = tuple[bytes, list[pickle.PickleBuffer]]
"""A pickle and its buffers, to be sent."""
BEAT, JOB, RESULT, ERROR = range(4)

_HEADER = struct.Struct("<BIQ")  # kind, number of buffers, bytes of the pickle
_BEAT_SECONDS = 0.1
_REAP_SECONDS = 5.0
START_SECONDS = 120.0
"""For the preload modules and the initializer; torch alone can take tens of seconds on a busy disk."""


class WorkerStartError(DualFormerError):
    """No worker could be started; no item is to blame."""


class WorkerTraceback(Exception):  # noqa: N818
    """Carries the text of a worker's traceback, as the cause of an error that was raised there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def describe_exit(exit_code: int | None) -> str:
    if exit_code is None:
        return "ended for an unknown reason"
    if exit_code >= 0:
        return f"ended without a result (exit code {exit_code})"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = str(-exit_code)
    if name == "SIGKILL":
        return "was killed (signal SIGKILL), most likely for lack of memory"
    return f"crashed (signal {name})"


class Channel:
    """Messages over a stream socket.

    Large arrays are sent from where they lie and received where they stay: 33 MB reach the caller of a pool in 17 ms
    (median of 40, 2 shared cores). The bare transfer took 6 to 12 ms, through a pipe 15 to 130, through a memfd 20 to
    45; larger socket buffers made it slower.
    """

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._send_lock = threading.Lock()
        self._last_beat = 0.0
        self.beating = False

    def close(self) -> None:
        self._stream.close()

    def is_open(self) -> bool:
        """Tell whether the other side is still there."""
        self._stream.settimeout(0)
        try:
            return len(self._stream.recv(1, socket.MSG_PEEK)) > 0
        except BlockingIOError:
            return True
        except ConnectionError:
            return False

    def send(self, kind: int, pickled: bytes = b"", buffers: Sequence[pickle.PickleBuffer] = ()) -> None:
        """Send one message; OSError if the other side is gone."""
        self._stream.settimeout(None)
        views = [buffer.raw() for buffer in buffers]
        lengths = struct.pack(f"<{len(views)}Q", *(view.nbytes for view in views))
        with self._send_lock:
            self._stream.sendall(_HEADER.pack(kind, len(views), len(pickled)) + lengths)
            for view in (memoryview(pickled), *views):
                self._stream.sendall(view)

    def receive(self, quiet_seconds: float | None = None) -> Message:
        """Wait for one message.

        Args:
            quiet_seconds: give up when no byte arrives for this long; None waits for ever.

        Raises:
            EOFError, OSError: the other side is gone.
            TimeoutError: nothing arrived in time (an OSError too).
        """
        # Short waits are added up: one long wait would be over at once when a stopped process (Ctrl-Z) goes on.
        self._stream.settimeout(None if quiet_seconds is None else min(1.0, quiet_seconds / 10))
        kind, num_buffers, num_bytes = _HEADER.unpack(self._receive_exactly(_HEADER.size, quiet_seconds))
        lengths = struct.unpack(f"<{num_buffers}Q", self._receive_exactly(8 * num_buffers, quiet_seconds))
        pickled = self._receive_exactly(num_bytes, quiet_seconds)
        return kind, pickled, [self._receive_exactly(length, quiet_seconds) for length in lengths]

    def _receive_exactly(self, num_bytes: int, quiet_seconds: float | None) -> memoryview:
        data = np.empty(num_bytes, np.uint8).data  # a bytearray would be filled with zeros first
        rest = data
        quiet = 0.0
        while rest:
            try:
                received = self._stream.recv_into(rest)
            except TimeoutError:
                quiet += self._stream.gettimeout() or 0.0
                if quiet_seconds is not None and quiet >= quiet_seconds - 1e-6:
                    raise
                continue
            if received == 0:
                raise EOFError
            rest = rest[received:]
            quiet = 0.0
        return data

    def beat(self) -> None:
        """Say that the job makes progress, at most once in _BEAT_SECONDS."""
        now = time.monotonic()
        if self.beating and now - self._last_beat >= _BEAT_SECONDS:
            self._last_beat = now
            self.send(BEAT)


_channel: Channel | None = None


def heartbeat() -> None:
    """Tell the parent that the job at hand makes progress; call it after every packet or frame.

    Cheap enough for inner loops (0.3 us, and a message at most every 0.1 s). Does nothing outside a worker.
    """
    if _channel is not None:
        _channel.beat()


def _work(stream: socket.socket) -> None:
    """Serve jobs until the parent is gone."""
    global _channel
    _channel = Channel(stream)
    _prefer_as_memory_victim()
    with suppress(EOFError, ConnectionError):
        while True:
            _serve_job(_channel)


def _serve_job(channel: Channel) -> None:
    _, pickled, buffers = channel.receive()
    channel.beating = True
    reply = _perform(pickled, buffers)
    channel.beating = False
    channel.send(*reply)


def _perform(pickled: memoryview, buffers: Sequence[memoryview]) -> tuple[int, bytes, list[pickle.PickleBuffer]]:
    """Call the function of one job; everything that it raises is its reply."""
    try:
        function, item = pickle.loads(pickled, buffers=buffers)
        result = function(item)
    except Exception as error:
        return _pack_error(error)
    try:
        return (RESULT, *pack(result))
    except Exception as error:  # pickle raises whatever the object's own methods raise
        name = type(result).__qualname__
        return _pack_error(TypeError(f"a worker's result of type {name} cannot be sent back: {error}"))


def pack(value: object) -> Packed:
    """Pickle a value without copying its large arrays."""
    buffers: list[pickle.PickleBuffer] = []
    return pickle.dumps(value, protocol=5, buffer_callback=buffers.append), buffers


def _pack_error(error: Exception) -> tuple[int, bytes, list[pickle.PickleBuffer]]:
    """Pickle an error with its traceback's text; one that cannot travel becomes a RuntimeError that says so."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is not type(error):
            raise TypeError(f"it comes back as {type(copy).__qualname__}")
    except Exception as reason:
        error = RuntimeError(f"{type(error).__qualname__}: {error} (raised in a worker; cannot be pickled: {reason})")
    return (ERROR, *pack((error, text)))


def unpack_error(pickled: memoryview, buffers: Sequence[memoryview]) -> Exception:
    """Return the error of an ERROR message; the worker's traceback is the cause of one that the user cannot mend."""
    error, text = pickle.loads(pickled, buffers=buffers)
    if not isinstance(error, DualFormerError):
        error.__cause__ = WorkerTraceback(text)
    return cast(Exception, error)


def initialize(work: tuple[Sequence[str], Callable[[], object] | None]) -> None:
    """The first job of every worker."""
    preload, initializer = work
    _import_all(preload)
    if initializer is not None:
        initializer()


def _import_all(modules: Sequence[str]) -> None:
    for name in modules:
        with suppress(Exception):  # only warms up: the job that needs the module meets the same error and reports it
            importlib.import_module(name)


def _prefer_as_memory_victim() -> None:
    """Let the kernel that runs out of memory kill the worker rather than the run (Linux)."""
    score = Path("/proc/self/oom_score_adj")
    with suppress(OSError):
        if int(score.read_text()) < 500:
            score.write_text("500")


def _ignore_signals() -> None:
    """Leave Ctrl-C and a SIGTERM to the whole process group to the parent, which may want to finish what it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _run_spawned(descriptor: int | None) -> None:
    """Main of a worker that is its own interpreter; stdin is its lifeline."""
    _ignore_signals()
    lifeline = os.fdopen(os.dup(0), "rb", buffering=0)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    stream = socket.socket(fileno=descriptor) if descriptor is not None else _receive_shared(lifeline)

    def leave_with_parent() -> None:
        lifeline.read()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    _work(stream)


def _receive_shared(lifeline: Any) -> socket.socket:
    """Take the socket that a parent on Windows shared with this process."""
    (length,) = struct.unpack("<I", lifeline.read(4))
    return socket.fromshare(lifeline.read(length))  # type: ignore[attr-defined,no-any-return,unused-ignore]


def _run_template(descriptor: int, parent_pid: int, preload: Sequence[str]) -> None:
    """Main of the template: a message with a socket asks for a worker on it, one with a pid for that worker's end."""
    _ignore_signals()
    _import_all(preload)
    # What the imports left never becomes garbage, and looking through it again and again takes workers 6 percent of the
    # time of a training clip. Not in fresh interpreters: there 31 of 36 workers that ended by sys.exit(3) were reported
    # as killed (none of 36 without), presumably because their sockets close earlier on the way out.
    gc.freeze()
    control = socket.socket(fileno=descriptor)
    control.settimeout(1.0)
    workers: set[int] = set()
    with suppress(ConnectionError):
        control.send(b"ready")
        while os.getppid() == parent_pid:
            try:
                message, descriptors, _, _ = socket.recv_fds(control, 64, 1)
            except TimeoutError:
                continue
            if not message:
                break
            if descriptors:
                pid = _fork_worker(control, descriptors[0])
                workers.add(pid)
                control.send(str(pid).encode())
            else:
                workers.discard(int(message))
                control.send(str(_end_child(int(message))).encode())
    for pid in workers:
        _end_child(pid)


def _fork_worker(control: socket.socket, descriptor: int) -> int:
    """Return the pid of a new worker that serves the socket `descriptor`."""
    template_pid = os.getpid()
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    exit_code = 1
    try:
        control.close()
        _die_with(template_pid)
        _work(socket.socket(fileno=descriptor))
        exit_code = 0
    except SystemExit as leave:
        exit_code = leave.code if isinstance(leave.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)  # not the template's own way out
    raise AssertionError("unreachable")


def _die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, whatever code is running then (Linux)."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
    if os.getppid() != parent_pid:
        os._exit(1)


def _end_child(pid: int) -> int | None:
    """Kill a child unless it is dead, and return its exit code; None if it stays (a disk that does not answer)."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _REAP_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None


@dataclass(eq=False)
class Worker:
    """A worker as its parent sees it.

    Args:
        channel: to the worker.
        kill: ends it at once; may be called from any thread, until `reap`.
        reap: kills it if need be, leaves no zombie, returns its exit code if known; called once.
    """

    channel: Channel
    kill: Callable[[], None]
    reap: Callable[[], int | None]

    def ask(self, pickled: bytes, buffers: Sequence[pickle.PickleBuffer], quiet_seconds: float) -> Message:
        """Have one job done and return the reply.

        Raises:
            EOFError, OSError: it died.
            TimeoutError: it made no progress (an OSError too).
        """
        self.channel.send(JOB, pickled, buffers)
        reply = self.channel.receive(quiet_seconds)
        while reply[0] == BEAT:
            reply = self.channel.receive(quiet_seconds)
        return reply


def _command(function: Callable[..., None], *arguments: object) -> list[str]:
    """Return the command that calls a function of this module in a fresh interpreter with this one's module path."""
    start = (
        "import json, sys; sys.path[:], arguments = json.loads(sys.argv.pop()); "
        f"from {__name__} import {function.__name__} as run; run(*arguments)"
    )
    path = [os.fspath(entry) or os.getcwd() for entry in sys.path]
    return [sys.executable, "-c", start, json.dumps([path, arguments])]


def _environment() -> dict[str, str]:
    """One thread per worker: processes are the parallelism here, and a template with threads could not be forked."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class _Template:
    """The parent's end of a template process."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(START_SECONDS)
        self._lock = threading.Lock()
        self._is_ready = False
        with theirs:
            self._process = subprocess.Popen(
                _command(_run_template, theirs.fileno(), os.getpid(), list(preload)),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout belongs to the results of the command
                env=_environment(),
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def start(self) -> Worker:
        """Fork a worker; EOFError or OSError if the template is gone."""
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            if not self._is_ready:
                self._answer()
                self._is_ready = True
            socket.send_fds(self._control, [b"worker"], [theirs.fileno()])
            pid = int(self._answer())
        return Worker(Channel(ours), functools.partial(_kill, pid), functools.partial(self._reap, pid))

    def _reap(self, pid: int) -> int | None:
        try:
            with self._lock:
                self._control.send(str(pid).encode())
                answer = self._answer()
        except (EOFError, OSError):
            return None  # the kernel has killed the worker with the template
        return None if answer == "None" else int(answer)

    def _answer(self) -> str:
        if not (message := self._control.recv(64)):
            raise EOFError
        return message.decode()

    def interrupt(self) -> None:
        """Do not wait for slow imports; nothing has been forked while they run."""
        if not self._is_ready:
            self._process.kill()

    def close(self) -> int:
        """End the template and return its exit code; its workers are reaped already or die with it."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # unlike close, ends it for copies in forked processes too
        self._control.close()
        try:
            return self._process.wait(2 * _REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def _kill(pid: int) -> None:
    """Kill a worker that its template has not reaped yet, so that the number cannot belong to anyone else."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


class ForkLauncher:
    """Starts workers from a template, and another template should that one be gone."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = preload
        self._lock = threading.Lock()
        self._template = _Template(preload)

    def start(self) -> Worker:
        with self._lock:
            if not self._template.is_alive():
                self._template.close()
                self._template = _Template(self._preload)
            try:
                return self._template.start()
            except (EOFError, OSError) as error:
                exit_code = self._template.close()
                raise WorkerStartError(
                    f"cannot start a worker process: its template {describe_exit(exit_code)}; see the messages above"
                ) from error

    def interrupt(self) -> None:
        self._template.interrupt()

    def close(self) -> None:
        self._template.close()


class SpawnLauncher:
    """Starts every worker as a fresh interpreter."""

    def start(self) -> Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            is_inherited = sys.platform != "win32"
            process = subprocess.Popen(
                _command(_run_spawned, theirs.fileno() if is_inherited else None),
                pass_fds=[theirs.fileno()] if is_inherited else [],
                stdin=subprocess.PIPE,
                stdout=2,
                env=_environment(),
            )
            assert process.stdin is not None
            if not is_inherited:
                shared = cast(bytes, cast(Any, theirs).share(process.pid))
                process.stdin.write(struct.pack("<I", len(shared)) + shared)
                process.stdin.flush()

        def reap() -> int:
            process.kill()
            cast(Any, process.stdin).close()
            return process.wait()

        return Worker(Channel(ours), process.kill, reap)

    def interrupt(self) -> None:
        """Starting waits for nothing here."""

    def close(self) -> None:
        """Every worker has been reaped by its thread."""
