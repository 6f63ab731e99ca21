"""A data set that a tiny model learns in seconds, and training runs over it in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

COLOURS = {"dark": (30, 30, 30), "red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200)}

TOY_PRESET = """\
model:
  embed_dims: [16, 16, 32, 32]
  depths: [2, 2, 2, 2]
  num_heads: [2, 2, 4, 4]
  window_size: [2, 2, 2]
  fine_grid: [2, 2, 2]
  coarse_grid: [2, 2, 2]
  num_classes: 4
  drop_path: 0.0
  dropout: 0.0
data:
  clip: {num_frames: 8, frame_interval: 1}
  crop_size: 64
  train: {short_side: 72, area: [0.5, 1.0]}
  test: {short_side: 64, num_clips: 2}
  validation: {short_side: 64, num_clips: 1}
train:
  epochs: 1
  warmup_epochs: 0.5
  lr: 0.003
  backbone_lr_scale: 1.0
  batch_size: 8
  global_batch_size: 8
  log_every_steps: 1
runtime: {device: cpu}
"""


def render_colours(folder: Path, number: int, seed: int) -> Path:
    """Write noisy clips of four colours in turn, their list and classes.txt; returns the list."""
    import av

    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    rows = ["path,label"]
    for index in range(number):
        label = index % len(COLOURS)
        name, colour = list(COLOURS.items())[label]
        path = folder / f"{name} {index:03d}.mp4"
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = 72, 72, "yuv420p"
            for _ in range(12):
                pixels = (rng.normal(0, 25, (72, 72, 3)) + colour).clip(0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode(None))
        rows.append(f"{path.name},{label}")
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in COLOURS))
    (folder / "list.csv").write_text("".join(f"{row}\n" for row in rows))
    return folder / "list.csv"


@pytest.fixture(scope="session")
def toy_list(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 32 clips of four colours, to train with."""
    return render_colours(tmp_path_factory.mktemp("toy") / "training", 32, 0)


@pytest.fixture(scope="session")
def toy_validation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of 20 other clips of the same colours."""
    return render_colours(tmp_path_factory.mktemp("toy") / "validation", 20, 1)


@pytest.fixture(scope="session")
def part_of() -> Callable[..., Path]:
    """The function part_of(list, number, target folder=None) -> a list of its first videos, in the same folder."""

    def make(whole: Path, number: int) -> Path:
        target = whole.with_name(f"first {number}.csv")
        lines = whole.read_text().splitlines()[: number + 1]
        target.write_text("".join(f"{line}\n" for line in lines))
        return target

    return make


@pytest.fixture(scope="session")
def toy_preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of a tiny model that learns the colours in 4 epochs of 8 steps."""
    path = tmp_path_factory.mktemp("preset") / "toy.yaml"
    path.write_text(TOY_PRESET)
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread in torch: results do not depend on how many cores are free."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_trainer(
    toy_preset: Path, toy_list: Path, one_thread: None, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The function make_trainer(output, *overrides, data=toy list, resume=False, on_event=...) -> Trainer.

    Videos are decoded in this process, which saves the 3 seconds that a worker takes to start.
    """
    from dualformer_cli.config.load import load_config
    from dualformer_cli.engine.distributed import Ranks
    from dualformer_cli.engine.train import Trainer

    monkeypatch.setattr("dualformer_cli.engine.train.WorkerPool", here_pool)
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))

    def make(output: Path, *overrides: str, data: Path = toy_list, preset: Path = toy_preset, **options: Any) -> Any:
        flags = {"data.train_list": str(data)}
        resolved = load_config(str(preset), overrides=overrides, flags=flags, environ={})
        return Trainer(resolved, alone, output=output, **options)

    return make
