"""CVAT: XML for video and for images of a video. The frames that have a tag, or a track, are a part with its label.

Its frames are those of the video, whatever frame a task starts at and however many it steps over (`abs_frame_id` in its
bindings.py).
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from xml.etree import ElementTree

from dualformer_cli.data.lists.tools.base import Annotations, Entry, Folder, frame, reading, shown
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import counted
from dualformer_cli.video.parts import Part
from dualformer_cli.video.suffixes import is_video_name

_STEP = re.compile(r"\s*step\s*=\s*([0-9]+)\s*")
_NO_SUBSET = "default"
"""What CVAT calls the subset of a task that has none."""


@dataclass(frozen=True, slots=True)
class _Task:
    path: str
    step: int
    """From a frame of the task to the next one."""
    split: str


def read_cvat(text: str, source: str, files: Folder) -> Annotations:
    """Return the parts of the videos that are tagged or tracked.

    Args:
        text: the XML.
        source: its file, after which a video may be called.
        files: finds the videos.

    Raises:
        ValueError: if it is damaged.
        DualFormerError: if it is other XML.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it declares entities, and no export of CVAT does")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not XML: {error}") from None
    if root.tag != "annotations":
        raise DualFormerError(f"list {source!r} is XML of <{root.tag}>, and that of CVAT is of <annotations>")
    tasks = {_text(task, "id"): _task(task, root, source, files) for task in _tasks(root)}
    alone = next(iter(tasks.values())) if len(tasks) == 1 else None
    spans: dict[tuple[_Task, str], set[int]] = defaultdict(set)
    entries, num_tracks = [], 0

    def task_of(element: ElementTree.Element) -> _Task:
        if alone is None and element.get("task_id") not in tasks:
            raise ValueError(f"its task_id is {element.get('task_id')!r}, and the tasks are {', '.join(tasks)}")
        return alone or tasks[element.get("task_id", "")]

    for image in root.iter("image"):
        with reading(f"image {image.get('id')}"):
            for tag in image.iter("tag"):
                spans[task_of(image), _attribute(tag, "label")].add(frame(_attribute(image, "id")))
    for (task, label), frames in spans.items():
        entries += [_entry(task, label, first, stop) for first, stop in _runs(frames, task.step)]
    for track in root.iter("track"):
        num_tracks += 1
        with reading(f"track {track.get('id')}"):
            task, label = task_of(track), _attribute(track, "label")
            entries += [_entry(task, label, first, stop) for first, stop in _shown(track, task.step)]
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
    """Return what a task says of its video: its file, or that of its name or of the XML's.

    Raises:
        DualFormerError: if it is of a job, which has no name, and the video of the XML's name is not there.
    """
    stated = [_text(task, "source"), _text(root, "meta/source"), _text(task, "name")]
    named = [name for name in stated if is_video_name(name)]
    name_of_xml = os.path.splitext(os.path.basename(source))[0]
    path = files.first(*named, *filter(None, stated), name_of_xml)
    if not any(stated) and not files.has(name_of_xml):
        raise DualFormerError(
            f"list {source!r} does not name its video, as CVAT's export of a job; export the task, or give this file "
            "the video's name and folder (clip.xml beside clip.mp4)"
        )
    step = _STEP.fullmatch(_text(task, "frame_filter"))
    split = _text(task, "subset")
    return _Task(path, int(step[1]) if step else 1, "" if split == _NO_SUBSET else split)


def _attribute(element: ElementTree.Element, name: str) -> str:
    """Return an attribute.

    Raises:
        ValueError: if it is not there.
    """
    if name not in element.attrib:
        raise ValueError(f"<{element.tag}> has no {name!r}; it has {shown(dict(element.attrib))}")
    return element.attrib[name]


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _entry(task: _Task, label: str, first: int, stop: int) -> Entry:
    return Entry(f"frames {first} to {stop - 1}", task.path, (label,), Part(first, stop - first), task.split)


def _runs(frames: Iterable[int], step: int) -> Iterator[tuple[int, int]]:
    """Yield first frame, and the one after the last, of each run of neighbouring frames of a task."""
    first = stop = -1
    for at in sorted(frames):
        if at != stop:
            if stop > first:
                yield first, stop
            first = at
        stop = at + step
    if stop > first:
        yield first, stop


def _shown(track: ElementTree.Element, step: int) -> Iterator[tuple[int, int]]:
    """Yield first frame, and the one after the last, of each time that a track is shown.

    Between two shapes it is interpolated. A skeleton is shown while one of its points is.
    """
    first, stop = None, 0
    for at, shape in sorted(((frame(_attribute(shape, "frame")), shape) for shape in track), key=itemgetter(0)):
        if all(each.get("outside") == "1" for each in (shape if shape.tag == "skeleton" else [shape])):
            if first is not None:
                yield first, at
            first = None
        elif first is None:
            first = at
        stop = at + step
    if first is not None:
        yield first, stop
