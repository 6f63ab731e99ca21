"""What reading a whole file once finds out: when each of its frames is shown, and where decoding can start."""

from __future__ import annotations

from array import array
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from dualformer_cli.errors import VideoError
from dualformer_cli.video import bitstream
from dualformer_cli.video.file_index import Findings, Index, PacketTable, rises, sorted_keys
from dualformer_cli.video.frame_times import rate_and_duration, rate_of_packets, seconds_after_first
from dualformer_cli.video.orientation import orientation_of
from dualformer_cli.video.pyav_file import PyAVFile
from dualformer_cli.video.reader import MAX_BAD_SHARE, MAX_FRAMES
from dualformer_cli.video.refusals import ENCRYPTED, explain_empty

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

SEEKABLE_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm"})
"""Containers that state when each frame is shown and find a timestamp again; others are decoded from the start, unless
each packet is a picture of its own."""
_FRAME_PER_PACKET = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "ffv1"})
"""Codecs of which, in those containers, each packet is one frame or says that it is hidden, beside those that know
nothing but key frames; others may hold hidden or uncoded frames."""
_RAW_STREAMS = frozenset({"h264", "hevc"})
"""Demuxers of bare streams, which call every stream one of 25 frames per second."""
_TRIED_FIELDS, _TRIED_PICTURES = 40, 3
"""Packets that are decoded to see whether each is a frame: where pictures may come as two fields, and of codecs of
which no file with two packets a frame is known."""
_STATING_DURATION = frozenset({"matroska", "webm", "flv"})
"""Containers whose header says how long the file is and whose frames can be read up to where it was cut off."""


def scan_file(file: PyAVFile) -> Findings:
    """Read all packets of a file that was just opened, and decode its first frame.

    Raises:
        VideoError: if the file holds no frame that can be decoded, is encrypted, or is damaged in more than a tenth.
    """
    return _Scan(file).findings()


class _Scan:
    def __init__(self, file: PyAVFile) -> None:
        self._file, self._path = file, file.path
        self._warnings: list[str] = []

    def findings(self) -> Findings:
        table, first = self._read_packets()
        index = self._make_index(table)
        if first is None:
            raise VideoError(self._path, "no frame of it can be decoded")
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
            warnings=tuple(self._warnings),
        )

    def _read_packets(self) -> tuple[PacketTable, VideoFrame | None]:
        """Read all packets, decoding only until the first frame comes out."""
        file = self._file
        extradata = file.stream.codec_context.extradata or b""
        table = PacketTable(codec=file.codec, extradata=extradata, is_intra_only=file.is_intra_only)
        may_be_encrypted = file.outline is not None and file.outline.protection == "some packets"
        first: VideoFrame | None = None
        for packet in file.packets():
            if may_be_encrypted and packet.has_sidedata("encryption_info"):
                raise VideoError(self._path, ENCRYPTED)
            table.add(packet)
            if table.num_packets > MAX_FRAMES:
                raise VideoError(self._path, f"it has more than {MAX_FRAMES:,} frames")
            if first is None:
                first = next(iter(file.decode(packet)), None)
            if first is None and table.num_packets == 1 and not packet.is_discard:
                first = self._bring_out()
        if not table.num_packets:
            raise VideoError(self._path, explain_empty(file.outline))
        return table, first or self._bring_out() or self._first_of_all()

    def _bring_out(self) -> VideoFrame | None:
        """Make the decoder give a frame that it holds back, and ready for packets again."""
        frame = next(iter(self._file.decode(None)), None)
        self._file.stream.codec_context.flush_buffers()
        return frame

    def _first_of_all(self) -> VideoFrame | None:
        """Decode from the start: half a picture that was brought out too early leaves a decoder without a start."""
        with closing(PyAVFile(self._path)) as file:
            return next(file.frames(), None)

    def _make_index(self, table: PacketTable) -> Index:
        file = self._file
        is_seekable = bool(file.containers & SEEKABLE_CONTAINERS) or file.is_intra_only
        is_stated = is_seekable and (file.is_intra_only or file.codec in _FRAME_PER_PACKET)
        times = table.frame_times(reorders=file.stream.codec_context.has_b_frames) if is_stated else None
        num_promised = len(file.stream.index_entries) if "mov" in file.containers else 0
        if file.ended_early or num_promised > table.num_packets:
            self._warnings.append("the file is damaged or cut short: not all of it can be read")
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
        with closing(PyAVFile(self._path)) as file:
            packets = list(islice(file.packets(), num_tried))
            frames = [frame for packet in packets for frame in file.decode(packet)] + file.decode(None)
        times = [packet.pts for packet in packets if packet.pts is not None and not packet.is_discard]
        return [frame.pts for frame in frames] == sorted(times)

    def _count_frames(self, table: PacketTable, *, is_seekable: bool) -> Index:
        """Find the frames by decoding them all; decoding can start where the decoder says so too."""
        times, starts = array("q"), array("q")
        count, duration = 0, 0
        with closing(PyAVFile(self._path)) as file:
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
            self._warnings.append(
                f"{failed} of its {table.num_packets} packets cannot be decoded; their frames are left out"
            )
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
                self._warnings.append(f"it does not say how fast it is shown; {rate:g} frames per second are taken")
        if stream.time_base is None:
            return rate, index.num_frames / rate if rate else None
        tick = float(stream.time_base)
        if index.pts is not None:
            times = seconds_after_first(index.pts, tick, may_jump=self._file.may_jump)
            return rate_and_duration(times, index.last_duration * tick, rate)
        if len(table.dts) == table.num_packets and not self._file.containers & _RAW_STREAMS:
            rate = rate_of_packets(np.frombuffer(table.dts, np.int64), tick, index.num_frames, rate)
        return rate, index.num_frames / rate if rate else None

    def _compare_with_header(self, duration_seconds: float | None) -> None:
        """Warn when the header promises much more than there is, as after an unfinished download."""
        stated = self._file.stated_duration
        if stated is None or duration_seconds is None or not self._file.containers & _STATING_DURATION:
            return
        if stated > 1.05 * duration_seconds + 1:
            self._warnings.append(f"its header says {stated:.1f} s, its pictures end after {duration_seconds:.1f} s")
