"""The engine: it builds the parts that a RunConfig describes and runs the model over videos."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch

from dualformer_cli.config.load import ResolvedConfig
from dualformer_cli.config.option_defaults import TOP_K
from dualformer_cli.config.schema import DataConfig, RunConfig
from dualformer_cli.data.clips.transforms import FrameSizeError, FrameTransform
from dualformer_cli.data.clips.views import VideoViews, read_views
from dualformer_cli.data.fetch.hugging_face import is_hub_address, local_weights
from dualformer_cli.data.fetch.local_copies import LocalCopies, LocalCopy
from dualformer_cli.data.fetch.weights import preset_of, published_weights, require_weights, shipped_weights
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.predict import LiveClip, ModelFacts
from dualformer_cli.engine.build import build_model, first_activation
from dualformer_cli.engine.parallel.devices import dtype_of, keep_freed_memory, pick_device, pick_precision
from dualformer_cli.engine.parallel.node_memory import made_once_a_node
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.score_settings import named_weights, score_settings
from dualformer_cli.engine.scoring.dump import Dump
from dualformer_cli.engine.scoring.evaluate import evaluate_once
from dualformer_cli.engine.scoring.kept_records import KeptRecords
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.scorer import Clips, NoMemory, Scorer
from dualformer_cli.engine.scoring.unsure import least_score, unsure_below
from dualformer_cli.engine.scoring.video_scores import LiveScores, Prediction, VideoScores, failure, top
from dualformer_cli.errors import ConfigError, VideoError, WeightsError
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.model.weights import class_names_of, load_weights, read_checkpoint
from dualformer_cli.system.files import sha256_of
from dualformer_cli.system.versions import versions
from dualformer_cli.system.workers import Outcome, WorkerPool
from dualformer_cli.video.addresses import mask_credentials
from dualformer_cli.video.frames_in_memory import FramesReader
from dualformer_cli.video.live import LiveSource
from dualformer_cli.video.reader import Frame

_LOGGER = logging.getLogger(__name__)

BF16_ON_CPU_FROM = 2**20
"""Size of the first activation from which bf16 pays on a CPU: tiny with 16 frames has 1.6 million numbers; the built-in
model, with 25 thousand, takes as long in bf16 as in fp32."""

SEGMENTS_PER_READ = 16
"""Segments of a timeline that are in memory at a time: 16 clips of 32 frames at 224x224 are 77 MB."""

_Part = tuple[LocalCopy, Outcome[Any, VideoViews], bool]
"""Views of an input, or why there are none, and whether they are its last."""


class Engine:
    """One model on one device, as a config describes it.

    Args:
        resolved: the configuration, and the preset's name for messages.
        offline: whether the network may not be used to fetch weights.
        progress: called with (bytes so far, bytes in all or None) while weights are fetched.
        device: of this rank; the configuration's when None.
        bf16_on_cpu: let precision auto be bf16 on a CPU too, where that is faster.
        checkpoint: what the file of weights holds, where it has been read already.
        model: to run in place of one that is loaded; it stays as it is.

    Raises:
        DualFormerError: if weights, class names or the device do not fit.
    """

    def __init__(
        self,
        resolved: ResolvedConfig,
        *,
        offline: bool = False,
        progress: Callable[[int, int | None], None] | None = None,
        device: torch.device | None = None,
        bf16_on_cpu: bool = False,
        checkpoint: Mapping[str, Any] | None = None,
        model: DualFormer | None = None,
    ) -> None:
        self.resolved = resolved
        self.config: RunConfig = resolved.config
        self.preset = resolved.preset
        self.device = pick_device(self.config.runtime.device) if device is None else device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision = pick_precision(
            self.config.runtime.precision,
            self.device,
            bf16_on_cpu=bf16_on_cpu and first_activation(self.config.model, self.config.data) >= BF16_ON_CPU_FROM,
        )
        torch.manual_seed(self.config.runtime.seed)
        self.class_names = self._class_names()
        self.is_nameless = self.config.data.classes is None
        """Whether neither the configuration nor the weights name the classes."""
        if model is None:
            self.model, self.weights, self.weights_sha256 = self._load_model(offline, progress, checkpoint)
        else:
            self.model, self.weights, self.weights_sha256 = deepcopy(model), "in memory", None
            if model.class_names is not None:
                self.class_names, self.is_nameless = list(model.class_names), False
        self.model.eval().to(self.device, dtype_of(self.precision))
        self.scorer = Scorer(
            self.model,
            mean=self.config.data.mean,
            std=self.config.data.std,
            multi_label=self.config.data.multi_label,
            compile=self.config.runtime.compile,
            graphs=self.config.runtime.cuda_graphs,
        )

    def describe(self) -> ModelFacts:
        """Return what every result can be traced to."""
        views = self.config.data.test
        return ModelFacts(
            preset=self.preset,
            weights=self.weights,
            weights_sha256=self.weights_sha256,
            device=str(self.device),
            precision=self.precision,
            views=f"{self.config.data.clips_of(views)}x{views.num_crops}",
        )

    def settings(self) -> dict[str, object]:
        """Return what a score depends on, by the names that users know."""
        weights = named_weights(self.weights, self.weights_sha256, seed=self.config.runtime.seed)
        return {**score_settings(self.resolved), "weights": weights, "precision": self.precision}

    def predict(
        self,
        paths: Iterable[str],
        pool: WorkerPool,
        *,
        top_k: int = TOP_K,
        every_seconds: float | None = None,
        min_score: float | None = None,
    ) -> Iterator[Prediction]:
        """Classify videos, one after the other, while `pool` decodes the next ones.

        Args:
            paths: video files, folders of numbered frames, and addresses of files, which are fetched a few ahead and
                removed when the next prediction is asked for.
            pool: worker processes that open the files; a file that hangs or crashes one of them costs only itself.
            top_k: predictions per video.
            every_seconds: classify segments of this length and merge equal neighbours into a timeline.
            min_score: a best label below it is unsure, 0 to 1; None for what `least_score` says.

        Yields:
            One prediction per path, in order; a file that cannot be used has status "error".
        """
        data = self.config.data
        with LocalCopies() as copies:
            files = copies.of(paths)
            parts: Iterable[_Part]
            if every_seconds is None:
                parts = ((each.item, each, True) for each in pool.imap(partial(_read_copy, data=data), files))
            else:
                parts = _read_timelines(files, data, every_seconds, pool)
            yield from self._finish(parts, top_k, self._min_score(min_score), copies)

    def predict_frames(
        self,
        frames: Iterable[Frame],
        *,
        name: str,
        fps: float | None,
        top_k: int = TOP_K,
        every_seconds: float | None = None,
        min_score: float | None = None,
    ) -> Prediction:
        """Classify a video whose frames are in memory, in this process.

        Args:
            frames: uint8 of shape (T, H, W, 3), or an iterable of frames (H, W, 3), which are not kept in full size.
            name: of the video in the result.
            fps: frames per second; a timeline needs it.
            top_k: predictions.
            every_seconds, min_score: as those of `predict`.

        Raises:
            ValueError: if frames have another type or shape, or there are none.
        """
        data = self.config.data
        transform = FrameTransform(
            short_side=data.test.short_side,
            crop_size=data.crop_size,
            num_crops=data.test.num_crops,
            antialias=data.antialias,
        )
        try:
            reader = FramesReader(frames, name=name, fps=fps, transform=transform)
        except FrameSizeError as error:
            return failure(name, str(error))
        read = partial(read_views, reader, data, data.test, every_seconds=every_seconds)
        parts = _read_here(LocalCopy(name, name), read, is_timeline=every_seconds is not None)
        with LocalCopies() as copies:
            (found,) = self._finish(parts, top_k, self._min_score(min_score), copies)
        return found

    def open_list(self, ranks: Ranks) -> LabelledList:
        """The list that the configuration names, with labels in the model's numbering; all ranks open it together."""
        source = self.config.data.validation_list
        if source is None:
            raise ConfigError("there is no list to evaluate; give --data LIST or --set data.validation_list=LIST")
        data, names = self.config.data, self.class_names
        read = partial(open_list, data, source, class_names=names, is_nameless=self.is_nameless)
        listed = made_once_a_node(ranks, "reading the list", read)
        self.class_names = listed.class_names
        return listed

    def evaluate(
        self,
        listed: LabelledList,
        pool: WorkerPool,
        ranks: Ranks,
        *,
        on_video: Callable[[VideoRecord], None],
        kept: KeptRecords | None = None,
    ) -> Dump:
        """Score a list on all ranks; the records are on rank 0. See `evaluate_once`."""
        data, views = self.config.data, self.config.data.test
        return Dump(
            records=evaluate_once(self.scorer, listed, data, views, pool, ranks, on_video=on_video, kept=kept),
            class_names=self.class_names,
            multi_label=listed.multi_label,
            num_clips=self.config.data.clips_of(views),
            num_crops=views.num_crops,
            facts={
                **to_json(self.describe()),
                "list": listed.source,
                "root": self.config.data.root,
                "list_fingerprint": listed.fingerprint,
                **versions("dualformer", "torch"),
            },
        )

    def predict_live(
        self,
        name: str,
        *,
        every_seconds: float,
        top_k: int = TOP_K,
        duration_seconds: float | None = None,
        min_score: float | None = None,
        on_clip: Callable[[LiveClip], None],
    ) -> Prediction:
        """Classify a camera or a network stream while it plays, until it ends or Ctrl-C.

        Args:
            name: camera:N or an address such as rtsp://...
            every_seconds: classify the latest clip this often.
            top_k: predictions per clip.
            duration_seconds: stop after this many seconds of the stream.
            min_score: as that of `predict`.
            on_clip: told about each clip at once.

        Returns:
            The result of what was seen; "interrupted" is true in it if Ctrl-C ended it.
        """
        data, seen, shown, least = self.config.data, LiveScores(), mask_credentials(name), self._min_score(min_score)
        transform = FrameTransform(
            short_side=data.test.short_side, crop_size=data.crop_size, num_crops=1, antialias=data.antialias
        )
        try:
            with LiveSource(name) as source:
                clips = source.clips(data.clip.num_frames, data.clip.frame_interval, every_seconds, transform)
                for start, end, clip in clips:
                    scores, features = self.scorer.score(clip.reshape(1, *clip.shape[:1], *clip.shape[-3:]))
                    seen.add(start, end, scores[0], features[0])
                    best = top(scores[0], self.class_names, top_k)
                    times = {"start_seconds": seen.starts[-1], "end_seconds": end}
                    unsure = unsure_below(best, None, least)
                    on_clip(LiveClip(path=shown, **times, predictions=best, unsure_below=unsure))
                    if duration_seconds is not None and end >= duration_seconds:
                        break
        except KeyboardInterrupt:
            seen.interrupted = True
        except VideoError as error:
            if not seen.ends:
                return failure(shown, error.reason)
            seen.warning = error.reason
        return seen.prediction(shown, self.class_names, top_k, least)

    def _min_score(self, given: float | None) -> float:
        return least_score(given, len(self.class_names), multi_label=self.config.data.multi_label)

    def _finish(
        self, parts: Iterable[_Part], top_k: int, min_score: float, copies: LocalCopies
    ) -> Iterator[Prediction]:
        """Score the views of videos, each of which may come in several parts, into their results."""
        video, reason, error = VideoScores(), "", cast("Exception | None", None)
        for (copy, views, is_last), scored in self.scorer.score_each(parts, _clips_of):
            if scored is None:
                reason, error = reason or views.reason, error or views.error
            elif isinstance(scored, NoMemory):
                reason, error = reason or scored.reason, error or scored.error
            elif not np.isfinite(scored.scores).all():
                advice = "the weights are damaged" if self.precision == "fp32" else "try --precision fp32"
                reason = reason or f"the scores are not numbers in {self.precision}; {advice}"
            else:
                video.add(views.value, scored.scores, scored.features, forward_seconds=scored.seconds)
            if is_last:
                found = (
                    failure(copy.name, reason)
                    if reason
                    else video.prediction(copy.name, self.class_names, top_k, min_score)
                )
                yield replace(found, file=copy.path, error=error)
                copies.remove(copy)
                video, reason, error = VideoScores(), "", None

    def _class_names(self) -> list[str]:
        num_classes, source = self.config.model.num_classes, self.config.data.classes
        if source is None:
            return [f"class {index}" for index in range(num_classes)]
        names = load_class_names(source)
        if len(names) != num_classes:
            raise ConfigError(
                f"data.classes {source!r} names {len(names)} classes, model.num_classes is {num_classes}; "
                "they must be equal"
            )
        return names

    def _build(self) -> DualFormer:
        return build_model(self.config.model, self.config.data, kernels=self.config.runtime.kernels)

    def _load_model(
        self,
        offline: bool,
        progress: Callable[[int, int | None], None] | None,
        checkpoint: Mapping[str, Any] | None,
    ) -> tuple[DualFormer, str, str | None]:
        """Build the model and fill it: (model, what its weights are, their sha256)."""
        name = self.config.weights or "published"
        if name == "random":
            _LOGGER.warning("weights are random: labels and scores mean nothing")
            return self._build(), "random", None
        preset = self.preset if name == "published" else preset_of(name)
        if preset is not None:
            path = published_weights(preset, offline=offline, progress=progress)
        else:
            path = local_weights(name, offline=offline)
            require_weights(str(path))
        shown = name if is_hub_address(name) else str(path)
        with torch.device("meta"):  # no time for initial values that the weights replace
            model = self._build()
        checkpoint = read_checkpoint(path) if checkpoint is None else checkpoint
        report = load_weights(model.to_empty(device="cpu"), checkpoint, name=shown)
        names = class_names_of(checkpoint)
        if names is not None and len(names) != model.num_classes:
            raise WeightsError(
                f"weights {shown!r} name {len(names)} classes, but classify {model.num_classes}; take another file"
            )
        if names is not None:
            self.class_names, self.is_nameless = names, False
        _LOGGER.debug("%s: %s", path, report)
        return model, shown if preset is None else self._origin(preset), sha256_of(path)

    def _origin(self, preset: str) -> str:
        """Return what a preset's weights are: built-in or published, and of which preset where it is another one."""
        origin = "published" if shipped_weights(preset) is None else "built-in"
        return origin if preset == self.preset else f"{origin} {preset}"


