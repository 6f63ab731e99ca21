"""The loop around the steps: epochs, validation, the best one, checkpoints and resuming. No video is read here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import load_checkpoint
from torch import Tensor, nn

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import RENDERED
from dualformer_cli.data.clips.loader import Batch
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.evaluate import Summary, VideoCounts
from dualformer_cli.documents.train import ValidationRow
from dualformer_cli.engine.parallel import decoders
from dualformer_cli.engine.parallel.batch_norm import FrozenBatchNorm
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.scoring.records import VideoRecord
from dualformer_cli.engine.training import loop, validation
from dualformer_cli.engine.training.loop import Trainer
from dualformer_cli.engine.training.optim import MuonWithAdamW
from dualformer_cli.engine.training.preflight import preflight
from dualformer_cli.engine.training.state import _restore_optimizer
from dualformer_cli.errors import DualFormerError

Make = Callable[..., Any]
SMALL = ("train.batch_size=1", "train.global_batch_size=1", "train.warmup_epochs=0")
CLASSES = "dark\nred\ngreen\nblue\n"


@pytest.fixture
def make_trainer(toy_preset: Path, tmp_path: Path, one_thread: None, here_pool: Any, monkeypatch: Any) -> Make:
    """The function make_trainer(*overrides, labels=[...], ranks=(0, 1), ...) -> a Trainer over files that do not exist.

    A validation list comes with it if `validation` is true.
    """
    monkeypatch.setattr(loop, "WorkerPool", here_pool)

    def make(
        *overrides: str,
        labels: Any = (0, 1, 2, 3),
        ranks: tuple[int, int] = (0, 1),
        validation: bool = False,
        listed: Path | None = None,
        on_event: Callable[[Any], None] = lambda event: None,
        **more: Any,
    ) -> Any:
        rows = "".join(f"{number}.mp4,{label}\n" for number, label in enumerate(labels))
        (tmp_path / "list.csv").write_text("path,label\n" + rows)
        (tmp_path / "validation.csv").write_text("path,label\nheld out 0.mp4,0\nheld out 1.mp4,1\n")
        (tmp_path / "classes.txt").write_text(CLASSES)
        flags = {"data.train_list": str(listed or tmp_path / "list.csv")}
        if validation:
            flags["data.validation_list"] = str(tmp_path / "validation.csv")
        resolved = load_config(str(toy_preset), overrides=overrides, flags=flags, environ={})
        rank, world_size = ranks
        place = Ranks(rank=rank, local_rank=rank, world_size=world_size, device=torch.device("cpu"))
        return Trainer(
            resolved, place, output=tmp_path / "run", on_event=lambda event: on_event(to_json(event)), **more
        )

    return make


def clips_of(*samples: int, unreadable: int = 0) -> Batch:
    clips = np.random.default_rng(samples[0] if samples else 0).integers(0, 256, (len(samples), 8, 64, 64, 3), np.uint8)
    missing = tuple((f"{number}.mp4", "it is gone") for number in range(unreadable))
    return Batch(clips, samples, flipped=np.zeros(len(samples), bool), unreadable=missing, read_seconds=0.0)


class Data:
    """Stands for the loader: notes what it is asked for, and gives one clip a step, or none."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.unreadable = 0
        self.is_empty = False

    def __call__(self, source: Any, batches: Any, pool: Any, **named: Any) -> Iterator[Any]:
        self.asked.append(SimpleNamespace(source=source, batches=batches, **named))
        for step in range(named["first_step"], batches.steps_per_epoch):
            videos = () if self.is_empty else (step % len(source.labels),)
            yield [clips_of(*videos, unreadable=self.unreadable if step == 0 else 0)]


@pytest.fixture
def data(monkeypatch: pytest.MonkeyPatch) -> Data:
    data = Data()
    monkeypatch.setattr(loop, "training_steps", data)
    return data


@pytest.fixture
def validations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every validation is given; the model's state as it is then."""
    seen: list[Any] = []

    def evaluate(scorer: Any, listed: Any, data: Any, views: Any, pool: Any, ranks: Any, **_: Any) -> list[VideoRecord]:
        state = {name: value.detach().clone() for name, value in scorer.model.state_dict().items()}
        seen.append(SimpleNamespace(scorer=scorer, views=views, state=state, was_training=scorer.model.training))
        scores = np.array([[0.7, 0.1, 0.1, 0.1]], np.float32)
        return [VideoRecord(i, f"{i}.mp4", listed.labels[i], "scored", None, scores) for i in range(len(listed))]

    monkeypatch.setattr(validation, "evaluate", evaluate)
    return seen


