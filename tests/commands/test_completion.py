"""What the shell completes, through the options and arguments that users type."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path
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
        ("train", "overrides", "data.decoder=py", ["data.decoder=pyav"]),
        ("train", "overrides", "data.test.num_crops=", ["data.test.num_crops=1", "data.test.num_crops=3"]),
        ("train", "overrides", "model.token_head=t", ["model.token_head=true"]),
        ("train", "overrides", "train.batch_norm=s", ["train.batch_norm=synchronized"]),
        ("train", "overrides", "train.best_metric=mean_c", ["train.best_metric=mean_class_accuracy"]),
        ("train", "overrides", "train.clip_grad_norm=", ["train.clip_grad_norm=null"]),
        ("train", "overrides", "train.teacher=k400-b", ["train.teacher=k400-base"]),
        ("train", "overrides", "train.teacher_preset=k600", ["train.teacher_preset=k600-base"]),
        ("train", "overrides", "data.classes=kinetics4", ["data.classes=kinetics400"]),
        ("train", "overrides", "data.train_list=r", ["data.train_list=render:camera-motion"]),
        ("train", "overrides", "data.validation_list=", []),
        ("train", "overrides", "model.depths=", []),
        ("train", "overrides", "no.such.key=", []),
        ("predict", "overrides", "weights=camera", ["weights=camera-motion"]),
        ("eval", "overrides", "runtime.device=mp", ["runtime.device=mps"]),
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


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_behind_the_marks_at_which_it_cuts_a_line(tmp_path: Path) -> None:
    """Each line is typed up to a TAB and an x, and then printed, word by word, in place of being run."""
    lines = {
        "dualformer train --set data.clip.num_f": ["--set", "data.clip.num_frames=x"],
        "dualformer train --set data.train_list=render:c": ["--set", "data.train_list=render:camera-motion", "x"],
    }
    program = tmp_path / "dualformer"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dualformer_cli "$@"\n')
    program.chmod(0o755)
    asked = {**os.environ, "_DUALFORMER_COMPLETE": "source_bash"}  # --show-completion asks who started the tests
    script = subprocess.run([program], env=asked, capture_output=True, text=True, check=True).stdout
    (tmp_path / "script").write_text(script)
    typed = f"PATH={tmp_path}:$PATH; . {tmp_path}/script\n"
    typed += "".join(f"{line}\tx\x01printf '<%s>' \x05; echo\n" for line in lines) + "exit\n"
    keyboard, terminal = pty.openpty()
    environ = {**os.environ, "TERM": "dumb", "PS1": "", "INPUTRC": os.devnull}
    os.write(keyboard, typed.encode())
    shown = subprocess.run(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=terminal,
        capture_output=True,
        env=environ,
        text=True,
        check=False,
        timeout=120,
    ).stdout
    os.close(terminal)
    os.close(keyboard)
    printed = [line for line in shown.splitlines() if line.startswith("<dualformer>")]
    assert printed == ["".join(f"<{word}>" for word in ("dualformer", "train", *words)) for words in lines.values()]
