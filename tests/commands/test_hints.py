"""What other tools have and this one has not is answered with what does the same."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.commands.usage_errors import UsageError, print_usage_error


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predict a.mp4 -o x", "No such option: -o; what is written is named with --output FOLDER, --csv FILE"),
        ("predict a.mp4 --output_dir=x", "--output_dir; what is written is named with --output"),
        ("gradcam a.mp4 -o x.gif", "; what is written is named with --out FILE.gif|mp4|png|FOLDER/"),
        ("train -o x", "No such option: -o; what is written is named with --output DIR"),
        ("download ucf101 -o x", "No such option: -o; what is written is named with --root DIR"),
        ("predict --camera 0", "No such option: --camera; a camera is an input, as in dualformer predict camera:0"),
        ("predict --input a.mp4", "inputs are named without an option, as in dualformer predict clip.mp4"),
        ("tokenlabel show -i a.mp4", "inputs are named without an option, as in dualformer tokenlabel show clip.mp4"),
        ("eval --input a.csv", "No such option: --input; a list of videos is given with --data LIST"),
        ("predict --model best.pt a.mp4", "No such option: --model; weights are given with --weights FILE"),
        ("predict a.mp4 --threshold 0.3", "No such option: --threshold; it is --min-score PERCENT"),
        ("train --epochs 3", "No such option: --epochs; it is --set train.epochs=N"),
        ("predict a.mp4 --num-workers 3", "No such option: --num-workers; it is --set runtime.num_workers=N"),
        ("predict a.mp4 --quiet", "No such option: --quiet; progress and notes are on stderr; 2> /dev/null takes them"),
        ("gradcam a.mp4 b.mp4", "Got unexpected extra argument(s) (b.mp4); one video at a time is taken"),
        ("train list.csv", "Got unexpected extra argument(s) (list.csv); a list of videos is given with --data LIST"),
        ("export a.pt --format onnnx", "Invalid value for '--format': 'onnnx' is not one of 'safetensors', 'pt2', "),
        ("clip.mp4", "No such command 'clip.mp4'; to classify it: dualformer predict clip.mp4"),
        ("predict a.mp4 --nothing", "No such option: --nothing"),
        ("nothing", "No such command 'nothing'."),
    ],
)  # fmt: skip
def test_a_spelling_of_other_tools_is_answered_with_ours(line: str, said: str) -> None:
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split()).replace("argument (", "argument(s) (")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("xyz", "no such command 'xyz'; dualformer --help lists what there is"),
        ("predict --topk-k 3", "no such option: --topk-k; did you mean --top-k?"),
        ("predict --qrc tsn", "no such option: --qrc; dualformer predict --help lists what there is"),
        ("predict --outptu labels", "no such option: --outptu; did you mean --output?"),
        ("predict --seed=x", "invalid value for '--seed': must be a whole number, got 'x'"),
        ("predict --top-k 0", "invalid value for '--top-k': must be at least 1, got '0'"),
        ("prepare a --crf 52", "invalid value for '--crf': must be at most 51, got '52'"),
        ("predict --views 3", "invalid value for --views: '3' is not CLIPSxCROPS, such as 4x3"),
        ("export", "missing argument 'WEIGHTS'; dualformer export --help lists what there is"),
        ("train list.csv", "got unexpected extra argument(s) (list.csv); a list of videos is given with --data LIST"),
        ("predict a --camera 0", "no such option: --camera; a camera is an input, as in dualformer predict camera:0"),
    ],
)
def test_what_was_typed_wrong_is_one_line_in_the_voice_of_every_other(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = CliRunner().invoke(app, line.split(), standalone_mode=False).exception
    assert isinstance(error, UsageError)
    print_usage_error(error)
    assert capsys.readouterr().err.replace("argument (", "argument(s) (") == f"dualformer: {said}\n"


def test_every_setting_that_a_hint_names_is_one() -> None:
    from dualformer_cli.commands import hints
    from dualformer_cli.config.load import known_keys

    settings = [text.partition("--set ")[2].partition("=")[0] for _, _, text in hints._HINTS if "--set " in text]
    assert len(settings) >= 4
    assert set(settings) <= set(known_keys())


def test_every_option_that_a_hint_names_is_one() -> None:
    from dualformer_cli.commands import hints

    for _, commands, text in hints._HINTS:
        for command in commands or ("predict", "train"):
            words = ["tokenlabel", command] if command in ("show", "write") else [command]
            shown = CliRunner().invoke(app, [*words, "--help"]).stdout
            named = {word.rstrip(",") for word in text.split() if word.startswith("--")}
            assert all(option in shown for option in named), (command, text)


@pytest.mark.parametrize(
    "line",
    [
        *("predict --json", "predict --json-lines", "eval --json", "train --json", "gradcam --json"),
        *("flops tiny --json", "tokenlabel show a.mp4 --json", "tokenlabel write --json"),
    ],
)
def test_a_configuration_is_no_document(line: str) -> None:
    result = CliRunner().invoke(app, [*line.split(), "--print-config"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "it prints YAML; leave --json out" in " ".join(result.stderr.split())
