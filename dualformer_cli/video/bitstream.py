"""What the first bytes of a packet say about its picture, read without decoding it.

Containers flag packets as key frames, and are wrong about it now and then; the packets themselves are not.
Sources: ITU-T H.264 (7.3.1, 7.3.2.1, 7.3.3, D.1.8), ITU-T H.265 (7.3.1.2, table 7-1), RFC 6386 (9.1), VP9 bitstream
specification (6.2), AV1 bitstream specification (5.3.2, 5.9.2), RFC 9043 (3.8.1, 4.4).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_START_CODE = re.compile(b"\0\0\1")
_H264_IDR, _H264_SEI = 5, 6
_H264_SLICES = frozenset({1, 5})
_RECOVERY_POINT = 6
_HEVC_IRAP = range(16, 24)
_AV1_FRAME_HEADERS = frozenset({3, 6})
_FFV1_KEY = 0x7F80
"""The first bit of a frame says whether it is a key; its range coder starts at 0xFF00 with even odds, so from half on
the bit is 1."""


def is_start(codec: str, data: memoryview, extradata: bytes) -> bool:
    """Return whether decoding can start at a packet that its container calls a key frame.

    Args:
        codec: h264, hevc, vp8, vp9, av1 or ffv1; packets of others are believed.
        data: the packet.
        extradata: the stream's header, which says how NAL units are laid out.
    """
    if codec == "h264":
        return _is_h264_start(data, extradata)
    if codec == "hevc":
        kinds = (unit[0] >> 1 & 63 for unit in nal_units("hevc", data, extradata))
        return next((kind in _HEVC_IRAP for kind in kinds if kind < 32), False)
    if codec == "vp8":
        return not data[0] & 1
    if codec == "vp9":
        return not _vp9_frame(data)[1]
    if codec == "av1":
        return _is_av1_start(data)
    if codec == "ffv1":
        return len(data) > 1 and data[0] << 8 | data[1] >= _FFV1_KEY
    return True


def is_shown(codec: str, data: memoryview) -> bool:
    """Return whether a packet of VP8 or VP9 holds a picture to show; others always do."""
    if codec == "vp8":
        return bool(data[0] & 0x10)
    if codec == "vp9":
        return _vp9_header(data)[0]
    return True


def holds_b_slice(data: memoryview, extradata: bytes) -> bool:
    """Return whether the first slice of an H.264 packet refers to pictures on both sides, so that order changes."""
    for unit in nal_units("h264", data, extradata):
        if unit[0] & 31 in _H264_SLICES and len(unit) > 1:
            # first_mb_in_slice is 0, one bit; then slice_type, 1 or 6 for B: 010 or 00111
            return bool(unit[1] & 0x80 and (unit[1] >> 4 & 7 == 0b010 or unit[1] >> 2 & 31 == 0b00111))
    return False


def codes_whole_frames(extradata: bytes) -> bool:
    """Return whether the H.264 header in an MP4 or Matroska file says that no picture is coded as two fields."""
    if extradata[:1] != b"\1" or len(extradata) < 9 or not extradata[5] & 31:
        return False
    size = int.from_bytes(extradata[6:8], "big")
    bits = _Bits(extradata[8 : 8 + size].replace(b"\0\0\3", b"\0\0"))
    try:
        return _frame_mbs_only(bits)
    except IndexError:
        return False


def nal_units(codec: str, data: memoryview, extradata: bytes) -> Iterator[memoryview]:
    """Yield the NAL units of an H.264 or HEVC packet, which have lengths in front, or start codes between them."""
    length_at = 4 if codec == "h264" else 21
    if extradata[:1] == b"\1" and len(extradata) > length_at:
        length_bytes = extradata[length_at] % 4 + 1
        position = 0
        while position + length_bytes < len(data):
            size = int.from_bytes(data[position : position + length_bytes], "big")
            position += length_bytes
            if size:
                yield data[position : position + size]
            position += size
        return
    starts = [match.end() for match in _START_CODE.finditer(data)]
    for start, end in zip(starts, [*starts[1:], len(data) + 3], strict=True):
        if end - 3 > start:
            yield data[start : end - 3]


def _is_h264_start(data: memoryview, extradata: bytes) -> bool:
    for unit in nal_units("h264", data, extradata):
        kind = unit[0] & 31
        if kind == _H264_IDR or (kind == _H264_SEI and _recovers_at_once(unit)):
            return True
        if kind in _H264_SLICES:
            return False
    return False


def _recovers_at_once(unit: memoryview) -> bool:
    """Return whether an SEI unit says that all is right from this picture on, without frames of repair."""
    position = 1
    while position + 2 < len(unit):
        kind, position = _sei_number(unit, position)
        size, position = _sei_number(unit, position)
        if kind == _RECOVERY_POINT:
            return position < len(unit) and bool(unit[position] & 0x80)  # recovery_frame_cnt 0 is one bit, 1
        position += size
    return False


def _sei_number(unit: memoryview, position: int) -> tuple[int, int]:
    value = 0
    while position < len(unit) and unit[position] == 255:
        value, position = value + 255, position + 1
    return value + (unit[position] if position < len(unit) else 0), position + 1


def _vp9_header(data: memoryview) -> tuple[bool, bool]:
    """Return (whether a VP9 packet shows a picture, whether its first frame refers to earlier ones)."""
    shows, refers = _vp9_frame(data)
    return shows or data[-1] & 0xE0 == 0xC0, refers  # the last of several frames is shown


def _vp9_frame(data: memoryview) -> tuple[bool, bool]:
    header = data[0]  # marker, 2 bits; profile, 2, and 1 more for profile 3; then the flags
    if header & 0x30 == 0x30:
        header = header << 1
    shows_earlier, refers, shows = header & 8, header & 4, header & 2
    return bool(shows_earlier or shows), bool(shows_earlier or refers)


def _is_av1_start(data: memoryview) -> bool:
    """Return whether the first frame of an AV1 packet is a key frame that is shown at once."""
    position = 0
    while position < len(data):
        header = data[position]
        position += 2 if header & 4 else 1
        size = len(data) - position
        if header & 2:
            size, position = _leb128(data, position)
        if header >> 3 & 15 in _AV1_FRAME_HEADERS and position < len(data):
            return data[position] >> 4 == 0b0001  # show_existing_frame, frame_type, show_frame
        position += size
    return False


def _leb128(data: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        value, position, shift = value | (byte & 127) << shift, position + 1, shift + 7
        if byte < 128:
            break
    return value, position


class _Bits:
    """Bits of a header, highest first. Raises IndexError at its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte = self._data[self._position >> 3]
            value = value << 1 | byte >> (7 - (self._position & 7)) & 1
            self._position += 1
        return value

    def read_ue(self) -> int:
        """Read an unsigned Exp-Golomb number."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def read_se(self) -> int:
        """Read a signed Exp-Golomb number."""
        value = self.read_ue()
        return (value + 1) // 2 if value % 2 else -(value // 2)


_WITH_CHROMA_FORMAT = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
"""Profiles of H.264 whose header states the chroma format."""


def _frame_mbs_only(bits: _Bits) -> bool:
    """Read a sequence parameter set up to frame_mbs_only_flag."""
    bits.read(8)  # the unit's own header
    profile = bits.read(8)
    bits.read(16)
    bits.read_ue()
    if profile in _WITH_CHROMA_FORMAT:
        chroma_format = bits.read_ue()
        if chroma_format == 3:
            bits.read(1)
        bits.read_ue()
        bits.read_ue()
        bits.read(1)
        if bits.read(1):
            for index in range(8 if chroma_format != 3 else 12):
                if bits.read(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    bits.read_ue()
    order_type = bits.read_ue()
    if order_type == 0:
        bits.read_ue()
    elif order_type == 1:
        bits.read(1)
        bits.read_se()
        bits.read_se()
        for _ in range(bits.read_ue()):
            bits.read_se()
    bits.read_ue()
    bits.read(1)
    bits.read_ue()
    bits.read_ue()
    return bool(bits.read(1))


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last, following = 8, 8
    for _ in range(size):
        if following:
            following = (last + bits.read_se()) % 256
        last = following or last
