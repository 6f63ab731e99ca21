"""Grad-CAM: where in its clips a model finds the evidence for a class.

The map of a block (arXiv 1610.02391, carried over to token grids): the block's output, weighted per frame and channel
by the mean over height and width of the class score's gradient, summed over channels, without its negative part.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dualformer_cli.config.option_defaults import GRADCAM_SCORE, ScoreKind
from dualformer_cli.config.schema import RunConfig, Size3, ViewsConfig
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.data.clips.views import VideoViews, read_views
from dualformer_cli.data.lists.matching import ClassLookup
from dualformer_cli.documents.gradcam import LayerRow
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.parallel.devices import widest
from dualformer_cli.errors import DualFormerError, VideoError, nearest
from dualformer_cli.model.attention import LocalWindowAttention
from dualformer_cli.model.dualformer import DualFormer, Stage
from dualformer_cli.system.words import counted
from dualformer_cli.system.workers import WorkerPool

Maps = npt.NDArray[np.float32]

_MOST_NAMED = 20
"""Classes up to which a message names them all."""
_PUBLISHED_PREFIX = "backbone/blocks/"
_LISTED_AT_MOST = 6


@dataclass(frozen=True, slots=True)
class Layer:
    """One block of the model; both numbers count from 0."""

    stage: int
    block: int

    def __str__(self) -> str:
        return f"{self.stage}/{self.block}"


def find_layer(name: str, depths: Sequence[int], model_name: str) -> Layer:
    """Turn the name of a layer into a block that exists.

    Args:
        name: STAGE/BLOCK, negative numbers counting from the end; "last"; or backbone/blocks/STAGE/BLOCK.
        depths: blocks in each stage.
        model_name: for messages.

    Raises:
        DualFormerError: if there is no such layer; it names those that there are.
    """
    if name == "last":
        return Layer(len(depths) - 1, depths[-1] - 1)
    match = re.fullmatch(r"(-?[0-9]{1,6})/(-?[0-9]{1,6})", name.removeprefix(_PUBLISHED_PREFIX), re.ASCII)
    if match is None:
        raise DualFormerError(
            f"layer {name!r} is not STAGE/BLOCK, such as {len(depths) - 1}/{depths[-1] - 1}, -1/-1 or last; "
            f"{_stages_of(depths, model_name)}"
        )
    stage, block = int(match[1]), int(match[2])
    stage += len(depths) if stage < 0 else 0
    if not 0 <= stage < len(depths):
        raise DualFormerError(f"layer {name!r} not found: {_stages_of(depths, model_name)}")
    depth = depths[stage]
    block += depth if block < 0 else 0
    if not 0 <= block < depth:
        raise DualFormerError(
            f"layer {name!r} not found: {model_name} has {counted(depth, 'block')} in stage {stage}: "
            f"{_blocks_of(stage, depth)}"
        )
    return Layer(stage, block)


def _stages_of(depths: Sequence[int], model_name: str) -> str:
    stages = ", ".join(
        f"{stage}/0" + (f" to {stage}/{depth - 1}" if depth > 1 else "") for stage, depth in enumerate(depths)
    )
    return f"{model_name} has {len(depths)} stages: {stages}"


def _blocks_of(stage: int, depth: int) -> str:
    if depth > _LISTED_AT_MOST:
        return f"{stage}/0 to {stage}/{depth - 1}"
    return ", ".join(f"{stage}/{block}" for block in range(depth))


def list_layers(config: RunConfig) -> Iterator[LayerRow]:
    """Yield every layer of a model."""
    with torch.device("meta"):
        model = build_model(config.model, config.data, kernels=config.runtime.kernels)
    sizes, grid = config.model, model.input_size
    for number, (patch, channels) in enumerate(zip(sizes.patch_sizes, sizes.embed_dims, strict=True)):
        grid = (grid[0] // patch[0], grid[1] // patch[1], grid[2] // patch[2])
        for index, block in enumerate(cast(Stage, model.stages[number]).blocks):
            is_local = isinstance(block.attention, LocalWindowAttention)
            yield LayerRow(
                layer=str(Layer(number, index)),
                attention="local" if is_local else "global",
                grid=grid,
                channels=channels,
            )


def find_class(name: str, class_names: Sequence[str]) -> int:
    """Turn a class's name, however spelled, or its number from 0 into its number.

    Raises:
        DualFormerError: if there is no such class; it names the nearest.
    """
    found = ClassLookup(class_names).find(name)
    if found is not None:
        return found
    if re.fullmatch(r"[0-9]{1,9}", name, re.ASCII):
        if int(name) < len(class_names):
            return int(name)
        raise DualFormerError(
            f"class {name} not found: the model has {len(class_names)} classes, 0 to {len(class_names) - 1}"
        )
    names = f": {', '.join(class_names)}" if len(class_names) <= _MOST_NAMED else ""
    advice = nearest(name, class_names) or f"; give a name or a number from 0 to {len(class_names) - 1}{names}"
    raise DualFormerError(f"class {name!r} is none of the model's {len(class_names)} classes{advice}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Where the model sees one class in the views of a video."""

    class_index: int
    label: str
    score: float
    """Of the class, as `predict` gives it: the mean of the views' probabilities."""
    logit: float
    """Mean over the views."""
    view_scores: npt.NDArray[np.float64]
    """Probability of the class in each view, shape (v,)."""
    grid: Maps
    """Grad-CAM on the layer's token grid, not negative, shape (v, t, h, w); the scale is one for all views."""
    clip_size: Size3
    """(T, H, W) of a clip."""
    warnings: tuple[str, ...]

    def resized(self, view: int) -> Maps:
        """The map of a view over its frames and pixels, in the scale of `grid`, shape (T, H, W)."""
        return np.asarray(resize_maps(torch.from_numpy(self.grid[view : view + 1]), self.clip_size)[0].numpy())

    def heatmaps(self) -> Maps:
        """All maps over frames and pixels, each clip stretched to 0 to 1 by itself, shape (v, T, H, W)."""
        return np.stack([stretch(self.resized(view)) for view in range(len(self.grid))])


