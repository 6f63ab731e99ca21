"""A list of videos for a model: its labels in the numbering of the model's classes."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.datasets.catalogue import flip_labels
from dualformer_cli.data.lists.manifest import Manifest, load_class_names, read_manifest
from dualformer_cli.data.lists.matching import match_classes
from dualformer_cli.data.lists.samples import LabelledList, Pairs, Sample
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
    rows = [row for row, sample in enumerate(manifest.samples) if sample.is_usable or not usable_only]
    if len(rows) < len(manifest):
        left_out = counted(len(manifest) - len(rows), "video")
        _LOGGER.warning("%s: %s left out, which the list calls broken", source, left_out)
    samples = [manifest.samples[row] for row in rows]
    labels = [sample.labels for sample in samples]
    own = manifest.class_names
    if is_nameless and own is not None and class_names is not None:
        _require_as_many(source, own, class_names)
        _LOGGER.warning("the weights do not name their classes: those of %r are taken, by number", source)
        class_names = own
    names = own if class_names is None else class_names
    if names is None:
        _warn_of_counting_from_1(source, labels)
        highest = max((label for of_video in labels for label in of_video), default=-1)
        names = [f"class {index}" for index in range(highest + 1)]
    match = None if own is None or class_names is None else match_classes(own, class_names)
    if own is not None and match is not None:
        _LOGGER.warning("%s: %s", source, match.message)
        labels = _renumbered(source, samples, own, match.mapping, of)
    else:
        _require_known(source, samples, len(names), of)
    return LabelledList(
        source=source,
        samples=samples,
        files=[manifest.files[row] for row in rows],
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


def _require_known(source: str, samples: Sequence[Sample], num_classes: int, of: str) -> None:
    """Refuse a label that is beyond the model's classes."""
    for sample in samples:
        if (highest := max(sample.labels, default=-1)) >= num_classes:
            raise DualFormerError(
                f"list {source!r} has label {highest}, but {of} has {counted(num_classes, 'class')}, numbered from 0: "
                f"it is that of {sample.path!r}; give the list that belongs to it"
            )


def _renumbered(
    source: str, samples: Sequence[Sample], own: Sequence[str], mapping: Sequence[int | None], of: str
) -> list[tuple[int, ...]]:
    """Return the labels of each video in the model's numbering, which `mapping` has for each class of the list.

    Raises:
        DualFormerError: if a label is of a class that the model does not have.
    """
    unknown = {label for sample in samples for label in sample.labels if mapping[label] is None}
    if unknown:
        path = next(sample.path for sample in samples if unknown.intersection(sample.labels))
        raise DualFormerError(
            f"list {source!r} has videos of {counted(len(unknown), 'class')} that {of} does not know, such as "
            f"{own[min(unknown)]!r} of {path!r}; give the list that belongs to it"
        )
    return [tuple(to for label in sample.labels if (to := mapping[label]) is not None) for sample in samples]


def _warn_of_counting_from_1(source: str, labels: Sequence[tuple[int, ...]]) -> None:
    """Say that a list seems to count its classes from 1, as UCF101's own do."""
    used = {label for of_video in labels for label in of_video}
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
