"""Results as people and scripts read them: tables, JSON, CSV, subtitles and progress.

Paths, labels and messages come from outside. On a screen they are shown escaped and never interpreted; in JSON and
CSV they keep their exact value.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import counted, is_unseen, printable

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress as RichProgress

CSV_COLUMNS = ("path", "status", "error", "start_seconds", "end_seconds", "rank", "label", "index", "score")

_PARTIAL_BLOCKS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")
_NARROWEST_BAR = 6
_NARROWEST_LABEL = 10


def log(message: str) -> None:
    """Print one escaped line on stderr; above the bar, when a `Progress` shows one."""
    stream = sys.stderr
    stream.write(printable(message, stream.encoding or "utf-8") + "\n")
    stream.flush()


def print_predictions(result: Mapping[str, Any], *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print one video's scores for a reader: facts, top-k with bars, timeline, warnings, a blank line.

    Args:
        result: one entry of the `results` of `predict --json`; scores 0 to 1.
        stream: where to print, stdout by default; colours only if it is a terminal.
        width: columns to fit into; by default the terminal's. Long labels are cut to fit; a path never is. Without
            a width and a terminal nothing is cut.
    """
    screen = _Screen(stream, width)
    screen.line((str(result["path"]), "bold"))
    if result.get("predictions"):
        screen.paragraph(_video_facts(result), style="dim")
        _print_top(screen, result["predictions"])
        _print_timeline(screen, result.get("segments") or ())
    if result["status"] == "error":
        screen.paragraph(f"error: {result['error']}", style="red")
    for warning in result.get("warnings") or ():
        screen.paragraph(f"warning: {warning}", style="yellow")
    screen.line()
    screen.flush()


def print_clip(clip: Mapping[str, Any], *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print the best label of one clip of a live input as a line of a timeline, at once.

    Args:
        clip: {"start_seconds", "end_seconds", "predictions"}.
        stream: where to print, stdout by default.
        width: columns; the terminal's own by default.
    """
    best = clip["predictions"][0]
    screen = _Screen(stream, width)
    _print_timeline(screen, [{**best, "start_seconds": clip["start_seconds"], "end_seconds": clip["end_seconds"]}])
    screen.flush()


def print_flops(document: Mapping[str, Any], *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print multiply-adds and parameters, and, when the document holds them, the modules' shares and the latency."""
    screen = _Screen(stream, width)
    views = counted(document["views"], "view")
    facts = [
        ("model", f"{document['model']}, {counted(document['num_classes'], 'class', 'classes')}"),
        ("input", " x ".join(str(side) for side in document["input"])),
        ("multiply-adds", f"{_giga(document['multiply_adds_per_view'])} per view"),
        ("", f"{_giga(document['multiply_adds_per_video'])} per video ({views})"),
        ("parameters", _short_count(document["parameters"])),
        ("", f"{_short_count(document['parameters_backbone'])} without the classifier"),
    ]
    _print_facts(screen, facts)
    if document.get("by_module"):
        screen.line()
        _print_modules(screen, document["by_module"], total=document["multiply_adds_per_view"] or 1)
    if document.get("latency"):
        screen.line()
        screen.line(("latency", "bold"))
        _print_facts(screen, [(f"  {name}", value) for name, value in _flat(document["latency"])])
    screen.flush()


def print_gradcam(document: Mapping[str, Any], *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print what `gradcam` found: the class with its score, the layer, the deletion score and the files."""
    screen = _Screen(stream, width)
    chosen, grid = document["class"], " x ".join(str(side) for side in document["grid"])
    facts = [
        ("class", f"{chosen['label']} ({chosen['index']}), score {chosen['score']:.3f}"),
        (
            "layer",
            f"{document['layer']} of {document['preset']}, tokens {grid}, gradient of the {document['gradient_of']}",
        ),
        ("frames", f"{document['num_frames']} from {counted(document['num_views'], 'view')}"),
    ]
    if (deletion := document.get("deletion")) is not None:
        facts.append(("deletion", f"{deletion['score']:+.3f}: {_verdict(deletion['score'])}"))
    facts += [(name, document[key]) for name, key in (("written", "output"), ("maps", "npz")) if document.get(key)]
    screen.line((str(document["path"]), "bold"))
    _print_facts(screen, facts)
    for warning in document["warnings"]:
        screen.paragraph(f"warning: {warning}", style="yellow")
    screen.flush()


def _verdict(deletion_score: float) -> str:
    if abs(deletion_score) < 0.0005:
        return "no difference between hot places and random ones"
    return f"hot places matter {'more' if deletion_score > 0 else 'less'} to the score than random ones"


def print_layers(document: Mapping[str, Any], *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print the layers of a model: name, attention, token grid, channels."""
    screen = _Screen(stream, width)
    rows = [
        (row["layer"], row["attention"], " x ".join(map(str, row["grid"])), str(row["channels"]))
        for row in document["layers"]
    ]
    head = ("layer", "attention", "tokens (t x h x w)", "channels")
    screen.line((str(document["preset"]), "bold"))
    screen.table(rows, right=(False, False, False, True), styles=("", "", "", ""), head=head)
    screen.flush()


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[bool]) -> None:
    """Print rows on stdout below a bold head, in columns two apart, each aligned `right` or left; none is cut."""
    screen = _Screen(None, None)
    shown = [[screen.escaped(text) for text in row] for row in rows]
    screen.table(shown, right=right, styles=[""] * len(right), head=head)
    screen.flush()


def print_json(document: object, *, stream: TextIO | None = None) -> None:
    r"""Print exactly one JSON document in UTF-8, whatever the locale, and a newline.

    A number that is not finite becomes null, which JSON has and NaN is not. Undecodable bytes of file names and
    characters a terminal would obey stay inside their strings as ``\uXXXX``.
    """
    text = json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, indent=2)
    text = re.sub(r"[^\n\x20-\x7e]", lambda match: _json_escape(match[0]), text) + "\n"
    stream = sys.stdout if stream is None else stream
    stream.flush()
    binary = getattr(stream, "buffer", None)
    if binary is None:
        stream.write(text)
    else:
        binary.write(text.encode("utf-8"))
    stream.flush()


