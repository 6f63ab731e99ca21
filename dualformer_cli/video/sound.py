"""The sound of a video goes along when its pictures are written anew into an MP4."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Disposition

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import os_reason
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.containers import open_container

_COPIED = frozenset({"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"})
"""Sound that players find in an MP4; what else there is becomes AAC."""
_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_LONGEST_STEP_SECONDS = 10.0
"""A longer step between two packets is another clock than that of the pictures."""


class SoundCopy:
    """The sound of a file on its way into an MP4, in time with pictures whose first one is shown at 0.

    Packets are copied as they are where players find such sound in an MP4, else decoded and encoded as AAC.

    Args:
        path: of the video whose sound it is.
        target: the MP4, before its first packet.

    Attributes:
        problem: why some or all of the sound is missing; None where it is not, or there is none.
    """

    def __init__(self, path: str, target: OutputContainer) -> None:
        self.problem: str | None = None
        self._target = target
        self._packets: Iterator[Packet[AudioStream]] = iter(())
        self._seconds = 0.0
        self._source: InputContainer | None = None
        try:
            self._source, pictures, _ = open_container(path, None)
        except DualFormerError as error:
            self.problem = error.reason
            return
        streams = list(self._source.streams.audio)
        if not streams:
            return
        self._stream = max(streams, key=lambda stream: bool(stream.disposition & Disposition.default))
        self._tick = self._stream.time_base or Fraction(1, 1000)
        self._offset = round((pictures.start_time or 0) * (pictures.time_base or 1) / self._tick)
        try:
            self._is_copied = self._stream.codec_context.codec.canonical_name in _COPIED
            if self._is_copied:
                self._written = target.add_stream_from_template(self._stream)
            else:
                rate = self._stream.rate if self._stream.rate in _AAC_RATES else 48000
                layout = "mono" if self._stream.channels == 1 else "stereo"
                self._written = target.add_stream("aac", rate=rate, layout=layout)
            self._packets = self._source.demux(self._stream)
        except (av.error.FFmpegError, ValueError) as error:
            self.problem = f"{self._stream.codec_context.name}: {os_reason(error)}"

    def close(self) -> None:
        """Let go of the source; the target is its owner's to close, after that."""
        if self._source is not None:
            self._source.close()

    def write_until(self, seconds: float) -> None:
        """Write the sound up to this time of the pictures, and a little more; what fails ends the sound alone."""
        try:
            while self._seconds <= seconds and (packet := next(self._packets, None)) is not None:
                self._write(packet)
        except (av.error.FFmpegError, ValueError) as error:
            self.problem, self._packets = f"it ends at {self._seconds:.1f} s: {os_reason(error)}", iter(())

    def _write(self, packet: Packet[AudioStream]) -> None:
        heartbeat()
        if packet.pts is not None and packet.dts is not None:
            self._advance(packet)
        if not self._is_copied:
            for frame in packet.decode():
                frame.pts = None if frame.pts is None else frame.pts - self._offset
                if frame.pts is None or frame.pts >= 0:
                    self._target.mux(self._written.encode(frame))
            if not packet.size:
                self._target.mux(self._written.encode(None))
        elif packet.size and packet.pts is not None and packet.pts + (packet.duration or 0) >= 0:
            packet.stream = self._written
            self._target.mux(packet)

    def _advance(self, packet: Packet[AudioStream]) -> None:
        """Move a packet to the clock of the pictures."""
        assert packet.pts is not None
        assert packet.dts is not None
        before = self._seconds
        self._seconds = float((packet.pts - self._offset) * self._tick)
        if before and abs(self._seconds - before) > _LONGEST_STEP_SECONDS:
            raise ValueError("its clock jumps")
        if self._is_copied:
            packet.pts, packet.dts = packet.pts - self._offset, packet.dts - self._offset
