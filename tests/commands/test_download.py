"""The download command: what it prints, where, and how it exits."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from web_server import WebServer

from dualformer_cli.app import app
from dualformer_cli.data.datasets.catalogue import load_catalogue
from dualformer_cli.documents.download import Download
from dualformer_cli.errors import DownloadError
from dualformer_cli.tasks.download import DownloadRequest

NAMES = ["k400-tiny", "k400-small", "k400-base", "k600-base", "diving48-small", "hmdb51-small", "ucf101-small"]


def _checkpoint() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/data.pkl", bytes(50_000))
    return buffer.getvalue()


CHECKPOINT = _checkpoint()  # once: the archive holds the time


class Drive(BaseHTTPRequestHandler):
    """Has k400-tiny and k600-base; k400-small is over its quota; k400-base comes slowly; others are not found."""

    def do_GET(self) -> None:
        name = self.path.strip("/")
        if name in ("k400-tiny", "k600-base", "k400-base"):
            self.answer(200, "application/octet-stream", CHECKPOINT, pause=10.0 if name == "k400-base" else 0.0)
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
    assert run("k400-tiny") == (0, f"k400-tiny: fetched, 50.1 kB, {path}\n", "")
    assert path.read_bytes() == CHECKPOINT
    assert invoke("k400-tiny", "--offline").stdout == f"k400-tiny: present, 50.1 kB, {path}\n"


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
        assert (entry["num_bytes"], entry["error"] is None) == (len(CHECKPOINT) if good else None, good)
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
    gap = rows.index([])
    assert " ".join(rows[0]) == "name classes train val test size fetched state"
    assert [row[0] for row in rows[1:gap]] == list(load_catalogue().datasets)
    assert rows[1] == ["hmdb51", "51", "3,570", "1,530", "-", "2.1", "GB", "automatic", "missing"]
    rows = rows[gap + 1 :]
    assert rows[0] == ["name", "at", "least", "top-1", "state"]
    assert [row[0] for row in rows[1 : rows.index([])]] == NAMES
    assert rows[1] == ["k400-tiny", "1.0", "kB", "79.5", "present"]
    assert [row[4] for row in rows[2:4]] == ["missing", "broken"]
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_the_list_of_a_name_has_all_about_it(cache: Path) -> None:
    invoke("k400-tiny")
    shown = invoke("--list", "ucf101", "k400-tiny").stdout
    dataset, weights = (dict(re.findall(r"^(\w[\w-]*) +(.*)$", part, re.MULTILINE)) for part in shown.split("\n\n"))
    entry = load_catalogue().datasets["ucf101"]
    assert dataset["name"].startswith("ucf101, ")
    assert (dataset["metric"], dataset["address"]) == ("top-1, mean of 3 splits", entry.homepage)
    assert "train_2 9,586" in dataset["videos"]
    assert (weights["name"], weights["top-1"]) == ("k400-tiny, weights", "79.5")
    assert weights["state"] == f"present, at {cache / 'weights' / 'k400-tiny.pth'}"
    assert weights["address"] == "https://b.example/k400-tiny"


def test_the_list_as_json_has_what_is_known(cache: Path) -> None:
    document = json.loads(invoke("--list", "--json").stdout)
    weights = document["weights"]
    ucf101 = next(entry for entry in document["datasets"] if entry["name"] == "ucf101")
    assert ucf101["splits"]["train_2"] == 9586
    assert (ucf101["classes"], ucf101["metric"]) == (["ucf101"], "top-1, mean of 3 splits")
    assert [file["name"] for file in ucf101["files"]] == ["splits", "videos"]
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
        f"k600-base: would fetch at least 1.0 kB from https://b.example/k600-base to {folder / 'k600-base.pth'}",
        f"k400-base: would fetch at least 1.0 kB from https://b.example/k400-base to {folder / 'k400-base.pth'}"
        " (the file there is broken)",
    ]
    assert not (folder / "k600-base.pth").exists()


def test_without_a_name_the_usage_is_said() -> None:
    code, stdout, stderr = run()
    assert (code, stdout) == (2, "")
    assert "name a dataset or a preset with weights, or see all with --list" in " ".join(stderr.split())


@pytest.mark.parametrize("mode", [(), ("--dry-run",), ("--list",)])
def test_a_name_of_nothing_stops_everything(cache: Path, mode: Sequence[str]) -> None:
    result = invoke("k400-tiny", "k400-tinny", *mode)
    assert isinstance(result.exception, DownloadError)
    assert str(result.exception).startswith("nothing is known of 'k400-tinny'; did you mean 'k400-tiny'? Datasets: ")
    assert str(result.exception).endswith(", ".join(NAMES))
    assert not cache.exists()


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


# Datasets.


@pytest.fixture
def diving48(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Diving48 with three videos, of which one is missing, on a local server; and the folder that it goes to."""
    names = {"train": ["-a_1", "b_2"], "test": ["c_3"]}
    for split, videos in names.items():
        rows = [{"vid_name": name, "label": 0, "start_frame": 0, "end_frame": 9} for name in videos]
        web.files[f"/projects/resound/Diving48_V2_{split}.json"] = json.dumps(rows).encode()
    web.files["/projects/resound/Diving48_vocab.json"] = b"[]"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in ("-a_1", "c_3"):
            archive.addfile(tarfile.TarInfo(f"rgb/{name}.mp4"), io.BytesIO())
    web.files["/projects/resound/Diving48_rgb.tar.gz"] = buffer.getvalue()
    small = {"diving48": {"files": {"videos": {"about_gb": 0.001}}}}
    content = {"mirrors": {"http://www.svcl.ucsd.edu": web.address}, "datasets": small}
    (tmp_path / "mirror.yaml").write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data" / "diving48"


