"""The course of a training run as one picture: loss, validation accuracy, learning rate."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import linear_regression
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from dualformer_cli.config.metric_table import METRICS, Metric, says_something
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.files import atomic_path

WIDTH, HEIGHT = 1000, 700
"""Pixels of the picture."""

_SCALE = 2  # drawn larger and reduced at the end, which smooths lines
_FONT_SIZE = 15
_BINS = 450  # values along a panel; more would share a pixel column
_LARGEST = 1e30  # a run that has diverged has no curve
_BACKGROUND, _INK, _FAINT, _GRID = "#ffffff", "#333333", "#767676", "#e6e6e6"
_BLUE, _PALE_BLUE, _RED, _GREEN, _VIOLET = "#1f5fa8", "#bdd3ea", "#c8371f", "#2b7a4b", "#7a4fa3"

_COLOURS = (_RED, _VIOLET, _GREEN)
"""Of the metrics of one kind of list, in turn."""

Points = list[tuple[float, float]]


def write_curves(log_rows: Sequence[Mapping[str, Any]], path: str | os.PathLike[str]) -> None:
    """Draw the log of a training run as a PNG of 1000 x 700 pixels.

    Args:
        log_rows: lines of log.jsonl: {"event": "step", "step", "loss", "lr"} and {"event": "validation", "step",
            "loss", and the metrics of which the metric table wants a curve}. Other keys are ignored; a value that is
            missing, null, not finite or beyond 1e30 is left out. Of two rows of one step the later counts.
        path: the file to write; it appears only when complete.
    """
    steps = [row for row in log_rows if row.get("event") == "step"]
    validations = [row for row in log_rows if row.get("event") == "validation"]
    last_step = max((float(row["step"]) for row in log_rows), default=0.0)
    picture = _Picture(last_step)
    picture.panel(
        (70, 56, 976, 370),
        "loss",
        [
            _Series("training", _points(steps, "loss"), _BLUE, background=_PALE_BLUE),
            _Series("validation", _points(validations, "loss"), _RED, dots=True, best=min),
        ],
    )
    metrics = [
        _Series(
            row.title,
            _points([each for each in validations if says_something(name, each.get("num_classes"))], name),
            colour,
            dots=True,
            best=(max if row.higher_is_better else min) if row.chooses_best else None,
        )
        for is_multi_label in (False, True)
        for colour, (name, row) in zip(_COLOURS, _drawn(is_multi_label), strict=False)
    ]
    picture.panel((70, 448, 556, 650), "validation, %", metrics, limits=(0.0, 100.0))
    rates = _Series("", _points(steps, "lr"), _GREEN)
    picture.panel((650, 448, 976, 650), "learning rate", [rates], limits=(0.0, math.inf), from_zero=True)
    with atomic_path(path) as temporary:
        picture.finished().save(temporary, format="PNG", optimize=True)


def _drawn(is_multi_label: bool) -> list[tuple[str, Metric]]:
    return [(name, row) for name, row in METRICS.items() if row.is_drawn and row.is_multi_label is is_multi_label]


def _points(rows: Iterable[Mapping[str, Any]], key: str) -> Points:
    values: dict[float, float] = {}
    for row in rows:
        value = row.get(key)
        if value is not None and abs(value) < _LARGEST:  # which NaN is not
            values[float(row["step"])] = float(value) if abs(value) > 1 / _LARGEST else 0.0
    return sorted(values.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    name: str = field(kw_only=False)
    """For the legend; without one there is no entry."""
    points: Points = field(kw_only=False)
    """(step, value), in order."""
    colour: str = field(kw_only=False)
    background: str | None = None
    """Draw the values in this colour, and their smoothed course over them."""
    dots: bool = False
    """Mark each value."""
    best: Any = None
    """min or max: which value the legend names beside the last."""

    def course(self) -> Points:
        """Return the values of the line: smoothed where the values themselves are drawn behind it."""
        return _smoothed(self.points) if self.background is not None else _extremes(self.points)

    def legend(self, *, with_best: bool) -> str:
        values = [value for _, value in (self.points if self.background is None else self.course())]
        text = f"{self.name}: {_number(values[-1])}"
        if with_best and self.best is not None and self.best(values) != values[-1]:
            text += f" (best {_number(self.best(values))})"
        return text


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where a panel is, in pixels of the large picture, and what it spans."""

    box: tuple[float, float, float, float]
    last_step: float
    low: float
    high: float

    def place(self, step: float, value: float) -> tuple[float, float]:
        """The pixel of a point; values beyond the limits lie on the edge."""
        left, top, right, bottom = self.box
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return left + (right - left) * step / (self.last_step or 1), bottom - (bottom - top) * share


