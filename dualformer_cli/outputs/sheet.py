"""A sheet of clips: one row each, with its class and some of its frames."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dualformer_cli.errors import DualFormerError
from dualformer_cli.outputs.fonts import draw_label
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.output_checks import check_outputs
from dualformer_cli.video.reader import Frame

Clip = tuple[str, str, Sequence[Frame] | np.ndarray]
"""(class, path, frames), frames uint8 of shape (T, S, S, 3)."""

FRAMES_PER_CLIP = 8
_SIDE = 112
"""Of a frame on the sheet, in pixels."""
_GAP = 4
_MARGIN = 12
_TITLE, _LABEL, _PATH = 16, 15, 11
_ROW = _LABEL + _PATH + 12
"""Height of the text above the frames of a clip."""
_PAPER, _INK, _FADED = (255, 255, 255), (20, 20, 20), (110, 110, 110)


def check_sheet(path: Path, inputs: Sequence[str], *, overwrite: bool, made: str) -> None:
    """Refuse a file that `write_sheet` could not or should not write, before any work is done.

    Raises:
        DualFormerError: if its name does not end in .png, or as `check_outputs`, which takes the same.
    """
    if path.suffix.lower() != ".png":
        raise DualFormerError(f"cannot draw a sheet as {str(path)!r}: it is a PNG; name a file that ends in .png")
    check_outputs([path], inputs, overwrite=overwrite, made=made)


def write_sheet(clips: Sequence[Clip], path: str | os.PathLike[str], *, title: str) -> None:
    """Draw the clips below each other: class and path, and below them frames evenly spread over the clip.

    Args:
        clips: what to draw; any number of frames each.
        path: the .png to write; it appears only when complete.
        title: first line of the sheet.
    """
    most = max(min(FRAMES_PER_CLIP, len(frames)) for _, _, frames in clips)
    width = 2 * _MARGIN + most * (_SIDE + _GAP) - _GAP
    top = _MARGIN + _TITLE + 14
    height = top + len(clips) * (_ROW + _SIDE + 3 * _GAP) + _MARGIN
    sheet = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    room = width - 2 * _MARGIN
    draw_label(draw, (_MARGIN, _MARGIN), title, size=_TITLE, room=room, fill=_INK)
    for label, name, frames in clips:
        draw_label(draw, (_MARGIN, top), label, size=_LABEL, room=room, fill=_INK)
        below = top + _LABEL + 5
        draw_label(draw, (_MARGIN, below), name, size=_PATH, room=room, fill=_FADED)
        count = min(FRAMES_PER_CLIP, len(frames))
        for place in range(count):
            frame = np.ascontiguousarray(frames[(2 * place + 1) * len(frames) // (2 * count)])
            small = Image.fromarray(frame).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
            sheet.paste(small, (_MARGIN + place * (_SIDE + _GAP), top + _ROW))
        top += _ROW + _SIDE + 3 * _GAP
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)
