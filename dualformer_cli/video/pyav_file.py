"""One video file opened by PyAV: its stream, its packets, and its frames as the decoder gives them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from dualformer_cli.errors import VideoError
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.colours import doubt_about_colours, why_not_rgb, with_known_matrix
from dualformer_cli.video.encryption import ENCRYPTED, protection_of, protection_of_mp4
from dualformer_cli.video.orientation import Orientation
from dualformer_cli.video.reader import MAX_PIXELS, Frame, check_pixels
from dualformer_cli.video.refusals import explain_unknown, first_bytes, is_motion_jpeg

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_STRICT_WITH_OTHERS = "explode+crccheck+bitstream+buffer+careful"
_STRICT = dict.fromkeys(("mpeg1video", "mpeg2video"), "explode+crccheck+buffer+careful")
"""What decoders are told to take for damage. In MPEG-1 and 2, "bitstream" takes the stuffing of constant bit rates for
it: of 304 sound files of 60 codecs it condemned that kind alone, and of 65 with six flipped bits it found one more."""
_PROBED_CODECS = frozenset({"h264", "hevc"})
"""Codecs whose key frames FFmpeg decodes to open a file. In MP4 and MOV the header has all that is needed instead, and
how far frames are reordered follows from its tables; in Matroska that is only guessed from the first packets."""
_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,mxf,nut,dv,rm,wtv,ivf,obu,h264,hevc,m4v,mjpeg,"
    "yuv4mpegpipe"
)
"""Demuxers that read the one file they are given; those of playlists and image patterns would open others."""


def load_av() -> Any:
    """Import PyAV and silence FFmpeg; None when it is not installed."""
    try:
        av = importlib.import_module("av")
    except ImportError:
        return None
    av.logging.set_level(av.logging.PANIC)
    return av


def without_pictures(streams: Iterable[VideoStream]) -> list[VideoStream]:
    """Return the streams that are no covers, thumbnails or still images."""
    kinds = importlib.import_module("av.stream").Disposition
    pictures = kinds.attached_pic | kinds.timed_thumbnails | kinds.still_image
    return [stream for stream in streams if not stream.disposition & pictures]


def shown_stream(streams: Sequence[VideoStream]) -> VideoStream:
    """Return the stream that players show: the largest of those that are the default, or of all where none is."""
    default = importlib.import_module("av.stream").Disposition.default
    chosen = [stream for stream in streams if stream.disposition & default] or streams
    return max(chosen, key=lambda stream: stream.codec_context.width * stream.codec_context.height)


class PyAVFile:
    """One open container, its largest video stream, and a decoder on a single thread.

    Args:
        path: of the file.
        strict: whether damage that the decoder could paint over is a failure.
        known_stream: number of the stream in an MP4 or MOV that was read before. FFmpeg then does not look into the
            packets: for H.264 and HEVC it would decode a key frame, only to learn what the decoder finds anyway.
    """

    def __init__(self, path: str, *, strict: bool = False, known_stream: int | None = None) -> None:
        self.av = load_av()
        if self.av is None:
            raise VideoError(path, "PyAV is not installed; pip install av")
        self.path = path
        self.strict = strict
        self.num_failed = 0
        """Packets that could not be read or decoded."""
        self.ended_early = False
        """Whether reading stopped before the end of the file."""
        self.doubt: str | None = None
        """What makes the colours of its frames doubtful."""
        self.size: tuple[int, int] | None = None
        """Width and height of every frame made by `to_rgb`, before rotation; None: as stored."""
        self._found: Packet[VideoStream] | None = None
        """The packet that `find` read last, still to be decoded."""
        self._reformatter = self.av.video.reformatter.VideoReformatter()
        head = first_bytes(path)
        try:
            self.container = self._open(known_stream)
        except (self.av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(path, self._why_not_opened(error, head)) from None
        self.may_be_encrypted = False
        """Whether each packet has to be asked whether it is encrypted."""
        try:
            if known_stream is None:  # else it was not encrypted when it was read before
                self._refuse_encrypted()
            self.stream = self._choose_stream(known_stream)
            self._configure()
        except BaseException:
            self.container.close()
            raise

    def _open(self, known_stream: int | None) -> InputContainer:
        # Not `options`, which makes PyAV 17 crash on MPEG program streams.
        limits = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        quick: dict[str, Any] = {"format": "mjpeg"} if is_motion_jpeg(self.path) else {}
        if known_stream is not None:
            limits |= {"analyzeduration": "1", "probesize": "32", "fpsprobesize": "0"}
            quick = {"format": "mov", "stream_options": [{"skip_frame": "all"}] * (known_stream + 1)}
        # "file:" keeps a name such as "http:x" from being taken for an address; a bad tag is no reason to refuse.
        container: InputContainer = self.av.open(
            f"file:{self.path}", metadata_errors="ignore", container_options=limits, **quick
        )
        return container

    def _why_not_opened(self, error: Exception, head: bytes) -> str:
        if isinstance(error, MemoryError):
            return "not enough memory to open it"
        is_locked = head[4:8] == b"ftyp" and protection_of_mp4(self.path) == "all"
        return ENCRYPTED if is_locked else explain_unknown(self.path, head)

    def _refuse_encrypted(self) -> None:
        protection = protection_of(self.path, self.container)
        if protection == "all":
            raise VideoError(self.path, ENCRYPTED)
        self.may_be_encrypted = protection == "some packets"

    def _choose_stream(self, known: int | None) -> VideoStream:
        """Return the stream that players show: of those that are no pictures the default one, else the largest."""
        streams = without_pictures(self.container.streams.video)
        if not streams:
            raise VideoError(self.path, f"no video in it, only {self._what_else()}")
        decodable = [stream for stream in streams if stream.codec_context is not None]
        if not decodable:
            raise VideoError(self.path, "its video codec is unknown to PyAV")
        if known is not None:  # sizes that only the header states may rank them otherwise
            decodable = [stream for stream in decodable if stream.index == known] or decodable
        stream: VideoStream = shown_stream(decodable)
        check_pixels(self.path, stream.codec_context.width, stream.codec_context.height)
        return stream

    def _what_else(self) -> str:
        """Name what is in a file without a video."""
        kinds: list[str] = sorted({stream.type for stream in self.container.streams if stream.type != "video"})
        if self.container.streams.video:
            kinds.append("a cover picture")
        return " and ".join(kinds) or "an empty container"

    def _configure(self) -> None:
        # One thread: many workers decode at once, and skip_frame is read at the wrong packet by threaded decoders.
        self.stream.thread_type = "NONE"
        self.stream.thread_count = 1  # for dav1d, which does not know thread_type
        strict = {"err_detect": _STRICT.get(self.codec, _STRICT_WITH_OTHERS)} if self.strict else {}
        self.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), **strict}

    @property
    def containers(self) -> frozenset[str]:
        return frozenset(self.container.format.name.split(","))

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
            except self.av.FFmpegError:
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
        except self.av.FFmpegError:
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
        except self.av.FFmpegError:
            return False
        return True

    def to_rgb(self, frame: VideoFrame, orientation: Orientation) -> Frame:
        """Convert a frame and turn it upright; the result may be a view of memory with gaps between its rows."""
        check_pixels(self.path, frame.width, frame.height)
        width, height = self.size or (frame.width, frame.height)
        return orientation.apply(self._convert(frame, width, height))

    def _convert(self, frame: VideoFrame, width: int, height: int) -> Frame:
        self.doubt = self.doubt or doubt_about_colours(frame)
        try:
            # One reformatter per file and one thread: otherwise each frame sets up a scaler and a thread pool.
            known = with_known_matrix(frame)
            rgb: Frame = self._reformatter.reformat(known, width, height, "rgb24", threads=1).to_ndarray()
        except (self.av.FFmpegError, ValueError) as error:
            raise VideoError(self.path, why_not_rgb(frame)) from error
        return rgb

    def close(self) -> None:
        self.container.close()


@contextmanager
def opened(path: str, *, strict: bool = False) -> Iterator[PyAVFile]:
    file = PyAVFile(path, strict=strict)
    try:
        yield file
    finally:
        file.close()
