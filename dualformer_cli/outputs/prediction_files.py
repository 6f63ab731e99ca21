"""Predictions in files: a table, subtitles, and arrays of features; names and numbers keep their exact value."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import printable

CSV_COLUMNS = ("path", "status", "error", "start_seconds", "end_seconds", "rank", "label", "index", "score")


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


def timecode(milliseconds: int) -> str:
    """Return a subtitle time, HH:MM:SS,mmm."""
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d},{milliseconds:03d}"


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