def watch_modes(trainer: Any) -> list[bool]:
    """Whether the model and its BatchNorms are training, in every pass."""
    modes: list[bool] = []
    forward = trainer.stepper.forward

    def note(clips: Tensor) -> Any:
        modes.append(all(module.training for module in trainer.state.model.modules()))
        return forward(clips)

    trainer.stepper.forward = note
    return modes


def test_the_model_trains_in_every_epoch_and_is_validated_in_evaluation_mode(
    make_trainer: Make, data: Data, validations: list[Any]
) -> None:
    trainer = make_trainer(*SMALL, "train.epochs=3", labels=[0, 1], validation=True)
    modes = watch_modes(trainer)
    trainer.run()
    assert modes == [True] * 6
    assert [found.was_training for found in validations] == [False] * 3


def test_every_epoch_has_an_order_and_clips_of_its_own(make_trainer: Make, data: Data) -> None:
    data.is_empty = True
    orders = {}
    for seed in (1, 2):
        data.asked.clear()
        trainer = make_trainer(*SMALL, "train.epochs=2", f"runtime.seed={seed}", labels=[0, 1, 2, 3] * 3)
        trainer.run()
        assert [(asked.seed, asked.epoch, asked.first_step) for asked in data.asked] == [(seed, 0, 0), (seed, 1, 0)]
        for asked in data.asked:
            assert sorted(asked.order) == list(range(12))
            orders[seed, asked.epoch] = tuple(asked.order)
    assert len(set(orders.values())) == 4


def test_balanced_classes_come_equally_often(make_trainer: Make, data: Data) -> None:
    data.is_empty = True
    labels = [0] * 30 + [1] * 2
    trainer = make_trainer("train.class_balanced=true", "train.epochs=4", labels=labels)
    trainer.run()
    drawn = np.concatenate([asked.order for asked in data.asked])
    assert len(drawn) == 4 * 32
    assert 0.35 < np.isin(drawn, [30, 31]).mean() < 0.65  # 128 draws of a half


def test_validation_is_of_the_average_and_in_the_ways_that_the_configuration_says(
    make_trainer: Make, data: Data, validations: list[Any]
) -> None:
    overrides = [
        "train.ema_decay=0.9",
        "runtime.precision=bf16",
        "data.validation.num_clips=3",
        "data.test.num_clips=7",
    ]
    trainer = make_trainer(*SMALL, *overrides, validation=True)
    trainer.run()
    (found,) = validations
    for name, value in trainer.state.average.weights.items():
        assert torch.equal(found.state[name], value), name
    raw = trainer.state.model.state_dict()
    assert not torch.equal(raw["classifier.weight"], found.state["classifier.weight"])
    assert (found.views.num_clips, found.views.num_crops, found.views.short_side) == (3, 1, 64)
    assert tuple(found.scorer.mean) == (123.675, 116.28, 103.53)
    assert tuple(found.scorer.std) == (58.395, 57.12, 57.375)
    assert (found.scorer.autocast, found.scorer.multi_label) == (torch.bfloat16, False)


def test_validation_of_several_labels_scores_each_by_itself(
    make_trainer: Make, data: Data, validations: list[Any]
) -> None:
    overrides = ["data.multi_label=true", "train.best_metric=mean_average_precision"]
    result = make_trainer(*SMALL, *overrides, validation=True).run()
    assert validations[0].scorer.multi_label
    assert validations[0].scorer.autocast is None
    assert (
        result.validation.summary.metrics["mean_average_precision"] == 50
    )  # one of two videos with equal scores, for either class


@pytest.mark.parametrize(("every", "epochs"), [(2, [2, 3]), (1, [1, 2, 3]), (5, [3])])
def test_validation_comes_every_so_many_epochs_and_at_the_end(
    make_trainer: Make, data: Data, validations: list[Any], every: int, epochs: list[int]
) -> None:
    events: list[Any] = []
    data.is_empty = True
    overrides = ["train.epochs=3", f"train.validate_every={every}"]
    make_trainer(*SMALL, *overrides, labels=[0, 1], validation=True, on_event=events.append).run()
    assert [event["epoch"] for event in events if event["event"] == "validation"] == epochs