def read_video(engine: Engine, path: str, pool: WorkerPool, views: ViewsConfig | None = None) -> VideoViews:
    """Read the views of one video, those that `predict` takes where none are given, in a process that can be killed.

    Raises:
        DualFormerError: if the video cannot be used; the message names it.
    """
    data = engine.config.data
    outcome = pool.call(partial(read_views, data=data, views=views or data.test), path)
    if outcome.error is not None:
        raise VideoError(path, outcome.reason) from outcome.error
    return outcome.value


def explain(
    engine: Engine,
    clips: npt.NDArray[np.uint8],
    layer: Layer,
    *,
    class_index: int | None = None,
    score: ScoreKind = GRADCAM_SCORE,
    on_pass: Callable[[], object] = lambda: None,
) -> Explanation:
    """Compute the maps of a video's views.

    Args:
        engine: the model with its class names.
        clips: views, shape (v, T, H, W, 3).
        layer: the block to look at.
        class_index: the class to explain; the one with the best score when None.
        score: what the gradient is of: the class's logit, or its probability as in the published code.
        on_pass: called after each view's forward pass, and again after its backward pass.

    Raises:
        DualFormerError: if the scores are not finite.
    """
    with prepared(engine.model):
        outputs, logits = _run_until(engine, clips, layer, on_pass)
        multi_label = engine.config.data.multi_label
        probs = logits.sigmoid() if multi_label else logits.softmax(-1)
        if not probs.isfinite().all():
            advice = "the weights are damaged" if engine.precision == "fp32" else "try --precision fp32"
            raise DualFormerError(f"the scores are not numbers in {engine.precision}; {advice}")
        chosen = int(probs.mean(dim=0).argmax()) if class_index is None else class_index
        maps = []
        for output in outputs:
            found = grad_cam(engine.model, output, layer, chosen, score=score, multi_label=multi_label)
            maps.append(found.float().cpu())
            on_pass()
    grid = torch.cat(maps).numpy()
    label = engine.class_names[chosen]
    return Explanation(
        class_index=chosen,
        label=label,
        score=float(probs[:, chosen].mean()),
        logit=float(logits[:, chosen].mean()),
        view_scores=probs[:, chosen].numpy(),
        grid=grid,
        clip_size=(clips.shape[1], clips.shape[2], clips.shape[3]),
        warnings=tuple(_doubts(grid, layer, label, score)),
    )


def _run_until(
    engine: Engine, clips: npt.NDArray[np.uint8], layer: Layer, on_pass: Callable[[], object]
) -> tuple[list[Tensor], Tensor]:
    """Outputs of the layer for each view, (1, t, h, w, c), and the logits of all, (v, classes) in float64 on the CPU.

    One view at a time: the memory that gradients take then does not grow with the number of views.
    """
    model, parameter, data = engine.model, next(engine.model.parameters()), engine.config.data
    outputs, logits = [], []
    with torch.no_grad():
        for clip in clips:
            batch = torch.from_numpy(clip[None]).to(parameter.device)
            batch = normalize(batch, data.mean, data.std, parameter.dtype)
            output = model.forward_until(batch, layer.stage, layer.block)
            tokens = model.forward_after(output, layer.stage, layer.block)
            logits.append(model.classify(tokens).cpu().double())
            outputs.append(output)
            on_pass()
    return outputs, torch.cat(logits)


