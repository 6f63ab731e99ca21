"""A file behind an http address is fetched once; cameras and playlists stay streams."""

from __future__ import annotations

from pathlib import Path

import pytest
import web_server
from web_server import WebServer, page, status

from dualformer_cli.data.fetch.http import Patience
from dualformer_cli.data.fetch.web_videos import fetch_video, is_web_address
from dualformer_cli.errors import DownloadError

VIDEO = {"Content-Type": "video/mp4"}
CLIP = bytes(range(256)) * 40
HASTY = Patience(retries=1, back_off_seconds=0.01)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path))
    return tmp_path


def fetched(web: WebServer, address: str) -> Path:
    path = fetch_video(address, patience=HASTY)
    assert path is not None
    return path


def test_a_file_is_fetched_once_and_again_when_it_changed(web: WebServer, cache: Path) -> None:
    address = web.on("/a/my%20clip.mp4", web_server.body(CLIP, headers=VIDEO))
    path = fetched(web, address)
    assert path.name == "my_clip.mp4"
    assert path.read_bytes() == CLIP
    asked = len(web.requests)
    assert fetched(web, address) == path
    assert len(web.requests) == asked + 1  # its headers
    web.on("/a/my%20clip.mp4", web_server.body(CLIP[::-1], headers=VIDEO, etag='"2"'))
    newer = fetched(web, address)
    assert newer.read_bytes() == CLIP[::-1]
    assert not path.exists()
    assert fetch_video(address, offline=True) == newer


def test_a_fetch_that_breaks_off_leaves_nothing_that_counts_and_goes_on_later(web: WebServer, cache: Path) -> None:
    address = web.on("/clip.mp4", web_server.body(CLIP, headers=VIDEO, sends=3000))
    with pytest.raises(DownloadError, match="the connection ended after 3000 of 10240 bytes"):
        fetch_video(address, patience=Patience(retries=0))
    with pytest.raises(DownloadError, match="offline, and it was not fetched before"):
        fetch_video(address, offline=True)
    web.on("/clip.mp4", web_server.body(CLIP, headers=VIDEO))
    assert fetched(web, address).read_bytes() == CLIP
    assert "bytes=3000-" in web.asked("Range")


@pytest.mark.parametrize(
    ("kind", "content", "length"),
    [
        ("multipart/x-mixed-replace; boundary=frame", b"--frame", None),
        ("video/mp4", CLIP, None),
        ("application/vnd.apple.mpegurl", b"#EXTM3U\n", -1),
        ("text/plain", b"#EXTM3U\n#EXT-X-VERSION:3\n", -1),
        ("application/octet-stream", b'<?xml version="1.0"?>\n<MPD type="dynamic"/>', -1),
    ],
)
def test_cameras_playlists_and_what_has_no_end_stay_streams(
    web: WebServer, cache: Path, kind: str, content: bytes, length: int | None
) -> None:
    address = web.on("/live", web_server.body(content, headers={"Content-Type": kind}, length=length))
    assert fetch_video(address, patience=HASTY) is None
    assert not list(cache.rglob("*"))


def test_what_cannot_be_fetched_is_told_in_one_line_without_secrets(web: WebServer) -> None:
    gone = web.on("/gone.mp4", status(404)) + "?token=hush"
    with pytest.raises(DownloadError, match=r"gone\.mp4\?\*\*\*: not found, the file was moved or deleted") as caught:
        fetch_video(gone, patience=HASTY)
    assert "hush" not in str(caught.value)
    assert caught.value.reason == "not found, the file was moved or deleted (status 404 from 127.0.0.1)"
    with pytest.raises(DownloadError, match="a web page came instead of the file"):
        fetch_video(web.on("/page.mp4", page("Sign up")), patience=HASTY)
    with pytest.raises(DownloadError, match=r"0 bytes") as caught:
        fetch_video(web.on("/empty.mp4", web_server.body(b"", headers=VIDEO)), patience=HASTY)
    assert caught.value.reason == "the file is empty (0 bytes)"
    with pytest.raises(DownloadError, match=r"about 100,000,000\.0 GB are needed in .*, and .* are free") as caught:
        fetch_video(web.on("/huge.mp4", web_server.body(CLIP, headers=VIDEO, length=10**17)), patience=HASTY)
    assert "\n" not in str(caught.value)


def test_only_web_addresses_without_a_password_can_be_files() -> None:
    assert is_web_address("HTTPS://host/clip.mp4")
    assert not is_web_address("http://user:secret@camera/live.mjpg")
    assert not is_web_address("rtsp://camera/live")
