"""`dualformer predict` of videos on other machines and in tar shards: as local files, with nothing left behind."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import av
import fsspec
import numpy as np
import pytest
from tar_shards import write_shard
from typer.testing import CliRunner
from web_server import body, page

from dualformer_cli.app import app
from dualformer_cli.engine import engine
from dualformer_cli.errors import DualFormerError
from dualformer_cli.tasks import session

pytestmark = pytest.mark.usefixtures("_own_environment")


@pytest.fixture
def predict(
    mini_preset: Path, mini_weights: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The function predict(*arguments) -> the runner's result; files are decoded in this process."""
    monkeypatch.setattr(session, "WorkerPool", here_pool)
    model = ["--preset", str(mini_preset), "--weights", str(mini_weights)]
    return lambda *arguments: CliRunner().invoke(app, ["predict", *model, *map(str, arguments)])


@pytest.fixture
def results(predict: Callable[..., Any]) -> Callable[..., list[dict[str, Any]]]:
    """The function results(*arguments, code=0) -> the `results` of the JSON document."""

    def run(*arguments: Any, code: int = 0) -> list[dict[str, Any]]:
        result = predict("--json", *arguments)
        assert result.exit_code == code, result.output
        return list(json.loads(result.stdout)["results"])

    return run


def frames_of(path: Path) -> np.ndarray[Any, Any]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture
def bucket(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """fsspec's file system in memory with the scenes in memory://bucket/clips/, and an empty cache."""
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    for clip in scenes.glob("*.mp4"):
        for top in ("bucket", "me:hush@bucket"):  # in memory, a password is part of the path
            store.pipe(f"/{top}/clips/{clip.name}", clip.read_bytes())
    yield store
    store.rm("/", recursive=True)


def told(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is said of videos, without their names and what it took."""
    return [{name: value for name, value in row.items() if name not in ("path", "timing")} for row in rows]


@pytest.mark.parametrize("options", [(), ("--every", "0.4")])
def test_remote_files_are_predicted_as_local_ones_and_leave_nothing_behind(
    results: Any, scenes: Path, bucket: Any, tmp_path: Path, options: tuple[str, ...]
) -> None:
    local = results(scenes, *options)
    before = set(tmp_path.rglob("*"))
    remote = results("memory://bucket/clips/", *options)
    assert [row["path"] for row in remote] == [f"memory://bucket/clips/{Path(row['path']).name}" for row in local]
    assert told(remote) == told(local)
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "cache", tmp_path / "cache" / "copies"}
    bucket.pipe("/bucket/clips/broken.mp4", b"no video")
    listed = tmp_path / "list.txt"
    listed.write_text("memory://me:hush@bucket/clips/gone.mp4\nmemory://bucket/clips/*.mp4\n")
    rows = results(f"@{listed}", *options, code=3)
    errors = {row["path"]: row["error"] for row in rows if row["status"] == "error"}
    assert errors == {
        "memory://***@bucket/clips/gone.mp4": "not found; is the address right? That of a folder ends in a slash",
        "memory://bucket/clips/broken.mp4": "a text file, not a video",
    }
    assert told([row for row in rows if row["status"] == "ok"]) == told(local)


def test_the_room_that_remote_files_take_does_not_grow_with_their_number(
    results: Any, scenes: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = min(scenes.glob("*.mp4"), key=lambda path: path.stat().st_size)
    for number in range(25):
        bucket.pipe(f"/bucket/many/{number}.mp4", clip.read_bytes())
    held: list[int] = []
    read = engine.read_views

    def counting(path: str, *given: Any, **options: Any) -> Any:
        held.append(sum(1 for file in (tmp_path / "cache" / "copies").rglob("*") if file.is_file()))
        assert Path(path).read_bytes() == clip.read_bytes()
        return read(path, *given, **options)

    monkeypatch.setattr(engine, "read_views", counting)
    assert len(results("memory://bucket/many/")) == len(held) == 25
    assert max(held) <= 5  # one in hand, and four on their way


def test_files_beside_a_remote_video_are_those_of_a_local_one(
    results: Any, scenes: Path, bucket: Any, tmp_path: Path
) -> None:
    clip = sorted(scenes.glob("*.mp4"))[0]
    made = {}
    for name, given in (("local", clip), ("remote", f"memory://me:hush@bucket/clips/{clip.name}")):
        folder = tmp_path / name
        folder.mkdir()
        table, features = folder / "table.csv", folder / "features.npz"
        results(given, "--srt", folder, "--save", folder, "--csv", table, "--features", features)
        made[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert np.load(features)["path"].tolist() == [str(given).replace("me:hush", "***")]
    assert (
        set(made["remote"])
        == set(made["local"])
        == {f"{clip.stem}.srt", f"{clip.stem}.mp4"}
        | {
            *("table.csv", "features.npz"),
        }
    )
    assert made["remote"][f"{clip.stem}.srt"] == made["local"][f"{clip.stem}.srt"]
    assert np.array_equal(
        *(frames_of(tmp_path / name / f"{clip.stem}.mp4") for name in ("remote", "local")),
    )
    assert not any(b"hush" in content for content in made["remote"].values())


def test_a_run_folder_goes_on_with_remote_files_and_members_and_reads_those_that_changed(
    predict: Any, scenes: Path, bucket: Any, tmp_path: Path
) -> None:
    clips = sorted(scenes.glob("*.mp4"))
    shard = write_shard(tmp_path / "s.tar", [(clip.name, clip) for clip in clips])
    output = tmp_path / "run"

    def counts() -> dict[str, int]:
        inputs = ["memory://me:hush@bucket/clips/", shard]
        result = predict("--json", "--output", output, *inputs)
        assert result.exit_code == 0, result.output
        return dict(json.loads(result.stdout)["videos"])

    assert counts() == {"listed": 2 * len(clips), "ok": 2 * len(clips), "failed": 0, "kept": 0, "lost": 0}
    assert counts()["kept"] == 2 * len(clips)
    bucket.pipe(f"/me:hush@bucket/clips/{clips[0].name}", clips[1].read_bytes())
    assert counts()["kept"] == 2 * len(clips) - 1
    write_shard(shard, [("x.txt", "first"), *((clip.name, clip) for clip in clips)])
    assert counts()["kept"] == len(clips)
    written = [path for path in output.rglob("*") if path.is_file()]
    assert len(written) > 2
    assert not any(b"hush" in path.read_bytes() for path in written)


def test_remote_shards_are_predicted_as_local_ones_and_a_run_folder_goes_on_with_them(
    predict: Any, results: Any, scenes: Path, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = sorted(scenes.glob("*.mp4"))
    shard = write_shard(tmp_path / "s.tar", [(f"in/{clip.name}", clip) for clip in clips])
    bucket.pipe("/bucket/shards/s-0.tar", shard.read_bytes())
    rows = results("memory://bucket/shards/s-{0..0}.tar")
    assert [row["path"] for row in rows] == [f"memory://bucket/shards/s-0.tar/in/{clip.name}" for clip in clips]
    assert told(rows) == told(results(shard))

    def counts() -> tuple[int, int]:
        result = predict("--json", "--output", tmp_path / "run", "memory://bucket/shards/*.tar")
        assert result.exit_code == 0, result.output
        videos = json.loads(result.stdout)["videos"]
        return videos["ok"], videos["kept"]

    asked = []
    info = type(bucket).info

    def noted(self: Any, path: str, **options: Any) -> Any:
        asked.append(path)
        return info(self, path, **options)

    monkeypatch.setattr(type(bucket), "info", noted)
    assert counts() == (len(clips), 0)
    assert counts() == (len(clips), len(clips))
    assert asked.count("/bucket/shards/s-0.tar") == 2, "once in each run, for all videos in it"
    kept = [json.loads(line)["path"] for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert kept == [row["path"] for row in rows]
    bucket.pipe("/bucket/shards/s-0.tar", shard.read_bytes())  # another time
    assert counts() == (len(clips), 0)


def test_offline_refuses_remote_files_before_any_work(predict: Any, bucket: Any, tmp_path: Path) -> None:
    refused = predict("--offline", "--csv", tmp_path / "t.csv", "memory://bucket/clips/*.mp4")
    assert isinstance(refused.exception, DualFormerError)
    assert str(refused.exception) == (
        "'memory://bucket/clips/*.mp4' is not on this machine, and --offline is given; leave one of them out"
    )
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed")
def test_a_run_folder_keeps_no_copy_of_videos_on_the_web(
    predict: Any, scenes: Path, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path / "cache"))
    clips = sorted(scenes.glob("*.mp4"))[:2]
    asked: list[str] = []

    def serving(clip: Path) -> Any:
        respond = body(clip.read_bytes())

        def noted(request: Any) -> None:
            asked.append(f"{request.command} {request.path}")
            respond(request)

        return noted

    addresses = [web.on(f"/{number}.mp4", serving(clip)) for number, clip in enumerate(clips)]
    (tmp_path / "list.txt").write_text("\n".join([*addresses, f"{web.address}/gone.mp4"]))

    def rows(*given: Any) -> tuple[list[dict[str, Any]], int]:
        result = predict("--json", "--output", tmp_path / given[0], *given[1:])
        lines = (tmp_path / given[0] / "predictions.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines], json.loads(result.stdout)["videos"]["kept"]

    found, kept = rows("run", f"@{tmp_path / 'list.txt'}")
    assert [row["path"] for row in found] == [*addresses, f"{web.address}/gone.mp4"]
    assert told(found[:2]) == told(rows("local", *clips)[0])
    assert (found[2]["status"], kept) == ("error", 0)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []
    assert sorted(asked) == ["GET /0.mp4", "GET /1.mp4", "HEAD /0.mp4", "HEAD /1.mp4"], "once for the version"
    asked.clear()
    assert rows("run", f"@{tmp_path / 'list.txt'}") == (found, 2)
    assert sorted(asked) == ["HEAD /0.mp4", "HEAD /1.mp4"]
    web.on("/1.mp4", body(clips[0].read_bytes(), etag='"2"'))
    changed, kept = rows("run", f"@{tmp_path / 'list.txt'}")
    assert (told(changed[1:2]), kept) == (told(found[:1]), 1)


@pytest.mark.skipif(importlib.util.find_spec("aiohttp") is None, reason="aiohttp is not installed")
def test_the_page_of_a_folder_on_the_web_stands_for_the_videos_that_it_links_to(
    results: Any, scenes: Path, web: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUALFORMER_CACHE", str(tmp_path))
    clips = sorted(scenes.glob("*.mp4"))
    links = "".join(f'<a href="{quote(clip.name)}">x</a>' for clip in clips)
    web.on("/clips/", page("Index", links))
    for clip in clips:
        web.files[f"/clips/{quote(clip.name)}"] = clip.read_bytes()
    rows = results(f"{web.address}/clips/")
    assert [row["path"] for row in rows] == [f"{web.address}/clips/{quote(clip.name)}" for clip in clips]
    assert told(rows) == told(results(*clips))


def test_members_of_tar_shards_are_predicted_as_the_files_in_them(results: Any, scenes: Path, tmp_path: Path) -> None:
    clips = sorted(scenes.glob("*.mp4"))
    for number, clip in enumerate(clips):
        write_shard(tmp_path / f"x-{number}.tar", [(f"d/{clip.name}", clip), ("1.cls", "0"), ("1.mp4", "no video")])
    rows = results(tmp_path / "x-*.tar", "--srt", tmp_path, code=3)
    expected = [name for n, clip in enumerate(clips) for name in (f"x-{n}.tar/d/{clip.name}", f"x-{n}.tar/1.mp4")]
    assert [row["path"] for row in rows] == [str(tmp_path / name) for name in expected]
    assert told(rows[::2]) == told(results(*clips))
    assert {row["error"] for row in rows[1::2]} == {"a text file, not a video"}
    assert {path.name for path in tmp_path.glob("*.srt")} == {f"{clip.stem}.srt" for clip in clips}
