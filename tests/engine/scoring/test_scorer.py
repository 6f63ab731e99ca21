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
from dualformer_cli.engine.scoring.scorer import Scorer


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


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(("piece_numbers", "on_threads"), [(2**17, 3), (1, 2)], ids=["small model", "large model"])
def test_each_thread_takes_a_view_and_only_what_is_left_of_a_large_model_is_shared(
    scorer: Scorer, toy_preset: Path, monkeypatch: pytest.MonkeyPatch, piece_numbers: int, on_threads: int
) -> None:
    views = views_of(scorer, toy_preset, 1, 2, 3)
    torch.set_num_threads(1)
    expected = scorer.score(views)
    torch.set_num_threads(2)
    monkeypatch.setattr("dualformer_cli.engine.scoring.scorer.PIECE_NUMBERS", piece_numbers)
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
