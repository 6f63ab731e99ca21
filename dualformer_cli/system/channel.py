"""The messages between a worker process and its parent, and what travels in them: values and errors."""

from __future__ import annotations

import pickle
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np

from dualformer_cli.errors import DualFormerError

Message = tuple[int, memoryview, list[memoryview]]
"""Its kind, a pickle, and the buffers that pickle protocol 5 keeps out of it."""
Packed = tuple[bytes, list[pickle.PickleBuffer]]
"""A pickle and its buffers, to be sent."""
Reply = tuple[int, bytes, list[pickle.PickleBuffer]]
"""Its kind, and a pickle with its buffers, to be sent."""
BEAT, JOB, RESULT, ERROR = range(4)

_HEADER = struct.Struct("<BIQ")  # kind, number of buffers, bytes of the pickle
_BEAT_SECONDS = 0.1


class WorkerTraceback(Exception):  # noqa: N818
    """Carries the text of a worker's traceback, as the cause of an error that was raised there."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Silence:
    """How long nothing has come from a process, without the time in which it could not have spoken.

    Args:
        unheard_seconds: how long that has been so far; asked only once something does not come.
    """

    def __init__(self, unheard_seconds: Callable[[], float]) -> None:
        self.seconds = 0.0
        self._elapsed = 0.0
        self._unheard_seconds = unheard_seconds
        self._unheard_before: float | None = None

    def add(self, seconds: float) -> None:
        """Note that nothing has come for so much longer."""
        unheard = self._unheard_seconds()
        if self._unheard_before is None:
            self._unheard_before = unheard
        self._elapsed += seconds
        # the kernel says of a wait at its end, so that more than has elapsed can be taken off
        self.seconds = max(0.0, self._elapsed - (unheard - self._unheard_before))


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
        """Return whether the other side is still there."""
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

    def receive(
        self, quiet_seconds: float | None = None, unheard_seconds: Callable[[], float] = lambda: 0.0
    ) -> Message:
        """Wait for one message.

        Args:
            quiet_seconds: give up when no byte arrives for this long; None waits for ever.
            unheard_seconds: how long the other side could not have spoken so far; such time does not count.

        Raises:
            EOFError, OSError: the other side is gone.
            TimeoutError: nothing arrived in time (an OSError too).
        """
        # Short waits are added up: one long wait would be over at once when a stopped process (Ctrl-Z) goes on.
        self._stream.settimeout(None if quiet_seconds is None else min(1.0, quiet_seconds / 10))
        exactly = partial(self._receive_exactly, quiet_seconds=quiet_seconds, unheard_seconds=unheard_seconds)
        kind, num_buffers, num_bytes = _HEADER.unpack(exactly(_HEADER.size))
        lengths = struct.unpack(f"<{num_buffers}Q", exactly(8 * num_buffers))
        pickled = exactly(num_bytes)
        return kind, pickled, [exactly(length) for length in lengths]

    def _receive_exactly(
        self, num_bytes: int, quiet_seconds: float | None, unheard_seconds: Callable[[], float]
    ) -> memoryview:
        data = np.empty(num_bytes, np.uint8).data  # a bytearray would be filled with zeros first
        rest = data
        silence = Silence(unheard_seconds)
        while rest:
            try:
                received = self._stream.recv_into(rest)
            except TimeoutError:
                silence.add(self._stream.gettimeout() or 0.0)
                if quiet_seconds is not None and silence.seconds >= quiet_seconds - 1e-6:
                    raise
                continue
            if received == 0:
                raise EOFError
            rest = rest[received:]
            silence = Silence(unheard_seconds)
        return data

    def beat(self) -> None:
        """Send that the job makes progress, at most once in _BEAT_SECONDS."""
        now = time.monotonic()
        if self.beating and now - self._last_beat >= _BEAT_SECONDS:
            self._last_beat = now
            self.send(BEAT)


def pack(value: object) -> Packed:
    """Pickle a value without copying its large arrays."""
    buffers: list[pickle.PickleBuffer] = []
    return pickle.dumps(value, protocol=5, buffer_callback=buffers.append), buffers


def pack_error(error: Exception) -> Reply:
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
