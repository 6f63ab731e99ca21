"""The scorer: views in, scores and features out, each distinct view computed once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model
from dualformer_cli.engine.scoring import scorer as module
from dualformer_cli.engine.scoring.scorer import NoMemory, Scored, Scorer


@pytest.fixture
def scorer(toy_preset: Path, one_thread: None) -> Scorer:
    config = load_config(str(toy_preset), environ={}).config
    torch.manual_seed(0)
    return Scorer(build_model(config.model, config.data).eval(), mean=config.data.mean, std=config.data.std)


def views_of(scorer: Scorer, toy_preset: Path, *numbers: int) -> np.ndarray:
    """Random views by number: the same number is the same view."""
    data = load_config(str(toy_preset), environ={}).config.data
    shape = (data.clip.num_frames, data.crop_size, data.crop_size, 3)
    return np.stack([np.random.default_rng(number).integers(0, 256, shape, np.uint8) for number in numbers])


@pytest.fixture
def _one_view_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Views that are computed together differ from the same ones alone in their last digits."""
    monkeypatch.setattr(module, "_VIEWS_PER_THREAD", 1)


@pytest.mark.usefixtures("_one_view_at_a_time")
@pytest.mark.parametrize(("numbers", "computed"), [((5, 5, 5, 5), 1), ((1, 2, 1, 3), 3), ((1, 2, 3), 3)])
def test_equal_views_are_computed_once_and_all_get_their_scores(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch, numbers: Any, computed: int
) -> None:
    alone = {number: scorer.score(views_of(scorer, toy_preset, number)) for number in set(numbers)}
    seen: list[int] = []
    tokens = scorer._tokens
    monkeypatch.setattr(scorer, "_tokens", lambda clips: (seen.append(len(clips)), tokens(clips))[1])
    scores, features = scorer.score(views_of(scorer, toy_preset, *numbers))
    assert sum(seen) == computed
    assert len(scores) == len(features) == len(numbers)
    for number, row, vector in zip(numbers, scores, features, strict=True):
        assert (row == alone[number][0][0]).all()
        assert (vector == alone[number][1][0]).all()


@pytest.mark.usefixtures("_one_view_at_a_time")
def test_views_that_differ_in_one_pixel_are_two(scorer: Scorer, toy_preset: Path) -> None:
    views = views_of(scorer, toy_preset, 4, 4)
    views[1, -1, 3, 5, 2] ^= 0xFF
    scores, _ = scorer.score(views)
    assert (scores[0] == scorer.score(views[:1])[0][0]).all()
    assert (scores[1] == scorer.score(views[1:])[0][0]).all()
    assert (scores[0] != scores[1]).any()


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_a_softmax_or_a_sigmoid_for_each_class_and_features_the_mean_over_tokens(
    toy_preset: Path, one_thread: None, multi_label: bool
) -> None:
    config = load_config(str(toy_preset), environ={}).config
    torch.manual_seed(0)
    model = build_model(config.model, config.data).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    scorer = Scorer(model, mean=(100, 110, 120), std=(50, 60, 70), multi_label=multi_label)
    views = views_of(scorer, toy_preset, 1, 2)
    x = ((views - np.array([100.0, 110, 120])) / [50, 60, 70]).transpose(0, 4, 1, 2, 3)
    with torch.no_grad():
        tokens = model.forward_tokens(torch.from_numpy(x.astype(np.float32))).double().numpy()
    means = tokens.mean(axis=(1, 2, 3))
    logits = means @ model.classifier.weight.detach().double().numpy().T + model.classifier.bias.detach().numpy()
    powers = np.exp(logits)
    expected = powers / (1 + powers) if multi_label else powers / powers.sum(axis=1, keepdims=True)
    scores, features = scorer.score(views)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(features, means, atol=1e-4)
    assert abs(expected - 0.5).max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_of_a_model_that_votes_on_motion_give_its_scores(
    toy_preset: Path, one_thread: None, dtype: torch.dtype
) -> None:
    config = load_config(str(toy_preset), overrides=["model.motion_vote=true"], environ={}).config
    torch.manual_seed(0)
    model = build_model(config.model, config.data).eval()
    assert model.motion_vote is not None
    with torch.no_grad():
        model.motion_vote.out.bias.normal_()
        model.classifier.weight.mul_(30)
    scorer = Scorer(model.to(dtype), mean=config.data.mean, std=config.data.std)
    scores, features = scorer.score(views_of(scorer, toy_preset, 1, 2))
    weight, bias = (p.detach().double().numpy() for p in (model.classifier.weight, model.classifier.bias))
    powers = np.exp(features @ weight.T + bias)
    expected = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, expected, atol=1e-5 if dtype == torch.float32 else 0.05)
    assert abs(expected - 1 / expected.shape[1]).max() > 0.2


