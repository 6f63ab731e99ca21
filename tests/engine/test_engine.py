"""The engine: one model over many videos, whose results do not depend on how they were read or what came before."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.predict import VideoResult
from dualformer_cli.engine import engine as module
from dualformer_cli.engine.engine import Engine
from dualformer_cli.errors import ConfigError, VideoError
from dualformer_cli.system.workers import WorkerTimeout
from dualformer_cli.video import pyav_reader


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make_engine(mini_preset: Path, mini_weights: Path) -> Callable[..., Engine]:
    """The function make_engine(*overrides) -> an Engine of the mini preset with its weights."""

    def make(*overrides: str, weights: str | None = None) -> Engine:
        flags = {"weights": weights or str(mini_weights)}
        return Engine(load_config(str(mini_preset), overrides=overrides, flags=flags, environ={}))

    return make


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, clip_drawer: Callable[..., Path]) -> str:
    """An H.264 file of 60 frames at 10 per second."""
    return str(clip_drawer(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=60, fps=10))


def without_timing(result: VideoResult) -> VideoResult:
    return replace(result, timing=None)


def test_every_result_can_be_traced_to_its_weights_and_settings(
    make_engine: Any, mini_preset: Path, mini_weights: Path
) -> None:
    facts = make_engine("data.test.num_crops=3").describe()
    assert to_json(facts) == {
        "preset": str(mini_preset),
        "weights": str(mini_weights),
        "weights_sha256": hashlib.sha256(mini_weights.read_bytes()).hexdigest(),
        "device": "cpu",
        "precision": "fp32",
        "views": "2x3",
    }
    assert make_engine("data.clip.sampling=segments").describe().views == "1x1"
    assert make_engine(weights="random").describe().weights_sha256 is None


def test_random_weights_are_warned_of(
    make_engine: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("dualformer_cli"), "propagate", True)
    make_engine(weights="random")
    assert "weights are random: labels and scores mean nothing" in caplog.text


def test_random_weights_are_those_of_the_seed(make_engine: Any) -> None:
    one, same, other = (
        make_engine(f"runtime.seed={seed}", weights="random").model.classifier.weight for seed in (3, 3, 4)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_frames_are_normalised_by_the_colours_of_the_configuration(make_engine: Any) -> None:
    engine = make_engine("data.mean=[100, 50, 20]", "data.std=[10, 20, 40]")
    clips = np.random.default_rng(0).integers(0, 256, (1, 8, 64, 64, 3), dtype=np.uint8)
    by_hand = (clips - np.array([100.0, 50, 20])) / np.array([10.0, 20, 40])
    with torch.no_grad():
        logits = engine.model(torch.from_numpy(by_hand.transpose(0, 4, 1, 2, 3)).float())
    np.testing.assert_allclose(engine.scorer.score(clips)[0], logits.softmax(-1).numpy(), atol=1e-5)


def test_names_inside_the_weights_are_the_labels_as_many_as_are_wanted(
    make_engine: Any, mini_weights: Path, clip: str, here_pool: Any, tmp_path: Path
) -> None:
    names = ["ant", "bee", "cat", "dog", "eel"]
    named = torch.load(mini_weights, weights_only=True) | {"class_names": names}
    torch.save(named, tmp_path / "named.pt")
    engine = make_engine(weights=str(tmp_path / "named.pt"))
    assert (engine.class_names, engine.is_nameless) == (names, False)
    for top_k in (1, 2):
        (found,) = engine.predict([clip], here_pool(), top_k=top_k)
        assert len(found.result.predictions) == top_k
        assert {best.label for best in found.result.predictions} <= set(names)


@pytest.mark.parametrize("every_seconds", [None, 1.0])
def test_the_next_videos_are_read_while_one_is_scored(
    every_seconds: float | None, make_engine: Any, clip: str, here_pool: Any
) -> None:
    drawn: list[str] = []

    class Pool(here_pool):  # type: ignore[misc]
        """As that of two workers, which have three jobs in hand before the first result is taken."""

        def imap(self, function: Any, items: Any, *, ahead: int | None = None) -> Any:
            outcomes = super().imap(function, items)
            ready = list(islice(outcomes, ahead or 3))
            yield from ready
            yield from outcomes

    def paths() -> Iterator[str]:
        for path in [clip] * 4:
            drawn.append(path)
            yield path

    predictions = make_engine().predict(paths(), Pool(), every_seconds=every_seconds)
    assert next(predictions).result.status == "ok"
    assert len(drawn) >= 3
    assert len(list(predictions)) == 3


@pytest.mark.parametrize("segments_per_read", [1, 3, 100])
def test_a_timeline_is_the_same_however_many_segments_are_read_at_once(
    segments_per_read: int, make_engine: Any, clip: str, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine()
    # views that are computed together differ from the same ones alone in the last digits
    monkeypatch.setattr("dualformer_cli.engine.scoring.scorer._VIEWS_PER_THREAD", 1)
    (whole,) = engine.predict([clip], here_pool(), every_seconds=0.7)
    scanned: list[str] = []
    scan = pyav_reader.scan_file
    monkeypatch.setattr(pyav_reader, "scan_file", lambda file: scanned.append(file.path) or scan(file))
    monkeypatch.setattr(module, "SEGMENTS_PER_READ", segments_per_read)
    (parts,) = engine.predict([clip], here_pool(), every_seconds=0.7)
    assert scanned == [clip]  # the later parts know the file from the first
    assert without_timing(parts.result) == without_timing(whole.result)
    assert whole.result.views == len(whole.features) == 9
    for one, other in zip(parts.features, whole.features, strict=True):
        np.testing.assert_array_equal(one.features, other.features)


@pytest.mark.parametrize("segments_per_read", [1, 100])
def test_a_part_has_the_timeline_of_its_own_frames(
    segments_per_read: int, make_engine: Any, clip: str, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SEGMENTS_PER_READ", segments_per_read)
    (prediction,) = make_engine().predict([f"{clip}#t=2,5"], here_pool(), every_seconds=0.7)
    assert [row.start_seconds for row in prediction.features] == pytest.approx([2.0, 2.7, 3.4, 4.1])
    assert prediction.features[-1].end_seconds == pytest.approx(5.0)


def test_one_segment_as_long_as_the_video_covers_all_of_it(make_engine: Any, clip: str, here_pool: Any) -> None:
    (prediction,) = make_engine().predict([clip], here_pool(), every_seconds=1000)
    (segment,) = prediction.result.segments
    assert (segment.start_seconds, segment.end_seconds) == (0, pytest.approx(6))
    assert segment.label == prediction.result.predictions[0].label


def test_a_failure_half_way_through_a_timeline_is_the_result_of_that_video_alone(
    make_engine: Any, clip: str, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = module.read_views
    broken: list[str] = []

    def fail_late(path: str, data: Any, views: Any, segments: slice, **options: Any) -> Any:
        if segments.start and not broken:
            broken.append(path)
            raise WorkerTimeout(path, 20.0)
        return read(path, data, views, segments, **options)

    monkeypatch.setattr(module, "read_views", fail_late)
    monkeypatch.setattr(module, "SEGMENTS_PER_READ", 2)
    first, second = make_engine().predict([clip, clip], here_pool(), every_seconds=1)
    assert (first.result.status, first.result.error) == ("error", "decoder made no progress for 20 s")
    assert second.result.status == "ok"


@pytest.mark.parametrize("every_seconds", [None, 1.0])
def test_bad_files_become_results_in_their_places(
    every_seconds: float | None, make_engine: Any, clip: str, here_pool: Any, tmp_path: Path
) -> None:
    empty, missing = tmp_path / "empty.mp4", str(tmp_path / "missing.mp4")
    empty.write_bytes(b"")
    paths = [str(empty), clip, missing]
    predictions = list(make_engine().predict(paths, here_pool(), every_seconds=every_seconds))
    assert [prediction.result.path for prediction in predictions] == paths
    assert [prediction.result.error for prediction in predictions] == [
        "the file is empty (0 bytes)",
        None,
        "no such file or folder",
    ]


@pytest.mark.parametrize("every_seconds", [None, 1.0])
def test_a_bug_costs_its_video_and_not_the_others(
    every_seconds: float | None, make_engine: Any, clip: str, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = module.read_views

    def buggy(path: str, *arguments: Any, **options: Any) -> Any:
        if path == "odd.mp4":
            raise KeyError("frame")
        return read(path, *arguments, **options)

    monkeypatch.setattr(module, "read_views", buggy)
    odd, good = make_engine().predict(["odd.mp4", clip], here_pool(), every_seconds=every_seconds)
    assert (odd.result.status, odd.result.error) == ("error", "unexpected KeyError: 'frame'; -v shows where")
    assert good.result.status == "ok"


def test_scores_that_are_not_numbers_are_no_prediction(make_engine: Any, clip: str, here_pool: Any) -> None:
    engine = make_engine()
    with torch.no_grad():
        engine.model.classifier.bias[2] = math.nan
    (prediction,) = engine.predict([clip], here_pool())
    assert prediction.result.error == "the scores are not numbers in fp32; the weights are damaged"
    assert prediction.result.predictions == ()


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_video_for_which_a_gpu_has_no_memory_costs_itself_alone(
    at_once: int, make_engine: Any, clip: str, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that raises at black views stands in for the card; `at_once` videos are scored together."""
    engine, read = make_engine(), module.read_views
    tokens = engine.scorer._tokens

    def read_views(path: str, *arguments: Any, **options: Any) -> Any:
        views = read(clip, *arguments, **options)
        return replace(views, clips=np.zeros_like(views.clips)) if path == "black.mp4" else views

    def forward(clips: torch.Tensor) -> torch.Tensor:
        if any(view[0].min() == view[0].max() for view in clips):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return tokens(clips)

    monkeypatch.setattr(module, "read_views", read_views)
    monkeypatch.setattr(engine.scorer, "_tokens", forward)
    monkeypatch.setattr(engine.scorer, "_is_enough", lambda videos: len(videos) >= at_once)
    first, black, last = (each.result for each in engine.predict([clip, "black.mp4", "last.mp4"], here_pool()))
    assert (first.status, black.status, last.status) == ("ok", "error", "ok")
    advice = "--precision bf16 takes less, and so does an end to other programs there; --device cpu takes none"
    assert black.error == f"the GPU's memory is full; {advice}"
    assert first.predictions == last.predictions


