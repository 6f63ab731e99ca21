"""Files come whole from servers that misbehave: a local one imitates what Google Drive and others do."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_checkpoint import CHECKPOINT, body, checkpoint
from web_server import ATTACHMENT, Responder, WebServer, page, silence, slowly, status

from dualformer_cli.data.fetch import verify as verify_module
from dualformer_cli.data.fetch.archive_members import UnfitFileError
from dualformer_cli.data.fetch.fetch import fetch
from dualformer_cli.data.fetch.http import Patience, Source
from dualformer_cli.data.fetch.verify import FetchResult, checked_file, verify
from dualformer_cli.errors import DownloadError

HASTY = Patience(connect_seconds=2.0, read_seconds=0.4, retries=3, back_off_seconds=0.01, longest_wait_seconds=2.0)
BROWSER_URL = "https://drive.example/file/d/abc/view"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "weights" / "model.pth"


def plain(web: WebServer, *responders: Responder, **fields: Any) -> Source:
    """A file on an ordinary server."""
    url = web.on("/model.pth", *responders)
    return Source(name="model", url=url, browser_url=BROWSER_URL, kind="checkpoint", **fields)


def drive(web: WebServer, *direct: Responder, pages: tuple[Responder, ...] = (status(404),)) -> Source:
    """A file on a server that behaves as Google Drive."""
    return Source(
        name="model",
        url=web.on("/download", *direct) + "?id=abc&confirm=t",
        drive_page=web.on("/uc", *pages) + "?id=abc",
        browser_url=BROWSER_URL,
        kind="checkpoint",
    )


def get(source: Source, target: Path, **options: Any) -> FetchResult:
    return fetch(source, target, patience=HASTY, **options)


def failure(source: Source, target: Path, **options: Any) -> str:
    """The one line that a failed fetch leaves; it always ends with the manual route."""
    with pytest.raises(DownloadError) as caught:
        get(source, target, **options)
    message, route = str(caught.value), f"; fetch {BROWSER_URL} by hand and put it at {str(target)!r}"
    assert message.startswith("model: ")
    assert message.endswith(route)
    assert "\n" not in message
    return message.removeprefix("model: ").removesuffix(route)


def files(target: Path) -> set[str]:
    """What lies beside the target; the lock file stays for good."""
    return {path.name for path in target.parent.iterdir()} - {f".{target.name}.lock"}


# A file that comes as it should.


def test_a_file_arrives_whole_and_is_recorded(web: WebServer, target: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    result = get(plain(web, body()), target, progress=lambda done, length: seen.append((done, length)))
    assert target.read_bytes() == CHECKPOINT
    assert result == FetchResult(
        path=target, status="fetched", num_bytes=len(CHECKPOINT), sha256=hashlib.sha256(CHECKPOINT).hexdigest()
    )
    assert files(target) == {"model.pth", "model.pth.sha256"}
    assert json.loads((target.parent / "model.pth.sha256").read_text())["sha256"] == result.sha256
    assert seen == sorted(seen)
    assert seen[-1] == (len(CHECKPOINT), len(CHECKPOINT))


def test_a_second_run_asks_nothing_and_reads_nothing(
    web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = plain(web, body())
    first = get(source, target)
    monkeypatch.setattr(verify_module, "verify", lambda *_: pytest.fail("the file was read again"))
    before = {path: path.stat().st_mtime_ns for path in target.parent.iterdir()}
    assert get(source, target, offline=True) == replace(first, status="present")
    assert len(web.requests) == 1
    assert {path: path.stat().st_mtime_ns for path in target.parent.iterdir()} == before


def test_a_file_without_a_length_arrives(web: WebServer, target: Path) -> None:
    get(plain(web, body(length=None)), target)
    assert target.read_bytes() == CHECKPOINT


def test_an_old_pickle_is_a_checkpoint_too(web: WebServer, target: Path) -> None:
    get(plain(web, body(b"\x80\x02" + bytes(100))), target)
    assert target.stat().st_size == 102


def test_a_file_of_another_kind_needs_no_magic(web: WebServer, target: Path) -> None:
    get(replace(plain(web, body(b"a list\n", headers={"Content-Type": "text/plain"})), kind="any"), target)
    assert target.read_bytes() == b"a list\n"


def test_redirects_are_followed_with_their_range(web: WebServer, target: Path) -> None:
    web.on("/moved here", status(308, {"Location": "/end"}))
    web.on("/moved%20here", status(308, {"Location": "/end"}))
    web.on("/end", body(sends=1000), body())
    get(plain(web, status(302, {"Location": "/moved here"})), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.paths == ["/model.pth", "/moved%20here", "/end"] * 2
    assert web.asked("Range") == [None] * 3 + ["bytes=1000-"] * 3


# Google Drive.


def test_a_drive_file_comes_from_the_direct_address(web: WebServer, target: Path) -> None:
    get(drive(web, body()), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.paths == ["/download?id=abc&confirm=t"]
    assert web.requests[0].headers["User-Agent"].startswith("Mozilla/5.0")


FORM = """<form id="download-form" action="{action}" method="{method}">
<input type="submit" value="Download anyway"><input type="hidden" name="id" value="abc">
{fields}</form><form><input type="hidden" name="other" value="form"></form>"""


def test_the_virus_scan_form_is_answered(web: WebServer, target: Path) -> None:
    fields = '<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="1-&amp;2">'
    form = FORM.format(action=f"{web.address}/anyway", method="get", fields=fields)
    web.on("/anyway", body())
    cookie = {"Content-Type": "text/html", "Set-Cookie": "NID=7; path=/"}
    html = f"<title>Google Drive - Virus scan warning</title>{form}".encode()
    get(drive(web, page("Google Drive - Virus scan warning"), pages=(status(200, cookie, html),)), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.paths[1:] == ["/uc?id=abc", "/anyway?id=abc&confirm=t&uuid=1-%262"]
    assert web.asked("Cookie")[1:] == [None, "NID=7"]


def test_the_form_with_its_query_in_the_action_is_answered(web: WebServer, target: Path) -> None:
    action = "/anyway?id=abc&amp;export=download&amp;confirm=t&amp;uuid=9"
    web.on("/anyway", body())
    form = page("Google Drive - Virus scan warning", FORM.format(action=action, method="post", fields=""))
    get(drive(web, status(404), pages=(form,)), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.paths[1:] == ["/uc?id=abc", "/anyway?id=abc&export=download&confirm=t&uuid=9"]


def test_a_small_drive_file_that_its_page_redirects_to_arrives(web: WebServer, target: Path) -> None:
    web.on("/bytes", body())
    get(drive(web, status(400), pages=(status(303, {"Location": "/bytes"}),)), target)
    assert target.read_bytes() == CHECKPOINT


def test_a_form_that_leads_to_itself_ends(web: WebServer, target: Path) -> None:
    form = page("Google Drive - Virus scan warning", FORM.format(action="/uc", method="get", fields=""))
    assert failure(drive(web, status(404), pages=(form,)), target) == "Google Drive's download form leads to itself"
    assert len(web.requests) < 10


@pytest.mark.parametrize("direct", [status(404), page("Google Drive - Virus scan warning")])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (
            page("Google Drive - Quota exceeded", '<p class="uc-error-subcaption">Too many users ...</p>'),
            "the download quota of the file is used up, wait up to 24 hours "
            "(page 'Google Drive - Quota exceeded' from 127.0.0.1)",
        ),
        (
            page("Sign in - Google Accounts"),
            "no permission, the file is not shared with everyone (page 'Sign in - Google Accounts' from 127.0.0.1)",
        ),
        (
            page("Error 403 (Forbidden)!!1", code=403),
            "no permission, the file is not shared with everyone (page 'Error 403 (Forbidden)!!1' from 127.0.0.1)",
        ),
        (status(401), "no permission, the file is not shared with everyone (status 401 from 127.0.0.1)"),
        (
            page("Error 404 (Not Found)!!1", code=404),
            "not found, the file was moved or deleted (page 'Error 404 (Not Found)!!1' from 127.0.0.1)",
        ),
        (
            page("Google\nDrive", '<p class="uc-error-subcaption">Something\x1b[2J <b>odd</b></p>'),
            "a web page came instead of the file (page 'Google Drive' from 127.0.0.1: 'Something\\x1b[2J odd')",
        ),
        (status(418), "unexpected status 418 from 127.0.0.1"),
    ],
    ids=["quota", "sign-in", "403", "401", "404", "other", "418"],
)
def test_pages_instead_of_a_file_are_told_apart(
    web: WebServer, target: Path, direct: Responder, answer: Responder, reason: str
) -> None:
    assert failure(drive(web, direct, pages=(answer,)), target) == reason
    assert files(target) == set()
    assert len(web.requests) == 2


def test_a_drive_answer_that_is_no_attachment_is_not_the_file(web: WebServer, target: Path) -> None:
    bare = body(headers={"Content-Type": "application/octet-stream"})
    assert failure(drive(web, bare, pages=(bare,)), target).startswith("a web page came instead of the file")


# Faults that pass.


@pytest.mark.parametrize("fault", [body(sends=100_000), body(sends=100_000, reset=True)], ids=["closed", "reset"])
def test_a_connection_cut_in_the_middle_is_gone_on_with(web: WebServer, target: Path, fault: Responder) -> None:
    get(plain(web, fault, body()), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == [None, "bytes=100000-"]
    assert web.asked("If-Range") == [None, '"1"']


def test_without_an_etag_the_date_keeps_the_pieces_together(web: WebServer, target: Path) -> None:
    date = "Tue, 07 Jun 2022 10:00:00 GMT"
    dated = {**ATTACHMENT, "Last-Modified": date}
    get(plain(web, body(sends=1000, etag='W/"weak"', headers=dated), body(headers=dated, etag=None)), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("If-Range") == [None, date]


def test_many_cuts_are_no_failure_while_the_file_grows(web: WebServer, target: Path) -> None:
    get(plain(web, body(sends=30_000)), target)
    assert target.read_bytes() == CHECKPOINT
    assert len(web.requests) == 11 > HASTY.retries


def test_a_server_that_ignores_ranges_sends_all_again(web: WebServer, target: Path) -> None:
    seen: list[int] = []
    source = plain(web, body(sends=100_000), body(takes_ranges=False))
    get(source, target, progress=lambda done, _: seen.append(done))
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == [None, "bytes=100000-"]
    assert max(seen) == len(CHECKPOINT)


def test_a_server_that_ignores_ranges_and_hangs_up_is_given_up(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, body(sends=100_000, takes_ranges=False)), target)
    assert reason == (
        f"the connection ended after 100000 of {len(CHECKPOINT)} bytes; tried 4 times, the next run goes on from there"
    )
    assert files(target) == {"model.pth.part", "model.pth.part.json"}


def test_a_file_that_changed_meanwhile_is_fetched_anew(web: WebServer, target: Path) -> None:
    new = checkpoint(seed=1)
    get(plain(web, body(sends=100_000), body(new, etag='"2"')), target)
    assert target.read_bytes() == new


@pytest.mark.parametrize(
    "rest",
    [
        {"Content-Range": f"bytes 5-{len(CHECKPOINT) - 1}/{len(CHECKPOINT)}"},
        {"Content-Range": f"bytes 100000-{len(CHECKPOINT)}/{len(CHECKPOINT) + 1}"},
        {"Content-Range": f"bytes 100000-{len(CHECKPOINT) - 1}/{len(CHECKPOINT)}", "ETag": '"2"'},
        {"Content-Range": "nonsense"},
        {},
    ],
    ids=["another start", "another length", "another etag", "nonsense", "nothing"],
)
def test_a_rest_that_does_not_fit_is_not_appended(web: WebServer, target: Path, rest: dict[str, str]) -> None:
    odd = status(206, {**ATTACHMENT, **rest}, CHECKPOINT[100_000:])
    get(plain(web, body(sends=100_000), odd, body()), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == [None, "bytes=100000-", None]


def test_a_refused_range_starts_anew(web: WebServer, target: Path) -> None:
    get(plain(web, body(sends=100_000), status(416, {"Content-Range": "bytes */7"}), body()), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == [None, "bytes=100000-", None]


def test_a_busy_server_is_tried_again(web: WebServer, target: Path) -> None:
    get(drive(web, status(500), page("502. That's an error", code=502), body()), target)
    assert target.read_bytes() == CHECKPOINT
    assert len(web.requests) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_respected(web: WebServer, target: Path, form: str) -> None:
    begin = time.time()
    wait = "1" if form == "seconds" else formatdate(int(begin) + 2, usegmt=True)
    get(plain(web, status(429, {"Retry-After": wait}), body()), target)
    assert time.time() >= (begin + 1 if form == "seconds" else int(begin) + 2)
    assert target.read_bytes() == CHECKPOINT


def test_a_server_that_asks_for_a_long_wait_is_not_waited_for(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, status(503, {"Retry-After": "3600"})), target)
    assert reason == "127.0.0.1 is busy or out of order (status 503), and asks to wait 3600 seconds"
    assert len(web.requests) == 1


def test_a_server_that_stays_busy_is_given_up(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, status(429)), target)
    assert reason.startswith("127.0.0.1 is busy or out of order (status 429); tried 4 times")
    assert len(web.requests) == 4


def test_a_server_that_stops_sending_is_gone_on_with(web: WebServer, target: Path) -> None:
    def stall(request: BaseHTTPRequestHandler) -> None:
        body(sends=100_000)(request)
        request.wfile.flush()
        time.sleep(1.0)

    get(plain(web, stall, body()), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == [None, "bytes=100000-"]


def test_a_server_that_never_answers_is_given_up(web: WebServer, target: Path) -> None:
    impatient = replace(HASTY, read_seconds=0.1, retries=1)
    with pytest.raises(DownloadError, match=re.escape("model: 127.0.0.1 did not answer (timed out); tried 2 times")):
        fetch(plain(web, silence(0.5)), target, patience=impatient)


def test_a_server_that_hangs_up_without_a_word_is_tried_again(web: WebServer, target: Path) -> None:
    get(plain(web, silence(0), body()), target)
    assert target.read_bytes() == CHECKPOINT


def test_a_server_that_is_not_there_is_not_tried_again(web: WebServer, target: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses, and nobody else gets the port
        source = replace(drive(web), url=f"http://127.0.0.1:{taken.getsockname()[1]}/")
        patient = replace(HASTY, back_off_seconds=60.0)
        with pytest.raises(DownloadError, match=re.escape("127.0.0.1 cannot be reached (Connection refused)")):
            fetch(source, target, patience=patient)
    assert web.requests == []


def test_a_server_that_does_not_speak_tls_is_named(web: WebServer, target: Path) -> None:
    source = plain(web, body())
    reason = failure(replace(source, url=source.url.replace("http:", "https:")), target)
    assert re.fullmatch(r"127\.0\.0\.1 cannot be reached \(\[SSL.*\)", reason)


def test_a_server_that_does_not_accept_runs_into_the_connect_timeout(web: WebServer, target: Path) -> None:
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # fill the backlog: Linux then drops further attempts
            one = sockets.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        source = replace(plain(web, body()), url=f"http://127.0.0.1:{full.getsockname()[1]}/")
        with pytest.raises(DownloadError, match=re.escape("127.0.0.1 cannot be reached (timed out)")):
            fetch(source, target, patience=replace(HASTY, connect_seconds=0.2, read_seconds=60.0))


# Faults that stay.


def test_a_redirect_loop_ends(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, status(302, {"Location": "/model.pth"})), target)
    assert reason == "127.0.0.1 redirects in circles (more than 10 times)"
    assert len(web.requests) == 11


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x", "http://["])
def test_a_redirect_off_the_web_is_refused(web: WebServer, target: Path, location: str) -> None:
    reason = failure(plain(web, status(302, {"Location": location})), target)
    assert reason.endswith("is not an http or https address")
    assert len(web.requests) == 1


def test_a_web_page_under_another_type_is_not_saved(web: WebServer, target: Path) -> None:
    html = body(b"\n<!DOCTYPE html><title>Sorry</title>" + bytes(1000))
    assert failure(plain(web, html), target) == "what came is a web page, not a PyTorch checkpoint"
    assert files(target) == set()


def test_a_file_of_another_format_is_not_saved(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, body(b"Rar!\x1a\x07\x00" + bytes(1000))), target)
    assert reason == "what came is not a PyTorch checkpoint, it begins with 52 61 72 21"
    assert files(target) == set()


def test_a_truncated_zip_is_not_saved(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, body(CHECKPOINT[:200_000])), target)
    assert reason == "what came is damaged or cut off (File is not a zip file)"
    assert files(target) == set()
    assert len(web.requests) == 1


def test_a_content_length_that_is_too_short_is_noticed(web: WebServer, target: Path) -> None:
    assert failure(plain(web, body(length=200_000)), target).startswith("what came is damaged or cut off")


def test_a_content_length_that_is_too_long_is_noticed(web: WebServer, target: Path) -> None:
    too_long = len(CHECKPOINT) + 10
    reason = failure(plain(web, body(length=too_long, takes_ranges=False)), target)
    assert reason.startswith(f"the connection ended after {len(CHECKPOINT)} of {too_long} bytes; tried 4 times")


def test_a_zip_with_a_wrong_checksum_is_not_saved(web: WebServer, target: Path) -> None:
    damaged = CHECKPOINT[:150_000] + b"odd" + CHECKPOINT[150_003:]
    assert failure(plain(web, body(damaged)), target) == "what came is damaged (wrong checksum of 'model/data/0')"


def test_a_zip_of_something_else_is_not_saved(web: WebServer, target: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("photo.jpg", bytes(100))
    reason = failure(plain(web, body(buffer.getvalue())), target)
    assert reason == "what came is a zip archive, but not a PyTorch checkpoint (no data.pkl in it)"


def test_a_zip_that_unpacks_without_end_is_not_read(web: WebServer, target: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/data.pkl", bytes(5_000_000))
    reason = failure(plain(web, body(buffer.getvalue())), target)
    assert reason == "what came is a zip archive that unpacks to more than a checkpoint can hold"


def test_a_zip_with_an_odd_compression_is_not_read(web: WebServer, target: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("model/data.pkl", b"x")
    reason = failure(plain(web, body(buffer.getvalue())), target)
    assert reason == "what came is a zip archive compressed as no checkpoint is"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=8)), min_size=1, max_size=4), st.booleans())
def test_any_damage_to_a_zip_is_survived(tmp_path: Path, changes: list[tuple[int, bytes]], deflated: bool) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        archive.writestr("model/data.pkl", b"\x80\x02}q\x00.")
    data = bytearray(buffer.getvalue())
    for position, replacement in changes:
        start = position % len(data)
        data[start : start + len(replacement)] = replacement
    path = tmp_path / "model.pth"
    path.write_bytes(data)
    source = Source(name="model", url="", browser_url="", kind="checkpoint")
    with contextlib.suppress(UnfitFileError):
        assert verify(source, path) == hashlib.sha256(data).hexdigest()


def test_a_file_that_is_too_small_names_both_sizes(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, body(), minimum_bytes=400_000), target)
    assert reason == f"what came has {len(CHECKPOINT)} bytes, and cannot be right with less than 400000"


def test_a_file_with_another_hash_than_the_published_one_names_both(web: WebServer, target: Path) -> None:
    reason = failure(plain(web, body(), sha256="0" * 64), target)
    assert reason == f"what came has SHA-256 {hashlib.sha256(CHECKPOINT).hexdigest()}, and {'0' * 64} is published"


def test_the_published_hash_is_accepted(web: WebServer, target: Path) -> None:
    get(plain(web, body(), sha256=hashlib.sha256(CHECKPOINT).hexdigest()), target)
    assert target.exists()


def test_pieces_of_two_files_are_noticed_and_fetched_anew(
    web: WebServer, target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # Same length and no validator: only the checksums inside can tell.
    other = body(checkpoint(seed=1), sends=100_000, etag=None)
    get(plain(web, other, body(etag=None), body(etag=None)), target)
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == [None, "bytes=100000-", None]
    assert "what came in pieces is damaged (wrong checksum of 'model/data/0'); fetching it anew" in caplog.text


@pytest.mark.parametrize("minimum_bytes", [0, 10**6], ids=["announced", "known before"])
def test_a_full_disk_is_seen_before_the_download(
    web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch, minimum_bytes: int
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100_000}))
    reason = failure(plain(web, body(), minimum_bytes=minimum_bytes), target)
    size = "1.0 MB" if minimum_bytes else "300.2 kB"
    assert reason == f"about {size} are needed in {str(target.parent)!r}, and 100.0 kB are free"
    assert len(web.requests) == (0 if minimum_bytes else 1)
    assert files(target) == set()


def test_a_folder_that_cannot_be_made_is_named(web: WebServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "weights" / "model.pth"
    assert failure(plain(web, body()), target) == f"not a directory ({str(target.parent)!r})"


# What is there already.


def test_a_file_put_there_by_hand_is_checked_and_taken(web: WebServer, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CHECKPOINT)
    assert get(plain(web, status(404)), target, offline=True).status == "present"
    assert files(target) == {"model.pth", "model.pth.sha256"}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<html>quota</html>", "is a web page, not a PyTorch checkpoint"),
        (b"", "is not a PyTorch checkpoint, it begins with nothing"),
        (CHECKPOINT[:-1000], "is damaged or cut off (File is not a zip file)"),
    ],
    ids=["page", "empty", "cut"],
)
def test_a_file_is_not_trusted_by_its_name(
    web: WebServer, target: Path, content: bytes, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    target.parent.mkdir()
    target.write_bytes(content)
    source = plain(web, body())
    assert failure(source, target, offline=True) == f"offline, and the file {problem}"
    assert target.read_bytes() == content
    assert get(source, target).status == "fetched"
    assert target.read_bytes() == CHECKPOINT
    assert (target.parent / "model.pth.broken").read_bytes() == content
    assert f"{str(target)!r} {problem}" in caplog.text


def test_offline_names_what_is_missing(web: WebServer, target: Path) -> None:
    assert failure(plain(web, body()), target, offline=True) == "offline, and the file is missing"
    assert web.requests == []
    assert not target.parent.exists()


def test_a_touched_file_is_read_again_and_a_changed_one_is_named(web: WebServer, target: Path) -> None:
    source = plain(web, body())
    old = get(source, target).sha256
    os.utime(target, ns=(1, 1))
    assert checked_file(source, target) is not None
    target.write_bytes(checkpoint(seed=1))
    new = hashlib.sha256(checkpoint(seed=1)).hexdigest()
    record = str(target) + ".sha256"
    message = f"{str(target)!r} has SHA-256 {new}, but had {old} before; if you replaced it, delete {record!r}"
    with pytest.raises(UnfitFileError, match=re.escape(message)):
        checked_file(source, target)
    Path(record).unlink()
    assert checked_file(source, target) is not None


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"sha256": 5, "num_bytes": 1}', "\x00", "[" * 100_000])
def test_a_damaged_record_counts_as_none(web: WebServer, target: Path, record: str) -> None:
    source = plain(web, body())
    get(source, target)
    Path(f"{target}.sha256").write_text(record)
    assert checked_file(source, target) is not None
    assert json.loads(Path(f"{target}.sha256").read_text())["num_bytes"] == len(CHECKPOINT)


def test_a_folder_in_the_place_of_a_file_is_named(web: WebServer, target: Path) -> None:
    target.mkdir(parents=True)
    with pytest.raises(UnfitFileError, match="is not a file"):
        verify(plain(web, body()), target)


def test_a_part_of_an_earlier_run_is_gone_on_with(web: WebServer, target: Path) -> None:
    source = plain(web, body(sends=100_000, takes_ranges=False))
    failure(source, target)
    web.requests.clear()
    web.on("/model.pth", body())
    get(source, target)
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == ["bytes=100000-"]
    assert files(target) == {"model.pth", "model.pth.sha256"}


def test_a_complete_part_is_only_verified(web: WebServer, target: Path) -> None:
    source = plain(web, body())
    announcement = {"url": source.url, "etag": '"1"', "last_modified": None, "length": len(CHECKPOINT)}
    target.parent.mkdir()
    Path(f"{target}.part").write_bytes(CHECKPOINT)
    Path(f"{target}.part.json").write_text(json.dumps(announcement))
    get(source, target)
    assert target.read_bytes() == CHECKPOINT
    assert web.requests == []


def test_a_read_only_folder_still_gives_its_file(web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target.parent.mkdir()
    target.write_bytes(CHECKPOINT)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert get(plain(web, body()), target).status == "present"
    assert files(target) == {"model.pth"}


# Several processes.

FETCH = """
import sys
from pathlib import Path
from dualformer_cli.data.fetch.fetch import fetch
from dualformer_cli.data.fetch.http import Source
source = Source(name="model", url=sys.argv[1], browser_url="", kind="checkpoint")
print(fetch(source, Path(sys.argv[2])).status)
"""


def start(source: Source, target: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, source.url, str(target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_killed_download_is_completed_by_the_next(web: WebServer, target: Path) -> None:
    source = plain(web, slowly(CHECKPOINT, step=20_000, pause=0.05), body())
    part = Path(f"{target}.part")
    with start(source, target) as process:
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size > 50_000) and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    held = part.stat().st_size
    assert 50_000 < held < len(CHECKPOINT)
    assert not target.exists()
    assert get(source, target).status == "fetched"
    assert target.read_bytes() == CHECKPOINT
    assert web.asked("Range") == [None, f"bytes={held}-"]
    assert files(target) == {"model.pth", "model.pth.sha256"}


def test_two_processes_fetch_a_file_once(web: WebServer, target: Path) -> None:
    source = plain(web, slowly(CHECKPOINT, step=20_000, pause=0.05))
    with start(source, target) as one, start(source, target) as other:
        results = [process.communicate(timeout=30) for process in (one, other)]
    assert sorted(result[0] for result in results) == ["fetched\n", "present\n"], results
    assert len(web.requests) == 1
    assert target.read_bytes() == CHECKPOINT


def test_a_file_system_without_locks_still_fetches(
    web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert get(plain(web, body()), target).status == "fetched"
    assert "(Function not implemented): a second process could write it too" in caplog.text


@pytest.fixture(autouse=True)
def all_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="dualformer_cli")
