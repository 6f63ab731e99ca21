"""Weights of presets come from the cache, the network or the package, and whoever waits for them does so briefly."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from toy_checkpoint import CHECKPOINT, body, checkpoint
from web_server import WebServer

from dualformer_cli.data.fetch import weights as weights_module
from dualformer_cli.data.fetch.http import TransferError
from dualformer_cli.data.fetch.weights import (
    cached_weights,
    fetch_weights,
    list_weights,
    preset_of,
    published_weights,
    require_weights,
    shipped_weights,
    weights_within_reach,
)
from dualformer_cli.errors import DownloadError, WeightsError


@pytest.fixture
def catalogue(web: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder, and a catalogue whose Google Drive is the local server and whose files are small."""
    template = f"{web.address}/{{id}}"
    small = {
        name: {"drive_id": name, "minimum_bytes": 1000, "browser_url": f"https://b.example/{name}"}
        for name in ("k400-tiny", "k400-small", "k400-base")
    }
    override = tmp_path / "mirror.yaml"
    override.write_text(json.dumps({"google_drive": {"direct": template, "page": template}, "weights": small}))
    monkeypatch.setenv("DUALFORMER_CATALOGUE", str(override))
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_published_weights_are_fetched_once_into_the_cache(web: WebServer, catalogue: Path) -> None:
    web.on("/k400-tiny", body())
    assert cached_weights("k400-tiny") is None
    path = published_weights("k400-tiny", offline=False)
    assert path == catalogue / "weights" / "k400-tiny.pth"
    assert path.read_bytes() == CHECKPOINT
    assert cached_weights("k400-tiny") == published_weights("k400-tiny", offline=True) == path
    assert len(web.requests) == 1


