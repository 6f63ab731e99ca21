"""Live inputs: a camera or a network stream becomes clips of its latest frames.

The stream is read on a thread of its own, which keeps only the frames of one clip. A model that is slower than the
stream therefore skips frames; it never falls behind, and memory does not grow.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

import numpy as np

from dualformer_cli.errors import VideoError
from dualformer_cli.video.addresses import is_live, mask_credentials
from dualformer_cli.video.live_inputs import choose_stream, connect, explain_failure
from dualformer_cli.video.orientation import orientation_of
from dualformer_cli.video.reader import Transform
from dualformer_cli.video.rgb import RgbConverter

Clip = tuple[float, float, np.ndarray]
"""Seconds of its first and last frame since the stream's first, and its frames, shape (num_frames, ...)."""

_CLOSE_SECONDS = 2.0
_LONGEST_STEP_SECONDS = 10.0
"""A larger step from frame to frame is a sender that set its clock; then our own clock says how long it took."""


class LiveSource:
    """A camera or network stream, connected when this returns; a context manager.

    Close it when done. Reading starts with `clips`.

    Args:
        name: an address (rtsp, rtmp, udp, tcp, srt, http and their secure kinds), `camera:N` or `/dev/videoN`.
        open_timeout_seconds: for an answer, and again for the first data.
        read_timeout_seconds: a stream that sends no picture for so long is taken for lost.

    Attributes:
        name: the input as it may be shown: credentials are masked.
        width, height: of the announced picture, before any rotation.
        fps: the announced frame rate, None if there is none.

    Raises:
        VideoError: if it cannot be opened.
    """

    def __init__(self, name: str, *, open_timeout_seconds: float = 10.0, read_timeout_seconds: float = 10.0) -> None:
        if not is_live(name):
            raise ValueError(f"{name!r} is not a live input")
        self.name = mask_credentials(name)
        self.width = 0
        self.height = 0
        self.fps: float | None = None
        self._location = name
        self._timeouts = (open_timeout_seconds, read_timeout_seconds)
        self._changed = threading.Condition()
        self._is_open = False
        self._is_over = False
        self._is_closing = False
        self._failure: Exception | None = None
        self._num_frames = 0
        self._window: _Window | None = None
        self._thread = threading.Thread(target=self._run, name="dualformer-live", daemon=True)
        self._thread.start()
        try:
            self._await_opening()
        except BaseException:  # Ctrl-C too
            self.close()
            raise

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def num_frames(self) -> int:
        """Return how many source frames came so far."""
        return self._num_frames

    def close(self) -> None:
        """Stop reading and disconnect.

        Returns within 2 s: PyAV cannot be interrupted, so a thread that waits for a silent sender is left to end
        with its timeout.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join(_CLOSE_SECONDS)

    def clips(
        self, num_frames: int, frame_interval: int, every_seconds: float, transform: Transform | None = None
    ) -> Iterator[Clip]:
        """Yield clips of the latest frames until the stream ends; may be called once.

        A clip is ready when its span has been seen and `every_seconds` of the stream have passed since the last
        frame of the clip before. Frames that arrive while the caller works on a clip are skipped, except from a
        recording behind an http address: it waits for the caller. A stream that ends before its first clip yields
        one clip that starts again from the first frame as often as needed.

        Args:
            num_frames: frames in a clip.
            frame_interval: step between its frames, in source frames.
            every_seconds: from clip to clip; 0 yields a clip whenever there is a new frame for it.
            transform: applied once to each frame that may enter a clip, uint8 RGB, shape (height, width, 3).

        Yields:
            start_seconds, end_seconds: times of the first and the last frame of the clip since the stream's first.
            clip: its frames, shape (num_frames, ...).

        Raises:
            VideoError: if the stream breaks off.
        """
        if num_frames < 1 or frame_interval < 1 or every_seconds < 0:
            raise ValueError(f"no clips of {num_frames} frames, one every {frame_interval}, every {every_seconds} s")
        if self._window is not None:
            raise ValueError("the clips of a live source can be taken once")
        window = _Window(num_frames, frame_interval, every_seconds, transform)
        with self._changed:
            self._window = window
            self._changed.notify_all()
        return self._take_clips(window)

    def _take_clips(self, window: _Window) -> Iterator[Clip]:
        while True:
            with self._changed:
                self._await_clip(window)
                if window.is_due():
                    times, frames = window.take()
                elif self._failure is not None:
                    raise self._failure
                elif self._is_closing or window.was_taken:
                    return
                else:
                    times, frames = window.take_wrapped()
                self._changed.notify_all()
            yield times[0], times[-1], np.stack(frames)

    def _await_opening(self) -> None:
        open_timeout, _ = self._timeouts
        with self._changed:
            self._changed.wait_for(lambda: self._is_open or self._is_over, 2 * open_timeout + 1)
            failure = None if self._is_open else self._failure or self._error(f"no answer for {open_timeout:g} s")
        if failure is not None:
            raise failure

    def _await_clip(self, window: _Window) -> None:
        """Wait for the next clip or the end, as long as pictures arrive."""
        _, read_timeout = self._timeouts
        while not (window.is_due() or self._is_over or self._is_closing):
            # A little longer than the thread waits, because the thread may know the reason.
            if not self._changed.wait(read_timeout + 1):
                raise self._error(f"the stream stopped: no picture for {read_timeout:g} s")

    def _error(self, reason: str) -> VideoError:
        return VideoError(self.name, reason)

    # The rest runs on the thread.

    def _run(self) -> None:
        try:
            with connect(self._location, self._timeouts) as container:
                stream = choose_stream(self._location, container)
                stream.thread_type = "AUTO"  # this is the one decoder of the process, and 4K needs more than one core
                self.width, self.height = stream.width, stream.height
                self.fps = float(stream.average_rate) if stream.average_rate else None
                with self._changed:
                    self._is_open = True
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._window is not None or self._is_closing)
                if not self._is_closing:
                    self._read(container, stream)
        except Exception as error:  # raised again where the clips are asked for
            self._failure = explain_failure(self._location, error, self._timeouts, is_open=self._is_open)
        finally:
            with self._changed:
                self._is_over = True
                self._changed.notify_all()

    def _read(self, container: Any, stream: Any) -> None:
        is_recording = self._location.lower().startswith("http") and container.duration is not None
        clock = _Clock()
        converter: RgbConverter | None = None
        for packet in container.demux(stream):
            if self._is_closing:
                return
            for frame in _decode(packet):
                if converter is None:  # all frames get the size and the orientation of the first
                    converter = RgbConverter(self.name, (frame.width, frame.height), orientation_of(frame))
                self._accept(frame, clock.advance(frame.time, time.monotonic()), converter, is_recording)
        if self._num_frames == 0:
            raise self._error("ended before its first picture")

    def _accept(self, frame: Any, seconds: float, converter: RgbConverter, is_recording: bool) -> None:
        window = self._window
        assert window is not None
        is_wanted = window.wants(self._num_frames)
        image = window.transform(np.ascontiguousarray(converter.to_rgb(frame))) if is_wanted else None
        with self._changed:
            if image is not None:
                window.add(self._num_frames, seconds, image)
            self._num_frames += 1
            self._changed.notify_all()
            if is_recording:
                self._changed.wait_for(lambda: self._is_closing or not window.is_due())


class _Window:
    """The latest frames that make a clip, and when the next clip is due.

    Until the first clip is complete every frame is kept, because a stream that ends before needs them to wrap around.
    """

    def __init__(self, num_frames: int, frame_interval: int, every_seconds: float, transform: Transform | None) -> None:
        self.transform: Transform = transform or (lambda frame: frame)
        self.was_taken = False
        self._num_frames = num_frames
        self._frame_interval = frame_interval
        self._every_seconds = every_seconds
        self._latest: deque[tuple[float, np.ndarray]] = deque(maxlen=num_frames)
        self._first: list[tuple[float, np.ndarray]] = []
        self._due_seconds = -math.inf
        self._taken_seconds = -math.inf

    def wants(self, index: int) -> bool:
        """Return whether source frame `index` may enter a clip."""
        return index % self._frame_interval == 0 or not self._is_full()

    def add(self, index: int, seconds: float, image: np.ndarray) -> None:
        if not self._is_full():
            self._first.append((seconds, image))
        if index % self._frame_interval == 0:
            self._latest.append((seconds, image))
        if self._is_full():
            self._first.clear()

    def is_due(self) -> bool:
        return (
            self._is_full() and self._latest[-1][0] >= self._due_seconds and self._latest[-1][0] > self._taken_seconds
        )

    def take(self) -> tuple[Sequence[float], Sequence[np.ndarray]]:
        """Return the times and frames of the latest clip."""
        self.was_taken = True
        times, frames = zip(*self._latest, strict=True)
        self._taken_seconds = times[-1]
        self._due_seconds = times[-1] + self._every_seconds - 1e-6
        return times, frames

    def take_wrapped(self) -> tuple[Sequence[float], Sequence[np.ndarray]]:
        """Return the times of all frames seen, and the frames of a clip that starts again when they are used up."""
        self.was_taken = True
        times, frames = zip(*self._first, strict=True)
        indices = np.arange(self._num_frames) * self._frame_interval % len(frames)
        return times, [frames[index] for index in indices]

    def _is_full(self) -> bool:
        return len(self._latest) == self._num_frames


class _Clock:
    """Seconds since the first frame, from the stream's own times as long as they can be believed."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._stream_time: float | None = None
        self._arrival: float | None = None

    def advance(self, stream_time: float | None, arrival: float) -> float:
        """Return the seconds of the next frame, which carries `stream_time` and came at `arrival` of our clock."""
        if self._arrival is not None:
            step = arrival - self._arrival
            if stream_time is not None and self._stream_time is not None:
                stated = stream_time - self._stream_time
                step = stated if 0 <= stated <= _LONGEST_STEP_SECONDS else step
            self._seconds += step
        self._arrival, self._stream_time = arrival, stream_time
        return self._seconds


def _decode(packet: Any) -> list[Any]:
    """Return the frames of a packet; none if it is damaged, as the first ones are when one joins a running stream."""
    import av

    with suppress(av.error.InvalidDataError):
        return list(packet.decode())
    return []
