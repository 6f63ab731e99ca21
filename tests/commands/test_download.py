"""The download command: what it prints, where, and how it exits."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.commands import download as command
from dualformer_cli.errors import DownloadError

NAMES = ["k400-tiny", "k400-small", "k400-base", "k600-base", "diving48-small", "hmdb51-small", "ucf101-small"]


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", bytes(50_000))
    return buffer.getvalue()


class Drive(BaseHTTPRequestHandler):
    """Has k400-tiny and k600-base; k400-small is over its quota; k400-base comes slowly; others are not found."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name in ("k400-tiny", "k600-base", "k400-base"):
            self.answer(200, "application/octet-stream", checkpoint(), pause=10.0 if name == "k400-base" else 0.0)
        elif name == "k400-small":
            self.answer(200, "text/html", b"<title>Google Drive - Quota exceeded</title>")
        else:
            self.answer(404, "text/html", b"<title>Error 404 (Not Found)!!1</title>")

    def answer(self, code: int, kind: str, body: bytes, *, pause: float = 0.0) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Disposition", "attachment")
        self.end_headers()
        self.wfile.write(body[:1000])
        self.wfile.flush()
        time.sleep(pause)
        self.wfile.write(body[1000:])

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Drive)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def cache(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder, and a catalogue whose Google Drive is the local server and whose files are small."""
    template = f"{address}/{{id}}"
    small = {
        name: {"drive_id": name, "minimum_bytes": 1000, "browser_url": f"https://b.example/{name}"} for name in NAMES
    }
    catalogue = tmp_path / "mirror.yaml"
    catalogue.write_text(json.dumps({"google_drive": {"direct": template, "page": template}, "weights": small}))
    for name in [name for name in os.environ if name.startswith("DUALFORMER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DUALFORMER_CATALOGUE", str(catalogue))
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "cache"


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command as a process; returns its exit code, stdout and stderr."""
    whole = [sys.executable, "-m", "dualformer_cli", "download", *arguments]
    result = subprocess.run(whole, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout, result.stderr


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["download", *arguments])


def test_one_name_is_fetched_then_present(cache: Path) -> None:
    path = cache / "weights" / "k400-tiny.pth"
    assert run("k400-tiny") == (0, f"k400-tiny: fetched, 0.1 MB, {path}\n", "")
    assert path.read_bytes() == checkpoint()
    assert invoke("k400-tiny", "--offline").stdout == f"k400-tiny: present, 0.1 MB, {path}\n"


def test_a_failure_is_one_line_with_the_manual_route_and_exit_1(cache: Path) -> None:
    path = str(cache / "weights" / "k400-small.pth")
    code, stdout, stderr = run("k400-small")
    assert (code, stdout) == (1, "")
    assert stderr == (
        "dualformer: k400-small: the download quota of the file is used up, wait up to 24 hours (page 'Google Drive - "
        f"Quota exceeded' from 127.0.0.1); fetch https://b.example/k400-small by hand and put it at {path!r}\n"
    )


def test_some_failures_exit_3_and_name_each(cache: Path) -> None:
    code, stdout, stderr = run("k400-small", "k400-tiny", "ucf101-small", "k600-base")
    assert code == 3
    assert [line.partition(":")[0] for line in stdout.splitlines()] == ["k400-tiny", "k600-base"]
    assert [line.partition(";")[0] for line in stderr.splitlines()] == [
        "k400-small: the download quota of the file is used up, wait up to 24 hours "
        "(page 'Google Drive - Quota exceeded' from 127.0.0.1)",
        "ucf101-small: not found, the file was moved or deleted (page 'Error 404 (Not Found)!!1' from 127.0.0.1)",
    ]


def test_only_failures_exit_1() -> None:
    assert invoke("k400-small", "ucf101-small").exit_code == 1


@pytest.mark.parametrize(("names", "code"), [(["k400-tiny", "k400-small"], 3), (["k400-small"], 1), (["k400-tiny"], 0)])
def test_json_is_one_document_whatever_happens(cache: Path, names: Sequence[str], code: int) -> None:
    result = invoke(*names, "--json")
    assert result.exit_code == code
    results = json.loads(result.stdout)["results"]
    assert [entry["name"] for entry in results] == list(names)
    for entry in results:
        good = entry["name"] == "k400-tiny"
        assert entry["status"] == ("fetched" if good else "error")
        assert entry["path"] == str(cache / "weights" / f"{entry['name']}.pth")
        assert entry["url"] == f"https://b.example/{entry['name']}"
        assert (entry["num_bytes"], entry["error"] is None) == (len(checkpoint()) if good else None, good)
        assert entry["sha256"] is None or re.fullmatch("[0-9a-f]{64}", entry["sha256"])


def test_offline_says_what_is_missing(cache: Path) -> None:
    path = str(cache / "weights" / "k400-tiny.pth")
    code, stdout, stderr = run("k400-tiny", "--offline")
    assert (code, stdout) == (1, "")
    assert stderr == (
        "dualformer: k400-tiny: offline, and the file is missing; "
        f"fetch https://b.example/k400-tiny by hand and put it at {path!r}\n"
    )


def test_the_variable_means_offline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUALFORMER_OFFLINE", "1")
    result = invoke("k400-tiny")
    assert isinstance(result.exception, DownloadError)
    assert "offline, and the file is missing" in str(result.exception)


def test_a_relative_root_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert json.loads(invoke("--list", "--json", "--root", "here").stdout)["weights"][0]["path"] == str(
        tmp_path / "here" / "weights" / "k400-tiny.pth"
    )


def test_root_is_another_place(tmp_path: Path, cache: Path) -> None:
    assert invoke("k400-tiny", "--root", str(tmp_path / "here")).exit_code == 0
    assert (tmp_path / "here" / "weights" / "k400-tiny.pth").is_file()
    assert not cache.exists()


def test_the_list_shows_state_size_and_address(cache: Path) -> None:
    invoke("k400-tiny")
    (cache / "weights" / "k400-base.pth").write_text("<html>")
    result = invoke("--list")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["name", "kind", "at", "least", "top-1", "state", "address"]
    assert [row[0] for row in rows[1:]] == NAMES
    assert rows[1] == ["k400-tiny", "weights", "0.0", "MB", "79.5", "present", "https://b.example/k400-tiny"]
    assert [row[5] for row in rows[2:4]] == ["missing", "broken"]


def test_the_list_as_json_has_what_is_known(cache: Path) -> None:
    weights = json.loads(invoke("--list", "--json").stdout)["weights"]
    assert [entry["name"] for entry in weights] == NAMES
    assert weights[0] == {
        "name": "k400-tiny",
        "kind": "weights",
        "state": "missing",
        "path": str(cache / "weights" / "k400-tiny.pth"),
        "url": "https://b.example/k400-tiny",
        "minimum_bytes": 1000,
        "top1": 79.5,
        "licence": "Apache-2.0 (repository)",
        "note": "Kinetics-400, started from ImageNet-1K",
    }


def test_a_dry_run_says_what_where_and_how_large(cache: Path) -> None:
    invoke("k400-tiny")
    (cache / "weights" / "k400-base.pth").write_text("<html>")
    lines = invoke("k400-tiny", "k600-base", "k400-base", "--dry-run").stdout.splitlines()
    folder = cache / "weights"
    assert lines == [
        f"k400-tiny: present at {folder / 'k400-tiny.pth'}",
        f"k600-base: would fetch at least 0.0 MB from https://b.example/k600-base to {folder / 'k600-base.pth'}",
        f"k400-base: would fetch at least 0.0 MB from https://b.example/k400-base to {folder / 'k400-base.pth'}"
        " (the file there is broken)",
    ]
    assert not (folder / "k600-base.pth").exists()


def test_without_a_name_the_usage_is_said() -> None:
    code, stdout, stderr = run()
    assert (code, stdout) == (2, "")
    assert "name a preset with published weights, or see them with --list" in stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("kinetics400", "'kinetics400' is a dataset, and datasets are not in this version yet. Presets with weights: "),
        ("k400-tinny", "no published weights for 'k400-tinny'; did you mean 'k400-tiny'? Presets that have some: "),
    ],
)
@pytest.mark.parametrize("mode", [(), ("--dry-run",), ("--list",)])
def test_a_name_without_weights_stops_everything(cache: Path, name: str, message: str, mode: Sequence[str]) -> None:
    result = invoke("k400-tiny", name, *mode)
    assert isinstance(result.exception, DownloadError)
    assert str(result.exception).startswith(message + ", ".join(NAMES))
    assert not cache.exists()


