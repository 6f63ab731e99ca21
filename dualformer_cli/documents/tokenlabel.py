"""What `tokenlabel` says: the classes of a clip's tokens (show), and the labels that a teacher stored (write)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dualformer_cli.documents.base import inlined


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenClass:
    """How many tokens of a clip have a class as their best."""

    label: str
    index: int
    tokens: int
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a model says about each token of a clip."""

    path: str
    preset: str
    weights: str
    weights_sha256: str | None
    device: str
    precision: str
    head: str
    """The head that scored the tokens: classifier or token."""
    grid: tuple[int, ...]
    """Tokens in time, height and width."""
    frames: Sequence[int]
    classes: tuple[TokenClass, ...]
    """The most frequent first."""
    output: str | None
    """The picture; null where it could not be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedTeacher:
    """Who labels, and how it did on some videos of the list."""

    source: str
    weights_sha256: str | None
    precision: str
    videos: int
    """That were scored."""
    right: int
    """How many of them have the label that the teacher gives them."""
    chance: float
    """How often chance would do as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsEstimate:
    """What `write --dry-run` found."""

    teacher: TriedTeacher
    estimated_bytes: int
    output: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoCounts:
    """How many videos of the list have labels."""

    listed: int
    labelled: int
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """How many percent of the tokens have a class as their best."""

    label: str
    index: int
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreadableVideo:
    """A video without labels."""

    path: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelsSummary:
    """What is in a folder of labels: its summary.json."""

    videos: VideoCounts
    clips: int
    tokens: int
    bytes: int
    agreement: float | None
    """Percent of the tokens whose best class is a label of their video; null without tokens."""
    classes: tuple[ClassShare, ...]
    """The ten most frequent."""
    unreadable: tuple[UnreadableVideo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLabels:
    """What `write` did."""

    teacher: TriedTeacher
    estimated_bytes: int
    summary: LabelsSummary = inlined()
    output: str
