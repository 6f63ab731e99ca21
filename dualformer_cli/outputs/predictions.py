"""Predictions as text: the best labels of a video with bars, and timelines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from dualformer_cli.documents.predict import LiveClip, PredictionRun, ScoredLabel, Segment, VideoResult
from dualformer_cli.outputs.screen import NARROWEST_BAR, Screen, clock
from dualformer_cli.system.words import counted


def print_predictions(result: VideoResult, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print one video's scores for a reader: facts, top-k with bars, timeline, warnings, a blank line.

    Args:
        result: what was said of it.
        stream: where to print, stdout by default; colours only if it is a terminal.
        width: columns to fit into; by default the terminal's. Long labels are cut to fit; a path never is. Without
            a width and a terminal nothing is cut.
    """
    screen = Screen(stream, width)
    screen.line((result.path, "bold"))
    if result.predictions:
        screen.paragraph(video_facts(result), style="dim")
        _print_top(screen, result.predictions)
        _print_timeline(screen, result.segments or ())
    if result.status == "error":
        screen.paragraph(f"error: {result.error}", style="red")
    for warning in result.warnings or ():
        screen.paragraph(f"warning: {warning}", style="yellow")
    screen.line()
    screen.flush()


def print_clip(clip: LiveClip, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print the best label of one clip of a live input as a line of a timeline, at once.

    Args:
        clip: with its labels.
        stream: where to print, stdout by default.
        width: columns; the terminal's own by default.
    """
    best = clip.predictions[0]
    screen = Screen(stream, width)
    times = {"start_seconds": clip.start_seconds, "end_seconds": clip.end_seconds}
    _print_timeline(screen, [Segment(**times, label=best.label, index=best.index, score=best.score)])
    screen.flush()


def print_run(run: PredictionRun, *, stream: TextIO | None = None, width: int | None = None) -> None:
    """Print what a run folder holds now: how many videos, and in which files.

    Args:
        run: what was done.
        stream: where to print, stdout by default.
        width: columns to fit into; the terminal's own by default.
    """
    videos = run.videos
    facts = [f"{videos.ok:,} classified", f"{videos.failed:,} failed" if videos.failed else ""]
    facts += [f"{videos.lost:,} lost with a process; run the same command again" if videos.lost else ""]
    facts += [f"{videos.kept:,} of them before" if videos.kept else ""]
    screen = Screen(stream, width)
    screen.line((f"{counted(videos.listed, 'video')}: {', '.join(filter(None, facts))}", ""))
    for file in run.files:
        screen.line((f"wrote {file}", ""))
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
    if not segments:
        return
    labels = [segment.label for segment in segments]
    hours = max(segment.end_seconds for segment in segments) >= 3600
    spans = [
        f"  {clock(segment.start_seconds, with_hours=hours)} - {clock(segment.end_seconds, with_hours=hours)}"
        for segment in segments
    ]
    taken = max(map(len, spans)) + 2 + 2 + 4 + 2
    label_size, bar_size = screen.label_and_bar_sizes(labels, taken=taken, widest_bar=20)
    scores = [segment.score for segment in segments]
    screen.line()
    if not bar_size:
        for span, label, score in zip(spans, labels, scores, strict=True):
            screen.line((span, "dim"), (f"  {score:.2f}  ", ""), (screen.bar(score, NARROWEST_BAR), "cyan"))
            screen.line(("    " + screen.cut(label, screen.width - 4), ""))
        return
    rows = [
        (span, screen.cut(label, label_size), f"{score:.2f}", screen.bar(score, bar_size))
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
    return ", ".join(facts)
