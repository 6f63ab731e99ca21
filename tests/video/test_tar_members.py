"""Videos in tar archives: read where they lie, with the frames that the unpacked file gives."""

from __future__ import annotations

import gzip
import ntpath
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from tar_shards import write_shard

from dualformer_cli.errors import VideoError
from dualformer_cli.video.decord_reader import load_decord
from dualformer_cli.video.inputs import expand_inputs
from dualformer_cli.video.open import open_video
from dualformer_cli.video.tar_members import expand_ranges, find_member, is_there, members
from dualformer_cli.video.torchcodec_reader import load_torchcodec

HAS = {"auto": True, "decord": load_decord() is not None, "torchcodec": load_torchcodec() is not None}


@pytest.fixture
def clip(tmp_path: Path, clip_drawer: Callable[..., Path]) -> Path:
    return clip_drawer(tmp_path / "clip.mp4", num_frames=30)


@pytest.fixture
def other(tmp_path: Path, clip_drawer: Callable[..., Path]) -> Path:
    return clip_drawer(tmp_path / "other.mp4", num_frames=12, size=(64, 48))


def decoded(path: Path) -> np.ndarray[Any, Any]:
    """The frames of a file by a plain decode from start to end."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("decoder", HAS)
def test_frames_of_a_member_are_those_of_the_unpacked_file(
    tmp_path: Path, clip: Path, other: Path, decoder: Any
) -> None:
    if not HAS[decoder]:
        pytest.skip(f"{decoder} is not installed")
    folder = tmp_path / "odd, name:x"
    folder.mkdir()
    shard = write_shard(folder / "s 1.tar", [("a.cls", "3"), ("a.mp4", other), ("b.cls", "1"), ("sub/b.mp4", clip)])
    with open_video(f"{shard}/sub/b.mp4", decoder=decoder) as reader:
        assert reader.info.path == f"{shard}/sub/b.mp4"
        assert reader.info.decoder == ("pyav" if decoder == "auto" else decoder)
        expected = decoded(clip)
        assert np.array_equal(reader.read([29, 3, 17]), expected[[29, 3, 17]])
        assert np.array_equal(np.stack(list(reader.frames())), expected)


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".ts", ".mpg", ".gif"])
def test_other_containers_are_known_by_their_content(
    tmp_path: Path, clip: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"v{suffix}"
    codec = {".mpg": "mpeg1video", ".gif": "gif"}.get(suffix, "mpeg4")
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "rgb8" if codec == "gif" else "yuv420p"
        for pixels in decoded(clip):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format=stream.pix_fmt)))
        container.mux(stream.encode(None))
    shard = write_shard(tmp_path / "s.tar", [("first.mp4", clip), (f"v{suffix}", file)])
    with open_video(f"{shard}/v{suffix}") as inside, open_video(file) as outside:
        assert inside.info.num_frames == outside.info.num_frames == len(decoded(file))
        assert inside.info.duration_seconds == outside.info.duration_seconds
        assert np.array_equal(inside.read([5, 2]), outside.read([5, 2]))


def test_an_index_of_a_member_holds_until_the_archive_is_written_anew(tmp_path: Path, clip: Path, other: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", [("a.mp4", clip)])
    with open_video(f"{shard}/a.mp4") as reader:
        index = reader.index
    assert index is not None
    with open_video(f"{shard}/a.mp4", index=index) as again:
        assert again.index is index
        assert np.array_equal(again.read([20]), decoded(clip)[[20]])
    write_shard(shard, [("x.txt", "moves the rest"), ("a.mp4", other)])
    with open_video(f"{shard}/a.mp4", index=index) as changed:
        assert np.array_equal(np.stack(list(changed.frames())), decoded(other))


def test_a_folder_called_like_an_archive_is_a_folder(tmp_path: Path, clip: Path) -> None:
    folder = tmp_path / "x.tar"
    folder.mkdir()
    os.rename(clip, folder / "clip.mp4")
    assert find_member(f"{folder}/clip.mp4") is None
    with open_video(folder / "clip.mp4") as reader:
        assert reader.info.num_frames == 30
    shard = write_shard(folder / "y.tar", [("a.mp4", folder / "clip.mp4")])
    with open_video(f"{shard}/a.mp4") as reader:
        assert reader.info.num_frames == 30


def test_a_hard_link_is_the_member_that_it_leads_to(tmp_path: Path, clip: Path, other: Path) -> None:
    os.link(clip, tmp_path / "same.mp4")
    shard = tmp_path / "s.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("clip.mp4", "other.mp4", "same.mp4"):
            tar.add(tmp_path / name, f"./{name}")
    assert [member.name for member in members(str(shard))] == ["clip.mp4", "other.mp4", "same.mp4"]
    with open_video(f"{shard}/same.mp4") as reader:
        assert np.array_equal(np.stack(list(reader.frames())), decoded(clip))


def test_members_have_one_name_on_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = write_shard(tmp_path / "s.tar", [("run/./a.mp4", "a")])
    monkeypatch.setattr(os, "path", ntpath)
    assert [member.name for member in members(str(shard))] == ["run/a.mp4"]


def test_what_is_no_video_or_not_there_says_so(tmp_path: Path, clip: Path) -> None:
    shard = write_shard(
        tmp_path / "s.tar",
        [
            *(("text.mp4", "no video at all"), ("empty.mp4", b""), ("cut.mp4", clip.read_bytes()[:200])),
            *(("a.mp4", clip), ("two.mp4", clip), ("two.mp4", clip)),
        ],
    )
    reasons = {
        "text.mp4": "a text file, not a video",
        "empty.mp4": "the file is empty (0 bytes)",
        "cut.mp4": "an MP4 without a readable index, as left by an unfinished download or recording",
        "b.mp4": f"no such member in {str(shard)!r}",
        "two.mp4": f"{str(shard)!r} has two members of this name; rename one",
    }
    for name, reason in reasons.items():
        with pytest.raises(VideoError) as caught:
            open_video(f"{shard}/{name}")
        assert caught.value.reason == reason
        assert is_there(f"{shard}/{name}") == (name not in ("b.mp4", "two.mp4"))
    assert is_there(f"{shard}/a.mp4")
    assert is_there(str(shard))


def whole_and_problem(shard: Path) -> tuple[list[str], list[str]]:
    """What is listed of an archive, and what is wrong with it."""
    found = expand_inputs([str(shard)], stdin=None)
    assert all(name == str(shard) for name, _ in found.problems)
    return [os.path.relpath(path, shard) for path in found.paths], [reason for _, reason in found.problems]


def test_an_archive_that_is_cut_off_gives_what_is_whole_and_one_problem(tmp_path: Path, clip: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", [("a.mp4", clip), ("b.mp4", clip)])
    whole = shard.read_bytes()
    starts = [member.start for member in members(str(shard))]
    again = "fetch or pack it again"
    for length, names, problem in (
        (starts[1] + 1000, ["a.mp4"], f"the archive is cut off within 'b.mp4'; {again}"),
        (starts[1] - 512, ["a.mp4"], f"the archive is cut off or damaged after 'a.mp4'; {again}"),  # between the two
        (starts[1] - 200, ["a.mp4"], f"the archive is cut off or damaged after 'a.mp4'; {again}"),  # in a header
        (starts[0] + 1000, [], f"the archive is cut off within 'a.mp4'; {again}"),
        (300, [], "not a tar archive"),
    ):
        shard.write_bytes(whole[:length])
        assert whole_and_problem(shard) == (names, [problem])
    broken = bytearray(whole)
    broken[starts[1] - 500] ^= 1  # in the name of the second, against its checksum
    shard.write_bytes(broken)
    assert whole_and_problem(shard) == (["a.mp4"], [f"the archive is cut off or damaged after 'a.mp4'; {again}"])
    with open_video(f"{shard}/a.mp4") as reader:
        assert reader.info.num_frames == 30
    with pytest.raises(VideoError, match=r"the archive is cut off or damaged after 'a\.mp4'"):
        open_video(f"{shard}/b.mp4")


def test_compressed_archives_and_those_without_videos_are_refused(tmp_path: Path, clip: Path) -> None:
    shard = write_shard(tmp_path / "s.tar", [("a.mp4", clip)])
    compressed = "a compressed archive: no member of it can be read alone; decompress it to a plain .tar first"
    for name in ("s.tar.gz", "t.tgz", "renamed.tar"):
        packed = tmp_path / name
        packed.write_bytes(gzip.compress(shard.read_bytes()))
        assert whole_and_problem(packed) == ([], [compressed])
    texts = write_shard(tmp_path / "texts.tar", [("a.txt", "hello"), (".hidden/b.mp4", clip), ("._c.mp4", clip)])
    assert whole_and_problem(texts) == ([], ["the archive holds no videos"])


def test_inputs_are_archives_patterns_ranges_lists_and_members(
    tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("s")
    for number in range(8, 12):
        write_shard(Path(f"s/x-{number:03}.tar"), [("b.mp4", clip), ("a.mp4", clip), ("a.cls", "0")])
    of = {number: [f"s/x-{number:03}.tar/{name}.mp4" for name in "ba"] for number in range(8, 12)}
    everything = [path for paths in of.values() for path in paths]
    Path("list.txt").write_text("s/x-{010..011}.tar\ns/x-008.tar/a.mp4\n")

    def paths(*names: str) -> list[str]:
        found = expand_inputs(names, stdin=None)
        assert found.problems == []
        return found.paths

    assert paths("s/x-009.tar") == of[9]
    assert paths("s/*.tar") == paths("**/*.tar") == paths("s/x-{008..011}.tar") == everything
    assert paths("@list.txt") == [*of[10], *of[11], "s/x-008.tar/a.mp4"]
    assert paths("s/x-009.tar/a.mp4", "s/x-009.tar", "./s/x-009.tar/b.mp4") == [of[9][1], of[9][0]]
    assert expand_ranges("x-{98..101}.tar") == ["x-98.tar", "x-99.tar", "x-100.tar", "x-101.tar"]
    assert expand_ranges("{0..1}/{08..09}.tar") == ["0/08.tar", "0/09.tar", "1/08.tar", "1/09.tar"]
