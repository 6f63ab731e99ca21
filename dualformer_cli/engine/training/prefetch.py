"""The batches of the next step are fetched while a GPU computes this one."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

import torch

from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.engine.parallel.watch import doing


class Prefetch:
    """Fetches the batches of the next step while a GPU computes this one.

    Args:
        steps: batches of each step, made on demand.
        device: that computes.
        first_step: number of the first of them.
    """

    def __init__(self, steps: Iterator[list[Batch]], device: torch.device, *, first_step: int = 0) -> None:
        self._steps, self._device, self._step = steps, device, first_step
        self._waited = 0.0
        self.batches: list[Batch] | None = None
        """Of the step that was fetched last; None after the last one."""

    def fetch(self) -> None:
        """Wait until the next step's batches are here."""
        doing(f"reading the clips of step {self._step}")
        launched = torch.cuda.Event() if self._device.type == "cuda" else None
        if launched is not None:
            launched.record(torch.cuda.current_stream(self._device))
        started = perf_counter()
        self.batches = next(self._steps, None)
        if launched is None or launched.query():  # else the GPU was busy all the time
            self._waited += perf_counter() - started
        self._step += 1
        doing("computing")

    def waited(self) -> float:
        """Seconds since the last call in which only the data were waited for."""
        waited, self._waited = self._waited, 0.0
        return waited
