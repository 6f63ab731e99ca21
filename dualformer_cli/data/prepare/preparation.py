"""Labelled videos become manifests: looked at, split, converted if asked, and written with all that was found.

Worker processes do the work that a file could spoil. Every finished piece is in the journal, so that a run that was
stopped is taken up where it was; what the folder ends with is the same either way.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from dualformer_cli.config.schema import ListFormat
from dualformer_cli.data.lists.folders import SPLITS, STATE_FILE, Row, VideoFolder, VideoList
from dualformer_cli.data.lists.manifest import Manifest, check_class_names, list_text, manifest_text
from dualformer_cli.data.lists.older_formats import format_json
from dualformer_cli.data.lists.samples import USABLE, Sample
from dualformer_cli.data.lists.splits import join_groups, split_videos
from dualformer_cli.data.prepare.check import Finding, Look, look
from dualformer_cli.data.prepare.convert import (
    RECIPE,
    Conversion,
    Converted,
    estimate_frames,
    estimate_transcode,
    extract_frames,
    fitted_size,
    transcode,
)
from dualformer_cli.data.prepare.estimate import draw, total
from dualformer_cli.data.prepare.journal import Journal, open_journal, remove_left_overs, stamp
from dualformer_cli.data.prepare.look_alikes import find_look_alikes
from dualformer_cli.data.prepare.same_bytes import describe_same
from dualformer_cli.errors import CannotWriteError, DualFormerError
from dualformer_cli.system.disk import free_bytes, lack_of_room
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import os_reason, size_in_words, some_of
from dualformer_cli.system.workers import WorkerPool

Convert = Literal["transcode", "frames"]

SUMMARY = "prepare.json"
LIST_NAMES: Mapping[ListFormat, str] = {
    "video": "_videos.txt",
    "rawframe": "_rawframes.txt",
    "rawframe_offset": "_rawframes_offset.txt",
    "multilabel_video": "_videos_multilabel.txt",
    "multilabel_rawframe": "_rawframes_multilabel.txt",
    "json": ".json",
}
"""End of the file name of each older list format, after `VideoList.old_name`."""

_FOLDERS: Mapping[Convert, str] = {"transcode": "videos", "frames": "frames"}
_SAMPLED = 16
"""Videos of which a conversion tries some frames, to tell its size and time."""
_FEW = 5
"""Examples named of each kind of thing that was found."""
_MOST_PAIRS = 200
"""Pairs of look-alikes that the summary names."""
_LONGEST_NAME = 255
"""Bytes that the name of a file can have."""
_SPARE = 1.05
"""Disk space that must be free, over the estimate."""


class Progress(Protocol):
    """Told of every finished piece."""

    def advance(self, steps: int = 1, *, note: str | None = None) -> None: ...


Watch = Callable[[str, int], AbstractContextManager[Progress]]
"""Takes what is done and the number of its pieces."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to become of the videos of a folder."""

    content: VideoFolder
    root: str
    """Folder that is written."""
    shares: tuple[float, ...]
    """Of train, val and maybe test, for videos that nothing puts into a split."""
    seed: int = 0
    group_look_alikes: bool = False
    """Whether videos that look alike stay in one split."""
    check: bool = False
    convert: Convert | None = None
    short_side: int = 256
    quality: int = 23
    """As `Conversion` has it."""
    formats: tuple[ListFormat, ...] = ()
    """Older list formats to write beside the manifests."""
    overwrite: bool = False
    num_workers: int = 1
    timeout_seconds: float = 20.0

    @property
    def arguments(self) -> dict[str, Any]:
        """All that decides what is written, beside the videos."""
        convert = {"convert": self.convert, "short_side": self.short_side, "quality": self.quality}
        return {
            "layout": self.content.layout,
            "split": list(self.shares),
            "seed": self.seed,
            "group_look_alikes": self.group_look_alikes,
            "check": self.check,
            "formats": list(self.formats),
            **(convert if self.convert else {"convert": None}),
        }

    @cached_property
    def splits(self) -> list[int]:
        """Number of each video's split, in SPLITS."""
        videos = self.content.videos
        if all(video.split is not None for video in videos):
            return [SPLITS.index(video.split or "") for video in videos]
        return split_videos(
            [video.labels for video in videos], [video.group for video in videos], self.shares, seed=self.seed
        )

    @cached_property
    def lists(self) -> list[VideoList]:
        """The lists to write; those without rows are not written."""
        if self.content.lists:
            return self.content.lists
        numbers = {name: number for number, name in enumerate(self.content.class_names)}
        rows: list[list[Row]] = [[] for _ in SPLITS]
        for number, (video, split) in enumerate(zip(self.content.videos, self.splits, strict=True)):
            rows[split].append(Row(number, tuple(numbers[label] for label in video.labels)))
        return [
            VideoList(
                name=name,
                old_name=f"{name}_list",
                class_names=self.content.class_names,
                is_multi_label=self.content.is_multi_label,
                rows=own,
            )
            for name, own in zip(SPLITS, rows, strict=True)
        ]

    @cached_property
    def sources(self) -> list[str]:
        """Path of each video."""
        return [os.path.join(self.content.folder, video.path) for video in self.content.videos]

    @cached_property
    def targets(self) -> list[str]:
        """Where each video is after the conversion, relative to `root`."""
        paths = [video.path for video in self.content.videos]
        if self.convert is None:
            prefix = os.path.relpath(os.path.realpath(self.content.folder), os.path.realpath(self.root))
            return [os.path.join(prefix, path) for path in paths]
        suffix = ".mp4" if self.convert == "transcode" else ""
        return [os.path.join(_FOLDERS[self.convert], name) for name in target_names(paths, suffix)]


