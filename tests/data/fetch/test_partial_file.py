"""What an earlier run left behind is gone on with, or begun anew; see test_archives.py for talks with a server."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualformer_cli.data.fetch.partial_file import Announcement, PartialFile

URL = "http://a.example/model.pth"
GOOD = {"url": URL, "etag": '"1"', "last_modified": "Tue, 07 Jun 2022 10:00:00 GMT", "length": 10}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "model.pth.part").write_bytes(b"12345")
    return tmp_path / "model.pth"


def left(target: Path, announcement: object) -> PartialFile:
    """The partial file that the next run sees."""
    Path(f"{target}.part.json").write_text(json.dumps(announcement))
    return PartialFile(target, URL)


def test_bytes_of_an_earlier_run_count(target: Path) -> None:
    part = left(target, GOOD)
    assert (part.size, part.length, part.is_complete, part.joined) == (5, 10, False, True)
    assert part.range_headers() == {"Range": "bytes=5-", "If-Range": '"1"'}


def test_a_weak_etag_is_no_condition(target: Path) -> None:
    weak = {**GOOD, "etag": 'W/"1"'}
    assert left(target, weak).range_headers()["If-Range"] == GOOD["last_modified"]
    assert left(target, {**weak, "last_modified": None}).range_headers() == {"Range": "bytes=5-"}


def test_all_bytes_make_it_complete(target: Path) -> None:
    assert left(target, {**GOOD, "length": 5}).is_complete


@pytest.mark.parametrize(
    "changed",
    [
        {"url": "http://b.example/model.pth"},
        {"length": 4},
        {"length": None},
        {"length": "10"},
        {"etag": "two\nlines"},
        {"etag": 5},
        {"last_modified": "\xe9"},
        {"unknown": 1},
    ],
)
def test_bytes_that_cannot_be_gone_on_with_do_not_count(target: Path, changed: dict[str, object]) -> None:
    part = left(target, {**GOOD, **changed})
    assert (part.size, part.length, part.is_complete, part.joined) == (0, None, False, False)
    assert part.range_headers() == {}


def test_bytes_without_an_announcement_do_not_count(target: Path) -> None:
    assert PartialFile(target, URL).size == 0


def test_an_announcement_without_bytes_does_not_count(target: Path) -> None:
    Path(f"{target}.part").unlink()
    assert left(target, GOOD).size == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(GOOD)), inner),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(json_values)
def test_any_announcement_on_disk_is_survived(target: Path, announcement: object) -> None:
    part = left(target, announcement)
    assert part.size in (0, 5)


def test_what_only_one_side_says_is_no_contradiction() -> None:
    known = Announcement(url=URL, etag='"1"', length=10)
    assert not known.contradicts(Announcement(url=URL))
    assert not known.contradicts(Announcement(**asdict(known)))
    assert known.contradicts(Announcement(url=URL, etag='"2"'))
    assert known.contradicts(Announcement(url=URL, length=11))
