"""Results in parts: what is appended is there whatever comes then, and a line that was cut off is none."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.result_parts import Parts, PartWriter


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path / "run" / "parts", {"views": 4}, holds="scores")


class SmallDisk:
    """A file on a disk with room for so many bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, content: memoryview) -> int:
        count = min(len(content), self.room)
        if not count:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= count
        return int(self.file.write(content[:count]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def rows(parts: Parts) -> list[Any]:
    return [line.row for line in parts.lines()]


def test_lines_and_their_bytes_are_there_as_soon_as_they_are_appended(parts: Parts) -> None:
    parts.open()
    with parts.writer(0) as writer:
        writer.append({"name": "\udcff"})
        assert rows(parts) == [{"name": "\udcff"}]
        writer.append({"name": "b"}, b"12345")
        writer.append({"name": "c"}, b"678")
        found = list(parts.lines())
        assert [parts.blob(line.part, line.row["blob"]) for line in found[1:]] == [b"12345", b"678"]
        assert [parts.read(line.part, line.offset) for line in found] == [line.row for line in found]


def test_what_was_read_is_not_read_again_and_a_line_that_was_unfinished_then_is(parts: Parts) -> None:
    parts.open()
    read_to: dict[str, int] = {}
    with parts.writer(0) as first:
        first.append({"name": "a"})
    with parts.writer(1) as second:
        second.append({"name": "b"})
        name = parts.folder / "000002-1.jsonl"
        with name.open("ab") as file:
            file.write(b'{"name": ')
        assert [line.row["name"] for line in parts.lines(read_to)] == ["a", "b"]
        assert list(parts.lines(read_to)) == []
        with name.open("ab") as file:
            file.write(b'"c"}\n')
        (line,) = parts.lines(read_to)
        assert (line.row, parts.read(line.part, line.offset)) == ({"name": "c"}, {"name": "c"})


def test_no_more_than_a_few_files_are_open_whatever_the_number_of_parts(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualformer_cli.system.result_parts._MOST_OPEN", 3)
    parts.open()
    for number in range(8):
        with parts.writer(0) as writer:
            writer.append({"number": number}, bytes([number]))
    before = len(os.listdir("/proc/self/fd"))
    for line in [*parts.lines(), *parts.lines()]:
        assert parts.read(line.part, line.offset)["number"] == line.row["number"]
        assert parts.blob(line.part, line.row["blob"]) == bytes([line.row["number"]])
    assert len(os.listdir("/proc/self/fd")) - before == 3
    parts.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1, "with the lock"


def test_a_full_disk_is_one_line_and_the_next_run_goes_on_from_what_is_whole(parts: Parts) -> None:
    parts.open()

    def fill(writer: PartWriter) -> None:
        with writer:
            for number in range(10):
                writer.append({"number": number})

    writer = parts.writer(0)
    writer._file = SmallDisk(writer._file, 50)  # type: ignore[assignment]
    with pytest.raises(DualFormerError) as caught:
        fill(writer)
    assert str(caught.value) == (
        f"scores cannot be kept in {str(parts.folder)!r}: no space left on device; what is there stays, and the same "
        "command goes on from it"
    )
    assert writer._file.closed
    (part,) = parts.folder.glob("*.jsonl")
    assert part.stat().st_size == 50, "the fourth line has no end"
    assert rows(parts) == [{"number": number} for number in range(3)]
    fill(parts.writer(0))
    assert rows(parts) == [{"number": number} for number in (0, 1, 2, *range(10))]


def test_bytes_of_a_line_that_was_not_written_do_no_harm(parts: Parts) -> None:
    parts.open()
    writer = parts.writer(0)
    writer.append({"number": 0}, b"abc")
    writer._blobs = SmallDisk(writer._blobs, 2)  # type: ignore[assignment]
    with pytest.raises(DualFormerError, match="no space left on device"):
        writer.append({"number": 1}, b"defg")
    with parts.writer(0) as another:
        another.append({"number": 1}, b"defg")
    assert [parts.blob(line.part, line.row["blob"]) for line in parts.lines()] == [b"abc", b"defg"]


@pytest.mark.parametrize("take", [Parts.open, lambda parts: parts.writer(0)])
def test_a_folder_that_cannot_be_written_is_named(take: Callable[[Parts], object], tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    folder = tmp_path / "run" / "parts"
    with pytest.raises(DualFormerError) as caught:
        take(Parts(folder, {}, holds="scores"))
    assert str(caught.value).startswith(f"scores cannot be kept in {str(folder)!r}: not a directory; what is there")


def test_other_settings_are_named_and_damaged_ones_too(parts: Parts) -> None:
    parts.open()
    parts.close()
    with pytest.raises(
        DualFormerError, match="holds scores of other settings: views was 4 and is 3; crops was null and"
    ):
        Parts(parts.folder, {"views": 3, "crops": 1}, holds="scores").open()
    (parts.folder / "settings.json").write_text("{")
    with pytest.raises(DualFormerError, match=r"settings.json' is damaged: .*; delete"):
        Parts(parts.folder, {"views": 4}, holds="scores").open()


def test_each_run_writes_parts_of_its_own_which_come_after_earlier_ones(parts: Parts) -> None:
    parts.open()
    for text in ("first", "second"):
        writers = [parts.writer(rank) for rank in (0, 1)]
        for rank, writer in enumerate(writers):
            with writer:
                writer.append({"run": text, "rank": rank})
    assert len({line.part for line in parts.lines()}) == 4
    assert [line.row["run"] for line in parts.lines()] == ["first", "first", "second", "second"]


def test_a_damaged_line_is_left_out_with_a_warning(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    parts.open()
    with parts.writer(0) as writer:
        writer.append({"number": 0})
        writer.append({"number": 1})
    (part,) = parts.folder.glob("*.jsonl")
    part.write_bytes(b"\0" * 14 + b"\n" + json.dumps({"number": 1}).encode() + b"\n")
    assert rows(parts) == [{"number": 1}]
    assert "a damaged line at byte 0 is left out" in caplog.text
