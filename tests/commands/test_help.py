"""What --help says of every command: groups, examples that can be typed, exit codes, and no text cut off."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.commands.help import EXAMPLES, GROUPS
from dualformer_cli.config.load import known_presets

ROOT: Any = typer.main.get_command(app)
COMMANDS = {
    **{name: command for name, command in ROOT.commands.items() if not hasattr(command, "commands")},
    **{f"tokenlabel {name}": command for name, command in ROOT.commands["tokenlabel"].commands.items()},
}
WIDTHS = (40, 80, 200)


def help_of(name: str, width: int = 80) -> str:
    result = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": str(width)})
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_option_is_in_one_group(name: str, width: int) -> None:
    text = help_of(name, width)
    sections = dict(re.findall(r"^(\S[^\n]*):\n(.*?)(?=^\S|\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) <= {"Arguments", *GROUPS, "Other", "Presets"}
    options = {title: re.findall(r"^  (?:-v, )?(--[a-z0-9-]+)", body, re.MULTILINE) for title, body in sections.items()}
    listed = [option for names in options.values() for option in names]
    expected = [max(p.opts, key=len) for p in COMMANDS[name].params if p.param_type_name == "option"]
    assert sorted(listed) == sorted(expected)
    assert options["Other"] == ["--verbose"]


def test_no_parameter_has_two_groups() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", [*COMMANDS, "tokenlabel"])
def test_a_command_has_two_examples_that_can_be_typed(name: str) -> None:
    """They are parsed as the command line does it, for names of options and forms of values."""
    examples = EXAMPLES[name]
    assert len(examples) == 2
    for example in examples:
        assert len(example) <= 76
        assert f"    {example}\n" in help_of(name, 40)
        words = shlex.split(example)
        command = COMMANDS.get(" ".join(words[1:2])) or COMMANDS[" ".join(words[1:3])]
        rest = words[2:] if words[1] in COMMANDS else words[3:]
        context = command.make_context(words[1], rest)
        assert context.params


@pytest.mark.parametrize("name", ["train", "flops"])
def test_the_help_lists_the_presets_whole(name: str) -> None:
    for width in WIDTHS:
        listed = help_of(name, width).partition("Presets:\n")[2].partition("\n\n")[0]
        assert tuple(re.split(r",\s+", listed.strip())) == known_presets()


@pytest.mark.parametrize(("name", "code"), [("train", 75), ("predict", 3), ("flops", 130), ("eval", 3)])
def test_the_help_names_the_exit_codes(name: str, code: int) -> None:
    codes = " ".join(help_of(name).partition("Exit codes: ")[2].split())
    assert codes.startswith("0 done; 1 failed, with the reason in one line; 2 wrong usage; ")
    assert re.search(rf"\b{code} [a-z]", codes)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_default_that_the_help_names_is_what_the_option_has(name: str) -> None:
    text = " ".join(help_of(name, 200).split())
    for parameter in COMMANDS[name].params:
        if isinstance(parameter.default, int | float) and not isinstance(parameter.default, bool):
            described = text.partition(f" {parameter.opts[-1]} {parameter.metavar or 'N'} ")[2]
            assert re.match(rf"[^[]*\[default: {re.escape(str(parameter.default))}[],]", described), described[:200]


@pytest.mark.parametrize("width", WIDTHS)
def test_no_summary_of_a_command_is_cut_off(width: int) -> None:
    text = " ".join(help_of("", width).split())
    assert "..." not in text.partition("Commands:")[2]
    for summary in ("timeline of a long one. gradcam", "Grad-CAM on any block. flops", "store it to teach with."):
        assert summary in text


@pytest.mark.parametrize("width", [40, 80])
@pytest.mark.parametrize("name", ["", *COMMANDS, "tokenlabel"])
def test_help_fits_the_terminal_but_for_what_is_copied(name: str, width: int) -> None:
    text = help_of(name, width)
    for line in text.splitlines():
        is_word = len(line.split()) == 1  # longer than the terminal, and in one piece
        assert len(line) <= width or is_word or line.startswith(("  Page: ", "    dualformer ", "  --weights ")), line
        assert not re.search(r"<(list|int|float|str|path)|[<>]=x|x>=|<\w+\|", line), line


@pytest.mark.parametrize(
    "words", [("predict", "--preset", ""), ("eval", "--preset", "", "--data", "x.csv"), ("flops", "")]
)
def test_an_empty_preset_is_answered_with_those_there_are(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 1
    assert str(result.exception).startswith("preset '' not found")
    assert str(result.exception).endswith(f"Known presets: {', '.join(known_presets())}")
