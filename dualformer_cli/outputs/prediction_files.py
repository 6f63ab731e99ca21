"""Predictions in files: a table, subtitles, and arrays of features; names and numbers keep their exact value."""

from __future__ import annotations

import csv
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from itertools import islice
from pathlib import Path
from typing import IO, Any

from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.predict import FeatureRow, Segment, VideoResult
from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.predictions import best_shown, shown_parts
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.output_checks import check_place
from dualformer_cli.system.words import os_reason, printable
from dualformer_cli.video.parts import split_part

CSV_COLUMNS = ("path", "status", "error", "start_seconds", "end_seconds", "rank", "label", "index", "score")
LABEL_COLUMNS = ("listed_labels", "is_right")
"""Of the video, in each of its rows, where lists with labels were named as inputs."""
PARQUET_ROWS = 4096
"""That are in memory at a time."""

TakeResult = Callable[[VideoResult], object]
_OUT_OF_BYTES = re.compile(r"[\ud800-\udc7f\udd00-\udfff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class PredictionTable:
    """A table of predictions as RFC 4180 with a header, whose rows are in the file as soon as a result is known.

    One row per prediction, and one per segment of a timeline. Rows over the whole video leave both times empty; a video
    that failed has one row with its error. The file is UTF-8, except for names that are not: their bytes are kept.
    Values are exact, so a label or path that starts with `=`, `+`, `-` or `@` is stored as it is: import such a column
    as text in a spreadsheet, which would compute it.

    Args:
        path: the file, which is made with the first result, or when the table is closed.
        with_labels: whether the table has the columns of labels that a list gives.
    """

    def __init__(self, path: str | os.PathLike[str], *, with_labels: bool = False) -> None:
        self.path = path
        self._columns = CSV_COLUMNS + LABEL_COLUMNS * with_labels
        self._file: IO[str] | None = None
        self._failure: Exception | None = None

    def add(self, result: VideoResult) -> None:
        """Write the rows of one video. A file that cannot be written is named by `close`, so that no result is lost."""
        if self._failure is None:
            try:
                self._write(_table_rows(result))
            except (OSError, DualFormerError) as error:
                self._failure = error

    def close(self) -> None:
        """Finish the file.

        Raises:
            DualFormerError: if not all of it could be written.
        """
        try:
            if self._failure is None:
                self._write(())
            if self._file is not None:
                self._file.close()
        except (OSError, DualFormerError) as error:
            self._failure = self._failure or error
        if isinstance(self._failure, OSError):
            raise DualFormerError(f"cannot write {os.fspath(self.path)!r}: {os_reason(self._failure)}")
        if self._failure is not None:
            raise self._failure

    def _write(self, rows: Iterable[Mapping[str, object]]) -> None:
        is_new = self._file is None
        if self._file is None:
            check_place(Path(self.path))
            self._file = open(self.path, "w", encoding="utf-8", errors="surrogateescape", newline="")  # noqa: SIM115
        if is_new:
            _write_rows(self._file, [dict(zip(self._columns, self._columns, strict=True))], self._columns)
        _write_rows(self._file, rows, self._columns)
        self._file.flush()


@contextmanager
def csv_file(path: str | os.PathLike[str], *, with_labels: bool = False) -> Iterator[TakeResult]:
    """Give what takes the results of a table that appears only when complete, at the end of the `with` block."""
    columns = CSV_COLUMNS + LABEL_COLUMNS * with_labels
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        _write_rows(file, [dict(zip(columns, columns, strict=True))], columns)
        yield lambda result: _write_rows(file, _table_rows(result), columns)


@contextmanager
def json_lines_file(path: str | os.PathLike[str]) -> Iterator[TakeResult]:
    """Give what takes the results of a file with a line of JSON for each; it appears only when complete."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield lambda result: print(json.dumps(to_json(result)), file=file)  # ASCII, so that any path survives


@contextmanager
def parquet_file(path: str | os.PathLike[str], *, with_labels: bool = False) -> Iterator[TakeResult]:
    """Give what takes the rows of the table as Parquet, with pyarrow (extra `parquet`); as `csv_file`."""
    import pyarrow
    from pyarrow import parquet

    columns = CSV_COLUMNS + LABEL_COLUMNS * with_labels
    kinds = {name: pyarrow.string() for name in columns}
    kinds |= dict.fromkeys(("start_seconds", "end_seconds", "score"), pyarrow.float64())
    kinds |= dict.fromkeys(("rank", "index"), pyarrow.int32())
    schema = pyarrow.schema(list(kinds.items()))
    block: list[dict[str, object]] = []
    with atomic_path(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(block, schema))
            block.clear()

        def take(result: VideoResult) -> None:
            block.extend({name: _in_unicode(row.get(name)) for name in columns} for row in _table_rows(result))
            if len(block) >= PARQUET_ROWS:
                flush()

        yield take
        flush()


def write_srt(result: VideoResult, path: str | os.PathLike[str]) -> None:
    """Write subtitles: one cue per segment in time order, or one cue with the best label over the whole video.

    Args:
        result: of the video.
        path: the file to write; it appears only when complete.

    Raises:
        DualFormerError: if the video failed, or has neither segments nor a known duration.
    """
    cues = _cues(result)
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(cues), encoding="utf-8", newline="\n")


def write_vtt(result: VideoResult, path: str | os.PathLike[str]) -> None:
    """Write the cues of `write_srt` as WebVTT, with the same arguments and errors."""
    cues = (cue.partition("\n")[2] for cue in _cues(result))
    with atomic_path(path) as temporary:
        text = "\n".join(["WEBVTT\n", *(_vtt_cue(cue) for cue in cues)])
        temporary.write_text(text, encoding="utf-8", newline="\n")


def _vtt_cue(cue: str) -> str:
    times, _, text = cue.partition("\n")
    return f"{times.replace(',', '.')}\n{escape(text, quote=False)}"


SUBTITLES: Mapping[str, Callable[[VideoResult, Path], None]] = {"srt": write_srt, "vtt": write_vtt}
"""Formats of which each video has a file: a new one is its function, a line here, and an option of `predict`, which the
lists of options in commands/help.py and commands/hints.py name too."""


SEGMENTS = (".csv", ".json")
"""Endings of what `write_segments` writes: a new format is one here, its lines there, and a word in predict's help."""


def write_segments(results: Callable[[], Iterable[VideoResult]], path: Path) -> None:
    """Write the segments of all videos that gave some, or the best label of each; it appears only when complete.

    A CSV has the columns path, label, start_seconds, end_seconds and score: a list of parts of videos, which `train`
    and `prepare` read. JSON is what ActivityNet's evaluation reads; a video is called after its file there, without
    the suffix and the v_ before an identity of YouTube, unless two files would have the same name.

    Args:
        results: called to go through the results, which may be many, once or twice.
        path: the file to write, in the format of its ending.
    """
    sure = (replace(result, unsure_below=None) for result in results() if result.status == "ok")  # the score says it
    found = filter(_has_times, sure)
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        if path.suffix == ".csv":
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("path", "label", "start_seconds", "end_seconds", "score"))
            for result in found:
                for each in _segments(result):
                    row = (split_part(result.path)[0], each.label, each.start_seconds, each.end_seconds, each.score)
                    table.writerow([_storable(value) for value in row])
            return
        counts = Counter(_activitynet_name(name) for name in {split_part(result.path)[0] for result in results()})
        by_name: dict[str, list[object]] = {}
        for result in found:
            video = split_part(result.path)[0]
            name = _activitynet_name(video)
            by_name.setdefault(video if counts[name] > 1 else name, []).extend(
                {"label": each.label, "score": each.score, "segment": [each.start_seconds, each.end_seconds]}
                for each in _segments(result)
            )
        json.dump({"version": "VERSION 1.3", "results": by_name, "external_data": {}}, file)


