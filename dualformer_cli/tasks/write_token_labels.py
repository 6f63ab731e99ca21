"""A teacher labels every token of a training list, once, into a folder: `dualformer tokenlabel write`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dualformer_cli.config.option_defaults import TOKEN_LABELS_OUTPUT, VIDEOS_PER_SHARD
from dualformer_cli.data.tokens.store import LabelFolder
from dualformer_cli.documents.tokenlabel import LabelPlan, TriedTeacher, WrittenLabels
from dualformer_cli.errors import ConfigError
from dualformer_cli.system.words import counted, size_in_words
from dualformer_cli.tasks.needs import check_label_needs
from dualformer_cli.tasks.session import ModelRequest, open_session, resolve

if TYPE_CHECKING:
    from dualformer_cli.config.load import ResolvedConfig
    from dualformer_cli.engine.training.label_writer import LabelWriter
    from dualformer_cli.system.workers import WorkerPool

SHEET = "sheet.png"
"""Picture of some labels, in their folder."""

Watching = Callable[[int], AbstractContextManager[Callable[[str], None]]]
"""Opens a display of so many videos; what it gives is called with the path of each that this process is done with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLabelsRequest:
    """Who labels which list, and where the labels go."""

    model: ModelRequest
    """The model that shall learn from the labels."""
    training_list: str | None = None
    """None for the one that the configuration names."""
    teacher: str | None = None
    """A file of weights, or a preset with published ones; None for the one that the configuration names."""
    output: Path = TOKEN_LABELS_OUTPUT
    """Folder of the labels; labels of an interrupted run are gone on with."""
    videos_per_shard: int = VIDEOS_PER_SHARD
    """Videos whose labels share a file."""

    def resolve(self) -> ResolvedConfig:
        """Return the configuration that the request describes.

        Raises:
            ConfigError: an unknown preset or key, or a value that is not allowed.
        """
        return resolve(self.model, self.settings())

    def settings(self) -> dict[str, object]:
        """Return the configuration keys that are given beside the model's."""
        return {"data.train_list": self.training_list}


def check(request: WriteLabelsRequest) -> None:
    """Refuse a folder that could not be used, and what is not there, before any work.

    Raises:
        DualFormerError: if the folder cannot be made or written, or holds something else than token labels; or if the
            list or the teacher is missing.
    """
    LabelFolder(request.output).check()
    check_label_needs(request.resolve().config, teacher=request.teacher, offline=request.model.offline)


def write_token_labels(
    request: WriteLabelsRequest,
    *,
    dry_run: bool = False,
    watching: Watching = lambda total: nullcontext(lambda path: None),
    note: Callable[[str], None] = lambda text: None,
    on_document: Callable[[LabelPlan | WrittenLabels], None] = lambda document: None,
) -> LabelPlan | WrittenLabels | None:
    """Try the teacher, estimate the disk space, and write the labels that are not there yet, on all ranks.

    Args:
        request: what to do.
        dry_run: stop after the estimate; nothing is written.
        watching: shows how far the list is.
        note: called with sentences about the teacher and the disk, before anything is written.
        on_document: called on rank 0 with the result, before a picture of it is drawn, which may fail.

    Returns:
        What is there now, or would be needed; None on ranks other than 0.

    Raises:
        DualFormerError: if list, teacher or folder cannot be used, the disk is too small, or a file not be written.
    """
    check(request)
    with open_session(request.model, request.settings(), preload="dualformer_cli.data.tokens.tiles") as session:
        from dualformer_cli.engine.training.label_writer import LabelWriter

        ranks, pool = session.ranks, session.pool
        teacher = request.teacher or session.resolved.config.train.teacher
        if teacher is None:
            raise ConfigError("no model labels: name it in train.teacher, a file of weights or a preset")
        writer = LabelWriter(
            session.resolved,
            teacher,
            ranks,
            output=request.output,
            videos_per_shard=request.videos_per_shard,
            offline=request.model.offline,
        )
        plan = _plan(writer, pool, note) if ranks.is_main else None
        if dry_run and plan is not None:
            on_document(plan)
        if dry_run:
            return plan
        videos = sum(len(writer.header.videos_of(shard)) for shard in writer.missing_shards())
        with watching(videos if ranks.is_main else 0) as on_video:
            writer.write(pool, on_video)
        if plan is None:
            return None
        document = WrittenLabels(
            teacher=plan.teacher,
            estimated_bytes=plan.estimated_bytes,
            summary=writer.summary(),
            output=plan.output,
        )
        on_document(document)
        _draw_sheet(writer, pool, request.output / SHEET)
    return document


def _plan(writer: LabelWriter, pool: WorkerPool, note: Callable[[str], None]) -> LabelPlan:
    """Try the teacher and look at the disk.

    Raises:
        DualFormerError: if no video can be read, or there is no room.
    """
    from dualformer_cli.engine.training.label_writer import CHANCE

    trial = writer.verify(pool)
    note(f"the teacher is right on {trial.right:,} of {counted(trial.videos, 'video')} of the list")
    if trial.chance > CHANCE:
        note(
            f"warning: chance would do as well in {trial.chance:.0%} of cases; are weights, preset and classes "
            "of the teacher the right ones?"
        )
    estimate = writer.estimate(pool)
    spread = f" (give or take {2 * estimate.standard_error / estimate.bytes:.0%})" if estimate.standard_error else ""
    note(f"the labels will take {size_in_words(estimate.bytes)}{spread}")
    writer.check_space(estimate)
    return LabelPlan(
        teacher=TriedTeacher(facts=writer.header.teacher, trial=trial),
        estimated_bytes=round(estimate.bytes),
        output=str(writer.folder.root),
    )


def _draw_sheet(writer: LabelWriter, pool: WorkerPool, path: Path) -> None:
    from dualformer_cli.outputs.tokens import Panel, write_sheet

    panels = [Panel(row.frame, row.classes, Path(row.path).name) for row in writer.sheet(pool)]
    if panels:
        write_sheet(panels, writer.header.class_names, path, title=f"stored labels of {writer.header.teacher.source}")
