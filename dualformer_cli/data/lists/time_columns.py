"""Which columns of a table say where in its video a row begins and ends, whatever people call them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.parts import seconds_of

_STARTS = frozenset(("start", "starts", "begin", "onset"))
_ENDS = frozenset(("end", "ends", "stop", "finish"))
_UNITS = {
    **dict.fromkeys(("seconds", "second", "secs", "sec", "s"), 1.0),
    **dict.fromkeys(("milliseconds", "millisecond", "msec", "ms"), 0.001),
}
_PLAIN = frozenset(("time", "timestamp", "t", "clip", "segment", "video", "action", "in"))
"""Words that change nothing about what a start or an end is."""
_CALENDAR = frozenset(("date", "datetime", "day", "year", "at", "created", "updated", "user"))
"""Words of columns about something else than the video's own time."""
_UNCLEAR = frozenset(
    ["time", "times", "timestamp", "timestamps", "interval", "range", "from", "to", "until", "till", "offset", "out"]
)
"""Words of columns that mean time, and do not say which, as a unit does not either."""
_LENGTHS = re.compile(r"duration.*|length(?:_s.*)?|.*_duration")
_WORD = re.compile(r"(start|end|stop|begin)(?=time|sec|ms|frame)|[a-z]+|[0-9]+")


@dataclass(frozen=True, slots=True)
class TimeColumns:
    """The columns of starts and ends."""

    start: str | None
    end: str | None

    @property
    def note(self) -> str:
        """Return what the user should know: which columns, that do not say so, are read as seconds; maybe nothing."""
        silent = [repr(name) for name in (self.start, self.end) if name and not _words(name) & _UNITS.keys()]
        if not silent:
            return ""
        columns = f"its columns {' and '.join(silent)} are" if len(silent) > 1 else f"its column {silent[0]} is"
        return f"{columns} read as seconds"

    def seconds(self, name: str, text: str) -> float:
        """Return the time that a value of one of the columns means.

        Raises:
            ValueError: if it means none.
        """
        try:
            return seconds_of(text) * next((_UNITS[word] for word in _words(name) if word in _UNITS), 1.0)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None


def find_time_columns(header: Sequence[str], what: str) -> TimeColumns | None:
    """Return the columns of starts and ends, or None if there are none: then `start` is a number of a frame.

    Args:
        header: names of the columns, in lower case.
        what: the table, for messages.

    Raises:
        DualFormerError: if a column means time, and it is not clear which, or of what.
    """
    if "youtube_id" in header:  # Kinetics and its like: times in a longer video than the file
        return None
    kinds = {name: _kind(name) for name in header}
    starts = [name for name, kind in kinds.items() if kind == "start"]
    ends = [name for name, kind in kinds.items() if kind == "end"]
    if "start" in starts and "num_frames" in header and not {"end", "stop"}.intersection(ends):
        starts.remove("start")  # a frame, as manifests have it
    unclear = [name for name, kind in kinds.items() if kind == "unclear"]
    if unclear and not (starts and ends):
        raise DualFormerError(
            f"{what}: the column {unclear[0]!r} means a time or a place in the video, and it is not clear which; "
            "call times start_seconds and end_seconds, and the first frame (from 0) start, with num_frames beside "
            "it; or leave the column out"
        )
    if not starts and not ends:
        return None
    found = TimeColumns(_one(starts, "start", what), _one(ends, "end", what))
    lengths = [name for name in header if _LENGTHS.fullmatch(name)]
    if found.end is None and lengths:
        raise DualFormerError(
            f"{what}: the column {lengths[0]!r} may be the length of the video or of the part from {found.start!r} on; "
            "add a column end_seconds, or leave it out"
        )
    return found


def check_times(start: float | None, end: float | None) -> str:
    """Return what is wrong with the start and end of a part; empty if nothing is."""
    if end is not None and end <= (start or 0.0):
        return f"its part ends at {end:g} seconds and starts at {start or 0:g}"
    return ""


def _kind(name: str) -> str | None:
    words = _words(name)
    if words & _CALENDAR:
        return None
    is_start, is_end = bool(words & _STARTS), bool(words & _ENDS)
    if is_start == is_end:
        says_time = words & (_UNCLEAR | _UNITS.keys()) and words <= _UNCLEAR | _PLAIN | _UNITS.keys()
        return "unclear" if is_start or says_time or name == "in" else None
    if words - _STARTS - _ENDS - _PLAIN - _UNITS.keys():
        return "unclear"
    return "start" if is_start else "end"


def _words(name: str) -> set[str]:
    return {match[0] for match in _WORD.finditer(name)}


def _one(names: Collection[str], which: str, what: str) -> str | None:
    """Return the only column of a kind: where there are several, the only one with a unit in its name."""
    with_unit = [name for name in names if _words(name) & _UNITS.keys()]
    chosen = list(names) if len(names) < 2 else with_unit
    if len(names) > 1 and len(with_unit) != 1:
        columns = " and ".join(map(repr, names))
        raise DualFormerError(
            f"{what}: {columns} may each be the {which} of a part; call the right one {which}_seconds"
        )
    return chosen[0] if chosen else None
