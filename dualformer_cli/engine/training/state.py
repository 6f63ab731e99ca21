"""Everything that another process needs to go on with a run exactly where this one is: what is saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.documents.base import from_json, to_json
from dualformer_cli.documents.train import Change, ValidationRow
from dualformer_cli.engine.parallel.batch_norm import average_running_statistics
from dualformer_cli.engine.parallel.reductions import gather_objects, world_size
from dualformer_cli.engine.training.checkpoint_files import Checkpoint
from dualformer_cli.engine.training.optim import build_optimizer, parameter_groups
from dualformer_cli.engine.training.weight_average import WeightAverage
from dualformer_cli.model.dualformer import DualFormer


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a run is made of: a resumed one must have the same data and clips per step."""

    config: str
    """YAML."""
    class_names: list[str]
    training_list: str
    """Fingerprint."""
    validation_list: str | None
    """Fingerprint."""
    token_labels: str | None
    """Fingerprint of their source."""
    global_batch_size: int
    precision: str
    """fp32, bf16 or fp16: what auto came to."""


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
        self.is_validation_due = False
        """Whether the epoch is trained, and its validation not done."""
        self.changes: list[Change] = []
        """Settings that this run has not had from its beginning."""

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

    @contextmanager
    def agreed(self) -> Iterator[list[list[Tensor]] | None]:
        """Let all ranks have the same running statistics inside the `with` block, and each its own again after it.

        Yields:
            Those of each rank, without which a run that resumes would not go on bitwise; None where all agree already.
        """
        own = self._statistics()
        before = [tensor.clone() for tensor in own]
        differ = world_size() > 1 and self.step_in_epoch > 0
        of_ranks = gather_objects([tensor.cpu() for tensor in before]) if differ else None
        self.agree_on_buffers()
        try:
            yield of_ranks
        finally:
            if differ:
                for tensor, value in zip(own, before, strict=True):
                    tensor.copy_(value)

    def _statistics(self) -> list[Tensor]:
        """Return what each rank has of its own clips: running statistics of the model, and in its average."""
        buffers = dict(self.model.named_buffers())
        of_average = [] if self.average is None else [self.average.weights[name] for name in buffers]
        return [*buffers.values(), *of_average]

    def contents(self, validation: ValidationRow | None, statistics: list[list[Tensor]] | None = None) -> Checkpoint:
        """Return what a checkpoint holds.

        Args:
            validation: the last one, whose numbers it is to have.
            statistics: what `agreed` yields.
        """
        row = {} if validation is None else to_json(validation)
        origin = self.origin
        return {
            "model": self.model.state_dict() if self.average is None else self.average.weights,
            "training_model": None if self.average is None else self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average_updates": None if self.average is None else self.average.num_updates,
            "statistics_of_ranks": statistics,
            "progress": {
                "epoch": self.epoch,
                "step_in_epoch": self.step_in_epoch,
                "step": self.step,
                "best": self.best,
                "unreadable": self.unreadable,
                "is_validation_due": self.is_validation_due,
                "global_batch_size": origin.global_batch_size,
            },
            "config": origin.config,
            "changes": [to_json(change) for change in self.changes],
            "precision": origin.precision,
            "class_names": origin.class_names,
            "metrics": {name: value for name, value in row.items() if isinstance(value, int | float)} or None,
            "data": {
                "training": origin.training_list,
                "validation": origin.validation_list,
                "token_labels": origin.token_labels,
            },
        }

    def restore(self, checkpoint: Checkpoint, *, rank: int = 0, changed: frozenset[str] = frozenset()) -> None:
        """Take over the contents of a checkpoint that `resume_check` has found to fit.

        Args:
            checkpoint: as `contents` makes it.
            rank: of this process.
            changed: keys of settings that are others now.
        """
        progress = checkpoint["progress"]
        self.model.load_state_dict(checkpoint["training_model"] or checkpoint["model"])
        if "train.optimizer" not in changed:
            _restore_optimizer(self.optimizer, checkpoint["optimizer"])
        if checkpoint["scaler"] and self.scaler.is_enabled():
            self.scaler.load_state_dict(checkpoint["scaler"])
        if self.average is not None and checkpoint["average_updates"] is not None:
            self.average.restore(checkpoint["model"], checkpoint["average_updates"])
        self.epoch, self.step_in_epoch = progress["epoch"], progress["step_in_epoch"]
        self.step, self.unreadable = progress["step"], progress["unreadable"]
        is_comparable = not any(key.startswith(("train.best_metric", "data.validation")) for key in changed)
        self.best = progress["best"] if is_comparable else None
        self.is_validation_due = progress.get("is_validation_due", False)
        self.changes = [from_json(Change, change) for change in checkpoint.get("changes", ())]
        of_ranks, own = checkpoint.get("statistics_of_ranks") or [], self._statistics()
        if len(of_ranks) == world_size() and len(of_ranks[rank]) == len(own):
            for tensor, value in zip(own, of_ranks[rank], strict=True):
                tensor.copy_(value)


def _restore_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Give each parameter its moments, by its name: groups have the settings of now and may hold other parameters."""
    moments = {
        name: saved["state"][number]
        for group in saved["param_groups"]
        for name, number in zip(group["names"], group["params"], strict=True)
        if number in saved["state"]
    }
    own = optimizer.state_dict()
    state = {
        number: moments[name]
        for group in own["param_groups"]
        for name, number in zip(group["names"], group["params"], strict=True)
        if name in moments
    }
    optimizer.load_state_dict({"state": state, "param_groups": own["param_groups"]})
    for group, before in zip(optimizer.param_groups, saved["param_groups"], strict=False):
        if group["names"] == before["names"]:
            group["lr"] = before["lr"]  # until the next step sets it
