"""`dualformer download`: datasets and published weights come to this machine, verified."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from dualformer_cli.commands.completion import complete_download
from dualformer_cli.commands.options import JsonOption, OfflineOption, VerboseOption, print_document
from dualformer_cli.errors import DownloadError
from dualformer_cli.system.exit_codes import FAILED, SOME_FAILED


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


def download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", autocompletion=complete_download, help="Datasets, and presets with published weights."
        ),
    ] = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List what can be fetched and whether it is here; with NAME, all about it.")
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
    from dualformer_cli.outputs.download import failures, print_download, print_list, print_plan, problems
    from dualformer_cli.outputs.progress import fetch_progress
    from dualformer_cli.outputs.screen import log
    from dualformer_cli.tasks import download as task

    request = task.DownloadRequest(
        names=tuple(names or ()),
        only=tuple(kind.value for kind in only or ()),
        splits=tuple(one.value for one in split) if split else None,
        root=root,
        delete_archives=delete_archives,
        skip_certificate_check=skip_certificate_check,
        offline=offline,
    )
    if list_:
        as_text = partial(print_list, detailed=bool(names))
        return print_document(task.list_downloads(request), as_text, as_json=as_json)
    if dry_run:
        return print_document(task.plan_download(request), print_plan, as_json=as_json)
    with fetch_progress() as progress:
        done = task.download(request, progress)
    failed, num_wanted = failures(done), len(done.datasets) + len(done.results)
    if len(failed) == num_wanted == 1 and not as_json:
        raise DownloadError(failed[0])
    print_document(done, print_download, as_json=as_json)
    for problem in problems(done):
        log(problem)
    if failed:
        raise typer.Exit(FAILED if len(failed) == num_wanted else SOME_FAILED)
