"""Class names: one name in several spellings, two names that only look alike, and names at the ends of lines."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from dualformer_cli.data.lists.manifest import read_manifest
from dualformer_cli.data.lists.matching import ClassLookup, match_classes

CAFE = "café dancing"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_a_name_is_the_same_in_every_unicode_form(form: str) -> None:
    """A Mac writes file names with the accent after its letter."""
    assert ClassLookup(["running", CAFE]).find(unicodedata.normalize(form, CAFE)) == 1  # type: ignore[arg-type]
    assert ClassLookup([unicodedata.normalize(form, CAFE)]).find(CAFE) == 0  # type: ignore[arg-type]
    assert ClassLookup(["ﬁshing"]).find("fishing") == 0  # a ligature


def test_a_list_may_name_classes_in_another_unicode_form(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", CAFE)
    assert decomposed != CAFE
    (tmp_path / "list.txt").write_text(f"a.mp4 {decomposed}\nb.mp4 running\n", encoding="utf-8")
    manifest = read_manifest(str(tmp_path / "list.txt"), classes=["running", CAFE])
    assert [(sample.path, sample.labels) for sample in manifest.samples] == [("a.mp4", (1,)), ("b.mp4", (0,))]


def test_the_longest_class_name_at_the_end_of_a_line_is_the_label(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a b.mp4 trail running\nc.mp4 running\n")
    for classes, labels in ((["running", "trail running"], [(1,), (0,)]), (["trail running", "running"], [(0,), (1,)])):
        manifest = read_manifest(str(tmp_path / "list.txt"), classes=classes)
        assert [(sample.path, sample.labels) for sample in manifest.samples] == [
            ("a b.mp4", labels[0]),
            ("c.mp4", labels[1]),
        ]


def test_names_that_differ_in_case_are_one_unless_both_are_there() -> None:
    assert ClassLookup(["Push Up", "running"]).find("push_up") == 0
    both = ClassLookup(["pushup", "Pushup"])
    assert (both.find("pushup"), both.find("Pushup"), both.find("PUSHUP")) == (0, 1, None)


def test_two_classes_of_the_data_do_not_become_one() -> None:
    match = match_classes(["pushup", "Pushup"], ["Pushup", "running"])
    assert match is not None
    assert (match.mapping, match.unmatched, match.missing) == ((None, 0), ("pushup",), ("running",))
