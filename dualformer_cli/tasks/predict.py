"""Videos are classified: a handful, with files beside them, or a disk of them, into a run folder."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from dualformer_cli.config.option_defaults import LIVE_SECONDS, TOP_K
from dualformer_cli.data.fetch.web_videos import fetch_addresses, is_web_address
from dualformer_cli.documents.predict import LiveClip, ModelFacts, PredictionRun, Predictions, VideoResult
from dualformer_cli.engine.score_settings import settings_before_loading
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks.labelled_inputs import LabelCheck, count_labels, list_reader
from dualformer_cli.tasks.prediction_outputs import PredictionOutputs, parts_of
from dualformer_cli.tasks.session import DEFAULT_PRESET, Fetching, ModelRequest, Session, open_session
from dualformer_cli.video.addresses import is_live, mask_credentials
from dualformer_cli.video.inputs import InputList, ListedLabel, expand_inputs, find_absent, list_inputs
from dualformer_cli.video.remote_files import is_remote, require_remote

if TYPE_CHECKING:
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.engine.scoring.video_scores import Prediction

Watching = Callable[[Callable[[], int]], AbstractContextManager[Callable[[VideoResult], None]]]
"""Opens a display of as many videos as what it is given says; what it gives is called with each result as it comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictRequest:
    """Which videos are classified, and what is written of them."""

    model: ModelRequest = field(default_factory=ModelRequest)
    inputs: tuple[str, ...] = ()
    """Videos, folders, patterns, @list.txt, - for a list on stdin, cameras and addresses."""
    top_k: int = TOP_K
    """Labels per video."""
    min_score: float | None = None
    """Below it the best label is unsure, 0 to 1; None: a tenth of the way from chance, 1 / classes, to 1."""
    every_seconds: float | None = None
    """Length of the segments of a timeline; None for none."""
    duration_seconds: float | None = None
    """When to stop a camera or stream."""
    output: Path | None = None
    """Folder that keeps every result as soon as it is known, and from which the next run goes on."""
    retry_failed: bool = False
    """Whether `output` gives up what it says of videos that failed."""
    csv: Path | None = None
    subtitles: Mapping[str, Path] = field(default_factory=dict)
    """By format, of those in `SUBTITLES`: a file, or a folder with a file for each video; so is `save`."""
    segments: Path | None = None
    """Segments of all videos, in the format of the ending."""
    save: Path | None = None
    font: Path | None = None
    """Font of the labels in `save`, for letters that the built-in one lacks; None: one of the system."""
    features: Path | None = None
    report: Path | None = None
    """Page to look through; one of many videos is several files."""
    overwrite: bool = False
    """Whether files that exist may be replaced."""

    def __post_init__(self) -> None:
        if not isinstance(self.top_k, int) or self.top_k < 1:
            raise ValueError(f"top_k must be a whole number from 1, got {self.top_k!r}")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise ValueError(f"min_score must be from 0 to 1, got {self.min_score!r}")
        for name in ("every_seconds", "duration_seconds"):
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds < math.inf:
                raise ValueError(f"{name} must be positive, got {seconds!r}")


def absent_inputs(
    names: Sequence[str], model: ModelRequest, *, stdin: TextIO | None
) -> tuple[tuple[VideoResult, ...], bool]:
    """Return a result with its error for each input that leads to nothing, and whether none leads to anything.

    Args:
        names: the inputs.
        model: whose configuration says how lists are read.
        stdin: where the input - reads a list.
    """
    problems, is_all = find_absent(names, stdin=stdin, read_labelled=list_reader(model))
    return tuple(VideoResult(path=name, status="error", error=reason) for name, reason in problems), is_all


