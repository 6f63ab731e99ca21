"""When a run is saved, and that what is saved can be gone on from; `checkpoint_files` keeps the latest few."""

from __future__ import annotations

from time import monotonic

from dualformer_cli.config.metric_table import is_better
from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.documents.train import Saved, ValidationRow
from dualformer_cli.engine.parallel.watch import long_work
from dualformer_cli.engine.training.checkpoint_files import Checkpoint, CheckpointFolder
from dualformer_cli.engine.training.resume_check import first_non_finite
from dualformer_cli.engine.training.run_log import RunLog
from dualformer_cli.engine.training.state import TrainingState
from dualformer_cli.errors import CannotWriteError, DualFormerError
from dualformer_cli.system.disk import is_full
from dualformer_cli.system.words import counted, os_reason


class Saver:
    """Saves a run; every rank makes one, and rank 0 writes.

    Args:
        state: of the run.
        folder: of its checkpoints.
        log: is told what is saved.
        train: section of the configuration.
    """

    def __init__(self, state: TrainingState, folder: CheckpointFolder, log: RunLog, train: TrainConfig) -> None:
        self.state, self.folder, self.log, self.best_metric = state, folder, log, train.best_metric
        self._seconds, self._steps = train.save_interval()
        self._saved_at, self._saved_step = monotonic(), state.step

    def is_due(self) -> bool:
        """Return whether the last save is too long ago once the step in hand is done, by rank 0's clock."""
        is_late = monotonic() - self._saved_at >= self._seconds or (self.state.step + 1) % self._steps == 0
        return is_late and self.log.is_main

    def save(self, *, epoch_done: bool = False, validation: ValidationRow | None = None) -> None:
        """Save the state; with the validation of this epoch, also as the best one if it is that. All ranks call it.

        Raises:
            DualFormerError: if a weight or moment is not a number, or the checkpoint cannot be written; the one before
                stays.
        """
        state, name = self.state, self.best_metric
        value = None if validation is None or validation.epoch != state.epoch else validation.summary.metrics.get(name)
        assert not isinstance(value, tuple), "an interval chooses nothing"
        is_best = value is not None and (state.best is None or is_better(name, value, state.best))
        if is_best:
            state.best = value
        with long_work("saving"), state.agreed() as statistics:
            contents = state.contents(validation, statistics)
            if (tensor := first_non_finite(contents)) is not None:
                raise DualFormerError(
                    f"the state after step {state.step} is not saved: {tensor} holds values that are not numbers; "
                    f"{self._last()}; go on with a lower rate: --resume --change train.lr=..."
                )
            if self.log.is_main:
                self._write(contents, epoch=state.epoch if epoch_done else None, is_best=is_best)
        self._saved_at, self._saved_step = monotonic(), state.step
        self.log.emit(Saved(epoch=state.epoch, step=state.step, best=is_best))

    def save_before_the_end(self) -> str:
        """Save what is not saved yet, where the next step cannot be taken; return in words what became of it."""
        try:
            if self.state.step > self._saved_step:
                self.save()
        except DualFormerError as error:
            return str(error)
        steps = f"{counted(self._saved_step, 'step')} before it {'is' if self._saved_step == 1 else 'are'} saved"
        return f"the {steps}, go on with --resume" if self._saved_step else ""

    def _write(self, contents: Checkpoint, *, epoch: int | None, is_best: bool) -> None:
        self.log.keep_folder()
        try:
            self.folder.save(contents, epoch=epoch, is_best=is_best)
        except OSError as error:
            advice = "free some space, then " if is_full(error) else ""
            raise CannotWriteError(
                f"cannot write {str(error.filename or self.folder.path)!r}: {os_reason(error)}; "
                f"{self._last()}; {advice}go on with --resume"
            ) from error

    def _last(self) -> str:
        return (
            f"the last checkpoint is of step {self._saved_step}" if self._saved_step else "there is no checkpoint yet"
        )
