"""Which way up a stored frame is shown: the display matrix of a container or a stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from av.video.frame import VideoFrame


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the eight ways in which a stored frame is turned upright: first mirrored, then rotated."""

    is_mirrored: bool = False
    """Whether left and right change places, before the rotation."""
    rotation: int = 0
    """Degrees counter-clockwise: 0, 90, 180 or 270."""

    def apply(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an image, shape (height, width, ...), upright; a view of it."""
        mirrored = image[:, ::-1] if self.is_mirrored else image
        return np.rot90(mirrored, self.rotation // 90) if self.rotation else mirrored

    def upright_size(self, width: int, height: int) -> tuple[int, int]:
        """Return (width, height) of an upright frame, of those that are stored; or the other way round."""
        return (height, width) if self.rotation % 180 else (width, height)


UPRIGHT = Orientation()


def orientation_of(frame: VideoFrame) -> Orientation:
    """Return how a decoded frame is turned upright, by the matrix that its container or its stream states."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV, at a frame with side data of a kind that is newer than it, such as EXIF
        return Orientation(rotation=round(max(-360, frame.rotation) / 90) % 4 * 90)
    return UPRIGHT if data is None else from_matrix(np.frombuffer(memoryview(cast("Any", data)), np.int32))


def from_matrix(matrix: npt.NDArray[np.int32]) -> Orientation:
    """Return the orientation that is nearest to a display matrix.

    Args:
        matrix: nine numbers (a, b, u, c, d, v, x, y, w), ISO/IEC 14496-12, 6.2.2: the pixel at (x, y), y downwards, is
            shown at (a x + c y, b x + d y). Turns in between become the nearest quarter turn, and a matrix of zeros,
            which shows nothing, none.
    """
    a, b, c, d = (float(matrix[place]) for place in (0, 1, 3, 4))
    if not any((a, b, c, d)):
        return UPRIGHT
    is_mirrored = a * d - b * c < 0
    if abs(a) + abs(d) >= abs(b) + abs(c):
        rotation = 180 if (d < 0 if is_mirrored else a + d < 0) else 0
    elif is_mirrored:
        rotation = 90 if b + c > 0 else 270
    else:
        rotation = 90 if c - b > 0 else 270
    return Orientation(is_mirrored, rotation)
