"""Labels of a list in the numbering of a model's classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.datasets.catalogue import flip_labels
from dualformer_cli.data.lists.class_lists import load_class_names
from dualformer_cli.data.lists.model_labels import open_list
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.parts import Part

NAMES = ["dark", "red", "green", "blue"]


def test_labels_that_the_model_does_not_know_are_refused(tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text("path,label\na.mp4,7\n")
    with pytest.raises(DualFormerError, match=r"has label 7, but the model has 4 classes, numbered from 0"):
        open_list(DataConfig(), str(source), class_names=NAMES)
    (tmp_path / "classes.txt").write_text("dark\nviolet\n")
    source.write_text("path,label\na.mp4,1\n")
    with pytest.raises(DualFormerError, match=r"has videos of 1 class that the model does not know, such as 'violet'"):
        open_list(DataConfig(), str(source), class_names=NAMES)


def test_a_list_is_read_as_the_configuration_says(tmp_path: Path) -> None:
    (tmp_path / "frames.txt").write_text("a 5 10 2\n")  # or 5 frames with the labels 10 and 2
    data = DataConfig(root=str(tmp_path), list_format="rawframe_offset")
    listed = open_list(data, str(tmp_path / "frames.txt"), class_names=NAMES)
    assert (listed.labels[0], listed.samples[0].part) == ((2,), Part(5, 10))
    (tmp_path / "videos").mkdir()
    (tmp_path / "groups.json").write_text('[{"filename": "a.mp4", "label": {"action": [3], "scene": [1, 2]}}]')
    data = DataConfig(root=str(tmp_path / "videos"), label_group="scene", multi_label=True)
    listed = open_list(data, str(tmp_path / "groups.json"), class_names=NAMES)
    assert listed.labels[0] == (1, 2)
    assert listed.files[0] == str(tmp_path / "videos" / "a.mp4")


def test_pairs_that_a_mirror_exchanges_follow_the_names_of_the_list(
    tmp_path: Path,
) -> None:
    names = load_class_names("jester")
    folder = tmp_path / "data"
    folder.mkdir()
    source = folder / "list.csv"
    source.write_text("path,label\na.mp4,0\n")
    assert open_list(DataConfig(classes="jester"), str(source), class_names=None).flip_pairs == flip_labels()["jester"]
    some = [names[index] for index in (7, 20, 1, 6, 15)]
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in some))
    assert open_list(DataConfig(classes="jester"), str(source), class_names=None).flip_pairs == ((3, 0),)


def test_rows_that_a_list_calls_broken_are_left_out_of_training_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "list.csv"
    source.write_text("path,label,status\na.mp4,0,ok\nb.mp4,1,no video stream\nc.mp4,1,ok\n")
    assert len(open_list(DataConfig(), str(source), class_names=None)) == 3
    usable = open_list(DataConfig(), str(source), class_names=None, usable_only=True)
    assert [sample.path for sample in usable.samples] == ["a.mp4", "c.mp4"]
    assert [Path(file).name for file in usable.files] == ["a.mp4", "c.mp4"]
    assert usable.labels == [(0,), (1,)]
    assert "1 video left out, which the list calls broken" in caplog.text


def test_a_list_without_class_names_numbers_them(tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text("path,label\na.mp4,2\nb.mp4,0\n")
    listed = open_list(DataConfig(), str(source), class_names=None)
    assert listed.class_names == ["class 0", "class 1", "class 2"]
    assert (listed.first_labels(), len(listed), any(listed.labels)) == ([2, 0], 2, True)


def test_weights_without_class_names_take_those_of_the_list_by_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.mp4,blue\nb.mp4,red\n")
    (tmp_path / "classes.txt").write_text("red\ngreen\nblue\n")
    numbered = [f"class {index}" for index in range(3)]
    listed = open_list(DataConfig(), str(tmp_path / "list.csv"), class_names=numbered, is_nameless=True)
    assert (listed.class_names, listed.labels) == (["red", "green", "blue"], [(2,), (0,)])
    assert "the weights do not name their classes" in caplog.text
    with pytest.raises(DualFormerError, match=r"has 3 classes, but the weights have 4, without names; give the list"):
        open_list(DataConfig(), str(tmp_path / "list.csv"), class_names=[*numbered, "class 3"], is_nameless=True)


def test_rows_that_are_left_out_take_their_files_and_labels_along(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,status\na.mp4,0,broken\nb.mp4,1,ok\n")
    listed = open_list(DataConfig(), str(tmp_path / "list.csv"), class_names=None, usable_only=True)
    assert [(Path(file).name, labels) for file, labels in zip(listed.files, listed.labels, strict=True)] == [
        ("b.mp4", (1,))
    ]


def test_videos_without_a_label_are_balanced_as_a_class_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.mp4,1\nb.mp4,\n")
    assert open_list(DataConfig(), str(tmp_path / "list.csv"), class_names=["a", "b"]).first_labels() == [1, -1]


@pytest.mark.parametrize(
    ("own", "model", "level"),
    [
        (["walk", "run"], None, "DEBUG"),  # the new classifier's line says how many there are
        ([f"class of mine {number}" for number in range(27)], None, "INFO"),  # as many as jester: nothing else tells
        (["walk", "run"], ["walk", "run"], "WARNING"),  # scored with a configuration that is of other classes
    ],
)
def test_classes_of_ones_own_are_no_warning_where_the_classifier_is_new(
    own: list[str], model: list[str] | None, level: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.mp4,1\n")
    (tmp_path / "classes.txt").write_text("".join(f"{name}\n" for name in own))
    with caplog.at_level("DEBUG", "dualformer_cli"):
        listed = open_list(DataConfig(classes="jester"), str(tmp_path / "list.csv"), class_names=model)
    assert listed.class_names == own
    assert [(each.levelname) for each in caplog.records if "beside the list, and not those given" in each.message] == [
        level
    ]