def _alone() -> None:
    """Wait for nobody."""


@dataclass(frozen=True, kw_only=True)
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


def target_names(paths: Sequence[str], suffix: str) -> list[str]:
    """Name the result of each video: its suffix is replaced, or kept where two would come to the same name.

    Raises:
        DualFormerError: if two videos have the same result in spite of that, or its name is too long for a file.
    """
    stems = [os.path.splitext(path)[0] for path in paths]
    counts = Counter(stems)
    names = [
        (path if counts[stem] > 1 and stem != path else stem) + suffix for path, stem in zip(paths, stems, strict=True)
    ]
    for name, count in Counter(names).items():
        if count > 1:
            first, second = [path for path, own in zip(paths, names, strict=True) if own == name][:2]
            raise DualFormerError(f"{first!r} and {second!r} would both become {name!r}; rename one of them")
    for path, name in zip(paths, names, strict=True):
        if (length := len(os.fsencode(os.path.basename(name)))) > _LONGEST_NAME:
            raise DualFormerError(
                f"{path!r} would become {name!r}, a name of {length} bytes, and {_LONGEST_NAME} are possible; rename it"
            )
    return names


def preview(plan: Plan) -> dict[str, Any]:
    """Say what `prepare` would do, and write nothing. Some videos are tried if a conversion is asked for."""
    _check_lists(plan)
    document = _describe(plan)
    if plan.group_look_alikes:
        document["messages"].append("videos that look alike are not known before all are looked at; splits will differ")
    if plan.convert is not None:
        with _pool(plan) as pool:
            document["estimate"] = _estimate_unseen(pool, plan)
    return document


def prepare(
    plan: Plan,
    *,
    watch: Watch,
    say: Callable[[str], None],
    start: Callable[[dict[str, Any]], None],
    team: Team | None = None,
) -> dict[str, Any]:
    """Write the manifests of a folder, going on where an earlier run was stopped.

    Of a team, `help_prepare` is for all but process 0, which comes here: each looks at its share of the videos and
    converts them, and this one does at the end what is left, such as another try of what failed.

    Args:
        plan: what to do.
        watch: shows progress.
        say: shows a line.
        start: told, before the work begins, what is in the folder, as `preview` returns it.
        team: who works with this process; None for nobody.

    Returns:
        The summary that is also written as prepare.json, and under "run" what this run did.

    Raises:
        DualFormerError: if there is something else where files are to be written, if no video can be read, or if the
            disk is too small.
    """
    if os.path.realpath(plan.root) == os.path.realpath(plan.content.folder):
        raise DualFormerError(f"the videos are in {plan.root!r}: name another folder to write into with --root")
    team = team or Team()
    _check_lists(plan)
    described = _describe(plan)
    start({**described, "messages": plan.content.notes} if plan.group_look_alikes else described)
    _make_folder(plan.root)
    with open_journal(team.journal(plan.root)) as journal:
        remove_left_overs(plan.root)
        _adopt(journal, plan.root)  # of a team that was stopped
        fingerprint = _fingerprint(plan)
        before = _earlier_summary(plan, fingerprint)
        with _pool(plan) as pool:
            helped = _lead(pool, plan, journal, team, watch, say) if team.size > 1 else 0
            findings = list(_look_at_all(pool, plan, journal, watch, range(len(plan.sources))).values())
            if not any(finding.status in USABLE or finding.is_decodable for finding in findings):
                raise DualFormerError(
                    f"none of the {len(findings)} videos can be read; the first, {plan.sources[0]!r}: "
                    f"{findings[0].status.removeprefix('broken: ')}"
                )
            if plan.group_look_alikes:
                num_told = len(plan.content.notes)
                plan = _with_look_alikes_grouped(plan, findings)
                described = _describe(plan)
                for message in described["messages"][num_told:]:
                    say(f"note: {message}")
            samples = _listed(plan, findings)
            run: dict[str, Any] = {}
            if plan.convert is not None:
                result = _convert_all(pool, plan, journal, dict(enumerate(findings)), watch, say)
                samples, run = _converted(plan, samples, result), result.counts(helped)
        summary = {**described, **_found(plan, findings, samples), "fingerprint": fingerprint}
        _write(plan, samples, summary, before)
    return {**summary, "run": run}


