"""What tests of whole training runs share: how they are cut short, and how two of them are compared."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from checkpoints import load_checkpoint
from torch import Tensor

from dualformer_cli.documents.base import to_json

RANDOM = ("model.dropout=0.3", "model.drop_path=0.2", "train.mixup_alpha=0.4", "train.random_erasing=0.3")
"""Everything that draws random numbers in the forward pass."""

SMALL_RUN = [
    *("--set", "train.batch_size=2", "--set", "train.global_batch_size=2", "--set", "train.log_every_steps=1"),
    *("--set", "data.train.short_side=64", "--set", "data.clip.frame_interval=1"),
]
"""Options of `train` for steps of two small clips."""


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
    trainer.log.on_event = lambda event: events.append(to_json(event))
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


def bad_list(toy_list: Path, name: str, number: int, bad: int) -> Path:
    """A list of clips, of which the last ones are missing or broken."""
    lines = toy_list.read_text().splitlines()[: number - bad + 1]
    broken = toy_list.with_name("broken.mp4")
    broken.write_bytes(b"no video")
    lines += [f"{'broken' if index % 2 == 0 else f'missing {index}'}.mp4,0" for index in range(bad)]
    target = toy_list.with_name(name)
    target.write_text("".join(f"{line}\n" for line in lines))
    return target
