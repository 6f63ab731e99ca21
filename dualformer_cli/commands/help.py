"""How a command's --help reads: its options in groups, the presets there are, examples and exit codes."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup

from dualformer_cli.errors import closest
from dualformer_cli.system.exit_codes import FAILED, INTERRUPTED, SAVED, SOME_FAILED, WRONG_USAGE

UsageError: Any = BadParameter.__mro__[1]
"""What every error of Typer's about what was typed derives from; where it lives depends on Typer's version."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Input": (
        "data",
        "from_dump",
        "compare",
        "resume",
        "change",
        "every",
        "duration",
        "list_",
        "only",
        "split",
        "dump",
    ),
    "Your own folder": (
        "labels",
        "layout",
        "class_depth",
        "multi_label",
        "group_pattern",
        "group_column",
        "group_look_alikes",
    ),
    "Conversion": ("check", "take", "transcode", "frames", "short_side", "crf", "jpeg_quality"),
    "Rendering of camera-motion": ("count", "pictures", "num_frames", "difficulty", "busy"),
    "Model": (
        "preset",
        "weights",
        "overrides",
        "views",
        "dynamic_batch",
        "half",
        "calibrate",
        "evaluation",
        "init_from",
        "pretrained_2d",
        "teacher",
        "token_labels",
        "layer",
        "list_layers",
        "class_",
        "score",
        "head",
        "print_config",
    ),
    "Output": (
        "output",
        "retry_failed",
        "out",
        "root",
        "csv",
        "srt",
        "vtt",
        "segments",
        "save",
        "features",
        "report",
        "npz",
        "format_",
        "formats",
        "show",
        "top_k",
        "min_score",
        "by_module",
        "latency",
        "deletion",
        "concatenate",
        "side_by_side",
        "fps",
        "alpha",
        "colormap",
        "font",
        "videos_per_shard",
        "log",
        "delete_archives",
        "overwrite",
        "dry_run",
        "as_json",
        "as_json_lines",
    ),
    "Machine": (
        "device",
        "precision",
        "compile_",
        "seed",
        "gpus",
        "cpu_processes",
        "workers",
        "timeout",
        "offline",
        "skip_certificate_check",
    ),
}
"""The parameters of all commands, in the order in which they are shown; what is not here comes last."""

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "train": (
        "dualformer train --preset k400-small --data train.csv --data val.csv",
        "dualformer train --preset camera-motion --output runs/motion --resume",
    ),
    "eval": (
        "dualformer eval --weights best.pt --data val.csv --report val.html",
        "dualformer eval --from-dump val.jsonl --compare other.jsonl",
    ),
    "predict": (
        "dualformer predict clip.mp4 --top-k 3",
        "dualformer predict videos/ --every 2 --csv labels.csv",
    ),
    "gradcam": (
        "dualformer gradcam clip.mp4 --out heat.mp4",
        "dualformer gradcam clip.mp4 --class archery --deletion",
    ),
    "flops": (
        "dualformer flops tiny",
        "dualformer flops k400-base --by-module --latency",
    ),
    "download": (
        "dualformer download --list",
        "dualformer download ucf101 k400-tiny",
    ),
    "prepare": (
        "dualformer prepare videos/ --split 0.8/0.2",
        "dualformer prepare ucf101 --transcode --short-side 256",
    ),
    "export": (
        "dualformer export best.pt --half --output weights.safetensors",
        "dualformer export k400-tiny --format onnx --dynamic-batch",
    ),
    "tokenlabel": (
        "dualformer tokenlabel show clip.mp4",
        "dualformer tokenlabel write --preset k400-tiny-tokenlabel --data train.csv",
    ),
    "tokenlabel show": (
        "dualformer tokenlabel show clip.mp4 --out tokens.png",
        "dualformer tokenlabel show clip.mp4 --weights best.pt --head token",
    ),
    "tokenlabel write": (
        "dualformer tokenlabel write --preset k400-tiny-tokenlabel --data train.csv",
        "dualformer tokenlabel write --preset k400-tiny-tokenlabel --dry-run",
    ),
}

EXIT_CODES = {
    0: "done",
    FAILED: "failed, with the reason in one line",
    WRONG_USAGE: "wrong usage",
    INTERRUPTED: "interrupted",
}
"""Of every command."""

