"""Whole datasets come to this machine: what the catalogue says of each is fetched, unpacked, and marked as done.

Below ROOT/NAME lie `archives/` as they came, `annotations/`, the folders of videos or frames, and `.done/` with a
marker for each archive that is unpacked. What has its marker is not looked at again, whether or not its archive is
still there.
"""

from __future__ import annotations

import filecmp
import glob
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

from dualformer_cli.data.datasets.annotations import found_splits
from dualformer_cli.data.datasets.catalogue import GROUPS, Catalogue, FileEntry, chosen_files
from dualformer_cli.data.datasets.files_on_disk import find_videos
from dualformer_cli.data.datasets.presence import SplitPresence, present_and_annotated
from dualformer_cli.data.fetch.fetch import (
    FILES_AT_ONCE,
    NamedProgress,
    Progress,
    checked_file,
    fetch,
    in_threads,
    locked,
    verify,
)
from dualformer_cli.data.fetch.http import CertificateError, Patience, Source, TransferError
from dualformer_cli.data.fetch.members import DamagedArchiveError, Layout, UnfitFileError, stem
from dualformer_cli.data.fetch.rar import find_tools, missing_tool
from dualformer_cli.data.fetch.resume import url_of_part
from dualformer_cli.data.fetch.unpack import check_gaps, staging_folder, unpack
from dualformer_cli.errors import DownloadError, nearest
from dualformer_cli.system.files import atomic_path

log = logging.getLogger(__name__)

_PER_SPLIT = (
    "annotations",
    "annotations_train",
    "annotations_val",
    "annotations_test",
    "splits",
    "train",
    "val",
    "test",
)
"""Names of entries that bring the annotations themselves, and not an index or a second form of them."""
GIVE_UP_AFTER = 5
"""Archives of a list that fail before any has come, after which the others are not tried."""
_MAX_LISTED = 100_000
_PIECE = re.compile(r"(.+\.(?:tar|tgz|gz|zip))[._-](?:part)?(?:\d{1,4}|[a-z]{2})", re.IGNORECASE)
"""Name of one of several pieces of an archive, as `split` and others number them; group 1 is the archive's."""

