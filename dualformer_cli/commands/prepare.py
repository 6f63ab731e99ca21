"""`dualformer prepare`: data that `train` and `eval` can use, from a dataset, a folder of videos, or rendered."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from dualformer_cli.commands.completion import complete_formats, complete_prepare
from dualformer_cli.commands.options import (
    JsonOption,
    OverridesOption,
    PresetOption,
    VerboseOption,
    print_document,
)
from dualformer_cli.config.option_defaults import (
    CLASS_DEPTH,
    CONVERTED_SHORT_SIDE,
    DECODE_TIMEOUT_SECONDS,
    JPEG_QUALITY,
    RENDERED_BUSY,
    RENDERED_CLIPS,
    RENDERED_DIFFICULTY,
    RENDERED_FRAMES,
    SPLIT_SHARES,
    TRANSCODE_CRF,
)
from dualformer_cli.system.exit_codes import SOME_FAILED

if TYPE_CHECKING:
    from dualformer_cli.config.schema import ListFormat
    from dualformer_cli.data.lists.folders import Layout
    from dualformer_cli.documents.prepare import FoundVideos
    from dualformer_cli.tasks.prepare import PrepareRequest
    from dualformer_cli.tasks.render import RenderRequest

CAMERA_MOTION = "camera-motion"
RENDER_OPTIONS = frozenset({"count", "pictures", "num_frames", "difficulty", "busy"})
"""Options of camera-motion alone, and those that it shares with the others."""
SHARED_OPTIONS = frozenset({"names", "root", "seed", "workers", "overwrite", "dry_run", "as_json", "verbose"})
FOLDER_OPTIONS = frozenset(
    {"split", "group_pattern", "group_column", "group_look_alikes", "labels", "layout", "class_depth", "multi_label"}
)
"""Options that say what a folder of one's own holds."""