MORE_EXIT_CODES: Mapping[str, Mapping[int, str]] = {
    "train": {SAVED: "stopped by a signal, to be resumed"},
    "eval": {SOME_FAILED: "done, but some videos could not be scored"},
    "predict": {SOME_FAILED: "done, but some inputs could not be used"},
    "download": {SOME_FAILED: "done, but some of it failed"},
    "prepare": {SOME_FAILED: "done, but some videos cannot be used"},
    "tokenlabel write": {SOME_FAILED: "done, but some videos have no labels"},
}


_TERMS = {
    r"^Input should be greater than or equal to ": "must be at least ",
    r"^Input should be less than or equal to ": "must be at most ",
    r"^Input should be a valid integer,.*": "must be a whole number",
    r"^Input should be a valid number,.*": "must be a number",
}
"""What the library that checks values says, as a pattern, and what is said here."""

NARROW = 60
"""Columns below which the meaning of an option stands under it, not beside it."""


class _Fitting:
    """Help as wide as the terminal; Click's own is never narrower than 50 columns."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write all of the help."""
        formatter.width = max(20, min(shutil.get_terminal_size().columns, 80) - 2)
        super().format_help(ctx, formatter)  # type: ignore[misc]  # of Typer's class beside it


class Command(_Fitting, TyperCommand):
    """A command with its options in groups, and a list of the presets where it takes one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read what was typed; an option or a configuration of other code is answered with what it is here.

        Raises:
            click.UsageError: naming what is wrong.
        """
        typed = list(args)
        _refuse_call(ctx.info_name, typed)
        try:
            rest = super().parse_args(ctx, args)
        except UsageError as error:
            raise _answered(error, typed, ctx) from None
        for parameter in self.params:
            if type(ctx.params.get(parameter.name)) in (int, float):
                _check_number(parameter, typed, ctx)
        if ctx.params.get("print_config") and (ctx.params.get("as_json") or ctx.params.get("as_json_lines")):
            raise BadParameter("it prints YAML; leave --json out", param_hint="--print-config")
        return rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then every group of options that the command has, then the presets."""
        records = {parameter.name: _record(parameter, ctx) for parameter in self.get_params(ctx)}
        arguments = {parameter.name for parameter in self.params if parameter.param_type_name == "argument"}
        takes_preset = "preset" in records
        for title, names in {"Arguments": arguments, **GROUPS, "Other": set(records)}.items():
            rows = [row for name in list(records) if name in names and (row := records.pop(name)) is not None]
            if rows:
                with formatter.section(title):
                    _write_rows(rows, formatter)
        if takes_preset:
            from dualformer_cli.config.load import known_presets

            names = ", ".join(known_presets())
            width = max(formatter.width - 2, 20)
            lines = textwrap.wrap(names, width, break_on_hyphens=False, break_long_words=False)
            formatter.write("\n".join(["", "Presets:", *(f"  {line}" for line in lines), ""]))


class CommandGroup(_Fitting, TyperGroup):
    """Commands; scripts of other code that are named in place of one are answered with the one that does the same."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that was typed.

        Raises:
            click.UsageError: if there is none.
        """
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            _refuse_call(args[0], args[1:])
            raise _answered(error, args[:1], ctx) from None


def _write_rows(rows: Sequence[tuple[str, str]], formatter: Any) -> None:
    """Write options and what they mean, beside each other where there is room."""
    if formatter.width >= NARROW:
        formatter.write_dl(rows)
        return
    for name, text in rows:
        indent = " " * (formatter.current_indent + 4)
        formatter.write(f"{' ' * formatter.current_indent}{name}\n")
        lines = textwrap.wrap(text, formatter.width - len(indent), break_long_words=False, break_on_hyphens=False)
        formatter.write("".join(f"{indent}{line}\n" for line in lines))


def _refuse_call(command: str, words: list[str]) -> None:
    """Refuse a script of mmaction2's, and its words after a command of ours, with the line that does the same here.

    Raises:
        click.UsageError: with that line.
    """
    from dualformer_cli.config.other_code_calls import call_instead

    if (answer := call_instead(command, words)) is not None:
        error = UsageError(answer.message)
        error.line = answer.line
        raise error


def _answered(error: UsageError, typed: list[str], ctx: Any) -> UsageError:
    """Return the error, or a better one where it is known what was meant."""
    from dualformer_cli.commands.hints import hint

    error.message = _in_our_words(str(error.message), getattr(error, "param", None), typed)
    if options := getattr(error, "possibilities", None):  # by the dashes all options look alike
        close = closest(error.option_name.strip("-"), (option.strip("-") for option in options))
        error.possibilities = [option for option in options if option.strip("-") == close]
    answer = hint(error.message, typed, ctx)
    return error if answer is None else UsageError(answer)


def _in_our_words(message: str, parameter: Any, typed: Sequence[str]) -> str:
    """Return the message of the library that checks values as this tool says it, with the value that was typed."""
    message = message.removeprefix("Value error, ")
    for theirs, ours in _TERMS.items():
        message = re.sub(theirs, ours, message)
    if not message.startswith("must be "):
        return message
    given = _given(parameter, typed)
    return message if given is None else f"{message}, got {given!r}"


def _given(parameter: Any, typed: Sequence[str]) -> str | None:
    """Return the value of an option as it was typed; None if it was not."""
    found = re.search(rf"(?:^|\0)(?:{'|'.join(map(re.escape, parameter.opts))})[\0=]([^\0]*)", "\0".join(typed))
    return None if found is None else found[1]


def _check_number(parameter: Any, typed: Sequence[str], ctx: Any) -> None:
    """Refuse what the library that checks values takes for a number as Python does: 1_0, nan and inf."""
    from dualformer_cli.system.numbers import number_in

    given = _given(parameter, typed)
    if given is None:
        return
    try:
        number_in(given)
    except ValueError:
        raise BadParameter(f"must be a number, got {given!r}", ctx=ctx, param=parameter) from None


def print_usage_error(error: UsageError) -> None:
    """Say on stderr in one line what was typed wrong and whose help has what is right; nothing typed is a help text."""
    from dualformer_cli.outputs.screen import log

    text = error.format_message()
    if text.startswith("Usage: "):
        print(text, file=sys.stderr)
        return
    text = text[0].lower() + text[1:] if text[1:2].islower() else text
    text = re.sub(r"( \(Possible options:|\. Did you mean) ([^?)]*)[?)]+$", r"; did you mean \2?", text).rstrip(".")
    is_answered = error.ctx is None or text.startswith("invalid value") or text.endswith("?")
    log(f"dualformer: {text}" + ("" if is_answered else f"; {error.ctx.command_path} --help lists what there is"))
    if (line := getattr(error, "line", None)) is not None:
        log(line)


def _record(parameter: Any, ctx: Any) -> tuple[str, str] | None:
    """Return what Typer says of a parameter, without its names of Python's types, its <> and its [x>=1]."""
    record = parameter.get_help_record(ctx)
    if record is None:
        return None
    option, text = record
    option = re.sub(r" <(str|path|list)\b.*>$", "", re.sub(r"<(int|float)\b.*>$", "N", option))
    text = re.sub(r"; (\d+)<=x<=(\d+)\]", r", \1 to \2]", re.sub(r"\s*\[x>=[\d.]+\]|; x>=[\d.]+", "", text))
    return re.sub(r"<(.*\|.*)>$", r"\1", option), text


def summary_of(command: Callable[..., None]) -> str:
    """Return the first sentence of a command's help, for the list of commands; Typer's own is cut off."""
    first = (inspect.getdoc(command) or "").partition("\n\n")[0].replace("\n", " ")
    return first.partition(". ")[0].rstrip(".") + "."


def epilog_of(name: str, page: str) -> str:
    r"""Return what ends a command's help: examples, exit codes and where its page is.

    `\b` keeps a paragraph as it is: examples and the page can be copied, however narrow the terminal is.

    Args:
        name: the command, as typed after `dualformer`.
        page: its page in docs/.
    """
    codes = sorted({**EXIT_CODES, **MORE_EXIT_CODES.get(name, {})}.items())
    paragraphs = [
        "\n".join(["\b", "Examples:", *(f"  {example}" for example in EXAMPLES.get(name, ()))]),
        f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in codes)}.",
        f"\b\nPage: {Path(__file__).parents[1] / 'docs' / page}.md",
    ]
    return "\n\n".join(paragraphs if name in EXAMPLES else paragraphs[1:])
