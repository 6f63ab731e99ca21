"""`dualformer gradcam`: where in a video does the model see it?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dualformer_cli.commands.download import fetch_progress
from dualformer_cli.commands.options import (
    DeviceOption,
    JsonOption,
    OfflineOption,
    OverridesOption,
    PrecisionOption,
    PresetOption,
    PrintConfigOption,
    SeedOption,
    VerboseOption,
    ViewsOption,
    WeightsOption,
    announce_sample,
    parse_views,
    sample_input,
    show_config,
)
from dualformer_cli.commands.predict import announce
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import check_outputs, path_in_own_folder

if TYPE_CHECKING:
    from dualformer_cli.config.load import ResolvedConfig
    from dualformer_cli.data.clips.views import VideoViews
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.engine.explain.gradcam import Explanation, Layer, ScoreKind
    from dualformer_cli.engine.explain.timeline import Timeline
    from dualformer_cli.outputs.heatmap import Heatmaps, Style
    from dualformer_cli.system.workers import WorkerPool
    from dualformer_cli.video.reader import VideoInfo, VideoReader

OUT_SUFFIXES = (".gif", ".mp4", ".png")
_FRAMES_PER_READ = 32


def gradcam(
    video: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="A video, or a folder of numbered frames. [default: a sample clip]"),
    ] = None,
    preset: PresetOption = None,
    weights: WeightsOption = None,
    layer: Annotated[
        str, typer.Option(metavar="STAGE/BLOCK|last", help="Block to look at; negative numbers count from the end.")
    ] = "last",
    list_layers: Annotated[bool, typer.Option("--list-layers", help="List the model's layers, then stop.")] = False,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME|ID", help="Class to look for. [default: the best]")
    ] = None,
    score: Annotated[
        Literal["logit", "probability"],
        typer.Option(help="What the gradient is of; the published code takes the probability."),
    ] = "logit",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.gif|mp4|png",
            help="Where to draw: a GIF, a video, or a sheet of frames. [default: NAME.gradcam.gif here]",
        ),
    ] = None,
    npz: Annotated[
        Path | None, typer.Option("--npz", metavar="FILE.npz", help="Also write the maps as arrays.")
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames per second of the GIF or video.")] = 10.0,
    alpha: Annotated[float, typer.Option(help="Share of the heat's colours in the picture, 0 to 1.")] = 0.5,
    colormap: Annotated[Literal["magma", "viridis", "turbo", "gray"], typer.Option(help="Colours of the heat.")] = (
        "magma"
    ),
    views: ViewsOption = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show the plain frame to the left of the painted one.")
    ] = False,
    concatenate: Annotated[
        bool,
        typer.Option(
            "--concatenate",
            help="Show the frames of all views one view after the other, as the published code does, "
            "instead of merging the views on the video's timeline.",
        ),
    ] = False,
    deletion: Annotated[
        bool,
        typer.Option("--deletion", help="Test the map: does the score fall faster where it is hot than at random?"),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace output files that exist.")] = False,
    overrides: OverridesOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    seed: SeedOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Draw where a model finds its evidence for a class, by Grad-CAM on any block.

    The heat is drawn on the whole frame; what lies outside the model's crop is darker.
    """
    from dualformer_cli.tasks.session import DEFAULT_PRESET, ModelRequest, open_session, resolve

    model = ModelRequest(
        preset=preset,
        weights=weights,
        overrides=tuple(overrides or ()),
        device=device,
        precision=precision,
        seed=seed,
        views=parse_views(views),
        offline=offline,
    )
    if print_config:
        show_config(resolve(model, default=DEFAULT_PRESET))
        return
    if list_layers:
        _list_layers(resolve(model, default=DEFAULT_PRESET), as_json=as_json)
        return
    if not 0 <= alpha <= 1:
        raise typer.BadParameter(f"{alpha:g} is not between 0 and 1", param_hint="--alpha")
    if not 0.01 <= fps <= 1000:
        raise typer.BadParameter(f"{fps:g} is not between 0.01 and 1000", param_hint="--fps")
    source = sample_input() if video is None else video
    target = _check_files(source, out, npz, overwrite=overwrite)

    from dualformer_cli.outputs.report import log, print_gradcam, print_json

    with open_session(model, default=DEFAULT_PRESET, num_workers=1) as session:
        from dualformer_cli.engine.explain.gradcam import find_class, find_layer

        session.fall_back(fetch_progress, log)
        resolved = session.resolved
        place = find_layer(layer, resolved.config.model.depths, resolved.preset)  # before weights are fetched
        engine = session.load_engine(fetch_progress)
        announce(engine)
        if video is None:
            announce_sample()
        class_index = None if class_ is None else find_class(class_, engine.class_names)
        document = _look_and_write(
            engine,
            session.pool,
            source,
            place,
            class_index=class_index,
            score=score,
            concatenate=concatenate,
            with_deletion=deletion,
            target=target,
            npz=npz,
            fps=fps,
            style={"alpha": alpha, "colormap": colormap, "side_by_side": side_by_side},
        )
    (print_json if as_json else print_gradcam)({**document, "fallback": session.fallback})


