"""Busy scenes: much moves before the camera, and what the camera does shows in the background alone.

People walk, wave and fill the picture; trains, water, crowds and leaves move; windows of a screen scroll; timers and
lamps change. Each is a layer that is painted onto frames which show the background already.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dualformer_cli.data.camera_motion.classes import STATIC
from dualformer_cli.data.camera_motion.layers import Layer, Size, Thing, View, cut_out
from dualformer_cli.data.camera_motion.paths import Floats, random_path
from dualformer_cli.data.camera_motion.pictures import Picture, PictureSource
from dualformer_cli.data.camera_motion.screens import random_display, random_gauge

_CANVAS = 3.0
"""Sides of a mask, in frames: a region can leave the frame and the camera can pass it."""
_MASK_PIXELS = 192
"""Sides of a mask in pixels."""
_MOST_COVERED = (0.75, 0.45)
"""The largest part of the frame that regions take: of a static camera, of a moving one."""
_KINDS = {
    **{"body": 0.25, "area": 0.15, "head": 0.1, "figures": 0.18},
    **{"swarm": 0.25, "display": 0.08, "gauge": 0.08, "waves": 0.1},
}
"""Kinds of layers, and how often each is drawn in comparison with the others."""
_CELLS = 4
"""Cells along each side of the grid that waves bend a frame by."""


def busy_layers(
    rng: np.random.Generator,
    label: int,
    matrices: Floats,
    shown: npt.NDArray[np.intp],
    window: Size,
    pictures: PictureSource,
    difficulty: float,
) -> list[Layer]:
    """Draw one to four layers of what moves on its own.

    Args:
        rng: source of every choice.
        label: number of the camera's motion; before a moving camera less of the background is covered.
        matrices, shown: where the camera looks in each frame, and which moment that is, as `Layer.paste` takes them.
        window: (height, width) of the frame in pixels.
        pictures: what things look like.
        difficulty: 0 for few and small ones, 1 for as many and large ones as there can be.
    """
    kinds, weights = list(_KINDS), np.array(list(_KINDS.values()))
    budget = _MOST_COVERED[label != STATIC] * (0.4 + 0.6 * difficulty)
    layers: list[Layer] = []
    num_frames = len(shown)
    for _ in range(int(rng.choice((1, 2, 3, 4), p=(0.4, 0.35, 0.15, 0.1)))):
        kind = str(rng.choice(kinds, p=weights / weights.sum()))
        if kind in ("body", "area", "head"):
            share = budget * rng.uniform(0.15, 1)
            budget -= share
            layers.append(_region(rng, kind, share, label, matrices, shown, window, pictures))
        elif kind == "figures":
            layers += _figures(rng, label, num_frames, window, pictures)
        elif kind == "swarm":
            layers.append(_swarm(rng, num_frames, window))
        elif kind == "display":
            layers.append(random_display(rng, num_frames, window, pictures))
        elif kind == "gauge":
            layers.append(random_gauge(rng, num_frames, window))
        else:
            layers.append(_waves(rng, num_frames, window))
    return layers


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the scene whose content goes a way of its own."""

    view: View
    """The content, as a camera of its own sees it."""
    inside: Floats
    """From each frame to where the content was at first, shape (T, 2, 3)."""
    place: Floats
    """From each frame to the scene, shape (T, 2, 3)."""
    mask: Image.Image
    """Where the region is, (_MASK_PIXELS, _MASK_PIXELS), over _CANVAS frames about the middle."""
    is_body: bool
    """Whether its outline goes the same way, as that of a person; that of a river stays."""
    waves: _Waves | None

    def paste(self, frames: list[Image.Image], matrices: Floats, shown: npt.NDArray[np.intp]) -> None:
        """Paint the region onto each frame."""
        for number, (frame, inside, place) in enumerate(zip(frames, self.inside, self.place, strict=True)):
            content = self.view.frame(inside)
            mask = self._mask(inside if self.is_body else place)
            if self.waves is not None:
                content = self.waves.bend(content, number)
                mask = self.waves.bend(mask, number) if self.is_body else mask
            frame.paste(content, (0, 0), mask)

    def _mask(self, matrix: Floats) -> Image.Image:
        height, width = self.view.window
        scale = _MASK_PIXELS / (_CANVAS * np.array([width, height]))
        linear = scale[:, None] * matrix[:, :2]
        shift = scale * matrix[:, 2] + _MASK_PIXELS / 2 - linear @ np.array([width / 2, height / 2])
        (a, b), (c, d), (e, f) = linear[0].tolist(), linear[1].tolist(), shift.tolist()
        transform = Image.Transform.AFFINE
        return self.mask.transform((width, height), transform, (a, b, e, c, d, f), Image.Resampling.BILINEAR)


