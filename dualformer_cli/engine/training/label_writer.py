"""A teacher labels every token of a list's videos, once, into a folder that training then reads."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dualformer_cli.config.load import ResolvedConfig
from dualformer_cli.config.schema import RENDERED, DataConfig, ViewsConfig
from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.data.clips.transforms import Frames
from dualformer_cli.data.clips.views import VideoViews, read_views
from dualformer_cli.data.tokens.store import (
    SUMMARY,
    Header,
    LabelClip,
    LabelFolder,
    StoredVideo,
    TokenCounts,
    shard_index,
)
from dualformer_cli.data.tokens.tiles import (
    CLIPS_PER_READ,
    LabelJob,
    Layout,
    read_label_clips,
    read_layout,
    read_whole_frame,
)
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.tokenlabel import ClassShare, LabelledVideos, LabelSummary, TeacherTrial, UnlabelledVideo
from dualformer_cli.engine.build import token_grid
from dualformer_cli.engine.parallel.node_memory import made_once_a_node
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.reductions import barrier
from dualformer_cli.engine.parallel.shared_work import SharedWork
from dualformer_cli.engine.training.lists import open_training_list
from dualformer_cli.engine.training.token_labels import StoredLabels, kept_logits, open_teacher
from dualformer_cli.errors import ConfigError, DualFormerError, VideoError
from dualformer_cli.system.disk import lack_of_room
from dualformer_cli.system.versions import versions
from dualformer_cli.system.workers import Outcome, WorkerPool
from dualformer_cli.video.remote_videos import name_of

_LOGGER = logging.getLogger(__name__)

VIDEOS_TO_VERIFY = 16
"""Labelled videos on which a teacher is tried before it labels."""
VIDEOS_TO_MEASURE = 256
"""Videos whose lengths and sizes are looked up for the estimate of disk space."""
CHANCE = 0.05
"""A teacher is no better than chance when chance does as well in more than this share of cases."""
_SPARE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Estimate:
    """Disk space that labels will take."""

    bytes: float
    standard_error: float
    """Of the bytes, as not all videos were looked at; 0 if they were."""
    videos: int
    """Looked at."""


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One video with the stored label of each token, to look at."""

    path: str
    frame: Frames
    """Shape (H, W, 3)."""
    classes: npt.NDArray[np.int64]
    """The best class of each token, shape (h, w)."""


