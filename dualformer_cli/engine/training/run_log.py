"""What a run leaves in its folder beside checkpoints: config.yaml, and log.jsonl with its steps and validations."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.train import Change, StepRow, TrainEvent, ValidationRow
from dualformer_cli.errors import CannotWriteError
from dualformer_cli.system.files import replace_text
from dualformer_cli.system.locks import FolderLock
from dualformer_cli.system.words import os_reason

_LOGGER = logging.getLogger(__name__)


class RunLog:
    """Writes down what happens in a run, and passes it on.

    Args:
        output: the run folder.
        is_main: whether this rank writes; the others do nothing here.
        on_event: called with everything that happens.
        lock: of the run folder, which is taken again where somebody has removed the folder.
    """

    def __init__(
        self, output: Path, *, is_main: bool, on_event: Callable[[TrainEvent], None], lock: FolderLock | None = None
    ) -> None:
        self.output, self.is_main, self.on_event, self.lock = output, is_main, on_event, lock
        self._path = output / "log.jsonl"
        self._config = ""

    def begin(
        self,
        config: str,
        step: int,
        *,
        changes: Sequence[Change] = (),
        new: Sequence[Change] = (),
        is_validation_due: bool = False,
    ) -> None:
        """Write config.yaml, and drop lines of the log that lie after the point where this run starts.

        Args:
            config: YAML.
            step: steps that are done.
            changes: settings that the run has not had from its beginning, as its checkpoint says.
            new: those that it has from here on.
            is_validation_due: whether the validation after these steps is not done.
        """
        if not self.is_main:
            return
        lines = [
            f"# {each.key}: {each.now} after step {each.step}, {each.before} before\n" for each in (*changes, *new)
        ]
        self._config = "".join(lines) + config
        with self._naming():
            self.output.mkdir(parents=True, exist_ok=True)
            replace_text(self.output / "config.yaml", self._config)
            if not self._path.exists():
                return
            known = [to_json(change) for change in changes]
            text = self._path.read_text(encoding="utf-8", errors="replace")
            kept = "".join(
                f"{line}\n" for line in text.splitlines() if _is_before(line, step, known, is_validation_due)
            )
            if kept != text:
                replace_text(self._path, kept)

    def emit(self, event: TrainEvent) -> None:
        """Call `on_event`, and write what belongs into the log.

        Raises:
            CannotWriteError: if it cannot be written.
        """
        if not self.is_main:
            return
        if isinstance(event, StepRow | ValidationRow | Change):
            self.keep_folder()
            with self._naming(), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(to_json(event)) + "\n")
        self.on_event(event)

    def keep_folder(self) -> None:
        """Make the run folder again where somebody has removed it.

        Raises:
            DualFormerError: if another run has it now, or it cannot be made.
        """
        if not self.is_main or (self.output.is_dir() if self.lock is None else self.lock.is_held()):
            return
        if self.lock is not None:
            self.lock.take()
        with self._naming():
            self.output.mkdir(parents=True, exist_ok=True)
            if not (self.output / "config.yaml").exists():
                replace_text(self.output / "config.yaml", self._config)
        _LOGGER.warning("%r was removed while the run goes on; it is made again, with a new log", str(self.output))

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CannotWriteError(
                f"cannot write into {str(self.output)!r}: {os_reason(error)}; what is there stays, go on with --resume"
            ) from error


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


def _is_before(line: str, step: int, changes: Sequence[dict[str, object]], is_validation_due: bool) -> bool:
    """Return whether a line of the log is of the run as its checkpoint has it; one that was cut off is not."""
    try:
        row = json.loads(line)
        its_step, event = int(row["step"]), row["event"]
    except (ValueError, KeyError, TypeError):
        return False
    if its_step != step:
        return its_step < step
    return row in changes if event == "change" else event == "step" or not is_validation_due