def test_without_a_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 5.0, 6.0, 11.0])
    monkeypatch.setattr(command, "time", SimpleNamespace(monotonic=lambda: next(now)))
    lines = command._PlainLines()
    for done in (1_000_000, 2_000_000, 3_000_000, 4_000_000):
        lines("k400-tiny", done, 87_900_000)
    lines("k400-tiny", 5_000_000, None)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "k400-tiny: 3.0 MB of 87.9 MB\nk400-tiny: 5.0 MB\n"


def test_on_a_terminal_each_file_has_a_bar_and_stdout_stays_clean(cache: Path) -> None:
    reader, writer = os.openpty()
    whole = [sys.executable, "-m", "dualformer_cli", "download", "k400-tiny", "k600-base", "--json"]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=writer, env=environ) as process:
        os.close(writer)
        drawn = b""
        while chunk := _read_terminal(reader):
            drawn += chunk
        stdout = process.stdout.read() if process.stdout else b""
    os.close(reader)
    assert process.returncode == 0
    assert [entry["status"] for entry in json.loads(stdout)["results"]] == ["fetched", "fetched"]
    assert b"k400-tiny" in drawn
    assert b"k600-base" in drawn


def _read_terminal(reader: int) -> bytes:
    try:
        return os.read(reader, 4096)
    except OSError:  # Linux says so when the last writer is gone
        return b""


def test_an_interrupt_ends_at_once_and_keeps_what_came(cache: Path) -> None:
    part = cache / "weights" / "k400-base.pth.part"
    whole = [sys.executable, "-m", "dualformer_cli", "download", "k400-base"]
    begin = time.monotonic()
    with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True) as process:
        while not (part.exists() and part.stat().st_size == 1000) and time.monotonic() < begin + 20:
            time.sleep(0.01)
        process.send_signal(2)
        _, stderr = process.communicate(timeout=8)  # the server is silent for longer
    assert (process.returncode, stderr) == (130, "dualformer: interrupted\n")
    assert part.stat().st_size == 1000
