"""`dualformer eval`: how good are these weights on this list?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
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
    announce_loading,
    model_request,
    one_list,
    print_document,
    relaunched,
    show_config,
)
from dualformer_cli.system.exit_codes import SOME_FAILED

if TYPE_CHECKING:
    from dualformer_cli.documents.evaluate import Evaluation
    from dualformer_cli.engine.scoring.dump import Dump
    from dualformer_cli.engine.scoring.records import VideoRecord
    from dualformer_cli.tasks.evaluate import EvaluateRequest


def evaluate(
    preset: PresetOption = None,
    weights: WeightsOption = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="LIST", help="Videos with or without labels, or 'shards/*.tar'."),
    ] = None,
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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from what a run with --dump that was stopped has kept.")
    ] = False,
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
    from dualformer_cli.tasks.evaluate import EvaluateRequest, check
    from dualformer_cli.tasks.needs import check_lists
    from dualformer_cli.tasks.session import DEFAULT_PRESET, resolve

    model = model_request(
        preset,
        weights=weights,
        overrides=overrides,
        device=device,
        cpu_processes=cpu_processes,
        precision=precision,
        compile_=compile_,
        views=views,
        offline=offline,
    )
    request = EvaluateRequest(
        model=model,
        data=one_list(data),
        from_dump=from_dump,
        compare=compare,
        dump=dump,
        report=report,
        resume=resume,
        overwrite=overwrite,
    )
    if from_dump is not None and dump is not None:
        raise typer.BadParameter("the scores are in --from-dump already", param_hint="--dump")
    if resume and dump is None:
        raise typer.BadParameter("name the --dump of the run that was stopped", param_hint="--resume")
    if from_dump is None and (print_config or data is None or preset is not None):  # else the weights are read for it
        resolved = resolve(model, request.settings(), default=DEFAULT_PRESET)
        if print_config:
            show_config(resolved)
            return
        if resolved.config.data.validation_list is None:
            raise typer.BadParameter("name a list of videos", param_hint="--data")
        if data is None:  # else it is looked for with the files
            check_lists(resolved.config.data.validation_list, offline=offline)
    check(request)
    if from_dump is not None or not relaunched(gpus, cpu_processes, goes_on=resume):
        _run(request, as_json=as_json)


def _run(request: EvaluateRequest, *, as_json: bool) -> None:
    """Do what the request says, print the result, and leave with 3 if a video was not scored."""
    from dualformer_cli.outputs.progress import Progress, fetch_progress
    from dualformer_cli.outputs.runs import print_evaluation
    from dualformer_cli.outputs.screen import log, wrote
    from dualformer_cli.tasks.evaluate import evaluate as run_task

    @contextmanager
    def watching(total: int) -> Iterator[Callable[[VideoRecord], None]]:
        with Progress("eval", total=total, silent=not total) as bar:
            yield lambda record: bar.advance(note=record.path)

    def tell(document: Evaluation, scores: Dump) -> None:
        for record in scores.records if request.from_dump is None else ():
            if record.reason is not None:
                log(f"{record.bucket}: {record.path}: {record.reason}")
        other = None if request.compare is None else str(request.compare)
        as_text = partial(print_evaluation, classes=scores.classes(), other=other)
        print_document(document, as_text, as_json=as_json)

    if request.from_dump is None:
        announce_loading(request.model)
    document = run_task(request, fetching=fetch_progress, watching=watching, on_document=tell, on_written=wrote)
    if document is not None and document.summary.videos.scored < document.summary.videos.listed:
        raise typer.Exit(SOME_FAILED)
