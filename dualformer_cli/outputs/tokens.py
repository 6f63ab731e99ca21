"""Frames beside the class of each of their tokens, as one picture with a legend, and what was stored as text."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TextIO

import numpy as np
from PIL import Image, ImageDraw

from dualformer_cli.documents.tokenlabel import LabelPlan, Tokens, WrittenLabels
from dualformer_cli.outputs.fonts import draw_label, font_of
from dualformer_cli.outputs.runs import print_rows
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import counted, shown_path, size_in_words
from dualformer_cli.video.reader import Frame

_COLOURS = (
    (230, 25, 75),
    (60, 180, 75),
    (0, 130, 200),
    (255, 225, 25),
    (245, 130, 48),
    (145, 30, 180),
    (70, 240, 240),
    (240, 50, 230),
    (210, 245, 60),
    (250, 190, 212),
    (0, 128, 128),
    (170, 110, 40),
)
"""One per class of the legend; far apart from each other, also in brightness."""
_OTHER = (128, 128, 128)
_COVER = 0.55
"""Share of the colour in a token's cell; the frame shines through."""
_INK, _FAINT, _PAPER = (32, 32, 32), (110, 110, 110), (255, 255, 255)
_SIDE = 224
"""Height of a frame in the picture."""
_GAP, _TEXT, _LEGEND_WIDTH = 16, 15, 340
_MAX_COLUMNS = 2


class Panel(NamedTuple):
    """One frame with the class of each token."""

    frame: Frame
    """Shape (H, W, 3)."""
    classes: np.ndarray[Any, np.dtype[np.int64]]
    """Shape (h, w); the grid covers the frame."""
    caption: str


def write_sheet(
    panels: Sequence[Panel], class_names: Sequence[str], path: str | os.PathLike[str], *, title: str
) -> None:
    """Write a PNG: each frame, beside it the same frame under a grid of colours, and what the colours mean.

    Args:
        panels: at least one.
        class_names: one name per class.
        path: the file to write; it appears only when complete.
        title: first line of the picture.

    Raises:
        DualFormerError: if the file cannot be written.
    """
    counts: Counter[int] = Counter()
    for panel in panels:
        counts.update(panel.classes.ravel().tolist())
    ranks = {index: rank for rank, (index, _) in enumerate(counts.most_common(len(_COLOURS)))}
    pictures = [_panel(panel, ranks) for panel in panels]
    width, height = max(picture.width for picture in pictures), pictures[0].height
    columns = _MAX_COLUMNS if len(pictures) > 2 else 1
    rows = -(-len(pictures) // columns)
    legend_height = (min(len(counts), len(_COLOURS)) + 2) * round(_TEXT * 1.8)
    top = 2 * _GAP + _TEXT
    size = (
        _GAP + columns * (width + 2 * _GAP) + _LEGEND_WIDTH,
        top + max(rows * (height + _GAP), legend_height) + _GAP,
    )
    image = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(image)
    draw_label(draw, (_GAP, _GAP), title, size=_TEXT, room=size[0] - 2 * _GAP, fill=_INK)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, columns)
        image.paste(picture, (_GAP + column * (width + 2 * _GAP), top + row * (height + _GAP)))
    _draw_legend(draw, counts, ranks, class_names, left=size[0] - _LEGEND_WIDTH, top=top)
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")