def validation_row(epoch: int, metrics: dict[str, float]) -> ValidationRow:
    videos = VideoCounts(listed=2, scored=2, missing=0, unreadable=0, too_short=0)
    return ValidationRow(epoch=epoch, step=epoch, summary=Summary(videos=videos, digest="", metrics=metrics))


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("loss", [2.0, 1.0, 3.0, 0.5], [True, True, False, True]),
        ("top1", [10.0, 30.0, 20.0, 31.0], [True, True, False, True]),
        ("mean_class_accuracy", [10.0, 5.0, 5.0, 11.0], [True, False, False, True]),
    ],
)
def test_the_best_epoch_is_that_of_the_metric(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, metric: str, values: list[float], best: list[bool]
) -> None:
    trainer = make_trainer(f"train.best_metric={metric}", validation=True)
    saved: list[bool] = []
    monkeypatch.setattr(trainer.folder, "save", lambda contents, epoch, is_best: saved.append(is_best))
    for trainer.state.epoch, value in enumerate(values, start=1):
        metrics = {
            "top1": 50.0 - trainer.state.epoch,
            "mean_class_accuracy": 50.0 - trainer.state.epoch,
            "loss": 9.0 + trainer.state.epoch,
        }
        trainer.saver.save(epoch_done=True, validation=validation_row(trainer.state.epoch, {**metrics, metric: value}))
    assert saved == best
    trainer.state.epoch += 1  # an epoch without a validation of its own
    better = {"top1": 99.0, "mean_class_accuracy": 99.0, "loss": 0.0}
    trainer.saver.save(epoch_done=True, validation=validation_row(trainer.state.epoch - 1, better))
    assert saved[-1] is False


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_what_is_validated_and_saved_has_the_statistics_of_all_ranks(
    make_trainer: Make,
    data: Data,
    validations: list[Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    decay: float,
) -> None:
    """Exchanging them is another test's; here the ranks agree on 0.25."""

    def agree(model: nn.Module) -> None:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.fill_(0.25)

    monkeypatch.setattr("dualformer_cli.engine.training.state.average_running_statistics", agree)
    trainer = make_trainer(*SMALL, f"train.ema_decay={decay}", validation=True)
    trainer.run()
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    states = [validations[0].state, saved["model"], *([saved["training_model"]] if decay else [])]
    for state in states:
        statistics = [value for name, value in state.items() if "running_" in name]
        assert statistics
        assert all((value == 0.25).all() for value in statistics)


def test_a_save_between_validations_agrees_on_statistics_too(
    make_trainer: Make, data: Data, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        "dualformer_cli.engine.training.state.average_running_statistics",
        lambda model: [b.zero_() for b in model.buffers()],
    )
    make_trainer(*SMALL).run()
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["model"]
    assert all((value == 0).all() for name, value in saved.items() if "running_" in name)


def test_the_clock_says_when_a_save_is_due_and_only_that_of_rank_0(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("dualformer_cli.engine.training.saving.monotonic", lambda: now[0])
    first, second = (make_trainer("train.save_every=5m", ranks=(rank, 2)) for rank in (0, 1))
    first.state.step = second.state.step = 1
    for now[0], is_due in ((399.0, False), (400.0, True)):
        assert (first.saver.is_due(), second.saver.is_due()) == (is_due, False)
    first.saver.save()
    now[0] += 299
    assert not first.saver.is_due()
    now[0] += 1
    assert first.saver.is_due()


def test_a_run_saves_when_the_clock_says_so(make_trainer: Make, data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Any] = []
    clock = iter(range(1000))
    monkeypatch.setattr("dualformer_cli.engine.training.saving.monotonic", lambda: next(clock))
    make_trainer(*SMALL, "train.save_every=2s", labels=[0, 1, 2, 3, 0, 1], on_event=events.append).run()
    assert [event["step"] for event in events if event["event"] == "saved"] == [2, 4, 6]


def stop_at(step: int) -> Callable[[Any], None]:
    def on_event(event: Any) -> None:
        if event["event"] == "step" and event["step"] == step:
            raise InterruptedError

    return on_event


def test_a_run_without_a_loss_scale_goes_on_in_fp16_with_a_new_one(make_trainer: Make, data: Data) -> None:
    overrides, labels = [*SMALL, "train.save_every=3 steps"], [0, 1, 2, 3, 0, 1]
    with pytest.raises(InterruptedError):
        make_trainer(*overrides, "runtime.precision=bf16", labels=labels, on_event=stop_at(4)).run()
    changes = frozenset({"runtime.precision"})
    again = make_trainer(*overrides, "runtime.precision=fp16", labels=labels, resume=True, changes=changes)
    assert again.state.step == 3
    assert again.state.scaler.get_scale() == 2**16


def test_a_resumed_run_has_everything_that_was_saved(make_trainer: Make, data: Data, tmp_path: Path) -> None:
    overrides = [*SMALL, "train.save_every=3 steps", "runtime.precision=fp16", "train.max_unreadable=0.5"]
    data.unreadable = 1
    events: list[Any] = []

    def on_event(event: Any) -> None:
        events.append(event)
        stop_at(4)(event)

    first = make_trainer(*overrides, labels=[0, 1, 2, 3, 0, 1], on_event=on_event)
    first.state.best = 71.0
    first.state.scaler.scale(torch.ones(1))
    first.state.scaler.update(1024.0)
    with pytest.raises(InterruptedError):
        first.run()
    assert [event["step"] for event in events if event["event"] == "saved"] == [3]
    data.asked.clear()
    events.clear()
    again = make_trainer(*overrides, labels=[0, 1, 2, 3, 0, 1], resume=True, on_event=events.append)
    assert (
        again.state.epoch,
        again.state.step_in_epoch,
        again.state.step,
        again.state.best,
        again.state.unreadable,
    ) == (0, 3, 3, 71.0, 1)
    assert again.state.scaler.get_scale() == 1024.0
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["optimizer"]["state"]
    of_first = again.state.optimizer.state_dict()["state"][0]
    assert torch.equal(of_first["exp_avg"], saved[0]["exp_avg"])
    assert of_first["exp_avg"].abs().max() > 0
    again.run()
    assert [asked.first_step for asked in data.asked] == [3]
    assert [event["step"] for event in events if event["event"] == "saved"] == [6]
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))


