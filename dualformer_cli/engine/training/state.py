"""Everything that another process needs to go on with a run exactly where this one is: what is saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.train import ValidationRow
from dualformer_cli.engine.parallel.batch_norm import average_running_statistics
from dualformer_cli.engine.training.checkpoint_files import Checkpoint
from dualformer_cli.engine.training.optim import WeightAverage, build_optimizer, parameter_groups
from dualformer_cli.errors import DualFormerError
from dualformer_cli.model.dualformer import DualFormer


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a run is made of: a resumed one must have the same data and clips per step."""

    config: str
    """YAML."""
    class_names: list[str]
    training_list: str
    """Fingerprint."""
    token_labels: str | None
    """Fingerprint of their source."""
    global_batch_size: int


class TrainingState:
    """Model, optimizer, loss scale, moving average, and how far the run is.

    Args:
        model: on its device.
        origin: what the run is made of.
        train: settings of the optimizer and of the average.
        lr: of the whole run, at its peak.
        is_scaled: scale the loss, as fp16 needs it.
    """

    def __init__(self, model: DualFormer, origin: Origin, train: TrainConfig, *, lr: float, is_scaled: bool) -> None:
        device = next(model.parameters()).device
        groups = parameter_groups(
            model,
            lr=lr,
            backbone_lr_scale=train.backbone_lr_scale,
            weight_decay=train.weight_decay,
            decay_norms=train.decay_norms,
            layer_decay=train.layer_decay,
            frozen_stages=train.frozen_stages,
        )
        self.model, self.origin = model, origin
        self.optimizer = build_optimizer(groups, train.optimizer, device=device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=is_scaled)
        self.average = WeightAverage(model, decay=train.ema_decay) if train.ema_decay else None
        self.epoch, self.step_in_epoch, self.step = 0, 0, 0
        self.best: float | None = None
        """Value of train.best_metric in the best epoch so far."""
        self.unreadable = 0
        """Videos of this epoch so far that could not be read."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the model have the averaged weights inside the `with` block, where there is an average."""
        if self.average is None:
            yield
        else:
            with self.average.applied(self.model):
                yield

    def agree_on_buffers(self) -> None:
        """Give all ranks the same running statistics, which each has of its own clips; also in the moving average."""
        average_running_statistics(self.model)
        if self.average is not None:
            with self.averaged():
                average_running_statistics(self.model)
                for name, buffer in self.model.named_buffers():
                    self.average.weights[name].copy_(buffer)

    def contents(self, validation: ValidationRow | None) -> Checkpoint:
        """Return what a checkpoint holds.

        Args:
            validation: the last one, whose numbers it is to have.
        """
        row = {} if validation is None else to_json(validation)
        return {
            "model": self.model.state_dict() if self.average is None else self.average.weights,
            "training_model": None if self.average is None else self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average_updates": None if self.average is None else self.average.num_updates,
            "progress": {
                "epoch": self.epoch,
                "step_in_epoch": self.step_in_epoch,
                "step": self.step,
                "best": self.best,
                "unreadable": self.unreadable,
                "global_batch_size": self.origin.global_batch_size,
            },
            "config": self.origin.config,
            "class_names": self.origin.class_names,
            "metrics": {name: value for name, value in row.items() if isinstance(value, int | float)} or None,
            "data": {"training": self.origin.training_list, "token_labels": self.origin.token_labels},
        }

    def restore(self, checkpoint: Checkpoint, *, run: str) -> None:
        """Take over the contents of a checkpoint.

        Args:
            checkpoint: as `contents` makes it.
            run: the run folder, for messages.

        Raises:
            DualFormerError: if it belongs to other data or another recipe.
        """
        progress, origin = checkpoint["progress"], self.origin
        for what, saved, now in (
            ("training list", checkpoint["data"]["training"], origin.training_list),
            ("source of token labels", checkpoint["data"].get("token_labels"), origin.token_labels),
            ("clips per step", progress["global_batch_size"], origin.global_batch_size),
            ("model", *_first_difference(checkpoint["model"], self.model.state_dict())),
        ):
            if saved != now:
                raise DualFormerError(
                    f"cannot resume {run!r}: its {what} was {saved}, now it is {now}; "
                    "give what the run began with, or start another one with --init-from"
                )
        self.model.load_state_dict(checkpoint["training_model"] or checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        if self.average is not None and checkpoint["average_updates"] is not None:
            self.average.restore(checkpoint["model"], checkpoint["average_updates"])
        self.epoch, self.step_in_epoch = progress["epoch"], progress["step_in_epoch"]
        self.step, self.best, self.unreadable = progress["step"], progress["best"], progress["unreadable"]


def _first_difference(saved: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> tuple[str, str]:
    """Describe the first tensor that two models do not share alike, in the one and in the other; else twice nothing."""
    of_saved, of_now = ({name: tuple(tensor.shape) for name, tensor in found.items()} for found in (saved, now))
    for name in {**of_saved, **of_now}:
        if of_saved.get(name) != of_now.get(name):
            one, other = (
                f"{name} {found[name]}" if name in found else f"without {name}" for found in (of_saved, of_now)
            )
            return one, other
    return "", ""
