"""What the conversion of many videos needs, estimated from some frames of a few of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dualformer_cli.data.prepare.convert import Conversion, fitted_size, try_frames, try_transcode
from dualformer_cli.data.prepare.findings import find_out
from dualformer_cli.data.prepare.journal import size_of
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.documents.prepare import ConversionEstimate
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.disk import free_bytes, lack_of_room
from dualformer_cli.system.words import counted, duration_in_words, size_in_words
from dualformer_cli.system.workers import WorkerPool

_SAMPLED = 16
"""Videos of which some frames are converted."""
_SPARE = 1.05
"""Disk space that must be free, over the estimate."""


class Total(NamedTuple):
    """A sum over all."""

    value: float
    spread: float
    """How far off it may be, as a share of it: two standard errors. 0 where all were tried."""


def sample(weights: Sequence[float], count: int, *, order: Sequence[float]) -> dict[int, int]:
    """Sample some numbers, each in proportion to its weight, and evenly over an order in which neighbours are alike.

    Args:
        weights: positive; what is sought is about proportional to them.
        count: how many to sample; every number is in the sample once if there are no more.
        order: places of the numbers.

    Returns:
        How often each number is in the sample: a heavy one may be several times.
    """
    if len(weights) <= count:
        return dict.fromkeys(range(len(weights)), 1)
    places = np.argsort(np.asarray(order, np.float64), kind="stable")
    ends = np.cumsum(np.asarray(weights, np.float64)[places])
    at = np.searchsorted(ends, (np.arange(count) + 0.5) / count * ends[-1])
    numbers, times = np.unique(places[np.minimum(at, len(places) - 1)], return_counts=True)
    return dict(zip(numbers.tolist(), times.tolist(), strict=True))


def total(values: Mapping[int, float], sampled: Mapping[int, int], weights: Sequence[float]) -> Total:
    """Estimate the sum of a value over all numbers.

    Args:
        values: of those that were sampled; one that could not be tried is missing, and the others stand for it.
        sampled: as `sample` returns it.
        weights: of all numbers.
    """
    whole = float(sum(weights))
    if not values:
        return Total(0.0, 0.0)
    if len(sampled) == len(weights):
        return Total(sum(values.values()) * whole / sum(weights[number] for number in values), 0.0)
    rates = np.repeat(
        [value / weights[number] for number, value in values.items()], [sampled[number] for number in values]
    )
    error = float(rates.std(ddof=1)) / len(rates) ** 0.5 if len(rates) > 1 else float(rates[0])
    mean = float(rates.mean())
    return Total(mean * whole, 2 * error / mean if mean else 0.0)


def estimate_unseen(pool: WorkerPool, plan: Plan) -> ConversionEstimate:
    """Check a few videos, sampled by the size of their files, and estimate what the conversion of all will need.

    Raises:
        DualFormerError: if none of those can be read.
    """
    is_mixed = any(os.path.isdir(source) for source in plan.sources)  # the size of a folder says nothing
    weights = [1.0 if is_mixed else max(1.0, float(size_of(source))) for source in plan.sources]
    sampled = sample(weights, _SAMPLED, order=weights)
    found = find_out(pool, plan, list(sampled))
    jobs = {video: plan.conversion(video, finding) for video, finding in found if finding.is_decodable}
    if not jobs:
        raise DualFormerError(f"none of the {counted(len(sampled), 'video')} tried can be read")
    return _estimate(pool, plan, jobs, sampled, weights, times=1)


def estimate_conversions(
    pool: WorkerPool, plan: Plan, jobs: Mapping[int, Conversion], times: int
) -> ConversionEstimate:
    """Estimate what the conversion of videos that were checked will need, and as many `times`.

    They are sampled by the pixels that are written, with few and with many bytes for each pixel in the source.
    """
    numbered = list(jobs.values())
    weights = [float(max(1, job.num_frames) * _pixels_after(job)) for job in numbered]
    order = [size_of(job.source) / weight for job, weight in zip(numbered, weights, strict=True)]
    sampled = sample(weights, _SAMPLED, order=order)
    return _estimate(pool, plan, {number: numbered[number] for number in sampled}, sampled, weights, times=times)


def describe_estimate(plan: Plan, estimate: ConversionEstimate, kept: int, times: int) -> str:
    """Return what is to convert and what it will need, in words; `kept` are converted already."""
    kept_too = f", beside {kept} that are done" if kept else ""
    about = "about " if times > 1 else ""
    give_or_take = f" (give or take {estimate.give_or_take:.0%})" if estimate.give_or_take else ""
    what = "to transcode" if plan.convert == "transcode" else "whose frames to extract"
    return (
        f"{about}{counted(estimate.videos, 'video')} {what}{kept_too}: "
        f"about {size_in_words(estimate.bytes)}{give_or_take}, "
        f"about {duration_in_words(estimate.seconds)} on {counted(plan.num_workers * times, 'core')}; "
        f"{size_in_words(estimate.free_bytes)} free"
    )


def require_space(plan: Plan, estimate: ConversionEstimate) -> None:
    """Refuse a conversion for which the disk is too small.

    Raises:
        DualFormerError: naming what is needed and what is free.
    """
    if lack := lack_of_room(plan.root, estimate.bytes * _SPARE):
        raise DualFormerError(
            f"{lack}; free some space, name another folder with --root, or choose a smaller --short-side"
        )


def _estimate(
    pool: WorkerPool,
    plan: Plan,
    jobs: Mapping[int, Conversion],
    sampled: Mapping[int, int],
    weights: Sequence[float],
    *,
    times: int,
) -> ConversionEstimate:
    """Convert some frames of those that were sampled, and estimate what `times` as many as all will need."""
    function = try_transcode if plan.convert == "transcode" else try_frames
    num_bytes: dict[int, float] = {}
    seconds: dict[int, float] = {}
    outcomes = pool.imap(function, jobs.values(), ahead=2 * plan.num_workers)
    for number, outcome in zip(jobs, outcomes, strict=True):
        if outcome.error is None:
            share = outcome.item.num_frames / max(1, outcome.value.num_frames)
            num_bytes[number], seconds[number] = outcome.value.num_bytes * share, outcome.value.seconds * share
    size = total(num_bytes, sampled, weights)
    return ConversionEstimate(
        videos=len(weights) * times,
        bytes=round(size.value) * times,
        give_or_take=round(size.spread, 2),
        seconds=total(seconds, sampled, weights).value * times / (plan.num_workers * times),
        free_bytes=free_bytes(plan.root),
    )


def _pixels_after(job: Conversion) -> int:
    width, height = fitted_size(job.width, job.height, job.short_side, even=True)
    return width * height
