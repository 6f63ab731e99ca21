"""What a preparation found, in numbers, and prepare.json: the summary that a later run is held against."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np

from dualformer_cli.data.lists.column_names import SPLITS
from dualformer_cli.data.lists.samples import USABLE, Sample
from dualformer_cli.data.prepare.check import Finding
from dualformer_cli.data.prepare.journal import size_of, stamp_of
from dualformer_cli.data.prepare.look_alikes import find_look_alikes
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.data.prepare.same_bytes import describe_same
from dualformer_cli.data.prepare.written_lists import WrittenLists, hash_of, list_names, write_files
from dualformer_cli.documents.base import JsonObject, to_json
from dualformer_cli.documents.prepare import (
    BrokenVideo,
    FoundVideos,
    ListCounts,
    LookAlikePair,
    LookAlikes,
    PreparationSummary,
    Spread,
    Statistics,
    VideoNote,
)
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.words import some_of

SUMMARY = "prepare.json"

_FEW = 5
"""Examples named of each kind of thing that was found."""
_MOST_PAIRS = 200
"""Pairs of look-alikes that the summary names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """What prepare.json says of the run that wrote it; empty without one."""

    arguments: JsonObject = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    """Name of each list, and its SHA-256."""
    fingerprint: str = ""


def describe(plan: Plan) -> FoundVideos:
    """Return what was found in the folder and where it goes."""
    content = plan.content
    splits = {}
    for listed in plan.lists:
        counts = Counter(label for row in listed.rows for label in row.labels)
        if listed.rows:
            per_class = tuple(counts[label] for label in range(len(listed.class_names)))
            splits[listed.name] = ListCounts(videos=len(listed.rows), per_class=per_class)
    return FoundVideos(
        folder=content.folder,
        root=plan.root,
        arguments=plan.arguments,
        layout=content.layout,
        videos=len(content.videos),
        classes=tuple(content.class_names),
        is_multi_label=content.is_multi_label,
        splits=splits,
        skipped=content.skipped,
        messages=(*content.notes, *_gaps(plan, splits)),
        dataset=content.dataset,
    )


def fingerprint_of(plan: Plan) -> str:
    """Return the SHA-256 over the videos as they are listed and as they lie on disk."""
    digest = hashlib.sha256()
    for video, source in zip(plan.content.videos, plan.sources, strict=True):
        row = json.dumps(
            [video.path, video.labels, video.split, video.group, stamp_of(source), *map(astuple, video.parts)]
        )
        digest.update(row.encode())
    digest.update(json.dumps(plan.content.class_names).encode())
    for listed in plan.content.lists:
        rows = [[row.video, row.labels, row.part[2:] if row.part.is_timed else None] for row in listed.rows]
        digest.update(json.dumps([listed.name, listed.class_names, rows]).encode())
    return digest.hexdigest()


def check_earlier_run(plan: Plan, fingerprint: str) -> EarlierRun:
    """Return what an earlier run has written, if it may be replaced.

    Raises:
        DualFormerError: if lists are there that another run than this one would write, unless it may overwrite them.
    """
    earlier = _read_earlier_run(plan.root)
    names = [name for name in (SUMMARY, *list_names(plan)) if os.path.lexists(os.path.join(plan.root, name))]
    if plan.overwrite or not names:
        return earlier or EarlierRun()
    advice = "replace them with --overwrite, or name another folder with --root"
    if earlier is None:
        raise DualFormerError(f"{plan.root!r} holds {names[0]!r}, which prepare did not write; {advice}")
    arguments = to_json(plan.arguments)
    for key, now in arguments.items():
        if (was := earlier.arguments.get(key)) != now:
            raise DualFormerError(
                f"{plan.root!r} holds lists made with other options ({key} was {was!r}, now {now!r}); {advice}"
            )
    if earlier.fingerprint != fingerprint:
        raise DualFormerError(f"the videos or labels have changed since the lists in {plan.root!r} were made; {advice}")
    for name in names:
        if name != SUMMARY and hash_of(os.path.join(plan.root, name)) != earlier.files.get(name):
            raise DualFormerError(f"{name!r} in {plan.root!r} has been changed since prepare wrote it; {advice}")
    return earlier


