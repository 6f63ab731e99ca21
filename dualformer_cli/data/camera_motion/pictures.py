"""Still pictures for a camera to move over: drawn ones, files, and frames in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageOps

from dualformer_cli.errors import DualFormerError

Pixels = npt.NDArray[np.uint8]

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_SIMPLE = ("polygons", "blobs", "mosaic", "camouflage")
_ALL = (*_SIMPLE, "noise", "bands", "clutter", "scene", *("leaves",) * 4)
_SMALLEST_LEVEL = 16
_PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png", "gravel.png"),
    *("hubble_deep_field.jpg", "ihc.png", "retina.jpg", "rocket.jpg", "text.png"),
)
"""What the wheel of scikit-image really holds; its other pictures would be fetched."""


@dataclass(frozen=True)
class Picture:
    """One picture, and the same at half its size, a quarter, and so on, so that it can be shrunk without aliasing."""

    image: Image.Image

    @cached_property
    def levels(self) -> tuple[Image.Image, ...]:
        """The picture and its halvings, largest first."""
        levels = [self.image]
        while min(levels[-1].size) >= 2 * _SMALLEST_LEVEL:
            levels.append(levels[-1].reduce(2))
        return tuple(levels)

    @cached_property
    def tiled(self) -> Picture:
        """The picture and its mirror images, twice as wide and high, without a seam."""
        width, height = self.image.size
        tiled = Image.new("RGB", (2 * width, 2 * height))
        mirrored, flipped = ImageOps.mirror(self.image), ImageOps.flip(self.image)
        for place, image in (
            ((0, 0), self.image),
            ((width, 0), mirrored),
            ((0, height), flipped),
            ((width, height), ImageOps.flip(mirrored)),
        ):
            tiled.paste(image, place)
        return Picture(tiled)


@dataclass
class PictureSource:
    """A numbered stock of pictures: `num_drawn` that are drawn on demand, and those of files and arrays.

    The same settings give the same pictures in any process; those used before are kept in memory.
    """

    seed: int = 0
    """Seed of the drawn pictures; two stocks with other seeds share none."""
    num_drawn: int = 512
    """Drawn pictures; 512 of side 256 take 100 MB once all have been used."""
    side: int = 256
    """Side of the drawn pictures in pixels, and the longest that files are shrunk to is twice as much."""
    files: Sequence[Path] = ()
    """Picture files."""
    arrays: Sequence[Pixels] = ()
    """Pictures in memory, uint8 (H, W, 3)."""
    taken_share: float = 0.5
    """Share of pictures that come from files and arrays, where there are some, at difficulty 1."""
    max_kept: int = 1024
    """Pictures that stay in memory."""
    _kept: dict[tuple[bool, int, bool], Picture] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.num_drawn < 0 or self.side < 2 * _SMALLEST_LEVEL or not 0 <= self.taken_share <= 1:
            raise ValueError(
                f"num_drawn must be at least 0, side at least 32 and taken_share 0 to 1, "
                f"got {self.num_drawn}, {self.side} and {self.taken_share}"
            )
        if not self.num_drawn and not self.num_taken:
            raise ValueError("a stock needs pictures: draw some, or name files or arrays")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": {}}

    @property
    def num_taken(self) -> int:
        """Pictures of files and arrays."""
        return len(self.files) + len(self.arrays)

    def choose(self, rng: np.random.Generator, difficulty: float) -> Picture:
        """Return a random picture: at difficulty 0 a drawn one with large, bold shapes; at 1 any.

        Raises:
            DualFormerError: if a file is not a picture.
        """
        chance, kind, number = rng.random(), rng.random(), int(rng.integers(2**31))
        share = self.taken_share * (difficulty if self.num_drawn else 1)
        if self.num_taken and (chance < share or not self.num_drawn):
            return self._keep(True, number % self.num_taken, False)
        return self._keep(False, number % self.num_drawn, kind >= difficulty)

    def _keep(self, is_taken: bool, number: int, is_simple: bool) -> Picture:
        key = (is_taken, number, is_simple)
        if key not in self._kept:
            if len(self._kept) >= self.max_kept:
                del self._kept[next(iter(self._kept))]  # the oldest
            if not is_taken:
                self._kept[key] = Picture(draw_picture([self.seed, number, is_simple], self.side, simple=is_simple))
            elif number < len(self.files):
                self._kept[key] = Picture(read_picture(self.files[number], longest=2 * self.side))
            else:
                self._kept[key] = Picture(Image.fromarray(self.arrays[number - len(self.files)]))
        return self._kept[key]


def read_picture(path: Path, *, longest: int) -> Image.Image:
    """Read a picture file upright, in RGB, shrunk to at most `longest` pixels a side.

    Raises:
        DualFormerError: if it is not a picture, or smaller than 32 pixels.
    """
    try:
        with Image.open(path) as file:
            file.draft("RGB", (longest, longest))
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DualFormerError(f"picture {str(path)!r} cannot be read: {error}") from error
    if min(image.size) < 2 * _SMALLEST_LEVEL:
        raise DualFormerError(
            f"picture {str(path)!r} is {image.width}x{image.height}; the smallest of use is 32 pixels a side"
        )
    if max(image.size) > longest:
        image = ImageOps.contain(image, (longest, longest), Image.Resampling.BOX)
    return image


def find_pictures(folder: Path) -> list[Path]:
    """Return the picture files below a folder, sorted.

    Raises:
        DualFormerError: if there is no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise DualFormerError(f"folder of pictures {str(folder)!r} not found")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    if not found:
        raise DualFormerError(f"no pictures in {str(folder)!r}; it needs {', '.join(PICTURE_SUFFIXES)} files")
    return found


