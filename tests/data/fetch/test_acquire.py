"""Datasets are fetched from a local server, from what the user put there, or the user is told what to do."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import random
import signal
import ssl
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from rar_writer import rar4, rar5
from web_server import Responder, WebServer, body, page, slowly, status

from dualformer_cli.data.datasets.catalogue import Catalogue, load_catalogue
from dualformer_cli.data.datasets.missing import count_present
from dualformer_cli.data.fetch.acquire import acquire
from dualformer_cli.data.fetch.http import Patience
from dualformer_cli.data.fetch.inventory import describe, state_of
from dualformer_cli.data.fetch.items import plan, select
from dualformer_cli.documents.download import FilesOutcome
from dualformer_cli.errors import DownloadError

HASTY = Patience(connect_seconds=2.0, read_seconds=5.0, retries=6, back_off_seconds=0.01, longest_wait_seconds=2.0)
NOISE = {name: random.Random(name).randbytes(20_000) for name in "abcdef"}
PUBLISHED = [
    ("hmdb51", "splits", ["test_train_splits.rar"]),
    ("hmdb51", "videos", ["hmdb51_org.rar"]),
    ("ucf101", "splits", ["UCF101TrainTestSplits-RecognitionTask.zip"]),
    ("ucf101", "videos", ["UCF101.rar", "UCF101_videos.zip"]),
]
"""Files that the small ones of these tests stand for."""


def targz(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return gzip.compress(buffer.getvalue())


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dualformer_cli")


def shipped(web: WebServer, tmp_path: Path, changes: Mapping[str, Any] | None = None) -> Catalogue:
    """The shipped catalogue with every address on the local server, under the path that it has on its own."""
    hosts = ("http://serre-lab.clps.brown.edu", "https://www.crcv.ucf.edu", "https://s3.amazonaws.com")
    more = ("http://www.svcl.ucsd.edu", "https://github.com", "https://storage.googleapis.com")
    small: dict[str, Any] = {}
    for name in ("hmdb51", "ucf101", "diving48"):
        small[name] = {"files": {"videos": {"about_gb": 0.001}}}
    for name, file, names in PUBLISHED:
        files = small.setdefault(name, {"files": {}})["files"]
        files.setdefault(file, {})["published"] = dict.fromkeys(names)
    for name in ("kinetics400", "kinetics600", "kinetics700-2020"):
        small[name] = {"files": {split: {"about_gb": 0.001} for split in ("train", "val", "test")}}
    small |= changes or {}
    content = {"mirrors": dict.fromkeys((*hosts, *more), web.address), "datasets": small}
    path = tmp_path / "mirror.yaml"
    path.write_text(json.dumps(content))
    return load_catalogue({"DUALFORMER_CATALOGUE": str(path)})


def own(web: WebServer, tmp_path: Path, **files: Any) -> Catalogue:
    """A catalogue with a dataset `mine` of these files besides."""
    mine = {
        "title": "Mine",
        "homepage": "https://mine.example/",
        "metric": "top-1",
        "num_classes": 2,
        "classes": [],
        "splits": {},
        "files": files,
    }
    return shipped(web, tmp_path, {"mine": mine})


def get(catalogue: Catalogue, name: str, root: Path, **options: Any) -> dict[str, FilesOutcome]:
    choice = {key: options.pop(key) for key in ("groups", "splits") if key in options}
    outcomes = acquire(catalogue, plan(catalogue, [name], root, **choice), patience=HASTY, **options)
    return {outcome.name: outcome for outcome in outcomes}


def statuses(outcomes: Mapping[str, FilesOutcome]) -> dict[str, str]:
    return {name: outcome.status for name, outcome in outcomes.items()}


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a dataset, without archives, markers and records."""
    found = {}
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and parts[0] not in (".done", "archives") and path.suffix not in (".sha256", ".lock"):
            found["/".join(parts)] = path.read_bytes()
    return found


def serve_hmdb51(web: WebServer) -> dict[str, bytes]:
    folder = "/wp-content/uploads/2013/10"
    lists = {f"testTrainMulti_7030_splits/wave_test_split{n}.txt": b"a.avi 1 \nb [1].avi 2 \n" for n in (1, 2, 3)}
    web.files[f"{folder}/test_train_splits.rar"] = rar4(lists)
    inner = rar5({"wave/a.avi": NOISE["a"], "wave/b [1].avi": NOISE["b"]}, folders=["wave"])
    web.files[f"{folder}/hmdb51_org.rar"] = rar4({"wave.rar": inner, "run.rar": rar4({"run/c.avi": NOISE["c"]})})
    return {
        **{name.replace("testTrainMulti_7030_splits", "annotations"): data for name, data in lists.items()},
        "videos/wave/a.avi": NOISE["a"],
        "videos/wave/b [1].avi": NOISE["b"],
        "videos/run/c.avi": NOISE["c"],
    }


