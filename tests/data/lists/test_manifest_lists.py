"""Lists of labelled videos: every format reads back what was written, and what is not understood is named."""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.config.schema import ListFormat
from dualformer_cli.data.lists.class_lists import load_class_names, shipped_class_lists
from dualformer_cli.data.lists.manifest import (
    Manifest,
    Sample,
    list_text,
    match_classes,
    read_manifest,
    write_manifest,
)
from dualformer_cli.errors import DualFormerError

LINE_FORMATS = ("video", "rawframe", "rawframe_offset", "multilabel_video", "multilabel_rawframe")
SPORTS = ["air drumming", "playing tennis", "catch 22", "massaging person's head"]


def write_list(manifest: Manifest, path: str | os.PathLike[str], list_format: ListFormat) -> int:
    data, num_left_out = list_text(manifest, os.fspath(path), list_format)
    Path(path).write_bytes(data)
    return num_left_out


names = st.one_of(
    st.sampled_from(["-a b", 'say "hi"', "a,b", "a;b 3", " x ", "é\u2028ü", "run 7", "[x]", "#1", "\ufeffa", "tennis"]),
    st.text(" \t,;\"'-#[]{}()é.a1\\", min_size=1, max_size=8),
    st.binary(min_size=1, max_size=8).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"0"))),
)
nasty_paths = st.builds("{}{}".format, names, st.sampled_from(["", ".mp4", "/a.MKV", "/1", ".jpg"]))
plain_paths = st.from_regex(r"[-+#\[(a-zäß_][-+#\](a-zäß_/ ]{0,9}[a-z]\.(mp4|webm)", fullmatch=True)
counts = st.integers(0, 999)
statuses = st.sampled_from(["ok", "ok", "sequential_only", 'broken: "moov" missing, a\nb'])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lists")


@st.composite
def manifests(draw, paths, *, multi_label=st.booleans(), unlabelled=True):
    is_multi_label = draw(multi_label)
    class_names = draw(st.sampled_from([None, SPORTS]))
    labels = st.lists(st.integers(0, 3), min_size=1, max_size=3 if is_multi_label else 1, unique=True).map(tuple)
    samples = []
    for path in draw(st.lists(paths, min_size=1, max_size=5)):
        own = draw(st.one_of(labels, st.just(()))) if unlabelled else draw(labels)
        samples.append(
            Sample(
                path,
                None if is_multi_label or not own else own[0],
                own,
                start=draw(st.sampled_from([0, 0, 12])),
                num_frames=draw(st.none() | counts),
                fps=draw(st.none() | st.floats(0, 1e4)),
                width=draw(st.none() | counts),
                duration_seconds=draw(st.none() | st.floats(0, 1e9)),
                status=draw(statuses),
            )
        )
    if is_multi_label and not any(sample.labels for sample in samples):
        samples.append(Sample("labelled.mp4", None, (1, 2)))
    return Manifest(samples=samples, class_names=class_names, is_multi_label=is_multi_label)