@dataclass(frozen=True, slots=True)
class Swarm:
    """Many small things, each on its way: passers-by, cars, birds, snow."""

    x: Floats
    """Places in each frame without the camera's motion, in pixels from the window's middle, shape (T, N)."""
    y: Floats
    radius: Floats
    """In pixels, shape (T, N)."""
    length: Floats
    """How far each reaches along its way, in pixels, shape (N, 2)."""
    broad: float
    """Width over height."""
    colours: list[tuple[int, int, int]]
    """Two of each thing: of what is below, and of a smaller part above."""
    depth: float

    def paste(self, frames: list[Image.Image], matrices: Floats, shown: npt.NDArray[np.intp]) -> None:
        """Paint every thing onto each frame."""
        for frame, matrix, moment in zip(frames, matrices, shown, strict=True):
            draw = ImageDraw.Draw(frame)
            inverse = np.linalg.inv(matrix[:, :2])
            grown = math.sqrt(float(np.linalg.det(inverse)))
            places = np.stack([self.x[moment], self.y[moment]], axis=1) - self.depth * matrix[:, 2]
            places = places @ inverse.T + np.array([frame.width / 2, frame.height / 2])
            reach, radii = self.length @ inverse.T, grown * self.radius[moment]
            for number in np.argsort(radii).tolist():
                (x, y), (dx, dy), radius = places[number].tolist(), reach[number].tolist(), float(radii[number])
                below, above = self.colours[2 * number : 2 * number + 2]
                if max(abs(dx), abs(dy)) > radius:
                    draw.line((x - dx, y - dy, x + dx, y + dy), fill=below, width=max(1, round(2 * radius)))
                    continue
                half = self.broad * radius
                draw.ellipse((x - half, y - radius, x + half, y + radius), fill=below)
                draw.ellipse((x - half / 2, y - 1.5 * radius, x + half / 2, y - 0.6 * radius), fill=above)


@dataclass(frozen=True, slots=True)
class _Waves:
    """Bends frames to and fro about where they are: water, leaves, faces."""

    offsets: Floats
    """Displacement of each corner of the grid in pixels, shape (T, _CELLS + 1, _CELLS + 1, 2); the border is still."""

    def bend(self, image: Image.Image, number: int) -> Image.Image:
        """Return the image of one frame with its content displaced."""
        xs = np.linspace(0, image.width, _CELLS + 1).round()
        ys = np.linspace(0, image.height, _CELLS + 1).round()
        corners = np.stack(np.meshgrid(xs, ys), axis=-1) + self.offsets[number]
        mesh = []
        for row in range(_CELLS):
            for column in range(_CELLS):
                box = (int(xs[column]), int(ys[row]), int(xs[column + 1]), int(ys[row + 1]))
                around = ((row, column), (row + 1, column), (row + 1, column + 1), (row, column + 1))
                quad = [float(value) for at in around for value in corners[at]]
                mesh.append((box, quad))
        return image.transform(image.size, Image.Transform.MESH, mesh, Image.Resampling.BILINEAR)


