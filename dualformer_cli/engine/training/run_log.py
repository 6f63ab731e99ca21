"""What a run leaves in its folder beside checkpoints: config.yaml, and log.jsonl with its steps and validations."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.train import StepRow, TrainEvent, ValidationRow


class RunLog:
    """Writes down what happens in a run, and passes it on.

    Args:
        output: the run folder.
        is_main: whether this rank writes; the others do nothing here.
        on_event: called with everything that happens.
    """

    def __init__(self, output: Path, *, is_main: bool, on_event: Callable[[TrainEvent], None]) -> None:
        self.output, self.is_main, self.on_event = output, is_main, on_event
        self._path = output / "log.jsonl"

    def begin(self, config: str, step: int) -> None:
        """Write config.yaml, and drop lines of the log that lie after the step where this run starts."""
        self.output.mkdir(parents=True, exist_ok=True)
        if not self.is_main:
            return
        (self.output / "config.yaml").write_text(config, encoding="utf-8")
        if self._path.exists():
            rows = [line for line in self._path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
            self._path.write_text("".join(f"{line}\n" for line in rows if step), encoding="utf-8")

    def emit(self, event: TrainEvent) -> None:
        """Call `on_event`, and write what belongs into the log."""
        if not self.is_main:
            return
        if isinstance(event, StepRow | ValidationRow):
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(to_json(event)) + "\n")
        self.on_event(event)


class Pace:
    """How long a run still takes at the pace since this process's first step, validations and saves included.

    Args:
        num_steps: of the whole run.
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._first: tuple[float, int] | None = None

    def seconds_left(self, step: int, took: float) -> float:
        """Return the seconds from this step to the last one.

        Args:
            step: that is done.
            took: its seconds. Those of the first one count until the second: it also waited for workers to start.
        """
        now = perf_counter()
        if self._first is None:
            self._first = (now, step)
            return (self._num_steps - step) * took
        began, first = self._first
        return (self._num_steps - step) * (now - began) / (step - first)


def _step_of(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return sys.maxsize