def write(folder, text, name="list.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
    return str(path)


def rows(folder, text, name="list.txt", **options):
    """What each row says, as (path, labels, start, num_frames)."""
    manifest = read_manifest(write(folder, text, name), **options)
    return [(sample.path, sample.labels, sample.start, sample.num_frames) for sample in manifest.samples]


def refusal(folder, text, name="list.txt", **options):
    source = write(folder, text, name)
    with pytest.raises(DualFormerError) as caught:
        read_manifest(source, **options)
    message = str(caught.value)
    assert repr(source) in message
    assert "\n" not in message
    return message


# Round trips


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_manifest_reads_back_with_any_name(folder, data):
    manifest = data.draw(manifests(nasty_paths))
    here = folder / ("named" if manifest.class_names else "nameless")
    here.mkdir(exist_ok=True)
    manifest = Manifest(
        samples=manifest.samples,
        class_names=manifest.class_names,
        is_multi_label=manifest.is_multi_label,
        root=str(here),
    )
    write_manifest(manifest, here / "any.csv")
    again = read_manifest(str(here / "any.csv"))
    assert again.samples == manifest.samples
    assert (again.class_names, again.is_multi_label) == (manifest.class_names, manifest.is_multi_label)
    assert (again.files, again.fingerprint) == (manifest.files, manifest.fingerprint)


def test_a_list_that_looks_like_another_format_names_it_where_its_labels_do_not_fit(folder):
    """The row of a folder "a;b 3", from frame 0, 4 frames, class 0; it is read as 3 frames of the classes 0 and 4."""
    complaint = refusal(folder, "a;b 3 0 4 0\n", classes=SPORTS)
    assert complaint.endswith(
        "; it looks like multilabel_rawframe (FOLDER NUM_FRAMES LABEL ...): if it is not, set list_format to what it is"
    )
    assert rows(folder, "a;b 3 0 4 0\n", classes=SPORTS, list_format="rawframe_offset") == [("a;b 3", (0,), 0, 4)]


@settings(max_examples=300, deadline=None)
@given(data=st.data(), list_format=st.sampled_from([*LINE_FORMATS, "json"]))
def test_an_older_list_says_what_was_written_or_is_refused(folder, data, list_format):
    may_be_multi = list_format.startswith("multilabel") or list_format == "json"
    multi_label = st.booleans() if may_be_multi else st.just(False)
    manifest = data.draw(manifests(nasty_paths, multi_label=multi_label, unlabelled=data.draw(st.booleans())))
    path = str(folder / "older")
    usable = [sample for sample in manifest.samples if sample.is_usable]
    try:
        left_out = write_list(manifest, path, list_format)
    except DualFormerError:
        return
    assert left_out == len(manifest) - len(usable)
    wanted = [(sample.path, sample.labels, sample.start) for sample in usable]
    for read_format in (list_format, "auto"):
        try:
            read = read_manifest(path, list_format=read_format, classes=manifest.class_names)
        except DualFormerError as error:
            complaint = str(error)
        else:
            complaint = None
        if complaint is not None:
            assert read_format == "auto"
            assert "set list_format to" in complaint
            continue
        assert [(sample.path, sample.labels, sample.start) for sample in read.samples] == wanted
        if read.samples[0].num_frames is not None:
            assert [sample.num_frames for sample in read.samples] == [sample.num_frames for sample in usable]


@settings(max_examples=100, deadline=None)
@given(data=st.data(), list_format=st.sampled_from([*LINE_FORMATS, "json"]))
def test_names_with_spaces_and_leading_dashes_fit_every_older_list(folder, data, list_format):
    paths = data.draw(st.lists(plain_paths.map(str.strip), min_size=1, max_size=4))
    samples = [Sample(path, 1, (1,), num_frames=9) for path in paths]
    assert write_list(Manifest(samples=samples), folder / "plain", list_format) == 0
    assert [sample.path for sample in read_manifest(str(folder / "plain"), list_format=list_format).samples] == paths


@settings(max_examples=200, deadline=None)
@given(text=st.one_of(st.binary(max_size=60), st.text('path,label\n\r\t;"3 a.mp4[{}]:\ufeff', max_size=40)))
def test_any_bytes_are_read_or_refused_in_one_line(folder, text):
    try:
        manifest = read_manifest(write(folder, text), classes=SPORTS)
    except DualFormerError as error:
        complaint = str(error)
    else:
        complaint = ""
        assert manifest.samples
        assert all(sample.path for sample in manifest.samples)
    assert "\n" not in complaint


def test_line_ends_byte_order_marks_and_blank_lines_change_nothing(folder):
    plain = read_manifest(write(folder, "a b/1.mp4 0\n-c.mp4\t1\n"))
    decorated = read_manifest(write(folder, b"\xef\xbb\xbf\r\n  a b/1.mp4   0 \r\n\r\n-c.mp4 1"))
    table = read_manifest(write(folder, "\ufeff\r\nPath , Label\r\na b/1.mp4,0\r\n\r\n,\r\n-c.mp4,1\r\n"))
    assert plain.samples == decorated.samples == table.samples
    assert plain.fingerprint == decorated.fingerprint == table.fingerprint


@pytest.mark.parametrize("text", ["b.mp4 0\na.mp4 1\n", "a.mp4 1\nb.mp4 0\n", "a.mp4 0\n", "a.mp4 0\nc.mp4 1\n"])
def test_the_fingerprint_depends_on_every_row_and_their_order(folder, text):
    known = read_manifest(write(folder, "a.mp4 0\nb.mp4 1\n")).fingerprint
    assert re.fullmatch("[0-9a-f]{64}", known)
    assert read_manifest(write(folder, text)).fingerprint != known


def test_the_fingerprint_sees_a_status(folder):
    ok = read_manifest(write(folder, "path,status\na.mp4,ok\n"))
    broken = read_manifest(write(folder, "path,status\na.mp4,broken: empty\n"))
    assert ok.fingerprint == read_manifest(write(folder, "a.mp4\n")).fingerprint != broken.fingerprint


# Formats that are found out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a/b_000417_000427.mp4 0\nz.mp4 399\n",
            [("a/b_000417_000427.mp4", (0,), 0, None), ("z.mp4", (399,), 0, None)],
        ),
        ("my clip.mp4,3\nb.mp4,4\n", [("my clip.mp4", (3,), 0, None), ("b.mp4", (4,), 0, None)]),
        ("a, b.mp4, 3\n", [("a, b.mp4", (3,), 0, None)]),
        ('"a, b.mp4",3\n', [("a, b.mp4", (3,), 0, None)]),
        ('5" disc.mp4,3\n', [('5" disc.mp4', (3,), 0, None)]),
        ("34870;0\n56557;1\n", [("34870", (0,), 0, None), ("56557", (1,), 0, None)]),
        ("[a] b;c.avi 3\n", [("[a] b;c.avi", (3,), 0, None)]),
        ("run 7 120 0\n", None),
        ("a/x 120 0\nb/y  88 50\n", [("a/x", (0,), 0, 120), ("b/y", (50,), 0, 88)]),
        ("100218 42 5\n", [("100218", (5,), 0, 42)]),
        ("a/1.mp4 1 3 5\na/2.mp4 2\n", [("a/1.mp4", (1, 3, 5), 0, None), ("a/2.mp4", (2,), 0, None)]),
        ("a+b/1.mp4,41,130\na+b/2.mp4,41\n", [("a+b/1.mp4", (41, 130), 0, None), ("a+b/2.mp4", (41,), 0, None)]),
        ("d1 163 1 3 5\nd2 122 2\n", [("d1", (1, 3, 5), 0, 163), ("d2", (2,), 0, 122)]),
        ("a b.mp4\n-c.mp4\nx.mp4 copy.mp4\n", [(p, (), 0, None) for p in ("a b.mp4", "-c.mp4", "x.mp4 copy.mp4")]),
        ("path\na b.mp4\n", [("a b.mp4", (), 0, None)]),
        ("label;path\n2;a,b.mp4\n", [("a,b.mp4", (2,), 0, None)]),
        ("path,label,split\na,2.0,x\nb,,y\n", [("a", (2,), 0, None), ("b", (), 0, None)]),
        ("path,label,num_frames,start\na.mp4,0,300.0,7\n", [("a.mp4", (0,), 7, 300)]),
    ],
)
def test_a_format_is_told_by_its_lines(folder, text, expected):
    if expected is None:
        refusal(folder, text)
    else:
        assert rows(folder, text) == expected