def summarize(
    plan: Plan,
    found: FoundVideos,
    findings: Sequence[Finding],
    samples: Sequence[Sample],
    lists: WrittenLists,
    fingerprint: str,
) -> PreparationSummary:
    """Return what prepare.json says.

    Args:
        plan: what was done.
        found: as `describe` returns it.
        findings: what each video is.
        samples: each video as it is listed.
        lists: what is written.
        fingerprint: as `fingerprint_of` returned it before the work.
    """
    videos = plan.content.videos
    usable = [number for number, sample in enumerate(samples) if sample.status in USABLE]
    statuses = Counter("broken" if sample.status not in USABLE else sample.status for sample in samples)
    return PreparationSummary(
        found=replace(found, splits=lists.splits),
        status={name: statuses[name] for name in ("ok", "sequential_only", "broken")},
        broken=tuple(
            BrokenVideo(path=video.path, status=sample.status)
            for video, sample in zip(videos, samples, strict=True)
            if sample.status not in USABLE
        ),
        notes=_notes(plan, findings),
        statistics=_statistics([findings[number] for number in usable], [plan.sources[number] for number in usable]),
        look_alikes=_look_alikes(plan, findings),
        same_bytes=describe_same(plan.sources, [video.labels for video in videos], [video.path for video in videos]),
        fingerprint=fingerprint,
        files=lists.hashes,
    )


def write_lists(plan: Plan, lists: WrittenLists, summary: PreparationSummary, earlier: EarlierRun) -> None:
    """Write all lists and the summary; what the earlier run wrote and this one does not is deleted."""
    # The summary first: after a sudden end it tells the next run that the lists are ours.
    text = json.dumps(to_json(summary), indent=1) + "\n"
    write_files(plan.root, {SUMMARY: text.encode(), **lists.files})
    for name, digest in earlier.files.items():
        path = os.path.normpath(os.path.join(plan.root, name))
        is_inside = path.startswith(os.path.join(os.path.normpath(plan.root), ""))
        if name not in lists.files and is_inside and hash_of(path) == digest:
            os.unlink(path)


def _read_earlier_run(root: str) -> EarlierRun | None:
    try:
        with open(os.path.join(root, SUMMARY), encoding="utf-8") as file:
            before = json.load(file)
        return EarlierRun(
            arguments=dict(before["arguments"]), files=dict(before["files"]), fingerprint=str(before.get("fingerprint"))
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _gaps(plan: Plan, splits: Mapping[str, ListCounts]) -> list[str]:
    """Return sentences that name classes without videos in a split, and splits without videos."""
    messages = []
    for listed in plan.lists:
        counts = splits[listed.name].per_class if listed.rows else ()
        empty = [label for label, count in zip(listed.class_names, counts, strict=False) if not count]
        if empty and len(empty) < len(listed.class_names):
            messages.append(f"no video in {listed.name}: {some_of(list(map(repr, empty)), _FEW)}")
    asked = [] if plan.content.videos[0].split else [SPLITS[n] for n, share in enumerate(plan.shares) if share]
    missing = [name for name in asked if name not in splits]
    if missing:
        lists = " or ".join(f"{name}.csv" for name in missing)
        messages.append(f"too few videos for {' and '.join(missing)}: there is no {lists}; add videos, or do without")
    return messages


def _notes(plan: Plan, findings: Sequence[Finding]) -> tuple[VideoNote, ...]:
    paths: dict[str, list[str]] = {}
    for video, finding in zip(plan.content.videos, findings, strict=True):
        for note in finding.notes:
            paths.setdefault(note, []).append(video.path)
    return tuple(VideoNote(note=note, videos=len(own), examples=tuple(own[:_FEW])) for note, own in paths.items())


def _look_alikes(plan: Plan, findings: Sequence[Finding]) -> LookAlikes:
    """Return the pairs of videos in different splits that look alike."""
    pairs = find_look_alikes([finding.hashes for finding in findings], plan.splits)
    videos = plan.content.videos
    examples = [
        LookAlikePair(
            first=videos[pair.first].path,
            first_split=SPLITS[plan.splits[pair.first]],
            second=videos[pair.second].path,
            second_split=SPLITS[plan.splits[pair.second]],
            bits=pair.bits,
        )
        for pair in pairs[:_MOST_PAIRS]
    ]
    return LookAlikes(pairs=len(pairs), examples=tuple(examples))


def _statistics(findings: Sequence[Finding], sources: Sequence[str]) -> Statistics:
    """Return what the videos are as they lie in the folder."""
    sizes = Counter(f"{finding.width}x{finding.height}" for finding in findings)
    rates = Counter("unknown" if finding.fps is None else f"{finding.fps:.4g}" for finding in findings)
    codecs = Counter(str(finding.codec) for finding in findings)
    return Statistics(
        videos=len(findings),
        bytes=sum(map(size_of, sources)),
        num_frames=_spread([finding.num_frames for finding in findings]),
        duration_seconds=_spread([finding.duration_seconds for finding in findings]),
        sizes=dict(sizes.most_common()),
        fps=dict(rates.most_common()),
        codecs=dict(codecs.most_common()),
    )


def _spread(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return Spread(
        total=round(float(sum(known)), 3), min=float(min(known)), median=float(np.median(known)), max=float(max(known))
    )
