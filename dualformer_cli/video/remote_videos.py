"""Videos on other machines, in files of their own or in tar archives: their names, versions and copies.

Of an archive its headers are read, and of a video in it its own bytes. Such a video is named after its archive, as on a
disk, and with its place: https://host/a.tar/NAME.mp4#bytes=1536-9728. So each process that fetches it need not search
the archive again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from tempfile import TemporaryDirectory, TemporaryFile

from dualformer_cli.errors import UnavailableError, VideoError
from dualformer_cli.system.files import cache_dir
from dualformer_cli.system.words import os_reason
from dualformer_cli.video.addresses import mask_credentials
from dualformer_cli.video.remote_files import fetch_file, open_file, stamp_of
from dualformer_cli.video.suffixes import is_video_name
from dualformer_cli.video.tar_members import Member, is_shard_name, members_in

_PLACE = re.compile(r"(.+?\.tar)/(.+)#bytes=(\d+)-(\d+)", re.DOTALL)
_OPEN_FILES = "/proc/self/fd"
"""Where Linux names the files that a process has open, deleted ones included."""
_IN_ARCHIVE = re.compile(r"(.+?\.tar)/(.+)", re.DOTALL)


def is_in_shard(address: str) -> bool:
    """Return whether an address is that of an archive, or leads into one."""
    return is_shard_name(address) or _IN_ARCHIVE.fullmatch(address) is not None


def list_shard(address: str) -> Iterator[str]:
    """Yield the addresses, with places, of the videos in an archive, in its order, or that of the one that is named.

    Raises:
        VideoError: where the archive cannot be read any further, has a name twice, or holds none of this name.
    """
    match = _IN_ARCHIVE.fullmatch(address)
    archive, wanted = (address, None) if match is None or is_shard_name(address) else match.groups()
    names: set[str] = set()
    with open_file(archive) as file:
        for member in members_in(file, archive):
            is_wanted = is_video_name(member.name) if wanted is None else member.name == wanted
            if not is_wanted:
                continue
            if member.name in names:
                raise VideoError(archive, f"it has two members called {member.name!r}; rename one")
            names.add(member.name)
            yield member.path + place_of(member)
    if not names:
        raise VideoError(archive, "the archive holds no videos" if wanted is None else "no such member in the archive")


def place_of(member: Member) -> str:
    """Return what follows the name of a video, for whoever fetches it."""
    return f"#bytes={member.start}-{member.start + member.size}"


def is_placed(address: str) -> bool:
    """Return whether an address is that of a video in an archive, with its place."""
    return "://" in address and _PLACE.fullmatch(address) is not None


def name_of(address: str) -> str:
    """Return what a remote video is called in results: without its place, and without secrets."""
    member = _member(address)
    return mask_credentials(address if member is None else member.path)


def fetch_video(address: str, target: str) -> None:
    """Copy a remote video to a local path.

    Raises:
        VideoError: if it cannot be had, in words without secrets of the address.
    """
    member = _member(address)
    if member is None:
        fetch_file(address, target)
    else:
        fetch_file(member.archive, target, member=member)


def fetch_copy(address: str) -> tuple[ExitStack, str]:
    """Return what holds a copy of a remote video, which is gone once that is closed, and the path of the copy.

    Where the system can, the file has no name: nothing is left of a process that is killed. Elsewhere it is not open:
    Windows opens no file a second time that is removed once it is closed.

    Raises:
        UnavailableError: if the video cannot be had.
    """
    folder, name = cache_dir() / "copies", name_of(address)
    held = ExitStack()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.path.isdir(_OPEN_FILES):
            copy = held.enter_context(TemporaryFile(dir=folder))  # noqa: SIM115
            path = f"{_OPEN_FILES}/{copy.fileno()}"
        else:
            path = os.path.join(held.enter_context(TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)), "video")
    except OSError as error:
        raise UnavailableError(name, f"cannot be fetched into {str(folder)!r}: {os_reason(error)}") from None
    try:
        fetch_video(address, path)
    except VideoError as error:
        held.close()
        raise UnavailableError(name, error.reason) from None
    return held, path


def version_of(address: str, ask: Callable[[str], tuple[int, str]] = stamp_of) -> tuple[int | str, ...]:
    """Return what changes when a remote video does; that of an archive stands for all videos in it.

    Args:
        address: of the video.
        ask: tells the version of a file.

    Raises:
        VideoError: if it cannot be asked.
    """
    member = _member(address)
    return ask(address) if member is None else (*ask(member.archive), member.start, member.size)


def _member(address: str) -> Member | None:
    """Return where the bytes of a video are; None of one that is a file of its own."""
    match = _PLACE.fullmatch(address)
    return None if match is None else Member(match[1], match[2], int(match[3]), int(match[4]) - int(match[3]))
