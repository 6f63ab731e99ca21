"""Datasets and published weights are listed, or fetched to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dualformer_cli.data.datasets.catalogue import Catalogue, load_catalogue
from dualformer_cli.data.datasets.find_videos import DATA
from dualformer_cli.data.datasets.missing import count_present
from dualformer_cli.data.fetch.acquire import acquire
from dualformer_cli.data.fetch.fetch import OnFileBytes
from dualformer_cli.data.fetch.inventory import describe, state_of
from dualformer_cli.data.fetch.items import Selection, plan, select
from dualformer_cli.data.fetch.weights import fetch_weights, list_weights
from dualformer_cli.documents.download import Download, DownloadList, DownloadPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadRequest:
    """What to fetch, and where to."""

    names: tuple[str, ...] = ()
    """Datasets, and presets with published weights; () for all that there are."""
    only: tuple[str, ...] = ()
    """Of a dataset only its annotations, videos, or weights: those of the presets trained on it; () for all files."""
    splits: tuple[str, ...] | None = None
    """Of a dataset only these splits; None for all."""
    root: Path | None = None
    """Folder of all; None for ./data, and for weights the cache, where all commands look."""
    delete_archives: bool = False
    """Whether each fetched archive is deleted once it is unpacked."""
    skip_certificate_check: bool = False
    """Whether to fetch from the servers that are known for a broken certificate chain."""
    offline: bool = False
    """Whether to use only what is here."""


def list_downloads(request: DownloadRequest) -> DownloadList:
    """Return what can be fetched, and what of it is here, without the network.

    Raises:
        DownloadError: for a name that is neither a dataset nor a preset with published weights.
    """
    catalogue, selection = _selected(request)
    return DownloadList(
        datasets=tuple(describe(catalogue, name, request.root or DATA) for name in selection.datasets),
        weights=tuple(list_weights(selection.weights, root=request.root)),
    )


def plan_download(request: DownloadRequest) -> DownloadPlan:
    """Return what `download` would do, without the network; it raises as that."""
    catalogue, selection = _selected(request)
    items = plan(catalogue, selection.datasets, request.root or DATA, groups=selection.groups, splits=request.splits)
    return DownloadPlan(
        files=tuple(state_of(catalogue, item) for item in items),
        weights=tuple(list_weights(selection.weights, root=request.root)),
    )


def download(request: DownloadRequest, progress: OnFileBytes | None = None) -> Download:
    """Fetch, unpack and count. What fails is in the document, and does not stop the rest.

    Raises:
        DownloadError: for a name that is neither a dataset nor a preset with published weights, or a full disk.
    """
    catalogue, selection = _selected(request)
    root = request.root or DATA
    files = acquire(
        catalogue,
        plan(catalogue, selection.datasets, root, groups=selection.groups, splits=request.splits),
        offline=request.offline,
        delete_archives=request.delete_archives,
        skip_certificate_check=request.skip_certificate_check,
        progress=progress,
    )
    weights = fetch_weights(selection.weights, root=request.root, offline=request.offline, progress=progress)
    return Download(
        datasets=tuple(files),
        present={name: tuple(count_present(catalogue, name, root, request.splits)) for name in selection.datasets},
        results=tuple(weights),
    )


def _selected(request: DownloadRequest) -> tuple[Catalogue, Selection]:
    catalogue = load_catalogue()
    return catalogue, select(catalogue, request.names or [*catalogue.datasets, *catalogue.weights], request.only)
