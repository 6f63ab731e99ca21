"""Videos in tar archives on other machines: named as on a disk, and fetched alone, by their bytes."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from tar_shards import write_shard
from web_server import WebServer, body, status

from dualformer_cli.errors import UnavailableError, VideoError
from dualformer_cli.video import decord_reader, remote_files, remote_videos
from dualformer_cli.video.inputs import InputList, expand_inputs
from dualformer_cli.video.open import open_video
from dualformer_cli.video.remote_videos import fetch_video, list_shard, name_of, version_of

needs_http = pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed")
MEMBERS = {"run/2.mp4": b"two" * 9000, "run/2.cls": b"7", "run/1.mp4": b"one" * 7, ".x/3.mp4": b"no", "run/4.mp4": b""}


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return write_shard(tmp_path / "s.tar", MEMBERS.items()).read_bytes()


@pytest.fixture
def store() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    yield store
    store.rm("/", recursive=True)


def expanded(*names: str) -> InputList:
    return expand_inputs(names, stdin=io.StringIO())


def test_a_range_of_archives_stands_for_the_videos_in_them_in_their_order(store: Any, archive: bytes) -> None:
    for number in (8, 9, 11):
        store.pipe(f"/bucket/s-{number:02}.tar", archive)
    found = expanded("memory://me:hush@bucket/x.tar", "memory://bucket/s-{08..10}.tar", "memory://bucket/s-*.tar")
    names = [f"memory://bucket/s-{number}.tar/run/{n}.mp4" for number in ("08", "09", "11") for n in (2, 1, 4)]
    assert [name_of(path) for path in found.paths] == names
    assert found.remote == set(found.paths)
    reason = "not found; is the address right? That of a folder ends in a slash"
    assert found.problems == [("memory://***@bucket/x.tar", reason), ("memory://bucket/s-10.tar", reason)]


def test_one_member_can_be_named_and_each_is_fetched_alone(store: Any, archive: bytes, tmp_path: Path) -> None:
    store.pipe("/bucket/s.tar", archive)
    (named,) = expanded("memory://bucket/s.tar/run/1.mp4").paths
    whole = list(list_shard("memory://bucket/s.tar"))
    assert whole[1] == named
    for address in whole:
        fetch_video(address, str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == MEMBERS[name_of(address).removeprefix("memory://bucket/s.tar/")]
    assert expanded("memory://bucket/s.tar/run/9.mp4").problems == [
        ("memory://bucket/s.tar/run/9.mp4", "no such member in the archive")
    ]


def test_a_video_of_an_archive_is_read_by_the_decoder_asked_for_and_keeps_no_index_of_its_copy(
    store: Any, clips: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    store.pipe("/bucket/s.tar", write_shard(tmp_path / "s.tar", [("1.mp4", clips.path("h264.mp4"))]).read_bytes())
    (address,) = list_shard("memory://bucket/s.tar")
    with open_video(address) as reader:
        assert (reader.info.path, reader.info.num_frames) == ("memory://bucket/s.tar/1.mp4", 40)
        assert reader.index is None  # another copy is another file
    monkeypatch.setattr(decord_reader, "load_decord", lambda: None)
    with pytest.raises(VideoError, match=r"memory://bucket/s\.tar/1\.mp4': decord is not installed"):
        open_video(address, decoder="decord")


def test_videos_that_are_found_in_a_folder_called_as_an_archive_are_files(store: Any) -> None:
    store.pipe("/bucket/s.tar/1.mp4", b"one")
    assert expanded("memory://bucket/s.tar/").paths == ["memory://bucket/s.tar/1.mp4"]


def test_a_large_member_is_copied_in_pieces(
    store: Any, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_PIECE_BYTES", 1000)
    store.pipe("/bucket/s.tar", archive)
    fetch_video(next(list_shard("memory://bucket/s.tar")), str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == MEMBERS["run/2.mp4"]


def test_an_archive_that_changed_since_it_was_listed_is_noticed(
    store: Any, archive: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_WAIT_SECONDS", 0)
    store.pipe("/bucket/s.tar", archive)
    address = list(list_shard("memory://bucket/s.tar"))[1]
    before = version_of(address)
    assert version_of(address) == before
    for content in (archive[:512] + archive, write_shard(tmp_path / "t.tar", [("a.mp4", b"a" * 40_000)]).read_bytes()):
        store.pipe("/bucket/s.tar", content)
        assert version_of(address) != before
        with pytest.raises(VideoError, match="the archive has changed since it was listed; run the command again"):
            fetch_video(address, str(tmp_path / "copy"))


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_video_of_more_bytes_than_a_header_can_say_is_fetched(kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = tarfile.TarInfo("1.mp4")
    entry.size = 8**11 + 5
    headers, piece, asked = entry.tobuf(kind), bytes(2**20), []

    class Store:
        def cat_file(self, path: str, start: int, end: int) -> bytes:
            asked.append((start, end))
            return headers[start:end] if end <= len(headers) else piece[: end - start]

    monkeypatch.setattr(remote_files, "_opened", lambda address: (Store(), "s.tar"))
    end = len(headers) + entry.size
    fetch_video(f"memory://b/s.tar/1.mp4#bytes={len(headers)}-{end}", os.devnull)
    assert asked[-1] == (end - 5, end)


@pytest.mark.parametrize(
    ("content", "number", "reason"),
    [
        (lambda archive: archive[: len(archive) // 2], 0, "the archive is cut off within 'run/2.mp4'; fetch or"),
        (lambda archive: archive[:28_672], 1, "the archive is cut off or damaged after 'run/2.cls'; fetch or pack it"),
        (lambda archive: archive[:28_672] + archive, 1, "it has two members called 'run/2.mp4'; rename one"),
        (lambda archive: bytes(10240), 0, "the archive holds no videos"),
    ],
)
def test_what_is_whole_of_a_damaged_archive_is_given_and_the_rest_is_said(
    store: Any, archive: bytes, content: Any, number: int, reason: str
) -> None:
    store.pipe("/bucket/s.tar", content(archive))
    found = expanded("memory://bucket/s.tar")
    assert (len(found.paths), [name for name, _ in found.problems]) == (number, ["memory://bucket/s.tar"])
    assert found.problems[0][1].startswith(reason)


@pytest.mark.parametrize("has_names_of_open_files", [True, False])
def test_a_copy_is_gone_once_it_is_closed_and_open_in_no_process_that_cannot_name_it(
    store: Any, archive: bytes, has_names_of_open_files: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    if not has_names_of_open_files:
        monkeypatch.setattr(remote_videos, "_OPEN_FILES", str(tmp_path / "not here"))
    store.pipe("/bucket/s.tar", archive)
    fetched: list[list[str]] = []

    def noted(address: str, target: str) -> None:
        opened = [os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if os.path.islink(entry.path)]
        fetched.append([name for name in opened if name.startswith(str(tmp_path / "cache"))])
        fetch_video(address, target)

    monkeypatch.setattr(remote_videos, "fetch_video", noted)
    held, path = remote_videos.fetch_copy(list(list_shard("memory://bucket/s.tar"))[1])
    assert Path(path).read_bytes() == MEMBERS["run/1.mp4"]
    assert len(fetched[0]) == has_names_of_open_files
    held.close()
    assert list((tmp_path / "cache/copies").iterdir()) == []
    store.rm("/bucket/s.tar")
    with pytest.raises(UnavailableError, match="not found"):
        remote_videos.fetch_copy("memory://bucket/s.tar/run/1.mp4#bytes=512-533")
    assert list((tmp_path / "cache/copies").iterdir()) == []


@needs_http
def test_of_an_archive_on_the_web_the_headers_and_the_bytes_of_a_video_are_asked_for(
    web: WebServer, tmp_path: Path
) -> None:
    members = {f"{number}.mp4": bytes([number]) * 2_000_000 for number in range(4)}
    content = write_shard(tmp_path / "s.tar", members.items()).read_bytes()
    asked: list[tuple[str, str]] = []
    serve = body(content, headers={"Accept-Ranges": "bytes"})

    def noted(request: Any) -> None:
        asked.append((request.command, request.headers.get("Range", "")))
        serve(request)

    web.on("/s.tar", noted)
    addresses = list(list_shard(f"{web.address}/s.tar"))
    fetch_video(addresses[2], str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == members["2.mp4"]
    ranges = [re.fullmatch(r"bytes=(\d+)-(\d+)", range_) for command, range_ in asked if command == "GET"]
    assert all(ranges)
    numbers = [int(found[2]) - int(found[1]) + 1 for found in ranges if found]
    # the last byte, the start with a block ahead, two headers with a little ahead, what is left of the last video
    # and the mark of the end with a block ahead; a header again and the video's bytes, by the megabyte
    assert numbers[:2] == [1, 5 + 2**18]
    assert max(numbers[2:4]) <= 512 + 2**14
    assert sum(numbers) < len(members["2.mp4"]) + 3 * (2**18 + 2**14)


@needs_http
def test_headers_that_cannot_be_had_for_a_moment_are_asked_for_again(
    web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_WAIT_SECONDS", 0)
    content = write_shard(tmp_path / "s.tar", [(f"{n}.mp4", bytes(600_000)) for n in range(4)]).read_bytes()
    serve = body(content, headers={"Accept-Ranges": "bytes"})
    for number in range(8):  # of the request that is refused twice
        address = web.on(f"/{number}.tar", *([serve] * number), status(503), status(503), serve)
        assert len(list(list_shard(address))) == 4, number
    with pytest.raises(VideoError, match=r"cannot be had: 503|its server answers with the error 503"):
        list(list_shard(web.on("/s.tar", *([serve] * 4), status(503))))


@needs_http
def test_a_server_that_sends_whole_files_only_is_said(web: WebServer, archive: bytes) -> None:
    web.on("/s.tar", body(archive, takes_ranges=False))
    assert expanded(f"{web.address}/s.tar").problems == [
        (
            f"{web.address}/s.tar",
            "its server sends whole files only; fetch it, and name the file on this machine",
        )
    ]
