"""Whether a checkpoint fits the run that wants to go on from it: its data, its settings, its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from dualformer_cli.config.load import load_config, values_of, yaml_value
from dualformer_cli.documents.train import Change
from dualformer_cli.engine.training.checkpoint_files import Checkpoint
from dualformer_cli.engine.training.state import Origin
from dualformer_cli.errors import ConfigError, DualFormerError
from dualformer_cli.system.words import some_of

WITHOUT_EFFECT = frozenset(
    {
        *("weights", "data.classes", "data.train_list", "data.root", "data.list_format", "data.label_group"),
        *("data.validation_list", "data.decode_timeout_seconds", "model.start", "model.gradient_checkpointing"),
        *("train.max_unreadable", "train.validate_every", "train.save_every", "train.keep_epochs"),
        *("train.log_every_steps", "train.init_from", "train.pretrained_2d", "train.teacher"),
        *("train.teacher_preset", "train.token_labels"),
        *("runtime.device", "runtime.precision", "runtime.compile", "runtime.kernels", "runtime.num_workers"),
        *("runtime.exchange_timeout", "runtime.cuda_graphs"),
    }
)
"""Settings that may be others when a run resumes: they change no number, or what they name is compared by content."""

OF_THE_WHOLE_RUN = (
    *("model.", "data.render.", "data.clip.num_frames", "data.crop_size"),
    *("train.global_batch_size", "train.repeats"),
)
"""Beginnings of settings that no run can change on its way, but for those in `CHANGEABLE`."""

CHANGEABLE = frozenset({"model.dropout", "model.drop_path"})

_SHOWN = 6


def changes_of(
    checkpoint: Checkpoint, origin: Origin, settings: Mapping[str, object], allowed: frozenset[str], *, run: str
) -> list[Change]:
    """Return the settings that a run has no longer as its checkpoint has them.

    Args:
        checkpoint: that the run goes on from.
        origin: what the run is made of now.
        settings: by their dotted keys, as they are now.
        allowed: keys that the user wants to change.
        run: the run folder, for messages.

    Raises:
        DualFormerError: if data or settings differ that the user has not allowed to, or that cannot.
    """
    _require_same_data(checkpoint, origin, run)
    try:
        before = values_of(load_config(f"of {run}", text=str(checkpoint["config"]), environ={}).config)
    except ConfigError as error:
        raise DualFormerError(f"cannot resume {run!r}: its configuration cannot be read: {error}") from None
    differing = {
        key: (yaml_value(before[key]), yaml_value(value))
        for key, value in settings.items()
        if key not in WITHOUT_EFFECT and before[key] != value
    }
    if checkpoint.get("precision", origin.precision) != origin.precision:
        differing["runtime.precision"] = (checkpoint["precision"], origin.precision)
    list_before, list_now = checkpoint["data"].get("validation", origin.validation_list), origin.validation_list
    if list_before != list_now:
        differing["data.validation_list"] = (str(list_before), str(list_now))
    _require_allowed(differing, allowed, run)
    progress = checkpoint["progress"]
    return [
        Change(epoch=progress["epoch"], step=progress["step"], key=key, before=was, now=now)
        for key, (was, now) in differing.items()
    ]


def flaw_in(
    checkpoint: Checkpoint,
    origin: Origin,
    settings: Mapping[str, object],
    allowed: frozenset[str],
    model: Mapping[str, Tensor],
    *,
    run: str,
) -> str | None:
    """Return what makes a checkpoint useless, as damage does, or None.

    Args:
        checkpoint, origin, settings, allowed, run: as those of `changes_of`.
        model: the model's tensors.

    Raises:
        DualFormerError: as `changes_of`: then another checkpoint would be refused too.
    """
    if lacking := _lacking(checkpoint):
        return f"lacks {lacking}, or it is not what it should be"
    changes_of(checkpoint, origin, settings, allowed, run=run)
    for part in ("model", "training_model"):
        if checkpoint.get(part) is not None and (difference := _first_difference(checkpoint[part], model)):
            return f"is not whole: {difference}"
    if (flaw := _flaw_of_optimizer(checkpoint["optimizer"], model)) is not None:
        return flaw
    name = first_non_finite(checkpoint)
    return None if name is None else f"holds values that are not numbers, in {name}"


def first_non_finite(checkpoint: Checkpoint) -> str | None:
    """Return the name of the first tensor of weights or of the optimizer that has a value that is not a number."""
    for part in ("model", "training_model", "optimizer"):
        for name, tensor in _tensors(checkpoint.get(part), part):
            if tensor.is_floating_point() and not torch.isfinite(tensor).all().item():
                return name
    return None


def _lacking(checkpoint: Checkpoint) -> str | None:
    """Return the name of something that a run cannot go on without, and that is not there or of another type."""
    kinds = {"data": Mapping, "class_names": list, "scaler": Mapping}
    if found := [repr(name) for name, kind in kinds.items() if not isinstance(checkpoint.get(name), kind)]:
        return found[0]
    counts = ("epoch", "step_in_epoch", "step", "unreadable", "global_batch_size")
    if found := [repr(name) for name in counts if not isinstance(checkpoint["progress"].get(name), int)]:
        return f"{found[0]} of its progress"
    return None if isinstance(checkpoint["data"].get("training"), str) else "the fingerprint of its training list"


def _require_same_data(checkpoint: Checkpoint, origin: Origin, run: str) -> None:
    saved = checkpoint["data"]
    for what, before, now in (
        ("training list", saved["training"], origin.training_list),
        ("source of token labels", saved.get("token_labels"), origin.token_labels),
        ("clips per step", checkpoint["progress"]["global_batch_size"], origin.global_batch_size),
        ("class names", checkpoint["class_names"], origin.class_names),
    ):
        if before != now:
            was, is_now = (some_of(each, 3) if isinstance(each, list) else each for each in (before, now))
            raise DualFormerError(
                f"cannot resume {run!r}: its {what} was {was}, now it is {is_now}; "
                "give what the run began with, or start another one with --init-from"
            )


def _require_allowed(differing: Mapping[str, tuple[str, str]], allowed: frozenset[str], run: str) -> None:
    fixed = [key for key in differing if key.startswith(OF_THE_WHOLE_RUN) and key not in CHANGEABLE]
    refused = fixed or [key for key in differing if key not in allowed]
    if not refused:
        return
    told = some_of([f"{key} was {differing[key][0]} and is {differing[key][1]}" for key in refused], _SHOWN)
    if fixed:
        way_out = "start another one with --init-from: a run has it from its beginning to its end"
    else:
        options = " ".join(f"--change {key}={differing[key][1]}" for key in refused[:_SHOWN])
        way_out = f"change it from here on with {options}, which is written down"
    raise DualFormerError(f"cannot resume {run!r}: {told}; give what the run began with, or {way_out}")


def _first_difference(saved: Mapping[str, Any], model: Mapping[str, Tensor]) -> str:
    """Return in words the first tensor that a checkpoint lacks, has too much, or in another shape; else nothing."""
    for name in {**model, **saved}:
        if name not in saved:
            return f"it lacks {name}"
        if name not in model:
            return f"it has {name}, which the model has not"
        if not isinstance(saved[name], Tensor) or saved[name].shape != model[name].shape:
            shape = getattr(saved[name], "shape", ())
            return f"{name} has shape {tuple(shape)} in place of {tuple(model[name].shape)}"
    return ""


def _flaw_of_optimizer(optimizer: Mapping[str, Any], model: Mapping[str, Tensor]) -> str | None:
    groups, state = optimizer.get("param_groups"), optimizer.get("state")
    if not isinstance(groups, list) or not isinstance(state, Mapping):
        return "lacks the optimizer's groups or moments"
    for group in groups:
        names, numbers = (group.get(key) if isinstance(group, Mapping) else None for key in ("names", "params"))
        if not isinstance(names, list) or not isinstance(numbers, list) or len(names) != len(numbers):
            return "lacks the names of the optimizer's parameters"
        for name, number in zip(names, numbers, strict=True):
            if name not in model:
                return f"is not whole: its optimizer knows {name}, which the model has not"
            for key, moment in state.get(number, {}).items():
                if isinstance(moment, Tensor) and moment.dim() and moment.shape != model[name].shape:
                    return f"is not whole: the optimizer's {key} of {name} has shape {tuple(moment.shape)}"
    return None


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{name}.{key}")
