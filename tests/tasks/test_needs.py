"""What a run lacks is said all at once, before anything is loaded or started."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import RENDERED, RunConfig
from dualformer_cli.errors import DualFormerError, MissingError
from dualformer_cli.tasks.needs import check_needs

ROOT = Path(__file__).resolve().parents[2]


def config_of(preset: str, **flags: object) -> RunConfig:
    return load_config(preset, flags={key.replace("__", "."): value for key, value in flags.items()}, environ={}).config


def problems(config: RunConfig, *, offline: bool = False, **options: int) -> list[str]:
    try:
        check_needs(config, is_resumed=False, offline=offline, **options)
    except MissingError as error:
        return list(error.problems)
    except DualFormerError as error:
        return [str(error)]
    return []


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two cores, no GPU, nothing fetched yet."""
    monkeypatch.setattr("dualformer_cli.tasks.needs.usable_cores", lambda: 2)
    monkeypatch.setattr("dualformer_cli.engine.parallel.launch.usable_cores", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))


def test_without_data_and_gpu_both_are_said_with_what_brings_them() -> None:
    data, gpus = problems(config_of("k400-small"), gpus=8)
    assert data == (
        "there is no training list; `dualformer download kinetics400 && dualformer prepare kinetics400` makes the "
        "preset's, `dualformer prepare FOLDER` makes one of your own videos; give it with --data LIST"
    )
    assert gpus == "--gpus 8: this machine has no GPU; use --cpu-processes 2"


def test_one_thing_that_is_missing_is_one_sentence() -> None:
    (data,) = problems(config_of("tiny"))
    assert data.startswith("there is no training list; `dualformer prepare FOLDER` makes one of your own videos")


def test_a_folder_is_answered_with_prepare_or_with_the_list_in_it(tmp_path: Path) -> None:
    folder = tmp_path / "my videos"
    folder.mkdir()
    config = config_of("tiny", data__train_list=str(folder), data__validation_list=str(tmp_path / "val.csv"))
    of_folder, missing = problems(config)
    assert of_folder == (
        f"list {str(folder)!r} is a folder; dualformer prepare {shlex.quote(str(folder))}, and give the lists that it "
        "makes"
    )
    assert missing.startswith(f"list {str(tmp_path / 'val.csv')!r} not found")
    (folder / "prepared").mkdir()
    (folder / "prepared" / "train.csv").touch()
    assert problems(config)[0].endswith(f"is a folder; name a list in it: {folder}/prepared/train.csv")


def test_more_processes_than_cores_are_refused() -> None:
    config = config_of("tiny", data__train_list=RENDERED)
    assert problems(config, cpu_processes=8) == ["--cpu-processes 8: this machine has 2 cores; use --cpu-processes 2"]
    assert problems(config, cpu_processes=2) == []


def test_weights_that_are_not_here_are_said(tmp_path: Path) -> None:
    config = config_of("ucf101-tiny", data__train_list=RENDERED, train__token_labels="labels")
    fetched, labels = problems(config, offline=True)
    assert fetched == (
        "the weights 'k400-tiny' (train.init_from) are not here; `dualformer download k400-tiny` fetches them"
    )
    assert labels == "the token labels 'labels' are not here; `dualformer tokenlabel write` makes them"
    assert problems(config) == [labels]  # the weights are fetched on the way
    own = replace(config, train=replace(config.train, init_from="best.pt", token_labels=None))
    assert problems(own)[0].startswith("the weights 'best.pt' (train.init_from) are not here; name a file or one of")
    for there in ("hf://owner/name@main:best.pt", "camera-motion"):  # fetched on the way, and with the package
        assert problems(replace(own, train=replace(own.train, init_from=there))) == []
    (said,) = problems(replace(own, train=replace(own.train, init_from="hf://owner/name")), offline=True)
    assert said.startswith("weights 'hf://owner/name' cannot be fetched: it is not in the Hub's cache, and the network")
    (tmp_path / "best.pt").touch()
    assert problems(replace(own, train=replace(own.train, init_from=str(tmp_path / "best.pt")))) == []
    of_folder = replace(own, train=replace(own.train, init_from=str(tmp_path)))
    (said,) = problems(of_folder)
    assert said.endswith(f"a folder without model.safetensors; name one of its files: {tmp_path / 'best.pt'}")
    (tmp_path / "model.safetensors").touch()
    assert problems(of_folder) == []


def test_image_weights_of_timm_are_looked_for_in_the_cache_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the model is made, which takes half a minute for base, and timm loaded."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    options = {"data__train_list": RENDERED, "train__init_from": None, "train__pretrained_2d": "timm"}
    config = config_of("tiny", **options)
    assert problems(config) == []  # fetched on the way
    (said,) = problems(config, offline=True)
    assert said.startswith("timm's twins_svt_small cannot be fetched: it was not fetched before, and --offline or DUAL")
    repository = tmp_path / "models--timm--twins_svt_small.in1k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "model.safetensors").touch()
    assert problems(config, offline=True) == []
    (said,) = problems(config_of("camera-motion", **options))
    assert said.startswith("timm has no Twins-SVT with embed_dims [96, 96, 128, 160]; sizes tiny, small and base have")


def test_the_command_says_each_on_a_line_of_its_own(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "dualformer_cli", "train", "--preset", "k400-small", "--gpus", "8"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    first, data, gpus = done.stderr.splitlines()
    assert (done.returncode, done.stdout, first) == (1, "", "dualformer: 2 things are missing:")
    assert data.startswith("* there is no training list; `dualformer download kinetics400 &&")
    assert gpus.startswith("* --gpus 8: this machine has no GPU; use --")
    assert list(tmp_path.iterdir()) == []
