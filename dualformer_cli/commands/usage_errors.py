"""What is said where a command was typed wrong: in our words, with the value, and with what was meant if that is known.

`hints.py` knows how other tools spell things.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from typer import BadParameter

from dualformer_cli.errors import closest

UsageError: Any = BadParameter.__mro__[1]
"""What every error of Typer's about what was typed derives from; where it lives depends on Typer's version."""

_TERMS = {
    r"^Input should be greater than or equal to ": "must be at least ",
    r"^Input should be less than or equal to ": "must be at most ",
    r"^Input should be a valid integer,.*": "must be a whole number",
    r"^Input should be a valid number,.*": "must be a number",
}
"""What the library that checks values says, as a pattern, and what is said here."""


def refuse_call(command: str, words: list[str]) -> None:
    """Refuse a script of mmaction2's, and its words after a command of ours, with the line that does the same here.

    Raises:
        click.UsageError: with that line.
    """
    from dualformer_cli.config.other_code_calls import call_instead

    if (answer := call_instead(command, words)) is not None:
        error = UsageError(answer.message)
        error.line = answer.line
        raise error


def answered(error: UsageError, typed: list[str], ctx: Any) -> UsageError:
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


def check_number(parameter: Any, typed: Sequence[str], ctx: Any) -> None:
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
