"""What `export` says of the file that it wrote."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """`export --json`."""

    output: str
    num_bytes: int
    temperature: float
    """The classifier was divided by it."""
    videos: int
    """Scored videos of the dump that it was found from."""
    calibration_error_before: float
    """Expected calibration error of the dump's scores, in percent points."""
    calibration_error_after: float
    """The same with the temperature."""
