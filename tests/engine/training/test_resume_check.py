"""What a resumed run may have otherwise than before, and which checkpoints are of no use to it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import Interrupt, last_state, stop_at

from dualformer_cli.config.load import load_config
from dualformer_cli.errors import DualFormerError, WeightsError

Make = Callable[..., Any]


@pytest.fixture
def started(make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path]) -> Make:
    """The function started(*overrides, **options) -> Trainer that resumes a run of 2 of 4 steps, saved after each."""
    settings = ("train.batch_size=4", "train.global_batch_size=4", "train.save_every=1 step")
    options = {"data": part_of(toy_list, 16)}
    with pytest.raises(Interrupt):
        make_trainer(tmp_path / "run", *settings, **options, on_event=stop_at(3)).run()

    def resume(*overrides: str, changes: tuple[str, ...] = (), **more: Any) -> Any:
        keys = frozenset(change.split("=")[0] for change in changes)
        return make_trainer(
            tmp_path / "run", *settings, *overrides, *changes, resume=True, changes=keys, **options, **more
        )

    return resume


@pytest.mark.parametrize(
    ("setting", "before"),
    [
        ("train.lr=0.001", "0.003"),
        ("train.weight_decay=0.5", "0.02"),
        ("train.epochs=2", "1"),
        ("train.backbone_lr_scale=0.5", "1.0"),
        ("train.layer_decay=0.5", "1.0"),
        ("train.optimizer=muon", "adamw"),
        ("train.frozen_stages=1", "0"),
        ("train.batch_norm=frozen", "per_rank"),
        ("train.batch_size=2", "4"),
        ("train.ema_decay=0.5", "0.0"),
        ("train.clip_grad_norm=1.0", "null"),
        ("runtime.seed=3", "0"),
        ("runtime.precision=fp16", "fp32"),
        ("data.train.flip=0.25", "0.5"),
    ],
)
def test_another_setting_is_refused_by_name_and_taken_with_change(
    started: Make, tmp_path: Path, setting: str, before: str
) -> None:
    key, _, value = setting.partition("=")
    with pytest.raises(DualFormerError) as refused:
        started(setting)
    assert str(refused.value) == (
        f"cannot resume {str(tmp_path / 'run')!r}: {key} was {before} and is {value}; give what the run began with, or "
        f"change it from here on with --change {setting}, which is written down"
    )
    events: list[dict[str, Any]] = []
    trainer = started(changes=(setting,), on_event=events.append)
    result = trainer.run()
    assert all(math.isfinite(event["loss"]) for event in events if event["event"] == "step")
    row = {"event": "change", "epoch": 0, "step": 2, "key": key, "before": before, "now": value}
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [each["step"] for each in rows if each["event"] == "step"][:3] == [1, 2, 3]
    assert rows[2] == row
    assert last_state(tmp_path / "run")["changes"] == [row]
    assert [(change.key, change.step) for change in result.changes] == [(key, 2)]
    written = (tmp_path / "run" / "config.yaml").read_text()
    assert written.startswith(f"# {key}: {value} after step 2, {before} before\n")
    assert load_config(str(tmp_path / "run" / "config.yaml"), environ={}).config == trainer.config


def test_a_changed_rate_and_decay_reach_the_optimizer_and_keep_its_moments(started: Make, tmp_path: Path) -> None:
    saved = last_state(tmp_path / "run")["optimizer"]
    trainer = started(changes=("train.weight_decay=0.5", "train.lr=0.001", "train.backbone_lr_scale=0.5"))
    (first, *_) = trainer.state.optimizer.param_groups
    assert (first["weight_decay"], first["lr_scale"]) == (0.5, 0.5)
    name = first["names"][0]
    (number,) = [
        number
        for group in saved["param_groups"]
        for known, number in zip(group["names"], group["params"], strict=True)
        if known == name
    ]
    moments = trainer.state.optimizer.state[first["params"][0]]
    assert torch.equal(moments["exp_avg"], saved["state"][number]["exp_avg"])
    assert moments["exp_avg"].abs().max() > 0
    assert trainer.recipe.lr == 0.001


def test_what_changes_no_number_is_free_and_not_written_down(started: Make, tmp_path: Path) -> None:
    free = (
        "train.save_every=1h",
        "train.keep_epochs=1",
        "train.log_every_steps=1",
        "model.gradient_checkpointing=true",
    )
    started(*free).run()
    assert '"change"' not in (tmp_path / "run" / "log.jsonl").read_text()
    assert last_state(tmp_path / "run")["changes"] == []


def test_a_changed_run_that_resumes_again_knows_its_change_once(started: Make, tmp_path: Path) -> None:
    changes = ("train.lr=0.001",)
    with pytest.raises(Interrupt):
        started(changes=changes, on_event=stop_at(3)).run()  # nothing was saved with the change
    with pytest.raises(Interrupt):
        started(changes=changes, on_event=stop_at(4)).run()
    started(changes=changes).run()
    started("train.lr=0.001").run()
    with pytest.raises(DualFormerError, match=r"train\.lr was 0\.001 and is 0\.003"):
        started()
    assert (tmp_path / "run" / "log.jsonl").read_text().count('"change"') == 1
    assert (tmp_path / "run" / "config.yaml").read_text().count("# train.lr: 0.001 after step 2") == 1


@pytest.mark.parametrize("setting", ["model.depths=[2,2,2,3]", "train.repeats=2", "model.mlp_ratio=2.0"])
def test_what_a_run_has_from_its_beginning_to_its_end_cannot_be_changed(started: Make, setting: str) -> None:
    key = setting.partition("=")[0]
    with pytest.raises(
        DualFormerError, match=rf"{re.escape(key)} was .*; give what the run began with, or start another"
    ):
        started(changes=(setting,))


def spoil(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Write a checkpoint again, whole as a file, with something else in it."""
    checkpoint = torch.load(path, weights_only=True)
    change(checkpoint)
    torch.save(checkpoint, path)


