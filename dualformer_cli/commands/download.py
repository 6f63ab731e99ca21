"""`dualformer download`: datasets and published weights come to this machine, verified."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.options import JsonOption, OfflineOption, VerboseOption
from dualformer_cli.errors import DownloadError

if TYPE_CHECKING:
    from dualformer_cli.data.datasets.presence import SplitPresence
    from dualformer_cli.data.fetch.datasets import DatasetState, ItemOutcome, ItemState
    from dualformer_cli.data.fetch.fetch import FetchOutcome, NamedProgress, WeightsState

LINE_SECONDS = 5.0
"""Time between two plain progress lines of one file."""
DATA = Path("data")
"""Folder of datasets where --root names no other."""


class Kind(str, Enum):
    """What --only takes."""

    annotations = "annotations"
    videos = "videos"
    weights = "weights"


class Split(str, Enum):
    """What --split takes."""

    train = "train"
    val = "val"
    test = "test"


def complete_name(incomplete: str) -> list[str]:
    """Return the datasets, and presets with published weights, that start with `incomplete`."""
    from dualformer_cli.data.datasets.catalogue import load_catalogue

    catalogue = load_catalogue()
    return [name for name in (*catalogue.datasets, *catalogue.weights) if name.startswith(incomplete)]


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", autocompletion=complete_name, help="Datasets, and presets with published weights."
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List what can be fetched, how large it is, and whether it is here.")
    ] = False,
    only: Annotated[
        list[Kind] | None,
        typer.Option(
            "--only", help="Only this of a dataset; weights are those of the presets trained on it. Can be repeated."
        ),
    ] = None,
    split: Annotated[
        list[Split] | None, typer.Option("--split", help="Only this split of a dataset. Can be repeated.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Store datasets in DIR/NAME and weights in DIR/weights. [default: ./data, and for weights the cache, "
            "where all commands look]",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched, how large it is, from where and to where.")
    ] = False,
    delete_archives: Annotated[
        bool, typer.Option("--delete-archives", help="Delete each fetched archive once it is unpacked.")
    ] = False,
    skip_certificate_check: Annotated[
        bool,
        typer.Option(
            "--skip-certificate-check",
            help="Fetch from the servers that are known for a broken certificate chain (UCF101) without checking it.",
        ),
    ] = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fetch and unpack datasets and published weights, going on where an earlier download broke off.

    What is there already is checked and not fetched again. For what lies behind a form or a login, it says what to do
    by hand; run it again afterwards. Exit code 3 means that some of it failed.
    """
    if not names and not list_:
        raise typer.BadParameter("name a dataset or a preset with weights, or see all with --list", param_hint="NAME")
    from dualformer_cli.data.datasets.catalogue import load_catalogue
    from dualformer_cli.data.fetch import datasets as datasets_module
    from dualformer_cli.data.fetch import fetch

    catalogue, data = load_catalogue(), root or DATA
    chosen = [kind.value for kind in only or ()]
    splits = [one.value for one in split] if split else None
    selection = datasets_module.select(catalogue, names or [*catalogue.datasets, *catalogue.weights], chosen)
    if list_:
        datasets = [datasets_module.describe(catalogue, name, data) for name in selection.datasets]
        return _list(datasets, fetch.list_weights(selection.weights, root=root), as_json=as_json)
    items = datasets_module.plan(catalogue, selection.datasets, data, groups=selection.groups, splits=splits)
    if dry_run:
        states = [datasets_module.look(catalogue, item) for item in items]
        return _plan(states, fetch.list_weights(selection.weights, root=root), as_json=as_json)
    with fetch_progress() as progress:
        outcomes = datasets_module.acquire(
            catalogue,
            items,
            offline=offline,
            delete_archives=delete_archives,
            skip_certificate_check=skip_certificate_check,
            progress=progress,
        )
        weights = fetch.fetch_weights(selection.weights, root=root, offline=offline, progress=progress)
    present = {name: datasets_module.compare(catalogue, name, data, splits) for name in selection.datasets}
    _report(outcomes, weights, present, as_json=as_json)


def _list(datasets: Sequence[DatasetState], weights: Sequence[WeightsState], *, as_json: bool) -> None:
    """Print what can be fetched. Addresses come last and whole, so that they can be copied."""
    from dualformer_cli.outputs.report import print_json, print_table

    if as_json:
        print_json({"datasets": [asdict(state) for state in datasets], "weights": [asdict(state) for state in weights]})
        return
    if datasets:
        head = ("name", "classes", "train", "val", "test", "size", "fetched", "state", "licence", "metric", "address")
        rows = [_dataset_row(state) for state in datasets]
        print_table(head, rows, right=[False, *[True] * 5, *[False] * 5])
    if datasets and weights:
        typer.echo()
    if weights:
        columns = ("name", "kind", "at least", "top-1", "state", "address")
        print_table(columns, [_weights_row(state) for state in weights], right=[False, False, True, True, False, False])


def _dataset_row(state: DatasetState) -> tuple[str, ...]:
    counts = [state.splits.get(split, state.splits.get(f"{split}_1")) for split in ("train", "val", "test")]
    return (
        state.name,
        str(state.num_classes),
        *("-" if count is None else str(count) for count in counts),
        _size(state.size_bytes) if state.size_bytes > 10**8 else "-",
        state.how,
        state.state,
        state.licence or "not stated",
        state.metric,
        state.homepage,
    )


def _weights_row(state: WeightsState) -> tuple[str, ...]:
    top1 = "-" if state.top1 is None else f"{state.top1:.1f}"
    return (state.name, state.kind, _size(state.minimum_bytes), top1, state.state, state.url)


