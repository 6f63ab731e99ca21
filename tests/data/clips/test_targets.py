"""Targets of training clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dualformer_cli.data.clips.targets import one_hot, swap_flipped_labels


def test_mirrored_clips_swap_the_classes_of_each_pair():
    labels = [(0,), (1,), (5,), (1, 5, 3), (0,)]
    flipped = np.array([True, True, True, True, False])
    assert swap_flipped_labels(labels, flipped, ((0, 1), (3, 4))) == [(1,), (0,), (5,), (0, 5, 4), (0,)]
    assert swap_flipped_labels(labels, flipped, ()) == labels


def test_targets_hold_each_label_and_spread_the_smoothing():
    torch.testing.assert_close(one_hot([(2,), (0,)], 4), torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0]]))
    smooth = one_hot([(2,)], 4, 0.2)
    torch.testing.assert_close(smooth, torch.tensor([[0.05, 0.05, 0.85, 0.05]]))
    torch.testing.assert_close(one_hot([(0, 3), ()], 4), torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0]]))
    assert one_hot([], 4).shape == (0, 4)


@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_that_is_no_class_is_named(label):
    with pytest.raises(ValueError, match=f"label {label} is not one of the 4 classes"):
        one_hot([(1,), (label,)], 4)
