"""From a folder to manifests: what is written, refused, kept and taken up again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
from preparation_plans import plan_of

from dualformer_cli.data.lists.folders import STATE_FILE, read_folder
from dualformer_cli.data.lists.manifest import read_manifest
from dualformer_cli.data.prepare import conversions, findings, preparation
from dualformer_cli.data.prepare.journal import open_journal, remove_left_overs
from dualformer_cli.data.prepare.plan import target_names
from dualformer_cli.data.prepare.preparation import Team, help_prepare, prepare, preview
from dualformer_cli.data.prepare.work import unwatched
from dualformer_cli.documents.base import to_json
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.workers import WorkerTimeout

REPOSITORY = Path(__file__).resolve().parents[3]
NAMES = ["a b.mp4", 'it\'s "1", x.MP4', "-dash.mp4", "ünï\nnew.mp4", "sub/[1] (2) & #;.mp4"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> Path:
    """Three classes of five videos with names that break scripts, one broken file in each of two classes."""
    folder = tmp_path_factory.mktemp("own") / "my videos"
    number = 0
    for name in ("running, fast", "naïve 💃", "-x"):
        for file in NAMES:
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = clip_drawer(folder / "drawn.mp4", num_frames=9 + number, size=(48 + 8 * number, 48), fps=8 + number)
            drawn.rename(path)
            number += 1
    (folder / "-x" / "empty.mp4").write_bytes(b"")
    (folder / "naïve 💃" / "page.avi").write_text("<html>")
    return folder


@pytest.fixture
def own(videos: Path, tmp_path: Path) -> Path:
    """A copy of the videos."""
    return Path(shutil.copytree(videos, tmp_path / "my videos"))


@pytest.fixture
def run(here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """The function run(folder, **plan) -> summary, done in this process."""
    monkeypatch.setattr(preparation, "WorkerPool", here_pool)

    def run(folder: Path, said: list[str] | None = None, **options: Any) -> dict[str, Any]:
        root = str(options.pop("root", folder / "prepared"))
        team = options.pop("team", None)
        content = options.pop("content", None) or read_folder(str(folder), leave_out=[root])
        plan = plan_of(content, root, **{"shares": (0.6, 0.4), **options})
        say = [].append if said is None else said.append
        return to_json(prepare(plan, watch=unwatched, say=say, start=lambda _: None, team=team))

    return run


def tree(folder: Path, *, without: tuple[str, ...] = (STATE_FILE,)) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in without
    }


def test_manifests_hold_every_video_under_any_name(run: Any, own: Path) -> None:
    summary = run(own, shares=(0.6, 0.2, 0.2))
    assert summary["classes"] == ["-x", "naïve 💃", "running, fast"]
    assert (own / "prepared" / "classes.txt").read_text(encoding="utf-8").splitlines() == summary["classes"]
    found = {}
    for split in ("train", "val", "test"):
        manifest = read_manifest(str(own / "prepared" / f"{split}.csv"))
        assert manifest.fingerprint == summary["splits"][split]["fingerprint"]
        assert len(manifest) == summary["splits"][split]["videos"]
        for sample, file in zip(manifest.samples, manifest.files, strict=True):
            assert manifest.class_names is not None
            relative = os.path.relpath(file, own / "prepared" / os.pardir)
            assert relative.startswith(manifest.class_names[sample.label] + os.sep)
            found[relative] = sample
    assert len(found) == 17
    first = found["running, fast/a b.mp4"]
    assert (first.num_frames, first.fps, first.width, first.height, first.status) == (9, 8.0, 48, 48, "ok")
    assert first.duration_seconds == 1.125
    assert found["-x/empty.mp4"].status == "broken: the file is empty (0 bytes)"
    assert found["naïve 💃/page.avi"].status.startswith("broken: a web page")
    assert summary["status"] == {"ok": 15, "sequential_only": 0, "broken": 2}
    assert json.loads((own / "prepared" / "prepare.json").read_text()) == {
        key: value for key, value in summary.items() if key != "run"
    }


@pytest.mark.parametrize("convert", [None, "transcode", "frames"])
def test_a_second_run_changes_nothing_and_looks_at_nothing(
    run: Any, own: Path, convert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(own, convert=convert, check=True)
    before = tree(own)
    for module, name in ((findings, "check_video"), (conversions, "transcode"), (conversions, "extract_frames")):
        monkeypatch.setattr(module, name, None)
    again = run(own, convert=convert, check=True)
    assert tree(own) == before
    assert again["run"].get("converted", 0) == 0


def test_transcoded_videos_are_listed_with_the_times_of_their_sources(run: Any, own: Path) -> None:
    said: list[str] = []
    summary = run(own, said, convert="transcode", short_side=32, formats=("json",))
    assert summary["run"] == {"converted": 15, "kept": 0, "failed": 0}
    assert any("15 videos to transcode: about" in line and "GB free" in line for line in said)
    manifest = read_manifest(str(own / "prepared" / "train.csv"))
    for sample, file in zip(manifest.samples, manifest.files, strict=True):
        if sample.is_usable:
            assert sample.path.startswith("videos/")
            assert sample.height == 32
            assert os.path.isfile(file)
        else:
            assert sample.path.startswith("../")
    first = next(
        s
        for split in ("train", "val")
        for s in read_manifest(str(own / "prepared" / f"{split}.csv")).samples
        if s.path == 'videos/running, fast/it\'s "1", x.mp4'
    )
    assert (first.num_frames, first.fps, first.width) == (10, 9.0, 36)


def test_frames_are_listed_in_the_rawframe_form(run: Any, own: Path) -> None:
    for name in ("running, fast", "naïve 💃", "-x"):
        (own / name / "ünï\nnew.mp4").rename(own / name / "uni.mp4")
    run(own, convert="frames", quality=90, formats=("rawframe", "rawframe_offset"))
    manifest = read_manifest(str(own / "prepared" / "train.csv"))
    usable = [sample for sample in manifest.samples if sample.is_usable]
    assert all(len(os.listdir(own / "prepared" / sample.path)) == sample.num_frames for sample in usable)
    for name, list_format in (("rawframes", "rawframe"), ("rawframes_offset", "rawframe_offset")):
        listed = read_manifest(str(own / "prepared" / f"train_list_{name}.txt"), list_format=list_format)
        assert [(s.path, s.label, s.num_frames) for s in listed.samples] == [
            (s.path, s.label, s.num_frames) for s in usable
        ]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"formats": ("video",)}, "cannot be written .* list"),  # a line break in a name
        ({"formats": ("rawframe",)}, "--formats rawframe needs folders of frames: add --frames"),
        ({"formats": ("video",), "convert": "frames"}, "--formats video needs video files"),
    ],
)
def test_lists_that_cannot_hold_the_names_are_refused_before_the_work(
    run: Any, own: Path, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(DualFormerError, match=complaint):
        run(own, **options)
    assert not (own / "prepared").exists()


def test_other_lists_are_replaced_only_when_asked(run: Any, own: Path) -> None:
    run(own, shares=(0.6, 0.2, 0.2))
    with pytest.raises(DualFormerError, match=r"made with other options \(seed was 0, now 1\); .*--overwrite"):
        run(own, shares=(0.6, 0.2, 0.2), seed=1)
    before = tree(own)
    (own / "-x" / "more.mp4").write_bytes(b"")
    with pytest.raises(DualFormerError, match="videos or labels have changed"):
        run(own, shares=(0.6, 0.2, 0.2))
    (own / "-x" / "more.mp4").unlink()
    assert tree(own) == before
    run(own, shares=(0.6, 0.4), overwrite=True)
    assert not (own / "prepared" / "test.csv").exists()  # ours, and of an earlier run


def test_files_that_are_not_ours_are_kept(run: Any, own: Path) -> None:
    (own / "prepared" / "videos" / "-x").mkdir(parents=True)
    (own / "prepared" / "train.csv").write_text("mine")
    with pytest.raises(DualFormerError, match=r"'train.csv', which prepare did not write; .*--root"):
        run(own)
    (own / "prepared" / "train.csv").unlink()
    (own / "prepared" / "videos" / "-x" / "a b.mp4").write_text("mine")
    with pytest.raises(DualFormerError, match=r"a b\.mp4' is there, and prepare did not write it"):
        run(own, convert="transcode")
    assert (own / "prepared" / "videos" / "-x" / "a b.mp4").read_text() == "mine"
    run(own, convert="transcode", overwrite=True)
    assert (own / "prepared" / "videos" / "-x" / "a b.mp4").read_bytes() != b"mine"


@pytest.mark.parametrize("name", ["train.csv", "classes.txt", "prepare.json"])
def test_a_folder_of_others_stays_as_it_is(run: Any, own: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("mine")
    with pytest.raises(DualFormerError, match="which prepare did not write"):
        run(own, root=tmp_path / "out")
    assert tree(tmp_path / "out", without=()) == {name: b"mine"}  # and no journal


@pytest.mark.parametrize("name", ["train.csv", "classes.txt", "prepare.json"])
def test_a_list_that_is_a_folder_is_refused_before_the_work(run: Any, own: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "out" / name).mkdir(parents=True)
    with pytest.raises(DualFormerError, match=f"{name}': it is a folder"):
        run(own, root=tmp_path / "out", overwrite=True)
    assert os.listdir(tmp_path / "out") == [name]


def test_converted_videos_never_replace_their_sources(run: Any, tmp_path: Path, own: Path) -> None:
    shutil.move(own, tmp_path / "out" / "videos")
    before = tree(tmp_path / "out" / "videos")
    with pytest.raises(DualFormerError, match=r"the videos are in '.*videos': name another folder to write into"):
        run(tmp_path / "out" / "videos", root=tmp_path / "out", convert="transcode", overwrite=True)
    assert tree(tmp_path / "out" / "videos") == before


def test_a_list_that_someone_edited_is_kept(run: Any, own: Path) -> None:
    run(own)
    with open(own / "prepared" / "train.csv", "a", encoding="utf-8") as file:
        file.write("x.mp4,0,,,,,,ok\n")
    with pytest.raises(DualFormerError, match=r"'train\.csv' .* has been changed since prepare wrote it"):
        run(own)


def test_other_settings_do_not_replace_videos_unasked(run: Any, own: Path) -> None:
    run(own, convert="transcode", short_side=32)
    for file in ("prepare.json", "classes.txt", "train.csv", "val.csv"):
        (own / "prepared" / file).unlink()
    with pytest.raises(DualFormerError, match=r"made with other settings \(transcode short_side=32 quality=23\)"):
        run(own, convert="transcode", short_side=24)
    assert run(own, convert="transcode", short_side=24, overwrite=True)["run"]["converted"] == 15
    assert run(own, convert="transcode", short_side=24)["run"]["kept"] == 15


def test_a_source_that_changed_is_converted_again(run: Any, own: Path, clip_drawer: Any) -> None:
    run(own, convert="transcode")
    clip_drawer(own / "-x" / "a b.mp4", num_frames=30, size=(48, 48))
    assert run(own, convert="transcode", overwrite=True)["run"] == {"converted": 1, "kept": 14, "failed": 0}


@pytest.mark.parametrize(("module", "step"), [(findings, "check_video"), (conversions, "transcode")])
def test_whatever_a_worker_raises_costs_that_video_alone(
    run: Any, own: Path, module: ModuleType, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = getattr(module, step)

    def odd(job: Any) -> Any:
        if "-dash" in str(job):
            raise IndexError("tuple index out of range")
        return done(job)

    monkeypatch.setattr(module, step, odd)
    summary = run(own, convert="transcode")
    assert summary["status"] == {"ok": 12, "sequential_only": 0, "broken": 5}
    rows = [row for split in ("train", "val") for row in read_manifest(str(own / "prepared" / f"{split}.csv")).samples]
    reasons = {row.status for row in rows if "-dash" in row.path}
    begin = "broken: " if step == "check_video" else "broken: cannot be converted: "
    assert reasons == {f"{begin}unexpected IndexError: tuple index out of range; -v shows where"}


def test_a_check_of_whole_files_is_known_to_a_run_that_asks_for_less(
    run: Any, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(own, check=True)
    monkeypatch.setattr(findings, "check_video", None)
    assert run(own, overwrite=True)["status"] == {"ok": 15, "sequential_only": 0, "broken": 2}


def test_a_video_whose_decoder_was_given_up_is_tried_again(
    run: Any, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = findings.check_video

    def slow(job: Any) -> Any:
        if "-dash" in job.path:
            raise WorkerTimeout(job, 20.0)
        return right(job)

    with monkeypatch.context() as patch:
        patch.setattr(findings, "check_video", slow)
        assert run(own)["status"] == {"ok": 12, "sequential_only": 0, "broken": 5}
    assert run(own)["status"] == {"ok": 15, "sequential_only": 0, "broken": 2}


def test_copies_of_an_earlier_version_are_made_again_once(run: Any, own: Path) -> None:
    run(own, convert="transcode")
    journal, said = own / "prepared" / STATE_FILE, list[str]()
    lines = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    old = [{key: value for key, value in line.items() if key != "recipe"} for line in lines]  # as 0.1.0 wrote them
    journal.write_text("".join(json.dumps(line) + "\n" for line in old), encoding="utf-8")
    assert run(own, said, convert="transcode")["run"] == {"converted": 15, "kept": 0, "failed": 0}
    assert [line for line in said if "15 copies were made by an earlier version" in line]
    assert run(own, said, convert="transcode")["run"] == {"converted": 0, "kept": 15, "failed": 0}


def test_a_torn_line_of_the_journal_costs_only_its_step(run: Any, own: Path) -> None:
    run(own, convert="transcode")
    before = tree(own)
    journal = own / "prepared" / STATE_FILE
    data = journal.read_bytes()
    journal.write_bytes(data[: data.rindex(b'{"step": "done"') + 40])
    (own / "prepared" / "videos" / "-x" / ".a.0123abcd.part.mp4").write_bytes(b"half")
    assert run(own, convert="transcode")["run"] == {"converted": 1, "kept": 14, "failed": 0}
    assert tree(own) == before


def test_left_overs_are_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a" / ".b.0123abcd.part").mkdir(parents=True)
    for name in (
        "a/.x.89abcdef.part.mp4",
        "a/.b.0123abcd.part/img_00001.jpg",
        "a/x.part",
        "a/.hidden",
        "a/y.0123abcd.part",
    ):
        (tmp_path / name).write_bytes(b"x")
    assert remove_left_overs(str(tmp_path)) == 2
    assert sorted(os.listdir(tmp_path / "a")) == [".hidden", "x.part", "y.0123abcd.part"]


def test_only_one_process_writes_a_folder(run: Any, own: Path) -> None:
    (own / "prepared").mkdir()
    with (
        open_journal(str(own / "prepared" / STATE_FILE)),
        pytest.raises(DualFormerError, match=r"another dualformer prepare is at work in .*--root"),
    ):
        run(own)


def test_a_file_system_without_locks_still_prepares(
    run: Any, own: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    run(own)
    assert "(Function not implemented): a second process could write it too" in caplog.text


def test_the_disk_is_asked_first(run: Any, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DualFormerError, match=r"kB are needed in '.*', and 1\.0 kB are free; .*--short-side"):
        run(own, convert="transcode")
    assert not (own / "prepared" / "videos").exists()


def test_nothing_readable_is_an_error(run: Any, tmp_path: Path) -> None:
    for name in ("a/1.mp4", "b/2.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        DualFormerError, match=r"none of the 2 videos can be read; the first, .*1\.mp4': the file is empty"
    ):
        run(tmp_path)


def test_the_folder_of_the_videos_is_not_written_into(run: Any, own: Path) -> None:
    with pytest.raises(DualFormerError, match="name another folder to write into with --root"):
        run(own, content=read_folder(str(own)), root=own)


def as_team(own: Path, root: Path, size: int, run: Any, **options: Any) -> dict[str, Any]:
    """Prepare a folder in several threads that each think to be one of several processes."""
    barrier = threading.Barrier(size, timeout=60)
    content = read_folder(str(own), leave_out=[str(root)])
    plan = plan_of(content, root, shares=(0.6, 0.4), **options)
    with ThreadPoolExecutor(size) as threads:
        helpers = [
            threads.submit(help_prepare, plan, team=Team(rank=rank, size=size, wait=barrier.wait))
            for rank in range(1, size)
        ]
        summary: dict[str, Any] = run(own, root=root, team=Team(size=size, wait=barrier.wait), **options)
        for helper in helpers:
            helper.result()
    return summary


def test_a_team_writes_what_one_process_writes(run: Any, own: Path, tmp_path: Path) -> None:
    size, options = 3, {"convert": "transcode", "short_side": 32}
    alone = run(own, root=tmp_path / "alone", **options)
    summary = as_team(own, tmp_path / "team", size, run, **options)
    assert {**summary, "root": alone["root"]} == alone
    assert summary["run"] == {"converted": 15, "kept": 0, "failed": 0}
    ours = tree(tmp_path / "team", without=(STATE_FILE, "prepare.json"))
    assert ours == tree(tmp_path / "alone", without=(STATE_FILE, "prepare.json"))  # and no journal but the first's
    again = as_team(own, tmp_path / "team", size, run, **options)
    assert again["run"] == {"converted": 0, "kept": 15, "failed": 0}


def test_what_a_stopped_team_has_done_is_taken_over(run: Any, own: Path, tmp_path: Path) -> None:
    root, options = tmp_path / "out", {"convert": "transcode", "short_side": 32}
    content = read_folder(str(own), leave_out=[str(root)])
    plan = plan_of(content, root, shares=(0.6, 0.4), **options)
    root.mkdir()
    help_prepare(plan, team=Team(rank=1, size=3))  # its share, and nobody else is there
    (journal,) = root.glob(".dualformer-prepare.*.jsonl")
    done = journal.read_text().count('"done"')
    assert 3 < done < 7
    summary = run(own, root=root, **options)
    assert summary["run"] == {"converted": 15 - done, "kept": done, "failed": 0}
    assert not journal.exists()


def test_a_journal_tells_what_keeps_it_from_being_written_and_nothing_else(tmp_path: Path) -> None:
    def fail(path: Path, error: OSError) -> None:
        with open_journal(str(path / STATE_FILE)):
            raise error

    with pytest.raises(DualFormerError, match=r"cannot write in .*: no space left on device; free some space, or name"):
        fail(tmp_path, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(PermissionError, match="/a/worker"):  # of something else than the journal
        fail(tmp_path, PermissionError(errno.EACCES, "Permission denied", "/a/worker"))
    (tmp_path / "b" / STATE_FILE).mkdir(parents=True)
    with pytest.raises(DualFormerError, match=r"cannot write in .*/b': is a directory; name another folder with --r"):
        fail(tmp_path / "b", OSError())


def test_look_alikes_across_splits_are_reported(run: Any, own: Path) -> None:
    for number in range(4):
        shutil.copy(own / "-x" / "a b.mp4", own / "naïve 💃" / f"copy {number}.mp4")
    summary = run(own)
    found = summary["look_alikes"]
    assert found["pairs"] >= 1
    assert found["examples"][0]["bits"] == 0
    assert {found["examples"][0][side] for side in ("first_split", "second_split")} == {"train", "val"}


def test_look_alikes_stay_in_one_split_when_asked(run: Any, tmp_path: Path) -> None:
    own, rng = tmp_path / "own", np.random.default_rng(0)
    for number in range(8):
        folder = own / "ab"[number % 2] / f"video {number}"
        folder.mkdir(parents=True)
        for frame in range(4):
            grey = PIL.Image.fromarray(rng.integers(0, 256, (8, 9), np.uint8))
            grey.resize((72, 64), PIL.Image.Resampling.NEAREST).save(folder / f"{frame}.png")
    for number in range(4):
        shutil.copytree(own / "a" / "video 0", own / "b" / f"copy {number}")
    before = run(own, root=tmp_path / "before")
    assert before["look_alikes"]["pairs"]
    said: list[str] = []
    summary = run(own, said, root=tmp_path / "after", group_look_alikes=True)
    assert said[0].startswith("note: 5 videos look like another one")
    assert summary["look_alikes"]["pairs"] == 0
    (note,) = [message for message in summary["messages"] if "look like another one" in message]
    assert note == "5 videos look like another one and stay with it: 1 group, the largest of 5 videos"
    listed = {split: read_manifest(str(tmp_path / "after" / f"{split}.csv")).files for split in ("train", "val")}
    holding = [split for split, files in listed.items() if any("copy" in file or "video 0" in file for file in files)]
    assert len(holding) == 1
    assert sum(map(len, listed.values())) == 12
    again = run(own, root=tmp_path / "again", group_look_alikes=True)
    assert again["files"] == summary["files"]
    with pytest.raises(DualFormerError, match="group_look_alikes was True, now False"):
        run(own, root=tmp_path / "after")


def test_a_preview_writes_nothing_and_tries_a_few(run: Any, own: Path) -> None:
    before = tree(own)
    plan = plan_of(read_folder(str(own)), own / "prepared", shares=(0.6, 0.4), convert="transcode")
    document = to_json(preview(plan))
    assert document["estimate"]["videos"] == 17
    assert document["estimate"]["bytes"] > 0
    assert sum(split["videos"] for split in document["splits"].values()) == 17
    assert tree(own) == before


def test_multi_label_tables_become_multi_label_manifests(run: Any, own: Path) -> None:
    (own / "t.csv").write_text('file,labels\n"running, fast/a b.mp4",x;y\n-x/a b.mp4,y\n-x/-dash.mp4,x\n')
    run(own, content=read_folder(str(own), multi_label=True), formats=("multilabel_video",), shares=(1.0, 0.0))
    manifest = read_manifest(str(own / "prepared" / "train.csv"))
    assert manifest.is_multi_label
    assert sorted(sample.labels for sample in manifest.samples) == [(0,), (0, 1), (1,)]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.avi", "b/x.avi", "c"], ["a/x.mp4", "b/x.mp4", "c.mp4"]),
        (["x.avi", "x.mp4", "y.mov"], ["x.avi.mp4", "x.mp4.mp4", "y.mp4"]),
    ],
)
def test_results_have_names_of_their_own(paths: list[str], names: list[str]) -> None:
    assert target_names(paths, ".mp4") == names


def test_names_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(DualFormerError, match=r"'x\.avi' and 'x\.avi\.mkv' would both become 'x\.avi\.mp4'"):
        target_names(["x.avi", "x.mov", "x.avi.mkv"], ".mp4")


def test_names_that_no_file_can_have_are_refused_before_the_work() -> None:
    paths = [f"a/{'ü' * 125}{suffix}" for suffix in (".avi", ".mkv")]  # 254 bytes each
    assert target_names(paths[:1], ".mp4") == [f"a/{'ü' * 125}.mp4"]
    with pytest.raises(DualFormerError, match=r"avi' would become .*\.avi\.mp4', a name of 258 bytes, and 255 are"):
        target_names(paths, ".mp4")


@pytest.mark.parametrize(("convert", "quality"), [("transcode", 23), ("frames", 95)])
def test_a_killed_run_is_finished_by_the_next_as_if_it_had_not_been(
    run: Any, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, convert: Any, quality: int
) -> None:
    for name in ("killed", "unbroken"):
        shutil.copytree(videos, tmp_path / name / "my videos")
    plan = {"convert": convert, "quality": quality, "shares": (0.8, 0.2)}
    monkeypatch.chdir(tmp_path / "unbroken")
    run(Path("my videos"), **plan)
    monkeypatch.chdir(tmp_path / "killed")
    assert 0 < kill_after_a_step("my videos", f"--{convert}") < 15, "killed too late to tell anything"
    assert not os.path.exists("my videos/prepared/train.csv")
    summary = run(Path("my videos"), **plan)
    assert summary["run"]["kept"] > 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "unbroken")


def test_what_a_worker_of_a_killed_run_leaves_while_the_next_one_works_is_deleted(
    run: Any, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = videos / "prepared" / ".late.0123abcd.part.mp4"
    write_lists = preparation.write_lists

    def write_late(*arguments: Any) -> None:
        left.touch()
        write_lists(*arguments)

    monkeypatch.setattr(preparation, "write_lists", write_late)
    run(videos)
    assert (videos / "prepared" / "train.csv").exists()
    assert not left.exists()


def kill_after_a_step(folder: str, option: str) -> int:
    """Run the command with its workers, kill it as soon as something is converted, and return how much was."""
    command = [sys.executable, "-m", "dualformer_cli", "prepare", folder, "--workers", "2", option]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    journal = Path(folder) / "prepared" / STATE_FILE

    def count() -> int:
        return journal.read_bytes().count(b'"step": "done"') if journal.exists() else 0

    deadline = time.monotonic() + 120
    while not count() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return count()


def test_a_split_that_gets_no_video_is_named_with_the_list_that_is_not_there(
    videos: Path, run: Any, tmp_path: Path
) -> None:
    clip = next(path for path in sorted(videos.rglob("*.mp4")))
    for label in ("a", "b"):
        (tmp_path / "own" / label).mkdir(parents=True)
        shutil.copy(clip, tmp_path / "own" / label / f"{label}.mp4")
    summary = run(tmp_path / "own", root=tmp_path / "lists")
    assert "too few videos for val: there is no val.csv; add videos, or do without" in summary["messages"]
    assert not (tmp_path / "lists" / "val.csv").exists()
