"""Sums over many from a few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualformer_cli.data.prepare.estimate import sample, total

WEIGHTS = st.lists(st.floats(0.1, 1e9), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(WEIGHTS, st.integers(1, 20), st.data())
def test_what_goes_with_the_weights_is_reckoned_exactly(weights: list[float], count: int, data: st.DataObject) -> None:
    order = data.draw(st.lists(st.floats(0, 1), min_size=len(weights), max_size=len(weights)))
    sampled = sample(weights, count, order=order)
    assert set(sampled) <= set(range(len(weights)))
    assert sum(sampled.values()) == min(count, len(weights))
    found = total({number: 3 * weights[number] for number in sampled}, sampled, weights)
    assert found.value == pytest.approx(3 * sum(weights))
    if len(sampled) > 1:
        assert found.spread == pytest.approx(0, abs=1e-6)


def test_all_are_summed_up_where_they_are_few() -> None:
    sampled = sample([1, 9, 2], 3, order=[0, 0, 0])
    assert total({0: 5, 1: 6, 2: 7}, sampled, [1, 9, 2]) == (18, 0)
    assert total({0: 5, 1: 5}, sampled, [1, 9, 2]) == (12, 0)  # the third could not be tried
    assert total({}, sampled, [1, 9, 2]) == (0, 0)


def test_a_mixed_folder_is_reckoned_better_than_by_every_nth_video_and_the_error_is_told() -> None:
    rng = np.random.default_rng(0)
    ours, theirs, within = [], [], 0
    for _ in range(200):
        weights = rng.lognormal(0, 2, 300)  # many short clips and a few long ones
        rates = rng.lognormal(0, 1, 300)  # how much a pixel of each takes
        density = rates * rng.lognormal(0, 0.5, 300)  # and what it took in the source
        truth = float(weights @ rates)
        sampled = sample(weights.tolist(), 16, order=density.tolist())
        found = total({number: weights[number] * rates[number] for number in sampled}, sampled, weights.tolist())
        nth = np.arange(16) * 300 // 16
        ours.append(abs(np.log(found.value / truth)))
        theirs.append(abs(np.log(rates[nth].mean() * weights.sum() / truth)))
        within += abs(found.value - truth) <= found.spread * found.value
    assert np.median(ours) < 0.6 * np.median(theirs)
    assert np.exp(np.quantile(ours, 0.95)) < 1.5
    assert within > 180
