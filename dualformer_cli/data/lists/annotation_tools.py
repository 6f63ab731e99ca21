"""Files of annotation tools as lists: ActivityNet, Label Studio, FiftyOne, VIA and CVAT."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager

from dualformer_cli.data.lists.matching import ClassLookup
from dualformer_cli.data.lists.samples import Labels, ParsedList, Sample, is_encodable
from dualformer_cli.data.lists.tables import one_label
from dualformer_cli.data.lists.tools.activitynet import is_activitynet, read_activitynet
from dualformer_cli.data.lists.tools.base import Annotations, Entry, Folder
from dualformer_cli.data.lists.tools.cvat import read_cvat
from dualformer_cli.data.lists.tools.fiftyone import is_fiftyone, read_fiftyone
from dualformer_cli.data.lists.tools.label_studio import (
    header_of_table,
    is_label_studio,
    is_label_studio_table,
    read_label_studio,
    read_label_studio_table,
)
from dualformer_cli.data.lists.tools.via import CSV_HEADER, is_via, read_via, read_via_csv
from dualformer_cli.errors import DualFormerError


class DamagedExportError(DualFormerError):
    """A file of an annotation tool that is not as the tool writes it."""


def annotations_in_text(text: str, source: str, folder: str) -> Annotations | None:
    """Return what XML of CVAT, a CSV or TSV of Label Studio, or a CSV of VIA says; None of any other text.

    Args:
        text: of the file.
        source: its name.
        folder: that relative paths start from.

    Raises:
        DamagedExportError: if it is damaged.
        DualFormerError: if it labels no videos.
    """
    text, files = text.lstrip(), Folder(folder)
    with _reading(source):
        if text.startswith(("<?xml", "<annotations")):
            return _checked(read_cvat(text, source, files), source)
        if text.startswith("#") and CSV_HEADER in text:
            return _checked(read_via_csv(text, files), source)
        if is_label_studio_table(header_of_table(text)):
            return _checked(read_label_studio_table(text, files), source)
    return None


def annotations_in_json(document: object, source: str, folder: str) -> Annotations | None:
    """Return what JSON of an annotation tool says; None of any other. Args and errors are those of the above."""
    files = Folder(folder)
    with _reading(source):
        if isinstance(document, list):
            return _checked(read_label_studio(document, files), source) if is_label_studio(document) else None
        if isinstance(document, dict):
            for is_it, read in ((is_fiftyone, read_fiftyone), (is_via, read_via), (is_activitynet, read_activitynet)):
                if is_it(document):
                    return _checked(read(document, files), source)
    return None


def parse_annotations(found: Annotations, labels: Labels, *, with_splits: bool) -> ParsedList:
    """Return the rows of a list, with their labels in the numbering of its classes.

    Args:
        found: what the file says.
        labels: knows the classes.
        with_splits: whether it may hold several splits.

    Raises:
        DualFormerError: if a label is none of the classes, or there are several splits and one is meant.
    """
    splits = [entry.split.lower() for entry in found.entries]
    if len(set(splits)) > 1 and not with_splits:
        names = ", ".join(sorted(set(splits))[:4])
        raise DualFormerError(
            f"list {labels.source!r} holds several splits ({names}); dualformer prepare {labels.source} makes a list "
            "of each"
        )
    known = labels.classes
    if (
        found.classes
        and labels.may_be_named
        and not (known and any(known.find(name) is not None for name in found.classes))
    ):
        labels.classes = ClassLookup(found.classes)
    labels.report(label for entry in found.entries for label in entry.labels)
    numbers = [_numbers(entry, labels) for entry in found.entries]
    is_multi_label = any(len(each) > 1 for each in numbers)
    samples = [
        Sample(
            entry.path,
            each[0] if each and not is_multi_label else None,
            each,
            entry.part.start,
            entry.part.num_frames,
            start_seconds=entry.part.start_seconds,
            end_seconds=entry.part.end_seconds,
        )
        for entry, each in zip(found.entries, numbers, strict=True)
    ]
    splits_said = splits if with_splits and any(splits) else None
    return ParsedList(samples, is_multi_label, tuple(found.notes), splits_said, has_frame_parts=True)


def _numbers(entry: Entry, labels: Labels) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(one_label(label, labels) for label in entry.labels))
    except ValueError as error:
        raise labels.error(entry.where, entry.path, str(error)) from None


def _checked(found: Annotations, source: str) -> Annotations:
    """Return annotations of files that can be, some of which have labels."""
    for entry in found.entries:
        if not entry.path or not is_encodable(entry.path):
            raise ValueError(f"{entry.where}: no file can have the name {entry.path!r}")
    if not any(entry.labels for entry in found.entries):
        notes = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise DualFormerError(f"list {source!r} labels no videos and no parts of videos{notes}")
    return found


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """Put what is wrong with a file into one line."""
    try:
        yield
    except (ValueError, RecursionError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DamagedExportError(f"list {source!r} is not as its tool writes it: {reason}") from None
