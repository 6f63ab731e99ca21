"""Heatmaps drawn onto frames, over the course of their heat: as a video, a GIF, or a sheet of frames."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from dualformer_cli.config.option_defaults import GRADCAM_ALPHA, GRADCAM_COLORMAP, Colormap
from dualformer_cli.config.schema import Decoder
from dualformer_cli.outputs.annotated_video import VideoWriter
from dualformer_cli.outputs.fonts import draw_label, font_of, prefer
from dualformer_cli.outputs.screen import clock
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.workers import heartbeat
from dualformer_cli.video.open import open_video
from dualformer_cli.video.reader import Frame, VideoReader

Heat = np.ndarray[Any, np.dtype[np.uint8]]
"""0 to 255, shape (H, W)."""

_ANCHORS: dict[str, str] = {  # 17 colours at even steps; between them the maps bend by at most 7 grey levels
    "magma": "000004 0a0822 1d1147 36106b 51127c 6a1c81 832681 9c2e7f b73779"
    " cf4070 e55064 f4695c fb8761 fea571 fec287 fde0a1 fcfdbf",
    "viridis": "440154 48186a 472d7b 424086 3b528b 33638d 2c728e 26828e 21918c"
    " 1f9f88 27ad81 3dbc74 5cc863 81d34d aadc32 d5e21a fde725",
    "turbo": "30123b 4040a2 466be3 4294ff 28bceb 18ddc2 32f298 6dfe62 a4fc3c"
    " cbed34 ecd13a fdae35 fb8122 ec530f d23105 ac1701 7a0403",
    "gray": "000000 ffffff",
}

_BACKGROUND, _INK, _FAINT = (22, 24, 29), (240, 240, 240), (150, 156, 165)
_CURVE, _BELOW_CURVE, _PLAYHEAD = (255, 159, 90), (92, 62, 44), (255, 255, 255)
_UNSEEN = 0.4  # brightness of what lies outside the crop
_GIF_SIDE, _MP4_SIDE = 400, 1280
_MIN_WIDTH = 360
"""Of the panel with label and curve, in pixels."""
_SHEET_COLUMNS, _SHEET_CELLS = 4, 16
_CELL_WIDTH, _CELL_HEIGHT = 320, 320
_GAP = 6
_FRAMES_PER_READ = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Heatmaps:
    """Heat of frames in the order in which they are shown, and what is written beside it."""

    heat: np.ndarray[Any, np.dtype[np.uint8]]
    """Shape (F, H, W), 0 to 255."""
    boxes: np.ndarray[Any, np.dtype[np.float64]]
    """Part of the frame that the heat covers, (left, top, right, bottom) as shares of the frame, shape (F, 4)."""
    curve: np.ndarray[Any, np.dtype[np.float32]]
    """Saliency of each frame, not negative, shape (F,)."""
    numbers: np.ndarray[Any, np.dtype[np.int64]]
    """Number of each frame in its video, shape (F,)."""
    fps: float | None
    """Of the source, for times; None where only frame numbers are known."""
    breaks: tuple[int, ...] = ()
    """Where another view begins; with any, the curve runs over the frames as shown, else over the video."""
    title: str
    detail: str

    def __len__(self) -> int:
        return len(self.heat)

    def positions(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Place of each frame along the curve, 0 to 1, shape (F,)."""
        places = np.arange(len(self)) if self.breaks else self.numbers
        span = places[-1] - places[0]
        return (places - places[0]) / span if span else np.full(len(self), 0.5)

    def moment(self, index: int) -> str:
        """When a frame is shown, in words."""
        number = int(self.numbers[index])
        return f"frame {number}" if self.fps is None else f"frame {number}, {clock(number / self.fps)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """How heat is painted."""

    alpha: float = GRADCAM_ALPHA
    """Share of the heat's colour in the picture."""
    colormap: Colormap = GRADCAM_COLORMAP
    side_by_side: bool = False
    """The plain frame to the left of the painted one."""

    @property
    def columns(self) -> int:
        return 2 if self.side_by_side else 1