def test_a_resumed_run_goes_on_from_its_own_weights_and_with_its_average(
    make_trainer: Make, data: Data, tmp_path: Path
) -> None:
    overrides = [*SMALL, "train.ema_decay=0.9", "train.lr=0.05"]
    first = make_trainer(*overrides)
    first.run()
    again = make_trainer(*overrides, resume=True)
    for name, value in first.state.model.state_dict().items():
        assert torch.equal(again.state.model.state_dict()[name], value), name
    assert again.state.average.num_updates == 4
    for name, value in first.state.average.weights.items():
        assert torch.equal(again.state.average.weights[name], value), name


def test_the_best_so_far_counts_only_while_it_is_measured_in_the_same_way(make_trainer: Make) -> None:
    state = make_trainer(*SMALL).state
    state.best = 71.0
    saved = state.contents(None)
    for changed, best in (("train.lr", 71.0), ("train.best_metric", None), ("data.validation.num_clips", None)):
        state.restore(saved, changed=frozenset({changed}))
        assert state.best == best, changed


def test_a_resumed_rank_has_the_statistics_of_its_own_clips(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = make_trainer(*SMALL).state
    buffers = list(state.model.buffers())
    saved = state.contents(None, [[torch.full_like(buffer, rank + 3) for buffer in buffers] for rank in range(2)])
    monkeypatch.setattr("dualformer_cli.engine.training.state.world_size", lambda: 2)
    state.restore(saved, rank=1)
    assert buffers
    assert all((buffer == 4).all() for buffer in buffers)


def test_moments_are_those_of_the_parameter_of_the_same_name() -> None:
    def optimizer_of(names: str) -> torch.optim.Optimizer:
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in names]
        optimizer = torch.optim.AdamW([{"params": parameters, "names": list(names)}])
        for name, parameter in zip(names, parameters, strict=True):
            parameter.grad = torch.full((1,), float(ord(name)))
        return optimizer

    before, now = optimizer_of("bc"), optimizer_of("abc")  # a stage is no longer frozen
    before.step()
    _restore_optimizer(now, before.state_dict())
    first, *others = now.param_groups[0]["params"]
    assert first not in now.state
    moments = [now.state[parameter]["exp_avg"].item() for parameter in others]
    assert moments == pytest.approx([0.1 * ord("b"), 0.1 * ord("c")])


def test_videos_that_cannot_be_read_are_counted_by_the_epoch_and_by_their_share(make_trainer: Make, data: Data) -> None:
    data.unreadable, data.is_empty = 2, True
    overrides = [*SMALL, "train.epochs=3", "train.max_unreadable=0.5"]
    trainer = make_trainer(*overrides)
    trainer.run()
    data.unreadable = 3
    with pytest.raises(DualFormerError, match=r"3 of the 4 training videos could not be read in epoch 1, more than"):
        make_trainer(*overrides).run()


