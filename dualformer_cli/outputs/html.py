"""The report of an evaluation as one HTML file that needs nothing else: no server, no network, no other file.

Names and paths come from outside. Text enters the page through `_element` alone, which escapes it, and the page's own
policy lets a browser run no script and load nothing but what is written here.
"""

from __future__ import annotations

import base64
import hashlib
import html
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
from dualformer_cli.outputs.curves import round_ticks, tick_labels
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import printable

_MOST_ROWS = 200
"""Rows of a list of videos; a page with every video of Kinetics would open in no browser."""

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --faint: #777; --blue: #2f74c0; --red: #c8371f; }
@media (prefers-color-scheme: dark) { :root { --faint: #999; --blue: #6aa5e6; --red: #f0795f; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; overflow-wrap: anywhere; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .8rem; }
.tile { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem 1rem; }
.tile b { display: block; font-size: 1.4rem; font-weight: 600; } .faint { color: var(--faint); font-size: .87rem; }
.warning { border-left: .3rem solid var(--red); padding: .4rem 1rem; background: #c8371f18; }
.charts { display: flex; flex-wrap: wrap; gap: 2rem; } figure { margin: 0; max-width: 440px; }
svg { max-width: 100%; height: auto; }
table { border-collapse: collapse; margin: .6rem 0; } summary { cursor: pointer; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; vertical-align: top; }
tbody tr { border-top: 1px solid var(--line); } td { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
th button { font: inherit; font-weight: 600; border: 0; padding: 0; background: none; color: inherit; cursor: pointer; }
th button::after { content: "\\2195"; color: var(--faint); padding-left: .3em; }
th[aria-sort=ascending] button::after { content: "\\2191"; }
th[aria-sort=descending] button::after { content: "\\2193"; }
meter { width: 7rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
.card { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; overflow-wrap: anywhere; }
.card img { width: 100%; display: block; margin-bottom: .4rem; } .card b { color: var(--red); font-weight: 600; }
text { font: 12px system-ui, sans-serif; fill: var(--faint); } .axis { stroke: var(--line); fill: none; }
.curve { stroke: var(--blue); stroke-width: 2.5; fill: none; } .dot, .bar { fill: var(--blue); }
.bar { fill-opacity: .75; } .ideal { stroke: var(--red); stroke-dasharray: 5 4; }
"""

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


class _Html(str):
    """Markup, which is not escaped again."""

    __slots__ = ()


def _element(tag: str, /, *children: object, **attributes: object) -> _Html:
    """One element: markup among the children stays, anything else becomes escaped text; None is left out.

    Attributes: `class_` is class, `data_value` data-value; True stands without a value, None is left out.
    """
    written = [
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{_escaped(value)}"')
        for key, value in attributes.items()
        if value is not None
    ]
    inside = [child if isinstance(child, _Html) else _escaped(child) for child in children if child is not None]
    end = "" if tag in ("meta", "img") else f"</{tag}>"
    return _Html(f"<{tag}{''.join(written)}>{''.join(inside)}{end}")


def _escaped(value: object) -> str:
    return html.escape(printable(str(value)))


def _joined(parts: Iterable[_Html]) -> _Html:
    return _Html("\n".join(parts))


def _page(content: EvaluationPage) -> _Html:
    evaluation = content.evaluation
    title = f"Evaluation of {evaluation.facts.get('list', 'a list')}"
    style, script = _Html(_STYLE), _Html(_SCRIPT)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash_source(style)}; script-src {_hash_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    head = _element(
        "head",
        _element("meta", charset="utf-8"),
        _element("meta", http_equiv="Content-Security-Policy", content=policy),
        _element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _element("title", title),
        _element("style", style),
    )
    sections = [
        _headline(evaluation.summary),
        _label_order(evaluation.summary.label_order),
        _unscored(content.unscored),
        _charts(evaluation.views_curve or (), content.calibration),
        _comparison(evaluation.comparison, content.classes),
        _confused(content.confused),
        _worst(content.worst),
        _classes(content.classes),
        _traced(evaluation),
    ]
    shown = _joined(section for section in sections if section is not None)
    return _element("html", head, _element("body", _element("h1", title), shown, _element("script", script)), lang="en")


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _headline(summary: Summary) -> _Html:
    tiles = []
    intervals = {row.interval_of: summary.metrics.get(name) for name, row in METRICS.items() if row.interval_of}
    for name, row in METRICS.items():
        value = summary.metrics.get(name)
        if not row.is_headline or not isinstance(value, float):
            continue
        if row.all_listed_of is not None and value == summary.metrics.get(row.all_listed_of):
            continue
        interval = intervals.get(name)
        note = None if not isinstance(interval, tuple) else f"95 % interval {' to '.join(map(_percent, interval))}"
        tiles.append(_tile(_percent(value), row.title, note))
    videos = to_json(summary.videos)
    lost = ", ".join(
        f"{count} {name.replace('_', ' ')}" for name, count in videos.items() if name not in _KEPT and count
    )
    tiles.append(_tile(f"{summary.videos.scored} of {summary.videos.listed}", "videos scored", lost or None))
    return _element("div", _joined(tiles), class_="tiles")


_KEPT = ("listed", "scored")


def _tile(value: str, name: str, note: str | None) -> _Html:
    faint = None if note is None else _element("div", note, class_="faint")
    return _element("div", _element("b", value), name, faint, class_="tile")


def _label_order(message: str | None) -> _Html | None:
    return None if message is None else _element("p", "Warning: ", message, class_="warning")


def _unscored(videos: Sequence[UnscoredVideo]) -> _Html | None:
    if not videos:
        return None
    rows = [(video.path, video.status.replace("_", " "), video.reason) for video in videos]
    return _section("Videos that were not scored", _table(("video", "what", "why"), rows))


def _charts(curve: Sequence[ViewsPoint], calibration: Calibration | None) -> _Html | None:
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
    return _element("div", _joined(figures), class_="charts") if figures else None


def _figure(title: str, chart: _Html, caption: str) -> _Html:
    return _element("figure", _element("h2", title), chart, _element("figcaption", caption, class_="faint"))


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 440, 260, 44, 24, 12, 40


def _chart(x_title: str, xs: Mapping[float, str], ys: Mapping[float, str], *drawing: _Html) -> _Html:
    """Axes around a drawing; `xs` and `ys` are ticks by their share of the axis, 0 to 1."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [_element("path", class_="axis", d=f"M{_LEFT} {_TOP}V{bottom}H{right}")]
    for share, label in xs.items():
        parts.append(_element("text", label, x=_x(share), y=bottom + 16, text_anchor="middle"))
    for share, label in ys.items():
        parts.append(_element("path", class_="axis", d=f"M{_LEFT} {_y(share)}H{right}"))
        parts.append(_element("text", label, x=_LEFT - 6, y=round(_y(share) + 4, 1), text_anchor="end"))
    middle = (_LEFT + right) / 2
    parts.append(_element("text", x_title, x=middle, y=_HEIGHT - 6, text_anchor="middle"))
    size = {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "width": _WIDTH, "height": _HEIGHT}
    return _element("svg", _joined(parts), _joined(drawing), role="img", **size)


def _x(share: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * share, 1)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)


def _view_chart(curve: Sequence[ViewsPoint]) -> _Html:
    values = [point.top1 for point in curve]
    margin = max(0.5, 0.1 * (max(values) - min(values)))
    low, high = max(0.0, min(values) - margin), min(100.0, max(values) + margin)
    places = [(place + 0.5) / len(curve) for place in range(len(curve))]
    points = [(_x(x), _y((value - low) / (high - low))) for x, value in zip(places, values, strict=True)]
    dots = [
        _element("circle", _element("title", f"{point.views}: {_percent(point.top1)}"), class_="dot", cx=x, cy=y, r=4)
        for point, (x, y) in zip(curve, points, strict=True)
    ]
    line = _element("polyline", class_="curve", points=" ".join(f"{x},{y}" for x, y in points))
    every = -(-len(curve) // 12)
    xs = {x: str(point.views) for x, point in list(zip(places, curve, strict=True))[::every]}
    ticks = round_ticks(low, high, 5)
    ys = {(value - low) / (high - low): label for value, label in zip(ticks, tick_labels(ticks), strict=True)}
    return _chart("views", xs, ys, line, *dots)


def _calibration_chart(bins: Sequence[CalibrationBin]) -> _Html:
    bars = [
        _element(
            "rect",
            _element(
                "title",
                f"score {row.low:.2f} to {row.high:.2f}: {row.videos} videos, "
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
    ideal = _element("path", class_="ideal", d=f"M{_x(0)} {_y(0)}L{_x(1)} {_y(1)}")
    ticks = {share: f"{100 * share:.0f}" for share in (0, 0.25, 0.5, 0.75, 1)}
    return _chart("score of the best class, %", ticks, ticks, *bars, ideal)


def _comparison(result: Comparison | None, classes: Sequence[ClassRow]) -> _Html | None:
    if result is None:
        return None
    rows = [
        ("videos scored by both", result.videos),
        ("only by this run, only by the other", f"{result.only_in_first}, {result.only_in_second}"),
        ("top-1 of this run, of the other", f"{_percent(result.top1_first)}, {_percent(result.top1_second)}"),
        ("right in both, in neither", f"{result.both_right}, {result.both_wrong}"),
        ("right in this run only, in the other only", f"{result.first_right}, {result.second_right}"),
        ("chance of such a difference between equals", f"{result.test.p_value:.3g} (exact McNemar test)"),
    ]
    names = {row.index: row.label for row in classes}
    flipped = [
        (video.path, *(names.get(number, number) for number in (video.label, video.first, video.second)))
        for video in result.flipped
    ]
    summary = _element("summary", f"Videos that only one of the two recognises: {len(flipped)}")
    listed = _element("details", summary, _table(("video", "label", "this run", "the other"), flipped))
    return _section("Compared with another run", _facts(rows), listed if flipped else None)


def _confused(pairs: Sequence[ConfusedPair]) -> _Html | None:
    if not pairs:
        return None
    rows = [(pair.label, pair.predicted, pair.videos, _Percent(pair.share)) for pair in pairs]
    return _section("Most confused", _table(("label", "taken for", "videos", "of the label's"), rows))


def _worst(videos: Sequence[WorstVideo]) -> _Html | None:
    if not videos:
        return None
    note = "Wrong answers whose label has the lowest score: hard videos, and wrong labels."
    cards = _element("div", _joined(map(_card, videos)), class_="cards")
    return _section("Worst videos", _element("p", note, class_="faint"), cards)


def _card(video: WorstVideo) -> _Html:
    image = None
    if video.thumbnail is not None:
        source = f"data:image/jpeg;base64,{base64.b64encode(video.thumbnail).decode()}"
        image = _element("img", src=source, alt="", loading="lazy")
    answer = _element("div", _element("b", video.predicted), f" {video.score:.3f}")
    label = _element("div", f"label: {video.label} {video.label_score:.3f}")
    return _element("div", image, answer, label, _element("div", video.path, class_="faint"), class_="card")


def _classes(rows: Sequence[ClassRow]) -> _Html | None:
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


def _traced(evaluation: Evaluation) -> _Html | None:
    summary = evaluation.summary
    others = {name: value for name, value in summary.metrics.items() if name in METRICS and _is_fact(name)}
    rows = [
        (name.replace("_", " "), f"{value:.6g}" if isinstance(value, float) else "none" if value is None else value)
        for name, value in {**evaluation.facts, "digest": summary.digest, **others}.items()
    ]
    return _section("What the numbers can be traced to", _facts(rows)) if rows else None


def _is_fact(name: str) -> bool:
    """Tell whether a metric is neither a tile nor the interval of one."""
    return not METRICS[name].is_headline and METRICS[name].interval_of is None


def _section(title: str, *parts: _Html | None) -> _Html:
    return _element("section", _element("h2", title), *parts)


def _facts(rows: Iterable[tuple[str, object]]) -> _Html:
    return _element(
        "table",
        _element(
            "tbody", _joined(_element("tr", _element("td", k, class_="faint"), _element("td", v)) for k, v in rows)
        ),
    )


class _Percent(float):
    """A number shown in percent beside a bar."""

    def __new__(cls, value: float | None) -> _Percent:
        return super().__new__(cls, math.nan if value is None else value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]], *, most: int = _MOST_ROWS) -> _Html:
    """A table that a click on a head sorts; rows after `most` are counted only."""
    is_number = [any(isinstance(row[column], int | float) for row in rows) for column in range(len(heads))]
    head = [
        _element("th", _element("button", name, type="button"), class_="number" if number else None, scope="col")
        for name, number in zip(heads, is_number, strict=True)
    ]
    body = _joined(_element("tr", *map(_cell, row, is_number)) for row in rows[:most])
    table = _element("table", _element("thead", _element("tr", *head)), _element("tbody", body))
    if len(rows) <= most:
        return table
    return _joined([table, _element("p", f"and {len(rows) - most} more", class_="faint")])


def _cell(value: object, is_number: bool) -> _Html:
    kind = "number" if is_number else None
    if isinstance(value, _Percent):
        if math.isnan(value):
            return _element("td", "-", class_=kind, data_value="")
        bar = _element("meter", min=0, max=100, value=round(value, 2))
        return _element("td", f"{_percent(value)} ", bar, class_=kind, data_value=float(value))
    return _element("td", "" if value is None else value, class_=kind)


def _percent(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.2f} %"
