"""What the shell completes, through the options and arguments that users type."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from dualformer_cli.app import app
from dualformer_cli.commands.completion import complete_preset
from dualformer_cli.config.load import known_presets

ROOT: Any = typer.main.get_command(app)


def completed(command: str, parameter: str, incomplete: str) -> list[str]:
    found = ROOT
    for name in command.split():
        found = found.commands[name]
    (one,) = (one for one in found.params if one.name == parameter)
    context = found.make_context(command, [], resilient_parsing=True)
    return [item.value for item in one.shell_complete(context, incomplete)]


@pytest.mark.parametrize(
    ("command", "parameter", "incomplete", "expected"),
    [
        ("predict", "preset", "k400-t", ["k400-tiny", "k400-tiny-tokenlabel"]),
        ("train", "preset", "nothing", []),
        ("train", "overrides", "data.clip.num", ["data.clip.num_frames="]),
        ("eval", "device", "c", ["cpu", "cuda"]),
        ("eval", "device", "mp", ["mps"]),
        ("gradcam", "precision", "", ["auto", "fp32", "bf16", "fp16"]),
        ("predict", "precision", "b", ["bf16"]),
        ("train", "teacher", "k400-b", ["k400-base"]),
        ("train", "init_from", "k400-b", ["k400-base"]),
        ("predict", "weights", "k400-t", ["k400-tiny"]),
        ("eval", "weights", "pub", ["published"]),
        ("tokenlabel write", "teacher", "k600", ["k600-base"]),
        ("prepare", "names", "camera", ["camera-motion"]),
        ("prepare", "names", "ucf", ["ucf101"]),
        ("prepare", "names", "videos/", []),
        ("prepare", "formats", "rawframe", ["rawframe", "rawframe_offset"]),
        ("prepare", "formats", "video,js", ["video,json"]),
        ("prepare", "formats", "json,js", []),
        ("train", "log", "wandb,", ["wandb,tensorboard", "wandb,mlflow"]),
        ("train", "log", "m", ["mlflow"]),
        ("download", "names", "diving", ["diving48", "diving48-small"]),
        ("flops", "size", "sm", ["small"]),
    ],
)
def test_a_word_is_completed(command: str, parameter: str, incomplete: str, expected: list[str]) -> None:
    assert completed(command, parameter, incomplete) == expected


def test_all_presets_are_offered() -> None:
    assert completed("train", "preset", "") == list(known_presets())


def test_presets_complete_by_their_beginning() -> None:
    assert complete_preset("ucf") == ["ucf101-small", "ucf101-tiny"]
    assert complete_preset("none") == []
    assert "base" in complete_preset("")