class _Picture:
    def __init__(self, last_step: float) -> None:
        self.last_step = last_step
        self.image = Image.new("RGB", (WIDTH * _SCALE, HEIGHT * _SCALE), _BACKGROUND)
        self.draw = ImageDraw.Draw(self.image)

    def panel(
        self,
        box: tuple[int, int, int, int],
        title: str,
        series: Sequence[_Series],
        *,
        limits: tuple[float, float] = (-math.inf, math.inf),
        from_zero: bool = False,
    ) -> None:
        """Draw one diagram into `box`; series without values are left out."""
        left, top, right, bottom = (_SCALE * side for side in box)
        shown = [line for line in series if line.points]
        baseline = top - 14 * _SCALE
        self._text((left, baseline), title, anchor="ls", size=17)
        if not shown:
            self.draw.rectangle((left, top, right, bottom), outline=_GRID, width=_SCALE)
            self._text(((left + right) / 2, (top + bottom) / 2), "nothing yet", anchor="mm", colour=_FAINT)
            return
        low, high = _span([_visible(line) for line in shown], limits, from_zero=from_zero)
        axes = _Axes((left, top, right, bottom), self.last_step, low, high)
        self._grid(axes)
        for line in shown:
            self._series(axes, line)
        title_end = left + _font(17 * _SCALE).getlength(title)
        self._legend(title_end, right, baseline, [line for line in shown if line.name])

    def finished(self) -> Image.Image:
        """The picture in its final size."""
        return self.image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)

    def _grid(self, axes: _Axes) -> None:
        left, top, right, bottom = axes.box
        values = round_ticks(axes.low, axes.high, max(2, round((bottom - top) / (42 * _SCALE))))
        for value, text in zip(values, tick_labels(values), strict=True):
            _, y = axes.place(0, value)
            self.draw.line((left, y, right, y), fill=_GRID, width=_SCALE)
            self._text((left - 8 * _SCALE, y), text, anchor="rm", colour=_FAINT)
        steps = round_ticks(0, axes.last_step or 1, max(2, round((right - left) / (90 * _SCALE))), smallest=1)
        for step in steps:
            x, _ = axes.place(step, axes.low)
            self.draw.line((x, top, x, bottom), fill=_GRID, width=_SCALE)
            self._text((x, bottom + 8 * _SCALE), _count(step), anchor="ma", colour=_FAINT)
        self.draw.line((left, bottom, right, bottom), fill=_FAINT, width=_SCALE)
        self._text(((left + right) / 2, bottom + 28 * _SCALE), "step", anchor="ma", colour=_FAINT)

    def _series(self, axes: _Axes, line: _Series) -> None:
        if line.background is not None:
            self._line(axes, _extremes(line.points), line.background, width=1.5)
        self._line(axes, line.course(), line.colour, width=2.5)
        if line.dots or len(line.points) == 1:
            radius = (4 if len(line.points) <= 60 else 2.5) * _SCALE
            for step, value in line.points:
                x, y = axes.place(step, value)
                self.draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=line.colour)

    def _line(self, axes: _Axes, points: Points, colour: str, *, width: float) -> None:
        if len(points) > 1:
            pixels = [axes.place(step, value) for step, value in points]
            self.draw.line(pixels, fill=colour, width=round(width * _SCALE), joint="curve")

    def _legend(self, left: float, right: float, baseline: float, series: Sequence[_Series]) -> None:
        """Write the entries, the last one at the right end; without best values where they would reach `left`."""
        font, swatch = _font(_FONT_SIZE * _SCALE), 50 * _SCALE
        texts = [line.legend(with_best=True) for line in series]
        if right - sum(font.getlength(text) + swatch for text in texts) < left:
            texts = [line.legend(with_best=False) for line in series]
        for line, text in zip(reversed(series), reversed(texts), strict=True):
            self._text((right, baseline), text, anchor="rs")
            right -= font.getlength(text) + 8 * _SCALE
            y = baseline - 5 * _SCALE
            self.draw.line((right - 22 * _SCALE, y, right, y), fill=line.colour, width=3 * _SCALE)
            right -= swatch - 8 * _SCALE

    def _text(
        self, at: tuple[float, float], text: str, *, anchor: str, colour: str = _INK, size: int = _FONT_SIZE
    ) -> None:
        self.draw.text(at, text, fill=colour, font=_font(size * _SCALE), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise DualFormerError("this Pillow was built without FreeType and cannot draw curves; install another Pillow")
    return font


def _bins(points: Points) -> list[Points]:
    """The points cut into at most `_BINS` runs of neighbours."""
    size = -(-len(points) // _BINS) or 1
    return [points[start : start + size] for start in range(0, len(points), size)]


def _means(points: Points) -> Points:
    return [
        (sum(step for step, _ in part) / len(part), sum(value for _, value in part) / len(part))
        for part in _bins(points)
    ]


def _extremes(points: Points) -> Points:
    """The lowest and the highest value of each run, so that no peak is lost."""
    if len(points) <= _BINS:
        return points
    low_high = ((min(part, key=_value), max(part, key=_value)) for part in _bins(points))
    return [point for pair in low_high for point in sorted(pair)]


def _value(point: tuple[float, float]) -> float:
    return point[1]


def _smoothed(points: Points) -> Points:
    """The line through the values near each step, a twentieth of the run without the highest and the lowest.

    At the ends as many values are near as elsewhere: a mean of fewer would follow their noise, and one of as many would
    miss their slope.
    """
    means = _means(points)
    reach = len(means) // 40
    if reach < 2:
        return means
    course = []
    for place, (step, _) in enumerate(means):
        start = min(max(place - reach, 0), len(means) - 1 - 2 * reach)
        near = sorted(means[start : start + 2 * reach + 1], key=_value)[1:-1]
        slope, level = linear_regression([near_step for near_step, _ in near], list(map(_value, near)))
        course.append((step, level + slope * step))
    return course


def _visible(line: _Series) -> list[float]:
    """The values that a panel must span: of a smoothed line all but the highest and lowest hundredth."""
    values = sorted(value for _, value in line.points)
    if line.background is None:
        return values
    cut = len(values) // 100
    return [*values[cut : len(values) - cut], *(value for _, value in line.course())]


def _span(values: Sequence[Sequence[float]], limits: tuple[float, float], *, from_zero: bool) -> tuple[float, float]:
    """The range that holds all values with a margin, which does not reach beyond `limits`."""
    low, high = min(map(min, values)), max(map(max, values))
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    flat = high - low <= 1e-3 * max(abs(low), abs(high))
    margin = 0.05 * (abs(high) if flat else high - low) or 1.0
    lowest, highest = low - margin, high + margin
    return limits[0] if low >= limits[0] > lowest else lowest, limits[1] if high <= limits[1] < highest else highest


def round_ticks(low: float, high: float, number: int, *, smallest: float = 0.0) -> list[float]:
    """Round values from `low` to `high`, `number` or a little more or fewer, and no closer than `smallest`."""
    rough = max((high - low) / number, smallest)
    power = 10.0 ** math.floor(math.log10(rough))
    interval = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.99)
    first, last = math.ceil(low / interval - 1e-6), math.floor(high / interval + 1e-6)
    return [count * interval for count in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Ticks of one axis in one form: 0.002 and less as 2e-3, others with the decimals that tell them apart."""
    largest = max(map(abs, values), default=0)
    if 0 < largest < 0.01:
        return ["0" if value == 0 else _scientific(value) for value in values]
    interval = values[1] - values[0] if len(values) > 1 else largest or 1
    decimals = max(0, -math.floor(math.log10(interval) + 1e-6))
    return [f"{value:.{decimals}f}" for value in values]


def _scientific(value: float) -> str:
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def _number(value: float) -> str:
    """Four digits that matter."""
    return f"{value:.4g}" if abs(value) >= 0.001 or value == 0 else _scientific(value)


def _count(step: float) -> str:
    for size, unit in ((1_000_000, "M"), (1000, "k")):
        if step >= 10 * size or (step >= size and unit == "M"):
            return f"{step / size:g}{unit}"
    return f"{step:g}"