def test_hmdb51_comes_out_of_rar_in_rar(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("bsdtar")
    catalogue = shipped(web, tmp_path)
    expected = serve_hmdb51(web)
    assert statuses(get(catalogue, "hmdb51", root)) == {"splits": "done", "videos": "done"}
    assert tree(root / "hmdb51") == expected
    assert not list(root.rglob(".unpacking"))
    counts = {row.split: (row.annotated, row.present) for row in count_present(catalogue, "hmdb51", root)}
    assert counts == {f"{split}_{n}": (1, 1) for n in (1, 2, 3) for split in ("train", "val")}


def test_a_second_run_does_nothing(web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]) -> None:
    rar_tools("unar")
    catalogue = shipped(web, tmp_path)
    serve_hmdb51(web)
    get(catalogue, "hmdb51", root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    web.requests.clear()
    assert statuses(get(catalogue, "hmdb51", root)) == {"splits": "present", "videos": "present"}
    assert statuses(get(catalogue, "hmdb51", root, offline=True)) == {"splits": "present", "videos": "present"}
    assert web.requests == []
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()} == before


def test_videos_that_were_deleted_are_unpacked_again(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("unrar")
    catalogue = shipped(web, tmp_path)
    expected = serve_hmdb51(web)
    get(catalogue, "hmdb51", root)
    for path in (root / "hmdb51" / "videos").rglob("*.avi"):
        path.unlink()
    assert statuses(get(catalogue, "hmdb51", root, offline=True))["videos"] == "done"
    assert tree(root / "hmdb51") == expected


def test_without_a_program_for_rar_the_archive_is_kept_and_they_are_named(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    assert rar_tools()
    catalogue = shipped(web, tmp_path)
    expected = serve_hmdb51(web)
    outcome = get(catalogue, "hmdb51", root)["videos"]
    assert outcome.status == "error"
    assert "none of the programs that unpack it is installed (unrar, 7z, 7zz, unar, bsdtar)" in str(outcome.error)
    web.requests.clear()
    rar_tools("7zz")
    get(catalogue, "hmdb51", root)
    assert web.requests == []
    assert tree(root / "hmdb51") == expected


def serve_kinetics600(web: WebServer) -> None:
    for split in ("train", "val", "test"):
        web.files[f"/kinetics/600/annotations/{split}.csv"] = (
            b"label,youtube_id,time_start,time_end,split\n" + f"x,aaaaaaaaaaa,1,11,{split}\n".encode()
        )
        web.files[f"/kinetics/600/annotations/{split}.txt"] = b"?\n"
    web.files["/kinetics/600/annotations/kinetics600_holdout_test.csv"] = b"a,b\n"
    names = {"train": ["abseiling", "mountain climber (exercise)", "playing 'x'"], "val": ["abseiling"]}
    for split, classes in names.items():
        base = f"/kinetics/600/{split}"
        lines = [f"https://s3.amazonaws.com{base}/{name}.tar.gz" for name in classes]
        web.files[f"{base}/k600_{split}_path.txt"] = ("\n".join(lines) + "\n").encode()
        for number, name in enumerate(classes):
            stem = f"{split}-_{number}-aaaa_000001_000011.mp4"
            inner = {f"./{stem}": NOISE["abc"[number]]}
            if "(" in name:
                inner = {f"{name}/{stem}": NOISE["b"], f"{name}/._{stem}": b"junk"}
            web.files[f"{base}/{name}.tar.gz"] = targz(inner)
    web.files["/kinetics/600/test/k600_test_path.txt"] = b"https://s3.amazonaws.com/kinetics/600/test/part_0.tar.gz\n"
    web.files["/kinetics/600/test/part_0.tar.gz"] = targz({"t.mp4": NOISE["f"]})


def test_lists_of_archives_are_fetched_with_troubles(web: WebServer, root: Path, tmp_path: Path) -> None:
    serve_kinetics600(web)
    web.trouble = [
        lambda data: body(data, sends=len(data) // 2),
        lambda data: status(429, {"Retry-After": "0"}),
        lambda data: body(data, takes_ranges=False, sends=len(data) // 3),
        lambda data: status(500),
    ]
    told: set[str] = set()
    catalogue = shipped(web, tmp_path)
    outcomes = get(catalogue, "kinetics600", root, progress=lambda name, *_: told.add(name))
    assert set(statuses(outcomes).values()) == {"done"}, outcomes
    assert (outcomes["train"].num_done, outcomes["train"].num_wanted) == (3, 600)
    videos = {name: data for name, data in tree(root / "kinetics600").items() if name.startswith("videos")}
    assert videos == {
        "videos_train/abseiling/train-_0-aaaa_000001_000011.mp4": NOISE["a"],
        "videos_train/mountain climber (exercise)/train-_1-aaaa_000001_000011.mp4": NOISE["b"],
        "videos_train/playing 'x'/train-_2-aaaa_000001_000011.mp4": NOISE["c"],
        "videos_val/abseiling/val-_0-aaaa_000001_000011.mp4": NOISE["a"],
        "videos_test/t.mp4": NOISE["f"],
    }
    assert any("mountain%20climber%20" in path for path in web.paths)
    assert "kinetics600 3/3 playing 'x'.tar.gz" in told
    assert "unpack kinetics600 3/3 playing 'x'.tar.gz" in told
    assert state_of(catalogue, plan(catalogue, ["kinetics600"], root, splits=["test"])[-1]).state == "present"


def test_a_split_and_a_group_can_be_chosen(web: WebServer, root: Path, tmp_path: Path) -> None:
    serve_kinetics600(web)
    catalogue = shipped(web, tmp_path)
    assert set(get(catalogue, "kinetics600", root, groups=["videos"], splits=["val"])) == {"val"}
    assert set(tree(root / "kinetics600")) == {"videos_val/abseiling/val-_0-aaaa_000001_000011.mp4"}
    names = [item.name for item in plan(catalogue, ["kinetics600"], root, groups=["annotations"], splits=["val"])]
    assert names == ["annotations_val", "annotations_val_txt"]


def test_archives_are_deleted_when_that_is_wanted(web: WebServer, root: Path, tmp_path: Path) -> None:
    serve_kinetics600(web)
    catalogue = shipped(web, tmp_path)
    get(catalogue, "kinetics600", root, splits=["val"], delete_archives=True)
    archives = root / "kinetics600" / "archives"
    assert [path.name for path in archives.rglob("*.tar.gz")] == []
    web.requests.clear()
    outcomes = get(catalogue, "kinetics600", root, splits=["val"], delete_archives=True)
    assert set(statuses(outcomes).values()) == {"present"}
    assert web.requests == []


def test_one_missing_archive_does_not_stop_the_others(web: WebServer, root: Path, tmp_path: Path) -> None:
    serve_kinetics600(web)
    del web.files["/kinetics/600/train/abseiling.tar.gz"]
    outcome = get(shipped(web, tmp_path), "kinetics600", root, groups=["videos"], splits=["train"])["train"]
    assert (outcome.status, outcome.num_done) == ("error", 2)
    path = root / "kinetics600" / "archives" / "train" / "abseiling.tar.gz"
    assert outcome.error == (
        "kinetics600 train abseiling.tar.gz: not found, the file was moved or deleted (status 404 from 127.0.0.1); "
        f"fetch https://s3.amazonaws.com/kinetics/600/train/abseiling.tar.gz by hand and put it at {str(path)!r} "
        "(home page https://github.com/cvdfoundation/kinetics-dataset)"
    )
    path.write_bytes(targz({"x.mp4": NOISE["d"]}))  # as the message says
    assert get(shipped(web, tmp_path), "kinetics600", root, groups=["videos"], splits=["train"])["train"].num_done == 3
    assert (root / "kinetics600" / "videos_train" / "abseiling" / "x.mp4").is_file()


def test_a_dead_host_is_not_asked_for_all_of_a_list(web: WebServer, root: Path, tmp_path: Path) -> None:
    lines = [f"https://s3.amazonaws.com/kinetics/400/val/part_{number}.tar.gz" for number in range(50)]
    web.files["/kinetics/400/val/k400_val_path.txt"] = "\n".join(lines).encode()
    outcome = get(shipped(web, tmp_path), "kinetics400", root, groups=["videos"], splits=["val"])["val"]
    assert outcome.status == "error"
    assert len(web.requests) < 12
    assert str(outcome.error).endswith("(and 49 more)")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"ftp://x/a.tar\n", "is no list of addresses: line 1 is 'ftp://x/a.tar'"),
        (b"\nhttp://x/../..\n", "is no list of addresses: line 2 is 'http://x/../..'"),
        (b"http://x/%2e%2e\n", "is no list of addresses: line 1 is 'http://x/%2e%2e'"),
        (b"http://x/.hidden\n", "is no list of addresses: line 1 is 'http://x/.hidden'"),
        (b"\n\n", "is empty; it should list addresses"),
    ],
)
def test_a_list_that_is_none_is_told(content: bytes, told: str, web: WebServer, root: Path, tmp_path: Path) -> None:
    web.files["/list.txt"] = content
    catalogue = own(web, tmp_path, x={"group": "videos", "url_list": f"{web.address}/list.txt", "into": "videos"})
    assert told in str(get(catalogue, "mine", root)["x"].error)


def test_a_web_page_in_the_place_of_an_annotation_is_not_kept(web: WebServer, root: Path, tmp_path: Path) -> None:
    for name in ("Diving48_vocab", "Diving48_V2_train", "Diving48_V2_test"):
        web.files[f"/projects/resound/{name}.json"] = b"[]"
    folder = "/projects/resound"
    web.on(f"{folder}/Diving48_V2_test.json", page("Moved"))
    web.on(f"{folder}/Diving48_V2_train.json", body(b"<!DOCTYPE html>", headers={"Content-Type": "text/plain"}))
    outcomes = get(shipped(web, tmp_path), "diving48", root, groups=["annotations"])
    assert "a web page came instead of the file (page 'Moved' from 127.0.0.1)" in str(outcomes["test"].error)
    assert "what came is a web page, not a text" in str(outcomes["train"].error)
    assert set(tree(root / "diving48")) == {"annotations/Diving48_vocab.json"}


def test_a_later_address_is_asked_when_the_first_fails(web: WebServer, root: Path, tmp_path: Path) -> None:
    web.files["/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip"] = zipped(
        {"ucfTrainTestlist/classInd.txt": b"1 A"}
    )
    outcomes = get(shipped(web, tmp_path), "ucf101", root, groups=["annotations"])
    assert statuses(outcomes) == {"splits": "done"}
    assert tree(root / "ucf101") == {"annotations/classInd.txt": b"1 A"}


def test_the_published_hash_of_an_archive_counts(web: WebServer, root: Path, tmp_path: Path) -> None:
    web.files["/x.zip"] = zipped({"a": b"1"})
    for checks, told in [
        ({"md5": "0" * 32}, f"and {'0' * 32} is published"),
        ({"sha256": "0" * 64}, f"and {'0' * 64} is published"),
        ({"num_bytes": 5}, "bytes, and 5 are published"),
    ]:
        file = {"group": "annotations", "urls": [f"{web.address}/x.zip"], "into": "annotations", **checks}
        assert told in str(get(own(web, tmp_path, x=file), "mine", root)["x"].error)


def serve_ucf101(web: WebServer) -> bytes:
    web.files["/thumos14_files/UCF101_videos.zip"] = zipped({"UCF101/v_Archery_g01_c01.avi": NOISE["a"]})
    rar = rar4({"UCF-101/Archery/v_Archery_g01_c01.avi": NOISE["a"]})
    web.files["/datasets/human-actions/ucf101/UCF101.rar"] = rar
    return rar


def test_ucf101_comes_as_a_zip_that_needs_no_program(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools()
    serve_ucf101(web)
    catalogue = shipped(web, tmp_path)
    assert get(catalogue, "ucf101", root, groups=["videos"])["videos"].status == "done"
    assert tree(root / "ucf101") == {"videos/v_Archery_g01_c01.avi": NOISE["a"]}
    assert not any("UCF101.rar" in request for request in map(str, web.requests))


def test_the_rar_of_ucf101_that_is_there_is_taken_and_the_zip_is_not_fetched(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("unrar")
    (root / "ucf101" / "archives").mkdir(parents=True)
    (root / "ucf101" / "archives" / "UCF101.rar").write_bytes(serve_ucf101(web))
    outcome = get(shipped(web, tmp_path), "ucf101", root, groups=["videos"])["videos"]
    assert outcome.status == "done"
    assert not web.requests
    assert tree(root / "ucf101") == {"videos/Archery/v_Archery_g01_c01.avi": NOISE["a"]}


def test_the_rar_of_ucf101_is_fetched_where_the_zip_is_gone(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("unrar")
    serve_ucf101(web)
    del web.files["/thumos14_files/UCF101_videos.zip"]
    assert get(shipped(web, tmp_path), "ucf101", root, groups=["videos"])["videos"].status == "done"
    assert get(shipped(web, tmp_path), "ucf101", root, groups=["videos"])["videos"].status == "present"
    assert tree(root / "ucf101") == {"videos/Archery/v_Archery_g01_c01.avi": NOISE["a"]}


def test_a_program_that_cannot_read_rar_does_not_make_the_archive_come_again(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rar_tools("7zz")
    monkeypatch.setenv("RAR_FAIL", "7zz")
    serve_hmdb51(web)
    catalogue = shipped(web, tmp_path)
    for _ in range(2):
        outcome = get(catalogue, "hmdb51", root, groups=["videos"])["videos"]
        assert "7zz: exit code 7" in str(outcome.error)
        assert "install another program" in str(outcome.error)
    assert len(web.requests) == 1
    assert (root / "hmdb51" / "archives" / "hmdb51_org.rar").is_file()
    assert not list(root.rglob("*.broken"))


def serve_damaged_rar(web: WebServer) -> bytes:
    """Serve a rar archive whose headers are right and whose only file is not."""
    good = rar5({"a.avi": NOISE["a"]})
    web.files["/mine.rar"] = good.replace(NOISE["a"][:64], bytes(64))
    assert web.files["/mine.rar"] != good
    return good


def mine(web: WebServer, tmp_path: Path, **published: Any) -> Catalogue:
    files = {"group": "videos", "urls": [f"{web.address}/mine.rar"], "into": "videos", "about_gb": 0.001}
    return own(web, tmp_path, videos=files | published)


def test_a_program_that_fails_with_an_archive_as_published_does_not_make_it_come_again(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("7zz")
    serve_damaged_rar(web)  # which stands for one that this program gets wrong
    catalogue = mine(web, tmp_path, md5=hashlib.md5(web.files["/mine.rar"]).hexdigest())
    for _ in range(2):
        error = str(get(catalogue, "mine", root)["videos"].error)
        assert "cannot be unpacked by what is installed (7zz: wrong checksum of 'a.avi'); it is kept: install" in error
    assert len(web.requests) == 1
    assert (root / "mine" / "archives" / "mine.rar").read_bytes() == web.files["/mine.rar"]
    assert not list(root.rglob("*.broken"))


def test_an_archive_that_came_the_same_twice_does_not_come_again(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("7zz")
    good = serve_damaged_rar(web)
    for _ in range(3):
        error = str(get(mine(web, tmp_path), "mine", root)["videos"].error)
        assert "cannot be unpacked by what is installed (7zz: wrong checksum of 'a.avi'); it is kept: install" in error
    assert len(web.requests) == 2
    (root / "mine" / "archives" / "mine.rar").unlink()  # so the user asks for another
    web.files["/mine.rar"] = good
    assert get(mine(web, tmp_path), "mine", root)["videos"].status == "done"


def test_a_rar_that_came_damaged_is_fetched_once_more(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("7zz")
    good = serve_damaged_rar(web)
    web.on("/mine.rar", body(web.files["/mine.rar"]), body(good))
    assert get(mine(web, tmp_path), "mine", root)["videos"].status == "done"
    assert tree(root / "mine") == {"videos/a.avi": NOISE["a"]}


@pytest.mark.parametrize("suffixes", [("00", "01", "02"), ("001", "002", "003"), ("aa", "ab", "ac")])
def test_an_archive_in_numbered_pieces_is_unpacked(
    suffixes: tuple[str, ...], web: WebServer, root: Path, tmp_path: Path
) -> None:
    folder = root / "activitynet"
    folder.mkdir(parents=True)
    data = targz({"v_a.mp4": NOISE["a"]})
    for number, suffix in enumerate(suffixes):
        (folder / f"v1-2_train.tar.gz.{suffix}").write_bytes(data[number * 7000 : (number + 1) * 7000])
    for name in ("v1-2_val", "v1-3_train_val"):
        (folder / f"{name}.tar.gz").write_bytes(targz({f"v_{name}.mp4": NOISE["b"]}))
    (folder / "missing_files_trainval.zip").write_bytes(zipped({"v_m.mp4": NOISE["c"]}))
    outcomes = get(shipped(web, tmp_path), "activitynet", root, groups=["videos"])
    assert statuses(outcomes) == {"train_val": "done", "missing_files": "done", "test": "by hand"}
    assert tree(folder)["videos/v_a.mp4"] == NOISE["a"]


def test_an_archive_of_another_md5_than_published_is_told(
    web: WebServer, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = root / "activitynet"
    folder.mkdir(parents=True)
    for name in ("v1-2_train", "v1-2_val", "v1-3_train_val"):
        (folder / f"{name}.tar.gz").write_bytes(targz({f"v_{name}.mp4": NOISE["b"]}))
    assert get(shipped(web, tmp_path), "activitynet", root, groups=["videos"])["train_val"].status == "done"
    assert "and 8510ed0d8ae399b1bda399fd117e7406 is published; it is damaged or another packing" in caplog.text


def test_a_damaged_archive_is_fetched_once_more(web: WebServer, root: Path, tmp_path: Path) -> None:
    data = targz({"rgb/a.mp4": NOISE["a"]})
    damaged = data[:5000] + b"damage" + data[5006:]
    folder = "/projects/resound"
    web.on(f"{folder}/Diving48_rgb.tar.gz", body(damaged), body(data))
    outcomes = get(shipped(web, tmp_path), "diving48", root, groups=["videos"])
    assert statuses(outcomes) == {"videos": "done"}
    assert tree(root / "diving48") == {"videos/a.mp4": NOISE["a"]}
    web.on(f"{folder}/Diving48_rgb.tar.gz", body(damaged))
    outcome = get(shipped(web, tmp_path), "diving48", root.parent / "other", groups=["videos"])["videos"]
    assert "is damaged or cut off" in str(outcome.error)
    assert len(web.requests) == 4


def test_a_harmful_archive_is_not_asked_for_again(web: WebServer, root: Path, tmp_path: Path) -> None:
    web.files["/projects/resound/Diving48_rgb.tar.gz"] = targz({"rgb/../../../../evil.mp4": b"1"})
    outcome = get(shipped(web, tmp_path), "diving48", root, groups=["videos"])["videos"]
    assert "is not unpacked, it names a path out of its folder, 'rgb/../../../../evil.mp4'" in str(outcome.error)
    assert len(web.requests) == 1
    assert {path.name for path in root.parent.iterdir()} == {"data", "mirror.yaml"}
    assert tree(root / "diving48") == {}


def test_what_does_not_fit_is_said_before_anything_is_fetched(web: WebServer, root: Path, tmp_path: Path) -> None:
    serve_kinetics600(web)
    catalogue = shipped(web, tmp_path, {"kinetics600": {"files": {"val": {"about_gb": 10.0**9}}}})
    with pytest.raises(DownloadError) as caught:
        get(catalogue, "kinetics600", root, splits=["val"])
    assert "about 2,000,000,000.0 GB are needed in " in str(caught.value)
    assert "--delete-archives to keep only what is unpacked, or less with --only or --split" in str(caught.value)
    assert web.requests == []
    assert not root.exists()


# By hand.


def test_what_lies_behind_a_login_is_told_with_names_and_folders(web: WebServer, root: Path, tmp_path: Path) -> None:
    outcomes = get(shipped(web, tmp_path), "sthv2", root)
    assert statuses(outcomes) == {"annotations": "by hand", "videos": "by hand"}
    assert outcomes["videos"].error == (
        "sthv2 videos: go to https://www.qualcomm.com/developer/software/something-something-v-2-dataset and log in, "
        "accept the licence and download all parts; put 20bn-something-something-v2-?? or "
        f"20bn-something-something-v2-??.zip into {str(root / 'sthv2')!r} and run this command again"
    )
    assert web.requests == []


@pytest.mark.parametrize("zipped_parts", [False, True])
@pytest.mark.parametrize("place", ["", "archives"])
def test_pieces_put_there_by_hand_are_unpacked(
    zipped_parts: bool, place: str, web: WebServer, root: Path, tmp_path: Path
) -> None:
    catalogue = shipped(web, tmp_path)
    folder = root / "sthv2"
    (folder / place).mkdir(parents=True)
    data = targz({f"20bn-something-something-v2/{number}.webm": NOISE[key] for number, key in enumerate("abc")})
    for number in range(3):
        name, part = f"20bn-something-something-v2-{number:02d}", data[number * 25_000 :][:25_000]
        (folder / place / (f"{name}.zip" if zipped_parts else name)).write_bytes(
            zipped({name: part}) if zipped_parts else part
        )
    labels = zipped({"labels/train.json": b'[{"id": "0"}, {"id": "9"}]', "labels/validation.json": b'[{"id": "1"}]'})
    (folder / "20bn-something-something-download-package-labels.zip").write_bytes(labels)
    assert statuses(get(catalogue, "sthv2", root)) == {"annotations": "done", "videos": "done"}
    assert [(folder / "videos" / f"{number}.webm").read_bytes() for number in range(3)] == [NOISE[key] for key in "abc"]
    assert (folder / "annotations" / "validation.json").is_file()
    assert statuses(get(catalogue, "sthv2", root)) == {"annotations": "present", "videos": "present"}
    for path in folder.rglob("20bn-*"):
        path.unlink()
    assert statuses(get(catalogue, "sthv2", root)) == {"annotations": "present", "videos": "present"}
    rows = {row.split: (row.annotated, row.present, row.examples) for row in count_present(catalogue, "sthv2", root)}
    assert rows == {"train": (2, 1, ("9",)), "val": (1, 1, ())}
    assert (folder / "missing.csv").read_text() == "split,video\ntrain,9\n"


def test_a_gap_between_pieces_is_named(web: WebServer, root: Path, tmp_path: Path) -> None:
    (root / "jester").mkdir(parents=True)
    for number in (0, 2):
        (root / "jester" / f"20bnjester-v1-{number:02d}").write_bytes(b"\x1f\x8b")
    outcome = get(shipped(web, tmp_path), "jester", root, groups=["videos"])["rawframes"]
    assert "the piece '20bnjester-v1-01' is missing" in str(outcome.error)


def test_what_the_user_has_unpacked_counts(web: WebServer, root: Path, tmp_path: Path) -> None:
    catalogue = shipped(web, tmp_path)
    (root / "sthv1" / "rawframes" / "1").mkdir(parents=True)
    for number in (1, 2):
        (root / "sthv1" / "rawframes" / "1" / f"{number:05d}.jpg").write_bytes(b"")
    (root / "sthv1" / "annotations").mkdir()
    for name in ("labels", "train", "validation"):
        (root / "sthv1" / "annotations" / f"something-something-v1-{name}.csv").write_text("1;x\n")
    assert statuses(get(catalogue, "sthv1", root)) == {"annotations": "present", "rawframes": "present"}
    assert [(row.split, row.annotated, row.present) for row in count_present(catalogue, "sthv1", root)] == [
        ("train", 1, 1),
        ("val", 1, 1),
    ]
    (root / "sthv1" / "annotations" / "something-something-v1-labels.csv").write_text("<html>")
    outcome = get(catalogue, "sthv1", root)["annotations"]
    assert "is a web page, not a text" in str(outcome.error)


def test_only_the_names_that_are_missing_are_asked_for(web: WebServer, root: Path, tmp_path: Path) -> None:
    folder = root / "activitynet"
    folder.mkdir(parents=True)
    (folder / "v1-2_train.tar.gz").write_bytes(targz({"v1-2/train/v_a.mp4": NOISE["a"]}))
    catalogue = shipped(web, tmp_path)
    outcomes = get(catalogue, "activitynet", root, groups=["videos"])
    assert "put v1-2_val.tar.gz, v1-3_train_val.tar.gz into" in str(outcomes["train_val"].error)
    assert outcomes["test"].optional
    for name in ("v1-2_val", "v1-3_train_val"):
        (folder / f"{name}.tar.gz").write_bytes(targz({f"{name}/v_{name}.mp4": NOISE["b"]}))
    outcomes = get(catalogue, "activitynet", root, groups=["videos"])
    assert statuses(outcomes) == {"train_val": "done", "missing_files": "by hand", "test": "by hand"}
    assert len(tree(folder)) == 6


def test_moments_go_to_videos_and_annotations(web: WebServer, root: Path, tmp_path: Path) -> None:
    folder = root / "mit"
    folder.mkdir(parents=True)
    inner = {"training/adult+female+singing/x.mp4": NOISE["a"], "validation/clapping/y.mp4": NOISE["b"]}
    lists = {
        "trainingSet.csv": b"adult+female+singing/x.mp4,adult+female+singing,3,0\n",
        "moments_categories.txt": b"c,0",
    }
    members = {f"Moments_in_Time_Raw/{name}": data for name, data in {**inner, **lists}.items()}
    (folder / "Moments_in_Time_Raw.zip").write_bytes(zipped(members))
    catalogue = shipped(web, tmp_path)
    assert statuses(get(catalogue, "mit", root)) == {"videos": "done"}
    (folder / "Moments_in_Time_Raw.zip").unlink()
    assert set(tree(folder)) == {*(f"videos/{name}" for name in inner), *(f"annotations/{name}" for name in lists)}
    assert [(row.split, row.annotated, row.present) for row in count_present(catalogue, "mit", root)] == [
        ("train", 1, 1)
    ]


def test_kinetics700_shares_the_videos_of_2020(web: WebServer, root: Path, tmp_path: Path) -> None:
    catalogue = shipped(web, tmp_path)
    items = plan(catalogue, ["kinetics700"], root)
    assert {(item.dataset, item.name) for item in items} == {
        ("kinetics700", "annotations"),
        *(("kinetics700-2020", split) for split in ("train", "val", "test")),
    }
    assert len(plan(catalogue, ["kinetics700", "kinetics700-2020"], root)) == 7
    header = b"label,youtube_id,time_start,time_end,split\n"
    archive = targz({"kinetics700/validate.csv": header + b'"driving car",aaaaaaaaaaa,1,11,validate\n'})
    web.files["/deepmind-media/Datasets/kinetics700.tar.gz"] = archive
    base = "https://s3.amazonaws.com/kinetics/700_2020/val"
    web.files["/kinetics/700_2020/val/k700_2020_val_path.txt"] = f"{base}/k700_val_171.tar.gz".encode()
    name = "driving car/aaaaaaaaaaa_000001_000011.mp4"
    web.files["/kinetics/700_2020/val/k700_val_171.tar.gz"] = targz({name: NOISE["a"]})
    get(catalogue, "kinetics700", root, splits=["val"])
    assert set(tree(root)) >= {f"kinetics700-2020/videos_val/{name}", "kinetics700/annotations/validate.csv"}
    assert [(row.split, row.annotated, row.present) for row in count_present(catalogue, "kinetics700", root)] == [
        ("val", 1, 1)
    ]


# Names.


def test_names_of_all_kinds_are_sorted() -> None:
    catalogue = load_catalogue({})
    chosen = select(catalogue, ["K400", "kinetics700_2020", "k400-tiny", "ucf101"])
    assert (chosen.weights, chosen.datasets) == (("k400-tiny",), ("kinetics400", "kinetics700-2020", "ucf101"))
    chosen = select(catalogue, ["kinetics400", "k600-base"], ["weights"])
    assert (chosen.weights, chosen.datasets) == (("k400-tiny", "k400-small", "k400-base", "k600-base"), ())
    chosen = select(catalogue, ["hmdb51"], ["weights", "annotations"])
    assert (chosen.weights, chosen.datasets, chosen.groups) == (("hmdb51-small",), ("hmdb51",), ("annotations",))


@pytest.mark.parametrize(
    ("names", "only", "told"),
    [
        (["ucf10"], [], "nothing is known of 'ucf10'; did you mean 'ucf101'? Datasets: hmdb51, ucf101, activitynet, "),
        (["k400-tinny"], [], "nothing is known of 'k400-tinny'; did you mean 'k400-tiny'? Datasets: "),
        (["k400-tiny"], ["videos"], "'k400-tiny' has no videos; leave --only out to get what it has"),
        (["jester"], ["weights"], "'jester' has no weights; leave --only out to get what it has"),
    ],
)
def test_names_that_give_nothing_are_told(names: list[str], only: list[str], told: str) -> None:
    with pytest.raises(DownloadError) as caught:
        select(load_catalogue({}), names, only)
    assert str(caught.value).startswith(told)


def test_every_dataset_can_be_described(root: Path) -> None:
    catalogue = load_catalogue({})
    for name in catalogue.datasets:
        state = describe(catalogue, name, root)
        assert state.state == "missing"
        assert state.files
    ways = {name: describe(catalogue, name, root).how for name in ("hmdb51", "kinetics700", "sthv2", "hvu")}
    assert ways == {"hmdb51": "automatic", "kinetics700": "automatic", "sthv2": "by hand", "hvu": "partly by hand"}


# Certificates.


@pytest.fixture
def secure(web: WebServer, tmp_path: Path) -> str:
    """The address of the same server over TLS, with a certificate that nobody signed."""
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    made = subprocess.run(command, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("the program openssl cannot make a certificate")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    web.http.socket = context.wrap_socket(web.http.socket, server_side=True)
    return web.address.replace("http:", "https:")


def test_a_bad_certificate_is_waived_only_where_it_is_known_and_wanted(
    secure: str, web: WebServer, root: Path, tmp_path: Path
) -> None:
    web.files |= {"/x.zip": zipped({"a.txt": b"1"}), "/y.zip": zipped({"b.txt": b"1"})}
    known = {"group": "annotations", "urls": [f"{secure}/x.zip"], "into": "annotations", "incomplete_certificate": True}
    other = {"group": "annotations", "urls": [f"{secure}/y.zip"], "into": "annotations"}
    catalogue = own(web, tmp_path, known=known, other=other)
    outcomes = get(catalogue, "mine", root)
    assert "the certificate of 127.0.0.1 cannot be verified" in str(outcomes["known"].error)
    assert "--skip-certificate-check fetches from it all the same" in str(outcomes["known"].error)
    assert "--skip-certificate-check" not in str(outcomes["other"].error)
    outcomes = get(catalogue, "mine", root, skip_certificate_check=True)
    assert statuses(outcomes) == {"known": "done", "other": "error"}


# Killed in the middle.

ACQUIRE = """
import sys
from pathlib import Path
from dualformer_cli.data.fetch.acquire import acquire
from dualformer_cli.data.fetch.items import plan
from dualformer_cli.data.datasets.catalogue import load_catalogue
catalogue = load_catalogue()
acquire(catalogue, plan(catalogue, [sys.argv[1]], Path(sys.argv[2])))
"""


def test_runs_killed_at_any_moment_end_as_an_unbroken_one(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rar_tools("unrar")
    catalogue = shipped(web, tmp_path)
    monkeypatch.setenv("DUALFORMER_CATALOGUE", str(tmp_path / "mirror.yaml"))
    monkeypatch.setenv("RAR_PAUSE", "0.05")
    expected = serve_hmdb51(web)
    folder = "/wp-content/uploads/2013/10"
    for name in ("test_train_splits.rar", "hmdb51_org.rar"):
        data = web.files[f"{folder}/{name}"]
        web.on(f"{folder}/{name}", _in_range(data))
    dice = random.Random(3)
    for _ in range(5):
        command = [sys.executable, "-c", ACQUIRE, "hmdb51", str(root)]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 20
            while not root.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(dice.uniform(0.1, 1.2))
            os.kill(process.pid, signal.SIGKILL)
        for name, data in tree(root / "hmdb51").items():
            assert ".unpacking" in name or ".part" in name or data == expected[name]
    assert set(statuses(get(catalogue, "hmdb51", root)).values()) <= {"done", "present"}
    assert tree(root / "hmdb51") == expected


def _in_range(data: bytes) -> Responder:
    """A server that takes half a second for a file, from where it is asked to begin."""

    def respond(request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        if asked is None:
            return slowly(data, step=len(data) // 10 + 1, pause=0.05)(request)
        body(data)(request)

    return respond


def test_a_lock_lasts_as_long_as_the_program_that_unpacks(
    web: WebServer, root: Path, tmp_path: Path, rar_tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rar_tools("unrar")
    catalogue = shipped(web, tmp_path)
    monkeypatch.setenv("DUALFORMER_CATALOGUE", str(tmp_path / "mirror.yaml"))
    monkeypatch.setenv("RAR_PAUSE", "0.7")
    monkeypatch.setenv("RAR_LOG", str(tmp_path / "log"))
    expected = serve_hmdb51(web)
    with subprocess.Popen([sys.executable, "-c", ACQUIRE, "hmdb51", str(root)], stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "log").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)  # its programs go on
    monkeypatch.setenv("RAR_PAUSE", "0")
    get(catalogue, "hmdb51", root)
    assert tree(root / "hmdb51") == expected


def test_what_another_tool_has_put_there_is_not_fetched(web: WebServer, root: Path, tmp_path: Path) -> None:
    counts = {"kinetics400": {"num_videos": {"videos_val": 2}}}
    catalogue = shipped(web, tmp_path, counts)
    folder = root / "kinetics400"
    for name in ("a", "b"):
        (folder / "videos_val").mkdir(parents=True, exist_ok=True)
        (folder / "videos_val" / f"{name}.mp4").touch()
    (folder / "annotations").mkdir()
    (folder / "annotations" / "kinetics-400_val.csv").write_text("label,youtube_id,time_start,time_end,split\n")
    assert statuses(get(catalogue, "kinetics400", root, splits=["val"])) == {
        "annotations_val": "present",
        "val": "present",
    }
    assert not web.requests
    (folder / "videos_val" / "b.mp4").unlink()
    assert get(catalogue, "kinetics400", root, splits=["val"])["val"].status == "error"
    assert web.requests


def test_tars_of_omnisource_are_found_in_their_published_folders(web: WebServer, root: Path, tmp_path: Path) -> None:
    folder = root / "omnisource"
    for name in ("kinetics_200_train", "kinetics_200_val"):
        (folder / name).mkdir(parents=True)
        (folder / name / f"{name}.tar").write_bytes(gzip.decompress(targz({f"{name}/a.mp4": NOISE["a"]})))
    catalogue = shipped(web, tmp_path)
    states = {item.name: state_of(catalogue, item).state for item in plan(catalogue, ["omnisource"], root)}
    assert states["k200_val"] == "missing"
    outcomes = get(catalogue, "omnisource", root, groups=["videos"])
    assert (outcomes["k200_val"].status, outcomes["k200_train"].status) == ("done", "done")
    assert (folder / "kinetics_200_val" / "a.mp4").read_bytes() == NOISE["a"]
