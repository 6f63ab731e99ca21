"""Where a training run starts from: nothing, other video weights, or inflated image weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import ModelConfig, RunConfig, TrainConfig
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.fetch.hugging_face import NO_TIMM_OFFLINE, hub_problem, local_weights, no_timm, timm_model
from dualformer_cli.data.fetch.weights import published_weights, weights_names
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.errors import WeightsError
from dualformer_cli.model.dualformer import DualFormer, Stage
from dualformer_cli.model.weights import (
    FRESH_IN_TRAINING,
    class_names_of,
    inflate_2d,
    load_weights,
    own_key,
    read_checkpoint,
    require_dualformer,
    state_dict_of,
)
from dualformer_cli.system.words import counted, some_of

_PARTS_IN_WORDS = {
    "motion_vote.": "the motion vote is",
    "token_head.": "the token head is",
    "motion_heads.": "the motion heads are",
}
"""What is said of parts that are fresh, the classifier apart, by what their tensors' names begin with."""


def start(model: DualFormer, train: TrainConfig, *, class_names: Sequence[str], offline: bool = False) -> list[str]:
    """Fill a new model as `train.init_from` or `train.pretrained_2d` say; without them its random weights stay.

    Returns:
        Sentences for the log.

    Raises:
        DualFormerError: if the weights cannot be had or are of another size.
    """
    if train.init_from is not None:
        return start_from_video(model, train.init_from, class_names=class_names, offline=offline)
    if train.pretrained_2d is not None:
        return start_from_images(model, train.pretrained_2d, offline=offline)
    return ["started from random weights"]


def start_from_video(
    model: DualFormer,
    source: str,
    *,
    class_names: Sequence[str],
    offline: bool = False,
    source_class_names: Sequence[str] | None = None,
) -> list[str]:
    """Fill a model with the weights of a preset or a file, rebuilding what cannot fit.

    Classifier rows are kept for classes with the same name and are fresh for the others. Pooling kernels of another
    number of frames are added up over time, which changes nothing for a still picture.

    Args:
        model: to fill.
        source: a preset with published weights, a file, or an address of the Hub.
        class_names: of the model.
        offline: never fetch.
        source_class_names: of the weights; None takes the checkpoint's own, or the preset's.

    Returns:
        Sentences for the log about what was kept, adapted and left fresh.

    Raises:
        DualFormerError: if the weights cannot be had, or are of another size.
    """
    entries = weights_names()
    path = published_weights(source, offline=offline) if source in entries else local_weights(source, offline=offline)
    checkpoint = read_checkpoint(path)
    tensors = {own_key(key): value for key, value in state_dict_of(checkpoint, repr(str(path))).items()}
    require_dualformer(tensors, repr(source))
    own = model.state_dict()
    notes: list[str] = []
    for key, value in tensors.items():
        if key in own and value.dim() == own[key].dim() == 5 and value.shape != own[key].shape:
            tensors[key] = _fit_frames(value, own[key])
            notes.append(f"{key}: kernel of {value.shape[2]} frames added up to {own[key].shape[2]}")
    names = source_class_names or _class_names(checkpoint, source if source in entries else None)
    notes += _fit_classifier(tensors, own, class_names, names)
    report = load_weights(model, tensors, strict=False)
    fresh = [key for key in report.fresh if not key.startswith(FRESH_IN_TRAINING)]
    if fresh:
        raise WeightsError(
            f"weights {source!r} do not fit the model: missing or of another shape: "
            f"{some_of(fresh, 4)}; start from weights of the same size"
        )
    notes.insert(0, f"started from {source}: {counted(len(report.loaded), 'tensor')} loaded")
    for head, what in _PARTS_IN_WORDS.items():
        if heads := [key for key in report.fresh if key.startswith(head)]:
            notes.append(f"{what} fresh ({counted(len(heads), 'tensor')})")
    return notes


def note_of_classes(config: RunConfig, *, preset: ModelConfig) -> list[str]:
    """Return what a list with other classes than the preset means for a new run, and what would help, in a sentence.

    Args:
        config: with the classes of the list.
        preset: with those of the preset.
    """
    classes = config.model.num_classes
    if classes == preset.num_classes or config.train.init_from is not None:  # of which `start` says what is kept
        return []
    source = next((name for name in load_catalogue().weights if _is_of_size(name, config.model)), None)
    advice = "" if source is None else f"; to fine-tune the Kinetics model: --init-from {source}"
    return [f"the classifier starts anew, with the list's {counted(classes, 'class')}{advice}"]


def _is_of_size(preset: str, model: ModelConfig) -> bool:
    known = load_config(preset, environ={}).config.model
    return (known.embed_dims, known.depths, known.num_heads) == (model.embed_dims, model.depths, model.num_heads)