def _list_layers(resolved: ResolvedConfig, *, as_json: bool) -> None:
    from dualformer_cli.engine.explain.gradcam import list_layers
    from dualformer_cli.outputs.report import print_json, print_layers

    document = {"preset": resolved.preset, "layers": list_layers(resolved.config)}
    (print_json if as_json else print_layers)(document)


def _check_files(video: str, out: Path | None, npz: Path | None, *, overwrite: bool) -> Path:
    """Refuse outputs that could not be written; return where to draw."""
    target = Path(f"{Path(video).stem or 'video'}.gradcam.gif") if out is None else out
    if target.suffix.lower() not in OUT_SUFFIXES:
        raise DualFormerError(f"--out {str(target)!r} must end in .gif, .mp4 or .png")
    if npz is not None and npz.suffix != ".npz":
        raise DualFormerError(f"--npz {str(npz)!r} must end in .npz")
    check_outputs([target] if npz is None else [target, npz], [video], overwrite=overwrite)
    return target


def _look_and_write(
    engine: Engine,
    pool: WorkerPool,
    video: str,
    layer: Layer,
    *,
    class_index: int | None,
    score: ScoreKind,
    concatenate: bool,
    with_deletion: bool,
    target: Path,
    npz: Path | None,
    fps: float,
    style: dict[str, Any],
) -> dict[str, Any]:
    """Compute the maps of one video, write what was asked for, and return the document."""
    from dualformer_cli.engine.explain.deletion import count_scorings, delete
    from dualformer_cli.engine.explain.gradcam import explain, read_video
    from dualformer_cli.engine.explain.timeline import concatenate_views, merge_views
    from dualformer_cli.outputs.report import Progress, write_arrays

    views = read_video(engine, video, pool)
    num_views, deleted = len(views.clips), None
    total = 2 * num_views + (count_scorings(num_views) if with_deletion else 0)
    with Progress("gradcam", total=total) as progress:
        found = explain(engine, views.clips, layer, class_index=class_index, score=score, on_pass=progress.advance)
        if with_deletion:
            deleted = delete(
                lambda clips: engine.scorer.score(clips)[0][:, found.class_index],
                views.clips,
                found.grid,
                colour=engine.config.data.mean,
                seed=engine.config.runtime.seed,
                on_scored=progress.advance,
            )
    timeline = (concatenate_views if concatenate else merge_views)(found, views, engine.config.data.test.short_side)
    if npz is not None:
        write_arrays(npz, **_arrays(engine, video, views, found, timeline, layer=layer, score=score))
    title = f"{found.label}, score {found.score:.3f}"
    _draw(engine, pool, video, views.info, timeline, target, fps=fps, style=style, title=title, layer=layer)
    return {
        **engine.describe(),
        "path": video,
        "output": str(target),
        "npz": None if npz is None else str(npz),
        "layer": str(layer),
        "grid": list(found.grid.shape[1:]),
        "gradient_of": score,
        "class": {"index": found.class_index, "label": found.label, "score": found.score, "logit": found.logit},
        "num_frames": len(timeline.frames),
        "frames": timeline.frames.tolist(),
        "saliency": timeline.curve.tolist(),
        "num_views": num_views,
        "view_scores": found.view_scores.tolist(),
        "video": {
            "num_frames": views.info.num_frames,
            "fps": views.info.fps,
            "duration_seconds": views.info.duration_seconds,
        },
        "deletion": None if deleted is None else deleted.describe(),
        "warnings": [*views.warnings, *found.warnings],
    }