@pytest.mark.parametrize(
    ("list_format", "text", "expected"),
    [
        ("video", "run 7 3\n", [("run 7", (3,), 0, None)]),
        ("rawframe", "my run 7 120 3\n", [("my run 7", (3,), 0, 120)]),
        ("rawframe_offset", "v_x 12 163 3\nv_y 213 122 4\n", [("v_x", (3,), 12, 163), ("v_y", (4,), 213, 122)]),
        ("multilabel_video", "d 1 3\n", [("d", (1, 3), 0, None)]),
        ("multilabel_video", "a.mp4\n", [("a.mp4", (), 0, None)]),
        ("multilabel_rawframe", "d 9 1 3\n", [("d", (1, 3), 0, 9)]),
    ],
)
def test_a_format_that_is_named_is_not_guessed(folder, list_format, text, expected):
    assert rows(folder, text, list_format=list_format) == expected


def test_json_lists_name_videos_or_folders_of_frames(folder):
    text = '[{"filename": "a.mp4", "label": [3]},\n {"frame_dir": "b", "total_frames": 9, "offset": 4, "label": 0},'
    expected = [("a.mp4", (3,), 0, None), ("b", (0,), 4, 9), ("c.mp4", (), 0, None)]
    assert rows(folder, text + '{"filename": "c.mp4"}]') == expected
    manifest = read_manifest(write(folder, '[{"filename": "a.mp4", "label": ["catch 22", 1]}]'), classes=SPORTS)
    assert manifest.is_multi_label
    assert manifest.samples == [Sample("a.mp4", None, (2, 1))]


def test_of_labels_in_groups_one_group_is_read_and_videos_without_it_are_left_out(folder):
    text = """[{"filename": "a.mp4", "label": {"event": [16], "action": [180, 2]}},
               {"frame_dir": "b", "total_frames": 9, "label": {"action": ["catch 22"], "event": []}},
               {"filename": "c.mp4", "label": {}}, {"filename": "d.mp4"}]"""
    manifest = read_manifest(write(folder, text), label_group="event")
    assert manifest.is_multi_label  # with one label each, too
    assert manifest.samples == [Sample("a.mp4", None, (16,))]
    assert manifest.warnings == (f"list {manifest.source!r}: 3 of 4 videos have no label of 'event' and are left out",)
    text = text.replace("180", "3")
    expected = [("a.mp4", (3, 2), 0, None), ("b", (2,), 0, 9)]
    assert rows(folder, text, label_group="action", classes=SPORTS) == expected