def photographs() -> list[Path]:
    """Return the pictures inside an installed scikit-image that are free of rights (CC0 or public domain, as it says).

    Raises:
        DualFormerError: if scikit-image is not installed.
    """
    found = find_spec("skimage")
    if found is None or found.origin is None:
        raise DualFormerError(
            "scikit-image, whose photographs were asked for, is not installed; "
            "pip install 'dualformer[camera-motion]', or name a folder of pictures"
        )
    folder = Path(found.origin).parent / "data"
    return [folder / name for name in _PHOTOGRAPHS if (folder / name).is_file()]


def draw_picture(seed: int | Sequence[int], side: int, *, simple: bool) -> Image.Image:
    """Draw a picture of one of several kinds, (side, side) pixels in RGB.

    Args:
        seed: decides everything.
        side: pixels.
        simple: large shapes in bold colours only.
    """
    rng = np.random.default_rng(seed)
    if simple:
        return _draw_kind(rng, str(rng.choice(_SIMPLE)), side, bold=True)
    image = _draw_kind(rng, str(rng.choice(_ALL)), side, bold=False)
    if rng.random() < 0.4:
        other = _draw_kind(rng, str(rng.choice(_ALL)), side, bold=False)
        mask = Image.fromarray(_threshold(_noise(rng, side, 1, lowest=2, octaves=3)[..., 0], rng.uniform(0.3, 0.7)))
        image.paste(other, (0, 0), mask)
    return image


def _draw_kind(rng: np.random.Generator, kind: str, side: int, *, bold: bool) -> Image.Image:
    if kind == "polygons":
        return _polygons(rng, side, bold=bold)
    if kind == "blobs":
        return _blobs(rng, side, bold=bold)
    if kind == "mosaic":
        return _mosaic(rng, side, bold=bold)
    if kind == "camouflage":
        return _camouflage(rng, side, bold=bold)
    if kind == "noise":
        return _coloured(rng, _noise(rng, side, 3, lowest=int(rng.integers(2, 9)), octaves=6))
    if kind == "bands":
        return _bands(rng, side)
    if kind == "clutter":
        return _clutter(rng, side)
    if kind == "leaves":
        return _leaves(rng, side)
    return _scene(rng, side)


def _colour(rng: np.random.Generator, *, bold: bool = False) -> tuple[int, int, int]:
    """A random colour; bold ones are bright, dark or saturated."""
    values = rng.choice([10, 128, 245], 3) if bold else rng.integers(0, 256, 3)
    return int(values[0]), int(values[1]), int(values[2])


def _noise(rng: np.random.Generator, side: int, channels: int, *, lowest: int, octaves: int) -> npt.NDArray[np.float32]:
    """Noise of several octaves, each weaker than the one before, 0 to 1, shape (side, side, channels)."""
    persistence = rng.uniform(0.35, 0.85)
    total = np.zeros((side, side, channels), np.float32)
    cells, weight = lowest, 1.0
    for _ in range(octaves):
        if cells > side:
            break
        grid = rng.integers(0, 256, (cells + 1, cells + 1, channels), dtype=np.uint8)
        layer = Image.fromarray(grid if channels == 3 else grid[..., 0]).resize((side, side), Image.Resampling.BICUBIC)
        total += weight * np.asarray(layer, np.float32).reshape(total.shape)
        cells, weight = 2 * cells, weight * persistence
    low, high = total.min(), total.max()
    return (total - low) / max(high - low, 1e-6)


def _threshold(values: npt.NDArray[np.float32], share: float) -> Pixels:
    """255 in the highest `share` of the values, 0 elsewhere."""
    return ((values >= np.quantile(values[::4, ::4], 1 - share)) * np.uint8(255)).astype(np.uint8)


