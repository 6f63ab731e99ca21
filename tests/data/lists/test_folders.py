"""A folder of one's own: how its layout, labels, splits and groups are found."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dualformer_cli.data.lists.folders import STATE_FILE, Video, read_folder
from dualformer_cli.errors import DualFormerError


@pytest.fixture
def folder(tmp_path: Path):
    """The function folder(*files, **{name: text}) -> a folder with these files; a text is written, others are empty."""

    def make(*names: str, tables: dict[str, str] | None = None) -> str:
        for name in names:
            path = tmp_path / "videos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
        for name, text in (tables or {}).items():
            path = tmp_path / "videos" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return str(tmp_path / "videos")

    return make


def labels_of(content):
    return {video.path: video.labels for video in content.videos}


def test_class_folders_may_be_nested_and_are_sorted(folder) -> None:
    content = read_folder(folder("run/2.mp4", "run/deep/er/10.mp4", "Jump, high/a b.AVI", "jump/-x.MoV", "run/1.webm"))
    assert content.layout == "class folders"
    assert content.class_names == ["Jump, high", "jump", "run"]
    assert [video.path for video in content.videos] == [
        "Jump, high/a b.AVI",
        "jump/-x.MoV",
        "run/1.webm",
        "run/2.mp4",
        "run/deep/er/10.mp4",
    ]
    assert content.videos[4] == Video("run/deep/er/10.mp4", ("run",))


def test_deeper_levels_can_make_the_class(folder) -> None:
    content = read_folder(folder("ball/tennis/1.mp4", "ball/golf/x/2.mp4", "run/3.mp4"), class_depth=2)
    assert content.class_names == ["ball/golf", "ball/tennis"]
    assert content.skipped == {"not in a class folder": 1}


def test_what_is_left_out_is_counted_by_its_reason(folder) -> None:
    path = folder(
        "a/1.mp4", "a/.2.mp4", ".git/3.mp4", "a/notes.txt", "b/4.mp4", "top.mp4", "mine/5.mp4", f"mine/{STATE_FILE}"
    )
    content = read_folder(path)
    assert content.skipped == {"not in a class folder": 1, "hidden": 2, "other than videos": 1}
    assert content.class_names == ["a", "b"]


def test_folders_that_are_left_out_are_not_searched(folder, tmp_path: Path) -> None:
    path = folder("a/1.mp4", "old/b/2.mp4", "old/c/3.mp4", "c/4.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "videos" / "old")
    assert list(labels_of(read_folder(path, leave_out=[str(tmp_path / "link")]))) == ["a/1.mp4", "c/4.mp4"]
    assert len(read_folder(path, leave_out=[path]).videos) == 4  # the folder itself is searched


def test_links_are_followed_once_and_dangling_ones_are_listed(folder, tmp_path: Path) -> None:
    path = Path(folder("a/1.mp4"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.mp4").write_bytes(b"")
    (path / "b").symlink_to(tmp_path / "elsewhere")
    (path / "again").symlink_to(tmp_path / "elsewhere")
    (path / "a" / "loop").symlink_to(path)
    (path / "a" / "gone.mp4").symlink_to("/nowhere.mp4")
    content = read_folder(str(path))
    assert labels_of(content) == {"a/1.mp4": ("a",), "a/gone.mp4": ("a",), "again/2.mp4": ("again",)}
    assert sum("was searched already" in note for note in content.notes) == 2


def test_folders_of_numbered_frames_are_videos(folder) -> None:
    content = read_folder(folder(*(f"run/clip {n}/img_{i:05d}.jpg" for n in (1, 2) for i in (1, 2)), "run/cover.jpg"))
    assert [video.path for video in content.videos] == ["run/clip 1", "run/clip 2"]


def test_split_folders_are_seen_and_test_may_lack_labels(folder) -> None:
    content = read_folder(folder("Train/a/1.mp4", "train2.txt", "validation/b/2.mp4", "Train/b/3.mp4", "test/4.mp4"))
    assert content.layout == "predefined split folders with class folders"
    assert {video.path: (video.split, video.labels) for video in content.videos} == {
        "Train/a/1.mp4": ("train", ("a",)),
        "Train/b/3.mp4": ("train", ("b",)),
        "test/4.mp4": ("test", ()),
        "validation/b/2.mp4": ("val", ("b",)),
    }


def test_one_folder_called_train_is_a_class(folder) -> None:
    assert read_folder(folder("train/1.mp4", "bus/2.mp4")).class_names == ["bus", "train"]


def test_split_folders_beside_others_must_be_settled_by_the_user(folder) -> None:
    path = folder("train/a/1.mp4", "val/a/2.mp4", "bus/3.mp4")
    with pytest.raises(DualFormerError, match=r"train and val.*beside 'bus'.*--layout splits"):
        read_folder(path)
    assert read_folder(path, layout="folders").class_names == ["bus", "train", "val"]
    assert read_folder(path, layout="splits").skipped == {"outside of the split folders": 1}


@pytest.mark.parametrize(
    "table",
    [
        'file,label\n"a, b.mp4",run\nc.mp4,"jump, high"\n',
        "Label;FileName\nrun;a, b\njump, high;./c.mp4\n",
        "\ufeffpath\tclass\tx\r\na, b.mp4\trun\t1\r\n\r\nc.mp4\tjump, high\t2\r\n",
    ],
)
def test_a_table_names_files_and_labels(folder, table: str) -> None:
    content = read_folder(
        folder("a, b.mp4", "c.mp4", "d.mp4", tables={"labels.csv" if "\t" not in table else "l.tsv": table})
    )
    assert labels_of(content) == {"a, b.mp4": ("run",), "c.mp4": ("jump, high",)}
    assert content.class_names == ["jump, high", "run"]
    assert content.skipped["not in the table"] == 1


def test_a_table_may_bring_splits_and_groups_and_name_missing_files(folder) -> None:
    table = "file,label,split,person\n1.mp4,a,train,x\n2.mp4,b,valid,y\n3.mp4,,test,\n4.mp4,a,training,x\n"
    content = read_folder(folder("1.mp4", "2.mp4", "3.mp4", tables={"t.csv": table}), group_column="Person")
    assert [(video.split, video.group) for video in content.videos] == [
        *(("train", "x"), ("val", "y"), ("test", None), ("train", "x"))
    ]


def test_one_table_per_split_is_predefined_too(folder) -> None:
    tables = {"train.csv": "file,label\n1.mp4,a\n", "val.csv": "file,label\n2.mp4,a\n"}
    content = read_folder(folder("1.mp4", "2.mp4", tables=tables))
    assert [(video.path, video.split) for video in content.videos] == [("1.mp4", "train"), ("2.mp4", "val")]


def test_several_labels_are_told_apart_only_when_asked(folder) -> None:
    path = folder("1.mp4", "2.mp4", tables={"t.csv": "file,labels\n1.mp4,b; a;b\n2.mp4,a\n"})
    assert labels_of(read_folder(path)) == {"1.mp4": ("b; a;b",), "2.mp4": ("a",)}
    content = read_folder(path, multi_label=True)
    assert labels_of(content) == {"1.mp4": ("b", "a"), "2.mp4": ("a",)}
    assert content.is_multi_label


@pytest.mark.parametrize(
    ("labels", "names", "of_first", "note"),
    [
        (["0", "1", "2"], ["0", "1", "2"], "0", "from 0 and keep them"),
        (["7", "10", "9"], ["7", "9", "10"], "7", "gaps: 7 becomes class 0"),
        (["b", "1", "2"], ["1", "2", "b"], "b", ""),
    ],
)
def test_number_labels_keep_their_order_as_numbers(folder, labels, names, of_first, note) -> None:
    rows = "".join(f"{n}.mp4,{label}\n" for n, label in enumerate(labels))
    content = read_folder(folder("0.mp4", "1.mp4", "2.mp4", tables={"t.csv": f"file,label\n{rows}"}))
    assert (content.class_names, content.videos[0].labels) == (names, (of_first,))
    assert note in " ".join(content.notes)


def test_number_labels_are_named_by_classes_txt(folder) -> None:
    tables = {"t.csv": "file,label\n0.mp4,1\n", "classes.txt": "zebra\nant\nbee\n"}
    content = read_folder(folder("0.mp4", tables=tables))
    assert (content.class_names, content.videos[0].labels) == (["zebra", "ant", "bee"], ("ant",))
    with pytest.raises(DualFormerError, match=r"line 2: label 3 is none of the 3"):
        read_folder(folder("0.mp4", tables={**tables, "t.csv": "file,label\n0.mp4,3\n"}))


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("file,label\n../1.mp4,a\n", r"line 2: '\.\./1\.mp4' is not inside of the folder"),
        ("file,label\n/etc/passwd,a\n", "'/etc/passwd' is not inside of the folder"),
        ("file,label\n1.mp4,a\n./1.mp4,b\n", "line 3: '1.mp4' was listed before"),
        ("file,label\n1.mp4,\n", "'1.mp4' has no label"),
        ("file,label\n1.mp4,a,b\n", "line 2: it has 3 fields and the header 2"),
        ("file,label\n", "is empty"),
        ('file,label\n"1.mp4,a\n', "line 2: unexpected end of data"),
        ("file,label,split\n1.mp4,a,trian\n", "split 'trian' is none of"),
        ("file,label,split\n1.mp4,a,train\n2.mp4,a,\n", "line 3: it has no split, and others have"),
    ],
)
def test_a_bad_table_is_named_with_its_line(folder, table: str, complaint: str) -> None:
    with pytest.raises(DualFormerError, match=complaint):
        read_folder(folder("1.mp4", "2.mp4", tables={"t.csv": table}))


def test_a_table_in_utf_16_is_told(folder) -> None:
    path = folder("1.mp4")
    with open(os.path.join(path, "t.csv"), "w", encoding="utf-16") as file:
        file.write("file,label\n1.mp4,a\n")
    with pytest.raises(DualFormerError, match=r"t\.csv' is UTF-16 text; save it as UTF-8"):
        read_folder(path)


def test_two_tables_must_be_settled_by_the_user(folder) -> None:
    tables = {"one.csv": "file,label\n1.mp4,a\n", "two.csv": "file,label\n1.mp4,b\n", "other.csv": "x,y\n1,2\n"}
    path = folder("1.mp4", tables=tables)
    with pytest.raises(
        DualFormerError, match=r"several tables of labels \('one\.csv', 'two\.csv'\); name one with --labels"
    ):
        read_folder(path)
    assert read_folder(path, table=os.path.join(path, "two.csv")).class_names == ["b"]


def test_a_pattern_makes_groups(folder) -> None:
    path = folder("a/v_g01_c01.mp4", "a/v_g01_c02.mp4", "b/v_g02_c01.mp4", "b/other.mp4")
    content = read_folder(path, group_pattern=r"_g(\d+)_")
    assert [video.group for video in content.videos] == ["01", "01", None, "02"]
    assert "does not match 1 video;" in " ".join(content.notes)
    for pattern, complaint in (("[", "not a regular expression"), ("nothing", "matches no path, such as 'a/")):
        with pytest.raises(DualFormerError, match=complaint):
            read_folder(path, group_pattern=pattern)


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ([], "holds no videos; put videos into one folder per class"),
        (["a/.x.mp4", "a/x.txt"], r"holds no videos \(1 hidden, 1 other than videos\)"),
        (["1.mp4"], "the one video of .* has no label; put videos into one folder per class, or add a CSV"),
        (["1.mp4", "2.mp4"], "the 2 videos of .* have no labels; put videos into one folder per class, or add a CSV"),
        (["line\nbreak/1.mp4"], r"class name 'line\\nbreak' cannot be a line of its own"),
        ([" space/1.mp4"], "class name ' space' cannot be a line of its own"),
    ],
)
def test_a_folder_without_labelled_videos_is_refused(folder, names: list[str], complaint: str) -> None:
    path = folder(*names)
    os.makedirs(path, exist_ok=True)
    with pytest.raises(DualFormerError, match=complaint):
        read_folder(path)


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(DualFormerError, match="folder '/nowhere at all' does not exist"):
        read_folder("/nowhere at all")