def write_absent(request: PredictRequest, absent: Sequence[VideoResult]) -> list[str]:
    """Write the files of a request of which no input is there, without a model, and return what was written.

    A run folder stays as it is.

    Raises:
        DualFormerError: if a file could not be written, or should not be replaced.
    """
    if request.output is not None:
        return []
    outputs = PredictionOutputs(request, InputList(problems=[(result.path, result.error or "") for result in absent]))
    for result in absent:
        outputs.add(result, ())
    outputs.finish(absent)
    return outputs.written(absent)


def predict(
    request: PredictRequest,
    *,
    stdin: TextIO | None = None,
    fetching: Fetching = lambda: nullcontext(lambda name, done, total: None),
    watching: Watching = lambda total: nullcontext(lambda result: None),
    on_fallback: Callable[[str], None] = lambda note: None,
    on_model: Callable[[ModelFacts], None] = lambda facts: None,
    on_clip: Callable[[LiveClip], None] = lambda clip: None,
    on_document: Callable[[Predictions | PredictionRun], None] = lambda document: None,
    on_written: Callable[[str], None] = lambda what: None,
) -> Predictions | PredictionRun | None:
    """Classify videos on all ranks.

    Args:
        request: what to do.
        stdin: where the input - reads a list.
        fetching, watching: show how far a file is, and on rank 0 each result as it comes.
        on_fallback: told in two lines that the built-in model is taken.
        on_model: told on rank 0 what classifies, before the first result.
        on_clip: told about each clip of a live input at once.
        on_document: called on rank 0 with the document before the last files are written, so that it is known even if
            a disk is full.
        on_written: told on rank 0 of each file, or of the number of files in a folder, that was written at the end.

    Returns:
        The document; None on other ranks than 0.

    Raises:
        DualFormerError: if weights or outputs do not fit, or a file could not be written; that after all else. A video
            that cannot be used is a result with its error.
    """
    offline = request.model.offline
    read = list_reader(request.model)
    expand = partial(expand_inputs, stdin=stdin, offline=offline, read_labelled=read)
    found = _check_names(request) if request.output else expand(request.inputs)
    outputs = PredictionOutputs(request, found)
    shown = fetch_addresses(found, fetching, offline=offline)
    live = [path for path in found.paths if path not in found.remote and is_live(path)]
    files = [path for path in found.paths if path in found.remote or not is_live(path)]
    _check_live(request, live)
    outputs.name_files(files)
    with open_session(request.model, default=DEFAULT_PRESET) as session:
        if live and session.ranks.world_size > 1:
            raise DualFormerError(f"{mask_credentials(live[0])!r} is live: one process is enough for it")
        engine = _load_engine(request, session, fetching, on_fallback, on_model)
        if request.output is not None:
            from dualformer_cli.tasks.prediction_run import run

            list_into = partial(list_inputs, request.inputs, stdin=stdin, offline=offline, read_labelled=read)
            return run(request, session, engine, list_into, fetching, watching, on_document)
        task = _Task(request, session, engine, outputs, shown, found.labels)
        results = task.results(found.problems, files, live, watching, on_clip)
        return task.document(results, on_document, on_written) if session.ranks.is_main else None


def _load_engine(
    request: PredictRequest,
    session: Session,
    fetching: Fetching,
    on_fallback: Callable[[str], None],
    on_model: Callable[[ModelFacts], None],
) -> Engine:
    """Return the model that classifies, and say on rank 0 which one it is; refuse a run folder of another one."""
    from dualformer_cli.tasks.built_in_model import fall_back  # loads torch

    fall_back(session, fetching, on_fallback)
    if request.output is not None and request.model.model is None:  # else it is loaded already
        parts_of(request, settings_before_loading(session.resolved)).check()
    engine = session.load_engine(fetching, bf16_on_cpu=True)
    if session.ranks.is_main:
        on_model(engine.describe())
    return engine


def _check_names(request: PredictRequest) -> InputList:
    """Refuse what a run folder cannot take; return no inputs, as they are found while it runs."""
    for name in request.inputs:
        if os.path.lexists(name):
            continue
        if is_remote(name):
            require_remote(name, offline=request.model.offline)
        elif is_live(name) and not is_web_address(name):
            _check_live(request, [name])
    return InputList()


