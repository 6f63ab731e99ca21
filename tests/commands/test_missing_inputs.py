"""Inputs that are not there are told before a model is loaded, of every command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

import pytest
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.documents.base import json_schema
from dualformer_cli.documents.predict import Predictions
from dualformer_cli.video import inputs
from dualformer_cli.video.inputs import find_absent

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


@pytest.mark.parametrize(
    "others", ["", "--output run", "--csv t.csv", "--csv t.csv --report r.html", "--cpu-processes 2"]
)
def test_a_document_is_the_answer_where_no_input_is_there_and_has_the_names_of_any_other(others: str) -> None:
    Path("empty").mkdir()
    result = CliRunner().invoke(app, ["predict", "gone", "empty", "--json", *others.split()])
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert [(entry["path"], entry["status"], entry["error"]) for entry in document["results"]] == [
        ("gone", "error", "no such file or folder"),
        ("empty", "error", "the folder holds no videos and no numbered frames"),
    ]
    assert {*document} == {*json_schema(Predictions)["$defs"]["Predictions"]["required"]}
    assert {document[name] for name in document if name != "results"} == {None}
    written = [word for word in others.split() if "." in word]
    assert result.stderr.splitlines() == [
        "gone: no such file or folder",
        "empty: the folder holds no videos and no numbered frames",
        *(f"wrote {name}" for name in written),
    ]
    assert sorted(map(str, Path().iterdir())) == sorted(["empty", *written])
    for name in written:
        text = Path(name).read_text()
        assert re.search(r"gone.*no such file or folder", text)
        assert name != "r.html" or "No input is there: no model was loaded." in text


LISTS = {
    "names.txt": "gone.mp4\n# none\n\nempty/*.mp4\n gone2.mp4 \nshard-{0..1}.tar\n",
    "table.csv": "path,label\ngone.mp4,0\ngone2.mp4,1\n",
    "pairs.txt": "gone.mp4 0\ngone2.mp4 1\n",
}


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("names.txt", ["gone.mp4", "empty/*.mp4", "gone2.mp4", "shard-0.tar", "shard-1.tar"]),
        ("table.csv", ["gone.mp4", "gone2.mp4"]),
    ],
)
def test_what_a_list_names_and_is_not_there_is_said_first(name: str, missing: list[str]) -> None:
    Path("lists").mkdir()
    Path("lists", name).write_text(LISTS[name])
    named = [f"lists/{path}" for path in missing]
    alone = CliRunner().invoke(app, ["predict", f"@lists/{name}", "--json"])
    assert alone.exit_code == 3
    assert [result["path"] for result in json.loads(alone.stdout)["results"]] == named
    separator = "," if name.endswith(".csv") else "\n"
    Path("lists", name).write_text(LISTS[name] + f"there.mp4{separator}0\n")
    Path("lists/there.mp4").touch()
    among = CliRunner().invoke(app, ["predict", f"@lists/{name}", "--output", "run"])
    assert str(among.exception) == "a model is loaded for nothing"
    assert [line.partition(": ")[0] for line in among.stderr.splitlines() if ": " in line][: len(named)] == named


def test_of_a_list_and_a_configuration_that_is_not_there_the_configuration_is_said() -> None:
    Path("table.csv").write_text("path,label\ngone.mp4,0\n")
    result = CliRunner().invoke(app, ["predict", "@table.csv", "--preset", "none"])
    assert str(result.exception).startswith("preset 'none' not found")


def test_what_stdin_names_is_looked_for_first_and_read_once() -> None:
    result = CliRunner().invoke(app, ["predict", "-", "--json"], input="gone.mp4\n\ngone2.mp4\n")
    assert result.exit_code == 3
    assert [entry["path"] for entry in json.loads(result.stdout)["results"]] == ["gone.mp4", "gone2.mp4"]
    empty = CliRunner().invoke(app, ["predict", "-"], input="")
    assert (empty.exit_code, empty.stdout) == (3, "-\n  error: the list is empty; write one name a line\n\n")


def test_addresses_in_a_list_are_not_asked_and_those_behind_its_first_entries_are_not_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "MOST_LOOKED_FOR", 2)
    Path("list.txt").write_text("gone.mp4\ns3://bucket/gone.mp4\ngone2.mp4\n")
    assert find_absent(["@list.txt"], stdin=None) == ([("gone.mp4", "no such file or folder")], False)
    Path("list.txt").write_text("gone.mp4\ngone2.mp4\n")
    assert find_absent(["@list.txt"], stdin=None)[1]
    Path("list.txt").write_text("gone.mp4\ngone2.mp4\ngone3.mp4\n")
    problems, is_all = find_absent(["@list.txt"], stdin=None)
    assert ([name for name, _ in problems], is_all) == (["gone.mp4", "gone2.mp4"], False)


@pytest.mark.parametrize("there", ["a.mp4", "@list.txt", "-", "rtsp://host/live", "*.mp4", ".", "a.mp4#t=1,2"])
def test_where_one_may_be_there_the_model_is_loaded(there: str) -> None:
    Path("a.mp4").write_bytes(b"no video")
    Path("list.txt").write_text("a.mp4\n")
    result = CliRunner().invoke(app, ["predict", "gone.mp4", there], input="a.mp4\n")
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
