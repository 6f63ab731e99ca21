"""Headers of rar archives are read, and of the programs that are there the first that can unpacks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rar_writer import rar4, rar5

from dualformer_cli.data.members import Budget, DamagedArchiveError, Limits, UnfitFileError
from dualformer_cli.data.rar import _rar4_name, find_tools, read_members, unpack_rar

FILES = {"d/a.avi": b"hello" * 50, "b.txt": b"1"}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "x.rar"
    path.write_bytes(rar5(FILES, folders=["d"]))
    return path


def budget(path: Path) -> Budget:
    return Budget(path, path.stat().st_size, Limits(), 1 << 40)


@pytest.mark.parametrize("data", [rar4(FILES, folders=["d"]), rar5(FILES, folders=["d"]), rar4(FILES, end=False)])
def test_headers_tell_names_sizes_and_checksums(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.rar"
    path.write_bytes(data)
    members = read_members(path, budget(path))
    assert {name: member.num_bytes for name, member in members.items()} == {"d/a.avi": 250, "b.txt": 1}
    assert members["b.txt"].crc32 == 0x83DCEFB7


def test_without_a_checksum_the_size_has_to_do(tmp_path: Path) -> None:
    path = tmp_path / "x.rar"
    path.write_bytes(rar5(FILES, checksums=False))
    assert read_members(path, budget(path))["b.txt"].crc32 is None


def test_an_archive_without_its_end_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.rar"
    path.write_bytes(rar5(FILES, end=False))
    with pytest.raises(DamagedArchiveError, match="is cut off"):
        read_members(path, budget(path))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"plain.avi", "plain.avi"),
        ("é.avi".encode(), "é.avi"),
        # The high byte, then flags of four characters: 00 a byte, 01 a byte below the high one, 10 two, 11 a run.
        (b"ab.avi\0\x04\x10a\x31.a\x00vi", "a\u0431.avi"),
        (b"ab.avi\0\x04\x1ca\x31\x02", "a\u0431.avi"),
        (b"_?.avi\0\x00\xac\x3d\xd8\x83\xdc\x02", "\U0001f483.avi"),
    ],
)
def test_names_of_rar4_are_decoded(raw: bytes, name: str) -> None:
    assert _rar4_name(raw, unicode=True) == name


@given(st.binary(max_size=40))
def test_any_bytes_are_some_name(raw: bytes) -> None:
    for unicode in (True, False):
        assert isinstance(_rar4_name(raw, unicode=unicode), str)


def test_the_first_program_in_order_is_taken(
    archive: Path, tmp_path: Path, rar_tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv("RAR_LOG", str(log))
    for programs, first in [(("bsdtar", "unar"), "unar"), (("7zz",), "7zz"), (("7z",), "7z"), (("unrar",), "unrar")]:
        rar_tools(*programs)
        log.unlink(missing_ok=True)
        unpack_rar(archive, tmp_path / "out", budget(archive))
        assert log.read_text() == f"{first}\n"
        assert (tmp_path / "out" / "d" / "a.avi").read_bytes() == FILES["d/a.avi"]
    assert list(find_tools()) == ["unrar", "7z", "7zz", "unar", "bsdtar"]


def test_a_program_that_cannot_is_followed_by_the_next(
    archive: Path, tmp_path: Path, rar_tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rar_tools("7zz", "bsdtar")
    monkeypatch.setenv("RAR_FAIL", "7zz")
    unpack_rar(archive, tmp_path / "out", budget(archive))
    assert (tmp_path / "out" / "b.txt").read_bytes() == b"1"
    monkeypatch.setenv("RAR_FAIL", "7zz bsdtar")
    with pytest.raises(UnfitFileError) as caught:
        unpack_rar(archive, tmp_path / "out", budget(archive))
    assert str(caught.value) == (
        f"{str(archive)!r} cannot be unpacked by what is installed (7zz: exit code 7, be done; bsdtar: exit code 7, be "
        "done); it stays as it is: install another program, such as the package unrar, unar, libarchive-tools or "
        "7zip-rar"
    )
    assert not isinstance(caught.value, DamagedArchiveError)


@pytest.mark.parametrize(
    ("told", "is_damaged"),
    [
        ("ERROR: {archive}\nOpen ERROR: Cannot open the file as archive\nErrors: 1", False),
        ("ERROR: Unsupported Method : d/a.avi\nSub items Errors: 1", False),
        ("bsdtar: Error exit delayed from previous errors.\nRAR solid archive support unavailable", False),
        ("ERROR: CRC Failed : d/a.avi\nSub items Errors: 1", True),
        ("d/a.avi - checksum error\nTotal errors: 1", True),
        ("Unexpected end of archive\n", True),
    ],
)
def test_a_program_that_cannot_read_rar_is_told_from_a_damaged_archive(
    told: str, is_damaged: bool, archive: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    program = rar_tools() / "7zz"
    program.write_text(f"#!{sys.executable}\nimport sys\nprint({told!r}, file=sys.stderr)\nsys.exit(2)\n")
    program.chmod(0o755)
    with pytest.raises(UnfitFileError, match="7zz: exit code 2") as caught:
        unpack_rar(archive, tmp_path / "out", budget(archive))
    assert isinstance(caught.value, DamagedArchiveError) is is_damaged


def test_without_a_program_all_are_named(archive: Path, tmp_path: Path, rar_tools: Callable[..., Path]) -> None:
    with pytest.raises(UnfitFileError) as caught:
        unpack_rar(archive, tmp_path / "out", budget(archive))
    assert str(caught.value) == (
        f"{str(archive)!r} is a rar archive, and none of the programs that unpack it is installed (unrar, 7z, 7zz, "
        "unar, bsdtar); install one, such as the package unrar, unar, libarchive-tools or 7zip-rar"
    )


ODD = """#!{python}
import os, sys
os.chdir(sys.argv[-1])
os.mkdir("d")
def write(name, content):
    open(name, "w").write(content)
{code}
"""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("write('d/a.avi', 'hello'); write('b.txt', '1')", "wrong size of 'd/a.avi'"),
        ("write('b.txt', '1')", "it did not write 'd/a.avi'"),
        ("write('a', ''); write('d/a.avi', ''); write('b.txt', '')", "it wrote 'a'"),
        ("os.symlink('/etc', 'b.txt')", "it wrote 'b.txt', which is neither file nor folder"),
        ("os.symlink('/etc', 'e')", "it wrote 'e', which is neither file nor folder"),
        ("write('d/a.avi', 'x' * 250); write('b.txt', '1')", "wrong checksum of 'd/a.avi'"),
    ],
)
def test_a_program_is_not_trusted_with_its_exit_code(
    code: str, told: str, archive: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    program = rar_tools() / "unrar"
    program.write_text(ODD.format(python=sys.executable, code=code))
    program.chmod(0o755)
    with pytest.raises(DamagedArchiveError) as caught:
        unpack_rar(archive, tmp_path / "out", budget(archive))
    assert f"(unrar: {told})" in str(caught.value)
