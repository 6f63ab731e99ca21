"""How worker processes are started, and a worker as its parent sees it.

On Linux workers are forked from a template: a fresh, single-threaded interpreter that has only imported the modules
that they need. Forking the parent instead would copy the locks that torch's threads hold at that moment; a fresh
interpreter per worker would import torch each time (1.6 to 2.2 s of CPU and 500 MB). Elsewhere, where forking after
imports is unsafe, every worker is a fresh interpreter. Neither runs the caller's main module again.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.channel import BEAT, JOB, Channel, Message, Silence
from dualformer_cli.system.signals import KILL
from dualformer_cli.system.threads import ONE_THREAD
from dualformer_cli.system.worker_process import REAP_SECONDS, run_spawned, run_template

START_SECONDS = 120.0
"""For the preload modules and the initializer; torch alone can take tens of seconds on a busy disk."""


class WorkerStartError(DualFormerError):
    """No worker could be started; no item is to blame."""


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


@dataclass(eq=False)
class Worker:
    """A worker as its parent sees it.

    Args:
        channel: to the worker.
        kill: ends it at once; may be called from any thread, until `reap`.
        reap: kills it if need be, leaves no zombie, returns its exit code if known; called once.
        starved_seconds: how long it has waited for a core so far, as on a machine with more work than cores.
    """

    channel: Channel
    kill: Callable[[], None]
    reap: Callable[[], int | None]
    starved_seconds: Callable[[], float]

    def ask(self, pickled: bytes, buffers: Sequence[pickle.PickleBuffer], quiet_seconds: float) -> Message:
        """Have one job done and return the reply.

        Raises:
            EOFError, OSError: it died.
            TimeoutError: it made no progress for so long, in which it had a core to run on (an OSError too).
        """
        self.channel.send(JOB, pickled, buffers)
        reply = self.channel.receive(quiet_seconds, self.starved_seconds)
        while reply[0] == BEAT:
            reply = self.channel.receive(quiet_seconds, self.starved_seconds)
        return reply


def _command(function: Callable[..., None], *arguments: object) -> list[str]:
    """Return the command that calls a function in a fresh interpreter with this one's module path."""
    start = (
        "import json, sys; sys.path[:], arguments = json.loads(sys.argv.pop()); "
        f"from {function.__module__} import {function.__name__} as run; run(*arguments)"
    )
    path = [os.fspath(entry) or os.getcwd() for entry in sys.path]
    return [sys.executable, "-c", start, json.dumps([path, arguments])]


class _Template:
    """The parent's end of a template process."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(min(1.0, START_SECONDS / 10))
        self._lock = threading.Lock()
        self._is_ready = False
        with theirs:
            self._process = subprocess.Popen(
                _command(run_template, theirs.fileno(), os.getpid(), list(preload)),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout belongs to the results of the command
                env={**os.environ, **ONE_THREAD},  # and a template with threads could not be forked
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
        kill, reap = functools.partial(_kill, pid), functools.partial(self._reap, pid)
        return Worker(Channel(ours), kill, reap, functools.partial(starved_seconds, pid))

    def _reap(self, pid: int) -> int | None:
        try:
            with self._lock:
                self._control.send(str(pid).encode())
                answer = self._answer()
        except (EOFError, OSError):
            return None  # the kernel has killed the worker with the template
        return None if answer == "None" else int(answer)

    def _answer(self) -> str:
        """Return the next word of the template; TimeoutError if it is silent for too long with a core to run on."""
        silence = Silence(functools.partial(starved_seconds, self._process.pid))
        while True:
            try:
                message = self._control.recv(64)
            except TimeoutError:
                silence.add(self._control.gettimeout() or 0.0)
                if silence.seconds >= START_SECONDS - 1e-6:
                    raise
                continue
            if not message:
                raise EOFError
            return message.decode()

    def interrupt(self) -> None:
        """Do not wait for slow imports; nothing has been forked while they run."""
        if not self._is_ready:
            self._process.kill()

    def close(self) -> int | None:
        """End the template and return its exit code, None if it had to be killed; its workers die with it."""
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # unlike close, ends it for copies in forked processes too
        self._control.close()
        try:
            return self._process.wait(2 * REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None


def _kill(pid: int) -> None:
    """Kill a worker that its template has not reaped yet, so that the number cannot belong to anyone else."""
    with suppress(ProcessLookupError):
        os.kill(pid, KILL)


def starved_seconds(pid: int) -> float:
    """Return how long a process has been ready to run, and waited for a core; 0 where the kernel does not say."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


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
            except TimeoutError as error:
                self._template.close()
                raise WorkerStartError(
                    f"cannot start a worker process: not ready after {START_SECONDS:g} s; the machine is too busy, or "
                    "a library that it loads hangs"
                ) from error
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
                _command(run_spawned, theirs.fileno() if is_inherited else None),
                pass_fds=[theirs.fileno()] if is_inherited else [],
                stdin=subprocess.PIPE,
                stdout=2,
                env={**os.environ, **ONE_THREAD},
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

        return Worker(Channel(ours), process.kill, reap, functools.partial(starved_seconds, process.pid))

    def interrupt(self) -> None:
        """Starting waits for nothing here."""

    def close(self) -> None:
        """Every worker has been reaped by its thread."""
