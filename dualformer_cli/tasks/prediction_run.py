"""A run folder: results of any number of videos are kept as they come, and a run that was stopped goes on from them.

Every process appends to a part of its own (system/parts.py). At the end the parts become the files that users read, in
the order of the inputs, whoever classified which video, and when.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dualformer_cli.documents.base import from_json, to_json
from dualformer_cli.documents.predict import FeatureRow, PredictionRun, RunCounts, VideoResult
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.parallel.reductions import barrier
from dualformer_cli.engine.parallel.shared_work import SharedWork
from dualformer_cli.engine.scoring.video_scores import Prediction, failure
from dualformer_cli.outputs.prediction_files import write_csv, write_features, write_parquet
from dualformer_cli.outputs.predictions_page import write_predictions_page
from dualformer_cli.outputs.runs import write_json_lines
from dualformer_cli.system.parts import Parts, PartWriter
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.tasks.session import Session
from dualformer_cli.video.inputs import InputList

if TYPE_CHECKING:
    from dualformer_cli.tasks.predict import PredictRequest, Watching

FORMAT = 1
"""Of the lines in the parts; results of another one are not gone on with."""

Stamp = list[int] | None
"""Size and time of a file when it was read; None: it could not be, and is tried again in the next run."""


def run(
    request: PredictRequest,
    session: Session,
    engine: Engine,
    found: InputList,
    *,
    watching: Watching,
    on_document: Callable[[PredictionRun], None],
) -> PredictionRun | None:
    """Classify what the folder does not hold yet, on all ranks, and write the files; the document on rank 0.

    Raises:
        DualFormerError: if the folder holds results of other settings, another run writes into it, or it cannot be
            written.
    """
    assert request.output is not None
    ranks = session.ranks
    parts = Parts(request.output / "parts", _settings(request, engine), holds="predictions")
    if ranks.is_main:
        parts.open()
    barrier()
    try:
        index = _Index(parts) if ranks.is_main else None
        work = SharedWork[str](ranks)
        with parts.writer(ranks.rank) as writer:
            worker = _Worker(request, session, engine, writer)
            if index is not None:
                index.list(found)
            with watching(0 if index is None else index.num_left()) as on_result:
                for result in work.in_order(() if index is None else index.left(), worker.classify):
                    on_result(result)
        if index is None:
            return None
        counts, files = _write_files(request, parts, index)
        document = PredictionRun(
            facts=engine.describe(),
            fallback=session.fallback,
            output=str(request.output),
            videos=counts,
            files=files,
        )
        try:
            if request.report is not None:
                pages = _write_page(request.report, document, index, session.pool)
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

    def classify(self, paths: Iterator[str]) -> Iterator[VideoResult]:
        stamps: dict[str, Stamp] = {}

        def stamped() -> Iterator[str]:
            for path in paths:
                stamps[path] = stamp_of(path)  # before it is read, so that a later change shows
                yield path

        request, pool = self.request, self.session.pool
        for prediction in self.engine.predict(
            stamped(), pool, top_k=request.top_k, every_seconds=request.every_seconds
        ):
            result = prediction.result
            stamp = stamps.pop(result.path)
            if result.status == "error" and not _can_be_read(result.path):
                stamp = None
            self._keep(prediction, stamp)
            yield result

    def _keep(self, prediction: Prediction, stamp: Stamp) -> None:
        result = replace(prediction.result, timing=None)
        row: dict[str, object] = {"stamp": stamp, "result": to_json(result)}
        blob = b""
        if self.request.features is not None and prediction.features:
            row["times"] = [[each.start_seconds, each.end_seconds] for each in prediction.features]
            blob = np.stack([each.features for each in prediction.features]).astype("<f4").tobytes()
        self.writer.append(row, blob)


def stamp_of(path: str) -> Stamp:
    """Return what shows that a file has changed; None if there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _can_be_read(path: str) -> bool:
    """Return whether a file's content can be had: where not, the fault may be the disk's, or its owner's."""
    try:
        if os.path.isdir(path):
            return bool(os.listdir(path))
        with open(path, "rb") as file:
            return file.read(1) is not None
    except (OSError, ValueError):
        return False


def _settings(request: PredictRequest, engine: Engine) -> dict[str, object]:
    """Return what a result depends on."""
    options = {"--top-k": request.top_k, "--every": request.every_seconds, "--features": request.features is not None}
    return {"format": FORMAT, **options, **engine.settings()}