def _arrays(
    engine: Engine,
    video: str,
    views: VideoViews,
    found: Explanation,
    timeline: Timeline,
    *,
    layer: Layer,
    score: ScoreKind,
) -> dict[str, Any]:
    """What --npz stores."""
    crops = len(views.clips) // len(views.indices)
    return {
        "heatmaps": found.heatmaps(),
        "grid": found.grid,
        "frames": views.indices.repeat(crops, axis=0),
        "timeline_frames": timeline.frames,
        "timeline_saliency": timeline.curve,
        "class_index": found.class_index,
        "label": found.label,
        "score": found.score,
        "view_scores": found.view_scores,
        "layer": str(layer),
        "gradient_of": score,
        "preset": engine.preset,
        "path": os.fsencode(video).decode("utf-8", "replace"),
    }


def _draw(
    engine: Engine,
    pool: WorkerPool,
    video: str,
    info: VideoInfo,
    timeline: Timeline,
    target: Path,
    *,
    fps: float,
    style: dict[str, Any],
    title: str,
    layer: Layer,
) -> None:
    """Have a worker decode the frames again, at the size in which they are shown, and draw."""
    from dualformer_cli.outputs.heatmap import Heatmaps, Style

    data = engine.config.data
    heatmaps = Heatmaps(
        heat=(timeline.heatmaps * 255).round().astype("uint8"),
        boxes=timeline.boxes,
        curve=timeline.curve,
        numbers=timeline.frames,
        fps=info.fps,
        breaks=timeline.breaks,
        title=title,
        detail=f"saliency at layer {layer} of {engine.preset}",
    )
    try:
        with path_in_own_folder(target) as unfinished:
            opening = {"decoder": data.decoder, "frame_rate": data.frame_rate, "frame_name": data.frame_name}
            job = (video, str(unfinished), heatmaps, Style(**style), fps, opening)
            pool.call(_draw_in_worker, job).result()
    except DualFormerError as error:
        raise DualFormerError(f"{video!r} was not drawn: {error}") from error


def _draw_in_worker(job: tuple[str, str, Heatmaps, Style, float, dict[str, Any]]) -> None:
    """Decode the frames that are shown and draw the heat onto them."""
    from dualformer_cli.outputs.heatmap import picture_size, sheet_frames, write_overlay, write_sheet
    from dualformer_cli.video.open import open_video

    path, target, heatmaps, style, fps, opening = job
    with open_video(path, **opening) as reader:
        size = picture_size(reader.info.width, reader.info.height, target, style)
        if target.lower().endswith(".png"):
            chosen = sheet_frames(len(heatmaps), style)
            frames = _frames(reader, heatmaps.numbers[chosen].tolist(), size)
            write_sheet(frames, heatmaps, target, chosen=chosen, style=style)
        else:
            frames = _frames(reader, heatmaps.numbers.tolist(), size)
            write_overlay(frames, heatmaps, target, fps=fps, style=style)


def _frames(reader: VideoReader, numbers: list[int], size: tuple[int, int]) -> Iterator[Any]:
    """The frames with these numbers in another (width, height), a few of them in memory at a time."""
    from dualformer_cli.outputs.heatmap import fit
    from dualformer_cli.system.workers import heartbeat

    for start in range(0, len(numbers), _FRAMES_PER_READ):
        for frame in reader.read(numbers[start : start + _FRAMES_PER_READ], partial(fit, size=size)):
            heartbeat()  # drawing takes its time too
            yield frame
    heartbeat()
