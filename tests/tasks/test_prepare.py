"""Preparing from Python: a request in, a document out, without Typer and without torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dualformer_cli.data.camera_motion import files
from dualformer_cli.data.prepare import preparation
from dualformer_cli.documents.prepare import FoundVideos
from dualformer_cli.tasks import prepare as task
from dualformer_cli.tasks.prepare import PrepareRequest, UselessOptionError, plan_preparation, prepare
from dualformer_cli.tasks.render import RenderRequest, render


@pytest.fixture
def videos(tmp_path: Path, clip_drawer: Callable[..., Path], here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two classes of three videos, which are checked in this process."""
    monkeypatch.setattr("dualformer_cli.data.prepare.preparation.WorkerPool", here_pool)
    for name in ("a", "b"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for number in range(3):
            clip_drawer(tmp_path / "videos" / name / f"{number}.mp4", num_frames=9 + number, size=(48, 48))
    return tmp_path / "videos"


def test_a_request_becomes_lists_and_a_document(videos: Path) -> None:
    request = PrepareRequest(names=(str(videos),), split="0.5/0.5", num_workers=1)
    planned = plan_preparation(request)
    assert planned is not None
    assert planned.found.videos == 6
    assert not (videos / "prepared").exists()
    told: list[FoundVideos] = []
    done: list[tuple[str, int] | str] = []

    def watch(title: str, total: int) -> AbstractContextManager[Callable[[str], None]]:
        done.append((title, total))
        return nullcontext(done.append)

    prepared = prepare(request, watch=watch, start=told.append)
    assert prepared is not None
    assert told == [planned.found]
    assert done == [("look at", 6), *(f"{name}/{number}.mp4" for name in ("a", "b") for number in range(3))]
    assert prepared.summary.status == {"ok": 6, "sequential_only": 0, "broken": 0}
    assert set(prepared.summary.files) == {"classes.txt", "train.csv", "val.csv"}
    assert prepared.run.converted is None


@pytest.mark.parametrize(("convert", "quality"), [("transcode", 23), ("frames", 95), (None, None)])
def test_each_conversion_has_a_quality_of_its_own(videos: Path, convert: Any, quality: int | None) -> None:
    prepared = prepare(PrepareRequest(names=(str(videos),), convert=convert, num_workers=1))
    assert prepared is not None
    assert prepared.summary.found.arguments.quality == quality


def test_what_a_request_says_is_in_the_plan(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Any] = []
    monkeypatch.setattr(preparation, "prepare", lambda plan, **_: plans.append(plan))
    settings: dict[str, Any] = {
        "seed": 3,
        "group_look_alikes": True,
        "check": True,
        "convert": "transcode",
        "short_side": 100,
        "quality": 30,
        "formats": ("json",),
        "overwrite": True,
        "num_workers": 2,
        "timeout_seconds": 9.0,
    }
    prepare(PrepareRequest(names=(str(videos),), root=tmp_path / "out", split="0.5/0.25/0.25", **settings))
    (plan,) = plans
    assert {name: getattr(plan, name) for name in settings} == settings
    assert (plan.root, plan.shares) == (str(tmp_path / "out"), (0.5, 0.25, 0.25))


@pytest.mark.parametrize(("given", "wanted"), [(None, 2), (5, 5)])
def test_processes_of_one_machine_share_its_cores(
    given: int | None, wanted: int, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of four processes are on this one, which has eight cores."""
    plans: list[Any] = []
    ranks = SimpleNamespace(rank=1, world_size=4, is_main=False)
    monkeypatch.setattr(task, "join_ranks", lambda: nullcontext(ranks))
    monkeypatch.setattr(task, "usable_cores", lambda: 8)
    gather = lambda own: [own, own, "another machine", own]  # noqa: E731
    monkeypatch.setattr("dualformer_cli.engine.parallel.reductions.gather_objects", gather)
    monkeypatch.setattr(preparation, "help_prepare", lambda plan, *, team: plans.append((plan.num_workers, team.rank)))
    assert prepare(PrepareRequest(names=(str(videos),), num_workers=given)) is None
    assert plans == [(wanted, 1)]


def test_a_split_of_split_videos_is_named_with_its_option(videos: Path) -> None:
    for name, split in (("a", "train"), ("b", "val")):
        (videos / split).mkdir()
        (videos / name).rename(videos / split / name)
    with pytest.raises(UselessOptionError, match="decide already") as caught:
        plan_preparation(PrepareRequest(names=(str(videos),), split="0.5/0.5"))
    assert caught.value.option == "--split"


def test_a_dataset_is_rendered(tmp_path: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "WorkerPool", here_pool)
    monkeypatch.setattr(files, "_SIDE", 64)
    files._stock.cache_clear()
    done = render(RenderRequest(root=tmp_path / "set", count=100, num_frames=2))
    assert done is not None
    assert (done.rendered, done.clips, done.settings.seed) == (100, {"train": 80, "val": 10, "test": 10}, 0)


def test_the_tasks_load_neither_typer_nor_torch() -> None:
    names = "dualformer_cli.tasks.prepare, dualformer_cli.tasks.render"
    code = f"import sys, {names}; print({{'typer', 'torch'}} & {{*sys.modules}})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"
