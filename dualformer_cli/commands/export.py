"""`dualformer export`: a model for other programs, or for the Hub."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.completion import complete_weights
from dualformer_cli.commands.options import (
    JsonOption,
    OfflineOption,
    OverridesOption,
    PresetOption,
    VerboseOption,
    announce_loading,
    model_request,
    print_document,
)
from dualformer_cli.system.words import counted

if TYPE_CHECKING:
    from dualformer_cli.documents.export import Export
    from dualformer_cli.engine.engine import Engine


class _Format(str, Enum):
    safetensors = "safetensors"
    pt2 = "pt2"
    onnx = "onnx"
    hub = "hub"


def export(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            autocompletion=complete_weights,
            help="Checkpoint or other file of weights, hf://OWNER/NAME, or a preset with published weights.",
        ),
    ],
    format_: Annotated[
        _Format,
        typer.Option(
            "--format",
            help="safetensors: weights alone. pt2, onnx: the computation too. hub: a folder to upload.",
        ),
    ] = _Format.safetensors,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE|DIR", help="File to write, or folder of --format hub. [default: NAME.FORMAT]"
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Let a graph take any number of clips at a time, not just one.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store numbers in half precision.")] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            metavar="DUMP",
            help="Make scores as likely as they say on this dump of eval --views 1x1 --dump.",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            "--eval", metavar="FILE.json", help="What eval --json printed, for the model card of --format hub."
        ),
    ] = None,
    preset: PresetOption = None,
    overrides: OverridesOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write a model for other programs, with its classes, configuration, normalisation and views inside.

    What only training needs is left out. The file is loaded again, and the largest difference between its logits and
    the model's is printed.
    """
    from dualformer_cli.outputs.progress import fetch_progress
    from dualformer_cli.outputs.screen import log, wrote
    from dualformer_cli.tasks.export import ExportRequest
    from dualformer_cli.tasks.export import export as run_task

    def on_engine(engine: Engine) -> None:
        note = "; tracing takes a minute or two" if format_ in (_Format.pt2, _Format.onnx) else ""
        log(f"{engine.describe().model}, to {format_.value}{note}")

    request = ExportRequest(
        model=model_request(preset, weights=weights, overrides=overrides, offline=offline),
        format=format_.value,
        output=output,
        dynamic_batch=dynamic_batch,
        half=half,
        calibrate=calibrate,
        evaluation=evaluation,
        overwrite=overwrite,
    )
    announce_loading(request.model)
    document = run_task(request, fetching=fetch_progress, on_engine=on_engine)
    print_document(document, _print_export, as_json=as_json)
    wrote(document.output)


def _print_export(document: Export) -> None:
    from dualformer_cli.outputs.runs import print_rows

    clips = "any number of clips" if document.input_shape[0] is None else "one clip"
    size = "x".join(map(str, document.input_shape[2:]))
    difference, largest = document.largest_difference, document.largest_logit
    rows = [
        ("model", f"{counted(document.num_classes, 'class')}, {clips} of {size}, {document.num_bytes:,} bytes"),
        ("loaded again", f"logits differ by {difference:.2g} at most, the largest is {largest:.3g}"),
    ]
    if (found := document.calibration) is not None:
        before, after = found.calibration_error_before, found.calibration_error_after
        rows += [
            ("temperature", f"{found.temperature:.3f}, from {counted(found.videos, 'video')}"),
            ("calibration error", f"{before:.2f}% before, {after:.2f}% after"),
        ]
    print_rows(rows, None)
