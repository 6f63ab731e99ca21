"""Training on clips that are rendered on the fly: it learns motion from nothing, and resumes exactly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import load_checkpoint

from dualformer_cli.config.schema import RENDERED
from dualformer_cli.data.camera_motion.rendered_source import RenderedClips
from dualformer_cli.data.clips.transforms import normalize

Make = Callable[..., Any]

PRESET = """\
model:
  embed_dims: [48, 64]
  depths: [2, 2]
  num_heads: [2, 2]
  patch_sizes: [[4, 12, 12], [1, 2, 2]]
  window_size: [4, 2, 2]
  fine_grid: [4, 2, 2]
  coarse_grid: [4, 2, 2]
  num_classes: 10
  dropout: 0.0
  drop_path: 0.0
  start: motion
data:
  classes: camera_motion
  clip: {num_frames: 16}
  crop_size: 48
  mean: [110.0, 110.0, 110.0]
  std: [58.0, 58.0, 58.0]
  train_list: render:camera-motion
  render: {num_clips: 2400, difficulty: 0.0, without_motion: 0.0}
train:
  epochs: 1
  warmup_epochs: 0.2
  lr: 0.001
  backbone_lr_scale: 1.0
  batch_size: 16
  global_batch_size: 16
  clip_grad_norm: 1.0
  motion_weight: 1.0
  repeats: 2
  log_every_steps: 1
runtime: {device: cpu}
"""


@pytest.fixture
def preset(tmp_path: Path) -> Path:
    path = tmp_path / "motion.yaml"
    path.write_text(PRESET)
    return path


def held_out_top1(trainer: Any, number: int) -> float:
    """Percent of rendered clips over pictures that training did not see."""
    data = trainer.config.data
    source = RenderedClips(data=data, pictures=(), epoch=999)
    clips = np.concatenate([source.render(n, [(77, n)]).clips for n in range(number)])
    with torch.no_grad():
        logits = trainer.state.model.eval()(normalize(torch.from_numpy(clips), data.mean, data.std, torch.float32))
    return float(100 * np.mean([source.label(n) == int(logits[n].argmax()) for n in range(number)]))


def test_a_small_model_learns_large_motion_from_nothing(make_trainer: Make, preset: Path, tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    trainer = make_trainer(tmp_path / "run", data=RENDERED, preset=preset, on_event=events.append)
    trainer.run()
    losses = [event["loss"] for event in events if event["event"] == "step"]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])
    assert held_out_top1(trainer, 100) >= 30  # chance is 10


def test_a_stopped_run_goes_on_exactly(make_trainer: Make, preset: Path, tmp_path: Path) -> None:
    few = ("data.render.num_clips=48", "train.epochs=2", "train.save_every=1 step", "data.render.easy_epochs=2")

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 8:
            raise KeyboardInterrupt

    make_trainer(tmp_path / "whole", *few, data=RENDERED, preset=preset).run()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "parts", *few, data=RENDERED, preset=preset, on_event=stop).run()
    make_trainer(tmp_path / "parts", *few, data=RENDERED, preset=preset, resume=True).run()
    whole, parts = (load_checkpoint(tmp_path / name / "checkpoints" / "last.pt") for name in ("whole", "parts"))
    assert whole["model"].keys() == parts["model"].keys()
    assert all(torch.equal(whole["model"][key], parts["model"][key]) for key in whole["model"])
    assert any(key.startswith("motion_heads.") for key in whole["model"])


def test_videos_teach_no_motion_which_is_said(make_trainer: Make, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", "train.motion_weight=0.5")
    assert trainer.state.model.motion_heads is None
    assert any("only rendered clips know theirs" in note for note in trainer.notes)
