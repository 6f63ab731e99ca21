"""What `prepare` found and wrote, as people read it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

from dualformer_cli.documents.prepare import (
    BrokenVideo,
    DatasetCounts,
    FoundVideos,
    ListCounts,
    LookAlikes,
    Preparation,
    PreparationPlan,
    SameBytes,
    Spread,
    Statistics,
)
from dualformer_cli.documents.render import RenderEstimate, RenderSummary
from dualformer_cli.outputs.screen import cells, pad, write_line
from dualformer_cli.system.words import counted, duration_in_words, size_in_words, some_of

_MOST_CLASSES = 40
_MOST_NAMED = 20
_MOST_KINDS = 6


def print_preparation(document: Preparation, *, stream: TextIO | None = None) -> None:
    """Print what `prepare` found: videos, splits, classes, statistics, and what is wrong or odd."""
    summary = document.summary
    dataset = summary.found.dataset
    _print(
        (
            *_lines(document),
            *_broken(summary.broken),
            *_same_bytes(summary.same_bytes),
            *_look_alikes(summary.look_alikes, is_official=dataset is not None),
            *(() if dataset is None else _missing(dataset)),
        ),
        stream,
    )


def print_plan(document: PreparationPlan, *, stream: TextIO | None = None) -> None:
    """Print what `prepare --dry-run` would do."""
    lines = [*start_lines(document.found), *_classes(document.found)]
    if estimate := document.estimate:
        spread = f" (give or take {estimate.give_or_take:.0%})" if estimate.give_or_take else ""
        lines.append(
            f"would need about {size_in_words(estimate.bytes)}{spread} "
            f"of {size_in_words(estimate.free_bytes)} free, and about {duration_in_words(estimate.seconds)}"
        )
    _print(lines, stream)


def print_rendered(done: RenderSummary, *, stream: TextIO | None = None) -> None:
    """Print what `prepare camera-motion` rendered."""
    lines = [f"{split}: {counted(count, 'clip')}" for split, count in done.clips.items()]
    total = sum(done.clips.values())
    lines.append(f"{done.rendered:,} of {total:,} clips rendered now, {size_in_words(done.num_bytes)} in all")
    _print(lines, stream)


def print_render_estimate(needed: RenderEstimate, num_workers: int, *, stream: TextIO | None = None) -> None:
    """Print what `prepare camera-motion --dry-run` would need."""
    line = (
        f"{needed.root}: would render {needed.missing:,} of {sum(needed.clips.values()):,} clips, about "
        f"{size_in_words(needed.num_bytes)}, in about {duration_in_words(needed.seconds)} "
        f"with {counted(num_workers, 'process')}"
    )
    _print([line], stream)


def _print(lines: Iterable[str], stream: TextIO | None) -> None:
    out = sys.stdout if stream is None else stream
    for line in lines:
        write_line(line.rstrip(), out, indent=11)


def start_lines(found: FoundVideos) -> Iterator[str]:
    """Yield what was found in the folder, in a few lines that can be read before the work starts."""
    shown = some_of(found.classes, _MOST_KINDS)
    videos, classes = counted(found.videos, "video"), counted(len(found.classes), "class")
    yield f"{found.folder}: {found.layout}, {videos}, {classes} ({shown})"
    if missing := sum(split.missing for split in found.dataset.splits.values()) if found.dataset else 0:
        yield f"note: {counted(missing, 'annotated video')} {'is' if missing == 1 else 'are'} not there"
    if found.skipped:
        yield "left out: " + ", ".join(f"{count} {reason}" for reason, count in found.skipped.items())
    for message in found.messages:
        yield f"note: {message}"


def _lines(document: Preparation) -> Iterator[str]:
    summary = document.summary
    yield from _classes(summary.found)
    counts = [f"{count} {name.replace('_', ' ')}" for name, count in summary.status.items() if count]
    yield f"videos     {', '.join(counts)}"
    yield from _statistics(summary.statistics)
    for note in summary.notes:
        yield f"note       {note.note}: {counted(note.videos, 'video')}, such as {note.examples[0]}"
    run = document.run
    if run.converted is not None:
        failed = f", {run.failed} failed" if run.failed else ""
        yield f"converted  {run.converted} now, {run.kept} before{failed}"


def _classes(found: FoundVideos) -> Iterator[str]:
    """Yield a table of classes and splits; of many classes only the sums. Of a dataset, one of its lists."""
    splits = found.splits
    if found.dataset is not None:
        yield from _dataset_lists(splits)
        return
    names = found.classes[:_MOST_CLASSES]
    size = max(map(cells, (*names, "class", "all videos")))
    yield pad("class", size) + "".join(f"{split:>8}" for split in splits)
    if len(found.classes) <= _MOST_CLASSES:
        for number, name in enumerate(names):
            yield pad(name, size) + "".join(f"{split.per_class[number]:>8}" for split in splits.values())
    else:
        for title, pick in (("fewest", min), ("most", max)):
            yield pad(title, size) + "".join(f"{pick(split.per_class):>8}" for split in splits.values())
    yield pad("all videos", size) + "".join(f"{split.videos:>8}" for split in splits.values())


def _dataset_lists(splits: Mapping[str, ListCounts]) -> Iterator[str]:
    """Yield a table of lists: some have classes of their own, and some datasets have many."""
    size = max(map(cells, ("list", *splits)))
    yield f"{pad('list', size)}{'videos':>9}{'classes':>9}{'with videos':>13}{'fewest':>8}{'most':>8}"
    for name, split in splits.items():
        filled = [count for count in split.per_class if count]
        yield (
            f"{pad(name, size)}{split.videos:>9}{len(split.per_class):>9}{len(filled):>13}{min(filled):>8}"
            f"{max(filled):>8}"
        )


def _missing(dataset: DatasetCounts) -> Iterator[str]:
    """Yield how much of a dataset is there, last, where it is seen."""
    for name, split in dataset.splits.items():
        if not split.missing:
            continue
        videos = split.missing_videos
        such = f", such as {videos[0]}; all are named in prepare.json" if videos else ": none is there"
        yield f"missing    {name}: {split.missing:,} of {counted(split.annotated, 'annotated video')}{such}"
    if not any(split.missing for split in dataset.splits.values()):
        few = [
            f"{split.annotated:,} of {split.published:,} in {name}"
            for name, split in dataset.splits.items()
            if split.published is not None
        ]
        if few:
            yield (
                f"not all    every annotated video is there, but fewer are annotated than {dataset.title} has: "
                f"{', '.join(few)}"
            )
        else:
            yield f"complete   every annotated video of {dataset.title} is there"
    for left_out, what in (
        (dataset.copies, "with a video that another file holds too"),
        (dataset.not_annotated, "in no annotation"),
    ):
        if left_out.videos:
            yield f"left out   {counted(left_out.videos, 'file')} {what}, such as {left_out.examples[0]}"


def _statistics(statistics: Statistics) -> Iterator[str]:
    seconds, lengths = statistics.duration_seconds, statistics.num_frames
    if seconds:
        yield f"duration   {duration_in_words(seconds.total)} in all; {_spread(seconds, digits=1, unit=' s')}"
    if lengths:
        yield f"frames     {_spread(lengths)}"
    yield f"sizes      {_common(statistics.sizes)}"
    yield f"fps        {_common(statistics.fps)}"
    yield f"codecs     {_common(statistics.codecs)}; {size_in_words(statistics.bytes)}"


def _spread(values: Spread, *, digits: int = 0, unit: str = "") -> str:
    """Return the smallest and the largest value and the median, or the one that all have in the digits shown."""
    least, most, median = (f"{value:.{digits}f}" for value in (values.min, values.max, values.median))
    return f"{least}{unit} each" if least == most else f"{least} to {most}{unit}, median {median}"


def _common(counts: Mapping[str, int]) -> str:
    return some_of([f"{name} ({count})" for name, count in counts.items()], _MOST_KINDS)


def _broken(broken: Sequence[BrokenVideo]) -> Iterator[str]:
    for video in broken[:_MOST_NAMED]:
        yield f"broken     {video.path}: {video.status.removeprefix('broken: ')}"
    if len(broken) > _MOST_NAMED:
        yield f"           and {len(broken) - _MOST_NAMED} more, all in prepare.json"


def _same_bytes(found: SameBytes) -> Iterator[str]:
    """Yield which videos are byte for byte the same, under two labels and under one."""
    if count := found.two_labels:
        first, second = found.examples[0][:2]
        shown = " and ".join(f"{video.path} ({some_of(video.labels, 3)})" for video in (first, second))
        more = f"; {count - 1} more such video{'s' if count > 2 else ''}, see prepare.json" if count > 1 else ""
        yield f"same video under two labels: {shown}{more}"
    if count := found.one_label:
        yield f"same video {count} file{' is a copy' if count == 1 else 's are copies'} of another with the same label"


def _look_alikes(found: LookAlikes, *, is_official: bool) -> Iterator[str]:
    """Yield pairs of videos in different splits; official splits are as they are."""
    if not found.pairs:
        return
    advice = "keep such videos together with --group-look-alikes, --group-pattern or --group-column"
    if is_official:
        advice = "these splits are official, and all published results have them"
    pairs = counted(found.pairs, "pair")
    yield f"look alike {pairs} of videos in different splits, which makes results too good; {advice}:"
    for pair in found.examples[:_MOST_KINDS]:
        yield f"           {pair.first_split} {pair.first}  |  {pair.second_split} {pair.second}"
    if found.pairs > _MOST_KINDS:
        yield f"           and {found.pairs - _MOST_KINDS} more, in prepare.json"
