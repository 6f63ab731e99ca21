"""What `gradcam` says: the layers of a model (--list-layers), and where in a video it sees a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dualformer_cli.documents.base import inlined
from dualformer_cli.documents.predict import ModelFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerRow:
    """One block of a model."""

    layer: str
    """STAGE/BLOCK."""
    attention: Literal["local", "global"]
    grid: tuple[int, int, int]
    """Tokens in time, height and width."""
    channels: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerList:
    """Every layer of a model."""

    preset: str
    layers: tuple[LayerRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedClass:
    """The class whose evidence is shown."""

    index: int
    label: str
    score: float
    """As `predict` gives it: the mean of the views' probabilities."""
    logit: float
    """Mean over the views."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedVideo:
    """The video as a whole."""

    num_frames: int
    fps: float | None
    duration_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionCurves:
    """Scores of the class while more and more of the clips is deleted, the mean over the views."""

    score: float
    """Area between the curves: above 0 if the hottest places matter more to the class than random ones."""
    spread: float
    """Standard deviation of that area over the views and the random orders."""
    shares: Sequence[float]
    """Deleted shares of the clip, 0 to 1."""
    hottest_first: Sequence[float]
    random_order: Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradcam:
    """Where a model sees one class in a video."""

    facts: ModelFacts = inlined()
    path: str
    output: str | None
    """The picture or video; null where it could not be written."""
    npz: str | None
    """The arrays; null where none were asked for or they could not be written."""
    layer: str
    grid: tuple[int, ...]
    """Tokens in time, height and width."""
    gradient_of: Literal["logit", "probability"]
    class_: ExplainedClass
    num_frames: int
    """That are shown."""
    frames: Sequence[int]
    """Their numbers in the video."""
    saliency: Sequence[float]
    """Mean heat of each frame."""
    num_views: int
    view_scores: Sequence[float]
    """Probability of the class in each view."""
    video: ExplainedVideo
    deletion: DeletionCurves | None
    warnings: tuple[str, ...]
    fallback: str | None
    """Why the built-in model was taken in place of the default one; null if it was not."""
