"""How names, numbers and errors become words, the same in every message, table and page."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

_UNSEEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def printable(text: str, encoding: str = "utf-8") -> str:
    r"""Return `text` on one line, with what a screen would obey or hide written as an escape (newline as ``\n``).

    Control characters, ANSI sequences, text-direction marks, undecodable bytes of file names and characters that
    `encoding` lacks are escaped; letters of every script, accents and emoji stay.
    """
    if not text.isprintable():
        text = "".join(char.encode("unicode_escape").decode() if is_unseen(char) else char for char in text)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def is_unseen(char: str) -> bool:
    """Return whether a screen would obey or hide a character."""
    return unicodedata.category(char) in _UNSEEN_CATEGORIES


def size_in_words(num_bytes: float) -> str:
    """Return a size in the largest unit of which it has one: "1.5 GB", "12.3 MB" or "0.5 kB"."""
    unit, name = next(((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if num_bytes >= unit), (1e3, "kB"))
    return f"{num_bytes / unit:,.1f} {name}"


_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def duration_in_words(seconds: float) -> str:
    """Return how long something takes, in its two largest units: "12 s", "3 min 20 s", "2 h 5 min"; at least 1 s."""
    rest = max(1, round(seconds))
    parts: list[tuple[int, str]] = []
    for size, unit in _UNITS:
        number, rest = divmod(rest, size)
        if number or parts:
            parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number)


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return "1 video", "3 videos" or "2 classes"; `many` is a plural that is not `one` with s or es."""
    return f"{count:,} {one if count == 1 else many or one + ('es' if one.endswith('s') else 's')}"


def some_of(names: Sequence[str], most: int) -> str:
    """Return the first `most` names and how many more there are: "a, b and 3 more"."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def natural_key(path: str) -> list[list[tuple[int, int, str]]]:
    """Return a sort key by which clip2 comes before clip10, folder by folder; equal numbers go by their spelling."""
    return [
        [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in re.findall(r"\d+|\D+", name)]
        for name in path.split(os.sep)
    ]


def shown_path(path: str) -> str:
    """Return the shortest name of the same file: without `x/..`, and from the working folder where it lies inside.

    An address stays as it is, and so does what would look like an option or, behind a symbolic link, is another file.
    """
    name, mark, part = path.partition("#")
    if "://" in path or not name:
        return path
    try:
        inside = os.path.abspath(name).removeprefix(os.path.join(os.getcwd(), ""))
        shortest = min(name, os.path.normpath(name), inside, key=len)
        if ".." in name.split(os.sep) and os.path.realpath(shortest) != os.path.realpath(name):
            return path
    except (OSError, ValueError):  # no working folder any more; a zero byte
        return path
    return path if shortest.startswith("-") else shortest + mark + part


def os_reason(error: Exception) -> str:
    """Return what the operating system says, or FFmpeg of it, in the middle of a sentence: "permission denied"."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def cannot_read(what: str, path: object, error: OSError) -> str:
    """Return why a file cannot be read, in the words of every command: "list 'a.csv' not found"."""
    if isinstance(error, FileNotFoundError):
        return f"{what} {str(path)!r} not found"
    return f"{what} {str(path)!r} cannot be read: {os_reason(error)}"
