"""The weights of presets: the published ones, fetched into the cache or a folder, and those that the package ships.

Their addresses, sizes and checksums are in `data/datasets/catalogue.yaml`, with those of the datasets.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

from dualformer_cli.data.datasets.catalogue import Catalogue, load_catalogue
from dualformer_cli.data.fetch.archive_members import UnfitFileError
from dualformer_cli.data.fetch.fetch import OnFileBytes, await_answer, fetch, in_threads, not_fetched
from dualformer_cli.data.fetch.http import OnBytes, Patience, Session, Source, TransferError, open_file
from dualformer_cli.data.fetch.past_failures import note_failure, past_failure
from dualformer_cli.data.fetch.verify import checked_file
from dualformer_cli.documents.download import WeightsOutcome, WeightsState
from dualformer_cli.errors import DownloadError, WeightsError, nearest
from dualformer_cli.system.files import cache_dir

log = logging.getLogger(__name__)

SHIPPED_WEIGHTS = {"camera-motion": "camera-motion.safetensors"}
"""Presets whose weights come with the package, and their files in built_in."""


def published_weights(
    preset: str, *, offline: bool, progress: OnBytes | None = None, patience: Patience = Patience()
) -> Path:
    """Return the file of a preset's published weights, fetching it into the cache if it is not there.

    Those that come with the package are taken from it.

    Args:
        preset: a preset with published weights.
        offline: fail instead of using the network.
        progress: called with the bytes as they come.
        patience: how long to wait for the server.

    Raises:
        DownloadError: a preset without published weights, or a file that cannot be fetched.
    """
    if (shipped := shipped_weights(preset)) is not None:
        return shipped
    catalogue = load_catalogue()
    target = _weights_path(catalogue, preset, None)
    return fetch(
        published_source(catalogue, preset), target, progress=progress, patience=patience, offline=offline
    ).path


def shipped_weights(preset: str) -> Path | None:
    """Return the file of weights that come with the package; None if the preset has none there."""
    name = SHIPPED_WEIGHTS.get(preset)
    path = None if name is None else Path(str(files("dualformer_cli.data.fetch") / "built_in" / name))
    return path if path is not None and path.is_file() else None


def weights_names() -> tuple[str, ...]:
    """Return the presets whose weights can be fetched, or come with the package."""
    return (*load_catalogue().weights, *SHIPPED_WEIGHTS)


def preset_of(name: str) -> str | None:
    """Return the preset whose published weights a user names; None where it names a file."""
    return name if not os.path.isfile(name) and name in weights_names() else None


def require_weights(name: str) -> None:
    """Refuse a name of weights that is no file.

    Raises:
        WeightsError: saying which presets are spelled so, or what can be given.
    """
    if not os.path.lexists(name):
        names = weights_names()
        hint = f"{hint} Give" if (hint := nearest(name, names)) else "; give"
        raise WeightsError(
            f"weights {name!r} not found{hint} a file, hf://OWNER/NAME, or a preset with weights: {', '.join(names)}"
        )


def weights_within_reach(
    preset: str, *, offline: bool, progress: OnBytes | None = None, answer_seconds: float = 4.0
) -> Path:
    """Like `published_weights`, but give up soon where no server answers.

    Args:
        preset: a preset with published weights.
        offline: fail instead of using the network.
        progress: called with the bytes as they come.
        answer_seconds: the server must have begun to send the file by then, looking up its name included.

    Raises:
        DownloadError: as `published_weights`.
    """
    require_reachable(preset, offline=offline, answer_seconds=answer_seconds)
    try:
        return published_weights(
            preset, offline=offline, progress=progress, patience=Patience(connect_seconds=answer_seconds)
        )
    except DownloadError as error:
        if not offline:
            _note_failure(preset, error.reason)
        raise


def require_reachable(preset: str, *, offline: bool, answer_seconds: float = 4.0) -> None:
    """Make sure that a preset's published weights are here, or that a server offers them; nothing is fetched.

    A server that did not answer is not asked again before a day is over; `fetch_weights` always asks.

    Raises:
        DownloadError: as `published_weights`.
    """
    if cached_weights(preset) is not None:
        return
    catalogue = load_catalogue()
    source, target = published_source(catalogue, preset), _weights_path(catalogue, preset, None)
    if offline:
        raise not_fetched(source, target, "offline, and the file is missing")
    if (reason := past_failure(target, source.url)) is not None:
        raise not_fetched(source, target, reason)
    try:
        patience = Patience(connect_seconds=answer_seconds, read_seconds=answer_seconds)
        await_answer(lambda: open_file(Session(patience), source, {}).close(), answer_seconds)
    except TransferError as error:
        note_failure(target, source.url, str(error))
        raise not_fetched(source, target, str(error)) from error


def _note_failure(preset: str, reason: str) -> None:
    catalogue = load_catalogue()
    note_failure(_weights_path(catalogue, preset, None), published_source(catalogue, preset).url, reason)


def cached_weights(preset: str) -> Path | None:
    """Return the file of a preset's published weights if it is in the cache and good, without using the network.

    Raises:
        DownloadError: a preset without published weights.
    """
    catalogue = load_catalogue()
    state = _state(catalogue, preset, None)
    return Path(state.path) if state.state == "present" else None


def list_weights(names: Sequence[str] | None = None, *, root: Path | None = None) -> list[WeightsState]:
    """Say what can be fetched, where it goes, and whether it is there; the network is not used.

    Args:
        names: presets; None for all with published weights.
        root: folder below which `weights/` lies; None for the cache.

    Raises:
        DownloadError: a preset without published weights.
    """
    catalogue = load_catalogue()
    return [_state(catalogue, name, root) for name in (catalogue.weights if names is None else dict.fromkeys(names))]


def _state(catalogue: Catalogue, name: str, root: Path | None) -> WeightsState:
    """Check one file; a broken one is worth a warning."""
    entry, path = catalogue.entry(name), _weights_path(catalogue, name, root)
    try:
        found = checked_file(published_source(catalogue, name), path)
        state: Literal["present", "missing", "broken"] = "present" if found else "missing"
    except UnfitFileError as error:
        log.warning("%s", error)
        state = "broken"
    return WeightsState(
        name=name,
        state=state,
        path=str(path),
        url=entry.browser_url,
        minimum_bytes=entry.minimum_bytes,
        top1=entry.top1,
        licence=entry.licence,
        note=entry.note,
    )


def fetch_weights(
    names: Sequence[str],
    *,
    root: Path | None = None,
    offline: bool = False,
    progress: OnFileBytes | None = None,
    patience: Patience | None = None,
) -> list[WeightsOutcome]:
    """Fetch published weights, several files at a time. One that fails does not stop the others.

    Args:
        names: presets; repeated ones count once.
        root: folder below which `weights/` is made; None for the cache.
        offline: fail instead of using the network.
        progress: called with the bytes of each name as they come, from several threads.
        patience: timeouts and retries.

    Raises:
        DownloadError: a preset without published weights; nothing is fetched then.
    """
    catalogue = load_catalogue()
    unique = list(dict.fromkeys(names))
    sources = [published_source(catalogue, name) for name in unique]

    def fetch_one(source: Source) -> WeightsOutcome:
        path = _weights_path(catalogue, source.name, root)
        outcome = WeightsOutcome(name=source.name, status="error", path=str(path), url=source.browser_url)
        report = None if progress is None else lambda done, length: progress(source.name, done, length)
        try:
            result = fetch(source, path, progress=report, patience=patience, offline=offline)
        except DownloadError as error:
            return replace(outcome, error=str(error))
        return replace(outcome, status=result.status, num_bytes=result.num_bytes, sha256=result.sha256)

    return in_threads(fetch_one, sources)


def _weights_path(catalogue: Catalogue, preset: str, root: Path | None) -> Path:
    folder = cache_dir() if root is None else root
    return folder.absolute() / "weights" / catalogue.entry(preset).file_name


def published_source(catalogue: Catalogue, preset: str) -> Source:
    """Return where the published weights of a preset come from.

    Raises:
        DownloadError: a preset without published weights.
    """
    entry = catalogue.entry(preset)
    on_drive = entry.url is None
    return Source(
        name=preset,
        url=catalogue.address(entry.url or catalogue.google_drive["direct"].replace("{id}", str(entry.drive_id))),
        drive_page=catalogue.address(catalogue.google_drive["page"].replace("{id}", str(entry.drive_id)))
        if on_drive
        else None,
        browser_url=entry.browser_url,
        minimum_bytes=entry.minimum_bytes,
        sha256=entry.sha256,
        kind="checkpoint",
    )
