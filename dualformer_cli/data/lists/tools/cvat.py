"""CVAT: XML for video and for images of a video. The frames that have a tag, or a track, are a part with its label."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from dualformer_cli.data.lists.tools.base import Annotations, Entry, Folder
from dualformer_cli.system.words import counted
from dualformer_cli.video.parts import Part
from dualformer_cli.video.suffixes import is_video_name, stem_of

_STEP = re.compile(r"\s*step\s*=\s*([0-9]+)\s*")


@dataclass(frozen=True, slots=True)
class _Task:
    path: str
    first: int
    """Frame of the video that is frame 0 of the task."""
    step: int
    split: str

    def part(self, first: int, last: int) -> Part:
        """Return the frames of the video between two of the task."""
        return Part(self.first + first * self.step, (last - first + 1) * self.step)


def read_cvat(text: str, source: str, files: Folder) -> Annotations:
    """Return the parts of the videos that are tagged or tracked.

    Args:
        text: the XML.
        source: its file, after which a video may be called.
        files: finds the videos.

    Raises:
        ValueError: if it is other XML.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares entities, and no export of CVAT does")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not XML: {error}") from None
    if root.tag != "annotations":
        raise ValueError(f"its XML is <{root.tag}>, and that of CVAT <annotations>")
    tasks = {_text(task, "id"): _task(task, root, source, files) for task in _tasks(root)}
    alone = next(iter(tasks.values())) if len(tasks) == 1 else None
    spans: dict[tuple[_Task, str], set[int]] = defaultdict(set)
    entries, num_tracks = [], 0
    for image in root.iter("image"):
        task = alone or tasks[image.get("task_id", "")]
        for tag in image.iter("tag"):
            spans[task, tag.get("label", "")].add(int(image.get("id", "0")))
    for (task, label), frames in spans.items():
        entries += [_entry(task, label, first, last) for first, last in _runs(frames)]
    for track in root.iter("track"):
        task = alone or tasks[track.get("task_id", "")]
        num_tracks += 1
        entries += [_entry(task, track.get("label", ""), first, last) for first, last in _shown(track)]
    entries.sort(key=lambda entry: (entry.path, entry.part.start))
    notes = (
        [f"{counted(num_tracks, 'track')} taken as the parts of videos in which they are shown"] if num_tracks else []
    )
    return Annotations(entries, notes=notes)


def _tasks(root: ElementTree.Element) -> list[ElementTree.Element]:
    meta = root.find("meta")
    found = [] if meta is None else [*meta.iter("task"), *meta.iter("job")]
    if not found:
        raise ValueError("it does not say of which task it is")
    return found


def _task(task: ElementTree.Element, root: ElementTree.Element, source: str, files: Folder) -> _Task:
    """Return what a task says of its video: its file, or that of its name or of the XML's."""
    stated = [_text(task, "source"), _text(root, "meta/source"), _text(task, "name")]
    named = [name for name in stated if is_video_name(name)]
    path = files.first(*named, *filter(None, stated), stem_of(source))
    step = _STEP.fullmatch(_text(task, "frame_filter"))
    return _Task(path, int(_text(task, "start_frame") or 0), int(step[1]) if step else 1, _text(task, "subset"))


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _entry(task: _Task, label: str, first: int, last: int) -> Entry:
    part = task.part(first, last)
    return Entry(f"frames {first} to {last}", task.path, (label,), part)


def _runs(frames: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each run of neighbouring frames."""
    first = last = None
    for frame in sorted(frames):
        if last is None or frame > last + 1:
            if first is not None and last is not None:
                yield first, last
            first = frame
        last = frame
    if first is not None and last is not None:
        yield first, last


def _shown(track: ElementTree.Element) -> Iterator[tuple[int, int]]:
    """Yield first and last frame of each time that a track is shown; between two shapes it is interpolated."""
    first = last = None
    for shape in sorted(track, key=lambda shape: int(shape.get("frame", "0"))):
        frame = int(shape.get("frame", "0"))
        if shape.get("outside") == "1":
            if first is not None:
                yield first, frame - 1
            first = None
        elif first is None:
            first = frame
        last = frame
    if first is not None and last is not None:
        yield first, last
