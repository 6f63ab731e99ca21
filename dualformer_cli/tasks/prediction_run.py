"""A run folder: results of any number of videos are kept as they come, and a run that was stopped goes on from them.

Every process appends to a part of its own (system/result_parts.py). At the end the parts become the files that users
read, in the order of the inputs, whoever classified which video, and when.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.predict import FeatureRow, PredictionRun, VideoResult
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.parallel.reductions import barrier
from dualformer_cli.engine.parallel.shared_work import SharedWork
from dualformer_cli.engine.scoring.video_scores import Prediction
from dualformer_cli.errors import DualFormerError, is_out_of_memory
from dualformer_cli.outputs.prediction_files import (
    csv_file,
    json_lines_file,
    parquet_file,
    write_features,
    write_segments,
)
from dualformer_cli.outputs.predictions_page import page_files, write_predictions_page
from dualformer_cli.system.files import remove_unfinished
from dualformer_cli.system.output_checks import check_outputs
from dualformer_cli.system.result_parts import Parts, PartWriter
from dualformer_cli.system.workers import WorkerPool, WorkerTimeout
from dualformer_cli.tasks.labelled_inputs import LabelCheck, count_labels
from dualformer_cli.tasks.prediction_index import Input, PredictionIndex, Stamp, index_in_words, stamp_of
from dualformer_cli.tasks.prediction_outputs import parts_of
from dualformer_cli.tasks.session import Fetching, Session
from dualformer_cli.video.inputs import InputSink
from dualformer_cli.video.tar_members import opened

if TYPE_CHECKING:
    from dualformer_cli.tasks.predict import PredictRequest, Watching


@index_in_words()
def run(
    request: PredictRequest,
    session: Session,
    engine: Engine,
    list_into: Callable[[InputSink], None],
    fetching: Fetching,
    watching: Watching,
    on_document: Callable[[PredictionRun], None],
) -> PredictionRun | None:
    """Classify what the folder does not hold yet, on all ranks, and write the files; the document on rank 0.

    Args:
        request, session, engine: what to do, and with what.
        list_into: finds the inputs and gives each to what it is called with.
        fetching, watching, on_document: as `predict` takes them.

    Raises:
        DualFormerError: if the folder holds results of other settings, another run writes into it, or it cannot be
            written; or if there is no room for the list of inputs.
    """
    assert request.output is not None
    ranks = session.ranks
    parts = parts_of(request, engine.settings())
    if ranks.is_main:
        parts.open()
    barrier()
    try:
        with parts.writer(ranks.rank) as writer:
            worker = _Worker(request, session, engine, writer)
            work = SharedWork[Input](ranks)
            if not ranks.is_main:
                for _ in work.in_order((), worker.classify):  # nothing: results go to rank 0
                    pass
                return None
            index = _index(request, engine, parts)
            index.find(list_into, fetching, offline=request.model.offline)
            with watching(index.num_left) as on_result:
                for result in chain(work.in_order(index.left(), worker.classify), index.problems()):
                    on_result(result)
        index.update()
        index.forget_old(work.lost_items)
        files = _write_files(request, parts, index)
        document = PredictionRun(
            facts=engine.describe(),
            fallback=session.fallback,
            output=str(request.output),
            videos=index.counts(),
            files=files,
            compared=count_labels(index.known()) if index.has_labels else None,
        )
        try:
            if request.report is not None:
                pages = _write_page(request, document, index, session.pool)
                document = replace(document, files=(*files, *map(str, pages)))
        finally:
            on_document(document)
        return document
    finally:
        parts.close()


@dataclass(frozen=True, slots=True)
class _Worker:
    """Classifies what this process draws, and keeps each result before the next one."""

    request: PredictRequest
    session: Session
    engine: Engine
    writer: PartWriter

    def classify(self, inputs: Iterator[Input]) -> Iterator[VideoResult]:
        drawn: deque[tuple[str, Stamp]] = deque()

        def paths() -> Iterator[str]:
            for path, shown, stamp in inputs:
                drawn.append((shown, stamp or stamp_of(path)))  # before it is read, so that a later change shows
                yield path

        request, pool = self.request, self.session.pool
        top_k, every, least = request.top_k, request.every_seconds, request.min_score
        for prediction in self.engine.predict(paths(), pool, top_k=top_k, every_seconds=every, min_score=least):
            shown, stamp = drawn.popleft()
            result = replace(prediction.result, path=shown)
            if result.status == "error" and (
                not _can_be_read(prediction.file)
                or (prediction.error is not None and is_out_of_memory(prediction.error))
            ):
                stamp = None
            self._keep(replace(prediction, result=result), stamp)
            yield result

    def _keep(self, prediction: Prediction, stamp: Stamp) -> None:
        result = replace(prediction.result, timing=None)
        row: dict[str, object] = {"stamp": stamp, "result": to_json(result)}
        if isinstance(prediction.error, WorkerTimeout):
            row["timeout"] = prediction.error.seconds
        blob = b""
        if self.request.features is not None and prediction.features:
            row["times"] = [[each.start_seconds, each.end_seconds] for each in prediction.features]
            blob = np.stack([each.features for each in prediction.features]).astype("<f4").tobytes()
        self.writer.append(row, blob)


def _can_be_read(path: str) -> bool:
    """Return whether a file's content can be had: where not, the fault may be the disk's, or its owner's."""
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        with opened(path) as (file, start, _):
            file.seek(start)
            return file.read(1) is not None
    except (OSError, ValueError, DualFormerError):
        return False


