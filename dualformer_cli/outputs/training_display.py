"""A training run on stderr: on a terminal a bar and a table of its validations, in a log a line for each event."""

from __future__ import annotations

import math
import shutil
from contextlib import ExitStack

from dualformer_cli.config.metric_table import METRICS
from dualformer_cli.documents.train import Advanced, Change, Note, Saved, Started, StepRow, TrainEvent, ValidationRow
from dualformer_cli.outputs.progress import Progress
from dualformer_cli.outputs.runs import metric_line, number_in_words
from dualformer_cli.outputs.screen import log
from dualformer_cli.system.words import duration_in_words

_LINE_SECONDS = 60.0
"""Between two lines about a validation in a log."""


class TrainingDisplay:
    """Shows a run while it trains; a context manager, which takes the bar away at the end."""

    def __init__(self) -> None:
        self._started = Started(steps=0, step=0, epochs=0, best_metric="")
        self._phase: tuple[str, int] | None = None
        self._bar = Progress("", silent=True)
        self._stack = ExitStack()
        self._losses: list[float] = []
        """Of the steps of this epoch."""
        self._validation: ValidationRow | None = None
        """The one whose checkpoint is being written."""
        self._has_head = False

    def __enter__(self) -> TrainingDisplay:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        self._show_validation(is_best=False)

    def event(self, event: TrainEvent) -> None:
        """Show one event."""
        if isinstance(event, Started):
            self._started = event
        elif isinstance(event, Note):
            log(event.text)
        elif isinstance(event, Change):
            log(f"{event.key} is {event.now} from here on; it was {event.before}")
        elif isinstance(event, Advanced):
            self._advance(event)
        elif isinstance(event, StepRow):
            if not self._bar.is_drawn:
                log(self._step_line(event))
        elif isinstance(event, ValidationRow):
            self._validation = event
        elif isinstance(event, Saved):
            self._show_validation(is_best=event.best)

    def _advance(self, event: Advanced) -> None:
        if self._phase != (event.phase, event.epoch):
            self._begin(event)
        row, note = event.row, None
        if row is not None:
            loss = row.losses["loss"]
            self._losses += [] if loss is None else [loss]
            left = duration_in_words(row.seconds_left)
            note = f"{_loss(row)}, {_rate(row)}, {row.data_share:.0%} data, {left} left"  # fits into 80 columns
        self._bar.advance(event.done - self._bar.done, note=note)

    def _begin(self, event: Advanced) -> None:
        """Draw the bar of another epoch or validation."""
        self._stack.close()
        is_training = event.phase == "training"
        name = f"epoch {event.epoch}/{self._started.epochs}"
        self._bar = self._stack.enter_context(
            Progress(
                name if is_training else f"validation after {name}",
                total=event.total,
                interval_seconds=math.inf if is_training else _LINE_SECONDS,
                says_time_left=not is_training,
            )
        )
        self._phase = (event.phase, event.epoch)
        if is_training:
            self._losses = []

    def _step_line(self, row: StepRow) -> str:
        of_run = f"epoch {row.epoch + 1}/{self._started.epochs}, step {row.step}/{self._started.steps}"
        left = duration_in_words(row.seconds_left)
        waiting = f"{row.data_share:.0%} waiting for data"
        return f"{of_run}: {_loss(row)}, lr {row.lr:.3g}, {_rate(row)}, {waiting}, {left} left"

    def _show_validation(self, *, is_best: bool) -> None:
        row, self._validation = self._validation, None
        if row is None:
            return
        if not self._bar.is_drawn:
            found = f"validation after epoch {row.epoch}/{self._started.epochs}: {metric_line(row.summary)}"
            log(f"{found}; the best so far" if is_best else found)
            return
        columns = self._columns(row)
        if not self._has_head:
            log("  ".join(f"{title:>{max(7, len(title))}}" for title in columns))
            self._has_head = True
        values = [f"{value:>{max(7, len(title))}}" for title, value in columns.items()]
        log("  ".join([*values, "best" if is_best else ""]).rstrip())

    def _columns(self, row: ValidationRow) -> dict[str, str]:
        """Return the values of a row of the table by their titles, as many as the terminal has room for."""
        metrics = row.summary.shown_metrics
        shown = ("loss", self._started.best_metric)
        names = [name for name in METRICS if name in metrics and (METRICS[name].is_drawn or name in shown)]
        columns = {"epoch": f"{row.epoch}/{self._started.epochs}"}
        columns |= {METRICS[name].title: number_in_words(name, metrics[name]) for name in names}
        columns["training loss"] = f"{math.fsum(self._losses) / len(self._losses):.4f}" if self._losses else "-"
        for title in reversed(list(columns)):
            size = sum(max(7, len(title)) + 2 for title in columns) + len("best")
            if size > shutil.get_terminal_size().columns and title not in ("epoch", METRICS[shown[1]].title):
                del columns[title]
        return columns


def _loss(row: StepRow) -> str:
    loss = row.losses["loss"]
    return "no video could be read" if loss is None else f"loss {loss:.4f}"


def _rate(row: StepRow) -> str:
    return f"{row.clips_per_second:{'.3g' if row.clips_per_second < 100 else '.0f'}} clips/s"
