"""`dualformer prepare camera-motion`: a data set out of nothing, and words for what cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.data.camera_motion import files
from dualformer_cli.data.lists.manifest import read_manifest
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system import threads

QUICK = ["--count", "100", "--num-frames", "2"]

pytestmark = pytest.mark.usefixtures("_own_environment")


@pytest.fixture
def prepare(monkeypatch, here_pool):
    """The function prepare(*arguments) -> the runner's result; clips are rendered in this process."""
    monkeypatch.setattr(files, "WorkerPool", here_pool)
    monkeypatch.setattr(files, "_SIDE", 64)
    files._stock.cache_clear()
    return lambda *arguments: CliRunner().invoke(app, ["prepare", *map(str, arguments)])


def test_it_makes_lists_that_can_be_read_in_a_folder_of_its_own(prepare):
    result = prepare("camera-motion", *QUICK)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[:3] == ["train: 80 clips", "val: 10 clips", "test: 10 clips"]
    assert result.stderr.splitlines()[-3:] == [
        "wrote camera-motion/train.csv",
        "wrote camera-motion/val.csv",
        "wrote camera-motion/test.csv",
    ]
    assert lines[3].startswith("100 of 100 clips rendered now, ")
    assert len(read_manifest("camera-motion/train.csv")) == 80


def test_it_prints_one_document(prepare, tmp_path):
    Image.new("RGB", (80, 60), (200, 30, 30)).save(tmp_path / "red.png")
    arguments = ["camera-motion", *QUICK, "--root", "set", "--pictures", tmp_path, "--seed", 5, "--json"]
    first, second = (json.loads(prepare(*arguments).stdout) for _ in range(2))
    assert (first["rendered"], second["rendered"]) == (100, 0)
    assert first["clips"] == {"train": 80, "val": 10, "test": 10}
    assert first["settings"]["seed"] == 5
    assert first["num_pictures"] == 1
    assert first["lists"]["val"] == "set/val.csv"


def test_a_dry_run_says_how_much_and_writes_nothing(prepare):
    result = prepare("camera-motion", *QUICK, "--dry-run")
    assert result.stdout.startswith("camera-motion: would render 100 of 100 clips, about ")
    document = json.loads(prepare("camera-motion", *QUICK, "--dry-run", "--json").stdout)
    assert document["missing"] == 100
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--count", "20"], "20 clips are too few"),
        (["--pictures", "nowhere"], "folder of pictures 'nowhere' not found"),
        (["--num-frames", "1"], "at least 2 frames"),
        (["--difficulty", "7"], "difficulty must be 0 to 1, got 7"),
        (["--root", "file/set"], "cannot make folder 'file/set"),
    ],
)
def test_what_cannot_be_is_one_line_and_nothing_is_made(prepare, arguments, said):
    Path("file").touch()
    result = prepare("camera-motion", *QUICK, *arguments)
    assert isinstance(result.exception, DualFormerError)
    assert said in str(result.exception)
    assert os.listdir() == ["file"]


@pytest.mark.parametrize("name", ["train.csv", "val.csv", "test.csv", "classes.txt", "camera-motion.json"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_lists_of_others_are_replaced_only_when_asked(prepare, name, dry):
    Path("set").mkdir()
    Path("set", name).write_text("mine")
    result = prepare("camera-motion", *QUICK, "--root", "set", *dry)
    assert "'set' has files that were not rendered by this command" in str(result.exception)
    assert [path.read_text() for path in Path("set").iterdir()] == ["mine"]
    assert prepare("camera-motion", *QUICK, "--root", "set", "--overwrite", *dry).exit_code == 0
    assert (Path("set", name).read_text() == "mine") == bool(dry)


def test_a_list_that_is_a_folder_is_refused_before_the_work(prepare):
    Path("set", "val.csv").mkdir(parents=True)
    result = prepare("camera-motion", *QUICK, "--root", "set", "--overwrite")
    assert "'set/val.csv': it is a folder" in str(result.exception)
    assert os.listdir("set") == ["val.csv"]


def settled(look):
    """What `look` finds once it finds the same for a second: a worker may outlive its parent by one clip."""
    found, again = None, look()
    while found != again:
        time.sleep(1)
        found, again = again, look()
    return found


def test_a_run_that_is_killed_goes_on_with_the_next(prepare, monkeypatch):
    arguments = ["prepare", "camera-motion", "--root", "set", "--count", "100", "--num-frames", "2", "--workers", "1"]
    process = subprocess.Popen([sys.executable, "-m", "dualformer_cli", *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(list(Path("set").rglob("[0-9]*.mp4"))) < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    there = settled(lambda: {path: path.stat().st_mtime_ns for path in Path("set").rglob("[0-9]*.mp4")})
    assert 5 <= len(there) < 100
    assert not Path("set", "train.csv").exists()
    summary = json.loads(prepare(*arguments[1:], "--json").stdout)
    assert summary["rendered"] == 100 - len(there)
    assert {path: path.stat().st_mtime_ns for path in there} == there


def test_the_pool_finds_at_least_one_core():
    assert threads.usable_cores() >= 1
