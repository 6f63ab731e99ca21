"""The options, output and ends of `dualformer prepare`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.config.load import load_config
from dualformer_cli.data.clips.epoch_plan import epoch_order
from dualformer_cli.data.lists.manifest import read_manifest
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks.preview import preview_clips

RUNNER = CliRunner(env={"COLUMNS": "100"})
CLASSES = ("running, fast", 'it\'s "naïve"')


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> Path:
    """Two classes of five videos."""
    folder = tmp_path_factory.mktemp("drawn")
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for clip in range(5):
            clip_drawer(folder / name / f"clip {clip}.mp4", num_frames=10 + 5 * number + clip, size=(72, 64))
    return folder


@pytest.fixture
def prepare(
    _own_environment: None, drawn: Path, tmp_path: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The function prepare(*options) -> result of the command on a copy of the videos at "videos"."""
    for module in ("data.prepare.preparation", "system.workers", "tasks.preview", "engine.training.loop"):
        monkeypatch.setattr(f"dualformer_cli.{module}.WorkerPool", here_pool)
    shutil.copytree(drawn, "videos")
    return lambda *options: RUNNER.invoke(app, ["prepare", *map(str, options)])


def test_a_folder_becomes_lists_that_train_takes(prepare: Any, mini_preset: Path) -> None:
    result = prepare("videos")
    assert result.exit_code == 0, result.output
    assert "videos: class folders, 10 videos, 2 classes" in result.stderr
    assert "all videos 8 2" in " ".join(result.stdout.split())
    assert "wrote classes.txt, train.csv, val.csv in videos/prepared" in result.stderr.splitlines()
    lists = [f"--data=videos/prepared/{split}.csv" for split in ("train", "val")]
    small = [f"--set=train.{key}=2" for key in ("batch_size", "global_batch_size")] + ["--set=train.epochs=1"]
    trained = RUNNER.invoke(
        app, ["train", "--preset", str(mini_preset), *lists, *small, "--set=data.train.short_side=64"]
    )
    assert trained.exit_code == 0, trained.output
    predicted = RUNNER.invoke(
        app, ["predict", "--weights", "runs/train/checkpoints/last.pt", f"videos/{CLASSES[1]}/clip 0.mp4", "--json"]
    )
    labels = {row["label"] for row in json.loads(predicted.stdout)["results"][0]["predictions"]}
    assert labels == set(CLASSES)


def test_json_is_one_document_and_a_broken_video_makes_it_3(prepare: Any) -> None:
    (Path("videos") / CLASSES[0] / "broken.mp4").write_text("no video")
    result = prepare("videos", "--json", "--check", "--root", "out")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert document["broken"] == [
        {"path": f"{CLASSES[0]}/broken.mp4", "status": "broken: a text file, not a video"},
    ]
    assert document["status"] == {"ok": 10, "sequential_only": 0, "broken": 1}
    assert sum(split["videos"] for split in document["splits"].values()) == 11
    assert (Path("out") / "train.csv").is_file()
    assert not (Path("videos") / "prepared").exists()


def test_a_dry_run_writes_nothing(prepare: Any) -> None:
    result = prepare("videos", "--transcode", "--dry-run", "--split", "0.5/0.3/0.2")
    assert result.exit_code == 0, result.output
    assert "all videos 5 3 2" in " ".join(result.stdout.split())
    assert "would need about" in result.stdout
    assert not (Path("videos") / "prepared").exists()


def test_transcode_tells_its_size_first_and_lists_the_new_files(prepare: Any) -> None:
    result = prepare("videos", "--transcode", "--short-side", 48, "--crf", 30, "--formats", "json")
    assert result.exit_code == 0, result.output
    assert "10 videos to transcode: about" in result.stderr
    assert "converted  10 now, 0 before" in result.stdout
    listed = json.loads((Path("videos/prepared") / "train_list.json").read_text())
    assert {entry["filename"].split("/")[0] for entry in listed} == {"videos"}


def test_show_draws_what_training_sees(prepare: Any, mini_preset: Path) -> None:
    result = prepare("videos", "--show", "sheet.png", "--preset", mini_preset, "--set", "train.random_erasing=1")
    assert result.exit_code == 0, result.output
    assert "wrote 8 training clips in sheet.png" in result.stderr.splitlines()
    with Image.open("sheet.png") as image:
        assert image.width > 8 * 112
        assert image.height > 8 * 112


