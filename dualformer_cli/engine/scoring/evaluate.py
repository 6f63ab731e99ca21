"""A list of videos to scores and metrics: each video in one bucket, the same digits on any number of ranks."""

from __future__ import annotations

import json
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.clips.augment import Pairs
from dualformer_cli.data.clips.loader import IndexCache
from dualformer_cli.data.clips.views import VideoViews, ViewPlan, read_views
from dualformer_cli.data.datasets.catalogue import flip_labels
from dualformer_cli.data.lists.manifest import load_class_names, read_manifest
from dualformer_cli.data.lists.matching import match_classes
from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.engine.parallel.distributed import Ranks, gather_objects
from dualformer_cli.engine.scoring import metrics
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.errors import DualFormerError, TooShortError
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.reader import FileIndex

_LOGGER = logging.getLogger(__name__)

Bucket = Literal["scored", "missing", "unreadable", "too_short"]
BUCKETS: tuple[Bucket, ...] = ("scored", "missing", "unreadable", "too_short")


DUMP_VERSION = 1


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


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """What became of one video of the list."""

    index: int
    """Its line in the list, from 0."""
    path: str
    """As listed."""
    labels: tuple[int, ...]
    bucket: Bucket
    reason: str | None
    """Why it was not scored."""
    scores: npt.NDArray[np.float32] | None
    """One row per view, shape (v, classes)."""

    def mean(self) -> npt.NDArray[np.float64]:
        """Scores of the video: the mean over its views."""
        assert self.scores is not None, "not scored"
        return self.scores.mean(axis=0, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """Everything that scoring a list gave: enough to compute every metric again without the model."""

    records: list[VideoRecord]
    """In the order of the list."""
    class_names: list[str]
    multi_label: bool
    num_clips: int
    num_crops: int
    facts: dict[str, Any]
    """What the scores can be traced to: preset, weights and their hash, list and its fingerprint, versions."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """JSON lines: one about the run, then one per video."""
        yield {
            "dualformer": DUMP_VERSION,
            "class_names": self.class_names,
            "multi_label": self.multi_label,
            "num_clips": self.num_clips,
            "num_crops": self.num_crops,
            "facts": self.facts,
        }
        for record in self.records:
            scores = None if record.scores is None else record.scores.tolist()
            fields = {"path": record.path, "labels": list(record.labels), "status": record.bucket}
            yield {**fields, "reason": record.reason, "scores": scores}

    def document(self, other: Dump | None = None) -> dict[str, Any]:
        """The metrics with what they can be traced to, compared with another run if there is one."""
        summary = summarise(self.records, self.class_names, multi_label=self.multi_label)
        document = {**self.facts, **summary}
        if not self.multi_label and (curve := self._curve()):
            document["views_curve"] = curve
        if other is not None:
            document["comparison"] = metrics.compare_runs(self._answers(), other._answers())
        return document

    def file_of(self, path: str) -> str:
        """Where a listed video is, or was when the list was scored."""
        root = self.facts.get("root") or os.path.dirname(self.facts.get("list") or "")
        return os.path.join(root, path)

    def report(self, document: dict[str, Any]) -> dict[str, Any]:
        """The document of the page: with classes, confusions, calibration and the worst videos."""
        scored = [record for record in self.records if record.scores is not None and record.labels]
        document = {
            **document,
            "unscored": [
                {"path": record.path, "status": record.bucket, "reason": record.reason}
                for record in self.records
                if record.scores is None
            ],
        }
        if self.multi_label or not scored:
            return document
        scores = np.stack([record.mean() for record in scored])
        labels = np.array([record.labels[0] for record in scored])
        confusion = metrics.Confusion.of(labels, scores.argmax(axis=1), len(self.class_names))
        return {
            **document,
            "classes": metrics.class_rows(confusion, self.class_names),
            "confused": metrics.confused_pairs(confusion, self.class_names),
            "worst": metrics.worst_videos([record.path for record in scored], scores, labels, self.class_names),
            "calibration": metrics.calibration(scores, labels),
        }

    def _curve(self) -> list[dict[str, Any]]:
        """Accuracy over the first 1, 2, ... views of every video: what fewer views would have given."""
        order = metrics.view_order(self.num_clips, self.num_crops)
        rows = [
            metrics.view_hits(record.scores, record.labels[0], order)
            for record in self.records
            if record.scores is not None and record.labels and len(record.scores) == len(order)
        ]
        return metrics.view_curve(np.stack(rows)) if rows else []

    def _answers(self) -> dict[str, tuple[int, int]]:
        return {
            record.path: (record.labels[0], int(record.mean().argmax()))
            for record in self.records
            if record.scores is not None and record.labels
        }


def read_dump(path: str | Path) -> Dump:
    """Read the JSON lines of `eval --dump`.

    Raises:
        DualFormerError: if it is not such a file, or a line is damaged.
    """
    records = []
    line = 0
    try:
        with open(path, encoding="utf-8") as file:
            head = json.loads(file.readline())
            if head["dualformer"] != DUMP_VERSION:
                raise DualFormerError(f"dump {str(path)!r} is of another version; make it again with eval --dump")
            for line, text in enumerate(file, start=2):
                row = json.loads(text)
                scores = None if row["scores"] is None else np.array(row["scores"], dtype=np.float32)
                labels = tuple(int(label) for label in row["labels"])
                records.append(VideoRecord(line - 2, row["path"], labels, row["status"], row["reason"], scores))
            return Dump(
                records=records,
                class_names=[str(name) for name in head["class_names"]],
                multi_label=bool(head["multi_label"]),
                num_clips=int(head["num_clips"]),
                num_crops=int(head["num_crops"]),
                facts=dict(head["facts"]),
            )
    except OSError as error:
        raise DualFormerError(f"dump {str(path)!r} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        reason = f"line {line}: {error}" if line else "it does not begin as one"
        raise DualFormerError(f"{str(path)!r} is not a dump of dualformer eval: {reason}") from None


def evaluate(
    scorer: Scorer,
    listed: LabelledList,
    plan: ViewPlan,
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
        plan: how each is cut into views.
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
    for record in _score(scorer, listed, plan, pool, range(ranks.rank, len(listed), ranks.world_size), indexes):
        on_video(record)
        records.append(record)
    return sorted((record for part in gather_objects(records) for record in part), key=lambda record: record.index)


def summarise(records: Sequence[VideoRecord], class_names: Sequence[str], *, multi_label: bool) -> dict[str, Any]:
    """Add the records up: buckets, accuracies over the scored videos and over all listed, digest of the scores."""
    scored = [record for record in records if record.scores is not None]
    buckets = Counter(record.bucket for record in records)
    document: dict[str, Any] = {
        "videos": {"listed": len(records), **{bucket: buckets[bucket] for bucket in BUCKETS}},
        "digest": metrics.score_digest([(record.path, record.mean()) for record in scored]),
    }
    labelled = [record for record in scored if record.labels]
    if not labelled:
        return document
    scores = np.stack([record.mean() for record in labelled])
    if multi_label:
        positives = metrics.multi_hot([record.labels for record in labelled], len(class_names))
        return {**document, **metrics.multi_label_results(scores, positives)}
    labels = np.array([record.labels[0] for record in labelled])
    results = metrics.single_label_results(scores, labels)
    own = np.maximum(scores[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
    confusion = metrics.Confusion.of(labels, scores.argmax(axis=1), len(class_names))
    document.update(
        results,
        top1_all_listed=results["top1"] * len(labelled) / sum(bool(record.labels) for record in records),
        loss=float(-np.log(own).mean()),
        expected_calibration_error=metrics.calibration(scores, labels)["expected_calibration_error"],
    )
    if (permutation := metrics.find_permutation(confusion)) is not None:
        document["label_order"] = permutation.describe(class_names)
    return document


def _score(
    scorer: Scorer,
    listed: LabelledList,
    plan: ViewPlan,
    pool: WorkerPool,
    indices: Sequence[int],
    indexes: IndexCache,
) -> Iterator[VideoRecord]:
    parts = ((i, listed.files[i], listed.samples[i]) for i in indices)
    jobs = ((i, file, sample.start, sample.num_frames, indexes.get(file)) for i, file, sample in parts)
    for outcome in pool.imap(partial(_read, plan), jobs):
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


def _read(plan: ViewPlan, job: tuple[int, str, int, int | None, FileIndex | None]) -> VideoViews:
    _, file, start, num_frames, index = job
    return read_views(file, plan, start=start, num_frames=num_frames, index=index)


def _bucket(file: str, error: Exception) -> Bucket:
    if isinstance(error, TooShortError):
        return "too_short"
    return "unreadable" if os.path.lexists(file) else "missing"
