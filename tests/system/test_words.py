"""Words: what a screen shows, sizes, counts and the order that a reader expects."""

from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dualformer_cli.system.words import (
    counted,
    duration_in_words,
    natural_key,
    os_reason,
    printable,
    shown_path,
    size_in_words,
    some_of,
)

any_text = st.text(st.characters(exclude_categories=()), max_size=60)
names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)
HOSTILE = "[red]x[/red]\n\x1b[31m:smile:\r\x9b2J\u202eevil\udcff.mp4"


@given(any_text)
@example(HOSTILE)
def test_printable_text_has_nothing_that_a_terminal_obeys_or_hides(text):
    categories = {unicodedata.category(char) for char in printable(text)}
    assert not categories & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


@given(any_text, st.sampled_from(["ascii", "latin-1", "cp437"]))
def test_printable_text_fits_the_encoding_it_was_made_for(text, encoding):
    printable(text, encoding).encode(encoding)


def test_printable_keeps_letters_accents_and_emoji():
    text = "Füße 跑步 ёж 😀 [a] c:\\x.mp4"
    assert printable(text) == text


def test_what_a_terminal_obeys_or_hides_is_an_escape():
    assert printable("a\nb\x1b[31m\u202e\udcff\u2028.mp4") == r"a\nb\x1b[31m\u202e\udcff\u2028.mp4"
    assert printable("é跑", "latin-1") == r"é\u8dd1"


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [
        (0, "0.0 kB"),
        (512, "0.5 kB"),
        (999_949, "999.9 kB"),
        (1_000_000, "1.0 MB"),
        (87_900_000, "87.9 MB"),
        (1_500_000_000, "1.5 GB"),
        (2_345_600_000_000, "2,345.6 GB"),
    ],
)
def test_a_size_is_in_the_largest_unit_of_which_it_has_one(num_bytes, words):
    assert size_in_words(num_bytes) == words


def test_one_is_counted_in_the_singular():
    assert [counted(count, "video") for count in (0, 1, 2, 1203)] == ["0 videos", "1 video", "2 videos", "1,203 videos"]
    assert [counted(count, "class", "classes") for count in (1, 2)] == ["1 class", "2 classes"]


def test_of_many_names_the_first_are_shown():
    assert [some_of(list(few), 2) for few in ("", "a", "ab", "abc", "abcd")] == [
        "",
        "a",
        "a, b",
        "a, b and 1 more",
        "a, b and 2 more",
    ]


def test_numbers_in_names_are_ordered_by_their_value_folder_by_folder():
    assert sorted(["clip10.mp4", "clip2.mp4", "clip1"], key=natural_key) == ["clip1", "clip2.mp4", "clip10.mp4"]
    assert sorted(["v 10/1.mp4", "v 9/2.mp4", "v 9/10.mp4"], key=natural_key) == [
        "v 9/2.mp4",
        "v 9/10.mp4",
        "v 10/1.mp4",
    ]
    assert sorted(["x2", "x02", "x1"], key=natural_key) == ["x1", "x02", "x2"]


@given(st.lists(names))
def test_the_natural_order_does_not_depend_on_the_order_before(some):
    backwards = some[::-1]
    assert sorted(some, key=natural_key) == sorted(backwards, key=natural_key)


def test_the_systems_reason_stands_in_the_middle_of_a_sentence():
    assert os_reason(PermissionError(errno.EACCES, "Permission denied", "x")) == "permission denied"
    assert os_reason(OSError("Cannot Seek")) == "cannot seek"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 s"),
        (1.4, "1 s"),
        (59.6, "1 min"),
        (61, "1 min 1 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (7505, "2 h 5 min"),
        (86400 * 3 + 3600 * 4 + 60, "3 d 4 h"),
        (86400 + 60, "1 d"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert duration_in_words(seconds) == text


def test_words_that_end_in_s_have_their_plural() -> None:
    assert [counted(number, "class") for number in (0, 1, 2)] == ["0 classes", "1 class", "2 classes"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("own/prepared/../b/4.avi", "own/b/4.avi"),
        ("./a.mp4", "a.mp4"),
        ("own//b/", "own/b"),
        ("../here/own/gone.mp4", "own/gone.mp4"),
        ("{here}/own/b/4.avi", "own/b/4.avi"),
        ("{here}/own/prepared/../a.mp4#t=1,2", "own/a.mp4#t=1,2"),
        ("/other/../elsewhere/a.mp4", "/elsewhere/a.mp4"),
        ("../a.mp4", "../a.mp4"),
        ("link/../a.mp4", "link/../a.mp4"),  # which is far/a.mp4
        ("./-v.mp4", "./-v.mp4"),
        ("https://host/x/../a.mp4", "https://host/x/../a.mp4"),
        ("a\0/../b", "a\0/../b"),
        ("0", "0"),
    ],
)
def test_a_path_is_shown_in_its_shortest_true_form(
    path: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    for folder in ("here/own/prepared", "here/own/b", "far/inside"):
        (tmp_path / folder).mkdir(parents=True)
    (here / "link").symlink_to(tmp_path / "far" / "inside")
    monkeypatch.chdir(here)
    assert shown_path(path.format(here=here)) == shown


def test_a_path_is_shown_as_it_is_where_there_is_no_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    os.rmdir(tmp_path / "gone")
    assert shown_path("a/../b.mp4") == "a/../b.mp4"
