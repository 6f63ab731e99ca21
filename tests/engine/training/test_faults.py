"""Videos that cannot be read, and losses that are no numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import (
    bad_list,
)

from dualformer_cli.errors import DualFormerError

Make = Callable[..., Any]


def test_a_loss_that_is_not_a_number_stops_before_the_update(
    make_trainer: Make, tmp_path: Path, toy_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path)

    def loss_sum(logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
        return logits.sum() * (math.nan if trainer.state.step == 2 else 1)

    monkeypatch.setattr("dualformer_cli.engine.training.step.classification_loss_sum", loss_sum)
    kept: dict[str, Tensor] = {}

    def keep(event: dict[str, Any]) -> None:
        kept.update({name: value.detach().clone() for name, value in trainer.state.model.named_parameters()})

    trainer.log.on_event = keep
    with pytest.raises(DualFormerError, match=r"the loss is not a number at step 2 on rank 0, with '.*") as stopped:
        trainer.run()
    message = str(stopped.value)
    assert message.count(str(toy_list.parent)) == 8
    assert "the weights are those before this step; lower train.lr" in message
    assert "\n" not in message
    for name, value in trainer.state.model.named_parameters():
        assert torch.equal(value, kept[name]), name


def test_an_absurd_learning_rate_is_stopped(make_trainer: Make, tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"the loss is not a number at step \d+ on rank 0"):
        make_trainer(tmp_path, "train.lr=1e30", "train.warmup_epochs=0").run()


def test_too_many_unreadable_videos_stop_the_run_in_one_line(
    make_trainer: Make, tmp_path: Path, toy_list: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, data=bad_list(toy_list, "three bad.csv", 16, 3))
    with pytest.raises(DualFormerError, match=r"[23] of the 16 training videos could not be read in epoch 0") as stop:
        trainer.run()
    assert "more than train.max_unreadable=0.05 allows" in str(stop.value)
    assert "\n" not in str(stop.value)
    assert "left out: " in caplog.text


def test_few_unreadable_videos_are_named_and_the_run_goes_on(
    make_trainer: Make, tmp_path: Path, toy_list: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[dict[str, Any]] = []
    data = bad_list(toy_list, "one bad.csv", 16, 1)
    make_trainer(tmp_path, data=data, on_event=events.append).run()
    assert "broken.mp4" in caplog.text
    assert [event["unreadable"] for event in events if event["event"] == "step"][-1] == 1
    strict = make_trainer(tmp_path / "strict", "train.max_unreadable=0", data=data)
    with pytest.raises(DualFormerError, match="1 of the 16 training videos could not be read"):
        strict.run()


def test_a_step_without_any_readable_video_has_no_loss(make_trainer: Make, tmp_path: Path, toy_list: Path) -> None:
    data = bad_list(toy_list, "one of four bad.csv", 4, 1)
    make_trainer(tmp_path, "train.batch_size=1", "train.global_batch_size=1", data=data).run()

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    rows = [json.loads(line, parse_constant=refuse) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows]
    assert losses.count(None) == 1
    assert all(loss > 0 for loss in losses if loss is not None)
