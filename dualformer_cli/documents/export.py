"""What `export` says of the file that it wrote, and what that file says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dualformer_cli.documents.base import absent

ExportFormat = Literal["safetensors", "pt2", "onnx", "hub"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFileFacts:
    """What an exported file says of itself: every field is an entry of its metadata, as JSON where it is no text."""

    kind: str
    dualformer: str
    """Version that wrote the file."""
    config: str
    """Model and data as YAML, which loads as a preset."""
    class_names: tuple[str, ...] | None
    """In the order of the logits; None where nobody has named them."""
    input_size: tuple[int, int, int]
    """Frames, height and width of a clip; the input has the shape (clips, 3, frames, height, width)."""
    mean: tuple[float, float, float]
    """Subtracted from red, green, blue, in grey levels."""
    std: tuple[float, float, float]
    """Divides red, green, blue after that."""
    sampling: str
    """How frames are chosen: interval or segments."""
    frame_interval: int
    num_clips: int
    """Clips of a video, whose scores are averaged."""
    num_crops: int
    short_side: int
    """Frames are resized to this short side before the central crop, in pixels."""
    multi_label: bool
    """Whether a score is the sigmoid of a logit, in place of the softmax of all."""
    weights_sha256: str | None
    """Of the file that was exported."""
    temperature: float
    """The classifier was divided by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportCalibration:
    """How the scores were made as likely as they say."""

    temperature: float
    """The classifier was divided by it."""
    videos: int
    """Scored videos of the dump that it was found from."""
    calibration_error_before: float
    """Expected calibration error of the dump's scores, in percent points."""
    calibration_error_after: float
    """The same with the temperature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """`export --json`."""

    output: str
    """File, or folder of the format hub."""
    format: ExportFormat
    num_bytes: int
    preset: str
    weights: str
    weights_sha256: str | None
    """Of the file that was exported."""
    num_classes: int
    input_shape: tuple[int | None, int, int, int, int]
    """Clips, colours, frames, height, width; clips are null where there may be any number."""
    half: bool
    """Whether the numbers are stored in half precision."""
    largest_difference: float
    """Between logits of the file, loaded again, and of the model, over random clips."""
    largest_logit: float
    """Of the model, over the same clips, without its sign."""
    calibration: ExportCalibration | None = absent()
    """Where a dump was given."""
