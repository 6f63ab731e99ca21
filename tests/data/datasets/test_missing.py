"""Annotated videos are compared with those on the disk, whatever the format of the annotations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from dualformer_cli.data.datasets.annotations import read_annotations
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.data.datasets.find_videos import find_videos
from dualformer_cli.data.datasets.missing import present_and_annotated
from dualformer_cli.data.datasets.official_lists import read_dataset

KINETICS = "label,youtube_id,time_start,time_end,split\n"
DATASETS = load_catalogue({}).datasets

CASES: dict[str, tuple[Mapping[str, str], Mapping[str, list[tuple[str, ...]]]]] = {
    "hmdb51": (
        {"wave_test_split1.txt": "a [x].avi 1 \nb.avi 2 \nc.avi 0 \n", "run_test_split2.txt": "d.avi 2 \n"},
        {"train_1": [("a [x]",)], "val_1": [("b",)], "val_2": [("d",)]},
    ),
    "ucf101": (
        {"trainlist01.txt": "A/v_A_g08_c01.avi 1\r\nA/v_A_g08_c02.avi 1\r\n", "testlist01.txt": "A/v_A_g01_c01.avi\n"},
        {"train_1": [("v_A_g08_c01",), ("v_A_g08_c02",)], "val_1": [("v_A_g01_c01",)]},
    ),
    "activitynet": (
        {
            "activity_net.v1-3.min.json": json.dumps(
                {"database": {"-a": {"subset": "training"}, "b": {"subset": "testing"}}}
            )
        },
        {"train": [("v_-a", "-a")], "test": [("v_b", "b")]},
    ),
    "kinetics400": (
        {
            "train.csv": KINETICS.replace("\n", ",is_cc\n") + '"air drumming",--nQbRBEz2s,104,114,train,0\n',
            "validate.csv": KINETICS + "x,bbbbbbbbbbb,1,11,val\n" * 2,
            "test.csv": "youtube_id,time_start,time_end,split\nccccccccccc,0,10,test\n",
        },
        {
            "train": [("--nQbRBEz2s_000104_000114", "--nQbRBEz2s")],
            "val": [("bbbbbbbbbbb_000001_000011", "bbbbbbbbbbb")],
            "test": [("ccccccccccc_000000_000010", "ccccccccccc")],
        },
    ),
    "sthv1": (
        {"something-something-v1-train.csv": "100218;Something, falling\n", "something-something-v1-test.csv": "7\n"},
        {"train": [("100218",)], "test": [("7",)]},
    ),
    "sthv2": (
        {"something-something-v2-validation.json": '[{"id": "78687"}]', "labels.json": "{}"},
        {"val": [("78687",)]},
    ),
    "jester": ({"validation.csv": "34870;Drumming Fingers\n"}, {"val": [("34870",)]}),
    "diving48": ({"Diving48_V2_test.json": '[{"vid_name": "-m_1"}]'}, {"val": [("-m_1",)]}),
    "mmit": ({"trainingSet.txt": "a+b/0-3_5.mp4,41,130\n"}, {"train": [("0-3_5",)]}),
    "hvu": (
        {"HVU_Val_V1.0.csv": "Tags,youtube_id,time_start,time_end\na|b,gD_G1b0wV5I,101.5,103.5\n"},
        {"val": [("gD_G1b0wV5I_001015_001035", "gD_G1b0wV5I_000101_000103")]},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_annotations_of_every_format_name_their_videos(name: str, tmp_path: Path) -> None:
    files, expected = CASES[name]
    for file, text in files.items():
        (tmp_path / file).write_bytes(text.encode())
    found: dict[str, list[tuple[str, ...]]] = {}
    for annotation in read_annotations(str(DATASETS[name].annotation_format), tmp_path):
        found.setdefault(annotation.split, []).append(annotation.names)
    assert {split: list(dict.fromkeys(names)) for split, names in found.items()} == expected


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_video_counts_in_the_folder_of_its_split_under_any_of_its_names(tmp_path: Path) -> None:
    put(tmp_path, "videos_train/x/aaaaaaaaaaa_000001_000011.mp4", "videos_train/bbbbbbbbbbb.webm", "videos_val/c.mp4")
    put(tmp_path, "videos_replacement/ddddddddddd_000001_000011.mp4", "archives/e.mp4")
    rows = [f"x,{letter * 11},1,11,train\n" for letter in "abcde"]
    put(tmp_path, "annotations/train.csv")
    (tmp_path / "annotations" / "train.csv").write_text(KINETICS + "".join(rows))
    row = present_and_annotated(DATASETS["kinetics400"], tmp_path, tmp_path)[0]
    assert (row.split, row.annotated, row.present) == ("train", 5, 3)
    assert row.examples == ("ccccccccccc_000001_000011", "eeeeeeeeeee_000001_000011")
    assert (tmp_path / "missing.csv").read_text().splitlines() == [
        "split,video",
        *(f"train,{name}" for name in row.examples),
    ]
    put(tmp_path, *(f"videos_train/{name}.mp4" for name in row.examples))
    assert present_and_annotated(DATASETS["kinetics400"], tmp_path, tmp_path)[0].present == 5
    assert not (tmp_path / "missing.csv").exists()


def test_videos_of_the_same_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    put(tmp_path, "videos/training/adult+singing/1.mp4", "videos/validation/blocking/1.mp4", "videos/training/x/2.mp4")
    put(tmp_path, "annotations/trainingSet.csv")
    rows = ["adult+singing/1.mp4,adult+singing,3,0", "blocking/1.mp4,blocking,3,0", "blocking/2.mp4,blocking,3,0"]
    (tmp_path / "annotations" / "trainingSet.csv").write_text("\n".join(rows))
    (row,) = present_and_annotated(DATASETS["mit"], tmp_path, tmp_path)
    assert (row.annotated, row.present, row.examples) == (3, 1, ("blocking/1", "blocking/2"))
    assert (tmp_path / "missing.csv").read_text() == "split,video\ntrain,blocking/1\ntrain,blocking/2\n"
    put(tmp_path, "videos/2.mp4")  # of a copy without class folders
    (row,) = present_and_annotated(DATASETS["mit"], tmp_path, tmp_path)
    assert row.examples == ("blocking/1",)


def test_two_levels_of_folders_tell_videos_of_the_web_apart(tmp_path: Path) -> None:
    put(tmp_path, "insvideo_200/000/00/1.mp4", "insvideo_200/001/01/1.mp4", "kinetics_raw_200_train/b/part_0.mp4")
    folder = tmp_path / "annotations"
    put(tmp_path, "annotations/slowonly_8x8_insvideo_200_wodup.txt", "annotations/slowonly_8x8_kinetics_raw_200.json")
    (folder / "slowonly_8x8_insvideo_200_wodup.txt").write_text("000/00/1.mp4 0\n001/00/1.mp4 1\n001/01/1.mp4 1\n")
    parts = [{"video_dir": f"some/{name}", "label": 1, "num_clips": 1, "positive_clip_inds": [0]} for name in "ab"]
    (folder / "slowonly_8x8_kinetics_raw_200.json").write_text(json.dumps(parts))
    rows = {row.split: row for row in present_and_annotated(DATASETS["omnisource"], tmp_path, tmp_path)}
    assert (rows["train_insvideo"].present, rows["train_insvideo"].examples) == (2, ("001/00/1",))
    assert (rows["train_raw"].present, rows["train_raw"].examples) == (1, ("a/part_0",))
    content = read_dataset(load_catalogue({}), "omnisource", linked(tmp_path))
    assert [content.videos[row.video].path for row in content.lists[0].rows] == [
        "insvideo_200/000/00/1.mp4",
        "insvideo_200/001/01/1.mp4",
    ]


def linked(folder: Path) -> Path:
    """Return the folder of all datasets in which OmniSource is this one."""
    root = folder / "annotations" / "root"
    root.mkdir()
    (root / "omnisource").symlink_to(folder)
    return root


def test_a_folder_of_frames_is_a_video(tmp_path: Path) -> None:
    frames = [f"rawframes/{name}/{number:05d}.jpg" for name in ("34870", "56557") for number in (1, 2)]
    put(tmp_path, *frames, "annotations/train.csv")
    (tmp_path / "annotations" / "train.csv").write_text("34870;x\n1;y\n")
    row = present_and_annotated(DATASETS["jester"], tmp_path, tmp_path)[0]
    assert (row.annotated, row.present, row.examples) == (2, 1, ("1",))


def test_without_annotations_the_known_numbers_are_compared(tmp_path: Path) -> None:
    put(tmp_path, "videos/wave/a.avi", "videos/wave/b.avi")
    row = present_and_annotated(DATASETS["hmdb51"], tmp_path, tmp_path)[0]
    assert (row.split, row.annotated, row.present) == ("videos", 6766, 2)
    assert present_and_annotated(DATASETS["hmdb51"], tmp_path / "no", tmp_path / "no") == []


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"database": {"a": {"subset": "what"}}}', "null", '{"database": 5}']
)
def test_annotations_that_cannot_be_read_are_told(
    content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "videos/v_a.mp4", "annotations/activity_net.json")
    (tmp_path / "annotations" / "activity_net.json").write_text(content)
    assert present_and_annotated(DATASETS["activitynet"], tmp_path, tmp_path) == []
    assert f"the annotations in {str(tmp_path / 'annotations')!r} cannot be read" in caplog.text


def test_copies_that_spell_a_name_in_another_case_are_there_as_prepare_finds_them(tmp_path: Path) -> None:
    put(tmp_path / "annotations", "trainlist01.txt")
    line = "HandstandPushups/v_HandStandPushups_g08_c01.avi 37\n"
    (tmp_path / "annotations" / "trainlist01.txt").write_text(line)
    put(tmp_path / "videos", "v_HandstandPushups_g08_c01.avi")
    (row,) = present_and_annotated(load_catalogue({}).datasets["ucf101"], tmp_path, tmp_path)
    assert (row.present, row.annotated, row.published) == (1, 1, 9537)


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    put(tmp_path / "videos" / "a", "1.mp4")
    put(tmp_path / "videos" / "b", "2.mp4")
    (tmp_path / "videos" / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "videos" / "a" / "self").symlink_to(".")
    (tmp_path / "videos" / "c").symlink_to("b")
    found = find_videos(tmp_path)["videos"]
    assert {"videos/a/1.mp4", "videos/b/2.mp4", "videos/c/2.mp4"} <= set(found)
    assert len(found) < 10
