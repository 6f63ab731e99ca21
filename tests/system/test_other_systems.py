"""Systems without what Linux has: every module imports, and videos are decoded in spawned workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import SMALL_RUN, assert_same_end, last_state

import dualformer_cli
from dualformer_cli.engine.parallel.devices import pick_device, widest
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system import memory

AS_ON_WINDOWS = """
import os, select, signal, subprocess, sys
import torch, torch.distributed.elastic.agent.server.local_elastic_agent, torch._dynamo, rich.progress, typer, av, yaml
import fvcore.nn, safetensors.torch, timm, torch.distributed.launcher.api  # others ask for what is removed here
sys.modules["fcntl"] = sys.modules["resource"] = None
for name in ("SIGKILL", "SIGUSR1"):
    delattr(signal, name)
for name in ("fork", "killpg", "register_at_fork", "sched_getaffinity"):
    delattr(os, name)
del select.poll
subprocess.Popen.kill = lambda self: os.kill(self.pid, 9)  # it is the standard library's that asks for SIGKILL here
"""
EVERY_MODULE = """
import importlib
from pathlib import Path
import dualformer_cli
root = Path(dualformer_cli.__file__).parent
names = [".".join(("dualformer_cli", *path.relative_to(root).with_suffix("").parts)) for path in root.rglob("*.py")]
for name in names:
    if not name.endswith(("__main__", "__init__")):
        importlib.import_module(name)
print(len(names))
"""
COMMAND = """
from dualformer_cli.system import memory, workers
workers._CAN_FORK = False
memory.peak_memory_mib = lambda: 1.0  # Windows counts it with functions of its own
from dualformer_cli.app import main
main()
"""
STOPPED = (
    """
from dualformer_cli.engine.training.loop import Trainer
log = Trainer._log_step
def log_and_press_ctrl_c(*arguments, **options):
    log(*arguments, **options)
    signal.raise_signal(signal.SIGINT)
Trainer._log_step = log_and_press_ctrl_c
"""
    + COMMAND
)


def run(script: str, *arguments: str, code: int = 0) -> str:
    root = str(Path(dualformer_cli.__file__).parents[1])
    environ = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", AS_ON_WINDOWS + script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_every_module_imports_without_what_windows_lacks() -> None:
    assert int(run(EVERY_MODULE)) > 200


@pytest.mark.parametrize(
    "command", [("predict",), ("gradcam", "--out", "map.png"), ("tokenlabel", "show", "--out", "tokens.png")]
)
def test_commands_run_with_spawned_workers(
    command: tuple[str, ...], clips: Any, mini_preset: Path, mini_weights: Path, tmp_path: Path
) -> None:
    model = ("--preset", str(mini_preset), "--weights", str(mini_weights), "--device", "cpu", "--json")
    words = (str(tmp_path / each) if each.endswith(".png") else each for each in command)
    document = json.loads(run(COMMAND, *words, *model, str(clips.path("h264.mp4"))))
    if command[0] == "predict":
        assert [result["status"] for result in document["results"]] == ["ok"]
    else:
        assert Path(document["output"]).is_file()


def test_a_training_with_spawned_workers_stops_at_ctrl_c_and_ends_as_if_it_had_not(
    mini_preset: Path, clip_drawer: Any, tmp_path: Path
) -> None:
    for number in range(6):
        clip_drawer(tmp_path / f"{number}.mp4", num_frames=10 + number, size=(72, 64))
    listed = tmp_path / "list.csv"
    listed.write_text("path,label\n" + "".join(f"{number}.mp4,{number % 5}\n" for number in range(6)))
    options = ("--preset", str(mini_preset), "--data", str(listed), "--data", str(listed), *SMALL_RUN)
    options += ("--set", "train.epochs=2", "--set", "runtime.num_workers=2")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(COMMAND, "train", *options, "--output", str(whole))
    run(STOPPED, "train", *options, "--output", str(cut), code=130)
    assert last_state(cut)["progress"]["step"] == 1
    run(COMMAND, "train", "--resume", "--output", str(cut))
    assert_same_end(whole, cut)
    document = run(COMMAND, "eval", "--weights", str(cut / "checkpoints/best.pt"), "--data", str(listed), "--json")
    assert json.loads(document)["videos"]["scored"] == 6


def test_memory_is_counted_in_the_unit_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrusage", lambda _who: type("Usage", (), {"ru_maxrss": 3 * 2**20})())
    monkeypatch.setattr(sys, "platform", "linux")
    assert memory.peak_memory_mib() == 3 * 2**10
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.peak_memory_mib() == 3


@pytest.mark.parametrize("name", ["mps", "xpu"])
def test_other_devices_are_taken_where_torch_has_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = getattr(torch, name)
    monkeypatch.setattr(module, "is_available", lambda: False)
    with pytest.raises(
        DualFormerError, match=rf"device '{name}' is not here: torch finds no GPU of .*use --device auto"
    ):
        pick_device(name)
    monkeypatch.setattr(module, "is_available", lambda: True)
    assert pick_device(name).type == name


def test_only_gpus_of_apple_have_no_float64() -> None:
    assert [widest(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [torch.float64] * 2 + [torch.float32]
