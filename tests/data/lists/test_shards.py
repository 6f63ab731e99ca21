"""Tar shards as lists: videos and labels of the archives, by the rules of all lists, and what is refused of them."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from tar_shards import write_shard
from web_server import WebServer, silence, status

from dualformer_cli.data.lists import shards
from dualformer_cli.data.lists.labelled_lists import read_lists
from dualformer_cli.data.lists.manifest import check_list, read_manifest
from dualformer_cli.errors import DualFormerError
from dualformer_cli.video.remote_files import open_file
from dualformer_cli.video.tar_members import opened


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an empty folder `s`; the cache is in it."""
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s").mkdir()
    return tmp_path


@pytest.fixture
def store() -> Iterator[Any]:
    """fsspec's file system in memory, where a password is part of the path."""
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


def rows(source: str, **options: Any) -> list[tuple[str, tuple[int, ...]]]:
    return [(sample.path, sample.labels) for sample in read_manifest(source, **options).samples]


def test_labels_are_those_beside_each_video_in_the_order_of_the_archives() -> None:
    write_shard(Path("s/x-10.tar"), [("b.json", '{"label": 2}'), ("b.mp4", ""), ("a.v2.cls", "0\n"), ("a.v2.mkv", "")])
    write_shard(
        Path("s/x-9.tar"),
        [("d/c.mp4", ""), ("d/c.cls", "1"), ("d/c.json", '{"label": 7}'), ("d/c.txt", "a caption"), ("x.jpg", "")],
    )
    expected = [("x-9.tar/d/c.mp4", (1,)), ("x-10.tar/b.mp4", (2,)), ("x-10.tar/a.v2.mkv", (0,))]
    assert rows("s/x-*.tar") == rows("s/x-{9..10}.tar") == expected
    manifest = read_manifest("s/x-*.tar")
    assert manifest.files == [f"s/{path}" for path, _ in expected]
    assert [sample.label for sample in manifest.samples] == [1, 2, 0]
    assert manifest.class_names is None
    assert not manifest.is_multi_label
    assert manifest.fingerprint == read_manifest(str(Path("s").absolute() / "x-{9..10}.tar")).fingerprint
    assert rows("s/x-9.tar", root="s") == [("x-9.tar/d/c.mp4", (1,))]
    Path("elsewhere").mkdir()
    assert read_manifest("s/x-9.tar", root="elsewhere").files == ["s/x-9.tar/d/c.mp4"]


def test_names_that_lead_out_of_an_archive_are_found_in_it() -> None:
    names = ("/data/1.mp4", "../clips/2.mp4", "./3.mp4", "a/../../4.mp4", "//5.mp4")
    labels = [(f"{name[:-4]}.cls", str(number)) for number, name in enumerate(names)]
    write_shard(Path("s/a.tar"), [*((name, name) for name in names), *labels])
    manifest = read_manifest("s/a.tar")
    inside = ["data/1.mp4", "clips/2.mp4", "3.mp4", "4.mp4", "5.mp4"]  # as GNU tar extracts them, without -P
    assert [(sample.path, sample.label) for sample in manifest.samples] == [
        (f"a.tar/{name}", number) for number, name in enumerate(inside)
    ]
    for file, name in zip(manifest.files, names, strict=True):
        with opened(file) as (archive, start, end):
            archive.seek(start)
            assert archive.read(end - start) == name.encode()


def test_names_of_classes_are_known_from_classes_txt_or_taken_in_order() -> None:
    write_shard(Path("s/a.tar"), [("1.mp4", ""), ("1.cls", "run"), ("2.mp4", ""), ("2.json", '{"label": "jump"}')])
    manifest = read_manifest("s/a.tar")
    assert manifest.class_names == ["jump", "run"]
    assert [sample.labels for sample in manifest.samples] == [(1,), (0,)]
    assert manifest.warnings == ("list 's/a.tar' names its labels: 2 classes in the order of their names (jump, run)",)
    Path("s/classes.txt").write_text("run\nrest\njump\n")
    assert [labels for _, labels in rows("s/*.tar")] == [(0,), (2,)]
    Path("s/classes.txt").write_text("run\nrest\n")
    with pytest.raises(DualFormerError) as caught:
        read_manifest("s/a.tar")
    assert str(caught.value) == (
        "list 's/a.tar', the label of 'a.tar/2.mp4': 'jump': 'jump' is neither a class number nor one of the 2 class "
        "names"
    )