def test_kinetics_annotations_name_clips_by_id_and_times(folder):
    text = 'label,youtube_id,time_start,time_end,split,is_cc\n"air drumming",--nQbRBEz2s,104,114,val,0\n'
    assert rows(folder, text, "val.csv", classes=SPORTS) == [("--nQbRBEz2s_000104_000114.mp4", (0,), 0, None)]
    test = '"youtube_id","time_start","time_end","split"\n--_x,4,14.0,test\n'
    assert rows(folder, test, "test.csv") == [("--_x_000004_000014.mp4", (), 0, None)]


def test_labels_may_be_class_names_in_any_usual_spelling(folder):
    text = "a b.mp4 playing_tennis\nc.mp4 Air  Drumming\nd.mp4 massaging_persons_head\ne.mp4 3\n"
    assert [labels for _, labels, _, _ in rows(folder, text, classes=SPORTS)] == [(1,), (0,), (3,), (3,)]
    assert rows(folder, "d 9 catch_22\n", classes=SPORTS, list_format="rawframe") == [("d", (2,), 0, 9)]
    assert rows(folder, "a.mp4,playing tennis\n", classes=["tennis", *SPORTS]) == [("a.mp4", (2,), 0, None)]
    assert rows(folder, "a.mp4,air drumming,catch 22\n", classes=SPORTS, list_format="multilabel_video") == [
        ("a.mp4", (0, 2), 0, None)
    ]


def test_a_manifest_has_several_labels_between_semicolons(folder):
    several = read_manifest(write(folder, "path,label\na,1;0;1\nb,catch 22;\nc,\n"), classes=SPORTS)
    assert several.is_multi_label
    assert several.samples == [Sample("a", None, (1, 0)), Sample("b", None, (2,)), Sample("c")]
    single = read_manifest(write(folder, "path,label\na,1\n"), classes=SPORTS)
    assert (single.is_multi_label, single.samples[0].label) == (False, 1)
    assert rows(folder, "path,label\na,x; y\n", classes=["x; y", "x"]) == [("a", (0,), 0, None)]


def test_rows_that_prepare_found_broken_are_kept_with_their_status(folder):
    manifest = read_manifest(write(folder, "path,status\na,ok\nb,\nc,sequential_only\nd,broken: empty\ne, ok \nf, \n"))
    statuses = ["ok", "ok", "sequential_only", "broken: empty", "ok", "ok"]
    assert [sample.status for sample in manifest.samples] == statuses
    assert [sample.is_usable for sample in manifest.samples] == [True, True, True, False, True, True]
    assert len(manifest) == 6


# Folders and class names


def test_relative_paths_start_from_the_root_or_from_the_lists_folder(folder):
    source = write(folder, "a.mp4 0\n/b.mp4 0\n")
    assert read_manifest(source).files == [str(folder / "a.mp4"), "/b.mp4"]
    assert read_manifest(source, root="/").files == ["/a.mp4", "/b.mp4"]
    assert [sample.path for sample in read_manifest(source).samples] == ["a.mp4", "/b.mp4"]
    with pytest.raises(DualFormerError, match=r"folder '/no/such', where the paths of list .* start, does not exist"):
        read_manifest(source, root="/no/such")


def test_a_list_in_the_current_folder_has_paths_relative_to_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.mp4 0\n")
    (tmp_path / "classes.txt").write_text("jump\n")
    manifest = read_manifest("list.txt")
    assert (manifest.files, manifest.class_names) == (["a.mp4"], ["jump"])
    write_manifest(manifest, "list.csv")
    assert read_manifest("list.csv").samples == manifest.samples


def test_a_manifest_written_elsewhere_still_finds_its_files(tmp_path):
    for name in ("data", "real/lists"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "real" / "lists")
    (tmp_path / "data" / "a.mp4").touch()
    manifest = Manifest(samples=[Sample("a.mp4", 0, (0,)), Sample("/x.mp4", 0, (0,))], root=str(tmp_path / "data"))
    write_manifest(manifest, tmp_path / "linked" / "m.csv")
    first, second = read_manifest(str(tmp_path / "linked" / "m.csv")).files
    assert os.path.samefile(first, tmp_path / "data" / "a.mp4")
    assert second == "/x.mp4"


