"""Labelled videos become manifests: checked, split, converted if asked, and written with all that was found.

Worker processes do the work that a file could spoil. Every finished piece is in the journal, so that a run that was
stopped goes on where it was; what the folder holds at the end is the same either way.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dualformer_cli.data.lists.folders import STATE_FILE
from dualformer_cli.data.lists.samples import USABLE
from dualformer_cli.data.lists.splits import join_groups
from dualformer_cli.data.prepare.check import Finding
from dualformer_cli.data.prepare.conversions import convert_videos, converted_samples
from dualformer_cli.data.prepare.estimate import estimate_unseen
from dualformer_cli.data.prepare.findings import check_videos, samples_of
from dualformer_cli.data.prepare.journal import Journal, open_journal, remove_left_overs
from dualformer_cli.data.prepare.look_alikes import find_look_alikes
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.data.prepare.summary import (
    SUMMARY,
    EarlierRun,
    check_earlier_run,
    describe,
    fingerprint_of,
    summarize,
    write_lists,
)
from dualformer_cli.data.prepare.work import Watch, Work, make_folder, unwatched
from dualformer_cli.data.prepare.written_lists import check_formats, list_names, lists_of
from dualformer_cli.documents.prepare import ConversionCounts, FoundVideos, Preparation, PreparationPlan
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.output_checks import check_outputs
from dualformer_cli.system.words import counted
from dualformer_cli.system.workers import WorkerPool

_PRELOADED = ("dualformer_cli.data.prepare.check", "dualformer_cli.data.prepare.convert", "av")


def _alone() -> None:
    """Wait for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Team:
    """Processes that prepare the same folder together, on one machine or on several that share a disk."""

    rank: int = 0
    """Number of this one; 0 writes the lists."""
    size: int = 1
    wait: Callable[[], object] = _alone
    """Returns when every process has called it."""

    def share(self, count: int) -> range:
        """Return the numbers of the videos that this process works on."""
        return range(self.rank, count, self.size)

    def journal(self, root: str) -> str:
        """Return the file in which this process notes what it has done."""
        stem, suffix = os.path.splitext(STATE_FILE)
        return os.path.join(root, f"{stem}.{self.rank}{suffix}" if self.rank else STATE_FILE)


def preview(plan: Plan) -> PreparationPlan:
    """Return what `prepare` would do, and write nothing. Some videos are tried if a conversion is asked for.

    Raises:
        DualFormerError: if the older list formats cannot hold the videos, or none of those tried can be read.
    """
    check_formats(plan)
    found = describe(plan)
    if plan.group_look_alikes:
        message = "videos that look alike are not known before all are looked at; splits will differ"
        found = replace(found, messages=(*found.messages, message))
    if plan.convert is None:
        return PreparationPlan(found=found)
    with _pool(plan) as pool:
        return PreparationPlan(found=found, estimate=estimate_unseen(pool, plan))


def prepare(
    plan: Plan,
    *,
    watch: Watch,
    say: Callable[[str], None],
    start: Callable[[FoundVideos], None],
    team: Team | None = None,
) -> Preparation:
    """Write the manifests of a folder, going on where an earlier run was stopped.

    Of a team, `help_prepare` is for all but process 0, which comes here: each checks its share of the videos and
    converts them, and this one does at the end what is left, such as another try of what failed.

    Args:
        plan: what to do.
        watch: shows progress.
        say: shows a line.
        start: called before the work begins, with what is in the folder.
        team: who works with this process; None for nobody.

    Returns:
        The summary that is also written as prepare.json, and what this run did.

    Raises:
        DualFormerError: if there is something else where files are to be written, if no video can be read, or if the
            disk is too small.
    """
    team = team or Team()
    _check_folder(plan)
    check_formats(plan)
    found = describe(plan)
    start(replace(found, messages=tuple(plan.content.notes)) if plan.group_look_alikes else found)
    fingerprint = fingerprint_of(plan)
    if not os.path.lexists(team.journal(plan.root)):
        _check_lists(plan, fingerprint)  # before there is a journal: a folder of others stays as it is
    make_folder(plan.root)
    with open_journal(team.journal(plan.root)) as journal:
        remove_left_overs(plan.root)
        _take_over_journals(journal, plan.root)  # of a team that was stopped
        earlier = _check_lists(plan, fingerprint)
        with _pool(plan) as pool:
            work = Work(plan=plan, pool=pool, journal=journal, watch=watch, say=say)
            helped = _lead(work, team) if team.size > 1 else 0
            findings = _check_all(work)
            if plan.group_look_alikes:
                num_notes = len(plan.content.notes)
                plan = _with_look_alikes_grouped(plan, findings)
                found = describe(plan)
                for message in found.messages[num_notes:]:
                    say(f"note: {message}")
            samples, run = samples_of(plan, findings), ConversionCounts()
            if plan.convert is not None:
                conversions = convert_videos(replace(work, plan=plan), dict(enumerate(findings)))
                samples, run = converted_samples(plan, samples, conversions), conversions.counts(helped)
        lists = lists_of(plan, samples, findings, found.splits)
        summary = summarize(plan, found, findings, samples, lists, fingerprint)
        write_lists(plan, lists, summary, earlier)
        remove_left_overs(plan.root)  # of a worker that outlived its killed run for a moment
    return Preparation(summary=summary, run=run)


