"""What every video is: from the journal where it is known, else found out by worker processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.data.prepare.check import CheckJob, Finding, check_video
from dualformer_cli.data.prepare.journal import Checked, stamp_of
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.data.prepare.work import Work
from dualformer_cli.system.workers import WorkerPool


def find_out(pool: WorkerPool, plan: Plan, videos: Sequence[int]) -> Iterator[tuple[int, Finding]]:
    """Yield videos, by number, with what they are."""
    jobs = (CheckJob(path=plan.sources[video], check=plan.check, parts=plan.parts.get(video, ())) for video in videos)
    outcomes = pool.imap(check_video, jobs, ahead=8 * plan.num_workers)
    for video, outcome in zip(videos, outcomes, strict=True):
        yield video, outcome.value if outcome.error is None else Finding(status=f"broken: {outcome.reason}")


def check_videos(work: Work, videos: Sequence[int]) -> dict[int, Finding]:
    """Return what some videos are; those that the journal does not know as they are now are checked."""
    plan = work.plan
    stamps = {video: stamp_of(plan.sources[video]) for video in videos}
    known: dict[int, Finding] = {}
    for video in videos:
        noted = work.journal.find(Checked, plan.content.videos[video].path)
        known_parts = {part for part, *_ in noted.finding.parts} if noted else set()
        has_parts = known_parts.issuperset(plan.parts.get(video, ())) or (noted and noted.finding.fps is None)
        if noted and noted.stamp == stamps[video] is not None and noted.check >= plan.check and has_parts:
            known[video] = noted.finding
    todo = [video for video in videos if video not in known]
    with work.watch("check" if plan.check else "look at", len(todo)) as advance:
        for video, finding in find_out(work.pool, plan, todo):
            known[video] = finding
            path = plan.content.videos[video].path
            if finding.num_frames or not finding.status.startswith("broken: decoder"):  # those are tried again
                work.journal.add(path, Checked(stamp=stamps[video], check=plan.check, finding=finding))
            advance(path)
    return {video: known[video] for video in videos}


def samples_of(plan: Plan, findings: Sequence[Finding]) -> list[Sample]:
    """Return each video, at its target, without its labels."""
    return [
        Sample(
            target,
            num_frames=finding.num_frames,
            fps=rounded(finding.fps),
            width=finding.width,
            height=finding.height,
            duration_seconds=rounded(finding.duration_seconds),
            status=finding.status,
        )
        for target, finding in zip(plan.targets, findings, strict=True)
    ]


def rounded(value: float | None) -> float | None:
    """Return a rate or a time as lists have it."""
    return None if value is None else round(value, 6)
