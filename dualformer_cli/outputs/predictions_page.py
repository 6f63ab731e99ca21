"""Predictions as a page to look through: pictures, labels with bars, timelines that lead into the videos.

The results are JSON in the page, and its script shows a few of them at a time. The videos stay where they are: the page
names them relative to itself. A report of many videos is several files, which name each other.
"""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from importlib.resources import files as package_files
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from dualformer_cli.documents.predict import BUILT_IN_QUESTION, ModelFacts, VideoResult
from dualformer_cli.outputs.html import STYLE, Html, data, element, head, joined, tile
from dualformer_cli.outputs.predictions import shown_parts, video_facts
from dualformer_cli.outputs.progress import Progress
from dualformer_cli.system.files import atomic_path
from dualformer_cli.system.words import counted, printable, shown_path
from dualformer_cli.system.workers import WorkerPool
from dualformer_cli.video.thumbnails import read_thumbnails

VIDEOS_PER_FILE = 1000
"""With pictures of 10 kB and the timelines of an hour each such a file has up to 45 MB; a phone opens half of that."""

_SOURCES = "media-src 'self' file:; "

MOST_LABELS = 10
"""Of a whole video."""


def page_files(path: Path, num_videos: int) -> list[Path]:
    """Return the files of a report of so many videos: page.html, page-2.html and so on."""
    numbers = range(2, -(-num_videos // VIDEOS_PER_FILE) + 1)
    return [path, *(path.with_stem(f"{path.stem}-{number}") for number in numbers)]


def write_predictions_page(
    results: Iterable[VideoResult],
    path: Path,
    *,
    facts: ModelFacts | None,
    fallback: str | None,
    pool: WorkerPool | None,
    lost: int = 0,
) -> list[Path]:
    """Write a report, and return its files; they appear only when all are complete.

    Args:
        results: gone through once; those of one file are in memory.
        path: the first file.
        facts: what classified the videos; None if no model was loaded, as no input is there.
        fallback: why another model than the default one did; None if not.
        pool: reads pictures of the videos of the first file; None if no video has a result.
        lost: videos without a result.
    """
    style, script = STYLE + _part("css"), _part("js")
    start = f'<!doctype html>\n<html lang="en">{head("Predictions", style, script, sources=_SOURCES)}<body>\n'
    counts = Counter[str]()
    temporaries: list[Path] = []
    with ExitStack() as stack:
        for block in _blocks(results):
            pictures = {} if temporaries or pool is None else _pictures(block, pool)
            counts.update(own.status for own in block)
            temporaries.append(stack.enter_context(atomic_path(page_files(path, counts.total())[-1])))
            temporaries[-1].write_text(start + _results(block, pictures, path.parent), encoding="utf-8", newline="\n")
        targets = page_files(path, counts.total())
        introduction = list(_introduction(facts, fallback, counts, lost))
        for number, temporary in enumerate(temporaries):
            files = _files(targets, number, counts.total())
            body = joined([*introduction, *files, _FILTERS, _pager(role="status"), _CARDS, _pager()])
            with temporary.open("a", encoding="utf-8", newline="\n") as file:
                file.write(f"\n{body}\n{element('script', Html(script))}\n</body></html>\n")
    return targets


def _blocks(results: Iterable[VideoResult]) -> Iterator[list[VideoResult]]:
    """Return the results of each file; of the first one even if there are none."""
    left = iter(results)
    yield list(islice(left, VIDEOS_PER_FILE))
    while block := list(islice(left, VIDEOS_PER_FILE)):
        yield block


def _pictures(block: Sequence[VideoResult], pool: WorkerPool) -> dict[str, bytes]:
    files = {result.path: result.path for result in block if result.views}
    with Progress("pictures", total=len(files)) as progress:
        return read_thumbnails(files, pool, on_name=lambda name: progress.advance(note=name))


def _part(suffix: str) -> str:
    return package_files(__package__).joinpath(f"predictions_page.{suffix}").read_text(encoding="utf-8")


def _results(block: Sequence[VideoResult], pictures: dict[str, bytes], folder: Path) -> Html:
    """Return the results of one file as JSON: labels by their number, and one line a video."""
    labels: dict[int, str] = {}
    for result in block:
        labels |= {own.index: printable(own.label) for own in result.predictions[:MOST_LABELS]}
        labels |= {own.index: printable(own.label) for own in shown_parts(result)}
    lines = ",\n".join(data(_video(result, pictures.get(result.path), folder)) for result in block)
    content = Html(f'{{"labels":{data(labels)},"videos":[\n{lines}\n]}}')
    return element("script", content, id="results", type="application/json")


def _video(result: VideoResult, picture: bytes | None, folder: Path) -> dict[str, object]:
    """Return what the page's script needs of one video; what is not known is left out."""
    found = {
        "name": printable(shown_path(result.path)),
        "top": [(own.index, round(own.score, 4)) for own in result.predictions[:MOST_LABELS]],
        "link": _link(result.path, folder),
        "isFolder": os.path.isdir(result.path) or None,
        "picture": picture and base64.b64encode(picture).decode(),
        "facts": video_facts(result) if result.predictions else None,
        "seconds": result.duration_seconds,
        "parts": result.segments and [
            (round(own.start_seconds, 3), round(own.end_seconds, 3), own.index, round(own.score, 4))
            for own in shown_parts(result)
        ],
        "error": result.error and printable(result.error),
        "warnings": result.warnings and [printable(warning) for warning in result.warnings],
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}


def _link(path: str, folder: Path) -> str | None:
    """Return the address of a file as seen from the page; None if there is no such file, as of a camera."""
    if not os.path.lexists(path):
        return None
    return quote(os.fsencode(Path(os.path.relpath(path, folder)).as_posix()))


def _introduction(facts: ModelFacts | None, fallback: str | None, counts: Counter[str], lost: int) -> Iterator[Html]:
    yield element("h1", "Predictions")
    if facts is None:
        model = "No input is there: no model was loaded."
    else:
        model = (
            f"{facts.model}, {facts.views} views a video, {facts.device}, {facts.precision}. "
            "Videos are played from where they lie: keep the page in its place beside them."
        )
    yield element("p", model, class_="faint")
    if fallback is not None:
        text = f"{BUILT_IN_QUESTION.capitalize()}, by the built-in model, as the default one is not here:"
        yield element("p", text, class_="warning")
        yield element("p", fallback, class_="faint")
    if lost:
        text = f"{counted(lost, 'video')} lost with a process; run the same command again, and the page is complete."
        yield element("p", text, class_="warning")
    tiles = [tile(f"{counts['ok']:,}", "classified"), tile(f"{counts['error']:,}", "with errors")]
    yield element("div", joined(tiles), class_="tiles")


def _files(targets: Sequence[Path], number: int, num_videos: int) -> Iterator[Html]:
    """Return links to all files of a report; nothing if there is one."""
    if len(targets) == 1:
        return
    links = []
    for place, target in enumerate(targets):
        first, last = place * VIDEOS_PER_FILE + 1, min((place + 1) * VIDEOS_PER_FILE, num_videos)
        here = "page" if place == number else None
        links.append(element("li", element("a", f"{first:,} to {last:,}", href=quote(target.name), aria_current=here)))
    note = (
        f"The {num_videos:,} videos are in {len(targets):,} files. This is number {number + 1:,}; search and filters "
        f"see the videos of this file. Pictures are kept of the first {VIDEOS_PER_FILE:,} videos only."
    )
    yield element("nav", element("p", note), element("ol", joined(links)), aria_label="Files of the report")


def _pager(role: str | None = None) -> Html:
    turns = {"First": -(10**9), "Previous": -1, "Next": 1, "Last": 10**9}
    buttons = [element("button", name, type="button", data_to=step) for name, step in turns.items()]
    return element("div", element("p", role=role), *buttons, class_="pager", role="group", aria_label="Pages")


def _select(title: str, name: str, /, **options: str) -> Html:
    choices = [element("option", text, value=value.rstrip("_")) for value, text in options.items()]
    return element("label", title, element("select", *choices, name=name))


_FILTERS = element(
    "form",
    element("label", "Search names, labels and errors", element("input", type="search", name="search")),
    _select("Label", "label", _="any"),
    element(
        "label",
        element("span", "Score at least ", element("span", id="least")),
        element("input", type="range", name="score", min=0, max=100, value=0),
    ),
    _select("Videos", "state", _="all", ok="without error", error="with an error"),
    _select("Order", "order", given="as given", name="name", high="best score first", low="lowest score first"),
    element("button", "Reset", type="reset"),
    id="filters",
    role="search",
)

_CARDS = joined(
    [
        element("noscript", element("p", "The page shows its videos with JavaScript, which is off.", class_="warning")),
        element("ol", id="cards", tabindex=-1, aria_label="Videos"),
    ]
)
