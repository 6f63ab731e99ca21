"""What a dry run measures and warns of."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from training_runs import (
    bad_list,
)

from dualformer_cli.documents.base import to_json
from dualformer_cli.engine.training.preflight import preflight

Make = Callable[..., Any]


def test_a_dry_run_measures_and_leaves_nothing(make_trainer: Make, tmp_path: Path, toy_list: Path) -> None:
    found = to_json(preflight(make_trainer(tmp_path / "run", data=bad_list(toy_list, "one bad.csv", 16, 1))))
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
    monkeypatch.setattr(trainer.stepper, "step", lambda batches, lr, **_: (0.0, 8))
    warnings = preflight(trainer).warnings
    assert re.fullmatch(r"no room: about \d+\.\d [kMG]B are needed in '.*/run', and 0\.0 kB are free", warnings[0])
    assert re.fullmatch(r"videos are read slower \(.* clips/s\) than the model could take them \(.*", warnings[1])


def test_a_dry_run_reckons_with_all_workers_and_with_every_checkpoint(
    make_trainer: Make, tmp_path: Path, toy_list: Path, part_of: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = part_of(toy_list, 8)
    trainer = make_trainer(tmp_path / "run", "train.keep_epochs=2", "runtime.num_workers=3", data=data)
    monkeypatch.setattr(trainer, "steps", lambda *_, **__: iter([[SimpleNamespace(read_seconds=6.0)]] * 2))
    monkeypatch.setattr(trainer.stepper, "step", lambda batches, lr, **_: (0.0, 8))
    found = preflight(trainer)
    assert found.read_clips_per_second == pytest.approx(8 / (6.0 / 3))
    assert found.limited_by == "reading"
    numbers = sum(parameter.numel() for parameter in trainer.state.model.parameters())
    copies = 1 + 2 + (trainer.state.average is not None)  # weights, two moments of AdamW, and maybe the average
    files = 3 + 2  # last, previous, best, and two epochs
    assert found.disk_needed_gib == pytest.approx(4 * numbers * copies * files / 2**30)
