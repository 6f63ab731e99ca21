"""What a command waits for before its first line: on a terminal alone, and gone once there is a line to print."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TextIO

from dualformer_cli.system.words import printable

_ERASE = "\r\x1b[2K"
_shown_on: list[TextIO] = []


def show_status(text: str) -> None:
    """Say what is waited for; a file, a pipe and a terminal that cannot erase a line get nothing."""
    stream = sys.stderr
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        width = shutil.get_terminal_size().columns - 1
        stream.write(_ERASE + printable(text, stream.encoding or "utf-8")[:width])
        stream.flush()
        _shown_on[:] = [stream]


def clear_status() -> None:
    """Take it away; whoever prints calls this first."""
    while _shown_on:
        stream = _shown_on.pop()
        stream.write(_ERASE)
        stream.flush()
