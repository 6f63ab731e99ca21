"""The report of an evaluation as one HTML file."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Iterable, Mapping, Sequence

from dualformer_cli.config.metric_table import METRICS
from dualformer_cli.documents.base import to_json
from dualformer_cli.documents.evaluate import (
    Calibration,
    CalibrationBin,
    ClassRow,
    Comparison,
    ConfusedPair,
    Evaluation,
    EvaluationPage,
    Summary,
    UnscoredVideo,
    ViewsPoint,
    WorstVideo,
)
from dualformer_cli.outputs.html import STYLE, Html, element, head, joined, tile
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import counted

_MOST_ROWS = 200
"""Rows of a list of videos; a page with every video of Kinetics would open in no browser."""

_SHADES = 6
"""Steps from a cell of the confusion table with few of a class's videos to one with all."""

_STYLE = (
    STYLE
    + """\
.charts { display: flex; flex-wrap: wrap; gap: 2rem; } figure { margin: 0; max-width: 440px; }
svg { max-width: 100%; height: auto; } .wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; } summary { cursor: pointer; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
tbody tr { border-top: 1px solid var(--line); } td { overflow-wrap: anywhere; min-width: 4rem; }
.wide td { min-width: 6rem; } .wide td.number { min-width: 0; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; min-width: 0; }
th button { font: inherit; font-weight: 600; border: 0; padding: 0; background: none; color: inherit; cursor: pointer; }
th button::after { content: "\\2195"; color: var(--faint); padding-left: .3em; }
th[aria-sort=ascending] button::after { content: "\\2191"; }
th[aria-sort=descending] button::after { content: "\\2193"; }
.split { width: 7rem; max-width: none; height: .75rem; vertical-align: -.05rem; } .right { fill: var(--blue); }
.wrong { fill: url(#hatch); stroke: var(--red); } .hatch { stroke: var(--red); stroke-width: 2; }
.none { position: absolute; } .confusion { font-size: .87rem; }
.confusion td, .confusion th { padding: .15rem .2rem; text-align: center; min-width: 1.4rem; }
.confusion td { border: 1px solid var(--line); font-variant-numeric: tabular-nums; }
.confusion thead th { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: 400; vertical-align: top; }
.confusion tbody th { text-align: right; font-weight: 400; position: sticky; left: 0; background: Canvas; }
.confusion thead th { max-height: 13rem; } .confusion tbody th { min-width: 5.5rem; max-width: 9rem; }
.confusion th { overflow-wrap: break-word; }
.confusion .hit { font-weight: 700; outline: 2px solid var(--blue); outline-offset: -2px; }
"""
    + "".join(
        f".{kind}.of{n} {{ background: rgb({colour} / {n / 10}); }}\n"
        for kind, colour in (("hit", "47 116 192"), ("miss", "200 55 31"))
        for n in range(1, _SHADES + 1)
    )
    + """\
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; overflow-wrap: anywhere; }
.card img { width: 100%; aspect-ratio: 16 / 9; object-fit: contain; background: #000; display: block; }
.card img { margin-bottom: .4rem; border-radius: .3rem; } .card b { color: var(--red); font-weight: 600; }
text { font: 12px system-ui, sans-serif; fill: var(--faint); } @media (max-width: 30rem) { text { font-size: 15px; } }
.axis { stroke: var(--line); fill: none; }
.curve { stroke: var(--blue); stroke-width: 2.5; fill: none; } .dot, .bar { fill: var(--blue); }
.value { fill: CanvasText; } .bar { fill-opacity: .75; } .ideal { stroke: var(--faint); stroke-dasharray: 5 4; }
"""
)

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0], column = head.cellIndex;
  const before = head.getAttribute("aria-sort");
  const down = before === null ? head.classList.contains("number") : before === "ascending";
  const key = row => { const cell = row.cells[column]; return cell.dataset.value ?? cell.textContent; };
  const compare = (a, b) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    const order = isNaN(a) || isNaN(b) ? a.localeCompare(b, undefined, {numeric: true}) : a - b;
    return down ? -order : order;
  };
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
});
"""


def write_eval_report(content: EvaluationPage, path: str | os.PathLike[str]) -> None:
    """Write the page of one evaluation.

    Args:
        content: what it shows; a part that is empty has no section.
        path: the file to write; it appears only when complete.
    """
    page = "<!doctype html>\n" + _page(content) + "\n"
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")


def _page(content: EvaluationPage) -> Html:
    evaluation = content.evaluation
    title = f"Evaluation of {evaluation.facts.get('list', 'a list')}"
    sections = [
        _headline(evaluation.summary),
        _label_order(evaluation.summary.label_order),
        _unscored(content.unscored),
        _charts(evaluation.views_curve or (), content.calibration),
        _comparison(evaluation.comparison, content),
        _confusion(content) if content.confusion else _confused(content.confused),
        _worst(content.worst),
        _classes(content.classes),
        _traced(evaluation),
    ]
    shown = joined(section for section in sections if section is not None)
    body = element("body", element("h1", title), _HATCH, shown, element("script", Html(_SCRIPT)))
    return element("html", head(title, _STYLE, _SCRIPT), body, lang="en")


def _headline(summary: Summary) -> Html:
    tiles = []
    metrics = summary.shown_metrics
    intervals = {row.interval_of: (row.title, metrics.get(name)) for name, row in METRICS.items() if row.interval_of}
    for name, row in METRICS.items():
        value = metrics.get(name)
        if not row.is_headline or not isinstance(value, float):
            continue
        if row.all_listed_of is not None and value == metrics.get(row.all_listed_of):
            continue
        title, interval = intervals.get(name, ("", None))
        note = None if not isinstance(interval, tuple) else f"{title} {' to '.join(map(_percent, interval))}"
        tiles.append(tile(_percent(value), row.title, note))
    videos = to_json(summary.videos)
    lost = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in videos.items() if name not in _KEPT and count
    )
    tiles.append(tile(f"{summary.videos.scored} of {summary.videos.listed}", "videos scored", lost or None))
    return element("div", joined(tiles), class_="tiles")


_KEPT = ("listed", "scored")


def _label_order(message: str | None) -> Html | None:
    return None if message is None else element("p", "Warning: ", message, class_="warning")


def _unscored(videos: Sequence[UnscoredVideo]) -> Html | None:
    if not videos:
        return None
    rows = [(video.path, video.status.replace("_", " "), video.reason) for video in videos]
    return _section("Videos that were not scored", _table(("video", "what", "why"), rows))


def _charts(curve: Sequence[ViewsPoint], calibration: Calibration | None) -> Html | None:
    figures = []
    if curve:
        caption = "Top-1 in percent over the number of views per video: what each further view adds."
        figures.append(_figure("Accuracy and cost", _view_chart(curve), caption))
    if calibration is not None and calibration.bins:
        error = _percent(calibration.expected_calibration_error)
        caption = (
            f"Percent of right answers over the score of the best class; the line is ideal. Mean distance {error}."
        )
        figures.append(_figure("Calibration", _calibration_chart(calibration.bins), caption))
    return element("div", joined(figures), class_="charts") if figures else None


def _figure(title: str, chart: Html, caption: str) -> Html:
    return element("figure", element("h2", title), chart, element("figcaption", caption, class_="faint"))


_PERCENTS = {share: f"{100 * share:.0f}" for share in (0, 0.25, 0.5, 0.75, 1)}
"""Ticks of a whole axis of percents."""

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 260, 44, 24, 12, 40


def _chart(x_title: str, xs: Mapping[float, str], ys: Mapping[float, str], *drawing: Html) -> Html:
    """Axes around a drawing; `xs` and `ys` are ticks by their share of the axis, 0 to 1."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [element("path", class_="axis", d=f"M{_LEFT} {_TOP}V{bottom}H{right}")]
    for share, label in xs.items():
        parts.append(element("text", label, x=_x(share), y=bottom + 16, text_anchor="middle"))
    for share, label in ys.items():
        parts.append(element("path", class_="axis", d=f"M{_LEFT} {_y(share)}H{right}"))
        parts.append(element("text", label, x=_LEFT - 6, y=round(_y(share) + 4, 1), text_anchor="end"))
    middle = (_LEFT + right) / 2
    parts.append(element("text", x_title, x=middle, y=_HEIGHT - 6, text_anchor="middle"))
    size = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "width": _WIDTH, "height": _HEIGHT}
    return element("svg", joined(parts), joined(drawing), role="img", **size)


