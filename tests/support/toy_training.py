"""A data set that a tiny model learns in seconds, and training runs over it in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

__all__ = [
    "label_writer",
    "make_teacher",
    "make_trainer",
    "one_clip_list",
    "part_of",
    "teacher_file",
    "toy_list",
    "toy_preset",
    "toy_validation",
    "write_labels",
]

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
def make_trainer(
    toy_preset: Path, toy_list: Path, one_thread: None, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The function make_trainer(output, *overrides, data=toy list, resume=False, on_event=...) -> Trainer.

    Videos are decoded in this process, which saves the 3 seconds that a worker takes to start. `on_event` gets events
    as the JSON objects that they become.
    """
    from dualformer_cli.config.load import load_config
    from dualformer_cli.documents.base import to_json
    from dualformer_cli.engine.parallel.ranks import Ranks
    from dualformer_cli.engine.training.loop import Trainer

    monkeypatch.setattr("dualformer_cli.engine.training.loop.WorkerPool", here_pool)
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))

    def make(
        output: Path,
        *overrides: str,
        data: Path = toy_list,
        preset: Path = toy_preset,
        on_event: Callable[[Any], None] | None = None,
        **options: Any,
    ) -> Any:
        flags = {"data.train_list": str(data)}
        resolved = load_config(str(preset), overrides=overrides, flags=flags, environ={})
        if on_event is not None:
            options["on_event"] = lambda event: on_event(to_json(event))
        return Trainer(resolved, alone, output=output, **options)

    return make


@pytest.fixture(scope="session")
def make_teacher(toy_preset: Path) -> Callable[..., Path]:
    """The function make_teacher(path, *overrides, seed=3) -> a checkpoint of random weights that see sharply."""
    from checkpoints import save_checkpoint

    from dualformer_cli.config.load import load_config, to_yaml
    from dualformer_cli.engine.build import build_model

    def make(path: Path, *overrides: str, seed: int = 3) -> Path:
        config = load_config(str(toy_preset), overrides=overrides, environ={}).config
        torch.manual_seed(seed)
        model = build_model(config.model, config.data)
        with torch.no_grad():
            model.classifier.weight.mul_(60)
        parts = {"model": model.state_dict(), "optimizer": {}, "progress": {}, "config": to_yaml(config)}
        save_checkpoint(path, {**parts, "class_names": list(COLOURS)})
        return path

    return make


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory, make_teacher: Callable[..., Path]) -> Path:
    """A teacher of the toy classes, with another width than the student and a normalisation of its own."""
    overrides = ["model.embed_dims=[8,16,16,32]", "model.num_heads=[1,2,2,4]", "data.mean=[100,100,100]"]
    return make_teacher(tmp_path_factory.mktemp("teacher") / "teacher.pt", *overrides)


@pytest.fixture(scope="session")
def one_clip_list(toy_list: Path) -> Path:
    """Eight videos, of which the first 8 frames count: a clip has no choice where to start."""
    target = toy_list.with_name("one clip.csv")
    rows = toy_list.read_text().splitlines()[1:9]
    target.write_text("path,label,num_frames\n" + "".join(f"{row},8\n" for row in rows))
    return target


@pytest.fixture
def label_writer(toy_preset: Path, teacher_file: Path, one_thread: None) -> Callable[..., Any]:
    """The function label_writer(output, *overrides, data, teacher=..., ranks=(0, 1), per_shard=3) -> LabelWriter."""
    from dualformer_cli.config.load import load_config
    from dualformer_cli.engine.parallel.ranks import Ranks
    from dualformer_cli.engine.training.label_writer import LabelWriter

    def make(
        output: Path,
        *overrides: str,
        data: Path,
        teacher: Path = teacher_file,
        ranks: tuple[int, int] = (0, 1),
        per_shard: int = 3,
    ) -> LabelWriter:
        flags = {"data.train_list": str(data)}
        resolved = load_config(str(toy_preset), overrides=overrides, flags=flags, environ={})
        rank, size = ranks
        one = Ranks(rank=rank, local_rank=rank, world_size=size, device=torch.device("cpu"))
        return LabelWriter(resolved, str(teacher), one, output=output, videos_per_shard=per_shard)

    return make


@pytest.fixture
def write_labels(label_writer: Callable[..., Any], here_pool: Any) -> Callable[..., Any]:
    """The function write_labels(...), as label_writer -> the writer, when all is written."""

    def make(*arguments: Any, **options: Any) -> Any:
        writer = label_writer(*arguments, **options)
        writer.write(here_pool())
        return writer

    return make
