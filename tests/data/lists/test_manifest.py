"""Lists of class names, shipped and the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.data.lists.class_lists import load_class_names, shipped_class_lists
from dualformer_cli.errors import DualFormerError

LENGTHS = {
    "activitynet200": 200,
    "camera_motion": 10,
    "diving48": 48,
    "hmdb51": 51,
    "hvu_action": 739,
    "hvu_attribute": 117,
    "hvu_concept": 291,
    "hvu_event": 69,
    "hvu_object": 1678,
    "hvu_scene": 248,
    "jester": 27,
    "kinetics400": 400,
    "kinetics600": 600,
    "kinetics700": 700,
    "mit_v1": 339,
    "mmit_v1": 313,
    "sthv1": 174,
    "sthv2": 174,
    "ucf101": 101,
}

names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zl", "Zp")), min_size=1).map(str.strip)


def test_the_shipped_lists_have_as_many_names_as_their_datasets_classes() -> None:
    assert shipped_class_lists() == tuple(LENGTHS)
    for source, length in LENGTHS.items():
        classes = load_class_names(source)
        assert len(classes) == len(set(classes)) == length
        assert all(name == name.strip() and name.isprintable() for name in classes)


@pytest.mark.parametrize(
    ("source", "index", "name"),
    [
        ("kinetics400", 0, "abseiling"),
        ("kinetics400", 399, "zumba"),
        ("kinetics700", 170, "driving car"),
        ("ucf101", 0, "ApplyEyeMakeup"),
        ("ucf101", 34, "Hammering"),
        ("hmdb51", 20, "kick"),
        ("hmdb51", 21, "kick_ball"),
        ("sthv1", 0, "Holding something"),
        ("activitynet200", 10, "Playing ten pins"),
        ("diving48", 30, "Forward+Dive+NoTwis+STR"),
    ],
)
def test_names_stand_at_their_published_numbers(source: str, index: int, name: str) -> None:
    assert load_class_names(source)[index] == name


@given(
    classes=st.lists(names.filter(bool), min_size=1, max_size=20, unique=True), line_end=st.sampled_from(["\n", "\r\n"])
)
def test_a_file_gives_the_names_that_were_written(
    classes: list[str], line_end: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lists") / "classes.txt"
    path.write_bytes((line_end.join(classes) + 2 * line_end).encode())
    assert load_class_names(str(path)) == classes


def test_a_byte_order_mark_is_not_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"\xef\xbb\xbf  walk \nrun\n")
    assert load_class_names(str(tmp_path / "classes.txt")) == ["walk", "run"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; it needs one class name a line"),
        (b"\n \n", "is empty; it needs one class name a line"),
        (b"walk\n\nrun\n", "line 2 is empty; every line names one class"),
        (b"walk\nrun\n walk\n", "'walk' is on lines 1 and 3"),
        (b"walk\n\xff\xfe\n", "cannot be read: it is not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_list_says_where_and_why(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(content)
    with pytest.raises(DualFormerError) as caught:
        load_class_names(str(path))
    assert str(caught.value).startswith(f"class list {str(path)!r}")
    assert str(caught.value).endswith(said)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    with path.open("wb") as file:
        file.truncate(16 * 2**20 + 1)
    with pytest.raises(DualFormerError, match="is larger than 16 MiB; it needs one class name a line"):
        load_class_names(str(path))


def test_a_misspelt_list_names_the_nearest_and_all(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError) as caught:
        load_class_names("kinetics40")
    assert str(caught.value) == (
        f"class list 'kinetics40' not found; did you mean 'kinetics400'? The package ships {', '.join(LENGTHS)}"
    )


def test_a_folder_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(DualFormerError, match="cannot be read: is a directory"):
        load_class_names(str(tmp_path))
