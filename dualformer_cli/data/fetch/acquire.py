"""Datasets come to this machine: what the catalogue says of each is fetched, unpacked, and marked as done."""

from __future__ import annotations

import filecmp
import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from dualformer_cli.data.datasets.catalogue import Catalogue
from dualformer_cli.data.fetch.archive_members import DamagedArchiveError, UnfitFileError
from dualformer_cli.data.fetch.fetch import FILES_AT_ONCE, OnFileBytes, fetch, in_threads
from dualformer_cli.data.fetch.http import CertificateError, OnBytes, Patience, Source, TransferError
from dualformer_cli.data.fetch.inventory import is_filled_by_hand, is_from_elsewhere, is_marked, state_of
from dualformer_cli.data.fetch.items import PIECE, Item, file_name, placed_files, route
from dualformer_cli.data.fetch.markers import is_done, write_marker
from dualformer_cli.data.fetch.partial_file import url_of_part
from dualformer_cli.data.fetch.rar import find_tools, missing_tool
from dualformer_cli.data.fetch.unpack import check_gaps, staging_folder, unpack
from dualformer_cli.data.fetch.verify import checked_file, verify
from dualformer_cli.documents.download import FilesOutcome, Status
from dualformer_cli.errors import DownloadError
from dualformer_cli.system.disk import lack_of_room
from dualformer_cli.system.locks import locked
from dualformer_cli.system.words import os_reason

log = logging.getLogger(__name__)

GIVE_UP_AFTER = 5
"""Archives of a list that fail before any has come, after which the others are not tried."""
_MAX_LISTED = 100_000


