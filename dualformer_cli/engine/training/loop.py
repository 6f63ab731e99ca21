"""The loop of training: for every epoch its steps, the checkpoint, the validation.

A step is batch, forward, loss, backward, clip, step, log, save. Fetching is here; from forward to step, see `step.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from dualformer_cli.config.load import ResolvedConfig, to_yaml, values_of
from dualformer_cli.config.schema import RENDERED, TrainConfig
from dualformer_cli.data.camera_motion.rendered_source import RenderedClips
from dualformer_cli.data.clips.epoch_plan import BatchPlan, Order, epoch_order
from dualformer_cli.data.clips.index_cache import IndexCache
from dualformer_cli.data.clips.loader import Batch, training_steps
from dualformer_cli.data.clips.source import ClipSource
from dualformer_cli.data.clips.training_clips import VideoClips
from dualformer_cli.documents.train import (
    Advanced,
    Change,
    Note,
    Started,
    StepRow,
    TrainEvent,
    TrainResult,
    ValidationRow,
)
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.parallel.batch_norm import convert_batch_norm
from dualformer_cli.engine.parallel.decoders import num_decoders
from dualformer_cli.engine.parallel.devices import peak_memory_mib, pick_precision
from dualformer_cli.engine.parallel.node_memory import made_once_a_node
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.parallel.reductions import made_by_main
from dualformer_cli.engine.parallel.same_weights import digest_of_all_ranks
from dualformer_cli.engine.parallel.watch import long_work
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.training.checkpoint_files import Checkpoint, CheckpointFolder
from dualformer_cli.engine.training.global_batch import large_step, plan_recipe
from dualformer_cli.engine.training.initial_weights import note_of_classes, start
from dualformer_cli.engine.training.lists import open_lists, overlap
from dualformer_cli.engine.training.optim import lr_at, train_mode
from dualformer_cli.engine.training.prefetch import Prefetch
from dualformer_cli.engine.training.resume_check import changes_of, flaw_in
from dualformer_cli.engine.training.run_log import Pace, RunLog
from dualformer_cli.engine.training.saving import Saver
from dualformer_cli.engine.training.state import Origin, TrainingState
from dualformer_cli.engine.training.step import Losses, Stepper, StepRefusedError
from dualformer_cli.engine.training.stop_signals import StopSignals
from dualformer_cli.engine.training.token_labels import TokenLabeller, open_token_labels
from dualformer_cli.engine.training.validation import Validation
from dualformer_cli.errors import DualFormerError, Stopped
from dualformer_cli.model.dualformer import DualFormer
from dualformer_cli.system.locks import FolderLock
from dualformer_cli.system.words import counted
from dualformer_cli.system.workers import WorkerPool


class Trainer:
    """One training run on one rank.

    Args:
        resolved: the configuration.
        ranks: this process among the others.
        output: run folder; rank 0 writes there.
        resume: go on from the folder's last checkpoint.
        changes: keys of settings that may be others than those of the checkpoint.
        offline: never fetch weights.
        on_event: called on rank 0 with everything that happens.
        lock: of the run folder, where this process holds it.
    """

    def __init__(
        self,
        resolved: ResolvedConfig,
        ranks: Ranks,
        *,
        output: Path,
        resume: bool = False,
        changes: frozenset[str] = frozenset(),
        offline: bool = False,
        on_event: Callable[[TrainEvent], None] = lambda event: None,
        lock: FolderLock | None = None,
    ) -> None:
        self.ranks = ranks
        self.lists, self.config = made_once_a_node(ranks, "reading lists", partial(open_lists, resolved))
        train, runtime, training = self.config.train, self.config.runtime, self.lists.training
        self.recipe = plan_recipe(train, ranks.world_size)
        self.precision = pick_precision(runtime.precision, ranks.device)
        self.num_workers = num_decoders(resolved)
        self.notes = [self.recipe.sentence, *large_step(self.recipe, len(training) * train.repeats)]
        self.notes += overlap(training, self.lists.validation) if ranks.is_main else []
        self.log = RunLog(output, is_main=ranks.is_main, on_event=on_event, lock=lock)
        self.folder = CheckpointFolder(output, keep_epochs=train.keep_epochs)
        notes, self.notes = self.notes, []
        model = self._build_model()
        notes_of_model, self.notes = self.notes, []
        labeller = self._open_labeller(model, offline=offline)
        origin = self._origin(labeller)
        checkpoint = self._find_checkpoint(model, origin, changes) if resume else None
        if checkpoint is None:
            notes += [f"nothing to resume in {str(output)!r}: this is a new run"] if resume else []
            notes += note_of_classes(self.config, preset=resolved.config.model)
            notes_of_model += _start_all_ranks(model, train, training.class_names, offline=offline)
        self.notes = [*notes, *notes_of_model, *self.notes]
        convert_batch_norm(model.to(ranks.device), train.batch_norm)
        self.state = TrainingState(model, origin, train, lr=self.recipe.lr, is_scaled=self.precision == "fp16")
        self._changes: list[Change] = []
        """Settings that are others from here on."""
        if checkpoint is not None:
            self._resume(checkpoint, changes)
        data, precision = self.config.data, self.precision
        self.stepper = Stepper(
            self.state, ranks, training, labeller, precision=precision, data=data, train=train, runtime=runtime
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
        self.saver = Saver(self.state, self.folder, self.log, train)

    def run(self) -> TrainResult:
        """Train to the last epoch.

        Raises:
            Stopped: a signal came; the state is saved.
            DualFormerError: the loss is not a number, too many videos cannot be read, the disk is full.
        """
        state, train = self.state, self.config.train
        is_due = state.is_validation_due
        if self.ranks.world_size > 1:
            digest_of_all_ranks(dict(state.model.named_parameters()))
        self.log.begin(
            state.origin.config, state.step, changes=state.changes, new=self._changes, is_validation_due=is_due
        )
        for note in self.notes:
            self.log.emit(Note(text=note))
        for change in self._changes:
            self.log.emit(change)
        state.changes += self._changes
        self.log.emit(
            Started(steps=self.num_steps, step=state.step, epochs=train.epochs, best_metric=train.best_metric)
        )
        validation: ValidationRow | None = None
        with self._signals.caught(), self.pool() as pool:
            while state.epoch < train.epochs or state.is_validation_due:
                if state.is_validation_due:
                    with long_work("validating"):
                        validation = self._validate(pool)
                else:
                    self._train_epoch(pool)
                if (signum := self._signals.of_any_rank()) is not None:
                    raise Stopped(signum)
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
            changes=tuple(state.changes) or None,
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
        ahead = Prefetch(self.steps(pool, order), self.ranks.device, first_step=state.step)
        ahead.fetch()

        def vote() -> Tensor:
            return self._signals.asks(is_due=self.saver.is_due())

        while (batches := ahead.batches) is not None:
            lr = self._learning_rate()
            try:
                losses, count = self.stepper.step(batches, lr, meanwhile=ahead.fetch, vote=vote)
            except StepRefusedError as error:
                raise DualFormerError("; ".join(filter(None, (str(error), self.saver.save_before_the_end())))) from None
            state.step, state.step_in_epoch = state.step + 1, state.step_in_epoch + 1
            self._log_step(losses, lr, count, waited=ahead.waited(), took=perf_counter() - asked)
            if state.step_in_epoch < self.batches.steps_per_epoch:
                signum, is_due = self._signals.agreed(self.stepper.votes)
                if is_due or signum is not None:
                    self.saver.save()
                if signum is not None:
                    raise Stopped(signum)
            asked = perf_counter()
        self._end_epoch()

    def _end_epoch(self) -> None:
        """Save the epoch, before its validation if it has one: that may take long."""
        state, train = self.state, self.config.train
        state.epoch, state.step_in_epoch, state.unreadable = state.epoch + 1, 0, 0
        is_last = state.epoch == train.epochs
        has_validation = self.lists.validation is not None and (is_last or state.epoch % train.validate_every == 0)
        state.is_validation_due = has_validation
        self.saver.save(epoch_done=not has_validation)

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

    def _validate(self, pool: WorkerPool) -> ValidationRow:
        listed, ranks = self.lists.validation, self.ranks
        assert listed is not None
        validation = Validation(
            listed,
            self.config.data,
            self.ranks,
            output=self.log.output,
            precision=self.precision,
            indexes=self.indexes,
            signals=self._signals,
        )
        own = len(range(ranks.rank, len(listed), ranks.world_size))
        at, done = Advanced(phase="validation", epoch=self.state.epoch, done=0, total=own), itertools.count(1)
        self.log.emit(at)

        def advance(record: VideoRecord) -> None:
            self.log.emit(replace(at, done=next(done)))

        started = perf_counter()
        with self.state.averaged():
            summary = validation.run(self.state.model.eval(), pool, on_video=advance)
        row = ValidationRow(epoch=self.state.epoch, step=self.state.step, summary=summary)
        self.log.emit(replace(row, seconds=perf_counter() - started))
        self.state.is_validation_due = False
        self.saver.save(epoch_done=True, validation=row)
        if self.ranks.is_main:
            validation.forget()
        return row

    def _clips(self) -> ClipSource:
        """Return what this epoch takes its clips from."""
        lists, config = self.lists, self.config
        if lists.is_rendered:
            return RenderedClips(data=config.data, pictures=lists.pictures, epoch=self.state.epoch)
        return VideoClips(lists.training, config.data, config.train, self.indexes)

    def _build_model(self) -> DualFormer:
        """Return the model with random weights."""
        config, train = self.config, self.config.train
        torch.manual_seed(config.runtime.seed)
        if train.motion_weight and not self.lists.is_rendered:
            self.notes.append("the motion at the tokens is not taught: only rendered clips know theirs")
        return build_model(
            config.model,
            config.data,
            kernels=config.runtime.kernels,
            motion_heads=self.lists.is_rendered and train.motion_weight > 0,
        )

    def _open_labeller(self, model: DualFormer, *, offline: bool) -> TokenLabeller | None:
        """Return what labels tokens, if the configuration names something."""
        labeller = open_token_labels(self.config, self.lists.training, self.ranks.device, offline=offline)
        if labeller is not None:
            self.notes.append(f"tokens are labelled by {labeller.sentence}")
        elif model.token_head is not None:
            self.notes.append("the token head is not trained: there is no teacher")
        return labeller

    def _origin(self, labeller: TokenLabeller | None) -> Origin:
        lists = self.lists
        return Origin(
            config=to_yaml(self.config),
            class_names=lists.training.class_names,
            training_list=lists.training.fingerprint,
            validation_list=None if lists.validation is None else lists.validation.fingerprint,
            token_labels=None if labeller is None else labeller.fingerprint,
            global_batch_size=self.recipe.global_batch_size,
            precision=self.precision,
        )

    def _find_checkpoint(self, model: DualFormer, origin: Origin, changes: frozenset[str]) -> Checkpoint | None:
        """Return what rank 0 goes on from, if there is any, on every rank; a useless checkpoint is passed over."""
        run, settings, tensors = str(self.log.output), values_of(self.config), model.state_dict()

        def flaw(checkpoint: Checkpoint) -> str | None:
            return flaw_in(checkpoint, origin, settings, changes, tensors, run=run)

        return made_by_main(lambda: self.folder.load_latest(flaw))

    def _resume(self, checkpoint: Checkpoint, allowed: frozenset[str]) -> None:
        run, settings, state = str(self.log.output), values_of(self.config), self.state
        self._changes = changes_of(checkpoint, state.origin, settings, allowed, run=run)
        state.restore(checkpoint, rank=self.ranks.rank, changed=frozenset(change.key for change in self._changes))
        self.notes.append(f"resumed after {counted(state.epoch, 'epoch')}, at step {state.step}")


def _start_all_ranks(model: DualFormer, train: TrainConfig, class_names: list[str], *, offline: bool) -> list[str]:
    """Give all ranks the weights that rank 0 starts from, which alone need have them; return sentences about them."""

    def fill() -> tuple[list[str], dict[str, Tensor]]:
        return start(model, train, class_names=class_names, offline=offline), model.state_dict()

    notes, tensors = made_by_main(fill)
    model.load_state_dict(tensors)
    return notes


def _advanced(state: TrainingState, batches: BatchPlan, row: StepRow | None = None) -> Advanced:
    """Return how far an epoch is; `row` has the numbers of its last step."""
    epoch, done, total = state.epoch + 1, state.step_in_epoch, batches.steps_per_epoch
    return Advanced(phase="training", epoch=epoch, done=done, total=total, row=row)
