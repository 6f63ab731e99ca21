"""A list of videos to scores and metrics: each video in one bucket, the same digits on any number of ranks."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from dualformer_cli.config.schema import DataConfig, ViewsConfig
from dualformer_cli.data.clips.augment import Pairs
from dualformer_cli.data.clips.loader import IndexCache
from dualformer_cli.data.clips.views import VideoViews, read_views
from dualformer_cli.data.datasets.catalogue import flip_labels
from dualformer_cli.data.lists.manifest import load_class_names, read_manifest
from dualformer_cli.data.lists.matching import match_classes
from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.documents.evaluate import Bucket
from dualformer_cli.engine.parallel.distributed import Ranks, gather_objects
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.errors import DualFormerError, TooShortError
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.reader import FileIndex

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LabelledList:
    """A list of videos with labels in the model's numbering."""

    source: str
    samples: list[Sample]
    files: list[str]
    """Where each video is."""
    labels: list[tuple[int, ...]]
    """Classes of each video; () for one without a label."""
    class_names: list[str]
    """Of the model."""
    flip_pairs: Pairs
    """Classes that a mirror turns into each other."""
    fingerprint: str
    multi_label: bool

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def is_labelled(self) -> bool:
        """Whether the list has labels at all."""
        return any(self.labels)

    def first_labels(self) -> list[int]:
        """One class per video, to balance classes by."""
        return [labels[0] if labels else -1 for labels in self.labels]


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
    manifest = read_manifest(
        source, root=data.root, list_format=data.list_format, classes=configured, label_group=data.label_group
    )
    if not len(manifest):
        raise DualFormerError(f"list {source!r} is empty; it needs one video a line")
    for warning in manifest.warnings:
        _LOGGER.warning("%s", warning)
    if manifest.is_multi_label and not data.multi_label:
        raise DualFormerError(
            f"list {source!r} has videos with several labels; say so with --set data.multi_label=true, which scores "
            "every class by itself"
        )
    rows = [row for row, sample in enumerate(manifest.samples) if sample.is_usable or not usable_only]
    if len(rows) < len(manifest):
        _LOGGER.warning("%s: %d videos are left out, which the list calls broken", source, len(manifest) - len(rows))
    samples = [manifest.samples[row] for row in rows]
    labels = [sample.labels for sample in samples]
    highest = max((label for of_video in labels for label in of_video), default=-1)
    own = manifest.class_names
    if is_nameless and own is not None and class_names is not None:
        if len(own) != len(class_names):
            raise DualFormerError(
                f"list {source!r} has {len(own)} classes, but the weights have {len(class_names)}, without names; "
                "give the list that belongs to them"
            )
        _LOGGER.warning("the weights do not name their classes: those of %r are taken, by number", source)
        class_names = own
    if own is None and class_names is None:
        own = [f"class {index}" for index in range(highest + 1)]
        _warn_of_counting_from_1(source, labels)
    names = list(class_names if class_names is not None else own or ())
    if own is not None and class_names is not None and (match := match_classes(own, class_names)) is not None:
        _LOGGER.warning("%s: %s", source, match.message)
        unknown = {label for of_video in labels for label in of_video if match.mapping[label] is None}
        if unknown:
            row = next(row for row, of_video in enumerate(labels) if unknown.intersection(of_video))
            raise DualFormerError(
                f"list {source!r} has videos of {len(unknown)} classes that {of} does not know, such as "
                f"{own[min(unknown)]!r} of {samples[row].path!r}; give the list that belongs to it"
            )
        labels = [tuple(to for label in of_video if (to := match.mapping[label]) is not None) for of_video in labels]
    elif highest >= len(names):
        row = next(row for row, of_video in enumerate(labels) if max(of_video, default=-1) >= len(names))
        raise DualFormerError(
            f"list {source!r} has label {max(labels[row])}, but {of} has {len(names)} classes, numbered from 0: it is "
            f"that of {samples[row].path!r}; give the list that belongs to it"
        )
    return LabelledList(
        source=source,
        samples=samples,
        files=[manifest.files[row] for row in rows],
        labels=labels,
        class_names=names,
        flip_pairs=_flip_pairs(data.classes, configured, names),
        fingerprint=manifest.fingerprint,
        multi_label=data.multi_label,
    )


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
    """The pairs that a mirror exchanges, in the numbering of the labels, which a list may have of its own."""
    pairs = flip_labels().get(classes or "", ())
    match = None if configured is None else match_classes(configured, names)
    if match is None:
        return pairs
    moved = ((match.mapping[a], match.mapping[b]) for a, b in pairs)
    return tuple((a, b) for a, b in moved if a is not None and b is not None)


def evaluate(
    scorer: Scorer,
    listed: LabelledList,
    data: DataConfig,
    views: ViewsConfig,
    pool: WorkerPool,
    ranks: Ranks,
    *,
    on_video: Callable[[VideoRecord], None] = lambda record: None,
    indexes: IndexCache | None = None,
) -> list[VideoRecord]:
    """Score every video of a list once, spread over the ranks.

    Args:
        scorer: the model.
        listed: the videos.
        data: how each is opened, and what a clip is.
        views: how each is cut into views.
        pool: this rank's worker processes.
        ranks: video i belongs to rank i modulo their number.
        on_video: told about this rank's videos as they are done.
        indexes: kept from one call to the next, where a list is scored more than once; they save the time to read
            every file as a whole first, and change nothing else.

    Returns:
        The records of all ranks in the order of the list, the same on every rank.
    """
    records = []
    indexes = IndexCache() if indexes is None else indexes
    own = range(ranks.rank, len(listed), ranks.world_size)
    for record in _score(scorer, listed, data, views, pool, own, indexes):
        on_video(record)
        records.append(record)
    return sorted((record for part in gather_objects(records) for record in part), key=lambda record: record.index)


def _score(
    scorer: Scorer,
    listed: LabelledList,
    data: DataConfig,
    views: ViewsConfig,
    pool: WorkerPool,
    indices: Sequence[int],
    indexes: IndexCache,
) -> Iterator[VideoRecord]:
    parts = ((i, listed.files[i], listed.samples[i]) for i in indices)
    jobs = ((i, file, sample.start, sample.num_frames, indexes.get(file)) for i, file, sample in parts)
    for outcome in pool.imap(partial(_read, data, views), jobs):
        index, file, *_ = outcome.item
        record = partial(VideoRecord, index, listed.samples[index].path, listed.labels[index])
        if outcome.error is not None:
            yield record(_bucket(file, outcome.error), outcome.reason, None)
        else:
            if outcome.value.index is not None:
                indexes.put(file, outcome.value.index)
            scores, _ = scorer.score(outcome.value.clips)
            if not math.isfinite(scores.sum()):
                raise DualFormerError(f"{file!r}: the scores are not numbers; try --precision fp32")
            yield record("scored", None, scores.astype(np.float32))


def _read(data: DataConfig, views: ViewsConfig, job: tuple[int, str, int, int | None, FileIndex | None]) -> VideoViews:
    _, file, start, num_frames, index = job
    return read_views(file, data, views, start=start, num_frames=num_frames, index=index)


def _bucket(file: str, error: Exception) -> Bucket:
    if isinstance(error, TooShortError):
        return "too_short"
    return "unreadable" if os.path.lexists(file) else "missing"
