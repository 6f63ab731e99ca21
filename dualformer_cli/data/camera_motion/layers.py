"""What lies before the camera: the picture that it moves over, and single things in front of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dualformer_cli.data.camera_motion.paths import Floats
from dualformer_cli.data.camera_motion.pictures import Picture

Size = tuple[int, int]
"""Height and width in pixels."""

_THUMBNAIL = (24, 16)
_MIRROR_BELOW = 0.6
"""Magnification of a picture from which on its mirror images are laid beside it instead."""
_SUB_FRAMES = 3


class Layer(Protocol):
    """Something that is painted onto frames."""

    def paste(self, frames: list[Image.Image], matrices: Floats, shown: npt.NDArray[np.intp]) -> None:
        """Paint it.

        Args:
            frames: T images, changed in place.
            matrices: where the camera looks in each of them, shape (T, 2, 3), as `CameraPath.matrices`.
            shown: which moment of the clip each of them shows, shape (T,).
        """


@dataclass(frozen=True, slots=True)
class View:
    """How the scene lies on the picture."""

    picture: Picture
    linear: Floats
    """From the scene to pixels of the picture, shape (2, 2)."""
    centre: Floats
    """Pixel of the picture at the scene's origin, (x, y)."""
    window: tuple[int, int]
    softness: int
    """Halvings of resolution beyond what is needed against aliasing."""

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        picture: Picture,
        matrices: Floats,
        window: tuple[int, int],
        difficulty: float,
    ) -> View:
        """Lay the scene onto the picture so that no frame looks beyond its edge."""
        height, width = window
        turn = rng.uniform(-1, 1) * difficulty * (math.pi if rng.random() < 0.25 else 0.1)
        mirror = np.diag([rng.choice([-1.0, 1.0]), 1.0 if rng.random() < 0.8 else -1.0])
        rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]]) @ mirror
        # an open shutter looks up to half a step beyond; two pixels spare the filter's border
        x, y = width / 2 + 2, height / 2 + 2
        corners = np.array([[-x, -y, 1], [x, -y, 1], [-x, y, 1], [x, y, 1]]).T
        seen = rotation @ (matrices @ corners).transpose(1, 0, 2).reshape(2, -1)
        low, high = seen.min(axis=1), seen.max(axis=1)
        extent = (high - low) * 1.02
        while (largest := float((np.array(picture.image.size) / extent).min())) < _MIRROR_BELOW:
            picture = picture.tiled
        smallest = min(largest, max(_MIRROR_BELOW, largest * (0.9 - 0.5 * difficulty)))
        scale = math.exp(rng.uniform(math.log(smallest), math.log(largest)))
        free = np.array(picture.image.size) - scale * extent
        centre = rng.uniform(0, 1, 2) * free - scale * (low - 0.01 * (high - low))
        softness = int(rng.random() < 0.2 * difficulty)
        return cls(picture, scale * rotation, centre, window, softness)

    def render(self, matrices: Floats, shutter: float) -> list[Image.Image]:
        """Return the frames that cameras see, each (H, W), blurred along the way if the shutter is open."""
        if not shutter:
            return [self.frame(matrix) for matrix in matrices]
        velocity = np.gradient(matrices, axis=0)
        frames = []
        for matrix, change in zip(matrices, velocity, strict=True):
            offsets = np.linspace(-shutter / 2, shutter / 2, _SUB_FRAMES)
            exposures = [self.frame(matrix + offset * change) for offset in offsets]
            blended = exposures[0]
            for number, exposure in enumerate(exposures[1:], start=2):
                blended = Image.blend(blended, exposure, 1 / number)
            frames.append(blended)
        return frames

    def detail(self, matrix: Floats) -> float:
        """How strong the edges of a frame are in the direction that has least, in steps of brightness.

        A frame with a low value looks the same after some motion: it is flat, or has stripes.
        """
        thumbnail = self.frame(matrix).convert("L").resize(_THUMBNAIL, Image.Resampling.BOX)
        values = np.asarray(thumbnail, np.float64)
        down, right = np.diff(values, axis=0)[:, 1:].ravel(), np.diff(values, axis=1)[1:].ravel()
        return math.sqrt(max(0.0, float(np.linalg.eigvalsh(np.cov([down, right], bias=True))[0])))

    def frame(self, matrix: Floats) -> Image.Image:
        height, width = self.window
        linear = self.linear @ matrix[:, :2]
        shift = self.linear @ matrix[:, 2] + self.centre
        # Pillow's coordinates begin at the corner of a frame, the matrix's in its middle
        shift = shift - linear @ np.array([width / 2, height / 2])
        scale = math.sqrt(abs(float(np.linalg.det(linear))))
        level = max(0, math.floor(math.log2(max(scale, 1e-6)) + 0.3)) + self.softness
        level = min(level, len(self.picture.levels) - 1)
        image, shrink = self.picture.levels[level], 0.5**level
        a, b, c, d = (shrink * linear).ravel().tolist()
        e, f = (shrink * shift).tolist()
        return image.transform((width, height), Image.Transform.AFFINE, (a, b, e, c, d, f), Image.Resampling.BILINEAR)