@dataclass(frozen=True, slots=True)
class Waving:
    """A part of the frame, in place on the screen, that bends to and fro."""

    waves: _Waves
    mask: Image.Image
    """Of the frame's size."""

    def paste(self, frames: list[Image.Image], matrices: Floats, shown: npt.NDArray[np.intp]) -> None:
        """Bend the part in each frame."""
        for number, frame in enumerate(frames):
            frame.paste(self.waves.bend(frame, number), (0, 0), self.mask)


def _region(
    rng: np.random.Generator,
    kind: str,
    share: float,
    label: int,
    matrices: Floats,
    shown: npt.NDArray[np.intp],
    window: Size,
    pictures: PictureSource,
) -> Region:
    """Draw a body that moves, a head and shoulders that tremble, or an area whose content flows."""
    num_frames = len(shown)
    own = _own_way(rng, kind, num_frames, window)[shown]
    on_screen = kind == "area" and rng.random() < (0.5 if label == STATIC else 0.15)
    mask = Image.new("L", (_MASK_PIXELS, _MASK_PIXELS))
    _draw_mask(rng, mask, kind, share, is_framed=on_screen)
    depth = 1.0 if kind != "body" else float(rng.uniform(0.9, 1.6))
    place = np.tile(np.eye(2, 3), (num_frames, 1, 1)) if on_screen else matrices * np.array([1, 1, depth])
    inside = np.stack([_after(second, first) for second, first in zip(own, place, strict=True)])
    view = View.random(rng, pictures.choose(rng, 1.0), inside, window, 1.0)
    has_waves = rng.random() < (0.5 if kind != "area" else 0.2)
    waves = _random_waves(rng, num_frames, window, most=0.06) if has_waves else None
    return Region(view, inside, place, mask, kind != "area", waves)


