"""A list of videos for a model: its labels in the numbering of the model's classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.datasets.catalogue import flip_labels
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.manifest import Manifest, read_manifest
from dualformer_cli.data.lists.matching import match_classes
from dualformer_cli.data.lists.row_arrays import Columns, LabelSets
from dualformer_cli.data.lists.samples import LabelledList, Pairs
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import counted

_LOGGER = logging.getLogger(__name__)


def open_list(
    data: DataConfig,
    source: str,
    *,
    class_names: Sequence[str] | None,
    is_nameless: bool = False,
    usable_only: bool = False,
    of: str = "the model",
) -> LabelledList:
    """Read a list and bring its labels into the model's numbering, matching classes by name.

    Args:
        data: where files are and which format the list has.
        source: the list.
        class_names: of the model; None takes the list's own, else those of the configuration.
        is_nameless: `class_names` only number the model's classes, which take the list's own names where it has any.
        usable_only: leave out, and say so, what the list itself calls broken; eval accounts for it instead.
        of: what `class_names` belong to, for messages.

    Raises:
        DualFormerError: if the list cannot be read, or has classes that the model does not.
    """
    configured = None if data.classes is None else load_class_names(data.classes)
    manifest = _read(data, source, configured, has_own_classes=class_names is None)
    samples, files, source = manifest.columns, manifest.files, manifest.source  # without secrets of an address
    is_kept = samples.usable()
    if usable_only and not is_kept.all():
        left_out = counted(int((~is_kept).sum()), "video")
        _LOGGER.warning("%s: %s left out, which the list calls broken", source, left_out)
        samples = samples.kept(is_kept)
        files = files.kept(is_kept, samples.paths)
    labels = samples.labels
    own = manifest.class_names
    if is_nameless and own is not None and class_names is not None:
        _require_as_many(source, own, class_names)
        _LOGGER.warning("the weights do not name their classes: those of %r are taken, by number", source)
        class_names = own
    names = own if class_names is None else class_names
    if names is None:
        _warn_of_counting_from_1(source, labels)
        names = [f"class {index}" for index in range(max(labels.used(), default=-1) + 1)]
    match = None if own is None or class_names is None else match_classes(own, class_names)
    if own is not None and match is not None:
        _LOGGER.warning("%s: %s", source, match.message)
        labels = _renumbered(source, samples, own, match.mapping, of)
    else:
        _require_known(source, samples, len(names), of)
    return LabelledList(
        source=source,
        samples=samples,
        files=files,
        labels=labels,
        class_names=list(names),
        flip_pairs=_flip_pairs(data.classes, configured, names),
        fingerprint=manifest.fingerprint,
        multi_label=data.multi_label,
    )


def _read(data: DataConfig, source: str, configured: Sequence[str] | None, *, has_own_classes: bool) -> Manifest:
    """Return the list as it is, after its warnings.

    A list that may have its own classes is not warned of for them: where they are as many as those of the
    configuration, which nothing else would tell, a line says so.

    Raises:
        DualFormerError: if it cannot be read, is empty, or has several labels a video where one is expected.
    """
    manifest = read_manifest(
        source, root=data.root, list_format=data.list_format, classes=configured, label_group=data.label_group
    )
    if not len(manifest):
        raise DualFormerError(f"list {source!r} is empty; it needs one video a line")
    levels = {manifest.naming: logging.INFO}
    if has_own_classes and configured is not None:
        is_as_many = len(manifest.class_names or ()) == len(configured)
        levels[manifest.other_classes] = logging.INFO if is_as_many else logging.DEBUG
    for warning in manifest.warnings:
        _LOGGER.log(levels.get(warning, logging.WARNING), "%s", warning)
    if manifest.is_multi_label and not data.multi_label:
        raise DualFormerError(
            f"list {source!r} has videos with several labels; say so with --set data.multi_label=true, which scores "
            "every class by itself"
        )
    return manifest


def _require_as_many(source: str, own: Sequence[str], class_names: Sequence[str]) -> None:
    if len(own) != len(class_names):
        raise DualFormerError(
            f"list {source!r} has {counted(len(own), 'class')}, but the weights have {len(class_names)}, without "
            "names; give the list that belongs to them"
        )


def _require_known(source: str, samples: Columns, num_classes: int, of: str) -> None:
    """Refuse a label that is beyond the model's classes."""
    is_beyond = samples.labels.values >= num_classes
    if is_beyond.any():
        row = samples.labels.first_row_with(is_beyond)
        raise DualFormerError(
            f"list {source!r} has label {max(samples.labels[row])}, but {of} has {counted(num_classes, 'class')}, "
            f"numbered from 0: it is that of {samples.paths[row]!r}; give the list that belongs to it"
        )


def _renumbered(source: str, samples: Columns, own: Sequence[str], mapping: Sequence[int | None], of: str) -> LabelSets:
    """Return the labels of each video in the model's numbering, which `mapping` has for each class of the list.

    Raises:
        DualFormerError: if a label is of a class that the model does not have.
    """
    labels = samples.labels
    unknown = {label for label in labels.used() if mapping[label] is None}
    if unknown:
        row = labels.first_row_with(np.isin(labels.values, list(unknown)))
        raise DualFormerError(
            f"list {source!r} has videos of {counted(len(unknown), 'class')} that {of} does not know, such as "
            f"{own[min(unknown)]!r} of {samples.paths[row]!r}; give the list that belongs to it"
        )
    return labels.renumbered([-1 if to is None else to for to in mapping])


def _warn_of_counting_from_1(source: str, labels: LabelSets) -> None:
    """Say that a list seems to count its classes from 1, as UCF101's own do."""
    used = labels.used()
    if len(used) > 1 and used == set(range(1, len(used) + 1)):
        _LOGGER.warning(
            "list %r has the labels 1 to %d and never 0: classes count from 0, so class 0 stays without videos; "
            "if the list counts from 1, subtract 1 from each label",
            source,
            len(used),
        )


def _flip_pairs(classes: str | None, configured: Sequence[str] | None, names: Sequence[str]) -> Pairs:
    """Return the pairs that a mirror exchanges, in the numbering of the labels, which a list may have of its own."""
    pairs = flip_labels().get(classes or "", ())
    match = None if configured is None else match_classes(configured, names)
    if match is None:
        return pairs
    moved = ((match.mapping[a], match.mapping[b]) for a, b in pairs)
    return tuple((a, b) for a, b in moved if a is not None and b is not None)
