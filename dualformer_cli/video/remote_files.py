"""Files on other machines, through fsspec: which names lead to some, the videos of a folder or pattern, their bytes."""

from __future__ import annotations

import importlib
import logging
import os
import re
import socket
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.system.disk import is_full
from dualformer_cli.system.words import natural_key, os_reason
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.addresses import is_live, mask_credentials
from dualformer_cli.video.suffixes import is_video_name
from dualformer_cli.video.tar_members import Member, is_shard_name

_Answer = TypeVar("_Answer")

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://.", re.DOTALL)
_WEB = ("http", "https")
_HERE = ("file", "local")
_PACKAGES = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    "hf": "huggingface_hub",
    **dict.fromkeys(_WEB, "aiohttp requests"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
}
"""What fsspec needs for a protocol."""
_VERSIONS = ["ETag", "etag", "md5Hash", "blob_id", "LastModified", "Last-Modified", "last_modified", "mtime", "created"]
"""By what file systems say which version of a file there is."""
_TRIES = 3
_BLOCK_BYTES = 256 * 1024
"""That are asked for at a time to read the headers of an archive."""
_FEW_BYTES = 16 * 1024
"""That are asked for in place of a block where more than one lies between two headers."""
_MOST_IN_HEADER = 8**11 - 1
"""Bytes: of a member with more, the header may say 0, and a record before it the size."""
_PIECE_BYTES = 1024 * 1024
"""Of a video, that are asked for at a time: after each a worker says that it goes on."""
_WAIT_SECONDS = 1.0
_UNHEARD = logging.NullHandler()
"""Without a handler, Python prints what a library logs."""


def is_remote(name: str) -> bool:
    """Return whether a name is one that fsspec reads; of web addresses patterns and archives: others can be live."""
    if _ADDRESS.match(name) is None or _protocol(name) in _HERE:
        return False
    return not is_live(name) or (
        _protocol(name) in _WEB and (_is_pattern(name) or ".tar/" in name or is_shard_name(name))
    )


def check_protocol(address: str) -> None:
    """Refuse an address that needs a package which is not installed.

    Raises:
        DualFormerError: naming what to install.
        VideoError: if the protocol is unknown.
    """
    protocol = _protocol(address)
    try:
        importlib.import_module("fsspec").get_filesystem_class(protocol)
    except ImportError:
        packages = " ".join(["'dualformer[remote]'", *filter(None, [_PACKAGES.get(protocol)])])
        shown = mask_credentials(address)
        raise DualFormerError(f"{shown!r}: {protocol}:// needs more packages: pip install {packages}") from None
    except ValueError:
        raise VideoError(mask_credentials(address), f"the protocol {protocol}:// is not known to fsspec") from None


def require_remote(address: str, *, offline: bool) -> None:
    """Refuse an address that may not be asked, or needs a package that is not installed.

    Raises:
        DualFormerError: saying what to do.
        VideoError: if the protocol is unknown.
    """
    if offline:
        raise DualFormerError(
            f"{mask_credentials(address)!r} is not on this machine, and --offline is given; leave one of them out"
        )
    check_protocol(address)


