"""Option types that several commands share, and what all do with some of them."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from dualformer_cli.commands.completion import (
    complete_device,
    complete_precision,
    complete_preset,
    complete_setting,
    complete_weights,
)

if TYPE_CHECKING:
    from dualformer_cli.config.load import ResolvedConfig
    from dualformer_cli.tasks.session import ModelRequest

_Document = TypeVar("_Document")


def sample_input() -> str:
    """Return the path of the sample clip, for a command that was given no input; it is announced later."""
    from dualformer_cli.video.sample import sample_clip

    return str(sample_clip())


def say(message: str) -> None:
    """Print one escaped line on stderr."""
    from dualformer_cli.outputs.screen import log

    log(message)


def announce_loading(model: ModelRequest) -> None:
    """Say on a terminal which model is loaded, until there is a line to print; torch alone takes seconds to load."""
    from dualformer_cli.engine.parallel.placement import read_placement
    from dualformer_cli.system.status import show_status

    if read_placement(os.environ).rank == 0:
        names = (None if model.weights in ("published", "random") else model.weights, model.preset, "the model")
        show_status(f"loading {next(filter(None, names))} ...")


def announce_sample() -> None:
    """Say that the sample clip is looked at, and what it is."""
    from dualformer_cli.video.sample import SAMPLE_CREDIT

    say(f"no input was named, so this is about the sample clip of the package ({SAMPLE_CREDIT}): {sample_input()}")


def model_request(
    preset: str | None,
    *,
    weights: str | None = None,
    overrides: Sequence[str] | None = None,
    device: str | None = None,
    cpu_processes: int | None = None,
    precision: str | None = None,
    compile_: bool | None = None,
    seed: int | None = None,
    views: str | None = None,
    offline: bool = False,
) -> ModelRequest:
    """Return what the options of a command say about its model.

    Raises:
        typer.BadParameter: if --views is not CLIPSxCROPS.
    """
    from dualformer_cli.tasks.session import ModelRequest

    return ModelRequest(
        preset=preset,
        weights=weights,
        overrides=tuple(overrides or ()),
        device="cpu" if cpu_processes else device,
        precision=precision,
        compile=compile_,
        seed=seed,
        views=parse_views(views),
        offline=offline,
    )


def print_document(document: _Document | None, as_text: Callable[[_Document], object], *, as_json: bool) -> None:
    """Print what a task returned, as JSON or as text; nothing where it returned None, as on ranks other than 0."""
    from dualformer_cli.documents.base import to_json
    from dualformer_cli.outputs.json_text import print_json

    if document is not None:
        print_json(to_json(document)) if as_json else as_text(document)


def show_config(resolved: ResolvedConfig) -> None:
    """Print the configuration as YAML, with where each value comes from."""
    from dualformer_cli.config.load import to_yaml

    typer.echo(to_yaml(resolved.config, resolved.origins), nl=False)


def show_config_that_runs(model: ModelRequest) -> None:
    """Print the configuration of the model that would run: the built-in one's where the default one is not here."""
    from dualformer_cli.outputs.screen import log
    from dualformer_cli.tasks.built_in_model import resolve_what_runs
    from dualformer_cli.tasks.session import DEFAULT_PRESET

    show_config(resolve_what_runs(model, log, default=DEFAULT_PRESET))


def parse_views(views: str | None) -> tuple[int, int] | None:
    """Return clips and crops of the value of --views, such as "4x3".

    Raises:
        typer.BadParameter: if it is not CLIPSxCROPS.
    """
    if views is None:
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", views)
    if match is None:
        raise typer.BadParameter(f"{views!r} is not CLIPSxCROPS, such as 4x3", param_hint="--views")
    return int(match[1]), int(match[2])


def one_list(given: list[str] | None) -> str | None:
    """Return what --data named where a command takes one list; of two, Typer would drop the first without a word.

    Raises:
        typer.BadParameter: if there are more.
    """
    if given is not None and len(given) > 1:
        raise typer.BadParameter(f"give one list, got {len(given)}; run the command for each", param_hint="--data")
    return given[0] if given else None


def folder_or_file(text: str) -> Path:
    """Return the path of an output; a folder, whose name ends in a slash, is made where it is not there yet.

    Raises:
        typer.BadParameter: if it cannot be made.
    """
    if text.endswith(("/", os.sep)):
        try:
            os.makedirs(text, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"cannot make the folder {text!r}: {error.strerror}") from None
    return Path(text)


