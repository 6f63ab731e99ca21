"""The next step is fetched while this one is computed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dualformer_cli.engine.training.prefetch import Prefetch

Make = Callable[..., Any]


def test_the_next_step_is_fetched_while_this_one_is_computed(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU computes the passes by itself; what waits for it, the look at the losses, comes after the fetching."""
    happened: list[str] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **named: (happened.append(name), real(*given, **named))[1])

    trainer = make_trainer(tmp_path, "train.batch_size=4", "train.epochs=1")
    for owner, name in (
        (Prefetch, "fetch"),
        (trainer.stepper, "_forward_backward"),
        (trainer.stepper, "_agree"),
    ):
        watch(owner, name)
    trainer.run()
    assert happened == ["fetch", *["_forward_backward", "_forward_backward", "fetch", "_agree"] * 4]


def test_waiting_for_data_is_counted_once() -> None:
    def slow_steps() -> Iterator[list[Any]]:
        time.sleep(0.02)
        yield []

    ahead = Prefetch(slow_steps(), torch.device("cpu"))
    ahead.fetch()
    assert ahead.batches == []
    assert ahead.waited() >= 0.02
    assert ahead.waited() == 0
    ahead.fetch()
    assert ahead.batches is None


@pytest.mark.parametrize("is_idle", [False, True])
def test_what_is_read_while_a_gpu_computes_is_not_waited_for(is_idle: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Event:
        """Of a GPU that was done, or was not, with all that was launched before."""

        def record(self, stream: object) -> None:
            """Nothing is launched."""

        def query(self) -> bool:
            return is_idle

    def slow_steps() -> Iterator[list[Any]]:
        time.sleep(0.02)
        yield []

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    ahead = Prefetch(slow_steps(), torch.device("cuda"))
    ahead.fetch()
    assert (ahead.waited() >= 0.02) is is_idle
