"""Training: batch, forward, loss, backward, clip, step, log, save.

Data parallelism is written out: every rank adds up the gradients of its clips, the sums are added over the ranks once
a step, and the loss is divided by the number of clips that all ranks really had. So an unreadable video, a short last
batch and another number of ranks change nothing but rounding.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dualformer_cli.config.load import ResolvedConfig, to_yaml
from dualformer_cli.config.metric_table import best_metrics, is_better
from dualformer_cli.config.schema import RENDERED, RunConfig, TrainConfig
from dualformer_cli.data.camera_motion.rendering import RenderedClips, check_rendering, picture_files, rendered_list
from dualformer_cli.data.clips.augment_batch import augment_batch, one_hot, swap_flipped_labels
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.clips.loader import Batch, BatchPlan, Order, epoch_order, training_steps
from dualformer_cli.data.clips.source import ClipSource
from dualformer_cli.data.clips.training_clips import VideoClips
from dualformer_cli.data.clips.transforms import normalize
from dualformer_cli.data.lists.manifest import load_class_names
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.documents.base import to_json
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.parallel.distributed import (
    Ranks,
    RanksLost,
    any_rank,
    average_buffers,
    convert_batch_norm,
    dtype_of,
    gather_objects,
    pick_precision,
    sum_gradients,
    sum_over_ranks,
)
from dualformer_cli.engine.parallel.upload import upload
from dualformer_cli.engine.scoring.evaluate import evaluate
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.engine.scoring.summary import summarise
from dualformer_cli.engine.training.checkpoint import CheckpointFolder
from dualformer_cli.engine.training.initial_weights import start_from_images, start_from_video
from dualformer_cli.engine.training.losses import classification_loss_sum, motion_loss_sum, token_label_loss_sum
from dualformer_cli.engine.training.optim import (
    WeightAverage,
    build_optimizer,
    lr_at,
    parameter_groups,
    set_learning_rate,
    train_mode,
)
from dualformer_cli.engine.training.token_labels import open_token_labels
from dualformer_cli.errors import ConfigError, DualFormerError
from dualformer_cli.system.disk import free_bytes, lack_of_room
from dualformer_cli.system.words import counted
from dualformer_cli.system.workers import WorkerPool

_LOGGER = logging.getLogger(__name__)

Event = dict[str, Any]


class Stopped(Exception):  # noqa: N818
    """A signal ended the run; its state is saved."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the preset's global batch is cut on this many processes."""

    batch_size: int
    accumulation: int
    global_batch_size: int
    lr: float
    sentence: str
    """For the log: what was kept and what was not."""


def plan_recipe(config: TrainConfig, world_size: int) -> Recipe:
    """Keep the global batch by accumulation where the number of processes divides it.

    Else take the nearest batch that they can share evenly, and scale the learning rate with it.
    """
    wanted, largest = config.global_batch_size, config.batch_size
    if wanted % world_size == 0:
        of_rank = wanted // world_size
        sizes = (size for size in range(min(largest, of_rank), 0, -1) if of_rank % size == 0)
        batch_size = next(size for size in sizes if size % config.repeats == 0 or size == 1)
        lr, total, kept = config.lr, wanted, "kept"
    else:
        passes = max(1, ceil(round(wanted / world_size) / largest))
        batch_size = min(largest, max(1, round(wanted / (world_size * passes * config.repeats))) * config.repeats)
        of_rank = batch_size * passes
        total = of_rank * world_size
        lr, kept = config.lr * total / wanted, f"in place of {wanted}, so lr is {config.lr * total / wanted:g}"
    if batch_size % config.repeats:
        raise ConfigError(f"train.repeats {config.repeats} must divide the batch of a process, {batch_size} clips")
    accumulation = of_rank // batch_size
    sentence = (
        f"{total} clips per step ({kept}): {world_size} process{'es' if world_size > 1 else ''} x "
        f"{batch_size} clips x {accumulation} pass{'es' if accumulation > 1 else ''}"
    )
    return Recipe(batch_size, accumulation, total, lr, sentence)


