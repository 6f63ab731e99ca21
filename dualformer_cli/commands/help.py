"""How a command's --help reads: its options in groups, the presets there are, examples and exit codes."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup

from dualformer_cli.commands.usage_errors import UsageError, answered, check_number, refuse_call
from dualformer_cli.system.exit_codes import FAILED, INTERRUPTED, SAVED, SOME_FAILED, WRONG_USAGE

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
        "dump",
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
        refuse_call(ctx.info_name, typed)
        try:
            rest = super().parse_args(ctx, args)
        except UsageError as error:
            raise answered(error, typed, ctx) from None
        for parameter in self.params:
            if type(ctx.params.get(parameter.name)) in (int, float):
                check_number(parameter, typed, ctx)
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
            refuse_call(args[0], args[1:])
            raise answered(error, args[:1], ctx) from None


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
