"""What `train` returns, what a dry run measures, the lines of log.jsonl, and what happens on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dualformer_cli.documents.base import absent, inlined
from dualformer_cli.documents.evaluate import Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that the user should know before the run starts."""

    event: Literal["note"] = "note"
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first step follows."""

    event: Literal["start"] = "start"
    steps: int
    """Of the whole run."""
    step: int
    """Steps that are done already, by the run that is resumed."""
    epochs: int
    """Of the whole run."""
    best_metric: str
    """What chooses the best checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A line of log.jsonl: one optimizer step."""

    event: Literal["step"] = "step"
    epoch: int
    """From 0."""
    step: int
    """From 1."""
    losses: Mapping[str, float | None] = inlined(
        loss=float | None, classification_loss=float | None, token_loss=float | None
    )
    """Means over the clips of the step, null without any clip; the parts only where there are token labels."""
    lr: float
    clips_per_second: float
    data_share: float
    """Of the time, in which the data were waited for."""
    seconds_left: float
    memory_mib: float
    """Peak so far."""
    unreadable: int
    """Videos of this epoch so far that could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advanced:
    """How far an epoch or a validation is, for a display; log.jsonl has nothing of it."""

    event: Literal["advance"] = "advance"
    phase: Literal["training", "validation"]
    epoch: int
    """From 1."""
    done: int
    """Steps of the epoch, or videos of rank 0."""
    total: int
    row: StepRow | None = None
    """The step that is done; None before the first one, and for videos."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationRow:
    """A line of log.jsonl: the validation list scored after an epoch."""

    event: Literal["validation"] = "validation"
    epoch: int
    """Epochs that are done."""
    step: int
    summary: Summary = inlined()
    seconds: float | None = absent()
    """How long it took; log.jsonl alone has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A line of log.jsonl: a run that was resumed has another setting from here on."""

    event: Literal["change"] = "change"
    epoch: int
    step: int
    """The last one with the setting as it was."""
    key: str
    before: str
    """The value as YAML, also of `now`."""
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A checkpoint is written."""

    event: Literal["saved"] = "saved"
    epoch: int
    step: int
    best: bool
    """Whether it is the best so far."""


TrainEvent = Note | Started | Advanced | StepRow | ValidationRow | Change | Saved


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """`train --json`."""

    epochs: int
    steps: int
    best: float | None
    """Value of train.best_metric in the best epoch."""
    best_metric: str
    """train.best_metric."""
    checkpoint: str
    """Where the best weights are; those of the last step where nothing was validated."""
    validation_list: str | None
    """As it was given; null where nothing was validated, or what is rendered."""
    validation: ValidationRow | None
    """The last one."""
    output: str
    """The run folder."""
    changes: tuple[Change, ...] | None = absent()
    """Settings that were changed on the way, with --change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """`train --dry-run --json`: what one real step shows of the whole run."""

    notes: tuple[str, ...]
    classes: int
    lr: float
    steps: int
    """Of the whole run."""
    peak_memory_mib: float
    read_clips_per_second: float
    """What the worker processes decode."""
    model_clips_per_second: float
    """From one forward and backward pass, of which a step has `passes`."""
    passes: int
    """Forward and backward passes of a process in one step."""
    limited_by: Literal["reading", "the model"]
    waited_seconds: float
    """For the data of the step."""
    hours: float
    """Of the whole run, without validation."""
    disk_needed_gib: float
    """By the checkpoints that are kept."""
    disk_free_gib: float
    warnings: tuple[str, ...]
