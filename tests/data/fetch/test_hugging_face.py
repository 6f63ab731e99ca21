"""Weights of the Hub: addresses, files, the cache, and what goes wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, serve
from huggingface_hub.utils import close_session

from dualformer_cli.data.fetch import hugging_face as hub_module
from dualformer_cli.data.fetch.hugging_face import local_weights
from dualformer_cli.errors import DownloadError, WeightsError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    files = {"model.safetensors": b"main", "old/weights.pth": b"old", "README.md": b"#"}
    with serve("some/model", files, monkeypatch, cache=tmp_path / "hub") as server:
        yield server


@pytest.mark.parametrize(
    ("address", "content", "asked"),
    [
        ("hf://some/model", b"main", "/some/model/resolve/main/model.safetensors"),
        ("hf://some/model@v1", b"main", "/some/model/resolve/v1/model.safetensors"),
        ("hf://some/model:old/weights.pth", b"old", "/some/model/resolve/main/old/weights.pth"),
        (f"hf://some/model@{COMMIT}:README.md", b"#", f"/some/model/resolve/{COMMIT}/README.md"),
    ],
)
def test_an_address_names_a_file_which_is_fetched_once(
    hub: HubServer, address: str, content: bytes, asked: str
) -> None:
    path = local_weights(address, offline=False)
    assert (path.read_bytes(), path.name) == (content, asked.rpartition("/")[2])
    assert asked in hub.asked
    before = list(hub.asked)
    assert local_weights(address, offline=True) == path
    assert hub.asked == before, "offline never asks"


def test_a_file_is_taken_as_it_is(hub: HubServer) -> None:
    assert local_weights("weights/some.pt", offline=False) == Path("weights/some.pt")
    assert hub.asked == []


def test_a_folder_as_the_hub_has_it_is_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert local_weights(str(tmp_path), offline=True) == tmp_path / "model.safetensors"


def test_of_another_folder_the_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"weights '{tmp_path}': a folder .*; no weights are in it"):
        local_weights(str(tmp_path), offline=True)
    (tmp_path / "checkpoints").mkdir()
    for name in ("log.jsonl", "checkpoints/best.pt", "checkpoints/last.pt"):
        (tmp_path / name).touch()
    with pytest.raises(WeightsError, match=f"; name one of its files: {tmp_path}/checkpoints/best.pt, .*/last.pt$"):
        local_weights(str(tmp_path), offline=True)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("hf://model", r"an address is hf://OWNER/NAME\[@REVISION\]\[:FILE\]"),
        ("hf://some/model/file.pt", r"an address is hf://OWNER/NAME\[@REVISION\]\[:FILE\]"),
        ("hf://other/model", "there is no 'other/model', or it is private; log in with `hf auth login`"),
        ("hf://some/model@v2", "'some/model' has no revision 'v2'; name a branch, tag or commit"),
        (
            "hf://some/model:other.pt",
            "'some/model' has no 'other.pt'; name one of its files behind a colon: model.safetensors, old/weights.pth",
        ),
        ("hf://some/mo--del", "Cannot have -- or .. in repo_id"),
    ],
)
def test_what_cannot_be_fetched_says_why(hub: HubServer, address: str, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        local_weights(address, offline=False)


def test_a_gated_repository_says_what_to_do(hub: HubServer) -> None:
    hub.gated = True
    with pytest.raises(DownloadError, match="'some/model' is gated; accept its terms on its page, then log in"):
        local_weights("hf://some/model", offline=False)


def test_offline_says_what_is_missing_and_asks_nobody(hub: HubServer) -> None:
    with pytest.raises(DownloadError, match="not in the Hub's cache, and the network may not be used; fetch it once"):
        local_weights("hf://some/model", offline=True)
    assert hub.asked == []


def _no_name(*_: object, **__: object) -> None:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


def _no_end(*_: object, **__: object) -> None:
    threading.Event().wait()


@pytest.mark.parametrize(
    ("resolver", "reason"),
    [(None, r".*refused.*"), (_no_name, r".*Name or service not known"), (_no_end, r"no answer within 0\.3 seconds")],
)
def test_a_hub_that_does_not_answer_is_named_at_once_and_what_was_fetched_is_taken(
    hub: HubServer,
    resolver: Callable[..., None] | None,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    fetched = local_weights("hf://some/model", offline=False)
    hub.close()
    close_session()  # it keeps a connection to the server that is gone
    if resolver is not None:
        monkeypatch.setattr(socket, "getaddrinfo", resolver)
    if resolver is _no_end:
        monkeypatch.setattr(hub_module, "ANSWER_SECONDS", 0.3)
    capfd.readouterr()
    start = time.monotonic()
    said = rf"the Hub does not answer \({reason}\) and the file is not in its cache; try again later$"
    with pytest.raises(DownloadError, match=said):
        local_weights("hf://some/model:old/weights.pth", offline=False)
    assert local_weights("hf://some/model", offline=False) == fetched
    assert time.monotonic() - start < 8, "the client of the Hub tries again for 31 seconds"
    assert capfd.readouterr().err == ""
