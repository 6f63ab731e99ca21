"""What is checked of outputs before any work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import check_output_folder


def test_a_folder_may_be_there_or_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_output_folder(tmp_path)
    check_output_folder(tmp_path / "new" / "and below")
    monkeypatch.chdir(tmp_path)
    check_output_folder(Path("new"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, found in (("file", "file"), ("file/below", "file"), ("link", "link")):
        with pytest.raises(DualFormerError) as refused:
            check_output_folder(tmp_path / name)
        assert str(refused.value) == (
            f"cannot write into {str(tmp_path / name)!r}: {str(tmp_path / found)!r} is not a folder"
        )


def test_a_folder_that_is_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator may write anywhere, so the answer of the system is put in here."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(DualFormerError, match=r"cannot write into '.*new': no permission to write in '.*'"):
        check_output_folder(tmp_path / "new")