@cache
def colours_of(colormap: Colormap) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Colours of the values 0 to 255, shape (256, 3)."""
    anchors = np.array([list(bytes.fromhex(colour)) for colour in _ANCHORS[colormap].split()])
    places = np.linspace(0, 255, len(anchors))
    return np.stack([np.interp(np.arange(256), places, c) for c in anchors.T], axis=1).round().astype(np.uint8)


def paint(frame: Frame, heat: Heat, box: Sequence[float], style: Style) -> Frame:
    """Return the frame with heat painted over the part that `box` names; the model did not see the rest, now darker.

    Args:
        frame: shape (H, W, 3).
        heat: any shape (h, w).
        box: left, top, right, bottom as shares of the frame.
        style: colours and their share.
    """
    height, width = frame.shape[:2]
    left, right = (round(side * width) for side in (box[0], box[2]))
    top, bottom = (round(side * height) for side in (box[1], box[3]))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    fitted = Image.fromarray(heat).resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    painted = (frame * _UNSEEN).astype(np.uint8)
    seen = frame[top:bottom, left:right]
    colour = colours_of(style.colormap)[np.asarray(fitted)]
    painted[top:bottom, left:right] = (seen * (1 - style.alpha) + colour * style.alpha).round().astype(np.uint8)
    return painted


def picture_size(width: int, height: int, path: str | os.PathLike[str], style: Style) -> tuple[int, int]:
    """The (width, height) in which frames of a video should come to `write_overlay` or `write_sheet` for `path`."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ".png":
        box_width, box_height, at_least = _CELL_WIDTH, _CELL_HEIGHT, _CELL_WIDTH
    else:
        limit = _GIF_SIDE if suffix == ".gif" else _MP4_SIDE
        box_width = (limit - (style.columns - 1) * _GAP) // style.columns
        box_height = limit - _Panel.height
        at_least = _MIN_WIDTH // style.columns
    scale = min(box_width / width, box_height / height, max(1.0, at_least / width))
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


def fit(frame: Frame, size: tuple[int, int]) -> Frame:
    """Return the frame in another (width, height)."""
    if (frame.shape[1], frame.shape[0]) == size:
        return frame
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0))


def write_overlay(
    frames: Iterable[Frame], heatmaps: Heatmaps, path: str | os.PathLike[str], *, fps: float, style: Style
) -> None:
    """Write an .mp4 or .gif of the frames with their heat, above its curve with a playhead.

    Args:
        frames: as many as `heatmaps`, in its order, each in `picture_size`.
        heatmaps: the heat.
        path: the file to write; it appears only when complete.
        fps: frames shown per second.
        style: how heat is painted.

    Raises:
        DualFormerError: if the file cannot be written.
    """
    panel: _Panel | None = None
    with VideoWriter(path, fps=fps) as writer:
        for index, frame in enumerate(frames):
            picture = _beside(frame, heatmaps, index, style)
            if panel is None:
                panel = _Panel(heatmaps, max(picture.shape[1], _MIN_WIDTH))
            writer.write(np.concatenate([_centred(picture, panel.width), panel.at(index)]))


def sheet_frames(num_frames: int, style: Style) -> list[int]:
    """Which of the frames a sheet shows: evenly chosen, the first and the last among them."""
    cells = _SHEET_CELLS // style.columns
    return [int(index) for index in np.unique(np.linspace(0, num_frames - 1, cells).round())]


