"""Names that are no files: which are cameras, streams or addresses, and how one is shown without its password."""

from __future__ import annotations

import os
import re

_URL = re.compile(r"(rtsps?|rtmps?|udp|tcp|srt|https?)://.", re.IGNORECASE)

CAMERA = re.compile(r"(?:camera:|/dev/video)(\d+)")


def is_live(name: str) -> bool:
    """Return whether an input is a camera or an address rather than a file."""
    return bool(_URL.match(name) or CAMERA.fullmatch(name))


def mask_credentials(name: str) -> str:
    """Return the name of a live input or address without user, password, and query values that look secret."""
    scheme, mark, rest = name.partition("://")
    if not mark:
        return name
    # A password may hold slashes. In the address of a file, an @ after a slash belongs to its path: r@main/clip.mp4.
    user = r"^.*@" if is_live(name) else r"^([^/@:]*@|[^/:]*:.*@)"
    rest = re.sub(user, "***@", rest, flags=re.DOTALL)
    address, mark_of_query, query = rest.partition("?")
    if re.search(r"pass|pwd|user|login|token|secret|key|auth|sig|streamid", query, re.IGNORECASE):
        query = "***"
    return f"{scheme}{mark}{address}{mark_of_query}{query}"


def is_address(path: str) -> bool:
    """Return whether an input is an address rather than a file, which may have `://` in its name too."""
    return "://" in path and not os.path.lexists(path)
