"""Training: it learns, it resumes exactly, and the number of processes changes nothing but rounding."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import TrainConfig
from dualformer_cli.engine.parallel.distributed import Ranks
from dualformer_cli.engine.training.checkpoint import load_checkpoint
from dualformer_cli.engine.training.trainer import Stopped, _Ahead, plan_recipe
from dualformer_cli.errors import ConfigError, DualFormerError
from dualformer_cli.video import pyav_reader

HERE = Path(__file__).parent
Make = Callable[..., Any]
RANDOM = ("model.dropout=0.3", "model.drop_path=0.2", "train.mixup_alpha=0.4", "train.random_erasing=0.3")
"""Everything that draws random numbers in the forward pass."""


class Interrupt(Exception):  # noqa: N818
    """Stands for a process that ends without warning."""


def stop_at(step: int) -> Callable[[dict[str, Any]], None]:
    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == step:
            raise Interrupt

    return on_event


def signal_at(step: int, number: int) -> Callable[[dict[str, Any]], None]:
    def on_event(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == step:
            os.kill(os.getpid(), number)

    return on_event


def losses_of(trainer: Any) -> list[float]:
    events: list[dict[str, Any]] = []
    trainer.on_event = events.append
    trainer.run()
    return [event["loss"] for event in events if event["event"] == "step"]


def last_state(output: Path) -> dict[str, Any]:
    return load_checkpoint(output / "checkpoints" / "last.pt")


def assert_bitwise_equal(first: Any, second: Any, name: str = "") -> None:
    """Compare nested checkpoints."""
    assert type(first) is type(second), name
    if isinstance(first, Tensor):
        assert torch.equal(first, second), name
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), name
        for key in first:
            assert_bitwise_equal(first[key], second[key], f"{name}.{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), name
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_bitwise_equal(one, other, f"{name}.{index}")
    else:
        assert first == second, name


def assert_same_end(first: Path, second: Path) -> None:
    one, other = last_state(first), last_state(second)
    for key in ("model", "training_model", "optimizer", "progress", "average_updates", "metrics"):
        assert_bitwise_equal(one[key], other[key], key)


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
    assert trainer.validation_list is not None
    assert scanned == Counter({*trainer.train_list.files, *trainer.validation_list.files})


def test_a_small_model_learns_the_colours_of_held_out_videos(
    make_trainer: Make, tmp_path: Path, toy_validation: Path
) -> None:
    overrides = ["train.epochs=4", "train.validate_every=3", f"data.validation_list={toy_validation}"]
    events: list[dict[str, Any]] = []
    trainer = make_trainer(tmp_path / "run", *overrides, on_event=events.append)
    result = trainer.run()
    assert result["validation"]["top1"] >= 95
    assert result["best"] == max(event["top1"] for event in events if event["event"] == "validation")
    assert (result["epochs"], result["steps"]) == (4, 16)
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


@pytest.mark.parametrize(("world_size", "passes"), [(1, 8), (2, 4), (4, 2), (8, 1), (16, 1)])
def test_the_global_batch_is_kept_by_accumulation(world_size: int, passes: int) -> None:
    recipe = plan_recipe(TrainConfig(), world_size)
    assert (recipe.global_batch_size, recipe.lr, recipe.accumulation) == (64, 1e-3, passes)
    assert recipe.batch_size * recipe.accumulation * world_size == 64
    processes = "1 process" if world_size == 1 else f"{world_size} processes"
    assert recipe.sentence.startswith(f"64 clips per step (kept): {processes} x {recipe.batch_size} clips x {passes}")


def test_three_processes_scale_the_learning_rate_and_say_so() -> None:
    recipe = plan_recipe(TrainConfig(), 3)
    assert recipe.batch_size * recipe.accumulation * 3 == recipe.global_batch_size == 63
    assert recipe.lr == pytest.approx(1e-3 * 63 / 64)
    assert "63 clips per step (in place of 64, so lr is 0.000984375)" in recipe.sentence


@given(st.integers(1, 256), st.integers(2, 32))
def test_a_batch_that_cannot_be_shared_evenly_is_kept_as_nearly_as_one_clip_per_pass(wanted: int, world: int) -> None:
    recipe = plan_recipe(TrainConfig(batch_size=8, global_batch_size=wanted), world)
    assert abs(recipe.global_batch_size - wanted) <= max(recipe.accumulation * world / 2, world - wanted)


@given(st.integers(1, 64), st.integers(1, 256), st.integers(1, 32), st.floats(1e-6, 1))
def test_every_plan_accounts_for_its_clips_and_its_lr(batch: int, wanted: int, world_size: int, lr: float) -> None:
    recipe = plan_recipe(TrainConfig(batch_size=batch, global_batch_size=wanted, lr=lr), world_size)
    assert recipe.batch_size * recipe.accumulation * world_size == recipe.global_batch_size
    assert recipe.batch_size <= batch
    assert recipe.lr == pytest.approx(lr * recipe.global_batch_size / wanted)
    assert (recipe.global_batch_size == wanted) == ("(kept)" in recipe.sentence)


def test_repeats_must_divide_the_batch() -> None:
    with pytest.raises(ConfigError, match=r"train.repeats 3 must divide the batch of a process, 1 clips"):
        plan_recipe(TrainConfig(repeats=3, global_batch_size=24, batch_size=8), 3)
    assert plan_recipe(TrainConfig(repeats=2), 8).batch_size % 2 == 0


@pytest.mark.parametrize("ema", ["0", "0.9"])
@pytest.mark.parametrize("stop", [3, 5])
def test_a_run_that_was_cut_off_goes_on_bitwise(make_trainer: Make, tmp_path: Path, stop: int, ema: str) -> None:
    overrides = ["train.epochs=2", "train.save_every_steps=2", f"train.ema_decay={ema}", *RANDOM]
    make_trainer(tmp_path / "unbroken", *overrides).run()
    with pytest.raises(Interrupt):
        make_trainer(tmp_path / "broken", *overrides, on_event=stop_at(stop)).run()
    assert last_state(tmp_path / "broken")["progress"]["step"] < 8
    resumed = make_trainer(tmp_path / "broken", *overrides, resume=True)
    assert resumed.notes[-1] == f"resumed at epoch {resumed.epoch}, step {resumed.step}"
    assert 0 < resumed.step <= stop
    resumed.run()
    assert_same_end(tmp_path / "unbroken", tmp_path / "broken")
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("unbroken", "broken")]
    kept = [[(row["step"], row["loss"], row["lr"]) for row in map(json.loads, log)] for log in logs]
    assert kept[0] == kept[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_in_the_middle_of_an_epoch(make_trainer: Make, tmp_path: Path, number: int) -> None:
    overrides = ["train.ema_decay=0.5", "train.class_balanced=true", *RANDOM]
    make_trainer(tmp_path / "unbroken", *overrides).run()
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=signal.Signals(number).name):
        make_trainer(tmp_path / "broken", *overrides, on_event=signal_at(3, number)).run()
    assert signal.getsignal(number) == before
    progress = last_state(tmp_path / "broken")["progress"]
    assert (progress["epoch"], progress["step_in_epoch"], progress["step"]) == (0, 3, 3)
    make_trainer(tmp_path / "broken", *overrides, resume=True).run()
    assert_same_end(tmp_path / "unbroken", tmp_path / "broken")


def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(
    make_trainer: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = ["train.epochs=2", "train.save_every_steps=3"]
    make_trainer(tmp_path / "unbroken", *overrides).run()
    with pytest.raises(Interrupt):
        make_trainer(tmp_path / "broken", *overrides, on_event=stop_at(7)).run()
    last = tmp_path / "broken" / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:1000])
    resumed = make_trainer(tmp_path / "broken", *overrides, resume=True)
    assert re.search(r"last\.pt' is truncated \(1,000 bytes\).*going on from the one before.*previous\.pt", caplog.text)
    assert resumed.step == 4
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
    with pytest.raises(DualFormerError, match=r"cannot resume .*: its model was without (stages\S+), now it is \1 \("):
        make_trainer(tmp_path, "model.depths=[2,2,2,3]", data=part_of(toy_list, 8), resume=True)


def test_a_moving_average_may_begin_when_a_run_resumes(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path]
) -> None:
    data = part_of(toy_list, 8)
    make_trainer(tmp_path, data=data).run()
    result = make_trainer(tmp_path, "train.ema_decay=0.9", "train.epochs=2", data=data, resume=True).run()
    assert result["steps"] == 2
    assert last_state(tmp_path)["average_updates"] == 1


def test_resuming_where_nothing_is_begins_a_run_and_says_so(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "new", resume=True)
    assert f"nothing to resume in {str(tmp_path / 'new')!r}: this is a new run" in trainer.notes


def test_a_run_that_is_done_resumes_to_its_end_at_once(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path]
) -> None:
    make_trainer(tmp_path, data=part_of(toy_list, 8)).run()
    result = make_trainer(tmp_path, data=part_of(toy_list, 8), resume=True).run()
    assert (result["epochs"], result["steps"]) == (1, 1)


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
    for name, value in trainer.model.state_dict().items():
        assert torch.isfinite(value.double()).all(), name


def test_the_next_step_is_fetched_while_this_one_is_computed(
    make_trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU computes the passes by itself; what waits for it, the look at the losses, comes after the fetching."""
    happened: list[str] = []

    def watch(owner: Any, name: str) -> None:
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *given, **named: (happened.append(name), real(*given, **named))[1])

    trainer = make_trainer(tmp_path, "train.batch_size=4", "train.epochs=1")
    for owner, name in ((_Ahead, "fetch"), (trainer, "_forward_backward"), (trainer, "_refuse_non_finite")):
        watch(owner, name)
    trainer.run()
    assert happened == ["fetch", *["_forward_backward", "_forward_backward", "fetch", "_refuse_non_finite"] * 4]