def _x(share: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * share, 1)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)


def _view_chart(curve: Sequence[ViewsPoint]) -> Html:
    """Dots from 0 to 100%, so that a small gain looks small; the first and the last one say their value."""
    points = [(_x((place + 0.5) / len(curve)), _y(point.top1 / 100)) for place, point in enumerate(curve)]
    dots = [
        element("circle", element("title", f"{point.views}: {_percent(point.top1)}"), class_="dot", cx=x, cy=y, r=4)
        for point, (x, y) in zip(curve, points, strict=True)
    ]
    named = {0: curve[0], len(curve) - 1: curve[-1]}
    values = [
        element(
            "text",
            f"{point.top1:.1f}",
            class_="value",
            x=points[place][0],
            y=round(points[place][1] + (20 if point.top1 > 50 else -10), 1),
            text_anchor="middle",
        )
        for place, point in named.items()
    ]
    line = element("polyline", class_="curve", points=" ".join(f"{x},{y}" for x, y in points))
    every = -(-len(curve) // 12)
    xs = {(place + 0.5) / len(curve): str(curve[place].views) for place in range(0, len(curve), every)}
    return _chart("views", xs, _PERCENTS, line, *dots, *values)


def _calibration_chart(bins: Sequence[CalibrationBin]) -> Html:
    bars = [
        element(
            "rect",
            element(
                "title",
                f"score {row.low:.2f} to {row.high:.2f}: {counted(row.videos, 'video')}, "
                f"{_percent(row.accuracy)} right, mean score {_percent(row.confidence)}",
            ),
            class_="bar",
            x=_x(row.low) + 1,
            y=_y(row.accuracy / 100),
            width=round(_x(row.high) - _x(row.low) - 2, 1),
            height=round(_y(0) - _y(row.accuracy / 100), 1),
        )
        for row in bins
    ]
    ideal = element("path", class_="ideal", d=f"M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}")
    return _chart("score of the best class, %", _PERCENTS, _PERCENTS, *bars, ideal)


def _comparison(result: Comparison | None, content: EvaluationPage) -> Html | None:
    if result is None:
        return None
    other = content.other or "another run"
    rows = [
        ("videos scored by both", result.videos),
        ("only by this run, only by the other", f"{result.only_in_first}, {result.only_in_second}"),
        ("top-1 of this run, of the other", f"{_percent(result.top1_first)}, {_percent(result.top1_second)}"),
        ("right in both, in neither", f"{result.both_right}, {result.both_wrong}"),
        ("right in this run only, in the other only", f"{result.first_right}, {result.second_right}"),
        ("chance of such a difference between equals", f"{result.test.p_value:.3g} (exact McNemar test)"),
    ]
    names = {row.index: row.label for row in content.classes}
    flipped = [
        (video.path, *(names.get(number, number) for number in (video.label, video.first, video.second)))
        for video in result.flipped
    ]
    summary = element("summary", f"Videos that only one of the two recognises: {len(flipped)}")
    listed = element("details", summary, _table(("video", "label", "this run", content.other or "the other"), flipped))
    return _section(f"Compared with {other}", _facts(rows), listed if flipped else None)


def _confusion(content: EvaluationPage) -> Html:
    """A row for each class: what its videos were taken for. What is right is blue and framed, what is wrong red."""
    names = [row.label for row in content.classes]
    heads = element("tr", element("td"), *(element("th", name, scope="col") for name in names))
    rows = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(_confusion_cell(count, sum(counts), is_hit=row == column) for column, count in enumerate(counts)),
        )
        for row, (name, counts) in enumerate(zip(names, content.confusion, strict=True))
    ]
    table = element("table", element("thead", heads), element("tbody", *rows), class_="confusion")
    note = (
        "Videos of each class (row) by the class they were taken for (column). The framed diagonal is right; the "
        "deeper a colour, the larger the share of the class."
    )
    return _section("What was taken for what", element("p", note, class_="faint"), _wide(table))


