"""A file is opened by PyAV: the one of its streams that is the video, or why there is none to read."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dualformer_cli.errors import VideoError
from dualformer_cli.video.mp4_boxes import Outline, read_outline
from dualformer_cli.video.reader import check_pixels
from dualformer_cli.video.refusals import ENCRYPTED, explain_unknown, first_bytes, is_motion_jpeg
from dualformer_cli.video.tar_members import find_member

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_READABLE = (
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
    # Not a level: with any, decoder threads take Python's lock to report an error, and whoever closes the file holds it
    # and waits for them: for ever.
    av.logging.set_level(None)
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


def open_container(path: str, known_stream: int | None) -> tuple[InputContainer, VideoStream, Outline | None]:
    """Open a file.

    Args:
        path: of the file.
        known_stream: number of the stream in an MP4 or MOV that was read before. FFmpeg then does not look into the
            packets: for H.264 and HEVC it would decode a key frame, only to learn what the decoder finds anyway.

    Returns:
        The container, the stream that players show, and the outline of an MP4 or MOV that was not read before.

    Raises:
        VideoError: if PyAV is not installed, or the file is not a video that can be read.
    """
    av = load_av()
    if av is None:
        raise VideoError(path, "PyAV is not installed; pip install av")
    # Not `options`, which makes PyAV 17 crash on MPEG program streams.
    limits: dict[str, str] = {"format_whitelist": _READABLE, "protocol_whitelist": "file,subfile"}
    quick: Mapping[str, Any] = {}
    if known_stream is not None:
        limits |= {"analyzeduration": "1", "probesize": "32", "fpsprobesize": "0"}
        quick = {"format": "mov", "stream_options": [{"skip_frame": "all"}] * (known_stream + 1)}
    elif is_motion_jpeg(path, first_bytes(path)):
        quick = {"format": "mjpeg"}
    try:
        # "file:" keeps a name such as "http:x" from being taken for an address; a bad tag is no reason to refuse.
        address = f"file:{path}" if (member := find_member(path)) is None else member.address
        container = av.open(address, metadata_errors="ignore", container_options=limits, **quick)
    except MemoryError:
        raise VideoError(path, "not enough memory to open it") from None
    except (av.FFmpegError, OSError, ValueError):
        raise VideoError(path, explain_unknown(path)) from None
    try:
        outline = read_outline(path) if known_stream is None and "mov" in container.format.name else None
        # FFmpeg says it of Matroska by the identifier of a key.
        is_locked = any("enc_key_id" in stream.metadata for stream in container.streams.video)
        if is_locked or (outline is not None and outline.protection == "all"):
            raise VideoError(path, ENCRYPTED)
        return container, _choose_stream(path, container, known_stream), outline
    except BaseException:
        container.close()
        raise


def _choose_stream(path: str, container: InputContainer, known: int | None) -> VideoStream:
    streams = without_pictures(container.streams.video)
    if not streams:
        raise VideoError(path, f"no video in it, only {_what_else(container)}")
    decodable = [stream for stream in streams if stream.codec_context is not None]
    if not decodable:
        raise VideoError(path, "its video codec is unknown to PyAV")
    if known is not None:  # sizes that only the header states may rank them otherwise
        decodable = [stream for stream in decodable if stream.index == known] or decodable
    stream = shown_stream(decodable)
    check_pixels(path, stream.codec_context.width, stream.codec_context.height)
    return stream


def _what_else(container: InputContainer) -> str:
    """Name what is in a file without a video."""
    kinds: list[str] = sorted({stream.type for stream in container.streams if stream.type != "video"})
    if container.streams.video:
        kinds.append("a cover picture")
    return " and ".join(kinds) or "an empty container"