def _check_live(request: PredictRequest, live: Sequence[str]) -> None:
    """Refuse outputs that a camera or stream cannot have."""
    if not live:
        return
    named = [*request.subtitles, *(["save"] if request.save else ()), *(["output"] if request.output else ())]
    if named:
        raise DualFormerError(f"--{named[0]} needs files, but {mask_credentials(live[0])!r} is live; use --csv")


@dataclass(frozen=True, slots=True)
class _Task:
    """A handful of inputs, whose results stay in memory."""

    request: PredictRequest
    session: Session
    engine: Engine
    outputs: PredictionOutputs
    shown: Mapping[str, str]
    """What is shown of an address, by the file that was fetched from it or the address itself."""
    labels: Mapping[str, Sequence[ListedLabel]]
    """That lists give, by path."""

    def results(
        self,
        problems: Sequence[tuple[str, str]],
        files: Sequence[str],
        live: Sequence[str],
        watching: Watching,
        on_clip: Callable[[LiveClip], None],
    ) -> tuple[VideoResult, ...]:
        """Return the results of all inputs on rank 0, none elsewhere."""
        from dualformer_cli.engine.parallel.shared_work import SharedWork
        from dualformer_cli.engine.scoring.video_scores import failure

        results: list[VideoResult] = []
        check = LabelCheck(self.engine.class_names, is_nameless=self.engine.is_nameless)

        def take(prediction: Prediction, on_result: Callable[[VideoResult], None]) -> None:
            path = prediction.result.path
            result = check.checked(prediction.result, self.labels.get(path, ()))
            result = replace(result, path=self.shown.get(path, path))
            results.append(result)
            on_result(result)
            self.outputs.add(result, prediction.features)

        is_main = self.session.ranks.is_main
        with watching(lambda: 0) as on_result:
            for name, reason in problems if is_main else ():
                take(failure(name, reason), on_result)
        with watching(lambda: len(files) if is_main else 0) as on_result:
            work = SharedWork[str](self.session.ranks)
            for prediction in work.in_order(files, self._classify):
                take(prediction, on_result)
            for path in work.lost_items:
                take(failure(path, "lost: the process that had it in hand has died; classify it again"), on_result)
        with watching(lambda: 0) as on_result:
            for name in live:
                take(self._classify_live(name, on_clip), on_result)
                if results[-1].interrupted:
                    break
        return tuple(results)

    def document(
        self,
        results: tuple[VideoResult, ...],
        on_document: Callable[[Predictions], None],
        on_written: Callable[[str], None],
    ) -> Predictions:
        """Return the document of all results, and write what is written at the end."""
        facts, fallback, counts = self.engine.describe(), self.session.fallback, count_labels(results)
        document = Predictions(facts=facts, fallback=fallback, results=results, compared=counts)
        on_document(document)
        self.outputs.finish(results, facts=facts, fallback=fallback, pool=self.session.pool)
        for what in self.outputs.written(results):
            on_written(what)
        return document

    def _classify(self, paths: Iterator[str]) -> Iterator[Prediction]:
        pool, request = self.session.pool, self.request
        top_k, every, least = request.top_k, request.every_seconds, request.min_score
        for prediction in self.engine.predict(paths, pool, top_k=top_k, every_seconds=every, min_score=least):
            result = self.outputs.write_beside(prediction, pool, self.engine.config.data)
            yield replace(prediction, result=result)

    def _classify_live(self, name: str, on_clip: Callable[[LiveClip], None]) -> Prediction:
        return self.engine.predict_live(
            name,
            top_k=self.request.top_k,
            every_seconds=self.request.every_seconds or LIVE_SECONDS,
            duration_seconds=self.request.duration_seconds,
            min_score=self.request.min_score,
            on_clip=on_clip,
        )
