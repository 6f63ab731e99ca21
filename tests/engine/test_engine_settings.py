"""What of a configuration and of weights reaches predictions and evaluations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.config.schema import DataConfig
from dualformer_cli.data.fetch.local_copies import LocalCopy
from dualformer_cli.engine import engine as module
from dualformer_cli.engine.engine import Engine
from dualformer_cli.engine.parallel.ranks import Ranks
from dualformer_cli.engine.score_settings import named_weights, score_settings
from dualformer_cli.errors import VideoError


@pytest.fixture
def make_engine(mini_preset: Path, one_thread: None) -> Callable[..., Engine]:
    """The function make_engine(*overrides, weights="random") -> an Engine of the mini preset."""

    def make(*overrides: str, weights: str = "random") -> Engine:
        return Engine(load_config(str(mini_preset), overrides=overrides, flags={"weights": weights}, environ={}))

    return make


VIEWS = ("data.test.num_clips=3", "data.test.num_crops=3", "data.validation.num_clips=2", "data.validation.num_crops=1")


def test_the_model_and_its_scorer_are_those_of_the_configuration(make_engine: Callable[..., Engine]) -> None:
    overrides = ["data.mean=[1,2,3]", "data.std=[4,5,6]", "data.multi_label=true"]
    engine = make_engine(*overrides)
    assert not any(part.training for part in engine.model.modules())
    scorer = engine.scorer
    assert (tuple(scorer.mean), tuple(scorer.std), scorer.multi_label) == ((1, 2, 3), (4, 5, 6), True)
    assert scorer.model is engine.model
    assert not make_engine().scorer.multi_label


def test_the_choice_of_kernels_reaches_the_network(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    torch.save({"model": make_engine().model.state_dict()}, tmp_path / "own.pt")
    for weights in ("random", str(tmp_path / "own.pt")):
        model = make_engine("runtime.kernels=torch", weights=weights).model
        assert {module.kernels for module in model.modules() if hasattr(module, "kernels")} == {"torch"}


def test_cuda_graphs_are_tried_where_the_configuration_asks_for_them(
    make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    make_engine()
    assert "cuda_graphs" not in caplog.text
    make_engine("runtime.cuda_graphs=true")
    assert "runtime.cuda_graphs: there are none on cpu" in caplog.text


@pytest.mark.parametrize(
    ("setting", "is_one"),
    [
        ("data.clip.num_frames=16", True),
        ("data.clip.frame_interval=3", True),
        ("data.clip.sampling=segments", True),
        ("data.crop_size=32", True),
        ("data.antialias=false", True),
        ("data.mean=[1,2,3]", True),
        ("data.std=[1,2,3]", True),
        ("data.test.num_clips=3", True),
        ("data.test.num_crops=3", True),
        ("data.test.short_side=80", True),
        ("data.multi_label=true", True),
        ("data.min_frames=5", True),
        ("data.frame_rate=5", True),
        ("data.decoder=pyav", True),
        ("model.drop_path=0.5", True),
        ("data.root=there", False),
        ("data.validation_list=list.csv", False),
        ("data.validation.num_clips=2", False),
        ("data.train.flip=0", False),
        ("train.lr=1", False),
        ("runtime.num_workers=3", False),
    ],
)
def test_the_settings_that_a_score_depends_on_are_known(mini_preset: Path, setting: str, is_one: bool) -> None:
    plain, changed = (
        score_settings(load_config(str(mini_preset), overrides=overrides, environ={})) for overrides in ((), (setting,))
    )
    assert (plain != changed) is is_one


@pytest.mark.parametrize(("weights", "is_another"), [("random", True), ("mini.pth", False)])
def test_a_seed_makes_other_weights_only_where_they_are_random(weights: str, is_another: bool) -> None:
    sha256 = None if weights == "random" else "0123"
    one, two = (named_weights(weights, sha256, seed=seed) for seed in (1, 2))
    assert (one != two) is is_another


def test_random_weights_follow_the_seed(make_engine: Callable[..., Engine]) -> None:
    found = []
    for seed in (1, 1, 2):
        torch.rand(3)  # what was drawn before does not matter
        found.append(make_engine(f"runtime.seed={seed}").model.classifier.weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_predictions_take_the_views_of_the_test_and_as_many_classes_as_asked_for(
    make_engine: Callable[..., Engine],
    monkeypatch: pytest.MonkeyPatch,
    here_pool: Any,
    clip_drawer: Any,
    tmp_path: Path,
) -> None:
    clip = str(clip_drawer(tmp_path / "clip.mp4", num_frames=20))
    asked: list[tuple[Any, Any]] = []
    read = module.read_views

    def keep(path: str, data: Any, views: Any, *given: Any, every_seconds: Any = None, **named: Any) -> Any:
        asked.append((views, every_seconds))
        return read(path, data, views, *given, every_seconds=every_seconds, **named)

    monkeypatch.setattr(module, "read_views", keep)
    engine = make_engine(*VIEWS)
    (prediction,) = engine.predict([clip], here_pool(), top_k=2)
    views, every_seconds = asked[-1]
    assert (views.num_clips, views.num_crops, every_seconds) == (3, 3, None)
    assert len(prediction.result.predictions) == 2
    (timeline,) = engine.predict([clip], here_pool(), top_k=4, every_seconds=0.5)
    views, every_seconds = asked[-1]
    assert (views.num_crops, every_seconds) == (3, 0.5)
    assert len(timeline.result.predictions) == 4


@pytest.mark.parametrize("num_segments", [1, 16, 17, 33])
def test_every_segment_of_a_timeline_is_read_once(
    monkeypatch: pytest.MonkeyPatch, here_pool: Any, num_segments: int
) -> None:
    read: list[int] = []

    def segments_of(
        path: str, data: Any, views: Any, segments: slice, *, part: Any, every_seconds: float, index: Any = None
    ) -> Any:
        assert (views, every_seconds) == (data.test, 2.0)
        read.extend(range(num_segments)[segments])
        return SimpleNamespace(num_segments=num_segments, index=None)

    monkeypatch.setattr(module, "read_views", segments_of)
    list(module._read_timelines([LocalCopy("a.mp4", "a.mp4")], DataConfig(), 2.0, here_pool()))
    assert read == list(range(num_segments))


def test_evaluations_take_the_views_of_the_test(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, here_pool: Any
) -> None:
    asked: list[Any] = []

    def keep(scorer: Any, listed: Any, data: Any, views: Any, *_: Any, **__: Any) -> list[Any]:
        asked.append((data.clip, views))
        return []

    monkeypatch.setattr(module, "evaluate_once", keep)
    listed: Any = SimpleNamespace(multi_label=True, source="list.csv", fingerprint="0")
    alone = Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu"))
    dump = make_engine(*VIEWS).evaluate(listed, here_pool(), alone, on_video=lambda record: None)
    assert (asked[0][1].num_clips, asked[0][1].num_crops) == (3, 3)
    assert (dump.num_clips, dump.num_crops, dump.multi_label) == (3, 3, True)
    segments = make_engine(*VIEWS, "data.clip.sampling=segments")
    dump = segments.evaluate(listed, here_pool(), alone, on_video=lambda record: None)
    assert (asked[1][0].sampling, dump.num_clips) == ("segments", 1)


def test_weights_may_name_the_classes(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    names = ["one", "two", "three", "four", "five"]
    torch.save({"model": make_engine().model.state_dict(), "class_names": names}, tmp_path / "named.pt")
    engine = make_engine("data.classes=null", weights=str(tmp_path / "named.pt"))
    assert (engine.class_names, engine.is_nameless) == (names, False)
    assert make_engine("data.classes=null").is_nameless


def test_weights_that_name_no_classes_are_scored_under_the_names_of_the_list(
    make_engine: Callable[..., Engine], tmp_path: Path
) -> None:
    (tmp_path / "classes.txt").write_text("one\ntwo\nthree\nfour\nfive\n")
    (tmp_path / "list.csv").write_text("path,label\na.mp4,two\n")
    engine = make_engine("data.classes=null", f"data.validation_list={tmp_path / 'list.csv'}")
    assert engine.class_names[1] == "class 1"
    listed = engine.open_list(Ranks(rank=0, local_rank=0, world_size=1, device=torch.device("cpu")))
    assert listed.labels == [(1,)]
    assert engine.class_names == ["one", "two", "three", "four", "five"]


def test_a_live_input_has_clips_as_the_configuration_says(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    class Ended:
        def __init__(self, name: str) -> None:
            """Connected at once."""

        def __enter__(self) -> Ended:
            return self

        def __exit__(self, *_: object) -> None:
            """Disconnected at once."""

        def clips(self, *given: Any) -> Any:
            asked.append(given[:3])
            raise VideoError("camera:0", "it has ended")

    monkeypatch.setattr(module, "LiveSource", Ended)
    make_engine("data.clip.frame_interval=3").predict_live("camera:0", every_seconds=1.5, on_clip=lambda clip: None)
    assert asked == [(8, 3, 1.5)]


def test_a_live_input_stops_at_the_clip_that_reaches_the_end(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Playing:
        def __init__(self, name: str) -> None:
            """Connected at once."""

        def __enter__(self) -> Playing:
            return self

        def __exit__(self, *_: object) -> None:
            """Disconnected at once."""

        def clips(self, num_frames: int, frame_interval: int, every_seconds: float, transform: Any) -> Any:
            for number in range(4):
                yield float(number), number + 1.0, np.zeros((num_frames, 1, 64, 64, 3), np.uint8)

    monkeypatch.setattr(module, "LiveSource", Playing)
    told: list[Any] = []
    make_engine().predict_live("camera:0", every_seconds=1.0, duration_seconds=2.0, on_clip=told.append)
    assert [clip.end_seconds for clip in told] == [1, 2]


def test_a_live_input_is_cut_as_the_test_is(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts: list[Any] = []

    def refuse(name: str) -> Any:
        raise VideoError(name, "there is no camera")

    monkeypatch.setattr(module, "FrameTransform", lambda **settings: cuts.append(settings))
    monkeypatch.setattr(module, "LiveSource", refuse)
    engine = make_engine("data.test.short_side=72", "data.validation.short_side=96", "data.antialias=false")
    engine.predict_live("camera:0", every_seconds=1.0, on_clip=lambda clip: None)
    assert cuts == [{"short_side": 72, "crop_size": 64, "num_crops": 1, "antialias": False}]
