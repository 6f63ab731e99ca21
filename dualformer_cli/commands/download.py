"""`dualformer download`: published weights come to this machine, verified."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.options import JsonOption, OfflineOption, VerboseOption
from dualformer_cli.errors import DownloadError

if TYPE_CHECKING:
    from dualformer_cli.data.archives import FetchOutcome, NamedProgress, WeightsState

LINE_SECONDS = 5.0
"""Time between two plain progress lines of one file."""


def complete_name(incomplete: str) -> list[str]:
    """Return the presets with published weights that start with `incomplete`."""
    from dualformer_cli.data.catalogue import load_catalogue

    return [name for name in load_catalogue().weights if name.startswith(incomplete)]


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME", autocompletion=complete_name, help="Presets with published weights."),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List what can be fetched, how large it is, and whether it is here.")
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Store below DIR/weights. [default: the cache, where all commands look]"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, from where and to where.")] = (
        False
    ),
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fetch published weights, going on where an earlier download broke off.

    What is already there is checked and not fetched again. Exit code 3 means that some of the names failed.
    """
    if not names and not list_:
        raise typer.BadParameter("name a preset with published weights, or see them with --list", param_hint="NAME")
    from dualformer_cli.data.archives import fetch_weights, list_weights

    if list_ or dry_run:
        _show(list_weights(names or None, root=root), as_json=as_json, as_plan=dry_run)
        return
    with fetch_progress() as progress:
        outcomes = fetch_weights(names or (), root=root, offline=offline, progress=progress)
    _report(outcomes, as_json=as_json)


def _show(states: Sequence[WeightsState], *, as_json: bool, as_plan: bool) -> None:
    """Print what can be fetched: as a table, or as what a run would do."""
    from dualformer_cli.outputs.report import print_json

    if as_json:
        print_json({"weights": [asdict(state) for state in states]})
    elif as_plan:
        typer.echo("\n".join(_plan(state) for state in states))
    else:
        typer.echo(_table(states))


def _plan(state: WeightsState) -> str:
    """Say what a run would do for one name."""
    if state.state == "present":
        return f"{state.name}: present at {state.path}"
    why = " (the file there is broken)" if state.state == "broken" else ""
    size = _megabytes(state.minimum_bytes)
    return f"{state.name}: would fetch at least {size} from {state.url} to {state.path}{why}"


def _table(states: Sequence[WeightsState]) -> str:
    """Lay out the list in columns. Addresses come last and whole, so that they can be copied."""
    rows = [("name", "kind", "at least", "top-1", "state", "address")]
    rows += [
        (
            state.name,
            state.kind,
            _megabytes(state.minimum_bytes),
            "-" if state.top1 is None else f"{state.top1:.1f}",
            state.state,
            state.url,
        )
        for state in states
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _report(outcomes: Sequence[FetchOutcome], *, as_json: bool) -> None:
    """Print what became of each name and leave with the exit code that sums it up."""
    from dualformer_cli.outputs.report import log, print_json

    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if as_json:
        print_json({"results": [asdict(outcome) for outcome in outcomes]})
    elif len(outcomes) == len(failed) == 1:
        raise DownloadError(failed[0].error)
    for outcome in outcomes:
        if outcome.error is not None:
            log(outcome.error)
        elif not as_json:
            typer.echo(f"{outcome.name}: {outcome.status}, {_megabytes(outcome.num_bytes or 0)}, {outcome.path}")
    if failed:
        raise typer.Exit(1 if len(failed) == len(outcomes) else 3)


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
        of = "" if length is None else f" of {_megabytes(length)}"
        typer.echo(f"{name}: {_megabytes(done)}{of}", err=True)


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.1f} MB"