def help_prepare(plan: Plan, *, team: Team) -> None:
    """Do the share of a process that is not the first of its team; see `prepare`."""
    team.wait()  # until the first has checked what is there
    with open_journal(team.journal(plan.root)) as journal, _pool(plan) as pool:
        journal.know(os.path.join(plan.root, STATE_FILE))
        _do_share(Work(plan=plan, pool=pool, journal=journal, watch=unwatched, say=None), team)
    team.wait()


def _lead(work: Work, team: Team) -> int:
    """Do the first one's share, and return how many videos the team has converted when all have done theirs."""
    team.wait()
    converted = _do_share(work, team)
    team.wait()
    return converted + _take_over_journals(work.journal, work.plan.root)


def _do_share(work: Work, team: Team) -> int:
    """Check a part of the videos and convert them; return how many were converted."""
    findings = check_videos(work, team.share(len(work.plan.sources)))
    if work.plan.convert is None:
        return 0
    conversions = convert_videos(work, findings, times=team.size)
    return len(conversions.done) - conversions.kept


def _check_all(work: Work) -> list[Finding]:
    """Return what each video is.

    Raises:
        DualFormerError: if none can be read.
    """
    findings = list(check_videos(work, range(len(work.plan.sources))).values())
    if not any(finding.status in USABLE or finding.is_decodable for finding in findings):
        raise DualFormerError(
            f"none of the {counted(len(findings), 'video')} can be read; the first, {work.plan.sources[0]!r}: "
            f"{findings[0].status.removeprefix('broken: ')}"
        )
    return findings


def _take_over_journals(journal: Journal, root: str) -> int:
    """Take over what the others of a team have noted, and return how many videos they have converted."""
    stem, suffix = os.path.splitext(STATE_FILE)
    pattern = os.path.join(glob.escape(root), f"{stem}.[0-9]*{suffix}")
    return sum(map(journal.take_over, sorted(glob.glob(pattern))))


def _check_folder(plan: Plan) -> None:
    """Refuse to write where the videos are.

    Raises:
        DualFormerError: if lists or converted videos would go into the folder of the videos.
    """
    for folder in (plan.root, os.path.join(plan.root, plan.target_folder)):
        if os.path.realpath(folder) == os.path.realpath(plan.content.folder):
            raise DualFormerError(f"the videos are in {folder!r}: name another folder to write into with --root")


def _check_lists(plan: Plan, fingerprint: str) -> EarlierRun:
    """Return what an earlier run has written, if it may be replaced and the lists can be written in the end.

    Raises:
        DualFormerError: if others wrote the lists that are there, or one is a folder or a device.
    """
    earlier = check_earlier_run(plan, fingerprint)
    paths = [Path(plan.root, name) for name in (SUMMARY, *list_names(plan))]
    check_outputs([path for path in paths if path.parent.exists()], [], overwrite=True)
    return earlier


def _with_look_alikes_grouped(plan: Plan, findings: Sequence[Finding]) -> Plan:
    """Return the plan with videos that look alike in one group, and a note that says how many they are."""
    content = plan.content
    pairs = [pair[:2] for pair in find_look_alikes([finding.hashes for finding in findings])]
    if not pairs:
        return plan
    groups = join_groups([video.group for video in content.videos], pairs)
    videos = [replace(video, group=group) for video, group in zip(content.videos, groups, strict=True)]
    joined = {groups[first] for first, _ in pairs}
    largest = max(count for group, count in Counter(groups).items() if group in joined)
    alike = len({video for pair in pairs for video in pair})  # never 1
    note = f"{alike} videos look like another one and stay with it: {counted(len(joined), 'group')}, the largest of "
    note += counted(largest, "video")
    return replace(plan, content=replace(content, videos=videos, notes=[*content.notes, note]))


def _pool(plan: Plan) -> WorkerPool:
    return WorkerPool(plan.num_workers, plan.timeout_seconds, preload=_PRELOADED)