def test_several_labels_make_a_multi_label_list() -> None:
    write_shard(
        Path("s/a.tar"),
        [("1.mp4", ""), ("1.json", '{"label": [3, 1]}'), ("2.mp4", ""), ("2.cls", "0"), ("3.mp4", "")],
    )
    manifest = read_manifest("s/a.tar")
    assert manifest.is_multi_label
    assert [(sample.label, sample.labels) for sample in manifest.samples] == [(None, (3, 1)), (None, (0,)), (None, ())]
    write_shard(Path("s/one.tar"), [("1.mp4", ""), ("1.json", '{"label": [3]}')])
    assert read_manifest("s/one.tar").is_multi_label


def test_videos_without_a_label_are_named_unless_none_has_one() -> None:
    unlabelled = [("1.mp4", ""), ("2.mp4", ""), ("2.json", '{"caption": "a dog"}')]
    write_shard(Path("s/a.tar"), unlabelled)
    assert read_manifest("s/a.tar").warnings == ()
    write_shard(Path("s/a.tar"), [*unlabelled, ("3.mp4", ""), ("3.cls", "0")])
    assert rows("s/a.tar") == [("a.tar/1.mp4", ()), ("a.tar/2.mp4", ()), ("a.tar/3.mp4", (0,))]
    assert read_manifest("s/a.tar").warnings == (
        "list 's/a.tar': 2 videos without a .cls or a .json with \"label\", such as 'a.tar/1.mp4'",
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("1.cls", "-1")], "list 's/a.tar', the label of 'a.tar/1.mp4': '-1': label -1 is negative"),
        ([("1.cls", "1.5")], "list 's/a.tar', the label of 'a.tar/1.mp4': '1.5': '1.5' is not a class number"),
        ([("1.cls", b"\xff\xfe\0")], "'s/a.tar/1.cls' is not UTF-8 text; it should hold a label"),
        ([("1.cls", b"7" * 2_000_000)], "'s/a.tar/1.cls' has 2,000,000 bytes, too many for a label"),
        ([("1.json", "{label: 1}")], "'s/a.tar/1.json' is not JSON; it should hold an object with a label"),
        ([("1.json", json.dumps({"label": {"id": 1}}))], "'s/a.tar/1.json': \"label\" is neither a number nor a name"),
        ([("1.cls", "1"), ("1.mp4", "")], "'s/a.tar' has two members called '1.mp4'; rename one"),
        ([("1.cls", "1"), ("1.cls", "0")], "'s/a.tar' has two members called '1.cls'; rename one"),
    ],
)
def test_labels_that_are_none_and_names_that_come_twice_are_refused(members: Any, message: str) -> None:
    write_shard(Path("s/a.tar"), [("0.mp4", ""), ("0.cls", "0"), ("1.mp4", ""), *members])
    with pytest.raises(DualFormerError, match=re.escape(message)):
        read_manifest("s/a.tar")


