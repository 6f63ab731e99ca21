"""Inputs: every way to name videos, in a stable order, each once, with any characters."""

from __future__ import annotations

import io
import os
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks.labelled_inputs import read_labelled
from dualformer_cli.video import inputs
from dualformer_cli.video.inputs import expand_inputs
from dualformer_cli.video.open import open_video

HIDDEN_AND_OTHER = ("notes.txt", ".hidden.mp4", "._clip2.mp4", "cover.jpg")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(*names):
    """Make empty files, relative to the current folder, and their folders."""
    for name in names:
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "xb"):
            pass


def expand(*names, stdin=""):
    result = expand_inputs(names, stdin=io.StringIO(stdin))
    assert result.problems == []
    return result.paths


def problems(*names, stdin=""):
    result = expand_inputs(names, stdin=io.StringIO(stdin))
    return result.paths, result.problems


def test_files_are_kept_in_the_order_given_whatever_their_suffix(folder):
    make("b.mp4", "a.bin")
    assert expand("b.mp4", "a.bin") == ["b.mp4", "a.bin"]


def test_a_name_that_does_not_exist_is_kept(folder):
    assert expand("missing.mp4", "", "-x.mp4", "no/such/folder/") == ["missing.mp4", "", "-x.mp4", "no/such/folder/"]


def test_a_folder_gives_its_videos_in_natural_order(folder):
    make("v/clip10.mp4", "v/clip2.MP4", "v/clip1.avi", "v/a/z.webm", "v/b 10/x.mkv", "v/b 9/x.mkv")
    make(*(f"v/{name}" for name in HIDDEN_AND_OTHER), "v/.git/clip.mp4")
    assert expand("v") == [
        *("v/clip1.avi", "v/clip2.MP4", "v/clip10.mp4"),
        *("v/a/z.webm", "v/b 9/x.mkv", "v/b 10/x.mkv"),
    ]


def test_the_current_folder_can_be_named(folder):
    make("clip.mp4", "a/clip.mp4")
    assert expand(".") == ["./clip.mp4", "./a/clip.mp4"]


def test_a_hidden_folder_is_searched_when_it_is_named(folder):
    make(".hidden/clip.mp4")
    assert expand(".hidden") == [".hidden/clip.mp4"]


def test_a_folder_of_numbered_frames_is_one_input(folder):
    make(*(f"v/dive/img_{i:05}.jpg" for i in range(1, 12)), "v/clip.mp4")
    assert expand("v/dive") == ["v/dive"]
    assert expand("v") == ["v/clip.mp4", "v/dive"]
    assert expand("v/dive", "v/dive/", os.path.abspath("v/dive")) == ["v/dive"]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"])
def test_what_counts_as_a_folder_of_frames_can_be_opened_as_one(folder, suffix):
    os.mkdir("v")
    for number in (1, 2):
        Image.new("RGB", (8, 8)).save(f"v/img_{number}{suffix}")
        make(f"v/flow_x_{number}{suffix}")
    make("v/notes1.txt", "v/.img_3.png")
    assert expand("v") == ["v"]
    with open_video("v") as reader:
        assert reader.info.num_frames == 2


def test_pictures_without_numbers_and_single_ones_are_no_frames(folder):
    make("v/cover.jpg", "v/logo.png", "v/1.jpg", "v/flow_x_1.jpg", "v/flow_x_2.jpg")
    assert problems("v") == ([], [("v", "the folder holds no videos and no numbered frames")])


def test_thumbnails_beside_videos_do_not_make_a_folder_of_frames(folder):
    make("v/clip1.mp4", "v/clip2.mp4", "v/clip1.jpg", "v/clip2.jpg")
    assert expand("v") == ["v/clip1.mp4", "v/clip2.mp4"]


