"""Miniatures of all datasets are downloaded, prepared, trained on for a step and evaluated."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from mini_datasets import MINIATURES, Clips, Mini
from typer.testing import CliRunner
from web_server import WebServer

from dualformer_cli.app import app
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.lists.manifest import read_manifest

pytestmark = pytest.mark.usefixtures("_own_environment")

HOSTS = (
    "http://serre-lab.clps.brown.edu",
    "https://www.crcv.ucf.edu",
    "http://ec2-52-25-205-214.us-west-2.compute.amazonaws.com",
    "https://s3.amazonaws.com",
    "https://storage.googleapis.com",
    "http://www.svcl.ucsd.edu",
    "https://github.com",
)


@pytest.fixture(scope="session")
def mini_clips(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> Clips:
    """Four videos of 20 frames, and the frames of three of them as images."""
    import io

    import av

    folder = tmp_path_factory.mktemp("mini")
    videos, frames = [], []
    for number in range(4):
        path = clip_drawer(folder / f"{number}.mp4", num_frames=20, size=(72 + 8 * number, 64))
        videos.append(path.read_bytes())
        if number < 3:
            images = {}
            with av.open(str(path)) as container:
                for index, frame in enumerate(container.decode(video=0), start=1):
                    buffer = io.BytesIO()
                    frame.to_image().save(buffer, "JPEG")
                    images[f"{index:05d}.jpg"] = buffer.getvalue()
            frames.append(images)
    return Clips(videos, frames)


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, here_pool: Any) -> Callable[..., Any]:
    """The function invoke(*arguments) -> result of a command that decodes in this process."""
    for module in ("data.prepare.preparation", "system.workers", "engine.training.loop", "tasks.preview"):
        monkeypatch.setattr(f"dualformer_cli.{module}.WorkerPool", here_pool)

    def run(*arguments: object) -> Any:
        return CliRunner().invoke(app, [*map(str, arguments)])

    return run


@pytest.fixture
def set_up(
    web: WebServer, tmp_path: Path, mini_clips: Clips, rar_tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Mini]:
    """The function set_up(name) -> a miniature that is served, or lies where the user has to put it."""
    rar_tools("unrar")

    def build(name: str) -> Mini:
        mini = MINIATURES[name](mini_clips)
        web.files |= mini.served
        for path, content in mini.placed.items():
            target = Path("data", name, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        small = {"about_gb": 0.001, "num_bytes": None, "sha256": None, "md5": None, "num_archives": None}
        files = {
            one: {
                "files": {
                    key: {**small, "published": dict.fromkeys(file.published)}
                    for key, file in entry.files.items()
                    if file.urls or file.url_list
                }
            }
            for one, entry in load_catalogue({}).datasets.items()
        }
        catalogue = tmp_path / "mirror.yaml"
        catalogue.write_text(json.dumps({"mirrors": dict.fromkeys(HOSTS, web.address), "datasets": files}))
        monkeypatch.setenv("DUALFORMER_CATALOGUE", str(catalogue))
        return mini

    return build


@pytest.fixture
def prepared(set_up: Callable[[str], Mini], invoke: Callable[..., Any]) -> Callable[..., tuple[Mini, dict[str, Any]]]:
    """The function prepared(name, *options) -> the miniature and the summary, after download and prepare."""

    def run(name: str, *options: object) -> tuple[Mini, dict[str, Any]]:
        mini = set_up(name)
        result = invoke("download", name)
        assert result.exit_code == 0, result.output
        result = invoke("prepare", name, "--json", *options)
        assert result.exit_code == 0, result.output
        return mini, json.loads(result.stdout)

    return run


def rows(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    manifest = read_manifest(str(path))
    for file in manifest.files:
        assert os.path.exists(file), file
    return [
        (os.path.normpath(file), sample.labels) for file, sample in zip(manifest.files, manifest.samples, strict=True)
    ]


@pytest.mark.parametrize("name", MINIATURES)
def test_a_dataset_is_downloaded_prepared_trained_on_and_evaluated(
    name: str, prepared: Any, invoke: Callable[..., Any], mini_preset: Path
) -> None:
    mini, document = prepared(name)
    folder = Path("data", name, "prepared")
    assert set(document["splits"]) >= set(mini.lists)
    for split, expected in mini.lists.items():
        found = rows(folder / f"{split}.csv")
        assert [labels for _, labels in found] == [labels for _, labels in expected]
        for (path, _), (end, _) in zip(found, expected, strict=True):
            assert path.endswith(end), (path, end)
    said = document["dataset"]["splits"]
    assert {split: row["missing"] for split, row in said.items() if row["missing"]} == mini.missing
    for note in mini.notes:
        assert any(message.startswith(note) for message in document["messages"]), document["messages"]
    train_on(name, mini, folder, invoke, mini_preset)


def train_on(
    name: str,
    mini: Mini,
    folder: Path,
    invoke: Callable[..., Any],
    preset: Path,
    *more: str,
    lists: Mapping[str, Path] | None = None,
) -> None:
    """Train a step on the first list and evaluate on the one that belongs to it."""
    first = next(iter(mini.lists))
    classes = folder / os.path.dirname(first) / "classes.txt"
    count = len(classes.read_text(encoding="utf-8").splitlines())
    options = ["--set", f"model.num_classes={count}", "--set", f"data.classes={json.dumps(str(classes))}"]
    options += ["--set", f"data.multi_label={str(mini.is_multi_label).lower()}", "--set", "data.clip.frame_interval=1"]
    train, val = folder / f"{first}.csv", folder / f"{first.replace('train', 'val')}.csv"
    if lists is not None:
        train, val = lists["train"], lists["val"]
    options += more
    small = ["--set", "train.batch_size=2", "--set", "train.global_batch_size=2", "--set", "train.epochs=1"]
    small += ["--set", "data.train.short_side=64", "--set", "data.validation.num_clips=1"]
    result = invoke("train", "--preset", preset, "--data", train, "--output", "run", *options, *small, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == -(-len(mini.lists[first]) // 2)
    weights = next(iter(sorted(Path("run", "checkpoints").glob("*.pt"))))
    result = invoke("eval", "--preset", preset, "--weights", weights, "--data", val, *options, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["videos"]["scored"] == len(mini.lists[first.replace("train", "val")])


UCF101 = (
    "Hammering/v_Hammering_g08_c01",
    "HandStandPushups/v_HandStandPushups_g08_c02",
    "HammerThrow/v_HammerThrow_g01_c01",
)
IDS = "videos_train/{}aaaaaaaaaaa.mp4"
COPIES: dict[str, tuple[str, list[str], dict[str, tuple[int, int]]]] = {
    "lower case": ("ucf101", [f"videos/{name.lower()}.avi" for name in UCF101], {"train": (2, 2), "val": (1, 2)}),
    "upper case": ("ucf101", [f"UCF-101/{name.upper()}.AVI" for name in UCF101], {"train": (2, 2), "val": (1, 2)}),
    "without class folders": (
        "ucf101",
        [f"videos/{name.lower().partition('/')[2]}.avi" for name in UCF101],
        {"train": (2, 2), "val": (1, 2)},
    ),
    "in the folder of another class": (
        "ucf101",
        [
            "videos/" + "/".join([UCF101[2].partition("/")[0].lower(), name.partition("/")[2]]) + ".avi"
            for name in UCF101
        ],
        {"train": (0, 2), "val": (1, 2)},
    ),
    "folders of frames": (
        "ucf101",
        [f"rawframes/{name.lower()}/{number:05}.jpg" for name in UCF101 for number in range(20)],
        {"train": (2, 2), "val": (1, 2)},
    ),
    "a file that may be of either of two clips": (
        "kinetics700-2020",
        [IDS.format(""), "videos_val/bbbbbbbbbbb.mp4"],
        {"train": (0, 3), "val": (1, 1)},
    ),
    "a file that its folder tells from the other clip": (
        "kinetics700-2020",
        [IDS.format("zumba/"), "videos_val/bbbbbbbbbbb.mp4"],
        {"train": (1, 3), "val": (1, 1)},
    ),
    "in the folder of another split": (
        "kinetics700-2020",
        ["videos_test/bbbbbbbbbbb.mp4", IDS.format("zumba/")],
        {"train": (1, 3), "val": (0, 1)},
    ),
    "two copies": (
        "kinetics700-2020",
        ["videos_val/bbbbbbbbbbb.mp4", "videos_val/x/bbbbbbbbbbb_000001_000011.mkv"],
        {"train": (0, 3), "val": (1, 1)},
    ),
}
"""Dataset, files of a copy, and by the beginning of a split how many of its annotated videos are there."""


@pytest.mark.parametrize("copy", COPIES)
def test_download_counts_the_videos_of_a_copy_as_prepare_lists_them(
    copy: str, set_up: Any, invoke: Callable[..., Any], mini_clips: Clips
) -> None:
    name, files, expected = COPIES[copy]
    set_up(name)
    for file in files:
        path = Path("data", name, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mini_clips.frames[0]["00001.jpg"] if file.endswith(".jpg") else mini_clips.videos[0])
    result = invoke("download", name, "--only", "annotations", "--json")
    assert result.exit_code == 0, result.output
    present = json.loads(result.stdout)["present"][name]
    result = invoke("prepare", name, "--json", "--dry-run")
    assert result.exit_code == 0, result.output
    splits = json.loads(result.stdout)["dataset"]["splits"]
    for row in present:
        there = expected.get(row["split"].partition("_")[0])
        if there is not None:
            assert (row["present"], row["annotated"]) == there
            assert len(row["examples"]) == there[1] - there[0]
            listed = splits[row["split"]]
            assert (listed["listed"], listed["annotated"]) == there
            assert listed["missing"] + listed["ambiguous"] == there[1] - there[0]
    assert {row["split"] for row in present} == set(splits)


def test_frames_and_older_lists_of_a_dataset_have_their_published_names(prepared: Any) -> None:
    _, document = prepared("hmdb51", "--frames", "--formats", "rawframe", "--check")
    folder = Path("data/hmdb51/prepared")
    assert document["run"]["converted"] == 3  # once, though three splits list them
    text = (folder / "hmdb51_train_split_1_rawframes.txt").read_text()
    assert text == "frames/videos/kick/kick_[a]_(1)!&; 20 20\nframes/videos/sword/-sword 20 44\n"
    assert len(list((folder / "frames/videos/sword/-sword").iterdir())) == 20
    assert len(rows(folder / "val_3.csv")) == 1


def test_parts_keep_their_frames_in_transcoded_copies_and_offset_lists(prepared: Any) -> None:
    prepared("activitynet", "--transcode", "--short-side", 32, "--formats", "video,json")
    folder = Path("data/activitynet/prepared")
    parts = read_manifest(str(folder / "train_clips.csv")).samples
    assert [(part.start, part.num_frames) for part in parts] == [(5, 10), (15, 5), (0, 10)]
    assert parts[0].height == 32
    whole = (folder / "activitynet_train_list_videos.txt").read_text().splitlines()
    assert [line.rpartition(" ")[0] for line in whole] == [sample.path for sample in (parts[0], parts[2])]
    assert json.loads((folder / "activitynet_train_clips_list.json").read_text())[0]["offset"] == 5
    assert not (folder / "activitynet_train_clips_list_videos.txt").exists()  # this format has no parts


def test_labels_in_groups_go_into_one_json_list_from_which_eval_takes_a_group(
    prepared: Any, invoke: Callable[..., Any], mini_preset: Path
) -> None:
    mini, _ = prepared("hvu", "--formats", "json")
    folder = Path("data/hvu/prepared")
    entries = json.loads((folder / "hvu_train_list.json").read_text())
    assert [entry["label"] for entry in entries] == [{"action": [9, 4], "scene": [3]}, {"action": [180]}]
    for group in ("action", "scene"):
        found = read_manifest(str(folder / "hvu_train_list.json"), label_group=group)
        labels = [sample.labels for sample in found.samples]
        assert list(zip(map(os.path.normpath, found.files), labels, strict=True)) == rows(folder / group / "train.csv")
    lists = {split: folder / f"hvu_{split}_list.json" for split in ("train", "val")}
    train_on("hvu", mini, folder, invoke, mini_preset, "--set", "data.label_group=action", lists=lists)
    again = invoke("prepare", "hvu", "--formats", "json")
    assert again.exit_code == 0, again.output
    (folder / "hvu_train_list.json").write_text("[]")
    assert "'hvu_train_list.json' in" in str(invoke("prepare", "hvu", "--formats", "json").exception)


def test_what_is_missing_is_said_last_and_is_no_failure(
    set_up: Any, invoke: Callable[..., Any], mini_preset: Path
) -> None:
    set_up("diving48")
    assert invoke("download", "diving48").exit_code == 0
    plan = invoke("prepare", "Diving", "--dry-run")
    assert "note: 1 annotated video is not there" in plan.stdout
    assert not Path("data/diving48/prepared").exists()
    result = invoke("prepare", "diving", "--show", "sheet.png", "--preset", mini_preset)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == (
        "missing    train: 1 of 3 annotated videos, such as gone_00001; all are named in prepare.json"
    )
    assert ["train", "2", "48", "2", "1", "1"] in [line.split() for line in result.stdout.splitlines()]
    assert "wrote 2 training clips in sheet.png" in result.stderr.splitlines()
    summary = json.loads(Path("data/diving48/prepared/prepare.json").read_text())
    assert summary["dataset"]["splits"]["train"]["missing_videos"] == ["gone_00001"]
    Path("data/diving48/videos/gone_00001.mp4").write_bytes(Path("data/diving48/videos/x_00001.mp4").read_bytes())
    again = invoke("prepare", "diving")
    assert "have changed since the lists" in str(again.exception)
    result = invoke("prepare", "diving", "--overwrite")
    told = "not all    every annotated video is there, but fewer are annotated than Diving48 (V2) has: "
    assert result.stdout.splitlines()[-1].startswith(told)


def test_a_broken_video_of_a_dataset_is_listed_as_such_and_makes_it_3(set_up: Any, invoke: Callable[..., Any]) -> None:
    set_up("diving48")
    invoke("download", "diving48")
    Path("data/diving48/videos/x_00001.mp4").write_text("a page")
    result = invoke("prepare", "diving48")
    assert result.exit_code == 3, result.output
    (sample,) = read_manifest("data/diving48/prepared/val.csv").samples
    assert sample.status == "broken: a text file, not a video"


@pytest.mark.parametrize("option", [["--split", "0.8/0.2"], ["--labels", "x.csv"], ["--multi-label"], ["--count", "9"]])
def test_options_of_other_data_are_refused_for_a_dataset(option: list[str], invoke: Callable[..., Any]) -> None:
    result = invoke("prepare", "jester", *option)
    assert result.exit_code == 2
    assert "this is an option of" in " ".join(result.stderr.replace("│", " ").split())


def test_a_folder_of_the_same_name_is_told_apart(invoke: Callable[..., Any]) -> None:
    Path("jester").mkdir()
    result = invoke("prepare", "jester")
    assert "jester is the dataset jester; for the folder of that name write './jester'" in result.stderr
    assert "holds no videos" in str(invoke("prepare", "./jester").exception)


def test_a_name_that_is_nearly_a_dataset_is_told(invoke: Callable[..., Any]) -> None:
    assert "'kinetic400' is neither a folder nor a dataset; did you mean 'kinetics400'?" in str(
        invoke("prepare", "kinetic400").exception
    )
