"""What runs inside a worker process, and in the template that workers are forked from.

The signals, the lifeline and the end of both are here: everything dies with the parent, kill -9 included. The template
ends when its socket closes or its parent changes, the kernel kills forked workers with the template, and fresh
interpreters end when their stdin closes.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dualformer_cli.system.channel import RESULT, Channel, Reply, pack, pack_error
from dualformer_cli.system.signals import KILL, die_with_parent

REAP_SECONDS = 5.0
"""How long the end of a killed worker is waited for."""

_channel: Channel | None = None


def heartbeat() -> None:
    """Let the parent know that the job at hand makes progress; call it after every packet or frame.

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


def _perform(pickled: memoryview, buffers: Sequence[memoryview]) -> Reply:
    """Call the function of one job; everything that it raises is its reply."""
    try:
        function, item = pickle.loads(pickled, buffers=buffers)
        result = function(item)
    except Exception as error:
        return pack_error(error)
    try:
        return (RESULT, *pack(result))
    except Exception as error:  # pickle raises whatever the object's own methods raise
        name = type(result).__qualname__
        return pack_error(TypeError(f"a worker's result of type {name} cannot be sent back: {error}"))


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


def run_spawned(descriptor: int | None) -> None:
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


def run_template(descriptor: int, parent_pid: int, preload: Sequence[str]) -> None:
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
    sys.stderr.flush()
    os._exit(0)  # whoever closes the pool waits, and would wait for the end of every module too


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
        die_with_parent()
        if os.getppid() != template_pid:
            os._exit(1)
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


def _end_child(pid: int) -> int | None:
    """Kill a child unless it is dead, and return its exit code; None if it stays (a disk that does not answer)."""
    os.kill(pid, KILL)
    deadline = time.monotonic() + REAP_SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    return None