class _Index:
    """Which inputs there are, in their order, and where their results lie: on disk, as there may be a million."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.num_kept = 0
        self._lock = threading.Lock()  # rank 0's items are listed in a thread
        self._base = sqlite3.connect("", check_same_thread=False)  # a temporary file of SQLite's
        self._base.execute(
            "CREATE TABLE results (path BLOB PRIMARY KEY, stamp TEXT, part TEXT, offset INT) WITHOUT ROWID"
        )
        self._base.execute("CREATE TABLE inputs (number INTEGER PRIMARY KEY, path BLOB, problem TEXT)")
        self.update()

    def update(self) -> None:
        """Find every result that is in a part; of several of one path the latest counts."""
        rows = (
            (_blob(line.row["result"]["path"]), json.dumps(line.row["stamp"]), line.part, line.offset)
            for line in self.parts.lines()
        )
        with self._lock, self._base:
            self._base.executemany("INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)", rows)

    def list(self, found: InputList) -> None:
        """Note the inputs, in their order."""
        rows = [(_blob(name), reason) for name, reason in found.problems]
        with self._lock, self._base:
            self._base.executemany("INSERT INTO inputs (path, problem) VALUES (?, ?)", rows)
            self._base.executemany("INSERT INTO inputs (path) VALUES (?)", ((_blob(path),) for path in found.paths))

    def num_left(self) -> int:
        """Return how many inputs have no result that still holds, and count the others."""
        left = sum(1 for _ in self.left())
        self.num_kept = self._one("SELECT COUNT(*) FROM inputs WHERE problem IS NULL") - left
        return left

    def left(self) -> Iterator[str]:
        """Return the inputs without a result that still holds: they are new, changed, or could not be read."""
        for path, problem, stamp, *_ in self._joined():
            if problem is None and (stamp in (None, "null") or json.loads(stamp) != stamp_of(path)):
                yield path

    def results(self) -> Iterator[tuple[VideoResult | None, Mapping[str, Any], str]]:
        """Return the result of each input, None for one that is lost; with its row and its part."""
        for path, problem, _, part, offset in self._joined():
            if problem is not None:
                yield failure(path, problem).result, {}, ""
            elif part is None:
                yield None, {}, ""
            else:
                row = self.parts.read(part, offset)
                yield from_json(VideoResult, row["result"]), row, part

    def known(self) -> Iterator[VideoResult]:
        """Return the results of all inputs but those that are lost."""
        return (result for result, *_ in self.results() if result is not None)

    def _joined(self) -> Iterator[tuple[str, str | None, str | None, str | None, int]]:
        """Return path, problem, stamp, part and offset of each input, a few at a time."""
        number = 0
        query = (
            "SELECT number, inputs.path, problem, stamp, part, offset FROM inputs LEFT JOIN results "
            "ON inputs.path = results.path WHERE number > ? ORDER BY number LIMIT 1000"
        )
        while True:
            with self._lock:
                rows = self._base.execute(query, (number,)).fetchall()
            if not rows:
                return
            number = rows[-1][0]
            for _, path, *others in rows:
                yield (path.decode("utf-8", "surrogatepass"), *others)

    def _one(self, query: str) -> int:
        with self._lock:
            return int(self._base.execute(query).fetchone()[0])


class _Features:
    """Rows of features in the order of the inputs, read from the parts each time they are gone through."""

    def __init__(self, parts: Parts, index: _Index) -> None:
        self._parts, self._index = parts, index

    def __iter__(self) -> Iterator[FeatureRow]:
        for result, row, part in self._index.results():
            if result is None or "blob" not in row:
                continue
            content = self._parts.blob(part, row["blob"])
            vectors = np.frombuffer(content, "<f4").reshape(len(row["times"]), -1)
            for (start, end), features in zip(row["times"], vectors, strict=True):
                yield FeatureRow(path=result.path, start_seconds=start, end_seconds=end, features=features)


def _write_files(request: PredictRequest, parts: Parts, index: _Index) -> tuple[RunCounts, tuple[str, ...]]:
    """Write the files of a run folder, and count what is in them.

    Raises:
        DualFormerError: if one cannot be written; the results stay in the parts.
    """
    assert request.output is not None
    index.update()
    counts = dict.fromkeys(("ok", "error", "lost"), 0)
    for result, *_ in index.results():
        counts["lost" if result is None else result.status] += 1

    files = [request.output / "predictions.jsonl", request.output / "predictions.csv"]
    write_json_lines(map(to_json, index.known()), files[0])
    write_csv(index.known(), files[1])
    if importlib.util.find_spec("pyarrow") is not None:
        files.append(request.output / "predictions.parquet")
        write_parquet(index.known(), files[-1])
    if request.features is not None:
        files.append(request.features)
        write_features(_Features(parts, index), files[-1])
    videos = RunCounts(
        listed=sum(counts.values()), ok=counts["ok"], failed=counts["error"], kept=index.num_kept, lost=counts["lost"]
    )
    return videos, tuple(map(str, files))


def _write_page(path: Path, document: PredictionRun, index: _Index, pool: WorkerPool) -> list[Path]:
    facts, fallback, lost = document.facts, document.fallback, document.videos.lost
    return write_predictions_page(index.known(), path, facts=facts, fallback=fallback, pool=pool, lost=lost)


def _blob(path: str) -> bytes:
    """Return a path as SQLite takes it: names that are not UTF-8 are no text."""
    return path.encode("utf-8", "surrogatepass")
