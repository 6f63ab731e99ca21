"""Text on a screen: escaped, in columns, cut to the width, with colours only on a terminal.

Paths, labels and messages come from outside: they are shown escaped and never interpreted.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TextIO

from dualformer_cli.system.status import clear_status
from dualformer_cli.system.words import printable

_PARTIAL_BLOCKS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
NARROWEST_BAR = 6
NARROWEST_LABEL = 10


def log(message: str) -> None:
    """Print one escaped line on stderr; above the bar, when a `Progress` shows one. A terminal gets whole words."""
    clear_status()
    write_line(message, sys.stderr)
    sys.stderr.flush()


def wrote(*outputs: object) -> None:
    """Say on stderr what was written: a line for each output, which is a path or says what is in which folder."""
    for output in outputs:
        log(f"wrote {output}")


def write_line(text: str, stream: TextIO, *, indent: int = 2) -> None:
    """Write one escaped line; a terminal gets whole words, as `fitting` says."""
    shown = printable(text, getattr(stream, "encoding", None) or "utf-8")
    stream.write(fitting(shown, stream, indent=indent) + "\n")


def fitting(text: str, stream: TextIO, *, indent: int = 2) -> str:
    """Return a line broken between words where a terminal would break it inside one; elsewhere as it is.

    Args:
        text: the line, escaped.
        stream: where it goes.
        indent: spaces in front of what follows the first break; where a word has no room behind them, two.
    """
    if not stream.isatty() or text.startswith("dualformer "):  # a command stays on one line, to be copied
        return text
    size = shutil.get_terminal_size().columns
    indent = indent if all(indent + len(word) <= size for word in text.split()) else 2
    lines = textwrap.wrap(text, size, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool]) -> None:
    """Print rows on stdout below a bold head, in columns two apart, each aligned `right` or left; none is cut."""
    screen = Screen(None, None)
    shown = [[screen.escaped(text) for text in row] for row in rows]
    screen.table(shown, right=right, styles=[""] * len(right), head=head)
    screen.flush()


def print_facts(screen: Screen, facts: Sequence[tuple[str, str]]) -> None:
    """Print what each name has for a value, one below the other; a terminal gets whole words and whole addresses."""
    size = max(cells(name) for name, _ in facts) + 2
    for name, value in facts:
        fits = all(cells(word) <= screen.width - size for word in value.split())
        first, *rest = screen.wrapped(value, size) if fits else [value]
        screen.line((pad(name, size), "dim"), (first, ""))
        for line in rest:
            screen.line((" " * size + line, ""))


class Screen:
    """A stream with its width, its encoding and whether it shows colours; prints escaped text only."""

    def __init__(self, stream: TextIO | None, width: int | None) -> None:
        from rich.console import Console

        clear_status()

        class LoudConsole(Console):
            def on_broken_pipe(self) -> None:
                raise  # rich would leave with exit code 1; how the command ends is not for a screen to say

        self._console = LoudConsole(file=stream, width=width, markup=False, emoji=False, highlight=False)
        self.width = self._console.width
        self.must_fit = width is not None or self._console.is_terminal
        self._encoding = self._console.encoding
        self._unicode = self.escaped("█▏…") == "█▏…"

    def escaped(self, text: str) -> str:
        return printable(text, self._encoding)

    def line(self, *parts: tuple[str, str]) -> None:
        """Print (text, style) parts on one line, never wrapped here."""
        from rich.text import Text

        text = Text.assemble(*((self.escaped(part), style) for part, style in parts))
        text.rstrip()
        self._console.print(text, soft_wrap=True)

    def paragraph(self, text: str, *, style: str, indent: int = 2) -> None:
        """Print `text` indented, wrapped between words to the width with two columns more of indent."""
        for number, line in enumerate(self.wrapped(text, indent + 2)):
            self.line((" " * (indent + 2 if number else indent) + line, style))

    def wrapped(self, text: str, taken: int) -> list[str]:
        """Return `text` escaped, in lines of whole words where `taken` columns are not free; one if none must fit."""
        from rich.text import Text

        shown = Text(self.escaped(text))
        lines = shown.wrap(self._console, max(1, self.width - taken)) if self.must_fit else [shown]
        return [line.plain.rstrip() for line in lines] or [""]

    def table(
        self, rows: Sequence[Sequence[str]], *, right: Sequence[bool], styles: Sequence[str], head: Sequence[str] = ()
    ) -> None:
        """Print rows, after a bold `head`, in columns two apart, each aligned `right` or left.

        Columns that do not fit stand below the others, indented by two, in every row.
        """
        lines = [head, *rows] if head else rows
        sizes = [max(cells(line[column]) for line in lines) for column in range(len(right))]
        parts = self._columns_that_fit(sizes)
        for line in lines:
            for part in parts:
                padded = [pad(line[column], sizes[column], right=right[column]) + "  " for column in part]
                shown = zip(padded, ("bold" if line is head else styles[column] for column in part), strict=True)
                self.line(("  " if part[0] else "", ""), *shown)

    def _columns_that_fit(self, sizes: Sequence[int]) -> list[list[int]]:
        """Return the columns of a table, as many together as a line has room for."""
        parts, room = [[0]], self.width - sizes[0]
        for column, size in enumerate(sizes[1:], 1):
            room -= 2 + size
            if room < 0 and self.must_fit:
                parts.append([])
                room = self.width - 2 - size
            parts[-1].append(column)
        return parts

    def bar(self, score: float, size: int) -> str:
        """Return a bar of `score` (0 to 1) of `size` columns, to an eighth of a column where blocks can be shown."""
        score = min(1.0, max(0.0, score))
        if not self._unicode:
            return "#" * round(score * size)
        full, eighths = divmod(round(score * size * 8), 8)
        return "█" * full + _PARTIAL_BLOCKS[eighths]

    def cut(self, text: str, size: int, *, keep_end: bool = False) -> str:
        """Return escaped `text` cut to `size` columns with an ellipsis."""
        from rich.cells import set_cell_size

        text = self.escaped(text)
        if not self.must_fit or cells(text) <= size:
            return text
        ellipsis = ("…" if self._unicode else "...")[:size]
        if keep_end:
            return ellipsis + set_cell_size(text[::-1], size - len(ellipsis))[::-1]
        return set_cell_size(text, size - len(ellipsis)) + ellipsis

    def label_and_bar_sizes(self, labels: Iterable[str], *, taken: int, widest_bar: int) -> tuple[int, int]:
        """Share the columns that are not `taken` between labels and bars; a bar without room is 0 wide."""
        longest = max(cells(self.escaped(label)) for label in labels)
        room = self.width - taken
        bar = max(NARROWEST_BAR, min(widest_bar, room - longest))
        if not self.must_fit:
            return longest, bar
        if room < NARROWEST_LABEL + NARROWEST_BAR:
            return max(1, min(longest, room)), 0
        return min(longest, room - bar), bar

    def flush(self) -> None:
        self._console.file.flush()


def cells(text: str) -> int:
    """Return how many terminal columns `text` takes."""
    from rich.cells import cell_len

    return cell_len(text)


def pad(text: str, size: int, *, right: bool = False) -> str:
    """Return `text` filled up with spaces to `size` columns, aligned left or right."""
    space = " " * (size - cells(text))
    return space + text if right else text + space


def clock(seconds: float, *, with_hours: bool = False) -> str:
    """Return a time as MM:SS.s, or H:MM:SS.s from one hour on (always, `with_hours`)."""
    tenths = max(0, round(seconds * 10))
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{tail}" if hours or with_hours else tail