@dataclass(frozen=True, slots=True)
class Thing:
    """Something in front of the scene."""

    image: Image.Image
    """RGBA, square, transparent outside the thing."""
    x: Floats
    """Middle of the thing in each frame without the camera's motion, in pixels from the window's middle, shape (T,)."""
    y: Floats
    angle: Floats
    scale: Floats
    """Pixels of the frame per pixel of the image."""
    depth: float | None
    """How many times the camera's motion it moves by; None for a thing that the camera does not move."""

    def paste(self, frames: list[Image.Image], matrices: Floats, shown: npt.NDArray[np.intp]) -> None:
        """Paint the thing onto each frame."""
        for frame, matrix, moment in zip(frames, matrices, shown, strict=True):
            x, y, angle, scale = self.x[moment], self.y[moment], self.angle[moment], self.scale[moment]
            if self.depth is not None:
                inverse = np.linalg.inv(matrix[:, :2])
                x, y = inverse @ (np.array([x, y]) - self.depth * matrix[:, 2])
                angle = angle + math.atan2(inverse[1, 0], inverse[0, 0])
                scale = scale * math.sqrt(float(np.linalg.det(inverse)))
            self._paste(frame, float(x), float(y), float(angle), float(scale))

    def _paste(self, frame: Image.Image, x: float, y: float, angle: float, scale: float) -> None:
        side = math.ceil(self.image.width * scale * 1.42) + 2
        left, top = frame.width / 2 + x - side / 2, frame.height / 2 + y - side / 2
        column, row = math.floor(left), math.floor(top)
        if not (-side < column < frame.width and -side < row < frame.height):
            return
        cos, sin, half = math.cos(angle) / scale, math.sin(angle) / scale, self.image.width / 2
        px, py = side / 2 + left - column, side / 2 + top - row  # the thing's middle within the patch
        affine = (cos, sin, half - cos * px - sin * py, -sin, cos, half + sin * px - cos * py)
        patch = self.image.transform((side + 1, side + 1), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        frame.paste(patch, (column, row), patch)


def cut_out(rng: np.random.Generator, picture: Picture, side: int, *, shape: int | None = None) -> Image.Image:
    """Cut a shape out of a random place of a picture, RGBA, (side, side): 0 round, 1 a box, 2 a polygon, or any."""
    level = picture.levels[min(int(rng.integers(3)), len(picture.levels) - 1)]
    span = min(side, *level.size)
    left, top = (int(rng.integers(0, free - span + 1)) for free in level.size)
    image = level.resize((side, side), Image.Resampling.BILINEAR, (left, top, left + span, top + span)).convert("RGBA")
    mask = Image.new("L", (2 * side, 2 * side))
    draw = ImageDraw.Draw(mask)
    shape = int(rng.integers(3)) if shape is None else shape
    if shape == 0:
        draw.ellipse((4, 4, 2 * side - 4, 2 * side - 4), fill=255)
    elif shape == 1:
        inset = side * rng.uniform(0.1, 0.6, 2)
        draw.rounded_rectangle((*inset, *(2 * side - inset)), radius=side * 0.2, fill=255)
    else:
        angles = np.sort(rng.uniform(0, 2 * math.pi, int(rng.integers(4, 9))))
        radii = rng.uniform(0.5, 0.95, len(angles))
        points = side * (1 + radii * np.stack([np.cos(angles), np.sin(angles)]))
        draw.polygon([(float(x), float(y)) for x, y in points.T], fill=255)
    image.putalpha(mask.reduce(2))
    return image
