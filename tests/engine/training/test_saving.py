"""Which checkpoints a save writes, and what is said of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.documents.evaluate import Summary, VideoCounts
from dualformer_cli.documents.train import Saved, ValidationRow
from dualformer_cli.engine.training.saving import Saver


class State:
    """Of a run after four steps, in its third epoch."""

    epoch, step = 2, 4
    best: float | None = None

    @contextmanager
    def agreed(self) -> Iterator[dict[str, Any]]:
        yield {}

    def contents(self, validation: object, statistics: object) -> dict[str, Any]:
        return {"step": self.step}


def validation(epoch: int, top1: float) -> ValidationRow:
    counts = VideoCounts(listed=1, scored=1, missing=0, unreadable=0, too_short=0)
    summary = Summary(videos=counts, digest="", metrics={"top1": top1}, num_classes=2, label_order=None)
    return ValidationRow(epoch=epoch, step=4, summary=summary)


@pytest.mark.parametrize("is_main", [True, False])
def test_each_save_is_of_an_epoch_or_the_best_where_it_is_one(is_main: bool) -> None:
    written: list[Any] = []
    said: list[Saved] = []
    state: Any = State()
    folder: Any = SimpleNamespace(save=lambda contents, **kinds: written.append((contents["step"], kinds)))
    log: Any = SimpleNamespace(is_main=is_main, keep_folder=lambda: None, emit=said.append)
    saver = Saver(state, folder, log, TrainConfig(best_metric="top1"))
    saver.save()  # in the middle of an epoch
    saver.save(epoch_done=True, validation=validation(2, 40.0))
    saver.save(epoch_done=True, validation=validation(2, 30.0))
    saver.save(epoch_done=True, validation=validation(1, 90.0))  # of the epoch before
    kinds = [(None, False), (2, True), (2, False), (2, False)]
    assert written == [(4, {"epoch": epoch, "is_best": is_best}) for epoch, is_best in kinds if is_main]
    assert said == [Saved(epoch=2, step=4, best=is_best) for _, is_best in kinds]
    assert state.best == 40.0
    assert saver.save_before_the_end() == "the 4 steps before it are saved, go on with --resume"
    assert len(said) == 4  # there was nothing to save
    state.step = 5
    assert saver.save_before_the_end() == "the 5 steps before it are saved, go on with --resume"
    assert said[4:] == [Saved(epoch=2, step=5, best=False)]
