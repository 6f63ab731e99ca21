"""Archives of every kind become the files they hold, and those made to do harm become nothing."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rar_writer import encrypted5, rar4, rar5

from dualformer_cli.data.fetch.archive_members import (
    DamagedArchiveError,
    Layout,
    Limits,
    RefusedArchiveError,
    UnfitFileError,
    archive_kind,
    member_parts,
)
from dualformer_cli.data.fetch.unpack import STAGING, unpack

FILES = {"rgb/a.mp4": b"a" * 3000, "rgb/-b c'(d).mp4": bytes(range(256)) * 9, "rgb/deep/é.mp4": b"", "list.txt": b"x\n"}
VIDEOS = Layout(into="videos")
Maker = Callable[[Mapping[str, bytes]], bytes]


def tar(files: Mapping[str, bytes], *extra: tarfile.TarInfo, format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def targz(files: Mapping[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    return gzip.compress(tar(files, *extra))


def zipped(files: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (modes or {}).get(name, 0o100644) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


MAKERS = {
    "tar": tar,
    "old tar": lambda files: tar(files, format=tarfile.GNU_FORMAT),
    "tar.gz": targz,
    "zip": zipped,
    "rar4": rar4,
    "rar5": rar5,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a dataset, beside which nothing may appear."""
    folder = tmp_path / "outer" / "root"
    folder.mkdir(parents=True)
    return folder


