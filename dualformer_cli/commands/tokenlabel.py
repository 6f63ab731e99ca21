"""`dualformer tokenlabel`: what a model says about each token, on a picture (show) or stored to teach with (write)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

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
    relaunched,
    show_config,
)
from dualformer_cli.outputs.progress import fetch_progress
from dualformer_cli.system.files import check_folder

if TYPE_CHECKING:
    from dualformer_cli.system.workers import WorkerPool
    from dualformer_cli.tasks.write_token_labels import LabelWriter

SHEET = "sheet.png"


def show(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A video, or a folder of numbered frames.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE.png", help="Picture to write.")] = Path("tokens.png"),
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
    frames: Annotated[int, typer.Option("--frames", min=1, metavar="N", help="Moments of the clip to draw.")] = 8,
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
    from dualformer_cli.tasks.session import DEFAULT_PRESET, ModelRequest, resolve
    from dualformer_cli.tasks.show_tokens import ShowTokensRequest, show_tokens

    model = ModelRequest(
        preset=preset,
        weights=weights,
        overrides=tuple(overrides or ()),
        device=device,
        precision=precision,
        offline=offline,
    )
    if print_config:
        show_config(resolve(model, default=DEFAULT_PRESET))
        return
    from dualformer_cli.documents.base import to_json
    from dualformer_cli.outputs.json_text import print_json
    from dualformer_cli.outputs.tokens import print_tokens

    show_tokens(
        ShowTokensRequest(model=model, video=source, out=out, head=head, num_frames=frames, overwrite=overwrite),
        fetching=fetch_progress,
        on_document=lambda document: print_json(to_json(document)) if as_json else print_tokens(document),
    )


def write(
    preset: PresetOption = None,
    data: Annotated[str | None, typer.Option("--data", metavar="LIST", help="Training list to label.")] = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", metavar="FILE|PRESET", help="Who labels. [default: the preset's train.teacher]"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder of the labels.")] = Path(
        "token-labels"
    ),
    videos_per_shard: Annotated[
        int, typer.Option("--videos-per-shard", min=1, metavar="N", help="Videos whose labels share a file.")
    ] = 64,
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
    from dualformer_cli.tasks.session import ModelRequest, open_session, resolve

    model = ModelRequest(
        preset=preset,
        overrides=tuple(overrides or ()),
        device="cpu" if cpu_processes else device,
        precision=precision,
        offline=offline,
    )
    settings = {"data.train_list": data}
    resolved = resolve(model, settings)
    if print_config:
        show_config(resolved)
        return
    if preset is None:
        raise typer.BadParameter("name the recipe of the model that shall learn", param_hint="--preset")
    source = teacher or resolved.config.train.teacher
    if source is None:
        raise typer.BadParameter("name the model that labels: a file of weights or a preset", param_hint="--teacher")
    check_folder(output)
    if relaunched(gpus, cpu_processes):
        return
    with open_session(model, settings, preload="dualformer_cli.data.tokens.tiles") as session:
        from dualformer_cli.tasks.write_token_labels import LabelWriter

        pool, ranks = session.pool, session.ranks
        writer = LabelWriter(
            session.resolved, source, ranks, output=output, videos_per_shard=videos_per_shard, offline=offline
        )
        before = _check(writer, pool) if ranks.is_main else {}
        if dry_run:
            _finish({**before, "output": str(output)}, as_json=as_json, is_main=ranks.is_main)
            return
        _write(writer, pool)
        if not ranks.is_main:
            return
        document = {**before, **writer.summary(), "output": str(output)}
        try:
            _draw_sheet(writer, pool, output / SHEET)
        finally:  # the labels are there, with or without a picture of them
            _finish(document, as_json=as_json, is_main=True)
        if document["unreadable"]:
            raise typer.Exit(3)


def _check(writer: LabelWriter, pool: WorkerPool) -> dict[str, Any]:
    """Try the teacher and look at the disk, on rank 0, before anything is written."""
    from dualformer_cli.outputs.screen import log
    from dualformer_cli.system.words import size_in_words
    from dualformer_cli.tasks.write_token_labels import CHANCE

    verified = writer.verify(pool)
    log(f"the teacher is right on {verified['right']} of {verified['videos']} videos of the list")
    if verified["chance"] > CHANCE:
        log(
            f"warning: chance would do as well in {verified['chance']:.0%} of cases; are weights, preset and classes "
            "of the teacher the right ones?"
        )
    estimate = writer.estimate(pool)
    log(
        f"the labels will take {size_in_words(estimate.bytes)}"
        + (f" (give or take {2 * estimate.standard_error / estimate.bytes:.0%})" if estimate.standard_error else "")
    )
    writer.check_space(estimate)
    return {"teacher": {**writer.header.teacher, **verified}, "estimated_bytes": round(estimate.bytes)}


def _write(writer: LabelWriter, pool: WorkerPool) -> None:
    from dualformer_cli.outputs.progress import Progress

    videos = sum(len(writer.header.videos_of(shard)) for shard in writer.own_shards())
    with Progress("tokenlabel", total=videos, silent=not writer.ranks.is_main) as bar:
        writer.write(pool, on_video=lambda path: bar.advance(note=path))


def _draw_sheet(writer: LabelWriter, pool: WorkerPool, path: Path) -> None:
    from dualformer_cli.outputs.tokens import Panel, write_sheet

    panels = [Panel(row.frame, row.classes, Path(row.path).name) for row in writer.sheet(pool)]
    if panels:
        write_sheet(
            panels, writer.header.class_names, path, title=f"stored labels of {writer.header.teacher['source']}"
        )


def _finish(document: dict[str, Any], *, as_json: bool, is_main: bool) -> None:
    from dualformer_cli.outputs.json_text import print_json
    from dualformer_cli.outputs.screen import log
    from dualformer_cli.outputs.tokens import print_labels

    if not is_main:
        return
    for video in document.get("unreadable", ()):
        log(f"not labelled: {video['path']}: {video['error']}")
    (print_json if as_json else print_labels)(document)