def test_waiting_for_data_is_counted_once() -> None:
    def slow_steps() -> Iterator[list[Any]]:
        time.sleep(0.02)
        yield []

    ahead = _Ahead(slow_steps(), torch.device("cpu"))
    ahead.fetch()
    assert ahead.batches == []
    assert ahead.waited() >= 0.02
    assert ahead.waited() == 0
    ahead.fetch()
    assert ahead.batches is None


def test_gradient_checkpointing_changes_nothing(make_trainer: Make, tmp_path: Path) -> None:
    stored = losses_of(make_trainer(tmp_path / "stored", *RANDOM))
    again = losses_of(make_trainer(tmp_path / "again", "model.gradient_checkpointing=true", *RANDOM))
    assert again == pytest.approx(stored, abs=1e-6)


def test_the_moving_average_is_what_its_formula_says(make_trainer: Make, tmp_path: Path) -> None:
    weights: list[dict[str, Tensor]] = []

    def keep(event: dict[str, Any]) -> None:
        if event["event"] == "step":
            weights.append({name: value.detach().clone() for name, value in trainer.model.state_dict().items()})

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
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.run()
    after = trainer.model.state_dict()
    frozen = [name for name in before if name.startswith(("stages.0.", "stages.1."))]
    assert frozen
    for name in frozen:
        assert torch.equal(before[name], after[name]), name
    assert not torch.equal(before["classifier.weight"], after["classifier.weight"])


