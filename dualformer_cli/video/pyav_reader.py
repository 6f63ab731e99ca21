"""Frames by PyAV: exact in every file that it reads, by seeking where the container's times can be believed."""

from __future__ import annotations

from array import array
from collections.abc import Container, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from dualformer_cli.errors import VideoError
from dualformer_cli.video import bitstream
from dualformer_cli.video.encryption import ENCRYPTED, is_encrypted
from dualformer_cli.video.file_index import Findings, Index, PacketTable, rises, sorted_keys, stamp_of
from dualformer_cli.video.frame_times import rate_and_duration, rate_of_packets, seconds_after_first
from dualformer_cli.video.orientation import orientation_of
from dualformer_cli.video.pyav_file import PyAVFile, opened
from dualformer_cli.video.reader import MAX_BAD_SHARE, MAX_FRAMES, FileIndex, Frame, VideoInfo, VideoReader
from dualformer_cli.video.refusals import explain_empty

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SEEKABLE_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm"})
"""Containers that state when each frame is shown and find a timestamp again; others are decoded from the start, unless
each packet is a picture of its own."""
_FRAME_PER_PACKET = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "ffv1"})
"""Codecs of which, in those containers, each packet is one frame or says that it is hidden, beside those that know
nothing but key frames; others may hold hidden or uncoded frames."""
_JUMPING_CONTAINERS = frozenset({"mpegts", "mpeg", "flv", "asf", "rm"})
"""Containers of streams, whose clock may start anew half-way."""
_RAW_STREAMS = frozenset({"h264", "hevc"})
"""Demuxers of bare streams, which call every stream one of 25 frames per second."""
_TRIED_FIELDS, _TRIED_PICTURES = 40, 3
"""Packets that are decoded to see whether each is a frame: where pictures may come as two fields, and of codecs of
which no file with two packets a frame is known."""
_BEFORE_FIRST = 10
"""Seconds: more than frames are ever moved between decoding and showing."""
_STATING_DURATION = frozenset({"matroska", "webm", "flv"})
"""Containers whose header says how long the file is and whose frames can be read up to where it was cut off."""


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