def test_archives_that_are_not_there_or_cannot_be_read_are_refused() -> None:
    write_shard(Path("s/a-0.tar"), [("0.mp4", ""), ("0.cls", "0")])
    write_shard(Path("s/texts.tar"), [("0.txt", "")])
    whole = Path("s/a-0.tar").read_bytes()
    Path("s/cut.tar").write_bytes(whole[:700])
    Path("s/a.tar.gz").write_bytes(b"\x1f\x8b\x08" + bytes(600))
    for source, message in {
        "s/b.tar": "list 's/b.tar': there is no archive 's/b.tar'; mend the name or the range",
        "s/a-{0..1}.tar": "list 's/a-{0..1}.tar': there is no archive 's/a-1.tar'; mend the name or the range",
        "s/b*.tar": "list 's/b*.tar': the pattern matches no archive",
        "s/texts.tar": "list 's/texts.tar': the archives hold no videos; name others",
        "s/cut.tar": "'s/cut.tar': the archive is cut off or damaged after '0.mp4'; fetch or pack it again",
        "s/a.tar.gz": "'s/a.tar.gz': a compressed archive: no member of it can be read alone",
    }.items():
        with pytest.raises(DualFormerError, match="^" + re.escape(message)):
            read_manifest(source)
    with pytest.raises(DualFormerError, match=r"list 's/a-0\.tar' has no groups of labels"):
        read_manifest("s/a-0.tar", label_group="scene")


def test_archives_on_other_machines_are_the_list_that_they_are_on_a_disk(store: Any) -> None:
    write_shard(Path("s/x-10.tar"), [("b.json", '{"label": "jump"}'), ("b.mp4", "two")])
    write_shard(Path("s/x-9.tar"), [("d/c.mp4", "one"), ("d/c.cls", "run"), ("d/e.mp4", "none")])
    for path in Path("s").iterdir():
        store.pipe(f"/me:hush@bucket/s/{path.name}", path.read_bytes())
    local = read_manifest("s/x-*.tar")
    for source in ("memory://me:hush@bucket/s/x-*.tar", "memory://me:hush@bucket/s/x-{9..10}.tar"):
        remote = read_manifest(source)
        assert list(remote.samples) == list(local.samples)
        assert (remote.class_names, remote.fingerprint) == (["jump", "run"], local.fingerprint)
        start = 512 + 512  # of the second member's content: after its header, and a first member of less than a block
        assert list(remote.files) == [
            f"memory://me:hush@bucket/s/{path}#bytes={first}-{end}"
            for path, first, end in (
                ("x-9.tar/d/c.mp4", 512, 515),
                ("x-9.tar/d/e.mp4", 4 * 512 + 512, 4 * 512 + 516),
                ("x-10.tar/b.mp4", start + 512, start + 515),
            )
        ]
        assert [remote.files[row] for row in range(3)] == list(remote.files)
        assert not any("hush" in warning for warning in remote.warnings)
        assert len(remote.warnings) == 2
    store.pipe("/me:hush@bucket/s/classes.txt", b"run\nrest\njump\n")
    remote = read_manifest("memory://me:hush@bucket/s/x-*.tar")
    assert ([sample.labels for sample in remote.samples], remote.class_names) == (
        [(0,), (), (2,)],
        ["run", "rest", "jump"],
    )
    kept = np.array([False, True, True])
    assert list(remote.files.kept(kept, remote.columns.paths.kept(kept))) == list(remote.files)[1:]


def test_archives_on_other_machines_that_cannot_be_had_or_read_are_refused(store: Any) -> None:
    whole = write_shard(Path("s/a.tar"), [("0.mp4", ""), ("0.cls", "9"), ("1.mp4", "")]).read_bytes()
    store.pipe("/bucket/s/a-0.tar", whole)
    store.pipe("/bucket/s/cut.tar", whole[:700])
    store.pipe("/bucket/s/classes.txt", b"<html>not here</html>")
    at = "memory://me:hush@bucket/s"
    for name in ("a-0.tar", "cut.tar", "classes.txt"):
        store.pipe(f"/me:hush@bucket/s/{name}", store.cat(f"/bucket/s/{name}"))
    shown = "memory://***@bucket/s"
    gone = "not found; is the address right? That of a folder ends in a slash"
    for source, message in {
        f"{at}/a-{{0..1}}.tar": f"'{shown}/a-1.tar': {gone}",
        f"{at}/b-*.tar": f"list '{shown}/b-*.tar': '{shown}/b-*.tar': the pattern matches no archives",
        f"{at}/cut.tar": f"'{shown}/cut.tar': the archive is cut off or damaged after '0.mp4'; fetch or pack it again",
    }.items():
        with pytest.raises(DualFormerError, match="^" + re.escape(message)):
            read_manifest(source)
    with pytest.raises(DualFormerError) as caught:
        read_manifest(f"{at}/a-0.tar", classes=["run"])
    assert str(caught.value).startswith(
        f"list '{shown}/a-0.tar', the label of 'a-0.tar/0.mp4': '9': label 9 is none of"
    )
    check_list(f"{at}/a-0.tar")
    with pytest.raises(DualFormerError, match=re.escape(f"list '{shown}/b.tar': '{shown}/b.tar': {gone}")):
        check_list(f"{at}/b.tar")
    with pytest.raises(DualFormerError, match=re.escape(f"'{shown}/a-0.tar' is not on this machine, and --offline")):
        check_list(f"{at}/a-0.tar", offline=True)


