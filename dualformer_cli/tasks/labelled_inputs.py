"""Lists of videos with labels as inputs of `predict`, and whether what the model says of a video is its label."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.lists.annotation_tools import DamagedExportError
from dualformer_cli.data.lists.manifest import is_export, read_manifest
from dualformer_cli.data.lists.matching import ClassLookup
from dualformer_cli.data.lists.tables import find_delimiter
from dualformer_cli.documents.predict import LabelCounts, VideoResult
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks.session import ModelRequest
from dualformer_cli.video.inputs import ListedLabel, ListedVideo, ReadLabelled


def list_reader(model: ModelRequest) -> ReadLabelled:
    """Return what reads lists as the configuration of a model says: where paths start from, and which form they have.

    Raises:
        ConfigError: if there is no such configuration.
    """
    keys = ("data.root", "data.list_format", "data.label_group")
    overrides = [each for each in model.overrides if each.partition("=")[0].strip() in keys]
    return partial(read_labelled, data=load_config(model.preset, overrides=overrides).config.data)


def _is_export(path: str) -> bool:
    """Return whether a list is a file of an annotation tool; names with zero bytes between them are none."""
    try:
        return is_export(path)
    except DamagedExportError:
        raise
    except DualFormerError:
        return False


def read_labelled(path: str, text: str, *, data: DataConfig | None = None) -> list[ListedVideo] | None:
    """Return the videos and parts of a list with their labels, in any form of `train --data`; None for names alone.

    Args:
        path: of the list.
        text: what is in it.
        data: says where paths start from and which form the list has, if it does.

    Raises:
        DualFormerError: if it names its columns, or is JSON, and cannot be read as a list, or has parts by frames.
    """
    lines = (match[0].strip() for match in re.finditer(r"[^\r\n]+", text.removeprefix("\ufeff")))
    first = next((line for line in lines if line and not line.startswith("#")), "")
    is_certain = (
        _is_export(path)
        or find_delimiter(first) is not None
        or (path.lower().endswith(".json") and first[:1] in ("{", "["))
    )
    if not is_certain and (len(first.split()) < 2 or os.path.lexists(os.path.join(os.path.dirname(path), first))):
        return None
    data = DataConfig() if data is None else data
    try:
        manifest = read_manifest(path, root=data.root, list_format=data.list_format, label_group=data.label_group)
    except DualFormerError:
        if is_certain:
            raise
        return None
    if not is_certain and not os.path.exists(manifest.files[0]):
        return None
    names = manifest.class_names
    if parts := [sample.path for sample in manifest.samples if sample.start]:
        raise DualFormerError(
            f"list {path!r} names parts by frame numbers, as of {parts[0]!r}; give start_seconds, end_seconds"
        )
    return [
        (
            file + sample.part.fragment,
            tuple((label, None if names is None else names[label]) for label in sample.labels),
        )
        for file, sample in zip(manifest.files, manifest.samples, strict=True)
    ]


class LabelCheck:
    """Compares results with the labels of a list, by the names of classes, or by their numbers where one has no names.

    Args:
        class_names: of the model.
        is_nameless: whether these only number the classes.
    """

    def __init__(self, class_names: Sequence[str], *, is_nameless: bool) -> None:
        self._names, self._lookup, self._is_nameless = class_names, ClassLookup(class_names), is_nameless

    def checked(self, result: VideoResult, labels: Sequence[ListedLabel]) -> VideoResult:
        """Return the result with its labels, and whether the best class is one of them."""
        if not labels:
            return result
        classes = [self._class_of(*label) for label in labels]
        shown = tuple(
            self._names[index] if index is not None and not self._is_nameless else name or f"class {number}"
            for index, (number, name) in zip(classes, labels, strict=True)
        )
        is_known = bool(result.predictions) and any(index is not None for index in classes)
        is_right = result.predictions[0].index in classes if is_known else None
        return replace(result, labels=shown, is_right=is_right)

    def _class_of(self, number: int, name: str | None) -> int | None:
        if name is not None and not self._is_nameless:
            return self._lookup.find(name)
        return number if number < len(self._names) else None


def count_labels(results: Iterable[VideoResult]) -> LabelCounts | None:
    """Return how many videos have the label that a list gives them; None if no list gives any."""
    labelled = [result.is_right for result in results if result.labels is not None]
    if not labelled:
        return None
    right, wrong = labelled.count(True), labelled.count(False)
    return LabelCounts(right=right, wrong=wrong, not_compared=len(labelled) - right - wrong)
