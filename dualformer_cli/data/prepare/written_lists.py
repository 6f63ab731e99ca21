"""The lists that `prepare` writes: manifests with their class names, and the older formats that were asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dualformer_cli.config.schema import ListFormat
from dualformer_cli.data.lists.folders import Row, VideoList
from dualformer_cli.data.lists.json_lists import format_json
from dualformer_cli.data.lists.manifest import Manifest, check_class_names, list_text, manifest_text
from dualformer_cli.data.lists.samples import Sample
from dualformer_cli.data.prepare.check import Finding
from dualformer_cli.data.prepare.findings import rounded, samples_of
from dualformer_cli.data.prepare.plan import Plan
from dualformer_cli.data.prepare.work import make_folder
from dualformer_cli.documents.prepare import ListCounts
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path
from dualformer_cli.video.parts import WHOLE

LIST_NAMES: Mapping[ListFormat, str] = {
    "video": "_videos.txt",
    "rawframe": "_rawframes.txt",
    "rawframe_offset": "_rawframes_offset.txt",
    "multilabel_video": "_videos_multilabel.txt",
    "multilabel_rawframe": "_rawframes_multilabel.txt",
    "json": ".json",
}
"""End of the file name of each older list format, after `VideoList.old_name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLists:
    """The content of all lists."""

    files: Mapping[str, bytes]
    """By the file's name below the root."""
    splits: Mapping[str, ListCounts]
    """By the list's name."""

    @property
    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of each file."""
        return {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}


def check_formats(plan: Plan) -> None:
    """Refuse, before any work is done, videos and names that the older list formats cannot hold.

    Raises:
        DualFormerError: naming the format, and what to do.
    """
    if not plan.formats:
        return
    has_folders = {plan.convert == "frames" or (not plan.convert and os.path.isdir(source)) for source in plan.sources}
    if len(has_folders) > 1:
        raise DualFormerError("--formats cannot list files and folders of frames together; add --transcode or --frames")
    for list_format in plan.formats:
        if list_format != "json" and ("rawframe" in list_format) not in has_folders:
            problem = "needs folders of frames: add --frames" if "rawframe" in list_format else "needs video files"
            raise DualFormerError(f"--formats {list_format} {problem}")
    findings = [
        Finding(status="ok", num_frames=2, parts=tuple((part, 0, 2) for part in plan.parts.get(video, ())))
        for video in range(len(plan.targets))
    ]
    for listed, manifest in _manifests(plan, samples_of(plan, findings), findings):
        for name, list_format in _older_lists(plan, listed):
            list_text(manifest, os.path.join(plan.root, name), list_format)


def list_names(plan: Plan) -> list[str]:
    """Return the names of all files that hold a list, below the root."""
    names = [name for listed in plan.lists for name in _file_names(plan, listed)]
    return list(dict.fromkeys([*names, *_grouped_lists(plan)]))


def lists_of(
    plan: Plan, samples: Sequence[Sample], findings: Sequence[Finding], splits: Mapping[str, ListCounts]
) -> WrittenLists:
    """Return what is to be written of every list, and its counts with those of its usable videos."""
    files: dict[str, bytes] = {}
    counts = dict(splits)
    for listed, manifest in _manifests(plan, samples, findings):
        classes, table, *_ = _file_names(plan, listed)
        files[classes] = check_class_names(listed.class_names)
        files[table] = manifest_text(manifest, os.path.join(plan.root, table))
        usable = sum(sample.is_usable for sample in manifest.samples)
        counts[listed.name] = replace(splits[listed.name], usable=usable, fingerprint=manifest.fingerprint)
        for name, list_format in _older_lists(plan, listed):
            files[name], _ = list_text(manifest, os.path.join(plan.root, name), list_format)
    for name, lists in _grouped_lists(plan).items():
        files[name] = _grouped_json(lists, samples)
    return WrittenLists(files=files, splits=counts)


def write_files(root: str, files: Mapping[str, bytes]) -> None:
    """Write the files that are not there as they should be, in order."""
    for name, data in files.items():
        path = os.path.join(root, name)
        if hash_of(path) != hashlib.sha256(data).hexdigest():
            make_folder(os.path.dirname(path))
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)


def hash_of(path: str) -> str | None:
    """Return the SHA-256 of a file; None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def _manifests(plan: Plan, samples: Sequence[Sample], findings: Sequence[Finding]) -> list[tuple[VideoList, Manifest]]:
    """Return what is written of every list that has rows."""
    manifests = []
    for listed in filter(lambda each: each.rows, plan.lists):
        folder = os.path.dirname(listed.name)
        up = os.path.relpath(os.curdir, folder) if folder else ""
        manifest = Manifest(
            samples=[_row(listed, row, samples[row.video], findings[row.video], up) for row in listed.rows],
            class_names=listed.class_names,
            is_multi_label=listed.is_multi_label,
            root=os.path.join(plan.root, folder) if folder else plan.root,
        )
        manifests.append((listed, manifest))
    return manifests


def _row(listed: VideoList, row: Row, sample: Sample, finding: Finding, up: str) -> Sample:
    """Return a video as a row of a list that is `up` from it."""
    label = row.labels[0] if row.labels and not listed.is_multi_label else None
    labelled = replace(sample, path=os.path.join(up, sample.path), label=label, labels=row.labels)
    if row.part == WHOLE:
        return labelled
    start, num_frames = row.part.start, row.part.num_frames
    if row.part.is_timed:
        found = next((frames for part, *frames in finding.parts if part == row.part), None)
        if found is None and not sample.is_usable:
            return labelled
        if found is None:
            return replace(labelled, start_seconds=row.part.start_seconds, end_seconds=row.part.end_seconds)
        start, num_frames = found
    elif sample.num_frames is not None:
        rest = max(0, sample.num_frames - start)
        num_frames = rest if num_frames is None else min(num_frames, rest)
    status = sample.status if num_frames or not sample.is_usable else "broken: the part is outside of the video"
    seconds = None if sample.fps is None or num_frames is None else rounded(num_frames / sample.fps)
    return replace(labelled, start=start, num_frames=num_frames, duration_seconds=seconds, status=status)


def _file_names(plan: Plan, listed: VideoList) -> list[str]:
    """Return what a list is written as: class names, manifest, older formats."""
    classes = os.path.join(os.path.dirname(listed.name), "classes.txt")
    return [classes, f"{listed.name}.csv", *(name for name, _ in _older_lists(plan, listed))]


def _older_lists(plan: Plan, listed: VideoList) -> list[tuple[str, ListFormat]]:
    """Return the name and format of each older list; parts of videos go only where a format has them."""
    has_parts = any(row.part != WHOLE for row in listed.rows)
    formats = [name for name in plan.formats if not has_parts or name in ("rawframe_offset", "json")]
    folder = os.path.dirname(listed.name)
    return [(os.path.join(folder, listed.old_name + LIST_NAMES[name]), name) for name in formats]


def _grouped_lists(plan: Plan) -> dict[str, list[VideoList]]:
    """Return the JSON lists that have the labels of all groups together, each with the lists that it is made of."""
    names: dict[str, list[VideoList]] = {}
    for listed in plan.lists:
        if listed.group and "json" in plan.formats:
            names.setdefault(listed.old_name + LIST_NAMES["json"], []).append(listed)
    return names


def _grouped_json(lists: Sequence[VideoList], samples: Sequence[Sample]) -> bytes:
    """Return a JSON list in which the labels of a video come in groups: a group that it lacks is unknown."""
    labels: dict[int, dict[str, tuple[int, ...]]] = {}
    for listed in lists:
        for row in listed.rows:
            labels.setdefault(row.video, {})[listed.group] = row.labels
    videos = [video for video in sorted(labels) if samples[video].is_usable]
    return format_json([samples[video] for video in videos], [labels[video] for video in videos]).encode()