def _coloured(rng: np.random.Generator, values: npt.NDArray[np.float32]) -> Image.Image:
    """Mix two or three random colours by noise."""
    if rng.random() < 0.5:  # shades between two colours
        first, second = (np.array(_colour(rng), np.float32) for _ in range(2))
        values = first + (second - first) * values[..., :1]
    else:
        values = values * 255
    return Image.fromarray(values.astype(np.uint8))


def _polygons(rng: np.random.Generator, side: int, *, bold: bool) -> Image.Image:
    image = Image.new("RGB", (side, side), _colour(rng, bold=bold))
    draw = ImageDraw.Draw(image)
    count = int(rng.integers(25, 50) if bold else rng.integers(20, 160))
    largest = 0.22 if bold else rng.uniform(0.06, 0.3)
    for _ in range(count):
        centre, corners = rng.uniform(0, side, 2), int(rng.integers(3, 8))
        angles = np.sort(rng.uniform(0, 2 * math.pi, corners))
        radii = side * largest * rng.uniform(0.4, 1, corners)
        points = centre + np.stack([np.cos(angles) * radii, np.sin(angles) * radii], axis=-1)
        draw.polygon([(float(x), float(y)) for x, y in points], fill=_colour(rng, bold=bold))
    return image


def _blobs(rng: np.random.Generator, side: int, *, bold: bool) -> Image.Image:
    image = Image.new("RGB", (side, side), _colour(rng, bold=bold))
    draw = ImageDraw.Draw(image)
    count = int(rng.integers(25, 60) if bold else rng.integers(20, 250))
    largest = 0.14 if bold else rng.uniform(0.03, 0.2)
    for _ in range(count):
        x, y = rng.uniform(0, side, 2)
        rx, ry = side * largest * rng.uniform(0.3, 1, 2)
        outline = _colour(rng) if rng.random() < 0.3 else None
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=_colour(rng, bold=bold), outline=outline, width=2)
    return image


def _mosaic(rng: np.random.Generator, side: int, *, bold: bool) -> Image.Image:
    """Rectangles of random colours: a chequerboard without a period."""
    columns, rows = rng.integers(5, 10 if bold else 28, 2)
    palette = np.array([_colour(rng, bold=bold) for _ in range(int(rng.integers(3, 8)))], np.uint8)
    cells = palette[rng.integers(0, len(palette), (int(rows), int(columns)))]
    return Image.fromarray(cells).resize((side, side), Image.Resampling.NEAREST)


def _camouflage(rng: np.random.Generator, side: int, *, bold: bool) -> Image.Image:
    values = _noise(rng, side, 1, lowest=4 if bold else int(rng.integers(3, 16)), octaves=2 if bold else 4)[..., 0]
    pixels = np.empty((side, side, 3), np.uint8)
    pixels[:] = _colour(rng, bold=True)
    for share in (0.66, 0.33):
        pixels[_threshold(values, share) > 0] = _colour(rng, bold=bold)
    return Image.fromarray(pixels)


def _bands(rng: np.random.Generator, side: int) -> Image.Image:
    """Stripes bent by noise, with shapes on them: stripes alone would not show motion along them."""
    rows, columns = np.mgrid[0:side, 0:side].astype(np.float32) / side
    angle, cycles = rng.uniform(0, math.pi), rng.uniform(3, 16)
    bent = _noise(rng, side, 1, lowest=3, octaves=2)[..., 0] * rng.uniform(0.2, 1.5)
    phase = cycles * (columns * math.cos(angle) + rows * math.sin(angle)) + bent
    wave = 0.5 + 0.5 * np.sin(2 * math.pi * phase)
    if rng.random() < 0.5:
        wave = np.clip((wave - 0.5) * 8 + 0.5, 0, 1)
    first, second = (np.array(_colour(rng), np.float32) for _ in range(2))
    image = Image.fromarray((first + (second - first) * wave[..., None]).astype(np.uint8))
    _sprinkle(rng, image, int(rng.integers(8, 40)))
    return image


def _clutter(rng: np.random.Generator, side: int) -> Image.Image:
    """Lines of strokes that look like text, some larger, some in boxes."""
    paper = _colour(rng)
    image = Image.new("RGB", (side, side), paper)
    draw = ImageDraw.Draw(image)
    y = 0.0
    while y < side:
        size, x = rng.uniform(0.012, 0.05) * side, rng.uniform(-0.1, 0.3) * side
        ink = _colour(rng, bold=True)
        if rng.random() < 0.2:
            draw.rectangle((x, y, x + rng.uniform(0.2, 0.8) * side, y + size * 1.5), fill=_colour(rng))
        while x < side * rng.uniform(0.7, 1.2):
            stroke = size * rng.uniform(0.1, 0.7)
            top = y + size * rng.uniform(0, 0.4)
            draw.rectangle((x, top, x + stroke, max(top, y + size * rng.uniform(0.6, 1))), fill=ink)
            x += stroke + size * (rng.uniform(0.1, 0.3) if rng.random() < 0.8 else 0.8)
        y += size * rng.uniform(1.3, 2.2)
    return image