def test_classes_beside_the_list_win_and_a_difference_is_said(tmp_path):
    source = write(tmp_path, "a.mp4 1\n")
    assert read_manifest(source, classes=SPORTS).class_names == SPORTS
    (tmp_path / "classes.txt").write_text("air_drumming\nplaying_tennis\n")
    same = read_manifest(source, classes=["Air drumming", "Playing tennis"])
    assert (same.class_names, same.warnings) == (["air_drumming", "playing_tennis"], ())
    (warning,) = read_manifest(source, classes=["playing tennis", "air drumming"]).warnings
    assert warning.startswith(f"the classes are those of {str(tmp_path / 'classes.txt')!r}, beside the list")
    assert "the same 2 classes in another order; 'air_drumming' is class 0 of the data and 1 of the model" in warning


def test_classes_are_written_beside_a_manifest_but_not_over_others(tmp_path):
    manifest = Manifest(samples=[Sample("a.mp4", 0, (0,))], class_names=SPORTS, root=str(tmp_path))
    write_manifest(manifest, tmp_path / "a.csv")
    write_manifest(manifest, tmp_path / "b.csv")
    assert load_class_names(str(tmp_path / "classes.txt")) == SPORTS
    other = Manifest(samples=manifest.samples, class_names=["jump"], root=str(tmp_path))
    with pytest.raises(DualFormerError, match=r"classes.txt' has other classes than the list; choose another folder"):
        write_manifest(other, tmp_path / "c.csv")
    assert sorted(os.listdir(tmp_path)) == ["a.csv", "b.csv", "classes.txt"]


@pytest.mark.parametrize("name", ["", " jump", "a\nb", "a\x85b", "\udc80"])
def test_a_class_name_that_is_no_line_of_text_is_refused(tmp_path, name):
    manifest = Manifest(samples=[Sample("a.mp4")], class_names=["run", name])
    with pytest.raises(DualFormerError, match=re.escape(f"class name {name!r} cannot be a line of")):
        write_manifest(manifest, tmp_path / "a.csv")
    assert os.listdir(tmp_path) == []


# What is refused

