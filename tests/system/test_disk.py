"""Room on a disk: what is free, and whether something fits."""

from __future__ import annotations

import errno
import shutil
from types import SimpleNamespace

import pytest

from dualformer_cli.system.disk import free_bytes, is_full, lack_of_room


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The folders that the system was asked about; 10 MB are free on each disk."""
    folders = []
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: folders.append(folder) or SimpleNamespace(free=10_000_000))
    monkeypatch.chdir(tmp_path)
    return folders


def test_the_nearest_folder_that_exists_is_asked(asked, tmp_path):
    (tmp_path / "file").touch()
    for name in ("", ".", "not/there", "file/below"):
        assert free_bytes(name) == 10_000_000
    (tmp_path / "made").mkdir()
    free_bytes(tmp_path / "made" / "not there")
    assert asked == [*[tmp_path] * 4, tmp_path / "made"]


def test_what_does_not_fit_is_said_with_both_sizes(asked):
    assert lack_of_room("x", 10_000_000) == ""
    assert lack_of_room("x/y", 12_340_000) == "about 12.3 MB are needed in 'x/y', and 10.0 MB are free"


def test_a_disk_or_a_quota_is_full():
    failures = [OSError(number, "") for number in (errno.ENOSPC, errno.EDQUOT, errno.EACCES)]
    assert [is_full(error) for error in failures] == [True, True, False]