def test_a_sheet_may_go_into_the_folder_that_is_still_to_be_made(prepare: Any, mini_preset: Path) -> None:
    into = ("--root", "new", "--show", "new/sheet.png", "--preset", mini_preset, "--set", "train.random_erasing=1")
    for options in (("--dry-run",), (), ("--overwrite",)):
        result = prepare("videos", *into, *options)
        assert result.exit_code == 0, result.output
        assert Path("new", "sheet.png").is_file() is ("--dry-run" not in options)


def test_the_shown_clips_are_those_of_the_recipe(prepare: Any, mini_preset: Path) -> None:
    assert prepare("videos").exit_code == 0
    plain = [
        "data.train_list=videos/prepared/train.csv",
        "data.train.flip=0",
        "data.train.area=[1, 1]",
        "data.train.aspect=[1, 1]",
    ]
    still = preview_clips(load_config(str(mini_preset), overrides=plain).config, num_videos=3)
    again = preview_clips(load_config(str(mini_preset), overrides=plain).config, num_videos=3)
    assert len(still) == 3
    assert all(clip.frames.shape == (8, 64, 64, 3) and clip.label in CLASSES for clip in still)
    assert all(np.array_equal(a.frames, b.frames) for a, b in zip(still, again, strict=True))
    files = [Path(file).resolve() for file in read_manifest("videos/prepared/train.csv").files]
    for seed in (0, 1, 2):  # as many videos as the first step of the first epoch reads first
        overrides = [*plain, f"runtime.seed={seed}"]
        shown = preview_clips(load_config(str(mini_preset), overrides=overrides).config, num_videos=3)
        order = epoch_order(len(files), seed=seed, epoch=0)
        assert [Path(clip.path).resolve() for clip in shown] == [files[place] for place in order[:3]]
    smooth = [*plain, "train.label_smoothing=0.3"]
    share = 0.7 + 0.3 / len(CLASSES)
    for before, after in zip(
        still, preview_clips(load_config(str(mini_preset), overrides=smooth).config, num_videos=3), strict=True
    ):
        assert after.label.startswith(f"{share:.0%} {before.label} + ")
    mixed = preview_clips(load_config(str(mini_preset), overrides=[*plain, "train.mixup_alpha=8"]).config, num_videos=8)
    assert any(" + " in clip.label and "% " in clip.label for clip in mixed)
    erasing = [*plain, "train.random_erasing=1"]
    erased = preview_clips(load_config(str(mini_preset), overrides=erasing).config, num_videos=3)
    for before, after in zip(still, erased, strict=True):
        changed = (before.frames != after.frames).any(axis=(0, 3))
        assert 0.01 < changed.mean() < 0.4
        assert np.abs(after.frames[:, changed] - np.array([123.675, 116.28, 103.53])).max() < 1


def test_the_labels_shown_of_mirrored_clips_are_those_of_the_other_side(prepare: Any, mini_preset: Path) -> None:
    rows = [f"videos/{CLASSES[1]}/clip {number}.mp4,pan left" for number in range(2)]
    Path("turned.csv").write_text("\n".join(["path,label", *rows, ""]))
    wanted = ["data.train_list=turned.csv", "data.classes=camera_motion", "model.num_classes=10", "data.train.flip="]
    for share, label in ((0, "pan left"), (1, "pan right")):
        overrides = [*wanted[:-1], f"{wanted[-1]}{share}"]
        shown = preview_clips(load_config(str(mini_preset), overrides=overrides).config, num_videos=2)
        assert [clip.label for clip in shown] == [label, label]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("videos", "--transcode", "--frames"), "choose one of --transcode and --frames"),
        (("videos", "--layout", "circles"), "none of auto, folders, splits, table"),
        (("videos", "--formats", "video,csv"), "'csv' is none of video, rawframe"),
        (("videos", "--set", "train.repeats=2"), "give --show"),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(prepare: Any, options: tuple[str, ...], complaint: str) -> None:
    result = prepare(*options)
    assert result.exit_code == 2
    assert complaint in " ".join(result.stderr.replace("│", " ").split())