def first_of(tensors: dict[str, Any]) -> torch.Tensor:
    return next(each for each in tensors.values() if isinstance(each, torch.Tensor) and each.dim() > 1)


FLAWS: dict[str, Callable[[dict[str, Any]], object]] = {
    "holds values that are not numbers, in model.": lambda saved: first_of(saved["model"]).fill_(math.nan),
    "holds values that are not numbers, in optimizer.state.": lambda saved: saved["optimizer"]["state"][0][
        "exp_avg_sq"
    ].fill_(math.inf),
    "is not whole: it lacks classifier.bias": lambda saved: saved["model"].pop("classifier.bias"),
    "is not whole: classifier.bias has shape (7,) in place of (4,)": lambda saved: saved["model"].update(
        {"classifier.bias": torch.zeros(7)}
    ),
    "lacks 'step' of its progress, or it is not what it should be": lambda saved: saved["progress"].pop("step"),
    "lacks 'data', or it is not what it should be": lambda saved: saved.pop("data"),
    "lacks 'optimizer', or it is not what it should be": lambda saved: saved.pop("optimizer"),
    "lacks the names of the optimizer's parameters": lambda saved: saved["optimizer"]["param_groups"][0].pop("names"),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_whole_file_of_a_useless_checkpoint_falls_back_to_the_one_before(
    started: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture, flaw: str
) -> None:
    folder = tmp_path / "run" / "checkpoints"
    spoil(folder / "last.pt", FLAWS[flaw])
    trainer = started()
    assert f"checkpoint {str(folder / 'last.pt')!r} {flaw}" in caplog.text
    assert "going on from the one before" in caplog.text
    assert trainer.state.step == 1
    spoil(folder / "previous.pt", lambda saved: saved.update(mark=torch.ones(1)))
    with pytest.raises(Interrupt):
        started(on_event=stop_at(3)).run()
    assert "mark" in torch.load(folder / "previous.pt", weights_only=True), "a useless one took a good one's place"


def test_two_useless_checkpoints_are_an_error_of_one_line(started: Make, tmp_path: Path) -> None:
    for name in ("last", "previous"):
        spoil(tmp_path / "run" / "checkpoints" / f"{name}.pt", FLAWS["holds values that are not numbers, in model."])
    with pytest.raises(WeightsError, match=r"last\.pt' holds values .*previous\.pt' holds .*; start the run again"):
        started()
