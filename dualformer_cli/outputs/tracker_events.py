"""What `train --log` subscribes to a run: each takes the events, and gives the numbers in them to a tracker."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from dualformer_cli.config.load import load_config
from dualformer_cli.documents.base import JsonObject, to_json
from dualformer_cli.documents.train import Change, Started, StepRow, TrainEvent, ValidationRow
from dualformer_cli.errors import Stopped
from dualformer_cli.outputs.trackers import open_tracker
from dualformer_cli.system.files import replace_text
from dualformer_cli.system.words import printable

_LOGGER = logging.getLogger(__name__)
_KINDS = {"step": "training", "validation": "validation"}
_NO_CURVES = frozenset({"epoch", "step", "seconds_left"})


def log_rows(output: Path) -> list[JsonObject]:
    """Return what log.jsonl of a run folder has so far."""
    log = output / "log.jsonl"
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []


class RunTracker:
    """Gives the lines of log.jsonl to one tracker, each once, also over the parts of a run that was resumed.

    A tracker that fails is warned of once and the run goes on: what it lacks is tried again at the next validation, at
    the end, and when the run is resumed. A context manager, which closes the tracker.

    Args:
        name: of the tracker.
        output: the run folder, which keeps the tracker's id of the run and the last steps that it has in NAME.json.
        offline: whether the network may not be used.

    Raises:
        DualFormerError: if the tracker cannot be used here.
    """

    def __init__(self, name: str, output: Path, *, offline: bool) -> None:
        self._name, self._output = name, output
        self._tracker = open_tracker(name, output, offline=offline)
        self._path = output / f"{name}.json"
        self._id: str | None = None
        self._sent = dict.fromkeys(_KINDS.values(), 0)
        """The last step of each kind that the tracker has."""
        self._changed: int | None = None
        """The step after which this part of the run has other settings than before."""
        self._is_started = self._is_behind = self._has_warned = False

    def __enter__(self) -> RunTracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_started:
            return
        is_stop = kind is not None and issubclass(kind, Stopped | KeyboardInterrupt)
        if self._is_behind:
            with self._warning():
                self._send(log_rows(self._output))
        with self._warning():
            self._tracker.close("finished" if kind is None else "stopped" if is_stop else "failed")

    def add(self, event: TrainEvent) -> None:
        """Take in what has just happened, and been written to log.jsonl."""
        if isinstance(event, Change):
            self._changed = event.step
        elif isinstance(event, Started):
            with self._warning():
                self._start(event)
        elif self._is_started and isinstance(event, ValidationRow if self._is_behind else StepRow | ValidationRow):
            with self._warning():
                self._send(log_rows(self._output) if self._is_behind else [to_json(event)])

    def _start(self, event: Started) -> None:
        """Start the tracker, with what the run has logged so far and it has not."""
        known = self._known() if event.step else {}
        config = load_config(str(self._output / "config.yaml"), environ={}).config
        self._id = self._tracker.start(known.get("id"), config)
        self._is_started = True
        if self._tracker.note is not None:
            _LOGGER.info("%s", self._tracker.note)
        if self._id is not None and self._id == known.get("id"):
            for kind in self._sent:
                sent = int(known.get(kind, 0))
                self._sent[kind] = sent if self._changed is None else min(sent, self._changed)
        self._send(log_rows(self._output))

    def _known(self) -> Mapping[str, Any]:
        """Return what an earlier part of the run has left; nothing where it is no use."""
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _send(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Give the tracker those rows that it has not."""
        try:
            for row in rows:
                kind = _KINDS.get(row["event"])
                if kind is not None and row["step"] > self._sent[kind]:
                    self._tracker.write(row["step"], _numbers(row, kind))
                    self._sent[kind] = row["step"]
        finally:
            if self._id is not None:
                replace_text(self._path, json.dumps({"id": self._id, **self._sent}) + "\n")
        self._is_behind = False

    @contextmanager
    def _warning(self) -> Iterator[None]:
        """Say once that the tracker fails: log.jsonl has the numbers."""
        try:
            yield
        except Exception as error:  # of packages that are not ours, servers and disks
            self._is_behind = True
            if not self._has_warned:
                reason = printable(" ".join(str(error).split())) or type(error).__name__
                _LOGGER.warning("the run goes on, but %s lacks numbers, which log.jsonl has: %s", self._name, reason)
            self._has_warned = True


def _numbers(row: Mapping[str, Any], kind: str) -> dict[str, float]:
    """Return the numbers of a line of log.jsonl that make curves, under "training/" or "validation/"."""
    return {
        f"{kind}/{key}": float(value)
        for key, value in row.items()
        if key not in _NO_CURVES and isinstance(value, int | float) and math.isfinite(value)
    }
