"""Screens: displays and gauges that change before the camera, and test cards for it to stand before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dualformer_cli.data.camera_motion.layers import Size
from dualformer_cli.data.camera_motion.paths import Floats
from dualformer_cli.data.camera_motion.pictures import Picture, PictureSource


@dataclass(frozen=True, slots=True)
class Display:
    """A part of the screen or the scene that shows something else every few frames: a timer, a display, a lamp."""

    images: list[Image.Image]
    box: tuple[float, float]
    """Its left upper corner, in pixels from the window's middle."""
    order: npt.NDArray[np.intp]
    """Which image is shown in each frame, shape (T,)."""
    on_screen: bool

    def paste(self, frames: list[Image.Image], matrices: Floats, shown: npt.NDArray[np.intp]) -> None:
        """Paint the part onto each frame; a camera that turns or zooms moves it without turning it."""
        for frame, matrix, moment in zip(frames, matrices, shown, strict=True):
            place = np.array(self.box)
            if not self.on_screen:
                place = np.linalg.inv(matrix[:, :2]) @ (place - matrix[:, 2])
            x, y = (place + np.array([frame.width / 2, frame.height / 2])).round().astype(int).tolist()
            if abs(x) < 2 * frame.width and abs(y) < 2 * frame.height:
                frame.paste(self.images[int(self.order[moment])], (x, y))


@dataclass(frozen=True, slots=True)
class Gauge:
    """Something drawn on the screen that fills, turns or sweeps: a clock, a progress bar, a line of a test card."""

    kind: str
    box: tuple[float, float, float, float]
    """Left, upper, right and lower edge in pixels of the window."""
    share: Floats
    """How far it is in each frame, from 0 to 1, shape (T,)."""
    ink: tuple[int, int, int]
    paper: tuple[int, int, int] | None

    def paste(self, frames: list[Image.Image], matrices: Floats, shown: npt.NDArray[np.intp]) -> None:
        """Draw it onto each frame."""
        left, top, right, bottom = self.box
        for frame, moment in zip(frames, shown, strict=True):
            draw, share = ImageDraw.Draw(frame), float(self.share[moment])
            if self.kind == "clock":
                if self.paper is not None:
                    draw.ellipse(self.box, fill=self.paper)
                draw.pieslice(self.box, -90, -90 + 360 * share, fill=self.ink)
            elif self.kind == "bar":
                if self.paper is not None:
                    draw.rectangle(self.box, fill=self.paper)
                draw.rectangle((left, top, left + share * (right - left), bottom), fill=self.ink)
            else:
                y = top + share * (bottom - top)
                draw.line((left, y, right, y + 0.3 * (bottom - top)), fill=self.ink, width=2)


def screen_layers(
    rng: np.random.Generator, num_frames: int, window: Size, pictures: PictureSource, *, between: tuple[int, int]
) -> list[Display | Gauge]:
    """Draw displays and gauges, as a test card or a control panel has them; `between` are the fewest and the most."""
    layers: list[Display | Gauge] = []
    for _ in range(int(rng.integers(*between, endpoint=True))):
        kind = rng.random()
        if kind < 0.45:
            layers.append(random_gauge(rng, num_frames, window))
        elif kind < 0.7:
            layers.append(random_display(rng, num_frames, window, pictures))
        else:
            layers.append(_strip(rng, num_frames, window, has_cells=kind > 0.85))
    return layers


def _strip(rng: np.random.Generator, num_frames: int, window: Size, *, has_cells: bool) -> Display:
    """Draw a strip from side to side: a line of text, or cells that fill one after the other."""
    height, width = window
    broad, tall = round(width * rng.uniform(0.7, 1.2)), max(5, round(height * rng.uniform(0.06, 0.16)))
    paper, ink = _two_greys(rng)
    corner = (-width / 2 + float(rng.uniform(-0.2, 0.1)) * width, float(rng.uniform(-0.5, 0.5)) * height - tall / 2)
    if not has_cells:
        return Display([_text(rng, (tall, broad), paper, ink)], corner, np.zeros(num_frames, np.intp), on_screen=True)
    count, rest = int(rng.integers(6, 25)), int(rng.integers(40, 200))
    low, high = np.sort(rng.uniform(0, 1, 2)).tolist()
    order = (count * np.linspace(low, high if rng.random() < 0.5 else low, num_frames)).astype(np.intp)
    images = []
    for filled in range(int(order[0]), int(order[-1]) + 1):
        image = Image.new("RGB", (broad, tall), (paper, paper, paper))
        draw = ImageDraw.Draw(image)
        for cell, x in enumerate(np.linspace(1, broad, count, endpoint=False).tolist()):
            grey = ink if cell < filled else rest
            draw.rectangle((x, 1, max(x, x + broad / count - 2), tall - 2), fill=(grey, grey, grey))
        images.append(image)
    return Display(images, corner, order - order[0], on_screen=True)


