"""Weights of the Hub: addresses, files, the cache, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import COMMIT, HubServer, serve

from dualformer_cli.data.fetch.hub import local_weights
from dualformer_cli.errors import DownloadError


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


def test_a_hub_that_does_not_answer_is_named(hub: HubServer) -> None:
    hub.close()
    with pytest.raises(DownloadError, match="the Hub does not answer and the file is not in its cache"):
        local_weights("hf://some/model", offline=False)
