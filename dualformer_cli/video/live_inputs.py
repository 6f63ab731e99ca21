"""Cameras and network streams: their names, how they are opened, and why they cannot be."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualformer_cli.errors import VideoError
from dualformer_cli.video.addresses import CAMERA, mask_credentials
from dualformer_cli.video.containers import load_av, shown_stream, without_pictures
from dualformer_cli.video.reader import MAX_PIXELS

if TYPE_CHECKING:
    import av

_PROTOCOLS = "crypto,data,http,httpproxy,https,rtmp,rtmps,rtmpt,rtp,rtsp,rtsps,srt,srtp,tcp,tls,udp"
"""What a stream may open in turn (a playlist names others): no files of this machine."""
_OPTIONS = {
    "protocol_whitelist": _PROTOCOLS,
    "rtsp_flags": "prefer_tcp",  # over UDP, lost packets smear the picture
    "fpsprobesize": "2",  # guessing the frame rate would delay the first frame by 0.7 s at 25 fps
    "analyzeduration": "5000000",  # microseconds; an announced audio stream that never comes would cost 90 s
}


def absent_camera(name: str) -> str | None:
    """Return why a camera cannot be one of this machine; None where it may be, or where only opening it tells."""
    camera = CAMERA.fullmatch(name)
    is_known = sys.platform not in ("darwin", "win32")
    return _no_camera() if camera and is_known and not Path(f"/dev/video{camera[1]}").exists() else None


def connect(name: str, timeouts: tuple[float, float]) -> Any:
    """Open a camera or an address.

    Args:
        name: of the input.
        timeouts: seconds for an answer and for the next data.

    Returns:
        The container.

    Raises:
        VideoError: if PyAV is not installed.
        av.FFmpegError: as `explain_failure` explains it.
    """
    av = load_av()  # silent, as FFmpeg's own messages contain the address with its password
    if av is None:
        raise VideoError(mask_credentials(name), "PyAV is not installed; pip install av")
    if camera := CAMERA.fullmatch(name):
        location, kind, options = _find_camera(int(camera[1]))
    else:
        location, kind, options = name, None, _OPTIONS
    return av.open(location, format=kind, options=options, timeout=timeouts, metadata_errors="ignore")


def choose_stream(name: str, container: Any) -> Any:
    """Return the stream of a live input that players show.

    Raises:
        VideoError: if it has none that can be decoded, or its pictures are too large.
    """
    decodable = [stream for stream in container.streams.video if stream.codec_context is not None]
    streams = without_pictures(decodable)
    if not streams:
        only = ", only a cover picture" if decodable else " that can be decoded"
        raise VideoError(mask_credentials(name), f"holds no video{only}")
    stream = shown_stream(streams)
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(
            mask_credentials(name),
            f"pictures of {stream.width}x{stream.height} pixels are more than the {MAX_PIXELS:,} allowed",
        )
    return stream


def explain_failure(name: str, error: Exception, timeouts: tuple[float, float], *, is_open: bool) -> Exception:
    """Return an error of FFmpeg in plain words; its own text contains the address with its password.

    Args:
        name: of the input.
        error: one of FFmpeg, or another, which is returned as it is.
        timeouts: seconds for an answer and for the next data.
        is_open: whether the input had been opened.
    """
    av = load_av()
    if av is None or not isinstance(error, av.FFmpegError):
        return error
    open_timeout, read_timeout = timeouts
    if isinstance(error, av.error.ExitError):
        reason = (
            f"the stream stopped: no data for {read_timeout:g} s" if is_open else f"no answer for {open_timeout:g} s"
        )
    elif is_open:
        reason = f"the stream broke off: {error.strerror}"
    elif CAMERA.fullmatch(name):
        reason = _explain_camera(error)
    else:
        reason = _explain_address(error)
    return VideoError(mask_credentials(name), reason)


def _find_camera(number: int) -> tuple[str, str, dict[str, str]]:
    """Return location, FFmpeg input and options of the camera with that number on this system."""
    import av

    if sys.platform == "darwin":
        return f"{number}:none", "avfoundation", {"framerate": "30"}
    if sys.platform == "win32":
        cameras = [device.name for device in av.enumerate_input_devices("dshow") if "video" in device.media_types]
        return f"video={cameras[number] if number < len(cameras) else number}", "dshow", {}
    return f"/dev/video{number}", "v4l2", {}


def _explain_camera(error: av.FFmpegError) -> str:
    if isinstance(error, FileNotFoundError):
        return _no_camera()
    if isinstance(error, PermissionError):
        return "no permission to use the camera; is the user in the group 'video'?"
    return f"the camera cannot be opened: {error.strerror}"


def _no_camera() -> str:
    present = sorted(str(path) for path in Path("/dev").glob("video*"))
    return f"no such camera; present: {', '.join(present) or 'none'}"


def _explain_address(error: av.FFmpegError) -> str:
    import av

    if isinstance(error, ConnectionRefusedError):
        return "connection refused; is the address right and the sender running?"
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return "the user name or password is missing or wrong (401)"
    if isinstance(error, av.error.ProtocolNotFoundError):
        return "this kind of address is not supported by the installed PyAV"
    if isinstance(error, av.error.InvalidDataError):
        return "holds no video that can be read"
    if error.errno == errno.EIO:  # what FFmpeg makes of a name that no server knows
        return "cannot be reached; is the host name right?"
    return f"cannot be opened: {error.strerror}; check the address"
