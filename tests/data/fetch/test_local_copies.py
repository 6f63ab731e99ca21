"""Remote videos are fetched a few ahead and removed after use; what is local stays where it is."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from dualformer_cli.data.fetch import local_copies
from dualformer_cli.data.fetch.local_copies import LocalCopies


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def store() -> Iterator[Any]:
    store = fsspec.filesystem("memory")
    for number in range(40):
        store.pipe(f"/bucket/{number} clip.mp4", str(number).encode())
    yield store
    store.rm("/", recursive=True)


def copies_in(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_files_come_in_order_and_a_few_are_there_at_a_time(store: Any, cache: Path, tmp_path: Path) -> None:
    names = [f"memory://bucket/{number} clip.mp4" for number in range(40)]
    names[7] = str(tmp_path / "local.mp4")
    names[11] = "memory://bucket/gone.mp4"
    taken: list[str] = []

    def given() -> Iterator[str]:
        for name in names:
            taken.append(name)
            yield name

    with LocalCopies(ahead=3) as copies:
        most = 0
        for number, copy in enumerate(copies.of(given())):
            assert copy.name == names[number]
            assert len(taken) <= number + 3
            if number == 7:
                assert copy.path == copy.name
            elif number == 11:
                assert copy.path == copy.name
                assert str(copy.error).startswith("'memory://bucket/gone.mp4': not found;")
            else:
                assert Path(copy.path).read_text() == str(number)
                assert copy.path.endswith("-" + f"{number}_clip.mp4")
            most = max(most, len(copies_in(cache)))
            copies.remove(copy)
            assert not os.path.exists(copy.path)
        assert number == 39
        assert most <= 3
    assert not any((cache / "copies").iterdir())


def test_leaving_early_removes_what_was_fetched(store: Any, cache: Path) -> None:
    with LocalCopies(ahead=2) as copies:
        copy = next(copies.of([f"memory://bucket/{number} clip.mp4" for number in range(9)]))
        assert os.path.exists(copy.path)
    assert not os.path.exists(copy.path)
    until = time.monotonic() + 20
    while any((cache / "copies").iterdir()) and time.monotonic() < until:
        time.sleep(0.01)  # the other file is still on its way
    assert not any((cache / "copies").iterdir())


def test_files_are_fetched_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    barrier = threading.Barrier(3, timeout=20)

    def fetch(address: str, target: str) -> None:
        barrier.wait()
        Path(target).write_text(address)

    monkeypatch.setattr(local_copies, "fetch_video", fetch)
    with LocalCopies(ahead=3) as copies:
        assert [Path(copy.path).read_text() for copy in copies.of(["s3://a", "s3://b", "s3://c"])] == [
            *("s3://a", "s3://b", "s3://c"),
        ]


def test_local_names_pass_one_by_one_and_a_file_called_like_an_address_is_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s3:" / "bucket").mkdir(parents=True)
    (tmp_path / "s3:" / "bucket" / "clip.mp4").write_text("here")
    names = iter(["a.mp4", "s3://bucket/clip.mp4", "b.mp4"])
    with LocalCopies() as copies:
        given = copies.of(names)
        assert [next(given).path, next(given).path] == ["a.mp4", "s3://bucket/clip.mp4"]
        assert next(names) == "b.mp4"
    assert (tmp_path / "s3:" / "bucket" / "clip.mp4").exists()
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_the_error_of_each(store: Any, cache: Path) -> None:
    cache.write_text("a file")
    with LocalCopies() as copies:
        (copy,) = copies.of(["memory://me:pw@bucket/1 clip.mp4"])
    assert copy.error is not None
    assert str(copy.error) == (
        f"'memory://***@bucket/1 clip.mp4': cannot be fetched into {str(cache)!r}: not a directory"
    )


def test_copies_that_a_killed_run_left_a_day_ago_are_removed(store: Any, cache: Path) -> None:
    left, used = cache / "copies" / "left", cache / "copies" / "used"
    for folder in (left, used):
        folder.mkdir(parents=True)
        (folder / "1-a.mp4").write_text("x")
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    with LocalCopies() as copies:
        next(copies.of(["memory://bucket/1 clip.mp4"]))
    assert [path.name for path in (cache / "copies").iterdir()] == ["used"]
