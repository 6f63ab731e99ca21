"""Videos that are the same, byte for byte, and what is read to find them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from dualformer_cli.data.prepare import same_bytes
from dualformer_cli.data.prepare.same_bytes import describe_same, find_same
from dualformer_cli.documents.base import to_json


def write(folder: Path, **files: bytes) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [str(folder / name) for name in files]


def test_files_with_the_same_bytes_are_found_and_those_of_the_same_size_are_not(tmp_path: Path) -> None:
    long = bytes(300_000)
    middle = long[:150_000] + b"\1" + long[150_001:]  # its ends are those of the others
    paths = write(tmp_path, a=long, b=b"abc", c=middle, d=long, e=b"abd", f=b"", g=b"", h=b"abc")
    assert find_same(paths) == [[0, 3], [1, 7]]


def test_folders_of_frames_are_the_same_by_their_frames_alone(tmp_path: Path) -> None:
    frames = {"img_1.jpg": b"one", "img_2.jpg": b"two", "img_3.jpg": b"six"}
    for name, files in {
        "a": frames,
        "renamed": {name.replace("img", "frame"): data for name, data in frames.items()} | {"n_frames": b"3"},
        "other": {**frames, "img_2.jpg": b"ten"},
        "shorter": dict(list(frames.items())[:2]),
        "empty": {},
    }.items():
        write(tmp_path / name, **files)
    paths = [str(tmp_path / name) for name in ("a", "other", "renamed", "shorter", "empty", "missing")]
    assert find_same(paths) == [[0, 2]]


def test_only_files_of_one_size_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write(tmp_path, a=b"1", b=b"12", c=b"123", d=b"321")
    opened: list[str] = []

    def note(path: str, mode: str) -> Any:
        opened.append(os.path.basename(path))
        return open(path, mode)

    monkeypatch.setattr(same_bytes, "open", note, raising=False)
    assert find_same(paths) == []
    assert opened == ["c", "d"]


def test_what_is_no_regular_file_is_not_opened(tmp_path: Path) -> None:
    pipes = [str(tmp_path / "a"), str(tmp_path / "b")]
    for pipe in pipes:
        os.mkfifo(pipe)  # opening one would wait for ever
    assert find_same(pipes) == []


def test_two_labels_are_a_conflict_one_label_is_a_copy_and_none_is_neither(tmp_path: Path) -> None:
    paths = write(tmp_path, a=b"run", b=b"run", c=b"jump", d=b"jump", e=b"jump", f=b"sit", g=b"sit")
    labels = [("run",), ("walk",), ("jump",), ("jump",), ("jump",), ("sit",), ()]
    assert to_json(describe_same(paths, labels, list("abcdefg"))) == {
        "two_labels": 1,
        "one_label": 2,
        "examples": [[{"path": "a", "labels": ["run"]}, {"path": "b", "labels": ["walk"]}]],
    }


def test_labels_of_one_video_have_no_order(tmp_path: Path) -> None:
    paths = write(tmp_path, a=b"1", b=b"1")
    found = describe_same(paths, [("run", "sing"), ("sing", "run")], ["a", "b"])
    assert (found.two_labels, found.one_label) == (0, 1)
