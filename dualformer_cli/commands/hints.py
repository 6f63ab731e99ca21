"""What is typed as other tools have it, and how the same is typed here: said in the place of "no such option"."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

_OUTPUTS = ("output", "out", "csv", "srt", "vtt", "segments", "save", "features", "report", "npz", "dump", "root")
"""Parameters that name what is written."""

_OUTPUT_SPELLINGS = (
    "-o",
    "-O",
    "--out",
    "--output",
    "--outdir",
    "--out-dir",
    "--output-dir",
    "--save-dir",
    "--save-path",
)
_INPUT_SPELLINGS = ("-i", "--input", "--inputs", "--video", "--videos", "--source", "--src", "--file", "--path")
_TAKING_INPUTS = ("predict", "gradcam", "show")

_HINTS: tuple[tuple[tuple[str, ...], tuple[str, ...], str], ...] = (
    (_INPUT_SPELLINGS, _TAKING_INPUTS, "inputs are named without an option, as in dualformer {command} clip.mp4"),
    (_INPUT_SPELLINGS, ("train", "eval", "write"), "a list of videos is given with --data LIST"),
    (("--camera", "--webcam", "--cam"), ("predict",), "a camera is an input, as in dualformer predict camera:0"),
    (
        ("-m", "-w", "--model", "--ckpt", "--model-path"),
        (*_TAKING_INPUTS, "eval"),
        "weights are given with --weights FILE",
    ),
    (("--threshold", "--thresh", "--conf", "--score-thr"), ("predict",), "it is --min-score PERCENT"),
    (("-k", "--topk", "--top"), ("predict",), "it is --top-k N"),
    (("--batch-size", "-b", "--bs"), ("train",), "it is --set train.batch_size=N"),
    (("--epochs", "--num-epochs"), ("train",), "it is --set train.epochs=N"),
    (("--lr", "--learning-rate"), ("train",), "it is --set train.lr=X"),
    (("--name", "--classes", "--num-classes"), ("train",), "classes are those of the list"),
    (("-j", "--workers", "--num-workers"), (), "it is --set runtime.num_workers=N"),
    (("--gpu", "--cuda", "--device-id"), (), "it is --device cuda:0, and --gpus N for several"),
    (("-q", "--quiet", "--silent"), (), "progress and notes are on stderr; 2> /dev/null takes them away"),
)
"""Spellings, the commands that they are typed with (none: all), and what is said."""

_EXTRA = {
    **dict.fromkeys(("train", "eval", "write"), "a list of videos is given with --data LIST"),
    **dict.fromkeys(("gradcam", "show"), "one video at a time is taken; a loop of the shell takes several"),
    **dict.fromkeys(("flops", "export"), "one model at a time is taken"),
}
"""What is said of a word too many."""


def hint(message: str, typed: Sequence[str], ctx: Any) -> str | None:
    """Return what to say in the place of a usage error; None where nothing better is known.

    Args:
        message: of the error.
        typed: the words of the command line that it is about.
        ctx: Typer's context of the command.
    """
    from dualformer_cli.config.other_code import what_instead
    from dualformer_cli.video.suffixes import is_video_name

    names = [word.partition("=")[0] for word in typed]
    wrong = [name for name in names if name in message]
    answers = [_option_hint(name, ctx) for name in wrong if message.startswith("No such option")]
    answers += [what_instead(name) for name in wrong]
    if message.startswith("Got unexpected extra argument") and ctx.info_name in _EXTRA:
        answers.append(f"{message.rstrip('.')}; {_EXTRA[ctx.info_name]}")
    if message.startswith("No such command") and typed and (is_video_name(typed[0]) or os.path.exists(typed[0])):
        answers.append(f"{message.rstrip('.')}; to classify it: dualformer predict {typed[0]}")
    return next(filter(None, answers), None)


def _option_hint(name: str, ctx: Any) -> str | None:
    spelling = name.replace("_", "-")
    if spelling in _OUTPUT_SPELLINGS and (written := _outputs(ctx)):
        return f"No such option: {name}; what is written is named with {written}"
    for spellings, commands, text in _HINTS:
        if spelling in spellings and (not commands or ctx.info_name in commands):
            return f"No such option: {name}; {text.format(command=ctx.command_path.partition(' ')[2])}"
    return None


def _outputs(ctx: Any) -> str:
    """Return the options of a command that name what it writes."""
    options = {parameter.name: parameter for parameter in ctx.command.params}
    return ", ".join(f"{options[name].opts[0]} {options[name].metavar}" for name in _OUTPUTS if name in options)
