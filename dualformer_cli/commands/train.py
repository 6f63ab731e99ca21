"""`dualformer train`: the recipe of a preset, on your videos."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dualformer_cli.commands.completion import complete_teacher
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
    model_request,
    print_document,
    relaunched,
    show_config,
)
from dualformer_cli.errors import Stopped

if TYPE_CHECKING:
    from dualformer_cli.documents.train import StepRow, TrainEvent, TrainResult


def train(
    preset: PresetOption = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="LIST", help="List, or tar shards, to train with; the second one is validated."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Run folder.")] = Path("runs/train"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run folder's last checkpoint.")] = False,
    init_from: Annotated[
        str | None, typer.Option("--init-from", metavar="FILE|PRESET", help="Start from these video weights.")
    ] = None,
    pretrained_2d: Annotated[
        str | None, typer.Option("--pretrained-2d", metavar="FILE|timm", help="Start from inflated image weights.")
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            metavar="FILE|PRESET",
            autocompletion=complete_teacher,
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
        bool, typer.Option("--dry-run", help="Take one real step, then say what the run would need.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write the log for TensorBoard too, into the run folder.")
    ] = False,
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
    SIGUSR1 save and leave with 75; --resume goes on exactly from there.
    """
    if data is not None and len(data) > 2:
        raise typer.BadParameter("give one training list, and at most one for validation", param_hint="--data")
    if init_from is not None and pretrained_2d is not None:
        raise typer.BadParameter("choose one of --init-from and --pretrained-2d", param_hint="--init-from")
    if teacher is not None and token_labels is not None:
        raise typer.BadParameter("choose one of --teacher and --token-labels", param_hint="--teacher")
    from dualformer_cli.outputs.runs import print_preflight
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
        init_from=init_from,
        pretrained_2d=pretrained_2d,
        teacher=teacher,
        token_labels=token_labels,
        tensorboard=tensorboard,
    )
    if print_config:
        show_config(request.resolve())
        return
    if preset is None:
        raise typer.BadParameter("name the recipe, for example k400-small", param_hint="--preset")
    if gpus or cpu_processes:  # what is wrong is said before there are many processes
        task.check_request(request, dry_run=dry_run)
    if relaunched(gpus, cpu_processes):
        return
    if dry_run:
        print_document(task.preflight(request), print_preflight, as_json=as_json)
        return
    show = _Show()
    try:
        result = task.train(request, on_event=show.event)
    except Stopped as stop:
        show.line(f"stopped by {stop}; the state is saved, go on with --resume")
        raise typer.Exit(130 if stop.signum == signal.SIGINT else 75) from None
    print_document(result, _print_result, as_json=as_json)


class _Show:
    """Tells on stderr what happens in a run."""

    def __init__(self) -> None:
        self.num_steps = 0

    def line(self, text: str) -> None:
        from dualformer_cli.outputs.screen import log

        log(text)

    def event(self, event: TrainEvent) -> None:
        """Print one event, if it is worth a line."""
        from dualformer_cli.documents import train as events
        from dualformer_cli.outputs.runs import metric_line

        if isinstance(event, events.Started):
            self.num_steps = event.steps
        elif isinstance(event, events.Note):
            self.line(event.text)
        elif isinstance(event, events.StepRow):
            self.line(self._step(event))
        elif isinstance(event, events.ValidationRow):
            self.line(f"validation after epoch {event.epoch}: {metric_line(event.summary)}")
        elif event.best:
            self.line("this is the best so far")

    def _step(self, row: StepRow) -> str:
        from dualformer_cli.outputs.screen import clock

        loss = "no video could be read" if row.losses["loss"] is None else f"loss {row.losses['loss']:.4f}"
        return (
            f"epoch {row.epoch + 1}, step {row.step}/{self.num_steps}: {loss}, "
            f"lr {row.lr:.3g}, {row.clips_per_second:.1f} clips/s, "
            f"{row.data_share:.0%} waiting for data, {row.memory_mib:.0f} MiB, "
            f"{clock(row.seconds_left)} left"
        )


def _print_result(result: TrainResult) -> None:
    from dualformer_cli.outputs.runs import metric_line

    found = "" if result.validation is None else f", {metric_line(result.validation.summary)}"
    sys.stdout.write(f"{result.epochs} epochs, {result.steps} steps{found}; run folder {result.output}\n")