RETRIES = 3
"""How often a command that goes on from where it was is started again after a process of it was killed."""


def relaunched(gpus: int | None, cpu_processes: int | None, *, goes_on: bool = False) -> bool:
    """Run this command line again in several processes, if --gpus or --cpu-processes asks for it.

    Args:
        gpus: number of processes with a GPU each.
        cpu_processes: number of processes without.
        goes_on: whether the command goes on from where it was, so that it may start again when a process is killed.

    Returns:
        Whether it did, and all is done.

    Raises:
        typer.Exit: with the exit code of the run, if it is not 0.
    """
    if gpus is not None and cpu_processes is not None:
        raise typer.BadParameter("choose one of --gpus and --cpu-processes", param_hint="--gpus")
    if gpus is None and cpu_processes is None:
        return False
    from dualformer_cli.engine.parallel.launch import relaunch
    from dualformer_cli.system.status import clear_status

    clear_status()
    code = relaunch(
        gpus or cpu_processes or 1,
        device="cuda" if gpus else "cpu",
        argv=sys.argv[1:],
        retries=RETRIES if goes_on else 0,
    )
    if code:
        raise typer.Exit(code)
    return True


def set_verbose(verbose: bool) -> bool:
    """Log details, and let `app.main` print tracebacks. It never resets: -v counts before and after the command."""
    if verbose:
        logging.getLogger("dualformer_cli").setLevel(logging.DEBUG)
    return verbose


def _print_schema(wanted: bool) -> None:
    if wanted:
        from dualformer_cli.documents.preset import preset_schema
        from dualformer_cli.outputs.json_text import print_json

        print_json(preset_schema())
        raise typer.Exit()


PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME|FILE.yaml",
        autocompletion=complete_preset,
        help="Recipe of model, data and training: a preset's name or a YAML file.",
    ),
]
OverridesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=complete_setting,
        help="Change one configuration key, as in --set data.clip.num_frames=16. Can be repeated.",
    ),
]
PrintConfigOption = Annotated[
    bool,
    typer.Option("--print-config", help="Print the resolved configuration and where each value comes from, then stop."),
]
PrintSchemaOption = Annotated[
    bool,
    typer.Option(
        "--print-schema",
        callback=_print_schema,
        is_eager=True,
        help="Print the JSON Schema of presets, with which an editor completes them.",
    ),
]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        "--weights",
        metavar="FILE|NAME|hf://...|published|random",
        autocompletion=complete_weights,
        help="Weights to use: a file, those of a preset such as k400-tiny, hf://OWNER/NAME[@REVISION][:FILE], the "
        "preset's own published ones, or random ones to try things out.",
    ),
]
FontOption = Annotated[
    Path | None,
    typer.Option(
        "--font",
        metavar="FILE",
        help="Font of the labels in pictures. [default: the built-in one; one of this system for letters it lacks]",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="auto|cpu|cuda[:i]|mps|xpu",
        autocompletion=complete_device,
        help="Where to run; auto takes a CUDA GPU when there is one.",
    ),
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="auto|fp32|bf16|fp16",
        autocompletion=complete_precision,
        help="Number format of the model; auto: bf16 on GPUs that have it, in predict where a CPU gains, else fp32.",
    ),
]
CompileOption = Annotated[
    bool | None,
    typer.Option(
        "--compile/--no-compile", help="Compile the model: a slower start, perhaps faster then. [default: preset's]"
    ),
]
SeedOption = Annotated[int | None, typer.Option("--seed", metavar="N", help="Seed of every random choice.")]
ViewsOption = Annotated[
    str | None,
    typer.Option("--views", metavar="CLIPSxCROPS", help="Views per video, such as 4x3. [default: the preset's]"),
]
GpusOption = Annotated[
    int | None, typer.Option("--gpus", min=1, metavar="N", help="Run on N GPUs of this machine, one process each.")
]
CpuProcessesOption = Annotated[
    int | None, typer.Option("--cpu-processes", min=1, metavar="N", help="Run N processes on this machine's CPU.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
OfflineOption = Annotated[
    bool,
    typer.Option("--offline", envvar="DUALFORMER_OFFLINE", help="Never use the network; say what is missing instead."),
]
VerboseOption = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=set_verbose, help="Show details, and tracebacks of errors, on stderr."),
]
