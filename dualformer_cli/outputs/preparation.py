"""What `prepare` found and wrote, as people read it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from dualformer_cli.outputs.report import cells, clock, pad
from dualformer_cli.system.words import printable, size_in_words, some_of

_MOST_CLASSES = 40
_MOST_NAMED = 20
_MOST_KINDS = 6


def print_preparation(document: Mapping[str, Any], *, stream: TextIO | None = None) -> None:
    """Print the summary of `prepare`: videos, splits, classes, statistics, and what is wrong or odd."""
    out = sys.stdout if stream is None else stream
    encoding = getattr(out, "encoding", None) or "utf-8"
    for line in (
        *_lines(document),
        *_broken(document),
        *_same_bytes(document),
        *_look_alikes(document),
        *_missing(document),
    ):
        out.write(printable(line, encoding).rstrip() + "\n")


def print_plan(document: Mapping[str, Any], *, stream: TextIO | None = None) -> None:
    """Print what `prepare --dry-run` would do."""
    out = sys.stdout if stream is None else stream
    encoding = getattr(out, "encoding", None) or "utf-8"
    lines = [*_start(document), *_classes(document)]
    if estimate := document.get("estimate"):
        spread = f" (give or take {estimate['give_or_take']:.0%})" if estimate["give_or_take"] else ""
        lines.append(
            f"would need about {size_in_words(estimate['bytes'])}{spread} "
            f"of {size_in_words(estimate['free_bytes'])} free, and about {clock(estimate['seconds'])}"
        )
    for line in lines:
        out.write(printable(line, encoding).rstrip() + "\n")


def start_lines(document: Mapping[str, Any]) -> list[str]:
    """What was found in the folder, in a few lines that can be read before the work starts."""
    return list(_start(document))


def _start(document: Mapping[str, Any]) -> Iterator[str]:
    names = document["classes"]
    missing = sum(split["missing"] for split in document.get("dataset", {"splits": {}})["splits"].values())
    shown = some_of(names, _MOST_KINDS)
    yield f"{document['folder']}: {document['layout']}, {document['videos']} videos, {len(names)} classes ({shown})"
    if missing:
        yield f"note: {missing} annotated videos are not there"
    if document["skipped"]:
        yield "left out: " + ", ".join(f"{count} {reason}" for reason, count in document["skipped"].items())
    for message in document["messages"]:
        yield f"note: {message}"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield from _classes(document)
    status = document["status"]
    yield "videos     " + ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in status.items() if count)
    yield from _statistics(document["statistics"])
    for note in document["notes"]:
        yield f"note       {note['note']}: {note['videos']} videos, such as {note['examples'][0]}"
    run = document["run"]
    if run:
        failed = f", {run['failed']} failed" if run["failed"] else ""
        yield f"converted  {run['converted']} now, {run['kept']} before{failed}"
    yield f"written    {', '.join(name for name in document['files'])} in {document['root']}"


def _classes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of classes and splits; of many classes only the sums. Of a dataset, one of its lists."""
    splits = document["splits"]
    if "dataset" in document:
        yield from _dataset_lists(splits)
        return
    names = document["classes"][:_MOST_CLASSES]
    size = max(map(cells, (*names, "class", "all videos")))
    yield pad("class", size) + "".join(f"{split:>8}" for split in splits)
    if len(document["classes"]) <= _MOST_CLASSES:
        for number, name in enumerate(names):
            yield pad(name, size) + "".join(f"{split['per_class'][number]:>8}" for split in splits.values())
    else:
        for title, pick in (("fewest", min), ("most", max)):
            yield pad(title, size) + "".join(f"{pick(split['per_class']):>8}" for split in splits.values())
    yield pad("all videos", size) + "".join(f"{split['videos']:>8}" for split in splits.values())


