"""What tests of commands that look at videos share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> Path:
    """A folder with two videos: a.mp4, 40 frames of 96x64 at 25 per second, and b.mp4, 30 of 80x112 at 10."""
    folder = tmp_path_factory.mktemp("scenes")
    clip_drawer(folder / "a.mp4")
    clip_drawer(folder / "b.mp4", num_frames=30, size=(80, 112), fps=10)
    return folder


@pytest.fixture
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings of the caller's, an empty cache, one thread, and an empty current folder."""
    for name in [name for name in os.environ if name.startswith("DUALFORMER_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def six_videos(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> Path:
    """A list of six videos of five classes."""
    folder = tmp_path_factory.mktemp("six videos")
    for index in range(6):
        clip_drawer(folder / f"video {index}.mp4", num_frames=10 + index, size=(72, 64))
    rows = "".join(f"video {index}.mp4,{index % 5}\n" for index in range(6))
    (folder / "list.csv").write_text("path,label\n" + rows)
    return folder / "list.csv"
