"""The deletion score: positive for a map of what a score depends on, about zero for a map of nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualformer_cli.engine.explain.deletion import count_scorings, delete

GREY = (100, 100, 100)


def bright_share(clips: Any) -> Any:
    """A score that depends on the bright upper left quarter alone: its share that is still bright."""
    return (clips[:, :, :16, :16, 0] > 150).mean(axis=(1, 2, 3))


@pytest.fixture
def clips() -> Any:
    clips = np.full((2, 4, 32, 32, 3), 90, np.uint8)
    clips[:, :, :16, :16] = 220
    return clips


def heat_of(clips: Any) -> Any:
    return clips[:, ::2, ::8, ::8, 0].astype(np.float32)


def test_a_map_of_what_matters_beats_a_random_order(clips: Any) -> None:
    course = delete(bright_share, clips, heat_of(clips), colour=GREY)
    assert course.score == pytest.approx(0.375, abs=0.05)  # 1/2 for random order, 1/8 for the quarter first
    assert course.hottest_first == [1, 0.5, 0, 0, 0, 0, 0, 0, 0]
    areas = [np.trapezoid(curve, course.shares) for curve in (course.random_order, course.hottest_first)]
    assert course.score == areas[0] - areas[1]


def test_a_map_of_the_rest_loses_and_one_of_nothing_draws(clips: Any) -> None:
    assert delete(bright_share, clips, -heat_of(clips), colour=GREY).score < -0.3
    flat = np.zeros((2, 2, 4, 4), np.float32)
    assert delete(bright_share, clips, flat, colour=GREY, num_random=30).score == pytest.approx(0, abs=0.1)


def test_the_spread_is_that_of_the_areas_over_views_and_random_orders(clips: Any) -> None:
    clips[1, :, 16:, :16] = 220  # twice as much is bright in the second view
    heat = heat_of(clips)
    both = delete(bright_share, clips, heat, colour=GREY, num_steps=4, num_random=1, seed=5)
    first = delete(bright_share, clips[:1], heat[:1], colour=GREY, num_steps=4, num_random=1, seed=5)
    second = 2 * both.score - first.score
    several = delete(bright_share, clips[:1], np.zeros_like(heat[:1]), colour=GREY, num_random=5)
    assert several.spread > 0.01  # five orders and not one five times
    assert both.spread == pytest.approx(abs(first.score - second) / 2**0.5)  # of two values, with n - 1
    assert first.spread == 0


def test_nothing_is_deleted_at_first_and_everything_at_last(clips: Any) -> None:
    seen = []

    def score(some: Any) -> Any:
        seen.append(some[0])
        return np.zeros(1)

    delete(score, clips[:1], heat_of(clips)[:1], colour=(1.4, 2, 3), num_steps=2, num_random=1)
    assert any((clip == clips[0]).all() for clip in seen)
    assert any((clip == (1, 2, 3)).all() for clip in seen)
    halves = [np.mean((clip == (1, 2, 3)).all(axis=-1)) for clip in seen]
    assert sorted(halves) == [0, 0.5, 0.5, 1]


@pytest.mark.parametrize(("steps", "random"), [(2, 1), (5, 2)])
def test_the_number_of_scorings_is_told_in_advance(steps: int, random: int, clips: Any) -> None:
    calls: list[int] = []

    def score(some: Any) -> Any:
        calls.append(len(some))
        return np.zeros(len(some))

    told: list[None] = []
    heat = heat_of(clips)
    delete(score, clips, heat, colour=GREY, num_steps=steps, num_random=random, on_scored=lambda: told.append(None))
    assert sum(calls) == len(told) == count_scorings(2, num_steps=steps, num_random=random)


def test_the_same_seed_gives_the_same_curves(clips: Any) -> None:
    first, second, other = (delete(bright_share, clips, heat_of(clips), colour=GREY, seed=seed) for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_what_is_deleted_has_the_colour_to_the_nearest_grey_level(clips: Any) -> None:
    seen = []

    def score(some: Any) -> Any:
        seen.append(np.array(some))
        return np.zeros(len(some))

    delete(score, clips, heat_of(clips), colour=(123.675, 116.28, 103.53), num_steps=2, num_random=1)
    pixels = {tuple(pixel) for each in seen for pixel in each.reshape(-1, 3).tolist()}
    assert (124, 116, 104) in pixels
    assert not pixels & {(123, 116, 103), (123, 116, 104), (124, 116, 103)}
