"""Sums over many from a few."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from preparation_plans import plan_of

from dualformer_cli.data.lists.folders import read_folder
from dualformer_cli.data.prepare import convert
from dualformer_cli.data.prepare.check import Finding
from dualformer_cli.data.prepare.estimate import estimate_conversions, sample, total

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


@pytest.mark.parametrize("kind", ["frames", "transcode"])
def test_a_few_frames_of_a_video_stand_for_all_of_them(
    kind: Any, clips: Any, here_pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "videos" / "a").mkdir(parents=True)
    (tmp_path / "videos" / "a" / "1.avi").symlink_to(clips.path("mjpeg.avi"))
    content, root = read_folder(str(tmp_path / "videos")), tmp_path / "out"
    plan = plan_of(content, root, convert=kind, quality=30, num_workers=2)
    job = plan.conversion(0, Finding(status="ok", num_frames=40, width=128, height=96))
    Path(job.target).parent.mkdir(parents=True)
    function = convert.extract_frames if kind == "frames" else convert.transcode
    whole = function(job).num_bytes
    monkeypatch.setattr(convert, "SAMPLE_FRAMES", 10)
    estimate = estimate_conversions(here_pool(), plan, {0: job}, 1)
    assert estimate.videos == 1
    assert estimate.bytes == pytest.approx(whole, rel=0.1 if kind == "frames" else 0.6)  # a file has a beginning, too
