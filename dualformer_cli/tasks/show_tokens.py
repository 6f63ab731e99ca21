"""What a model says about each token of a clip, as a picture and in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dualformer_cli.config.option_defaults import TOKENS_MOMENTS, TOKENS_OUT
from dualformer_cli.documents.tokenlabel import TokenClass, Tokens
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.output_checks import check_outputs
from dualformer_cli.tasks.session import DEFAULT_PRESET, Fetching, ModelRequest, open_session
from dualformer_cli.video.one_input import check_one_video

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dualformer_cli.data.clips.views import VideoViews
    from dualformer_cli.engine.engine import Engine
    from dualformer_cli.outputs.tokens import Panel

Head = Literal["auto", "classifier", "token"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowTokensRequest:
    """Whose tokens to score by which model, and the picture to write."""

    model: ModelRequest
    video: str
    """A video file or a folder of frames."""
    out: Path = TOKENS_OUT
    head: Head = "auto"
    """The head that scores the tokens; auto: the token head, if there is one."""
    num_frames: int = TOKENS_MOMENTS
    """Moments of the clip to draw."""
    overwrite: bool = False
    """Whether a picture that exists may be replaced."""


def show_tokens(
    request: ShowTokensRequest,
    *,
    fetching: Fetching = lambda: nullcontext(lambda name, done, total: None),
    on_document: Callable[[Tokens], None] = lambda document: None,
) -> Tokens:
    """Score every token of the clip in the middle of a video, cut to the centre of its frames, and draw them.

    Args:
        request: what to do.
        fetching: shows how far a file of weights is.
        on_document: called with the result at the end, also when the picture cannot be written; then before the error.

    Raises:
        DualFormerError: if the video or weights cannot be read, there is no token head, or the picture could not be
            written or should not be replaced.
    """
    if request.out.suffix.lower() != ".png":
        raise DualFormerError(f"--out {str(request.out)!r} must end in .png")
    check_outputs([request.out], [request.video], overwrite=request.overwrite)
    check_one_video(request.video)
    with open_session(request.model, default=DEFAULT_PRESET, num_workers=1) as session:
        from dualformer_cli.engine.explain.gradcam import read_video
        from dualformer_cli.outputs.tokens import write_sheet

        engine = session.load_engine(fetching)
        head = _head(engine, request.head)
        views = read_video(
            engine, request.video, session.pool, replace(engine.config.data.test, num_clips=1, num_crops=1)
        )
    classes = _best_classes(engine, views, head)
    document = _document(request, engine, views, head, classes)
    title = f"{engine.describe().model}, {head} head"
    try:
        write_sheet(_panels(classes, views, request.num_frames), engine.class_names, request.out, title=title)
    except (DualFormerError, OSError):
        on_document(replace(document, output=None))
        raise
    on_document(document)
    return document


def _head(engine: Engine, head: Head) -> Literal["classifier", "token"]:
    if head == "token" and engine.model.token_head is None:
        raise DualFormerError(f"{engine.preset} with {engine.weights} weights has no token head; use --head classifier")
    return "classifier" if head == "classifier" or engine.model.token_head is None else "token"


def _best_classes(engine: Engine, views: VideoViews, head: Literal["classifier", "token"]) -> npt.NDArray[np.int64]:
    """Return the best class of every token of the clip, shape (t, h, w)."""
    import torch

    from dualformer_cli.data.clips.transforms import normalize

    model, data = engine.model, engine.config.data
    layer: Any = model.token_head if head == "token" else model.classifier
    with torch.inference_mode():
        clips = torch.from_numpy(views.clips).to(engine.device)
        tokens = model.forward_tokens(normalize(clips, data.mean, data.std, model.classifier.weight.dtype))
        classes: npt.NDArray[np.int64] = layer(tokens)[0].argmax(dim=-1).cpu().numpy()
    return classes


def _document(
    request: ShowTokensRequest, engine: Engine, views: VideoViews, head: str, classes: npt.NDArray[np.int64]
) -> Tokens:
    return Tokens(
        path=request.video,
        preset=engine.preset,
        weights=engine.weights,
        weights_sha256=engine.weights_sha256,
        device=str(engine.device),
        precision=engine.precision,
        head=head,
        grid=classes.shape,
        frames=views.indices[0].tolist(),
        classes=tuple(
            TokenClass(label=engine.class_names[index], index=index, tokens=count, percent=100 * count / classes.size)
            for index, count in Counter(classes.ravel().tolist()).most_common()
        ),
        output=str(request.out),
    )


def _panels(classes: npt.NDArray[np.int64], views: VideoViews, number: int) -> list[Panel]:
    """Return at most `number` moments of the clip, evenly spread."""
    import numpy as np

    from dualformer_cli.outputs.tokens import Panel

    t, fps = len(classes), views.info.fps
    per_token = views.clips.shape[1] // t
    panels = []
    for token in np.linspace(0, t - 1, min(number, t)).round().astype(int).tolist():
        frame = token * per_token + per_token // 2
        position = int(views.indices[0, frame])
        caption = f"frame {position}" + (f", {position / fps:.2f} s" if fps else "")
        panels.append(Panel(views.clips[0, frame], classes[token], caption))
    return panels