def help_prepare(plan: Plan, *, team: Team) -> None:
    """Do the share of a process that is not the first of its team; see `prepare`."""
    team.wait()  # until the first has looked at what is there
    with open_journal(team.journal(plan.root)) as journal, _pool(plan) as pool:
        journal.know(os.path.join(plan.root, STATE_FILE))
        _do_share(pool, plan, journal, team, _unwatched, None)
    team.wait()


def _lead(pool: WorkerPool, plan: Plan, journal: Journal, team: Team, watch: Watch, say: Callable[[str], None]) -> int:
    """Do the first one's share, and return how many videos the team has converted when all have done theirs."""
    team.wait()
    converted = _do_share(pool, plan, journal, team, watch, say)
    team.wait()
    return converted + _adopt(journal, plan.root)


def _do_share(
    pool: WorkerPool, plan: Plan, journal: Journal, team: Team, watch: Watch, say: Callable[[str], None] | None
) -> int:
    """Look at a part of the videos and convert them; return how many were converted."""
    findings = _look_at_all(pool, plan, journal, watch, team.share(len(plan.sources)))
    if plan.convert is None:
        return 0
    result = _convert_all(pool, plan, journal, findings, watch, say, times=team.size)
    return len(result.done) - result.kept


def _adopt(journal: Journal, root: str) -> int:
    """Take over what the others of a team have noted, and return how many videos they have converted."""
    stem, suffix = os.path.splitext(STATE_FILE)
    pattern = os.path.join(glob.escape(root), f"{stem}.[0-9]*{suffix}")
    return sum(journal.adopt(path, "done") for path in sorted(glob.glob(pattern)))


@contextmanager
def _unwatched(_title: str, _total: int) -> Iterator[Progress]:
    yield _Unseen()


class _Unseen:
    def advance(self, steps: int = 1, *, note: str | None = None) -> None:
        """Tell nobody."""


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
    note = (
        f"{len({video for pair in pairs for video in pair})} videos look like another one and stay with it: "
        f"{len(joined)} group{'s' if len(joined) > 1 else ''}, the largest of {largest} videos"
    )
    return replace(plan, content=replace(content, videos=videos, notes=[*content.notes, note]))


def _pool(plan: Plan) -> WorkerPool:
    return WorkerPool(plan.num_workers, plan.timeout_seconds, preload=[__name__, "av"])


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        reason = os_reason(error)
        raise DualFormerError(f"cannot make the folder {path!r}: {reason}; name another one with --root") from None


def _check_lists(plan: Plan) -> None:
    """Refuse, before any work is done, names that the older list formats cannot hold."""
    has_folders = {plan.convert == "frames" or (not plan.convert and os.path.isdir(source)) for source in plan.sources}
    if plan.formats and len(has_folders) > 1:
        raise DualFormerError("--formats cannot list files and folders of frames together; add --transcode or --frames")
    for list_format in plan.formats:
        if list_format != "json" and ("rawframe" in list_format) not in has_folders:
            problem = "needs folders of frames: add --frames" if "rawframe" in list_format else "needs video files"
            raise DualFormerError(f"--formats {list_format} {problem}")
    if plan.formats:
        samples = _listed(plan, [Finding(status="ok", num_frames=2)] * len(plan.targets))
        for own, manifest in _manifests(plan, samples):
            for name, list_format in _old_lists(plan, own):
                list_text(manifest, os.path.join(plan.root, name), list_format)