def test_folders_without_videos_are_problems_and_the_rest_goes_on(folder):
    make("clip.mp4", "texts/notes.txt")
    os.mkdir("empty")
    reason = "the folder holds no videos and no numbered frames"
    assert problems("empty", "clip.mp4", "texts") == (["clip.mp4"], [("empty", reason), ("texts", reason)])


def test_links_in_circles_end(folder):
    make("v/clip.mp4", "v/deep/clip.mp4")
    os.symlink("..", "v/deep/up")
    os.symlink(".", "v/here")
    os.symlink("self", "v/self")
    assert expand("v") == ["v/clip.mp4", "v/deep/clip.mp4"]
    assert sorted(expand("v/**/*.mp4")) == ["v/clip.mp4", "v/deep/clip.mp4"]
    assert expand("**") == ["./v/clip.mp4", "./v/deep/clip.mp4"]


def test_links_to_folders_are_followed(folder):
    make("store/clip.mp4")
    os.mkdir("v")
    os.symlink("../store", "v/linked")
    assert expand("v") == ["v/linked/clip.mp4"]


def test_a_broken_link_is_kept_to_be_reported(folder):
    os.mkdir("v")
    os.symlink("gone.mp4", "v/clip.mp4")
    assert expand("v", "v/clip.mp4") == ["v/clip.mp4"]


def test_a_folder_that_cannot_be_listed_is_a_problem(folder, monkeypatch):
    make("v/clip.mp4", "v/locked/clip.mp4")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(inputs.os, "scandir", refuse)
    said = [("v/locked", "the folder cannot be read: permission denied")]
    assert problems("v") == (["v/clip.mp4"], said)
    assert problems("v/locked") == ([], said)


def test_patterns_match_in_natural_order_and_leave_out_other_files(folder):
    make("v/clip10.mp4", "v/clip2.mp4", "v/clip2.txt", "v/sub/x.avi", ".hidden.mp4")
    assert expand("v/clip*") == ["v/clip2.mp4", "v/clip10.mp4"]
    assert expand("v/clip?.*") == ["v/clip2.mp4"]
    assert expand("v/clip[13]0.mp4") == ["v/clip10.mp4"]
    assert expand("v/*") == ["v/clip2.mp4", "v/clip10.mp4", "v/sub/x.avi"]
    assert expand("*/*.txt") == ["v/clip2.txt"]


def test_two_stars_match_any_number_of_folders(folder):
    make("v/a.mp4", "v/x/b.mp4", "v/x/y/c.mp4", "v/x/y/c.bin", "v/.h/d.mp4")
    assert expand("v/**/*.mp4") == ["v/a.mp4", "v/x/b.mp4", "v/x/y/c.mp4"]
    assert expand("v/**") == ["v/a.mp4", "v/x/b.mp4", "v/x/y/c.mp4"]
    assert expand("**/y/*.bin") == ["v/x/y/c.bin"]
    assert expand("v/**/x/**/c.*") == ["v/x/y/c.mp4"]
    assert expand(f"{folder}/v/**/b.mp4") == [f"{folder}/v/x/b.mp4"]


def test_patterns_that_match_nothing_are_problems(folder):
    make("clip.mp4", "notes.txt", "[x]/a.mp4")
    reason = "the pattern matches no videos"
    assert problems("*.avi", "no*", "gone/**/x", "clip.mp4") == (
        ["clip.mp4"],
        [("*.avi", reason), ("no*", reason), ("gone/**/x", reason)],
    )


def test_existing_files_win_over_every_other_meaning(folder):
    make("a[1].mp4", "a1.mp4", "@x", "what?.mp4", "whats.mp4", "-", "v/[x]/a*b.mp4", "v/x/aab.mp4")
    assert expand("a[1].mp4") == ["a[1].mp4"]
    assert expand("@x") == ["@x"]
    assert expand("what?.mp4") == ["what?.mp4"]
    assert expand("v/[x]") == ["v/[x]/a*b.mp4"]
    assert expand("./-") == ["./-"]