def test_bfloat16_agrees_with_float32_to_its_precision(make_engine: Any, clip: str, here_pool: Any) -> None:
    scores = []
    for precision in ("fp32", "bf16"):
        engine = make_engine(f"runtime.precision={precision}")
        assert engine.describe().precision == precision
        (prediction,) = engine.predict([clip], here_pool())
        ordered = sorted(prediction.result.predictions, key=lambda entry: entry.index)
        scores.append([entry.score for entry in ordered])
        assert sum(scores[-1]) == pytest.approx(1, abs=1e-6)
    assert np.abs(np.subtract(scores[0], scores[1])).max() < 0.1


def test_only_a_large_model_takes_auto_for_bf16_on_a_cpu_and_only_if_allowed(
    mini_preset: Path, mini_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = load_config(str(mini_preset), flags={"weights": str(mini_weights)}, environ={})
    monkeypatch.setattr("dualformer_cli.engine.parallel.devices.multiplies_bf16", lambda: True)
    assert Engine(resolved, bf16_on_cpu=True).describe().precision == "fp32"
    monkeypatch.setattr("dualformer_cli.engine.engine.BF16_ON_CPU_FROM", 0)
    assert Engine(resolved).describe().precision == "fp32"
    engine = Engine(resolved, bf16_on_cpu=True)
    assert engine.describe().precision == "bf16"
    assert {parameter.dtype for parameter in engine.model.parameters()} == {torch.bfloat16}


def test_views_are_scored_alike_in_batches_of_any_size(make_engine: Any) -> None:
    scorer = make_engine().scorer
    clips = np.random.default_rng(0).integers(0, 256, (5, 8, 64, 64, 3), dtype=np.uint8)
    scores, features = scorer.score(clips)
    assert (scores.shape, scores.dtype, features.shape, features.dtype) == ((5, 5), np.float64, (5, 32), np.float32)
    for scorer.batch_size in (2, 5, 16):
        again = scorer.score(clips)
        np.testing.assert_allclose(again[0], scores, atol=1e-6)
        np.testing.assert_allclose(again[1], features, atol=1e-5)


def test_videos_are_read_lazily(make_engine: Any, clip: str, here_pool: Any) -> None:
    taken = []

    def paths() -> Iterator[str]:
        for number in range(1000):
            taken.append(number)
            yield clip

    next(make_engine().predict(paths(), here_pool()))
    assert len(taken) < 10


def test_classes_without_a_list_are_called_by_their_numbers(make_engine: Any) -> None:
    assert make_engine("data.classes=null").class_names == [f"class {index}" for index in range(5)]


def test_a_class_list_of_another_length_is_refused(make_engine: Any) -> None:
    with pytest.raises(ConfigError, match=r"data.classes 'ucf101' names 101 classes, model.num_classes is 5"):
        make_engine("data.classes=ucf101")


class Playing:
    """A live source with three clips."""

    def __init__(self, name: str) -> None:
        """Connected at once."""

    def __enter__(self) -> Playing:
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnected at once."""

    def clips(self, num_frames: int, frame_interval: int, every_seconds: float, transform: Any) -> Iterator[Any]:
        for number in range(3):
            frames = np.full((num_frames, 70, 90, 3), 60 * number, np.uint8)
            yield 2.0 * number, 2.0 * number + 1.5, np.stack([transform(frame) for frame in frames])


def test_a_live_input_is_told_clip_by_clip(make_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LiveSource", Playing)
    told: list[Any] = []
    prediction = make_engine().predict_live("camera:0", every_seconds=2.0, top_k=3, on_clip=told.append)
    assert [(clip.start_seconds, clip.end_seconds) for clip in told] == [(0, 1.5), (1.5, 3.5), (3.5, 5.5)]
    assert [len(clip.predictions) for clip in told] == [3, 3, 3]
    assert (prediction.result.status, prediction.result.duration_seconds) == ("ok", 5.5)


def test_a_live_input_stops_after_the_time_it_was_given(make_engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LiveSource", Playing)
    told: list[Any] = []
    make_engine().predict_live("camera:0", every_seconds=2.0, duration_seconds=3.0, on_clip=told.append)
    assert len(told) == 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (KeyboardInterrupt(), {"interrupted": True}),
        (VideoError("camera:0", "the stream broke off"), {"warnings": ("the stream broke off",)}),
    ],
)
def test_a_live_input_that_ends_early_keeps_what_was_seen(
    error: BaseException, expected: dict[str, Any], make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ending(Playing):
        def clips(self, *arguments: Any) -> Iterator[Any]:
            yield next(super().clips(*arguments))
            raise error

    monkeypatch.setattr(module, "LiveSource", Ending)
    prediction = make_engine().predict_live("camera:0", every_seconds=2.0, on_clip=lambda clip: None)
    assert prediction.result.status == "ok"
    assert prediction.result.views == 1
    for name, value in expected.items():
        assert getattr(prediction.result, name) == value


def test_a_live_input_that_cannot_be_opened_is_a_failure_without_its_password(
    make_engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        raise VideoError("rtsp://***@cam", "connection refused")

    monkeypatch.setattr(module, "LiveSource", refuse)
    prediction = make_engine().predict_live("rtsp://me:secret@cam", every_seconds=2.0, on_clip=lambda clip: None)
    assert (prediction.result.path, prediction.result.error) == ("rtsp://***@cam", "connection refused")


def test_a_preset_of_several_labels_scores_each_class_by_itself(make_engine: Any, clip: str, here_pool: Any) -> None:
    """Sigmoids of the logits whose softmax is each class's share: their log-odds differ by what the shares' logs do."""
    one_view = ("data.test.num_clips=1", "data.test.num_crops=1")
    (one,) = make_engine(*one_view).predict([clip], here_pool())
    (several,) = make_engine(*one_view, "data.multi_label=true").predict([clip], here_pool())
    of_one, of_several = (
        {label.index: label.score for label in prediction.result.predictions} for prediction in (one, several)
    )
    assert sum(of_one.values()) == pytest.approx(1)
    logits = {index: math.log(score / (1 - score)) for index, score in of_several.items()}
    apart = [logits[index] - math.log(score) for index, score in of_one.items()]
    assert apart == pytest.approx([apart[0]] * len(apart), abs=1e-4)