def list_videos(address: str) -> list[str]:
    """Return the addresses of the videos that an address names, in natural order, those of a folder before its folders.

    One that ends in a slash is a folder, which is searched with the folders in it. A pattern has `*`, `?` or `[`, and
    `**` for any number of folders; an existing file wins over it. Any other address stands for itself, unasked. As on a
    disk, hidden entries and files without a video suffix are left out, unless a pattern spells the suffix itself.

    Raises:
        DualFormerError: as `check_protocol` does.
        VideoError: if the folder or the matches of the pattern cannot be listed, or there are none.
    """
    check_protocol(address)
    is_pattern = _is_pattern(address)
    if not is_pattern and not address.endswith("/"):
        return [address]
    with _in_words(address):
        files, path = _opened(address)
        if not is_pattern:
            found = files.find(path)
        elif _protocol(address) not in _WEB and files.exists(path):
            return [address]
        else:
            matches = files.glob(path, detail=True).items()
            found = [name for name, facts in matches if facts["type"] == "file"]
            found += [name for folder, facts in matches if facts["type"] != "file" for name in files.find(folder)]
        top = path if not is_pattern else re.split(r"[*?[]", path, maxsplit=1)[0].rpartition("/")[0]
        suffix = os.path.splitext(path)[1]
        spells_suffix = is_pattern and bool(suffix) and not re.search(r"[*?[]", suffix)
        videos = [
            name
            for name in dict.fromkeys(found)
            if (spells_suffix or is_video_name(name))
            and not any(part.startswith(".") for part in name.removeprefix(top).split("/"))
        ]
    if not videos:
        wanted = "archives" if is_shard_name(path) else "videos"
        reason = f"the pattern matches no {wanted}" if is_pattern else "the folder holds no videos"
        raise VideoError(mask_credentials(address), reason)
    plain, end = address.rstrip("/"), path.rstrip("/")
    before = plain.removesuffix(end) if end and plain.endswith(end) else f"{_protocol(address)}://"
    return [before + name for name in sorted(videos, key=lambda name: list(map(natural_key, os.path.split(name))))]


@contextmanager
def open_file(address: str) -> Iterator[Any]:
    """Open the file behind an address to read a little here and there, without all that lies between.

    Raises:
        VideoError: if it cannot be had, or its server sends whole files only.
    """
    with _in_words(address), _again(partial(_open, address)) as file:
        cache: Any = getattr(file, "cache", None)
        if getattr(cache, "name", None) == "readahead":
            cache.fetcher = _Pieces(cache.fetcher, file.size)
        yield file


def _open(address: str) -> Any:
    """Open a file of which parts can be had."""
    files, path = _opened(address)
    file = files.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
    try:
        if size := file.seek(0, os.SEEK_END):
            file.seek(size - 1)
            file.read(1)
        file.seek(0)
    except ValueError:
        reason = "its server sends whole files only; fetch it, and name the file on this machine"
        raise VideoError(mask_credentials(address), reason) from None
    return file


class _Pieces:
    """Fetches what a file that reads a block ahead asks for; less where the reader leaves more than a block out.

    Args:
        fetch: returns the bytes from one place up to another.
        size: of the file.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._end = fetch, size, 0

    def __call__(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` up to `end`, or all that the reader needs now of them."""
        if start > self._end + _BLOCK_BYTES and end < self._size:
            end -= _BLOCK_BYTES - _FEW_BYTES
        self._end = end
        return _again(partial(self._fetch, start, end))


def read_text(address: str, *, most: int) -> str | None:
    """Return the text behind an address; None if there is none of up to `most` bytes, or no permission to know.

    Raises:
        VideoError: if its server does not answer.
    """
    with _in_words(address):
        files, path = _opened(address)
        try:
            return str(files.cat_file(path, start=0, end=most).decode("utf-8-sig"))
        except (FileNotFoundError, PermissionError, UnicodeDecodeError):
            return None


def fetch_file(address: str, target: str, *, member: Member | None = None) -> None:
    """Copy the file behind an address, or the member of it alone where it is an archive, to a local path.

    Raises:
        VideoError: if it cannot be had, in words without secrets of the address.
    """
    with _in_words(address):
        _again(partial(_fetch, address, target, member))


def _fetch(address: str, target: str, member: Member | None) -> None:
    files, path = _opened(address)
    if member is not None:
        return _copy_member(files, path, member, target)
    files.get_file(path, target)
    if os.path.isdir(target):
        raise IsADirectoryError


def _again(ask: Callable[[], _Answer]) -> _Answer:
    """Return what a server answers; it is asked again where that may help."""
    for tries_left in reversed(range(_TRIES)):
        heartbeat()
        try:
            return ask()
        except Exception as error:  # each file system has exceptions of its own
            if not tries_left or _will_stay(error):
                raise
        time.sleep(_WAIT_SECONDS)
    raise AssertionError("unreachable")


