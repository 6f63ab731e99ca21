"""A list of videos is scored, or scores of an earlier run are read, and summed up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dualformer_cli.documents.evaluate import Evaluation
from dualformer_cli.engine.score_settings import FREE_SETTINGS, settings_before_loading
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import write_all
from dualformer_cli.system.output_checks import check_outputs
from dualformer_cli.system.result_parts import Parts
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.tasks.needs import check_lists
from dualformer_cli.tasks.session import DEFAULT_PRESET, Fetching, ModelRequest, open_session

if TYPE_CHECKING:
    from dualformer_cli.data.lists.samples import LabelledList
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.engine.parallel.ranks import Ranks
    from dualformer_cli.engine.scoring.dump import Dump
    from dualformer_cli.engine.scoring.kept_records import KeptRecords
    from dualformer_cli.engine.scoring.records import VideoRecord

THUMBNAIL_SECONDS = 20.0
"""A worker that makes no progress for so long on a picture for the page is given up."""

Watching = Callable[[int], AbstractContextManager[Callable[["VideoRecord"], None]]]
"""Opens a display of so many videos; what it gives is called on rank 0 with each that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateRequest:
    """What is scored or read, and what is written of it."""

    model: ModelRequest = field(default_factory=ModelRequest)
    data: str | None = None
    """List of videos; None for the one that the configuration names."""
    from_dump: Path | None = None
    """Take the scores of this file in place of a model's."""
    compare: Path | None = None
    """Compare with the run that wrote this dump."""
    dump: Path | None = None
    """File for labels and scores of all views, as JSON lines."""
    report: Path | None = None
    """File for a page to look at, HTML."""
    resume: bool = False
    """Go on from what a run that was stopped has kept beside `dump`."""
    overwrite: bool = False
    """Whether files that exist may be replaced."""

    @property
    def kept(self) -> Path | None:
        """Folder beside the dump that keeps scores until it is written."""
        return None if self.dump is None else self.dump.with_name(f"{self.dump.name}.parts")

    def settings(self) -> dict[str, object]:
        """Return the configuration keys that are given beside the model's."""
        return {"data.validation_list": self.data}


def check(request: EvaluateRequest) -> None:
    """Refuse what cannot be done, before any work.

    Raises:
        DualFormerError: if a file could not be written in the end, or should not be replaced, or the list is not there.
    """
    outputs = [path for path in (request.dump, request.report) if path is not None]
    inputs = (request.data, request.from_dump, request.compare, request.model.weights)
    check_outputs(outputs, [str(path) for path in inputs if path is not None], overwrite=request.overwrite)
    if request.kept is not None and request.kept.exists() and not (request.resume or request.overwrite):
        raise DualFormerError(
            f"{str(request.kept)!r} holds the scores of a run that was stopped; go on with --resume, or start again "
            "with --overwrite"
        )
    if request.from_dump is None:
        check_lists(request.data, offline=request.model.offline)


def evaluate(
    request: EvaluateRequest,
    *,
    fetching: Fetching = lambda: nullcontext(lambda name, done, total: None),
    watching: Watching = lambda total: nullcontext(lambda record: None),
    on_document: Callable[[Evaluation, Dump], None] = lambda document, scores: None,
    on_written: Callable[[Path], None] = lambda path: None,
) -> Evaluation | None:
    """Score a list on all ranks, or read a dump; sum it up and write what was asked for.

    Args:
        request: what to do.
        fetching: shows how far a file of weights is.
        watching: shows how far the list is.
        on_document: called on rank 0 with the result before any file is written, so that it is known even if a disk is
            full; and with the scores that it sums up.
        on_written: called on rank 0 with each file once it is written.

    Returns:
        The document; None on other ranks than 0.

    Raises:
        DualFormerError: if a list, weights or a dump cannot be read, or a file not be written; that after all else.
    """
    check(request)
    from dualformer_cli.engine.scoring.dump import read_dump

    other = None if request.compare is None else read_dump(request.compare)
    scores = read_dump(request.from_dump) if request.from_dump is not None else _score(request, fetching, watching)
    if scores is None:
        return None
    document = scores.document(other)
    on_document(document, scores)
    _write(request, document, scores, on_written)
    return document


def _score(request: EvaluateRequest, fetching: Fetching, watching: Watching) -> Dump | None:
    """Return the scores of the list on rank 0, None on others."""
    with open_session(request.model, request.settings(), default=DEFAULT_PRESET) as session:
        ranks = session.ranks
        if request.kept is not None and request.resume:
            _parts(request.kept, settings_before_loading(session.resolved)).check()
        engine = session.load_engine(fetching)
        listed = engine.open_list(ranks)
        with (
            _keeping(request, engine, listed, ranks) as kept,
            watching(len(listed) if ranks.is_main else 0) as on_video,
        ):
            scores = engine.evaluate(listed, session.pool, ranks, on_video=on_video, kept=kept)
        return scores if ranks.is_main else None


@contextmanager
def _keeping(
    request: EvaluateRequest, engine: Engine, listed: LabelledList, ranks: Ranks
) -> Iterator[KeptRecords | None]:
    """Open the folder that keeps scores until the dump is written; None where no dump is asked for."""
    if request.kept is None:
        yield None
        return
    from dualformer_cli.engine.parallel.reductions import barrier
    from dualformer_cli.engine.scoring.kept_records import KeptRecords

    parts = _parts(request.kept, {"list": listed.fingerprint, **engine.settings()})
    if ranks.is_main:
        if not request.resume:
            parts.remove()
        parts.open()
    barrier()
    kept = KeptRecords(parts, ranks.rank)
    try:
        yield kept
    finally:
        kept.close()
        parts.close()


def _parts(kept: Path, settings: Mapping[str, object]) -> Parts:
    return Parts(kept, settings, holds="scores", free=FREE_SETTINGS)


def _write(request: EvaluateRequest, document: Evaluation, scores: Dump, on_written: Callable[[Path], None]) -> None:
    """Write every file that was asked for, and name each that could be written."""
    from dualformer_cli.outputs.runs import write_json_lines

    def write(path: Path, into: Callable[[Path], None]) -> None:
        into(path)
        on_written(path)

    writes: list[tuple[Path | None, Callable[[Path], None]]] = [
        (request.dump, lambda path: write_json_lines(scores.rows(), path)),
        (request.report, lambda path: _write_page(scores, document, path, request.compare)),
    ]
    write_all(*(partial(write, path, into) for path, into in writes if path is not None))
    if request.kept is not None:
        shutil.rmtree(request.kept, ignore_errors=True)  # all of it is in the dump


def _write_page(scores: Dump, document: Evaluation, target: Path, other: Path | None) -> None:
    from dualformer_cli.engine.scoring.page import page_of
    from dualformer_cli.outputs.eval_page import write_eval_report
    from dualformer_cli.video.thumbnails import read_thumbnails

    page = replace(page_of(scores, document), other=None if other is None else str(other))
    if page.worst:
        with WorkerPool(1, THUMBNAIL_SECONDS) as pool:
            pictures = read_thumbnails({row.path: scores.file_of(row.path) for row in page.worst}, pool)
        page = replace(page, worst=tuple(replace(row, thumbnail=pictures.get(row.path)) for row in page.worst))
    write_eval_report(page, target)