def test_a_dataset_is_fetched_unpacked_and_compared(diving48: Path) -> None:
    code, stdout, stderr = run("diving48")
    assert (code, stderr) == (0, "")
    assert stdout.splitlines() == [
        f"diving48 vocabulary: done, {diving48}/annotations",
        f"diving48 train: done, {diving48}/annotations",
        f"diving48 test: done, {diving48}/annotations",
        f"diving48 videos: done, {diving48}/videos",
        "diving48 train: 1 of 2 videos are there, 1 missing, such as b_2; all in missing.csv; "
        "the annotations name 2 of the 15,027 published",
        "diving48 val: 1 of 1 video is there; the annotations name 1 of the 1,970 published",
    ]
    assert (diving48 / "videos" / "-a_1.mp4").is_file()
    assert (diving48 / "missing.csv").read_text() == "split,video\ntrain,b_2\n"
    document = json.loads(invoke("diving48", "--json", "--offline").stdout)
    assert [entry["status"] for entry in document["datasets"]] == ["present"] * 4
    assert [(row["split"], row["annotated"], row["present"]) for row in document["present"]["diving48"]] == [
        ("train", 2, 1),
        ("val", 1, 1),
    ]
    row = next(line for line in invoke("--list").stdout.splitlines() if line.startswith("diving48"))
    assert row.split()[-2:] == ["automatic", "present"]
    assert re.search(r"^state +present in ", invoke("--list", "diving48").stdout, re.MULTILINE)


def test_only_and_split_choose_a_part_of_a_dataset(diving48: Path) -> None:
    assert invoke("diving48", "--only", "annotations", "--split", "val", "--root", "there").exit_code == 0
    found = {path.name for path in (diving48.parent.parent / "there").rglob("*.json")}
    assert found == {"Diving48_vocab.json", "Diving48_V2_test.json"}
    assert not diving48.exists()


def test_a_dry_run_of_a_dataset_names_sizes_addresses_and_folders(diving48: Path, web: WebServer) -> None:
    lines = invoke("diving48", "sthv2", "kinetics400", "--dry-run").stdout.splitlines()
    base = f"{web.address}/projects/resound"
    assert lines[0] == (
        f"diving48 vocabulary: would fetch a file of unknown size from {base}/Diving48_vocab.json "
        f"to {diving48}/annotations"
    )
    assert lines[3] == f"diving48 videos: would fetch about 1.0 MB from {base}/Diving48_rgb.tar.gz to {diving48}/videos"
    assert lines[4].startswith("sthv2 annotations: by hand: go to https://www.qualcomm.com/")
    assert (
        "kinetics400 train: would fetch 242 archives (about 370.0 GB) listed at "
        f"https://s3.amazonaws.com/kinetics/400/train/k400_train_path.txt to {diving48.parent}/kinetics400/videos_train"
    ) in lines
    assert lines[-1].startswith("in all: about 456.0 GB to fetch, and 7 files of unknown size; ")
    assert web.requests == []
    assert not diving48.parent.exists()


def test_what_is_to_be_done_by_hand_is_said_and_fails(diving48: Path) -> None:
    code, stdout, stderr = run("jester", "diving48")
    assert code == 3
    assert len(stdout.splitlines()) == 6
    assert [line.partition(": ")[0] for line in stderr.splitlines()] == ["jester annotations", "jester rawframes"]
    code, stdout, stderr = run("jester")
    assert (code, stdout) == (1, "")
    assert "put 20bn-jester-v1-?? or 20bn-jester-v1-??.zip or 20bnjester-v1-?? or 20bnjester-v1-??.zip into " in stderr


def test_optional_parts_by_hand_are_no_failure(diving48: Path) -> None:
    folder = diving48.parent / "activitynet" / "videos"
    folder.mkdir(parents=True)
    (folder / "v_a.mp4").touch()
    result = invoke("activitynet", "--only", "videos")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("activitynet train_val: present, ")


def test_weights_of_a_dataset_are_those_of_its_presets(cache: Path) -> None:
    lines = invoke("hmdb51", "--only", "weights", "--dry-run").stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["hmdb51-small"]


def test_an_only_that_is_none_is_a_usage_error() -> None:
    code, _, stderr = run("ucf101", "--only", "frames")
    assert code == 2
    assert "'frames'" in stderr


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ([], None, None),
        (["--only", "videos", "--only", "weights"], "only", ("videos", "weights")),
        (["--split", "val", "--split", "test"], "splits", ("val", "test")),
        (["--root", "there"], "root", Path("there")),
        (["--delete-archives"], "delete_archives", True),
        (["--skip-certificate-check"], "skip_certificate_check", True),
        (["--offline"], "offline", True),
    ],
)
def test_every_option_is_in_the_request(
    options: list[str], field: str | None, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[DownloadRequest] = []

    def download(request: DownloadRequest, progress: object) -> Download:
        asked.append(request)
        return Download(datasets=(), present={}, results=())

    monkeypatch.setattr("dualformer_cli.tasks.download.download", download)
    assert invoke("ucf101", "k400-tiny", *options).exit_code == 0
    assert asked == [replace(DownloadRequest(names=("ucf101", "k400-tiny")), **({field: value} if field else {}))]