IN_LINE = [
    (
        "a.mp4 0\nb.mp4 4\n",
        {"classes": SPORTS},
        "line 2: 'b.mp4 4': label 4 is none of the 4 classes, which count from 0 to 3",
    ),
    ("a 1\nb -1\n", {}, "line 2: 'b -1': label -1 is negative; classes count from 0"),
    ("a.mp4 9999999999\n", {}, "9999999999 is too large for a class number"),
    ("a.mp4 0\n\nb.mp4\n", {}, "line 3: 'b.mp4': has no label, but line 1 has one"),
    (
        "a.mp4 catch 23x\n",
        {"classes": SPORTS},
        "'catch 23x' is neither a class number nor one of the 4 class names; did you mean 'catch 22'?",
    ),
    ("c/a.mp4,jump,3,0\n", {}, "'jump' stands between the file name and what the format has after it"),
    ("a.mp4 1,2\n", {}, "'1' stands between the file name and what the format has after it"),
    (
        "a.mp4 1 2\n",
        {"list_format": "video"},
        "'1' stands between the file name and what the format has after it; mend it or list_format",
    ),
    ("000/1.jpg 0\n", {}, "'000/1.jpg' is an image; a row names a video or a folder of frames"),
    ("a.mp4 0\rb.mp4 1\r", {}, "a carriage return; lines end in a line feed"),
    (
        "a.mp4 1 2\nb.mp4 1 2\n",
        {},
        "set list_format to multilabel_video (PATH LABEL ...) or rawframe (FOLDER NUM_FRAMES LABEL)",
    ),
    (
        "a.mp4 1 2 3\n",
        {},
        "set list_format to multilabel_video (PATH LABEL ...) or rawframe_offset (FOLDER START NUM_FRAMES LABEL)",
    ),
    (
        "v_x 12 163 3\n",
        {},
        "set list_format to rawframe_offset (FOLDER START NUM_FRAMES LABEL) or multilabel_rawframe (FOLDER NUM_",
    ),
    (
        "walk 5\nrun 7 3\n",
        {},
        "line 2: 'run 7 3': the list can be read in more than one way; set list_format to multilabel_video (PATH",
    ),
    ("a.mp4 5 6\nrun 7 3\n", {}, "set list_format to multilabel_video (PATH LABEL ...) or multilabel_rawframe"),
    ("s/x 66 10 0 1 2\ns/y 341 2 0 1\n", {}, "this may be OmniSource's list of cut videos"),
    (
        "d 3\n",
        {"list_format": "rawframe"},
        "is not FOLDER NUM_FRAMES LABEL, as list_format rawframe has it: there is 1 value after the path",
    ),
    (
        "d 3 4\n",
        {"list_format": "rawframe_offset"},
        "is not FOLDER START NUM_FRAMES LABEL, as list_format rawframe_offset has it: there are 2 values",
    ),
    ("d\n", {"list_format": "rawframe"}, "list_format rawframe has it: 'd' is not a class number"),
    ("d 3 jump\n", {"list_format": "multilabel_video", "classes": ["jump"]}, "class names and numbers are mixed"),
    ("d -3 1\n", {}, "line 1: 'd -3 1': a first frame and a frame count are at least 0"),
    (
        "a.mp4 0\n",
        {"list_format": "manifest"},
        "'a.mp4 0': a manifest starts with a header that names its columns, as path,label,num_frames,fps,width,h",
    ),
    (
        "path,label\na.mp4,0,1\n",
        {},
        "line 2: 'a.mp4,0,1': it has 3 fields and the header has 2; quote fields that hold ','",
    ),
    ("path,label\na.mp4,0\nb.mp4\n", {}, "line 3: 'b.mp4': it has 1 field and the header has 2; quote"),
    ("a.mp4,1\nb.mp4 2\n", {}, "line 2: 'b.mp4 2': '2' is not separated from the rest as the labels of other lines"),
    ("a,1\nb 2\n", {}, "has no label, but line 1 has one; '2' is not separated from the rest"),
    ("a,1\n,3\n", {}, "line 2: ',3': the path is empty"),
    ("path,label\n\n,1\n", {}, "line 3: ',1': the path is empty"),
    ("path,label\na,4\n", {"classes": SPORTS}, "line 2: 'a,4': label 4 is none of the 4 classes"),
    ("path,label\na,1;x\n", {}, "line 2: 'a,1;x': 'x' is not a class number"),
    ("path,label\na,1.5\n", {}, "'1.5' is not a class number"),
    ("path,label\na,-1\n", {}, "label -1 is negative"),
    ("path,num_frames\na,3\nb,many\n", {}, "line 3: 'b,many': num_frames 'many' is not a whole number of at least 0"),
    ("path,num_frames\na,1_0\n", {}, "line 2: 'a,1_0': num_frames '1_0' is not a whole number of at least 0"),
    ("path,width\na,\u0663\n", {}, "line 2: 'a,\u0663': width '\u0663' is not a whole number of at least 0"),
    ("path,fps\na,2_5.0\n", {}, "line 2: 'a,2_5.0': fps '2_5.0' is not a number of at least 0"),
    (
        "path,label,start_seconds\na,0,1:75\n",
        {},
        "line 2: 'a,0,1:75': start_seconds '1:75' is not a time in seconds, or such as 1:23.5 or 1:02:03; leave it",
    ),
    (
        '[{"filename": "a.mp4", "label": 0, "start": "1_0"}]',
        {},
        "start '1_0' is not a time in seconds, or such as 1:23.5 or 1:02:03",
    ),
    ('{"a": 1, "b": {"c": 1, "c": 2}}', {}, "is not valid JSON: an object has the key 'c' twice; keep one"),
    (
        "path,fps\na,nan\n",
        {},
        "line 2: 'a,nan': fps 'nan' is not a number of at least 0; leave it empty if it is unknown",
    ),
    (
        "youtube_id,time_start,time_end\nx,1,\n",
        {},
        "line 2: 'x,1,': youtube_id, time_start and time_end must not be empty",
    ),
]

IN_ENTRY = [
    ('[{"filename": "a"}, 5]', {}, 'entry 2: \'5\': it needs an object like {"filename": "a.mp4", "label": [0]}'),
    ('[{"vid_name": "a", "label": 0}]', {}, "it needs filename (a video) or frame_dir (a folder of frames)"),
    ('[{"filename": "\\ud800"}]', {}, "it needs filename (a video) or frame_dir (a folder of frames)"),
    (
        '[{"filename": "a", "label": {"event": [1], "action": [2]}}]',
        {},
        "its labels come in groups (event, action), each with numbers of its own; choose one, as --set "
        "data.label_group=event does",
    ),
    (
        '[{"filename": "a", "label": {"event": [1]}}, {"filename": "b", "label": [2]}]',
        {"label_group": "event"},
        'entry 2: \'{"filename": "b", "label": [2]}\': its labels do not come in groups; leave label_group (\'event\')',
    ),
    (
        '[{"filename": "a", "label": {"event": [7]}}]',
        {"label_group": "event", "classes": SPORTS},
        "label 7 is none of the 4 classes",
    ),
    ('[{"filename": "a", "label": [true]}]', {}, "label True is not a class number, a class name or a list of them"),
    (
        '[{"filename": "a", "label": ["jump"]}]',
        {"classes": ["jumping"]},
        "'jump' is neither a class number nor one of the 1 class names; did you mean 'jumping'?",
    ),
    (
        '[{"filename": "a", "label": [7]}]',
        {"classes": SPORTS},
        'entry 1: \'{"filename": "a", "label": [7]}\': label 7 is none of the 4 classes',
    ),
    (
        '[{"frame_dir": "a", "total_frames": -1}]',
        {},
        "offset 0 and total_frames -1 must be whole numbers and at least 0",
    ),
]

