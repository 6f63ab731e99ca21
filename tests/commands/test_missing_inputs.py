"""Inputs that are not there are told before a model is loaded, of every command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app

pytestmark = pytest.mark.usefixtures("_own_environment", "_no_model")
TEACH = "tokenlabel write --preset k400-tiny-tokenlabel"


@pytest.fixture
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> NoReturn:
        raise AssertionError("a model is loaded for nothing")

    monkeypatch.setattr("dualformer_cli.tasks.session.WorkerPool", refuse)
    monkeypatch.setattr("dualformer_cli.engine.engine.Engine.__init__", refuse)


@pytest.mark.parametrize(
    ("line", "problems"),
    [
        ("gradcam gone.mp4", ["'gone.mp4': no such file or folder"]),
        ("tokenlabel show gone.mp4", ["'gone.mp4': no such file or folder"]),
        ("predict a.mp4 --weights gone.pt", ["weights 'gone.pt' not found; give a file, hf://"]),
        ("predict a.mp4 --set weights=gone.pt", ["weights 'gone.pt' not found; give a file, hf://"]),
        ("gradcam a.mp4 --weights k400-tinny", ["weights 'k400-tinny' not found; did you mean 'k400-tiny'? Give"]),
        ("eval --data list.csv --weights gone.pt", ["weights 'gone.pt' not found; give a file, hf://"]),
        ("export gone.pt", ["weights 'gone.pt' not found; give a file, hf://OWNER/NAME, or a preset with weights: "]),
        ("export camera-motion --calibrate gone.jsonl", ["'gone.jsonl'"]),
        ("export camera-motion --format hub --eval gone.json", ["evaluation 'gone.json' not found"]),
        ("eval --data gone.csv", ["list 'gone.csv' not found"]),
        ("eval --set data.validation_list=gone.csv", ["list 'gone.csv' not found"]),
        ("eval --data list.csv --compare gone.jsonl", ["'gone.jsonl'"]),
        ("train --preset tiny --data gone.csv --init-from no.pt", ["list 'gone.csv' not found", "(train.init_from)"]),
        (f"{TEACH} --data gone.csv --teacher no.pt", ["list 'gone.csv' not found", "(train.teacher)"]),
    ],
)  # fmt: skip
def test_what_is_named_and_not_there_is_said_first(line: str, problems: list[str]) -> None:
    Path("list.csv").write_text("path,label\na.mp4,0\n")
    Path("a.mp4").write_bytes(b"no video")
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 1
    told = list(getattr(result.exception, "problems", [str(result.exception)]))
    assert len(told) == len(problems), told
    assert all(part in text for part, text in zip(problems, told, strict=True)), told


def test_predict_names_its_inputs_where_none_is_there_and_leaves_with_3() -> None:
    Path("list.txt").write_text("a.mp4\n")
    Path("empty").mkdir()
    names = ("gone.mp4", "none/*.mp4", "empty", "list.txt", "@none.txt", "0", "gone.mp4#t=1,2", "camera:98")
    cameras = ", ".join(sorted(map(str, Path("/dev").glob("video*"))))
    result = CliRunner().invoke(app, ["predict", *names])
    assert result.exit_code == 3
    blocks = dict(block.split("\n  error: ") for block in result.stdout.strip().split("\n\n"))
    assert {name: " ".join(text.split()) for name, text in blocks.items()} == {
        "gone.mp4": "no such file or folder",
        "none/*.mp4": "the pattern matches no videos",
        "empty": "the folder holds no videos and no numbered frames",
        "list.txt": "it is text and no video; a list of videos is named as '@list.txt'",
        "@none.txt": "list 'none.txt' not found",
        "0": "no such file or folder; a camera is named as camera:0",
        "gone.mp4#t=1,2": "no such file or folder",
        "camera:98": f"no such camera; present: {cameras or 'none'}",
    }
    several = CliRunner().invoke(app, ["predict", *names, "--cpu-processes", "2"])
    assert (several.exit_code, several.stdout) == (3, result.stdout)
    lines = CliRunner().invoke(app, ["predict", "gone.mp4", "--json-lines"])
    assert lines.exit_code == 3
    assert json.loads(lines.stdout)["error"] == "no such file or folder"
    assert CliRunner().invoke(app, ["predict", "gone.mp4", "--output", "run"]).exit_code == 3
    assert not Path("run").exists()


@pytest.mark.parametrize("form", ["", "--json", "--json-lines", "--output run"])
def test_inputs_that_are_not_there_among_others_are_named_before_a_model_is_loaded(form: str) -> None:
    Path("a.mp4").write_bytes(b"no video")
    Path("empty").mkdir()
    result = CliRunner().invoke(app, ["predict", "gone.mp4", "a.mp4", "empty", "none/*.mp4", *form.split()])
    assert str(result.exception) == "a model is loaded for nothing"
    assert [line for line in result.stderr.splitlines() if ": " in line] == [
        "gone.mp4: no such file or folder",
        "empty: the folder holds no videos and no numbered frames",
        "none/*.mp4: the pattern matches no videos",
    ]
    assert result.stdout == ""


def test_of_several_processes_one_names_inputs_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.mp4").write_bytes(b"no video")
    said = []
    for rank in ("0", "1"):
        for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_RANK", rank)):
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("dualformer_cli.commands.predict._run", lambda *arguments, **options: None)
        said.append(CliRunner().invoke(app, ["predict", "gone.mp4", "a.mp4"]).stderr)
    assert said == ["gone.mp4: no such file or folder\n", ""]


def test_a_document_is_the_answer_where_no_input_is_there_and_says_so_first() -> None:
    result = CliRunner().invoke(app, ["predict", "gone", "--json"])
    assert str(result.exception) == "a model is loaded for nothing"
    assert "gone: no such file or folder" in result.stderr.splitlines()


@pytest.mark.parametrize("there", ["a.mp4", "@list.txt", "-", "rtsp://host/live", "*.mp4", ".", "a.mp4#t=1,2"])
def test_where_one_may_be_there_the_model_is_loaded(there: str) -> None:
    Path("a.mp4").write_bytes(b"no video")
    Path("list.txt").write_text("a.mp4\n")
    result = CliRunner().invoke(app, ["predict", "gone.mp4", there])
    assert "a model is loaded" in str(result.exception)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("*.mp4", "it is a pattern, and one video file or folder of frames is taken; name a2.mp4"),
        ("*.mov", "the pattern matches no videos"),
        ("videos", "the folder holds 1 video and no numbered images; name one video, such as videos/b.mp4"),
        ("@list.txt", "it is a list, and one video file or folder of frames is taken; name one of its videos"),
        ("-", "it is a list, and one video file or folder of frames is taken; name one of its videos"),
        ("camera:0", "it is a camera or an address, and one video file or folder of frames is taken; record"),
        ("https://host/a.mp4", "it is a camera or an address, and one video file or folder of frames is taken; record"),
        ("a2.mp4#t=1,2", "it is a part, and one video file or folder of frames is taken; name a2.mp4"),
        ("0", "no such file or folder; a camera is named as camera:0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", [("gradcam",), ("tokenlabel", "show")])
def test_a_command_of_one_video_says_what_it_was_given_instead(command: tuple[str, ...], name: str, said: str) -> None:
    for path in ("a10.mp4", "a2.mp4", "list.txt"):
        Path(path).write_bytes(b"something")
    Path("videos").mkdir()
    Path("videos/b.mp4").write_bytes(b"something")
    result = CliRunner().invoke(app, [*command, name])
    assert result.exit_code == 1
    assert str(result.exception).startswith(f"{name!r}: {said}")