def _has_times(result: VideoResult) -> bool:
    return bool(result.segments) or (bool(result.predictions) and result.duration_seconds is not None)


def _activitynet_name(path: str) -> str:
    stem = os.path.splitext(os.path.basename(path))[0]
    return stem[2:] if stem.startswith("v_") and len(stem) == 13 else stem


def write_features(rows: Iterable[FeatureRow], path: str | os.PathLike[str]) -> None:
    """Write pooled features as a NumPy archive with the arrays path, start_seconds, end_seconds and features.

    Args:
        rows: of videos or segments; gone through several times, so that not all have to be in memory. The times of a
            whole video are stored as NaN.
        path: the .npz to write; it appears only when complete, and equal rows give equal bytes.
    """
    import numpy as np

    count = longest = width = 0
    for row in rows:
        count, longest, width = count + 1, max(longest, len(row.path)), len(row.features)
    columns: dict[str, tuple[str, tuple[int, ...], Callable[[FeatureRow], object]]] = {
        "path": (f"<U{max(1, longest)}", (count,), lambda row: row.path),
        "start_seconds": ("<f8", (count,), lambda row: row.start_seconds),
        "end_seconds": ("<f8", (count,), lambda row: row.end_seconds),
        "features": ("<f4", (count, width), lambda row: row.features),
    }
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (kind, shape, value_of) in columns.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # without the time of day, which `open` would put there
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                header = {"descr": kind, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                values = map(value_of, rows)
                while block := list(islice(values, 1024)):
                    file.write(np.array(block, dtype=kind).tobytes())


def write_arrays(path: str | os.PathLike[str], /, **arrays: Any) -> None:
    """Write a compressed NumPy archive; it appears only when complete."""
    import numpy as np

    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def timecode(milliseconds: int) -> str:
    """Return a subtitle time, HH:MM:SS,mmm."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d},{milliseconds:03d}"


def _write_rows(file: IO[str], rows: Iterable[Mapping[str, object]], columns: Sequence[str]) -> None:
    csv.writer(file).writerows([_storable(row.get(name)) for name in columns] for row in rows)


def _table_rows(result: VideoResult) -> Iterator[dict[str, object]]:
    video: dict[str, object] = {"path": result.path, "status": result.status, "error": result.error}
    if result.labels is not None:
        is_right = None if result.is_right is None else str(result.is_right).lower()
        video |= {"listed_labels": "; ".join(result.labels), "is_right": is_right}
    for rank, best in enumerate(result.predictions, start=1):
        yield {**video, "rank": rank, "label": best.label, "index": best.index, "score": best.score}
    for each in result.segments or ():
        times = {"start_seconds": each.start_seconds, "end_seconds": each.end_seconds}
        yield {**video, **times, "rank": 1, "label": each.label, "index": each.index, "score": each.score}
    if not result.predictions and not result.segments:
        yield video


def _storable(value: object) -> object:
    """Escape the surrogates in a string that `surrogateescape` cannot turn back into bytes."""
    if not isinstance(value, str) or value.isascii():
        return value
    return _OUT_OF_BYTES.sub(lambda match: printable(match[0]), value)


def _in_unicode(value: object) -> object:
    """Escape every surrogate in a string, as Parquet has no other text than Unicode."""
    if not isinstance(value, str) or value.isascii():
        return value
    return _SURROGATE.sub(lambda match: printable(match[0]), value)


def _segments(result: VideoResult) -> Sequence[Segment]:
    """Return the timeline in time order; without one, the best label over the whole video."""
    if result.status == "error":
        raise DualFormerError(f"no subtitles for {result.path!r}: {result.error}")
    if result.segments:
        return sorted(shown_parts(result), key=lambda segment: segment.start_seconds)
    if result.duration_seconds is None:
        raise DualFormerError(f"no subtitles for {result.path!r}: its duration is unknown; set data.frame_rate")
    part = split_part(result.path)[1]
    start, end = part.start_seconds or 0.0, min(part.end_seconds or result.duration_seconds, result.duration_seconds)
    best = best_shown(result)
    return [Segment(start_seconds=start, end_seconds=end, label=best.label, index=best.index, score=best.score)]


def _cues(result: VideoResult) -> Iterator[str]:
    for number, segment in enumerate(_segments(result), start=1):
        start = max(0, round(segment.start_seconds * 1000))
        end = max(start + 1, round(segment.end_seconds * 1000))
        label = printable(" ".join(segment.label.split())).replace("-->", "-- >")
        yield f"{number}\n{timecode(start)} --> {timecode(end)}\n{label} ({segment.score:.0%})\n"