IN_LIST = [
    ("", {}, "is empty; it needs one video a line"),
    ("\n \t\r\n", {}, "is empty; it needs one video a line"),
    ("path,label\n", {}, "is empty: it has a header and no rows"),
    ("[]", {}, "is empty; it needs one video a line"),
    ("[]", {"label_group": "event"}, "is empty; it needs one video a line"),
    ("a.mp4 1\n", {"label_group": "event"}, "has no groups of labels, as JSON lists of HVU do; leave label_group"),
    (
        '[{"filename": "a", "label": {"event": [1], "scene": []}}]',
        {"label_group": "scenes"},
        "has no labels of the group 'scenes'; did you mean 'scene'? Its groups are 'event', 'scene'",
    ),
    (b"a\0b", {}, "is no text file; a list is text, with one video a line"),
    ("path,label\n".encode("utf-16"), {}, "is UTF-16 text; save it as UTF-8"),
    ("path,label,label\na,1,2\n", {}, "two columns are called 'label'"),
    (
        "path,lable\na,1\n",
        {},
        "the header has 'lable'; did you mean 'label'? The columns of a manifest are path, label,",
    ),
    ('path,label\n"a"b,1\n', {}, "line 2: ',' expected after '\"'; mend the quotes of this row"),
    ('path\n\na\n"b\n', {}, "line 4: unexpected end of data; mend the quotes of this row"),
    ("path,label\na,1\n", {"list_format": "video"}, "is a manifest list; set list_format to manifest or auto"),
    ('[{"filename": "a"}]', {"list_format": "rawframe"}, "is a json list; set list_format to json or auto"),
    ("Tags,youtube_id,time_start,time_end\nx|y,a,1,2\n", {}, "has the tags of HVU, whose classes come in groups"),
    (
        "label,youtube_id,time_start\nx,a,1\n",
        {},
        "has a column youtube_id but none called 'time_end'; annotations of Kinetics have youtube_id, time_start,",
    ),
    ("a.mp4 0\n", {"list_format": "json"}, "is not valid JSON: Expecting value"),
    ('[{"filename": "a.mp4", "label": [0]},\n', {}, "is not valid JSON: "),
    ("[{" * 100_000, {}, "is not valid JSON: "),
    ('{"x": {"annotations": {}}}', {}, "is a JSON dict with the keys 'x'; it needs a list like"),
]


@pytest.mark.parametrize(("text", "options", "expected"), IN_LINE + IN_ENTRY + IN_LIST)
def test_what_is_not_understood_is_named(folder, text, options, expected):
    assert expected in refusal(folder, text, **options)


def test_a_long_line_is_shown_in_part(folder):
    assert "'" + "a" * 160 + "...': " in refusal(folder, "a" * 500 + " 7\n", classes=SPORTS)


def test_lists_that_cannot_be_opened_are_refused(folder):
    with pytest.raises(
        DualFormerError, match=r"list '.*nothing.csv' not found; name a list .* with dualformer prepare"
    ):
        read_manifest(str(folder / "nothing.csv"))
    with pytest.raises(DualFormerError, match=r"is a folder; dualformer prepare .*, and give the lists that it makes"):
        read_manifest(str(folder))
    with pytest.raises(DualFormerError, match=r"list '/dev/null' is not a regular file"):
        read_manifest("/dev/null")
    with pytest.raises(DualFormerError, match=r"list 'a\\x00b' cannot be read: embedded null byte"):
        read_manifest("a\0b")


