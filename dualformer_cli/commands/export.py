"""`dualformer export`: weights to give away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.options import JsonOption, VerboseOption, print_document

if TYPE_CHECKING:
    from dualformer_cli.documents.export import Export


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint of a training run.")],
    dump: Annotated[
        Path, typer.Argument(metavar="DUMP", help="What eval --views 1x1 --dump made of it and the validation list.")
    ],
    output: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="File to write.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it exists.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Pack a checkpoint's weights into a small file, whose scores are as likely as they say.

    What only training needs is left out, numbers are halved in size, and the classifier is divided by the temperature
    that fits the scores of the dump best.
    """
    from dualformer_cli.tasks.export import ExportRequest
    from dualformer_cli.tasks.export import export as run_task

    request = ExportRequest(checkpoint=checkpoint, dump=dump, output=output, overwrite=overwrite)
    print_document(run_task(request), _print_export, as_json=as_json)


def _print_export(document: Export) -> None:
    typer.echo(
        f"{document.output}: {document.num_bytes:,} bytes; temperature {document.temperature:.3f} from "
        f"{document.videos} videos, expected calibration error {document.calibration_error_before:.4f} before, "
        f"{document.calibration_error_after:.4f} after"
    )
