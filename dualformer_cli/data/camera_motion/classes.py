"""The ten kinds of camera motion, and which of them a mirror turns into each other.

They are named after the camera, not after what the picture does: in a pan right the camera turns right, so the content
moves left; in a roll clockwise the camera turns clockwise, so the content turns counter-clockwise; in a zoom in the
content grows.
"""

from __future__ import annotations

CLASSES = (
    "static",
    "pan left",
    "pan right",
    "tilt up",
    "tilt down",
    "zoom in",
    "zoom out",
    "roll clockwise",
    "roll counter-clockwise",
    "shake",
)
"""Names of the classes, in the order of their numbers."""

STATIC, PAN_LEFT, PAN_RIGHT, TILT_UP, TILT_DOWN, ZOOM_IN, ZOOM_OUT, ROLL_CW, ROLL_CCW, SHAKE = range(len(CLASSES))

FLIP_PAIRS = ((PAN_LEFT, PAN_RIGHT), (ROLL_CW, ROLL_CCW))
"""Classes that a mirror turns into each other."""