def write_csv(results: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write one row per prediction, and one per segment of a timeline, as RFC 4180 with a header.

    Rows over the whole video leave both times empty; a video that failed has one row with its error. The file is
    UTF-8, except for names that are not: their bytes are kept. Values are exact, so a label or path that starts with
    `=`, `+`, `-` or `@` is stored as it is: import such a column as text in a spreadsheet, which would compute it.

    Args:
        results: entries of the `results` of `predict --json`.
        path: the file to write; it appears only when complete.
    """
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.DictWriter(file, CSV_COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        for result in results:
            for row in _csv_rows(result):
                writer.writerow({name: _storable(value) for name, value in row.items()})


def write_srt(result: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write subtitles: one cue per segment in time order, or one cue with the best label over the whole video.

    Args:
        result: one entry of the `results` of `predict --json`.
        path: the file to write; it appears only when complete.

    Raises:
        DualFormerError: if the video failed, or has neither segments nor a known duration.
    """
    cues = _cues(result)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(cues), encoding="utf-8", newline="\n")


def write_features(rows: Iterable[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write pooled features as a NumPy archive with the arrays path, start_seconds, end_seconds and features.

    Args:
        rows: {"path", "start_seconds", "end_seconds", "features"} per video or segment; the times are None for a whole
            video, and stored as NaN.
        path: the .npz to write; it appears only when complete.
    """
    import numpy as np

    listed = list(rows)
    columns: dict[str, Any] = {
        "path": np.array([str(row["path"]) for row in listed], dtype=str),
        "start_seconds": np.array([row["start_seconds"] for row in listed], dtype=np.float64),
        "end_seconds": np.array([row["end_seconds"] for row in listed], dtype=np.float64),
        "features": np.stack([row["features"] for row in listed]) if listed else np.empty((0, 0), np.float32),
    }
    write_arrays(path, **columns)


def write_arrays(path: str | os.PathLike[str], /, **arrays: Any) -> None:
    """Write a compressed NumPy archive; it appears only when complete."""
    import numpy as np

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


class Progress:
    """How far a command is, on stderr: a bar on a terminal, otherwise a plain line every few seconds.

    The bar vanishes at the end; the plain lines end with a total, unless the work was over before the first of them.

    Args:
        title: what is being done, in a word or two.
        total: steps in all; None if unknown.
        silent: show nothing, for `--quiet` and for ranks other than 0.
        stream: where to show it, stderr by default.
        interval_seconds: time between plain lines.
    """

    def __init__(
        self,
        title: str,
        *,
        total: int | None = None,
        silent: bool = False,
        stream: TextIO | None = None,
        interval_seconds: float = 5.0,
    ) -> None:
        self.title = title
        self.total = total
        self.done = 0
        self._note = ""
        self._silent = silent
        self._stream = stream
        self._interval_seconds = interval_seconds
        self._bar: RichProgress | None = None
        self._start = self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        self._start = self._last_line = time.monotonic()
        if not self._silent:
            self._bar = _terminal_bar(self._stream)
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
            self._write_line(f"{self._count()} done in {clock(time.monotonic() - self._start)}")

    def advance(self, steps: int = 1, *, note: str | None = None) -> None:
        """Count `steps` more as done; `note` says what is in hand, until the next note."""
        self.done += steps
        self._note = self._note if note is None else self._shown(note)
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], advance=steps, note=self._note)
        elif not self._silent and time.monotonic() - self._last_line >= self._interval_seconds:
            self._last_line = time.monotonic()
            self._write_line(", ".join(filter(None, (self._count(), self._time_left(), self._note))))

    def print(self, text: str) -> None:
        """Print one escaped line of results on stdout without breaking the bar."""
        with self.paused():
            sys.stdout.write(printable(text, sys.stdout.encoding or "utf-8") + "\n")

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
        if not self.total or not 0 < self.done < self.total:
            return ""
        return f"{clock((time.monotonic() - self._start) / self.done * (self.total - self.done))} left"

    def _shown(self, text: str) -> str:
        return printable(text, getattr(self._stream or sys.stderr, "encoding", None) or "utf-8")

    def _write_line(self, text: str) -> None:
        stream = self._stream or sys.stderr
        stream.write(f"{self._shown(self.title)}: {text}\n")
        stream.flush()


def clock(seconds: float, *, with_hours: bool = False) -> str:
    """Return a time as MM:SS.s, or H:MM:SS.s from one hour on (always, `with_hours`)."""
    tenths = max(0, round(seconds * 10))
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{minutes:02d}:{tenths // 10:02d}.{tenths % 10}"
    return f"{hours}:{tail}" if hours or with_hours else tail


def timecode(milliseconds: int) -> str:
    """Return a subtitle time, HH:MM:SS,mmm."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d},{milliseconds:03d}"


class _Screen:
    """A stream with its width, its encoding and whether it shows colours; prints escaped text only."""

    def __init__(self, stream: TextIO | None, width: int | None) -> None:
        from rich.console import Console

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

    def paragraph(self, text: str, *, style: str) -> None:
        """Print `text` indented by two, wrapped between words to the width with a further indent."""
        from rich.text import Text

        shown = Text(self.escaped(text))
        lines = shown.wrap(self._console, max(1, self.width - 4)) if self.must_fit else [shown]
        for number, line in enumerate(lines):
            self.line((("    " if number else "  ") + line.plain.rstrip(), style))

    def table(
        self, rows: Sequence[Sequence[str]], *, right: Sequence[bool], styles: Sequence[str], head: Sequence[str] = ()
    ) -> None:
        """Print rows, after a bold `head`, in columns two apart, each aligned `right` or left."""
        lines = [head, *rows] if head else rows
        widths = [max(cells(line[column]) for line in lines) for column in range(len(right))]
        for line in lines:
            padded = [pad(text, size, right=end) for text, size, end in zip(line, widths, right, strict=True)]
            padded = [text + "  " for text in padded]
            self.line(*zip(padded, ["bold"] * len(padded) if line is head else styles, strict=True))

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
        bar = max(_NARROWEST_BAR, min(widest_bar, room - longest))
        if not self.must_fit:
            return longest, bar
        if room < _NARROWEST_LABEL + _NARROWEST_BAR:
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


def _print_top(screen: _Screen, predictions: Sequence[Mapping[str, Any]]) -> None:
    if not predictions:
        return
    labels = [str(prediction["label"]) for prediction in predictions]
    rank_size = len(str(len(labels)))
    taken = 2 + rank_size + 2 + 2 + 6 + 2  # indent, rank, gaps, "100.0%"
    label_size, bar_size = screen.label_and_bar_sizes(labels, taken=taken, widest_bar=40)
    rows = [
        (f"  {rank:{rank_size}}", screen.cut(label, label_size), f"{score:6.1%}", screen.bar(score, bar_size))
        for rank, (label, score) in enumerate(zip(labels, (p["score"] for p in predictions), strict=True), start=1)
    ]
    screen.table(rows, right=(True, False, True, False), styles=("dim", "", "", "cyan"))


def _print_timeline(screen: _Screen, segments: Sequence[Mapping[str, Any]]) -> None:
    if not segments:
        return
    labels = [str(segment["label"]) for segment in segments]
    hours = max(segment["end_seconds"] for segment in segments) >= 3600
    spans = [
        f"  {clock(segment['start_seconds'], with_hours=hours)} - {clock(segment['end_seconds'], with_hours=hours)}"
        for segment in segments
    ]
    taken = max(map(len, spans)) + 2 + 2 + 4 + 2
    label_size, bar_size = screen.label_and_bar_sizes(labels, taken=taken, widest_bar=20)
    scores = [segment["score"] for segment in segments]
    screen.line()
    if not bar_size:
        for span, label, score in zip(spans, labels, scores, strict=True):
            screen.line((span, "dim"), (f"  {score:.2f}  ", ""), (screen.bar(score, _NARROWEST_BAR), "cyan"))
            screen.line(("    " + screen.cut(label, screen.width - 4), ""))
        return
    rows = [
        (span, screen.cut(label, label_size), f"{score:.2f}", screen.bar(score, bar_size))
        for span, label, score in zip(spans, labels, scores, strict=True)
    ]
    screen.table(rows, right=(True, False, True, False), styles=("dim", "", "", "cyan"))


def _video_facts(result: Mapping[str, Any]) -> str:
    facts = [] if result["num_frames"] is None else [counted(result["num_frames"], "frame")]  # live ones have none
    if result["fps"] is not None:
        facts.append(f"{result['fps']:.4g} fps")
    if (seconds := result["duration_seconds"]) is not None:
        facts.append(f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds))
    facts.append(counted(result["views"], "view"))
    return ", ".join(facts)


def _print_facts(screen: _Screen, facts: Sequence[tuple[str, str]]) -> None:
    size = max(cells(name) for name, _ in facts)
    for name, value in facts:
        screen.line((pad(name, size + 2), "dim"), (value, ""))


def _print_modules(screen: _Screen, modules: Sequence[Mapping[str, Any]], *, total: float) -> None:
    head = ("module", "mult-adds", "share", "params")
    numbers = [
        (_short_count(row["multiply_adds"]), f"{row['multiply_adds'] / total:.1%}", _short_count(row["parameters"]))
        for row in modules
    ]
    taken = sum(2 + max(map(len, column)) for column in zip(head[1:], *numbers, strict=True))
    name_size = max(len(head[0]), screen.width - taken)
    names = [screen.cut(row["module"], name_size, keep_end=True) for row in modules]
    rows = [(name, *row) for name, row in zip(names, numbers, strict=True)]
    screen.table(rows, right=(False, True, True, True), styles=("", "", "dim", ""), head=head)


def _giga(count: float) -> str:
    """Return multiply-adds as the published table prints them, 60.088 G; small models' with a smaller unit."""
    return f"{count / 1e9:,.3f} G" if count >= 1e8 else _short_count(count)


def _short_count(count: float) -> str:
    """Return a count to four digits with K, M or G, never T: papers compare multiply-adds in G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "K")):
        if count >= size * 0.99995:
            value = count / size
            digits = max(0, 3 - math.floor(math.log10(value * 1.00005)))
            return f"{value:,.{digits}f} {unit}"
    return f"{count:.4g}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        title = prefix + name.replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{title}, ")
        else:
            yield title, f"{value:.4g}" if isinstance(value, float) else str(value)


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value


def _json_escape(char: str) -> str:
    return json.dumps(char)[1:-1] if is_unseen(char) else char


def _csv_rows(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    video = {"path": str(result["path"]), "status": result["status"], "error": result.get("error")}
    predictions = result.get("predictions") or ()
    segments = result.get("segments") or ()
    for rank, prediction in enumerate(predictions, start=1):
        yield {**prediction, **video, "rank": rank}
    for segment in segments:
        yield {**segment, **video, "rank": 1}
    if not predictions and not segments:
        yield video


def _storable(value: object) -> object:
    """Escape the surrogates in a string that `surrogateescape` cannot turn back into bytes."""
    if not isinstance(value, str):
        return value
    return re.sub(r"[\ud800-\udc7f\udd00-\udfff]", lambda match: printable(match[0]), value)


def _segments(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the timeline in time order; without one, the best label over the whole video."""
    path = str(result["path"])
    if result["status"] == "error":
        raise DualFormerError(f"no subtitles for {path!r}: {result['error']}")
    if result.get("segments"):
        return sorted(result["segments"], key=lambda segment: float(segment["start_seconds"]))
    if result["duration_seconds"] is None:
        raise DualFormerError(f"no subtitles for {path!r}: its duration is unknown; set data.frame_rate")
    return [{**result["predictions"][0], "start_seconds": 0.0, "end_seconds": result["duration_seconds"]}]


def _cues(result: Mapping[str, Any]) -> Iterator[str]:
    for number, segment in enumerate(_segments(result), start=1):
        start = max(0, round(segment["start_seconds"] * 1000))
        end = max(start + 1, round(segment["end_seconds"] * 1000))
        label = printable(" ".join(str(segment["label"]).split())).replace("-->", "-- >")
        yield f"{number}\n{timecode(start)} --> {timecode(end)}\n{label} ({segment['score']:.0%})\n"


def _terminal_bar(stream: TextIO | None) -> RichProgress | None:
    """Return a bar that erases itself, or None where a bar cannot be drawn."""
    from rich.console import Console

    console = Console(file=stream, stderr=stream is None)
    if not (console.is_interactive and console.file.isatty()):
        return None
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    def text(field: str, column: Column) -> TextColumn:
        return TextColumn(field, markup=False, table_column=column)

    return Progress(
        text("{task.description}", Column(no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
        text("{task.fields[note]}", Column(ratio=2, no_wrap=True, overflow="ellipsis")),
        console=console,
        transient=True,
        redirect_stdout=False,  # it would send results to stderr
        expand=True,
    )
