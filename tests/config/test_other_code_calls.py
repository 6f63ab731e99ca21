"""Lines of mmaction2's, typed after our commands, are answered with the lines that the page has beside them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.commands.usage_errors import UsageError

PAGE = Path(__file__).parents[2] / "dualformer_cli" / "docs" / "coming-from.md"
CONFIG = "configs/recognition/dualformer/dualformer_small_patch244_window877_ucf101.py"
MEANT = {"CONFIG": CONFIG, "FILE": "best.pth", "VIDEO": "clip.mp4", "LABELS": "names.txt", "P": "ucf101-small"}
ROWS = re.findall(
    r"^\| `(?:python|bash) ([\w/]+\.(?:py|sh) CONFIG[^`]*)`.* \| `(dualformer [^`]*)` \|$", PAGE.read_text(), re.M
)


def meant(text: str) -> str:
    """Return a line of the page with names in the place of its capitals."""
    return re.sub(r"\b[A-Z]+\b", lambda match: MEANT.get(match[0], match[0]), text)


def answer(words: list[str]) -> tuple[str, str | None]:
    """Return what is said of words after `dualformer`, and the line below it."""
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(app, words, standalone_mode=False, catch_exceptions=False)
    return caught.value.format_message(), getattr(caught.value, "line", None)


@pytest.mark.parametrize(("there", "here"), [row for row in ROWS if "..." not in row[1] and "_demo" not in row[0]])
def test_a_line_is_answered_with_the_one_beside_it_on_the_page(there: str, here: str) -> None:
    script, *words = shlex.split(meant(there))
    said, line = answer([script, *words])
    command = here.split()[1]
    assert said == f"{script} is of other code; here it is dualformer {command}. More: {PAGE}. The same line here:"
    assert set(shlex.split(str(line))) == {*shlex.split(meant(here)), *(["--gpus", "8"] if "8" in words else [])}
    said, of_ours = answer([command, *words])
    is_preset = f"{CONFIG!r} is a configuration of the published code; here it is a preset."
    assert said == f"{is_preset} More: {PAGE}. The same line here:"
    assert of_ours == line


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (
            f"predict clip.mp4 --rec {CONFIG} --rec-weights=w --label-file 'my names.txt' --out-filename a/out.avi",
            "predict clip.mp4 --preset ucf101-small --weights w --set 'data.classes=my names.txt' --save a/out.mp4",
        ),
        (
            f"train {CONFIG} --work-dir runs/a --cfg-options data.videos_per_gpu=8 model.backbone.use_checkpoint=True "
            "--launcher pytorch --validate --seed 3",
            "train --preset ucf101-small --data train.csv --data val.csv --output runs/a --set train.batch_size=8 "
            "--set model.gradient_checkpointing=True --seed 3",
        ),
        (
            f"eval {CONFIG} best.pth --out result.pkl --eval top_k_accuracy mean_class_accuracy",
            "eval --preset ucf101-small --weights best.pth --data val.csv --dump result.jsonl",
        ),
        (f"train {CONFIG} --resume-from runs/a/last.pth", "train --preset ucf101-small --data train.csv --data val.csv "
         "--resume --output runs/a"),
        (f"flops {CONFIG}", "flops ucf101-small"),
        (f"export {CONFIG} best.pth", "export best.pth"),
        ("predict slowfast_hmdb51.py best.pth clip.mp4", "predict clip.mp4 --preset hmdb51-small --weights best.pth"),
    ],
)  # fmt: skip
def test_options_of_theirs_become_ours(typed: str, line: str) -> None:
    assert answer(shlex.split(typed))[1] == f"dualformer {line}"


def test_the_nearest_preset_is_said_to_be_no_more() -> None:
    said, _ = answer(["eval", "swin_ucf101.py", "best.pth"])
    assert said.startswith(
        "'swin_ucf101.py' is a Python configuration, as mmaction2 has them; here it is a preset. More: "
    )
    assert said.endswith("The same line here, with ucf101-small, the nearest preset by size and data set:")


@pytest.mark.parametrize("typed", [["setup.py", "gone.mp4"], ["gone.mp4", "setup.py", "best.pth"]])
def test_a_script_beside_videos_is_an_input_that_fails_like_others(typed: list[str]) -> None:
    assert CliRunner().invoke(app, ["predict", *typed]).exit_code == 3


def test_a_line_that_names_our_preset_is_ours() -> None:
    error = CliRunner().invoke(app, ["gradcam", "--preset", "nothing", __file__]).exception
    assert str(error).startswith("preset 'nothing'")


def test_a_preset_of_other_code_keeps_its_own_answer() -> None:
    result = CliRunner().invoke(app, ["train", "--preset", CONFIG, "--data", "train.csv"])
    assert str(result.exception).startswith(
        f"{CONFIG!r} is a configuration of the published code; here it is the preset"
    )
