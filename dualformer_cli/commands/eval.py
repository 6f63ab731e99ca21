"""`dualformer eval`: how good are these weights on this list?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.options import (
    CompileOption,
    CpuProcessesOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    OfflineOption,
    OverridesOption,
    PrecisionOption,
    PresetOption,
    PrintConfigOption,
    VerboseOption,
    ViewsOption,
    WeightsOption,
    parse_views,
    relaunched,
    show_config,
)
from dualformer_cli.errors import DualFormerError

if TYPE_CHECKING:
    from dualformer_cli.config.load import ResolvedConfig
    from dualformer_cli.documents.evaluate import Evaluation
    from dualformer_cli.engine.scoring.dump import Dump
    from dualformer_cli.tasks.session import ModelRequest

THUMBNAIL_SECONDS = 20.0
"""A worker that makes no progress for so long on a picture for the page is given up."""


def evaluate(
    preset: PresetOption = None,
    weights: WeightsOption = None,
    data: Annotated[str | None, typer.Option("--data", metavar="LIST", help="Videos with or without labels.")] = None,
    views: ViewsOption = None,
    dump: Annotated[
        Path | None,
        typer.Option("--dump", metavar="FILE", help="Write labels and scores of all views, as JSON lines."),
    ] = None,
    from_dump: Annotated[
        Path | None, typer.Option("--from-dump", metavar="FILE", help="Take the scores of an earlier --dump.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option("--compare", metavar="FILE", help="Compare with the --dump of another run.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page to look at.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False,
    gpus: GpusOption = None,
    cpu_processes: CpuProcessesOption = None,
    overrides: OverridesOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile_: CompileOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Score every video of a list once, and say how many were right.

    A video that cannot be scored is named and makes the exit code 3; accuracy is given over the scored videos, and
    over all listed ones with those counted as wrong.
    """
    for path in filter(None, (dump, report)):
        if path.exists() and not overwrite:
            raise DualFormerError(f"{str(path)!r} exists; name another file or replace it with --overwrite")
    if from_dump is not None:
        _finish(_read(from_dump), report=report, compare=compare, as_json=as_json)
        return
    from dualformer_cli.tasks.session import DEFAULT_PRESET, ModelRequest, resolve

    model = ModelRequest(
        preset=preset,
        weights=weights,
        overrides=tuple(overrides or ()),
        device="cpu" if cpu_processes else device,
        precision=precision,
        compile=compile_,
        views=parse_views(views),
        offline=offline,
    )
    settings = {"data.validation_list": data}
    if print_config:
        show_config(resolve(model, settings, default=DEFAULT_PRESET))
        return
    if gpus or cpu_processes:
        _require_list(resolve(model, settings, default=DEFAULT_PRESET))
    if not relaunched(gpus, cpu_processes):
        _run(model, settings, dump=dump, report=report, compare=compare, as_json=as_json)


def _require_list(resolved: ResolvedConfig) -> None:
    if resolved.config.data.validation_list is None:
        raise typer.BadParameter("name a list of videos", param_hint="--data")


def _run(
    model: ModelRequest,
    settings: Mapping[str, object],
    *,
    dump: Path | None,
    report: Path | None,
    compare: Path | None,
    as_json: bool,
) -> None:
    """Score the list on this rank and let rank 0 tell what all found."""
    from dualformer_cli.commands.download import fetch_progress
    from dualformer_cli.outputs.report import Progress, log
    from dualformer_cli.outputs.runs import write_json_lines
    from dualformer_cli.tasks.session import DEFAULT_PRESET, open_session

    with open_session(model, settings, default=DEFAULT_PRESET) as session:
        _require_list(session.resolved)
        ranks = session.ranks
        engine = session.load_engine(fetch_progress)
        listed = engine.open_list()
        with Progress("eval", total=-(-len(listed) // ranks.world_size), silent=not ranks.is_main) as bar:
            result = engine.evaluate(listed, session.pool, ranks, on_video=lambda record: bar.advance(note=record.path))
        if not ranks.is_main:
            return
        for record in result.records:
            if record.reason is not None:
                log(f"{record.bucket}: {record.path}: {record.reason}")
        if dump is not None:
            write_json_lines(result.rows(), dump)
        _finish(result, report=report, compare=compare, as_json=as_json)


def _read(path: Path) -> Dump:
    from dualformer_cli.engine.scoring.dump import read_dump

    return read_dump(path)


def _finish(result: Dump, *, report: Path | None, compare: Path | None, as_json: bool) -> None:
    """Print the metrics, write the page, and leave with 3 if a video was not scored."""
    from dualformer_cli.documents.base import to_json
    from dualformer_cli.outputs.report import print_json
    from dualformer_cli.outputs.runs import print_evaluation

    document = result.document(None if compare is None else _read(compare))
    if as_json:
        print_json(to_json(document))
    else:
        print_evaluation(document)
    if report is not None:
        _write_page(result, document, report)
    if document.summary.videos.scored < document.summary.videos.listed:
        raise typer.Exit(3)


def _write_page(result: Dump, document: Evaluation, target: Path) -> None:
    from dataclasses import replace

    from dualformer_cli.outputs.html import write_eval_report
    from dualformer_cli.system.workers import WorkerPool
    from dualformer_cli.video.thumbnails import read_thumbnails

    page = result.page(document)
    if page.worst:
        with WorkerPool(1, THUMBNAIL_SECONDS) as pool:
            pictures = read_thumbnails({row.path: result.file_of(row.path) for row in page.worst}, pool)
        page = replace(page, worst=tuple(replace(row, thumbnail=pictures.get(row.path)) for row in page.worst))
    write_eval_report(page, target)
