"""Predictions as text: the best labels of a video with bars, and timelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TextIO

from dualformer_cli.documents.predict import (
    BUILT_IN_QUESTION,
    LabelCounts,
    LiveClip,
    ModelFacts,
    PredictionRun,
    ScoredLabel,
    Segment,
    VideoResult,
)
from dualformer_cli.outputs.screen import NARROWEST_BAR, NARROWEST_LABEL, Screen, clock, pad
from dualformer_cli.system.words import counted, shown_path

UNSURE = "unsure"
"""What is shown in place of a label whose score says too little."""
_LIVE_BAR = 10


def print_question(facts: ModelFacts, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print, above the results, what the built-in model answers in the place of the default one."""
    screen = Screen(stream, width)
    screen.line((f"{BUILT_IN_QUESTION.capitalize()}, by {facts.preset}", "bold"))
    screen.line()
    screen.flush()


def print_predictions(result: VideoResult, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print one video's scores for a reader: facts, top-k with bars, timeline, warnings, a blank line.

    Args:
        result: what was said of it.
        stream: where to print, stdout by default; colours only if it is a terminal.
        width: columns to fit into; by default the terminal's. Long labels are cut to fit; a path never is. Without
            a width and a terminal nothing is cut.
    """
    screen = Screen(stream, width)
    screen.line((shown_path(result.path), "bold"))
    if result.predictions:
        screen.paragraph(video_facts(result), style="dim")
        _print_top(screen, result.predictions)
        if parts := shown_parts(result):
            screen.line()
            _print_timeline(screen, parts)
    if result.status == "error":
        screen.paragraph(f"error: {result.error}", style="red")
    if result.is_right is not None and result.labels is not None:
        verdict, style = ("right", "green") if result.is_right else ("wrong", "red")
        screen.paragraph(f"{verdict}: the list says {', '.join(result.labels)}", style=style)
    for warning in result.warnings or ():
        screen.paragraph(f"warning: {warning}", style="yellow")
    screen.line()
    screen.flush()


def print_clip(clip: LiveClip, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print the best label of one clip of a live input as a line, at once: time, score, bar, label.

    The label comes last, so that the columns stand one below the other whatever comes next.

    Args:
        clip: with its labels.
        stream: where to print, stdout by default.
        width: columns; the terminal's own by default.
    """
    best = clip.predictions[0]
    screen = Screen(stream, width)
    span = f"  {clock(clip.start_seconds):>9} - {clock(clip.end_seconds):>9}"
    bar = pad(screen.bar(best.score, _LIVE_BAR), _LIVE_BAR)
    label = best.label if clip.unsure_below is None else UNSURE
    room = screen.width - len(span) - 2 - 6 - 2 - _LIVE_BAR - 2
    bar = "" if room < NARROWEST_LABEL else f"  {bar}"
    room = max(1, room + (0 if bar else _LIVE_BAR + 2))
    screen.line((span, "dim"), (f"  {best.score:6.1%}", ""), (bar, "cyan"), (f"  {screen.cut(label, room)}", ""))
    screen.flush()


def print_run(run: PredictionRun, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print how many videos a run folder holds now.

    Args:
        run: what was done.
        stream: where to print, stdout by default.
        width: columns to fit into; the terminal's own by default.
    """
    videos = run.videos
    facts = [
        f"{videos.ok:,} classified",
        f"{videos.failed:,} failed (predictions.csv names them, --retry-failed tries again)" if videos.failed else "",
    ]
    facts += [f"{videos.lost:,} lost with a process; run the same command again" if videos.lost else ""]
    facts += [f"{videos.kept:,} were done before" if videos.kept else ""]
    screen = Screen(stream, width)
    screen.paragraph(f"{counted(videos.listed, 'video')}: {', '.join(filter(None, facts))}", style="", indent=0)
    screen.flush()


def shown_parts(result: VideoResult) -> tuple[Segment, ...]:
    """Return the timeline as people see it: neighbours whose score says too little are one part, called unsure."""
    shown: list[Segment] = []
    for segment in result.segments or ():
        if result.unsure_below is None or segment.score >= result.unsure_below:
            shown.append(segment)
        elif shown and shown[-1].index < 0:
            shown[-1] = shown[-1].joined(segment)
        else:
            shown.append(replace(segment, label=UNSURE, index=-1))
    return tuple(shown)


def best_shown(result: VideoResult) -> ScoredLabel:
    """Return the best label of the whole video as people see it: unsure, where its score says too little."""
    best = result.predictions[0]
    return replace(best, label=UNSURE, index=-1) if is_unsure(result) else best


def is_unsure(result: VideoResult) -> bool:
    """Return whether the score of the best label says too little."""
    limit = result.unsure_below
    return limit is not None and bool(result.predictions) and result.predictions[0].score < limit


def print_counts(counts: LabelCounts, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print how often the best label of a video was that of its list."""
    screen = Screen(stream, width)
    compared = counts.right + counts.wrong
    facts = (
        [f"{counts.right:,} of {counted(compared, 'video')} right ({counts.right / compared:.1%})"] if compared else []
    )
    if counts.not_compared:
        number = counted(counts.not_compared, "video")
        facts.append(f"{number} not compared: with an error, or a label that the model does not have")
    screen.paragraph("; ".join(facts), style="bold", indent=0)
    screen.flush()


def _print_top(screen: Screen, predictions: Sequence[ScoredLabel]) -> None:
    if not predictions:
        return
    labels = [prediction.label for prediction in predictions]
    rank_size = len(str(len(labels)))
    taken = 2 + rank_size + 2 + 2 + 6 + 2  # indent, rank, gaps, "100.0%"
    label_size, bar_size = screen.label_and_bar_sizes(labels, taken=taken, widest_bar=40)
    rows = [
        (f"  {rank:{rank_size}}", screen.cut(label, label_size), f"{score:6.1%}", screen.bar(score, bar_size))
        for rank, (label, score) in enumerate(zip(labels, (p.score for p in predictions), strict=True), start=1)
    ]
    screen.table(rows, right=(True, False, True, False), styles=("dim", "", "", "cyan"))


def _print_timeline(screen: Screen, segments: Sequence[Segment]) -> None:
    labels = [segment.label for segment in segments]
    hours = max(segment.end_seconds for segment in segments) >= 3600
    spans = [
        f"  {clock(segment.start_seconds, with_hours=hours)} - {clock(segment.end_seconds, with_hours=hours)}"
        for segment in segments
    ]
    taken = max(map(len, spans)) + 2 + 2 + 6 + 2
    label_size, bar_size = screen.label_and_bar_sizes(labels, taken=taken, widest_bar=20)
    scores = [segment.score for segment in segments]
    if not bar_size:
        for span, label, score in zip(spans, labels, scores, strict=True):
            screen.line((span, "dim"), (f"  {score:6.1%}  ", ""), (screen.bar(score, NARROWEST_BAR), "cyan"))
            screen.line(("    " + screen.cut(label, screen.width - 4), ""))
        return
    rows = [
        (span, screen.cut(label, label_size), f"{score:.1%}", screen.bar(score, bar_size))
        for span, label, score in zip(spans, labels, scores, strict=True)
    ]
    screen.table(rows, right=(True, False, True, False), styles=("dim", "", "", "cyan"))


def video_facts(result: VideoResult) -> str:
    facts = [] if result.num_frames is None else [counted(result.num_frames, "frame")]
    if result.fps is not None:
        facts.append(f"{result.fps:.4g} fps")
    if (seconds := result.duration_seconds) is not None:
        facts.append(f"{seconds:.1f} s" if seconds < 59.95 else clock(seconds))
    facts.append(counted(result.views, "view"))
    if is_unsure(result):
        facts.append(f"unsure: no label reaches {result.unsure_below:.1%}")
    return ", ".join(facts)