class LabelWriter:
    """Writes the labels of one list; every rank makes one, with the same arguments.

    Args:
        resolved: preset of the model that shall learn from the labels, and the training list.
        teacher: who labels: a preset with published weights, or a file of weights.
        ranks: this process among the others.
        output: folder of the labels; one with the same header is gone on with.
        videos_per_shard: how the list is cut.
        offline: never fetch weights.

    Raises:
        DualFormerError: if list, teacher or folder cannot be used.
    """

    def __init__(
        self,
        resolved: ResolvedConfig,
        teacher: str,
        ranks: Ranks,
        *,
        output: Path,
        videos_per_shard: int = 64,
        offline: bool = False,
    ) -> None:
        self.ranks, self.folder = ranks, LabelFolder(output)
        if resolved.config.data.train_list == RENDERED:
            raise ConfigError(f"{RENDERED} has no videos whose labels could be stored; give --data LIST")
        self.listed, self.config = made_once_a_node(ranks, "reading the list", partial(open_training_list, resolved))
        if len(self.listed.class_names) > 2**16:
            raise ConfigError(f"token labels hold up to 65,536 classes, the list has {len(self.listed.class_names)}")
        header = partial(
            Header,
            source=self.listed.source,
            list_fingerprint=self.listed.fingerprint,
            num_videos=len(self.listed),
            clip=LabelClip.of(self.config.data),
            grid=token_grid(self.config.model, self.config.data),
            top_k=kept_logits(self.config),
            class_names=tuple(self.listed.class_names),
            videos_per_shard=videos_per_shard,
            versions=versions("dualformer", "torch"),
        )
        before = self.folder.check()
        if before is not None:  # all but the teacher, which takes long to load
            self._refuse_another(before, header(teacher=before.teacher))
        self.teacher = open_teacher(teacher, self.config, self.listed, ranks.device, offline=offline)
        self.header = header(teacher=self.teacher.facts)
        if before is not None:
            self._refuse_another(before, self.header)

    def verify(self, pool: WorkerPool) -> TeacherTrial:
        """Try the teacher on some videos of the list, one centre view each.

        Raises:
            DualFormerError: if none of the videos can be read.
        """
        engine, listed = self.teacher.engine, self.listed
        one_view = replace(engine.config.data.validation, num_clips=1, num_crops=1)
        read = partial(_read_views, engine.config.data, one_view)
        chosen = _spread(len(listed), VIDEOS_TO_VERIFY)
        right = scored = 0
        failure = ""
        for outcome in pool.imap(read, [self._job(index) for index in chosen]):
            if outcome.error is not None:
                failure = f"{name_of(outcome.item.path)!r}: {outcome.reason}"
                continue
            scores = self.teacher.in_student_order(engine.scorer.score(outcome.value.clips)[0].mean(axis=0))
            scored += 1
            right += int(scores.argmax()) in listed.labels[outcome.item.index]
        if not scored:
            raise DualFormerError(f"none of {len(chosen)} videos of {listed.source!r} can be read: {failure}")
        guess = sum(map(len, listed.labels)) / len(listed) / len(listed.class_names)
        chance = _binomial_tail(right, scored, guess)
        return TeacherTrial(videos=scored, right=right, chance=chance)

    def estimate(self, pool: WorkerPool) -> Estimate:
        """Estimate the disk space of all labels from the lengths and sizes of some videos."""
        chosen = _spread(len(self.listed), VIDEOS_TO_MEASURE)
        outcomes = pool.imap(partial(read_layout, self.config.data), [self._job(index) for index in chosen])
        sizes = [self._bytes_of(outcome) for outcome in outcomes]
        share = len(self.listed) / len(sizes)
        spread = float(np.std(sizes, ddof=1)) if len(sizes) > 1 else 0.0
        error = len(self.listed) * spread * math.sqrt((1 - 1 / share) / len(sizes))
        shard_bytes = len(json.dumps(shard_index("0" * 64, TokenCounts(), ())))
        return Estimate(float(np.sum(sizes)) * share + shard_bytes * self.header.num_shards, error, len(sizes))

    def check_space(self, estimate: Estimate) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            DualFormerError: if there is less room than what is still to be written.
        """
        needed = estimate.bytes + 2 * estimate.standard_error - self.folder.size_bytes() + _SPARE_BYTES
        if lack := lack_of_room(self.folder.root, needed):
            raise DualFormerError(
                f"no room for the labels: {lack}; free some space, or keep fewer logits with --set train.token_top_k=3"
            )

    def write(self, pool: WorkerPool, on_video: Callable[[str], None] = lambda path: None) -> None:
        """Write the shards that are not there yet: each rank draws the next one when it is free.

        Rank 0 also writes what a rank that died had in hand. On the others this returns when all shards are there.

        Args:
            pool: this rank's worker processes.
            on_video: told on rank 0 about each video, those of other ranks shard by shard.
        """
        if self.ranks.is_main:
            self.folder.write_header(self.header)
        barrier()

        def write(shards: Iterator[int]) -> Iterator[tuple[int, int]]:
            for shard in shards:
                self._write_shard(shard, pool, on_video if self.ranks.is_main else lambda path: None)
                yield self.ranks.rank, shard

        work = SharedWork[int](self.ranks)
        for rank, shard in work.in_order(self.missing_shards(), write):
            if rank != self.ranks.rank:
                for index in self.header.videos_of(shard):
                    on_video(self.listed.samples[index].path)
        for shard in work.lost_items:
            self._write_shard(shard, pool, on_video)

    def missing_shards(self) -> list[int]:
        """Shards that are still to be written."""
        return [shard for shard in range(self.header.num_shards) if not self.folder.has_shard(shard)]

    def summary(self) -> LabelSummary:
        """Add up what the shards say, write it into the folder as summary.json and return it."""
        total, clips, bad = TokenCounts(), 0, []
        for shard in range(self.header.num_shards):
            videos, counts = self.folder.read_index(shard)
            total += counts
            clips += sum(video.num_records for video in videos)
            bad += [UnlabelledVideo(path=each.path, error=each.reason) for each in videos if each.reason is not None]
        listed, names = self.header.num_videos, self.header.class_names
        document = LabelSummary(
            videos=LabelledVideos(listed=listed, labelled=listed - len(bad), unreadable=len(bad)),
            clips=clips,
            tokens=total.tokens,
            bytes=self.folder.size_bytes(),
            agreement=100 * total.agreeing / total.tokens if total.tokens else None,
            classes=tuple(
                ClassShare(label=names[index], index=index, percent=100 * count / total.tokens)
                for index, count in Counter(dict(sorted(total.best.items()))).most_common(10)
            ),
            unreadable=tuple(bad),
        )
        self.folder.write_json(SUMMARY, to_json(document))
        return document

    def sheet(self, pool: WorkerPool, rows: int = 6) -> list[SheetRow]:
        """Look some labels up as training would, for whole frames, to see that they lie where they belong."""
        stored = StoredLabels(str(self.folder.root), self.config, self.listed, torch.device("cpu"))
        found: list[SheetRow] = []
        for index in _spread(len(self.listed), rows):
            video, _ = stored.video(index)
            if video.reason is not None:
                continue
            job = replace(self._job(index), first=len(video.starts) // 2)
            outcome = pool.call(partial(read_whole_frame, self.config.data), job)
            if outcome.error is not None:
                _LOGGER.warning("not on the sheet: %r: %s", video.path, outcome.reason)
                continue
            frames, indices = outcome.value
            batch = Batch(
                clips=np.empty((1, 0, 0, 0, 3), np.uint8),
                samples=(index,),
                flipped=np.array([False]),
                unreadable=(),
                read_seconds=0.0,
                indices=indices[None],
                boxes=np.array([[0.0, 0.0, 1.0, 1.0]]),
            )
            classes = stored.labels(batch)[0].argmax(dim=-1).numpy()
            found.append(SheetRow(video.path, frames, classes[len(classes) // 2]))
        return found

    def _refuse_another(self, before: Header, now: Header) -> None:
        if difference := before.difference(now):
            root = str(self.folder.root)
            raise DualFormerError(
                f"{root!r} holds other token labels: their {difference}; name another --output, or delete it"
            )

    def _job(self, index: int) -> LabelJob:
        sample = self.listed.samples[index]
        return LabelJob(index, self.listed.files[index], sample.part)

    def _bytes_of(self, layout: Outcome[LabelJob, Layout]) -> int:
        """Return the bytes of a video's labels and of its line in the index."""
        index = layout.item.index
        path = self.listed.samples[index].path
        if layout.error is not None:
            return len(json.dumps(StoredVideo(index, path, layout.reason).row()))
        video = StoredVideo.of(index, path, 0, layout.value)
        return video.num_records * self.header.bytes_per_tile + len(json.dumps(video.row())) + 2

    def _write_shard(self, shard: int, pool: WorkerPool, on_video: Callable[[str], None]) -> None:
        jobs = [self._job(index) for index in self.header.videos_of(shard)]
        layouts = list(pool.imap(partial(read_layout, self.config.data), jobs))
        reads = (
            replace(layout.item, first=first)
            for layout in layouts
            if layout.error is None
            for first in range(0, len(layout.value.starts), CLIPS_PER_READ)
        )
        outcomes = pool.imap(partial(read_label_clips, self.config.data), reads)
        with self.folder.shard_writer(shard) as writer:
            for layout in layouts:
                job = layout.item
                path = self.listed.samples[job.index].path
                if layout.error is None:
                    records = self._label(job, outcomes, -(-len(layout.value.starts) // CLIPS_PER_READ))
                    writer.add(job, path, layout.value, records, self.listed.labels[job.index])
                else:
                    writer.refuse(job, path, layout.reason)
                on_video(path)

    def _label(
        self, job: LabelJob, outcomes: Iterator[Outcome[LabelJob, Any]], num_reads: int
    ) -> Iterator[npt.NDArray[Any]]:
        """Label one video, clip by clip: records of shape (tiles, t, h, w).

        Raises:
            VideoError: if some of it cannot be read; then all of its outcomes are taken.
        """
        failure: VideoError | None = None
        for outcome in islice(outcomes, num_reads):
            if failure is not None:
                continue
            if outcome.error is not None:
                failure = VideoError(job.path, outcome.reason)
            else:
                for of_clip in outcome.value:
                    yield self._records(of_clip, job.path)
        if failure is not None:
            raise failure

    def _records(self, tiles: Frames, path: str) -> npt.NDArray[Any]:
        """Label the tiles of one clip, (tiles, T, S, S, 3)."""
        values, classes = self.teacher.token_logits(torch.from_numpy(tiles)).topk(self.header.top_k)
        if not torch.isfinite(values).all():
            raise DualFormerError(f"{name_of(path)!r}: the teacher's scores are not numbers; try --precision fp32")
        records = np.empty(values.shape[:-1], self.header.record)
        records["values"] = values.cpu().numpy()
        records["classes"] = classes.cpu().numpy()
        return records


def _read_views(data: DataConfig, views: ViewsConfig, job: LabelJob) -> VideoViews:
    return read_views(job.path, data, views, part=job.part)


def _spread(total: int, number: int) -> list[int]:
    """At most `number` places of `total`, evenly spread, each in the middle of its part."""
    number = min(total, number)
    return [(2 * place + 1) * total // (2 * number) for place in range(number)]


def _binomial_tail(right: int, trials: int, probability: float) -> float:
    """How often `right` or more of `trials` happen, each with this probability."""
    terms = (
        math.comb(trials, k) * probability**k * (1 - probability) ** (trials - k) for k in range(right, trials + 1)
    )
    return min(1.0, sum(terms))