def _will_stay(error: Exception) -> bool:
    """Return whether to ask again would be of no use."""
    if isinstance(error, FileNotFoundError):
        return (_status_of(error) or 404) < 500
    return (
        isinstance(error, DualFormerError | PermissionError | IsADirectoryError)
        or (isinstance(error, OSError) and is_full(error))
        or _is_unknown_host(error)
    )


def _is_unknown_host(error: BaseException | None) -> bool:
    """Return whether an error comes of a server's name that leads to no address, as without a network."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return error.errno == socket.EAI_NONAME
        error = error.__cause__ or error.__context__
    return False


def _status_of(error: Exception) -> int | None:
    """Return the HTTP status that fsspec takes for a file that is not there, if it is another one."""
    status = getattr(error.__cause__, "status", None)
    return None if status in (404, 410) else status


def stamp_of(address: str) -> tuple[int, str]:
    """Return what changes when the file behind an address does: its size, and its time or its hash.

    Raises:
        VideoError: if it cannot be asked.
    """
    with _in_words(address):
        files, path = _opened(address)
        facts = _again(partial(files.info, path))
        return facts.get("size") or 0, next((str(facts[name]) for name in _VERSIONS if facts.get(name)), "")


def _copy_member(files: Any, path: str, member: Member, target: str) -> None:
    """Copy the bytes of a member, whose header must still lie before them."""
    end = member.start + member.size
    header = files.cat_file(path, start=member.start - tarfile.BLOCKSIZE, end=member.start)
    try:
        found = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size
    except tarfile.HeaderError:
        found = None
    if found != member.size and (found or member.size <= _MOST_IN_HEADER):
        raise ValueError("the archive has changed since it was listed; run the command again")
    with open(target, "wb") as file:
        for start in range(member.start, end, _PIECE_BYTES):
            piece = files.cat_file(path, start=start, end=min(end, start + _PIECE_BYTES))
            if len(piece) != min(end, start + _PIECE_BYTES) - start:
                raise ValueError(f"{len(piece):,} bytes came where {_PIECE_BYTES:,} or the rest were asked for")
            file.write(piece)
            heartbeat()


def _protocol(address: str) -> str:
    return address.partition("://")[0].lower()


def _is_pattern(address: str) -> bool:
    """Return whether the path of an address is a pattern; in web addresses, ? and [ mean other things."""
    path = address.partition("://")[2]
    return re.search(r"\*" if _protocol(address) in _WEB else r"[*?[]", path) is not None


def _opened(address: str) -> tuple[Any, str]:
    """Return the file system of an address, and its path there; what it logs of errors that it raises is left out."""
    kind = importlib.import_module("fsspec").get_filesystem_class(_protocol(address))
    logging.getLogger(kind.__module__.partition(".")[0]).addHandler(_UNHEARD)
    return importlib.import_module("fsspec.core").url_to_fs(address)


@contextmanager
def _in_words(address: str) -> Iterator[None]:
    """Turn what file systems raise into a VideoError."""
    try:
        yield
        return
    except DualFormerError:
        raise
    except FileNotFoundError as error:
        reason = "not found; is the address right? That of a folder ends in a slash"
        if status := _status_of(error):
            reason = f"its server answers with the error {status}"
        elif isinstance(error.__cause__, OSError):  # what fsspec makes of a server that is not there
            reason = f"no answer from its server: {os_reason(error.__cause__)}"
    except PermissionError:
        reason = "no permission; are the credentials of this file system set up?"
    except IsADirectoryError:
        reason = "a folder; end the address with a slash to take the videos in it"
    except Exception as error:  # each file system has exceptions of its own
        said = re.sub(r"\w+://\S+", lambda match: mask_credentials(match[0]), " ".join(str(error).split()))
        reason = f"cannot be had: {said[:200] or type(error).__name__}"
        if _is_unknown_host(error):
            reason = "no server of that name is known; is there a network, and is the address right?"
    raise VideoError(mask_credentials(address), reason)