class _Damage:
    """How far the failure of one packet reaches: to the next key packet, unless nothing refers to it."""

    def __init__(self) -> None:
        self.spreads = False
        self._key_pts: int | None = None

    def begin(self, packet: Packet[VideoStream]) -> None:
        if packet.is_keyframe:
            self.spreads, self._key_pts = False, packet.pts

    def end(self, packet: Packet[VideoStream] | None, *, has_failed: bool) -> None:
        # Pictures that are shown before the key packet they follow end an open group: those after it need none of them.
        pts = None if packet is None else packet.pts
        is_leading = pts is not None and self._key_pts is not None and pts < self._key_pts
        self.spreads = self.spreads or (has_failed and not is_leading)


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
        stamp = stamp_of(path)
        known = None if index is None else Findings.unpack(index, stamp)
        self.warnings = [] if known is None else list(known.warnings)
        self._is_unread = known is not None
        """Whether no packet was read yet."""
        with ExitStack() as on_failure:
            self._file = PyAVFile(path, known_stream=None if known is None else known.known_stream)
            on_failure.callback(self._file.close)
            findings = known or self._find_out()
            self.index = index if known is not None else findings.pack(stamp)
            self._index, self._file.size, self.orientation = findings.index, findings.size, findings.orientation
            self.times_seconds = self._times(findings.fps)
            width, height = self.orientation.upright_size(*findings.size)
            self.info = VideoInfo(
                path=path,
                num_frames=self._index.num_frames,
                fps=findings.fps,
                width=width,
                height=height,
                duration_seconds=findings.duration_seconds,
                codec=findings.codec,
                decoder="pyav",
                rotation=self.orientation.rotation,
                is_mirrored=self.orientation.is_mirrored,
                is_seekable=self._index.keys is not None,
                warnings=tuple(self.warnings),
            )
            on_failure.pop_all()

    def close(self) -> None:
        self._file.close()

    def _find_out(self) -> Findings:
        table, first = self._scan()
        index = self._make_index(table)
        if first is None:
            raise VideoError(
                self._path, explain_empty(self._path) if not table.num_packets else "no frame of it can be decoded"
            )
        fps, duration = self._rate_and_duration(index, table)
        self._compare_with_header(duration)
        return Findings(
            index=index,
            size=(first.width, first.height),
            orientation=orientation_of(first),
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
        with opened(self._path) as file:
            for _, frame in self._without_gaps(file.frames(), self.info.num_frames - 1):
                yield frame

    def decode_strictly(self, wanted: Container[int]) -> StrictDecode:
        """Decode all from the start, taking all for damaged that decoders usually paint over."""
        frames: dict[int, Frame] = {}
        position, num_clean, num_hidden, damage = 0, 0, 0, _Damage()
        with opened(self._path, strict=True) as file:
            file.size = self._file.size
            for packet in chain(file.packets(), [None]):
                if packet is not None:
                    num_hidden += packet.is_discard
                    damage.begin(packet)
                num_failed = file.num_failed
                for frame in file.decode(packet):
                    index = self._place(frame, position)
                    if index is None:
                        continue
                    if index in wanted:
                        frames[index] = np.ascontiguousarray(self._to_rgb(file, frame))
                    num_clean += not (damage.spreads or frame.is_corrupt)
                    position = index + 1
                damage.end(packet, has_failed=file.num_failed > num_failed)
            stated = file.stated_duration
            promised = len(file.stream.index_entries) - num_hidden if "mov" in file.containers else 0
            if file.codec == "h264" and not bitstream.codes_whole_frames(file.stream.codec_context.extradata or b""):
                promised = 0  # a packet can be half a frame
        if not num_clean and not self._is_damaged():
            num_clean = promised = self.info.num_frames  # it is the decoder that is too strict with this codec
        return StrictDecode(
            frames=frames,
            num_expected=max(promised, self.info.num_frames),
            num_damaged=max(0, max(promised, self.info.num_frames) - num_clean),
            has_edit_list=self._index.has_hidden,
            stated_seconds=stated,
        )

    def _is_damaged(self) -> bool:
        """Return whether a decode as usual fails anywhere."""
        with opened(self._path) as file:
            return any(frame.is_corrupt for frame in file.frames()) or file.num_failed > 0

    def _scan(self) -> tuple[PacketTable, VideoFrame | None]:
        """Read all packets, decoding only until the first frame comes out."""
        file = self._file
        extradata = file.stream.codec_context.extradata or b""
        table = PacketTable(codec=file.codec, extradata=extradata, is_intra_only=file.is_intra_only)
        first: VideoFrame | None = None
        for packet in file.packets():
            if file.may_be_encrypted and is_encrypted(packet):
                raise VideoError(self._path, ENCRYPTED)
            table.add(packet)
            if table.num_packets > MAX_FRAMES:
                raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
            if first is None:
                first = next(iter(file.decode(packet)), None)
            if first is None and table.num_packets == 1 and not packet.is_discard:
                first = self._bring_out()
        return table, first or self._bring_out() or self._first_of_all()

    def _bring_out(self) -> VideoFrame | None:
        """Make the decoder give a frame that it holds back, and ready for packets again."""
        frame = next(iter(self._file.decode(None)), None)
        self._file.stream.codec_context.flush_buffers()
        return frame

    def _first_of_all(self) -> VideoFrame | None:
        """Decode from the start: half a picture that was brought out too early leaves a decoder without a start."""
        with opened(self._path) as file:
            return next(file.frames(), None)

    def _make_index(self, table: PacketTable) -> Index:
        file = self._file
        is_seekable = bool(file.containers & SEEKABLE_CONTAINERS) or file.is_intra_only
        is_settled = is_seekable and (file.is_intra_only or file.codec in _FRAME_PER_PACKET)
        times = table.frame_times(reorders=file.stream.codec_context.has_b_frames) if is_settled else None
        num_promised = len(file.stream.index_entries) if "mov" in file.containers else 0
        if file.ended_early or num_promised > table.num_packets:
            self._warn("the file is damaged or cut short: not all of it can be read")
        if times is not None and self._packets_are_frames(table):
            facts = (sorted_keys(table.keys), table.has_hidden, table.num_false_keys > 0)
            return Index(len(times), times, table.last_duration, *facts)
        return self._count_frames(table, is_seekable=is_seekable and bool(table.keys))

    def _packets_are_frames(self, table: PacketTable) -> bool:
        """Decode the first packets where it is not known that each of them is one frame, and compare their times."""
        if table.codec == "h264":
            num_tried = 0 if bitstream.codes_whole_frames(table.extradata) else _TRIED_FIELDS
        else:
            num_tried = _TRIED_PICTURES if table.is_intra_only and table.codec not in ("mjpeg", "prores") else 0
        if not num_tried:
            return True
        with opened(self._path) as file:
            packets = list(islice(file.packets(), num_tried))
            frames = [frame for packet in packets for frame in file.decode(packet)] + file.decode(None)
        times = [packet.pts for packet in packets if packet.pts is not None and not packet.is_discard]
        return [frame.pts for frame in frames] == sorted(times)

    def _count_frames(self, table: PacketTable, *, is_seekable: bool) -> Index:
        """Find the frames by decoding them all; decoding can start where the decoder says so too."""
        times, starts = array("q"), array("q")
        count, duration = 0, 0
        with opened(self._path) as file:
            for frame in file.frames():
                count += 1
                if count > MAX_FRAMES:
                    raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
                if frame.pts is not None:
                    times.append(frame.pts)
                    duration = frame.duration or 0
                    if frame.key_frame:
                        starts.append(frame.pts)
            failed = min(file.num_failed, table.num_packets)
        if failed > max(1, MAX_BAD_SHARE * table.num_packets):  # one may be the last packet of a file cut short
            raise VideoError(self._path, f"{failed} of its {table.num_packets} packets cannot be decoded")
        if failed:
            self._warn(f"{failed} of its {table.num_packets} packets cannot be decoded; their frames are left out")
        pts = np.frombuffer(times, np.int64) if times else np.empty(0, np.int64)
        keys = np.intersect1d(sorted_keys(table.keys), sorted_keys(starts))
        has_false_keys = table.num_false_keys > 0 or len(keys) < len(table.keys)
        if len(pts) != count or not count or not rises(pts):
            return Index(count, None, 0, None, table.has_hidden, has_false_keys)
        usable = keys if is_seekable and len(keys) else None
        return Index(count, pts, duration, usable, table.has_hidden, has_false_keys)

    def _rate_and_duration(self, index: Index, table: PacketTable) -> tuple[float | None, float | None]:
        """Return the mean frame rate and the duration."""
        stream = self._file.stream
        rate = float(stream.average_rate) if stream.average_rate else None
        if self._file.containers & _RAW_STREAMS:
            stated = stream.codec_context.framerate
            rate = float(stated) if stated else rate
            if not stated:
                self._warn(f"it does not say how fast it is shown; {rate:g} frames per second are taken")
        if stream.time_base is None:
            return rate, index.num_frames / rate if rate else None
        tick = float(stream.time_base)
        if index.pts is not None:
            times = seconds_after_first(index.pts, tick, may_jump=self._may_jump)
            return rate_and_duration(times, index.last_duration * tick, rate)
        if len(table.dts) == table.num_packets and not self._file.containers & _RAW_STREAMS:
            rate = rate_of_packets(np.frombuffer(table.dts, np.int64), tick, index.num_frames, rate)
        return rate, index.num_frames / rate if rate else None

    @property
    def _may_jump(self) -> bool:
        return bool(self._file.containers & _JUMPING_CONTAINERS)

    def _times(self, fps: float | None) -> npt.NDArray[np.float64] | None:
        """Return when each frame is shown: as its packet says, else in even steps."""
        index, tick = self._index, self._file.stream.time_base
        if index.pts is not None and tick is not None:
            return seconds_after_first(index.pts, float(tick), may_jump=self._may_jump)
        return np.arange(index.num_frames) / fps if fps else None

    def _compare_with_header(self, duration_seconds: float | None) -> None:
        """Warn when the header promises much more than there is, as after an unfinished download."""
        stated = self._file.stated_duration
        if stated is None or duration_seconds is None or not self._file.containers & _STATING_DURATION:
            return
        if stated > 1.05 * duration_seconds + 1:
            self._warn(f"its header says {stated:.1f} s, its pictures end after {duration_seconds:.1f} s")

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
                yield wanted[done], self._to_rgb(self._file, frame)
                done += 1
                if done == len(queue):
                    return True
                if keys[done] > newest and wanted[done] - wanted[done - 1] > 1:
                    break  # the next key packet has not been read yet: go there, and skip what lies between
            if done == before:
                return False
        return True

    def _go_to(self, key: int) -> bool:
        """Go to a key packet, from the one before or the start where the container misses it; False when it cannot."""
        assert self._index.keys is not None
        if self._is_unread:
            self._is_unread = False
            if key == self._index.keys[0] and self._file.find(key):
                return True  # the file's start, where it is already
            # Old x264's 4:4:4 decodes right only by a decoder that has seen the file's first packet.
            if self._file.codec == "h264" and (first := next(self._file.packets(), None)) is not None:
                self._file.learn_encoder(first)
        place, earliest = int(np.searchsorted(self._index.keys, key)), int(self._index.keys[0])
        before = int(self._index.keys[place - 1]) if place else earliest
        # Decoding comes before showing: what is looked for by the time of decoding may lie before every key's own.
        starts = dict.fromkeys([key, before, earliest - round(_BEFORE_FIRST / (self._file.stream.time_base or 1))])
        return any(self._file.seek(start) and self._file.find(key) for start in starts)

    def _to_rgb(self, file: PyAVFile, frame: VideoFrame) -> Frame:
        rgb = file.to_rgb(frame, self.orientation)
        if file.doubt is not None:
            self._warn(file.doubt)
        return rgb

    def _decode_from_start(self, wanted: Sequence[int]) -> Iterator[tuple[int, Frame]]:
        last = wanted[-1]
        needed: Container[int] = wanted if isinstance(wanted, range) else frozenset(wanted)
        with opened(self._path) as file:
            file.size = self._file.size
            for index, frame in self._without_gaps(file.frames(), last):
                if index in needed:
                    yield index, self._to_rgb(file, frame)

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
        if len(missing) > MAX_BAD_SHARE * self._index.num_frames or previous is None:
            raise VideoError(self._path, f"{len(missing)} of its {self._index.num_frames} frames cannot be decoded")
        if missing:
            self._warn(
                # without their number, which depends on how far was read: each part of a timeline would say another
                f"some frames cannot be decoded, the first is {missing[0]}; each shows the nearest earlier frame"
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