def test_split_folders_leave_nothing_to_split(prepare: Any) -> None:
    for name in ("train", "val"):
        shutil.move(Path("videos") / CLASSES[name == "val"], Path("divided") / name / "a")
    for option in (("--split", "0.5/0.5"), ("--group-look-alikes",)):
        assert prepare("divided", *option).exit_code == 2
    assert prepare("divided").exit_code == 0
    with pytest.raises(DualFormerError, match="'divided/prepared' is what prepare has written; name the folder"):
        raise prepare("divided/prepared").exception


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("hmdb51",), "no annotations of hmdb51 are in 'data/hmdb51/annotations'; dualformer download hmdb51"),
        (("nowhere",), "folder 'nowhere' does not exist"),
        (("videos", "--show", "a.jpg"), "ends in .png"),
        (("videos", "--split", "0.5"), "--split '0.5'"),
        (("videos", "--group-column", "person"), "needs a table"),
        (("videos", "--root", "videos"), "the videos are in 'videos': name another folder to write into with --root"),
    ],
)
def test_what_cannot_be_prepared_is_one_clear_line(prepare: Any, options: tuple[str, ...], complaint: str) -> None:
    result = prepare(*options)
    assert result.exit_code == 1
    assert isinstance(result.exception, DualFormerError)
    with pytest.raises(DualFormerError, match=complaint):
        raise result.exception
    assert not (Path("videos") / "prepared").exists()


SHOW = ("--set", "train.random_erasing=1", "--show")


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("there.png",), "'there.png' exists; name another file or replace it with --overwrite"),
        (("folder.png",), "'folder.png': it is a folder"),
        (("nowhere/a.png",), "'nowhere/a.png': folder 'nowhere' does not exist"),
        (("input.png", "--overwrite"), "'input.png': it is one of the inputs"),
        (("a.png", "--set", "train.nothing=1"), "train.nothing"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_is_refused_before_the_work(
    prepare: Any, mini_preset: Path, options: tuple[str, ...], complaint: str, dry: tuple[str, ...]
) -> None:
    Path("there.png").write_text("mine")
    Path("folder.png").mkdir()
    Path("input.png").symlink_to(Path("videos") / CLASSES[0] / "clip 0.mp4")
    result = prepare("videos", "--preset", mini_preset, *SHOW, *options, *dry)
    assert isinstance(result.exception, DualFormerError)
    assert complaint in str(result.exception)
    assert Path("there.png").read_text() == "mine"
    assert Path("input.png").is_symlink()
    assert not (Path("videos") / "prepared").exists()


def test_a_sheet_that_is_there_is_replaced_when_asked(prepare: Any, mini_preset: Path) -> None:
    Path("sheet.png").write_text("mine")
    result = prepare("videos", "--preset", mini_preset, *SHOW, "sheet.png", "--overwrite")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == "wrote 8 training clips in sheet.png"
    with Image.open("sheet.png") as image:
        assert image.width > 8 * 112


def test_the_summary_is_printed_though_the_sheet_fails(
    prepare: Any, mini_preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DualFormerError("none of 8 videos can be read")

    monkeypatch.setattr("dualformer_cli.tasks.preview.preview_clips", fail)
    result = prepare("videos", "--preset", mini_preset, *SHOW, "sheet.png")
    assert result.exit_code == 1
    assert "wrote classes.txt, train.csv, val.csv in videos/prepared" in result.stderr.splitlines()


def test_the_same_video_under_two_labels_is_reported_and_under_one_counted(prepare: Any) -> None:
    first, second = (Path("videos") / name for name in CLASSES)
    shutil.copy(first / "clip 0.mp4", second / "again.mp4")
    shutil.copy(first / "clip 1.mp4", first / "copy.mp4")
    result = prepare("videos")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stdout.splitlines() if line.startswith("same video")]
    assert len(lines) == 2
    for path in ("running, fast/clip 0.mp4", f"{CLASSES[1]}/again.mp4"):
        assert path in lines[0]
    assert lines[1].endswith("1 file is a copy of another with the same label")
    found = json.loads((Path("videos") / "prepared" / "prepare.json").read_text())["same_bytes"]
    assert (found["two_labels"], found["one_label"]) == (1, 1)
    assert {each["path"] for each in found["examples"][0]} == {
        "running, fast/clip 0.mp4",
        f"{CLASSES[1]}/again.mp4",
    }


def test_a_folder_without_copies_says_nothing_of_them(prepare: Any) -> None:
    assert "same video" not in prepare("videos").stdout
