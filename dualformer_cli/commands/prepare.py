"""`dualformer prepare`: data that `train` and `eval` can use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dualformer_cli.commands.options import JsonOption, VerboseOption
from dualformer_cli.commands.render import render_camera_motion

CAMERA_MOTION = "camera-motion"


def prepare(
    source: Annotated[str, typer.Argument(metavar="NAME", help="camera-motion: clips rendered from pictures.")],
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder to write to. [default: ./camera-motion]")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Clips to render, all splits together. [default: 10000]")
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR|scikit-image",
            help="Pictures to move over besides drawn ones: a folder, or the photographs in scikit-image. Repeatable.",
        ),
    ] = None,
    num_frames: Annotated[int, typer.Option(metavar="N", help="Frames of a rendered clip.")] = 32,
    difficulty: Annotated[
        float, typer.Option(metavar="0..1", help="From large, clean motion (0) to all that hides it (1).")
    ] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of every random choice.")] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that work. [default: one per core]")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say how much space and time it would take.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Render anew what is there.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a data set: videos, a list of each split with labels, and the class names."""
    if source != CAMERA_MOTION:
        raise typer.BadParameter(f"{source!r} is not known; known: {CAMERA_MOTION}", param_hint="NAME")
    render_camera_motion(
        root,
        count=count,
        pictures=pictures or (),
        num_frames=num_frames,
        difficulty=difficulty,
        seed=seed,
        num_workers=workers,
        dry_run=dry_run,
        overwrite=overwrite,
        as_json=as_json,
    )