def test_the_log_says_what_the_clock_says(make_trainer: Make) -> None:
    events: list[Any] = []
    trainer = make_trainer(*SMALL, "train.epochs=5", "train.log_every_steps=4", on_event=events.append)
    trainer.log.output.mkdir()
    for trainer.state.step, trainer.state.step_in_epoch in ((5, 1), (6, 2), (8, 4)):
        trainer._log_step({"loss": 1.5}, 0.1, 6, waited=0.5, took=2.0)
    logged = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in logged] == [5, 8]
    assert [event["done"] for event in events if event["event"] == "advance"] == [1, 2, 4]
    assert logged[0]["seconds_left"] == (5 * 4 - 5) * 2.0
    found = logged[1]
    assert (found["loss"], found["lr"]) == (1.5, 0.1)
    assert (found["clips_per_second"], found["data_share"]) == (3, 0.25)


@pytest.mark.parametrize(("decay", "copies"), [(0.0, 3), (0.9, 4)])
def test_a_dry_run_counts_all_epochs_and_everything_that_is_saved(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, decay: float, copies: int
) -> None:
    """Weights and AdamW's two moments, and the average; keep_epochs files, and last, previous and best."""
    trainer = make_trainer(
        f"train.ema_decay={decay}", "train.epochs=10", "runtime.num_workers=4", "train.keep_epochs=2"
    )
    steps = iter([[clips_of(0)], [replace(clips_of(0), read_seconds=8000.0)]])
    monkeypatch.setattr(trainer, "steps", lambda pool, order, passes: steps if passes == 1 else None)
    monkeypatch.setattr(trainer.stepper, "step", lambda batches, lr: ({}, 1))
    found = to_json(preflight(trainer))
    assert found["steps"] == 10  # 4 videos in batches of 8
    assert found["hours"] == pytest.approx(10 * 4 * (8000 / 4) / 3600)  # every clip at the pace of the pass
    assert found["limited_by"] == "reading"
    numbers = sum(parameter.numel() for parameter in trainer.state.model.parameters())
    assert found["disk_needed_gib"] == pytest.approx(4 * numbers * copies * 5 / 2**30)


def test_settings_reach_the_optimizer_the_norms_and_the_plan_of_batches(make_trainer: Make) -> None:
    overrides = ["train.optimizer=muon", "train.batch_norm=frozen", "train.repeats=2", "train.batch_size=2"]
    trainer = make_trainer(*overrides, "train.global_batch_size=24", labels=[0, 1, 2, 3] * 6, ranks=(2, 3))
    assert isinstance(trainer.state.optimizer, MuonWithAdamW)
    norms = [module for module in trainer.state.model.modules() if isinstance(module, nn.BatchNorm3d)]
    assert norms
    assert all(isinstance(norm, FrozenBatchNorm) for norm in norms)
    plan = trainer.batches
    assert (plan.num_samples, plan.batch_size, plan.accumulation, plan.repeats) == (24, 2, 4, 2)
    assert (plan.rank, plan.world_size) == (2, 3)


def groups_by_name(trainer: Any) -> dict[str, Any]:
    return {name: group for group in trainer.state.optimizer.param_groups for name in group["names"]}


def test_settings_reach_the_groups_of_parameters(make_trainer: Make) -> None:
    overrides = ["train.backbone_lr_scale=0.25", "train.layer_decay=0.5", "train.weight_decay=0.07"]
    groups = groups_by_name(make_trainer(*overrides, "train.decay_norms=false", "train.frozen_stages=1"))
    assert not any(name.startswith("stages.0.") for name in groups)
    last, norm = groups["stages.3.blocks.1.mlp.fc2.weight"], groups["stages.3.blocks.1.norm1.weight"]
    assert last["lr_scale"] == norm["lr_scale"] == 0.25 * 0.5
    assert groups["stages.3.blocks.0.mlp.fc2.weight"]["lr_scale"] == 0.25 * 0.25
    assert (last["weight_decay"], norm["weight_decay"]) == (0.07, 0.0)
    assert groups_by_name(make_trainer("train.decay_norms=true"))["norm.weight"]["weight_decay"] > 0