def _own_way(rng: np.random.Generator, kind: str, num_frames: int, window: Size) -> Floats:
    """Draw how content moves, as maps back to where it was at first, shape (T, 2, 3)."""
    height, width = window
    u = np.linspace(0, 1, num_frames)
    if kind == "area" and rng.random() < 0.8:
        moving = int(rng.integers(1, 10))
        path = random_path(rng, moving, num_frames=num_frames, size=window, difficulty=float(rng.uniform(0, 1)))
        own = path.matrices()
        if rng.random() < 0.15:  # a page scrolls by steps
            own = own[(np.arange(num_frames) // int(rng.integers(2, 6))) * 2 % num_frames]
        return own
    far = {"area": 0.3, "body": 1.2, "head": 0.12}[kind] * rng.uniform(0.05, 1)
    swing = {"area": 0.1, "body": 0.12, "head": 0.06}[kind] * rng.uniform(0, 1)
    x, y = (
        side * (far * rng.uniform(-1, 1) * weight * _eased(rng, u) + swing * _swing(rng, u))
        for side, weight in ((width, 1.0), (height, 0.4))
    )
    zoom = rng.normal(0, 0.25) * (0.3 + far) * u + 0.5 * swing * _swing(rng, u)
    angle = rng.normal(0, 0.35) * (0.2 + far) * u + swing * rng.uniform(0, 3) * _swing(rng, u)
    cos, sin, shrink = np.cos(angle), np.sin(angle), np.exp(-zoom)
    rows = [shrink * cos, -shrink * sin, x - x.mean(), shrink * sin, shrink * cos, y - y.mean()]
    return np.stack(rows, axis=-1).reshape(-1, 2, 3)


def _eased(rng: np.random.Generator, u: Floats) -> Floats:
    """From 0 to 1: even, or begun late and ended early, as somebody who walks a part of the time."""
    first, last = sorted(rng.uniform(0, 1, 2)) if rng.random() < 0.3 else (0.0, 1.0)
    return np.clip((u - first) / max(last - first, 0.1), 0, 1)


def _swing(rng: np.random.Generator, u: Floats) -> Floats:
    """One or two swings of 0.3 to 5 cycles a clip, at most 1."""
    cycles = rng.uniform(0.3, 5, 2)
    total: Floats = 0.6 * np.sin(2 * np.pi * (cycles[0] * u + rng.random()))
    return total + 0.4 * np.sin(2 * np.pi * (cycles[1] * u + rng.random()))


def _draw_mask(rng: np.random.Generator, mask: Image.Image, kind: str, share: float, *, is_framed: bool) -> None:
    """Draw the outline of a region that takes about this share of the frame."""
    draw = ImageDraw.Draw(mask)
    unit = _MASK_PIXELS / _CANVAS
    middle = _MASK_PIXELS / 2
    if kind == "head":
        x, radius = middle + unit * rng.uniform(-0.3, 0.3), unit * math.sqrt(share) * rng.uniform(0.35, 0.5)
        top = middle + unit * 0.5 - unit * rng.uniform(0.5, 0.95) * math.sqrt(share) - radius
        draw.ellipse((x - radius * 0.8, top, x + radius * 0.8, top + 2 * radius), fill=255)
        broad = radius * rng.uniform(1.4, 2.4)
        draw.rounded_rectangle((x - broad, top + 1.8 * radius, x + broad, _MASK_PIXELS), radius * 0.6, fill=255)
        return
    shape = rng.random()
    if is_framed or (kind == "area" and shape < 0.2):
        tall = share ** rng.uniform(0.3, 0.7)
        sides = unit * np.array([share / tall, tall])
        left, top = middle + (unit - sides) * rng.uniform(0, 1, 2) - unit / 2
        draw.rectangle((left, top, left + sides[0], top + sides[1]), fill=255)
    elif kind == "area" or shape < 0.15:
        _draw_band(rng, draw, share, unit, middle)
    else:
        x, y = middle + unit * rng.uniform(-0.4, 0.4, 2)
        for _ in range(int(rng.choice((1, 2, 6), p=(0.6, 0.25, 0.15)))):
            _draw_blob(rng, draw, float(x), float(y), unit * math.sqrt(share / math.pi) * rng.uniform(0.6, 1.1))
            x, y = np.array([x, y]) + unit * math.sqrt(share) * rng.uniform(-0.6, 0.6, 2)


def _draw_band(rng: np.random.Generator, draw: ImageDraw.ImageDraw, share: float, unit: float, middle: float) -> None:
    """A strip across the picture with uneven edges, most often at the bottom: a road, a river, a train, a crowd."""
    along = np.linspace(-_CANVAS, _CANVAS, 60)
    rough = rng.uniform(0, 0.05) * np.sin(along[None] * rng.uniform(2, 20, (2, 1)) + rng.uniform(0, 6, (2, 1)))
    middle_of_band = rng.choice([0.5 - share / 2, rng.uniform(-0.5, 0.5)])
    upper, lower = middle_of_band - share / 2 + rough[0], middle_of_band + share / 2 + rough[1]
    turn = rng.uniform(-0.25, 0.25) + (math.pi / 2 if rng.random() < 0.25 else 0)
    across = np.concatenate([np.stack([along, upper]), np.stack([along, lower])[:, ::-1]], axis=1)
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    points = middle + unit * (rotation @ across).T
    draw.polygon([(float(x), float(y)) for x, y in points], fill=255)


def _draw_blob(rng: np.random.Generator, draw: ImageDraw.ImageDraw, x: float, y: float, radius: float) -> None:
    angles = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    orders = np.arange(2, 6)[:, None]
    bumps = rng.normal(0, 0.25, (4, 1)) / orders * np.cos(orders * angles + rng.uniform(0, 2 * math.pi, (4, 1)))
    flat, turn = rng.uniform(0.45, 1), rng.uniform(-0.5, 0.5)
    r = radius / math.sqrt(flat) * (1 + bumps.sum(axis=0))
    px, py = flat * r * np.cos(angles), r * np.sin(angles)  # most things stand upright
    cos, sin = math.cos(turn), math.sin(turn)
    draw.polygon([(x + cos * a - sin * b, y + sin * a + cos * b) for a, b in zip(px, py, strict=True)], fill=255)


def _figures(
    rng: np.random.Generator, label: int, num_frames: int, window: Size, pictures: PictureSource
) -> list[Thing]:
    """One to three people who walk, wave, dance or sit: a head, a body, and limbs that swing."""
    height, width = window
    u = np.linspace(0, 1, num_frames)
    parts: list[Thing] = []
    largest = 1.3 if label == STATIC else 0.8
    for _ in range(int(rng.integers(1, 4))):
        tall = height * math.exp(rng.uniform(math.log(0.25), math.log(largest)))
        walk = rng.uniform(-1, 1) * width * rng.choice([0.0, 0.15, 0.9]) * _eased(rng, u)
        x = width * rng.uniform(-0.45, 0.45) + walk - walk.mean()
        y = np.full(num_frames, height * rng.uniform(-0.1, 0.25))
        y = y + tall * 0.04 * rng.uniform(0, 1) * _swing(rng, u)
        lean = 0.3 * rng.uniform(0, 1) * _swing(rng, u)
        nearer = np.exp(rng.normal(0, 0.15) * u)
        clothes = [pictures.choose(rng, 1.0) for _ in range(2)]
        depth = float(rng.uniform(0.95, 1.3))
        pace = rng.uniform(0.5, 6)
        for number, (start, far, thick) in enumerate(_LIMBS):
            swing = rng.uniform(0.05, 1.2) * np.sin(2 * math.pi * (pace * u + number / 2 + 0.1 * rng.random()))
            side = -1 if number % 2 else 1
            rest = rng.uniform(-0.2, 0.6) * side if number < 2 else rng.uniform(-0.05, 0.3) * side
            way = rest + swing + lean
            px, py = x + nearer * tall * (side * 0.08 - start * lean), y + nearer * tall * start
            middle = nearer * tall * far / 2
            limb = _capsule(rng, clothes[number // 2], max(6, round(tall * far)), thick / far)
            scale = nearer * tall * far / limb.width
            parts.append(Thing(limb, px + middle * np.sin(way), py + middle * np.cos(way), -way, scale, depth))
        torso = _capsule(rng, clothes[0], max(6, round(tall * 0.36)), 0.55)
        scale = nearer * tall * 0.36 / torso.width
        parts.append(Thing(torso, x, y - nearer * tall * 0.12, lean, scale, depth))
        head = cut_out(rng, clothes[1], max(6, round(tall * 0.16)), shape=0)
        scale = nearer * tall * 0.16 / head.width
        parts.append(Thing(head, x + nearer * tall * 0.38 * lean, y - nearer * tall * 0.38, lean, scale, depth))
    return parts


_LIMBS = ((-0.26, 0.34, 0.09), (-0.26, 0.34, 0.09), (0.04, 0.44, 0.12), (0.04, 0.44, 0.12))
"""Two arms and two legs: where each begins below the middle, its length and its thickness, in heights of the figure."""


def _capsule(rng: np.random.Generator, picture: Picture, side: int, thick: float) -> Image.Image:
    """Cut an upright bar with round ends out of a picture, RGBA, (side, side)."""
    image = cut_out(rng, picture, side, shape=0)
    mask = Image.new("L", (2 * side, 2 * side))
    half = max(2.0, side * thick)
    ImageDraw.Draw(mask).rounded_rectangle((side - half, 0, side + half, 2 * side - 1), half, fill=255)
    image.putalpha(mask.reduce(2))
    return image


def _swarm(rng: np.random.Generator, num_frames: int, window: Size) -> Swarm:
    height, width = window
    count = int(rng.integers(6, 50))
    u = np.linspace(-0.5, 0.5, num_frames)[:, None]
    common = rng.uniform(-1, 1, 2) * (width, height) * rng.choice([0.0, 0.5, 2.0])
    spread = rng.uniform(0.02, 0.5) * min(window)
    velocity = common * rng.uniform(0.6, 1.2, (count, 1)) + spread * rng.normal(0, 1, (count, 2))
    area = np.array([width, height]) * rng.uniform(0.2, 0.7, 2)
    start = rng.uniform(-1, 1, (count, 2)) * area + rng.uniform(-0.2, 0.2, 2) * (width, height)
    cycles, phases = rng.uniform(0.5, 5, (1, count)), rng.random((1, count))
    sway = rng.uniform(0, 0.03) * min(window) * np.sin(2 * math.pi * (cycles * u + phases))
    radius = min(window) * rng.uniform(0.005, 0.06) * rng.uniform(0.5, 1.5, (1, count))
    x, y = start[:, 0] + velocity[:, 0] * u + sway, start[:, 1] + velocity[:, 1] * u + abs(sway)
    length = velocity / num_frames * rng.choice([0.0, 1.0, 3.0])
    if rng.random() < 0.5:  # they come, or go, along a road
        nearness, point = _nearness(rng, u, count), rng.uniform(-0.4, 0.1) * height
        x, y, radius = x * nearness, point + (abs(y) + 0.1 * height) * nearness, radius * nearness
        length = np.zeros((count, 2))
    shades = rng.integers(0, 256, 3) + rng.integers(-90, 91, (2 * count, 3))
    colours = [(int(r), int(g), int(b)) for r, g, b in shades.clip(0, 255)]
    return Swarm(
        x, y, np.broadcast_to(radius, x.shape), length, float(rng.uniform(0.4, 1)), colours, float(rng.uniform(1, 1.5))
    )


def _nearness(rng: np.random.Generator, u: Floats, count: int) -> Floats:
    """How large things look that come nearer, or go away, each from a distance of its own, shape (T, N)."""
    far = rng.uniform(0.6, 5, (1, count))
    speed = rng.uniform(0.1, 1.5) * rng.uniform(0.7, 1.3, (1, count)) * rng.choice([-1, 1])
    return 1 / np.clip(far + speed * u, 0.25, None)


def _waves(rng: np.random.Generator, num_frames: int, window: Size) -> Waving:
    height, width = window
    mask = Image.new("L", (_MASK_PIXELS, _MASK_PIXELS))
    draw = ImageDraw.Draw(mask)
    if rng.random() < 0.5:
        _draw_band(rng, draw, rng.uniform(0.2, 0.8), _MASK_PIXELS / _CANVAS, _MASK_PIXELS / 2)
    else:
        for _ in range(int(rng.integers(1, 5))):
            x, y = _MASK_PIXELS / 2 + _MASK_PIXELS / _CANVAS * rng.uniform(-0.5, 0.5, 2)
            _draw_blob(rng, draw, float(x), float(y), _MASK_PIXELS / _CANVAS * rng.uniform(0.1, 0.4))
    edge = (_CANVAS - 1) / (2 * _CANVAS) * _MASK_PIXELS
    box = (edge, edge, _MASK_PIXELS - edge, _MASK_PIXELS - edge)
    cut = mask.resize((width, height), Image.Resampling.BILINEAR, box)
    return Waving(_random_waves(rng, num_frames, window, most=0.04), cut)


def _random_waves(rng: np.random.Generator, num_frames: int, window: Size, *, most: float) -> _Waves:
    """Waves of at most this share of the frame, 1 to 6 cycles a clip, each corner of the grid at its own time."""
    shape = (1, _CELLS + 1, _CELLS + 1, 2)
    u = np.linspace(0, 1, num_frames)[:, None, None, None]
    cycles = rng.uniform(1, 6) * rng.uniform(0.7, 1.3, shape)
    offsets = np.sin(2 * math.pi * (cycles * u + rng.uniform(0, 1, shape))) * rng.uniform(0.3, 1, shape)
    offsets = offsets * most * rng.uniform(0.1, 1) * np.array([window[1], window[0]])
    offsets[:, (0, -1)] = 0
    offsets[:, :, (0, -1)] = 0
    return _Waves(offsets)


def _after(second: Floats, first: Floats) -> Floats:
    """The affine map that applies `first`, then `second`, (2, 3)."""
    linear = second[:, :2] @ first[:, :2]
    shift = second[:, :2] @ first[:, 2] + second[:, 2]
    return np.concatenate([linear, shift[:, None]], axis=1)
