"""`dualformer prepare camera-motion`: a labelled data set that needs no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import typer

DEFAULT_ROOT = Path("camera-motion")
DEFAULT_COUNT = 10_000


def render_camera_motion(
    root: Path | None,
    *,
    count: int | None,
    pictures: Sequence[str],
    num_frames: int,
    difficulty: float,
    seed: int,
    num_workers: int | None,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Render the data set, or say what it would need, and print what is there then.

    Raises:
        DualFormerError: a value out of range, or a folder or file that cannot be used.
    """
    from dualformer_cli.data.camera_motion.files import Settings, estimate, find_sources, plan, render_all
    from dualformer_cli.outputs.report import Progress, print_json
    from dualformer_cli.system.threads import usable_cores
    from dualformer_cli.system.words import size_in_words

    root, count, num_workers = root or DEFAULT_ROOT, count or DEFAULT_COUNT, num_workers or usable_cores()
    settings = Settings(seed=seed, num_frames=num_frames, difficulty=difficulty, pictures=find_sources(pictures))
    if dry_run:
        needed = estimate(root, settings, count, num_workers=num_workers, overwrite=overwrite)
        if as_json:
            print_json(asdict(needed))
            return
        typer.echo(
            f"{needed.root}: would render {needed.missing} of {sum(needed.clips.values())} clips, "
            f"about {size_in_words(needed.num_bytes)}, in about {needed.seconds:.0f} s with {num_workers} processes"
        )
        return
    with Progress("render", total=len(plan(count))) as progress:
        summary = render_all(
            root,
            settings,
            count,
            num_workers=num_workers,
            overwrite=overwrite,
            on_clip=lambda name: progress.advance(note=name),
        )
    if as_json:
        print_json(asdict(summary))
        return
    for split, path in summary.lists.items():
        typer.echo(f"{split}: {summary.clips[split]} clips, {path}")
    total = sum(summary.clips.values())
    typer.echo(f"{summary.rendered} of {total} clips rendered now, {size_in_words(summary.num_bytes)} in all")