def test_a_loss_that_is_not_a_number_stops_before_the_update(
    make_trainer: Make, tmp_path: Path, toy_list: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path)
    from dualformer_cli.engine.training import trainer as trainer_module

    def loss_sum(logits: Tensor, targets: Tensor, **options: Any) -> Tensor:
        return logits.sum() * (math.nan if trainer.step == 2 else 1)

    monkeypatch.setattr(trainer_module, "classification_loss_sum", loss_sum)
    kept: dict[str, Tensor] = {}

    def keep(event: dict[str, Any]) -> None:
        kept.update({name: value.detach().clone() for name, value in trainer.model.named_parameters()})

    trainer.on_event = keep
    with pytest.raises(DualFormerError, match=r"the loss is not a number at step 2 on rank 0, with '.*") as stopped:
        trainer.run()
    message = str(stopped.value)
    assert message.count(str(toy_list.parent)) == 8
    assert "the weights are those before this step; lower train.lr" in message
    assert "\n" not in message
    for name, value in trainer.model.named_parameters():
        assert torch.equal(value, kept[name]), name


def test_an_absurd_learning_rate_is_stopped(make_trainer: Make, tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"the loss is not a number at step \d+ on rank 0"):
        make_trainer(tmp_path, "train.lr=1e30", "train.warmup_epochs=0").run()