def put(root: Path, data: bytes, name: str = "archive.bin") -> Path:
    path = root / name
    path.write_bytes(data)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder; empty folders count too."""
    found: dict[str, bytes] = {}
    for at, folders, names in os.walk(folder):
        for name in names:
            path = Path(at, name)
            found[str(path.relative_to(folder))] = (
                os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
            )
        if not names and not folders and STAGING not in at:
            found[str(Path(at).relative_to(folder)) + "/"] = b""
    return found


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_of_archive_gives_its_files(kind: str, root: Path, rar_tools: Callable[..., Path]) -> None:
    rar_tools("bsdtar")
    archive = put(root, MAKERS[kind](FILES), "odd name.tar.gz")  # the content counts, not the suffix
    told: list[tuple[int, int | None]] = []
    done = unpack([archive], root, VIDEOS, progress=lambda done, total: told.append((done, total)))
    assert tree(root / "videos") == FILES
    assert (done.num_files, done.num_bytes) == (4, sum(map(len, FILES.values())))
    assert done.first is not None
    assert (root / done.first).is_file()
    assert (root / str(done.last)).is_file()
    assert told == sorted(told)


@pytest.mark.parametrize("program", ["unrar", "7z", "7zz", "unar", "bsdtar"])
def test_real_programs_unpack_rar(program: str, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = shutil.which(program)
    if real is None:
        pytest.skip(f"the program {program} is not installed")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / program).symlink_to(real)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    for name, data in {"old": rar4(FILES), "new": rar5(FILES, folders=["rgb"])}.items():
        try:
            unpack([put(root, data, f"{name}.rar")], root, Layout(into=name))
        except UnfitFileError as error:
            if "Cannot open the file as archive" in str(error):
                pytest.skip(f"this {program} was built without rar")
            raise
        assert tree(root / name) == FILES


def test_a_single_file_in_gzip_takes_the_archives_name(root: Path) -> None:
    unpack([put(root, gzip.compress(b"a,b\n"), "list.csv.gz")], root, Layout(into="annotations"))
    assert tree(root / "annotations") == {"list.csv": b"a,b\n"}


def test_outer_folders_are_left_out_where_they_are(root: Path) -> None:
    layout = Layout(into="videos/{stem}", strip=["outer", "{stem}"], annotations=["*.csv", "*.txt"])
    files = {"outer/skipping rope/a.mp4": b"1", "b.mp4": b"2", "outer/c.mp4": b"3", "outer/x/val.csv": b"4"}
    unpack([put(root, tar(files), "skipping rope.tar.gz")], root, layout)
    (root / "skipping rope.tar.gz").unlink()
    assert tree(root) == {
        "videos/skipping rope/a.mp4": b"1",
        "videos/skipping rope/b.mp4": b"2",
        "videos/skipping rope/c.mp4": b"3",
        "annotations/val.csv": b"4",
    }


@pytest.mark.parametrize("kind", ["tar", "zip", "rar5"])
def test_what_desktops_leave_behind_is_left_out(kind: str, root: Path, rar_tools: Callable[..., Path]) -> None:
    rar_tools("unar")
    files = {"a.mp4": b"1", "._a.mp4": b"2", "__MACOSX/b.mp4": b"3", ".DS_Store": b"4"}
    unpack([put(root, MAKERS[kind](files))], root, VIDEOS)
    assert tree(root / "videos") == {"a.mp4": b"1"}


def test_rar_in_rar_becomes_a_folder_each(root: Path, rar_tools: Callable[..., Path]) -> None:
    rar_tools("unrar")
    inner = {"wave.rar": rar4({"wave/x [1].avi": b"1", "wave/!y#;&.avi": b"2"}), "run.rar": rar5({"z.avi": b"3"})}
    unpack([put(root, rar5(inner), "all.rar")], root, Layout(into="videos", nested=True))
    assert tree(root / "videos") == {"wave/x [1].avi": b"1", "wave/!y#;&.avi": b"2", "run/z.avi": b"3"}


# Pieces.


def pieces(data: bytes, count: int, name: str = "20bn-x-v2-") -> dict[str, bytes]:
    size = -(-len(data) // count)
    return {f"{name}{number:02d}": data[number * size : (number + 1) * size] for number in range(count)}


@pytest.mark.parametrize("form", ["plain", "zipped", "all in one zip", "letters"])
def test_pieces_are_read_as_one_archive(form: str, root: Path) -> None:
    random_bytes = random.Random(1).randbytes(50_000)
    parts = pieces(targz({"x/1/00001.jpg": random_bytes, "x/1/00002.jpg": b"2"}), 12)
    if form == "zipped":
        parts = {f"{name}.zip": zipped({name: data}) for name, data in parts.items()}
    elif form == "all in one zip":
        first = dict(list(parts.items())[:5])
        rest = dict(list(parts.items())[5:])
        parts = {"a-00.zip": zipped(rest), "a-01.zip": zipped(first)}
    elif form == "letters":
        parts = {f"x.a{chr(97 + number)}": data for number, data in enumerate(parts.values())}
    paths = [put(root, data, name) for name, data in parts.items()]
    unpack(paths, root, Layout(into="rawframes", strip=["x"]))
    assert tree(root / "rawframes") == {"1/00001.jpg": random_bytes, "1/00002.jpg": b"2"}


def test_a_missing_piece_is_named(root: Path) -> None:
    parts = pieces(targz(FILES), 4)
    del parts["20bn-x-v2-02"]
    paths = [put(root, data, name) for name, data in parts.items()]
    with pytest.raises(DamagedArchiveError, match="is one of 3 pieces, and the piece '20bn-x-v2-02' is missing"):
        unpack(paths, root, VIDEOS)


def test_a_missing_last_piece_is_noticed(root: Path) -> None:
    parts = list(pieces(targz(FILES), 4).items())[:3]
    with pytest.raises(DamagedArchiveError, match="is damaged or cut off"):
        unpack([put(root, data, name) for name, data in parts], root, VIDEOS)
    assert not tree(root / "videos").keys() - {"./"}


# Damage.


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.97])
def test_an_archive_that_is_cut_off_leaves_nothing(
    kind: str, kept: float, root: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("unrar")
    data = MAKERS[kind]({f"{number}.mp4": random.Random(number).randbytes(5000) for number in range(9)})
    data = data.rstrip(b"\0") if "tar" in kind else data
    archive = put(root, data[: int(kept * len(data))])
    with pytest.raises(DamagedArchiveError, match=r"damaged|cut off"):
        unpack([archive], root, VIDEOS)
    assert not tree(root / "videos").keys() - {"./"}


def test_a_tar_that_ends_between_two_members_is_noticed(root: Path) -> None:
    data = tar({"a.mp4": b"1" * 512, "b.mp4": b"2" * 512})
    with pytest.raises(DamagedArchiveError, match="no end of the archive at byte 1024"):
        unpack([put(root, data[:1024])], root, VIDEOS)


def test_a_damaged_header_in_the_middle_is_not_taken_for_the_end(root: Path) -> None:
    data = bytearray(tar({"a.mp4": b"1" * 512, "b.mp4": b"2" * 512}))
    data[1030:1040] = b"damage!!!!"
    with pytest.raises(DamagedArchiveError, match="no end of the archive at byte 1024"):
        unpack([put(root, bytes(data))], root, VIDEOS)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "rar4", "rar5"])
def test_a_changed_byte_is_noticed(kind: str, root: Path, rar_tools: Callable[..., Path]) -> None:
    rar_tools("7zz")
    data = bytearray(MAKERS[kind]({"a.mp4": random.Random(5).randbytes(4000)}))
    data[len(data) // 2] ^= 1
    with pytest.raises(DamagedArchiveError, match="damaged"):
        unpack([put(root, bytes(data))], root, VIDEOS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["tar", "tar.gz", "zip", "rar4", "rar5"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
)
def test_any_damage_is_told_or_harmless(
    kind: str, changes: Iterable[tuple[int, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")  # of rar only the headers are read
    data = bytearray(MAKERS[kind]({"a/b.mp4": b"12345", "c.txt": b"x" * 600}))
    for position, replacement in changes:
        at = position % len(data)
        data[at : at + len(replacement)] = replacement
    root = tmp_path / "outer" / "root"
    shutil.rmtree(tmp_path / "outer", ignore_errors=True)
    root.mkdir(parents=True)
    archive = put(tmp_path, bytes(data))
    with contextlib.suppress(UnfitFileError):
        unpack([archive], root, VIDEOS)
    assert {path.name for path in (tmp_path / "outer").iterdir()} == {"root"}
    assert {path.name for path in root.iterdir()} <= {"videos"}


@pytest.mark.parametrize("content", [b"", b"<html>", b"hello" * 200])
def test_what_is_no_archive_is_said(content: bytes, root: Path) -> None:
    archive = put(root, content)
    with pytest.raises(UnfitFileError, match="is not an archive that can be unpacked"):
        unpack([archive], root, VIDEOS)


# Harm.

OUT = ["../evil.mp4", "a/../../evil.mp4", "/tmp/evil.mp4", "..\\evil.mp4", "C:\\evil.mp4", "C:/evil.mp4", "a/..\\evil"]


@pytest.mark.parametrize("name", OUT)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_name_that_leads_out_is_refused_and_named(
    kind: str, name: str, root: Path, rar_tools: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rar_tools("unrar")
    monkeypatch.setenv("RAR_LOG", str(tmp_path / "log"))
    archive = put(root, MAKERS[kind]({"good.mp4": b"1", name: b"2"}))
    with pytest.raises(RefusedArchiveError) as caught:
        unpack([archive], root, VIDEOS)
    assert f"{str(archive)!r} is not unpacked, it names a" in str(caught.value)
    shown = name.replace("\\", "/") if kind == "rar4" else name
    assert repr(shown) in str(caught.value)
    assert {path.name for path in root.parent.iterdir()} == {"root"}
    assert not tree(root / "videos").keys() - {"./"}
    assert not (tmp_path / "log").exists()  # no program saw it


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        (special("l", tarfile.SYMTYPE, "/etc"), "holds a link out of its folder, 'l' to '/etc'"),
        (special("a/l", tarfile.SYMTYPE, "../../x"), "holds a link out of its folder, 'a/l' to '../../x'"),
        (special("l", tarfile.SYMTYPE, "a/../../b"), "holds a link out of its folder, 'l' to 'a/../../b'"),
        (special("l", tarfile.LNKTYPE, "../x"), "names a path out of its folder, '../x'"),
        (special("l", tarfile.LNKTYPE, "/etc/passwd"), "names an absolute path, '/etc/passwd'"),
        (special("l", tarfile.LNKTYPE, "nothing"), "holds a link to what is not in it, 'l' to 'nothing'"),
        (special("d", tarfile.CHRTYPE), "holds a device, 'd'"),
        (special("d", tarfile.BLKTYPE), "holds a device, 'd'"),
        (special("d", tarfile.FIFOTYPE), "holds a device, 'd'"),
    ],
)
def test_links_out_and_devices_in_tar_are_refused(extra: tarfile.TarInfo, told: str, root: Path) -> None:
    archive = put(root, targz({"good.mp4": b"1"}, extra))
    with pytest.raises(RefusedArchiveError) as caught:
        unpack([archive], root, VIDEOS)
    assert str(caught.value) == f"{str(archive)!r} is not unpacked, it {told}"
    assert not tree(root / "videos").keys() - {"./"}


def test_a_link_that_stays_inside_is_left_out_and_a_hard_link_is_a_file(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    extra = [special("a/l", tarfile.SYMTYPE, "../good.mp4"), special("a/h.mp4", tarfile.LNKTYPE, "good.mp4")]
    unpack([put(root, tar({"good.mp4": b"1"}, *extra))], root, VIDEOS)
    assert tree(root / "videos") == {"good.mp4": b"1", "a/h.mp4": b"1"}
    assert "the link 'a/l' is left out" in caplog.text


def test_writing_through_a_link_is_impossible(root: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(special("inside", tarfile.SYMTYPE, "real"))
        member = tarfile.TarInfo("inside/x.mp4")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"1"))
    unpack([put(root, buffer.getvalue())], root, VIDEOS)
    assert tree(root / "videos") == {"inside/x.mp4": b"1"}


def test_links_out_and_devices_in_zip_are_refused(root: Path) -> None:
    for mode, told in [(stat.S_IFLNK, "a link out of its folder, 'x' to '/etc'"), (stat.S_IFCHR, "a device, 'x'")]:
        archive = put(root, zipped({"x": b"/etc"}, {"x": mode | 0o777}))
        with pytest.raises(RefusedArchiveError, match=f"holds {told}"):
            unpack([archive], root, VIDEOS)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (rar5({"a": b"1"}, links={"up": ".."}), "is not unpacked, it holds a link, 'up'"),
        (rar4({"up": b".."}, mode=0o120777), "is not unpacked, it holds a link or a device, 'up'"),
        (rar4({"dev": b""}, mode=0o020666), "is not unpacked, it holds a link or a device, 'dev'"),
        (encrypted5(), "is encrypted"),
        (rar4({"a": b"1"}, main_flags=0x80), "is encrypted"),
        (rar4({"a": b"1"}, file_flags=4), "is encrypted"),
        (rar4({"a": b"1"}, main_flags=1), "is one of several volumes"),
        (rar5({"a": b"1"}, main_flags=1), "is one of several volumes"),
        (rar5({"a": b"1"}, sizes={"a": 10**15}), "is not unpacked, it unpacks to more than 200 times its"),
    ],
)
def test_rar_archives_that_are_not_unpacked_say_why(
    data: bytes, told: str, root: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("unrar")
    archive = put(root, data)
    with pytest.raises(UnfitFileError) as caught:
        unpack([archive], root, VIDEOS)
    assert f"{str(archive)!r} {told}" in str(caught.value)


SMALL = Limits(ratio=20, free_bytes=20_000, num_bytes=100_000, num_files=3)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip", "rar5"])
@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"a": bytes(90_000)}, "unpacks to more than 20 times its"),
        ({"a": random.Random(1).randbytes(100_001)}, "unpacks to more than 100000 bytes"),
        ({f"{number}": b"" for number in range(4)}, "holds more than 3 files"),
    ],
    ids=["ratio", "size", "count"],
)
def test_bombs_are_refused(
    kind: str, files: Mapping[str, bytes], told: str, root: Path, rar_tools: Callable[..., Path]
) -> None:
    rar_tools("unrar")
    if kind in ("tar", "rar5") and "times" in told:
        pytest.skip("stored archives cannot be bombs by ratio")
    archive = put(root, MAKERS[kind](files))
    with pytest.raises(RefusedArchiveError, match=f"is not unpacked, it {told}"):
        unpack([archive], root, VIDEOS, limits=SMALL)
    assert not tree(root / "videos").keys() - {"./"}


def test_bombs_in_archives_in_archives_are_counted_together(root: Path, rar_tools: Callable[..., Path]) -> None:
    inner = {f"{number}.zip": zipped({"a": bytes(900)}) for number in range(2)}
    archive = put(root, zipped(inner))
    with pytest.raises(RefusedArchiveError, match="holds more than 3 files"):
        unpack([archive], root, Layout(into="videos", nested=True), limits=SMALL)


def test_a_zip_that_lies_about_its_sizes_is_stopped_by_what_comes_out(root: Path) -> None:
    data = zipped({"a": bytes(50_000)})
    told = (50_000).to_bytes(4, "little")
    archive = put(root, data.replace(told, (10).to_bytes(4, "little")))
    with pytest.raises(UnfitFileError):
        unpack([archive], root, VIDEOS, limits=SMALL)


def test_an_archive_that_does_not_fit_is_told_before_the_disk_is_full(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": (64 << 20) + 1000}))
    with pytest.raises(UnfitFileError, match=r"unpacks to more than the 1\.0 kB that are free"):
        unpack([put(root, targz({"a": random.Random(1).randbytes(2000)}))], root, VIDEOS)


# What is there already, and what was killed.


def test_a_file_that_is_there_is_kept(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "videos" / "rgb").mkdir(parents=True)
    (root / "videos" / "rgb" / "a.mp4").write_bytes(b"mine")
    unpack([put(root, tar(FILES))], root, VIDEOS)
    assert tree(root / "videos") == {**FILES, "rgb/a.mp4": b"mine"}
    assert "a.mp4' is kept, though the archive has another one of that name" in caplog.text


def test_of_two_members_of_one_name_the_last_counts(root: Path) -> None:
    data = tar({"a.mp4": b"first"}).rstrip(b"\0")
    data += bytes(-len(data) % 512) + tar({"a.mp4": b"second"})
    unpack([put(root, data)], root, VIDEOS)
    assert tree(root / "videos") == {"a.mp4": b"second"}


def test_a_file_and_a_folder_of_one_name_are_told(root: Path) -> None:
    with pytest.raises(DamagedArchiveError, match="holds a file and a folder of one name"):
        unpack([put(root, tar({"a": b"1", "a/b": b"2"}))], root, VIDEOS)


UNPACK = """
import sys
from pathlib import Path
from dualformer_cli.data.fetch.unpack import unpack
from dualformer_cli.data.fetch.archive_members import Layout
unpack([Path(sys.argv[1])], Path(sys.argv[2]), Layout(into="videos"))
"""


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_run_is_completed_by_the_next(seed: int, root: Path) -> None:
    files = {f"{number // 100}/{number}.mp4": bytes([number % 251]) * 997 for number in range(500)}
    archive = put(root.parent, targz(files))
    with subprocess.Popen([sys.executable, "-c", UNPACK, str(archive), str(root)]) as process:
        deadline = time.monotonic() + 20
        while not (root / "videos").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(random.Random(seed).uniform(0, 0.15))
        os.kill(process.pid, signal.SIGKILL)
    before = tree(root / "videos")
    assert all(content == files[name] for name, content in before.items() if STAGING not in name and name != "./")
    unpack([archive], root, VIDEOS)
    assert tree(root / "videos") == files


# The parts.


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"Rar!\x1a\x07\x00", "rar"),
        (b"PK\x03\x04", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (tar({"a": b""})[:512], "tar"),
        (tar({"a": b""})[:511], None),
        (bytes(512), None),
        (b"<html>" + bytes(600), None),
        (b"label,youtube_id\n" * 40, None),
    ],
)
def test_kinds_are_told_by_content(beginning: bytes, kind: str | None) -> None:
    assert archive_kind(beginning) == kind


def test_a_tar_of_before_1988_is_told_by_its_checksum() -> None:
    header = bytearray(tar({"a": b"1"}, format=tarfile.USTAR_FORMAT)[:512])
    header[257:] = bytes(255)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    assert archive_kind(bytes(header)) == "tar"


@given(st.text(max_size=30))
def test_a_name_either_stays_inside_or_is_refused(name: str) -> None:
    try:
        parts = member_parts(Path("x"), name)
    except RefusedArchiveError:
        return
    joined = os.path.normpath(os.path.join("/root", *parts))
    assert joined == "/root" or joined.startswith("/root/")


def test_a_gzip_around_a_tar_gz_is_taken_off(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(targz(FILES)))
    unpack([tmp_path / "x.tar.gz"], tmp_path / "out", VIDEOS)
    assert (tmp_path / "out" / "videos" / "rgb" / "a.mp4").read_bytes() == FILES["rgb/a.mp4"]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\xfd7zXZ\0" + bytes(600), "is xz, which is not unpacked here"),
        (b"BZh9" + bytes(600), "is bzip2, which is not unpacked here"),
        (b"\x28\xb5\x2f\xfd" + bytes(600), "is zstd, which is not unpacked here"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(600), "is 7z, which is not unpacked here"),
        (gzip.compress(b"\xfd7zXZ\0" + bytes(600)), "is xz within gzip"),
        (gzip.compress(gzip.compress(b"no tar")), "is gzip within gzip, and no tar archive is in it"),
    ],
    ids=["xz", "bzip2", "zstd", "7z", "xz in gzip", "gzip in gzip"],
)
def test_what_is_packed_in_another_way_is_called_what_it_is(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(data)
    with pytest.raises(UnfitFileError, match=told):
        unpack([tmp_path / "x.tar.gz"], tmp_path / "out", VIDEOS)


def test_an_archive_of_videos_without_a_video_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(zipped({"a/readme.txt": b"1", "__MACOSX/a.mp4": b"1"}))
    layout = Layout(into="videos", holds_videos=True)
    with pytest.raises(UnfitFileError, match=r"holds only 1 other files, such as 'readme\.txt'"):
        unpack([tmp_path / "x.zip"], tmp_path / "out", layout)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
