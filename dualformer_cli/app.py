"""The `dualformer` command line: it registers the commands, and here alone errors become exit codes."""

from __future__ import annotations

import errno
import logging
import os
import platform
import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from dualformer_cli.commands.completion import complete_in_bash
from dualformer_cli.commands.download import download
from dualformer_cli.commands.eval import evaluate
from dualformer_cli.commands.export import export
from dualformer_cli.commands.flops import flops
from dualformer_cli.commands.gradcam import gradcam
from dualformer_cli.commands.help import Command, CommandGroup, epilog_of, summary_of
from dualformer_cli.commands.options import PrintSchemaOption, VerboseOption, say
from dualformer_cli.commands.predict import predict
from dualformer_cli.commands.prepare import prepare
from dualformer_cli.commands.tokenlabel import show, write
from dualformer_cli.commands.train import train
from dualformer_cli.commands.usage_errors import UsageError, print_usage_error
from dualformer_cli.errors import FULL_GPU, DualFormerError, MissingError, is_out_of_memory
from dualformer_cli.system.disk import is_full
from dualformer_cli.system.exit_codes import FAILED, INTERRUPTED, NO_READER
from dualformer_cli.system.words import counted, os_reason, printable

_LOGGER = logging.getLogger("dualformer_cli")

app = typer.Typer(
    cls=CommandGroup,
    name="dualformer",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich would double its time, and read the [:i] of cuda[:i] as markup
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["-h", "--help"],
        # Typer's own flags default to None, and it loads pydantic, 0.1 s, to find out that None is no bool.
        "default_map": dict.fromkeys(("help", "install_completion", "show_completion"), False),
    },
)


def main() -> None:
    """Run the command line and leave with its exit code.

    Those of `system/exit_codes.py`, of which commands raise some as typer.Exit(SOME_FAILED), and 143 after SIGTERM. A
    bug keeps its traceback.
    """
    _open_missing_streams()
    _log_to_stderr()
    _end_in_order_on_sigterm()
    sys.exit(_end_of_app())


def _open_missing_streams() -> None:
    """Give descriptors 0 to 2 that the caller closed (`2>&-`) to nothing, before a file or a socket takes one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def _end_of_app() -> int:
    """Run the command line; turn what it raises into one line and a code."""
    try:
        return _run_app()
    except MissingError as error:
        _fail(f"{len(error.problems)} things are missing:", FAILED)
        for problem in error.problems:
            say(f"* {problem}")
        return FAILED
    except DualFormerError as error:
        if _LOGGER.isEnabledFor(logging.DEBUG):
            _LOGGER.debug("where it failed:", exc_info=error)
        return _fail(str(error), FAILED)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        _LOGGER.debug("where it failed:", exc_info=error)
        return _fail(FULL_GPU, FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except OSError as error:
        if error.errno == errno.EPIPE and _stdout_is_abandoned():
            _discard_stdout()
            return NO_READER
        if is_full(error):
            _discard_stdout()
            what = "the output" if error.filename is None else repr(error.filename)
            return _fail(f"cannot write {what}: {os_reason(error)}; free some space", FAILED)
        if error.errno in (None, errno.EPIPE):
            raise
        _LOGGER.debug("where it failed:", exc_info=error)
        place = "" if error.filename is None else f"{os.fspath(error.filename)!r}: "
        return _fail(f"{place}{os_reason(error)}; -v shows where", FAILED)


def _run_app() -> int:
    from dualformer_cli.system.status import clear_status

    code: Any = 0
    try:
        code = app(prog_name="dualformer", standalone_mode=False) or 0
    except UsageError as error:
        code = error.exit_code
        print_usage_error(error)
    except SystemExit as leave:  # how Typer ends after it has printed what completes a word
        code = leave.code or 0
    except _PastTyperError as carrier:
        raise carrier.error from None
    finally:
        clear_status()
    if sys.stdout is not None:
        sys.stdout.flush()
    return int(code)


class _PastTyperError(Exception):
    """Carries an exception past Typer, which has its own, silent exits for Ctrl-C, EOFError and EPIPE."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