def test_scores_in_low_precision_sum_to_1_to_the_last_digit(toy_preset: Path, one_thread: None) -> None:
    config = load_config(str(toy_preset), environ={}).config
    torch.manual_seed(0)
    scorer = Scorer(
        build_model(config.model, config.data).eval().bfloat16(), mean=config.data.mean, std=config.data.std
    )
    scores, features = scorer.score(views_of(scorer, toy_preset, 1))
    assert (scores.dtype, features.dtype) == (np.float64, np.float32)
    assert scores.sum() == pytest.approx(1, abs=1e-12)


@pytest.fixture
def _two_threads(one_thread: None) -> None:
    torch.set_num_threads(2)  # one_thread restores the number


@pytest.mark.usefixtures("_two_threads", "_one_view_at_a_time")
@pytest.mark.parametrize(("piece_numbers", "on_threads"), [(2**17, 3), (1, 2)], ids=["small model", "large model"])
def test_each_thread_takes_a_view_and_only_what_is_left_of_a_large_model_is_shared(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch, piece_numbers: int, on_threads: int
) -> None:
    views = views_of(scorer, toy_preset, 1, 2, 3)
    torch.set_num_threads(1)
    expected = scorer.score(views)
    torch.set_num_threads(2)
    monkeypatch.setattr(module, "PIECE_NUMBERS", piece_numbers)
    places: list[tuple[bool, int]] = []
    tokens = scorer._tokens

    def note(clips: torch.Tensor) -> torch.Tensor:
        places.append((threading.current_thread() is not threading.main_thread(), torch.get_num_threads()))
        return tokens(clips)

    monkeypatch.setattr(scorer, "_tokens", note)
    found = scorer.score(views)
    assert sorted(places, reverse=True) == [(True, 1)] * on_threads + [(False, 2)] * (3 - on_threads)
    assert all((a == b).all() for a, b in zip(found, expected, strict=True))