def test_what_was_read_of_an_archive_on_another_machine_is_kept_until_it_changes(
    store: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [("run/1.mp4", "one"), ("run/1.cls", "0"), ("2.mp4", "two")]
    store.pipe("/me:hush@bucket/a.tar", write_shard(Path("s/a.tar"), members).read_bytes())
    asked = []

    def noted(address: str) -> Any:
        asked.append(address)
        return open_file(address)

    def labels_and_files() -> list[tuple[tuple[int, ...], str]]:
        manifest = read_manifest(source)
        return [(sample.labels, file) for sample, file in zip(manifest.samples, manifest.files, strict=True)]

    source = "memory://me:hush@bucket/a.tar"
    monkeypatch.setattr(shards, "open_file", noted)
    expected = [((0,), f"{source}/run/1.mp4#bytes=512-515"), ((), f"{source}/2.mp4#bytes=2560-2563")]
    assert [labels_and_files() for _ in range(3)] == [expected] * 3
    assert asked == [source]
    (kept,) = (folder / "cache/shards").iterdir()
    assert "hush" not in kept.read_text() + kept.name
    for damage in ("", "[[1, 2, 3]]", "[1]", '[{"a": 1}, []]'):
        kept.write_text(damage)
        assert labels_and_files() == expected
    assert len(asked) == 5
    members[1] = ("run/1.cls", "1")
    store.pipe("/me:hush@bucket/a.tar", write_shard(Path("s/a.tar"), members).read_bytes())  # of the same size
    assert labels_and_files() == [((1,), expected[0][1]), expected[1]]
    assert len(asked) == 6
    monkeypatch.setattr(shards, "stamp_of", lambda address: (10240, ""))  # a server that names no version
    assert [len(labels_and_files()) for _ in range(2)] == [2, 2]
    assert len(asked) == 8


def test_a_list_that_cannot_be_read_does_not_wait_for_its_other_archives(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.on("/a-0.tar", status(404))
    web.on("/a-1.tar", silence(30))
    before = set(threading.enumerate())
    with pytest.raises(DualFormerError, match="not found"):
        read_manifest(f"{web.address}/a-{{0..1}}.tar")
    left = set(threading.enumerate()) - before
    assert left
    assert all(thread.daemon for thread in left)
    executors = sys.modules.get("concurrent.futures.thread")  # whose threads the interpreter waits for at its end
    assert not left & set(getattr(executors, "_threads_queues", ()))


def test_a_label_that_is_none_in_an_archive_on_another_machine_is_said_as_of_one_here(store: Any) -> None:
    store.pipe("/b/a.tar", write_shard(Path("s/a.tar"), [("1.mp4", ""), ("1.json", "{label: 1}")]).read_bytes())
    with pytest.raises(DualFormerError) as caught:
        read_manifest("memory://b/a.tar")
    assert str(caught.value) == "'memory://b/a.tar/1.json' is not JSON; it should hold an object with a label"


def test_prepare_refuses_archives_which_need_no_preparation() -> None:
    write_shard(Path("s/train.tar"), [("0.mp4", ""), ("0.cls", "0")])
    with pytest.raises(DualFormerError, match=r"'s/train\.tar' is a tar archive; train and eval read it as it is"):
        read_lists(["s/train.tar"])
