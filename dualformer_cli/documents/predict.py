"""What `predict` says of videos: the document of --json, the lines of a run folder, and the rows of features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from dualformer_cli.documents.base import absent, inlined

BUILT_IN_QUESTION = "how the camera moves"
"""What the built-in model answers, in the place of the default one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What a result can be traced to."""

    preset: str
    weights: str
    """published, built-in, random, or a file; "published k400-tiny" where they are those of another preset."""
    weights_sha256: str | None
    device: str
    precision: str
    views: str
    """Clips times crops of a video, such as 4x1."""

    @property
    def model(self) -> str:
        """Return preset and weights in words; weights that brought their own configuration are named once."""
        return self.preset if self.preset == self.weights else f"{self.preset}, {self.weights} weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredLabel:
    """One class of a video with its score."""

    label: str
    index: int
    score: float
    """0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A part of a timeline in which one class is the best."""

    start_seconds: float
    end_seconds: float
    label: str
    index: int
    score: float
    """Mean over the part, weighted by duration."""

    def joined(self, following: Segment) -> Segment:
        """Return this part and the one that follows it as one, with this one's label."""
        before, now = (part.end_seconds - part.start_seconds for part in (self, following))
        score = (self.score * before + following.score * now) / ((before + now) or 1.0)
        return replace(self, end_seconds=following.end_seconds, score=score)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveClip:
    """The latest clip of a camera or stream."""

    path: str
    """Of the camera or stream; an address without its password."""
    start_seconds: float
    """End of the clip before; of the first clip, its first frame."""
    end_seconds: float
    predictions: tuple[ScoredLabel, ...]
    unsure_below: float | None = absent()
    """As that of a video."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of one video went."""

    decode_seconds: float
    preprocess_seconds: float
    forward_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoResult:
    """What the model said about one input, or why it could not."""

    path: str
    """As it was named or found; an address without its password."""
    status: Literal["ok", "error"]
    error: str | None = absent()
    """Why there is no result, or why it could not be saved."""
    num_frames: int | None = None
    fps: float | None = None
    duration_seconds: float | None = None
    views: int = 0
    predictions: tuple[ScoredLabel, ...] = ()
    """Of the whole video, best first."""
    segments: tuple[Segment, ...] | None = absent()
    """The timeline (--every, and live inputs)."""
    unsure_below: float | None = absent()
    """Score (--min-score) that the best label, or that of a part of the timeline, does not reach; absent if all do."""
    labels: tuple[str, ...] | None = absent()
    """That the list gives it, which was named as input."""
    is_right: bool | None = absent()
    """Whether the best label is one of these; absent where the model has none of them."""
    interrupted: bool | None = absent()
    """True where Ctrl-C ended a live input."""
    warnings: tuple[str, ...] | None = absent()
    timing: Timing | None = absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCounts:
    """How often the best label of a video is the one that a list gives it."""

    right: int
    wrong: int
    not_compared: int
    """Videos with an error, and those whose label is none of the model's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What a model said about all inputs."""

    facts: ModelFacts = inlined()
    fallback: str | None
    """Why the built-in model was taken in place of the default one; null if it was not."""
    results: tuple[VideoResult, ...]
    """In the order of the inputs."""
    compared: LabelCounts | None = absent()
    """With the labels of the lists that were named as inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPredictions:
    """What is said where no input is there, so that no model is loaded: the names of `Predictions` without values."""

    preset: None = None
    weights: None = None
    weights_sha256: None = None
    device: None = None
    precision: None = None
    views: None = None
    fallback: None = None
    results: tuple[VideoResult, ...]
    """In the order of the inputs, each with its error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCounts:
    """How many videos a run folder was asked for, and what became of them."""

    listed: int
    ok: int
    failed: int
    """Videos with an error, which predictions.jsonl and predictions.csv name."""
    kept: int
    """Videos among these that an earlier run had classified, or found to be unusable."""
    lost: int
    """Videos that a process had in hand when it died; the same command again classifies them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRun:
    """What `predict --output` has put into its folder."""

    facts: ModelFacts = inlined()
    fallback: str | None
    """Why the built-in model was taken in place of the default one; null if it was not."""
    output: str
    """The folder."""
    videos: RunCounts
    files: tuple[str, ...]
    """That were written."""
    compared: LabelCounts | None = absent()
    """With the labels of the lists that were named as inputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureRow:
    """Pooled features of a video or of a segment of its timeline."""

    path: str
    start_seconds: float | None
    """None for a whole video, as the end is."""
    end_seconds: float | None
    features: npt.NDArray[np.float32]
    """Mean over the tokens after the final norm, shape (c,)."""
