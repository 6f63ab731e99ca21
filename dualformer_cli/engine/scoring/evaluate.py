"""A list of videos to scores and metrics: each video in one bucket, the same digits on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from dualformer_cli.config.schema import DataConfig, ViewsConfig
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.clips.views import VideoViews, read_views
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.documents.evaluate import Bucket
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.reductions import RanksLost, gather_objects
from dualformer_cli.engine.parallel.shared_work import SharedWork
from dualformer_cli.engine.scoring.kept_records import KeptRecords
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.scorer import Clips, NoMemory, Scorer
from dualformer_cli.errors import DualFormerError, TooShortError, UnavailableError
from dualformer_cli.system.words import counted
from dualformer_cli.system.workers import Outcome, WorkerPool, WorkerTimeout
from dualformer_cli.video.parts import Part
from dualformer_cli.video.reader import FileIndex
from dualformer_cli.video.remote_videos import is_placed, name_of
from dualformer_cli.video.tar_members import is_there


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
    kept: KeptRecords | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> list[VideoRecord]:
    """Score every video of a list once, dealt to the ranks, as training does it again and again.

    What `evaluate_once` does by drawing is dealt here, because the rank that has scored a video knows its index then.

    Args:
        scorer: the model.
        listed: the videos.
        data: how each is opened, and what a clip is.
        views: how each is cut into views.
        pool: this rank's worker processes.
        ranks: video i belongs to rank i modulo their number, which then has its index the next time.
        on_video: told about this rank's videos as they are done.
        indexes: kept from one call to the next, where a list is scored more than once; they save the time to read
            every file as a whole first, and change nothing else.
        kept: records of an earlier call that was stopped, and where each new one is kept.
        is_stopped: asked after each video; true on all ranks at about the same time, it ends the scoring.

    Returns:
        The records of all ranks in the order of the list, the same on every rank; of a part of it after a stop.
    """
    indexes = IndexCache() if indexes is None else indexes
    known = {} if kept is None else kept.read(listed, patience=data.decode_timeout_seconds)
    owners: dict[int, int] = {}
    for rank, numbers in enumerate([] if kept is None else gather_objects(list(known))):
        owners.update((number, rank) for number in numbers if number not in owners)
    records = [record for number, record in known.items() if owners[number] == ranks.rank]
    for record in records:
        on_video(record)
    own = [number for number in range(ranks.rank, len(listed), ranks.world_size) if number not in owners]
    for record in _score(scorer, listed, data, views, pool, own, indexes, kept):
        on_video(record)
        records.append(record)
        if is_stopped():
            break
    return sorted((record for part in gather_objects(records) for record in part), key=lambda record: record.index)


def evaluate_once(
    scorer: Scorer,
    listed: LabelledList,
    data: DataConfig,
    views: ViewsConfig,
    pool: WorkerPool,
    ranks: Ranks,
    *,
    on_video: Callable[[VideoRecord], None] = lambda record: None,
    kept: KeptRecords | None = None,
) -> list[VideoRecord]:
    """Score every video of a list that has no record yet; each rank draws the next one when it is free.

    Args:
        scorer, listed, data, views, pool, ranks: as those of `evaluate`.
        on_video: told on rank 0 about every video that is done, in the order of the list.
        kept: records of an earlier run, and where each new one is kept before the next is made.

    Returns:
        On rank 0 the records in the order of the list; elsewhere nothing.

    Raises:
        RanksLost: if a process died; what it had in hand has no record.
    """
    records: dict[int, VideoRecord] = {}
    if kept is not None and ranks.is_main:  # which hands out what is left
        records = kept.read(listed, patience=data.decode_timeout_seconds)
    for record in records.values():
        on_video(record)

    def work(indices: Iterator[int]) -> Iterator[VideoRecord]:
        return _score(scorer, listed, data, views, pool, indices, IndexCache(), kept)

    shared = SharedWork[int](ranks)
    for record in shared.in_order([i for i in range(len(listed)) if i not in records], work):
        records[record.index] = record
        on_video(record)
    if ranks.lost:
        where = "" if kept is None else "; go on with --resume"
        raise RanksLost(f"a process died with {counted(len(shared.lost_items), 'video')} in hand{where}")
    return [records[index] for index in sorted(records)]


def _score(
    scorer: Scorer,
    listed: LabelledList,
    data: DataConfig,
    views: ViewsConfig,
    pool: WorkerPool,
    indices: Iterable[int],
    indexes: IndexCache,
    kept: KeptRecords | None,
) -> Iterator[VideoRecord]:
    """Yield the record of each of these videos, in their order, once it is kept where records are."""
    parts = ((i, listed.files[i], listed.samples[i]) for i in indices)
    jobs = ((i, file, sample.part, indexes.get(file)) for i, file, sample in parts)
    outcomes = pool.imap(partial(_read, data, views), jobs)
    for outcome, scored in scorer.score_each(outcomes, _clips_of):
        index, file, *_ = outcome.item
        record = partial(VideoRecord, index, listed.samples[index].name, listed.labels[index])
        if isinstance(scored, NoMemory):
            raise scored.error  # a metric of what is left would be another metric
        if scored is None:
            assert outcome.error is not None
            found = record(_bucket(file, outcome.error), outcome.reason, None)
        else:
            if outcome.value.index is not None:
                indexes.put(file, outcome.value.index)
            if not math.isfinite(scored.scores.sum()):
                raise DualFormerError(f"{name_of(file)!r}: the scores are not numbers; try --precision fp32")
            found = record("scored", None, scored.scores.astype(np.float32))
        if kept is not None:
            error = outcome.error
            kept.append(found, timeout=error.seconds if isinstance(error, WorkerTimeout) else None)
        yield found


def _read(data: DataConfig, views: ViewsConfig, job: tuple[int, str, Part, FileIndex | None]) -> VideoViews:
    _, file, part, index = job
    return read_views(file, data, views, part=part, index=index)


def _clips_of(outcome: Outcome[Any, VideoViews]) -> Clips | None:
    return outcome.value.clips if outcome.error is None else None


def _bucket(file: str, error: Exception) -> Bucket:
    if isinstance(error, TooShortError):
        return "too_short"
    if is_placed(file):
        return "missing" if isinstance(error, UnavailableError | WorkerTimeout) else "unreadable"
    return "unreadable" if is_there(file) else "missing"