def _read_copy(copy: LocalCopy, data: DataConfig) -> VideoViews:
    if copy.error is not None:
        raise copy.error
    return read_views(copy.path, data, data.test, part=copy.part)


def _read_here(copy: LocalCopy, read: Callable[[slice | None], VideoViews], *, is_timeline: bool) -> Iterator[_Part]:
    """Read a video in this process, the segments of a timeline a few at a time."""
    start, num_segments = 0, 1
    while start < num_segments:
        segments = slice(start, start + SEGMENTS_PER_READ) if is_timeline else None
        try:
            views = read(segments)
        except VideoError as error:
            yield copy, Outcome.failed(segments, error), True
            return
        start, num_segments = start + SEGMENTS_PER_READ, views.num_segments or 0
        yield copy, Outcome(segments, views), start >= num_segments


def _read_start(copy: LocalCopy, data: DataConfig, every_seconds: float, segments: slice) -> VideoViews:
    """Read the first segments of a video's timeline."""
    if copy.error is not None:
        raise copy.error
    return read_views(copy.path, data, data.test, segments, every_seconds=every_seconds, part=copy.part)


def _read_timelines(
    copies: Iterable[LocalCopy], data: DataConfig, every_seconds: float, pool: WorkerPool
) -> Iterator[_Part]:
    """Read timelines a few segments at a time: the next ones, and the next videos, while the caller scores."""
    segments = slice(0, SEGMENTS_PER_READ)
    for first in pool.imap(partial(_read_start, data=data, every_seconds=every_seconds, segments=segments), copies):
        copy = first.item
        num_segments = 0 if first.error is not None else first.value.num_segments or 0
        starts = range(SEGMENTS_PER_READ, num_segments, SEGMENTS_PER_READ)
        yield copy, first, not starts
        if not starts:
            continue
        slices = [slice(start, start + SEGMENTS_PER_READ) for start in starts]
        read = partial(read_views, copy.path, data, data.test, every_seconds=every_seconds, part=copy.part)
        for part in pool.imap(partial(read, index=first.value.index), slices):
            is_last = part.error is not None or part.item == slices[-1]
            yield copy, part, is_last
            if is_last:
                break


def _clips_of(part: _Part) -> Clips | None:
    _, views, _ = part
    return None if views.error is not None else views.value.clips
