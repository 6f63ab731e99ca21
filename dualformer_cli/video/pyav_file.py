"""One video file opened by PyAV: its stream, its packets, and its frames as the decoder gives them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Set
from itertools import chain
from typing import TYPE_CHECKING

from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.containers import open_container
from dualformer_cli.video.reader import MAX_PIXELS

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_STRICT_WITH_OTHERS = "explode+crccheck+bitstream+buffer+careful"
_STRICT = dict.fromkeys(("mpeg1video", "mpeg2video"), "explode+crccheck+buffer+careful")
"""What decoders take for damage. In MPEG-1 and 2, "bitstream" takes the stuffing of constant bit rates for
it: of 304 sound files of 60 codecs it condemned that kind alone, and of 65 with six flipped bits it found one more."""
_PROBED_CODECS = frozenset({"h264", "hevc"})
"""Codecs whose key frames FFmpeg decodes to open a file. In MP4 and MOV the header has all that is needed instead, and
how far frames are reordered follows from its tables; in Matroska that is only guessed from the first packets."""
_JUMPING_CONTAINERS = frozenset({"mpegts", "mpeg", "flv", "asf", "rm"})
"""Containers of streams, whose clock may start anew half-way."""


class PyAVFile:
    """One open container, the stream of it that players show, and a decoder on a single thread.

    Args:
        path: of the file.
        strict: whether damage that the decoder could paint over is a failure.
        known_stream: as `open_container` takes it.
    """

    def __init__(self, path: str, *, strict: bool = False, known_stream: int | None = None) -> None:
        self.path = path
        self.num_failed = 0
        """Packets that could not be read or decoded."""
        self.ended_early = False
        """Whether reading stopped before the end of the file."""
        self._found: Packet[VideoStream] | None = None
        """The packet that `find` read last, still to be decoded."""
        self.container, self.stream, self.outline = open_container(path, known_stream)
        self._failure: type[Exception] = importlib.import_module("av").FFmpegError
        # One thread: many workers decode at once, and skip_frame is read at the wrong packet by threaded decoders.
        self.stream.thread_type = "NONE"
        self.stream.thread_count = 1  # for dav1d, which does not know thread_type
        options = {"err_detect": _STRICT.get(self.codec, _STRICT_WITH_OTHERS)} if strict else {}
        self.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), **options}

    @property
    def containers(self) -> frozenset[str]:
        return frozenset(self.container.format.name.split(","))

    @property
    def may_jump(self) -> bool:
        """Whether its clock may start anew half-way."""
        return bool(self.containers & _JUMPING_CONTAINERS)

    @property
    def codec(self) -> str:
        return str(self.stream.codec_context.codec.canonical_name)

    @property
    def stated_duration(self) -> float | None:
        """Seconds that the container's header states, sound included; None when it does not."""
        duration, start = self.container.duration, self.container.start_time
        if duration is None:
            return None
        # Matroska counts from 0, wherever the first frame is; others from where the first stream starts.
        offset = max(0, start or 0) if "matroska" in self.containers else 0
        return (duration - offset) / 1e6

    @property
    def is_intra_only(self) -> bool:
        """Whether each packet of this codec is a picture of its own."""
        return bool(self.stream.codec_context.codec.intra_only)

    @property
    def has_full_header(self) -> bool:
        """Whether the container's header says all that decoding needs, so that it can be opened by `known_stream`."""
        extradata = self.stream.codec_context.extradata or b""
        is_own = extradata[:1] == b"\1"  # avcC or hvcC; what FFmpeg collects from packets starts with 0
        return "mov" in self.containers and self.codec in _PROBED_CODECS and is_own

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """Yield the packets from here to the end of the file, or to where it can no longer be read."""
        packets = self.container.demux(self.stream)
        while True:
            heartbeat()
            try:
                packet = next(packets, None)
            except self._failure:
                self.num_failed += 1
                self.ended_early = True
                return
            except IndexError:  # PyAV at the very end, when a damaged file made a stream turn up late
                return
            if packet is None:
                return
            if packet.size:
                yield packet

    def decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Decode a packet, or with None bring out what the decoder still holds."""
        try:
            return packet.decode() if packet is not None else self.stream.decode(None)
        except self._failure:
            self.num_failed += 1
            return []

    def frames(self) -> Iterator[VideoFrame]:
        """Decode from here to the end of the file."""
        for packet in self.packets():
            yield from self.decode(packet)
        yield from self.decode(None)

    def frames_for(self, needed: Set[int]) -> Iterator[tuple[float, VideoFrame]]:
        """Decode from the packet of `find` on, without what is neither needed nor referred to, until all needed is out.

        Args:
            needed: the pts of frames that must come out; others may.

        Yields:
            The latest pts of the packets read so far, and a frame.
        """
        context = self.stream.codec_context
        newest, unread = -math.inf, set(needed)
        found, self._found = self._found, None
        for packet in chain([] if found is None else [found], self.packets()):
            is_spare = packet.pts is not None and packet.pts not in needed
            context.skip_frame = "NONREF" if is_spare else "DEFAULT"
            if packet.pts is not None:
                newest = max(newest, packet.pts)
                unread.discard(packet.pts)
            for frame in self.decode(packet):
                yield newest, frame
            if not unread:
                break  # further packets would only push out the frames that the decoder still holds
        context.skip_frame = "DEFAULT"
        for frame in self.decode(None):
            yield newest, frame

    def learn_encoder(self, packet: Packet[VideoStream]) -> None:
        """Show the decoder what a packet says about its encoder, without the work of decoding the picture."""
        self.stream.codec_context.skip_frame = "ALL"
        self.decode(packet)

    def find(self, key: int) -> bool:
        """Read on to the key packet of this time, without decoding what lies before it; False when it does not come.

        A container that takes other packets for keys, or that looks for times of decoding, may have gone before it or
        behind it.
        """
        self._found = None
        for packet in self.packets():
            if packet.pts == key:
                self._found = packet
                return True
            if packet.pts is None or packet.pts > key:
                break
        return False

    def seek(self, pts: int) -> bool:
        """Go to the key packet at or before this time; False when the container cannot."""
        try:
            self.container.seek(pts, stream=self.stream)
        except self._failure:
            return False
        return True

    def close(self) -> None:
        self.container.close()
