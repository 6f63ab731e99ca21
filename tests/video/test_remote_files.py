"""Files on other machines: which names are some, folders and patterns listed, bytes fetched, and faults in one line."""

from __future__ import annotations

import importlib.util
import io
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import web_server
from fsspec.implementations.memory import MemoryFileSystem
from web_server import WebServer, page

from dualformer_cli.errors import DualFormerError, VideoError
from dualformer_cli.video import remote_files
from dualformer_cli.video.inputs import InputList, expand_inputs
from dualformer_cli.video.remote_files import fetch_file, is_remote, list_videos, stamp_of

needs_http = pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed")


@pytest.fixture
def store() -> Iterator[Any]:
    """fsspec's file system in memory, with a few files."""
    store = fsspec.filesystem("memory")
    names = "clip10.mp4 clip2.MP4 clip1.avi notes.txt .hidden.mp4 a/z.webm a/b/y.mkv .git/x.mp4 odd[1].mp4 data.bin"
    for name in names.split():
        store.pipe(f"/bucket/clips/{name}", name.encode())
    yield store
    store.rm("/", recursive=True)


def short(addresses: list[str]) -> list[str]:
    return [address.removeprefix("memory://bucket/clips/") for address in addresses]


def expanded(*names: str, **options: Any) -> InputList:
    return expand_inputs(names, stdin=io.StringIO(), **options)


def test_addresses_of_files_are_told_from_streams_cameras_and_paths() -> None:
    for name in ("s3://b/clip.mp4", "gs://b/", "hf://datasets/a/b/*.mp4", "memory://x", "https://host/clips/*.mp4"):
        assert is_remote(name), name
    assert is_remote("https://host/s-{000..009}.tar")
    assert is_remote("https://host/s-000.tar/run/1.mp4")
    for name in (
        *("clip.mp4", "s3:/b/clip.mp4", "c://clip.mp4", "s3://", "dir/s3://b", "file:///a.mp4", "camera:0", "-", ""),
        *("rtsp://cam/live", "udp://0.0.0.0:1", "https://host/clip.mp4", "http://[::1]:8080/video?x=1"),
    ):
        assert not is_remote(name), name


def test_a_folder_gives_its_videos_in_natural_order(store: Any) -> None:
    listed = list_videos("memory://bucket/clips/")
    assert short(listed) == ["clip1.avi", "clip2.MP4", "clip10.mp4", "odd[1].mp4", "a/z.webm", "a/b/y.mkv"]
    assert all(store.exists(address) for address in listed)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["clip1.avi", "clip2.MP4", "clip10.mp4", "odd[1].mp4", "a/z.webm", "a/b/y.mkv"]),
        ("clip?.*", ["clip1.avi", "clip2.MP4"]),
        ("**/*.mkv", ["a/b/y.mkv"]),
        ("*.bin", ["data.bin"]),
        ("d*", []),
        ("odd[1].mp4", ["odd[1].mp4"]),  # the file itself
        ("clip1[0].mp4", ["clip10.mp4"]),
        ("[a]", ["a/z.webm", "a/b/y.mkv"]),
    ],
)
def test_a_pattern_gives_what_it_matches(store: Any, pattern: str, names: list[str]) -> None:
    if names:
        assert short(list_videos(f"memory://bucket/clips/{pattern}")) == names
    else:
        with pytest.raises(VideoError, match="the pattern matches no videos"):
            list_videos(f"memory://bucket/clips/{pattern}")