def _index(request: PredictRequest, engine: Engine, parts: Parts) -> PredictionIndex:
    check = LabelCheck(engine.class_names, is_nameless=engine.is_nameless).checked
    patience = math.inf if request.retry_failed else engine.config.data.decode_timeout_seconds
    return PredictionIndex(parts, check, patience=patience)


class _Features:
    """Rows of features in the order of the inputs, read from the parts each time they are gone through."""

    def __init__(self, parts: Parts, index: PredictionIndex) -> None:
        self._parts, self._index = parts, index

    def __iter__(self) -> Iterator[FeatureRow]:
        for result, row, part in self._index.results():
            if result is None or "blob" not in row:
                continue
            content = self._parts.blob(part, row["blob"])
            vectors = np.frombuffer(content, "<f4").reshape(len(row["times"]), -1)
            for (start, end), features in zip(row["times"], vectors, strict=True):
                yield FeatureRow(path=result.path, start_seconds=start, end_seconds=end, features=features)


def _write_files(request: PredictRequest, parts: Parts, index: PredictionIndex) -> tuple[str, ...]:
    """Write the files of a run folder, and return their names.

    Raises:
        DualFormerError: if one cannot be written; the results stay in the parts.
    """
    assert request.output is not None
    files = [request.output / "predictions.jsonl", request.output / "predictions.csv"]
    inside = [
        path for path in (request.features, request.segments, request.report) if path and path.parent == request.output
    ]
    for path in (*files, request.output / "predictions.parquet", *inside):
        remove_unfinished(path)  # the folder is this run's alone
    with ExitStack() as stack:
        taking = [
            stack.enter_context(json_lines_file(files[0])),
            stack.enter_context(csv_file(files[1], with_labels=index.has_labels)),
        ]
        if importlib.util.find_spec("pyarrow") is not None:
            files.append(request.output / "predictions.parquet")
            taking.append(stack.enter_context(parquet_file(files[-1], with_labels=index.has_labels)))
        for result in index.known():
            for take in taking:
                take(result)
    if request.segments is not None:
        files.append(request.segments)
        write_segments(index.known, files[-1])
    if request.features is not None:
        files.append(request.features)
        write_features(_Features(parts, index), files[-1])
    return tuple(map(str, files))


def _write_page(
    request: PredictRequest, document: PredictionRun, index: PredictionIndex, pool: WorkerPool
) -> list[Path]:
    assert request.report is not None
    files = page_files(request.report, document.videos.listed)  # how many there are is not known before
    check_outputs([file for file in files if file.parent != request.output], (), overwrite=request.overwrite)
    facts, fallback, lost = document.facts, document.fallback, document.videos.lost
    return write_predictions_page(index.known(), request.report, facts=facts, fallback=fallback, pool=pool, lost=lost)