def test_a_list_file_names_videos_relative_to_its_folder(folder):
    make("lists/a.mp4", "lists/b 1.mp4", "lists/f/c.mp4", "other.mp4")
    lines = f"\ufeff# my clips\n\na.mp4\r\n  b 1.mp4  \nf\n  # no\n*.mp4\n{folder}/other.mp4\nmissing.mp4"
    with open("lists/list.txt", "w", encoding="utf-8", newline="") as file:
        file.write(lines)
    assert expand("@lists/list.txt") == [
        *("lists/a.mp4", "lists/b 1.mp4", "lists/f/c.mp4"),
        *(f"{folder}/other.mp4", "lists/missing.mp4"),
    ]


@pytest.mark.parametrize("name", ["list.txt", "train.csv", "LIST.TXT"])
def test_a_list_without_its_sign_is_answered_with_it(name, folder):
    make("a.mp4")
    with open(name, "w", encoding="utf-8") as file:
        file.write("a.mp4\n")
    reason = f"it is text and no video; a list of videos is named as '@{name}'"
    assert problems(name, "a.mp4") == (["a.mp4"], [(name, reason)])


def test_a_video_may_be_called_like_a_list(folder):
    with open("clip.txt", "wb") as file:
        file.write(b"\0\0\0\x20ftypisom")
    make("empty.txt")
    assert expand("clip.txt", "empty.txt") == ["clip.txt", "empty.txt"]


def test_videos_of_a_list_with_labels_come_with_them(folder):
    make("lists/a.mp4", "b.mp4")
    with open("lists/train.csv", "w", encoding="utf-8") as file:
        file.write("path,label\n")
    rows = [("lists/a.mp4", ((0, "x"),)), ("lists/gone.mp4", ((1, None), (2, None)))]
    asked = []

    def read(path, text):
        asked.append((path, text))
        return rows

    found = expand_inputs(["b.mp4", "@lists/train.csv", "lists/a.mp4"], stdin=None, read_labelled=read)
    assert asked == [("lists/train.csv", "path,label\n")]
    assert found.paths == ["b.mp4", "lists/a.mp4", "lists/gone.mp4"]
    assert found.labels == dict(rows)
    assert found.problems == []


def test_a_list_with_labels_that_cannot_be_read_is_a_problem(folder):
    make("train.csv", "b.mp4")

    def read(path, text):
        raise DualFormerError("line 2: no")

    found = expand_inputs(["@train.csv", "b.mp4"], stdin=None, read_labelled=read)
    assert (found.paths, found.problems) == (["b.mp4"], [("@train.csv", "line 2: no")])


def test_the_folder_of_a_list_is_never_a_pattern(folder):
    make("[l]/a1.mp4", "l/a2.mp4")
    with open("[l]/list.txt", "w") as file:
        file.write("a*.mp4\n")
    assert expand("@[l]/list.txt") == ["[l]/a1.mp4"]


def test_files_whose_names_look_like_comments_or_end_in_spaces_are_found_in_lists(folder):
    make("#1.mp4", " a.mp4 ", "@b.mp4")
    assert expand("-", stdin="#1.mp4\n#2.mp4\n a.mp4 \n@b.mp4\n") == ["#1.mp4", " a.mp4 ", "@b.mp4"]


def test_a_list_does_not_name_other_lists_nor_stdin(folder):
    with open("list.txt", "w") as file:
        file.write("@list.txt\n-\n")
    assert expand("@list.txt") == ["@list.txt", "-"]


def test_lists_that_cannot_be_read_or_are_empty_are_problems(folder):
    make("empty.txt", "clip.mp4")
    os.mkdir("d")
    empty = "the list is empty; write one name a line"
    assert problems("@empty.txt", "@gone.txt", "@d", "-", "clip.mp4", stdin="\n# nothing\n") == (
        ["clip.mp4"],
        [
            ("@empty.txt", empty),
            ("@gone.txt", "list 'gone.txt' not found"),
            ("@d", "list 'd' cannot be read: is a directory"),
            ("-", empty),
        ],
    )


