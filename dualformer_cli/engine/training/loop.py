"""The loop of training: for every epoch its steps, the validation, the checkpoint.

A step is batch, forward, loss, backward, clip, step, log, save. Fetching is here; from forward to step, see `step.py`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch

from dualformer_cli.config.load import ResolvedConfig, to_yaml
from dualformer_cli.config.metric_table import is_better
from dualformer_cli.config.schema import RENDERED
from dualformer_cli.data.camera_motion.rendering import RenderedClips
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.clips.loader import Batch, BatchPlan, Order, epoch_order, training_steps
from dualformer_cli.data.clips.source import ClipSource
from dualformer_cli.data.clips.training_clips import VideoClips
from dualformer_cli.data.lists.samples import LabelledList
from dualformer_cli.documents.evaluate import Summary
from dualformer_cli.documents.train import (
    Advanced,
    Note,
    Saved,
    Started,
    StepRow,
    TrainEvent,
    TrainResult,
    ValidationRow,
)
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.parallel.batch_norm import convert_batch_norm
from dualformer_cli.engine.parallel.devices import dtype_of, peak_memory_mib, pick_precision
from dualformer_cli.engine.parallel.placement import num_decoders
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.scoring.evaluate import evaluate
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.scoring.scorer import Scorer
from dualformer_cli.engine.scoring.summary import summarise
from dualformer_cli.engine.training.checkpoint_files import CheckpointFolder
from dualformer_cli.engine.training.global_batch import plan_recipe
from dualformer_cli.engine.training.initial_weights import note_of_classes, start
from dualformer_cli.engine.training.lists import open_lists, overlap
from dualformer_cli.engine.training.optim import lr_at, train_mode
from dualformer_cli.engine.training.prefetch import Prefetch
from dualformer_cli.engine.training.run_log import Pace, RunLog
from dualformer_cli.engine.training.state import Origin, TrainingState
from dualformer_cli.engine.training.step import Losses, Stepper
from dualformer_cli.engine.training.stop_signals import StopSignals
from dualformer_cli.engine.training.token_labels import TokenLabeller, open_token_labels
from dualformer_cli.errors import Stopped
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.system.workers import WorkerPool

_LOGGER = logging.getLogger(__name__)


class Trainer:
    """One training run on one rank.

    Args:
        resolved: the configuration.
        ranks: this process among the others.
        output: run folder; rank 0 writes there.
        resume: go on from the folder's last checkpoint.
        offline: never fetch weights.
        on_event: called on rank 0 with everything that happens.
    """

    def __init__(
        self,
        resolved: ResolvedConfig,
        ranks: Ranks,
        *,
        output: Path,
        resume: bool = False,
        offline: bool = False,
        on_event: Callable[[TrainEvent], None] = lambda event: None,
    ) -> None:
        self.ranks = ranks
        self.lists, self.config = open_lists(resolved)
        train, runtime, training = self.config.train, self.config.runtime, self.lists.training
        self.recipe = plan_recipe(train, ranks.world_size)
        self.precision = pick_precision(runtime.precision, ranks.device)
        self.num_workers = num_decoders(resolved) if ranks.device.type == "cuda" else runtime.num_workers
        self.notes = [self.recipe.sentence, *overlap(training, self.lists.validation)]
        self.log = RunLog(output, is_main=ranks.is_main, on_event=on_event)
        self.folder = CheckpointFolder(output, keep_epochs=train.keep_epochs)
        checkpoint = self.folder.load_latest() if resume else None
        if resume and checkpoint is None:
            self.notes.append(f"nothing to resume in {str(output)!r}: this is a new run")
        if checkpoint is None:
            self.notes += note_of_classes(self.config, preset=resolved.config.model)
        model = self._build_model(is_new=checkpoint is None, offline=offline)
        labeller = self._open_labeller(model, offline=offline)
        convert_batch_norm(model, train.batch_norm)
        self.state = self._build_state(model, labeller)
        if checkpoint is not None:
            self.state.restore(checkpoint, run=str(output))
            self.notes.append(f"resumed at epoch {self.state.epoch}, step {self.state.step}")
        self.stepper = Stepper(
            self.state,
            ranks,
            training,
            labeller,
            precision=self.precision,
            data=self.config.data,
            train=train,
            runtime=runtime,
        )
        self.batches = BatchPlan(
            num_samples=len(training),
            batch_size=self.recipe.batch_size,
            accumulation=self.recipe.accumulation,
            rank=ranks.rank,
            world_size=ranks.world_size,
            repeats=train.repeats,
        )
        self.num_steps = train.epochs * self.batches.steps_per_epoch
        """Of the whole run."""
        self.indexes = IndexCache()
        self._signals = StopSignals()
        self._pace = Pace(self.num_steps)

    def run(self) -> TrainResult:
        """Train to the last epoch.

        Raises:
            Stopped: a signal came; the state is saved.
            DualFormerError: the loss is not a number, too many videos cannot be read, the disk is full.
        """
        state, train = self.state, self.config.train
        self.log.begin(state.origin.config, state.step)
        for note in self.notes:
            self.log.emit(Note(text=note))
        self.log.emit(
            Started(steps=self.num_steps, step=state.step, epochs=train.epochs, best_metric=train.best_metric)
        )
        validation: ValidationRow | None = None
        with self._signals.caught(), self.pool() as pool:
            while state.epoch < train.epochs:
                self._train_epoch(pool)
                state.epoch, state.step_in_epoch, state.unreadable = state.epoch + 1, 0, 0
                is_last = state.epoch == train.epochs
                if self.lists.validation is not None and (is_last or state.epoch % train.validate_every == 0):
                    validation = self._validate(self.lists.validation, pool)
                self._save(epoch_done=True, validation=validation)
                self._stop_if_asked()
        validated, folder = self.lists.validation, self.folder
        return TrainResult(
            epochs=state.epoch,
            steps=state.step,
            best=state.best,
            best_metric=train.best_metric,
            checkpoint=str(folder.best if state.best is not None and folder.best.is_file() else folder.last),
            validation_list=None if validated is None or validated.source == RENDERED else validated.source,
            validation=validation,
            output=str(self.log.output),
        )

    def pool(self) -> WorkerPool:
        """Return worker processes that decode; they start with the `with` block."""
        return WorkerPool(
            self.num_workers,
            self.config.data.decode_timeout_seconds,
            preload=["dualformer_cli.data.clips.training_clips", type(self._clips()).__module__],
        )

    def steps(self, pool: WorkerPool, order: Order, *, passes: int | None = None) -> Iterator[list[Batch]]:
        """Yield the batches of each step of this epoch that is not done yet, read in this order.

        Args:
            pool: that reads.
            order: of the epoch's videos.
            passes: forward passes of a step; None for the recipe's.
        """
        return training_steps(
            self._clips(),
            self.batches if passes is None else replace(self.batches, accumulation=passes),
            pool,
            order=order,
            seed=self.config.runtime.seed,
            epoch=self.state.epoch,
            first_step=self.state.step_in_epoch,
            pin_memory=self.ranks.device.type == "cuda",
        )

    def _train_epoch(self, pool: WorkerPool) -> None:
        state, train, seed = self.state, self.config.train, self.config.runtime.seed
        labels = self.lists.training.first_labels() if train.class_balanced else None
        order = epoch_order(len(self.lists.training), seed=seed, epoch=state.epoch, labels=labels)
        train_mode(state.model, frozen_stages=train.frozen_stages)
        self.log.emit(_advanced(state, self.batches))
        asked = perf_counter()
        ahead = Prefetch(self.steps(pool, order), self.ranks.device)
        ahead.fetch()
        while (batches := ahead.batches) is not None:
            lr = self._learning_rate()
            losses, count = self.stepper.step(batches, lr, meanwhile=ahead.fetch)
            state.step, state.step_in_epoch = state.step + 1, state.step_in_epoch + 1
            self._log_step(losses, lr, count, waited=ahead.waited(), took=perf_counter() - asked)
            if state.step_in_epoch < self.batches.steps_per_epoch:
                self._stop_if_asked()
                if state.step % train.save_every_steps == 0:
                    self._save()
            asked = perf_counter()

    def _learning_rate(self) -> float:
        return lr_at(
            self.state.step,
            base_lr=self.recipe.lr,
            epochs=self.config.train.epochs,
            iterations_per_epoch=self.batches.steps_per_epoch,
            warmup_epochs=self.config.train.warmup_epochs,
        )

    def _log_step(self, losses: Losses, lr: float, count: int, *, waited: float, took: float) -> None:
        state = self.state
        row = StepRow(
            epoch=state.epoch,
            step=state.step,
            losses=losses,
            lr=lr,
            clips_per_second=count / took,
            data_share=waited / took,
            seconds_left=self._pace.seconds_left(state.step, took),
            memory_mib=peak_memory_mib(self.ranks.device),
            unreadable=state.unreadable,
        )
        self.log.emit(_advanced(state, self.batches, row))
        if state.step % self.config.train.log_every_steps == 0 or state.step_in_epoch == 1:
            self.log.emit(row)

    def _validate(self, listed: LabelledList, pool: WorkerPool) -> ValidationRow:
        self.state.agree_on_buffers()
        started = perf_counter()
        with self.state.averaged():
            summary = self._evaluate(listed, pool)
        row = ValidationRow(epoch=self.state.epoch, step=self.state.step, summary=summary)
        self.log.emit(replace(row, seconds=perf_counter() - started))
        return row

    def _evaluate(self, listed: LabelledList, pool: WorkerPool) -> Summary:
        data, model = self.config.data, self.state.model.eval()
        scorer = Scorer(
            model,
            mean=data.mean,
            std=data.std,
            multi_label=data.multi_label,
            autocast=None if self.precision == "fp32" else dtype_of(self.precision),
        )
        views, ranks = data.validation, self.ranks
        at = Advanced(
            phase="validation",
            epoch=self.state.epoch,
            done=0,
            total=len(range(ranks.rank, len(listed), ranks.world_size)),
        )
        self.log.emit(at)
        done = itertools.count(1)

        def advance(record: VideoRecord) -> None:
            self.log.emit(replace(at, done=next(done)))

        records = evaluate(scorer, listed, data, views, pool, ranks, on_video=advance, indexes=self.indexes)
        for record in records:
            if record.reason is not None and self.ranks.is_main:
                _LOGGER.warning("not scored: %r: %s", record.path, record.reason)
        return summarise(records, listed.class_names, multi_label=data.multi_label)

    def _save(self, *, epoch_done: bool = False, validation: ValidationRow | None = None) -> None:
        """Save the state; with the validation of this epoch, also as the best one if it is that."""
        state, name = self.state, self.config.train.best_metric
        state.agree_on_buffers()
        value = None if validation is None or validation.epoch != state.epoch else validation.summary.metrics.get(name)
        assert not isinstance(value, tuple), "an interval chooses nothing"
        is_best = value is not None and (state.best is None or is_better(name, value, state.best))
        if is_best:
            state.best = value
        if self.ranks.is_main:
            self.folder.save(state.contents(validation), epoch=state.epoch if epoch_done else None, is_best=is_best)
            self.log.emit(Saved(epoch=state.epoch, step=state.step, best=is_best))

    def _stop_if_asked(self) -> None:
        if (signum := self._signals.of_any_rank()) is None:
            return
        if self.state.step_in_epoch:
            self._save()
        raise Stopped(signum)

    def _clips(self) -> ClipSource:
        """Return what this epoch takes its clips from."""
        lists, config = self.lists, self.config
        if lists.is_rendered:
            return RenderedClips(data=config.data, pictures=lists.pictures, epoch=self.state.epoch)
        return VideoClips(lists.training, config.data, config.train, self.indexes)

    def _build_model(self, *, is_new: bool, offline: bool) -> DualFormer:
        """Return the model on its device; where the run is new, with its first weights."""
        config, train = self.config, self.config.train
        torch.manual_seed(config.runtime.seed)
        if train.motion_weight and not self.lists.is_rendered:
            self.notes.append("the motion at the tokens is not taught: only rendered clips know theirs")
        model = build_model(
            config.model,
            config.data,
            kernels=config.runtime.kernels,
            motion_heads=self.lists.is_rendered and train.motion_weight > 0,
        )
        if is_new:
            self.notes += start(model, train, class_names=self.lists.training.class_names, offline=offline)
        return model.to(self.ranks.device)

    def _open_labeller(self, model: DualFormer, *, offline: bool) -> TokenLabeller | None:
        """Return what labels tokens, if the configuration names something."""
        labeller = open_token_labels(self.config, self.lists.training, self.ranks.device, offline=offline)
        if labeller is not None:
            self.notes.append(f"tokens are labelled by {labeller.sentence}")
        elif model.token_head is not None:
            self.notes.append("the token head is not trained: there is no teacher")
        return labeller

    def _build_state(self, model: DualFormer, labeller: TokenLabeller | None) -> TrainingState:
        origin = Origin(
            config=to_yaml(self.config),
            class_names=self.lists.training.class_names,
            training_list=self.lists.training.fingerprint,
            token_labels=None if labeller is None else labeller.fingerprint,
            global_batch_size=self.recipe.global_batch_size,
        )
        is_scaled = self.precision == "fp16"
        return TrainingState(model, origin, self.config.train, lr=self.recipe.lr, is_scaled=is_scaled)


def _advanced(state: TrainingState, batches: BatchPlan, row: StepRow | None = None) -> Advanced:
    """Return how far an epoch is; `row` has the numbers of its last step."""
    epoch, done, total = state.epoch + 1, state.step_in_epoch, batches.steps_per_epoch
    return Advanced(phase="training", epoch=epoch, done=done, total=total, row=row)