def _dataset_lists(splits: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of lists: some have classes of their own, and some datasets have many."""
    size = max(map(cells, ("list", *splits)))
    yield f"{pad('list', size)}{'videos':>9}{'classes':>9}{'with videos':>13}{'fewest':>8}{'most':>8}"
    for name, split in splits.items():
        counts = split["per_class"]
        filled = [count for count in counts if count]
        yield (
            f"{pad(name, size)}{split['videos']:>9}{len(counts):>9}{len(filled):>13}{min(filled):>8}{max(filled):>8}"
        )


def _missing(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield how much of a dataset is there, last, where it is seen."""
    if "dataset" not in document:
        return
    dataset = document["dataset"]
    for name, split in dataset["splits"].items():
        if not split["missing"]:
            continue
        videos = split["missing_videos"]
        such = f", such as {videos[0]}; all are named in prepare.json" if videos else ": none is there"
        yield f"missing    {name}: {split['missing']} of {split['annotated']} annotated videos{such}"
    if not any(split["missing"] for split in dataset["splits"].values()):
        few = [
            f"{split['annotated']} of {split['published']} in {name}"
            for name, split in dataset["splits"].items()
            if split["published"] is not None
        ]
        if few:
            yield (
                f"not all    every annotated video is there, but fewer are annotated than {dataset['title']} has: "
                f"{', '.join(few)}"
            )
        else:
            yield f"complete   every annotated video of {dataset['title']} is there"
    for key, what in (
        ("copies", "files hold a video that another file holds too, and are not listed"),
        ("not_annotated", "videos are in no annotation, and are not listed"),
    ):
        if found := dataset[key]["videos"]:
            yield f"left out   {found} {what}, such as {dataset[key]['examples'][0]}"


def _statistics(statistics: Mapping[str, Any]) -> Iterator[str]:
    seconds, lengths = statistics["duration_seconds"], statistics["num_frames"]
    if seconds:
        middle = f"{seconds['min']:.1f} to {seconds['max']:.1f} s, median {seconds['median']:.1f}"
        yield f"duration   {clock(seconds['total'], with_hours=True)} in all; {middle}"
    if lengths:
        yield f"frames     {lengths['min']:.0f} to {lengths['max']:.0f}, median {lengths['median']:.0f}"
    yield f"sizes      {_common(statistics['sizes'])}"
    yield f"fps        {_common(statistics['fps'])}"
    yield f"codecs     {_common(statistics['codecs'])}; {size_in_words(statistics['bytes'])}"


def _common(counts: Mapping[str, int]) -> str:
    return some_of([f"{name} ({count})" for name, count in counts.items()], _MOST_KINDS)


def _broken(document: Mapping[str, Any]) -> Iterator[str]:
    broken = document["broken"]
    for video in broken[:_MOST_NAMED]:
        yield f"broken     {video['path']}: {video['status'].removeprefix('broken: ')}"
    if len(broken) > _MOST_NAMED:
        yield f"           and {len(broken) - _MOST_NAMED} more, all in prepare.json"


def _same_bytes(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield which videos are byte for byte the same, under two labels and under one."""
    found = document["same_bytes"]
    if found["two_labels"]:
        first, second = found["examples"][0][:2]
        shown = " and ".join(f"{video['path']} ({some_of(video['labels'], 3)})" for video in (first, second))
        count = found["two_labels"]
        more = f"; {count - 1} more such video{'s' if count > 2 else ''}, see prepare.json" if count > 1 else ""
        yield f"same video under two labels: {shown}{more}"
    if count := found["one_label"]:
        yield f"same video {count} file{' is a copy' if count == 1 else 's are copies'} of another with the same label"


def _look_alikes(document: Mapping[str, Any]) -> Iterator[str]:
    found = document["look_alikes"]
    if not found["pairs"]:
        return
    advice = "keep such videos together with --group-look-alikes, --group-pattern or --group-column"
    if "dataset" in document:
        advice = "these splits are official, and all published results have them"
    yield f"look alike {found['pairs']} pairs of videos in different splits, which makes results too good; {advice}:"
    for pair in found["examples"][:_MOST_KINDS]:
        yield f"           {pair['first_split']} {pair['first']}  |  {pair['second_split']} {pair['second']}"
    if found["pairs"] > _MOST_KINDS:
        yield f"           and {found['pairs'] - _MOST_KINDS} more, in prepare.json"
