"""`dualformer train`: the recipe of a preset, on your videos."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.completion import complete_log, complete_weights_of_presets
from dualformer_cli.commands.options import (
    CompileOption,
    CpuProcessesOption,
    DeviceOption,
    GpusOption,
    JsonOption,
    OfflineOption,
    OverridesOption,
    PrecisionOption,
    PresetOption,
    PrintConfigOption,
    SeedOption,
    VerboseOption,
    announce_loading,
    model_request,
    print_document,
    relaunched,
    say,
    show_config,
)
from dualformer_cli.config.option_defaults import TRAIN_OUTPUT
from dualformer_cli.errors import Stopped
from dualformer_cli.system.exit_codes import INTERRUPTED, SAVED

if TYPE_CHECKING:
    from dualformer_cli.tasks.train import TrainRequest


def train(
    preset: PresetOption = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="LIST", help="List, or tar shards, to train with; the second one is validated."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Run folder.")] = TRAIN_OUTPUT,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")] = False,
    change: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="KEY=VALUE", help="With --resume: have another setting from here on."),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            "--init-from",
            metavar="FILE|PRESET|hf://...",
            autocompletion=complete_weights_of_presets,
            help="Start from these video weights.",
        ),
    ] = None,
    pretrained_2d: Annotated[
        str | None, typer.Option("--pretrained-2d", metavar="FILE|timm", help="Start from inflated image weights.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="FILE|PRESET",
            autocompletion=complete_weights_of_presets,
            help="Label every token by this frozen model, on the fly.",
        ),
    ] = None,
    token_labels: Annotated[
        str | None,
        typer.Option("--token-labels", metavar="DIR", help="Take the labels that tokenlabel write has stored."),
    ] = None,
    gpus: GpusOption = None,
    cpu_processes: CpuProcessesOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Measure one real pass, then say what the run would need.")
    ] = False,
    log: Annotated[
        list[str] | None,
        typer.Option(
            "--log",
            metavar="TRACKER,...",
            autocompletion=complete_log,
            help="Give the numbers to experiment trackers too: tensorboard, wandb, mlflow.",
        ),
    ] = None,
    overrides: OverridesOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = None,
    compile_: CompileOption = None,
    seed: SeedOption = None,
    offline: OfflineOption = False,
    as_json: JsonOption = False,
    print_config: PrintConfigOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Train DualFormer on a list of videos.

    The run folder gets config.yaml, log.jsonl, curves.png and checkpoints/{last,best,epoch-N}.pt. SIGTERM and
    SIGUSR1 save and leave with 75; --resume goes on exactly from there, with the folder's own configuration.
    Weights of --init-from bring the recipe that they were made with, unless --preset names another one.
    """
    if data is not None and len(data) > 2:
        raise typer.BadParameter("give one training list, and at most one for validation", param_hint="--data")
    if init_from is not None and pretrained_2d is not None:
        raise typer.BadParameter("choose one of --init-from and --pretrained-2d", param_hint="--init-from")
    if teacher is not None and token_labels is not None:
        raise typer.BadParameter("choose one of --teacher and --token-labels", param_hint="--teacher")
    from dualformer_cli.tasks import train as task

    training_list, validation_list = [*(data or ()), None, None][:2]
    request = task.TrainRequest(
        model=model_request(
            preset,
            overrides=overrides,
            device=device,
            cpu_processes=cpu_processes,
            precision=precision,
            compile_=compile_,
            seed=seed,
            offline=offline,
        ),
        training_list=training_list,
        validation_list=validation_list,
        output=output,
        resume=resume,
        changes=tuple(change or ()),
        init_from=init_from,
        pretrained_2d=pretrained_2d,
        teacher=teacher,
        token_labels=token_labels,
        log=tuple(name.strip() for value in log or () for name in value.split(",") if name.strip()),
    )
    if print_config:
        show_config(request.resolve())
        return
    if preset is None and init_from is None and not resume:
        raise _missing_recipe(training_list)
    if bool(gpus) != bool(cpu_processes):  # what is wrong is said before there are many processes
        task.check_request(request, dry_run=dry_run, gpus=gpus, cpu_processes=cpu_processes)
    if relaunched(gpus, cpu_processes):
        return
    (_dry_run if dry_run else _run)(request, as_json=as_json)


def _run(request: TrainRequest, *, as_json: bool) -> None:
    """Train, and print the end of the run."""
    from dualformer_cli.outputs.runs import print_training
    from dualformer_cli.outputs.screen import wrote
    from dualformer_cli.outputs.training_display import TrainingDisplay
    from dualformer_cli.tasks import train as task

    announce_loading(request.model)
    try:
        with TrainingDisplay() as display:
            result = task.train(request, on_event=display.event)
    except Stopped as stop:
        say(f"stopped by {stop}; the state is saved, go on with:")
        say(task.resume_command(request.output, request.log))
        raise typer.Exit(INTERRUPTED if stop.signum == signal.SIGINT else SAVED) from None
    if result is not None:
        wrote(f"config.yaml, log.jsonl, curves.png and checkpoints in {result.output}")
    print_document(result, print_training, as_json=as_json)


def _dry_run(request: TrainRequest, *, as_json: bool) -> None:
    """Try what the run needs and print it."""
    from dualformer_cli.engine.parallel.placement import read_placement
    from dualformer_cli.outputs.progress import Progress
    from dualformer_cli.outputs.runs import print_preflight
    from dualformer_cli.tasks import train as task

    silent = read_placement(os.environ).rank > 0
    with Progress("dry run", total=task.NUM_STAGES, silent=silent, interval_seconds=0, says_time_left=False) as bar:
        document = task.preflight(request, on_stage=lambda stage: bar.advance(note=stage))
        bar.expect(bar.done)
    print_document(document, print_preflight, as_json=as_json)


def _missing_recipe(training_list: str | None) -> typer.BadParameter:
    """Return the error of a run without a recipe; a folder in the place of a list is answered with its lists, too."""
    from dualformer_cli.errors import DualFormerError
    from dualformer_cli.tasks.needs import check_lists

    recipe = "name the recipe with --preset, for example k400-tiny"
    if training_list is not None and os.path.isdir(training_list):
        try:
            check_lists(training_list, offline=True)
        except DualFormerError as error:
            return typer.BadParameter(f"{error}; and {recipe}", param_hint="--data")
    return typer.BadParameter(recipe, param_hint="--preset")