def _past_typer(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (KeyboardInterrupt, EOFError, OSError) as error:
            raise _PastTyperError(error) from error

    return run


def _fail(message: str, code: int) -> int:
    say(f"dualformer: {message}")
    return code


class _StderrHandler(logging.Handler):
    """Prints on what stderr is at that moment: above a bar, while one is drawn. A traceback follows as it is."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
            say(level + record.getMessage())
            if record.exc_info:
                print(logging.Formatter().formatException(record.exc_info), file=sys.stderr, flush=True)
        except OSError:
            self.handleError(record)


def _log_to_stderr() -> None:
    _LOGGER.addHandler(_StderrHandler())
    _LOGGER.propagate = False


def _end_in_order_on_sigterm() -> None:
    from dualformer_cli.system.signals import unwind_on_sigterm

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        unwind_on_sigterm()
        # A forked worker that hangs inside a decoder would never run a Python handler: it must die of the signal.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def _stdout_is_abandoned() -> bool:
    """Whether the program that read our stdout is gone, as with `dualformer predict ... | head -1`."""
    import select

    if not hasattr(select, "poll"):  # on Windows nothing tells
        return True
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _discard_stdout() -> None:
    """Let the interpreter's last flush succeed."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(wanted: bool) -> None:
    if wanted:
        for line in _version_lines():
            typer.echo(line)
        raise typer.Exit()


def _version_lines() -> list[str]:
    """What a bug report needs: our version, Python, torch, devices, decoders, operating system."""
    from dualformer_cli.system.versions import version_of

    return [
        *(f"{name} {version_of(name)}" for name in ("dualformer", "python")),
        *_torch_lines(),
        *(f"{name} {version_of(name)}" for name in ("av", "decord", "triton", "timm", "numpy")),
        platform.platform(),
    ]


def _torch_lines() -> list[str]:
    from dualformer_cli.system.versions import version_of

    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a missing shared library
        return [f"torch {version_of('torch')}, which does not import: {printable(str(error))}"]
    lines = [
        f"torch {version_of('torch')}, CUDA {torch.version.cuda or 'none'}",
        f"cpu {counted(torch.get_num_threads(), 'thread')}",
    ]
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        lines.append(f"cuda:{index} {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, compute {gpu.major}.{gpu.minor}")
    return lines


@app.callback()
def start(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the versions and devices that matter for a bug report.",
        ),
    ] = False,
    print_schema: PrintSchemaOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Classify videos with DualFormer, a local-global stratified video transformer."""
    _LOGGER.setLevel(logging.DEBUG if verbose else logging.INFO)


def register(name: str, command: Callable[..., None], *, group: typer.Typer = app, page: str | None = None) -> None:
    """Make a function of options a command of the app, or of a group of commands in it.

    Args:
        name: of the command.
        command: the function.
        group: that it belongs to.
        page: in docs/, where it has not the command's name.
    """
    full_name = name if group is app else f"{page} {name}"
    epilog = epilog_of(full_name, page or name)
    group.command(name, cls=Command, short_help=summary_of(command), epilog=epilog)(_past_typer(command))


def register_group(name: str, help_text: str) -> typer.Typer:
    """Make a command of the app that has commands of its own."""
    group = typer.Typer(
        cls=CommandGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "default_map": {"help": False}},
    )
    app.add_typer(group, name=name, help=help_text, short_help=help_text, epilog=epilog_of(name, name))
    return group


complete_in_bash()

register("train", train)
register("eval", evaluate)
register("predict", predict)
register("gradcam", gradcam)
register("flops", flops)
register("download", download)
register("prepare", prepare)
register("export", export)

tokenlabel = register_group("tokenlabel", "See what a model says about each token, and store it to teach with.")
register("show", show, group=tokenlabel, page="tokenlabel")
register("write", write, group=tokenlabel, page="tokenlabel")