def test_inputs_and_entries_of_lists_may_be_addresses_each_once(store: Any, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("memory://bucket/clips/a/\nmemory://bucket/clips/gone.mp4\nhere.mp4\n")
    found = expanded("memory://bucket/clips/clip1.avi", "memory://bucket/clips/clip1*", f"@{listed}", "rtsp://cam/1")
    addresses = [f"memory://bucket/clips/{name}" for name in ("clip1.avi", "clip10.mp4", "a/z.webm", "a/b/y.mkv")]
    assert found.paths == [*addresses, "memory://bucket/clips/gone.mp4", str(tmp_path / "here.mp4"), "rtsp://cam/1"]
    assert found.remote == {*addresses, "memory://bucket/clips/gone.mp4"}
    assert found.problems == []


def test_folders_and_patterns_that_give_nothing_are_problems_without_secrets(store: Any) -> None:
    store.pipe("/bucket/shards/x-0.tar", b"no archive")
    store.pipe("/bucket/shards/x-1.tar", b"\x1f\x8b" * 512)
    found = expanded("memory://me:pw@bucket/none/", "memory://bucket/clips/*.ogv", "memory://bucket/shards/*.tar")
    assert found.paths == []
    assert found.problems == [
        ("memory://***@bucket/none/", "the folder holds no videos"),
        ("memory://bucket/clips/*.ogv", "the pattern matches no videos"),
        ("memory://bucket/shards/x-0.tar", "not a tar archive"),
        (
            "memory://bucket/shards/x-1.tar",
            "a compressed archive: no member of it can be read alone; decompress it to a plain .tar first",
        ),
    ]


def test_offline_refuses_an_address_by_name_without_asking(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "list_videos", None)
    with pytest.raises(DualFormerError) as caught:
        expanded("clip.mp4", "s3://KEY:pw@bucket/clips/*.mp4", offline=True)
    message = "'s3://***@bucket/clips/*.mp4' is not on this machine, and --offline is given; leave one of them out"
    assert str(caught.value) == message
    assert expanded("clip.mp4", "rtsp://cam/1", offline=True).paths == ["clip.mp4", "rtsp://cam/1"]


@pytest.mark.parametrize(
    ("address", "packages"),
    [
        ("s3://bucket/clip.mp4", "'dualformer[remote]' s3fs"),
        ("gs://bucket/*.mp4", "'dualformer[remote]' gcsfs"),
        ("https://host/*.mp4", "'dualformer[remote]' aiohttp requests"),
        ("box://clip.mp4", "'dualformer[remote]'"),
    ],
)
def test_a_package_that_is_missing_is_named_before_any_work(
    address: str, packages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(protocol: str) -> Any:
        raise ImportError(f"install what {protocol} needs")

    monkeypatch.setattr(fsspec, "get_filesystem_class", fail)
    with pytest.raises(DualFormerError) as caught:
        expanded(address)
    assert str(caught.value).endswith(f":// needs more packages: pip install {packages}")


def test_without_fsspec_an_address_names_what_to_install_and_paths_do_not_need_it() -> None:
    program = (
        "import io, sys; sys.modules['fsspec'] = None\n"
        "from dualformer_cli.errors import DualFormerError\n"
        "from dualformer_cli.video.inputs import expand_inputs\n"
        "print(expand_inputs(['clip.mp4', 'rtsp://cam/1'], stdin=None).paths)\n"
        "try: expand_inputs(['hf://datasets/a/b/'], stdin=None)\n"
        "except DualFormerError as error: print(error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [
        "['clip.mp4', 'rtsp://cam/1']",
        "'hf://datasets/a/b/': hf:// needs more packages: pip install 'dualformer[remote]' huggingface_hub",
    ]


def test_local_names_load_no_fsspec() -> None:
    program = (
        "import sys\n"
        "from dualformer_cli.data.fetch.local_copies import LocalCopies\n"
        "from dualformer_cli.video.inputs import expand_inputs\n"
        "paths = expand_inputs(['a.mp4', 'camera:0', 'http://host/b.mp4'], stdin=None, offline=True).paths[:2]\n"
        "with LocalCopies() as copies: print([copy.path for copy in copies.of(paths)], 'fsspec' in sys.modules)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "['a.mp4', 'camera:0'] False"


def test_an_unknown_protocol_is_the_problem_of_its_input() -> None:
    found = expanded("nosuch://bucket/clip.mp4", "clip.mp4")
    assert found.problems == [("nosuch://bucket/clip.mp4", "the protocol nosuch:// is not known to fsspec")]
    assert found.paths == ["clip.mp4"]


def test_a_file_is_fetched_and_faults_are_said_in_one_line(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "here.mp4"
    fetch_file("memory://bucket/clips/clip10.mp4", str(target))
    assert target.read_bytes() == b"clip10.mp4"
    for address, reason in {
        "memory://bucket/clips/gone.mp4": "not found; is the address right? That of a folder ends in a slash",
        "memory://bucket/clips": "a folder; end the address with a slash to take the videos in it",
    }.items():
        with pytest.raises(VideoError) as caught:
            fetch_file(address, str(tmp_path / "other.mp4"))
        assert (caught.value.path, caught.value.reason) == (address, reason)

    asked = []

    def refuse(self: Any, path: str, target: str) -> None:
        asked.append(path)
        raise PermissionError("403 for KEY")

    monkeypatch.setattr(MemoryFileSystem, "get_file", refuse)
    with pytest.raises(VideoError, match="no permission; are the credentials of this file system set up"):
        fetch_file("memory://bucket/clips/clip10.mp4", str(target))
    assert len(asked) == 1


def test_a_passing_fault_is_tried_again_and_a_lasting_one_is_told_without_secrets(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_WAIT_SECONDS", 0)
    faults = [ConnectionError("reset"), RuntimeError("later")]
    whole = MemoryFileSystem.get_file

    def flaky(self: Any, path: str, target: str) -> None:
        if faults:
            raise faults.pop()
        whole(self, path, target)

    monkeypatch.setattr(MemoryFileSystem, "get_file", flaky)
    fetch_file("memory://bucket/clips/clip10.mp4", str(tmp_path / "a.mp4"))
    assert (tmp_path / "a.mp4").read_bytes() == b"clip10.mp4"
    faults += [ConnectionError("no answer from\nhttps://me:pw@host/x?sig=hush now")] * 3
    with pytest.raises(VideoError) as caught:
        fetch_file("memory://me:pw@bucket/clips/clip10.mp4", str(tmp_path / "b.mp4"))
    assert str(caught.value) == (
        "'memory://***@bucket/clips/clip10.mp4': cannot be had: no answer from https://***@host/x?*** now"
    )


def test_a_server_of_an_unknown_name_is_asked_once_and_what_a_library_logs_of_it_is_not_printed(
    store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As gcsfs does: it tries six times, logs a traceback, and raises what aiohttp made of the system's error."""
    asked = []

    def refuse(self: Any, path: str, target: str) -> None:
        asked.append(path)
        logging.getLogger(f"{MemoryFileSystem.__module__}.retry").error("out of retries")
        raise RuntimeError("Cannot connect") from socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(MemoryFileSystem, "get_file", refuse)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    with pytest.raises(VideoError, match="no server of that name is known; is there a network, and is the address ri"):
        fetch_file("memory://bucket/clips/clip10.mp4", str(tmp_path / "a.mp4"))
    assert len(asked) == 1
    assert capsys.readouterr().err == ""


def test_a_stamp_changes_with_the_file(store: Any) -> None:
    address = "memory://bucket/clips/clip10.mp4"
    before = stamp_of(address)
    assert before == stamp_of(address)
    store.pipe("/bucket/clips/clip10.mp4", b"CLIP10.MP4")
    assert stamp_of(address) != before
    with pytest.raises(VideoError, match="not found"):
        stamp_of("memory://bucket/clips/gone.mp4")


@needs_http
def test_a_page_of_links_is_a_folder_for_patterns(web: WebServer, tmp_path: Path) -> None:
    links = '<a href="b.mp4">b</a> <a href="a.mp4">a</a> <a href="notes.txt">n</a> <a href="../up.mp4">up</a>'
    web.on("/clips", page("Index", links))
    web.on("/clips/", page("Index", links))
    web.on("/clips/a.mp4", web_server.body(b"first", headers={"Content-Type": "video/mp4"}))
    folder = web.address + "/clips/"
    assert list_videos(f"{folder}*.mp4") == [f"{folder}a.mp4", f"{folder}b.mp4"]
    assert list_videos(folder) == [f"{folder}a.mp4", f"{folder}b.mp4"]
    fetch_file(f"{folder}a.mp4", str(tmp_path / "a.mp4"))
    assert (tmp_path / "a.mp4").read_bytes() == b"first"
    with pytest.raises(VideoError, match="not found"):
        fetch_file(f"{folder}b.mp4", str(tmp_path / "b.mp4"))


@needs_http
def test_a_server_that_does_not_say_that_a_file_is_missing_is_not_said_to(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "_WAIT_SECONDS", 0)
    for code, reason in {404: "not found", 401: "its server answers with the error 401", 503: "the error 503"}.items():
        with pytest.raises(VideoError, match=reason):
            stamp_of(web.on(f"/{code}.mp4", web_server.status(code)))


@needs_http
def test_a_file_on_the_web_without_a_tag_has_the_version_of_its_time(web: WebServer) -> None:
    times = ("Mon, 30 Nov 2026 07:00:00 GMT", "Mon, 30 Nov 2026 08:00:00 GMT")
    for time in times:
        web.on("/a.mp4", web_server.body(b"bytes", etag=None, headers={"Last-Modified": time}))
        assert stamp_of(f"{web.address}/a.mp4") == (5, time)
