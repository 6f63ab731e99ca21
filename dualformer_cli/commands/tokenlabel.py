"""`dualformer tokenlabel`: what a model says about each token, on a picture (show) or stored to teach with (write)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dualformer_cli.commands.completion import complete_weights_of_presets
from dualformer_cli.commands.options import (
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
    WeightsOption,
    announce_loading,
    model_request,
    one_list,
    print_document,
    relaunched,
    show_config,
)
from dualformer_cli.config.option_defaults import TOKEN_LABELS_OUTPUT, TOKENS_MOMENTS, TOKENS_OUT, VIDEOS_PER_SHARD
from dualformer_cli.system.exit_codes import SOME_FAILED

if TYPE_CHECKING:
    from dualformer_cli.documents.tokenlabel import Tokens
    from dualformer_cli.tasks.write_token_labels import WriteLabelsRequest


def show(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A video, or a folder of numbered frames.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="Picture to write.")] = TOKENS_OUT,
    preset: PresetOption = None,
    weights: WeightsOption = None,
    head: Annotated[
        Literal["auto", "classifier", "token"],
        typer.Option(
            "--head",
            metavar="auto|classifier|token",
            help="Which head scores the tokens; auto: the token head, if any.",
        ),
    ] = "auto",
    frames: Annotated[
        int, typer.Option("--frames", min=1, metavar="N", help="Moments of the clip to draw.")
    ] = TOKENS_MOMENTS,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a picture that exists.")] = False,
    overrides: OverridesOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Draw frames from the middle of a video beside the class that a model gives each token.

    Any model will do: where it has no token head, its classifier is applied to every token, as in a teacher.
    """
    from dualformer_cli.tasks.session import DEFAULT_PRESET, resolve
    from dualformer_cli.tasks.show_tokens import ShowTokensRequest, show_tokens

    model = model_request(
        preset, weights=weights, overrides=overrides, device=device, precision=precision, offline=offline
    )
    if print_config:
        show_config(resolve(model, default=DEFAULT_PRESET))
        return
    from dualformer_cli.outputs.progress import fetch_progress
    from dualformer_cli.outputs.screen import wrote
    from dualformer_cli.outputs.tokens import print_tokens

    def tell(document: Tokens) -> None:
        print_document(document, print_tokens, as_json=as_json)
        wrote(*filter(None, [document.output]))

    announce_loading(model)
    show_tokens(
        ShowTokensRequest(model=model, video=source, out=out, head=head, num_frames=frames, overwrite=overwrite),
        fetching=fetch_progress,
        on_document=tell,
    )


def write(
    preset: PresetOption = None,
    data: Annotated[list[str] | None, typer.Option("--data", metavar="LIST", help="Training list to label.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="FILE|PRESET",
            autocompletion=complete_weights_of_presets,
            help="Who labels. [default: the preset's train.teacher]",
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Folder of the labels.")
    ] = TOKEN_LABELS_OUTPUT,
    videos_per_shard: Annotated[
        int, typer.Option("--videos-per-shard", min=1, metavar="N", help="Videos whose labels share a file.")
    ] = VIDEOS_PER_SHARD,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Try the teacher and estimate the disk space; write nothing.")
    ] = False,
    gpus: GpusOption = None,
    cpu_processes: CpuProcessesOption = None,
    overrides: OverridesOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Store a teacher's labels of every token of a training list, for train --token-labels.

    The preset is that of the model which shall learn. Labels cover whole frames and whole videos, so that training
    may cut, flip and start as it likes. Run again, the command goes on where it was interrupted.
    """
    from dualformer_cli.tasks import write_token_labels as task

    request = task.WriteLabelsRequest(
        model=model_request(
            preset,
            overrides=overrides,
            device=device,
            cpu_processes=cpu_processes,
            precision=precision,
            offline=offline,
        ),
        training_list=one_list(data),
        teacher=teacher,
        output=output,
        videos_per_shard=videos_per_shard,
    )
    resolved = request.resolve()
    if print_config:
        show_config(resolved)
        return
    if preset is None:
        raise typer.BadParameter("name the recipe of the model that shall learn", param_hint="--preset")
    if teacher is None and resolved.config.train.teacher is None:
        raise typer.BadParameter("name the model that labels: a file of weights or a preset", param_hint="--teacher")
    task.check(request)
    if not relaunched(gpus, cpu_processes):
        _write(request, dry_run=dry_run, as_json=as_json)


def _write(request: WriteLabelsRequest, *, dry_run: bool, as_json: bool) -> None:
    """Do what the request says, print the result, and leave with 3 if a video has no labels."""
    from dualformer_cli.documents.tokenlabel import LabelPlan, WrittenLabels
    from dualformer_cli.outputs.progress import Progress
    from dualformer_cli.outputs.screen import log, wrote
    from dualformer_cli.outputs.tokens import print_labels
    from dualformer_cli.tasks.write_token_labels import write_token_labels

    @contextmanager
    def watching(total: int) -> Iterator[Callable[[str], None]]:
        with Progress("tokenlabel", total=total, silent=not total) as bar:
            yield lambda path: bar.advance(note=path)

    def tell(document: LabelPlan | WrittenLabels) -> None:
        for video in document.summary.unreadable if isinstance(document, WrittenLabels) else ():
            log(f"not labelled: {video.path}: {video.error}")
        print_document(document, print_labels, as_json=as_json)  # type: ignore[arg-type]  # mypy joins the two kinds
        if isinstance(document, WrittenLabels):
            wrote(document.output)

    announce_loading(request.model)
    document = write_token_labels(request, dry_run=dry_run, watching=watching, note=log, on_document=tell)
    if isinstance(document, WrittenLabels) and document.summary.unreadable:
        raise typer.Exit(SOME_FAILED)
