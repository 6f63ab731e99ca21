"""A video file, or a folder of numbered frames, and frame numbers become frames.

Frame i is the i-th frame of a decode from the file's first byte to its last, in the order of display; frames that
an edit list hides do not count. Every reader keeps to that, however it gets there:

* `PyAVReader` reads the packets once without decoding them, and then seeks, in containers whose timestamps can be
  believed. It checks itself after each seek and decodes from the start when anything is odd.
* `DecordReader` trusts decord with what decord gets right and hands the rest to PyAV.
* `FrameFolderReader` reads numbered images.

A reader must be made in the process that uses it, and by one thread at a time.
"""

from __future__ import annotations

import importlib
import math
import operator
import os
import pickle
import re
import stat
import struct
import warnings
import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Container, Generator, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image

from dualformer_cli.data.workers import heartbeat
from dualformer_cli.errors import VideoError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Frame = npt.NDArray[np.uint8]
"""One RGB frame, shape (height, width, 3)."""
Transform = Callable[[Frame], npt.NDArray[Any]]

MAX_FRAMES = 10_000_000
"""Frames of one file; a header may claim any number. 92 hours at 30 frames per second."""
MAX_PIXELS = 100_000_000
"""Pixels of one frame: three times 8K."""
MAX_RESULT_BYTES = 4 * 2**30
"""Bytes that one `read` may return."""

_MAX_BAD_SHARE = 0.1
_SEEKABLE_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm"})
"""Containers that state when each frame is shown and find a timestamp again; others are decoded from the start."""
_FRAME_PER_PACKET = frozenset({"h264", "hevc", "vp9", "av1", "mjpeg", "prores"})
"""Codecs of which, in those containers, each packet is one frame; others may hold hidden or uncoded frames."""
_PROBED_CODECS = frozenset({"h264", "hevc"})
"""Codecs whose key frames FFmpeg decodes to open a file. In MP4 and MOV the header has all that is needed instead, and
how far frames are reordered follows from its tables; in Matroska that is only guessed from the first packets."""
_STATING_DURATION = frozenset({"matroska", "webm", "flv"})
"""Containers whose header says how long the file is and whose frames can be read up to where it was cut off."""
_CONTAINERS = (
    "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,mxf,nut,dv,rm,wtv,ivf,obu,h264,hevc,m4v,yuv4mpegpipe"
)
"""Demuxers that read the one file they are given; those of playlists and image patterns would open others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a video is, as its reader will deliver it. Container tags, which may say where it was shot, are not read."""

    path: str
    num_frames: int
    fps: float | None
    """Mean frames per second; None when nothing says."""
    width: int
    height: int
    """Size in pixels, after rotation."""
    duration_seconds: float | None
    """From the start of the first frame to the end of the last."""
    codec: str
    decoder: str
    """What decodes it: pyav, decord or frames."""
    rotation: int
    """Degrees counter-clockwise by which stored frames are turned; already applied."""
    is_seekable: bool
    """Whether a frame can be reached without decoding all before it."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileIndex:
    """What a PyAVReader found out by reading a whole file, for the next reader of the same file.

    It is small, 200 to 300 bytes for 10 s of video, and travels between processes.
    """

    packed: bytes
    """Never from outside: it is a pickle."""


class VideoReader(ABC):
    """Frames of one video by number. Opened by `open_video`; close it, or use it in a `with`."""

    info: VideoInfo
    times_seconds: npt.NDArray[np.float64] | None
    """When each frame is shown, in seconds after the first, shape (num_frames,); None when unknown."""
    warnings: list[str]
    """What was odd so far, each thing once."""
    index: FileIndex | None = None
    """What another reader of the same file need not find out again; None where nothing was costly."""

    def read(self, indices: Sequence[int], transform: Transform | None = None) -> npt.NDArray[Any]:
        """Decode the frames with these numbers.

        Args:
            indices: frame numbers in any order; repeats are allowed.
            transform: applied to each frame as soon as it is decoded, so that full-size frames never pile up. Its
                results must have one shape. When damage is met half-way, a frame may be transformed a second time.

        Returns:
            The frames in the order asked, shape (len(indices), height, width, 3), or as `transform` makes them.

        Raises:
            VideoError: if they cannot be decoded, or the result is larger than MAX_RESULT_BYTES.
            ValueError: if no frame is asked for, or one that does not exist.
        """
        slots = self._slots(indices)
        stack: npt.NDArray[Any] | None = None
        for index, frame in self._decode(sorted(slots)):
            image = frame if transform is None else transform(frame)
            if stack is None:
                stack = self._empty_stack(len(indices), image)
            elif image.shape != stack.shape[1:]:
                raise ValueError(f"transform made shape {image.shape} of frame {index}, {stack.shape[1:]} of others")
            for slot in slots[index]:
                stack[slot] = image
        assert stack is not None
        return stack

    def frames(self) -> Iterator[Frame]:
        """Yield all frames in order, one at a time."""
        position = 0
        for index, frame in self._decode(range(self.info.num_frames)):
            if index == position:
                yield np.ascontiguousarray(frame)
                position += 1

    def close(self) -> None:  # noqa: B027 (some hold nothing open)
        """Let go of the file."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        """Yield (number, frame) for each wanted number; `wanted` is ascending without repeats.

        May start over when what was yielded turns out to be doubtful; the later frame of a number counts.
        """

    def _slots(self, indices: Sequence[int]) -> dict[int, list[int]]:
        """Map each frame number to the places of the result that show it."""
        slots: dict[int, list[int]] = {}
        for slot, index in enumerate(indices):
            slots.setdefault(operator.index(index), []).append(slot)
        if not slots:
            raise ValueError("no frame numbers given")
        for index in (min(slots), max(slots)):
            if not 0 <= index < self.info.num_frames:
                raise ValueError(f"frame {index} is not one of the {self.info.num_frames} frames of {self.info.path!r}")
        return slots

    def _empty_stack(self, num_images: int, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = f"{num_images} frames of shape {image.shape} are {num_images * image.nbytes:,} bytes"
        advice = "ask for fewer frames or resize them"
        if num_images * image.nbytes > MAX_RESULT_BYTES:
            raise VideoError(self.info.path, f"{size}, more than the {MAX_RESULT_BYTES:,} of one read; {advice}")
        try:
            return np.empty((num_images, *image.shape), image.dtype)
        except MemoryError:
            raise VideoError(self.info.path, f"{size}, more memory than there is; {advice}") from None

    def _warn(self, message: str) -> None:
        if message not in self.warnings:
            self.warnings.append(message)


def open_video(
    path: str | PathLike[str],
    *,
    decoder: Literal["auto", "pyav", "decord"] = "auto",
    frame_rate: float | None = None,
    index: FileIndex | None = None,
) -> VideoReader:
    """Open a video file, or a folder of numbered frames.

    Args:
        path: a regular file of any name, or a folder of images.
        decoder: the library that decodes files; auto is PyAV, or decord where PyAV is not installed.
        frame_rate: frames per second of a folder of frames, which does not say.
        index: of an earlier reader of this path, in this process or another. It saves PyAV from reading the whole file
            first; one of a file that has changed since is ignored.

    Raises:
        VideoError: if it is not a readable video, with the reason.
        ValueError: if `decoder` is none of the three, or `frame_rate` is not positive.
    """
    if decoder not in ("auto", "pyav", "decord"):
        raise ValueError(f"decoder must be auto, pyav or decord, got {decoder!r}")
    if frame_rate is not None and not 0 < frame_rate < math.inf:
        raise ValueError(f"frame_rate must be positive, got {frame_rate}")
    name = os.fspath(path)
    if _is_folder(name):
        return FrameFolderReader(name, frame_rate=frame_rate)
    if decoder == "pyav" or (decoder == "auto" and _load_av() is not None):
        return PyAVReader(name, index)
    if decoder == "auto" and _load_decord() is None:
        raise VideoError(name, "neither PyAV nor decord is installed; pip install av")
    return DecordReader(name)


def _is_folder(path: str) -> bool:
    """Tell a folder from a regular file that is not empty, or say why it is neither."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise VideoError(path, "no such file or folder") from None
    except OSError as error:
        raise VideoError(path, _plain(error)) from None
    except ValueError:
        raise VideoError(path, "not a valid file name") from None
    if stat.S_ISDIR(status.st_mode):
        return True
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, f"a {_kind_of(status.st_mode)}, not a file")
    if status.st_size == 0:
        raise VideoError(path, "the file is empty (0 bytes)")
    return False


