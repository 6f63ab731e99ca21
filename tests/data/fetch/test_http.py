"""Addresses and pages; whole conversations with a server are in test_archives.py."""

from __future__ import annotations

import re
import ssl
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualformer_cli.data.fetch import http
from dualformer_cli.data.fetch.http import Page, TransferError, checked_address, read_page, redirected


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://b.example/x", "https://b.example/x"),
        ("/x?y=1", "https://a.example/x?y=1"),
        ("next", "https://a.example/files/next"),
        ("//b.example/x y", "https://b.example/x%20y"),
        ("/x%20y", "https://a.example/x%20y"),
        ("/caf\xc3\xa9", "https://a.example/caf%C3%A9"),
    ],
)
def test_a_redirect_is_relative_to_its_page(location: str, target: str) -> None:
    assert redirected("https://a.example/files/page", location) == target


def test_a_redirect_never_drops_encryption() -> None:
    message = "redirected from https to the unprotected 'http://a.example/x'"
    with pytest.raises(TransferError, match=re.escape(message)):
        redirected("https://a.example/", "http://a.example/x")
    assert redirected("http://a.example/", "https://a.example/x") == "https://a.example/x"


@pytest.mark.parametrize(
    "address", ["file:///x", "ftp://a/x", "a.example/x", "", "http://", "http://[", "http://a:99999/"]
)
def test_only_web_addresses_are_asked(address: str) -> None:
    with pytest.raises(TransferError, match=re.escape(f"{address!r} is not an http or https address")):
        checked_address(address)


@given(st.text(), st.sampled_from(["http", "https"]))
def test_a_redirect_leads_to_the_web_or_is_refused(location: str, scheme: str) -> None:
    try:
        target = redirected(f"{scheme}://a.example/x", location)
    except TransferError:
        return
    assert target.startswith(("http://", "https://"))
    assert target.isascii()


def test_a_page_gives_its_title_caption_and_form() -> None:
    page = read_page(
        "<html><head><title>\n Google Drive -\n Quota &amp; more </title></head><body><svg><title>no</title></svg>"
        '<p class="uc-error-subcaption">Too many <b>users</b>\n came.</p><p>not this</p>'
        '<form id="download-form" action="https://b.example/get?a=1&amp;b=2" method="get">'
        '<input type="hidden" name="b" value="3&amp;4"><input type="hidden" name="c"><input name="d" value="5">'
        '<input type="hidden" value="nameless"></form><input type="hidden" name="e" value="6">'
    )
    assert page == Page(
        title="Google Drive - Quota & more",
        caption="Too many users came.",
        form_action="https://b.example/get?a=1&b=2",
        form_fields={"b": "3&4", "c": ""},
    )
    assert page.form_address("https://a.example/") == "https://b.example/get?a=1&b=3%264&c="


def test_a_form_cannot_leave_the_web() -> None:
    page = read_page('<form id="download-form" action="file:///etc/passwd"></form>')
    with pytest.raises(TransferError, match=re.escape("'file:///etc/passwd' is not an http or https address")):
        page.form_address("https://a.example/")


@given(st.text(alphabet=st.sampled_from('<>/="ab &;!-formtilep\n\x00'), max_size=200))
def test_any_text_is_read_as_a_page(text: str) -> None:
    page = read_page(text)
    assert "\n" not in page.title + page.caption


def test_the_certificates_of_the_system_count_where_truststore_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "truststore", None)
    assert http._checked_context() is None
    monkeypatch.setitem(sys.modules, "truststore", SimpleNamespace(SSLContext=lambda protocol: ("system", protocol)))
    assert http._checked_context() == ("system", ssl.PROTOCOL_TLS_CLIENT)
