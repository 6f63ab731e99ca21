"""A run that was cut off goes on exactly from what it saved, and only with what it began with."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_runs import (
    RANDOM,
    Interrupt,
    assert_same_end,
    last_state,
    signal_at,
    stop_at,
)

from dualformer_cli.errors import DualFormerError, Stopped

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The function unbroken(make_trainer, *overrides) -> folder of a run that nothing disturbs, one for equal ones."""
    runs: dict[tuple[str, ...], Path] = {}

    def find(make_trainer: Make, *overrides: str) -> Path:
        if overrides not in runs:
            runs[overrides] = tmp_path_factory.mktemp("unbroken")
            make_trainer(runs[overrides], *overrides).run()
        return runs[overrides]

    return find


@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.parametrize("stop", [3, 5])
def test_a_run_that_was_cut_off_goes_on_bitwise(
    make_trainer: Make, unbroken: Callable[..., Path], tmp_path: Path, stop: int, ema: str
) -> None:
    overrides = ["train.epochs=2", "train.save_every=2 steps", f"train.ema_decay={ema}", *RANDOM]
    whole = unbroken(make_trainer, *overrides)
    with pytest.raises(Interrupt):
        make_trainer(tmp_path / "broken", *overrides, on_event=stop_at(stop)).run()
    assert last_state(tmp_path / "broken")["progress"]["step"] < 8
    resumed = make_trainer(tmp_path / "broken", *overrides, resume=True)
    epochs = {0: "0 epochs", 1: "1 epoch"}[resumed.state.epoch]
    assert resumed.notes[-1] == f"resumed after {epochs}, at step {resumed.state.step}"
    assert 0 < resumed.state.step <= stop
    resumed.run()
    assert_same_end(whole, tmp_path / "broken")
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (whole, tmp_path / "broken")]
    kept = [[(row["step"], row["loss"], row["lr"]) for row in map(json.loads, log)] for log in logs]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_in_the_middle_of_an_epoch(
    make_trainer: Make, unbroken: Callable[..., Path], tmp_path: Path, number: int
) -> None:
    overrides = ["train.ema_decay=0.5", "train.class_balanced=true", *RANDOM]
    whole = unbroken(make_trainer, *overrides)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=signal.Signals(number).name):
        make_trainer(tmp_path / "broken", *overrides, on_event=signal_at(3, number)).run()
    assert signal.getsignal(number) == before
    progress = last_state(tmp_path / "broken")["progress"]
    assert (progress["epoch"], progress["step_in_epoch"], progress["step"]) == (0, 3, 3)
    make_trainer(tmp_path / "broken", *overrides, resume=True).run()
    assert_same_end(whole, tmp_path / "broken")


def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["train.epochs=2", "train.save_every=3 steps"]
    make_trainer(tmp_path / "unbroken", *overrides).run()
    with pytest.raises(Interrupt):
        make_trainer(tmp_path / "broken", *overrides, on_event=stop_at(7)).run()
    last = tmp_path / "broken" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    resumed = make_trainer(tmp_path / "broken", *overrides, resume=True)
    assert re.search(r"last\.pt' is truncated \(1,000 bytes\).*going on from the one before.*previous\.pt", caplog.text)
    assert resumed.state.step == 4
    resumed.run()
    assert_same_end(tmp_path / "unbroken", tmp_path / "broken")


def test_resuming_with_another_list_or_batch_is_refused(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path]
) -> None:
    make_trainer(tmp_path, data=part_of(toy_list, 8)).run()
    with pytest.raises(DualFormerError, match=r"cannot resume .*: its training list was [0-9a-f]+, now") as refused:
        make_trainer(tmp_path, resume=True)
    assert "\n" not in str(refused.value)
    with pytest.raises(DualFormerError, match=r"its clips per step was 8, now it is 4; give what the run began with"):
        make_trainer(tmp_path, "train.global_batch_size=4", data=part_of(toy_list, 8), resume=True)


def test_resuming_with_another_model_is_refused(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path]
) -> None:
    make_trainer(tmp_path, data=part_of(toy_list, 8)).run()
    was = r"cannot resume .*: model.depths was \[2, 2, 2, 2\] and is \[2, 2, 2, 3\]; give what the run began with"
    with pytest.raises(DualFormerError, match=was):
        make_trainer(tmp_path, "model.depths=[2,2,2,3]", data=part_of(toy_list, 8), resume=True)


def test_a_moving_average_may_begin_when_a_run_resumes(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path]
) -> None:
    data = part_of(toy_list, 8)
    make_trainer(tmp_path, data=data).run()
    changes = frozenset({"train.ema_decay", "train.epochs"})
    trainer = make_trainer(tmp_path, "train.ema_decay=0.9", "train.epochs=2", data=data, resume=True, changes=changes)
    result = trainer.run()
    assert result.steps == 2
    assert last_state(tmp_path)["average_updates"] == 1


def test_resuming_where_nothing_is_begins_a_run_and_says_so(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "new", resume=True)
    assert f"nothing to resume in {str(tmp_path / 'new')!r}: this is a new run" in trainer.notes


def test_a_run_that_is_done_resumes_to_its_end_at_once(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path]
) -> None:
    make_trainer(tmp_path, data=part_of(toy_list, 8)).run()
    result = make_trainer(tmp_path, data=part_of(toy_list, 8), resume=True).run()
    assert (result.epochs, result.steps) == (1, 1)
