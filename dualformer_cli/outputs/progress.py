"""How far a command is, on stderr: bars on a terminal, otherwise a plain line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from dualformer_cli.outputs.screen import log
from dualformer_cli.system.status import clear_status
from dualformer_cli.system.words import duration_in_words, printable, size_in_words

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress as RichProgress

LINE_SECONDS = 5.0
"""Time between two plain lines."""

NARROW = 80
"""Columns below which the words stand without a bar."""


class Progress:
    """How far a command is, on stderr: a bar on a terminal, otherwise a plain line every few seconds.

    The bar vanishes at the end; the plain lines end with a total, unless the work was over before the first of them.

    Args:
        title: what is being done, in a word or two.
        total: steps in all; None if unknown.
        silent: show nothing, for `--quiet` and for ranks other than 0.
        stream: where to show it, stderr by default.
        interval_seconds: time between plain lines.
        says_time_left: whether to show how long the rest takes; False where the notes say it.
    """

    def __init__(
        self,
        title: str,
        *,
        total: int | None = None,
        silent: bool = False,
        stream: TextIO | None = None,
        interval_seconds: float = LINE_SECONDS,
        says_time_left: bool = True,
    ) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self._note = ""
        self._silent = silent
        self._stream = stream
        self._interval_seconds = interval_seconds
        self._says_time_left = says_time_left
        self._bar: RichProgress | None = None
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        self._start = self._last_line = time.monotonic()
        if not self._silent:
            clear_status()
            self._bar = _terminal_bar(self._stream, says_time_left=self._says_time_left)
        if self._bar is not None:
            self._bar.add_task(self._shown(self.title), total=self.total, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last_line > self._start and kind is None:
            self._write_line(f"{self._count()} done in {duration_in_words(time.monotonic() - self._start)}")

    def expect(self, total: int) -> None:
        """Say how many steps there are in all, as far as it is known by now."""
        self.total = total
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], total=total)

    def advance(self, steps: int = 1, *, note: str | None = None) -> None:
        """Count `steps` more as done; `note` says what is in hand, until the next note."""
        self.done += steps
        self._note = self._note if note is None else self._shown(note)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=steps, note=self._note)
        elif not self._silent and time.monotonic() - self._last_line >= self._interval_seconds:
            self._last_line = time.monotonic()
            self._write_line(", ".join(filter(None, (self._count(), self._time_left(), self._note))))

    @property
    def is_drawn(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away while the body prints on stdout, then draw it again."""
        if self._bar is None:
            yield
            return
        self._bar.stop()
        try:
            yield
            sys.stdout.flush()
        finally:
            self._bar.start()

    def _count(self) -> str:
        return f"{self.done}" if self.total is None else f"{self.done}/{self.total}"

    def _time_left(self) -> str:
        if not self._says_time_left or not self.total or not 0 < self.done < self.total:
            return ""
        seconds = (time.monotonic() - self._start) / self.done * (self.total - self.done)
        return f"{duration_in_words(seconds)} left"

    def _shown(self, text: str) -> str:
        return printable(text, getattr(self._stream or sys.stderr, "encoding", None) or "utf-8")

    def _write_line(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(f"{self._shown(self.title)}: {text}\n")
        stream.flush()


@contextmanager
def fetch_progress() -> Iterator[Callable[[str, int, int | None], None]]:
    """Show how far each file is: a bar for each on a terminal, else a plain line every few seconds; on stderr."""
    from rich import progress as rich_progress
    from rich.console import Console

    console = Console(stderr=True)
    if not (console.is_interactive and sys.stderr.isatty()):
        yield PlainLines()
        return
    columns = (
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(compact=True),
    )
    bars = rich_progress.Progress(*columns, console=console, transient=True, redirect_stdout=False)
    lock = threading.Lock()

    def show(name: str, done: int, length: int | None) -> None:
        with lock:  # two files can begin at once
            clear_status()
            bars.start()  # not before: until then nothing is drawn
            shown = printable(name, console.encoding)
            task = next((task for task in bars.tasks if task.description == shown), None)
            task_id = bars.add_task(shown, total=length) if task is None else task.id
        bars.update(task_id, completed=done, total=length)
        if length is not None and done >= length:
            bars.remove_task(task_id)  # a list has hundreds of archives

    try:
        yield show
    finally:
        bars.stop()


class PlainLines:
    """Prints how far a file is, every few seconds."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, name: str, done: int, length: int | None) -> None:
        now = time.monotonic()
        if now - self._last.setdefault(name, now) < LINE_SECONDS:
            return
        self._last[name] = now
        of = "" if length is None else f" of {size_in_words(length)}"
        log(f"{name}: {size_in_words(done)}{of}")


def _terminal_bar(stream: TextIO | None, *, says_time_left: bool) -> RichProgress | None:
    """Return a bar that erases itself, or None where a bar cannot be drawn."""
    from rich.console import Console

    console = Console(file=stream, stderr=stream is None)
    if not (console.is_interactive and console.file.isatty()):
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Line(TextColumn):
        """One line, cut at its end; as a column that may wrap it gives way before the counts, the widest first."""

        def render(self, task: Task) -> Text:
            text = super().render(task)
            text.no_wrap, text.overflow = True, "ellipsis"
            return text

    def text(field: str, column: Column) -> TextColumn:
        return Line(field, markup=False, table_column=column)

    time_left = [TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True))] if says_time_left else []
    bar = [BarColumn(bar_width=None, table_column=Column(ratio=1))] if console.width >= NARROW else []
    return Progress(
        text("{task.description}", Column()),
        *bar,
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *time_left,
        text("{task.fields[note]}", Column(ratio=2 if says_time_left else None)),
        console=console,
        transient=True,
        redirect_stdout=False,  # it would send results to stderr
        expand=True,
    )
