"""The options, files and ends of `dualformer tokenlabel show` and `write`, and training from what they wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dualformer_cli.app import app
from dualformer_cli.config.load import load_config
from dualformer_cli.engine.build import build_model
from dualformer_cli.errors import DualFormerError
from dualformer_cli.system.workers import WorkerTimeout

RUNNER = CliRunner(env={"COLUMNS": "100"})


@pytest.fixture
def command(
    _own_environment: None, mini_preset: Path, here_pool: Any, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """The function command(name, *options) -> result of `tokenlabel name` with the mini preset."""
    monkeypatch.setattr("dualformer_cli.tasks.session.WorkerPool", here_pool)
    monkeypatch.setattr("dualformer_cli.engine.training.loop.WorkerPool", here_pool)

    def run(name: str, *options: object) -> Any:
        arguments = [name] if name == "train" else ["tokenlabel", name]
        return RUNNER.invoke(app, [*arguments, "--preset", str(mini_preset), *map(str, options)])

    return run


@pytest.fixture
def listed(scenes: Path, tmp_path: Path) -> Path:
    """A list of two videos."""
    path = tmp_path / "list.csv"
    path.write_text(f"path,label\n{scenes / 'a.mp4'},1\n{scenes / 'b.mp4'},3\n")
    return path


def test_show_writes_a_picture_and_says_what_is_on_it(
    command: Any, mini_weights: Path, scenes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tokens.png"
    result = command("show", scenes / "a.mp4", "--weights", mini_weights, "--out", out, "--frames", 3)
    assert result.exit_code == 0, result.output
    assert "tokens  4 x 2 x 2 (time, height, width)" in result.stdout
    assert result.stderr.splitlines()[-1] == f"wrote {out}"
    picture = np.asarray(Image.open(out))
    assert picture.ndim == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 100
    kept = out.read_bytes()
    again = command("show", scenes / "a.mp4", "--weights", mini_weights, "--out", out)
    assert isinstance(again.exception, DualFormerError)
    assert "exists; name another file or replace it with --overwrite" in str(again.exception)
    assert out.read_bytes() == kept


def test_a_panel_shows_the_frame_in_the_middle_of_its_token(
    command: Any, mini_weights: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panels: list[Any] = []
    monkeypatch.setattr("dualformer_cli.outputs.tokens.write_sheet", lambda found, *_, **__: panels.extend(found))
    options = ("--weights", mini_weights, "--frames", 2, "--json", "--out", tmp_path / "x.png")
    frames = json.loads(command("show", scenes / "a.mp4", *options).stdout)["frames"]
    assert len(frames) == 8  # two a token: those of the first are 0 and 1, those of the last 6 and 7
    wanted = [f"frame {frames[place]}, {frames[place] / 25:.2f} s" for place in (1, 7)]
    assert [panel.caption for panel in panels] == wanted


def test_show_takes_the_token_head_where_there_is_one(
    command: Any, scenes: Path, tmp_path: Path, mini_preset: Path
) -> None:
    options = ("--weights", "random", "--json", "--overwrite", "--out", tmp_path / "x.png", scenes / "a.mp4")
    plain = json.loads(command("show", *options).stdout)
    assert plain["head"] == "classifier"
    assert sum(entry["tokens"] for entry in plain["classes"]) == 16
    assert [entry["percent"] for entry in plain["classes"]] == [entry["tokens"] * 6.25 for entry in plain["classes"]]
    assert set(plain) >= {"path", "preset", "weights", "head", "grid", "frames", "classes", "output"}
    both = ("--set", "model.token_head=true")
    assert json.loads(command("show", *options, *both).stdout)["head"] == "token"
    assert json.loads(command("show", *options, *both, "--head", "classifier").stdout)["head"] == "classifier"
    config = load_config(str(mini_preset), overrides=[both[1]], environ={}).config
    model = build_model(config.model, config.data)
    assert model.token_head is not None
    last: Any = model.token_head[-1]
    with torch.no_grad():
        for layer, index in ((last, 3), (model.classifier, 0)):  # each knows one class alone
            layer.weight.zero_()
            layer.bias.copy_(9 * torch.eye(5)[index])
    torch.save({"state_dict": model.state_dict()}, tmp_path / "two.pt")
    trained = ("--weights", tmp_path / "two.pt", *options[2:], *both)
    for head, label in (("token", "waving, both hands"), ("classifier", "running")):
        (entry,) = json.loads(command("show", *trained, "--head", head).stdout)["classes"]
        assert (entry["label"], entry["tokens"]) == (label, 16)
    result = command("show", *options, "--head", "token")
    assert "has no token head; use --head classifier" in str(result.exception)
    assert command("show", *options, "--head", "both").exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing.mp4"], r"'missing.mp4': no such file or folder"),
        (["a.mp4", "--out", "tokens.jpg"], r"--out 'tokens.jpg' must end in .png"),
        (
            ["missing.mp4", "--out", "nodir/x.png"],
            "cannot write 'nodir/x.png': folder 'nodir' does not exist; create it",
        ),
    ],
)
def test_show_says_what_is_wrong(command: Any, mini_weights: Path, options: list[str], message: str) -> None:
    result = command("show", *options, "--weights", mini_weights)
    assert isinstance(result.exception, DualFormerError)
    assert message in str(result.exception)


def test_show_prints_what_it_found_even_if_the_picture_cannot_be_written(
    command: Any, mini_weights: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise DualFormerError("no space left")

    monkeypatch.setattr("dualformer_cli.outputs.tokens.write_sheet", full)
    result = command("show", scenes / "a.mp4", "--weights", mini_weights, "--json")
    found = json.loads(result.stdout)
    assert (found["grid"], found["output"]) == ([4, 2, 2], None)
    assert isinstance(result.exception, DualFormerError)


def test_show_names_the_video_on_which_a_decoder_makes_no_progress(
    command: Any, mini_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(path: str, **sections: Any) -> None:
        raise WorkerTimeout(path, 20.0)

    monkeypatch.setattr("dualformer_cli.engine.explain.gradcam.read_views", hang)
    Path("slow.mp4").write_bytes(b"a video")
    result = command("show", "slow.mp4", "--weights", mini_weights)
    assert isinstance(result.exception, DualFormerError)
    assert str(result.exception).startswith("'slow.mp4': decoder made no progress for 20 s")


def test_write_refuses_a_folder_that_cannot_be_made_before_it_reads_list_or_teacher(
    command: Any, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    output = tmp_path / "file" / "labels"
    result = command("write", "--data", "none.csv", "--teacher", "none.pt", "--output", output)
    assert str(result.exception) == (
        f"cannot write into {str(output)!r}: {str(output.parent)!r} is not a folder; name another --output"
    )


def write_options(listed: Path, weights: Path, preset: Path, output: Path) -> list[object]:
    return [
        *("--data", listed, "--teacher", weights, "--set", f"train.teacher_preset={preset}"),
        *("--output", output),
    ]


def test_labels_are_written_and_trained_with(
    command: Any, listed: Path, mini_weights: Path, mini_preset: Path, tmp_path: Path
) -> None:
    labels = tmp_path / "labels"
    options = write_options(listed, mini_weights, mini_preset, labels)
    dry = command("write", *options, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert not labels.exists()
    assert re.search(rf"^folder +{re.escape(str(labels))}$", dry.stdout, re.MULTILINE)
    assert "wrote" not in dry.stderr
    assert "the teacher is right on" in dry.stderr
    assert "warning: chance would do as well" in dry.stderr
    result = command("write", *options, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["videos"] == {"listed": 2, "labelled": 2, "unreadable": 0}
    assert document["clips"] == 3 * 2 + 2 * 2  # 40 frames of 96x64 and 30 of 80x112, clips of 16 frames
    assert document["estimated_bytes"] == pytest.approx(document["bytes"], rel=0.1)
    assert {path.name for path in labels.iterdir()} == {
        *("header.json", "summary.json", "sheet.png", "shard-00000.bin", "shard-00000.json")
    }
    again = command("write", *options)
    assert again.exit_code == 0
    assert "videos     2 labelled of 2" in again.stdout
    assert again.stderr.splitlines()[-1] == f"wrote {labels}"
    train = ["train", "--data", listed, "--token-labels", labels, "--output", tmp_path / "run"]
    small = ["train.epochs=1", "train.batch_size=2", "train.global_batch_size=2", "train.log_every_steps=1"]
    trained = command(*train, *(word for text in small for word in ("--set", text)))
    assert trained.exit_code == 0, trained.output
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert row["loss"] == pytest.approx((row["classification_loss"] + row["token_loss"]) / 2)


def test_a_video_that_cannot_be_labelled_makes_exit_3(
    command: Any, listed: Path, mini_weights: Path, mini_preset: Path, tmp_path: Path
) -> None:
    listed.write_text(listed.read_text() + "gone.mp4,2\n")
    result = command("write", *write_options(listed, mini_weights, mini_preset, tmp_path / "labels"))
    assert result.exit_code == 3
    assert "not labelled: gone.mp4: no such file or folder" in result.stderr
    assert "videos     2 labelled of 3" in result.stdout


def test_write_prints_what_it_did_even_if_the_picture_of_it_cannot_be_written(
    command: Any, listed: Path, mini_weights: Path, mini_preset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise DualFormerError("no space left")

    monkeypatch.setattr("dualformer_cli.outputs.tokens.write_sheet", full)
    result = command("write", *write_options(listed, mini_weights, mini_preset, tmp_path / "labels"), "--json")
    assert json.loads(result.stdout)["videos"] == {"listed": 2, "labelled": 2, "unreadable": 0}
    assert str(result.exception) == "no space left"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("write", ["--data", "list.csv"], "name the model that labels"),
        ("train", ["--teacher", "a.pt", "--token-labels", "b"], "choose one of --teacher and --token-labels"),
    ],
)
def test_wrong_usage_is_told(command: Any, name: str, options: list[str], message: str) -> None:
    result = command(name, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.usefixtures("_own_environment")
def test_write_needs_a_preset() -> None:
    result = RUNNER.invoke(app, ["tokenlabel", "write", "--data", "list.csv", "--teacher", "k400-base"])
    assert result.exit_code == 2
    assert "--preset" in result.stderr


def test_stored_labels_take_the_place_of_the_presets_teacher(command: Any) -> None:
    arguments = ["train", "--preset", "k400-tiny-tokenlabel", "--token-labels", "labels", "--print-config"]
    shown = RUNNER.invoke(app, arguments).stdout
    assert "teacher: null" in shown
    assert "token_labels: labels" in shown
    plain = RUNNER.invoke(app, ["train", "--preset", "k400-tiny", "--teacher", "k400-base", "--print-config"]).stdout
    assert "token_head: true" in plain
    assert "teacher: k400-base" in plain
