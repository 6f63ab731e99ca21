"""Why a path is not a video that can be read, in words for its user."""

from __future__ import annotations

import os
import re
import stat

from dualformer_cli.errors import VideoError
from dualformer_cli.video.mp4_boxes import Outline, read_outline
from dualformer_cli.video.parts import WHOLE, split_part
from dualformer_cli.video.tar_members import find_member, opened


def is_folder(path: str) -> bool:
    """Return whether a path is a folder, not a regular file that is not empty; raise VideoError for all else."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        raise VideoError(path, missing(path)) from None
    except NotADirectoryError as error:
        if (member := find_member(path)) is None:
            raise VideoError(path, plain_reason(error)) from None
        if member.size == 0:
            raise VideoError(path, _EMPTY) from None
        return False
    except OSError as error:
        raise VideoError(path, plain_reason(error)) from None
    except ValueError:
        raise VideoError(path, "not a valid file name") from None
    if stat.S_ISDIR(status.st_mode):
        return True
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, f"a {_kind_of(status.st_mode)}, not a file")
    if status.st_size == 0:
        raise VideoError(path, _EMPTY)
    return False


def missing(name: str) -> str:
    """Return the words for a name that leads to nothing."""
    hint = f"; a camera is named as camera:{name}" if name.isdecimal() else ""
    if "#t=" in name and split_part(name)[1] == WHOLE:
        hint = "; a part of a video ends its name in times that follow each other, such as #t=3.5,7 or #t=1:02.5"
    return f"no such file or folder{hint}"


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
        with opened(path) as (file, start, end):
            file.seek(start)
            return file.read(min(1024, end - start))
    except OSError as error:
        raise VideoError(path, plain_reason(error)) from None


def is_motion_jpeg(path: str, head: bytes) -> bool:
    """Return whether a file that begins so is a bare series of JPEG pictures.

    One image can hold a preview or two beside itself.
    """
    if not head.startswith(b"\xff\xd8\xff"):
        return False
    with opened(path) as (file, start, end):
        file.seek(start)
        return file.read(min(_SEARCHED_BYTES, end - start)).count(b"\xff\xd9\xff\xd8\xff") > 3


_EMPTY = "the file is empty (0 bytes)"
ENCRYPTED = "encrypted; it cannot be read"
_SEARCHED_BYTES = 16 << 20
_IMAGE_BRANDS = re.compile(rb"....ftyp(heic|heix|heim|heis|mif1|avif)", re.DOTALL)
_MP4_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"sidx", b"mdat"})
_SIGNATURES = (
    (re.compile(rb"\s*#EXTM3U|\s*ffconcat |\s*\[playlist\]"), "a playlist, not a video"),
    (re.compile(rb"\s*<(!doctype html|html|head|body)", re.IGNORECASE), "a web page, not a video; download it again"),
    (re.compile(rb"version https://git-lfs"), "a Git LFS pointer, not the video itself; fetch it with git lfs pull"),
    (
        re.compile(rb"\xff\xd8\xff|\x89PNG|BM....\0\0\0\0|RIFF....WEBP|II\*\0|MM\0\*", re.DOTALL),
        "an image, not a video",
    ),
    (_IMAGE_BRANDS, "an image, not a video"),
    (re.compile(rb"ID3|fLaC|RIFF....WAVE|\xff[\xf1-\xf3\xf9-\xfb]", re.DOTALL), "an audio file, not a video"),
    (re.compile(rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|Rar!|7z\xbc\xaf"), "an archive, not a video; unpack it"),
)


def explain_unknown(path: str) -> str:
    """Return what a file is that no demuxer wants, by its first bytes, and in an MP4 by the boxes that are in it."""
    head = first_bytes(path)
    if head[4:8] in _MP4_BOXES and not _IMAGE_BRANDS.match(head):
        return _explain_mp4(read_outline(path))
    if head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and head[20:21] and head[20] & 2:
        return "an animated WebP, which is not read here; convert it to MP4 or GIF"
    text = head.removeprefix(b"\xef\xbb\xbf")
    for signature, reason in _SIGNATURES:
        if signature.match(text):
            return reason
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in text):
        return "a text file, not a video"
    return "not a video format that is known here, or damaged beyond opening"


def _explain_mp4(outline: Outline) -> str:
    if outline.protection == "all":
        return ENCRYPTED
    if b"moov" not in outline.kinds:
        if outline.is_fragmented:
            return (
                "a media segment without its initialization segment; join them, as in: cat init.mp4 seg.m4s > all.mp4"
            )
        return "an MP4 without a readable index, as left by an unfinished download or recording"
    return _HEADER_ALONE if outline.is_header_alone else "an MP4 whose index is damaged"


_HEADER_ALONE = "an initialization segment without any frames; append the media segments that belong to it"


def explain_empty(outline: Outline | None) -> str:
    """Return why a file that opens holds no packets; `outline` is that of an MP4."""
    return _HEADER_ALONE if outline is not None and outline.is_header_alone else "its video holds no frames"
