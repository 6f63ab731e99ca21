"""Where in a video does a model see a class? The maps are computed, drawn and stored."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dualformer_cli.config.option_defaults import (
    GRADCAM_ALPHA,
    GRADCAM_COLORMAP,
    GRADCAM_FPS,
    GRADCAM_LAYER,
    GRADCAM_SCORE,
    Colormap,
    ScoreKind,
)
from dualformer_cli.documents.gradcam import DeletionCurves, ExplainedClass, ExplainedVideo, Gradcam, LayerList
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import path_in_own_folder, write_all
from dualformer_cli.system.output_checks import check_outputs
from dualformer_cli.tasks.session import DEFAULT_PRESET, Fetching, ModelRequest, Session, open_session
from dualformer_cli.video.one_input import check_one_video

if TYPE_CHECKING:
    from dualformer_cli.data.clips.views import VideoViews
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.engine.explain.gradcam import Explanation, Layer
    from dualformer_cli.engine.explain.heat_over_time import Timeline

OUT_SUFFIXES = (".gif", ".mp4", ".png")

Watching = Callable[[int], AbstractContextManager[Callable[[], object]]]
"""Opens a display of so many steps; what it gives is called after each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradcamRequest:
    """What to look at, for which class, and what to write."""

    model: ModelRequest
    video: str
    """A video file or a folder of frames."""
    layer: str = GRADCAM_LAYER
    """STAGE/BLOCK or last; negative numbers count from the end."""
    class_: str | None = None
    """Name or number of the class; None for the one with the best score."""
    score: ScoreKind = GRADCAM_SCORE
    """What the gradient is of."""
    deletion: bool = False
    """Whether to test the map by deleting its hottest places."""
    concatenate: bool = False
    """Show the views one after the other in place of merging them on the video's timeline."""
    out: Path | None = None
    """Picture or video to draw, .gif, .mp4 or .png, or a folder for NAME.gradcam.gif; None for the current folder."""
    npz: Path | None = None
    """File for the maps as arrays."""
    fps: float = GRADCAM_FPS
    """Frames per second of the GIF or video."""
    alpha: float = GRADCAM_ALPHA
    """Share of the heat's colours in the picture, 0 to 1."""
    colormap: Colormap = GRADCAM_COLORMAP
    font: Path | None = None
    """Font of the labels, for letters that the built-in one lacks; None: one of the system."""
    side_by_side: bool = False
    """Show the plain frame to the left of the painted one."""
    overwrite: bool = False
    """Whether files that exist may be replaced."""

    @property
    def target(self) -> Path:
        """Return the file to draw."""
        name = f"{Path(self.video).stem or 'video'}.gradcam.gif"
        return self.out / name if self.out is not None and self.out.is_dir() else self.out or Path(name)


def list_layers(model: ModelRequest, *, on_fallback: Callable[[str], None] = lambda note: None) -> LayerList:
    """Return the layers of the model that would run; it raises what `resolve` and `fall_back` do."""
    from dualformer_cli.engine.explain import gradcam as explain
    from dualformer_cli.tasks.built_in_model import resolve_what_runs

    resolved = resolve_what_runs(model, on_fallback, default=DEFAULT_PRESET)
    return LayerList(preset=resolved.preset, layers=tuple(explain.list_layers(resolved.config)))


def gradcam(
    request: GradcamRequest,
    *,
    fetching: Fetching = lambda: nullcontext(lambda name, done, total: None),
    watching: Watching = lambda total: nullcontext(lambda: None),
    on_fallback: Callable[[str], None] = lambda note: None,
    on_engine: Callable[[Engine], None] = lambda engine: None,
    on_document: Callable[[Gradcam], None] = lambda document: None,
) -> Gradcam:
    """Compute the maps of a video, and write what was asked for.

    Args:
        request: what to do.
        fetching: shows how far a file of weights is.
        watching: shows how far the maps are.
        on_fallback: told that the built-in model is taken, and why.
        on_engine: called with the model once it is loaded.
        on_document: called with the result at the end, also when a file cannot be written; then before the error.

    Raises:
        DualFormerError: if there is no such layer or class, the video or weights cannot be read, or a file could not
            be written or should not be replaced.
    """
    _check(request)
    with open_session(request.model, default=DEFAULT_PRESET, num_workers=1) as session:
        from dualformer_cli.engine.explain.gradcam import find_class, find_layer
        from dualformer_cli.tasks.built_in_model import fall_back  # loads torch, as the line above

        fall_back(session, fetching, on_fallback)
        resolved = session.resolved
        layer = find_layer(request.layer, resolved.config.model.depths, resolved.preset)  # before weights are fetched
        engine = session.load_engine(fetching)
        on_engine(engine)
        index = None if request.class_ is None else find_class(request.class_, engine.class_names)
        return _explain_and_write(request, session, engine, layer, index, watching, on_document)


def _check(request: GradcamRequest) -> None:
    """Refuse outputs that could not be written, and what is no video."""
    target, npz = request.target, request.npz
    if target.suffix.lower() not in OUT_SUFFIXES:
        raise DualFormerError(f"--out {str(target)!r} must end in .gif, .mp4 or .png")
    if npz is not None and npz.suffix != ".npz":
        raise DualFormerError(f"--npz {str(npz)!r} must end in .npz")
    check_outputs([target] if npz is None else [target, npz], [request.video], overwrite=request.overwrite)
    check_one_video(request.video)
    if request.font is not None:
        from dualformer_cli.outputs.fonts import prefer

        prefer(request.font)


