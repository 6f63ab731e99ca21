"""What `dualformer prepare camera-motion` prints: what it would need (--dry-run), and what was rendered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSettings:
    """What two runs must have in common to render the same clips."""

    renderer: int
    """Version of the renderer: it grows when the same seed no longer gives the same clips."""
    seed: int
    num_frames: int
    difficulty: float
    busy: float
    """Share of the clips in which much moves before the camera."""
    num_pictures: int
    pictures: str
    """SHA-256 over names and sizes of the picture files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderEstimate:
    """`prepare camera-motion --dry-run --json`: what a run would need, from a few clips that were rendered."""

    root: str
    clips: Mapping[str, int]
    """Split to its number of clips."""
    missing: int
    """Clips that are not there yet."""
    num_bytes: int
    """Disk space of those."""
    seconds: float
    """Time for those."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderSummary:
    """`prepare camera-motion --json`, and camera-motion.json."""

    root: str
    lists: Mapping[str, str]
    """Split to its manifest."""
    clips: Mapping[str, int]
    """Split to its number of clips."""
    classes: tuple[str, ...]
    rendered: int
    """Clips made by this run; the others were there."""
    num_bytes: int
    num_pictures: int
    """Picture files used besides drawn pictures."""
    settings: RenderSettings