def _leaves(rng: np.random.Generator, side: int) -> Image.Image:
    """Shapes of all sizes that hide one another, in related colours, rough and shaded: statistically like photographs.

    It is the "dead leaves" model; without it a network reads drawn pictures better than photographs by ten points.
    """
    base, contrast, colourful = rng.uniform(50, 200, 3), rng.uniform(15, 70), rng.uniform(0, 30)
    image = Image.new("RGB", (side, side), (int(base[0]), int(base[1]), int(base[2])))
    draw = ImageDraw.Draw(image)
    count = int(rng.integers(150, 600))
    least = rng.uniform(0.006, 0.03) * side
    radii = np.minimum(least * rng.uniform(0.002, 1, count) ** -0.5, side * 0.35)
    shades = base + contrast * rng.standard_normal((count, 1)) + colourful * rng.standard_normal((count, 3))
    corners = int(rng.integers(3, 8))
    for radius, shade in zip(radii.tolist(), shades.clip(0, 255).astype(int).tolist(), strict=True):
        x, y = rng.uniform(0, side, 2)
        ink, turn, flat = (shade[0], shade[1], shade[2]), rng.uniform(0, math.pi), rng.uniform(0.3, 1)
        if rng.random() < 0.5:
            draw.ellipse((x - radius, y - flat * radius, x + radius, y + flat * radius), fill=ink)
        else:
            angles = turn + 2 * math.pi * np.arange(corners) / corners
            points = zip(
                (x + radius * np.cos(angles)).tolist(), (y + flat * radius * np.sin(angles)).tolist(), strict=True
            )
            draw.polygon(list(points), fill=ink)
    if rng.random() < 0.7:
        image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.01) * side)))
    rough = _noise(rng, side, 3, lowest=int(rng.integers(8, 48)), octaves=6) - 0.5
    light = _noise(rng, side, 1, lowest=2, octaves=2) - 0.5
    grey = rough.mean(axis=2, keepdims=True)
    values = np.asarray(image, np.float32) + rng.uniform(0, 90) * grey + rng.uniform(0, 25) * rough
    values *= 1 + rng.uniform(0, 1) * light
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def _scene(rng: np.random.Generator, side: int) -> Image.Image:
    """A bright, smooth part above, a rough one below and boxes on the edge between: like outdoors, or a room."""
    first, second = (np.array(_colour(rng), np.float32) for _ in range(2))
    ramp = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
    above = first + (second - first) * ramp + 40 * (_noise(rng, side, 1, lowest=2, octaves=3) - 0.5)
    image = Image.fromarray(np.broadcast_to(above, (side, side, 3)).clip(0, 255).astype(np.uint8))
    horizon = int(side * rng.uniform(0.35, 0.65))
    image.paste(_coloured(rng, _noise(rng, side, 3, lowest=8, octaves=5)), (0, horizon))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(6, 24))):
        x, width, height = rng.uniform(0, side), side * rng.uniform(0.02, 0.15), side * rng.uniform(0.05, 0.35)
        base = horizon + side * rng.uniform(-0.05, 0.2)
        draw.rectangle((x, base - height, x + width, base), fill=_colour(rng), outline=_colour(rng))
        for row in range(int(rng.integers(0, 5))):  # windows, shelves
            level = base - height * (row + 0.7) / 5
            draw.rectangle((x + width * 0.2, level, x + width * 0.8, level + height * 0.06), fill=_colour(rng))
    _sprinkle(rng, image, int(rng.integers(4, 20)))
    return image


def _sprinkle(rng: np.random.Generator, image: Image.Image, count: int) -> None:
    """Put small shapes and lines here and there."""
    draw = ImageDraw.Draw(image)
    side = image.width
    for _ in range(count):
        x, y = rng.uniform(0, side, 2)
        rx, ry = side * rng.uniform(0.01, 0.07, 2)
        shape = rng.integers(3)
        if shape == 0:
            draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=_colour(rng))
        elif shape == 1:
            draw.rectangle((x - rx, y - ry, x + rx, y + ry), fill=_colour(rng))
        else:
            draw.line(
                (x - 3 * rx, y - 3 * ry, x + 3 * rx, y + 3 * ry), fill=_colour(rng), width=int(rng.integers(1, 5))
            )
