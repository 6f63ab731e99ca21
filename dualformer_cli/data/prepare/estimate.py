"""What all of many videos need, reckoned from a few of them that are tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np


class Total(NamedTuple):
    """A sum over all."""

    value: float
    spread: float
    """How far off it may be, as a share of it: two standard errors. 0 where all were tried."""


def draw(weights: Sequence[float], count: int, *, order: Sequence[float]) -> dict[int, int]:
    """Draw some numbers, each in proportion to its weight, and evenly over an order in which neighbours are alike.

    Args:
        weights: positive; what is sought goes about with them.
        count: how many draws; all numbers are drawn once if there are no more.
        order: places of the numbers.

    Returns:
        How often each number was drawn: a heavy one may be several times.
    """
    if len(weights) <= count:
        return dict.fromkeys(range(len(weights)), 1)
    places = np.argsort(np.asarray(order, np.float64), kind="stable")
    ends = np.cumsum(np.asarray(weights, np.float64)[places])
    at = np.searchsorted(ends, (np.arange(count) + 0.5) / count * ends[-1])
    numbers, times = np.unique(places[np.minimum(at, len(places) - 1)], return_counts=True)
    return dict(zip(numbers.tolist(), times.tolist(), strict=True))


def total(values: Mapping[int, float], drawn: Mapping[int, int], weights: Sequence[float]) -> Total:
    """Reckon the sum of a value over all numbers.

    Args:
        values: of those that were drawn; one that could not be tried is missing, and the others stand for it.
        drawn: as `draw` returns it.
        weights: of all numbers.
    """
    whole = float(sum(weights))
    if not values:
        return Total(0.0, 0.0)
    if len(drawn) == len(weights):
        return Total(sum(values.values()) * whole / sum(weights[number] for number in values), 0.0)
    rates = np.repeat(
        [value / weights[number] for number, value in values.items()], [drawn[number] for number in values]
    )
    error = float(rates.std(ddof=1)) / len(rates) ** 0.5 if len(rates) > 1 else float(rates[0])
    mean = float(rates.mean())
    return Total(mean * whole, 2 * error / mean if mean else 0.0)