def random_display(rng: np.random.Generator, num_frames: int, window: Size, pictures: PictureSource) -> Display:
    """Draw a display of digits or pictures that change every one to six frames."""
    height, width = window
    tall, broad = (max(4, round(side * rng.uniform(0.06, most))) for side, most in ((height, 0.3), (width, 0.6)))
    every, count = int(rng.integers(1, 7)), int(rng.integers(2, 9))
    paper, ink = _two_greys(rng)
    is_text = rng.random() < 0.6
    images = [
        _text(rng, (tall, broad), paper, ink) if is_text else pictures.choose(rng, 1.0).levels[0].resize((broad, tall))
        for _ in range(count)
    ]
    order = (np.arange(num_frames) // every) % count
    corner = rng.uniform(-0.5, 0.5, 2) * (width - broad, height - tall) - np.array([broad, tall]) / 2
    return Display(images, (float(corner[0]), float(corner[1])), order, bool(rng.random() < 0.7))


def _two_greys(rng: np.random.Generator) -> tuple[int, int]:
    """Draw a dark and a bright grey, in any order."""
    first, second = rng.permutation(np.array([int(rng.integers(0, 60)), int(rng.integers(190, 256))])).tolist()
    return first, second


def _text(rng: np.random.Generator, size: Size, paper: int, ink: int) -> Image.Image:
    """Draw strokes like those of letters, (height, width) pixels."""
    tall, broad = size
    image = Image.new("RGB", (broad, tall), (paper, paper, paper))
    draw = ImageDraw.Draw(image)
    for x in np.arange(2, broad - 2, max(3.0, tall * 0.6)):
        across, down = x + tall * rng.uniform(0.1, 0.5, 2), tall * rng.uniform(0.1, 0.9, 2)
        draw.line((x, down[0], across[0], down[1]), fill=(ink, ink, ink), width=max(1, tall // 8))
        upright = (across[1], tall * 0.15, across[1], tall * 0.85)
        draw.line(upright, fill=(ink, ink, ink), width=max(1, tall // 8))
    return image


def random_gauge(rng: np.random.Generator, num_frames: int, window: Size) -> Gauge:
    """Draw a clock, a progress bar or a line that goes forwards or backwards by up to twice its whole way."""
    height, width = window
    kind = str(rng.choice(("clock", "bar", "line")))
    broad, tall = rng.uniform(0.1, 0.4, 2) * (width, height)
    if kind == "clock":
        broad = tall = rng.uniform(0.15, 0.5) * min(window)
    elif kind == "bar":
        broad, tall = rng.uniform(0.3, 1) * width, rng.uniform(0.03, 0.12) * height
    left, top = rng.uniform(-0.2, 1, 2) * (width - broad / 2, height - tall / 2)
    u = np.linspace(0, 1, num_frames)
    share = np.mod(rng.random() + rng.uniform(-2, 2) * u, 1.0)
    ink, paper = ((int(r), int(g), int(b)) for r, g, b in rng.choice([0, 60, 255], (2, 3)))
    box = (float(left), float(top), float(left + broad), float(top + tall))
    return Gauge(kind, box, share, ink, paper if rng.random() < 0.6 else None)


def draw_card(rng: np.random.Generator, side: int) -> Picture:
    """Draw a test card or a screen: bars, ramps, boxes and marks in plain colours, (side, side) pixels."""
    count = int(rng.integers(3, 17))
    bars = rng.choice([0, 128, 255], (1, count, 3)).astype(np.uint8)
    if rng.random() < 0.4:
        bars = np.linspace(bars[0, 0], bars[0, -1], 64).astype(np.uint8)[None]
    if rng.random() < 0.25:
        bars = bars.transpose(1, 0, 2)
    image = Image.fromarray(np.ascontiguousarray(bars)).resize((side, side), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 7))):
        x, y, broad, tall = (float(v) for v in rng.uniform(0, 1, 4) * side * np.array([1, 1, 0.5, 0.3]))
        r, g, b = rng.choice([0, 80, 255], 3).tolist()
        shape = rng.random()
        if shape < 0.4:
            draw.rectangle((x, y, x + broad, y + tall), fill=(r, g, b))
        elif shape < 0.6:
            draw.ellipse((x, y, x + broad, y + broad), outline=(r, g, b), width=max(1, side // 80))
        else:
            for mark in np.arange(x, x + broad, side / 40):
                high = float(tall * rng.uniform(0.1, 0.3))
                draw.rectangle((float(mark), y, float(mark) + side / 80, y + high), fill=(r, g, b))
    return Picture(image)
