"""Whole runs over real clips: a small model learns, and settings that must change nothing change nothing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import (
    RANDOM,
    assert_bitwise_equal,
    last_state,
    losses_of,
)

from dualformer_cli.config.load import load_config
from dualformer_cli.errors import ConfigError, DualFormerError
from dualformer_cli.video import pyav_reader

Make = Callable[..., Any]


def test_every_file_is_read_as_a_whole_once_in_a_run(
    make_trainer: Make, tmp_path: Path, toy_validation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan, scanned = pyav_reader.scan_file, Counter[str]()

    def count(file: Any) -> Any:
        scanned[file.path] += 1
        return scan(file)

    monkeypatch.setattr(pyav_reader, "scan_file", count)
    trainer = make_trainer(tmp_path / "run", "train.epochs=2", f"data.validation_list={toy_validation}")
    trainer.run()
    assert trainer.lists.validation is not None
    assert scanned == Counter({*trainer.lists.training.files, *trainer.lists.validation.files})


def test_a_small_model_learns_the_colours_of_held_out_videos(
    make_trainer: Make, tmp_path: Path, toy_validation: Path
) -> None:
    overrides = ["train.epochs=4", "train.validate_every=3", f"data.validation_list={toy_validation}"]
    events: list[dict[str, Any]] = []
    trainer = make_trainer(tmp_path / "run", *overrides, on_event=events.append)
    result = trainer.run()
    assert result.validation.summary.metrics["top1"] >= 95
    assert result.best == max(event["top1"] for event in events if event["event"] == "validation")
    assert (result.epochs, result.steps) == (4, 16)
    steps = [event for event in events if event["event"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"] / 2
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows == [event for event in events if event["event"] in ("step", "validation")]
    written = load_config(str(tmp_path / "run" / "config.yaml"), environ={}).config
    assert written == trainer.config
    names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {"last.pt", "best.pt", "previous.pt"} < names
    assert sorted(name for name in names if name.startswith("epoch")) == ["epoch-2.pt", "epoch-3.pt", "epoch-4.pt"]
    assert last_state(tmp_path / "run")["class_names"] == ["dark", "red", "green", "blue"]


@pytest.mark.parametrize("number", [13, 19])
def test_accumulation_changes_nothing_but_rounding(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path], number: int
) -> None:
    def losses(batch: int) -> list[float]:
        frozen = ["train.batch_norm=frozen", f"train.batch_size={batch}", "train.lr=1e-3"]
        trainer = make_trainer(tmp_path / str(batch), *frozen, data=part_of(toy_list, number))
        assert trainer.recipe.accumulation == 8 // batch
        return losses_of(trainer)

    whole = losses(8)
    assert len(whole) == math.ceil(number / 8)
    assert losses(4) == pytest.approx(whole, abs=1e-5)
    assert losses(2) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("mode", ["per_rank", "synchronized"])
def test_a_last_step_with_fewer_videos_than_passes_keeps_the_statistics(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path], mode: str
) -> None:
    overrides = [f"train.batch_norm={mode}", "train.batch_size=2"]
    trainer = make_trainer(tmp_path, *overrides, data=part_of(toy_list, 9))
    assert all(math.isfinite(loss) for loss in losses_of(trainer))
    for name, value in trainer.state.model.state_dict().items():
        assert torch.isfinite(value.double()).all(), name


def test_gradient_checkpointing_changes_nothing(make_trainer: Make, tmp_path: Path) -> None:
    stored = losses_of(make_trainer(tmp_path / "stored", *RANDOM))
    again = losses_of(make_trainer(tmp_path / "again", "model.gradient_checkpointing=true", *RANDOM))
    assert again == pytest.approx(stored, abs=1e-6)


def test_the_moving_average_is_what_its_formula_says(make_trainer: Make, tmp_path: Path) -> None:
    weights: list[dict[str, Tensor]] = []

    def keep(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            weights.append({name: value.detach().clone() for name, value in trainer.state.model.state_dict().items()})

    trainer = make_trainer(tmp_path, "train.ema_decay=0.7", on_event=keep)
    trainer.run()
    shares = torch.tensor([0.7 ** (len(weights) - 1 - k) for k in range(len(weights))], dtype=torch.float64)
    shares /= shares.sum()
    saved = last_state(tmp_path)
    for name, value in saved["model"].items():
        if value.is_floating_point():
            expected = sum(share * own[name].double() for share, own in zip(shares, weights, strict=True))
            torch.testing.assert_close(value.double(), expected, rtol=1e-5, atol=1e-6)
    assert_bitwise_equal(dict(saved["training_model"]), weights[-1])


def test_everything_that_changes_clips_trains_together(
    make_trainer: Make, tmp_path: Path, toy_validation: Path
) -> None:
    overrides = ["train.cutmix_alpha=1.0", "train.rand_augment_ops=2", "train.repeats=2", "train.label_smoothing=0.1"]
    overrides += ["train.layer_decay=0.8", "train.clip_grad_norm=1.0", "train.class_balanced=true", *RANDOM]
    trainer = make_trainer(tmp_path, *overrides)
    assert trainer.batches.steps_per_epoch == 8
    assert all(math.isfinite(loss) for loss in losses_of(trainer))


def test_frozen_stages_stay_as_they_are(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "train.frozen_stages=2", "train.ema_decay=0.5")
    before = {name: value.clone() for name, value in trainer.state.model.state_dict().items()}
    trainer.run()
    after = trainer.state.model.state_dict()
    frozen = [name for name in before if name.startswith(("stages.0.", "stages.1."))]
    assert frozen
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_several_labels_per_video_train_and_choose_the_best_by_mean_average_precision(
    make_trainer: Make, tmp_path: Path, toy_list: Path
) -> None:
    names = [line.rsplit(",", 1)[0] for line in toy_list.read_text().splitlines()[1:17]]
    several = toy_list.with_name("several.csv")
    several.write_text(
        "path,label\n" + "".join(f"{name},{index % 4};{(index + 1) % 4}\n" for index, name in enumerate(names))
    )
    multi, validation = "data.multi_label=true", f"data.validation_list={several}"
    with pytest.raises(
        DualFormerError, match=r"several\.csv' has videos with several labels; .*data\.multi_label=true"
    ):
        make_trainer(tmp_path / "run", data=several)
    with pytest.raises(ConfigError, match=r"train\.best_metric must be mean_average_precision when .* got 'top1'"):
        make_trainer(tmp_path / "run", multi, validation, data=several)
    best = "train.best_metric=mean_average_precision"
    result = make_trainer(tmp_path / "run", multi, validation, best, "train.epochs=8", data=several).run()
    assert result.best > 60
    assert (tmp_path / "run" / "checkpoints" / "best.pt").exists()
    with pytest.raises(
        ConfigError, match=r"must be one of top1, mean_class_accuracy, loss when data.multi_label is false"
    ):
        make_trainer(tmp_path / "run", best, f"data.validation_list={toy_list}")
