"""Headers of rar archives are read, and of the programs that are there the first that can unpacks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rar_writer import rar4, rar5

from dualformer_cli.data.fetch.archive_members import Budget, DamagedArchiveError, Limits, UnfitFileError
from dualformer_cli.data.fetch.rar import _rar4_name, find_tools, read_members, unpack_rar

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
        "done); it is kept: install another program, such as the package unrar, unar or 7zip-rar"
    )
    assert not isinstance(caught.value, DamagedArchiveError)


SAYS = """#!{python}
import os, sys
folder = next(word[2:] for word in sys.argv if word.startswith("-o"))
os.mkdir(os.path.join(folder, "d"))
open(os.path.join(folder, "d/a.avi"), "wb").write({content!r})
print({said!r}, file=sys.stderr)
sys.exit(2)
"""


def put_7zz(folder: Path, said: str, content: bytes) -> None:
    """Write a program that fails: it says this, and leaves this of the first file."""
    program = folder / "7zz"
    program.write_text(SAYS.format(python=sys.executable, said=said, content=content))
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        # As the real ones say it. Header CRC errors are what bsdtar finds in good archives of RAR 1.5.
        ("\nERROR: crc.rar\nCannot open the file as archive\n", "Cannot open the file as archive"),
        ("ERROR: Unsupported Method : broken.avi\n\nSub items Errors: 1\n", "ERROR: Unsupported Method : broken.avi"),
        ("bsdtar: Header CRC error\nbsdtar: Error exit delayed from previous errors.\n", "bsdtar: Header CRC error"),
        (
            '  a  (9 B)... Failed! (Why)\nExtraction to directory "o" failed (1 file failed.)\n',
            "a  (9 B)... Failed! (Why)",
        ),
        ("a - checksum error\nTotal errors: 1\n", "a - checksum error"),
        ("Errors: 1\n", "Errors: 1"),
        ("", "no message"),
    ],
)
def test_a_program_out_of_which_nothing_comes_cannot_read_rar_whatever_it_says(
    said: str, told: str, archive: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    put_7zz(rar_tools(), said, b"")
    with pytest.raises(UnfitFileError) as caught:
        unpack_rar(archive, tmp_path / "out", budget(archive))
    assert not isinstance(caught.value, DamagedArchiveError)
    assert str(caught.value) == (
        f"{str(archive)!r} cannot be unpacked by what is installed (7zz: exit code 2, {told}); it is kept: "
        "install another program, such as the package unrar, unar, libarchive-tools or 7zip-rar"
    )


def test_a_program_that_read_a_part_makes_the_archive_suspect(
    archive: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    put_7zz(rar_tools("bsdtar"), "ERROR: Data Error : d/a.avi", b"hel")
    (rar_tools() / "bsdtar").write_text(f"#!{sys.executable}\nraise SystemExit('cannot')")
    with pytest.raises(DamagedArchiveError) as caught:
        unpack_rar(archive, tmp_path / "out", budget(archive))
    told = (
        "cannot be unpacked by what is installed (7zz: exit code 2, ERROR: Data Error : d/a.avi; "
        "bsdtar: exit code 1, cannot)"
    )
    install = "install another program, such as the package unrar, unar or 7zip-rar"
    assert str(caught.value) == f"{str(archive)!r} is damaged, or {told}; if it is right, {install}"
    assert str(caught.value.if_right) == f"{str(archive)!r} {told}; it is kept: {install}"


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
    ("code", "told", "is_suspect"),
    [
        ("write('d/a.avi', 'hello'); write('b.txt', '1')", "wrong size of 'd/a.avi'", True),
        ("write('b.txt', '1')", "it did not write 'd/a.avi'", True),
        ("pass", "it did not write 'b.txt'", False),
        ("write('a', ''); write('d/a.avi', ''); write('b.txt', '')", "it wrote 'a'", False),
        ("os.symlink('/etc', 'b.txt')", "it wrote 'b.txt', which is neither file nor folder", False),
        ("os.symlink('/etc', 'e')", "it wrote 'e', which is neither file nor folder", False),
        ("write('d/a.avi', 'x' * 250); write('b.txt', '1')", "wrong checksum of 'd/a.avi'", True),
    ],
)
def test_a_program_is_not_trusted_with_its_exit_code(
    code: str, told: str, is_suspect: bool, archive: Path, tmp_path: Path, rar_tools: Callable[..., Path]
) -> None:
    program = rar_tools() / "unrar"
    program.write_text(ODD.format(python=sys.executable, code=code))
    program.chmod(0o755)
    with pytest.raises(UnfitFileError) as caught:
        unpack_rar(archive, tmp_path / "out", budget(archive))
    assert f"(unrar: {told})" in str(caught.value)
    assert isinstance(caught.value, DamagedArchiveError) is is_suspect
