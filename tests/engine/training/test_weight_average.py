"""The moving average of the weights."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dualformer_cli.engine.training.weight_average import WeightAverage


def linear(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1).double()
    nn.init.constant_(layer.weight, value)
    nn.init.constant_(layer.bias, -value)
    return layer


@given(values=st.lists(st.floats(-10, 10), min_size=1, max_size=12), decay=st.sampled_from([0.0, 0.5, 0.99, 0.99999]))
@settings(max_examples=40, deadline=None)
def test_the_average_is_the_normalised_sum_of_the_runs_own_weights(values: list[float], decay: float) -> None:
    model = linear(1000.0)
    average = WeightAverage(model, decay=decay)
    for value in values:
        nn.init.constant_(model.weight, value)
        average.update(model)
    parts = [decay ** (len(values) - 1 - k) for k in range(len(values))]
    expected = math.fsum(part * value for part, value in zip(parts, values, strict=True)) / math.fsum(parts)
    assert average.weights["weight"].item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_weights_that_do_not_change_stay_exactly_themselves_in_the_average() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    average = WeightAverage(model, decay=0.9)
    for _ in range(5):
        average.update(model)
    assert all(torch.equal(average.weights[name], value) for name, value in model.state_dict().items())


def test_norm_statistics_are_averaged_and_whole_numbers_copied() -> None:
    model = nn.BatchNorm3d(2)
    average = WeightAverage(model, decay=0.5)
    for count, mean in enumerate((3.0, 6.0), start=1):
        model.get_buffer("running_mean").fill_(mean)
        model.get_buffer("num_batches_tracked").fill_(count)
        average.update(model)
    assert average.weights["running_mean"].tolist() == pytest.approx([5.0, 5.0])
    assert average.weights["num_batches_tracked"] == 2


def test_the_model_has_the_average_inside_the_block_and_its_own_weights_after_an_error_too() -> None:
    model = linear(1.0)
    average = WeightAverage(model, decay=0.5)
    average.update(linear(4.0))

    def fail_inside() -> None:
        with average.applied(model):
            assert (model.weight.item(), model.bias.item()) == (4.0, -4.0)
            assert average.weights["weight"].item() == 4.0
            raise RuntimeError("validation failed")

    with pytest.raises(RuntimeError, match="validation failed"):
        fail_inside()
    assert (model.weight.item(), model.bias.item()) == (1.0, -1.0)
    assert average.weights["weight"].item() == 4.0


def test_a_saved_average_goes_on_bit_for_bit() -> None:
    unbroken = WeightAverage(linear(0.0), decay=0.9)
    for value in (0.1, 0.2, 0.3):
        unbroken.update(linear(value))
    first = WeightAverage(linear(0.0), decay=0.9)
    first.update(linear(0.1))
    second = WeightAverage(linear(7.0), decay=0.9)
    second.restore(copy.deepcopy(first.weights), first.num_updates)
    for value in (0.2, 0.3):
        second.update(linear(value))
    assert second.num_updates == unbroken.num_updates
    assert all(torch.equal(second.weights[name], value) for name, value in unbroken.weights.items())


def test_an_average_of_another_model_is_refused() -> None:
    average = WeightAverage(linear(0.0), decay=0.9)
    with pytest.raises(ValueError, match="another model: 'num_batches_tracked' is in only one of them"):
        average.restore(nn.BatchNorm1d(1).state_dict(), 1)
    with pytest.raises(ValueError, match=r"another model: 'weight' has shape \(1, 2\), not \(1, 1\)"):
        average.restore(nn.Linear(2, 1).state_dict(), 1)
    with pytest.raises(ValueError, match="decay must be at least 0 and below 1, got 1"):
        WeightAverage(linear(0.0), decay=1)