def start_from_images(model: DualFormer, source: str, *, offline: bool = False) -> list[str]:
    """Fill a model with inflated image weights: a file with 2-D tensors, or "timm" for ImageNet-1k Twins-SVT.

    timm's pooling convolutions are dense where ours are depth-wise; each channel takes its own diagonal kernel, the
    nearest depth-wise one (in the sum of squares). What images do not have stays at its initial value. With `offline`,
    timm takes weights that it fetched earlier, or fails.

    Returns:
        Sentences for the log.

    Raises:
        DualFormerError: if the weights cannot be had or are of another size.
    """
    tensors = (
        _timm_weights(model, offline) if source == "timm" else state_dict_of(read_checkpoint(source), repr(source))
    )
    inflated = inflate_2d(model, {key: _depthwise(key, value) for key, value in tensors.items()})
    own = model.state_dict()
    misshapen = [key for key, value in inflated.items() if value.shape != own[key].shape and ".pool." not in key]
    misshapen = [key for key in misshapen if not key.startswith("classifier.")]
    if misshapen:
        key = misshapen[0]
        raise WeightsError(
            f"image weights {source!r} do not fit the model: {key!r} has shape {tuple(inflated[key].shape)}, "
            f"not {tuple(own[key].shape)}; choose weights of the same size"
        )
    report = load_weights(model, inflated, strict=False)
    loaded = sum(not key.startswith("classifier.") for key in report.loaded)
    if loaded < len(own) // 2:
        raise WeightsError(f"image weights {source!r} are not those of a 2-D DualFormer or Twins-SVT")
    fresh = [key for key in report.fresh if not key.endswith("num_batches_tracked")]
    names = ", ".join(fresh[:4])
    return [f"inflated image weights {source}: {counted(loaded, 'tensor')}; fresh: {len(fresh)} ({names}, ...)"]


def _fit_frames(value: Tensor, own: Tensor) -> Tensor:
    """Add up a kernel over time until it has the model's number of taps, where that is a whole factor."""
    if value.shape[2] > own.shape[2] and value.shape[2] % own.shape[2] == 0 and value.shape[3:] == own.shape[3:]:
        return value.unflatten(2, (own.shape[2], -1)).sum(dim=3)
    return value


def _class_names(checkpoint: Mapping[str, Any], preset: str | None) -> list[str] | None:
    if (names := class_names_of(checkpoint)) is not None or preset is None:
        return names
    classes = load_config(preset, environ={}).config.data.classes
    return None if classes is None else load_class_names(classes)


def _fit_classifier(
    tensors: dict[str, Tensor], own: Mapping[str, Tensor], class_names: Sequence[str], names: Sequence[str] | None
) -> list[str]:
    """Give the classifier one row per class of the model: those of the same name, or fresh ones."""
    weight, bias = tensors.pop("classifier.weight", None), tensors.pop("classifier.bias", None)
    if weight is None or bias is None:
        return ["the classifier is fresh"]
    if names is None or len(names) != len(weight):
        if weight.shape == own["classifier.weight"].shape:
            tensors.update({"classifier.weight": weight, "classifier.bias": bias})
            return ["the classifier is kept: as many classes, but the weights do not say which"]
        return [f"the classifier is fresh: {counted(len(weight), 'class')} before, {len(class_names)} now"]
    rows = {name: row for row, name in enumerate(names)}
    kept = [(new, rows[name]) for new, name in enumerate(class_names) if name in rows]
    new_weight, new_bias = own["classifier.weight"].clone(), own["classifier.bias"].clone()
    for new, old in kept:
        new_weight[new], new_bias[new] = weight[old], bias[old]
    tensors.update({"classifier.weight": new_weight, "classifier.bias": new_bias})
    if len(kept) == len(class_names):
        return ["the classifier is kept: all classes are known by name"]
    fresh = len(class_names) - len(kept)
    return [f"the classifier keeps {counted(len(kept), 'class')} of the same name and has {fresh} fresh"]


def _depthwise(key: str, value: Tensor) -> Tensor:
    """The diagonal of a dense pooling convolution (c, c, k, k), as (c, 1, k, k); anything else unchanged."""
    if ".attn.sr.weight" in key and value.dim() == 4 and value.shape[0] == value.shape[1] > 1:
        return torch.stack([value[channel, channel] for channel in range(len(value))]).unsqueeze(1)
    return value


def _timm_weights(model: DualFormer, offline: bool) -> dict[str, Tensor]:
    import timm

    name = timm_model([cast(Stage, stage).patch_embed.proj.out_channels for stage in model.stages])
    problem = None if offline else hub_problem()
    try:
        with _hub_offline() if offline or problem else nullcontext():
            weights: dict[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if problem is not None:
            reason = f"it was not fetched before, and {problem}"
        raise no_timm(name, NO_TIMM_OFFLINE if offline else reason) from error
    return {key: value for key, value in weights.items() if not key.startswith("head.")}


@contextmanager
def _hub_offline() -> Iterator[None]:
    """Keep the Hub's library, through which timm fetches, to its cache: it reads HF_HUB_OFFLINE once, into this."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
