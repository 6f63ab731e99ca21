"""`dualformer train`: the recipe of a preset, on your videos."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    relaunched,
    show_config,
)
from dualformer_cli.errors import DualFormerError

if TYPE_CHECKING:
    from dualformer_cli.engine.parallel.distributed import Ranks
    from dualformer_cli.engine.training.trainer import Trainer
    from dualformer_cli.outputs.tensorboard import TensorBoardLog


def train(
    preset: PresetOption = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="LIST", help="Training list; given twice, the second is validated."),
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
        typer.Option("--teacher", metavar="FILE|PRESET", help="Label every token by this frozen model, on the fly."),
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
    lists = dict(zip(("data.train_list", "data.validation_list"), data or (), strict=False))
    starts: dict[str, Any] = {"train.init_from": init_from, "train.pretrained_2d": pretrained_2d}
    if init_from is not None and pretrained_2d is not None:
        raise typer.BadParameter("choose one of --init-from and --pretrained-2d", param_hint="--init-from")
    cleared = [f"{key}=null" for key in starts if (init_from or pretrained_2d) and starts[key] is None]
    tokens: dict[str, Any] = {"train.teacher": teacher, "train.token_labels": token_labels}
    if teacher is not None and token_labels is not None:
        raise typer.BadParameter("choose one of --teacher and --token-labels", param_hint="--teacher")
    if teacher or token_labels:
        cleared += [f"{key}=null" for key in tokens if tokens[key] is None]
        tokens["model.token_head"] = True
    from dualformer_cli.tasks.session import ModelRequest, resolve

    model = ModelRequest(
        preset=preset,
        overrides=(*(overrides or ()), *cleared),
        device="cpu" if cpu_processes else device,
        precision=precision,
        compile=compile_,
        seed=seed,
    )
    resolved = resolve(model, {**lists, **starts, **tokens})
    if print_config:
        show_config(resolved)
        return
    if preset is None:
        raise typer.BadParameter("name the recipe, for example k400-small", param_hint="--preset")
    if (output / "checkpoints").exists() and not (resume or dry_run):
        raise DualFormerError(f"{str(output)!r} holds a run already; go on with --resume, or name another --output")
    if tensorboard:
        from dualformer_cli.outputs.tensorboard import check_tensorboard

        check_tensorboard()
    if relaunched(gpus, cpu_processes):
        return
    from dualformer_cli.engine.parallel.distributed import init_ranks  # here, so that --help does not load torch
    from dualformer_cli.engine.training.trainer import Stopped, Trainer

    with init_ranks(resolved.config.runtime.device) as ranks:
        show = _Show(ranks, output, tensorboard=tensorboard)
        trainer = Trainer(resolved, ranks, output=output, resume=resume, offline=offline, on_event=show.event)
        if dry_run:
            show.preflight(trainer, as_json=as_json)
            return
        try:
            result = trainer.run()
        except Stopped as stop:
            show.line(f"stopped by {stop}; the state is saved, go on with --resume")
            code = 130 if stop.signum == signal.SIGINT else 75
            raise typer.Exit(ranks.exit_code(code)) from None
        show.result(result, as_json=as_json)


class _Show:
    """Tells what happens, on rank 0: progress on stderr, the result on stdout, curves into the run folder."""

    def __init__(self, ranks: Ranks, output: Path, *, tensorboard: bool) -> None:
        self.is_main, self.output, self.tensorboard = ranks.is_main, output, tensorboard
        self.num_steps = 0
        self.board: TensorBoardLog | None = None

    def line(self, text: str) -> None:
        from dualformer_cli.outputs.report import log

        if self.is_main:
            log(text)

    def event(self, event: dict[str, Any]) -> None:
        """Print one event of the trainer."""
        from dualformer_cli.outputs.runs import metric_line

        kind = event["event"]
        if self.board is not None:
            self.board.add(event)
        if kind == "start":
            self.num_steps = event["steps"]
            self._open_board()
        elif kind == "note":
            self.line(event["text"])
        elif kind == "step":
            self.line(self._step(event))
        elif kind == "validation":
            self.line(f"validation after epoch {event['epoch']}: {metric_line(event)}")
            self._draw()
        elif kind == "saved" and event["best"]:
            self.line("this is the best so far")

    def preflight(self, trainer: Trainer, *, as_json: bool) -> None:
        """Print what a dry run measured."""
        from dualformer_cli.outputs.report import print_json
        from dualformer_cli.outputs.runs import print_preflight

        document = trainer.preflight()
        if self.is_main:
            (print_json if as_json else print_preflight)(document)

    def result(self, result: dict[str, Any], *, as_json: bool) -> None:
        """Print the end of a run."""
        from dualformer_cli.outputs.report import print_json
        from dualformer_cli.outputs.runs import metric_line

        if not self.is_main:
            return
        if self.board is not None:
            self.board.close()
        self._draw()
        if as_json:
            print_json(result)
            return
        validation = result["validation"]
        found = f", {metric_line(validation)}" if validation else ""
        sys.stdout.write(f"{result['epochs']} epochs, {result['steps']} steps{found}; run folder {result['output']}\n")

    def _step(self, event: dict[str, Any]) -> str:
        from dualformer_cli.outputs.report import clock

        loss = "no video could be read" if event["loss"] is None else f"loss {event['loss']:.4f}"
        return (
            f"epoch {event['epoch'] + 1}, step {event['step']}/{self.num_steps}: {loss}, "
            f"lr {event['lr']:.3g}, {event['clips_per_second']:.1f} clips/s, "
            f"{event['data_share']:.0%} waiting for data, {event['memory_mib']:.0f} MiB, "
            f"{clock(event['seconds_left'])} left"
        )

    def _open_board(self) -> None:
        if self.tensorboard:
            from dualformer_cli.outputs.tensorboard import TensorBoardLog

            self.board = TensorBoardLog(self.output / "tensorboard", self._rows())

    def _draw(self) -> None:
        from dualformer_cli.outputs.curves import write_curves

        if rows := self._rows():
            write_curves(rows, self.output / "curves.png")

    def _rows(self) -> list[dict[str, Any]]:
        """What log.jsonl has so far."""
        import json

        log = self.output / "log.jsonl"
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