def bad_list(toy_list: Path, name: str, number: int, bad: int) -> Path:
    """A list of clips, of which the last ones are missing or broken."""
    lines = toy_list.read_text().splitlines()[: number - bad + 1]
    broken = toy_list.with_name("broken.mp4")
    broken.write_bytes(b"no video")
    lines += [f"{'broken' if index % 2 == 0 else f'missing {index}'}.mp4,0" for index in range(bad)]
    target = toy_list.with_name(name)
    target.write_text("".join(f"{line}\n" for line in lines))
    return target


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


def test_a_dry_run_measures_and_leaves_nothing(make_trainer: Make, tmp_path: Path, toy_list: Path) -> None:
    found = make_trainer(tmp_path / "run", data=bad_list(toy_list, "one bad.csv", 16, 1)).preflight()
    assert not (tmp_path / "run").exists()
    assert (found["classes"], found["steps"], found["lr"]) == (4, 2, 0.003)
    assert found["limited_by"] in ("reading", "the model")
    for name in ("peak_memory_mib", "read_clips_per_second", "model_clips_per_second", "hours", "disk_needed_gib"):
        assert found[name] > 0, name
    assert "8 clips per step (kept): 1 process x 8 clips x 1 pass" in found["notes"]


def test_a_dry_run_warns_of_a_full_disk_and_of_slow_reading(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path / "run", data=part_of(toy_list, 8))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1))
    monkeypatch.setattr(type(trainer), "_update", lambda self, batches, lr, **_: (0.0, 8))
    warnings = trainer.preflight()["warnings"]
    assert re.fullmatch(r"no room: about \d+\.\d [kMG]B are needed in '.*/run', and 0\.0 kB are free", warnings[0])
    assert re.fullmatch(r"videos are read slower \(.* clips/s\) than the model could take them \(.*", warnings[1])


def test_a_list_with_other_classes_rebuilds_the_classifier_unless_that_contradicts(
    make_trainer: Make, tmp_path: Path, toy_list: Path, toy_preset: Path
) -> None:
    text = toy_preset.read_text().replace("num_classes: 4", "num_classes: 7")
    other = tmp_path / "seven.yaml"
    other.write_text(text + "\n")
    trainer = make_trainer(tmp_path / "run", preset=other)
    assert trainer.config.model.num_classes == 4 == len(trainer.model.classifier.weight)
    with pytest.raises(ConfigError, match=r"model.num_classes is 9, but '.*list.csv' has 4 classes; leave"):
        make_trainer(tmp_path / "run", "model.num_classes=9")


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
    with pytest.raises(
        ConfigError, match=r"train\.best_metric must be one of mean_average_precision when .* got 'top1'"
    ):
        make_trainer(tmp_path / "run", multi, validation, data=several)
    best = "train.best_metric=mean_average_precision"
    result = make_trainer(tmp_path / "run", multi, validation, best, "train.epochs=8", data=several).run()
    assert result["best"] > 60
    assert (tmp_path / "run" / "checkpoints" / "best.pt").exists()
    with pytest.raises(
        ConfigError, match=r"must be one of top1, mean_class_accuracy, loss when data.multi_label is false"
    ):
        make_trainer(tmp_path / "run", best, f"data.validation_list={toy_list}")


