"""`dualformer predict --report`: a page of what was printed, of a handful of videos or of a run folder."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import warm
from parsed_page import Page
from typer.testing import CliRunner

import dualformer_cli
from dualformer_cli.app import app
from dualformer_cli.documents.base import to_json
from dualformer_cli.outputs import predictions_page
from dualformer_cli.tasks import built_in_model, prediction_outputs, prediction_run, session

pytestmark = pytest.mark.usefixtures("_own_environment")

Predict = Callable[..., Any]


@pytest.fixture
def predict(mini_preset: Path, mini_weights: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """The function predict(*arguments) -> the runner's result; files are decoded in this process."""
    monkeypatch.setattr(session, "WorkerPool", here_pool)

    def run(*arguments: Any) -> Any:
        model = ["--preset", str(mini_preset), "--weights", str(mini_weights)]
        return CliRunner().invoke(app, ["predict", *model, *map(str, arguments)])

    return run


@pytest.fixture
def videos(scenes: Path) -> Path:
    """A folder with a.mp4, b.mp4 and broken.mp4."""
    shutil.copytree(scenes, "videos")
    Path("videos", "broken.mp4").write_text("no video")
    return Path("videos")


def content(path: str | Path) -> dict[str, Any]:
    """What a page's script reads."""
    return dict(json.loads(Page(Path(path).read_text(encoding="utf-8")).of("script")[0]))


def told(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What a page should say of the results in a document of --json, but for pictures."""
    rows = []
    for result in document["results"]:
        row = {
            "name": result["path"],
            "link": result["path"],
            "top": [[each["index"], round(each["score"], 4)] for each in result["predictions"]],
        }
        if result["status"] == "error":
            row["error"] = result["error"]
        else:
            row["seconds"] = result["duration_seconds"]
            row["parts"] = [
                [round(each["start_seconds"], 3), round(each["end_seconds"], 3), each["index"], round(each["score"], 4)]
                for each in result["segments"]
            ]
        rows.append(row)
    return rows


def without_pictures(page: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("picture", "facts")} for row in page["videos"]]


@pytest.mark.parametrize("output", [(), ("--output", "run")])
def test_the_page_says_what_the_document_says(output: tuple[str, ...], predict: Predict, videos: Path) -> None:
    plain = predict(videos, "--every", "0.5", "--json")
    result = predict(videos, "--every", "0.5", "--report", "page.html", *output)
    assert plain.exit_code == result.exit_code == 3, result.output
    page = content("page.html")
    assert without_pictures(page) == told(json.loads(plain.stdout))
    assert ["picture" in row for row in page["videos"]] == [True, True, False]
    assert page["videos"][0]["facts"].startswith("40 frames, 25 fps, 1.6 s, ")
    assert Page(Path("page.html").read_text(encoding="utf-8")).of("b") == ["2", "1"]


def test_the_page_says_which_model_it_was_and_why(
    predict: Predict, videos: Path, monkeypatch: pytest.MonkeyPatch, mini_preset: Path
) -> None:
    monkeypatch.setattr(built_in_model, "fall_back", lambda session, *_: setattr(session, "fallback", "no network"))
    given: list[dict[str, Any]] = []
    for module in (prediction_outputs, prediction_run):
        monkeypatch.setattr(module, "write_predictions_page", lambda *_, **facts: given.append(facts) or [])
    for output in ((), ("--output", "run")):
        predict(videos / "a.mp4", "--report", "page.html", *output)
    assert [to_json(each["facts"])["preset"] for each in given] == [str(mini_preset)] * 2
    assert [each["fallback"] for each in given] == ["no network"] * 2


def test_without_every_there_is_no_timeline(predict: Predict, videos: Path) -> None:
    assert predict(videos / "a.mp4", "--report", "page.html").exit_code == 0
    assert [sorted(row) for row in content("page.html")["videos"]] == [
        ["facts", "link", "name", "picture", "seconds", "top"]
    ]


def test_the_page_in_a_run_folder_is_made_again_by_each_run(predict: Predict, videos: Path) -> None:
    result = predict(videos / "a.mp4", "--output", "run", "--report", "run/page.html", "--json")
    assert result.exit_code == 0, result.output
    assert content("run/page.html")["videos"][0]["link"] == "../videos/a.mp4"
    assert json.loads(result.stdout)["files"][-1] == "run/page.html"
    assert predict(videos / "b.mp4", "--output", "run", "--report", "run/page.html").exit_code == 0
    assert [video["link"] for video in content("run/page.html")["videos"]] == ["../videos/b.mp4"]


@pytest.mark.parametrize("output", [(), ("--output", "run")])
def test_no_file_of_a_large_report_is_replaced_unless_told_otherwise(
    output: tuple[str, ...], predict: Predict, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions_page, "VIDEOS_PER_FILE", 1)
    Path("page-3.html").write_text("precious")
    Path("page-4.html").write_text("another's")
    result = predict(videos, "--report", "page.html", *output)
    assert str(result.exception) == "'page-3.html' exists; name another file or replace it with --overwrite"
    assert (Path("page-3.html").read_text(), Path("page.html").exists()) == ("precious", False)
    assert predict(videos, "--report", "page.html", "--overwrite", *output).exit_code == 3
    names = [content(name)["videos"][0]["name"] for name in ("page.html", "page-2.html", "page-3.html")]
    assert names == ["videos/a.mp4", "videos/b.mp4", "videos/broken.mp4"]
    assert Path("page-4.html").read_text() == "another's"


def test_a_page_that_cannot_be_written_takes_neither_the_results_nor_the_other_files_along(
    predict: Predict, videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "page.html")

    monkeypatch.setattr(predictions_page, "_results", full)
    result = predict(videos / "a.mp4", "--output", "run", "--report", "page.html", "--json")
    assert result.exit_code == 1
    assert "No space left on device" in str(result.exception)
    document = json.loads(result.stdout)
    assert document["videos"]["ok"] == 1
    assert document["files"][:2] == ["run/predictions.jsonl", "run/predictions.csv"]
    assert all(Path(name).is_file() for name in document["files"])
    assert not list(Path().glob("*.html"))


def test_two_processes_write_the_page_of_one(videos: Path, mini_preset: Path, mini_weights: Path) -> None:
    pages = []
    for processes in ([], ["--cpu-processes", "2"]):
        target = Path(f"page{len(processes)}.html")
        command = [sys.executable, "-m", "dualformer_cli", "predict", "--preset", str(mini_preset), str(videos)]
        command += ["--weights", str(mini_weights), "--report", str(target), *processes]
        environ = {**os.environ, "PYTHONPATH": str(Path(dualformer_cli.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
        done = warm.run(command, env=environ)
        assert done.returncode == 3, done.stderr
        pages.append(target.read_bytes())
    assert pages[0] == pages[1]