def _doubts(grid: Maps, layer: Layer, label: str, score: ScoreKind) -> Iterator[str]:
    flat = grid.reshape(len(grid), -1)
    empty = int(np.count_nonzero(flat.max(axis=1) <= flat.min(axis=1)))
    if empty:
        which = "the map is" if len(grid) == 1 else f"{empty} of {len(grid)} maps are"
        advice = "; try --score logit" if score == "probability" else "; try another layer"
        yield f"{which} empty: at layer {layer} no place speaks for {label!r} more than another{advice}"


@contextmanager
def prepared(model: DualFormer) -> Iterator[None]:
    """Have gradients taken of activations only, with those of one block in memory at a time."""
    parameters = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    checkpointing = [bool(stage.gradient_checkpointing) for stage in model.stages]
    for parameter, _ in parameters:
        parameter.requires_grad_(False)
    model.set_gradient_checkpointing(True)
    try:
        yield
    finally:
        for parameter, required in parameters:
            parameter.requires_grad_(required)
        for stage, enabled in zip(model.stages, checkpointing, strict=True):
            stage.gradient_checkpointing = enabled  # type: ignore[assignment]


def grad_cam(
    model: DualFormer,
    output: Tensor,
    layer: Layer,
    class_index: int,
    *,
    score: ScoreKind = GRADCAM_SCORE,
    multi_label: bool = False,
) -> Tensor:
    """The map of each clip on the layer's token grid.

    Args:
        model: in eval mode.
        output: what `model.forward_until` gave for the layer, shape (b, t, h, w, c).
        layer: the block.
        class_index: the class to explain.
        score: logit or probability of the class.
        multi_label: the probability is a sigmoid, not a softmax.

    Returns:
        Shape (b, t, h, w), not negative; float32, whatever the model's precision, and float64 if that is.
    """
    wide = torch.float64 if output.dtype == torch.float64 else torch.float32
    leaf = output.detach().requires_grad_()
    with torch.enable_grad():
        tokens = model.forward_after(leaf, layer.stage, layer.block)
        logits = model.classify(tokens)
        direction, size = _score_gradient(logits.detach(), class_index, score, multi_label)
        # The mean over tokens divides the gradient by their number, which float16 does not survive.
        num_tokens = tokens[0, ..., 0].numel()
        (gradient,) = torch.autograd.grad(logits, leaf, (direction * num_tokens).to(logits.dtype))
    weights = gradient.to(wide).mean(dim=(2, 3), keepdim=True) / num_tokens
    maps = F.relu((weights * output.detach().to(wide)).sum(dim=-1))
    return maps * size.to(wide)[:, None, None, None]


def _score_gradient(logits: Tensor, class_index: int, score: ScoreKind, multi_label: bool) -> tuple[Tensor, Tensor]:
    """The score's gradient by the logits (b, classes) as a direction, whose class has 1, and a size (b,); in `widest`.

    Taken apart, a gradient that is tiny because the probability is near 0 or 1 loses no digits on its way.
    """
    wide = widest(logits.device)
    direction = torch.zeros_like(logits, dtype=wide)
    direction[:, class_index] = 1
    if score == "logit":
        return direction, torch.ones(len(logits), dtype=wide, device=logits.device)
    if multi_label:
        p = logits[:, class_index].to(wide)
        return direction, p.sigmoid() * (-p).sigmoid()
    probs = logits.to(wide).softmax(-1)
    others = probs * (1 - direction)
    rest = others.sum(dim=-1)  # 1 - p without its rounding
    direction = direction - others / rest.clamp_min(torch.finfo(wide).tiny)[:, None]
    return direction, probs[:, class_index] * rest


def resize_maps(maps: Tensor, size: Size3) -> Tensor:
    """Maps (b, t, h, w) to frames and pixels (b, T, H, W), trilinear between the centres of tokens."""
    return F.interpolate(maps[:, None], size=size, mode="trilinear", align_corners=False)[:, 0]


def stretch(maps: Maps) -> Maps:
    """Stretch values to the range 0 to 1; all become 0 where they are all the same."""
    low, high = maps.min(), maps.max()
    if not high > low:
        return np.zeros_like(maps)
    return (maps - low) / (high - low)