def test_a_video_without_a_label_is_refused(make_trainer: Make, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path\na.mp4\nb.mp4\n")
    with pytest.raises(DualFormerError, match=r"2 of the 2 videos of the training list '.*list\.csv' have no label"):
        make_trainer(tmp_path / "run", data=tmp_path / "list.csv")


def test_without_a_list_there_is_nothing_to_train_on(toy_preset: Path, tmp_path: Path) -> None:
    from dualformer_cli.engine.training.trainer import Trainer

    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    with pytest.raises(ConfigError, match="there is no training list; give --data MANIFEST"):
        Trainer(load_config(str(toy_preset), environ={}), alone, output=tmp_path)


@pytest.fixture(scope="module")
def make_jobs(toy_preset: Path, toy_list: Path, part_of: Callable[..., Path]) -> Callable[[Path], list[dict[str, Any]]]:
    """Jobs for train_ranks.py: lists that leave 1 and 7 videos over after steps of 12."""

    def make(folder: Path) -> list[dict[str, Any]]:
        folder.mkdir(exist_ok=True)
        jobs = []
        for number, mode in ((13, "synchronized"), (19, "synchronized"), (19, "frozen")):
            overrides = [f"train.batch_norm={mode}", "train.lr=1e-3"]
            overrides += ["train.batch_size=12", "train.global_batch_size=12"]
            listed, name = str(part_of(toy_list, number)), f"{mode} {number}"
            job = {"preset": str(toy_preset), "overrides": overrides, "train": listed, "validation": listed}
            jobs.append({**job, "output": str(folder / name), "result": str(folder / f"{name}.json")})
        return jobs

    return make


@pytest.fixture(scope="module")
def alone(
    make_jobs: Callable[[Path], list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory, here_pool: Any
) -> list[dict[str, Any]]:
    """What those jobs give in one process."""
    spec = importlib.util.spec_from_file_location("train_ranks", HERE / "train_ranks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ranks = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dualformer_cli.engine.training.trainer.WorkerPool", here_pool)
            return [module.losses_and_digest(job, ranks) for job in make_jobs(tmp_path_factory.mktemp("alone"))]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("world_size", [2, 3])
def test_several_processes_give_the_losses_and_the_digest_of_one(
    make_jobs: Callable[[Path], list[dict[str, Any]]], alone: list[dict[str, Any]], tmp_path: Path, world_size: int
) -> None:
    jobs = make_jobs(tmp_path)
    (tmp_path / "jobs.json").write_text(json.dumps(jobs))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    environ = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*launch, str(HERE / "train_ranks.py"), str(tmp_path / "jobs.json")],
        env=environ,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for job, one in zip(jobs, alone, strict=True):
        many = json.loads(Path(job["result"]).read_text())
        assert many["losses"] == pytest.approx(one["losses"], abs=1e-5), job["output"]
        assert many["trained"] == pytest.approx(one["trained"], abs=1e-2)
        for key in ("digest", "top1", "videos"):
            assert many[key] == one[key], (job["output"], key)


def test_training_on_one_class_is_refused(make_trainer: Make, tmp_path: Path, toy_list: Path) -> None:
    lines = toy_list.read_text().splitlines()
    one = toy_list.with_name("one class.csv")
    one.write_text("\n".join([lines[0], *(line for line in lines[1:] if line.endswith(",2"))]) + "\n")
    with pytest.raises(ConfigError, match=r"all 8 videos of the training list .* are of one class, 'green'"):
        make_trainer(tmp_path, data=one)


def test_a_validation_label_that_training_lacks_is_named_with_both_lists(
    make_trainer: Make, tmp_path: Path, toy_list: Path
) -> None:
    rows = [line.rpartition(",")[::2] for line in toy_list.read_text().splitlines()[1:]]
    folder = tmp_path / "lists"
    folder.mkdir()
    trainer_module, val = folder / "train.csv", folder / "val.csv"
    trainer_module.write_text("".join(f"{toy_list.parent / name},{label}\n" for name, label in rows if label in "01"))
    val.write_text("".join(f"{toy_list.parent / name},{label}\n" for name, label in rows if label in "13"))
    with pytest.raises(DualFormerError) as caught:
        make_trainer(tmp_path / "run", f"data.validation_list={val}", data=trainer_module)
    text = str(caught.value)
    assert f"list {str(val)!r} has label 3, but the training list {str(trainer_module)!r} has 2 classes" in text
    assert f"it is that of {str(toy_list.parent / rows[3][0])!r}" in text


def test_videos_that_train_and_validate_are_said(make_trainer: Make, tmp_path: Path, toy_list: Path) -> None:
    trainer = make_trainer(tmp_path, f"data.validation_list={toy_list}")
    assert [note for note in trainer.notes if note.startswith("32 videos of the validation list train too")]


def test_a_list_that_counts_from_1_is_warned_about(
    make_trainer: Make, tmp_path: Path, toy_list: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [line.rpartition(",")[::2] for line in toy_list.read_text().splitlines()[1:]]
    path = tmp_path / "from 1.csv"
    path.write_text("".join(f"{toy_list.parent / name},{int(label) + 1}\n" for name, label in rows))
    make_trainer(tmp_path / "run", data=path)
    assert "has the labels 1 to 4 and never 0" in caplog.text