def _confusion_cell(count: int, of: int, *, is_hit: bool) -> Html:
    shade = f" of{max(1, round(_SHADES * count / of))}" if count else ""
    text = str(count) if count else "0" if is_hit and of else ""
    return element("td", text, class_=f"{'hit' if is_hit else 'miss'}{shade}")


def _wide(table: Html) -> Html:
    """Let a table that is wider than the page be moved sideways, and not the page."""
    return element("div", table, class_="wide")


def _confused(pairs: Sequence[ConfusedPair]) -> Html | None:
    if not pairs:
        return None
    rows = [(pair.label, pair.predicted, pair.videos, _Percent(pair.share, is_error=True)) for pair in pairs]
    return _section("Most confused", _table(("label", "taken for", "videos", "of the label's"), rows))


def _worst(videos: Sequence[WorstVideo]) -> Html | None:
    if not videos:
        return None
    note = "Wrong answers whose label has the lowest score: hard videos, and wrong labels."
    cards = element("div", joined(map(_card, videos)), class_="cards")
    return _section("Worst videos", element("p", note, class_="faint"), cards)


def _card(video: WorstVideo) -> Html:
    image = None
    if video.thumbnail is not None:
        source = f"data:image/jpeg;base64,{base64.b64encode(video.thumbnail).decode()}"
        image = element("img", src=source, alt="", loading="lazy")
    answer = element("div", "taken for: ", element("b", video.predicted), f" {_percent(100 * video.score)}")
    label = element("div", f"label: {video.label} {_percent(100 * video.label_score)}")
    return element("div", image, answer, label, element("div", video.path, class_="faint"), class_="card")


