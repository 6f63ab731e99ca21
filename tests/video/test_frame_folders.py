"""Which folder is a video in frames, and which of its images are the frames: one rule for every command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from dualformer_cli.config.load import load_config
from dualformer_cli.data.datasets.find_videos import find_videos
from dualformer_cli.data.datasets.join_files import VideosOnDisk
from dualformer_cli.data.lists.folders import read_folder
from dualformer_cli.errors import ConfigError, VideoError
from dualformer_cli.video.frame_folders import find_frames, kind_of_folder
from dualformer_cli.video.inputs import expand_inputs
from dualformer_cli.video.open import open_video


def series(name: str, count: int = 3, suffix: str = ".jpg") -> list[str]:
    return [f"{name}{number:05d}{suffix}" for number in range(1, count + 1)]


def write(folder: Path, *names: str, value: int = 90) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name.lower().endswith((".jpg", ".png", ".webp")):
            PIL.Image.new("RGB", (16, 16), (value, value, value)).save(folder / name)
        else:
            (folder / name).write_bytes(b"3")
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (series("img_"), series("img_")),
        (series("img_", suffix=".webp"), series("img_", suffix=".webp")),
        ([*series("img_"), *series("x_"), *series("y_")], series("img_")),
        ([*series("img_"), *series("flow_x_"), *series("flow_y_")], series("img_")),
        ([*series("frame"), *series("u_"), *series("v_")], series("frame")),
        ([*series("tvl1_flow_x"), *series("")], series("")),
        ([*series("flower_")], series("flower_")),
        ([*series("img_"), "n_frames", "Thumbs.db", "cover.jpg", "cover1.jpg", "sound.wav"], series("img_")),
        ([*series("x_")], series("x_")),  # flow comes in pairs
        (series("img_", 1), series("img_", 1)),
    ],
)
def test_the_frames_are_the_one_series_that_is_no_flow(names: list[str], expected: list[str]) -> None:
    frames = find_frames(names)
    assert frames is not None
    assert [name for _, name in frames.names] == expected
    assert frames.others == []


@pytest.mark.parametrize(
    "names",
    [
        [*series("flow_x_"), *series("flow_y_")],
        [*series("x_"), *series("y_")],
        [*series("tvl1_x_"), *series("tvl1_y_")],
        ["holiday.jpg", "beach.jpg", "notes.txt"],
        series("img_", suffix=".txt"),
        [],
    ],
)
def test_flow_and_images_without_numbers_are_no_video(names: list[str]) -> None:
    assert find_frames(names) is None
    assert kind_of_folder("kick/a", names) == "other"


def test_one_numbered_image_is_not_a_folder_of_frames() -> None:
    assert kind_of_folder("kick/a", series("img_", 1)) == "other"
    assert kind_of_folder("kick/a", series("img_", 2)) == "frames"


def test_frames_go_by_their_numbers() -> None:
    frames = find_frames(["f10.png", "f2.png", "f1.png"])
    assert frames is not None
    assert frames.names == [(1, "f1.png"), (2, "f2.png"), (10, "f10.png")]


@pytest.mark.parametrize(
    ("path", "is_flow"),
    [
        ("flow/kick/a", True),
        ("flow_x/kick/a", True),
        ("optical flow/a", True),
        ("rgb/kick/a", False),
        ("rawframes_flow/a", True),
        ("flower/a", False),
        ("water_flow/a", False),
        ("yoga flow/a", False),
        ("overflowing/a", False),
    ],
)
def test_folders_that_are_called_flow(path: str, is_flow: bool) -> None:
    assert kind_of_folder(path, series("img_")) == ("flow" if is_flow else "frames")


def test_two_series_that_may_both_be_the_frames_need_a_name(tmp_path: Path) -> None:
    write(tmp_path, *series("left_"), value=10)
    write(tmp_path, *series("right_"), value=200)
    with pytest.raises(VideoError, match=r"2 series of images \('left_00001\.jpg', 'right_00001\.jpg'\).*frame_name"):
        open_video(tmp_path)
    for template, value in (("left_{:05}.jpg", 10), ("right_%05d.jpg", 200)):
        with open_video(tmp_path, frame_name=template) as reader:
            assert reader.info.num_frames == 3
            assert abs(float(np.mean(reader.read([1]))) - value) < 4
    with pytest.raises(VideoError, match=r"no numbered images, as data.frame_name 'mid_{}.jpg' has them"):
        open_video(tmp_path, frame_name="mid_{}.jpg")


@pytest.mark.parametrize("template", ["img.jpg", "img_{:05}", "{}{}.jpg", "img_{:05}.mp4"])
def test_a_template_without_a_number_or_a_suffix_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="frame_name"):
        load_config("camera-motion", overrides=[f"data.frame_name={template}"], environ={})


KINDS = {
    "jpg": (series("img_"), ["a"]),
    "webp": (series("img_", suffix=".webp"), ["a"]),
    "upper case": (["F1.JPG", "F2.JPG"], ["a"]),
    "flow beside the frames": ([*series("img_"), *series("flow_x_"), *series("flow_y_")], ["a"]),
    "flow alone": ([*series("flow_x_"), *series("flow_y_")], []),
    "without numbers": (["beach.jpg", "holiday.jpg"], []),
    "one picture": (["img_00001.jpg"], []),
    "a video beside": ([*series("img_"), "whole.mp4"], ["a/whole.mp4"]),
    "a hidden file beside": ([*series("img_"), "._whole.mp4"], ["a"]),
    "a folder beside": ([*series("img_"), "flow/img_00001.jpg", "flow/img_00002.jpg"], ["a"]),
    "videos in a folder beside": ([*series("img_"), "more/whole.mp4"], ["a", "a/more/whole.mp4"]),
}
"""Files of a folder `a`, and what of it is a video."""


@pytest.mark.parametrize("kind", KINDS)
def test_one_rule_for_inputs_for_a_folder_of_ones_own_and_for_datasets(kind: str, tmp_path: Path) -> None:
    names, expected = KINDS[kind]
    for name in names:
        path = tmp_path / "all" / "run" / "a" / name
        write(path.parent, path.name)
    write(tmp_path / "all" / "run" / "b", "other.mp4")
    found = sorted([*(f"all/run/{path}" for path in expected), "all/run/b/other.mp4"])
    listed = expand_inputs([str(tmp_path)], stdin=None).paths
    assert sorted(os.path.relpath(path, tmp_path) for path in listed) == found
    assert sorted(video.path for video in read_folder(str(tmp_path / "all")).videos) == [path[4:] for path in found]
    assert sorted(path for paths in find_videos(tmp_path).values() for path in paths) == found


def tree(top: Path) -> None:
    """Class folders of frames beside their flow, whose images are called like frames."""
    for kind in ("flow", "frames"):
        for label in ("jump", "run"):
            write(top / kind / label / f"{label}_1", *series("img_"), "n_frames")


def test_flow_beside_frames_is_left_out_of_inputs_and_of_datasets(tmp_path: Path) -> None:
    tree(tmp_path)
    frames = [str(tmp_path / "frames" / label / f"{label}_1") for label in ("jump", "run")]
    assert expand_inputs([str(tmp_path)], stdin=None).paths == frames
    assert find_videos(tmp_path) == {"frames": ["frames/jump/jump_1", "frames/run/run_1"]}


def test_flow_in_a_folder_of_ones_own_is_counted_and_left_out(tmp_path: Path) -> None:
    tree(tmp_path / "data")
    (tmp_path / "data" / "flow").rename(tmp_path / "data" / "frames" / "flow")
    content = read_folder(str(tmp_path / "data" / "frames"))
    assert [video.path for video in content.videos] == ["jump/jump_1", "run/run_1"]
    assert content.skipped["optical flow"] == 2


@pytest.mark.parametrize(("takes_frames", "taken"), [(False, "videos/run/a.avi"), (True, "frames/run/a")])
def test_of_two_copies_the_file_is_taken_unless_frames_are_wanted(
    tmp_path: Path, takes_frames: bool, taken: str
) -> None:
    write(tmp_path / "frames" / "run" / "a", *series("img_"))
    write(tmp_path / "videos" / "run", "a.avi")
    there = VideosOnDisk(find_videos(tmp_path), takes_frames=takes_frames)
    numbers: Any = there.named("a", "train_1")
    assert there.paths[there.take(numbers)] == taken
    assert there.copies == [({"videos/run/a.avi", "frames/run/a"} - {taken}).pop()]
