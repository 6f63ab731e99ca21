"""What `dualformer prepare` prints of videos: what it would do (--dry-run), and what it found and wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dualformer_cli.documents.base import absent, inlined

Convert = Literal["transcode", "frames"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arguments:
    """All that decides what is written, beside the videos."""

    layout: str
    """How the folder was read."""
    split: tuple[float, ...]
    """Shares of train, val and maybe test."""
    seed: int
    group_look_alikes: bool
    check: bool
    formats: tuple[str, ...]
    """Older list formats that are written too."""
    convert: Convert | None
    short_side: int | None = absent()
    quality: int | None = absent()
    """Constant rate factor of H.264, less is better; or quality of JPEG, more is better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListCounts:
    """What one list holds."""

    videos: int
    per_class: tuple[int, ...]
    """Videos of each class, by its number."""
    usable: int | None = absent()
    """Videos that are not broken."""
    fingerprint: str | None = absent()
    """SHA-256 of the manifest's rows, as `train` and `eval` show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """How many videos there are of a kind, and a few of them."""

    videos: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetSplit:
    """One official split against the files that are there."""

    annotated: int
    published: int | None
    """Videos that the annotations should name, where they name fewer."""
    listed: int
    missing: int
    unlabelled: int
    repeated: int
    """Annotations of a video that has one already."""
    conflicting: int
    """Videos with two different classes where one is asked for."""
    ambiguous: int
    """Videos whose file name others have too."""
    missing_videos: tuple[str, ...]
    """Empty where none is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetCounts:
    """A published dataset: its annotations against the files that are there."""

    name: str
    title: str
    metric: str
    splits: Mapping[str, DatasetSplit]
    copies: Examples
    """Files with a video that another file holds too."""
    not_annotated: Examples


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundVideos:
    """Which labelled videos there are, and how they are split."""

    folder: str
    root: str
    """Folder that is written."""
    arguments: Arguments
    layout: str
    videos: int
    classes: tuple[str, ...]
    is_multi_label: bool
    splits: Mapping[str, ListCounts]
    """By the name of the list, without suffix."""
    skipped: Mapping[str, int]
    """Why files were left out, and how many."""
    messages: tuple[str, ...]
    dataset: DatasetCounts | None = absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionEstimate:
    """What a conversion will need, from some frames of a few videos."""

    videos: int
    bytes: int
    give_or_take: float
    """How far off the bytes may be, as a share of them."""
    seconds: float
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationPlan:
    """`prepare --dry-run --json`."""

    found: FoundVideos = inlined()
    estimate: ConversionEstimate | None = absent()
    """With --transcode or --frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenVideo:
    """A video that cannot be used, and why."""

    path: str
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoNote:
    """Something odd, without making a video unusable."""

    note: str
    videos: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A value over all videos that have it."""

    total: float
    min: float
    median: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """The usable videos as they lie in the folder, before a conversion."""

    videos: int
    bytes: int
    num_frames: Spread | None
    duration_seconds: Spread | None
    sizes: Mapping[str, int]
    """Videos by WIDTHxHEIGHT, the most frequent first."""
    fps: Mapping[str, int]
    codecs: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAlikePair:
    """Two videos of different splits that look alike."""

    first: str
    first_split: str
    second: str
    second_split: str
    bits: float
    """Mean difference of their frames, of 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LookAlikes:
    """Videos of different splits that look alike."""

    pairs: int
    examples: tuple[LookAlikePair, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledVideo:
    """A video and its classes."""

    path: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SameBytes:
    """Videos that are the same, byte for byte."""

    two_labels: int
    """How often the labels differ."""
    one_label: int
    """Copies of a video with the same label."""
    examples: tuple[tuple[LabelledVideo, ...], ...]
    """Of different labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationSummary:
    """prepare.json: what was found and written, whatever a run had to do for it."""

    found: FoundVideos = inlined()
    status: Mapping[str, int]
    """Videos that are ok, sequential_only and broken."""
    broken: tuple[BrokenVideo, ...]
    notes: tuple[VideoNote, ...]
    statistics: Statistics
    look_alikes: LookAlikes
    same_bytes: SameBytes
    fingerprint: str
    """SHA-256 over the videos as they are listed and as they lie on disk."""
    files: Mapping[str, str]
    """Name of each list that was written, below the root, and its SHA-256."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionCounts:
    """What a run converted; empty without a conversion."""

    converted: int | None = absent()
    kept: int | None = absent()
    """Converted by an earlier run."""
    failed: int | None = absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """`prepare --json`."""

    summary: PreparationSummary = inlined()
    run: ConversionCounts
