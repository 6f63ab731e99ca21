"""The scores of a list added up: buckets, metrics, the digest of the scores."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from dualformer_cli.documents.evaluate import Summary, VideoCounts
from dualformer_cli.engine.scoring.label_order import find_permutation
from dualformer_cli.engine.scoring.metrics import ScoredVideos, measure
from dualformer_cli.engine.scoring.mistakes import Confusion
from dualformer_cli.engine.scoring.records import BUCKETS, VideoRecord


def score_digest(videos: Iterable[tuple[str, npt.NDArray[Any]]]) -> str:
    """SHA-256 over (path, scores) of all videos: equal on any number of ranks and in any order of the list.

    Scores count as float32, bit for bit; a negative zero counts as zero.
    """
    digest = hashlib.sha256()
    for line in sorted(_digest_line(path, scores) for path, scores in videos):
        digest.update(line.encode("ascii"))
    return digest.hexdigest()


def _digest_line(path: str, scores: npt.NDArray[Any]) -> str:
    rounded = scores.astype("<f4") + np.float32(0)
    return f"{json.dumps(path)} {rounded.astype('<f4').tobytes().hex()}\n"


def summarise(records: Sequence[VideoRecord], class_names: Sequence[str], *, multi_label: bool) -> Summary:
    """Add the records up: buckets, metrics over the scored videos and over all listed, digest of the scores."""
    scored = [(record, record.mean()) for record in records if record.scores is not None]
    buckets = Counter(record.bucket for record in records)
    labelled = [(record.labels, mean) for record, mean in scored if record.labels]
    metrics, label_order = {}, None
    if labelled:
        labels_of, means = zip(*labelled, strict=True)
        scores, num_listed = np.stack(means), sum(bool(record.labels) for record in records)
        metrics = measure(ScoredVideos(scores, labels_of, num_listed), multi_label=multi_label)
        if not multi_label:
            labels = np.array([labels[0] for labels in labels_of])
            permutation = find_permutation(Confusion.of(labels, scores.argmax(axis=1), len(class_names)))
            label_order = None if permutation is None else permutation.describe(class_names)
    return Summary(
        videos=VideoCounts(listed=len(records), **{bucket: buckets[bucket] for bucket in BUCKETS}),
        digest=score_digest([(record.path, mean) for record, mean in scored]),
        metrics=metrics,
        num_classes=len(class_names) if metrics else None,
        label_order=label_order,
    )
