"""A video file behind a web address is fetched once, and is a file from then on."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from http.client import HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlsplit

from dualformer_cli.data.fetch.fetch import fetch
from dualformer_cli.data.fetch.http import OnBytes, Patience, Session, Source, TransferError, open_file
from dualformer_cli.errors import DownloadError, VideoError
from dualformer_cli.system.files import cache_dir
from dualformer_cli.video.addresses import mask_credentials
from dualformer_cli.video.inputs import InputList
from dualformer_cli.video.remote_files import list_videos
from dualformer_cli.video.remote_videos import name_of

_STREAM_TYPES = frozenset(
    {
        "multipart/x-mixed-replace",
        "application/vnd.apple.mpegurl",
        "application/x-mpegurl",
        "audio/mpegurl",
        "audio/x-mpegurl",
        "application/dash+xml",
        "application/sdp",
    }
)
"""Of cameras and of playlists."""
_PLAYLIST = re.compile(rb"(?:\xef\xbb\xbf)?\s*(#EXTM3U|<\?xml[^>]*>\s*(<!--.*?-->\s*)*<MPD|<MPD)", re.DOTALL)
_PATIENCE = Patience(retries=2)


def is_web_address(name: str) -> bool:
    """Tell whether an input may be a file on a web server. Addresses with a password are left to the stream reader."""
    return name.lower().startswith(("http://", "https://")) and "@" not in urlsplit(name).netloc


def fetch_addresses(
    found: InputList,
    fetching: Callable[[], AbstractContextManager[Callable[[str, int, int | None], None]]],
    *,
    offline: bool,
) -> dict[str, str]:
    """Put files in the place of the web addresses that lead to one, and those in it in the place of a folder's page.

    Args:
        found: the inputs; live ones stay, and so do remote files, whose turn comes later.
        fetching: shows how far a file is.
        offline: whether only files that an earlier run fetched are taken.

    Returns:
        What may be shown, by the path of a file that was fetched and by the address of a remote one.
    """
    paths: list[str] = []
    shown: dict[str, str] = {}
    for name in found.paths:
        if name in found.remote or os.path.lexists(name) or not is_web_address(name):
            paths.append(name)
            continue
        address = mask_credentials(name)
        try:
            with fetching() as progress:
                fetched = fetch_video(name, offline=offline, progress=partial(progress, address))
        except DownloadError as error:
            if videos := _page_of_videos(name, found, offline=offline):
                paths.extend(videos)
            else:
                found.problems.append((address, error.reason))
            continue
        paths.append(name if fetched is None else str(fetched))
        if fetched is not None:
            shown[str(fetched)] = address
    found.paths[:] = paths
    return shown | {name: name_of(name) for name in found.remote}


def _page_of_videos(address: str, found: InputList, *, offline: bool) -> list[str]:
    """Return the videos that a page links to which came in place of a file, as one of a folder does."""
    if offline or not address.endswith("/"):
        return []
    try:
        videos = list_videos(address)
    except VideoError:
        return []
    found.remote.update(videos)
    return videos


def fetch_video(
    address: str, *, offline: bool = False, progress: OnBytes | None = None, patience: Patience = _PATIENCE
) -> Path | None:
    """Return the path of the file behind an address, fetching it unless it is there; None if it is a live stream.

    A file ends: the server says how long it is, and it is neither a camera nor a playlist. Whether it has changed since
    it was fetched is asked every time, by its size and its headers; what was fetched before a change is removed.

    Raises:
        DownloadError: if it cannot be had, with the reason and without secrets of the address.
    """
    shown = mask_credentials(address)
    folder = cache_dir() / "videos" / _digest(address)
    if offline:
        return _latest(folder, file_name(address), shown)
    source = Source(name=shown, url=address, browser_url=shown)
    try:
        with open_file(Session(patience), source, {}) as response:
            length, version = response.length, _version(response)
            if _is_stream(response):
                return None
        target = folder / version / file_name(address)
        if not length:
            raise TransferError("the file is empty (0 bytes)")
    except (TransferError, OSError) as error:
        raise DownloadError(f"{shown}: {error}", str(error)) from error
    try:
        path = fetch(
            Source(name=shown, url=address, browser_url=shown, num_bytes=length),
            target,
            progress=progress,
            patience=patience,
        ).path
    except DownloadError as error:
        raise DownloadError(f"{shown}: {error.reason}", error.reason) from error
    for other in folder.iterdir():
        if other != path.parent:
            shutil.rmtree(other, ignore_errors=True)
    return path


def _latest(folder: Path, name: str, shown: str) -> Path:
    """Return the file that an earlier run fetched."""
    whole = list(folder.glob(f"*/{name}"))
    if not whole:
        reason = "offline, and it was not fetched before"
        raise DownloadError(f"{shown}: {reason}", reason)
    return max(whole, key=lambda path: path.stat().st_mtime_ns)


def _is_stream(response: HTTPResponse) -> bool:
    """Tell an answer that is a live stream or a playlist from a file."""
    headers = response.headers
    if (
        response.length is None
        or headers.get_content_type() in _STREAM_TYPES
        or any(name.lower().startswith("icy-") for name in headers)
    ):
        return True
    return _PLAYLIST.match(response.read(min(response.length, 1024))) is not None


def _version(response: HTTPResponse) -> str:
    said = [response.headers.get("ETag"), response.headers.get("Last-Modified"), response.length]
    return _digest(json.dumps(said))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def file_name(address: str) -> str:
    """Return a name for the file that says what it is; outputs beside it are named after it."""
    name = re.sub(r"[^\w.-]+", "_", unquote(urlsplit(address).path.rpartition("/")[2])).strip("._")
    return name[-100:] or "video"
