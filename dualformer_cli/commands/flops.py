"""`dualformer flops`: what a model costs to run."""

from __future__ import annotations

from typing import Annotated

import typer

from dualformer_cli.commands.completion import complete_preset
from dualformer_cli.commands.options import (
    DeviceOption,
    JsonOption,
    OverridesOption,
    PrecisionOption,
    PresetOption,
    PrintConfigOption,
    VerboseOption,
    ViewsOption,
    model_request,
    print_document,
    show_config,
)


def flops(
    size: Annotated[
        str | None,
        typer.Argument(
            metavar="SIZE|PRESET",
            autocompletion=complete_preset,
            help="tiny, small or base, or a preset's name or YAML file.",
        ),
    ] = None,
    preset: PresetOption = None,
    views: ViewsOption = None,
    by_module: Annotated[bool, typer.Option("--by-module", help="List the cost of every stage and block.")] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Also time forward passes of one random clip on the device.")
    ] = False,
    overrides: OverridesOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    as_json: JsonOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Count multiply-adds and parameters, per view and per video, as the published table does.

    Multiply-adds are those of the network without its classifier, which adds less than 0.001%.
    """
    if (size is None) == (preset is None):
        raise typer.BadParameter("name one model: a size, or a preset", param_hint="SIZE|PRESET")
    from dualformer_cli.outputs.flops import print_flops
    from dualformer_cli.outputs.screen import log
    from dualformer_cli.tasks import flops as task
    from dualformer_cli.tasks.session import resolve

    model = model_request(
        preset if size is None else size, overrides=overrides, device=device, precision=precision, views=views
    )
    resolved = resolve(model)
    if print_config:
        show_config(resolved)
        return
    if not as_json:
        log("counting multiply-adds" + (", then timing forward passes" if latency else ""))
    request = task.FlopsRequest(model=model, by_module=by_module, latency=latency)
    print_document(task.flops(request), print_flops, as_json=as_json)