def _plan(items: Sequence[ItemState], weights: Sequence[WeightsState], *, as_json: bool) -> None:
    """Print what a run would do."""
    from dualformer_cli.outputs.report import print_json

    if as_json:
        print_json({"files": [asdict(state) for state in items], "weights": [asdict(state) for state in weights]})
        return
    for item in items:
        typer.echo(f"{item.dataset} {item.name}: {_planned(item)}")
    for state in weights:
        if state.state == "present":
            typer.echo(f"{state.name}: present at {state.path}")
            continue
        why = " (the file there is broken)" if state.state == "broken" else ""
        size = _size(state.minimum_bytes)
        typer.echo(f"{state.name}: would fetch at least {size} from {state.url} to {state.path}{why}")
    if items:
        known = sum(item.missing_bytes or 0 for item in items if item.url is not None)
        unknown = sum(item.missing_bytes is None and item.url is not None for item in items)
        more = f", and {unknown} files of unknown size" if unknown else ""
        typer.echo(f"in all: about {_size(known)} to fetch{more}; archives take as much again when they are unpacked")


def _planned(item: ItemState) -> str:
    """Say what a run would do for one entry of a dataset."""
    if item.state == "present":
        return f"present in {item.path}"
    if item.url is None:
        return f"by hand: {item.by_hand}"
    size = "a file of unknown size" if item.missing_bytes is None else f"about {_size(item.missing_bytes)}"
    if item.num_wanted is None or item.num_wanted > 1:
        of = "" if item.num_wanted is None else f"{item.num_wanted - item.num_done} "
        size = f"{of}archives ({size})"
    where = "listed at" if item.num_wanted is None or item.num_wanted > 1 else "from"
    return f"would fetch {size} {where} {item.url} to {item.path}"


def _report(
    outcomes: Sequence[ItemOutcome],
    weights: Sequence[FetchOutcome],
    present: dict[str, list[SplitPresence]],
    *,
    as_json: bool,
) -> None:
    """Print what became of each name and leave with the exit code that sums it up."""
    from dualformer_cli.outputs.report import log, print_json

    if as_json:
        document = {
            "datasets": [asdict(outcome) for outcome in outcomes],
            "present": {name: [asdict(row) for row in rows] for name, rows in present.items()},
            "results": [asdict(outcome) for outcome in weights],
        }
        print_json(document)
    every: list[ItemOutcome | FetchOutcome] = [*outcomes, *weights]
    failed = [_failure(one) for one in every if one.error is not None and not _is_optional(one)]
    if not as_json and len(failed) == len(every) == 1:
        raise DownloadError(failed[0])
    for outcome in outcomes:
        if outcome.error is not None:
            log(("optional, " if outcome.optional else "") + _failure(outcome))
        elif not as_json:
            typer.echo(f"{outcome.dataset} {outcome.name}: {outcome.status}, {_of(outcome)}{outcome.path}")
    for one in weights:
        if one.error is not None:
            log(one.error)
        elif not as_json:
            typer.echo(f"{one.name}: {one.status}, {_size(one.num_bytes or 0)}, {one.path}")
    if not as_json:
        for name, rows in present.items():
            for row in rows:
                typer.echo(f"{name} {row.split}: {_counted(row)}")
    if failed:
        raise typer.Exit(1 if len(failed) == len(every) else 3)


def _is_optional(outcome: ItemOutcome | FetchOutcome) -> bool:
    """Whether nothing failed when this did: what is optional and only has to be fetched by hand."""
    return getattr(outcome, "optional", False) and outcome.status == "by hand"


def _failure(outcome: ItemOutcome | FetchOutcome) -> str:
    """Return why it failed and, of several archives, how many are there all the same."""
    num_wanted = getattr(outcome, "num_wanted", 1)
    many = f"; {getattr(outcome, 'num_done', 0)} of {num_wanted} archives are there"
    return f"{outcome.error}{many if num_wanted > 1 and outcome.status == 'error' else ''}"


def _of(outcome: ItemOutcome) -> str:
    return "" if outcome.num_wanted == 1 else f"{outcome.num_done} of {outcome.num_wanted} archives, "


def _counted(row: SplitPresence) -> str:
    """Say how many of the annotated videos are there."""
    missing = row.annotated - row.present
    few = "" if row.published is None else f"; the annotations name {row.annotated} of the {row.published} published"
    if missing <= 0:
        return f"{row.present} of {row.annotated} videos are there{few}"
    some = f", such as {', '.join(row.examples)}; all in missing.csv" if row.examples else ""
    return f"{row.present} of {row.annotated} videos are there, {missing} missing{some}{few}"


@contextmanager
def fetch_progress() -> Iterator[NamedProgress]:
    """Show how far each file is: a bar for each on a terminal, else a plain line every few seconds; on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True)
    if not (console.is_interactive and sys.stderr.isatty()):
        yield _PlainLines()
        return
    name = TextColumn("{task.description}", markup=False)
    columns = (name, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bars:
        lock = threading.Lock()

        def show(name: str, done: int, length: int | None) -> None:
            with lock:  # two files can begin at once
                task = next((task for task in bars.tasks if task.description == name), None)
                task_id = bars.add_task(name, total=length) if task is None else task.id
            bars.update(task_id, completed=done, total=length)
            if length is not None and done >= length:
                bars.remove_task(task_id)  # a list has hundreds of archives

        yield show


class _PlainLines:
    """Prints how far a file is, every few seconds."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def __call__(self, name: str, done: int, length: int | None) -> None:
        now = time.monotonic()
        if now - self._last.setdefault(name, now) < LINE_SECONDS:
            return
        self._last[name] = now
        of = "" if length is None else f" of {_size(length)}"
        typer.echo(f"{name}: {_size(done)}{of}", err=True)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:.1f} GB"