def _panel(panel: Panel, ranks: Mapping[int, int]) -> Image.Image:
    """The frame, the frame under its tokens, and the caption above."""
    frame = Image.fromarray(np.ascontiguousarray(panel.frame))
    width = max(32, round(frame.width * _SIDE / frame.height))
    frame = frame.resize((width, _SIDE), Image.Resampling.BILINEAR)
    head = round(_TEXT * 1.5)
    picture = Image.new("RGB", (2 * width + _GAP // 2, _SIDE + head), _PAPER)
    draw_label(ImageDraw.Draw(picture), (0, 0), panel.caption, size=_TEXT, room=picture.width, fill=_FAINT)
    picture.paste(frame, (0, head))
    picture.paste(_covered(frame, panel.classes, ranks), (width + _GAP // 2, head))
    return picture


def _covered(frame: Image.Image, classes: np.ndarray[Any, np.dtype[np.int64]], ranks: Mapping[int, int]) -> Image.Image:
    """The frame under a grid of coloured cells, each with its class's number in the legend."""
    rows, columns = classes.shape
    colours = Image.new("RGB", frame.size)
    paint = ImageDraw.Draw(colours)
    cells = [
        (classes[row, column], _cell(frame.size, rows, columns, row, column))
        for row in range(rows)
        for column in range(columns)
    ]
    for index, box in cells:
        paint.rectangle(box, fill=_colour(ranks.get(int(index))))
    covered = Image.blend(frame, colours, _COVER)
    draw = ImageDraw.Draw(covered)
    size = max(8, min(_TEXT, round(frame.height / rows / 2)))
    for index, (left, top, right, bottom) in cells:
        draw.rectangle((left, top, right, bottom), outline=_PAPER)
        rank = ranks.get(int(index))
        text = "" if rank is None else str(rank + 1)
        draw.text(
            ((left + right) / 2, (top + bottom) / 2),
            text,
            fill=_PAPER,
            font=font_of(size),
            anchor="mm",
            stroke_width=1,
            stroke_fill=_INK,
        )
    return covered


def _cell(size: tuple[int, int], rows: int, columns: int, row: int, column: int) -> tuple[int, int, int, int]:
    width, height = size
    return (
        width * column // columns,
        height * row // rows,
        width * (column + 1) // columns - 1,
        height * (row + 1) // rows - 1,
    )


def _colour(rank: int | None) -> tuple[int, int, int]:
    return _OTHER if rank is None else _COLOURS[rank]


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    counts: Counter[int],
    ranks: Mapping[int, int],
    class_names: Sequence[str],
    *,
    left: int,
    top: int,
) -> None:
    """Number, colour, name and share of the tokens of each class, the rest in grey."""
    total, step, swatch = sum(counts.values()), round(_TEXT * 1.8), round(_TEXT * 1.3)
    entries = [(_colour(rank), str(rank + 1), class_names[index], counts[index]) for index, rank in ranks.items()]
    others = [index for index in counts if index not in ranks]
    if others:
        entries.append((_OTHER, "", f"{len(others)} other classes", sum(counts[index] for index in others)))
    draw.text((left, top), "class of the tokens", fill=_FAINT, font=font_of(_TEXT))
    for place, (colour, number, name, count) in enumerate(entries, start=1):
        y = top + place * step
        draw.rectangle((left, y, left + swatch, y + swatch), fill=colour)
        draw.text(
            (left + swatch / 2, y + swatch / 2),
            number,
            fill=_PAPER,
            font=font_of(_TEXT - 3),
            anchor="mm",
            stroke_width=1,
            stroke_fill=_INK,
        )
        share = f"{100 * count / total:.0f}%"
        room = _LEGEND_WIDTH - swatch - 3 * _GAP - font_of(_TEXT).getlength("100%")
        middle = y + swatch / 2
        draw_label(draw, (left + swatch + 8, middle), name, size=_TEXT, room=room, fill=_INK, anchor="lm")
        draw.text((left + _LEGEND_WIDTH - _GAP, middle), share, fill=_FAINT, font=font_of(_TEXT), anchor="rm")


def print_tokens(document: Tokens, *, stream: TextIO | None = None) -> None:
    """Print what `tokenlabel show` found: the classes of most tokens."""
    t, h, w = document.grid
    rows = [("video", shown_path(document.path)), ("tokens", f"{t} x {h} x {w} (time, height, width)")]
    rows += [(f"{entry.percent:5.1f}%", entry.label) for entry in document.classes[:10]]
    print_rows(rows, stream)


def print_labels(document: LabelPlan | WrittenLabels, *, stream: TextIO | None = None) -> None:
    """Print what `tokenlabel write` did, or would need."""
    facts, trial = document.teacher.facts, document.teacher.trial
    rows = [
        ("teacher", f"{facts.source}, right on {trial.right} of {counted(trial.videos, 'video')}"),
        ("estimated", size_in_words(document.estimated_bytes)),
    ]
    if isinstance(document, WrittenLabels):
        found = document.summary
        rows += [
            ("written", size_in_words(found.bytes)),
            ("videos", f"{found.videos.labelled} labelled of {found.videos.listed}"),
            ("clips", f"{found.clips:,}, {found.tokens:,} tokens"),
        ]
        if found.agreement is not None:
            rows.append(
                ("agreement", f"{found.agreement:.1f}% of the tokens have a label of their video as best class")
            )
        rows += [(f"{entry.percent:5.1f}%", entry.label) for entry in found.classes]
    else:
        rows.append(("folder", document.output))
    print_rows(rows, stream)