def test_frozen_stages_stay_in_evaluation_mode(make_trainer: Make, data: Data) -> None:
    trainer = make_trainer(*SMALL, "train.frozen_stages=2", labels=[0, 1])
    modes: list[list[bool]] = []
    forward = trainer.stepper.forward
    trainer.stepper.forward = lambda clips: (
        modes.append([stage.training for stage in trainer.state.model.stages]) or forward(clips)
    )
    trainer.run()
    assert modes == [[False, False, True, True]] * 2


def test_as_many_epochs_are_kept_as_was_asked_for(make_trainer: Make, data: Data, tmp_path: Path) -> None:
    data.is_empty = True
    make_trainer(*SMALL, "train.epochs=4", "train.keep_epochs=2", labels=[0, 1]).run()
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("epoch-*.pt"))
    assert names == ["epoch-3.pt", "epoch-4.pt"]


def test_the_seed_decides_the_first_weights(make_trainer: Make) -> None:
    found = [make_trainer(f"runtime.seed={seed}").state.model.classifier.weight for seed in (1, 1, 2)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_run_begins_with_the_weights_that_it_is_given(make_trainer: Make, tmp_path: Path) -> None:
    given = make_trainer("runtime.seed=5").state.model.state_dict()
    torch.save({"model": given, "class_names": CLASSES.split()}, tmp_path / "given.pt")
    found = make_trainer(f"train.init_from={tmp_path / 'given.pt'}").state.model.state_dict()
    assert all(torch.equal(value, given[name]) for name, value in found.items())


def test_videos_that_the_list_calls_broken_are_not_trained_on(make_trainer: Make, tmp_path: Path) -> None:
    listed = tmp_path / "with status.csv"
    listed.write_text("path,label,status\na.mp4,0,ok\nb.mp4,1,no video stream\nc.mp4,1,ok\n")
    trainer = make_trainer(listed=listed)
    assert [Path(file).name for file in trainer.lists.training.files] == ["a.mp4", "c.mp4"]


def test_every_epoch_renders_harder_and_other_clips(make_trainer: Make) -> None:
    trainer = make_trainer("data.render.difficulty=0.8", "data.render.easy_epochs=4")
    trainer.lists = replace(trainer.lists, training=replace(trainer.lists.training, source=RENDERED))
    sources = []
    for trainer.state.epoch in range(3):
        sources.append(trainer._clips())
    assert [source.difficulty for source in sources] == pytest.approx([0, 0.2, 0.4])
    assert [source.epoch for source in sources] == [0, 1, 2]


def test_the_choice_of_kernels_reaches_the_network(make_trainer: Make) -> None:
    model = make_trainer("runtime.kernels=torch").state.model
    assert {module.kernels for module in model.modules() if hasattr(module, "kernels")} == {"torch"}


def test_clips_are_cut_as_the_configuration_says(make_trainer: Make, data: Data) -> None:
    trainer = make_trainer(*SMALL)
    trainer.run()
    source = data.asked[0].source
    assert (source.data, source.train) == (trainer.config.data, trainer.config.train)
    assert (source.listed, source.indexes) == (trainer.lists.training, trainer.indexes)


def test_workers_load_the_renderer_only_where_clips_are_rendered(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "WorkerPool", lambda *_, preload: preload)
    trainer = make_trainer()
    assert set(trainer.pool()) == {"dualformer_cli.data.clips.training_clips"}
    trainer.lists = replace(trainer.lists, training=replace(trainer.lists.training, source=RENDERED))
    assert "dualformer_cli.data.camera_motion.rendered_source" in trainer.pool()


def test_ranks_but_the_first_write_nothing(make_trainer: Make, data: Data, tmp_path: Path) -> None:
    events: list[Any] = []
    data.is_empty = True
    make_trainer("train.epochs=2", ranks=(1, 2), on_event=events.append).run()
    assert events == []
    assert [path.name for path in (tmp_path / "run").rglob("*")] == []


def test_each_core_of_a_rank_gets_a_decoder_unless_their_number_is_given(
    make_trainer: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "usable_cores", lambda: 6)
    assert make_trainer().num_workers == 6
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert make_trainer().num_workers == 2
    assert make_trainer("runtime.num_workers=1").num_workers == 1


def test_beside_a_gpu_one_core_of_each_rank_is_left_for_training(
    toy_preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoders, "usable_cores", lambda: 12)
    monkeypatch.setattr(decoders, "NVIDIA_DRIVER", tmp_path)
    found = [
        decoders.num_decoders(load_config(str(toy_preset), overrides=[f"runtime.device={device}"], environ={}))
        for device in ("auto", "cpu")
    ]
    assert found == [11, 8]