def test_a_list_on_stdin_is_relative_to_the_current_folder(folder):
    make("a.mp4", "v/b.mp4")
    assert expand("-", stdin="v\na.mp4\n") == ["v/b.mp4", "a.mp4"]


def test_names_separated_by_nul_may_hold_line_breaks(folder):
    make("a\nb.mp4", "#c.mp4")
    assert expand("-", stdin="a\nb.mp4\0#c.mp4\0") == ["a\nb.mp4", "#c.mp4"]


def test_bytes_that_are_not_utf8_survive_from_stdin_and_lists(folder):
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x8e\xac.mp4")
    make(f"v/{name}")
    raw = SimpleNamespace(buffer=io.BytesIO(b"v/caf\xe9 \xf0\x9f\x8e\xac.mp4\n"))
    assert expand_inputs(["-"], stdin=raw).paths == [f"v/{name}"]
    with open("v/list.txt", "wb") as file:
        file.write(os.fsencode(name))
    assert expand("@v/list.txt", "v") == [f"v/{name}"]


names = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=20)


@given(name=names.filter(lambda name: name not in (".", "..", "-")))
def test_any_name_of_an_existing_file_is_kept_as_it_is(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    (folder / name).touch()
    path = str(folder / name)
    assert expand(path) == [path]
    assert expand("-", stdin=f"{path}\0") == [path]


def test_a_file_named_in_several_ways_is_one_input(folder):
    make("v/clip.mp4", "v/other.mp4")
    os.symlink("v", "w")
    os.symlink("clip.mp4", "v/link.mp4")
    assert expand("v/clip.mp4", "./v/clip.mp4", "v/../v/clip.mp4", str(folder / "v/clip.mp4"), "w/clip.mp4") == [
        "v/clip.mp4"
    ]
    assert expand("v/other.mp4", "v") == ["v/other.mp4", "v/clip.mp4", "v/link.mp4"]


def test_addresses_pass_through_once(folder):
    address = "rtsp://camera.local/stream?channel=1*"
    make("clip.mp4")
    assert expand(address, "clip.mp4", address) == [address, "clip.mp4"]
    with open("list.txt", "w") as file:
        file.write(f"{address}\n")
    os.mkdir("lists")
    os.rename("list.txt", "lists/list.txt")
    assert expand("@lists/list.txt") == [address]


def test_a_part_of_a_video_is_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.mp4").touch()
    names = ["a.mp4#t=1,2", "./a.mp4#t=1,2", "a.mp4#t=2,3", "a.mp4", "none.mp4#t=1,2"]
    result = expand_inputs(names, stdin=None)
    assert result.paths == ["a.mp4#t=1,2", "a.mp4#t=2,3", "a.mp4", "none.mp4#t=1,2"]


def test_a_table_of_parts_is_a_list_of_inputs(tmp_path):
    (tmp_path / "a.mp4").touch()
    table = tmp_path / "list.csv"
    table.write_text("path,start_seconds,end_seconds\na.mp4,1,2\na.mp4,2,\n")
    result = expand_inputs([f"@{table}"], stdin=None, read_labelled=read_labelled)
    assert result.paths == [f"{tmp_path}/a.mp4#t=1,2", f"{tmp_path}/a.mp4#t=2"]
    table.write_text("path,num_frames,start\na.mp4,10,5\n")
    result = expand_inputs([f"@{table}"], stdin=None, read_labelled=read_labelled)
    assert [reason for _, reason in result.problems] == [
        f"list '{table}' names parts by frame numbers, as of 'a.mp4'; give start_seconds, end_seconds"
    ]
    table.write_text("a.mp4\n# path, label\n")
    assert expand_inputs([f"@{table}"], stdin=None, read_labelled=read_labelled).paths == [f"{tmp_path}/a.mp4"]