def _explain_and_write(
    request: GradcamRequest,
    session: Session,
    engine: Engine,
    layer: Layer,
    class_index: int | None,
    watching: Watching,
    on_document: Callable[[Gradcam], None],
) -> Gradcam:
    from dualformer_cli.engine.explain.gradcam import read_video
    from dualformer_cli.engine.explain.heat_over_time import concatenate_views, merge_views
    from dualformer_cli.outputs.prediction_files import write_arrays

    views, short_side = read_video(engine, request.video, session.pool), engine.config.data.test.short_side
    found, deleted = _explain(request, engine, views, layer, class_index, watching)
    timeline = (concatenate_views if request.concatenate else merge_views)(found, views, short_side)
    document = _document(request, engine, views, found, timeline, deleted, layer, session.fallback)

    def write_npz() -> None:
        if request.npz is not None:
            write_arrays(request.npz, **_arrays(request, engine, views, found, timeline, layer))

    def tell(failures: Sequence[Exception | None]) -> None:
        npz, output = (
            None if failure else path for failure, path in zip(failures, (document.npz, document.output), strict=True)
        )
        on_document(replace(document, npz=npz, output=output))

    write_all(write_npz, lambda: _draw(request, session, engine, views, found, timeline, layer), then=tell)
    return document


def _explain(
    request: GradcamRequest,
    engine: Engine,
    views: VideoViews,
    layer: Layer,
    class_index: int | None,
    watching: Watching,
) -> tuple[Explanation, DeletionCurves | None]:
    """Return the maps of the views and, where it is asked for, the test of them."""
    from dualformer_cli.engine.explain.deletion import count_scorings, delete
    from dualformer_cli.engine.explain.gradcam import explain

    num_views, config = len(views.clips), engine.config
    with watching(2 * num_views + (count_scorings(num_views) if request.deletion else 0)) as advance:
        found = explain(engine, views.clips, layer, class_index=class_index, score=request.score, on_pass=advance)
        if not request.deletion:
            return found, None
        deleted = delete(
            lambda clips: engine.scorer.score(clips)[0][:, found.class_index],
            views.clips,
            found.grid,
            colour=config.data.mean,
            seed=config.runtime.seed,
            on_scored=advance,
        )
    return found, deleted


def _document(
    request: GradcamRequest,
    engine: Engine,
    views: VideoViews,
    found: Explanation,
    timeline: Timeline,
    deleted: DeletionCurves | None,
    layer: Layer,
    fallback: str | None,
) -> Gradcam:
    info = views.info
    return Gradcam(
        facts=engine.describe(),
        path=request.video,
        output=str(request.target),
        npz=None if request.npz is None else str(request.npz),
        layer=str(layer),
        grid=found.grid.shape[1:],
        gradient_of=request.score,
        class_=ExplainedClass(index=found.class_index, label=found.label, score=found.score, logit=found.logit),
        num_frames=len(timeline.frames),
        frames=timeline.frames.tolist(),
        saliency=timeline.curve.tolist(),
        num_views=len(views.clips),
        view_scores=found.view_scores.tolist(),
        video=ExplainedVideo(num_frames=info.num_frames, fps=info.fps, duration_seconds=info.duration_seconds),
        deletion=deleted,
        warnings=(*views.warnings, *found.warnings),
        fallback=fallback,
    )


def _arrays(
    request: GradcamRequest,
    engine: Engine,
    views: VideoViews,
    found: Explanation,
    timeline: Timeline,
    layer: Layer,
) -> Mapping[str, object]:
    """Return what --npz stores."""
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
        "gradient_of": request.score,
        "preset": engine.preset,
        "path": os.fsencode(request.video).decode("utf-8", "replace"),
    }


def _draw(
    request: GradcamRequest,
    session: Session,
    engine: Engine,
    views: VideoViews,
    found: Explanation,
    timeline: Timeline,
    layer: Layer,
) -> None:
    """Have a worker decode the frames again, at the size in which they are shown, and draw."""
    from dualformer_cli.outputs.heatmap import Drawing, Heatmaps, Style, draw

    data = engine.config.data
    heatmaps = Heatmaps(
        heat=(timeline.heatmaps * 255).round().astype("uint8"),
        boxes=timeline.boxes,
        curve=timeline.curve,
        numbers=timeline.frames,
        fps=views.info.fps,
        breaks=timeline.breaks,
        title=f"{found.label}, score {found.score:.1%}",
        detail=f"saliency at layer {layer} of {engine.preset}",
    )
    try:
        with path_in_own_folder(request.target) as unfinished:
            drawing = Drawing(
                video=request.video,
                decoder=data.decoder,
                frame_rate=data.frame_rate,
                frame_name=data.frame_name,
                heatmaps=heatmaps,
                style=Style(alpha=request.alpha, colormap=request.colormap, side_by_side=request.side_by_side),
                fps=request.fps,
                target=str(unfinished),
                font=None if request.font is None else str(request.font),
            )
            session.pool.call(draw, drawing).result()
    except DualFormerError as error:
        raise DualFormerError(f"{request.video!r} was not drawn: {error}") from error
