"""Streams that are terminals or pipes, and text that a screen must not obey."""

from __future__ import annotations

import io

from hypothesis import strategies as st

any_text = st.text(st.characters(exclude_categories=()), max_size=60)
plain_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=60)
HOSTILE = "[red]x[/red]\n\x1b[31m:smile:\r\x9b2J\u202eevil\udcff.mp4"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def ascii_stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="strict", newline="")