class Trainer:
    """One training run on one rank.

    Args:
        resolved: the configuration.
        ranks: this process among the others.
        output: run folder; rank 0 writes there.
        resume: go on from the folder's last checkpoint.
        offline: never fetch weights.
        on_event: told on rank 0 about what happens: {"event": "start"|"step"|"validation"|"saved"|"note", ...}.
    """

    def __init__(
        self,
        resolved: ResolvedConfig,
        ranks: Ranks,
        *,
        output: Path,
        resume: bool = False,
        offline: bool = False,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.ranks, self.output, self.on_event = ranks, output, on_event
        check_rendering(resolved.config.data, resolved.config.train)
        is_rendered = resolved.config.data.train_list == RENDERED
        self.pictures = picture_files(resolved.config.data.render.pictures) if is_rendered else ()
        self.train_list, self.config = open_training_list(resolved, self.pictures)
        _require_classes(self.train_list)
        self.validation_list = self._validation_list()
        self.recipe = plan_recipe(self.config.train, ranks.world_size)
        self.precision = pick_precision(self.config.runtime.precision, ranks.device)
        torch.manual_seed(self.config.runtime.seed)
        self.notes = [self.recipe.sentence, *_overlap(self.train_list, self.validation_list)]
        self.folder = CheckpointFolder(output, keep_epochs=self.config.train.keep_epochs)
        checkpoint = self.folder.load_latest() if resume else None
        if resume and checkpoint is None:
            self.notes.append(f"nothing to resume in {str(output)!r}: this is a new run")
        is_taught_motion = is_rendered and self.config.train.motion_weight > 0
        if self.config.train.motion_weight and not is_rendered:
            self.notes.append("the motion at the tokens is not taught: only rendered clips know theirs")
        self.model = build_model(
            self.config.model,
            self.config.data,
            kernels=self.config.runtime.kernels,
            motion_heads=is_taught_motion,
        )
        if checkpoint is None:
            self._start(offline)
        self.model.to(ranks.device)
        self.labeller = open_token_labels(self.config, self.train_list, ranks.device, offline=offline)
        if self.labeller is not None:
            self.notes.append(f"tokens are labelled by {self.labeller.sentence}")
        elif self.model.token_head is not None:
            self.notes.append("the token head is not trained: there is no teacher")
        convert_batch_norm(self.model, self.config.train.batch_norm)
        train = self.config.train
        self.optimizer = build_optimizer(
            parameter_groups(
                self.model,
                lr=self.recipe.lr,
                backbone_lr_scale=train.backbone_lr_scale,
                weight_decay=train.weight_decay,
                decay_norms=train.decay_norms,
                layer_decay=train.layer_decay,
                frozen_stages=train.frozen_stages,
            ),
            train.optimizer,
            device=ranks.device,
        )
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=self.precision == "fp16")
        self.average = WeightAverage(self.model, decay=train.ema_decay) if train.ema_decay else None
        self.epoch, self.step_in_epoch, self.step = 0, 0, 0
        self.best: float | None = None
        self.unreadable = 0
        if checkpoint is not None:
            self._restore(checkpoint)
        self.forward: Callable[[Tensor], Any] = self.model if self.labeller is None else self.model.forward_both_heads
        if self.config.runtime.compile:
            self.forward = torch.compile(self.forward)
        self.forward_motion = self.model.forward_motion
        if self.config.runtime.compile:
            self.forward_motion = torch.compile(self.forward_motion)
        self.batches = BatchPlan(
            num_samples=len(self.train_list),
            batch_size=self.recipe.batch_size,
            accumulation=self.recipe.accumulation,
            rank=ranks.rank,
            world_size=ranks.world_size,
            repeats=train.repeats,
        )
        self.indexes = IndexCache()
        self._spent_clips: Tensor | None = None
        self._stop_signal: int | None = None

    def run(self) -> Event:
        """Train to the last epoch.

        Returns:
            {"epochs", "steps", "best", "validation", "output"}.

        Raises:
            Stopped: a signal came; the state is saved.
            DualFormerError: the loss is not a number, too many videos cannot be read, the disk is full.
        """
        train = self.config.train
        self.output.mkdir(parents=True, exist_ok=True)
        self._write_config()
        for note in self.notes:
            self._emit({"event": "note", "text": note})
        self._emit({"event": "start", "steps": train.epochs * self.batches.steps_per_epoch, "step": self.step})
        validation: Event | None = None
        with self._signals(), self._pool() as pool:
            while self.epoch < train.epochs:
                self._train_epoch(pool)
                self.epoch, self.step_in_epoch, self.unreadable = self.epoch + 1, 0, 0
                is_last = self.epoch == train.epochs
                if self.validation_list is not None and (is_last or self.epoch % train.validate_every == 0):
                    validation = self._validate(pool)
                self._save(epoch_done=True, metrics=validation)
                self._stop_if_asked()
        return {
            "epochs": self.epoch,
            "steps": self.step,
            "best": self.best,
            "validation": validation,
            "output": str(self.output),
        }

    def preflight(self) -> Event:
        """Take one real step and measure what a run would cost; nothing is saved.

        Returns:
            {"notes", "classes", "lr", "steps", "peak_memory_mib", "read_clips_per_second", "model_clips_per_second",
            "limited_by", "hours", "disk_needed_gib", "disk_free_gib"}.
        """
        order = epoch_order(len(self.train_list), seed=self.config.runtime.seed, epoch=0)
        train_mode(self.model, frozen_stages=self.config.train.frozen_stages)
        with self._pool() as pool:
            steps = self._steps(pool, order)
            next(steps, None)  # starts the workers
            started = perf_counter()
            batches = next(steps, None) or next(self._steps(pool, order))
            read_seconds = sum(batch.read_seconds for batch in batches) / self.config.runtime.num_workers
            waited = perf_counter() - started
        self._update(batches, self.recipe.lr / 10)
        self.unreadable = 0  # the same videos count again
        started = perf_counter()
        _, count = self._update(batches, self.recipe.lr / 10)
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)
        model_seconds = perf_counter() - started
        steps_in_all = self.config.train.epochs * self.batches.steps_per_epoch
        read_seconds = max(read_seconds, 1e-9)
        parameters = sum(p.numel() for p in self.model.parameters())
        copies = 3 + (self.average is not None)
        per_checkpoint = 4 * parameters * copies
        disk_needed = per_checkpoint * (self.config.train.keep_epochs + 3)
        warnings = []
        if lack := lack_of_room(self.output, disk_needed):
            warnings.append(f"no room: {lack}")
        if read_seconds > model_seconds:
            warnings.append(
                f"videos are read slower ({count / read_seconds:.1f} clips/s) than the model could take them "
                f"({count / model_seconds:.1f} clips/s); raise runtime.num_workers, or store smaller videos"
            )
        return {
            "notes": self.notes,
            "classes": len(self.train_list.class_names),
            "lr": self.recipe.lr,
            "steps": steps_in_all,
            "peak_memory_mib": _memory_mib(self.ranks.device),
            "read_clips_per_second": count / read_seconds,
            "model_clips_per_second": count / model_seconds,
            "limited_by": "reading" if read_seconds > model_seconds else "the model",
            "waited_seconds": waited,
            "hours": steps_in_all * max(read_seconds, model_seconds) / 3600,
            "disk_needed_gib": disk_needed / 2**30,
            "disk_free_gib": free_bytes(self.output) / 2**30,
            "warnings": warnings,
        }

    def _steps(self, pool: WorkerPool, order: Order) -> Iterator[list[Batch]]:
        return training_steps(
            self._clips(),
            self.batches,
            pool,
            order=order,
            seed=self.config.runtime.seed,
            epoch=self.epoch,
            first_step=self.step_in_epoch,
            pin_memory=self.ranks.device.type == "cuda",
        )

    def _train_epoch(self, pool: WorkerPool) -> None:
        seed, train = self.config.runtime.seed, self.config.train
        labels = self.train_list.first_labels() if train.class_balanced else None
        order = epoch_order(len(self.train_list), seed=seed, epoch=self.epoch, labels=labels)
        train_mode(self.model, frozen_stages=train.frozen_stages)
        asked = perf_counter()
        ahead = _Ahead(self._steps(pool, order), self.ranks.device)
        ahead.fetch()
        while (batches := ahead.batches) is not None:
            lr = self._learning_rate()
            losses, count = self._update(batches, lr, meanwhile=ahead.fetch)
            self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1
            self._report(losses, lr, count, waited=ahead.waited(), took=perf_counter() - asked)
            if self.step_in_epoch < self.batches.steps_per_epoch:
                self._stop_if_asked()
                if self.step % train.save_every_steps == 0:
                    self._save()
            asked = perf_counter()

    def _update(
        self, batches: Sequence[Batch], lr: float, *, meanwhile: Callable[[], None] = lambda: None
    ) -> tuple[dict[str, float | None], int]:
        """One optimizer step.

        Args:
            batches: one per forward pass.
            lr: of the parameter groups whose lr_scale is 1.
            meanwhile: called once all passes are under way, which a GPU computes by itself.

        Returns:
            The mean losses over all ranks by their names, None without any clip, and the number of clips.
        """
        names = ("loss", "classification_loss", "token_loss") if self.labeller is not None else ("loss",)
        count, unreadable = map(
            int, sum_over_ranks(np.array([sum(len(b.clips) for b in batches), sum(len(b.unreadable) for b in batches)]))
        )
        self._count_unreadable(unreadable, batches)
        set_learning_rate(self.optimizer, lr)
        if count == 0:
            meanwhile()
            return dict.fromkeys(names), 0
        self.optimizer.zero_grad(set_to_none=True)
        losses = torch.zeros(len(names), dtype=torch.float64, device=self.ranks.device)
        for number, batch in enumerate(batches):
            losses += self._forward_backward(batch, number, count)
        meanwhile()
        total = losses.cpu()
        self._refuse_non_finite(total, batches)
        sum_gradients(parameter for group in self.optimizer.param_groups for parameter in group["params"])
        if self.config.train.clip_grad_norm is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.train.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)
        return dict(zip(names, (sum_over_ranks(total) / count).tolist(), strict=True)), count

    def _forward_backward(self, batch: Batch, number: int, count: int) -> Tensor:
        """Add the gradients of one forward pass, as its share of `count` clips; returns the sums of its losses.

        Nothing here waits for a GPU, so that it never waits for the next pass.
        """
        if not len(batch.clips) and self.config.train.batch_norm != "synchronized":
            return torch.zeros((), dtype=torch.float64)
        token_labels = self._token_labels(batch)
        data, train, device = self.config.data, self.config.train, self.ranks.device
        key = [self.config.runtime.seed, self.step, number, self.ranks.rank]
        rng = np.random.default_rng(key)
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        clips = normalize(upload(batch.clips, device), data.mean, data.std, torch.float32, spent=self._spent_clips)
        if device.type == "cpu":
            self._spent_clips = clips  # by the next pass this one has gone backward
        targets = upload(self._targets(batch), device)
        clips, targets = augment_batch(clips, targets, train, rng)
        with torch.autocast(device.type, dtype_of(self.precision), enabled=self.precision != "fp32"):
            has_motion = batch.motion is not None and self.model.motion_heads is not None
            outputs = self.forward_motion(clips) if has_motion else self.forward(clips)
        losses = self._losses(batch, outputs, targets, token_labels, has_motion=has_motion)
        self.scaler.scale(losses[0] / count).backward()
        return losses.detach().double()

    def _losses(
        self, batch: Batch, outputs: Any, targets: Tensor, token_labels: Tensor | None, *, has_motion: bool
    ) -> Tensor:
        """Sums over clips: the loss, and where there are token labels its two parts."""
        data, train = self.config.data, self.config.train
        if token_labels is not None:
            logits, token_logits = outputs
            of_kinds = token_label_loss_sum(
                logits, targets, token_logits, token_labels, gamma=train.token_gamma, multi_label=data.multi_label
            )
            return torch.stack(of_kinds)
        if not has_motion:
            return classification_loss_sum(outputs, targets, multi_label=data.multi_label).unsqueeze(0)
        assert batch.motion is not None, "rendered clips know their motion"
        logits, motions = outputs
        motion = upload(batch.motion, logits.device)
        of_motion = motion_loss_sum(motions, motion, (data.crop_size, data.crop_size))
        loss = classification_loss_sum(logits, targets, multi_label=data.multi_label)
        return (loss + train.motion_weight * of_motion).unsqueeze(0)

    def _token_labels(self, batch: Batch) -> Tensor | None:
        """Probabilities for the token head, shape (b, t, h, w, classes); None where only clips have labels."""
        return None if self.labeller is None else self.labeller.labels(batch)

    def _targets(self, batch: Batch) -> Tensor:
        labels = [self.train_list.labels[sample] for sample in batch.samples]
        labels = swap_flipped_labels(labels, batch.flipped, self.train_list.flip_pairs)
        smoothing, num_classes = self.config.train.label_smoothing, self.config.model.num_classes
        targets = one_hot(labels, num_classes, smoothing)
        if batch.motion is not None:  # rendered clips without a motion are to be equally likely of every class
            targets[[not of_clip for of_clip in labels]] = 1 / num_classes
        return targets

    def _learning_rate(self) -> float:
        return lr_at(
            self.step,
            base_lr=self.recipe.lr,
            epochs=self.config.train.epochs,
            iterations_per_epoch=self.batches.steps_per_epoch,
            warmup_epochs=self.config.train.warmup_epochs,
        )

    def _count_unreadable(self, unreadable: int, batches: Sequence[Batch]) -> None:
        """Say which videos are missing, and stop when they are too many."""
        if not unreadable:
            return
        own = [missing for batch in batches for missing in batch.unreadable]
        for path, reason in (missing for of_rank in gather_objects(own) for missing in of_rank):
            if self.ranks.is_main:
                _LOGGER.warning("left out: %r: %s", path, reason)
        self.unreadable += unreadable
        allowed = self.config.train.max_unreadable * len(self.train_list)
        if self.unreadable > max(allowed, 1 if self.config.train.max_unreadable else 0):
            raise DualFormerError(
                f"{self.unreadable} of the {len(self.train_list)} training videos could not be read in epoch "
                f"{self.epoch}, more than train.max_unreadable={self.config.train.max_unreadable:g} allows; "
                "see the warnings above, mend the list, or raise it"
            )

    def _refuse_non_finite(self, total: Tensor, batches: Sequence[Batch]) -> None:
        is_bad = not torch.isfinite(total).all().item()
        if not any_rank(is_bad):
            return
        files = sorted({self.train_list.files[sample] for batch in batches for sample in batch.samples})
        found = [(rank, names) for rank, (bad, names) in enumerate(gather_objects((is_bad, files))) if bad]
        rank, names = found[0]
        raise DualFormerError(
            f"the loss is not a number at step {self.step} on rank {rank}, with {', '.join(map(repr, names))}; "
            "the weights are those before this step; lower train.lr, set train.clip_grad_norm, or use --precision fp32"
        )

    def _validate(self, pool: WorkerPool) -> Event:
        assert self.validation_list is not None
        self._agree_on_buffers()
        started = perf_counter()
        if self.average is not None:
            with self.average.applied(self.model):
                document = self._evaluate(pool)
        else:
            document = self._evaluate(pool)
        event = {"event": "validation", "epoch": self.epoch, "step": self.step, **document}
        self._emit({**event, "seconds": perf_counter() - started})
        return event

    def _evaluate(self, pool: WorkerPool) -> Event:
        assert self.validation_list is not None
        self.model.eval()
        scorer = Scorer(
            self.model,
            mean=self.config.data.mean,
            std=self.config.data.std,
            multi_label=self.config.data.multi_label,
            autocast=None if self.precision == "fp32" else dtype_of(self.precision),
        )
        data = self.config.data
        records = evaluate(scorer, self.validation_list, data, data.validation, pool, self.ranks, indexes=self.indexes)
        for record in records:
            if record.reason is not None and self.ranks.is_main:
                _LOGGER.warning("not scored: %r: %s", record.path, record.reason)
        return to_json(summarise(records, self.train_list.class_names, multi_label=self.config.data.multi_label))

    def _save(self, *, epoch_done: bool = False, metrics: Event | None = None) -> None:
        """Save everything that another process needs to go on exactly from here."""
        self._agree_on_buffers()
        name = self.config.train.best_metric
        value = None if metrics is None or metrics["epoch"] != self.epoch else metrics.get(name)
        is_best = value is not None and (self.best is None or is_better(name, value, self.best))
        if is_best:
            self.best = value
        if self.ranks.is_main:
            self.folder.save(self._state(metrics), epoch=self.epoch if epoch_done else None, is_best=is_best)
            self._emit({"event": "saved", "epoch": self.epoch, "step": self.step, "best": is_best})

    def _agree_on_buffers(self) -> None:
        """Give all ranks the same running statistics, which each has of its own clips; also in the moving average."""
        average_buffers(self.model)
        if self.average is not None:
            with self.average.applied(self.model):
                average_buffers(self.model)
                for name, buffer in self.model.named_buffers():
                    self.average.weights[name].copy_(buffer)

    def _state(self, metrics: Event | None) -> dict[str, Any]:
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
                "global_batch_size": self.recipe.global_batch_size,
            },
            "config": to_yaml(self.config),
            "class_names": self.train_list.class_names,
            "metrics": None if metrics is None else {k: v for k, v in metrics.items() if isinstance(v, int | float)},
            "data": {
                "training": self.train_list.fingerprint,
                "token_labels": None if self.labeller is None else self.labeller.fingerprint,
            },
        }

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        """Take up the state of a checkpoint.

        Raises:
            DualFormerError: if it belongs to other data or another recipe.
        """
        progress = checkpoint["progress"]
        shapes = {name: tuple(tensor.shape) for name, tensor in self.model.state_dict().items()}
        for what, saved, now in (
            ("training list", checkpoint["data"]["training"], self.train_list.fingerprint),
            (
                "source of token labels",
                checkpoint["data"].get("token_labels"),
                None if self.labeller is None else self.labeller.fingerprint,
            ),
            ("clips per step", progress["global_batch_size"], self.recipe.global_batch_size),
            ("model", *_first_difference(checkpoint["model"], shapes)),
        ):
            if saved != now:
                raise DualFormerError(
                    f"cannot resume {str(self.output)!r}: its {what} was {saved}, now it is {now}; "
                    "give what the run began with, or start another one with --init-from"
                )
        self.model.load_state_dict(checkpoint["training_model"] or checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        if self.average is not None and checkpoint["average_updates"] is not None:
            self.average.load_state_dict({"num_updates": checkpoint["average_updates"], "weights": checkpoint["model"]})
        self.epoch, self.step_in_epoch = progress["epoch"], progress["step_in_epoch"]
        self.step, self.best, self.unreadable = progress["step"], progress["best"], progress["unreadable"]
        self.notes.append(f"resumed at epoch {self.epoch}, step {self.step}")

    def _start(self, offline: bool) -> None:
        train = self.config.train
        if train.init_from is not None:
            names = self.train_list.class_names
            self.notes += start_from_video(self.model, train.init_from, class_names=names, offline=offline)
        elif train.pretrained_2d is not None:
            self.notes += start_from_images(self.model, train.pretrained_2d)
        else:
            self.notes.append("started from random weights")

    def _validation_list(self) -> LabelledList | None:
        source = self.config.data.validation_list
        if source is None:
            return None
        of = f"the training list {self.train_list.source!r}"
        return open_list(self.config.data, source, class_names=self.train_list.class_names, of=of)

    def _clips(self) -> ClipSource:
        """Return what this epoch takes its clips from."""
        if self.train_list.source == RENDERED:
            return RenderedClips(data=self.config.data, pictures=self.pictures, epoch=self.epoch)
        return VideoClips(self.train_list, self.config.data, self.config.train, self.indexes)

    def _pool(self) -> WorkerPool:
        return WorkerPool(
            self.config.runtime.num_workers,
            self.config.data.decode_timeout_seconds,
            preload=["dualformer_cli.data.clips.training_clips", type(self._clips()).__module__],
        )

    def _report(self, losses: Mapping[str, float | None], lr: float, count: int, *, waited: float, took: float) -> None:
        if self.step % self.config.train.log_every_steps and self.step_in_epoch != 1:
            return
        left = self.config.train.epochs * self.batches.steps_per_epoch - self.step
        self._emit(
            {
                "event": "step",
                "epoch": self.epoch,
                "step": self.step,
                **losses,
                "lr": lr,
                "clips_per_second": count / took,
                "data_share": waited / took,
                "seconds_left": left * took,
                "memory_mib": _memory_mib(self.ranks.device),
                "unreadable": self.unreadable,
            }
        )

    def _emit(self, event: Event) -> None:
        """Tell the command, and keep what belongs into the log."""
        if not self.ranks.is_main:
            return
        if event["event"] in ("step", "validation"):
            with (self.output / "log.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
        self.on_event(event)

    def _write_config(self) -> None:
        """Write config.yaml, and drop lines of the log that lie after the step where this run starts."""
        if not self.ranks.is_main:
            return
        (self.output / "config.yaml").write_text(to_yaml(self.config), encoding="utf-8")
        log = self.output / "log.jsonl"
        if log.exists():
            rows = [line for line in log.read_text(encoding="utf-8").splitlines() if _step_of(line) <= self.step]
            log.write_text("".join(f"{line}\n" for line in rows if self.step), encoding="utf-8")

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM, SIGUSR1 and the first Ctrl-C end the run after the step in hand; a second Ctrl-C at once.

        Where a rank dies, torchrun's agent sends SIGTERM to the others. One that finds the dead rank gone only after
        that leaves in silence: the agent knows who failed, and nothing can be agreed and saved any more.
        """

        def ask(signum: int, frame: FrameType | None) -> None:
            if signum == signal.SIGINT and self._stop_signal is not None:
                raise KeyboardInterrupt
            self._stop_signal = signum

        names = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before = {name: signal.signal(name, ask) for name in names}
        try:
            yield
        except RanksLost:
            if self._stop_signal == signal.SIGTERM:
                raise SystemExit(128 + signal.SIGTERM) from None
            raise
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def _stop_if_asked(self) -> None:
        if not any_rank(self._stop_signal is not None):
            return
        if self.step_in_epoch:
            self._save()
        numbers = [number for number in gather_objects(self._stop_signal) if number is not None]
        raise Stopped(numbers[0])


class _Ahead:
    """Fetches the batches of the next step while a GPU computes this one.

    Args:
        steps: batches of each step, made on demand.
        device: that computes.
    """

    def __init__(self, steps: Iterator[list[Batch]], device: torch.device) -> None:
        self._steps, self._device = steps, device
        self._waited = 0.0
        self.batches: list[Batch] | None = None
        """Of the step that was fetched last; None after the last one."""

    def fetch(self) -> None:
        """Wait until the next step's batches are here."""
        launched = torch.cuda.Event() if self._device.type == "cuda" else None
        if launched is not None:
            launched.record(torch.cuda.current_stream(self._device))
        started = perf_counter()
        self.batches = next(self._steps, None)
        if launched is None or launched.query():  # else the GPU was busy all the time
            self._waited += perf_counter() - started

    def waited(self) -> float:
        """Seconds since the last call in which only the data were waited for."""
        waited, self._waited = self._waited, 0.0
        return waited


def _first_difference(saved: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, str]:
    """Describe the first tensor that two models do not share alike, in the one and in the other; else twice nothing."""
    of_saved = {name: tuple(tensor.shape) for name, tensor in saved.items()}
    for name in {**of_saved, **shapes}:
        if of_saved.get(name) != shapes.get(name):
            one, other = (
                f"{name} {found[name]}" if name in found else f"without {name}" for found in (of_saved, shapes)
            )
            return one, other
    return "", ""


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize


def _memory_mib(device: torch.device) -> float:
    """Peak memory: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _overlap(training: LabelledList, validation: LabelledList | None) -> list[str]:
    """Say how many videos are in both lists, which makes results too good."""
    if validation is None or validation.source == RENDERED or training.source == RENDERED:
        return []
    parts = {(file, sample.start) for file, sample in zip(training.files, training.samples, strict=True)}
    files = zip(validation.files, validation.samples, strict=True)
    both = [sample.path for file, sample in files if (file, sample.start) in parts]
    if not both:
        return []
    return [
        f"{counted(len(both), 'video')} of the validation list train too, such as {both[0]!r}: its "
        "results will be too good"
    ]


def _require_classes(listed: LabelledList) -> None:
    """Refuse a list from which no class can be told from another.

    Raises:
        ConfigError: naming the class.
    """
    used = {label for of_video in listed.labels for label in of_video}
    if len(used) == 1 and not listed.multi_label:
        raise ConfigError(
            f"all {len(listed)} videos of the training list {listed.source!r} are of one class, "
            f"{listed.class_names[used.pop()]!r}: there is nothing to tell it from. If the list was made of a folder "
            "that holds the folder of class folders, name the inner one"
        )


def open_training_list(resolved: ResolvedConfig, pictures: tuple[str, ...] = ()) -> tuple[LabelledList, RunConfig]:
    """Open the training list; a list that brings its own classes rebuilds the classifier unless the user set it.

    Raises:
        ConfigError: without a list, or if its classes contradict the configuration.
    """
    config = resolved.config
    if config.data.train_list is None:
        raise ConfigError("there is no training list; give --data MANIFEST or --set data.train_list=MANIFEST")
    if config.data.train_list == RENDERED:
        opened, unlabelled = rendered_list(config.data, pictures), 0
    else:
        opened = open_list(config.data, config.data.train_list, class_names=None, usable_only=True)
        unlabelled = sum(not labels for labels in opened.labels)
    if unlabelled:
        raise ConfigError(
            f"{unlabelled} of the {len(opened)} videos of the training list {config.data.train_list!r} have no label; "
            "give every video one"
        )
    known = best_metrics(is_multi_label=config.data.multi_label)
    if config.data.validation_list is not None and config.train.best_metric not in known:
        raise ConfigError(
            f"train.best_metric must be one of {', '.join(known)} when data.multi_label is "
            f"{str(config.data.multi_label).lower()}, got {config.train.best_metric!r}"
        )
    if len(opened.class_names) != config.model.num_classes:
        if resolved.origins["model.num_classes"] in ("flag", "--set"):
            raise ConfigError(
                f"model.num_classes is {config.model.num_classes}, but {config.data.train_list!r} has "
                f"{len(opened.class_names)} classes; leave model.num_classes out, or give the list that belongs to it"
            )
        _LOGGER.warning("the classifier has %d classes, as the list has", len(opened.class_names))
        config = replace(config, model=replace(config.model, num_classes=len(opened.class_names)))
    if config.data.classes is not None and load_class_names(config.data.classes) != opened.class_names:
        config = replace(config, data=replace(config.data, classes=None))  # the checkpoint has the names
    return opened, config
