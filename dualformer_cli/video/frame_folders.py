"""Which folder is a video in frames, and which of its images are the frames. Decided here, for all who ask.

A folder of frames holds one series of numbered images, names that differ in their number alone; where nothing else says
that it is one, of two at least. Beside it may lie anything else: files that are no images, images without a number, a
series of one. Optical flow is never a video: series called flow or tvl1, or pairs of x and y, u and v; nor is anything
in a folder that is called so.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

from dualformer_cli.video.suffixes import IMAGE_FORMATS, is_video_name

_NUMBERED = re.compile(r"(?P<series>.*?)(?P<number>\d+)$", re.DOTALL)
_FLOW_SERIES = re.compile(r"(tvl1|optical)?[-_ ]?flow([-_ ]?[xyiuv])?[-_. ]?|tvl1.*", re.IGNORECASE | re.DOTALL)
_FLOW_FOLDER = re.compile(r"((optical|tvl1|raw|rawframes?|frames?)[-_ ]?)?flows?([-_ ]?[xyiuv])?|tvl1", re.IGNORECASE)
_PAIRS = ({"x", "y"}, {"u", "v"})
"""The two directions of flow, which are flow only together."""
_USUAL = ("img", "image", "frame", "im", "rgb", "")
"""What frames are usually called, where several series lie in one folder."""
_TEMPLATE = re.compile(r"(?P<before>[^{}%]*)(?:\{:?0?(?P<width>\d*)d?\}|%0?(?P<c_width>\d*)d)(?P<after>[^{}%]*)")


class Frames(NamedTuple):
    """The frames of a folder."""

    names: list[tuple[int, str]]
    """Number and file name of each, by number."""
    others: list[str]
    """The first image of each other series that could be frames too."""


def find_frames(names: Iterable[str], template: str | None = None) -> Frames | None:
    """Return the frames among the files of a folder; None if they are no video in frames.

    Args:
        names: of the files.
        template: how frames are called, such as img_{:05}.jpg or img_%05d.jpg; None chooses the series.
    """
    series = _series_of(names)
    if template is not None:
        wanted = _parse_template(template)
        assert wanted is not None, "the configuration checks it"
        chosen = [(number, name) for frames in series.values() for number, name in frames if wanted.fullmatch(name)]
        return Frames(sorted(chosen), []) if chosen else None
    flow = _flow_among(series)
    candidates = {name: frames for name, frames in series.items() if name not in flow}
    several = {name: frames for name, frames in candidates.items() if len(frames) > 1} or candidates
    if not several:
        return None
    usual = [name for name in sorted(several) if _plain(name) in _USUAL]
    chosen_name = usual[0] if usual else min(several)
    others = sorted(set(several) - {chosen_name}) if len(usual) != 1 else []
    return Frames(sorted(several[chosen_name]), [min(several[name])[1] for name in others])


def kind_of_folder(path: str, names: Collection[str]) -> Literal["frames", "flow", "other"]:
    """Return what a folder that a search met is: a video in frames, optical flow, or anything else.

    A video in frames has several numbered images of one series, and no video beside them.

    Args:
        path: of the folder, relative to where the search began; a part that is called optical flow makes it flow.
        names: of the files in it; hidden ones do not count.
    """
    shown = [name for name in names if not name.startswith(".")]
    frames = None if any(map(is_video_name, shown)) else find_frames(shown)
    if frames is None or len(frames.names) < 2:
        return "other"
    return "flow" if any(_FLOW_FOLDER.fullmatch(part) for part in path.split(os.sep)) else "frames"


def _series_of(names: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    series: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        stem, suffix = os.path.splitext(name)
        match = _NUMBERED.match(stem)
        if match and suffix.lower() in IMAGE_FORMATS and not stem.startswith("."):
            series.setdefault(match["series"], []).append((int(match["number"]), name))
    return series


def _flow_among(series: Iterable[str]) -> set[str]:
    """Return the series that are optical flow."""
    names = set(series)
    flow = {name for name in names if _FLOW_SERIES.fullmatch(name)}
    for pair in _PAIRS:
        both = {name for name in names if _plain(name) in pair}
        if {_plain(name) for name in both} == pair:
            flow |= both
    return flow


def _plain(name: str) -> str:
    return name.lower().rstrip("-_. ")


def _parse_template(template: str) -> re.Pattern[str] | None:
    match = _TEMPLATE.fullmatch(template)
    if match is None or os.path.splitext(template)[1].lower() not in IMAGE_FORMATS:
        return None
    width = int(match["width"] or match["c_width"] or 1)
    return re.compile(re.escape(match["before"]) + rf"\d{{{width},}}" + re.escape(match["after"]))
