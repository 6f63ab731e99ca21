"""Labelled clips of a camera that pans, tilts, zooms, rolls, shakes or stands still, rendered from still pictures.

A camera moves over a picture along a random path. In front of it are things that move on their own or that stand
nearer than the picture; the frames get noise, blur, changing light, bars and the traces of compression. Everything
follows from the seed.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dualformer_cli.data.camera_motion.busy import busy_layers
from dualformer_cli.data.camera_motion.classes import CLASSES, PAN_LEFT, PAN_RIGHT, STATIC, TILT_DOWN, TILT_UP
from dualformer_cli.data.camera_motion.layers import Thing, View, cut_out
from dualformer_cli.data.camera_motion.paths import CameraPath, Floats, random_path
from dualformer_cli.data.camera_motion.pictures import Picture, PictureSource, Pixels
from dualformer_cli.data.camera_motion.screens import draw_card, screen_layers

_VIEW_TRIES = 4
"""Views drawn before one is taken although it hardly shows motion."""
_LEAST_DETAIL = 6.0
"""Least root mean square step of brightness between neighbours of a thumbnail, in the direction that has least."""
_BLUR_FROM_PIXELS = 1.5
"""Motion from one frame to the next that an open shutter can blur, in pixels."""
_NOISE_LENGTH = 2**20
_BUSY = 5
"""Part of the seed of what makes a scene busy."""
_CARDS = 0.5
"""Share of the busy scenes of a still camera that are test cards or screens; other cameras do not film them."""
_ROLLING = 0.6
"""Share of the test cards whose picture goes behind displays that stay: nobody moves a camera before such a card."""
_DISPLAYS = {False: (2, 6), True: (4, 9)}
"""The fewest and the most displays of a test card, and of one whose picture goes."""
_PANELS = 0.7
"""Share of the test cards on which nothing moves but displays and gauges."""
_CARD_PIXELS = 256
_POOR_LIGHT = 0.2
"""Share of the busy scenes that are dark or fade."""


@dataclass(frozen=True, slots=True)
class RenderedClip:
    """A clip, what the camera does in it, and exactly how its content moves."""

    frames: Pixels
    """uint8, shape (T, H, W, 3)."""
    label: int
    """Number of the motion in CLASSES."""
    motion: npt.NDArray[np.float32]
    """Affine maps, shape (T - 1, 2, 3): where the scene at a point of frame i is in frame i + 1, as
    motion[i] @ (x, y, 1). Points are in pixels from the middle of the frame, to the right and down: the pixel in row r
    and column c lies at (c + 0.5 - W / 2, r + 0.5 - H / 2). Things that move on their own are left out."""


def render_clip(
    seed: int | Sequence[int],
    *,
    num_frames: int,
    size: tuple[int, int],
    pictures: PictureSource,
    label: int | None = None,
    difficulty: float = 1.0,
    busy: float = 0.0,
) -> RenderedClip:
    """Render a clip of one camera motion.

    Args:
        seed: decides everything; a number, or several, of at least 0.
        num_frames: frames of the clip, at least 2.
        size: (height, width) of the frames in pixels, at least 16 each.
        pictures: what the camera looks at.
        label: number of the motion in CLASSES; None draws one.
        difficulty: 0 for a large, clean motion over a bold picture, 1 for all that can be in the way of seeing it.
        busy: how likely it is that much moves before the camera; clips that are not busy are the same for any value.

    Raises:
        ValueError: if an argument is out of range.
    """
    if num_frames < 2 or min(size) < 16:
        raise ValueError(f"a clip needs 2 frames of 16 pixels a side or more, got {num_frames} frames of {size}")
    rng = np.random.default_rng(seed)
    drawn = int(rng.integers(len(CLASSES)))
    label = drawn if label is None else label
    window = _window(rng, size, difficulty)
    path = random_path(rng, label, num_frames=num_frames, size=window, difficulty=difficulty)
    aside = np.random.default_rng([*np.atleast_1d(seed).tolist(), _BUSY])
    return render_path(
        path,
        rng=rng,
        label=label,
        size=size,
        window=window,
        pictures=pictures,
        difficulty=difficulty,
        busy=aside if aside.random() < busy else None,
    )


def render_path(
    path: CameraPath,
    *,
    rng: np.random.Generator,
    label: int,
    size: tuple[int, int],
    window: tuple[int, int],
    pictures: PictureSource,
    difficulty: float,
    busy: np.random.Generator | None = None,
) -> RenderedClip:
    """Render what a camera sees on a given path.

    Args:
        path: of the camera.
        rng: source of the picture and of all that happens besides.
        label: number of the motion in CLASSES.
        size: (height, width) of the frames.
        window: (height, width) of the part in their middle that shows the scene; the rest is black bars.
        pictures: what the camera looks at.
        difficulty: as in `render_clip`.
        busy: source of what moves before the camera, and of poor light; None for a scene that is not busy.
    """
    shown = _shown_frames(rng, len(path.x), difficulty)
    matrices = path.matrices()[shown]
    for _ in range(_VIEW_TRIES):
        view = View.random(rng, pictures.choose(rng, difficulty), matrices, window, difficulty)
        if view.detail(matrices[0]) > _LEAST_DETAIL:
            break
    is_card = busy is not None and label == STATIC and busy.random() < _CARDS
    seen, is_rolling = matrices, False
    if busy is not None and is_card:
        is_rolling = busy.random() < _ROLLING
        seen = _rolling(busy, len(shown), window, difficulty)[shown] if is_rolling else matrices
        view = View.random(busy, draw_card(busy, _CARD_PIXELS), seen, window, difficulty)
    steps = _motion(matrices)
    frames = view.render(seen, _shutter(rng, steps, window, difficulty))
    if busy is not None:
        layers = (
            screen_layers(busy, len(shown), window, pictures, between=_DISPLAYS[is_rolling])
            if is_rolling or (is_card and busy.random() < _PANELS)
            else busy_layers(busy, label, matrices, shown, window, pictures, difficulty)
        )
        for layer in layers:
            layer.paste(frames, matrices, shown)
    for thing in _things(rng, label, len(shown), window, pictures, difficulty):
        thing.paste(frames, matrices, shown)
    clip = np.stack([np.asarray(frame) for frame in frames])
    if busy is not None and busy.random() < _POOR_LIGHT * difficulty:
        clip = _darken(busy, clip)
    clip = _develop(rng, clip, difficulty)
    if window != size:
        top, left = (size[0] - window[0]) // 2, (size[1] - window[1]) // 2
        barred = np.zeros((len(clip), *size, 3), np.uint8)
        barred[:, top : top + window[0], left : left + window[1]] = clip
        clip = barred
    if rng.random() < 0.4 * difficulty:
        clip = _compress(clip, int(rng.integers(25, 85)))
    return RenderedClip(clip, label, steps.astype(np.float32))


def _rolling(rng: np.random.Generator, num_frames: int, window: tuple[int, int], difficulty: float) -> Floats:
    """Draw how the picture of a test card goes to a side, up or down, as a camera would see it."""
    label = int(rng.choice((PAN_LEFT, PAN_RIGHT, TILT_UP, TILT_DOWN)))
    return random_path(rng, label, num_frames=num_frames, size=window, difficulty=difficulty).matrices()


def _window(rng: np.random.Generator, size: tuple[int, int], difficulty: float) -> tuple[int, int]:
    """Return the (height, width) between black bars, which some clips have; the bars are equally wide."""
    share, which = rng.uniform(0.03, 0.22), rng.random()
    height, width = size
    if which < 0.12 * difficulty:
        height -= 2 * round(height * share)
    elif which < 0.2 * difficulty:
        width -= 2 * round(width * share)
    return height, width


def _shown_frames(rng: np.random.Generator, num_frames: int, difficulty: float) -> npt.NDArray[np.intp]:
    """Which moment each frame shows, shape (T,): in some clips frames repeat the one before, as films on TV do."""
    shown = np.arange(num_frames)
    if rng.random() < 0.08 * difficulty:
        every = int(rng.integers(3, 6))
        repeats = shown % every == every - 1
        shown = np.where(repeats, shown - 1, shown)
    return shown


def _motion(matrices: Floats) -> Floats:
    """Maps from each frame to the next, (T - 1, 2, 3), of maps from the frames to the scene, (T, 2, 3)."""
    before, after = matrices[:-1], matrices[1:]
    inverse = np.linalg.inv(after[:, :, :2])
    linear = inverse @ before[:, :, :2]
    shift = inverse @ (before[:, :, 2:] - after[:, :, 2:])
    return np.concatenate([linear, shift], axis=-1)


def _shutter(rng: np.random.Generator, steps: Floats, window: tuple[int, int], difficulty: float) -> float:
    """Draw how long the shutter is open, 0 to 0.8 of the time between two frames; 0 where nothing moves much."""
    share, chance = rng.uniform(0.3, 0.8), rng.random()
    corner = np.array([window[1] / 2, window[0] / 2, 1.0])
    moved = float(np.abs(steps @ corner - corner[:2]).max())
    return share if chance < 0.5 * difficulty and moved > _BLUR_FROM_PIXELS else 0.0


def _things(
    rng: np.random.Generator,
    label: int,
    num_frames: int,
    window: tuple[int, int],
    pictures: PictureSource,
    difficulty: float,
) -> list[Thing]:
    """Draw what is in front of the scene: up to three things, and sometimes a caption."""
    count = int(rng.choice(4, p=(0.3, 0.35, 0.2, 0.15))) if rng.random() < difficulty else 0
    things = []
    for _ in range(count):
        moves_alone = rng.random() < (0.75 if label == STATIC else 0.5)
        picture = pictures.choose(rng, difficulty)
        things.append(_thing(rng, num_frames, window, picture, difficulty, moves_alone=moves_alone))
    if rng.random() < 0.1 * difficulty:
        things.append(_caption(rng, num_frames, window, pictures.choose(rng, difficulty)))
    return things


def _thing(
    rng: np.random.Generator,
    num_frames: int,
    window: tuple[int, int],
    picture: Picture,
    difficulty: float,
    *,
    moves_alone: bool,
) -> Thing:
    """A thing on a curved way of its own, or one that stands nearer than the scene."""
    height, width = window
    diameter = min(window) * rng.uniform(0.12, 0.2 + 0.25 * difficulty)
    image = cut_out(rng, picture, max(8, math.ceil(diameter)))
    u = np.linspace(0, 1, num_frames)
    bend = np.stack([u, u * (1 - u)])
    reach = rng.uniform(-1, 1, (2, 2)) * np.array([[0.9, 0.8], [0.9, 0.8]]) * (1 if moves_alone else 0)
    start = rng.uniform(-0.5, 0.5, 2)
    x = width * (start[0] + reach[0] @ bend)
    y = height * (start[1] + reach[1] @ bend)
    angle = rng.uniform(-math.pi, math.pi) + u * rng.uniform(-1, 1) * (1.0 if moves_alone else 0.0)
    grown = rng.uniform(-0.3, 0.3) if moves_alone else 0.0
    scale = diameter / image.width * np.exp(u * grown)
    # two in three of the things with a way of their own are followed by the eye of the camera as little as the scene is
    depth = float(rng.uniform(1, 1.8))
    is_fixed = moves_alone and rng.random() < 0.33
    return Thing(image, x, y, angle, scale, None if is_fixed else depth)


def _caption(rng: np.random.Generator, num_frames: int, window: tuple[int, int], picture: Picture) -> Thing:
    """A bright or dark strip with marks at the edge of the picture, as subtitles and station logos."""
    height, width = window
    side = max(16, round(min(window) * rng.uniform(0.2, 0.7)))
    image = Image.new("RGBA", (side, side))
    draw = ImageDraw.Draw(image)
    ink, strip = (255, 0) if rng.random() < 0.5 else (0, 255)
    thick = side * rng.uniform(0.1, 0.2)
    if rng.random() < 0.5:
        draw.rectangle((0, side / 2 - thick, side, side / 2 + thick), fill=(strip, strip, strip, 200))
    x = 0.0
    while x < side:
        stroke = max(1.0, side * rng.uniform(0.01, 0.06))
        draw.rectangle((x, side / 2 - thick / 2, x + stroke, side / 2 + thick / 2), fill=(ink, ink, ink, 255))
        x += stroke + max(1.0, side * rng.uniform(0.01, 0.06))
    place = rng.choice([-0.4, 0.4], 2) * (width, height)
    zeros = np.zeros(num_frames)
    return Thing(image, zeros + (0 if rng.random() < 0.5 else place[0]), zeros + place[1], zeros, zeros + 1, None)


def _develop(rng: np.random.Generator, clip: Pixels, difficulty: float) -> Pixels:
    """Change light, contrast, gamma and colours, drifting over the clip, and add the noise of a sensor."""
    num_frames = len(clip)
    u = np.linspace(0, 1, num_frames)
    gain = np.exp(difficulty * (rng.uniform(-0.5, 0.25) + rng.uniform(-0.25, 0.25) * u))
    if rng.random() < 0.1 * difficulty:  # flicker of lamps
        gain = gain * (1 + 0.06 * np.sin(2 * math.pi * (rng.uniform(1, 8) * u + rng.random())))
    gamma = np.exp(difficulty * rng.uniform(-0.4, 0.4))
    contrast = math.exp(difficulty * rng.uniform(-0.8, 0.2))
    tint = np.exp(0.15 * difficulty * rng.uniform(-1, 1, 3))
    values = np.linspace(0, 1, 256)
    curves = gain[:, None, None] * tint[:, None] * (0.5 + contrast * (values**gamma - 0.5))
    table = (255 * curves.clip(0, 1)).astype(np.uint8)  # (T, 3, 256)
    if rng.random() < 0.1 * difficulty:
        clip = np.repeat(clip.mean(axis=-1, keepdims=True, dtype=np.float32).astype(np.uint8), 3, axis=-1)
    places = (np.arange(num_frames)[:, None] * 3 + np.arange(3)) * 256  # of each curve in the flat table
    clip = table.ravel()[clip + places[:, None, None, :]]
    sigma = difficulty * contrast * 12 * rng.uniform(0, 1) ** 2
    return _add_noise(rng, clip, sigma) if sigma > 0.5 else clip


def _darken(rng: np.random.Generator, clip: Pixels) -> Pixels:
    """Take light away, all the time or in a fade, and add the grain that it leaves."""
    u = np.linspace(0, 1, len(clip))
    kind = rng.random()
    light = np.full(len(clip), rng.uniform(0.15, 0.7))
    if kind < 0.4:
        light = np.clip((u if kind < 0.2 else 1 - u) / rng.uniform(0.2, 1) + rng.uniform(0, 0.2), 0, 1)
    dark = (clip * light.astype(np.float32)[:, None, None, None]).astype(np.uint8)
    return _add_noise(rng, dark, float(rng.uniform(1, 16)))


@cache
def _noise_table() -> npt.NDArray[np.int16]:
    """Normal numbers times 64."""
    values = np.random.default_rng(7).standard_normal(_NOISE_LENGTH, dtype=np.float32)
    return (values * 64).astype(np.int16)


def _add_noise(rng: np.random.Generator, clip: Pixels, sigma: float) -> Pixels:
    """Add noise of this standard deviation, cut anew for each frame from a table because drawing takes time."""
    table = (_noise_table() * np.int16(round(sigma * 4)) >> 8).astype(np.int16)
    flat = clip.reshape(len(clip), -1)
    length = flat.shape[1]
    noisy = np.empty_like(flat)
    for number, start in enumerate(rng.integers(0, _NOISE_LENGTH, len(clip))):
        noise = np.take(table, np.arange(start, start + length), mode="wrap")
        noisy[number] = (flat[number] + noise).clip(0, 255)
    return noisy.reshape(clip.shape)


def _compress(clip: Pixels, quality: int) -> Pixels:
    """Send the frames through JPEG; one tall picture takes less time than many small ones."""
    num_frames, height, width = clip.shape[:3]
    stored = io.BytesIO()
    tall = max(1, 65000 // height)
    parts = []
    for start in range(0, num_frames, tall):
        part = clip[start : start + tall]
        stored.seek(0)
        stored.truncate()
        Image.fromarray(part.reshape(-1, width, 3)).save(stored, "JPEG", quality=quality)
        parts.append(np.asarray(Image.open(stored)).reshape(part.shape))
    return np.concatenate(parts)
