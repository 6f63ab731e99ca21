"""From which score on a best label says something."""

from __future__ import annotations

import numpy as np
import pytest

from dualformer_cli.engine.scoring.unsure import least_score, sure_from, unsure_below
from dualformer_cli.engine.scoring.video_scores import merge_segments, top


@pytest.mark.parametrize(("classes", "percent"), [(2, 55), (5, 28), (10, 19), (400, 10.225), (1, 100)])
def test_a_label_is_sure_from_a_tenth_of_the_way_from_chance_on(classes: int, percent: float) -> None:
    assert 100 * sure_from(classes) == pytest.approx(percent)


def test_the_limit_stands_where_something_is_below_it() -> None:
    segments = merge_segments([0, 1], [1, 2], np.array([[0.9, 0.1], [0.45, 0.55]]), ["x", "y"])
    best = top(np.array([0.7, 0.3]), ["x", "y"], 2)
    assert unsure_below(best, None, 0.6) is None  # the second label is no matter
    assert unsure_below(best, None, 0.8) == 0.8
    assert unsure_below(best, segments, 0.6) == 0.6
    assert unsure_below(best, segments, 0.5) is None


def test_labels_that_do_not_exclude_each_other_have_no_limit_but_a_given_one() -> None:
    assert least_score(None, 2, multi_label=False) == pytest.approx(0.55)
    assert least_score(None, 2, multi_label=True) == 0
    assert least_score(0.0, 2, multi_label=False) == 0
    assert least_score(0.3, 2, multi_label=True) == 0.3
