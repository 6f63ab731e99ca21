"""What `download` lists, would do and did, as people read it; addresses are whole, to be copied."""

from __future__ import annotations

import sys

from dualformer_cli.documents.download import (
    DatasetState,
    Download,
    DownloadList,
    DownloadPlan,
    FilesOutcome,
    FilesState,
    SplitPresence,
    WeightsOutcome,
    WeightsState,
)
from dualformer_cli.outputs.screen import Screen, print_facts, print_table, write_line
from dualformer_cli.system.words import counted, size_in_words


def print_list(document: DownloadList, *, detailed: bool = False) -> None:
    """Print what can be fetched: a table of datasets and one of weights, or `detailed`, all that is known of each."""
    if detailed:
        return _print_details(document)
    if document.datasets:
        columns = ("name", "classes", "train", "val", "test", "size", "fetched", "state")
        print_table(columns, list(map(_dataset_row, document.datasets)), right=[False, *[True] * 5, False, False])
    if document.datasets and document.weights:
        print()
    if document.weights:
        head = ("name", "at least", "top-1", "state")
        print_table(head, list(map(_weights_row, document.weights)), right=[False, True, True, False])
    print()
    _print("Licence, metric and address: dualformer download --list NAME")


def _dataset_row(state: DatasetState) -> tuple[str, ...]:
    counts = [state.splits.get(split, state.splits.get(f"{split}_1")) for split in ("train", "val", "test")]
    return (
        state.name,
        f"{state.num_classes:,}",
        *("-" if count is None else f"{count:,}" for count in counts),
        _size(state),
        state.how.replace("partly by hand", "partly"),
        state.state,
    )


def _weights_row(state: WeightsState) -> tuple[str, ...]:
    return (state.name, size_in_words(state.minimum_bytes), _top1(state), state.state)


def _size(state: DatasetState) -> str:
    return size_in_words(state.size_bytes) if state.size_bytes > 10**8 else "-"


def _top1(state: WeightsState) -> str:
    return "-" if state.top1 is None else f"{state.top1:.1f}"


def _print_details(document: DownloadList) -> None:
    screen = Screen(None, None)
    entries = [(_dataset_facts(state), state.note) for state in document.datasets]
    entries += [(_weights_facts(state), state.note) for state in document.weights]
    for number, (facts, note) in enumerate(entries):
        if number:
            screen.line()
        print_facts(screen, facts)
        if note:
            screen.paragraph(note, style="")
    screen.flush()


def _dataset_facts(state: DatasetState) -> list[tuple[str, str]]:
    splits = (f"{name} {count:,}" for name, count in state.splits.items() if count is not None)
    return [
        ("name", f"{state.name}, {state.title}"),
        ("classes", f"{state.num_classes:,}"),
        ("videos", ", ".join(splits) or "not stated"),
        ("size", _size(state)),
        ("fetched", state.how),
        ("state", f"{state.state} in {state.folder}"),
        ("licence", state.licence or "not stated"),
        ("metric", state.metric),
        ("address", state.homepage),
    ]


def _weights_facts(state: WeightsState) -> list[tuple[str, str]]:
    return [
        ("name", f"{state.name}, weights"),
        ("size", f"at least {size_in_words(state.minimum_bytes)}"),
        ("top-1", _top1(state)),
        ("state", f"{state.state}, at {state.path}"),
        ("licence", state.licence or "not stated"),
        ("address", state.url),
    ]


def _print(line: str) -> None:
    write_line(line, sys.stdout)


def print_plan(document: DownloadPlan) -> None:
    """Print what a run would do."""
    for state in document.files:
        _print(f"{state.dataset} {state.name}: {_planned(state)}")
    for weights in document.weights:
        if weights.state == "present":
            _print(f"{weights.name}: present at {weights.path}")
            continue
        why = " (the file there is broken)" if weights.state == "broken" else ""
        size = size_in_words(weights.minimum_bytes)
        _print(f"{weights.name}: would fetch at least {size} from {weights.url} to {weights.path}{why}")
    if document.files:
        fetched = [state for state in document.files if state.url is not None]
        unknown = sum(state.missing_bytes is None for state in fetched)
        more = f", and {counted(unknown, 'file')} of unknown size" if unknown else ""
        known = size_in_words(sum(state.missing_bytes or 0 for state in fetched))
        _print(f"in all: about {known} to fetch{more}; archives take as much again when they are unpacked")


def _planned(state: FilesState) -> str:
    """Return what a run would do for one entry of a dataset."""
    if state.state == "present":
        return f"present in {state.path}"
    if state.url is None:
        return f"by hand: {state.by_hand}"
    size = "a file of unknown size" if state.missing_bytes is None else f"about {size_in_words(state.missing_bytes)}"
    if state.num_wanted == 1:
        return f"would fetch {size} from {state.url} to {state.path}"
    of = "" if state.num_wanted is None else f"{state.num_wanted - state.num_done} "
    return f"would fetch {of}archives ({size}) listed at {state.url} to {state.path}"


def print_download(document: Download) -> None:
    """Print what is here now, and how many of the annotated videos of each dataset."""
    for files in document.datasets:
        if files.error is None:
            of = "" if files.num_wanted == 1 else f"{files.num_done:,} of {files.num_wanted:,} archives, "
            _print(f"{files.dataset} {files.name}: {files.status}, {of}{files.path}")
    for weights in document.results:
        if weights.error is None:
            _print(f"{weights.name}: {weights.status}, {size_in_words(weights.num_bytes or 0)}, {weights.path}")
    for name, rows in document.present.items():
        for row in rows:
            _print(f"{name} {row.split}: {_counted(row)}")


def failures(document: Download) -> list[str]:
    """Return why each name that failed did; what is optional and only has to be fetched by hand has not failed."""
    failed = [
        outcome for outcome in _with_error(document) if not (_is_optional(outcome) and outcome.status == "by hand")
    ]
    return list(map(_failure, failed))


def problems(document: Download) -> list[str]:
    """Return a line on everything that is not here."""
    return [("optional, " if _is_optional(one) else "") + _failure(one) for one in _with_error(document)]


def _with_error(document: Download) -> list[FilesOutcome | WeightsOutcome]:
    outcomes: list[FilesOutcome | WeightsOutcome] = [*document.datasets, *document.results]
    return [outcome for outcome in outcomes if outcome.error is not None]


def _is_optional(outcome: FilesOutcome | WeightsOutcome) -> bool:
    return isinstance(outcome, FilesOutcome) and outcome.optional


def _failure(outcome: FilesOutcome | WeightsOutcome) -> str:
    """Return why it failed and, of several archives, how many are there all the same."""
    if isinstance(outcome, FilesOutcome) and outcome.num_wanted > 1 and outcome.status == "error":
        return f"{outcome.error}; {outcome.num_done:,} of {outcome.num_wanted:,} archives are there"
    return str(outcome.error)


def _counted(row: SplitPresence) -> str:
    """Return how many of the annotated videos are there."""
    missing = row.annotated - row.present
    videos = f"{row.present:,} of {counted(row.annotated, 'video')} {'is' if row.annotated == 1 else 'are'} there"
    few = (
        "" if row.published is None else f"; the annotations name {row.annotated:,} of the {row.published:,} published"
    )
    if missing <= 0:
        return f"{videos}{few}"
    some = f", such as {', '.join(row.examples)}; all in missing.csv" if row.examples else ""
    return f"{videos}, {missing:,} missing{some}{few}"
