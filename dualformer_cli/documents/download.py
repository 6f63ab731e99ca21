"""What `dualformer download` prints: what can be fetched (--list), what would be (--dry-run), and what was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

State = Literal["present", "partly", "missing"]
Status = Literal["done", "present", "by hand", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesState:
    """What is there of one entry of a dataset's files, and what a run would do."""

    dataset: str
    name: str
    group: str
    split: str | None
    state: State
    num_done: int
    """Archives or files that are there and unpacked."""
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
class DatasetState:
    """A dataset, and what is there of it."""

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
    files: tuple[FilesState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsState:
    """Published weights, and whether they are here."""

    name: str
    kind: Literal["weights"] = "weights"
    state: Literal["present", "missing", "broken"]
    path: str
    url: str
    """Page where a person fetches the file."""
    minimum_bytes: int
    """The real size is not published."""
    top1: float | None
    """Published top-1, in percent."""
    licence: str | None
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadList:
    """What can be fetched."""

    datasets: tuple[DatasetState, ...]
    weights: tuple[WeightsState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadPlan:
    """What a run would do."""

    files: tuple[FilesState, ...]
    weights: tuple[WeightsState, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesOutcome:
    """What became of one entry of a dataset's files."""

    dataset: str
    name: str
    group: str
    status: Status
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
class WeightsOutcome:
    """What became of the published weights of one preset."""

    name: str
    kind: Literal["weights"] = "weights"
    status: Literal["fetched", "present", "error"]
    path: str
    url: str
    num_bytes: int | None = None
    sha256: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPresence:
    """One split of a dataset, or one folder of it where the annotations are not there."""

    split: str
    annotated: int
    """Videos in the annotations, or those that the folder should have."""
    present: int
    examples: tuple[str, ...]
    """Some that are missing."""
    published: int | None = None
    """Videos that the annotations should name, where they name fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What a run did."""

    datasets: tuple[FilesOutcome, ...]
    present: Mapping[str, tuple[SplitPresence, ...]]
    """By dataset, how many of its annotated videos are there."""
    results: tuple[WeightsOutcome, ...]
