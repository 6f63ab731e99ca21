"""Lists as people write them: names as labels, names of columns, paths without suffix, and splits in one file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.data.lists.labelled_lists import read_lists
from dualformer_cli.data.lists.labels_without_classes import labels_of_lines
from dualformer_cli.data.lists.manifest import Manifest, read_manifest
from dualformer_cli.errors import DualFormerError


def read(folder: Path, text: str, name: str = "list.txt", **options: Any) -> Manifest:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_manifest(str(path), **options)


def named(manifest: Manifest) -> list[tuple[str, list[str]]]:
    assert manifest.class_names is not None
    return [(sample.path, [manifest.class_names[label] for label in sample.labels]) for sample in manifest.samples]


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 run\nb c.avi high jump\n",
        "a.mp4\trun\nb c.avi\thigh jump\n",
        "a.mp4,run\nb c.avi,high jump\n",
        "a.mp4; run\nb c.avi; high jump\n",
        'a.mp4,"run"\n"b c.avi","high jump"\n',
        "path,label\na.mp4,run\nb c.avi,high jump\n",
        "video_name,class_name\na.mp4,run\nb c.avi,high jump\n",
        "filename;category\r\na.mp4;run\r\nb c.avi;high jump\r\n",
        "file\taction\tfold\na.mp4\trun\t1\nb c.avi\thigh jump\t2\n",
        json.dumps([{"filename": "a.mp4", "label": "run"}, {"filename": "b c.avi", "label": ["high jump"]}]),
    ],
)
def test_names_as_labels_are_the_classes_in_the_order_of_their_names(tmp_path: Path, text: str) -> None:
    manifest = read(tmp_path, text)
    assert manifest.class_names == ["high jump", "run"]
    assert named(manifest) == [("a.mp4", ["run"]), ("b c.avi", ["high jump"])]
    assert [sample.label for sample in manifest.samples] == [1, 0]
    (said,) = manifest.warnings
    assert said.endswith("names its labels: 2 classes in the order of their names (high jump, run)")


def test_folders_of_frames_with_counts_may_be_labelled_by_name(tmp_path: Path) -> None:
    manifest = read(tmp_path, "v_1,run\nv_2,jump\n")
    assert named(manifest) == [("v_1", ["run"]), ("v_2", ["jump"])]


def test_several_names_of_a_row_stand_between_semicolons(tmp_path: Path) -> None:
    manifest = read(tmp_path, "path,label\na.mp4,run;wave\nb.mp4,wave;\n")
    assert named(manifest) == [("a.mp4", ["run", "wave"]), ("b.mp4", ["wave"])]
    assert manifest.is_multi_label


def test_classes_beside_the_list_or_given_ones_stay_in_force(tmp_path: Path) -> None:
    given = read(tmp_path, "a.mp4 run\nb.mp4 jump\n", classes=["run", "jump", "swim"])
    assert (given.class_names, [sample.label for sample in given.samples]) == (["run", "jump", "swim"], [0, 1])
    with pytest.raises(DualFormerError, match=r"'jumq' is neither a class number nor .* did you mean 'jump'"):
        read(tmp_path, "a.mp4 run\nb.mp4 jumq\n", classes=["run", "jump", "swim"])
    own = read(tmp_path, "a.mp4 run\nb.mp4 jump\n", classes=["knitting", "abseiling"])
    assert own.class_names == ["jump", "run"]
    (tmp_path / "classes.txt").write_text("run\njump\n")
    assert [sample.label for sample in read(tmp_path, "a.mp4 run\nb.mp4 jump\n").samples] == [0, 1]


@pytest.mark.parametrize("text", ["a.mp4 run\nb.mp4 3\n", "path,label\na.mp4,run\nb.mp4,3\n"])
def test_names_and_numbers_in_one_list_are_refused_with_the_row(tmp_path: Path, text: str) -> None:
    with pytest.raises(DualFormerError, match=r"line [12]: .*'run' is not a class number"):
        read(tmp_path, text)


def test_an_unknown_header_is_told_as_one(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError) as caught:
        read(tmp_path, "cls,fold,recording\n1,train,a.mp4\n")
    text = str(caught.value)
    assert "begins with a header, 'cls', 'fold', 'recording'" in text
    assert "path (file, filename, " in text
    assert "label (class, class_name, " in text


def test_two_columns_that_may_be_the_path_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match="each of the columns 'video', 'clip' may be the path"):
        read(tmp_path, "video,clip,label\na.mp4,b.mp4,0\n")


def test_a_list_of_several_splits_is_for_prepare(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match=r"several splits, as its column 'split' says \(train, val\)"):
        read(tmp_path, "path,label,split\na.mp4,0,train\nb.mp4,1,val\n")
    assert len(read(tmp_path, "path,label,split\na.mp4,0,train\nb.mp4,1,train\n")) == 2


def test_a_path_without_suffix_is_the_one_video_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "frames").mkdir()
    for name in ("-3B32lodo2M.mp4", "other.mp4", "sub/clip.webm", "sub/frames.mp4", "sub/notes.txt"):
        (tmp_path / name).touch()
    manifest = read(tmp_path, "-3B32lodo2M 0\nsub/clip 1\nother.mp4 1\ngone 0\n")
    files = ["-3B32lodo2M.mp4", "sub/clip.webm", "other.mp4", "gone"]
    assert manifest.files == [str(tmp_path / file) for file in files]
    (tmp_path / "sub" / "clip.mkv").touch()
    two = read(tmp_path, "sub/clip 1\n")
    with pytest.raises(DualFormerError, match=r"there are 'clip\.mkv' and 'clip\.webm'"):
        _ = two.files
    assert read(tmp_path, "sub/frames 1\n").files == [str(tmp_path / "sub" / "frames")]  # the folder of that name


@pytest.mark.parametrize(
    ("text", "library", "function"),
    [
        ("path,label\na.mp4,run\nb.mp4,jump\n", csv, "reader"),
        ('[{"filename": "a.mp4", "label": "run"}, {"filename": "b.mp4", "label": "jump"}]', json, "loads"),
    ],
)
def test_a_list_that_names_its_labels_is_parsed_once(
    tmp_path: Path, text: str, library: Any, function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = Mock(side_effect=getattr(library, function))
    monkeypatch.setattr(library, function, parser)
    assert read(tmp_path, text).class_names == ["jump", "run"]
    assert parser.call_count == 1


def test_a_number_at_the_end_of_the_first_line_ends_the_search_for_names() -> None:
    lines = ["a.mp4 3", "b.mp4 run"]
    found = labels_of_lines(lines)
    lines[1:] = []
    assert next(found) == "3"


# prepare LIST...


def write(folder: Path, **texts: str) -> list[str]:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return [str(folder / f"{name}.csv") for name in texts]


def test_lists_named_after_splits_are_these_splits(tmp_path: Path) -> None:
    lists = write(tmp_path, my_train="a.mp4 run\nb.mp4 jump\n", my_val="c.mp4 jump\n")
    content = read_lists(lists)
    assert content.class_names == ["jump", "run"]
    assert [(video.path, video.labels, video.split) for video in content.videos] == [
        ("a.mp4", ("run",), "train"),
        ("b.mp4", ("jump",), "train"),
        ("c.mp4", ("jump",), "val"),
    ]


def test_lists_with_other_classes_share_one_numbering_and_each_keeps_its_names(tmp_path: Path) -> None:
    content = read_lists(write(tmp_path, train="a.mp4 run\nb.mp4 jump\n", val="c.mp4 walk\nd.mp4 run\n"))
    assert content.class_names == ["jump", "run", "walk"]
    assert [video.labels for video in content.videos] == [("run",), ("jump",), ("walk",), ("run",)]
    (tmp_path / "fewer").mkdir()
    content = read_lists(write(tmp_path / "fewer", train="a.mp4 run\nb.mp4 jump\n", val="c.mp4 run\n"))
    assert content.class_names == ["jump", "run"]
    assert [video.labels for video in content.videos] == [("run",), ("jump",), ("run",)]


def test_a_list_alone_is_no_split_whatever_it_is_called(tmp_path: Path) -> None:
    content = read_lists(write(tmp_path, train="a.mp4 run\nb.mp4 jump\n"))
    assert [video.split for video in content.videos] == [None, None]


def test_a_column_of_splits_decides_and_numbers_stay_numbers(tmp_path: Path) -> None:
    (one,) = write(tmp_path, all="video_name,class_id,split\na.mp4,1,train\nb.mp4,0,Validation\nc.mp4,0,test\n")
    content = read_lists([one])
    assert content.class_names == ["0", "1"]
    assert [(video.labels, video.split) for video in content.videos] == [
        (("1",), "train"),
        (("0",), "val"),
        (("0",), "test"),
    ]
    (odd,) = write(tmp_path, odd="path,label,split\na.mp4,1,trian\n")
    with pytest.raises(DualFormerError, match="row 2: 'trian' is no split"):
        read_lists([odd])


def test_a_mistake_in_a_table_with_splits_is_shown_as_the_row_stands(tmp_path: Path) -> None:
    (odd,) = write(tmp_path, odd="path,label,split\na.mp4,1,train\nb.mp4,-1,val\n")
    with pytest.raises(DualFormerError, match=r"line 3: 'b\.mp4,-1,val': label -1 is negative"):
        read_lists([odd])
    (short,) = write(tmp_path, short="path,label,split\na.mp4,1,train\nb.mp4,0\n")
    with pytest.raises(DualFormerError, match=r"line 3: 'b\.mp4,0': it has 2 fields and the header has 3"):
        read_lists([short])


def test_a_video_in_two_lists_is_refused(tmp_path: Path) -> None:
    lists = write(tmp_path, train="a.mp4 0\nb.mp4 1\n", val="./a.mp4 0\n")
    with pytest.raises(DualFormerError, match=r"'\./a\.mp4' is in '.*train\.csv' and in '.*val\.csv'; keep one"):
        read_lists(lists)


def test_prepare_takes_lists(tmp_path: Path, clip_drawer: Any) -> None:
    for name in "abcd":
        clip_drawer(tmp_path / f"{name}.mp4", num_frames=8)
    lists = write(tmp_path, train="a.mp4,long jump\nb,run\n", val="d.mp4,run\nc.mp4,long jump\n")
    result = CliRunner().invoke(app, ["prepare", *lists, "--json"])
    assert result.exit_code == 0, result.output
    written = tmp_path / "prepared"
    assert (written / "classes.txt").read_text().splitlines() == ["long jump", "run"]
    for split, expected in (("train", [("a", "0"), ("b", "1")]), ("val", [("d", "1"), ("c", "0")])):
        with (written / f"{split}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sorted((Path(row["path"]).stem, row["label"]) for row in rows) == sorted(expected)
        assert {row["status"] for row in rows} == {"ok"}
    assert not (written / "test.csv").exists()
    folder = CliRunner().invoke(app, ["prepare", lists[0], str(tmp_path)])
    assert folder.exit_code == 2
    assert "is not a file" in folder.output
