"""Checkpoints: whole or not there, plain inside, and one to go back to."""

from __future__ import annotations

import json
import logging
import os
import resource
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import load_checkpoint, save_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dualformer_cli import create_model
from dualformer_cli.engine.training.checkpoint_files import FORMAT, CheckpointFolder
from dualformer_cli.errors import WeightsError
from dualformer_cli.model.weights import load_weights

REPOSITORY = Path(__file__).resolve().parents[3]


def contents(step: int = 1, **others: Any) -> dict[str, Any]:
    return {
        "model": {"weight": torch.full((50,), float(step)), "count": torch.tensor(step)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
        "progress": {"epoch": 2, "step": step, "position": [4, 5]},
        "config": "model: {}\n",
        **others,
    }


def step_of(checkpoint: dict[str, Any] | None) -> int:
    assert checkpoint is not None
    step = int(checkpoint["progress"]["step"])
    assert torch.equal(checkpoint["model"]["weight"], torch.full((50,), float(step)))
    return step


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_what_is_saved_comes_back_and_is_plain(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    metrics = {
        "top1": np.float64(71.5),
        "loss": float("inf"),
        "videos": np.int64(7),
        "name": np.str_("x"),
        "none": None,
    }
    rng = {"state": 2**100, "words": np.arange(3, dtype=np.int64), "gauss": (True, 0.5)}
    save_checkpoint(path, contents(metrics=metrics, rng=rng, class_names=["rün", "été"]))
    found = torch.load(path, weights_only=True)
    assert (found["kind"], found["format"]) == ("dualformer checkpoint", FORMAT)
    assert found["versions"]["torch"] == torch.__version__
    assert found["class_names"] == ["rün", "été"]
    assert found["metrics"] == {"top1": 71.5, "loss": float("inf"), "videos": 7, "name": "x", "none": None}
    assert {type(value) for value in found["metrics"].values()} == {float, int, str, type(None)}
    assert found["rng"]["state"] == 2**100
    assert found["rng"]["gauss"] == (True, 0.5)
    assert found["rng"]["words"].tolist() == [0, 1, 2]
    assert found["optimizer"] == contents()["optimizer"]
    assert step_of(load_checkpoint(path)) == 1


def test_the_state_of_a_training_goes_round(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    scaler = torch.amp.GradScaler("cpu")
    state = contents(scaler=scaler.state_dict(), optimizer=optimizer.state_dict(), model=model.state_dict())
    save_checkpoint(tmp_path / "a.pt", state)
    found = load_checkpoint(tmp_path / "a.pt")
    other, other_scaler = nn.Linear(3, 2), torch.amp.GradScaler("cpu")
    other_optimizer = torch.optim.AdamW(other.parameters())
    other.load_state_dict(found["model"])
    other_optimizer.load_state_dict(found["optimizer"])
    other_scaler.load_state_dict(found["scaler"])
    assert torch.equal(other.weight, model.weight)
    assert str(other_optimizer.state_dict()) == str(optimizer.state_dict())


def test_its_weights_load_into_a_model(tmp_path: Path) -> None:
    size = ["model.embed_dims=[32]", "model.depths=[1]", "model.num_heads=[1]", "model.patch_sizes=[[2, 4, 4]]"]
    preset = tmp_path / "small.yaml"
    preset.write_text("model:\n" + "".join(f"  {row[6:].replace('=', ': ')}\n" for row in size) + "  num_classes: 3\n")
    model, other = create_model(str(preset)), create_model(str(preset))
    save_checkpoint(tmp_path / "a.pt", contents(model=model.state_dict()))
    assert load_weights(other, tmp_path / "a.pt").fresh == ()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_a_part_of_a_large_tensor_takes_its_own_space_only(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", contents(model={"weight": torch.zeros(10**6)[:50]}))
    assert (tmp_path / "a.pt").stat().st_size < 20_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": {"best": {1, 2}}}, "checkpoint entry 'metrics.best' is a builtins.set; it must be a tensor or a"),
        ({"extra": [0, Path("x")]}, r"checkpoint entry 'extra.1' is a pathlib\.\w+"),
        ({"extra": {(1, 2): 3}}, "checkpoint entry 'extra' is a builtins.dict"),
        ({"model": None}, "a checkpoint needs 'model', got NoneType"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        CheckpointFolder(tmp_path).save(contents(**change))
    assert names(tmp_path / "checkpoints") == []


def test_files_that_are_no_checkpoint_are_told_apart(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    path = folder.last
    folder.path.mkdir()

    def message() -> str:
        """What is said of `last.pt`, where `previous.pt` is missing."""
        with pytest.raises(WeightsError) as caught:
            folder.load_latest()
        end = f" and checkpoint {str(folder.previous)!r} is missing; start the run again"
        return str(caught.value).removeprefix(f"checkpoint {str(path)!r} ").replace(end, "; take another one")

    folder.previous.touch()
    with pytest.raises(
        WeightsError, match=r"^checkpoint '.*last\.pt' is missing and checkpoint '.*previous\.pt' is empty"
    ):
        folder.load_latest()
    folder.previous.unlink()
    path.touch()
    assert message() == "is empty; take another one"
    path.write_text("<html>")
    assert message() == "is not a checkpoint, or something else was written over it; take another one"
    torch.save({"state_dict": OrderedDict(a=torch.zeros(2))}, path)
    assert message().endswith("to start a new run from its weights, give it to --init-from")
    save_checkpoint(path, contents())
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    assert message() == f"is truncated ({len(whole) - 10:,} bytes): its end is missing; take another one"
    middle = whole.index(torch.full((50,), 1.0).numpy().tobytes()) + 7
    path.write_bytes(whole[:middle] + b"\x55" + whole[middle + 1 :])
    assert message() == "is damaged: 'archive/data/0' in it is not what was written; take another one"
    torch.save({"kind": "dualformer checkpoint"}, path)
    assert message() == f"has format None, this version reads up to {FORMAT}; update dualformer"
    torch.save({"kind": "dualformer checkpoint", "format": FORMAT + 1}, path)
    assert message() == f"has format {FORMAT + 1}, this version reads up to {FORMAT}; update dualformer"
    torch.save({"kind": "dualformer checkpoint", "format": FORMAT, "model": {}, "optimizer": 5}, path)
    assert message() == "lacks 'optimizer', or it is not what it should be; take another one"
    path.unlink()
    path.mkdir()
    assert message() == "cannot be read: is a directory; take another one"


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "a.pt"
    save_checkpoint(path, contents())
    return path


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(-1, 7))
def test_a_changed_bit_or_a_lost_end_is_noticed_or_without_effect(whole_file: Path, where: float, bit: int) -> None:
    data = bytearray(whole_file.read_bytes())
    position = int(where * len(data))
    if bit < 0:
        del data[position:]
    else:
        data[position] ^= 1 << bit
    path = whole_file.with_name("changed.pt")
    path.write_bytes(data)
    try:
        found = load_checkpoint(path)
    except WeightsError:
        return
    assert bit >= 0, "a truncated file was taken for whole"
    assert str(found) == str(load_checkpoint(whole_file))


def test_a_folder_keeps_the_last_two_the_best_and_some_epochs(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep_epochs=2)
    assert folder.load_latest() is None
    assert names(tmp_path) == []
    for step in range(1, 6):
        folder.save(contents(step), epoch=step, is_best=step == 3)
    files = {"best.pt": 3, "epoch-4.pt": 4, "epoch-5.pt": 5, "last.pt": 5, "previous.pt": 4}
    assert {name: step_of(load_checkpoint(folder.path / name)) for name in names(folder.path)} == files
    folder.save(contents(6), epoch=2)
    assert names(folder.path) == ["best.pt", "epoch-2.pt", "epoch-5.pt", "last.pt", "previous.pt"]
    assert step_of(CheckpointFolder(tmp_path).load_latest()) == 6
    with pytest.raises(ValueError, match="keep_epochs must be at least 1 or None, got 0"):
        CheckpointFolder(tmp_path, keep_epochs=0)


def test_a_file_system_without_hard_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(contents(step), epoch=step, is_best=True)
    files = {"best.pt": 2, "epoch-1.pt": 1, "epoch-2.pt": 2, "last.pt": 2, "previous.pt": 1}
    assert {name: step_of(load_checkpoint(folder.path / name)) for name in names(folder.path)} == files


def test_a_broken_last_falls_back_to_the_one_before_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("dualformer_cli"), "propagate", True)
    folder = CheckpointFolder(tmp_path)
    folder.save(contents(1))
    folder.save(contents(2))
    assert step_of(folder.load_latest()) == 2
    assert caplog.messages == []
    folder.last.write_bytes(folder.last.read_bytes()[:300])
    assert step_of(folder.load_latest()) == 1
    said = f"checkpoint {str(folder.last)!r} is truncated (300 bytes): its end is missing; going on from the one before"
    assert caplog.messages == [f"{said}, {str(folder.previous)!r}"]
    resumed = CheckpointFolder(tmp_path)
    resumed.save(contents(3))
    assert step_of(load_checkpoint(folder.previous)) == 1, "the broken file took the place of the whole one"
    assert step_of(load_checkpoint(folder.last)) == 3
    folder.last.unlink()
    assert step_of(folder.load_latest()) == 1


def test_two_broken_checkpoints_are_both_named(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save(contents(step))
    folder.last.write_bytes(b"")
    folder.previous.unlink()
    message = f"{str(folder.last)!r} is empty and checkpoint {str(folder.previous)!r} is missing; start the run again"
    with pytest.raises(WeightsError, match=message.replace("(", r"\(")):
        folder.load_latest()
    save_checkpoint(folder.path / "epoch-3.pt", contents())
    with pytest.raises(WeightsError, match=r"start from '.*epoch-3\.pt' instead"):
        folder.load_latest()


def test_a_full_disk_leaves_the_checkpoints_as_they_were(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(contents(1))
    folder.save(contents(2))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))  # fails like a full disk, in the middle of a write
    try:
        with pytest.raises(OSError, match=r"File too large: '.*last\.pt'"):
            folder.save(contents(3, extra=torch.zeros(10**6)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(folder.path) == ["last.pt", "previous.pt"]
    assert [step_of(load_checkpoint(path)) for path in (folder.last, folder.previous)] == [2, 1]


def test_only_leftovers_of_a_save_are_deleted_at_the_start(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.path.mkdir()
    for name in (".last.0123abcd.part.pt", ".epoch-12.0123abcd.part.pt", ".mine.0123abcd.part.pt", "notes.txt"):
        (folder.path / name).touch()
    folder.save(contents())
    assert names(folder.path) == [".mine.0123abcd.part.pt", "last.pt", "notes.txt"]


KILLING = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from checkpoints import load_checkpoint
from dualformer_cli.engine.training.checkpoint_files import CheckpointFolder
torch.set_num_threads(1)
root = Path(sys.argv[1])

def save_on_and_on(pipe):
    folder = CheckpointFolder(root, keep_epochs=2)
    latest = folder.load_latest()
    step = 0 if latest is None else latest["progress"]["step"]
    while True:
        step += 1
        state = {"model": {"w": torch.full((10**6,), float(step))}, "optimizer": {}, "config": ""}
        state["progress"] = {"step": step}
        folder.save(state, epoch=step if step % 3 == 0 else None, is_best=step % 4 == 0)
        os.write(pipe, step.to_bytes(4, "little"))

done, seen, leftovers = 0, [], 0
random.seed(0)
for trial in range(20):
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        save_on_and_on(writer)
    os.close(writer)
    time.sleep(random.uniform(0.01, 0.2))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with os.fdopen(reader, "rb") as pipe:
        reports = pipe.read()
    done = int.from_bytes(reports[-4:], "little") if reports else done
    leftovers += any(entry.name.startswith(".") for entry in root.glob("checkpoints/*"))
    for path in root.glob("checkpoints/[!.]*.pt"):
        load_checkpoint(path)
    latest = CheckpointFolder(root).load_latest()
    step = 0 if latest is None else latest["progress"]["step"]
    assert latest is None or bool((latest["model"]["w"] == step).all())
    assert step in (done, done + 1), (step, done)
    done = step
    seen.append(step)
print(json.dumps({"steps": seen, "leftovers": leftovers}))
"""


def test_twenty_kills_at_random_moments_lose_no_checkpoint(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests' / 'support'}"}
    command = [sys.executable, "-c", KILLING, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert len(report["steps"]) == 20
    assert report["steps"][-1] > 10, "the killed processes hardly saved anything"
