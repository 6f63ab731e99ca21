"""Random smooth paths of a camera that makes one motion; amounts are shares of the frame over the whole clip."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dualformer_cli.data.camera_motion.classes import (
    CLASSES,
    PAN_LEFT,
    PAN_RIGHT,
    ROLL_CCW,
    ROLL_CW,
    SHAKE,
    STATIC,
    TILT_DOWN,
    TILT_UP,
    ZOOM_IN,
    ZOOM_OUT,
)

Floats = npt.NDArray[np.float64]

Range = tuple[float, float]

PAN_SHARE: tuple[Range, Range] = ((0.45, 0.9), (0.08, 1.6))
"""How far a pan goes over the clip, in widths of the frame (a tilt: heights): at difficulty 0, and at 1."""
ZOOM_LOG: tuple[Range, Range] = ((0.45, 0.8), (0.1, 1.0))
"""Logarithm of how much a zoom enlarges over the clip: 0.1 is 11%, 1.0 is 2.7 times."""
ROLL_RADIANS: tuple[Range, Range] = ((0.6, 1.2), (0.12, 1.9))
"""Angle of a roll over the clip: 0.12 is 7 degrees."""
SHAKE_SHARE: tuple[Range, Range] = ((0.035, 0.06), (0.012, 0.07))
"""Root mean square of a shake, in short sides of the frame."""
STATIC_JITTER = 0.003
"""The most that a static camera trembles: root mean square in short sides, a quarter of the slightest shake."""
MOVING_JITTER = 0.008
"""The most that a moving camera trembles, and at most a tenth of its motion."""
_STRONGEST_MIXED = 6.0
"""The most that a motion is in a mixture, in the smallest that would get a name by itself."""


@dataclass(frozen=True, slots=True)
class CameraPath:
    """Where the camera looks, one entry a frame; the frame before any motion is all zeros."""

    x: Floats
    """Position of the view's centre, in pixels of the frame to the right."""
    y: Floats
    """The same downwards."""
    zoom: Floats
    """Logarithm of the magnification."""
    angle: Floats
    """Clockwise turn of the camera in radians."""

    def matrices(self) -> Floats:
        """Affine maps, shape (T, 2, 3), from points of a frame to the scene, both in pixels about the centre."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        shrink = np.exp(-self.zoom)
        rows = [shrink * cos, -shrink * sin, self.x, shrink * sin, shrink * cos, self.y]
        return np.stack(rows, axis=-1).reshape(-1, 2, 3)


def random_path(
    rng: np.random.Generator, label: int, *, num_frames: int, size: tuple[int, int], difficulty: float
) -> CameraPath:
    """Draw the path of a camera that makes one motion.

    Args:
        rng: source of every choice.
        label: number of the motion in CLASSES.
        num_frames: entries of the path.
        size: (height, width) of the frame in pixels.
        difficulty: 0 for a large and even motion; at 1 slow and fast ones, uneven, with drift and a trembling hand.

    Raises:
        ValueError: if the label or the difficulty is out of range.
    """
    if not 0 <= label < len(CLASSES):
        raise ValueError(f"label must be 0 to {len(CLASSES) - 1}, got {label}")
    if not 0 <= difficulty <= 1:
        raise ValueError(f"difficulty must be 0 to 1, got {difficulty}")
    height, width = size
    if label == SHAKE:
        return _shake(rng, num_frames, min(size), difficulty)
    progress = _progress(rng, num_frames, difficulty)
    x, y, zoom, angle = (np.zeros(num_frames) for _ in range(4))
    strength = 0.0  # of the motion, as a share of the frame at its edge
    if label in (PAN_LEFT, PAN_RIGHT, TILT_UP, TILT_DOWN):
        strength = _amount(rng, PAN_SHARE, difficulty)
        forth = strength * progress * (1 if label in (PAN_RIGHT, TILT_DOWN) else -1)
        aside = strength * 0.2 * difficulty * rng.uniform(-1, 1) * _progress(rng, num_frames, difficulty)
        is_pan = label in (PAN_LEFT, PAN_RIGHT)
        x, y = (forth * width, aside * width) if is_pan else (aside * height, forth * height)
    elif label in (ZOOM_IN, ZOOM_OUT):
        total = _amount(rng, ZOOM_LOG, difficulty)
        strength = total / 2
        zoom = total * (progress if label == ZOOM_IN else 1 - progress)
        zoom -= zoom[0]
    elif label in (ROLL_CW, ROLL_CCW):
        total = _amount(rng, ROLL_RADIANS, difficulty)
        strength = total / 2
        angle = total * progress * (1 if label == ROLL_CW else -1)
    if label != STATIC:
        zoom, angle = _add_drift(rng, label, zoom, angle, strength, difficulty)
        if label not in (PAN_LEFT, PAN_RIGHT, TILT_UP, TILT_DOWN):
            x, y = _about_a_point(rng, zoom, angle, size, difficulty)
    jitter = STATIC_JITTER if label == STATIC else min(MOVING_JITTER, strength / 10)
    trembling = jitter * min(size) * difficulty * rng.uniform(0, 1)
    x = x + trembling * _tremble(rng, num_frames)
    y = y + trembling * _tremble(rng, num_frames)
    angle = angle + trembling / min(size) * _tremble(rng, num_frames)
    return CameraPath(x - x[0], y - y[0], zoom, angle)


def mixed_path(rng: np.random.Generator, *, num_frames: int, size: tuple[int, int], difficulty: float) -> CameraPath:
    """Draw the path of a camera that makes two motions of like strength at once, one after the other, or one and back.

    Args:
        rng: source of every choice.
        num_frames: entries of the path.
        size: (height, width) of the frame in pixels.
        difficulty: as in `random_path`.
    """
    height, width = size
    strength = math.exp(rng.uniform(0, math.log(_STRONGEST_MIXED)))
    order = rng.permutation(4)  # across, up or down, zoom, roll
    returns, turns = rng.random() < 0.3, rng.random() < 0.4
    amounts = np.zeros((4, num_frames))
    for place, kind in enumerate(order[: 1 if returns else 2]):
        progress = _progress(rng, num_frames, difficulty)
        if returns:
            progress = 1 - abs(2 * progress - 1)
        elif turns:
            progress = np.clip(2 * progress - place, 0, 1)
        least = (PAN_SHARE, PAN_SHARE, ZOOM_LOG, ROLL_RADIANS)[kind][1][0]
        amounts[kind] = least * strength * rng.uniform(0.8, 1.25) * rng.choice([-1, 1]) * progress
    trembling = MOVING_JITTER * rng.uniform(0, difficulty) * np.stack([_tremble(rng, num_frames) for _ in range(2)])
    x = amounts[0] * width + trembling[0] * min(size)
    y = amounts[1] * height + trembling[1] * min(size)
    return CameraPath(x - x[0], y - y[0], amounts[2] - amounts[2][0], amounts[3] - amounts[3][0])


def _shake(rng: np.random.Generator, num_frames: int, side: int, difficulty: float) -> CameraPath:
    """Swing about a point, mostly in one direction or in all, with a little rotation and drift."""
    rms = _amount(rng, SHAKE_SHARE, difficulty) * side
    direction = rng.uniform(0, math.pi)
    flatness = rng.uniform(0.2, 1)
    along, across = _tremble(rng, num_frames, lowest=2.0), _tremble(rng, num_frames, lowest=2.0) * flatness
    scale = rms / math.sqrt((1 + flatness**2) / 2)
    u = np.linspace(-0.5, 0.5, num_frames)
    drift = 0.4 * rms * difficulty * rng.uniform(-1, 1, 2)
    x = scale * (along * math.cos(direction) - across * math.sin(direction)) + drift[0] * u
    y = scale * (along * math.sin(direction) + across * math.cos(direction)) + drift[1] * u
    angle = rms / side * rng.uniform(0, 0.8) * _tremble(rng, num_frames, lowest=2.0)
    zoom = rms / side * rng.uniform(0, 0.3) * _tremble(rng, num_frames, lowest=2.0)
    return CameraPath(x - x[0], y - y[0], zoom, angle)


def _amount(rng: np.random.Generator, ranges: tuple[Range, Range], difficulty: float) -> float:
    """Draw from the range at this difficulty, evenly in the logarithm."""
    (easy_low, easy_high), (hard_low, hard_high) = ranges
    low = math.log(easy_low) + difficulty * (math.log(hard_low) - math.log(easy_low))
    high = math.log(easy_high) + difficulty * (math.log(hard_high) - math.log(easy_high))
    return math.exp(rng.uniform(low, high))


def _progress(rng: np.random.Generator, num_frames: int, difficulty: float) -> Floats:
    """How much of a motion is done, 0 to 1 and never back, shape (T,): even, eased, speeding up or slowing down."""
    starts, ends = difficulty * rng.uniform(0, 0.2, 2) * (rng.random(2) < 0.3)
    u = np.clip((np.linspace(0, 1, num_frames) - starts) / (1 - starts - ends), 0, 1)
    power = 2.0 ** (difficulty * rng.uniform(-1, 1))
    shaped = u**power if rng.random() < 0.5 else 1 - (1 - u) ** power
    eased = shaped * shaped * (3 - 2 * shaped)
    share = difficulty * rng.uniform(0, 1)
    return (1 - share) * shaped + share * eased


def _add_drift(
    rng: np.random.Generator, label: int, zoom: Floats, angle: Floats, strength: float, difficulty: float
) -> tuple[Floats, Floats]:
    """Add a little of the motions that the label does not name."""
    u = np.linspace(0, 1, len(zoom))
    slight = 0.15 * strength * difficulty * rng.uniform(-1, 1, 2)
    if label not in (ZOOM_IN, ZOOM_OUT):
        zoom = zoom + min(0.08, abs(slight[0])) * np.sign(slight[0]) * u
    if label not in (ROLL_CW, ROLL_CCW):
        angle = angle + min(0.08, abs(slight[1])) * np.sign(slight[1]) * u
    return zoom, angle


def _about_a_point(
    rng: np.random.Generator, zoom: Floats, angle: Floats, size: tuple[int, int], difficulty: float
) -> tuple[Floats, Floats]:
    """Return the positions that keep a point near the middle of the frame in its place while it zooms or turns."""
    height, width = size
    px, py = rng.uniform(-0.2, 0.2, 2) * difficulty * (width, height)
    shrink = np.exp(-zoom)
    cos, sin = shrink * np.cos(angle), shrink * np.sin(angle)
    return px - (cos * px - sin * py), py - (sin * px + cos * py)


def _tremble(rng: np.random.Generator, num_frames: int, *, lowest: float = 1.0) -> Floats:
    """A sum of swings of `lowest` to 7 cycles a clip, without net motion, root mean square 1, shape (T,)."""
    u = np.linspace(0, 1, num_frames)
    # more than 0.35 cycles a frame would look like slower ones
    highest = max(lowest + 0.5, min(7.0, 0.35 * num_frames))
    cycles = rng.uniform(lowest, highest, (4, 1))
    swings = rng.uniform(0.4, 1, (4, 1)) * np.sin(2 * np.pi * (cycles * u + rng.uniform(0, 1, (4, 1))))
    total: Floats = swings.sum(axis=0)
    centred = u - 0.5
    total = total - total.mean()
    if num_frames > 2:
        total = total - centred * (total @ centred) / (centred @ centred)
    rms = math.sqrt(float(np.mean(total**2)))
    return total / rms if rms > 1e-9 else total