def _kind_of(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "named pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def _plain(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror or "cannot be read").lower()


def _first_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1024)
    except OSError as error:
        raise VideoError(path, _plain(error)) from None


_SIGNATURES = (
    (re.compile(rb"\s*#EXTM3U|\s*ffconcat |\s*\[playlist\]"), "a playlist, not a video"),
    (re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE), "a web page, not a video; download it again"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the video itself; fetch it with git lfs pull"),
    (
        re.compile(rb"\xff\xd8\xff|\x89PNG|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*", re.DOTALL),
        "an image, not a video",
    ),
    (re.compile(rb"....ftyp(heic|heix|heim|heis|mif1|avif)", re.DOTALL), "an image, not a video"),
    (re.compile(rb"ID3|fLaC|RIFF....WAVE|\xff[\xf1-\xf3\xf9-\xfb]", re.DOTALL), "an audio file, not a video"),
    (re.compile(rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|Rar!|7z\xbc\xaf"), "an archive, not a video; unpack it"),
)


def _explain_unknown(head: bytes) -> str:
    """Say what a file is that no demuxer wants."""
    text = head.removeprefix(b"\xef\xbb\xbf")
    for signature, reason in _SIGNATURES:
        if signature.match(text):
            return reason
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in text):
        return "a text file, not a video"
    return "not a video format that is known here, or damaged beyond opening"


def _load_av() -> Any:
    """Import PyAV and silence FFmpeg; None when it is not installed."""
    try:
        av = importlib.import_module("av")
    except ImportError:
        return None
    av.logging.set_level(av.logging.PANIC)
    return av


class _PyAVFile:
    """One open container, its largest video stream, and a decoder on a single thread.

    Args:
        path: of the file.
        strict: whether damage that the decoder could paint over is a failure.
        known_stream: number of the stream in an MP4 or MOV that was read before. FFmpeg then does not look into the
            packets: for H.264 and HEVC it would decode a key frame, only to learn what the decoder finds anyway.
    """

    def __init__(self, path: str, *, strict: bool = False, known_stream: int | None = None) -> None:
        self.av = _load_av()
        if self.av is None:
            raise VideoError(path, "PyAV is not installed; pip install av")
        self.path = path
        self.strict = strict
        self.num_failed = 0
        """Packets that could not be read or decoded."""
        self.ended_early = False
        """Whether reading stopped before the end of the file."""
        self.size: tuple[int, int] | None = None
        """Width and height of every frame made by `to_rgb`, before rotation; None: as stored."""
        self._reformatter = self.av.video.reformatter.VideoReformatter()
        head = _first_bytes(path)
        try:
            self.container = self._open(known_stream)
        except (self.av.FFmpegError, OSError, ValueError) as error:
            raise VideoError(path, self._why_not_opened(error, head)) from None
        try:
            self.stream = self._choose_stream(known_stream)
            self._configure()
        except BaseException:
            self.container.close()
            raise

    def _open(self, known_stream: int | None) -> InputContainer:
        # Not `options`, which makes PyAV 17 crash on MPEG program streams.
        limits = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}
        quick: dict[str, Any] = {}
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
        reason = _explain_unknown(head)
        if head[4:8] == b"ftyp" and not reason.startswith("an image"):
            return "an MP4 without a readable index, as left by an unfinished download or recording"
        return reason

    def _choose_stream(self, known: int | None) -> VideoStream:
        disposition = self.av.stream.Disposition
        pictures = disposition.attached_pic | disposition.timed_thumbnails | disposition.still_image
        streams = [stream for stream in self.container.streams.video if not stream.disposition & pictures]
        if not streams:
            others = sorted({stream.type for stream in self.container.streams})
            raise VideoError(self.path, f"no video in it, only {' and '.join(others) or 'an empty container'}")
        decodable = [stream for stream in streams if stream.codec_context is not None]
        if not decodable:
            raise VideoError(self.path, "its video codec is unknown to PyAV")
        if known is not None:  # sizes that only the header states may rank them otherwise
            decodable = [stream for stream in decodable if stream.index == known] or decodable
        stream: VideoStream = max(decodable, key=lambda s: s.codec_context.width * s.codec_context.height)
        _check_pixels(self.path, stream.codec_context.width, stream.codec_context.height)
        return stream

    def _configure(self) -> None:
        # One thread: many workers decode at once, and skip_frame is read at the wrong packet by threaded decoders.
        self.stream.thread_type = "NONE"
        self.stream.thread_count = 1  # for dav1d, which does not know thread_type
        strict = {"err_detect": "explode+crccheck+bitstream+buffer+careful"} if self.strict else {}
        self.stream.codec_context.options = {"max_pixels": str(MAX_PIXELS), **strict}

    @property
    def containers(self) -> frozenset[str]:
        return frozenset(self.container.format.name.split(","))

    @property
    def codec(self) -> str:
        return str(self.stream.codec_context.codec.canonical_name)

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
        """Decode from here on, leaving out what is neither needed nor referred to, until all that is needed is out.

        Args:
            needed: the pts of frames that must come out; others may.

        Yields:
            The latest pts of the packets read so far, and a frame.
        """
        context = self.stream.codec_context
        newest, unread = -math.inf, set(needed)
        for packet in self.packets():
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

    def seek(self, pts: int) -> bool:
        """Go to the key packet at or before this time; False when the container cannot."""
        try:
            self.container.seek(pts, stream=self.stream)
        except self.av.FFmpegError:
            return False
        return True

    def to_rgb(self, frame: VideoFrame, rotation: int) -> Frame:
        """Convert a frame and turn it upright; the result may be a view of memory with gaps between its rows."""
        _check_pixels(self.path, frame.width, frame.height)
        width, height = self.size or (frame.width, frame.height)
        try:
            # One reformatter per file and one thread: otherwise each frame sets up a scaler and a thread pool.
            rgb = self._reformatter.reformat(frame, width, height, "rgb24", threads=1).to_ndarray()
        except (self.av.FFmpegError, ValueError) as error:
            raise VideoError(self.path, f"pixel format {frame.format.name} cannot be turned into RGB") from error
        return np.rot90(rgb, rotation // 90) if rotation else rgb

    def close(self) -> None:
        self.container.close()


def _check_pixels(path: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise VideoError(path, f"frames of {width}x{height} pixels are more than the {MAX_PIXELS:,} allowed")


@dataclass(slots=True)
class _PacketTable:
    """What reading all packets of a stream says about its frames."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    """Of packets whose frame is shown."""
    keys: array[int] = field(default_factory=lambda: array("q"))
    """Of packets where decoding can start; an edit list may hide their frames."""
    last_pts: int | None = None
    last_duration: int = 0
    is_regular: bool = True
    """Whether every packet has a time and is whole."""
    starts_with_key: bool = False
    num_packets: int = 0
    has_hidden: bool = False
    """Whether an edit list hides frames."""

    def add(self, packet: Packet[VideoStream]) -> None:
        self.num_packets += 1
        if packet.pts is None or packet.is_corrupt:
            self.is_regular = False
        if packet.pts is None:
            return
        if packet.is_keyframe:
            self.starts_with_key = self.starts_with_key or self.num_packets == 1
            self.keys.append(packet.pts)
        if packet.is_discard:
            self.has_hidden = True
            return
        self.pts.append(packet.pts)
        if self.last_pts is None or packet.pts > self.last_pts:
            self.last_pts, self.last_duration = packet.pts, packet.duration or 0

    def frame_times(self) -> npt.NDArray[np.int64] | None:
        """Return when each frame is shown, in order; None when the packets do not settle it."""
        times = np.sort(np.frombuffer(self.pts, np.int64)) if self.pts else np.empty(0, np.int64)
        if not (self.is_regular and self.starts_with_key and times.size and _rises(times)):
            return None
        # Frames shown before the first key packet may lack what they refer to; only decoding can tell.
        return times if times[0] >= self.keys[0] else None


@dataclass(frozen=True, slots=True)
class _Index:
    """When each frame of a file is shown."""

    num_frames: int
    pts: npt.NDArray[np.int64] | None
    """Of each frame in order of display, strictly rising, in units of the stream's time base; None when unknown."""
    last_duration: int
    """Of the last frame, in the same units; 0 when unknown."""
    keys: npt.NDArray[np.int64] | None
    """Where decoding can start, rising; None: only at the start of the file."""
    has_hidden: bool = False
    """Whether an edit list hides frames."""


@dataclass(frozen=True, slots=True)
class _Findings:
    """What reading all packets and decoding the first frame of a file says."""

    index: _Index
    size: tuple[int, int]
    """Width and height of its first frame, as stored."""
    rotation: int
    fps: float | None
    duration_seconds: float | None
    codec: str
    known_stream: int | None
    """Of a container whose header is enough to open it again, as `_PyAVFile` takes it."""
    warnings: tuple[str, ...]

    def pack(self, stamp: _Stamp) -> FileIndex | None:
        """Make it small, as a training set holds hundreds of thousands; None for one that stays large."""
        index = self.index
        steps = [None if times is None else np.diff(times, prepend=0).tobytes() for times in (index.pts, index.keys)]
        facts = (
            self.size,
            self.rotation,
            self.fps,
            self.duration_seconds,
            self.codec,
            self.known_stream,
            self.warnings,
        )
        rest = (index.num_frames, index.last_duration, index.has_hidden, facts)
        packed = zlib.compress(pickle.dumps((stamp, steps, rest)), level=1)
        return FileIndex(packed) if len(packed) <= _MAX_PACKED_BYTES else None

    @staticmethod
    def unpack(file_index: FileIndex, stamp: _Stamp) -> _Findings | None:
        """Return what was packed, None if the file has changed since."""
        packed_stamp, steps, rest = pickle.loads(zlib.decompress(file_index.packed))
        if packed_stamp != stamp:
            return None
        pts, keys = (None if data is None else np.cumsum(np.frombuffer(data, np.int64)) for data in steps)
        num_frames, last_duration, has_hidden, facts = rest
        return _Findings(_Index(num_frames, pts, last_duration, keys, has_hidden), *facts)


_Stamp = tuple[int, int, int]
_MAX_PACKED_BYTES = 64 * 1024


def _stamp(path: str) -> _Stamp:
    """Return what changes when a file does: its size, and when its content and its inode were last written."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _rises(times: npt.NDArray[np.int64]) -> bool:
    return bool((np.diff(times) > 0).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class StrictDecode:
    """What a decode from start to end finds that forgives nothing."""

    frames: dict[int, Frame]
    """The frames that were asked for, by number; without those that could not be decoded."""
    num_expected: int
    """Frames there should be; more than the video has when it was cut short."""
    num_damaged: int
    """Those that are missing, or decoded from damaged data or from damaged frames."""
    has_edit_list: bool
    """Whether frames are hidden by an edit list."""
    stated_seconds: float | None
    """Duration that the container's header states, sound included."""


class PyAVReader(VideoReader):
    """Frames by PyAV. Opening reads all packets once and decodes the first frame, unless an index says what they say.

    Args:
        path: a regular, non-empty file.
        index: of an earlier reader of this path.

    Raises:
        VideoError: if PyAV is not installed, or the file is not a readable video.
    """

    def __init__(self, path: str, index: FileIndex | None = None) -> None:
        self._path = path
        stamp = _stamp(path)
        known = None if index is None else _Findings.unpack(index, stamp)
        self.warnings = [] if known is None else list(known.warnings)
        self._is_unread = known is not None
        """Whether no packet was read yet."""
        with ExitStack() as on_failure:
            self._file = _PyAVFile(path, known_stream=None if known is None else known.known_stream)
            on_failure.callback(self._file.close)
            findings = known or self._find_out()
            self.index = index if known is not None else findings.pack(stamp)
            self._index, self._file.size, self._rotation = findings.index, findings.size, findings.rotation
            self.times_seconds = self._times(findings.fps)
            width, height = findings.size if self._rotation % 180 == 0 else findings.size[::-1]
            self.info = VideoInfo(
                path=path,
                num_frames=self._index.num_frames,
                fps=findings.fps,
                width=width,
                height=height,
                duration_seconds=findings.duration_seconds,
                codec=findings.codec,
                decoder="pyav",
                rotation=self._rotation,
                is_seekable=self._index.keys is not None,
                warnings=tuple(self.warnings),
            )
            on_failure.pop_all()

    def close(self) -> None:
        self._file.close()

    def _find_out(self) -> _Findings:
        table, first = self._scan()
        index = self._make_index(table)
        if first is None:
            raise VideoError(self._path, "no frame of it can be decoded")
        fps, duration = self._rate_and_duration(index)
        self._compare_with_header(duration)
        return _Findings(
            index=index,
            size=(first.width, first.height),
            rotation=round(first.rotation / 90) % 4 * 90,
            fps=fps,
            duration_seconds=duration,
            codec=self._file.codec,
            known_stream=self._file.stream.index if self._file.has_full_header else None,
            warnings=tuple(self.warnings),
        )

    def pictures(self) -> Iterator[VideoFrame]:
        """Yield all frames in order as they are stored: in their own pixel format, and not turned by `info.rotation`.

        Raises:
            VideoError: if more than a tenth cannot be decoded.
        """
        with _opened(self._path) as file:
            for _, frame in self._without_gaps(file.frames(), self.info.num_frames - 1):
                yield frame

    def decode_strictly(self, wanted: Container[int]) -> StrictDecode:
        """Decode all from the start, taking all for damaged that decoders usually paint over."""
        frames: dict[int, Frame] = {}
        position, num_clean, num_hidden, is_dirty = 0, 0, 0, False
        with _opened(self._path, strict=True) as file:
            file.size = self._file.size
            for packet in chain(file.packets(), [None]):
                if packet is not None:
                    num_hidden += packet.is_discard
                    is_dirty = is_dirty and not packet.is_keyframe
                num_failed = file.num_failed
                for frame in file.decode(packet):
                    index = self._place(frame, position)
                    if index is None:
                        continue
                    if index in wanted:
                        frames[index] = np.ascontiguousarray(file.to_rgb(frame, self._rotation))
                    num_clean += not (is_dirty or frame.is_corrupt)
                    position = index + 1
                is_dirty = is_dirty or file.num_failed > num_failed
            stated = file.container.duration
            promised = len(file.stream.index_entries) - num_hidden if "mov" in file.containers else 0
        return StrictDecode(
            frames=frames,
            num_expected=max(promised, self.info.num_frames),
            num_damaged=max(0, max(promised, self.info.num_frames) - num_clean),
            has_edit_list=self._index.has_hidden,
            stated_seconds=None if stated is None else stated / 1e6,
        )

    def _scan(self) -> tuple[_PacketTable, VideoFrame | None]:
        """Read all packets, decoding only until the first frame comes out."""
        table = _PacketTable()
        first: VideoFrame | None = None
        for packet in self._file.packets():
            table.add(packet)
            if table.num_packets > MAX_FRAMES:
                raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
            if first is None:
                first = next(iter(self._file.decode(packet)), None)
            if first is None and table.num_packets == 1 and not packet.is_discard:
                first = self._bring_out()
        return table, first or self._bring_out()

    def _bring_out(self) -> VideoFrame | None:
        """Make the decoder give a frame that it holds back, and ready for packets again."""
        frame = next(iter(self._file.decode(None)), None)
        self._file.stream.codec_context.flush_buffers()
        return frame

    def _make_index(self, table: _PacketTable) -> _Index:
        file = self._file
        is_seekable = bool(file.containers & _SEEKABLE_CONTAINERS)
        times = table.frame_times() if is_seekable and file.codec in _FRAME_PER_PACKET else None
        num_promised = len(file.stream.index_entries) if "mov" in file.containers else 0
        if file.ended_early or num_promised > table.num_packets:
            self._warn("the file is damaged or cut short: not all of it can be read")
        if times is not None:
            return _Index(len(times), times, table.last_duration, _sorted_keys(table), table.has_hidden)
        return self._count_frames(table, keys=_sorted_keys(table) if is_seekable and table.keys else None)

    def _count_frames(self, table: _PacketTable, keys: npt.NDArray[np.int64] | None) -> _Index:
        """Find the frames by decoding them all."""
        times = array("q")
        count, duration = 0, 0
        with _opened(self._path) as file:
            for frame in file.frames():
                count += 1
                if count > MAX_FRAMES:
                    raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
                if frame.pts is not None:
                    times.append(frame.pts)
                    duration = frame.duration or 0
            failed = file.num_failed
        if failed > max(1, _MAX_BAD_SHARE * table.num_packets):  # one may be the last packet of a file cut short
            raise VideoError(self._path, f"{failed} of its {table.num_packets} packets cannot be decoded")
        if failed:
            self._warn(f"{failed} of its {table.num_packets} packets cannot be decoded; their frames are left out")
        pts = np.frombuffer(times, np.int64) if times else np.empty(0, np.int64)
        if len(pts) != count or not count or not _rises(pts):
            return _Index(count, None, 0, None, table.has_hidden)
        return _Index(count, pts, duration, keys, table.has_hidden)

    def _rate_and_duration(self, index: _Index) -> tuple[float | None, float | None]:
        """Return the mean frame rate and the duration."""
        stream, count = self._file.stream, index.num_frames
        rate = float(stream.average_rate) if stream.average_rate else None
        if index.pts is None or stream.time_base is None:
            return rate, count / rate if rate else None
        tick = float(stream.time_base)
        shown, last = float((index.pts[-1] - index.pts[0]) * tick), index.last_duration * tick
        if not last:
            last = shown / (count - 1) if count > 1 else 1 / rate if rate else 0.0
        duration = shown + last
        if not duration:
            return rate, None
        # Containers that count in milliseconds miss the true rate by their rounding.
        exact = rate is not None and abs(rate * duration / count - 1) < 1e-3
        return rate if exact else count / duration, duration

    def _times(self, fps: float | None) -> npt.NDArray[np.float64] | None:
        """Return when each frame is shown: as its packet says, else in even steps."""
        index, tick = self._index, self._file.stream.time_base
        if index.pts is not None and tick is not None:
            return (index.pts - index.pts[0]) * float(tick)
        return np.arange(index.num_frames) / fps if fps else None

    def _compare_with_header(self, duration_seconds: float | None) -> None:
        """Warn when the header promises much more than there is, as after an unfinished download."""
        stated = self._file.container.duration
        if stated is None or duration_seconds is None or not self._file.containers & _STATING_DURATION:
            return
        if stated / 1e6 > 1.05 * duration_seconds + 1:
            self._warn(f"its header says {stated / 1e6:.1f} s, its pictures end after {duration_seconds:.1f} s")

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        # All frames are decoded from the start: nothing to skip, and nothing to check.
        if self._index.keys is not None and len(wanted) < self._index.num_frames:
            is_complete = yield from self._decode_by_seeking(wanted)
            if is_complete:
                return
        yield from self._decode_from_start(wanted)

    def _decode_by_seeking(self, wanted: Sequence[int]) -> Generator[tuple[int, Frame], None, bool]:
        """Yield the wanted frames, seeking to the key packets before them.

        Returns:
            Whether all went well; if not, what was yielded is doubtful.
        """
        assert self._index.pts is not None
        assert self._index.keys is not None
        times = self._index.pts[wanted]
        starts = np.searchsorted(self._index.keys, times, side="right") - 1
        if starts[0] < 0:
            return False
        keys, queue = self._index.keys[starts].tolist(), times.tolist()
        num_failed, done = self._file.num_failed, 0
        while done < len(queue):
            if not self._go_to(keys[done]):
                return False
            before = done
            for newest, frame in self._file.frames_for(frozenset(queue[done:])):
                if frame.pts is None or frame.pts > queue[done] or self._file.num_failed > num_failed:
                    return False
                if frame.is_corrupt:
                    return False
                if frame.pts < queue[done]:
                    continue
                yield wanted[done], self._file.to_rgb(frame, self._rotation)
                done += 1
                if done == len(queue):
                    return True
                if keys[done] > newest and wanted[done] - wanted[done - 1] > 1:
                    break  # the next key packet has not been read yet: go there, and skip what lies between
            if done == before:
                return False
        return True

    def _go_to(self, key: int) -> bool:
        """Go to a key packet; False when the container cannot."""
        assert self._index.keys is not None
        if self._is_unread:
            self._is_unread = False
            if key == self._index.keys[0]:
                return True  # the file's start, where it is already
            # Old x264's 4:4:4 decodes right only by a decoder that has seen the file's first packet.
            if self._file.codec == "h264" and (first := next(self._file.packets(), None)) is not None:
                self._file.learn_encoder(first)
        return self._file.seek(key)

    def _decode_from_start(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        last = wanted[-1]
        needed: Container[int] = wanted if isinstance(wanted, range) else frozenset(wanted)
        with _opened(self._path) as file:
            file.size = self._file.size
            for index, frame in self._without_gaps(file.frames(), last):
                if index in needed:
                    yield index, file.to_rgb(frame, self._rotation)

    def _without_gaps(self, frames: Iterator[VideoFrame], last: int) -> Iterator[tuple[int, VideoFrame]]:
        """Number frames decoded from the start, up to `last`; a missing one is the nearest earlier, else the next."""
        position, previous, missing = 0, None, []
        for frame in frames:
            index = self._place(frame, position)
            if index is None:
                continue
            if frame.is_corrupt:
                self._warn("some frames are damaged")
            for gap in range(position, min(index, last + 1)):
                missing.append(gap)
                yield gap, frame if previous is None else previous
            if index <= last:
                yield index, frame
            position, previous = index + 1, frame
            if position > last:
                break
        for gap in range(position, last + 1):
            missing.append(gap)
            if previous is not None:
                yield gap, previous
        if len(missing) > _MAX_BAD_SHARE * self._index.num_frames or previous is None:
            raise VideoError(self._path, f"{len(missing)} of its {self._index.num_frames} frames cannot be decoded")
        if missing:
            self._warn(
                f"{len(missing)} of {self._index.num_frames} frames cannot be decoded, the first is {missing[0]}; "
                "each shows the nearest earlier frame"
            )

    def _place(self, frame: VideoFrame, position: int) -> int | None:
        """Return the number of a frame, None if it has none, where `position` is the lowest that is free."""
        if self._index.pts is None:
            return position
        if frame.pts is None:
            return None
        index = int(np.searchsorted(self._index.pts, frame.pts))
        is_known = index < self._index.num_frames and self._index.pts[index] == frame.pts
        return index if is_known and index >= position else None


@contextmanager
def _opened(path: str, *, strict: bool = False) -> Iterator[_PyAVFile]:
    file = _PyAVFile(path, strict=strict)
    try:
        yield file
    finally:
        file.close()


def _sorted_keys(table: _PacketTable) -> npt.NDArray[np.int64]:
    return np.sort(np.array(table.keys, np.int64))


def _load_decord() -> Any:
    """Import decord and silence it; None when it is not installed."""
    # Its default of 10,240 polls at the end of a file takes seconds; 128 gives up on good files with B-frames.
    os.environ.setdefault("DECORD_EOF_RETRY_MAX", "2048")
    os.environ.setdefault("DECORD_REWIND_RETRY_MAX", "4")
    try:
        decord = importlib.import_module("decord")
    except (ImportError, OSError, RuntimeError):  # the last two when its shared library does not load
        return None
    decord.logging.set_level(decord.logging.QUIET)
    decord.bridge.set_bridge("native")
    return decord


class _DecordError(Exception):
    """decord failed at something that PyAV may manage."""


_DECORD_CODECS = frozenset({"h264", "hevc", "vp8", "vp9"})
_DECORD_CONTAINERS = _SEEKABLE_CONTAINERS | {"avi"}
_MP4_OR_MATROSKA = re.compile(rb"....ftyp|\x1a\x45\xdf\xa3", re.DOTALL)


def _obstacle(pyav: PyAVReader) -> str | None:
    """Say why decord's frames would be wrong even when it decodes from the start."""
    file = pyav._file
    if not file.containers & _DECORD_CONTAINERS:
        return f"decord misplaces frames of {sorted(file.containers)[0]} files"
    if pyav._index.has_hidden:
        return "decord does not see the edit list, which hides frames"
    if file.codec == "h264" and "444" in (file.stream.codec_context.pix_fmt or ""):
        return "decord garbles H.264 4:4:4"
    return None


def _is_plain(pyav: PyAVReader) -> bool:
    """Tell whether decord's way of seeking, by counting packets from a key packet, finds the right frames."""
    file = pyav._file
    is_known = file.containers & _SEEKABLE_CONTAINERS and file.codec in _DECORD_CODECS
    is_420 = (file.stream.codec_context.pix_fmt or "").startswith(("yuv420p", "yuvj420p"))
    return bool(is_known and is_420 and pyav.info.is_seekable and _has_closed_groups(pyav.info.path))


def _has_closed_groups(path: str) -> bool:
    """Tell whether after each key packet come only frames that are shown later and need nothing from before."""
    with _opened(path) as file:
        extradata = file.stream.codec_context.extradata or b""
        key_pts = -math.inf
        for packet in file.packets():
            if packet.pts is None or packet.pts < key_pts:
                return False
            if packet.is_keyframe:
                key_pts = packet.pts
                if file.codec == "h264" and not _is_idr(bytes(packet), extradata):
                    return False
        return not file.num_failed


def _is_idr(data: bytes, extradata: bytes) -> bool:
    """Tell an H.264 key packet that starts afresh from one where a picture is merely mended bit by bit."""
    if extradata[:1] != b"\1" or len(extradata) < 5:
        return False  # not in the layout of MP4 and Matroska
    length_bytes = extradata[4] % 4 + 1
    position = 0
    while position + length_bytes < len(data):
        size = int.from_bytes(data[position : position + length_bytes], "big")
        position += length_bytes
        if data[position] & 31 == 5:
            return True
        position += size
    return False


class DecordReader(VideoReader):
    """The frames that PyAV gives, by decord where decord can.

    decord finds frames by counting packets, which is wrong for open groups of pictures, recovery points, edit lists,
    H.264 in AVI and more, and it never says so. So PyAV reads the packets first. Where all is clean decord seeks;
    where it counts right only from the start it decodes from the start; the rest PyAV decodes, with a warning.
    Without PyAV, only MP4, MOV, Matroska and WebM are read, always from the start.

    Args:
        path: a regular, non-empty file.

    Raises:
        VideoError: if decord is not installed, or the file is not a video that it or PyAV can read.
    """

    def __init__(self, path: str) -> None:
        self._decord = _load_decord()
        if self._decord is None:
            raise VideoError(path, "decord is not installed; pip install decord")
        self._path = path
        self._video: Any = None
        """decord's reader; None when PyAV decodes."""
        self._pyav = PyAVReader(path) if _load_av() is not None else None
        if self._pyav is None:
            self._open_alone()
        else:
            self._open_beside(self._pyav)

    def close(self) -> None:
        self._video = None  # decord frees it with the last reference
        if self._pyav is not None:
            self._pyav.close()

    def _open_beside(self, pyav: PyAVReader) -> None:
        self.warnings = pyav.warnings
        self.times_seconds = pyav.times_seconds
        self._can_seek = False
        try:
            obstacle = _obstacle(pyav)
            if obstacle is None:
                self._video = self._open_decord()
                if len(self._video) != pyav.info.num_frames:
                    obstacle = f"decord counts {len(self._video)} frames, PyAV {pyav.info.num_frames}"
        except _DecordError as error:
            obstacle = str(error)
        if obstacle is not None:
            self._video = None
            self._warn(f"decoded by PyAV: {obstacle}")
        else:
            self._can_seek = _is_plain(pyav)
        self.info = replace(
            pyav.info,
            decoder="pyav" if self._video is None else "decord",
            is_seekable=pyav.info.is_seekable if self._video is None else self._can_seek,
            warnings=tuple(self.warnings),
        )

    def _open_alone(self) -> None:
        self._can_seek = False
        self.warnings = ["PyAV is not installed: an edit list, if there is one, may add repeats of the last frame"]
        if not _MP4_OR_MATROSKA.match(_first_bytes(self._path)):
            raise VideoError(self._path, "decord alone is right only for MP4, MOV, Matroska and WebM; pip install av")
        try:
            self._video = self._open_decord()
            num_frames = len(self._video)
            if num_frames > MAX_FRAMES:
                raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
            spans = self._call(self._video.get_frame_timestamp, range(num_frames))
            height, width = self._next(self._video).shape[:2]
        except _DecordError as error:
            raise VideoError(self._path, str(error)) from None
        times = np.asarray(spans, np.float64)
        if times[0, 0] < 0 or (np.diff(times[:, 0]) <= 0).any():
            raise VideoError(self._path, "decord alone cannot tell its frames apart; pip install av")
        _check_pixels(self._path, width, height)
        self.times_seconds = times[:, 0] - times[0, 0]
        duration = float(times[-1, 1] - times[0, 0])
        self.info = VideoInfo(
            path=self._path,
            num_frames=num_frames,
            fps=num_frames / duration if duration > 0 else None,
            width=width,
            height=height,
            duration_seconds=duration if duration > 0 else None,
            codec="unknown",
            decoder="decord",
            rotation=0,
            is_seekable=False,
            warnings=tuple(self.warnings),
        )

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        if self._video is not None:
            try:
                yield from self._decode_with_decord(wanted)
                return
            except _DecordError as error:
                if self._pyav is None:
                    raise VideoError(self._path, str(error)) from None
                self._warn(f"decoded by PyAV: {error}")
        assert self._pyav is not None
        yield from self._pyav._decode(wanted)

    def _decode_with_decord(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        if self._can_seek:
            for index in wanted:
                self._call(self._video.seek_accurate, index)
                yield index, self._next(self._video)
            return
        needed = frozenset(wanted)
        video = self._open_decord()
        for index in range(wanted[-1] + 1):
            frame = self._next(video)
            if index in needed:
                yield index, frame

    def _open_decord(self) -> Any:
        # An absolute path, because FFmpeg takes "x:y" for an address.
        name = os.path.abspath(self._path)
        return self._call(self._decord.VideoReader, name, ctx=self._decord.cpu(0), num_threads=1)

    def _next(self, video: Any) -> Frame:
        frame: Frame = self._call(video.next).asnumpy()
        if frame.shape[2:] != (3,):  # its rows' padding, as happens at widths of 2, 4, 6, 8, 12, 16, 24 and 48
            raise _DecordError(f"decord garbles frames that are {frame.shape[1]} pixels wide")
        if hasattr(self, "info") and frame.shape[:2] != (self.info.height, self.info.width):
            raise _DecordError(f"decord makes frames of {frame.shape[1]}x{frame.shape[0]} pixels")
        return frame

    def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        heartbeat()
        try:
            return function(*args, **options)
        except (self._decord.DECORDError, RuntimeError, AssertionError, StopIteration, UnicodeError):
            raise _DecordError("decord fails on it") from None


_IMAGE_FORMATS = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
}
_NUMBERED = re.compile(r"(?P<series>.*?)(?P<number>\d+)$", re.DOTALL)


class FrameFolderReader(VideoReader):
    """A folder of numbered images, such as img_00001.jpg or frame0.png, is a video; PyAV and decord are not needed.

    The numbers give the order, from whatever the first is. A gap in them is a warning: the images that exist are
    consecutive frames. Other files are ignored, and so is the series of optical flow (flow_x_..., flow_y_...) that
    often lies beside frames; two other series of images are an error. Images must have one size. An orientation
    that an image states is ignored, as extracted frames are already upright.

    Args:
        path: a folder.
        frame_rate: frames per second; None leaves times unknown.

    Raises:
        VideoError: if it holds no numbered images, or more than one series, or the first is unreadable.
    """

    def __init__(self, path: str, *, frame_rate: float | None = None) -> None:
        self._path = path
        self._names, gap = _numbered_images(path)
        self.warnings = [gap] if gap else []
        height, width = self._load(0).shape[:2]
        num_frames = len(self._names)
        self.times_seconds = np.arange(num_frames) / frame_rate if frame_rate else None
        self.info = VideoInfo(
            path=path,
            num_frames=num_frames,
            fps=frame_rate,
            width=width,
            height=height,
            duration_seconds=num_frames / frame_rate if frame_rate else None,
            codec=_format_of(self._names[0]).lower(),
            decoder="frames",
            rotation=0,
            is_seekable=True,
            warnings=tuple(self.warnings),
        )

    def _decode(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        for index in wanted:
            heartbeat()
            frame = self._load(index)
            height, width = frame.shape[:2]
            if (width, height) != (self.info.width, self.info.height):
                raise VideoError(
                    self._path,
                    f"{self._names[index]!r} is {width}x{height} pixels, the first image "
                    f"{self.info.width}x{self.info.height}; make them one size",
                )
            yield index, frame

    def _load(self, index: int) -> Frame:
        name = self._names[index]
        path = os.path.join(self._path, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about odd tags, and about sizes that are checked here
                with PIL.Image.open(path, formats=[_format_of(name)]) as image:
                    _check_pixels(path, *image.size)
                    return np.asarray(image.convert("RGB"))
        except PermissionError:
            raise VideoError(self._path, f"no permission to read {name!r}") from None
        # Pillow's decoders raise these on damage; a decompression bomb is an Exception of its own.
        except (OSError, SyntaxError, ValueError, IndexError, TypeError, struct.error, MemoryError) as error:
            raise VideoError(self._path, f"{name!r} is not a readable image") from error
        except PIL.Image.DecompressionBombError:
            raise VideoError(path, f"more than the {MAX_PIXELS:,} pixels allowed") from None


def _format_of(name: str) -> str:
    return _IMAGE_FORMATS[os.path.splitext(name)[1].lower()]


def _numbered_images(path: str) -> tuple[list[str], str | None]:
    """List the images of a folder in the order of their numbers, and a warning if numbers are missing."""
    series: dict[str, list[tuple[int, str]]] = {}
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                match = _NUMBERED.match(stem)
                if match and suffix.lower() in _IMAGE_FORMATS and not stem.startswith(".") and entry.is_file():
                    series.setdefault(match["series"], []).append((int(match["number"]), entry.name))
    except OSError as error:
        raise VideoError(path, _plain(error)) from None
    kept = {name: frames for name, frames in series.items() if not name.lower().startswith("flow")}
    if not kept:
        raise VideoError(path, "the folder holds no numbered images, such as img_00001.jpg")
    if len(kept) > 1:
        names = ", ".join(repr(frames[0][1]) for _, frames in sorted(kept.items())[:3])
        raise VideoError(path, f"the folder holds {len(kept)} series of images ({names}); keep one")
    return _in_order(path, sorted(next(iter(kept.values()))))


def _in_order(path: str, frames: list[tuple[int, str]]) -> tuple[list[str], str | None]:
    if len(frames) > MAX_FRAMES:
        raise VideoError(path, f"it has more than {MAX_FRAMES:,} frames")
    for (number, name), (following, other) in pairwise(frames):
        if number == following:
            raise VideoError(path, f"{name!r} and {other!r} have the same number; keep one")
    first, last = frames[0][0], frames[-1][0]
    missing = last - first + 1 - len(frames)
    warning = f"{missing} of the numbers {first} to {last} have no image; the others are taken as consecutive frames"
    return [name for _, name in frames], warning if missing else None