def write_sheet(
    frames: Iterable[Frame],
    heatmaps: Heatmaps,
    path: str | os.PathLike[str],
    *,
    chosen: Sequence[int],
    style: Style,
) -> None:
    """Write a PNG of some frames with their heat, above its curve on which they are marked.

    Args:
        frames: the chosen ones, in order, each in `picture_size`.
        heatmaps: the heat of all.
        path: the file to write; it appears only when complete.
        chosen: places of the frames in `heatmaps`.
        style: how heat is painted.

    Raises:
        DualFormerError: if the file cannot be written.
    """
    cells = [
        np.concatenate([_beside(frame, heatmaps, index, style), _caption(heatmaps.moment(index), frame, style)])
        for index, frame in zip(chosen, frames, strict=True)
    ]
    columns = min(len(cells), _SHEET_COLUMNS // style.columns)
    height, width = cells[0].shape[:2]
    rows = -(-len(cells) // columns)
    inner_width = max(columns * (width + _GAP) - _GAP, _MIN_WIDTH)
    panel = _Panel(heatmaps, inner_width)
    sheet = np.empty((rows * (height + _GAP) + panel.height + 2 * _GAP, inner_width + 2 * _GAP, 3), np.uint8)
    sheet[:] = _BACKGROUND
    for number, cell in enumerate(cells):
        row, column = divmod(number, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[top : top + height, left : left + width] = cell
    sheet[-panel.height - _GAP : -_GAP, _GAP:-_GAP] = panel.with_marks(chosen, style.colormap)
    with atomic_path(path) as temporary:
        Image.fromarray(sheet).save(temporary, format="PNG")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """The heat of a video, and how and where to draw it."""

    video: str
    decoder: Decoder
    frame_rate: float | None
    frame_name: str | None
    heatmaps: Heatmaps
    style: Style
    fps: float
    """Of the GIF or video that is written."""
    target: str
    font: str | None = None
    """File of the font for letters that the built-in one lacks."""


def draw(drawing: Drawing) -> None:
    """Decode the frames that are shown, draw the heat onto them and write the file, in a worker process."""
    heatmaps, style, target = drawing.heatmaps, drawing.style, drawing.target
    prefer(drawing.font)
    with open_video(
        drawing.video, decoder=drawing.decoder, frame_rate=drawing.frame_rate, frame_name=drawing.frame_name
    ) as reader:
        size = picture_size(reader.info.width, reader.info.height, target, style)
        if target.lower().endswith(".png"):
            chosen = sheet_frames(len(heatmaps), style)
            frames = _frames(reader, heatmaps.numbers[chosen].tolist(), size)
            write_sheet(frames, heatmaps, target, chosen=chosen, style=style)
        else:
            frames = _frames(reader, heatmaps.numbers.tolist(), size)
            write_overlay(frames, heatmaps, target, fps=drawing.fps, style=style)


def _frames(reader: VideoReader, numbers: list[int], size: tuple[int, int]) -> Iterator[Frame]:
    """Yield the frames with these numbers in another (width, height), a few of them in memory at a time."""
    for start in range(0, len(numbers), _FRAMES_PER_READ):
        for frame in reader.read(numbers[start : start + _FRAMES_PER_READ], partial(fit, size=size)):
            heartbeat()  # drawing takes its time too
            yield frame
    heartbeat()


def _beside(frame: Frame, heatmaps: Heatmaps, index: int, style: Style) -> Frame:
    painted = paint(frame, heatmaps.heat[index], heatmaps.boxes[index], style)
    if not style.side_by_side:
        return painted
    gap = np.empty((frame.shape[0], _GAP, 3), np.uint8)
    gap[:] = _BACKGROUND
    return np.concatenate([frame, gap, painted], axis=1)


def _centred(picture: Frame, width: int) -> Frame:
    room = width - picture.shape[1]
    canvas = np.empty((picture.shape[0], width, 3), np.uint8)
    canvas[:] = _BACKGROUND
    canvas[:, room // 2 : room // 2 + picture.shape[1]] = picture
    return canvas


def _caption(text: str, frame: Frame, style: Style) -> Frame:
    width = style.columns * (frame.shape[1] + _GAP) - _GAP
    image = Image.new("RGB", (width, 20), _BACKGROUND)
    place = (width // 2, 9)
    draw_label(ImageDraw.Draw(image), place, text, size=13, room=width - 4, fill=_FAINT, anchor="mm")
    return np.asarray(image)


class _Panel:
    """What stands below the pictures: class and score, the curve of the heat, its axis."""

    height = 104
    _left, _top, _bottom = 10, 44, 84
    """Where the curve is drawn."""

    def __init__(self, heatmaps: Heatmaps, width: int) -> None:
        self.width, self._heatmaps = width + width % 2, heatmaps
        places = heatmaps.positions() * (self.width - 1 - 2 * self._left) + self._left
        share = heatmaps.curve / (float(heatmaps.curve.max()) or 1.0)
        heights = self._bottom - share * (self._bottom - self._top)
        self._points = [(float(x), float(y)) for x, y in zip(places, heights, strict=True)]
        self._image = Image.new("RGB", (self.width, self.height), _BACKGROUND)
        self._draw_text()
        self._draw_curve()

    def at(self, index: int) -> Frame:
        """The panel with the playhead on one frame."""
        image = self._image.copy()
        draw = ImageDraw.Draw(image)
        x, y = self._points[index]
        draw.line((x, self._top - 3, x, self._bottom), fill=_PLAYHEAD, width=1)
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_PLAYHEAD)
        middle = (self.width // 2, self._bottom + 3)
        draw.text(middle, self._heatmaps.moment(index), fill=_INK, font=font_of(12), anchor="ma")
        return np.asarray(image)

    def with_marks(self, chosen: Sequence[int], colormap: Colormap) -> Frame:
        """The panel with dots on some frames, and what the colours mean."""
        image = self._image.copy()
        draw = ImageDraw.Draw(image)
        for index in chosen:
            x, y = self._points[index]
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_PLAYHEAD)
        scale = Image.fromarray(np.tile(colours_of(colormap)[None], (10, 1, 1))).resize((120, 10))
        left, top = (self.width - 120) // 2, self._bottom + 6
        image.paste(scale, (left, top))
        draw.text((left - 5, top + 5), "cold", fill=_FAINT, font=font_of(12), anchor="rm")
        draw.text((left + 125, top + 5), "hot", fill=_FAINT, font=font_of(12), anchor="lm")
        return np.asarray(image)

    def _draw_text(self) -> None:
        draw, room = ImageDraw.Draw(self._image), self.width - 2 * self._left
        draw_label(draw, (self._left, 5), self._heatmaps.title, size=16, room=room, fill=_INK)
        draw_label(draw, (self._left, 25), self._heatmaps.detail, size=12, room=room, fill=_FAINT)
        for index, x, anchor in ((0, self._left, "la"), (-1, self.width - self._left, "ra")):
            draw.text((x, self._bottom + 3), self._end(index), fill=_FAINT, font=font_of(12), anchor=anchor)

    def _end(self, index: int) -> str:
        """What is written at an end of the axis."""
        if self._heatmaps.breaks:
            return "view 1" if index == 0 else f"view {len(self._heatmaps.breaks) + 1}"
        number = int(self._heatmaps.numbers[index])
        return str(number) if self._heatmaps.fps is None else clock(number / self._heatmaps.fps)

    def _draw_curve(self) -> None:
        draw = ImageDraw.Draw(self._image)
        for part in self._parts():
            if len(part) == 1:
                (x, y) = part[0]
                draw.line((x, y, x, self._bottom), fill=_CURVE, width=2)
                continue
            draw.polygon([(part[0][0], self._bottom), *part, (part[-1][0], self._bottom)], fill=_BELOW_CURVE)
            draw.line(part, fill=_CURVE, width=2, joint="curve")
        draw.line((self._left, self._bottom, self.width - self._left, self._bottom), fill=_FAINT)
        for place in self._heatmaps.breaks:
            x = (self._points[place - 1][0] + self._points[place][0]) / 2
            draw.line((x, self._top - 3, x, self._bottom), fill=_FAINT)

    def _parts(self) -> Iterator[list[tuple[float, float]]]:
        """The curve, cut where views begin and where no view saw the video."""
        steps = np.diff(self._heatmaps.numbers)
        usual = float(np.median(steps)) if len(steps) else 1.0
        cuts = self._heatmaps.breaks or tuple(int(i) + 1 for i in np.flatnonzero(steps > 3 * usual))
        edges = [0, *cuts, len(self._points)]
        for start, stop in pairwise(edges):
            yield self._points[start:stop]