def prepare(
    context: typer.Context,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME|FOLDER|LIST",
            autocompletion=complete_prepare,
            help="A dataset, a folder of videos, one list of videos or several, or camera-motion to render.",
        ),
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="Folder for all that is written; for a dataset, where download put it, and DIR/NAME/prepared is "
            "written. [default: FOLDER/prepared, data, or camera-motion]",
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every video to its end, and compare frames reached by seeking.")
    ] = False,
    transcode: Annotated[
        bool, typer.Option("--transcode", help="Write small H.264 files that are quick to read; list these.")
    ] = False,
    frames: Annotated[bool, typer.Option("--frames", help="Write every frame as a JPEG image; list these.")] = False,
    short_side: Annotated[
        int,
        typer.Option("--short-side", min=16, metavar="PIXELS", help="Shrink to this, with --transcode or --frames."),
    ] = CONVERTED_SHORT_SIDE,
    crf: Annotated[
        int, typer.Option("--crf", min=0, max=51, help="Compression of --transcode; less is better and larger.")
    ] = TRANSCODE_CRF,
    jpeg_quality: Annotated[
        int, typer.Option("--jpeg-quality", min=1, max=100, help="Compression of --frames; more is better and larger.")
    ] = JPEG_QUALITY,
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="TRAIN/VAL[/TEST]", help=f"Shares of the splits. [default: {SPLIT_SHARES}]"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Seed of the random splits.")] = 0,
    group_pattern: Annotated[
        str | None,
        typer.Option("--group-pattern", metavar="REGEX", help="Keep videos together whose paths agree in this."),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option("--group-column", metavar="NAME", help="Keep videos together that agree in this column."),
    ] = None,
    group_look_alikes: Annotated[
        bool, typer.Option("--group-look-alikes", help="Keep videos together that look alike, as copies do.")
    ] = False,
    labels: Annotated[
        str | None, typer.Option("--labels", metavar="FILE.csv", help="Table with the columns file and label.")
    ] = None,
    layout: Annotated[
        str, typer.Option("--layout", metavar="auto|folders|splits|table", help="How the folder is laid out.")
    ] = "auto",
    class_depth: Annotated[
        int, typer.Option("--class-depth", min=1, metavar="N", help="Folder levels that make the class name.")
    ] = CLASS_DEPTH,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Labels of the table are several, with ';' between them.")
    ] = False,
    take: Annotated[
        str,
        typer.Option(
            "--take",
            metavar="files|frames",
            help="Which copy of a dataset's video is listed where it is there as both.",
        ),
    ] = "files",
    formats: Annotated[
        str | None,
        typer.Option(
            "--formats",
            metavar="FORMAT,...",
            autocompletion=complete_formats,
            help="Write older lists too: [multilabel_]video, [multilabel_]rawframe, rawframe_offset, json.",
        ),
    ] = None,
    show: Annotated[
        Path | None, typer.Option("--show", metavar="FILE.png", help="Draw what training sees of some videos.")
    ] = None,
    preset: PresetOption = None,
    overrides: OverridesOption = None,
    count: Annotated[
        int | None,
        typer.Option(
            "--count", min=1, metavar="N", help=f"Clips of camera-motion, all splits. [default: {RENDERED_CLIPS}]"
        ),
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            "--pictures",
            metavar="DIR|scikit-image",
            help="What camera-motion moves over besides drawn pictures: a folder, or scikit-image's photographs.",
        ),
    ] = None,
    num_frames: Annotated[
        int, typer.Option("--num-frames", metavar="N", help="Frames of a clip of camera-motion.")
    ] = RENDERED_FRAMES,
    difficulty: Annotated[
        float,
        typer.Option("--difficulty", metavar="0..1", help="camera-motion from large and clean (0) to hardly seen (1)."),
    ] = RENDERED_DIFFICULTY,
    busy: Annotated[
        float,
        typer.Option("--busy", metavar="0..1", help="Share of camera-motion's clips in which much else moves."),
    ] = RENDERED_BUSY,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Processes that work. [default: all cores]")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Give up a video without progress.")
    ] = DECODE_TIMEOUT_SECONDS,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace lists, videos and a sheet that are there.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Turn a dataset that was downloaded, a folder of videos or your lists into train.csv, val.csv and classes.txt.

    A dataset is named as dualformer download names it, and keeps its own splits. A folder has one folder per class, or
    a CSV file with the columns file and label, or train/, val/ and test/ folders. A list holds a path and a class name
    or number in each line; train.csv and val.csv are splits, and so is a column split. Stopped runs are gone on with.
    Exit code 3 means that some videos cannot be used.
    """
    name = names[0]
    if len(names) > 1 and not all(map(os.path.isfile, names)):
        other = next(other for other in names if not os.path.isfile(other))
        raise typer.BadParameter(f"several are lists, and {other!r} is not a file", param_hint="NAME|FOLDER|LIST")
    if name == CAMERA_MOTION:
        from dualformer_cli.system.threads import usable_cores
        from dualformer_cli.tasks.render import RenderRequest

        _refuse_options(context, CAMERA_MOTION)
        rendering = RenderRequest(
            root=root or Path(CAMERA_MOTION),
            count=count or RENDERED_CLIPS,
            pictures=tuple(pictures or ()),
            num_frames=num_frames,
            difficulty=difficulty,
            busy=busy,
            seed=seed,
            num_workers=workers or usable_cores(),
            overwrite=overwrite,
        )
        return _render(rendering, dry_run=dry_run, as_json=as_json)
    from dualformer_cli.tasks.prepare import PrepareRequest, dataset_of

    dataset = None if os.path.isfile(name) else dataset_of(name)
    _refuse_options(context, dataset)
    if transcode and frames:
        raise typer.BadParameter("choose one of --transcode and --frames", param_hint="--transcode")
    if overrides and show is None:
        raise typer.BadParameter("--preset and --set say how clips are drawn: give --show too", param_hint="--set")
    request = PrepareRequest(
        names=tuple(names),
        root=root,
        check=check,
        convert="transcode" if transcode else "frames" if frames else None,
        short_side=short_side,
        quality=crf if transcode else jpeg_quality,
        split=split,
        seed=seed,
        group_pattern=group_pattern,
        group_column=group_column,
        group_look_alikes=group_look_alikes,
        labels=labels,
        layout=_layout(layout),
        class_depth=class_depth,
        multi_label=multi_label,
        take_frames=_takes_frames(take, dataset),
        formats=_formats(formats),
        show=show,
        preset=preset,
        overrides=tuple(overrides or ()),
        num_workers=workers,
        timeout_seconds=timeout,
        overwrite=overwrite,
    )
    _prepare(request, dry_run=dry_run, as_json=as_json)


def _refuse_options(context: typer.Context, name: str | None) -> None:
    """Refuse options that would do nothing.

    Args:
        context: has the options that were given.
        name: camera-motion, a dataset, or None for a folder.

    Raises:
        typer.BadParameter: naming the first.
    """
    for parameter in context.command.params:
        option = parameter.name or ""
        source = context.get_parameter_source(option)
        if option in SHARED_OPTIONS or source is None or source.name in ("DEFAULT", "DEFAULT_MAP"):
            continue
        is_of_rendering = option in RENDER_OPTIONS
        if is_of_rendering != (name == CAMERA_MOTION):
            where = CAMERA_MOTION if is_of_rendering else f"videos that exist, not of {CAMERA_MOTION}"
            raise typer.BadParameter(f"this is an option of {where}", param_hint=parameter.opts[-1])
        if option in FOLDER_OPTIONS and name is not None:
            problem = f"this is an option of your own folder; the annotations of {name} decide it"
            raise typer.BadParameter(problem, param_hint=parameter.opts[-1])


def _takes_frames(take: str, dataset: str | None) -> bool:
    """Read the value of --take."""
    if take not in ("files", "frames"):
        raise typer.BadParameter(f"{take!r} is neither files nor frames", param_hint="--take")
    if take == "frames" and dataset is None:
        raise typer.BadParameter("this is an option of datasets; your own folder is listed whole", param_hint="--take")
    return take == "frames"


def _layout(text: str) -> Layout:
    """Read the value of --layout."""
    from dualformer_cli.data.lists.folders import LAYOUTS

    for layout in LAYOUTS:
        if text == layout:
            return layout
    raise typer.BadParameter(f"{text!r} is none of {', '.join(LAYOUTS)}", param_hint="--layout")


def _formats(text: str | None) -> tuple[ListFormat, ...]:
    """Read the value of --formats."""
    from dualformer_cli.data.prepare.written_lists import LIST_NAMES

    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    for name in names:
        if name not in LIST_NAMES:
            allowed = ", ".join(LIST_NAMES)
            raise typer.BadParameter(f"{name!r} is none of {allowed}", param_hint="--formats")
    return tuple(dict.fromkeys(cast("list[ListFormat]", names)))


def _prepare(request: PrepareRequest, *, dry_run: bool, as_json: bool) -> None:
    """Do what is asked for and print it; exit code 3 where a video cannot be used."""
    from dualformer_cli.outputs.preparation import print_plan, print_preparation, start_lines
    from dualformer_cli.outputs.screen import log, wrote
    from dualformer_cli.system.words import counted
    from dualformer_cli.tasks import prepare as task

    def start(found: FoundVideos) -> None:
        for line in start_lines(found):
            log(line)

    try:
        if dry_run:
            return print_document(task.plan_preparation(request, say=log), print_plan, as_json=as_json)
        done = task.prepare(request, watch=_watch, say=log, start=start)
    except task.UselessOptionError as error:
        raise typer.BadParameter(str(error), param_hint=error.option) from None
    print_document(done, print_preparation, as_json=as_json)
    if done is None:
        return
    wrote(f"{', '.join(done.summary.files)} in {done.summary.found.root}")
    if request.show is not None:
        wrote(f"{counted(task.draw_sheet(request, done), 'training clip')} in {request.show}")
    if done.summary.broken:
        raise typer.Exit(SOME_FAILED)


def _render(request: RenderRequest, *, dry_run: bool, as_json: bool) -> None:
    """Render camera-motion, or estimate it, and print what is there then."""
    from dualformer_cli.outputs.preparation import print_render_estimate, print_rendered
    from dualformer_cli.outputs.screen import wrote
    from dualformer_cli.tasks.render import estimate_rendering, render

    if dry_run:
        as_text = partial(print_render_estimate, num_workers=request.num_workers)
        print_document(estimate_rendering(request), as_text, as_json=as_json)
    elif (done := render(request, watch=_watch)) is not None:
        print_document(done, print_rendered, as_json=as_json)
        wrote(*done.lists.values())


@contextmanager
def _watch(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Show progress on stderr; give a function that is called with the name of each finished piece."""
    from dualformer_cli.outputs.progress import Progress

    with Progress(title, total=total) as progress:
        yield lambda name: progress.advance(note=name)
