"""Lists with labels as inputs: which lists are such, and what a label says of a result."""

from __future__ import annotations

from pathlib import Path

import pytest
from prediction_documents import failed, result, scored

from dualformer_cli.documents.predict import LabelCounts
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks.labelled_inputs import LabelCheck, count_labels, list_reader, read_labelled
from dualformer_cli.tasks.session import ModelRequest

MODEL = ["running", "sitting down", "waving"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b 1.mp4", "clip 0"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def read(text: str, name: str = "list.txt") -> object:
    Path(name).write_text(text, encoding="utf-8")
    return read_labelled(name, text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("train.csv", "path,label\na.mp4,0\nb 1.mp4,2\n"),
        ("train.tsv", "path\tlabel\na.mp4\t0\nb 1.mp4\t2\n"),
        ("list.txt", "a.mp4 0\nb 1.mp4 2\n"),
        ("list.txt", "# of mmaction2\na.mp4 0\nb 1.mp4 2\n"),
    ],
)
def test_every_list_with_labels_is_one(name: str, text: str, folder: Path) -> None:
    if text.startswith("#"):
        text = text.partition("\n")[2]
    assert read(text, name) == [("a.mp4", ((0, None),)), ("b 1.mp4", ((2, None),))]


def test_labels_have_the_names_of_the_list(folder: Path) -> None:
    (folder / "classes.txt").write_text("sit\nrun\n")
    assert read("path,label\na.mp4,1\nb 1.mp4,sit\n", "t.csv") == [("a.mp4", ((1, "run"),)), ("b 1.mp4", ((0, "sit"),))]


def test_paths_start_where_the_configuration_says(folder: Path) -> None:
    (folder / "videos").mkdir()
    (folder / "videos" / "c.mp4").write_bytes(b"")
    text = "path,label\nc.mp4,1\n"
    Path("t.csv").write_text(text)
    found = list_reader(ModelRequest(overrides=("data.root=videos", "model.num_classes=-1")))("t.csv", text)
    assert found == [("videos/c.mp4", ((1, None),))]


@pytest.mark.parametrize("text", ["a.mp4\n", "b 1.mp4\n", "clip 0\n", "gone 5\n", "# one\n\nno such file.mp4\n", ""])
def test_names_alone_stay_names(text: str, folder: Path) -> None:
    assert read(text) is None


def test_a_table_that_cannot_be_read_names_its_line(folder: Path) -> None:
    with pytest.raises(DualFormerError, match=r"line 3.*'x'"):
        read("path,label\na.mp4,0\nb 1.mp4,x\n", "t.csv")


@pytest.mark.parametrize(
    ("labels", "shown", "is_right"),
    [
        (((1, "sitting down"),), ("sitting down",), True),
        (((7, "Sitting_Down"),), ("sitting down",), True),  # as other copies of a dataset spell it
        (((1, None),), ("sitting down",), True),
        (((0, "running"),), ("running",), False),
        (((0, "running"), (1, "sitting down")), ("running", "sitting down"), True),
        (((1, "swimming"),), ("swimming",), None),  # the number is that of another list
        (((9, None),), ("class 9",), None),
        ((), None, None),
    ],
)
def test_a_result_is_right_by_the_name_or_where_there_is_none_the_number(
    labels: tuple[tuple[int, str | None], ...], shown: tuple[str, ...] | None, is_right: bool | None
) -> None:
    own = result(predictions=[scored("sitting down", 0.6, 1), scored("running", 0.3, 0)])
    checked = LabelCheck(MODEL, is_nameless=False).checked(own, labels)
    assert (checked.labels, checked.is_right) == (shown, is_right)


def test_a_model_without_names_compares_numbers() -> None:
    check = LabelCheck(["class 0", "class 1"], is_nameless=True)
    own = result(predictions=[scored("class 1", 0.6, 1)])
    assert (check.checked(own, [(1, "b")]).labels, check.checked(own, [(1, "b")]).is_right) == (("b",), True)
    assert check.checked(own, [(0, "a")]).is_right is False


def test_what_failed_is_neither_right_nor_wrong_and_all_are_counted() -> None:
    check = LabelCheck(MODEL, is_nameless=False)
    own = result(predictions=[scored("sitting down", 0.6, 1)])
    results = [check.checked(each, [(number, None)]) for each, number in ((own, 1), (own, 0), (failed(), 1), (own, 9))]
    assert [each.is_right for each in results] == [True, False, None, None]
    assert count_labels([*results, own]) == LabelCounts(right=1, wrong=1, not_compared=2)
    assert count_labels([own, failed()]) is None
