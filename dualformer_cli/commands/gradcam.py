"""`dualformer gradcam`: where in a video does the model see it?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.options import (
    DeviceOption,
    FontOption,
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
    announce_loading,
    announce_sample,
    folder_or_file,
    model_request,
    print_document,
    sample_input,
    show_config_that_runs,
)
from dualformer_cli.commands.predict import announce
from dualformer_cli.config.option_defaults import (
    GRADCAM_ALPHA,
    GRADCAM_COLORMAP,
    GRADCAM_FPS,
    GRADCAM_LAYER,
    GRADCAM_SCORE,
    Colormap,
    ScoreKind,
)

if TYPE_CHECKING:
    from dualformer_cli.documents.gradcam import Gradcam
    from dualformer_cli.engine.engine import Engine


def gradcam(
    video: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="A video, or a folder of numbered frames. [default: a sample clip]"),
    ] = None,
    preset: PresetOption = None,
    weights: WeightsOption = None,
    layer: Annotated[
        str, typer.Option(metavar="STAGE/BLOCK|last", help="Block to look at; negative numbers count from the end.")
    ] = GRADCAM_LAYER,
    list_layers: Annotated[bool, typer.Option("--list-layers", help="List the model's layers, then stop.")] = False,
    class_: Annotated[
        str | None, typer.Option("--class", metavar="NAME|ID", help="Class to look for. [default: the best]")
    ] = None,
    score: Annotated[
        ScoreKind,
        typer.Option(help="What the gradient is of; the published code takes the probability."),
    ] = GRADCAM_SCORE,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.gif|mp4|png|FOLDER/",
            parser=folder_or_file,
            help="Where to draw: a GIF, a video, or a sheet of frames. [default: NAME.gradcam.gif here]",
        ),
    ] = None,
    npz: Annotated[
        Path | None, typer.Option("--npz", metavar="FILE.npz", help="Also write the maps as arrays.")
    ] = None,
    fps: Annotated[float, typer.Option(help="Frames per second of the GIF or video.")] = GRADCAM_FPS,
    alpha: Annotated[float, typer.Option(help="Share of the heat's colours in the picture, 0 to 1.")] = GRADCAM_ALPHA,
    colormap: Annotated[Colormap, typer.Option(help="Colours of the heat.")] = GRADCAM_COLORMAP,
    font: FontOption = None,
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
    from dualformer_cli.tasks import gradcam as task

    model = model_request(
        preset,
        weights=weights,
        overrides=overrides,
        device=device,
        precision=precision,
        seed=seed,
        views=views,
        offline=offline,
    )
    if print_config:
        show_config_that_runs(model)
        return
    from dualformer_cli.outputs.gradcam import print_gradcam, print_layers
    from dualformer_cli.outputs.progress import fetch_progress
    from dualformer_cli.outputs.screen import log, wrote

    def tell(document: Gradcam) -> None:
        print_document(document, print_gradcam, as_json=as_json)
        wrote(*filter(None, (document.output, document.npz)))

    if list_layers:
        print_document(task.list_layers(model, on_fallback=log), print_layers, as_json=as_json)
        return
    if not 0 <= alpha <= 1:
        raise typer.BadParameter(f"{alpha:g} is not between 0 and 1", param_hint="--alpha")
    if not 0.01 <= fps <= 1000:
        raise typer.BadParameter(f"{fps:g} is not between 0.01 and 1000", param_hint="--fps")
    request = task.GradcamRequest(
        model=model,
        video=sample_input() if video is None else video,
        layer=layer,
        class_=class_,
        score=score,
        deletion=deletion,
        concatenate=concatenate,
        out=out,
        npz=npz,
        fps=fps,
        alpha=alpha,
        colormap=colormap,
        font=font,
        side_by_side=side_by_side,
        overwrite=overwrite,
    )
    announce_loading(model)
    task.gradcam(
        request,
        fetching=fetch_progress,
        watching=_watching,
        on_fallback=log,
        on_engine=partial(_announce, is_sample=video is None),
        on_document=tell,
    )


def _announce(engine: Engine, *, is_sample: bool) -> None:
    announce(engine.describe())
    if is_sample:
        announce_sample()


@contextmanager
def _watching(total: int) -> Iterator[Callable[[], object]]:
    from dualformer_cli.outputs.progress import Progress

    with Progress("gradcam", total=total) as bar:
        yield bar.advance