def acquire(
    catalogue: Catalogue,
    items: Sequence[Item],
    *,
    offline: bool = False,
    delete_archives: bool = False,
    skip_certificate_check: bool = False,
    progress: OnFileBytes | None = None,
    patience: Patience | None = None,
) -> list[FilesOutcome]:
    """Fetch and unpack what is missing, several archives at a time. One that fails does not stop the others.

    Args:
        catalogue: what there is.
        items: what to get.
        offline: use only what is there.
        delete_archives: delete what was fetched once it is unpacked.
        skip_certificate_check: fetch from servers that are known for a broken certificate chain.
        progress: called with the bytes of each archive, from several threads.
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

    @property
    def placed(self) -> tuple[Path, ...]:
        """The files that the user has put there; none where they are fetched."""
        return () if self.sources else self.paths


def require_space(catalogue: Catalogue, items: Sequence[Item], *, delete_archives: bool) -> None:
    """Fail before a download that cannot fit: archives, and as much again for what comes out of them.

    Raises:
        DownloadError: naming both sizes.
    """
    needed = sum(_needed_bytes(catalogue, item, delete_archives=delete_archives) for item in items)
    if lack := lack_of_room(next((item.folder for item in items), Path.cwd()), needed):
        less = "" if delete_archives else "--delete-archives to keep only what is unpacked, "
        raise DownloadError(f"{lack}; choose another --root, {less}or less with --only or --split")


def _needed_bytes(catalogue: Catalogue, item: Item, *, delete_archives: bool) -> int:
    """Return about how many more bytes an item will take, its archives and what comes out of them."""
    left = state_of(catalogue, item).missing_bytes
    if item.entry.is_by_hand or not left:
        return 0
    num_archives = item.entry.num_archives or 1
    if delete_archives and num_archives > 1:
        return left + FILES_AT_ONCE * left // num_archives
    there = sum(path.stat().st_size for path in item.archive_folder.rglob("*") if path.is_file())
    return 2 * left - min(there, left)


class _Result(NamedTuple):
    """What became of one archive."""

    status: Status
    message: str = ""


def _outcome(item: Item, results: Sequence[_Result]) -> FilesOutcome:
    """Sum up what became of an item's archives."""
    failed = [result for result in results if result.message]
    more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
    num_wanted = max(len(results), item.entry.num_archives or 0)
    if not failed and 1 < len(results) < num_wanted:
        log.warning("%s: %d of %d archives are there", item.label, len(results), num_wanted)
    return FilesOutcome(
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


@dataclass(frozen=True, slots=True)
class _Run:
    """The options of one call, and what its threads do."""

    _catalogue: Catalogue
    _offline: bool
    _delete: bool
    _skip_certificate_check: bool
    _progress: OnFileBytes | None
    _patience: Patience | None
    _failures: dict[str, int] = field(default_factory=dict)

    def expand(self, item: Item) -> list[_Job] | _Result:
        """Return the archives of an item, or why they are not known. Lists of addresses are fetched."""
        try:
            if is_from_elsewhere(item):
                log.debug("%s: another tool has put it there; it is not fetched", item.label)
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
        for name in dict.fromkeys(map(file_name, item.entry.urls)):
            urls = [url for url in item.entry.urls if file_name(url) == name]
            sources = tuple(self._source(item, url, item.label) for url in urls)
            jobs.append(_Job(item=item, name=name, sources=sources, paths=(item.archive_folder / name,)))
        jobs.sort(key=_how_near)  # stable: of those that have not come, the first
        return replace(jobs[0], others=tuple(jobs[1:]))

    def _listed(self, item: Item, url: str) -> list[_Job]:
        """Fetch a list of addresses and return what it names."""
        path = item.folder / "archives" / file_name(url)
        source = replace(self._source(item, url, f"{item.label} list"), kind="text")
        self._fetch(_Job(item=item, name=path.name, sources=(source,), paths=(path,)))
        jobs: dict[str, _Job] = {}
        lines = path.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            name = file_name(line.strip())
            if not re.match("https?://", line.strip()) or not name or number > _MAX_LISTED:
                raise UnfitFileError(path, f"is no list of addresses: line {number} is {line[:100]!r}")
            source = self._source(item, line.strip(), f"{item.label} {name}")
            jobs.setdefault(name, _Job(item=item, name=name, sources=(source,), paths=(item.archive_folder / name,)))
        if not jobs:
            raise UnfitFileError(path, "is empty; it should list addresses")
        return [replace(job, number=f"{number}/{len(jobs)} ") for number, job in enumerate(jobs.values(), start=1)]

    def _placed_jobs(self, item: Item) -> list[_Job] | _Result:
        """Return what the user has put there, or what there is to do."""
        found = {name: placed_files(item, name) for name in item.entry.place}
        missing = tuple(name for name, paths in found.items() if not paths and not is_marked(item, name))
        paths = [path for of_name in found.values() for path in of_name]
        if not paths and is_filled_by_hand(item):
            return [_Job(item=item, name="", sources=(), paths=())]
        if missing or not found:
            return _Result("by hand", f"{item.label}: {route(item, missing)}")
        if not item.entry.parts or not paths:
            jobs = [job for of_name in found.values() for job in _jobs_of(item, of_name)]
            return jobs or [_Job(item=item, name="", sources=(), paths=())]
        check_gaps(paths[0], [path.name for path in paths])
        return [_Job(item=item, name="parts", sources=(), paths=tuple(paths))]

    def _source(self, item: Item, url: str, name: str) -> Source:
        entry, published = item.entry, item.entry.published_of(file_name(url))
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
            message = f"{item.label}: {os_reason(error)} ({str(error.filename or item.folder)!r})"
        else:
            self._failures[item.label] = -_MAX_LISTED
            return result
        self._failures[item.label] = self._failures.get(item.label, 0) + 1
        return _Result("error", message)

    def _work(self, job: _Job) -> _Result:
        if not job.paths:
            return _Result("present")
        if job.item.entry.into is None:
            if job.sources:
                return self._fetch(job)
            checked_file(Source(name=job.name, url="", browser_url="", kind="text"), job.paths[0])
            return _Result("present")
        marker = job.item.marker_folder / f"{job.name}.json"
        if is_done(marker, job.placed):
            return _Result("present")
        marker.parent.mkdir(parents=True, exist_ok=True)
        with locked(marker) as held:
            if is_done(marker, job.placed):  # by another process, while this one waited
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
                _checkplaced_files(item, job.paths[0])
            try:
                done = unpack(job.paths, item.folder, item.layout, progress=self._reporter(job, "unpack "), held=held)
                break
            except DamagedArchiveError as error:
                if job.sources and _is_as_published(job):
                    raise error.if_right from error
                if not job.sources or self._offline or is_last_try:
                    raise
                log.warning("%s; fetching it anew", error)
                os.replace(job.paths[0], job.paths[0].with_name(f"{job.name}.broken"))
        write_marker(marker, job.paths, item.entry.into, done)
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
                result = fetch(
                    source, path, progress=self._reporter(job), patience=self._patience, offline=self._offline
                )
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

    def _reporter(self, job: _Job, doing: str = "") -> OnBytes | None:
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
        piece = PIECE.fullmatch(path.name)
        whole.setdefault(piece[1] if piece else path.name, []).append(path)
    for of_one in whole.values():
        check_gaps(of_one[0], [path.name for path in of_one])
    return [_Job(item=item, name=name, sources=(), paths=tuple(of_one)) for name, of_one in whole.items()]


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


def _checkplaced_files(item: Item, path: Path) -> None:
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
    return 0 if is_done(marker) else 1 if path.is_file() else 2 if url_of_part(path) else 3