def _classes(rows: Sequence[ClassRow]) -> Html | None:
    if not rows:
        return None
    heads = ("class", "number", "videos", "right", "accuracy", "most often taken for", "videos of it")
    cells = [
        (
            row.label,
            row.index,
            row.videos,
            row.correct,
            _Percent(row.accuracy),
            row.taken_for,
            row.taken_for_videos or None,
        )
        for row in rows
    ]
    return _section("Classes", _table(heads, cells, most=len(cells)))


def _traced(evaluation: Evaluation) -> Html | None:
    summary = evaluation.summary
    facts = {**evaluation.facts, "digest": summary.digest}
    rows = [(name.replace("_", " "), "none" if value is None else value) for name, value in facts.items()]
    for name, value in summary.metrics.items():
        if _is_fact(name) and isinstance(value, float):
            rows.append((METRICS[name].title, _percent(value) if METRICS[name].is_percent else f"{value:.6g}"))
    return _section("What the numbers can be traced to", _facts(rows)) if rows else None


def _is_fact(name: str) -> bool:
    """Tell whether a metric is neither a tile nor the interval of one."""
    return not METRICS[name].is_headline and METRICS[name].interval_of is None


def _section(title: str, *parts: Html | None) -> Html:
    return element("section", element("h2", title), *parts)


def _facts(rows: Iterable[tuple[str, object]]) -> Html:
    cells = joined(element("tr", element("td", k, class_="faint"), element("td", v)) for k, v in rows)
    return element("table", element("tbody", cells))


class _Percent(float):
    """A number shown in percent beside a bar of what is right, blue, and what is wrong, red and hatched."""

    is_error: bool

    def __new__(cls, value: float | None, *, is_error: bool = False) -> _Percent:
        percent = super().__new__(cls, math.nan if value is None else value)
        percent.is_error = is_error
        return percent


_HATCH = element(
    "svg",
    element(
        "pattern",
        element("path", d="M-1 1l2-2M0 6l6-6M5 7l2-2", class_="hatch"),
        id="hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
    ),
    class_="none",
    width=0,
    height=0,
    aria_hidden="true",
)


def _split(percent: _Percent) -> Html:
    """Return a bar: of an accuracy what is right and the rest, of a share of mistakes those alone."""
    end = round(float(percent), 1)
    wrong = f"M0 .5H{end}V11.5H0z" if percent.is_error else f"M{end} .5H100V11.5H{end}z"
    parts = [] if percent.is_error or not end else [element("path", class_="right", d=f"M0 0H{end}V12H0z")]
    if percent.is_error or end < 100:
        parts.append(element("path", class_="wrong", d=wrong))
    return element("svg", *parts, class_="split", viewBox="0 0 100 12", preserveAspectRatio="none", aria_hidden="true")


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, most: int = _MOST_ROWS) -> Html:
    """A table that a click on a head sorts; rows after `most` are counted only."""
    is_number = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(heads))]
    head = [
        element("th", element("button", name, type="button"), class_="number" if number else None, scope="col")
        for name, number in zip(heads, is_number, strict=True)
    ]
    body = joined(element("tr", *map(_cell, row, is_number)) for row in rows[:most])
    table = element("table", element("thead", element("tr", *head)), element("tbody", body))
    if len(rows) <= most:
        return _wide(table)
    return joined([_wide(table), element("p", f"and {len(rows) - most} more", class_="faint")])


def _cell(value: object, is_number: bool) -> Html:
    kind = "number" if is_number else None
    if isinstance(value, _Percent):
        if math.isnan(value):
            return element("td", "-", class_=kind, data_value="")
        return element("td", f"{_percent(value)} ", _split(value), class_=kind, data_value=float(value))
    return element("td", "" if value is None else value, class_=kind)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f}%"
