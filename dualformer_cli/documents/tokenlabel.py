"""What `tokenlabel` says: the classes of a clip's tokens (show), and the labels that a teacher has stored (write)."""

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
class TeacherFacts:
    """What labels can be traced to."""

    source: str
    """The teacher, as it was named."""
    weights_sha256: str | None
    precision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherTrial:
    """How a teacher did on some videos of the list, one centre view each."""

    videos: int
    """Scored."""
    right: int
    """Videos that have the label which the teacher gives them."""
    chance: float
    """How often chance would do as well, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedTeacher:
    """Who labels, and how it did on some videos of the list."""

    facts: TeacherFacts = inlined()
    trial: TeacherTrial = inlined()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPlan:
    """`tokenlabel write --dry-run --json`: what labels would take."""

    teacher: TriedTeacher
    estimated_bytes: int
    output: str
    """Folder of the labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledVideos:
    """Videos of the list."""

    listed: int
    labelled: int
    unreadable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassShare:
    """Percent of all tokens that have a class as their best."""

    label: str
    index: int
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnlabelledVideo:
    """A video that has no labels."""

    path: str
    error: str
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSummary:
    """What a folder of labels holds: its summary.json."""

    videos: LabelledVideos
    clips: int
    """Of all tiles."""
    tokens: int
    bytes: int
    agreement: float | None
    """Percent of the tokens whose best class is a label of their video; null without tokens."""
    classes: tuple[ClassShare, ...]
    """The ten most frequent best classes of tokens."""
    unreadable: tuple[UnlabelledVideo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLabels:
    """`tokenlabel write --json`."""

    teacher: TriedTeacher
    estimated_bytes: int
    """Said before anything was written."""
    summary: LabelSummary = inlined()
    output: str
    """Folder of the labels."""
