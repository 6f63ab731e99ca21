"""Videos are converted by worker processes, but for those that an earlier run has converted."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.data.prepare.check import Finding
from dualformer_cli.data.prepare.convert import RECIPE, Conversion, Converted, extract_frames, transcode
from dualformer_cli.data.prepare.estimate import describe_estimate, estimate_conversions, require_space
from dualformer_cli.data.prepare.journal import Begun, Done, stamp_of
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.data.prepare.work import Work, make_folder
from dualformer_cli.documents.prepare import ConversionCounts
from dualformer_cli.errors import CannotWriteError, DualFormerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversions:
    """What became of some videos, by number."""

    done: dict[int, Converted] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    kept: int = 0
    """How many of them were done before."""

    def counts(self, helped: int) -> ConversionCounts:
        """Return what this run did, of which other processes of it did `helped`."""
        converted = len(self.done) - self.kept + helped
        return ConversionCounts(converted=converted, kept=self.kept - helped, failed=len(self.failed))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sorted:
    """What is converted already, and what is to do."""

    done: dict[int, Converted] = field(default_factory=dict)
    todo: list[int] = field(default_factory=list)
    outdated: list[int] = field(default_factory=list)
    """Those of `todo` that an earlier version has converted."""


def convert_videos(work: Work, findings: Mapping[int, Finding], *, times: int = 1) -> Conversions:
    """Convert what is not converted yet; before that, say what `times` as much will need.

    Raises:
        DualFormerError: if something else is where a result goes, or the disk is too small.
    """
    plan = work.plan
    settings = f"{plan.convert} short_side={plan.short_side} quality={plan.quality}"
    found = _sort(work, [video for video, finding in findings.items() if finding.is_decodable], settings)
    jobs = {video: plan.conversion(video, findings[video]) for video in found.todo}
    if work.say is not None:
        _announce(work, found, jobs, times)
    done, failed = dict(found.done), dict[int, str]()
    function, title = (transcode, "transcode") if plan.convert == "transcode" else (extract_frames, "extract frames")
    with work.watch(title, len(jobs)) as advance:
        outcomes = work.pool.imap(function, _begin(work, jobs, settings), ahead=4 * plan.num_workers)
        for video, outcome in zip(jobs, outcomes, strict=True):
            if outcome.error is None:
                done[video] = outcome.value
                stamp = stamp_of(plan.sources[video])
                step = Done(settings=settings, recipe=RECIPE, stamp=stamp, result=outcome.value)
                work.journal.add(plan.targets[video], step)
            elif isinstance(outcome.error, CannotWriteError):
                raise outcome.error  # it concerns the others too
            else:
                failed[video] = outcome.reason
            advance(plan.content.videos[video].path)
    return Conversions(done=done, failed=failed, kept=len(found.done))


def converted_samples(plan: Plan, samples: Sequence[Sample], conversions: Conversions) -> list[Sample]:
    """Return the rows of the results; a video without one stays where it is."""
    rows = []
    for video, sample in enumerate(samples):
        if result := conversions.done.get(video):
            rows.append(replace(sample, width=result.width, height=result.height, status="ok"))
            continue
        why = conversions.failed.get(video)
        status = sample.status if why is None else f"broken: cannot be converted: {why}"
        path = os.path.join(plan.source_prefix, plan.content.videos[video].path)
        rows.append(replace(sample, path=path, status=status))
    return rows


def _sort(work: Work, videos: Sequence[int], settings: str) -> _Sorted:
    """Return what is converted already, and what is to do.

    Raises:
        DualFormerError: if something else is where a result goes, unless it may be overwritten.
    """
    plan, found = work.plan, _Sorted()
    advice = "replace it with --overwrite, or name another folder with --root"
    for video in videos:
        target = plan.targets[video]
        path = os.path.join(plan.root, target)
        done, begun = work.journal.find(Done, target), work.journal.find(Begun, target)
        exists = os.path.lexists(path)
        if exists and done and done.settings == settings and done.stamp == stamp_of(plan.sources[video]):
            if done.recipe != RECIPE:
                found.outdated.append(video)
            elif plan.convert == "frames" or os.path.getsize(path) == done.result.num_bytes:
                found.done[video] = done.result
                continue
        if exists and not plan.overwrite:
            if begun is None:
                raise DualFormerError(f"{path!r} is there, and prepare did not write it; {advice}")
            if begun.settings != settings:
                raise DualFormerError(f"{path!r} was made with other settings ({begun.settings}); {advice}")
        found.todo.append(video)
    return found


def _announce(work: Work, found: _Sorted, jobs: Mapping[int, Conversion], times: int) -> None:
    """Say what is to do and what it will need.

    Raises:
        DualFormerError: if the disk is too small.
    """
    assert work.say is not None
    if found.outdated:
        what = "1 copy was" if len(found.outdated) == 1 else f"{len(found.outdated)} copies were"
        work.say(f"{what} made by an earlier version, which could spoil colours; made again now")
    if jobs:
        estimate = estimate_conversions(work.pool, work.plan, jobs, times)
        work.say(describe_estimate(work.plan, estimate, len(found.done) * times, times))
        require_space(work.plan, estimate)


def _begin(work: Work, jobs: Mapping[int, Conversion], settings: str) -> Iterator[Conversion]:
    """Yield the jobs; before each, note that what will be there is ours."""
    for video, job in jobs.items():
        make_folder(os.path.dirname(job.target))
        work.journal.add(work.plan.targets[video], Begun(settings=settings))
        yield job