def test_missing_weights_offline_name_the_page_and_the_path(catalogue: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        published_weights("k400-tiny", offline=True)
    path = str(catalogue / "weights" / "k400-tiny.pth")
    assert str(caught.value) == (
        f"k400-tiny: offline, and the file is missing; fetch https://b.example/k400-tiny by hand and put it at {path!r}"
    )


def test_cached_weights_that_are_a_web_page_do_not_count(catalogue: Path) -> None:
    path = catalogue / "weights" / "k400-tiny.pth"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<html>")
    assert cached_weights("k400-tiny") is None
    assert list_weights(["k400-tiny"])[0].state == "broken"


@pytest.mark.parametrize("function", [cached_weights, lambda preset: published_weights(preset, offline=True)])
def test_a_preset_without_published_weights_is_told_which_have_some(
    function: Callable[[str], object], catalogue: Path
) -> None:
    message = "no published weights for 'ucf101-tiny'; did you mean 'ucf101-small'? Presets that have some: k400-tiny, "
    with pytest.raises(DownloadError, match=re.escape(message)):
        function("ucf101-tiny")


def test_weights_within_reach_are_fetched_once_and_then_asked_for_no_more(web: WebServer, catalogue: Path) -> None:
    web.on("/k400-tiny", body())
    assert weights_within_reach("k400-tiny", offline=False).read_bytes() == CHECKPOINT
    asked = len(web.requests)
    assert weights_within_reach("k400-tiny", offline=False) == weights_within_reach("k400-tiny", offline=True)
    assert len(web.requests) == asked


def test_weights_out_of_reach_are_given_up_soon(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*_: object) -> None:
        time.sleep(5)

    monkeypatch.setattr(weights_module, "open_file", hang)
    started = time.monotonic()
    with pytest.raises(
        DownloadError, match=r"no answer within 0\.05 seconds; fetch https://b\.example/k400-tiny by hand"
    ):
        weights_within_reach("k400-tiny", offline=False, answer_seconds=0.05)
    assert time.monotonic() - started < 4
    assert [path.name for path in catalogue.rglob("*") if path.is_file()] == ["k400-tiny.pth.failed.json"]


@pytest.fixture
def silent_server(catalogue: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A server that refuses; the list gets an entry for each time that it was asked."""
    asked: list[str] = []

    def refuse(*_: object) -> None:
        asked.append("asked")
        raise TransferError("cannot be reached")

    monkeypatch.setattr(weights_module, "open_file", refuse)
    return asked


def out_of_reach() -> str:
    with pytest.raises(DownloadError) as raised:
        weights_within_reach("k400-tiny", offline=False, answer_seconds=1)
    return str(raised.value)


def test_a_server_that_did_not_answer_is_asked_again_after_a_day(
    silent_server: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    assert out_of_reach().startswith("k400-tiny: cannot be reached; fetch ")
    for later, words in ((3, "3 s"), (600, "10 min"), (2 * 3600 + 60, "2 h 1 min"), (86000, "23 h 53 min")):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        assert out_of_reach().startswith(f"k400-tiny: cannot be reached ({words} ago; nobody asks again before ")
    assert len(silent_server) == 1
    for elsewhen in (now + 86500, now - 3600):  # a clock that was set back says nothing of the time between
        monkeypatch.setattr(time, "time", lambda elsewhen=elsewhen: elsewhen)
        out_of_reach()
    assert len(silent_server) == 3


def test_another_address_is_asked_at_once(
    silent_server: list[str], catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out_of_reach()
    found = weights_module.published_source
    monkeypatch.setattr(weights_module, "published_source", lambda *given: replace(found(*given), url="http://new/"))
    out_of_reach()
    assert len(silent_server) == 2


@pytest.mark.parametrize("note", ["{", "[]", '{"url": 1}', "\xff"])
def test_a_note_that_is_damaged_or_cannot_be_written_changes_nothing(
    note: str, silent_server: list[str], catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = catalogue / "weights"
    folder.mkdir(parents=True)
    (folder / "k400-tiny.pth.failed.json").write_text(note, encoding="latin-1")
    out_of_reach()
    assert len(silent_server) == 1
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.write_text("no folder can be here")
    out_of_reach()
    out_of_reach()
    assert len(silent_server) == 3


def test_being_offline_is_no_failure_to_remember(silent_server: list[str], catalogue: Path) -> None:
    for _ in range(2):
        with pytest.raises(DownloadError, match="offline, and the file is missing"):
            weights_within_reach("k400-tiny", offline=True)
    assert not catalogue.exists()


def test_a_fetch_that_was_asked_for_is_tried_whatever_has_failed(web: WebServer, catalogue: Path) -> None:
    out_of_reach()
    web.on("/k400-tiny", body())
    assert out_of_reach().count("ago")
    assert fetch_weights(["k400-tiny"])[0].status != "error"
    assert weights_within_reach("k400-tiny", offline=False).read_bytes() == CHECKPOINT


def test_a_name_is_a_file_or_a_preset_with_weights(tmp_path: Path, catalogue: Path) -> None:
    own = tmp_path / "best.pt"
    own.write_bytes(b"")
    assert preset_of(str(own)) is None
    assert preset_of("k400-tiny") == "k400-tiny"
    assert preset_of("camera-motion") == "camera-motion"
    message = (
        "'k400-tinny' not found; did you mean 'k400-tiny'? Give a file, hf://OWNER/NAME, or a preset with weights: "
    )
    with pytest.raises(WeightsError, match=re.escape(message)):
        require_weights("k400-tinny")
    with pytest.raises(WeightsError, match=r"not found; give a file, hf://OWNER/NAME, or a preset"):
        require_weights("runs/zzzz.pt")
    assert preset_of("runs/zzzz.pt") is None
    require_weights(str(own))


def test_a_page_instead_of_weights_within_reach_is_told(web: WebServer, catalogue: Path) -> None:
    with pytest.raises(DownloadError, match="not found, the file was moved or deleted"):
        weights_within_reach("k400-tiny", offline=False)
    with pytest.raises(DownloadError, match="offline, and the file is missing"):
        weights_within_reach("k400-tiny", offline=True)


def test_weights_of_the_package_need_neither_cache_nor_network(
    catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.safetensors"
    monkeypatch.setattr(weights_module, "SHIPPED_WEIGHTS", {"own": str(path)})
    assert shipped_weights("own") is None
    with pytest.raises(DownloadError, match="no published weights for 'own'"):
        published_weights("own", offline=True)
    path.write_bytes(b"weights")
    assert shipped_weights("own") == published_weights("own", offline=True) == path
    assert shipped_weights("k400-tiny") is None


def test_one_file_that_fails_does_not_stop_the_others(web: WebServer, catalogue: Path, tmp_path: Path) -> None:
    web.on("/k400-tiny", body())
    web.on("/k400-base", body(checkpoint(seed=1)))
    names = ["k400-tiny", "k400-small", "k400-base", "k400-tiny"]
    told: set[str] = set()
    outcomes = fetch_weights(names, root=tmp_path / "root", progress=lambda name, *_: told.add(name))
    assert [(outcome.name, outcome.status) for outcome in outcomes] == [
        ("k400-tiny", "fetched"),
        ("k400-small", "error"),
        ("k400-base", "fetched"),
    ]
    assert outcomes[1].error is not None
    assert outcomes[1].error.startswith("k400-small: not found, the file was moved or deleted")
    assert (tmp_path / "root" / "weights" / "k400-base.pth").read_bytes() == checkpoint(seed=1)
    assert told == {"k400-tiny", "k400-base"}


def test_an_unknown_name_stops_before_anything_is_fetched(web: WebServer, catalogue: Path) -> None:
    with pytest.raises(DownloadError, match="no published weights for 'k400-huge'"):
        fetch_weights(["k400-tiny", "k400-huge"])
    assert web.requests == []


def test_a_bug_in_a_thread_reaches_the_caller(web: WebServer, catalogue: Path) -> None:
    web.on("/k400-tiny", body())

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fetch_weights(["k400-tiny"], progress=broken)