@pytest.mark.usefixtures("_two_threads")
def test_a_compiled_model_runs_on_the_thread_that_compiled_it(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = []
    tokens = scorer._tokens
    scorer._is_compiled = True
    monkeypatch.setattr(scorer, "_tokens", lambda clips: (places.append(threading.current_thread()), tokens(clips))[1])
    scorer.score(views_of(scorer, toy_preset, 1, 2))
    assert places == [threading.main_thread()] * 2


def test_views_of_neighbours_share_batches_and_score_what_they_score_alone(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = {
        "a": (1, 2),
        "none": None,
        "b": (3, 4, 3),
        "c": (5,),
        "end": None,
        "f": (11,),
        "d": (6, 7, 8, 9, 10),
        "e": (1,),
    }
    clips = {
        name: None if numbers is None else views_of(scorer, toy_preset, *numbers) for name, numbers in videos.items()
    }
    alone = {name: scorer.score(views) for name, views in clips.items() if views is not None}
    monkeypatch.setattr(scorer, "_is_small", lambda clips: False)  # as on a GPU
    monkeypatch.setattr(scorer, "_score_on_threads", lambda pieces: [])
    scorer.batch_size = 4
    batches: list[int] = []
    asked: list[str] = []
    tokens = scorer._tokens
    monkeypatch.setattr(scorer, "_tokens", lambda clips: (batches.append(len(clips)), tokens(clips))[1])

    def names() -> Any:
        for name in videos:
            asked.append(name)
            yield name

    found = scorer.score_each(names(), lambda name: clips[name])
    first, _ = next(found)
    assert (first, asked) == ("a", ["a", "none", "b"]), "no more is read than fills a batch"
    rest = list(found)
    assert [name for name, _ in rest] == list(videos)[1:]
    assert batches == [4, 4, 3, 1], "a and b have 4 views that differ, c, f and d 7, e is left"
    for name, scored in rest:
        assert (scored is None) == (clips[name] is None)
        if scored is not None:
            np.testing.assert_allclose(scored.scores, alone[name][0], rtol=0, atol=1e-6)
            np.testing.assert_allclose(scored.features, alone[name][1], rtol=0, atol=1e-5)
    seconds = {name: scored.seconds for name, scored in rest if scored is not None}
    assert seconds["d"] == pytest.approx(5 * seconds["c"])


def test_on_a_gpu_a_batch_is_launched_before_the_scores_of_the_one_before_are_waited_for(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [views_of(scorer, toy_preset, *numbers) for numbers in ((1, 2), (3, 4), (5, 6), (7,))]
    alone = [scorer.score(views)[0] for views in videos]
    monkeypatch.setattr(scorer, "_is_small", lambda clips: False)
    monkeypatch.setattr(scorer, "_score_on_threads", lambda pieces: [])
    monkeypatch.setattr(scorer, "_is_ahead", True)
    scorer.batch_size = 2
    log: list[str] = []

    class Mark:
        def synchronize(self) -> None:
            log.append("wait")

        def elapsed_time(self, end: Any) -> float:
            return 3000.0

    compute = scorer._score_batch

    def launch(clips: Any) -> Any:
        log.append("launch")
        if len(log) == 2:
            scorer.batch_size = 1
            raise torch.OutOfMemoryError  # at one view: nothing is smaller
        return compute(clips)

    monkeypatch.setattr(module, "_now", lambda device: Mark())
    monkeypatch.setattr(scorer, "_score_batch", launch)
    found = scorer.score_each(range(4), videos.__getitem__)
    assert next(found)[0] == 0
    assert log == ["launch", "launch", "wait"]
    scorer.batch_size = 2
    rest = [scored for _, scored in found]
    assert log == ["launch", "launch", "wait", "launch", "launch", "wait", "wait"]
    assert isinstance(rest[0], NoMemory), "of the second video alone"
    for scored, expected in zip(rest[1:], alone[2:], strict=True):
        assert isinstance(scored, Scored)
        np.testing.assert_allclose(scored.scores, expected, rtol=0, atol=1e-6)
        assert scored.seconds == 3.0


def test_on_a_cpu_each_item_is_scored_before_the_next_is_read(scorer: Scorer, toy_preset: Path) -> None:
    views = views_of(scorer, toy_preset, 1)
    asked: list[int] = []

    def numbers() -> Any:
        for number in range(3):
            asked.append(number)
            yield number

    seen = [(number, list(asked)) for number, _ in scorer.score_each(numbers(), lambda n: None if n == 1 else views)]
    assert seen == [(0, [0]), (1, [0, 1]), (2, [0, 1, 2])]


@pytest.mark.usefixtures("_two_threads")
def test_a_thread_computes_up_to_four_views_of_a_video_together(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos = [views_of(scorer, toy_preset, *numbers) for numbers in ((1, 2, 1), (3,), (4, 5, 6, 7, 8))]
    alone = [np.concatenate([scorer.score(views[n : n + 1])[0] for n in range(len(views))]) for views in videos]
    sizes: list[int] = []
    tokens = scorer._tokens
    monkeypatch.setattr(scorer, "_tokens", lambda clips: (sizes.append(len(clips)), tokens(clips))[1])
    found = [scored.scores for _, scored in scorer.score_each(videos, lambda views: views) if scored is not None]
    assert sorted(sizes) == [1, 1, 2, 4], "no thread computes views of two videos together"
    for one, other in zip(found, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_a_small_model_takes_as_many_videos_at_once_as_half_the_threads(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = views_of(scorer, toy_preset, 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(module, "for_each_piece", lambda function, pieces: [function(piece) for piece in pieces])
    asked: list[int] = []

    def numbers() -> Any:
        for number in range(5):
            asked.append(number)
            yield number

    seen = [(number, len(asked)) for number, _ in scorer.score_each(numbers(), lambda number: views)]
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 5), (4, 5)]
