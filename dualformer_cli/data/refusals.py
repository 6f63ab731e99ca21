"""Why a path is not a video that can be read, in words for its user."""

from __future__ import annotations

import os
import re
import stat

from dualformer_cli.errors import VideoError


def is_folder(path: str) -> bool:
    """Tell a folder from a regular file that is not empty, or say why it is neither."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise VideoError(path, "no such file or folder") from None
    except OSError as error:
        raise VideoError(path, plain_reason(error)) from None
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


def plain_reason(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "no permission to read it"
    return (error.strerror or "cannot be read").lower()


def first_bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1024)
    except OSError as error:
        raise VideoError(path, plain_reason(error)) from None


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


def explain_unknown(head: bytes) -> str:
    """Say what a file is that no demuxer wants."""
    text = head.removeprefix(b"\xef\xbb\xbf")
    for signature, reason in _SIGNATURES:
        if signature.match(text):
            return reason
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in text):
        return "a text file, not a video"
    return "not a video format that is known here, or damaged beyond opening"