@pytest.mark.parametrize(
    ("samples", "list_format", "expected"),
    [
        ([Sample("run 7", 1, (1,))], "video", "'run 7' cannot be written to"),
        ([Sample("a\nb", 1, (1,))], "video", "the rows cannot be written as a video list; write a manifest"),
        ([Sample(" a.mp4", 1, (1,))], "video", "' a.mp4' cannot be written to"),
        ([Sample("a.mp4", 1, (1,), start=3)], "video", "'a.mp4' cannot be written to"),
        ([Sample("path")], "video", "the rows cannot be written as a video list; write a manifest"),
        ([Sample("clip,5")], "video", "write a manifest"),
        ([Sample("a.mp4", 1, (1,)), Sample("b.mp4")], "video", "line 2: 'b.mp4'"),
        ([Sample("a", 1, (1,))], "rawframe", "'a' has no number of frames, which a rawframe list needs"),
        ([Sample("\ufeffa.mp4", 1, (1,))], "video", "'\\ufeffa.mp4' cannot be written to"),
        ([Sample("a\0", 1, (1,))], "json", "no file can have the name 'a\\x00'"),
    ],
)
def test_rows_that_an_older_list_cannot_hold_are_refused(tmp_path, samples, list_format, expected):
    with pytest.raises(DualFormerError, match=re.escape(expected)):
        write_list(Manifest(samples=samples), tmp_path / "out", list_format)
    assert os.listdir(tmp_path) == []


def test_several_labels_do_not_fit_a_list_with_one_a_row(tmp_path):
    manifest = Manifest(samples=[Sample("a.mp4", None, (1, 2))], is_multi_label=True)
    with pytest.raises(DualFormerError, match=r"a video list has one label a row, and this list is multi-label"):
        write_list(manifest, tmp_path / "out", "video")


@pytest.mark.parametrize("path", ["", "a\0b", "\ud800"])
def test_a_manifest_refuses_names_that_no_file_has(tmp_path, path):
    with pytest.raises(DualFormerError, match=re.escape(f"no file can have the name {path!r}")):
        write_manifest(Manifest(samples=[Sample(path)], root=str(tmp_path)), tmp_path / "a.csv")


def test_written_json_is_what_other_readers_expect(folder):
    samples = [Sample("a.mp4", 3, (3,)), Sample("b", 0, (0,), start=2, num_frames=9), Sample("c", status="broken: x")]
    assert write_list(Manifest(samples=samples), folder / "out.json", "json") == 1
    assert json.loads((folder / "out.json").read_text()) == [
        {"filename": "a.mp4", "label": [3]},
        {"frame_dir": "b", "total_frames": 9, "offset": 2, "label": [0]},
    ]


# Matching classes


@pytest.mark.parametrize("source", shipped_class_lists())
def test_a_shipped_list_matches_its_usual_spellings_and_any_order(source):
    classes = load_class_names(source)
    assert match_classes(classes, classes) is None
    for respell in (
        lambda name: name.replace(" ", "_"),
        lambda name: f'"{name}"',
        lambda name: re.sub("['()]", "", name).replace(" ", "_").lower(),
    ):
        assert match_classes([respell(name) for name in classes], classes) is None
    order = random.Random(0).sample(range(len(classes)), len(classes))
    match = match_classes([classes[index] for index in order], classes)
    assert match.is_permutation
    assert match.mapping == tuple(order)
    assert match.message == (
        f"data and model have the same {len(classes)} classes in another order; "
        f"{classes[order[0]]!r} is class 0 of the data and {order[0]} of the model"
    )


def test_classes_that_only_one_side_has_are_named():
    match = match_classes(["jump", "Run fast", "swim"], ["run_fast", "walk", "jump"])
    assert (match.mapping, match.unmatched, match.missing) == ((2, 0, None), ("swim",), ("walk",))
    assert not match.is_permutation
    assert match.message == (
        "2 of the 3 classes of the data are among the 3 of the model; the model does not have 'swim'; "
        "the data does not have 'walk'; 'jump' is class 0 of the data and 2 of the model"
    )
    fewer = match_classes(["a"], ["a", *"bcdefgh"])
    assert fewer.mapping == (0,)
    assert fewer.message.endswith("the data does not have 'b', 'c', 'd', 'e', 'f' and 2 more")
    assert match_classes(["x"], ["y"]).message == ("no class of the data ('x') is among the 1 of the model ('y')")


def test_names_that_differ_in_spelling_alone_are_told_apart_by_it():
    assert match_classes(["a b", "A_b"], ["a b", "A_b"]) is None
    assert match_classes(["a b", "A_b"], ["A_b", "a b"]).mapping == (1, 0)
    assert match_classes(["A B"], ["a b", "A_b"]).mapping == (None,)
    assert match_classes(["a b", "A_b"], ["a b"]).mapping == (0, None)
