"""Videos that cannot be read, and losses that are no numbers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import (
    assert_same_end,
    bad_list,
    last_state,
)

from dualformer_cli.documents.base import to_json
from dualformer_cli.engine.training import step as step_module
from dualformer_cli.errors import ConfigError, DualFormerError

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
    with pytest.raises(ConfigError, match=r"train\.lr must be at most 1, got 1e\+30"):
        make_trainer(tmp_path, "train.lr=1e30", "train.warmup_epochs=0")
    trainer = make_trainer(tmp_path, "train.warmup_epochs=0")
    trainer.recipe = replace(trainer.recipe, lr=1e30)
    with pytest.raises(DualFormerError, match=r"the loss is not a number at step \d+ on rank 0"):
        trainer.run()


def test_a_refused_step_saves_what_was_before_it_and_the_run_goes_on_from_there(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused pass has already moved the running statistics of BatchNorm, to NaN: those are put back."""
    make_trainer(tmp_path / "whole").run()
    trainer = make_trainer(tmp_path / "broken")
    normalize = step_module.normalize

    def spoilt(*arguments: Any, **options: Any) -> Tensor:
        clips = normalize(*arguments, **options)
        return clips * math.nan if trainer.state.step == 2 else clips

    with monkeypatch.context() as patch:
        patch.setattr(step_module, "normalize", spoilt)
        with pytest.raises(DualFormerError, match=r"the 2 steps before it are saved, go on with --resume$"):
            trainer.run()
    assert last_state(tmp_path / "broken")["progress"]["step"] == 2
    make_trainer(tmp_path / "broken", resume=True).run()
    assert_same_end(tmp_path / "whole", tmp_path / "broken")


def test_a_gradient_that_is_not_a_number_stops_before_the_update(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    weight = trainer.state.model.classifier.weight

    def spoil(gradient: Tensor) -> Tensor:
        return gradient * (math.inf if trainer.state.step == 1 else 1)

    weight.register_hook(spoil)
    with pytest.raises(DualFormerError, match=r"the gradients are not numbers at step 1: their norm is (inf|nan); the"):
        trainer.run()
    saved = last_state(tmp_path)
    assert saved["progress"]["step"] == 1
    assert torch.isfinite(saved["model"]["classifier.weight"]).all()


def test_weights_that_are_not_numbers_are_never_saved(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "train.save_every=1 step")

    def spoil(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 3:
            trainer.state.optimizer.state[trainer.state.model.classifier.weight]["exp_avg_sq"].fill_(math.inf)

    trainer.log.on_event = lambda event: spoil(to_json(event))
    with pytest.raises(
        DualFormerError, match=r"after step 3 is not saved: optimizer\.state\.\d+\.exp_avg_sq holds"
    ) as end:
        trainer.run()
    assert "the last checkpoint is of step 2; go on with a lower rate: --resume --change" in str(end.value)
    assert last_state(tmp_path)["progress"]["step"] == 2


def test_a_lost_disk_of_videos_saves_and_the_run_goes_on_once_it_is_back(
    make_trainer: Make, tmp_path: Path, toy_list: Path
) -> None:
    disk, away = tmp_path / "disk", tmp_path / "away"
    shutil.copytree(toy_list.parent, disk)
    data = disk / toy_list.name
    make_trainer(tmp_path / "whole", data=data).run()

    def lose(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 2:
            disk.rename(away)

    with pytest.raises(DualFormerError, match=r"8 of the 32 training videos .*the 3 steps before it are saved"):
        make_trainer(tmp_path / "broken", data=data, on_event=lose).run()
    away.rename(disk)
    assert last_state(tmp_path / "broken")["progress"]["unreadable"] == 0
    make_trainer(tmp_path / "broken", data=data, resume=True).run()
    assert_same_end(tmp_path / "whole", tmp_path / "broken")


def test_a_run_that_can_read_nothing_is_an_error_whatever_is_allowed(
    make_trainer: Make, tmp_path: Path, toy_list: Path
) -> None:
    lines = ["path,label", "missing 0.mp4,0", "missing 1.mp4,1"]
    data = toy_list.with_name("nothing.csv")
    data.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(
        DualFormerError, match=r"^2 of the 2 training videos .* which leaves nothing to train with; see"
    ):
        make_trainer(tmp_path, "train.max_unreadable=1", data=data).run()
    assert not (tmp_path / "checkpoints").exists()


def test_too_many_unreadable_videos_stop_the_run_in_one_line(
    make_trainer: Make, tmp_path: Path, toy_list: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, data=bad_list(toy_list, "three bad.csv", 16, 3))
    with pytest.raises(DualFormerError, match=r"[23] of the 16 training videos could not be read in epoch 1") as stop:
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