State = Literal["present", "partly", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One entry of a dataset's files, and where it goes."""

    dataset: str
    """Dataset in whose folder it lies."""
    name: str
    entry: FileEntry
    folder: Path
    """The dataset's folder."""
    homepage: str
    annotation_format: str | None = None
    num_videos: int | None = None
    """Videos that all archives should leave in its folder, where known."""

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.dataset} {self.name}"

    @property
    def archive_folder(self) -> Path:
        """Where its archives, or its plain files, lie."""
        if self.entry.into is None:
            return self.folder / "annotations"
        archives = self.folder / "archives"
        return archives / self.name if self.entry.url_list else archives

    @property
    def target(self) -> str:
        """Where what comes out of its archives goes."""
        into = self.entry.into
        return str(self.archive_folder if into is None else self.folder / into.partition("/{")[0])

    @property
    def marker_folder(self) -> Path:
        """Where the markers of its unpacked archives lie."""
        return self.folder / ".done" / self.name

    @property
    def layout(self) -> Layout:
        """Where the members of its archives go."""
        entry = self.entry
        return Layout(
            into=entry.into or "",
            strip=entry.strip,
            annotations=entry.annotations,
            nested=entry.nested,
            holds_videos=entry.group == "videos",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemOutcome:
    """What became of one entry of a dataset's files."""

    dataset: str
    name: str
    group: str
    status: Literal["done", "present", "by hand", "error"]
    """Done: fetched or unpacked by this run. By hand: the user has to do something first."""
    num_done: int
    """Archives or files that are there and unpacked."""
    num_wanted: int
    path: str
    """Folder of what came out."""
    optional: bool
    error: str | None = None
    """Of the first that failed, or what the user has to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemState:
    """What is there of one entry of a dataset's files, and what a run would do."""

    dataset: str
    name: str
    group: str
    split: str | None
    state: State
    num_done: int
    num_wanted: int | None
    size_bytes: int | None
    """All of it, where known."""
    missing_bytes: int | None
    """What is still to be fetched, where known."""
    url: str | None
    by_hand: str | None
    """What the user has to do."""
    path: str
    """Folder of what comes out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One archive or file."""

    item: Item
    name: str
    sources: tuple[Source, ...]
    """Addresses of the same file; none for one that the user has put there."""
    paths: tuple[Path, ...]
    """Where it lies, or its pieces."""
    number: str = ""
    """Which of a list it is, such as 3/242."""
    others: tuple[_Job, ...] = ()
    """The same content in other archives, which are asked for when this one cannot be had."""


def plan(
    catalogue: Catalogue,
    names: Sequence[str],
    root: Path,
    *,
    groups: Sequence[str] = GROUPS,
    splits: Sequence[str] | None = None,
) -> list[Item]:
    """Return what belongs to some datasets.

    Args:
        catalogue: what there is.
        names: datasets, as `Catalogue.datasets` names them.
        root: folder below which each has its own.
        groups: annotations, videos or both.
        splits: train, val, test; None for all.
    """
    items = []
    for name in names:
        entry = catalogue.datasets[name]
        owners = [(name, groups)]
        if entry.videos_of is not None and "videos" in groups:
            owners.append((entry.videos_of, ["videos"]))
        for owner, wanted in owners:
            of = catalogue.datasets[owner]
            items += [
                Item(
                    dataset=owner,
                    name=key,
                    entry=file,
                    folder=root.absolute() / owner,
                    homepage=of.homepage,
                    annotation_format=of.annotation_format,
                    num_videos=of.num_videos.get((file.into or "").partition("/{")[0]),
                )
                for key, file in chosen_files(of, groups=wanted, splits=splits).items()
            ]
    return list({(item.dataset, item.name): item for item in items}.values())


def look(catalogue: Catalogue, item: Item) -> ItemState:
    """Say what is there of an item, without the network."""
    entry = item.entry
    done, wanted = _count_done(item)
    there = done > 0 or _is_filled_by_hand(item)
    state: State = "missing"
    if _is_from_elsewhere(item):
        state = "present"
    elif there:
        state = "present" if entry.is_by_hand or wanted is None or done >= wanted else "partly"
    size = entry.size_bytes
    left = size if wanted is None or size is None else round(size * max(0, wanted - done) / wanted)
    url = entry.urls[0] if entry.urls else entry.url_list
    return ItemState(
        dataset=item.dataset,
        name=item.name,
        group=entry.group,
        split=entry.split,
        state=state,
        num_done=done,
        num_wanted=wanted,
        size_bytes=size,
        missing_bytes=0 if state == "present" else left,
        url=None if url is None else catalogue.address(url),
        by_hand=route(item) if entry.is_by_hand else entry.by_hand,
        path=item.target,
    )


def _count_done(item: Item) -> tuple[int, int | None]:
    """Return how many archives or files of an item are there, and how many it has."""
    entry = item.entry
    if entry.into is None:
        return sum(path is not None for path in _plain_paths(item)), max(len(entry.urls[:1]), len(entry.place))
    done = sum(_is_done(marker) for marker in item.marker_folder.glob("*.json"))
    if entry.num_archives is not None or entry.url_list:
        return done, entry.num_archives
    return done, 1 if entry.urls or entry.parts else len(entry.place) or None


def _plain_paths(item: Item) -> list[Path | None]:
    """Return the plain files of an item that are there; None for each that is not."""
    if item.entry.urls:
        path = item.archive_folder / _file_name(item.entry.urls[0])
        return [path if path.is_file() else None]
    return [next(iter(_placed(item, name)), None) for name in item.entry.place]


def _is_filled_by_hand(item: Item) -> bool:
    """Whether the user has unpacked an item: its folder has files, and no archive was unpacked into it by us."""
    entry = item.entry
    if not entry.is_by_hand or entry.into is None:
        return False
    if entry.there:
        return any((item.folder / path).exists() for path in entry.there)
    ours = (_read_marker(marker) for marker in item.marker_folder.parent.glob("*/*.json"))
    return _has_files(item.folder / entry.into) and not any(told and told["into"] == entry.into for told in ours)


def _is_from_elsewhere(item: Item) -> bool:
    """Whether another tool has put there what would be fetched: annotations of its split, or all published videos."""
    entry = item.entry
    if entry.is_by_hand or any(item.marker_folder.glob("*.json")):
        return False
    if entry.group == "videos":
        return item.num_videos is not None and _num_videos(Path(item.target)) >= item.num_videos
    if any(next(item.folder.glob(pattern), None) for pattern in entry.there):
        return True
    if item.name not in _PER_SPLIT and entry.split is None:
        return False
    found = found_splits(item.annotation_format, item.folder / "annotations")
    if entry.split is not None:
        ours = {_file_name(url) for url in entry.urls}
        return entry.split in found and found[entry.split].name not in ours and item.name in _PER_SPLIT
    return bool(found)


def _num_videos(folder: Path) -> int:
    """Count the videos, or folders of frames, in a folder of a dataset."""
    return len(find_videos(folder.parent).get(folder.name, ())) if folder.is_dir() else 0


def _is_marked(item: Item, name: str) -> bool:
    """Whether an archive that the user had put there for one entry of `place` is unpacked; it may be gone since."""
    patterns = ["parts"] if item.entry.parts else [pattern.rpartition("/")[2] for pattern in name.split("|")]
    markers = (marker for pattern in patterns for marker in item.marker_folder.glob(f"{pattern}.json"))
    return any(_is_done(marker) for marker in markers)


def _has_files(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            # An archive may lie in the folder that it is unpacked into.
            return any(not entry.name.startswith(".") and stem(entry.name) == entry.name for entry in entries)
    except OSError:
        return False


def route(item: Item, missing: Sequence[str] | None = None) -> str:
    """Say in one line what the user has to do to get what cannot be fetched.

    Args:
        item: with an entry by hand.
        missing: the names of its `place` that are not there; all when None.
    """
    entry = item.entry
    todo = f"go to {item.homepage}"
    if entry.by_hand:
        todo += f" and {entry.by_hand}" if "http" not in entry.by_hand else f", {entry.by_hand}"
    if entry.place:
        names = ", ".join(name.replace("|", " or ") for name in (entry.place if missing is None else missing))
        folder = item.folder / "annotations" if entry.into is None else item.folder
        return f"{todo}; put {names} into {str(folder)!r} and run this command again"
    return f"{todo}; put what you get into {str(item.folder / (entry.into or ''))!r}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What the names on a command line stand for."""

    weights: tuple[str, ...]
    """Presets."""
    datasets: tuple[str, ...]
    groups: tuple[str, ...]
    """Of the datasets' files: annotations, videos."""


def select(catalogue: Catalogue, names: Sequence[str], only: Sequence[str] = ()) -> Selection:
    """Sort names into presets with published weights and datasets.

    Args:
        catalogue: what there is.
        names: as the user wrote them.
        only: annotations, videos, weights. With weights, a dataset stands for the presets trained on it. Nothing for
            all files of datasets, and weights of presets.

    Raises:
        DownloadError: for a name that is neither, or of which `only` leaves nothing.
    """
    groups = tuple(group for group in GROUPS if group in only or not only)
    weights: dict[str, None] = {}
    datasets: dict[str, None] = {}
    for name in names:
        dataset = catalogue.dataset_name(name)
        if name not in catalogue.weights and dataset is None:
            hint = nearest(name, [*catalogue.datasets, *catalogue.weights])
            raise DownloadError(
                f"nothing is known of {name!r}{hint or '.'} Datasets: {', '.join(catalogue.datasets)}. "
                f"Presets with published weights: {', '.join(catalogue.weights)}"
            )
        trained = [preset for preset, entry in catalogue.weights.items() if entry.dataset == dataset]
        found = [name] if name in catalogue.weights else trained if "weights" in only else []
        if (name in catalogue.weights and only and "weights" not in only) or (dataset and not found and not groups):
            raise DownloadError(f"{name!r} has no {' and no '.join(only)}; leave --only out to get what it has")
        weights |= dict.fromkeys(found)
        if dataset is not None and groups:
            datasets[dataset] = None
    return Selection(weights=tuple(weights), datasets=tuple(datasets), groups=groups)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetState:
    """One row of `download --list`: a dataset, and what is there of it."""

    name: str
    kind: Literal["dataset"] = "dataset"
    state: State
    how: Literal["automatic", "partly by hand", "by hand"]
    title: str
    folder: str
    num_classes: int
    classes: tuple[str, ...]
    splits: Mapping[str, int | None]
    labels: str
    flip_labels: tuple[tuple[int, ...], ...]
    metric: str
    licence: str | None
    homepage: str
    note: str
    aliases: tuple[str, ...]
    size_bytes: int
    """Of what must be there and whose size is known."""
    files: tuple[ItemState, ...]


def describe(catalogue: Catalogue, name: str, root: Path) -> DatasetState:
    """Say what is known of a dataset and what is there of it, without the network."""
    entry = catalogue.datasets[name]
    items = plan(catalogue, [name], root)
    states = [look(catalogue, item) for item in items]
    needed = [state for item, state in zip(items, states, strict=True) if not item.entry.optional]
    kinds = {state.state for state in needed}
    by_hand = {item.entry.is_by_hand for item in items if not item.entry.optional}
    return DatasetState(
        name=name,
        state=kinds.pop() if len(kinds) == 1 else "partly",
        how="automatic" if by_hand == {False} else "by hand" if by_hand == {True} else "partly by hand",
        title=entry.title,
        folder=str(root.absolute() / name),
        num_classes=entry.num_classes,
        classes=entry.classes,
        splits=entry.splits,
        labels=entry.labels,
        flip_labels=entry.flip_labels,
        metric=entry.metric,
        licence=entry.licence,
        homepage=entry.homepage,
        note=entry.note,
        aliases=entry.aliases,
        size_bytes=sum(state.size_bytes or 0 for state in needed),
        files=tuple(states),
    )


def compare(catalogue: Catalogue, name: str, root: Path, splits: Sequence[str] | None = None) -> list[SplitPresence]:
    """Compare the videos of a dataset that are there with those that are annotated, in some splits or in all."""
    entry = catalogue.datasets[name]
    rows = present_and_annotated(entry, root.absolute() / name, root.absolute() / (entry.videos_of or name))
    return [row for row in rows if splits is None or set(splits) & set(row.split.split("_"))]


def acquire(
    catalogue: Catalogue,
    items: Sequence[Item],
    *,
    offline: bool = False,
    delete_archives: bool = False,
    skip_certificate_check: bool = False,
    progress: NamedProgress | None = None,
    patience: Patience | None = None,
) -> list[ItemOutcome]:
    """Fetch and unpack what is missing, several archives at a time. One that fails does not stop the others.

    Args:
        catalogue: what there is.
        items: what to get.
        offline: use only what is there.
        delete_archives: delete what was fetched once it is unpacked.
        skip_certificate_check: fetch from servers that are known for a broken certificate chain.
        progress: told about the bytes of each archive, from several threads.
        patience: timeouts and retries.

    Raises:
        DownloadError: if it does not fit on the disk; nothing is fetched then.
    """
    if not offline:
        require_space(catalogue, items, delete_archives=delete_archives)
    run = _Run(catalogue, offline, delete_archives, skip_certificate_check, progress, patience)
    expanded = in_threads(run.expand, items)
    jobs = [job for found in expanded if isinstance(found, list) for job in found]
    results = iter(in_threads(run.work, jobs))
    outcomes = []
    for item, found in zip(items, expanded, strict=True):
        of_item = [found] if isinstance(found, _Result) else [next(results) for _ in found]
        outcomes.append(_outcome(item, of_item))
    for folder in {staging_folder(item.folder, item.layout) for item in items if item.entry.into}:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return outcomes


def require_space(catalogue: Catalogue, items: Sequence[Item], *, delete_archives: bool) -> None:
    """Fail before a download that cannot fit: archives, and as much again for what comes out of them.

    Raises:
        DownloadError: naming both sizes.
    """
    needed = sum(_needed_bytes(catalogue, item, delete_archives=delete_archives) for item in items)
    folder = next((item.folder for item in items), Path.cwd())
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed > free:
        less = "" if delete_archives else "--delete-archives to keep only what is unpacked, "
        raise DownloadError(
            f"about {needed / 1e9:.1f} GB are needed, and {free / 1e9:.1f} GB are free in {str(folder)!r}; "
            f"choose another --root, {less}or less with --only or --split"
        )


def _needed_bytes(catalogue: Catalogue, item: Item, *, delete_archives: bool) -> int:
    """Return about how many more bytes an item will take, its archives and what comes out of them."""
    left = look(catalogue, item).missing_bytes
    if item.entry.is_by_hand or not left:
        return 0
    num_archives = item.entry.num_archives or 1
    if delete_archives and num_archives > 1:
        return left + FILES_AT_ONCE * left // num_archives
    there = sum(path.stat().st_size for path in _files_below(item.archive_folder))
    return 2 * left - min(there, left)


def _files_below(folder: Path) -> Iterator[Path]:
    for at, _, names in os.walk(folder):
        yield from (Path(at, name) for name in names)


class _Result(NamedTuple):
    """What became of one archive."""

    status: Literal["done", "present", "by hand", "error"]
    message: str = ""


def _outcome(item: Item, results: Sequence[_Result]) -> ItemOutcome:
    """Sum up what became of an item's archives."""
    failed = [result for result in results if result.message]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    num_wanted = max(len(results), item.entry.num_archives or 0)
    if not failed and 1 < len(results) < num_wanted:
        log.warning("%s: %d of %d archives are there", item.label, len(results), num_wanted)
    return ItemOutcome(
        dataset=item.dataset,
        name=item.name,
        group=item.entry.group,
        status=(failed or sorted(results))[0].status,  # done comes before present
        num_done=len(results) - len(failed),
        num_wanted=num_wanted,
        path=item.target,
        optional=item.entry.optional,
        error=failed[0].message + more if failed else None,
    )


class _Run:
    """The options of one call, and what its threads do."""

    def __init__(
        self,
        catalogue: Catalogue,
        offline: bool,
        delete_archives: bool,
        skip_certificate_check: bool,
        progress: NamedProgress | None,
        patience: Patience | None,
    ) -> None:
        self._catalogue, self._offline, self._delete = catalogue, offline, delete_archives
        self._skip_certificate_check, self._progress, self._patience = skip_certificate_check, progress, patience
        self._failures: dict[str, int] = {}

    def expand(self, item: Item) -> list[_Job] | _Result:
        """Return the archives of an item, or why they are not known. Lists of addresses are fetched."""
        try:
            if _is_from_elsewhere(item):
                log.info("%s: another tool has put it there; it is not fetched", item.label)
                return [_Job(item=item, name="", sources=(), paths=())]
            if item.entry.url_list is not None:
                return self._listed(item, item.entry.url_list)
            if item.entry.urls:
                return [self._addressed(item)]
            return self._placed_jobs(item)
        except (DownloadError, UnfitFileError) as error:
            return _Result("error", _named(item, str(error)))

    def _addressed(self, item: Item) -> _Job:
        """Return the file of an item; of several archives with the same content, one that is there or begun."""
        jobs = []
        for name in dict.fromkeys(map(_file_name, item.entry.urls)):
            urls = [url for url in item.entry.urls if _file_name(url) == name]
            sources = tuple(self._source(item, url, item.label) for url in urls)
            jobs.append(_Job(item=item, name=name, sources=sources, paths=(item.archive_folder / name,)))
        jobs.sort(key=_how_near)  # stable: of those that have not come, the first
        return replace(jobs[0], others=tuple(jobs[1:]))

    def _listed(self, item: Item, url: str) -> list[_Job]:
        """Fetch a list of addresses and return what it names."""
        path = item.folder / "archives" / _file_name(url)
        source = replace(self._source(item, url, f"{item.label} list"), kind="text")
        self._fetch(_Job(item=item, name=path.name, sources=(source,), paths=(path,)))
        jobs: dict[str, _Job] = {}
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name = _file_name(line.strip())
            if not re.match("https?://", line.strip()) or not name or number > _MAX_LISTED:
                raise UnfitFileError(path, f"is no list of addresses: line {number} is {line[:100]!r}")
            source = self._source(item, line.strip(), f"{item.label} {name}")
            jobs.setdefault(name, _Job(item=item, name=name, sources=(source,), paths=(item.archive_folder / name,)))
        if not jobs:
            raise UnfitFileError(path, "is empty; it should list addresses")
        return [replace(job, number=f"{number}/{len(jobs)} ") for number, job in enumerate(jobs.values(), start=1)]

    def _placed_jobs(self, item: Item) -> list[_Job] | _Result:
        """Return what the user has put there, or what there is to do."""
        found = {name: _placed(item, name) for name in item.entry.place}
        missing = tuple(name for name, paths in found.items() if not paths and not _is_marked(item, name))
        paths = [path for of_name in found.values() for path in of_name]
        if not paths and _is_filled_by_hand(item):
            return [_Job(item=item, name="", sources=(), paths=())]
        if missing or not found:
            return _Result("by hand", f"{item.label}: {route(item, missing)}")
        if not item.entry.parts or not paths:
            jobs = [job for of_name in found.values() for job in _jobs_of(item, of_name)]
            return jobs or [_Job(item=item, name="", sources=(), paths=())]
        check_gaps(paths[0], [path.name for path in paths])
        return [_Job(item=item, name="parts", sources=(), paths=tuple(paths))]

    def _source(self, item: Item, url: str, name: str) -> Source:
        entry, published = item.entry, item.entry.published_of(_file_name(url))
        waived = self._skip_certificate_check and entry.incomplete_certificate
        more = [entry.by_hand, None if item.homepage == url else f"home page {item.homepage}"]
        return Source(
            name=name,
            url=self._catalogue.address(url),
            browser_url=url,
            num_bytes=published.num_bytes,
            md5=published.md5,
            sha256=published.sha256,
            kind="archive" if entry.into else "text",
            by_hand="; ".join(filter(None, more)),
            check_certificate=not waived,
        )

    def work(self, job: _Job) -> _Result:
        """Fetch and unpack one archive."""
        item = job.item
        if self._failures.get(item.label, 0) >= GIVE_UP_AFTER:
            return _Result("error", f"{item.label} {job.name}: not tried after {GIVE_UP_AFTER} others failed")
        try:
            result = self._work(job)
        except (DownloadError, UnfitFileError) as error:
            message = _named(item, str(error))
        except OSError as error:
            message = f"{item.label}: {error.strerror or error} ({str(error.filename or item.folder)!r})"
        else:
            self._failures[item.label] = -_MAX_LISTED
            return result
        self._failures[item.label] = self._failures.get(item.label, 0) + 1
        return _Result("error", message)

    def _work(self, job: _Job) -> _Result:
        if not job.paths:
            return _Result("present")
        if job.item.entry.into is None:
            return self._fetch(job) if job.sources else _check_text(job)
        marker = job.item.marker_folder / f"{job.name}.json"
        if _is_done(marker, job):
            return _Result("present")
        marker.parent.mkdir(parents=True, exist_ok=True)
        with locked(marker) as held:
            if _is_done(marker, job):  # by another process, while this one waited
                return _Result("present")
            try:
                self._unpack(job, marker, held)
            except (DownloadError, UnfitFileError) as error:
                if not job.others or self._offline:
                    raise
                log.warning("%s; taking %s in its place", error, job.others[0].name)
                return self._work(replace(job.others[0], others=job.others[1:]))
        return _Result("done")

    def _unpack(self, job: _Job, marker: Path, held: int) -> None:
        """Fetch, unpack and mark one archive. One that came damaged is fetched once more, unless it is as published."""
        item = job.item
        for is_last_try in (False, True):
            if job.sources:
                if job.paths[0].suffix.lower() == ".rar" and not find_tools():
                    log.warning("%s: %s %s", item.label, job.name, missing_tool())
                self._fetch(job)
            elif len(job.paths) == 1:
                _check_placed(item, job.paths[0])
            try:
                done = unpack(job.paths, item.folder, item.layout, progress=self._tell(job, "unpack "), held=held)
                break
            except DamagedArchiveError as error:
                if job.sources and _is_as_published(job):
                    raise error.if_right from error
                if not job.sources or self._offline or is_last_try:
                    raise
                log.warning("%s; fetching it anew", error)
                os.replace(job.paths[0], job.paths[0].with_name(f"{job.name}.broken"))
        archives = [[path.name, path.stat().st_size] for path in job.paths]
        with atomic_path(marker) as temporary:
            told = {"archives": archives, "into": item.entry.into, **asdict(done)}
            temporary.write_text(json.dumps(told) + "\n", encoding="utf-8")
        if self._delete and job.sources:
            for path in (job.paths[0], job.paths[0].with_name(f"{job.name}.sha256")):
                path.unlink(missing_ok=True)

    def _fetch(self, job: _Job) -> _Result:
        """Fetch a file from the first address that gives it."""
        path = job.paths[0]
        begun = url_of_part(path)
        ordered = sorted(job.sources, key=lambda source: source.url != begun)  # stable: a part is gone on with first
        for number, source in enumerate(ordered, start=1):
            try:
                result = fetch(source, path, progress=self._tell(job), patience=self._patience, offline=self._offline)
                return _Result("present" if result.status == "present" else "done")
            except DownloadError as error:
                cause = error.__cause__
                if isinstance(cause, CertificateError) and job.item.entry.incomplete_certificate:
                    raise DownloadError(
                        f"{source.name}: {cause}. That host is known for an incomplete chain of certificates: "
                        "--skip-certificate-check fetches from it all the same, and checks sizes and checksums"
                    ) from error
                if number == len(ordered) or not isinstance(cause, TransferError) or self._offline:
                    raise
                log.warning("%s: %s; trying %s", source.name, cause, ordered[number].url)
        raise AssertionError("there is an address")

    def _tell(self, job: _Job, doing: str = "") -> Progress | None:
        if self._progress is None:
            return None
        progress, name = self._progress, f"{doing}{job.item.dataset} {job.number}{job.name}"
        return lambda done, length: progress(name, done, length)


def _named(item: Item, message: str) -> str:
    """Put the name of an item in front of a message, unless it is there."""
    return message if message.startswith(item.label) else f"{item.label}: {message}"


def _jobs_of(item: Item, paths: Sequence[Path]) -> list[_Job]:
    """Return a job for each archive that the user has put there; numbered pieces of one are one job."""
    whole: dict[str, list[Path]] = {}
    for path in paths:
        piece = _PIECE.fullmatch(path.name)
        whole.setdefault(piece[1] if piece else path.name, []).append(path)
    for of_one in whole.values():
        check_gaps(of_one[0], [path.name for path in of_one])
    return [_Job(item=item, name=name, sources=(), paths=tuple(of_one)) for name, of_one in whole.items()]


def _check_text(job: _Job) -> _Result:
    """Check a plain file that the user has put there."""
    checked_file(Source(name=job.name, url="", browser_url="", kind="text"), job.paths[0])
    return _Result("present")


def _is_as_published(job: _Job) -> bool:
    """Whether a fetched archive is what its source has: by a published hash, or because the same came twice."""
    path = job.paths[0]
    for source in job.sources:
        try:
            if source.md5 or source.sha256:
                verify(source, path)
                return True
        except UnfitFileError:
            continue
    former = path.with_name(f"{path.name}.broken")
    return former.is_file() and filecmp.cmp(path, former, shallow=False)


def _check_placed(item: Item, path: Path) -> None:
    """Warn of an archive that the user has put there and that is not the published one; it may be packed anew."""
    published = item.entry.published_of(path.name)
    if not (published.md5 or published.sha256):
        return
    source = Source(
        name=path.name,
        url="",
        browser_url="",
        num_bytes=published.num_bytes,
        md5=published.md5,
        sha256=published.sha256,
        kind="archive",
    )
    try:
        checked_file(source, path)
    except UnfitFileError as error:
        log.warning("%s: %s; it is damaged or another packing, and is unpacked as it is", item.label, error)


def _how_near(job: _Job) -> int:
    """Return 0 for an archive that is unpacked, 1 for one that is there, 2 for one that has begun, else 3."""
    path = job.paths[0]
    marker = job.item.marker_folder / f"{job.name}.json"
    return 0 if _is_done(marker) else 1 if path.is_file() else 2 if url_of_part(path) else 3


def _read_marker(marker: Path) -> dict[str, Any] | None:
    """Return what a marker tells; None if it is not there or damaged."""
    try:
        told = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and {"archives", "into", "first", "last"} <= set(told) else None


def _is_done(marker: Path, job: _Job | None = None) -> bool:
    """Whether a marker says that an archive is unpacked, and its files are still there.

    Args:
        marker: the file.
        job: the archive; one that the user has put there counts only while it is the same.
    """
    told = _read_marker(marker)
    if told is None:
        return False
    folder = marker.parent.parent.parent
    is_there = all(name is None or os.path.lexists(folder / str(name)) for name in (told["first"], told["last"]))
    if job is None or job.sources:
        return is_there
    return is_there and told["archives"] == [[path.name, path.stat().st_size] for path in job.paths]


def _placed(item: Item, name: str) -> list[Path]:
    """Return the files that the user has put there for one entry of `place`, in natural order."""
    folders = [item.folder / "annotations"]
    if item.entry.into is not None:
        folders += [item.folder, item.folder / "archives"]
    for pattern in name.split("|"):
        for ending in ("", "[._-]*"):  # the archive, else pieces of it
            found = {
                path.name: path
                for folder in folders
                for path in map(Path, glob.glob(os.path.join(glob.escape(str(folder)), pattern + ending)))
                if path.is_file() and not path.name.endswith((".sha256", ".lock", ".part", ".broken"))
                if not ending or _PIECE.fullmatch(path.name)
            }
            if found:
                return [found[key] for key in sorted(found, key=_natural)]
    return []


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _file_name(url: str) -> str:
    """Return the name under which the file of an address is stored; empty if it has none that can be used."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return "" if name in ("", ".", "..") or name.startswith(".") or "\0" in name or len(name) > 200 else name