def _describe(plan: Plan) -> dict[str, Any]:
    """Say what was found in the folder and where it goes."""
    content = plan.content
    splits = {}
    for own in plan.lists:
        counts = Counter(label for row in own.rows for label in row.labels)
        if own.rows:
            splits[own.name] = {
                "videos": len(own.rows),
                "per_class": [counts[label] for label in range(len(own.class_names))],
            }
    return {
        "folder": content.folder,
        "root": plan.root,
        "arguments": plan.arguments,
        "layout": content.layout,
        "videos": len(content.videos),
        "classes": content.class_names,
        "is_multi_label": content.is_multi_label,
        "splits": splits,
        "skipped": content.skipped,
        "messages": [*content.notes, *_gaps(plan, splits)],
        **content.facts,
    }


def _gaps(plan: Plan, splits: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name classes without videos in a split."""
    messages = []
    for own in plan.lists:
        counts = splits[own.name]["per_class"] if own.rows else []
        empty = [label for label, count in zip(own.class_names, counts, strict=False) if not count]
        if empty and len(empty) < len(own.class_names):
            messages.append(f"no video in {own.name}: {some_of(list(map(repr, empty)), _FEW)}")
    asked = [] if plan.content.videos[0].split else [SPLITS[n] for n, share in enumerate(plan.shares) if share]
    missing = [name for name in asked if name not in splits]
    if missing:
        messages.append(f"too few videos for {' and '.join(missing)}")
    return messages


def _fingerprint(plan: Plan) -> str:
    """SHA-256 over the videos as they are listed and as they lie on disk."""
    digest = hashlib.sha256()
    for video, source in zip(plan.content.videos, plan.sources, strict=True):
        row = json.dumps([video.path, video.labels, video.split, video.group, stamp(source)])
        digest.update(row.encode())
    digest.update(json.dumps(plan.content.class_names).encode())
    for own in plan.content.lists:
        rows = [[row.video, row.labels, row.part_seconds] for row in own.rows]
        digest.update(json.dumps([own.name, own.class_names, rows]).encode())
    return digest.hexdigest()


def _earlier_summary(plan: Plan, fingerprint: str) -> dict[str, Any]:
    """Return the summary of an earlier run, {} if there is none.

    Raises:
        DualFormerError: if lists are there that another run than this one would write, unless it may overwrite them.
    """
    names = [name for name in _output_names(plan) if os.path.lexists(os.path.join(plan.root, name))]
    advice = "replace them with --overwrite, or name another folder with --root"
    try:
        with open(os.path.join(plan.root, SUMMARY), encoding="utf-8") as file:
            before: dict[str, Any] = json.load(file)
        arguments, files = before["arguments"], before["files"]
    except (OSError, ValueError, KeyError, TypeError):
        before, arguments, files = {}, None, {}
    if plan.overwrite or not names:
        return before
    if not before:
        raise DualFormerError(f"{plan.root!r} holds {names[0]!r}, which prepare did not write; {advice}")
    if arguments != plan.arguments:
        changed = next(key for key in plan.arguments if arguments.get(key) != plan.arguments[key])
        was, now = arguments.get(changed), plan.arguments[changed]
        raise DualFormerError(
            f"{plan.root!r} holds lists made with other options ({changed} was {was!r}, now {now!r}); {advice}"
        )
    if before.get("fingerprint") != fingerprint:
        raise DualFormerError(f"the videos or labels have changed since the lists in {plan.root!r} were made; {advice}")
    for name in names:
        if name != SUMMARY and _hash_of(os.path.join(plan.root, name)) != files.get(name):
            raise DualFormerError(f"{name!r} in {plan.root!r} has been changed since prepare wrote it; {advice}")
    return before


def _output_names(plan: Plan) -> list[str]:
    names = {SUMMARY: None}
    for own in plan.lists:
        names |= dict.fromkeys(_file_names(plan, own))
    return [*names, *_grouped_names(plan)]


def _file_names(plan: Plan, own: VideoList) -> list[str]:
    """Return what a list is written as: class names, manifest, older formats."""
    classes = os.path.join(os.path.dirname(own.name), "classes.txt")
    return [classes, f"{own.name}.csv", *(name for name, _ in _old_lists(plan, own))]


def _old_lists(plan: Plan, own: VideoList) -> list[tuple[str, ListFormat]]:
    """Return the name and format of each older list; parts of videos go only where a format has them."""
    has_parts = any(row.part_seconds for row in own.rows)
    formats = [name for name in plan.formats if not has_parts or name in ("rawframe_offset", "json")]
    folder = os.path.dirname(own.name)
    return [(os.path.join(folder, own.old_name + LIST_NAMES[name]), name) for name in formats]


def _grouped_names(plan: Plan) -> dict[str, list[VideoList]]:
    """Return the JSON lists that have the labels of all groups together, each with the lists that it is made of."""
    names: dict[str, list[VideoList]] = {}
    for own in plan.lists:
        if own.group and "json" in plan.formats:
            names.setdefault(own.old_name + LIST_NAMES["json"], []).append(own)
    return names


def _grouped_json(lists: Sequence[VideoList], samples: Sequence[Sample]) -> bytes:
    """Return a JSON list in which the labels of a video come in groups: a group that it lacks is unknown."""
    labels: dict[int, dict[str, tuple[int, ...]]] = {}
    for own in lists:
        for row in own.rows:
            labels.setdefault(row.video, {})[own.group] = row.labels
    videos = [video for video in sorted(labels) if samples[video].is_usable]
    return format_json([samples[video] for video in videos], [labels[video] for video in videos]).encode()


def _hash_of(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def _look_at(pool: WorkerPool, plan: Plan, videos: Sequence[int]) -> Iterator[tuple[int, Finding]]:
    """Yield the videos with what they are."""
    jobs = (Look(path=plan.sources[video], check=plan.check) for video in videos)
    outcomes = pool.imap(look, jobs, ahead=8 * plan.num_workers)
    for video, outcome in zip(videos, outcomes, strict=True):
        yield video, outcome.value if outcome.error is None else Finding(status=f"broken: {outcome.reason}")


def _look_at_all(
    pool: WorkerPool, plan: Plan, journal: Journal, watch: Watch, videos: Sequence[int]
) -> dict[int, Finding]:
    """Look at every one of some videos that the journal does not know as it is now."""
    stamps = {video: stamp(plan.sources[video]) for video in videos}
    known: dict[int, Finding] = {}
    for video in videos:
        record = journal.find("look", plan.content.videos[video].path)
        if record and record["stamp"] == stamps[video] is not None and record["check"] >= plan.check:
            finding = record["finding"]
            known[video] = Finding(**{**finding, "notes": tuple(finding["notes"]), "hashes": tuple(finding["hashes"])})
    todo = [video for video in videos if video not in known]
    with watch("check" if plan.check else "look at", len(todo)) as progress:
        for video, finding in _look_at(pool, plan, todo):
            known[video] = finding
            path = plan.content.videos[video].path
            if finding.num_frames or not finding.status.startswith("broken: decoder"):  # those are tried again
                journal.add("look", path, stamp=stamps[video], check=plan.check, finding=asdict(finding))
            progress.advance(note=path)
    return {video: known[video] for video in videos}


def _listed(plan: Plan, findings: Sequence[Finding]) -> list[Sample]:
    """Return each video without its labels."""
    return [
        Sample(
            target,
            num_frames=finding.num_frames,
            fps=_rounded(finding.fps),
            width=finding.width,
            height=finding.height,
            duration_seconds=_rounded(finding.duration_seconds),
            status=finding.status,
        )
        for target, finding in zip(plan.targets, findings, strict=True)
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _conversion(plan: Plan, video: int, finding: Finding) -> Conversion:
    return Conversion(
        source=plan.sources[video],
        target=os.path.join(plan.root, plan.targets[video]),
        short_side=plan.short_side,
        quality=plan.quality,
        num_frames=finding.num_frames or 0,
        width=finding.width or 1,
        height=finding.height or 1,
    )


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What became of some videos, by number."""

    done: dict[int, Converted]
    failed: dict[int, str]
    kept: int
    """How many of them were done before."""

    def counts(self, helped: int) -> dict[str, int]:
        """Return what this run did, of which a team did `helped`."""
        converted = len(self.done) - self.kept + helped
        return {"converted": converted, "kept": self.kept - helped, "failed": len(self.failed)}


def _convert_all(
    pool: WorkerPool,
    plan: Plan,
    journal: Journal,
    findings: Mapping[int, Finding],
    watch: Watch,
    say: Callable[[str], None] | None,
    *,
    times: int = 1,
) -> _Result:
    """Convert what is not converted yet; before that, if `say` is given, tell what `times` as much will need."""
    settings = f"{plan.convert} short_side={plan.short_side} quality={plan.quality}"
    possible = [video for video, finding in findings.items() if finding.is_decodable]
    done, todo, num_outdated = _sort_out(plan, journal, possible, settings)
    if num_outdated and say is not None:
        what = "1 copy was" if num_outdated == 1 else f"{num_outdated} copies were"
        say(f"{what} made by an earlier version, which could spoil colours; made again now")
    jobs = [_conversion(plan, video, findings[video]) for video in todo]
    kept = len(done)
    if todo and say is not None:
        sampled = _estimate_all(pool, plan, dict(zip(todo, jobs, strict=True)), times)
        say(_tell(plan, sampled, kept * times, times))
        _require_space(plan, sampled)
    function = transcode if plan.convert == "transcode" else extract_frames
    failed: dict[int, str] = {}
    with watch("transcode" if plan.convert == "transcode" else "extract frames", len(todo)) as progress:
        begun = _begin(plan, journal, todo, jobs, settings)
        for video, outcome in zip(todo, pool.imap(function, begun, ahead=4 * plan.num_workers), strict=True):
            target = plan.targets[video]
            if outcome.error is None:
                done[video] = outcome.value
                facts = {"settings": settings, "recipe": RECIPE, "stamp": stamp(plan.sources[video])}
                journal.add("done", target, **facts, result=asdict(outcome.value))
            elif isinstance(outcome.error, CannotWriteError):
                raise outcome.error  # it concerns the others too
            else:
                failed[video] = outcome.reason
            progress.advance(note=plan.content.videos[video].path)
    return _Result(done=done, failed=failed, kept=kept)


def _converted(plan: Plan, samples: Sequence[Sample], result: _Result) -> list[Sample]:
    """Return the rows of the results; a video without one stays where it is."""
    prefix = os.path.relpath(os.path.realpath(plan.content.folder), os.path.realpath(plan.root))
    rows = []
    for video, sample in enumerate(samples):
        if own := result.done.get(video):
            rows.append(replace(sample, width=own.width, height=own.height, status="ok"))
            continue
        why = result.failed.get(video)
        status = sample.status if why is None else f"broken: cannot be converted: {why}"
        rows.append(replace(sample, path=os.path.join(prefix, plan.content.videos[video].path), status=status))
    return rows


def _sort_out(
    plan: Plan, journal: Journal, videos: Sequence[int], settings: str
) -> tuple[dict[int, Converted], list[int], int]:
    """Tell what is converted already from what is to do, and how many of those are copies of an earlier version.

    Raises:
        DualFormerError: if something else is where a result goes, unless it may be overwritten.
    """
    done, todo, num_outdated = {}, [], 0
    advice = "replace it with --overwrite, or name another folder with --root"
    for video in videos:
        target = plan.targets[video]
        path = os.path.join(plan.root, target)
        record, begun = journal.find("done", target), journal.find("begin", target)
        exists = os.path.lexists(path)
        if exists and record and record["settings"] == settings and record["stamp"] == stamp(plan.sources[video]):
            result = Converted(**record["result"])
            is_outdated = record.get("recipe", 1) != RECIPE
            num_outdated += is_outdated
            if not is_outdated and (plan.convert == "frames" or os.path.getsize(path) == result.num_bytes):
                done[video] = result
                continue
        if exists and not plan.overwrite:
            if begun is None:
                raise DualFormerError(f"{path!r} is there, and prepare did not write it; {advice}")
            if begun["settings"] != settings:
                raise DualFormerError(f"{path!r} was made with other settings ({begun['settings']}); {advice}")
        todo.append(video)
    return done, todo, num_outdated


def _begin(
    plan: Plan, journal: Journal, videos: Sequence[int], jobs: Sequence[Conversion], settings: str
) -> Iterator[Conversion]:
    """Yield the jobs; before each, note that what will be there is ours."""
    for video, job in zip(videos, jobs, strict=True):
        _make_folder(os.path.dirname(job.target))
        journal.add("begin", plan.targets[video], settings=settings)
        yield job


def _estimate_unseen(pool: WorkerPool, plan: Plan) -> dict[str, Any]:
    """Look at a few videos, drawn by the size of their files, and reckon what the conversion of all will need."""
    sizes = [(stamp(source) or [0])[0] for source in plan.sources]
    is_mixed = any(os.path.isdir(source) for source in plan.sources)  # the size of a folder says nothing
    weights = [1.0 if is_mixed else max(1.0, size) for size in sizes]
    drawn = draw(weights, _SAMPLED, order=weights)
    jobs = {
        video: _conversion(plan, video, finding)
        for video, finding in _look_at(pool, plan, list(drawn))
        if finding.is_decodable
    }
    if not jobs:
        raise DualFormerError(f"none of the {len(drawn)} videos tried can be read")
    return _estimate(pool, plan, jobs, drawn, weights, num_workers=plan.num_workers)


def _estimate_all(pool: WorkerPool, plan: Plan, jobs: Mapping[int, Conversion], times: int) -> dict[str, Any]:
    """Reckon what the conversion of videos that were looked at will need, and as many `times`.

    They are drawn by the pixels that are written, with few and with many bytes for each pixel in the source.
    """
    videos = list(jobs)
    weights = [float(max(1, jobs[video].num_frames) * _pixels_after(jobs[video])) for video in videos]
    sizes = [(stamp(plan.sources[video]) or [0])[0] for video in videos]
    order = [size / weight for size, weight in zip(sizes, weights, strict=True)]
    drawn = draw(weights, _SAMPLED, order=order)
    tried = {number: jobs[videos[number]] for number in drawn}
    return _estimate(pool, plan, tried, drawn, weights, num_workers=plan.num_workers * times, times=times)


def _estimate(
    pool: WorkerPool,
    plan: Plan,
    jobs: Mapping[int, Conversion],
    drawn: Mapping[int, int],
    weights: Sequence[float],
    *,
    num_workers: int,
    times: int = 1,
) -> dict[str, Any]:
    """Convert some frames of those that were drawn, and reckon what all will need."""
    function = estimate_transcode if plan.convert == "transcode" else estimate_frames
    num_bytes: dict[int, float] = {}
    seconds: dict[int, float] = {}
    outcomes = pool.imap(function, jobs.values(), ahead=2 * plan.num_workers)
    for number, outcome in zip(jobs, outcomes, strict=True):
        if outcome.error is None:
            share = outcome.item.num_frames / max(1, outcome.value.num_frames)
            num_bytes[number], seconds[number] = outcome.value.num_bytes * share, outcome.value.seconds * share
    size = total(num_bytes, drawn, weights)
    return {
        "videos": len(weights) * times,
        "bytes": round(size.value) * times,
        "give_or_take": round(size.spread, 2),
        "seconds": total(seconds, drawn, weights).value * times / num_workers,
        "free_bytes": free_bytes(plan.root),
    }


def _pixels_after(job: Conversion) -> int:
    width, height = fitted_size(job.width, job.height, job.short_side, even=True)
    return width * height


def _tell(plan: Plan, sampled: Mapping[str, Any], kept: int, times: int) -> str:
    kept_too = f", beside {kept} that are done" if kept else ""
    about = "about " if times > 1 else ""
    give_or_take = f" (give or take {sampled['give_or_take']:.0%})" if sampled["give_or_take"] else ""
    what = "to transcode" if plan.convert == "transcode" else "whose frames to extract"
    return (
        f"{about}{sampled['videos']} videos {what}{kept_too}: about {size_in_words(sampled['bytes'])}{give_or_take}, "
        f"about {sampled['seconds'] / 60:,.1f} min on {plan.num_workers * times} cores; "
        f"{size_in_words(sampled['free_bytes'])} free"
    )


def _require_space(plan: Plan, sampled: Mapping[str, Any]) -> None:
    if lack := lack_of_room(plan.root, sampled["bytes"] * _SPARE):
        raise DualFormerError(
            f"{lack}; free some space, name another folder with --root, or choose a smaller --short-side"
        )


def _manifests(plan: Plan, samples: Sequence[Sample]) -> list[tuple[VideoList, Manifest]]:
    """Return what is written of every list that has rows."""
    manifests = []
    for own in plan.lists:
        if own.rows:
            folder = os.path.dirname(own.name)
            up = os.path.relpath(os.curdir, folder) if folder else ""
            manifest = Manifest(
                samples=[_row(own, row, samples[row.video], up) for row in own.rows],
                class_names=own.class_names,
                is_multi_label=own.is_multi_label,
                root=os.path.join(plan.root, folder) if folder else plan.root,
            )
            manifests.append((own, manifest))
    return manifests


def _row(own: VideoList, row: Row, sample: Sample, up: str) -> Sample:
    """Return a video as a row of a list that is `up` from it."""
    label = row.labels[0] if row.labels and not own.is_multi_label else None
    labelled = replace(sample, path=os.path.join(up, sample.path), label=label, labels=row.labels)
    if row.part_seconds is None or sample.fps is None or sample.num_frames is None:
        return labelled
    start, end = (min(round(seconds * sample.fps), sample.num_frames) for seconds in row.part_seconds)
    status = sample.status if end > start or not sample.is_usable else "broken: the part is outside of the video"
    seconds = _rounded((end - start) / sample.fps)
    return replace(labelled, start=start, num_frames=end - start, duration_seconds=seconds, status=status)


def _write(plan: Plan, samples: Sequence[Sample], summary: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Write all lists and the summary; what an earlier run wrote and this one does not goes."""
    outputs: dict[str, bytes] = {}
    for own, manifest in _manifests(plan, samples):
        classes, table, *_ = _file_names(plan, own)
        outputs[classes] = check_class_names(own.class_names)
        outputs[table] = manifest_text(manifest, os.path.join(plan.root, table))
        summary["splits"][own.name]["usable"] = sum(sample.is_usable for sample in manifest.samples)
        summary["splits"][own.name]["fingerprint"] = manifest.fingerprint
        for name, list_format in _old_lists(plan, own):
            outputs[name], _ = list_text(manifest, os.path.join(plan.root, name), list_format)
    for name, lists in _grouped_names(plan).items():
        outputs[name] = _grouped_json(lists, samples)
    summary["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in outputs.items()}
    # The summary first: it tells a run that follows on a sudden end that the lists are ours.
    text = json.dumps(summary, indent=1) + "\n"
    for name, data in {SUMMARY: text.encode(), **outputs}.items():
        path = os.path.join(plan.root, name)
        if _hash_of(path) != hashlib.sha256(data).hexdigest():
            _make_folder(os.path.dirname(path))
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
    for name, digest in before.get("files", {}).items():
        path = os.path.normpath(os.path.join(plan.root, name))
        is_inside = path.startswith(os.path.join(os.path.normpath(plan.root), ""))
        if name not in outputs and is_inside and _hash_of(path) == digest:
            os.unlink(path)


def _found(plan: Plan, findings: Sequence[Finding], samples: Sequence[Sample]) -> dict[str, Any]:
    """Return statistics, and what is wrong or odd."""
    videos = plan.content.videos
    usable = [number for number, sample in enumerate(samples) if sample.status in USABLE]
    notes: dict[str, list[str]] = {}
    for video, finding in zip(videos, findings, strict=True):
        for note in finding.notes:
            notes.setdefault(note, []).append(video.path)
    pairs = find_look_alikes([finding.hashes for finding in findings], plan.splits)
    statuses = Counter("broken" if sample.status not in USABLE else sample.status for sample in samples)
    return {
        "status": {name: statuses[name] for name in ("ok", "sequential_only", "broken")},
        "broken": [
            {"path": video.path, "status": sample.status}
            for video, sample in zip(videos, samples, strict=True)
            if sample.status not in USABLE
        ],
        "notes": [{"note": note, "videos": len(paths), "examples": paths[:_FEW]} for note, paths in notes.items()],
        "statistics": _statistics([findings[number] for number in usable], [plan.sources[number] for number in usable]),
        "look_alikes": {
            "pairs": len(pairs),
            "examples": [
                {
                    "first": videos[pair.first].path,
                    "first_split": SPLITS[plan.splits[pair.first]],
                    "second": videos[pair.second].path,
                    "second_split": SPLITS[plan.splits[pair.second]],
                    "bits": pair.bits,
                }
                for pair in pairs[:_MOST_PAIRS]
            ],
        },
        "same_bytes": describe_same(plan.sources, [video.labels for video in videos], [video.path for video in videos]),
    }


def _statistics(findings: Sequence[Finding], sources: Sequence[str]) -> dict[str, Any]:
    """Describe the videos as they lie in the folder."""
    lengths = [finding.num_frames for finding in findings if finding.num_frames is not None]
    seconds = [finding.duration_seconds for finding in findings if finding.duration_seconds is not None]
    sizes = Counter(f"{finding.width}x{finding.height}" for finding in findings)
    rates = Counter("unknown" if finding.fps is None else f"{finding.fps:.4g}" for finding in findings)
    codecs = Counter(str(finding.codec) for finding in findings)
    return {
        "videos": len(findings),
        "bytes": sum((stamp(source) or [0])[0] for source in sources),
        "num_frames": _spread_of(lengths),
        "duration_seconds": _spread_of(seconds),
        "sizes": dict(sizes.most_common()),
        "fps": dict(rates.most_common()),
        "codecs": dict(codecs.most_common()),
    }


def _spread_of(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return {
        "total": round(float(sum(values)), 3),
        "min": float(min(values)),
        "median": float(np.median(values)),
        "max": float(max(values)),
    }
