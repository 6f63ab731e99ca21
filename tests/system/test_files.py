"""Files that are written whole or not at all, and outputs that are refused before any work."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path, path_in_own_folder, sha256_of, write_all
from dualformer_cli.system.output_checks import check_output_folder, check_outputs


def write(path, *, then=None):
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        if then is not None:
            raise then


def check(path):
    check_outputs([path], [], overwrite=True)


def test_a_file_gets_its_name_when_it_is_whole(tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert (temporary.parent, temporary.suffix, target.read_text()) == (tmp_path, ".csv", "old")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.csv": "new"}


def test_a_failure_leaves_what_was_there(tmp_path):
    target = tmp_path / "x.csv"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write(target, then=ZeroDivisionError())
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.csv": "old"}


def test_a_full_disk_names_the_file_and_not_the_temporary_one(tmp_path):
    target = tmp_path / "x.csv"
    for name in (None, "the temporary one", "another.csv"):
        with pytest.raises(OSError, match="No space left") as caught, atomic_path(target) as temporary:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary) if name and "temp" in name else name)
        assert caught.value.filename == ("another.csv" if name == "another.csv" else str(target))
    with pytest.raises(OSError, match="Permission denied") as caught:
        write(target, then=OSError(errno.EACCES, os.strerror(errno.EACCES)))
    assert caught.value.filename is None  # it may be of anything that the body does


@pytest.mark.parametrize("refuse", [write, check])
def test_a_place_where_no_file_can_be_is_said_in_the_same_words(refuse, tmp_path, monkeypatch):
    (tmp_path / "clip.mp4").touch()
    for name, problem in (
        ("no/x.csv", f"folder {str(tmp_path / 'no')!r} does not exist; create it"),
        ("clip.mp4/x.csv", f"{str(tmp_path / 'clip.mp4')!r} is a file, not a folder"),
        ("", "it is a folder; name a file"),
    ):
        with pytest.raises(DualFormerError) as caught:
            refuse(tmp_path / name)
        assert str(caught.value) == f"cannot write {str(tmp_path / name)!r}: {problem}"
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(DualFormerError, match=r"^cannot write '.*/x': no permission to write in '.*'$"):
        refuse(tmp_path / "x")


def test_an_output_that_would_destroy_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source, twin, other = (tmp_path / name for name in ("in.mp4", "link.mp4", "other.mp4"))
    for path in (source, other):
        path.touch()
    twin.symlink_to(source)
    check_outputs([tmp_path / "new.mp4"], ["in.mp4", "not there", "nul\0"], overwrite=False)
    check_outputs([other], ["in.mp4"], overwrite=True)
    with pytest.raises(DualFormerError, match=r"link\.mp4': it is one of the inputs$"):
        check_outputs([twin], ["in.mp4"], overwrite=True)
    with pytest.raises(DualFormerError, match=r"^'.*other\.mp4' exists; name another file or replace it with --overwr"):
        check_outputs([tmp_path / "new.mp4", other], [], overwrite=False)
    with pytest.raises(DualFormerError, match="it is a device or a pipe; name a file"):
        check_outputs([Path("/dev/null")], [], overwrite=True)


def test_what_another_process_writes_has_a_folder_of_its_own_until_it_is_whole(tmp_path):
    target = tmp_path / "x.mp4"
    with path_in_own_folder(target) as unfinished:
        assert unfinished.name == "x.mp4"
        assert unfinished.parent.parent == tmp_path
        unfinished.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.mp4": "new"}
    with pytest.raises(DualFormerError) as caught, path_in_own_folder(target) as unfinished:
        raise DualFormerError(f"cannot write {str(unfinished)!r}")
    assert str(caught.value) == f"cannot write {str(target)!r}"
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_a_hash_is_that_of_the_content(tmp_path):
    (tmp_path / "x").write_bytes(bytes(range(256)) * 10_000)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(bytes(range(256)) * 10_000).hexdigest()


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
        what = "a link to nothing" if found == "link" else "not a folder"
        problem = f"{str(tmp_path / found)!r} is {what}; name another --output"
        assert str(refused.value) == f"cannot write into {str(tmp_path / name)!r}: {problem}"


def test_a_folder_that_is_closed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The administrator may write anywhere, so the answer of the system is put in here."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(
        DualFormerError, match=r"^cannot write into '.*new': no permission to write in '.*'; name another"
    ):
        check_output_folder(tmp_path / "new")


def test_an_output_that_fails_does_not_keep_the_others_from_being_written() -> None:
    done: list[object] = []

    def fail(text: str) -> None:
        raise DualFormerError(text)

    with pytest.raises(DualFormerError, match="first"):
        write_all(
            lambda: done.append("a"),
            lambda: fail("first"),
            lambda: done.append("b"),
            lambda: fail("second"),
            then=lambda failures: done.append([failure and str(failure) for failure in failures]),
        )
    assert done == ["a", "b", [None, "first", None, "second"]]
    write_all(lambda: done.append("c"), then=done.append)
    assert done[3:] == ["c", [None]]


def test_a_bug_in_writing_an_output_is_not_put_off() -> None:
    done: list[str] = []
    with pytest.raises(ZeroDivisionError):
        write_all(lambda: 1 // 0, lambda: done.append("a"))
    assert done == []
